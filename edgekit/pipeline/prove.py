"""The proofs of a build, one function a stage: a Built goes in and leaves with one more piece of evidence.

Each asks `edgekit.verify` and keeps the answer in the store under what it depends on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgekit.device.host import FileLatency, Latency, machine
from edgekit.device.profiles import LAYERS
from edgekit.graph.batch import bytes_of_all_values
from edgekit.graph.file import graph_hash
from edgekit.lower import tflite
from edgekit.pipeline import answers
from edgekit.pipeline.job import Agreed, Built, Job
from edgekit.pipeline.session import Line, Session
from edgekit.pipeline.threads import workers
from edgekit.pipeline.timing import latency
from edgekit.runtimes.audit import audit, delegation
from edgekit.runtimes.registry import RUNTIMES
from edgekit.runtimes.runtime import run_model
from edgekit.runtimes.tensorflow.run import (
    OutputCheck,
    TensorflowCheck,
    run_saved_model,
    tensorflow_check,
)
from edgekit.targets.target import OWN
from edgekit.tasks import Drift, Task
from edgekit.verify.agreement import Agreement, Divergence, Pair, agreement, first_divergence
from edgekit.verify.contact_sheet import contact_sheet, marked
from edgekit.verify.fidelity import (
    Fidelity,
    FloatFidelity,
    OpFidelity,
    fidelity,
    float_fidelity,
    probe_values,
    read_values,
)
from edgekit.verify.layer_times import LayerTime, LayerTimes, layer_times
from edgekit.verify.layers import LayerError, layer_errors
from edgekit.verify.placed import Placed, placed_codes
from edgekit.verify.runtime_fidelity import RuntimeFidelity, ValueFidelity, runtime_fidelity

if TYPE_CHECKING:
    from edgekit.data import ImageSet
    from edgekit.data.arrays import ArrayImages
    from edgekit.pipeline.recipe import Device
    from edgekit.runtimes.sources import Source
    from edgekit.targets import Target

_PROBED = 4  # images on which every operator is compared
_PROBED_BYTES = 1 << 29  # of all their values: a large network is compared on fewer
_FLIPPED = 48  # pictures kept of images whose answer changed


def audited(session: Session, one: Built) -> None:
    """What the file is and what runs where, as far as its runtime executes it here."""
    if not RUNTIMES[one.target.runtime].audits:
        return
    with session.step(f"audit {one.target.name}"):
        one.audit = audit(one.file, one.modules)
        one.delegation = delegation(one.file, one.modules)


def compared_in_steps(session: Session, job: Job, one: Built) -> None:
    """The graph's meaning against the runtime, and which layers cause the error that is left."""

    def make(directory: Path, _line: Line) -> None:
        most = _PROBED if one.prepared.batchable else 1
        held = max(1, _PROBED_BYTES // bytes_of_all_values(one.prepared))
        found, errors = _fidelity_of(one, next(job.calibration.first(min(most, held)).input_batches(most)))
        content = {
            "kind": type(found).__name__,
            "fidelity": asdict(found),
            "errors": [asdict(row) for row in errors],
        }
        (directory / "fidelity.json").write_text(json.dumps(content))

    key = {
        "artifact": one.sha256s,
        "graph": graph_hash(one.prepared),
        "images": job.calibration.identity,
        "runtime": runtime_of(one.target),
    }
    directory = session.stage("fidelity", key, make, one.target.name)
    content = json.loads((directory / "fidelity.json").read_text())
    one.errors = [LayerError(**row) for row in content["errors"]]
    found = content["fidelity"]
    if content["kind"] == "FloatFidelity":
        one.fidelity = FloatFidelity(**found)
    elif content["kind"] == "RuntimeFidelity":
        rows = tuple(ValueFidelity(**row) for row in found.pop("layers"))
        one.fidelity = RuntimeFidelity(layers=rows, **found)
    else:
        one.fidelity = Fidelity(layers=tuple(OpFidelity(**row) for row in found.pop("layers")), **found)


def _fidelity_of(
    one: Built, inputs: list[np.ndarray]
) -> tuple[Fidelity | RuntimeFidelity | FloatFidelity, list[LayerError]]:
    target, graph = one.target, one.prepared
    if target.activations != "int8" or one.quantizer != OWN:
        return float_fidelity(graph, _answers(one, inputs), inputs), []
    if RUNTIMES[target.runtime].as_written:
        probe = tflite.lower(graph, target, io_dtype=one.io, outputs_also=probe_values(graph))
        actual = read_values(probe, graph, inputs)
        return fidelity(graph, probe, inputs, one.file), layer_errors(graph, actual, inputs)
    placed = _placed(one)
    return runtime_fidelity(placed, inputs), layer_errors(graph, placed_codes(placed, inputs), inputs)


def runtime_of(target: Target) -> str:
    """Name and version of what runs a target's files on this machine.

    Raises: UsageError with the line that installs it.
    """
    return RUNTIMES[target.runtime].version()


def compared_in_answers(session: Session, job: Job, task: Task, one: Built, reference: Path | None) -> None:
    """Sets `one.drift`: the artifact's answers on the evaluation images against the reference's."""
    source = job.evaluation
    if source is None or reference is None:
        return

    def make(directory: Path, line: Line) -> None:
        images = source.images.first(count)
        found = answers.Answers(directory, one.prepared, count)
        for batch in images.input_batches(answers.chunk(one.prepared)):
            line.advance(found.add(_answers(one, batch)), count)
        found.close()
        _save_flipped(directory, task, found.arrays, images)

    labels = reference / "labels.npy"
    count = json.loads((reference / "images.json").read_text())["n"]

    def compared(arrays: Sequence[np.ndarray]) -> Drift:
        return task.drift(answers.load(reference), arrays, np.load(labels) if labels.exists() else None)

    def _save_flipped(
        directory: Path, task: Task, given: Sequence[np.ndarray], images: ImageSet | ArrayImages
    ) -> None:
        """The images whose answer changed most, what changed drawn over them: a file each, and one sheet."""
        flips = sorted(compared(given).flipped, key=lambda flip: (-flip.rank, flip.index))[:_FLIPPED]
        wanted, pictures = answers.load(reference), {}
        for flip in flips:
            picture = images.picture(flip.index)
            if (changed := task.overlay(flip.index, wanted, given)) is not None:
                picture = marked(picture, changed)
            picture.save(directory / f"{flip.index}.png")
            pictures[flip.index] = np.asarray(picture)
        (directory / "sheet.png").write_bytes(contact_sheet(pictures, flips, job.class_names))

    key = {
        "artifact": one.sha256s,
        "reference": reference.name,
        "runtime": runtime_of(one.target),
        "task": [task.name, repr(task.outputs)],
    }
    one.pictures = session.stage("drift", key, make, one.target.name)
    one.drift = compared(answers.load(one.pictures))


def _answers(one: Built, inputs: list[np.ndarray]) -> list[np.ndarray]:
    if RUNTIMES[one.target.runtime].files is None:
        return run_saved_model(one.file.parent, inputs, one.ports)
    return run_model(one.file, inputs, one.ports, workers=workers())


def seconded(session: Session, job: Job, one: Built) -> None:
    """A .tflite file's answers under TensorFlow's own interpreter."""

    def make(directory: Path, _line: Line) -> None:
        inputs = next(job.calibration.first(_PROBED).input_batches(_PROBED))
        found = tensorflow_check(one.file, inputs, one.ports)
        (directory / "tensorflow.json").write_text(json.dumps(asdict(found)))

    key = {
        "artifact": one.sha256s,
        "images": job.calibration.identity,
        "runtimes": [runtime_of(one.target), RUNTIMES[RUNTIMES[one.target.runtime].second].version()],
    }
    stage = session.stage("tensorflow", key, make, one.target.name)
    content = json.loads((stage / "tensorflow.json").read_text())
    rows = tuple(OutputCheck(**row) for row in content.pop("outputs"))
    one.tensorflow = TensorflowCheck(outputs=rows, **content)


def agreed(session: Session, job: Job, task: Task, built: list[Built]) -> Agreed | None:
    """Every two int8 artifacts against each other, and where they part when they do.

    TensorRT's integers are its own (symmetric): it answers to the float reference alone.
    """
    held = [
        one
        for one in built
        if one.target.activations == "int8" and RUNTIMES[one.target.runtime].host and one.pictures
    ]
    formats = {one.target.format for one in held}
    if len(formats) < 2 or job.evaluation is None:
        return None

    def make(directory: Path, _line: Line) -> None:
        found = agreement({one.target.name: answers.load(_pictures(one)) for one in held}, task=task)
        parted = []
        for pair in found.pairs:
            first, second = (next(o for o in held if o.target.name == n) for n in (pair.first, pair.second))
            where = _parting(job, first, second, pair.differing[:_PROBED])
            parted.append({"first": pair.first, "second": pair.second, "at": where and asdict(where)})
        content = {"agreement": asdict(found), "divergences": parted}
        (directory / "agreement.json").write_text(json.dumps(content))

    key = {
        "artifacts": {one.target.name: one.sha256s for one in held},
        "answers": [_pictures(one).name for one in held],
        "task": task.name,
    }
    content = json.loads((session.stage("agreement", key, make) / "agreement.json").read_text())
    pairs = tuple(
        Pair(**row | {"differing": tuple(row["differing"])}) for row in content["agreement"]["pairs"]
    )
    return Agreed(
        Agreement(tuple(content["agreement"]["names"]), content["agreement"]["n"], pairs),
        {(d["first"], d["second"]): Divergence(**d["at"]) for d in content["divergences"] if d["at"]},
    )


def _pictures(one: Built) -> Path:
    assert one.pictures is not None
    return one.pictures


def _parting(job: Job, first: Built, second: Built, differing: Sequence[int]) -> Divergence | None:
    """The first layer at which two files part, on images they answer differently."""
    comparable = all(one.quantizer == OWN and one.prepared.batchable for one in (first, second))
    if not differing or not comparable or job.evaluation is None:
        return None
    images = job.evaluation.images
    rows = zip(*(images.inputs(index) for index in differing), strict=True)
    return first_divergence(_placed(first), _placed(second), [np.stack(row) for row in rows])


def _placed(one: Built) -> Placed:
    if not RUNTIMES[one.target.runtime].as_written:
        return Placed(one.prepared, one.file, one.tensors, ports=one.ports)
    lowered = tflite.lower(one.prepared, one.target, io_dtype=one.io)
    return Placed(one.prepared, one.file, lowered.tensors, lowered.layouts, one.ports)


def timed(session: Session, device: Device, built: list[Built], baselines: dict[str, Built]) -> None:
    """Every artifact this machine has a runtime for, in turns with the float models it is held against."""
    timed_here = [one for one in built if RUNTIMES[one.target.runtime].host]
    if device.profile == "off" or not timed_here:
        return
    names = [*dict.fromkeys(one.target.baseline for one in timed_here)]
    files = {name: baselines[name] for name in names} | {one.target.name: one for one in timed_here}

    def make(directory: Path, line: Line) -> None:
        measured = latency(
            {name: one.file for name, one in files.items()},
            profile=device.profile,
            threads=device.threads,
            progress=line.advance,
        )
        (directory / "latency_samples.json").write_text(measured.samples_json())
        rows = {name: asdict(row) for name, row in measured.files.items()}
        (directory / "latency.json").write_text(json.dumps({"files": rows, "processes": measured.processes}))

    key = {
        "files": {name: one.sha256s for name, one in files.items()},
        "device": repr(device),
        "runtime": {name: runtime_of(one.target) for name, one in files.items()},
        "machine": machine()["cpu"],
    }
    directory = session.stage("latency", key, make, device.profile)
    content = json.loads((directory / "latency.json").read_text())
    raw = json.loads((directory / "latency_samples.json").read_text())
    measured = Latency(
        files={name: FileLatency(**row) for name, row in content["files"].items()},
        samples_ns={name: [np.array(r) for r in runs] for name, runs in raw["samples_ns"].items()},
        profile=raw["profile"],
        processes=content["processes"],
        threads=raw["threads"],
        runtime=raw["runtime"],
        machine=raw["machine"],
    )
    for one in files.values():
        one.latency = measured


def _by_layers(files: Mapping[str, Source], *, threads: int) -> Latency:
    return latency(files, profile=LAYERS, threads=threads)


def timed_by_layer(session: Session, device: Device, one: Built) -> None:
    """Where an int8 artifact's milliseconds go."""
    if device.profile == "off" or one.target.activations != "int8" or not RUNTIMES[one.target.runtime].host:
        return

    def make(directory: Path, _line: Line) -> None:
        found = layer_times(one.file, one.modules, latency=_by_layers, threads=device.threads)
        (directory / "times.json").write_text(json.dumps(asdict(found)))

    key = {
        "artifact": one.sha256s,
        "threads": device.threads,
        "runtime": runtime_of(one.target),
        "machine": machine()["cpu"],
    }
    content = json.loads((session.stage("times", key, make, one.target.name) / "times.json").read_text())
    one.times = LayerTimes(**content | {"rows": tuple(LayerTime(**row) for row in content["rows"])})
