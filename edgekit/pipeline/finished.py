"""What can be done with a build directory afterwards: inspect, check, render its pages again, reproduce."""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.errors import ArtifactError, UsageError
from edgekit.pipeline import evidence
from edgekit.pipeline import recipe as recipes
from edgekit.report import validate

if TYPE_CHECKING:
    from edgekit.pipeline.session import Display


def inspect(path: Path) -> None:
    """Print what a model file, or every model of a build directory, really is."""
    from edgekit.report.inspect import print_audit
    from edgekit.runtimes.audit import audit, delegation
    from edgekit.runtimes.registry import kinds, opening
    from edgekit.runtimes.sources import kind_of
    from edgekit.targets import words_of

    for file in _models(path, *(kind.suffix for kind in kinds())):
        words = words_of(opening(kind_of(file)).name)
        print_audit(audit(file).as_dict(), str(file), words, delegation=delegation(file).as_dict())


def check(path: Path, log: Path | None = None) -> list[dict[str, Any]]:
    """What edgetpu_compiler will map of a .tflite file, or of every one of a build directory.

    Args:
        log: what the compiler said of that file, to hold the prediction against.
    Returns: for each file the preflight's dict with "file", "target", "compiler" (the log's content, or None)
        and "differences" (None without a table to compare with).
    """
    from edgekit.device.harness.edgetpu_compiler import parse_edgetpu_compiler
    from edgekit.runtimes.edgetpu.preflight import differences, preflight

    files = _models(path, ".tflite")
    if log is not None and len(files) > 1:
        raise UsageError(
            f"--log {log}: {path} holds {len(files)} .tflite files: the one file it was written for"
        )
    try:
        compiled = parse_edgetpu_compiler(log.read_text(encoding="utf-8", errors="replace")) if log else None
    except OSError as error:
        raise ArtifactError(f"{log}: cannot be read ({error.strerror}): a log of edgetpu_compiler") from error
    found = []
    for file in files:
        predicted = preflight(file)
        counts = compiled.counts() if compiled else {}
        found.append(
            {
                "file": str(file),
                "target": "edgetpu",
                **predicted.as_dict(),
                "compiler": asdict(compiled) if compiled else None,
                "differences": [asdict(row) for row in differences(predicted, counts)] if counts else None,
            }
        )
    return found


def _models(path: Path, *kinds: str) -> list[Path]:
    """The file itself, or the models of a build directory."""
    found = [file for file in sorted(path.glob("**/model*")) if file.suffix in kinds]
    files = found if path.is_dir() else [path]
    if not files:
        raise ArtifactError(f"{path}: no model in it: a build directory, or a {' or '.join(kinds)} file")
    return files


def read_report(directory: Path) -> dict[str, Any]:
    """report.json of a build directory, validated.

    Raises: ArtifactError when there is none; ReportError when it is not one.
    """
    path = directory / "report.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path}: cannot be read ({error}): the report.json of a build") from error
    validate(content)
    return content


def render(directory: Path) -> dict[str, Any]:
    """Write report.html and report.md again from report.json; returns its content."""
    report = read_report(directory)
    evidence.write_pages(report, directory)
    return report


def reproduce(directory: Path, trust: bool = False, display: Display | None = None) -> dict[str, bool]:
    """Build again from the report's recipe with an empty store.

    Returns: for each target, whether the sha256 of every rebuilt file is the report's.
    """
    from edgekit.pipeline.pipeline import build

    report = read_report(directory)
    recipe = recipes.from_dict(_asked_exactly(report), str(directory / "report.json"))
    if recipe.weights == "as given":
        raise UsageError(f"{directory}: built from a module in Python: only a named model can be built again")
    used = report.get("machine", {}).get("threads")  # sums of floats depend on it
    recipe = replace(
        recipe,
        device=replace(recipe.device, profile="off"),
        machine=replace(recipe.machine, jobs=used or recipe.machine.jobs),
    )
    with tempfile.TemporaryDirectory(prefix="edgekit-repro-") as out:
        again = build(recipe, out=out, trust=trust, use_cache=False, display=display).report
    return {
        name: again["artifacts"][name]["files"] == artifact["files"]
        for name, artifact in report["artifacts"].items()
    }


def _asked_exactly(report: dict[str, Any]) -> dict[str, Any]:
    """The report's recipe, with what its steps decided by themselves asked for."""
    content = dict(report["provenance"]["recipe"])
    for row in report.get("variants") or ():
        if decided := (row.get("record") or {}).get("settings"):
            content[row["step"]] = content[row["step"]] | decided
    for artifact in report["artifacts"].values():
        for row in ((artifact.get("quantize") or {}).get("qat") or {}).get("tried", ()):
            content["qat"] |= row.get("settings") or {}
    return content
