"""What is to be measured where: models, settings and boards in, jobs out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from edgekit.bundle.check import read_manifest
from edgekit.device.bench import Model, find_models
from edgekit.device.harness import model_files, model_sha256
from edgekit.device.profiles import find_profile
from edgekit.errors import UsageError
from edgekit.farm.state import NAME as JOURNAL
from edgekit.files import sha256_file


@dataclass(frozen=True)
class Settings:
    """How every job of a run measures; the fields are those of edgekit.device.measure."""

    profile: str = "quick"
    minutes: float | None = None
    runtime: str | None = None
    delegate: str | None = None
    threads: int = 1
    images: int = 32
    wait_s: float = 60.0  # longer than a board needs to notice that a worker died

    def check(self) -> None:
        """Raises: UsageError for what no board could do."""
        find_profile(self.profile, self.minutes)
        for name, least in (("threads", 1), ("images", 0), ("wait_s", 0)):
            if getattr(self, name) < least:
                raise UsageError(f"farm run: {name} = {getattr(self, name)}: at least {least}")


@dataclass(frozen=True)
class Artifact:
    """A model file, what it is called in history and report, and the files that travel with it.

    Args:
        files: names in `folder`; the first is the model.
        hashes: sha256 of those that make the model (OpenVINO: two).
        sha256: over the bytes of all that make the model, one after the other.
    """

    model: str
    target: str
    folder: Path
    files: tuple[str, ...]
    hashes: Mapping[str, str]
    sha256: str
    size_bytes: int
    rejected: bool = False

    @property
    def path(self) -> Path:
        return self.folder / self.files[0]


@dataclass(frozen=True)
class Job:
    """One artifact on one board."""

    artifact: Artifact
    device: str
    settings: Settings

    @cached_property
    def id(self) -> str:
        """The same for the same work: a resumed run knows by it what is done."""
        settings = asdict(self.settings) | {"wait_s": None}
        parts = [self.artifact.sha256, self.artifact.model, self.artifact.target, self.device, settings]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]

    def __str__(self) -> str:
        return f"{self.artifact.model} {self.artifact.target} on {self.device}"


@dataclass(frozen=True)
class Plan:
    """`skipped`: (artifact, device, why) of pairs that no board could run."""

    jobs: tuple[Job, ...]
    skipped: tuple[tuple[Artifact, str, str], ...] = ()


def find_artifacts(paths: Sequence[str | Path]) -> list[Artifact]:
    """Artifacts of build directories, bundles and model files, each content and name once.

    Directories of farm runs are passed over: `build/*` is where they lie by default.

    Raises: ArtifactError for a path that holds none; UsageError for none at all.
    """
    paths = [path for path in paths if not Path(path, JOURNAL).is_file()]
    if not paths:
        raise UsageError("farm run: nothing to measure: build directories, bundles or model files")
    found: dict[tuple[str, str, str], Artifact] = {}
    for model in find_models(paths):
        artifact = _artifact(model)
        found.setdefault((artifact.model, artifact.target, artifact.sha256), artifact)
    return list(found.values())


def plan(artifacts: Sequence[Artifact], boards: Mapping[str, Mapping[str, Any]], settings: Settings) -> Plan:
    """Every artifact on every board that has a runtime for its format.

    Args:
        boards: id -> what edgekit.farm.worker.describe says of it.
    Raises: UsageError when nothing is left to do.
    """
    settings.check()
    jobs, skipped = [], []
    for device, board in boards.items():
        for artifact in artifacts:
            if board["formats"] is None or artifact.path.suffix in board["formats"]:
                jobs.append(Job(artifact, device, settings))
            else:
                skipped.append(
                    (artifact, device, f"no runtime for {artifact.path.suffix} on {board['kind']}")
                )
    if not jobs:
        raise UsageError(
            "farm run: no board takes any of the models: "
            + "; ".join(f"{d} ({b['kind']}) takes {', '.join(b['formats'])}" for d, b in boards.items())
        )
    return Plan(tuple(jobs), tuple(skipped))


def _artifact(model: Model) -> Artifact:
    folder = (model.bundle or model.path.parent).resolve()
    paths = model_files(model.path.resolve())
    hashes = {str(path.relative_to(folder)): sha256_file(path) for path in paths}
    size = sum(path.stat().st_size for path in paths)
    name, target, rejected, others = model.path.stem, model.path.suffix.lstrip("."), False, []
    if model.bundle is not None:
        manifest = read_manifest(model.bundle)
        name, target = str(manifest["name"]), str(manifest["target"])
        rejected = manifest.get("verdict") == "rejected"
        others = ["manifest.json", *(f"golden/{p.name}" for p in sorted((folder / "golden").glob("*.npy")))]
    return Artifact(name, target, folder, (*hashes, *others), hashes, model_sha256(paths[0]), size, rejected)
