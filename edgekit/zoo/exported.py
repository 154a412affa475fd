"""`exported.pt2`: a model from an archive written by torch.export.save.

torch.export.load was not made for files from strangers: it unpickles what is not a plain tensor, retries a
refused pickle without the safe reader, evaluates symbolic expressions and generates Python from the graph's
names. `unsafe_parts` reads the archive through torch's own reader first and lets pass only what does none of
that: raw tensors, static shapes, operators of torch.ops and plain names. Everything else needs `trust`.

Two extra files of the archive are read where it has them: `preprocessing.json` (some of a Preprocessing's
fields; ImageNet's normalisation without it) and `labels.txt` (one class name a line).
"""

from __future__ import annotations

import io
import json
import logging
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edgekit.errors import UnknownModelError, UsageError, WeightsError
from edgekit.files import escaped, user_path
from edgekit.zoo.checkpoint import file_sha256
from edgekit.zoo.model import Model
from edgekit.zoo.weights import preprocessing_from

_HARMLESS = re.compile(
    r"(archive_format|archive_version|version|byteorder|\.data/.*|extra/.*|models/\w+\.json)$"
)
_RAW = re.compile(r"data/(weights/weight_\d+|constants/tensor_\d+)$")
_CONFIG = re.compile(r"data/(weights|constants)/\w+_config\.json$")
_SAMPLES = re.compile(r"data/sample_inputs/\w+\.pt$")
# aten.from_file opens, and can create, a file of any name.
_OPERATOR = re.compile(
    r"torch\.ops\.(aten\.(?!from_file)|torchvision\.|prims\.|quantized_decomposed\.)\w+(\.\w+)?$"
    r"|torch\.ops\.higher_order\.wrap_with_(set_grad_enabled|autocast)$|_operator\.getitem$"
)
_CONTAINERS = (None, "builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict")
_IDENTIFIER = re.compile(r"[A-Za-z_]\w*$")
_PATH = re.compile(r"[\w.]*$")
_NAME_KEYS = ("name", "parameter_name", "buffer_name", "tensor_constant_name", "user_input_name")


class ExportedModule(nn.Module):
    """An exported program as a module. Its mode was fixed when it was exported.

    `exported` is the program itself, whose nodes still name the modules they came from.
    """

    def __init__(self, exported: torch.export.ExportedProgram) -> None:
        super().__init__()
        self.exported = exported
        self.program = exported.module(check_guards=False)
        self.training = False

    def forward(self, image: torch.Tensor) -> Any:
        return self.program(image)

    def train(self, mode: bool = True) -> ExportedModule:
        if mode:
            raise UsageError("exported model: cannot be put in training mode: it computes as it was exported")
        return self


def load_exported(
    spec: str, weights: str, num_classes: int | None, resolution: int | None, trust: bool
) -> Model:
    """The model in an archive.

    Raises:
        UnknownModelError: no such file.
        WeightsError: not an archive, or parts that could run code, without `trust`.
        UsageError: an archive that does not take one picture, or an argument it cannot honour.
    """
    path = user_path(spec)
    if not path.is_file():
        raise UnknownModelError(f"{path}: no such file: an archive written by torch.export.save")
    if weights != "auto":
        raise WeightsError(f"{path}: holds its own weights, '{weights}' cannot be put in: auto")
    if num_classes is not None:
        raise UsageError(
            f"{path}: its number of classes was fixed when it was exported: leave num_classes out"
        )
    data = path.read_bytes()
    if not trust and (parts := _unsafe(data, path)):
        more = f" and {len(parts) - 3} more" if len(parts) > 3 else ""
        raise WeightsError(
            f"{path}: could run code when it is loaded ({'; '.join(parts[:3])}{more}): "
            "an export with static shapes and tensors only, or --trust if it is yours"
        )
    program, extra = _load(data, path)
    channels, side = _input(program, path)
    if resolution not in (None, side):
        raise UsageError(
            f"{path}: was exported for {side} px, {resolution} were asked for: leave it out, or export again"
        )
    record = {"kind": "file", "source": str(path), "sha256": file_sha256(path), "untrained": False}
    return Model(
        escaped(path.stem),
        "exported",
        ExportedModule(program).eval(),
        preprocessing_from(_settings(extra, path), side, spec),
        tuple(extra["labels.txt"].splitlines()) or None,
        record,
        (1, channels, side, side),
    )


