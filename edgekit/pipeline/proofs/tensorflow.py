"""A .tflite file's answers under TensorFlow's own interpreter, where a recipe asks for it."""

from __future__ import annotations

from typing import Any

from edgekit.pipeline.job import Built, Facts
from edgekit.pipeline.proofs.proof import Asked, Proof, each
from edgekit.pipeline.proofs.run import PROBED, runtime_of
from edgekit.pipeline.session import Line
from edgekit.runtimes.registry import RUNTIMES
from edgekit.runtimes.tensorflow.run import TensorflowCheck, tensorflow_check
from edgekit.targets import Promises
from edgekit.verify.gates import Evidence, Gate, judge

NAME = "tensorflow"


def prove(asked: Asked, one: Built) -> None:
    second = RUNTIMES[one.target.runtime].second
    if not asked.recipe.verify.tensorflow or not second:
        return
    calibration = asked.job.calibration

    def make(_line: Line) -> TensorflowCheck:
        inputs = next(calibration.first(PROBED).input_batches(PROBED))
        return tensorflow_check(one.file, inputs, one.ports)

    key = {
        "artifact": one.sha256s,
        "images": calibration.identity,
        "runtimes": [runtime_of(one.target), RUNTIMES[second].version()],
    }
    one.found[NAME] = asked.session.record(NAME, key, TensorflowCheck, make, one.target.name)


def gates(one: Built, promises: Promises) -> list[Gate]:
    return judge(Evidence(target=one.target, tensorflow=one.found.get(NAME)), promises)


def section(_facts: Facts, one: Built) -> dict[str, Any]:
    return {NAME: one.found[NAME].as_dict()} if NAME in one.found else {}


TENSORFLOW = Proof(NAME, each(prove), gates, section)
