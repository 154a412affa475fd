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
from edgekit.runtimes.runtime import run_vector

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
        inputs=[asdict(tensor) for tensor in one.audit.inputs] if one.audit else _tensors(one, "inputs"),
        outputs=[asdict(tensor) for tensor in one.audit.outputs] if one.audit else _tensors(one, "outputs"),
        edgekit_version=__version__,
        preprocessing=facts.job.preprocessing,
        labels=facts.job.class_names,
        golden=_golden(facts, one) if one.audit else (),
        calibration=(one.quantization or {}).get("calibration"),
        weights=report["provenance"]["weights"],
        recipe=facts.recipe.to_dict(),
        graph_hash=report["provenance"]["graph_hash"],
        rejected=rejected,
        card=lambda manifest: model_card(report, name, manifest),
        extra=extra,
    )
    return Artifact(directory / artifact["path"], rejected)


def _tensors(one: Built, side: str) -> list[dict[str, Any]]:
    """Inputs or outputs of a hand-over as TensorFlow takes them."""
    return [
        {"name": port.name, "shape": [port.shape[dim] for dim in port.layout], "dtype": port.dtype}
        for port in getattr(one.ports, side)
    ]


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
