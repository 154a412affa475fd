"""One artifact's directory: model, manifest, golden vectors, card."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from edgekit import __version__
from edgekit.bundle import write_bundle
from edgekit.data import ImageSet
from edgekit.pipeline.job import Artifact, Built, Facts
from edgekit.report.card import model_card
from edgekit.runtimes.runtime import min_runtime_version, run_vector

GOLDEN_VECTORS = 3


def bundle_artifact(facts: Facts, one: Built, report: dict[str, Any], directory: Path) -> Artifact:
    name = one.target.name
    artifact = report["artifacts"][name]
    rejected = "rejected" in artifact["path"]
    extra: dict[str, bytes | str] = {}
    if one.latency is not None:
        extra["latency_samples.json"] = one.latency.samples_json()
    if one.pictures is not None:
        for picture in sorted(one.pictures.glob("*.png")):
            extra[f"flipped/{picture.name}"] = picture.read_bytes()
    write_bundle(
        directory / name,
        model={file: path.read_bytes() for file, path in one.files.items()},
        name=facts.job.name,
        target=name,
        inputs=_tensors(one, "inputs"),
        outputs=_tensors(one, "outputs"),
        edgekit_version=__version__,
        preprocessing=facts.job.preprocessing,
        labels=facts.job.class_names,
        task={"name": facts.task.name, "outputs": [port.name for port in one.ports.outputs]},
        scores=_scores(facts, one),
        golden=_golden(facts, one) if one.audit else (),
        calibration=(one.quantization or {}).get("calibration"),
        weights=report["provenance"]["weights"],
        recipe=facts.recipe.to_dict(),
        graph_hash=report["provenance"]["graph_hash"],
        min_runtime_version=min_runtime_version(one.file) if one.audit else None,
        rejected=rejected,
        card=lambda manifest: model_card(report, name, manifest),
        extra=extra,
    )
    return Artifact(directory / artifact["path"], rejected)


def _tensors(one: Built, side: str) -> list[dict[str, Any]]:
    """Inputs or outputs as the file has them, in its order; of a hand-over as TensorFlow takes them."""
    ports = {port.name: port for port in getattr(one.ports, side)}
    if one.audit is None:
        rows = [
            {"name": port.name, "shape": [port.shape[dim] for dim in port.layout], "dtype": port.dtype}
            for port in ports.values()
        ]
    else:
        rows = [asdict(tensor) for tensor in getattr(one.audit, side)]
    for row in rows:
        port = ports.get(row["name"])
        if port is not None and len(port.layout) == 4:
            row["layout"] = "".join("NCHW"[dim] for dim in port.layout)
    return rows


def _scores(facts: Facts, one: Built) -> int | None:
    """The place in the file of the output that holds class scores, None for other tasks."""
    if facts.task.name != "classification":
        return None
    name = one.ports.outputs[facts.task.scored].name
    given = [tensor.name for tensor in one.audit.outputs] if one.audit else []
    return given.index(name) if name in given else facts.task.scored


def _golden(facts: Facts, one: Built) -> list[dict[str, Any]]:
    """A few evaluation images with the tensors the model takes and gives for them."""
    few = (facts.job.evaluation or facts.job.calibration).first(GOLDEN_VECTORS)
    vectors = []
    for i in range(len(few)):
        inputs, outputs = run_vector(one.file, few.inputs(i), one.ports)
        vector: dict[str, Any] = {"inputs": inputs, "outputs": outputs}
        if isinstance(few, ImageSet):
            vector["image"] = np.asarray(few.raw(i))
        vectors.append(vector)
    return vectors


def without(content: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {k: v for k, v in content.items() if k not in keys}
