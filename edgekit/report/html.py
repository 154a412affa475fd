"""report.html: one file to look at and to send on. A report dict goes in, a self-contained page comes out.

Style, pictures and charts stand inside the file; it asks for nothing over a network and runs no script, and
its content security policy says so to the browser. Every name is escaped by the template engine.
"""

from __future__ import annotations

import base64
import re
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

from edgekit.report import charts, compare, facts, formats, outputs, provenance, sections, template, units
from edgekit.report.schema import validate

FLIPPED_SHOWN = 24
_DATA_URI = re.compile(r"data:image/(?:png|jpeg|webp);base64,[A-Za-z0-9+/]+={0,2}\Z")
_KINDS = {b"\x89PNG\r\n\x1a\n": "png", b"\xff\xd8\xff": "jpeg", b"RIFF": "webp"}
_IMAGE_LIMIT_BYTES = 2_000_000
PLACES = {
    "xnnpack": "in the XNNPACK delegate",
    "table": "as a lookup table",
    "cpu": "outside the delegate, on the CPU",
    "int8": "executed in int8",
    "float": "executed in float",
    "unknown": "not known",
}


@cache
def _environment() -> Any:
    environment = template.environment("edgekit.report")
    environment.globals.update(facts=facts, formats=formats, places=PLACES, output_head=outputs.HEAD)
    environment.filters["breakable"] = _breakable
    environment.filters["stacked"] = _stacked
    return environment


def render_html(report: dict[str, Any], base: Path | str | None = None) -> str:
    """The page as text.

    Args:
        report: a report.json dict; validated first.
        base: directory that picture paths of the report are relative to; None shows no such picture.
    Raises: ReportError when the report breaks its contract.
    """
    validate(report)
    root = Path(base).resolve() if base is not None else None
    page = _environment().get_template("report.html.j2")
    return str(
        page.render(
            report=report,
            css=template.read("edgekit.report", "report.css"),
            verdict=facts.verdict(report),
            untrained=facts.untrained(report),
            created=provenance.created(report),
            targets=[_target(report, name, root) for name in report["artifacts"]],
            gates=facts.gates_of(report),
            remarks=facts.remarks_of(report),
            sections=sections.sections(report),
            speeds=compare.speeds(report),
            agreement=compare.agreement(report),
            delegates=any(a["audit"]["partitions"] is not None for a in report["artifacts"].values()),
            stages=_stages(report["stages"]),
            provenance=provenance.provenance(report),
            about_data=facts.about_data(report),
        )
    )


def _target(report: dict[str, Any], name: str, root: Path | None) -> dict[str, Any]:
    artifact = report["artifacts"][name]
    layers = artifact.get("layers") or []
    latency, drift, audit = artifact.get("latency"), artifact.get("drift"), artifact["audit"]
    samples = (latency or {}).get("samples") or {}
    flipped = artifact.get("flipped") or []
    times = facts.times(artifact)
    runs = charts.placement(layers)
    cells = Counter(run.where for run in runs for _ in run.cells)
    gates = facts.gates_of(report, name)
    return {
        "name": name,
        "short": facts.short(report, name),
        "float": facts.float_name(report, name),
        "baseline": facts.is_baseline(report, name),
        "words": formats.words(name),
        "untimed": formats.untimed(name, any(a.get("latency") for a in report["artifacts"].values())),
        "artifact": artifact,
        "audit": audit,
        "drift": drift,
        "latency": latency,
        "fidelity": artifact.get("fidelity"),
        "by_op": _by_op(artifact.get("fidelity")),
        "size": facts.size_figure(report, name),
        "accuracy": facts.accuracy_figure(report, name),
        "speed": facts.latency_figure(report, name),
        "interval": charts.interval(drift),
        "distributions": charts.latency(
            samples.get("artifact_ms") or [],
            [] if facts.is_baseline(report, name) else samples.get("float_ms") or [],
            facts.short(report, name),
            facts.float_name(report, name),
        ),
        "profile": charts.error_profile(layers),
        "bytes_map": charts.treemap(layers, "bytes"),
        "time_map": charts.treemap(times, "ms") if times else charts.treemap(layers, "macs"),
        "timed": bool(times),
        "time_parts": (artifact.get("times") or {}).get("method") == "prefixes",
        "runs": runs,
        "cells": [(where, PLACES[where], cells[where]) for where in PLACES if cells[where]],
        "outside": _outside(audit),
        "kinds": list(((audit.get("executed") or {}).get("kinds") or {}).items()),
        "layers": layers,
        "parts": _parts(artifact.get("quantize")),
        "trained": facts.trained(artifact),
        "flipped": [_flip(row, root) for row in flipped[:FLIPPED_SHOWN]],
        "outputs": outputs.rows(drift),
        "task_figures": outputs.figures(drift),
        "flipped_more": max(0, len(flipped) - FLIPPED_SHOWN),
        "flipped_count": facts.tally(drift["flipped"]) if drift else None,
        "gates_ok": sum(g["ok"] for g in gates),
        "gates_total": len(gates),
    }


