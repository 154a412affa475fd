"""The proofs of a build, one function a stage: a Built goes in and leaves with one more piece of evidence.

Each asks `edgekit.verify` and keeps the answer in the store under what it depends on.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgekit.job import Built, Job
from edgekit.lower import tflite
from edgekit.session import Line, Session
from edgekit.verify.audit import audit
from edgekit.verify.contact_sheet import contact_sheet
from edgekit.verify.delegation import delegation
from edgekit.verify.drift import Drift, drift
from edgekit.verify.fidelity import (
    Fidelity,
    FloatFidelity,
    OpFidelity,
    fidelity,
    float_fidelity,
    probe_values,
    read_values,
)
from edgekit.verify.latency import FileLatency, Latency, latency, machine
from edgekit.verify.layers import LayerError, layer_errors
from edgekit.verify.runtime import run_model, runtime_version

if TYPE_CHECKING:
    from edgekit.data import ImageSet
    from edgekit.data.arrays import ArrayImages
    from edgekit.recipe import Device

_HOST_RUNTIMES = ("litert", "onnxruntime", "openvino")  # TensorRT's time is a Jetson's business
_PROBED = 4  # images on which every operator is compared
_FLIPPED = 48  # pictures kept of images whose answer changed
_CHUNK = 256  # evaluation images whose float32 pixels are in memory at a time


def audited(session: Session, one: Built) -> None:
    with session.step(f"audit {one.target.name}"):
        one.audit = audit(one.file, one.modules)
        one.delegation = delegation(one.file, one.modules)


def compared_in_steps(session: Session, job: Job, one: Built) -> None:
    """The integer simulation against the runtime, and which layers cause the error that is left."""
    integer = one.target.activations == "int8"

    def make(directory: Path, _line: Line) -> None:
        images = next(job.calibration.first(_PROBED).batches(_PROBED))
        errors: list[LayerError] = []
        found: Fidelity | FloatFidelity
        if integer:
            exposed = probe_values(one.prepared)
            probe = tflite.lower(one.prepared, one.target, io_dtype=one.io, outputs_also=exposed)
            actual = read_values(probe, one.prepared, images)
            found = fidelity(one.prepared, probe, images, one.file)
            errors = layer_errors(one.prepared, actual, images)
        else:
            found = float_fidelity(one.prepared, one.file, images)
        content = {"fidelity": asdict(found), "errors": [asdict(row) for row in errors]}
        (directory / "fidelity.json").write_text(json.dumps(content))

    key = {
        "artifact": one.sha256s,
        "graph": one.prepared.hash(),
        "images": job.calibration.identity,
        "runtime": runtime_version(),
    }
    directory = session.stage("fidelity", key, make, one.target.name)
    content = json.loads((directory / "fidelity.json").read_text())
    one.errors = [LayerError(**row) for row in content["errors"]]
    if integer:
        layers = tuple(OpFidelity(**row) for row in content["fidelity"].pop("layers"))
        one.fidelity = Fidelity(layers=layers, **content["fidelity"])
    else:
        one.fidelity = FloatFidelity(**content["fidelity"])


def compared_in_answers(session: Session, job: Job, one: Built, reference: Path | None) -> None:
    """Sets `one.logits`: the artifact's answers on the evaluation images."""
    source = job.evaluation
    if source is None or reference is None:
        return

    def make(directory: Path, line: Line) -> None:
        images, rows, done = source.images, [], 0
        for batch in images.batches(_CHUNK):
            rows.append(run_model(one.file, batch, workers=os.cpu_count() or 1))
            done += len(batch)
            line.advance(done, len(images))
        logits = np.concatenate(rows)
        np.save(directory / "logits.npy", logits)
        _save_flipped(directory, compared(logits), images, job)

    labels = reference / "labels.npy"

    def compared(logits: np.ndarray) -> Drift:
        return drift(np.load(reference / "logits.npy"), logits, np.load(labels) if labels.exists() else None)

    key = {"artifact": one.sha256s, "reference": reference.name, "runtime": runtime_version()}
    one.pictures = session.stage("drift", key, make, one.target.name)
    one.drift = compared(np.load(one.pictures / "logits.npy"))


def _save_flipped(directory: Path, found: Drift, images: ImageSet | ArrayImages, job: Job) -> None:
    """The images whose answer changed: one file each, and all on one sheet."""
    flips = found.flipped[:_FLIPPED]
    pictures = {flip.index: images.picture(flip.index) for flip in flips}
    for index, picture in pictures.items():
        picture.save(directory / f"{index}.png")
    arrays = {index: np.asarray(picture) for index, picture in pictures.items()}
    (directory / "sheet.png").write_bytes(contact_sheet(arrays, flips, job.class_names))


def timed(session: Session, device: Device, built: list[Built], baselines: dict[str, Built]) -> None:
    """Every artifact this machine has a runtime for, in turns with the float models it is held against."""
    timed_here = [one for one in built if one.target.runtime in _HOST_RUNTIMES]
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
        "runtime": runtime_version(),
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
