"""Architectures through the pruner's oracle: random cuts must compute what the original does.

For each model, three seeds and three ratios: that share of every group's units goes at random, the cut graph
and the original with the same channels masked where they are summed (edgekit.prune.masked) are run in
float64 on the same image. `worst` is the largest difference, relative to the largest answer; `moved` is how
little the masked answer ever differs from the original's: near 0 the test said nothing. Weights are seeded,
batch norm statistics live, layer scales U(.5, 1.5). One worker process a model.

    python benchmarks/prune_oracle.py resnet18 timm:ghostnet_100
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import time
import traceback
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))
import seeded

from edgekit.capture import capture
from edgekit.errors import EdgekitError
from edgekit.graph.ir import Graph
from edgekit.graph.run import run
from edgekit.prune import analyse, cut, masked

SEEDS = (0, 1, 2)
RATIOS = (0.1, 0.3, 0.5)
SECONDS = 240


def build(name: str) -> tuple[nn.Module, int]:
    """A seeded module with live statistics, and the resolution it is run at."""
    import timm
    import torchvision

    torch.manual_seed(0)
    source, _, short = name.rpartition(":")
    if source == "timm" or (not source and not hasattr(torchvision.models, short)):
        module = timm.create_model(short, pretrained=False, num_classes=20).eval()
        fixed = getattr(module, "default_cfg", {}).get("fixed_input_size", False)
        size = module.default_cfg["input_size"][-1] if fixed else 96
    else:
        extra = {"aux_logits": False, "init_weights": True} if short in ("googlenet", "inception_v3") else {}
        module = getattr(torchvision.models, short)(weights=None, num_classes=20, **extra).eval()
        size = 224 if short.startswith(("vit", "maxvit")) else 128 if short.startswith("inception") else 96
    for attempt in (size, 160, 224, 256, 288, 299):
        try:
            with torch.no_grad():
                module(torch.zeros(1, 3, attempt, attempt))
        except Exception:
            continue
        size = attempt
        break
    alive(module, size)
    return module, size


def alive(module: nn.Module, size: int) -> None:
    """Weights and statistics under which every part of the network counts."""
    for path, parameter in module.named_parameters():
        if (
            parameter.ndim == 1
            and (
                path.endswith((".gamma", ".lambda1", ".gamma1", ".gamma2", ".layer_scale", "_scale"))
                or ".ls" in path
            )
        ) or (parameter.ndim != 1 and float(parameter.detach().abs().max()) < 1e-3 and parameter.numel() > 1):
            nn.init.uniform_(parameter, 0.5, 1.5)
    norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        if norm.affine:
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias, 0.0, 0.2)
    if norms:
        for norm in norms:
            norm.train()
        with torch.no_grad():
            for batch in range(2):
                module(torch.from_numpy(seeded.smooth_images(8, 1 + batch, size)))
        module.eval()


def doubled(graph: Graph) -> Graph:
    """The same graph in float64."""
    graph = graph.copy()
    for value in graph.constants():
        assert value.data is not None
        if value.data.is_floating_point():
            value.data = value.data.detach().double()
    return graph


def examine(name: str) -> dict[str, object]:
    """All cuts of one model."""
    began = time.perf_counter()
    module, size = build(name)
    parameters = sum(p.numel() for p in module.parameters())
    images = torch.from_numpy(seeded.smooth_images(1, 99, size))
    with torch.no_grad():
        graph = doubled(capture(module, images, name))
    del module
    return {
        **judge(graph, [images]),
        "parameters": parameters,
        "resolution": size,
        "seconds": round(time.perf_counter() - began, 1),
    }


def judge(graph: Graph, images: list[torch.Tensor]) -> dict[str, object]:
    began = time.perf_counter()
    analysis = analyse(graph)
    took = time.perf_counter() - began
    inputs = [x.double() for x in images]
    with torch.no_grad():
        plain = run(graph, inputs)
    worst, moved, kept, choosing = 0.0, float("inf"), [], 0.0
    total = sum(v.data.numel() for v in graph.constants())
    for seed in SEEDS:
        for ratio in RATIOS:
            drawn = random.Random(seed * 1000 + int(ratio * 100))
            scores = {unit: drawn.random() for unit in analysis.units}
            remove = {
                g.name: int(len(g.units) * ratio)
                for g in analysis.groups
                if not g.name.endswith("(whole)") or seed == 2
            }
            began = time.perf_counter()
            gone = analysis.allowed(scores, remove)
            choosing = max(choosing, time.perf_counter() - began)
            smaller = cut(analysis, gone)
            with torch.no_grad():
                expected, found = masked(analysis, gone)(inputs), run(smaller, inputs)
            size = max(float(t.abs().max()) for t in expected)
            worst = max(
                worst, max(float((a - b).abs().max()) for a, b in zip(expected, found, strict=True)) / size
            )
            moved = min(
                moved, max(float((a - b).abs().max()) for a, b in zip(expected, plain, strict=True)) / size
            )
            kept.append(sum(v.data.numel() for v in smaller.constants()) / total)
    return {
        "worst": worst,
        "moved": moved,
        "kept": round(float(np.mean(kept)), 3),
        "units": len(analysis.units),
        "groups": len(analysis.groups),
        "closed": [[c.name, c.channels, c.reason] for c in analysis.closed],
        "analysis_s": round(took, 3),
        "choosing_s": round(choosing, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="+")
    parser.add_argument("--worker", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.worker:
        warnings.filterwarnings("ignore")
        try:
            result = examine(given.names[0])
        except EdgekitError as error:
            result = {"error": f"{type(error).__name__}: {error}"}
        except Exception as error:
            result = {"error": f"{type(error).__name__}: {error}", "trace": traceback.format_exc()}
        print(json.dumps(result))
        return
    for name in given.names:
        worker = [sys.executable, __file__, "--worker", name]
        try:
            done = subprocess.run(worker, capture_output=True, text=True, timeout=SECONDS)
        except subprocess.TimeoutExpired:
            print(name, json.dumps({"error": f"not done after {SECONDS} s"}))
            continue
        lines = done.stdout.strip().splitlines()
        result = json.loads(lines[-1]) if lines else {"error": done.stderr[-2000:]}
        closed = result.pop("closed", [])
        trace = result.pop("trace", "")
        print(name, json.dumps(result))
        if trace:
            print(trace)
        for item in closed[: int(len(given.names) == 1) * 40]:
            print("   closed", item)


if __name__ == "__main__":
    main()
