"""[mixed] in a build, and modules that a recipe keeps in float: an int8 graph in, a mixed one out.

The graph that precisions are chosen in is quantized without rounding weights by GPTQ, since a node that stays
float wants its weights as they were; they are rounded once everything is chosen.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from edgekit.cost.measure import measure
from edgekit.cost.predict import Cost
from edgekit.cost.units import Unit
from edgekit.device.inventory import Device, load_inventory
from edgekit.device.parts import Part, PartTime, Timer, on_board
from edgekit.errors import UsageError
from edgekit.graph.file import graph_hash, load, save
from edgekit.graph.ir import Graph
from edgekit.lower.lowered import Lowered, lowering_of
from edgekit.lower.tflite.copies import reference
from edgekit.mixed import Demand, mix
from edgekit.mixed.prices import Ns
from edgekit.mixed.refit import Base, finished
from edgekit.pipeline.calibration import calibration_rows
from edgekit.pipeline.job import Job, Quantized
from edgekit.pipeline.recipe import Recipe
from edgekit.pipeline.session import Line, Session
from edgekit.pipeline.steps.judged import Arrays, judge_of
from edgekit.pipeline.steps.step import Context
from edgekit.pipeline.versions import versions
from edgekit.quantize.precision import DYNAMIC, FLOAT, of_modules
from edgekit.quantize.ptq import QuantizeSettings, resolved
from edgekit.runtimes.runtime import run_model
from edgekit.targets import Target, get_target
from edgekit.targets.target import OWN

MIXED_TARGET = "tflite-int8"
_PASSES = 3  # in fresh processes
ORDER = "order of images"  # beside the means that a quantization leaves
Quantizing = Callable[[str, Recipe], Quantized]  # type of the activations, recipe


def refuse(recipe: Recipe, targets: Sequence[Target], *, given: bool = False) -> None:
    """Raises: UsageError for precisions that are asked for where nobody can choose them.

    Args:
        given: whether the model brings scales of its own.
    """
    named = [*recipe.quantize.float_modules, *recipe.quantize.dynamic_modules]
    if recipe.mixed is None and not named:
        return
    what = "[mixed]" if recipe.mixed is not None else "[quantize] float_modules, dynamic_modules"
    if recipe.mixed is not None and named:
        raise UsageError("[mixed] and [quantize] float_modules, dynamic_modules: one of the two")
    if recipe.mixed is not None and MIXED_TARGET not in [target.name for target in targets]:
        raise UsageError(f"[mixed] chooses for {MIXED_TARGET}, which is not among the targets")
    if given:
        raise UsageError(f"{what}: the file has scales of its own: a float model")
    if recipe.quantize.quantizer != OWN:
        raise UsageError(f"{what}: {recipe.quantize.quantizer} chooses its own: quantizer = {OWN!r}")
    stiff = [t.name for t in targets if named and t.quantized and "float32" not in t.dtypes]
    if stiff:
        raise UsageError(f"{what}: {', '.join(stiff)} computes in integers alone")


def chosen(
    session: Session,
    recipe: Recipe,
    job: Job,
    graph: Graph,
    targets: Sequence[Target],
    quantizing: Quantizing,
) -> dict[str, Quantized]:
    """Targets whose graph is not the common one -> theirs."""
    asked = recipe.quantize
    plain = replace(recipe, quantize=replace(asked, gptq=False))
    if recipe.mixed is not None:
        return {MIXED_TARGET: _mixed(session, recipe, job, graph, quantizing("int8", plain))}
    if not (asked.float_modules or asked.dynamic_modules):
        return {}
    quantized = [target for target in targets if target.quantized]
    kinds = dict.fromkeys(target.activations for target in quantized)
    made = {kind: _named(session, recipe, job, graph, quantizing(kind, plain)) for kind in kinds}
    return {target.name: made[target.activations] for target in quantized}


def _base(recipe: Recipe, job: Job, graph: Graph, quantized: Quantized) -> Base:
    assert quantized.means is not None
    means = load_file(quantized.means)
    order = means.pop(ORDER)
    asked = recipe.quantize
    settings = resolved(QuantizeSettings(profile=asked.profile, gptq=asked.gptq))
    rows = calibration_rows(job.calibration.images)
    return Base(quantized.graph, graph, means, order, tuple(rows), settings.gptq is not False)


def _key(recipe: Recipe, job: Job, graph: Graph, quantized: Quantized) -> dict[str, Any]:
    return {
        "graph": graph_hash(quantized.graph),
        "float": graph_hash(graph),
        "images": job.calibration.identity,
        "quantize": repr(recipe.quantize),
        "threads": torch.get_num_threads(),
        "versions": versions(),
    }


def _named(session: Session, recipe: Recipe, job: Job, graph: Graph, quantized: Quantized) -> Quantized:
    """The modules of a recipe in the precisions it gives them."""

    def make(directory: Path, _line: Line) -> None:
        base = _base(recipe, job, graph, quantized)
        kinds = of_modules(base.graph, recipe.quantize.float_modules, FLOAT)
        kinds |= of_modules(base.graph, recipe.quantize.dynamic_modules, DYNAMIC)
        mixed, fitted = finished(base, kinds)
        save(mixed, directory / "graph.safetensors")
        (directory / "mixed.json").write_text(json.dumps({"nodes": _nodes(graph, kinds), "fitted": fitted}))

    directory = session.stage("precision", _key(recipe, job, graph, quantized), make)
    return _made(directory, quantized)


def _nodes(graph: Graph, kinds: Mapping[str, str]) -> list[dict[str, Any]]:
    made = {node.output.name: node for node in graph.nodes}
    return [
        {"module": made[name].source, "op": made[name].op, "precision": kind} for name, kind in kinds.items()
    ]


def _mixed(session: Session, recipe: Recipe, job: Job, graph: Graph, quantized: Quantized) -> Quantized:
    """Precisions that keep the recipe's demand."""
    asked = recipe.mixed
    assert asked is not None

    def make(directory: Path, line: Line) -> None:
        context = Context(recipe, job, graph, line, directory, session.store.root)
        found = mix(
            _base(recipe, job, graph, quantized),
            Demand(asked.latency_ms, asked.ratio, asked.sqnr, asked.drop),
            get_target(MIXED_TARGET),
            BoardClock(asked.device, recipe.device.threads, session.store.root / "cost"),
            drop=_drop(context, graph) if asked.drop is not None else None,
            seed=recipe.seed,
        )
        save(found.graph, directory / "graph.safetensors")
        (directory / "mixed.json").write_text(json.dumps(found.record | {"device": asked.device}))

    key = _key(recipe, job, graph, quantized)
    key |= {"asked": repr(asked), "threads of the runtime": recipe.device.threads, "seed": recipe.seed}
    return _made(session.stage("mixed", key, make), quantized)


