"""What the benchmarks against other tools share: arguments, images, questions to a file, results.

Enters: files, images and the eager float logits. Leaves: plain dicts, which are the rows of the JSON.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import platform
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import bars
import numpy as np
import peers
import seeded
import torch
from torch import nn

sys.path.insert(0, str(peers.ROOT))  # this checkout, whatever is installed

from edgekit.data import ImageSet, open_images
from edgekit.data.shapes import CLASS_NAMES
from edgekit.device.host import machine
from edgekit.device.profiles import Profile
from edgekit.runtimes import audit, runtime
from edgekit.tasks.classification import compare_logits

LATENCY_PROFILE = Profile("benchmark", 5, 60, 4.0, 12.0, 10, 0.5)  # 5 fresh processes, at least 300 samples
RESULTS = peers.HERE / "results"
WORK = peers.ROOT / "build" / "benchmarks"

Batches = Callable[[], Iterable[np.ndarray]]  # float32 (n, C, H, W), preprocessed


def tell(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)


def parser(
    document: str, *, models: Sequence[str], about: str, quick: str, images: int, calibration: int
) -> argparse.ArgumentParser:
    """The arguments that every script takes; about and quick: what --models and --quick mean in this one."""
    made = argparse.ArgumentParser(description=document, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--models", nargs="+", default=list(models), help=about)
    made.add_argument("--quick", action="store_true", help=f"plumbing check: {quick}")
    made.add_argument("--images", type=int, default=images, help="evaluation images")
    made.add_argument("--calibration", type=int, default=calibration, help="calibration images")
    made.add_argument("--work", type=Path, default=WORK, help="weights, images and files are kept here")
    made.add_argument("--out", type=Path, default=RESULTS)
    return made


def add_peers_python(made: argparse.ArgumentParser) -> None:
    made.add_argument("--peers-python", required=True, help="python of the environment that holds the peers")


def settings(options: argparse.Namespace, *apart: str) -> dict[str, str]:
    """What rows of an unfinished run depend on; `apart`: further arguments that change no row."""
    return {k: str(v) for k, v in vars(options).items() if k not in ("models", "out", "work", *apart)}


def stored_images(split: str, count: int, preprocessing: Any, work: Path) -> ImageSet:
    """The first pictures of a split of the embedded set, generated once."""
    shapes = peers.ROOT / "edgekit" / "data" / "shapes.py"
    key = seeded.content_key(shapes, split, count, preprocessing.resolution)
    path = work / "embedded" / f"{split}-{count}-{key}.npy"
    labels = path.with_suffix(".labels.npy")
    if not (path.exists() and labels.exists()):
        tell(f"  generate {count} {split} images")
        fresh = open_images("embedded", split, count, preprocessing)
        path.parent.mkdir(parents=True, exist_ok=True)
        seeded.save_array(labels, fresh.labels)
        seeded.save_array(path, fresh.pixels(0, count))
    return ImageSet(f"embedded {split}", CLASS_NAMES, np.load(path), np.load(labels), preprocessing)


def eager_logits(module: nn.Module, batches: Batches) -> np.ndarray:
    """The float reference: PyTorch itself, (N, K)."""
    with torch.inference_mode():
        return torch.cat([module(torch.from_numpy(batch)) for batch in batches()]).numpy()


def describe(path: Path) -> dict[str, Any]:
    """What a file is: size, operators, partitions."""
    facts, delegated = audit.audit(path), audit.delegation(path)
    return {
        "size_bytes": facts.size_bytes,
        "operators": len(facts.ops),
        "int8_ops_share": facts.int8_ops_share,
        "histogram": facts.histogram,
        "partitions": delegated.partitions,
        "undelegated_ops": [str(op) for op in delegated.undelegated_ops],
        "transposes": len(facts.transposes),
        "input": {"dtype": facts.inputs[0].dtype, "shape": list(facts.inputs[0].shape)},
        "output": {"dtype": facts.outputs[0].dtype, "shape": list(facts.outputs[0].shape)},
    }


def compare(
    path: Path, batches: Batches, reference: np.ndarray, labels: np.ndarray | None = None
) -> dict[str, Any]:
    """A file's answers beside the reference logits; see edgekit.tasks.classification."""
    return drifted(reference, answers(path, batches), labels)


def answers(path: Path, batches: Batches) -> np.ndarray:
    """A file's logits, (N, K)."""
    workers = os.cpu_count() or 1
    return np.concatenate([runtime.run_model(path, batch, workers=workers)[0] for batch in batches()])


