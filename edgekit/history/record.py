"""A measurement record: a plain dict, checked against record_schema.json and the rules a schema cannot say.

Enters: a dict. Leaves: the same one, with `samples_ns`, one list of nanoseconds per fresh process.
"""

from __future__ import annotations

import functools
import json
import math
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any

from edgekit.errors import UsageError

Record = dict[str, Any]


@functools.cache
def schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a record."""
    text = resources.files("edgekit.history").joinpath("record_schema.json").read_text(encoding="utf-8")
    return json.loads(text)


def validate(record: Any, where: str = "record") -> Record:
    """The record itself. Raises: UsageError, one line with the worst place and how many more are wrong."""
    import jsonschema

    errors = list(jsonschema.Draft202012Validator(schema()).iter_errors(record))
    if errors:
        worst = jsonschema.exceptions.best_match(errors)
        place = ".".join(str(part) for part in worst.absolute_path) or "the record"
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        raise UsageError(f"{where}: {place}: {_short(worst.message)}{more}")
    timestamp(record["created"], f"{where}: created")
    _check_samples(record, where)
    if not _finite(record):
        raise UsageError(f"{where}: a number is not finite: a number, or null")
    if not record["validity"]["ok"] and not record["validity"]["reasons"]:
        raise UsageError(f"{where}: validity: not ok without a reason: at least one reason")
    return record


def timestamp(text: str, where: str = "time") -> str:
    """An ISO 8601 time as UTC of one width, so that text order is time order; no zone means UTC."""
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(
            f"{where}: {_short(text)!r} is not a time: ISO 8601, as 2026-03-01T12:00:00Z"
        ) from None
    when = when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)
    return when.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _check_samples(record: Record, where: str) -> None:
    runs, latency = record["samples_ns"], record["latency"]
    for i, run in enumerate(runs):
        if not isinstance(run, list) or not run:
            raise UsageError(f"{where}: samples_ns.{i}: no samples: a list of nanoseconds for each process")
        if any(type(sample) is not int or sample <= 0 for sample in run):
            raise UsageError(f"{where}: samples_ns.{i}: a sample is no positive integer: nanoseconds")
    if runs and len(runs) != latency["processes"]:
        raise UsageError(
            f"{where}: {len(runs)} processes in samples_ns, {latency['processes']} in latency: as many"
        )
    medians = latency.get("process_p50_ms")
    if medians and len(medians) != latency["processes"]:
        raise UsageError(
            f"{where}: {len(medians)} medians in process_p50_ms, {latency['processes']} processes: as many"
        )


def _finite(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, dict):
        return all(_finite(item) for item in value.values())
    return not isinstance(value, list) or all(_finite(item) for item in value)


def read_json(path: Path) -> Any:
    """Raises: UsageError for a file that cannot be read or is not JSON."""
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}): a measurement record") from None
    except ValueError:
        raise UsageError(f"{path}: not JSON: a measurement record") from None


def _short(text: str) -> str:
    line = " ".join(str(text).split())
    return line if len(line) <= 160 else f"{line[:157]}..."
