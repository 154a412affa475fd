"""Seconds of an ONNX export in a fresh process, by edgekit or by torch.onnx.export(dynamo=True).

    python benchmarks/export_time.py JOB.json

JOB.json: {"tool": "edgekit" | "torch", "source", "name", "num_classes", "weights", "modules": names, "out":
file}. Writes OUT: seconds of the first and of a second export, each of a module of its own, from the module
to the written file, and the names of all modules then imported.

Imports are not counted: both tools import much in the middle of their first export, so a job names the
modules that an earlier process had imported at its end, and those are imported before the clock starts.
`late` is how many were still imported while it ran.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import tempfile
import time
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

import seeded
import torch
from torch import nn


def by_edgekit(module: nn.Module, example: torch.Tensor, path: Path) -> None:
    """Capture, proven against eager, the float passes, lowering."""
    from edgekit import passes
    from edgekit.capture import capture
    from edgekit.lower.onnx import lower, prepare
    from edgekit.targets import get_target

    graph = capture(module, example)
    passes.optimize(graph)
    target = get_target("onnx-float32")
    path.write_bytes(lower(prepare(graph, target), target).files["model.onnx"])


def by_torch(module: nn.Module, example: torch.Tensor, path: Path) -> None:
    torch.onnx.export(module, (example,), path, dynamo=True, verbose=False)


TOOLS = {"edgekit": by_edgekit, "torch": by_torch}


def import_all(names: list[str]) -> None:
    """What can be imported by its name; a few modules exist only while others are loaded."""
    for name in names:
        if name != "__main__":
            with contextlib.suppress(Exception):
                import_module(name)


def main(job: dict[str, Any]) -> None:
    export = TOOLS[job["tool"]]
    import_all(job["modules"])
    modules = [
        seeded.load_module(job["source"], job["name"], job["num_classes"], Path(job["weights"]))
        for _ in range(2)
    ]
    example = torch.zeros(1, 3, seeded.RESOLUTION, seeded.RESOLUTION)
    before = set(sys.modules)
    seconds = []
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        for i, module in enumerate(modules):
            start = time.perf_counter()
            export(module, example, Path(folder, f"{i}.onnx"))
            seconds.append(time.perf_counter() - start)
    record = {"first_s": seconds[0], "warm_s": seconds[1], "late": len(set(sys.modules) - before)}
    Path(job["out"]).write_text(json.dumps(record | {"modules": list(sys.modules)}))


if __name__ == "__main__":
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of modules that are imported by name
        main(json.loads(Path(sys.argv[1]).read_text()))
