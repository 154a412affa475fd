"""Where an int8 artifact's milliseconds go, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from edgekit.device.host import Latency, machine
from edgekit.device.profiles import LAYERS
from edgekit.pipeline.bundle import without
from edgekit.pipeline.job import Built, Facts
from edgekit.pipeline.proofs.proof import Asked, Proof, each
from edgekit.pipeline.proofs.run import runtime_of
from edgekit.pipeline.session import Line
from edgekit.pipeline.timing import latency
from edgekit.runtimes.registry import RUNTIMES
from edgekit.runtimes.sources import Source
from edgekit.verify.layer_times import LayerTimes, layer_times

NAME = "times"


def prove(asked: Asked, one: Built) -> None:
    device = asked.recipe.device
    if device.profile == "off" or one.target.activations != "int8" or not RUNTIMES[one.target.runtime].host:
        return

    def make(_line: Line) -> LayerTimes:
        return layer_times(one.file, one.modules, latency=_by_layers, threads=device.threads)

    key = {
        "artifact": one.sha256s,
        "threads": device.threads,
        "runtime": runtime_of(one.target),
        "machine": machine()["cpu"],
    }
    one.found[NAME] = asked.session.record(NAME, key, LayerTimes, make, one.target.name)


def _by_layers(files: Mapping[str, Source], *, threads: int) -> Latency:
    return latency(files, profile=LAYERS, threads=threads)


def section(_facts: Facts, one: Built) -> dict[str, Any]:
    found = one.found.get(NAME)
    if found is None:
        return {}
    rows = [without(asdict(row), "operators") for row in found.rows]
    return {NAME: {"total_ms": found.total_ms, "method": found.method, "rows": rows}}


TIMES = Proof(NAME, each(prove), section=section)
