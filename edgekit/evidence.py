"""What the stages found, as the directory a user gets: gates, report.json, pages, one bundle a target.

Enters: `Facts` with plain data from every stage. Leaves: files under OUT and a `Run`.
"""

from __future__ import annotations

import contextlib
import datetime
import importlib.metadata
import json
import os
import platform
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit import __version__
from edgekit.bundle import rejected_name, write_bundle
from edgekit.data import ImageSet
from edgekit.data.source import Source
from edgekit.errors import DataError
from edgekit.job import Agreed, Artifact, Built, Job, Run
from edgekit.proofs import runtime_of
from edgekit.report import SCHEMA_VERSION, validate
from edgekit.report.card import model_card
from edgekit.report.html import render_html
from edgekit.report.markdown import render_markdown
from edgekit.store import write_atomic
from edgekit.targets import Target, get_target
from edgekit.verify.cost import cost
from edgekit.verify.gates import Evidence, Thresholds, judge
from edgekit.verify.latency import machine
from edgekit.verify.runtime import run_vector

if TYPE_CHECKING:
    from edgekit.data.arrays import ArrayImages
    from edgekit.ir import Graph
    from edgekit.passes import PassRecord
    from edgekit.recipe import Recipe

GOLDEN_VECTORS = 3
_PACKAGES = ("torch", "torchvision", "timm", "ai-edge-litert", "numpy")
_OPTIONAL = ("onnx", "onnxruntime", "openvino", "nncf", "tensorflow")
_JUDGED_HERE = ("litert", "onnxruntime", "openvino")  # TensorRT fuses and places operators on a Jetson


@dataclass(frozen=True)
class Facts:
    """Everything a build found out."""

    recipe: Recipe
    job: Job
    graph: Graph
    rewrites: list[PassRecord]
    reference: Path | None
    built: list[Built]
    baselines: dict[str, Built]
    together: Agreed | None


def versions() -> dict[str, str]:
    """Versions of what a result depends on besides edgekit's own code."""
    found = {name: importlib.metadata.version(name) for name in _PACKAGES}
    for name in _OPTIONAL:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def labels_for(images: ImageSet | ArrayImages, job: Job, graph: Graph) -> np.ndarray | None:
    """The images' labels as indices of the model's outputs; None when they cannot be compared.

    Folder names are matched with the model's class names by name. The embedded set's classes mean nothing
    to a model trained on other ones: agreement is measured instead.
    Raises: DataError when folders and outputs do not match.
    """
    if images.labels is None:
        return None
    outputs, names = graph.outputs[0].shape[-1], images.class_names
    if names is None:
        if int(images.labels.max()) >= outputs or int(images.labels.min()) < 0:
            raise DataError(
                f"{images.name}: label {images.labels.max()}: the model has {outputs} outputs, from 0"
            )
        return images.labels
    known = job.class_names
    if known is not None and set(names) <= set(known):
        return np.array([known.index(name) for name in names], np.int64)[images.labels]
    if images.name.startswith("embedded"):
        return images.labels if len(names) == outputs and known is None else None
    if known is not None:
        strange = [name for name in names if name not in known]
        raise DataError(
            f"{images.name}: folder {strange[0]!r} is no class of {job.name}: folders named after its "
            f"{len(known)} classes, like {known[0]!r}"
        )
    if len(names) != outputs:
        raise DataError(
            f"{images.name}: {len(names)} class folders, but {job.name} has {outputs} outputs: as many "
            "folders as outputs, in the order of the outputs"
        )
    return images.labels


def write(facts: Facts, stages: list[dict[str, Any]], out: str | os.PathLike[str]) -> Run:
    """Judge, bundle, and write the report."""
    directory = Path(out)
    gates = [gate for one in facts.built for gate in _gates(facts, one)] + _shared_gates(facts)
    report = _report(facts, stages, gates)
    validate(report)
    artifacts = {one.target.name: _bundle(facts, one, report, directory) for one in facts.built}
    write_atomic(directory / "report.json", json.dumps(report, indent=1, allow_nan=False) + "\n")
    write_pages(report, directory)
    return Run(directory, report, artifacts)


def write_pages(report: dict[str, Any], directory: Path) -> None:
    """report.html and report.md from report.json's content."""
    write_atomic(directory / "report.html", render_html(report, directory))
    write_atomic(directory / "report.md", render_markdown(report))