def _unsafe(data: bytes, path: Path) -> list[str]:
    try:
        return unsafe_parts(data)
    except (RuntimeError, ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise WeightsError(
            f"{path}: cannot be read ({_line(error)}): an archive of torch.export.save"
        ) from error


def unsafe_parts(data: bytes) -> list[str]:
    """What in an archive could run code while torch.export.load reads it; empty when nothing could."""
    # torch's reader, not zipfile: two readers can disagree about what a crafted archive holds.
    reader = torch._C.PyTorchFileReader(io.BytesIO(data))
    found: list[str] = []
    records = reader.get_all_records()
    if not any(r.startswith("models/") for r in records):
        found.append("an old or foreign layout")
    for record in records:
        if _SAMPLES.match(record):
            if not _plain_tensors(reader.get_record(record)):
                found.append(f"{record} holds pickled objects")
        elif _CONFIG.match(record):
            config = json.loads(reader.get_record(record))["config"]
            for name, row in config.items():
                if row["use_pickle"] or not re.match(r"(weight|tensor)_\d+$", row["path_name"]):
                    found.append(f"{name} is pickled")
        elif record.startswith("models/") and _HARMLESS.match(record):
            found += _unsafe_program(json.loads(reader.get_record(record)))
        elif not (_RAW.match(record) or _HARMLESS.match(record)):
            found.append(record)
    return list(dict.fromkeys(found))


def _plain_tensors(data: bytes) -> bool:
    try:
        torch.load(io.BytesIO(data), weights_only=True)
    except Exception:
        # Any refusal counts: torch would retry without the safe reader.
        return False
    return True


def _unsafe_program(program: dict[str, Any]) -> Iterator[str]:
    if program.get("guards_code"):
        yield "guards are Python code"
    if program.get("range_constraints"):
        yield "shapes are symbolic"
    yield from _unsafe_values(program)


def _unsafe_values(value: Any, key: str = "") -> Iterator[str]:
    """Strings that torch would evaluate, look up or paste into generated code, anywhere in the program."""
    if isinstance(value, dict):
        for name, item in value.items():
            if name in ("metadata", "as_string"):  # text; torch quotes it
                continue
            if isinstance(item, str):
                yield from _unsafe_string(name, item)
            else:
                yield from _unsafe_values(item, name)
    elif isinstance(value, list):
        for item in value:
            if isinstance(item, str):
                yield from _unsafe_string(key, item)
            else:
                yield from _unsafe_values(item, key)


def _unsafe_string(key: str, text: str) -> Iterator[str]:
    if key == "target" and not _OPERATOR.match(text):
        yield f"calls {text[:40]}"
    elif key == "expr_str":
        yield "shapes are symbolic"
    elif key in _NAME_KEYS and not _PATH.match(text):
        yield f"the name {text[:40]!r}"
    elif key == "forward_arg_names" and not _IDENTIFIER.match(text):
        yield f"the argument {text[:40]!r}"
    elif key == "as_custom_obj":
        yield "custom objects"
    elif key in ("in_spec", "out_spec") and text:
        yield from _unsafe_containers(json.loads(text), arguments=key == "in_spec")


def _unsafe_containers(value: Any, arguments: bool) -> Iterator[str]:
    """Containers torch would import a type for, or argument names it would paste into code."""
    if isinstance(value, list):
        for item in value:
            yield from _unsafe_containers(item, arguments)
    elif isinstance(value, dict):
        if value.get("type") not in _CONTAINERS:
            yield f"a container {str(value['type'])[:40]}"
        if arguments and value.get("context") not in (None, "null", "[]"):
            yield "arguments by name"
        yield from _unsafe_containers(value.get("children_spec", []), arguments)


def _settings(extra: dict[str, str], path: Path) -> dict[str, Any] | None:
    try:
        given = json.loads(extra["preprocessing.json"] or "null")
    except ValueError as error:
        raise UsageError(f"{path}: its preprocessing.json is not JSON ({_line(error)}): an object") from error
    if given is not None and not isinstance(given, dict):
        raise UsageError(f"{path}: its preprocessing.json holds {type(given).__name__}: an object")
    return given


def _load(data: bytes, path: Path) -> tuple[torch.export.ExportedProgram, dict[str, str]]:
    logger = logging.getLogger("torch.export")
    before, logger.disabled = logger.disabled, True  # it logs a traceback before it raises
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # registers the operators of programs that were quantized
            from torch.ao.quantization.fx import _decomposed  # noqa: F401

            extra = {"preprocessing.json": "", "labels.txt": ""}  # torch fills a dict that is not empty
            return torch.export.load(io.BytesIO(data), extra_files=extra), extra
    except Exception as error:
        # The deserializer asserts, looks up and evaluates: it can raise anything on a damaged archive.
        raise WeightsError(
            f"{path}: cannot be read ({_line(error)}): an archive of this torch's export"
        ) from error
    finally:
        logger.disabled = before


def _input(program: Any, path: Path) -> tuple[int, int]:
    """Channels and side of the one picture the program takes."""
    names = program.graph_signature.user_inputs
    nodes = [n for n in program.graph.nodes if n.op == "placeholder" and n.name in names]
    shapes = [tuple(n.meta["val"].shape) for n in nodes if isinstance(n.meta.get("val"), torch.Tensor)]
    if len(nodes) != 1 or len(shapes) != 1 or len(shapes[0]) != 4:
        raise UsageError(f"{path}: takes {shapes or 'no tensor'}: one picture (1, C, H, W)")
    batch, channels, height, width = shapes[0]
    if isinstance(batch, int) and batch != 1:
        raise UsageError(f"{path}: was exported for batches of {batch}: export it with batch 1")
    if channels != 3 or height != width or not isinstance(height, int):
        raise UsageError(f"{path}: takes {shapes[0]}: one square RGB picture (1, 3, H, H)")
    return channels, height


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split())[:160]
    return text or type(error).__name__
