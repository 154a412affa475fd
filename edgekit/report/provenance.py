"""What the figures of a report stand on: model, task, weights, data, machine, versions, files, recipe."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from edgekit.report import outputs, units


def provenance(report: dict[str, Any]) -> list[tuple[str, list[tuple[str, str, bool]]]]:
    """What the figures stand on: groups of (label, value, whether it is a hash or code)."""
    found = report.get("provenance", {})
    weights, data = found.get("weights", {}), found.get("data", {})
    cost, machine = report["cost"], report.get("machine", {})
    recipe = found.get("recipe")
    if isinstance(recipe, dict):
        recipe = json.dumps(recipe, indent=2, ensure_ascii=False)
    groups = [
        ("Model", [
            ("name", report["model"], False),
            ("parameters", f"{cost['params']:,}", False),
            ("multiply-accumulates", f"{cost['macs']:,}", False),
            ("memory traffic", units.said(units.size(cost["mem_bytes"])), False),
            ("peak activations", units.said(units.size(cost["peak_activation_bytes"])), False),
            ("task", outputs.task_sentence(report), False),
            ("graph", found.get("graph_hash"), True),
        ]),
        ("Weights", [
            ("kind", weights.get("kind", report["weights"]), False),
            ("trained", {True: "no: UNTRAINED", False: "yes", None: None}[weights.get("untrained")], False),
            ("source", weights.get("source"), False),
            ("sha256", weights.get("sha256"), True),
        ]),
        ("Data", [
            ("name", data.get("name", report["data"]), False),
            ("calibration", _images(data, "calibration"), False),
            ("evaluation", _images(data, "evaluation"), False),
            ("EXIF orientation", _orientation(data), False),
            ("left out", "; ".join(data.get("skipped") or ()), False),
            ("sha256", data.get("sha256"), True),
        ]),
        ("Machine", [
            ("processor", machine.get("cpu"), False),
            ("cores", str(machine["cores"]) if "cores" in machine else None, False),
            ("system", machine.get("os"), False),
            ("Python", machine.get("python"), False),
            ("runtime", machine.get("runtime"), False),
        ]),
        ("Versions", [(name, text, False) for name, text in report.get("versions", {}).items()]),
        ("Files", [
            (path, sha256, True)
            for name, artifact in report["artifacts"].items()
            for path, sha256 in _files(name, artifact)
        ]),
        ("Recipe", [("", recipe, True)]),
    ]  # fmt: skip
    kept = {
        title: [(k, str(v), code) for k, v, code in rows if v not in (None, "")] for title, rows in groups
    }
    return [(title, rows) for title, rows in kept.items() if rows]


def _files(target: str, artifact: dict[str, Any]) -> list[tuple[str, str]]:
    """Path and sha256 of every file of a model."""
    files = artifact.get("files") or {}
    if len(files) < 2:
        return [(artifact["path"], artifact["sha256"])]
    return [(f"{target}/{name}", sha256) for name, sha256 in files.items()]


def _images(data: dict[str, Any], split: str) -> str | None:
    """'40 of 2,000 images', or '40 images' when all that were asked for were there."""
    n, asked = data.get(f"n_{split}"), data.get(f"asked_{split}")
    if n is None:
        return None
    return units.plural(n, "image") if asked in (None, n) else f"{n:,} of {units.plural(asked, 'image')}"


def _orientation(data: dict[str, Any]) -> str | None:
    turned = data.get("turned")
    if data.get("orientation") is None:
        return None
    said = f": {units.plural(turned, 'picture')} not upright" if turned else ""
    return data["orientation"] + said


def created(report: dict[str, Any]) -> str:
    """'20 November 2026, 11:20 UTC', or an empty string."""
    text = report.get("created")
    if not text:
        return ""
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        return text
    zone = " UTC" if when.utcoffset() is not None and not when.utcoffset() else ""
    return f"{when.day} {when:%B %Y, %H:%M}{zone}"
