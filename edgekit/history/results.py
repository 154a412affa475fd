"""Files that hold measurements -> records: a record itself, or a result of `edgekit bench` with its samples.

A result measures several files in turns; each becomes a record of its own. Power mode and governor leave the
fingerprint and become the record's power mode, with the clocks where they were locked.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgekit.errors import UsageError
from edgekit.history.record import Record, read_json, validate

_POWER = ("power_mode", "governor")


def load(path: str | Path) -> list[Record]:
    """The checked records of a file; raw samples are looked for beside it.

    Raises: UsageError for a file that is neither a record nor a result, or whose samples are not its own.
    """
    path = Path(path)
    content = read_json(path)
    if isinstance(content, dict) and "files" in content and "samples" in content:
        try:
            records = records_of(content, _samples(path, content))
        except (KeyError, TypeError, AttributeError) as error:
            raise UsageError(f"{path}: not whole ({error}): a result of edgekit bench") from None
        if not records:
            raise UsageError(f"{path}: no file with a latency: a result of edgekit bench that measured one")
        return [validate(record, str(path)) for record in records]
    if (
        isinstance(content, dict)
        and "samples_ns" not in content
        and isinstance(content.get("samples_file"), str)
    ):
        samples = read_json(path.parent / content["samples_file"])
        content["samples_ns"] = samples.get("samples_ns") if isinstance(samples, dict) else samples
    return [validate(content, str(path))]


def records_of(
    content: Mapping[str, Any],
    samples: Mapping[str, Sequence[Sequence[int]]],
    names: Mapping[str, tuple[str, str]] | None = None,
) -> list[Record]:
    """A record for each measured file of a result (edgekit/device/result_schema.json).

    Args:
        samples: {file: [[ns, ...] for each process]}; empty lists where a tool gives none.
        names: {file: (model, target)}; a file not in it goes by its own name and format.
    """
    device, runtime = content["device"], content["runtime"]
    facts = device["fingerprint"]
    power = [facts[key] for key in _POWER if facts.get(key)]
    if device["clocks"] != "observe":
        power.append(f"clocks {device['clocks']}")
    records = []
    measured = {name: file for name, file in content["files"].items() if _p50(file) is not None}
    for name, file in measured.items():
        figures = file["figures"]
        runs = [list(run) for run in samples.get(name, ()) if run]
        medians = figures.get("process_p50_ms", [])  # of a tool that gives no samples
        model, target = (names or {}).get(name, (name, file["format"]))
        parts = [content["run"], device["id"], *([name] if len(measured) > 1 else [])]
        records.append(
            {
                "schema_version": 1,
                "run": re.sub(r"[^A-Za-z0-9._-]+", "_", "-".join(parts)).lstrip("._-")[:128],
                "created": content["started"],
                "device": {
                    "id": device["id"],
                    "kind": device["kind"],
                    "fingerprint": {key: value for key, value in facts.items() if key not in _POWER},
                    "emulated": device["emulated"],
                },
                "artifact": {"sha256": file["sha256"], "name": model, "target": target},
                "runtime": {
                    "name": runtime["name"],
                    "version": runtime["version"],
                    "delegate": file["delegate"],
                    "partitions": file["partitions"],
                },
                "threads": runtime["threads"],
                "profile": content["profile"]["name"],
                "power_mode": ", ".join(power) or None,
                "harness": {"name": runtime["harness"], "version": content["harness_version"]},
                "latency": {
                    **{key: figures[key] for key in ("p50_ms", "p90_ms", "p99_ms", "n")},
                    **({"process_p50_ms": medians} if medians else {}),
                    "processes": len(runs or medians) or int(content["profile"]["processes"]),
                },
                "samples_ns": runs,
                "init_ms": figures["init_ms"],
                "first_ms": figures["first_ms"],
                "memory": file["memory"],
                "drift": file["drift"],
                "telemetry": content["telemetry"],
                "validity": {
                    "ok": content["validity"]["status"] == "valid",
                    "reasons": list(content["validity"]["reasons"]),
                },
            }
        )
    return records


def _p50(file: Mapping[str, Any]) -> float | None:
    return file["figures"]["p50_ms"] if file["figures"] else None


def _samples(path: Path, content: Mapping[str, Any]) -> dict[str, Any]:
    place = path.parent / Path(content["samples"]["file"]).name
    try:
        packed = place.read_bytes()
    except OSError as error:
        raise UsageError(f"{place}: cannot be read ({error.strerror}): the samples of {path.name}") from None
    if hashlib.sha256(packed).hexdigest() != content["samples"]["sha256"]:
        raise UsageError(
            f"{place}: not the samples that {path.name} was written with: the two files together"
        )
    try:
        return json.loads(gzip.decompress(packed))["files"]
    except (OSError, ValueError, EOFError, zlib.error) as error:
        raise UsageError(f"{place}: damaged ({error}): the samples of {path.name}") from None
