"""report.json of a run: rows of the journal + history in, one dict with everything the page says out.

For every job its figures, its answers, the course of its series and the verdict of `edgekit compare` against
the newest valid run before it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import edgekit
from edgekit.errors import ReportError
from edgekit.farm.page import render_html, render_markdown
from edgekit.farm.plan import Artifact
from edgekit.farm.state import FAILED, FINAL, INVALID, NOT_RUN, UNREACHED, VALID, Journal, Row, overlaps
from edgekit.files import write_atomic
from edgekit.history import History, Record, series_of
from edgekit.history.compare import RefusedError, compare

SCHEMA_VERSION = 1
STATUSES = (VALID, INVALID, FAILED, UNREACHED, NOT_RUN)
_POINTS = 40


def build(
    journal: Journal,
    rows: Sequence[Row],
    boards: Mapping[str, Mapping[str, Any]],
    history: History,
    skipped: Sequence[tuple[Artifact, str, str]] = (),
    resume: str = "edgekit farm run --resume",
    interrupted: bool = False,
) -> dict[str, Any]:
    """The report of a run.

    Args:
        rows: of every job, measured or not.
        boards: id -> what its worker said of it, and "bad": why it was given up, or None.
        skipped: pairs that no board could run.
        resume: the command that goes on with the run.
        interrupted: by the user, before every job had its turn.
    """
    jobs = [_job(journal.directory, row, history) for row in sorted(rows, key=_order)]
    counts = Counter(job["status"] for job in jobs)
    unfinished = sum(job["status"] not in FINAL for job in jobs)
    return {
        "schema_version": SCHEMA_VERSION,
        "edgekit": edgekit.__version__,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "settings": journal.header.get("settings", {}),
        "history": str(history.path),
        "counts": {status: counts[status] for status in STATUSES},
        "regressions": sum(_verdict(job) == "regression" for job in jobs),
        "improvements": sum(_verdict(job) == "improvement" for job in jobs),
        "exclusive": not overlaps(rows),
        "interrupted": interrupted,
        "unfinished": {"jobs": unfinished, "command": resume} if unfinished else None,
        "boards": {board: _board(about, board, jobs) for board, about in boards.items()},
        "jobs": jobs,
        "skipped": [
            {"model": artifact.model, "target": artifact.target, "device": device, "reason": reason}
            for artifact, device, reason in skipped
        ],
    }


def write(directory: str | Path, report: Mapping[str, Any]) -> Path:
    """report.json, report.html and report.md; where the page is."""
    folder = Path(directory)
    write_atomic(folder / "report.json", json.dumps(report, indent=1) + "\n")
    write_atomic(folder / "report.md", render_markdown(report))
    page = folder / "report.html"
    write_atomic(page, render_html(report))
    return page


def complaint(report: Mapping[str, Any]) -> str | None:
    """What is not as it should be, in one line; None when all is measured, valid and not slower."""
    counts = report["counts"]
    parts = [f"{counts[status]} {status}" for status in STATUSES[1:] if counts[status]]
    if report["regressions"]:
        parts.append(f"{report['regressions']} slower than before")
    if not report["exclusive"]:
        parts.append("a board was used by two jobs at once")
    return ", ".join(parts) or None


def _order(row: Row) -> tuple[str, str, str]:
    return row["model"], row["device"], row["target"]


def _verdict(job: Mapping[str, Any]) -> str | None:
    return job["change"]["verdict"] if job["change"] else None


def _job(directory: Path, row: Row, history: History) -> dict[str, Any]:
    job = {key: value for key, value in row.items() if key not in ("boot", "start_ns", "end_ns")}
    started, ended = row.get("start_ns"), row.get("end_ns")
    job["seconds"] = (ended - started) / 1e9 if started and ended else None
    job |= {"figures": None, "drift": None, "memory": None, "runtime": None, "points": [], "change": None}
    if row.get("result") is None:
        return job
    try:
        content = json.loads((directory / row["result"]).read_bytes())
        file = content["files"][row["target"]]
    except (OSError, ValueError, KeyError) as error:
        raise ReportError(
            f"{directory / row['result']}: cannot be read ({error}): as the run wrote it"
        ) from None
    runtime = content["runtime"]
    job |= {key: file[key] for key in ("figures", "drift", "memory", "delegate", "partitions", "sustained")}
    job["runtime"] = f"{runtime['name']} {runtime['version']}"
    job["board"] = content["device"]["fingerprint"].get("model")
    job["emulated"] = content["device"]["emulated"]
    job["remarks"] = content["validity"]["notes"]
    if row.get("record"):
        job |= _course(row, history)
    return job


def _course(row: Row, history: History) -> dict[str, Any]:
    """p50 of the series up to this run, and what has changed since the valid run before."""
    known = history.query(model=row["model"], target=row["target"], device=row["device"])
    runs = next((s.runs for s in series_of(known) if any(r["run"] == row["record"] for r in s.runs)), ())
    names = [record["run"] for record in runs]
    until = runs[: names.index(row["record"]) + 1] if row["record"] in names else ()
    points = [
        {
            "run": r["run"],
            "created": r["created"],
            "p50_ms": r["latency"]["p50_ms"],
            "ok": r["validity"]["ok"],
        }
        for r in until[-_POINTS:]
    ]
    before = [record for record in until[:-1] if record["validity"]["ok"]]
    if row["status"] != VALID or not before:
        return {"points": points, "change": None}
    return {"points": points, "change": _change(before[-1], row["record"], known, history)}


def _change(before: Record, run: str, known: Sequence[Record], history: History) -> dict[str, Any]:
    against = {"against": before["run"], "against_created": before["created"]}
    a, b = history.get(before["run"]), history.get(run)
    try:
        found = compare(a, b, known)
    except RefusedError as error:
        return against | {"verdict": "not comparable", "percent": None, "words": "; ".join(error.differences)}
    return against | {
        "verdict": found.verdict,
        "percent": found.change_percent,
        "words": found.words,
        "interval": list(found.interval_percent),
        "processes": list(found.processes),
    }


def _board(about: Mapping[str, Any], board: str, jobs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    own = [job for job in jobs if job["device"] == board]
    return {
        **{key: about.get(key) for key in ("kind", "title", "transport", "tags", "emulated", "bad")},
        "model": next((job["board"] for job in own if job.get("board")), None),
        "jobs": len(own),
        "measured": sum(job["status"] in (VALID, INVALID) for job in own),
        "workers": sorted({job["worker"] for job in own if job.get("worker")}),
        "busy_s": sum(job["seconds"] or 0.0 for job in own),
    }
