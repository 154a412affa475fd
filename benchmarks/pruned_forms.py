"""Smaller forms of one checkpoint, all of the same measured int8 milliseconds: edgekit's and others'.

Enters: a `Checkpoint` and a `Clock`. Leaves: `Form`, a captured graph for each method with what was
predicted and measured. A method without a search for milliseconds of its own gets one here: bisection by
predicted time, the aim corrected by measured ones, as edgekit does it.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import peers
import seeded
import torch
from hard_set import pictures

from edgekit import passes
from edgekit.capture import capture
from edgekit.cost.predict import Cost
from edgekit.cost.table import tables
from edgekit.graph.file import graph_hash, save
from edgekit.graph.ir import Graph
from edgekit.lower.lowered import lowering_of
from edgekit.prune import analyse, cut, prune_graph
from edgekit.prune.scores import score
from edgekit.quantize import QuantizeSettings, quantize
from edgekit.targets import get_target
from edgekit.train.reference import SOURCES, load_reference

INT8, FLOAT = "tflite-int8", "tflite-float32"
TOLERANCE = 0.03
MEASUREMENTS = 4
_BISECTIONS = 6
_FEW = 8  # images: scales do not change what a file takes


@dataclass(frozen=True)
class Checkpoint:
    """A trained model of the hard set. calibration: pictures for scores, fits and ranges."""

    name: str
    reference: Path
    calibration: int

    @cached_property
    def loaded(self) -> tuple[torch.nn.Module, dict[str, Any]]:
        return load_reference(self.name, self.reference)

    @property
    def row(self) -> dict[str, Any]:
        return self.loaded[1]

    @cached_property
    def graph(self) -> Graph:
        side = self.row["resolution"]
        return capture(self.loaded[0], torch.zeros(1, 3, side, side), training=True)

    @cached_property
    def fit(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs and labels of the calibration split."""
        return pictures(self.row, "calibration", self.calibration)


def file_of(graph: Graph, target: str, images: torch.Tensor) -> bytes:
    """A target's file of a captured graph, quantized as a build does it."""
    built, wanted = graph.copy(), get_target(target)
    passes.optimize(built)
    if target == INT8:
        built = quantize(built, images, QuantizeSettings(calibration=len(images))).graph
    lowering = lowering_of(wanted)
    lowered = lowering.lower(lowering.prepare(built, wanted, None), wanted, io_dtype=None)
    return next(iter(lowered.files.values()))


@dataclass(frozen=True)
class Clock:
    """This machine. quiet: a command that runs another while nothing else does. work: what was measured."""

    checkpoint: Checkpoint
    work: Path
    quiet: str = ""
    processes: int = 8

    def run(self, job: Mapping[str, Any]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "job.json")
            path.write_text(json.dumps(job, default=str))
            script = str(peers.HERE / "quiet_times.py")
            subprocess.run([*shlex.split(self.quiet), sys.executable, script, str(path)], check=True)

    def ratios(self, files: Mapping[str, bytes], reference: str) -> dict[str, dict[str, Any]]:
        """name -> p50_ms and ratio to the reference, all in one run."""
        with tempfile.TemporaryDirectory() as folder:
            paths = {name: Path(folder, f"{i}.tflite") for i, name in enumerate(files)}
            for name, data in files.items():
                paths[name].write_bytes(data)
            out = Path(folder, "times.json")
            self.run({"files": paths, "reference": reference, "processes": self.processes, "out": out})
            found: dict[str, dict[str, Any]] = json.loads(out.read_text())
            return found

    def measured_ms(self, graph: Graph) -> float:
        """Of a graph's int8 file: the original's p50, times the ratio to it in one run."""
        kept = self.work / "measured.json"
        known: dict[str, float] = json.loads(kept.read_text()) if kept.exists() else {}
        original = self.checkpoint.graph
        first, key = graph_hash(original), graph_hash(graph)
        if key not in known:
            few = self.checkpoint.fit[0][:_FEW]
            files = {"original": file_of(original, INT8, few), "now": file_of(graph, INT8, few)}
            times = self.ratios(files, "original")
            known.setdefault(first, times["original"]["p50_ms"])
            known.setdefault(key, known[first] * times["now"]["ratio"][0])
            seeded.write_atomic(kept, lambda path: path.write_text(json.dumps(known)))
        return known[key]

    @cached_property
    def cost(self) -> Cost:
        """Predictions from this machine's times of the checkpoint's units."""
        root, original = self.work.parent / "cost", self.checkpoint.graph
        name = f"{self.checkpoint.name}-{graph_hash(original)[:8]}"
        known = tables(root)
        if not known or name not in known[0].models:
            path = self.work / "original.graph"
            save(original, path)
            self.run({"graph": path, "name": name, "tables": root})
        return Cost(tables(root)[0], get_target(INT8)).calibrate(original, self.measured_ms(original))


