"""What both benchmarks ask of a .tflite file, and how they write their results.

Enters: files, images and the eager float logits. Leaves: plain dicts, which are the rows of the JSON.
"""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import peers
import seeded
import torch
from torch import nn

sys.path.insert(0, str(peers.ROOT))  # this checkout, whatever is installed

from edgekit.verify import audit, delegation, drift, latency, runtime

LATENCY_PROFILE = latency.Profile(
    "benchmark", 5, 60, 4.0, 12.0, 10, 0.5
)  # 5 fresh processes, at least 300 samples
RESULTS = peers.HERE / "results"
WORK = peers.ROOT / "build" / "benchmarks"

Batches = Callable[[], Iterable[np.ndarray]]  # float32 (n, C, H, W), preprocessed


def eager_logits(module: nn.Module, batches: Batches) -> np.ndarray:
    """The float reference: PyTorch itself, (N, K)."""
    with torch.inference_mode():
        return torch.cat([module(torch.from_numpy(batch)) for batch in batches()]).numpy()


def describe(path: Path) -> dict[str, Any]:
    """What a file is: size, operators, partitions."""
    facts, delegated = audit.audit(path), delegation.delegation(path)
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
    """A file's answers beside the reference logits; see edgekit.verify.drift."""
    workers = os.cpu_count() or 1
    logits = np.concatenate([runtime.run_model(path, batch, workers=workers) for batch in batches()])
    row = drift.drift(reference, logits, labels).as_dict()
    row["flipped"] = len(row["flipped"])
    return row


def provenance(peer_python: str) -> dict[str, Any]:
    """Command, machine and versions: what a table stands on."""
    from importlib.metadata import version

    import edgekit

    ours = ("ai-edge-litert", "torch", "torchvision", "timm", "numpy")
    command = ["python", str(Path(sys.argv[0]).resolve().relative_to(peers.ROOT)), *sys.argv[1:]]
    if "--peers-python" in command:
        command[command.index("--peers-python") + 1] = ".peers/bin/python"
    return {
        "command": shlex.join(command),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": latency.machine() | {"python": platform.python_version()},
        "versions": {"edgekit": edgekit.__version__} | {name: version(name) for name in ours},
        "peer_versions": peers.peer_versions(peer_python),
        "peers_environment": peers.ENVIRONMENT,
    }


def write_results(out: Path, stem: str, content: dict[str, Any], markdown: str) -> None:
    """OUT/stem.json and OUT/stem.md, each whole or not at all."""
    out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(content, indent=2, default=float) + "\n"
    seeded.write_atomic(out / f"{stem}.json", lambda path: path.write_text(text))
    seeded.write_atomic(out / f"{stem}.md", lambda path: path.write_text(markdown))
    print(f"written: {out / stem}.json and .md", flush=True)


def footer(facts: dict[str, Any]) -> str:
    """Machine, versions and command, as Markdown."""
    machine, versions = facts["machine"], {**facts["versions"]}
    peer = ", ".join(f"{k} {v}" for k, v in facts["peer_versions"].items())
    lines = [
        f"Measured {facts['date']} on {machine['cpu']}, {machine['cores']} cores, {machine['system']}, "
        f"load {machine['load']} when it began.",
        f"Versions: {', '.join(f'{k} {v}' for k, v in versions.items())}. Peers: {peer}.",
        f"Command: `{facts['command']}`, with the peers' environment made by `{facts['peers_environment']}`.",
    ]
    return "\n\n".join(lines)


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

    def clear(self) -> None:
        for path in self.folder.glob("*.json"):
            path.unlink()
        if self.folder.exists():
            self.folder.rmdir()
