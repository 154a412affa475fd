"""What the stages found, as the directory a user gets: gates, report.json, pages, one bundle a target.

Enters: `Facts` with plain data from every stage. Leaves: files under OUT and a `Run`.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from edgekit import __version__
from edgekit.bundle import rejected_name
from edgekit.data.source import Source
from edgekit.device.host import machine
from edgekit.files import write_atomic
from edgekit.graph.file import graph_hash
from edgekit.pipeline.answers import LIMIT_BYTES
from edgekit.pipeline.bundle import bundle_artifact, without
from edgekit.pipeline.job import Agreed, Built, Facts, Run
from edgekit.pipeline.judge import gates_of, least_agreement, percent, promises_of, shared_gates
from edgekit.pipeline.prove import runtime_of
from edgekit.pipeline.versions import versions
from edgekit.report import SCHEMA_VERSION, validate
from edgekit.report.html import render_html
from edgekit.report.markdown import render_markdown
from edgekit.runtimes.registry import RUNTIMES
from edgekit.targets import get_target
from edgekit.targets.target import OWN
from edgekit.verify.cost import Cost, cost


def write(facts: Facts, stages: list[dict[str, Any]], out: str | os.PathLike[str]) -> Run:
    """Judge, bundle, and write the report."""
    directory = Path(out)
    gates = [gate for one in facts.built for gate in gates_of(facts, one)] + shared_gates(facts)
    report = _report(facts, stages, gates)
    validate(report)
    artifacts = {one.target.name: bundle_artifact(facts, one, report, directory) for one in facts.built}
    write_atomic(directory / "report.json", json.dumps(report, indent=1, allow_nan=False) + "\n")
    write_pages(report, directory)
    return Run(directory, report, artifacts)


def write_pages(report: dict[str, Any], directory: Path) -> None:
    """report.html and report.md from report.json's content."""
    write_atomic(directory / "report.html", render_html(report, directory))
    write_atomic(directory / "report.md", render_markdown(report))


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
            "graph_hash": graph_hash(facts.graph),
            "passes": [{"name": r.name, "rewrites": r.rewrites} for r in facts.rewrites],
        },
    }
    if facts.job.variant.parent is not None:
        report["variants"] = _variants(facts, counted)
    outputs = [{"name": o.name, "shape": o.shape, "dtype": o.dtype} for o in facts.task.outputs]
    report["task"] = {"name": facts.task.name, "reason": facts.task.reason, "outputs": outputs}
    if rows := _runtimes(facts):
        report["runtimes"] = rows
    if facts.together is not None:
        report["agreement"] = _agreement(facts.together, least_agreement(facts))
    return _finite(report)


def _variants(facts: Facts, counted: Cost) -> list[dict[str, Any]]:
    """From the original to what was built, with what each costs."""
    first, last = facts.job.variant.original, facts.job.variant
    return [
        {"step": variant.step, "name": variant.name, "params": found.params, "macs": found.macs}
        for variant, found in ((first, cost(facts.original)), (last, counted))
    ]


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
            "precision": get_target(name).precision,
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


def _agreement(together: Agreed, least: float | None) -> dict[str, Any]:
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
        "min_agreement": least,
    }


def _data(facts: Facts) -> dict[str, Any]:
    """What the figures stand on: images used and asked for, their hashes, and what was left out."""
    about: dict[str, Any] = {"name": "given arrays"}
    job = facts.job
    if isinstance(job.calibration, Source):
        about["name"] = job.calibration.spec
        about["asked_calibration"] = job.calibration.count
    if calibrated := [one.quantization["calibration"] for one in facts.built if one.quantization]:
        about["n_calibration"], about["calibration_sha256"] = calibrated[0]["n"], calibrated[0]["sha256"]
    if facts.reference is not None:
        judged = json.loads((facts.reference / "images.json").read_text())
        about["n_evaluation"], about["sha256"] = judged["n"], judged["sha256"]
        if isinstance(job.evaluation, Source):
            about["asked_evaluation"] = job.evaluation.count
        if judged["asked"] > judged["n"]:
            about["asked_evaluation"] = max(judged["asked"], about.get("asked_evaluation", 0))
            about["evaluation_limit"] = f"the answers to more would take over {LIMIT_BYTES / 1e9:g} GB"
    folders = [s for s in (job.calibration, job.evaluation) if isinstance(s, Source) and s.spec != "embedded"]
    if folders:
        about["skipped"] = list(dict.fromkeys(line for s in folders for line in s.images.skipped))
        about["orientation"] = folders[0].preprocessing.orientation
        about["turned"] = sum(s.images.turned for s in folders)
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
        rows = [without(asdict(row), "operators") for row in one.times.rows]
        content["times"] = {"total_ms": one.times.total_ms, "method": one.times.method, "rows": rows}
    if one.quantizer != OWN:
        content["quantizer"] = one.quantizer
    if one.drift is not None:
        content["drift"] = without(one.drift.as_dict(), "flipped") | {"flipped": len(one.drift.flipped)}
        promises = promises_of(facts.recipe, one.target)
        content["drift"]["max_drop_points"] = percent(promises.max_top1_drop)
        content["drift"]["min_images"] = promises.min_images
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
        content["quantize"] = without(one.quantization, "calibration", "parts")
        content["quantize"]["parts"] = _parts(one.quantization["parts"])
    return content


def _audit(one: Built) -> dict[str, Any]:
    if one.audit is None or one.delegation is None:  # nothing here executes it
        dtypes = {"input_dtype": one.target.activations, "output_dtype": one.target.activations}
        nothing: dict[str, Any] = {"int8_ops_share": 0.0, "float_ops": len(one.nodes), "transposes": 0}
        return nothing | {"partitions": None, "undelegated_ops": None} | dtypes
    content = without(one.audit.as_dict(), "ops")
    if one.target.words.delegates:
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
    assert one.drift is not None
    rows = []
    for flip in one.drift.flipped:
        shown = one.pictures is not None and (one.pictures / f"{flip.index}.png").exists()
        image = f"{one.target.name}/flipped/{flip.index}.png" if shown else None
        rows.append({**flip.row(facts.job.class_names), "image": image})
    return rows


def _layers(one: Built) -> list[dict[str, Any]]:
    """In order: what each layer costs, where it runs, how much noise it adds.

    A file that is executed as it is written has operators for the prepared graph's nodes; other runtimes
    execute what they fused.
    """
    if one.audit is None or one.delegation is None:
        return []
    if not RUNTIMES[one.target.runtime].as_written:
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