@dataclass(frozen=True)
class Form:
    """record: what the method says of itself, as JSON."""

    graph: Graph
    predicted_ms: float
    measured_ms: float
    record: dict[str, Any] = field(default_factory=dict)


def ours(clock: Clock, budget: Mapping[str, float], *, refit: bool = True) -> Form:
    """edgekit.prune as it comes; a budget in milliseconds is met by measured files."""
    checkpoint = clock.checkpoint
    timed = {"cost": clock.cost, "measure": clock.measured_ms} if "latency_ms" in budget else {}
    images = checkpoint.fit[0]
    done = prune_graph(checkpoint.graph, **budget, **timed, score="obs", refit=refit, images=images)  # type: ignore[arg-type]
    return _form(clock, done.graph, done.record)


def uniform(clock: Clock, target_ms: float) -> Form:
    """The same share of every group, the smallest weights first, nothing fitted."""
    done = prune_graph(
        clock.checkpoint.graph,
        latency_ms=target_ms,
        scope="layer",
        score="l1",
        refit=False,
        cost=clock.cost,
        measure=clock.measured_ms,
    )
    return _form(clock, done.graph, done.record)


def random(clock: Clock, like: Form) -> Form:
    """The widths of another form, the channels drawn."""
    analysis = analyse(clock.checkpoint.graph)
    remove = {row["name"]: row["units"] - row["kept"] for row in like.record["groups"]}
    gone = analysis.allowed(score(analysis, "random"), remove)
    return _form(clock, cut(analysis, gone), {})


def torch_pruning(clock: Clock, target_ms: float, python: str, importance: str) -> Form:
    """Torch-Pruning at the ratio whose file takes as long. Raises: peers.BuildFailure."""
    work, checkpoint = clock.work / f"torch-pruning-{importance}", clock.checkpoint
    work.mkdir(parents=True, exist_ok=True)
    module, row = checkpoint.loaded
    seeded.save_state(module, work / "weights.safetensors")
    for name, tensor in zip(("images", "labels"), checkpoint.fit, strict=True):
        seeded.save_array(work / f"{name}.npy", tensor.numpy())
    side = row["resolution"]
    versions: dict[str, Any] = {}

    def at(ratio: float) -> Graph:
        job = {
            "source": SOURCES[checkpoint.name],
            "name": checkpoint.name,
            "num_classes": row["num_classes"],
            "weights": work / "weights.safetensors",
            **{name: work / f"{name}.npy" for name in ("images", "labels")},
            "importance": importance,
            "ratio": ratio,
            "out": work,
        }
        script = peers.HERE / "torch_pruning_build.py"
        peers.fresh_process(python, script, job, work / "build.log")
        versions.update(json.loads((work / "build.json").read_text())["versions"])
        made = torch.load(work / "module.pt", weights_only=False)
        return capture(made.eval(), torch.zeros(1, 3, side, side), training=True)

    graph, ratio, tries = _timed(clock, at, target_ms)
    return _form(clock, graph, {"ratio": ratio, "tries": tries, "versions": versions})


def _timed(
    clock: Clock, at: Callable[[float], Graph], target_ms: float
) -> tuple[Graph, float, list[dict[str, float]]]:
    """The graph of a share removed whose file takes the time, that share, and what was measured."""
    made: dict[float, tuple[Graph, float]] = {}

    def predicted(ratio: float) -> float:
        if ratio not in made:
            graph = at(ratio)
            made[ratio] = graph, clock.cost.graph_ms(graph)
        return made[ratio][1]

    aim, tries = target_ms, list[dict[str, float]]()
    for _ in range(MEASUREMENTS):
        low, high = 0.0, 0.9
        for _ in range(_BISECTIONS):
            ratio = (low + high) / 2
            low, high = (ratio, high) if predicted(ratio) > aim else (low, ratio)
        ratio = min(made, key=lambda r: abs(made[r][1] / aim - 1))
        if any(row["ratio"] == ratio for row in tries):
            break  # no other widths between
        got = clock.measured_ms(made[ratio][0])
        tries.append({"ratio": ratio, "aimed": aim, "predicted": made[ratio][1], "measured": got})
        if abs(got / target_ms - 1) <= TOLERANCE:
            break
        aim *= target_ms / got
    best = min(tries, key=lambda row: abs(row["measured"] / target_ms - 1))
    return made[best["ratio"]][0], best["ratio"], tries


def _form(clock: Clock, graph: Graph, record: dict[str, Any]) -> Form:
    return Form(graph, clock.cost.graph_ms(graph), clock.measured_ms(graph), record)
