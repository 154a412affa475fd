"""The record of one measurement: result.json, its raw samples beside it, both written whole or not at all."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from edgekit.bundle import safe_name
from edgekit.errors import ArtifactError, ReportError
from edgekit.files import write_atomic

SCHEMA_VERSION = 1
VALID, INVALID = "valid", "INVALID"


@dataclass(frozen=True)
class Result:
    """What `measure` found.

    Args:
        content: as result_schema.json says.
        samples: {file name: [[ns, ...] a process]}; empty lists for tools that give no raw samples.
    """

    content: dict[str, Any]
    samples: Mapping[str, list[list[int]]] = field(default_factory=dict)

    @property
    def device(self) -> str:
        return str(self.content["device"]["id"])

    @property
    def run(self) -> str:
        return str(self.content["run"])

    @property
    def valid(self) -> bool:
        return self.content["validity"]["status"] == VALID

    @property
    def reasons(self) -> list[str]:
        """Why it is invalid; empty when it is not."""
        return list(self.content["validity"]["reasons"])

    def write(self, directory: str | os.PathLike[str]) -> Path:
        """Write DEVICE-RUN.json and DEVICE-RUN.samples.json.gz; the path of the first.

        Raises: StoreError when the directory cannot be written.
        """
        stem = f"{safe_name(self.device)}-{safe_name(self.run)}"
        raw = json.dumps({"unit": "ns", "files": self.samples}, sort_keys=True).encode()
        packed = gzip.compress(raw, mtime=0)
        path = Path(directory, f"{stem}.samples.json.gz")
        write_atomic(path, packed)
        content = self.content | {
            "samples": {"file": path.name, "sha256": hashlib.sha256(packed).hexdigest(), "unit": "ns"}
        }
        validate_result(content)
        record = Path(directory, f"{stem}.json")
        write_atomic(record, json.dumps(content, indent=1) + "\n")
        return record


def read_result(path: str | os.PathLike[str]) -> Result:
    """A result with its samples. Raises: ArtifactError for files that are damaged or not a pair."""
    place = Path(path)
    try:
        content = json.loads(place.read_text(encoding="utf-8"))
        validate_result(content)
        packed = (place.parent / Path(content["samples"]["file"]).name).read_bytes()
        samples = json.loads(gzip.decompress(packed))["files"]
    except (OSError, ValueError, EOFError, KeyError) as error:
        raise ArtifactError(f"{place}: cannot be read ({error}): a result of edgekit bench") from error
    if hashlib.sha256(packed).hexdigest() != content["samples"]["sha256"]:
        raise ArtifactError(
            f"{place}: its samples are not the ones it was written with: the two files together"
        )
    return Result(content, samples)


def validate_result(content: Any) -> None:
    """Raises: ReportError for content that result_schema.json does not allow."""
    from jsonschema import Draft202012Validator

    schema = json.loads((files("edgekit.device") / "result_schema.json").read_text())
    error = next(Draft202012Validator(schema).iter_errors(content), None)
    if error is not None:
        where = ".".join(str(part) for part in error.absolute_path) or "the result"
        raise ReportError(f"result: {where}: {error.message[:200]}: what result_schema.json allows")
