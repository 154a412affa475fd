"""What a report says of a target beyond its figures, by its name: its own words, see edgekit.targets."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

from edgekit.targets import TARGETS, Target
from edgekit.targets.words import Words

FLOAT = ("float32", "float16")


def of(name: str) -> Target:
    """The target of a name; one that this version does not know is described by its family."""
    kin = (target for target in TARGETS.values() if name.startswith(f"{target.family}-"))
    return TARGETS.get(name) or replace(next(kin, next(iter(TARGETS.values()))), name=name)


def words(name: str) -> Words:
    return of(name).words


def runtime_name(text: str) -> str:
    """'ONNX Runtime 1.31.1' for 'onnxruntime 1.31.1'."""
    first, _, rest = text.partition(" ")
    spoken = {target.words.package: target.words.runtime for target in TARGETS.values()}
    return f"{spoken.get(first.lower(), first)} {rest}".strip()


def setting(value: Any) -> str:
    """What a runtime was told, as a word."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def untimed(name: str, others_timed: bool) -> str:
    """Why there is no latency."""
    return words(name).untimed or (
        "this target was not timed" if others_timed else "the latency stage did not run"
    )


def load(name: str, file: str, signature: str, tensor: str) -> tuple[str, list[str]]:
    """How a model is loaded: the language of the lines, and the lines.

    Args:
        file: name of the model in its bundle.
        signature, tensor: names of the signature and of the input tensor in the file.
    """
    at, loading = PurePosixPath(file), words(name).loading
    folder = str(at.parent) if str(at.parent) != "." else file
    names = {"path": file, "folder": folder, "input": tensor, "signature": signature}
    return loading.language, loading.text(file=file, **{k: json.dumps(v) for k, v in names.items()})