def _outside(audit: dict[str, Any]) -> list[str]:
    """Operators off the fast path, each once; a float file has no other path for its float operators."""
    floats = facts.names(audit["float_ops"]) if audit["int8_ops_share"] else []
    return list(dict.fromkeys(facts.names(audit["undelegated_ops"]) + floats))


def _by_op(fidelity: dict[str, Any] | None) -> list[tuple[str, Any]]:
    if not fidelity:
        return []
    rows = [(op, v["max_lsb"] if isinstance(v, dict) else v) for op, v in fidelity["by_op"].items()]
    return sorted(rows, key=lambda row: (-(row[1] or 0), row[0]))


def _parts(quantize: dict[str, Any] | None) -> list[dict[str, Any]]:
    """PTQ parts with the width of their gain bar."""
    parts = (quantize or {}).get("parts") or []
    top = max((abs(p.get("gain_db") or 0.0) for p in parts), default=0.0) or 1.0
    return [
        {
            "name": p["name"],
            "on": p["on"],
            "before": units.decibels(p.get("sqnr_db_before")),
            "after": units.decibels(p.get("sqnr_db_after")),
            "gain": units.decibels(p.get("gain_db"), signed=True),
            "gains": (p.get("gain_db") or 0.0) >= 0,
            "bar": round(100 * abs(p.get("gain_db") or 0.0) / top, 2),
            "median": units.decibels(p.get("median_gain_db"), signed=True),
            "mean": units.decibels(p.get("mean_gain_db"), signed=True),
            "images": p.get("judged_images") or units.NONE,
        }
        for p in parts
    ]


def _flip(row: dict[str, Any], root: Path | None) -> dict[str, Any]:
    label = row.get("label")
    kind = "changed"
    if label is not None:
        kind = "lost" if row["float_said"] == label else "won" if row["int8_said"] == label else "both wrong"
    return {**row, "label": label, "kind": kind, "picture": picture(row.get("image"), root)}


def picture(image: str | None, root: Path | None) -> str | None:
    """A data URI that may be shown, or None: of an image type, or a small image file inside `root`."""
    if not image:
        return None
    if image.startswith("data:"):
        return image if _DATA_URI.match(image) else None
    if root is None:
        return None
    try:
        path = (root / image).resolve()
        if not path.is_relative_to(root) or not path.is_file() or path.stat().st_size > _IMAGE_LIMIT_BYTES:
            return None
        data = path.read_bytes()
    except (OSError, ValueError):  # a name that no file can have, or a file that cannot be read
        return None
    kind = next((kind for magic, kind in _KINDS.items() if data.startswith(magic)), None)
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}" if kind else None


def _stacked(text: str) -> Any:
    """Figures of one cell under each other: they wrap nowhere else."""
    from markupsafe import Markup, escape

    return Markup(str(escape(text)).replace(", ", ",<br>").replace(" (", "<br>("))


def _stages(stages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    total = sum(s["seconds"] for s in stages) or 1.0
    rows, at = [], 0.0
    for stage in stages:
        width = 100 * stage["seconds"] / total
        text = units.seconds(stage["seconds"])
        rows.append({**stage, "at": round(at, 2), "width": round(width, 2), "text": text})
        at += width
    return rows


def _breakable(text: str) -> Any:
    """Let a long dotted or underscored name wrap at its joints, and no number inside it."""
    from markupsafe import Markup, escape

    return Markup(re.sub(r"((?<!\d)[._/\-](?=[^\s;])|[._/\-](?=[^\s;\d]))", r"\1<wbr>", str(escape(text))))