def _gates(facts: Facts, one: Built) -> list[dict[str, Any]]:
    asked, target = facts.recipe.verify, one.target
    limits = replace(
        Thresholds.for_target(target.activations, target.weights, target.format),
        max_lsb=asked.max_lsb,
        max_drop=_percent(asked.max_top1_drop),
        min_agreement=_percent(asked.min_agreement),
        max_size_bytes=asked.max_size_bytes,
    )
    if target.runtime not in _JUDGED_HERE:
        limits = replace(limits, max_partitions=None, max_undelegated_ops=None, min_int8_macs_share=None)
    if target.activations == "int8":  # what other targets do not promise is not demanded of them
        limits = replace(limits, max_latency_ratio=asked.max_latency_ratio)
    if target.format == "tflite":  # other runtimes reorder tensors on their own, and have no delegates
        limits = replace(limits, max_transposes=asked.max_transposes)
    else:
        limits = replace(limits, max_transposes=None, max_partitions=None)
    if target.format == "tflite" and target.activations == "int8":
        limits = replace(
            limits,
            max_partitions=asked.max_partitions,
            max_undelegated_ops=asked.max_undelegated,
            min_int8_share=asked.min_int8_share,
        )
    found = Evidence(
        fidelity=one.fidelity,
        drift=one.drift,
        audit=one.audit,
        delegation=one.delegation,
        latency=one.latency,
        latency_names=(target.name, target.baseline),
        layers=one.errors,
        tensorflow=one.tensorflow,
    )
    return [{**gate.as_dict(), "target": target.name} for gate in judge(found, limits)]


def _shared_gates(facts: Facts) -> list[dict[str, Any]]:
    """Gates over several artifacts."""
    if facts.together is None:
        return []
    limits = Thresholds(min_pairwise_agreement=_percent(facts.recipe.verify.min_pairwise_agreement))
    found = Evidence(pairwise=facts.together.agreement, divergences=facts.together.divergences)
    return [{**gate.as_dict(), "target": "all"} for gate in judge(found, limits)]


def _percent(share: float | None) -> float | None:
    return None if share is None else 100.0 * share


def _report(facts: Facts, stages: list[dict[str, Any]], gates: list[dict[str, Any]]) -> dict[str, Any]:
    job = facts.job
    counted = cost(facts.graph)
    report = {
        "schema_version": SCHEMA_VERSION,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "model": job.name,
        "weights": "UNTRAINED" if job.weights["untrained"] else job.weights["kind"],
        "data": facts.recipe.data.source if isinstance(job.calibration, Source) else "given arrays",
        "verdict": "passed" if all(gate["ok"] for gate in gates) else "rejected",
        "stages": stages,
        "cost": {
            "params": counted.params,
            "macs": counted.macs,
            "mem_bytes": counted.mem_bytes,
            "peak_activation_bytes": counted.peak_activation_bytes,
        },
        "artifacts": {one.target.name: _artifact(facts, one, gates) for one in facts.built},
        "gates": gates,
        "machine": {
            "cpu": machine()["cpu"],
            "cores": os.cpu_count() or 1,
            "os": f"{platform.system()} {platform.machine()}",
            "python": platform.python_version(),
            "runtime": ", ".join(dict.fromkeys(runtime_of(one.target) for one in facts.built)),
        },
        "versions": {"edgekit": __version__, **versions()},
        "provenance": {
            "weights": {k: job.weights.get(k) for k in ("kind", "source", "sha256", "untrained")},
            "data": _data(facts),
            "recipe": facts.recipe.to_dict(),
            "graph_hash": facts.graph.hash(),
            "passes": [{"name": r.name, "rewrites": r.rewrites} for r in facts.rewrites],
        },
    }
    if rows := _runtimes(facts):
        report["runtimes"] = rows
    if facts.together is not None:
        report["agreement"] = _agreement(facts.together, facts.recipe)
    return _finite(report)


def _runtimes(facts: Facts) -> list[dict[str, Any]]:
    """Every file that was timed, fastest first."""
    measured = next((one.latency for one in facts.built if one.latency is not None), None)
    if measured is None:
        return []
    fastest = min(row.p50_ms for row in measured.files.values())
    own = {one.target.name for one in facts.built}
    return [
        {
            "target": name,
            "runtime": row.runtime,
            "precision": _precision(get_target(name)),
            "settings": row.settings,
            "p50_ms": row.p50_ms,
            "p90_ms": row.p90_ms,
            "p99_ms": row.p99_ms,
            "p50_low_ms": row.p50_interval[0],
            "p50_high_ms": row.p50_interval[1],
            "n": row.n,
            "relative": row.p50_ms / fastest,
            "artifact": name in own,
        }
        for name, row in sorted(measured.files.items(), key=lambda item: item[1].p50_ms)
    ]


def _precision(target: Target) -> str:
    return target.activations if target.activations != "float32" else target.weights


