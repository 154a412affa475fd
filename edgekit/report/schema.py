"""The contract of report.json: a JSON Schema, and the few rules a schema cannot say."""

from __future__ import annotations

import functools
import json
import math
from importlib import resources
from typing import Any

from edgekit.errors import ReportError

SCHEMA_VERSION = 1
EVERY = (None, "all")  # the target of a gate over several artifacts


@functools.cache
def schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) that report.json is validated against."""
    text = resources.files("edgekit.report").joinpath("schema.json").read_text(encoding="utf-8")
    return json.loads(text)


def validate(report: dict[str, Any]) -> None:
    """Check a report against the contract.

    Raises: ReportError, one line that names the worst place, what stands there and how many more are wrong.
    """
    import jsonschema

    validator = jsonschema.Draft202012Validator(schema())
    errors = sorted(validator.iter_errors(report), key=jsonschema.exceptions.relevance, reverse=True)
    if errors:
        worst = jsonschema.exceptions.best_match(errors)
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        raise ReportError(f"report.json: {_place(worst.absolute_path)}: {_one_line(worst.message)}{more}")
    place = _not_finite(report, ())
    if place is not None:
        raise ReportError(f"report.json: {_place(place)}: not a finite number: a number, or null")
    _check_consistency(report)


def _check_consistency(report: dict[str, Any]) -> None:
    for i, gate in enumerate(report["gates"]):
        target = gate.get("target")
        if target not in (*EVERY, *report["artifacts"]):
            raise ReportError(
                f"report.json: gates[{i}].target: '{_one_line(target)}' has no artifact: one of "
                f"{', '.join(report['artifacts']) or 'none built'}"
            )
        if not gate["ok"] and not gate.get("judged", True):
            raise ReportError(f"report.json: gates[{i}]: a remark that failed: judged true, or ok true")
    verdict, failed = report.get("verdict"), [g["name"] for g in report["gates"] if not g["ok"]]
    if verdict is not None and (verdict == "passed") == bool(failed):
        said = f"{len(failed)} failed gates ({', '.join(failed)})" if failed else "no failed gate"
        raise ReportError(f"report.json: verdict: '{verdict}' with {_one_line(said)}: the two must agree")
    for name, artifact in report["artifacts"].items():
        where = f"report.json: artifacts.{_one_line(name)}"
        latency, drift = artifact.get("latency"), artifact.get("drift")
        if latency and latency["p90_ms"] < latency["p50_ms"]:
            raise ReportError(f"{where}.latency: p90 {latency['p90_ms']} below p50 {latency['p50_ms']}")
        if drift and None not in (drift["ci_low"], drift["ci_high"]) and drift["ci_low"] > drift["ci_high"]:
            raise ReportError(f"{where}.drift: ci_low {drift['ci_low']} above ci_high {drift['ci_high']}")
    _check_runtimes(report)
    if report.get("agreement"):
        _check_agreement(report["agreement"])


def _check_runtimes(report: dict[str, Any]) -> None:
    for i, row in enumerate(report.get("runtimes") or ()):
        where = f"report.json: runtimes[{i}]"
        if row["artifact"] and row["target"] not in report["artifacts"]:
            raise ReportError(
                f"{where}.target: '{_one_line(row['target'])}' is called an artifact: one of "
                f"{', '.join(report['artifacts']) or 'none built'}"
            )
        if row["p90_ms"] < row["p50_ms"]:
            raise ReportError(f"{where}: p90 {row['p90_ms']} below p50 {row['p50_ms']}")
        low, high = row.get("p50_low_ms"), row.get("p50_high_ms")
        if low is not None and high is not None and low > high:
            raise ReportError(f"{where}: p50_low_ms {low} above p50_high_ms {high}")


def _check_agreement(found: dict[str, Any]) -> None:
    where, names = "report.json: agreement", found["targets"]
    for key, diagonal in (("top1", 100), ("sqnr_db", None)):
        matrix = found[key]
        if len(matrix) != len(names) or any(len(row) != len(names) for row in matrix):
            raise ReportError(f"{where}.{key}: a row and a column for each of the {len(names)} targets")
        for i, row in enumerate(matrix):
            if row[i] != diagonal:
                raise ReportError(f"{where}.{key}[{i}][{i}]: {row[i]}: {diagonal or 'null'} on the diagonal")
    for i, row in enumerate(found["top1"]):
        for j in range(i):
            if row[j] != found["top1"][j][i]:
                raise ReportError(
                    f"{where}.top1[{i}][{j}]: {row[j]}: the same as [{j}][{i}], a symmetric matrix"
                )
    for i, pair in enumerate(found["pairs"]):
        for key in ("a", "b"):
            if pair[key] not in names:
                raise ReportError(
                    f"{where}.pairs[{i}].{key}: '{_one_line(pair[key])}': one of {', '.join(names)}"
                )


def _not_finite(value: Any, path: tuple[Any, ...]) -> tuple[Any, ...] | None:
    if isinstance(value, float) and not math.isfinite(value):
        return path
    if isinstance(value, dict):
        items: Any = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    else:
        return None
    for key, item in items:
        found = _not_finite(item, (*path, key))
        if found is not None:
            return found
    return None


def _place(path: Any) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.lstrip(".") or "the report"


def _one_line(text: str, limit: int = 160) -> str:
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 1] + "…"
