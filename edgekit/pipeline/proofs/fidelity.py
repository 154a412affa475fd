"""The graph's meaning against the runtime, in output steps, and which layers cause the error that is left."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from edgekit.graph.batch import bytes_of_all_values
from edgekit.graph.file import graph_hash
from edgekit.lower import tflite
from edgekit.pipeline.job import Built, Facts
from edgekit.pipeline.proofs.proof import Asked, Proof, each
from edgekit.pipeline.proofs.run import PROBED, answers_of, placed, runtime_of
from edgekit.pipeline.session import Line
from edgekit.runtimes.registry import RUNTIMES
from edgekit.targets import Promises
from edgekit.targets.target import OWN
from edgekit.verify.fidelity import (
    Fidelity,
    FloatFidelity,
    fidelity,
    float_fidelity,
    probe_values,
    read_values,
)
from edgekit.verify.gates import Evidence, Gate, judge
from edgekit.verify.layers import LayerError, layer_errors
from edgekit.verify.placed import placed_codes
from edgekit.verify.runtime_fidelity import RuntimeFidelity, runtime_fidelity

_PROBED_BYTES = 1 << 29  # of all their values: a large network is compared on fewer images


@dataclass(frozen=True)
class InSteps:
    """How far the runtime is from the simulation, and the layers that cost most."""

    fidelity: Fidelity | RuntimeFidelity | FloatFidelity
    errors: list[LayerError]


def prove(asked: Asked, one: Built) -> None:
    calibration = asked.job.calibration

    def make(_line: Line) -> InSteps:
        most = PROBED if one.prepared.batchable else 1
        held = max(1, _PROBED_BYTES // bytes_of_all_values(one.prepared))
        return _found(one, next(calibration.first(min(most, held)).input_batches(most)))

    key = {
        "artifact": one.sha256s,
        "graph": graph_hash(one.prepared),
        "images": calibration.identity,
        "runtime": runtime_of(one.target),
    }
    found = asked.session.record("fidelity", key, InSteps, make, one.target.name)
    one.fidelity, one.errors = found.fidelity, found.errors


def _found(one: Built, inputs: list[np.ndarray]) -> InSteps:
    target, graph = one.target, one.prepared
    if target.activations != "int8" or one.quantizer != OWN:
        return InSteps(float_fidelity(graph, answers_of(one, inputs), inputs), [])
    if RUNTIMES[target.runtime].as_written:
        probe = tflite.lower(graph, target, io_dtype=one.io, outputs_also=probe_values(graph))
        actual = read_values(probe, graph, inputs)
        return InSteps(fidelity(graph, probe, inputs, one.file), layer_errors(graph, actual, inputs))
    values = placed(one)
    return InSteps(
        runtime_fidelity(values, inputs), layer_errors(graph, placed_codes(values, inputs), inputs)
    )


def gates(one: Built, promises: Promises) -> list[Gate]:
    return judge(Evidence(target=one.target, fidelity=one.fidelity), promises)


def section(_facts: Facts, one: Built) -> dict[str, Any]:
    return {"fidelity": one.fidelity.as_dict() if one.fidelity is not None else None}


FIDELITY = Proof("fidelity", each(prove), gates, section)