def _agreement(together: Agreed, recipe: Recipe) -> dict[str, Any]:
    found, names = together.agreement, together.agreement.names
    between = {frozenset((pair.first, pair.second)): pair for pair in found.pairs}

    def cell(a: str, b: str, key: str, same: float | None) -> float | None:
        return same if a == b else getattr(between[frozenset((a, b))], key)

    pairs = []
    for pair in found.pairs:
        at = together.divergences.get((pair.first, pair.second))
        where = at and {
            "value": at.value,
            "module": at.module,
            "op": at.op,
            "sqnr_db_before": at.before_db,
            "sqnr_db": at.after_db,
        }
        pairs.append(
            {
                "a": pair.first,
                "b": pair.second,
                "agreement": pair.agreement,
                "sqnr_db": pair.sqnr_db,
                "differ": pair.disagreements,
                "divergence": where,
            }
        )
    return {
        "n": found.n,
        "targets": names,
        "top1": [[cell(a, b, "agreement", 100.0) for b in names] for a in names],
        "sqnr_db": [[cell(a, b, "sqnr_db", None) for b in names] for a in names],
        "pairs": pairs,
        "min_agreement": _percent(recipe.verify.min_pairwise_agreement),
    }


def _data(facts: Facts) -> dict[str, Any]:
    about: dict[str, Any] = {"name": "embedded"}
    if isinstance(facts.job.calibration, Source):
        about["name"] = facts.job.calibration.spec
    else:
        about["name"] = "given arrays"
    if calibrated := [one.quantization["calibration"] for one in facts.built if one.quantization]:
        about["n_calibration"], about["calibration_sha256"] = calibrated[0]["n"], calibrated[0]["sha256"]
    if facts.reference is not None:
        judged = json.loads((facts.reference / "images.json").read_text())
        about["n_evaluation"], about["sha256"] = judged["n"], judged["sha256"]
    return about


def _artifact(facts: Facts, one: Built, gates: list[dict[str, Any]]) -> dict[str, Any]:
    name = one.target.name
    content: dict[str, Any] = {
        "path": f"{name}/{_file_name(one, gates)}",
        "sha256": next(iter(one.sha256s.values())),
        "files": one.sha256s,
        "size_bytes": one.size_bytes,
        "float_size_bytes": facts.baselines[one.target.baseline].size_bytes,
        "audit": _audit(one),
        "fidelity": one.fidelity.as_dict() if one.fidelity is not None else None,
        "layers": _layers(one),
    }
    if one.tensorflow is not None:
        content["tensorflow"] = one.tensorflow.as_dict()
    if one.times is not None:
        rows = [_without(asdict(row), "operators") for row in one.times.rows]
        content["times"] = {"total_ms": one.times.total_ms, "method": one.times.method, "rows": rows}
    if one.quantizer != "edgekit":
        content["quantizer"] = one.quantizer
    if one.drift is not None:
        content["drift"] = _without(one.drift.as_dict(), "flipped") | {"flipped": len(one.drift.flipped)}
        content["drift"]["max_drop_points"] = _percent(facts.recipe.verify.max_top1_drop)
        content["flipped"] = _flipped(facts, one)
    if one.latency is not None:
        base = one.target.baseline
        floats = one.latency.files[base]
        milliseconds = {
            key: [np.round(run / 1e6, 4).tolist() for run in one.latency.samples_ns[file]]
            for key, file in (("artifact_ms", name), ("float_ms", base))
        }
        content["latency"] = one.latency.as_dict(name, base) | {
            "float_p90_ms": floats.p90_ms,
            "float_p99_ms": floats.p99_ms,
            "float_target": base,
            "note": one.latency.machine["note"],
            "samples": milliseconds,
            "samples_file": f"{name}/latency_samples.json",
        }
    if one.quantization is not None:
        content["quantize"] = _without(one.quantization, "calibration", "parts")
        content["quantize"]["parts"] = _parts(one.quantization["parts"])
    return content


def _audit(one: Built) -> dict[str, Any]:
    if one.audit is None or one.delegation is None:  # nothing here executes it
        dtypes = {"input_dtype": one.target.activations, "output_dtype": one.target.activations}
        nothing: dict[str, Any] = {"int8_ops_share": 0.0, "float_ops": len(one.nodes), "transposes": 0}
        return nothing | {"partitions": None, "undelegated_ops": None} | dtypes
    content = _without(one.audit.as_dict(), "ops")
    if one.target.format == "tflite":
        content["partitions"] = one.delegation.partitions
    else:
        content |= {"partitions": None, "executed": {"kinds": one.audit.kinds}}
    return content | {"undelegated_ops": [str(op) for op in one.delegation.undelegated_ops]}


