"""Milliseconds for a step: predicted from the times of a board's units, and measured of files built for it.

What was measured is kept in the step's own directory, so that a killed step decides as it would have.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgekit import passes
from edgekit.cost.measure import measure
from edgekit.cost.models import of_graph
from edgekit.cost.predict import Cost
from edgekit.cost.table import Table, tables
from edgekit.cost.widths import narrower
from edgekit.device.inventory import HOST, Device, load_inventory
from edgekit.device.parts import Part, on_board
from edgekit.files import write_atomic
from edgekit.graph.file import graph_hash
from edgekit.graph.ir import Graph
from edgekit.lower.lowered import lowering_of
from edgekit.lower.tflite.copies import reference
from edgekit.pipeline.steps.step import Context
from edgekit.pipeline.timing import latency
from edgekit.quantize import QuantizeSettings, quantize
from edgekit.targets import get_target

TARGET = "tflite-int8"
_WIDTHS = 2  # thinner forms of each unit that are timed
_IMAGES = 8  # scales do not change what a file takes
_ORIGINAL, _NOW = "original", "now"


@dataclass(frozen=True)
class Clock:
    """One board. context: of the step that asks."""

    context: Context
    device: str

    def cost(self) -> Cost:
        """What forms of the original are predicted to take; its units are timed where they are not known."""
        root = self.context.work / "cost"
        found = tables(root)
        table = found[0] if found else self._timed(root)
        return Cost(table, get_target(TARGET)).calibrate(
            self.context.original, self.measured_ms(self.context.original)
        )

    def measured_ms(self, graph: Graph) -> float:
        """The p50 of a captured graph's file: the original's, times the ratio to it in one run."""
        path = self.context.work / "measured.json"
        known: dict[str, float] = json.loads(path.read_text()) if path.exists() else {}
        original = self.context.original
        first, key = graph_hash(original), graph_hash(graph)
        if key not in known:
            times = self._times({_ORIGINAL: self._file(original), _NOW: self._file(graph)})
            known.setdefault(first, times[_ORIGINAL])
            known.setdefault(key, known[first] * times[_NOW] / times[_ORIGINAL])
            write_atomic(path, json.dumps(known))
        return known[key]

    @property
    def _board(self) -> Device:
        return load_inventory(None).device(self.device)

    @property
    def _threads(self) -> int:
        return self.context.recipe.device.threads

    def _timed(self, root: Path) -> Table:
        original = self.context.original
        model = of_graph(f"{self.context.job.name}-{graph_hash(original)[:8]}", original, TARGET)
        table = measure(
            self._board,
            [model],
            narrower(model.units, _WIDTHS),
            threads=self._threads,
            root=self.context.cache / "cost",
        )
        table.write(root)
        return table

    def _times(self, files: Mapping[str, bytes]) -> dict[str, float]:
        if self.device == HOST:
            with tempfile.TemporaryDirectory(prefix="edgekit-clock-") as folder:
                paths = {name: Path(folder, f"{name}.tflite") for name in files}
                for name, data in files.items():
                    paths[name].write_bytes(data)
                found = latency(paths, profile="quick", threads=self._threads)
            p50_ms = found.files[_ORIGINAL].p50_ms
            return {_ORIGINAL: p50_ms, _NOW: p50_ms * found.ratio(_NOW, _ORIGINAL)[0]}
        parts = [Part(name, data) for name, data in files.items()]
        times = on_board(self._board, reference(), lambda timer: timer.time(parts), threads=self._threads)
        return {name: time.ns / 1e6 for name, time in times.items()}

    def _file(self, graph: Graph) -> bytes:
        """The target's file, quantized on a few images."""
        built, target = graph.copy(), get_target(TARGET)
        passes.optimize(built)
        few = [images[:_IMAGES] for images in self.context.images()]
        settings = QuantizeSettings(profile="fast", calibration=_IMAGES)
        annotated = quantize(built, few, settings).graph
        lowering = lowering_of(target)
        lowered = lowering.lower(lowering.prepare(annotated, target, None), target, io_dtype=None)
        return next(iter(lowered.files.values()))
