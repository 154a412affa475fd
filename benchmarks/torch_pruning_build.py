"""One network through Torch-Pruning, in a fresh process of its own environment.

    .tp/bin/python benchmarks/torch_pruning_build.py JOB.json

JOB.json: {"source", "name", "num_classes", "weights": .safetensors, "images": .npy float32 (N, C, H, W),
"labels": .npy, "importance": "magnitude" | "taylor", "ratio", "out": folder}. Writes OUT/module.pt, the
pruned module as its documentation keeps one, and OUT/build.json, which comes last.

What is measured is what its README shows for a convolutional network: the group importance, global and
isomorphic ranking, the classifier's outputs ignored, widths in multiples of 8, one step. Taylor gets the
gradients of the labels' loss on the given images.
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import seeded
import torch
import torch_pruning as tp
from torch import nn
from torch.nn import functional as F

VERSION = 1
ROUND_TO = 8
BATCH = 32


def pruned(module: nn.Module, job: dict[str, Any]) -> nn.Module:
    """The module with that share of its channels removed, in place."""
    images, labels = (torch.from_numpy(np.load(job[key])) for key in ("images", "labels"))
    importance = {
        "magnitude": tp.importance.GroupMagnitudeImportance(p=2),
        "taylor": tp.importance.GroupTaylorImportance(),
    }[job["importance"]]
    ignored = [
        m for m in module.modules() if isinstance(m, nn.Linear) and m.out_features == job["num_classes"]
    ]
    pruner = tp.pruner.BasePruner(
        module,
        images[:1],
        importance=importance,
        global_pruning=True,
        isomorphic=True,
        pruning_ratio=job["ratio"],
        ignored_layers=ignored,
        round_to=ROUND_TO,
    )
    if job["importance"] == "taylor":
        for part, classes in zip(images.split(BATCH), labels.split(BATCH), strict=True):
            (F.cross_entropy(module(part), classes) * len(part) / len(images)).backward()
    pruner.step()
    module.zero_grad()
    return module.eval()


def main(job: dict[str, Any]) -> None:
    torch.set_num_threads(1)
    out = Path(job["out"])
    module = seeded.load_module(job["source"], job["name"], job["num_classes"], Path(job["weights"]))
    before = sum(p.numel() for p in module.parameters())
    module = pruned(module, job)
    with torch.no_grad():
        module(torch.from_numpy(np.load(job["images"])[:1]))  # what cannot run has failed
    torch.save(module, out / "module.pt")
    record = {
        "versions": {"torch-pruning": version("torch-pruning"), "torch": version("torch")},
        "params": [before, sum(p.numel() for p in module.parameters())],
    }
    seeded.write_atomic(out / "build.json", lambda path: path.write_text(json.dumps(record)))


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