def _made(directory: Path, quantized: Quantized) -> Quantized:
    record = json.loads((directory / "mixed.json").read_text())
    report = {**(quantized.report or {}), "mixed": record}
    return Quantized(load(directory / "graph.safetensors"), report, quantized.means)


def _drop(context: Context, graph: Graph) -> Callable[[Graph], float]:
    """The accuracy that a mixed graph's file loses against the float graph."""
    before = judge_of(context)(graph)
    after = judge_of(context, answering=_by_file)
    return lambda mixed: before - after(mixed)


def _by_file(graph: Graph) -> Callable[[Arrays], Arrays]:
    lowered = _lowered(graph, MIXED_TARGET)
    return lambda batch: run_model(lowered.data, list(batch), lowered.ports)


@dataclass(frozen=True)
class BoardClock:
    """Times of one board: units from its cost table, and whole files in turns.

    root: where tables of times lie.
    """

    device: str
    threads: int
    root: Path

    def ns(self, units: Iterable[Unit]) -> Ns:
        """Nanoseconds of a unit; those given are timed where the table lacks them."""
        table = measure(self._board, units=list(units), threads=self.threads, root=self.root)
        cost = Cost(table, get_target("tflite-int8"))
        return lambda unit: cost.unit_ns(unit)[0]

    def measured_ms(self, graphs: Mapping[str, tuple[Graph, str]]) -> dict[str, float]:
        """What each graph's file for its target takes, timed in turns as the table's whole networks are."""
        return measured_ms(
            self._board,
            {name: _lowered(graph, target).data for name, (graph, target) in graphs.items()},
            self.threads,
        )

    @property
    def _board(self) -> Device:
        return load_inventory(None).device(self.device)


def measured_ms(board: Device, files: Mapping[str, bytes], threads: int = 1) -> dict[str, float]:
    """Milliseconds of files timed in turns, all at the clock at which their references were timed."""
    parts = [Part(name, data) for name, data in files.items()]

    def work(timer: Timer) -> list[dict[str, PartTime]]:
        return [timer.time(parts, order) for order in range(_PASSES)]

    passes = on_board(board, reference(), work, threads=threads)
    clock = statistics.median(time.reference_ns for times in passes for time in times.values())
    return {
        name: statistics.median(times[name].ns * clock / times[name].reference_ns for times in passes) / 1e6
        for name in files
    }


def _lowered(graph: Graph, name: str) -> Lowered:
    target = get_target(name)
    lowering = lowering_of(target)
    return lowering.lower(lowering.prepare(graph, target, None), target, io_dtype=None)