def _parts(parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each part of the quantization with what it gained, in dB on held-out calibration images."""
    return [
        {
            "name": part["part"].replace("_", " "),
            "on": part.get("kept", True),
            "sqnr_db_before": part["sqnr_db"] - part["gain_db"],
            "sqnr_db_after": part["sqnr_db"],
            "gain_db": part["gain_db"],
            "seconds": part["seconds"],
        }
        for part in parts
    ]


def _file_name(one: Built, gates: list[dict[str, Any]]) -> str:
    name = next(iter(one.files))
    failed = any(gate["target"] == one.target.name and not gate["ok"] for gate in gates)
    return rejected_name(name) if failed else name


def _flipped(facts: Facts, one: Built) -> list[dict[str, Any]]:
    names = facts.job.class_names

    def said(index: int | None) -> str | None:
        if index is None:
            return None
        return names[index] if names is not None and index < len(names) else f"class {index}"

    assert one.drift is not None
    rows = []
    for flip in one.drift.flipped:
        shown = one.pictures is not None and (one.pictures / f"{flip.index}.png").exists()
        rows.append(
            {
                "index": flip.index,
                "label": said(flip.label),
                "float_said": said(flip.reference),
                "float_p": flip.reference_probability,
                "int8_said": said(flip.artifact),
                "int8_p": flip.artifact_probability,
                "image": f"{one.target.name}/flipped/{flip.index}.png" if shown else None,
            }
        )
    return rows


def _layers(one: Built) -> list[dict[str, Any]]:
    """In order: what each layer costs, where it runs, how much noise it adds.

    A .tflite file's operators stand for the prepared graph's nodes; other runtimes execute what they fused.
    """
    if one.audit is None or one.delegation is None:
        return []
    if one.target.format != "tflite":
        return _executed(one)
    outside = {op.index for op in one.delegation.undelegated_ops}
    errors = {error.value: error for error in one.errors}
    rows = []
    for i, node in enumerate(one.prepared.nodes):
        ops = [op for op in one.audit.ops if one.nodes[op.index] == i]
        if not ops:
            continue
        row: dict[str, Any] = {
            "name": node.output.name,
            "module": node.source,
            "op": "depthwise_conv2d" if any(op.op == "DEPTHWISE_CONV_2D" for op in ops) else node.op,
            "macs": sum(op.macs for op in ops),
            "bytes": sum(op.weight_bytes for op in ops),
            "where": "cpu" if any(op.index in outside for op in ops) else "xnnpack",
        }
        if row["where"] == "xnnpack" and any(op.kind == "table" for op in ops):
            row["where"] = "table"
        if (error := errors.get(node.output.name)) is not None:
            row["sqnr_db"], row["introduced_error_share"] = error.accumulated_db, error.output_share
        rows.append(row)
    return rows


def _executed(one: Built) -> list[dict[str, Any]]:
    assert one.audit is not None
    errors: dict[str, Any] = {}
    for error in one.errors:  # the most costly of a module first
        errors.setdefault(error.module, error)
    rows = []
    for op in one.audit.ops:
        if op.kind in ("convert", "other"):
            continue
        row: dict[str, Any] = {
            "name": op.module,
            "module": op.module,
            "op": op.op,
            "macs": op.macs,
            "bytes": op.weight_bytes,
            "where": "int8" if op.kind == "int8" else "float",
        }
        if (error := errors.pop(op.module, None)) is not None:
            row["sqnr_db"], row["introduced_error_share"] = error.accumulated_db, error.output_share
        rows.append(row)
    return rows


def _bundle(facts: Facts, one: Built, report: dict[str, Any], directory: Path) -> Artifact:
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
    """Inputs or outputs of a hand-over as TensorFlow takes them: pictures as (N, H, W, C)."""
    rows = []
    for value in getattr(one.prepared, side):
        n, *rest = value.shape
        shape = (n, *rest[1:], rest[0]) if len(rest) == 3 else value.shape
        rows.append({"name": one.tensors.get(value.name, value.name), "shape": shape, "dtype": "float32"})
    return rows


def _golden(facts: Facts, one: Built) -> list[dict[str, Any]]:
    """A few evaluation images with the tensors the model takes and gives for them."""
    few = (facts.job.evaluation or facts.job.calibration).first(GOLDEN_VECTORS)
    vectors = []
    for i, tensor in enumerate(next(few.batches(GOLDEN_VECTORS))):
        inputs, outputs = run_vector(one.file, tensor)
        vector: dict[str, Any] = {"inputs": inputs, "outputs": outputs}
        if isinstance(few, ImageSet):
            vector["image"] = np.asarray(few.raw(i))
        vectors.append(vector)
    return vectors


def _without(content: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {k: v for k, v in content.items() if k not in keys}


def _finite(value: Any) -> Any:
    """JSON data with tuples as lists, numpy numbers as Python's, and no infinities (null instead)."""
    if isinstance(value, dict):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    if isinstance(value, np.generic):
        return _finite(value.item())
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value
