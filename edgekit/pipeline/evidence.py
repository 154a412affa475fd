"""What the stages found, as the directory a user gets: gates, report.json, pages, one bundle a target.

Enters: `Facts` with plain data from every stage. Leaves: files under OUT and a `Run`.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgekit import __version__
from edgekit.bundle import rejected_name
from edgekit.cost.static import count
from edgekit.data.source import Source
from edgekit.device.host import machine
from edgekit.files import write_atomic
from edgekit.graph.file import graph_hash
from edgekit.pipeline import chain, proofs
from edgekit.pipeline.answers import LIMIT_BYTES
from edgekit.pipeline.bundle import bundle_artifact, without
from edgekit.pipeline.job import Built, Facts, Run
from edgekit.pipeline.judge import least_agreement, promises_of, shared_gates
from edgekit.pipeline.proofs import agreement
from edgekit.pipeline.proofs.run import runtime_of
from edgekit.pipeline.versions import versions
from edgekit.report import SCHEMA_VERSION, validate
from edgekit.report.html import render_html
from edgekit.report.markdown import render_markdown
from edgekit.targets import get_target
from edgekit.targets.target import OWN


def write(facts: Facts, stages: list[dict[str, Any]], out: str | os.PathLike[str]) -> Run:
    """Judge, bundle, and write the report."""
    directory = Path(out)
    gates = [gate for one in facts.built for gate in _gates(facts, one)] + shared_gates(facts)
    report = _report(facts, stages, gates)
    validate(report)
    artifacts = {one.target.name: bundle_artifact(facts, one, report, directory) for one in facts.built}
    write_atomic(directory / "report.json", json.dumps(report, indent=1, allow_nan=False) + "\n")
    write_pages(report, directory)
    return Run(directory, report, artifacts)


def _gates(facts: Facts, one: Built) -> list[dict[str, Any]]:
    """The gates of one artifact, as they stand in report.json."""
    promises = promises_of(facts.recipe, one.target)
    found = [gate for proof in proofs.PROOFS for gate in proof.gates(one, promises)]
    return [{**gate.as_dict(), "target": one.target.name} for gate in found]


def write_pages(report: dict[str, Any], directory: Path) -> None:
    """report.html and report.md from report.json's content."""
    write_atomic(directory / "report.html", render_html(report, directory))
    write_atomic(directory / "report.md", render_markdown(report))


def _report(facts: Facts, stages: list[dict[str, Any]], gates: list[dict[str, Any]]) -> dict[str, Any]:
    job = facts.job
    counted = count(facts.graph)
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
            "mem_bytes": counted.traffic_bytes,
            "peak_activation_bytes": counted.peak_activation_bytes,
        },
        "artifacts": {one.target.name: _artifact(facts, one, gates) for one in facts.built},
        "gates": gates,
        "machine": {
            "cpu": machine()["cpu"],
            "cores": os.cpu_count() or 1,
            "threads": torch.get_num_threads(),
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
        report["variants"] = chain.rows(facts)
    outputs = [{"name": o.name, "shape": o.shape, "dtype": o.dtype} for o in facts.task.outputs]
    report["task"] = {"name": facts.task.name, "reason": facts.task.reason, "outputs": outputs}
    if rows := _runtimes(facts):
        report["runtimes"] = rows
    if facts.together is not None:
        report["agreement"] = agreement.section(facts.together, least_agreement(facts))
    return _finite(report)


def _runtimes(facts: Facts) -> list[dict[str, Any]]:
    """Every file that was timed, fastest first."""
    measured = next((one.latency for one in facts.built if one.latency is not None), None)
    if measured is None:
        return []
    own = {one.target.name for one in facts.built}
    files = {name: row for name, row in measured.files.items() if name in own | set(facts.baselines)}
    fastest = min(row.p50_ms for row in files.values())
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
        for name, row in sorted(files.items(), key=lambda item: item[1].p50_ms)
    ]


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
    folders = [s for s in (job.calibration, job.evaluation) if isinstance(s, Source) and not s.generated]
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
    }
    for proof in proofs.PROOFS:
        content |= proof.section(facts, one)
    if one.quantizer != OWN:
        content["quantizer"] = one.quantizer
    if one.quantization is not None:
        content["quantize"] = without(one.quantization, "calibration", "parts")
        content["quantize"]["parts"] = _parts(one.quantization["parts"])
    return content


def _parts(parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each part of the quantization with what it gains, in dB on calibration images it was not fitted to."""
    return [
        {
            "name": part["part"].replace("_", " "),
            "on": part["kept"],
            "sqnr_db_before": part["sqnr_db"] - part["gain_db"],
            "sqnr_db_after": part["sqnr_db"],
            "gain_db": part["gain_db"],
            "median_gain_db": part["decides_db"]["median"],
            "mean_gain_db": part["decides_db"]["mean"],
            "judged_images": part["judged_images"],
        }
        for part in parts
    ]


def _file_name(one: Built, gates: list[dict[str, Any]]) -> str:
    name = next(iter(one.files))
    failed = any(gate["target"] == one.target.name and not gate["ok"] for gate in gates)
    return rejected_name(name) if failed else name


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