def drifted(reference: np.ndarray, logits: np.ndarray, labels: np.ndarray | None = None) -> dict[str, Any]:
    """edgekit.tasks.classification as a row: how many answers flipped, not which."""
    row = compare_logits(reference, logits, labels).as_dict()
    row["flipped"] = len(row["flipped"])
    return row


def provenance(
    peer_python: str | None = None, packages: Sequence[str] = ("ai-edge-litert",)
) -> dict[str, Any]:
    """Command, machine and versions: what a table stands on.

    Args:
        peer_python: of the peers' own environment; None when they are among `packages` of this one.
    """
    from importlib.metadata import version

    import edgekit

    ours = (*packages, "torch", "torchvision", "timm", "numpy")
    command = ["python", str(Path(sys.argv[0]).resolve().relative_to(peers.ROOT)), *sys.argv[1:]]
    if "--peers-python" in command:
        command[command.index("--peers-python") + 1] = ".peers/bin/python"
    facts: dict[str, Any] = {
        "command": shlex.join(command),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": machine() | {"python": platform.python_version()},
        "versions": {"edgekit": edgekit.__version__} | {name: version(name) for name in ours},
    }
    if peer_python is not None:
        facts["peer_versions"] = peers.peer_versions(peer_python)
        facts["peers_environment"] = peers.ENVIRONMENT
    return facts


def write_results(
    out: Path, stem: str, facts: dict[str, Any], rows: Any, checks: Sequence[bars.Check], markdown: str
) -> None:
    """OUT/stem.json and OUT/stem.md, each whole or not at all; the text is printed too."""
    print(f"\n{markdown}")
    content = {"provenance": facts, "rows": rows, "bars": [check.as_dict() for check in checks]}
    out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(content, indent=2, default=float) + "\n"
    seeded.write_atomic(out / f"{stem}.json", lambda path: path.write_text(text))
    seeded.write_atomic(out / f"{stem}.md", lambda path: path.write_text(markdown))
    print(f"written: {out / stem}.json and .md", flush=True)


def footer(facts: dict[str, Any]) -> str:
    """Machine, versions and command, as Markdown."""
    machine, versions = facts["machine"], facts["versions"]
    ours = ", ".join(f"{k} {v}" for k, v in versions.items())
    told, command = f"Versions: {ours}.", f"Command: `{facts['command']}`."
    if "peer_versions" in facts:
        told += f" Peers: {', '.join(f'{k} {v}' for k, v in facts['peer_versions'].items())}."
        made = facts["peers_environment"]
        command = f"Command: `{facts['command']}`, with the peers' environment made by `{made}`."
    return "\n\n".join(
        [
            f"Measured {facts['date']} on {machine['cpu']}, {machine['cores']} cores, {machine['system']}, "
            f"load {machine['load']} when it began.",
            told,
            command,
        ]
    )


def conditions(rows: Iterable[dict[str, Any]]) -> list[str]:
    """What was not as it should be while models were timed, as a paragraph; none when nothing was."""
    notes = sorted({f"{row['model']}: {row['note']}" for row in rows if row["note"]})
    return ["Conditions: " + "; ".join(notes) + "."] if notes else []


class Unfinished:
    """Rows of an interrupted run: the same command goes on where it stopped. A finished run clears them."""

    def __init__(self, folder: Path, *key: object) -> None:
        self.folder = folder / f"unfinished-{seeded.content_key(*key)}"

    def get(self, name: str) -> dict[str, Any] | None:
        path = self.folder / f"{name}.json"
        return json.loads(path.read_text()) if path.exists() else None

    def put(self, name: str, row: dict[str, Any]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(row, default=float)
        seeded.write_atomic(self.folder / f"{name}.json", lambda path: path.write_text(text))

    def row(self, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """A row as it was kept, or made now and kept."""
        row = self.get(name)
        if row is None:
            row = make()
            self.put(name, row)
        return row

    def rows(self, names: Sequence[str], make: Callable[[str], dict[str, Any]]) -> list[dict[str, Any]]:
        """A row for each name, each kept as soon as it is there."""
        found = []
        for i, name in enumerate(names):
            tell(f"{name} ({i + 1}/{len(names)})")
            found.append(self.row(name, functools.partial(make, name)))
        return found

    def clear(self) -> None:
        for path in self.folder.glob("*.json"):
            path.unlink()
        if self.folder.exists():
            self.folder.rmdir()
