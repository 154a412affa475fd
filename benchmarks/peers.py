"""Files of both tools, each built in a fresh process and kept by content.

Enters: a Python and a job (see peers_build.py and edgekit_build.py). Leaves: `Files`. A job whose weights,
calibration images, settings, versions and builder are those of an earlier one is not built again.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import edgekit_build
import peers_build
import seeded

HERE = Path(__file__).parent
ROOT = HERE.parent
ENVIRONMENT = (
    "python -m venv .peers && "
    ".peers/bin/pip install litert-torch==0.10.0 ai-edge-quantizer==0.10.0 torchvision timm"
)
_PACKAGES = ("litert-torch", "ai-edge-quantizer", "ai-edge-litert", "torch", "torchvision")
_ASK = (
    "import json; from importlib.metadata import version as v; "
    f"print(json.dumps([v(n) for n in {_PACKAGES}]))"
)


class BuildFailure(RuntimeError):
    """An environment is missing something, or a tool cannot build this network."""


@dataclass(frozen=True)
class Files:
    float_path: Path
    int8_path: Path
    build: dict[str, Any]
    cached: bool


@functools.cache
def peer_versions(python: str) -> dict[str, str]:
    """What is installed in the peers' environment. Raises BuildFailure with the commands that create one."""
    try:
        done = subprocess.run([python, "-c", _ASK], capture_output=True, text=True, check=False, timeout=120)
    except OSError as error:
        raise BuildFailure(
            f"{python}: cannot be run ({error.strerror}): make it with {ENVIRONMENT}"
        ) from error
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise BuildFailure(f"{python}: {last}: make it with {ENVIRONMENT}")
    return dict(zip(_PACKAGES, json.loads(done.stdout), strict=True))


@functools.cache
def edgekit_sources() -> str:
    """A hash of edgekit's own code: its files are as good as new only while it is the same."""
    return seeded.content_key(*sorted((ROOT / "edgekit").rglob("*.py")))


def peer_files(python: str, job: dict[str, Any], cache: Path, fresh: bool = False) -> Files:
    """The peers' files of one job: {"source", "name", "num_classes", "weights", "calibration", "layout"}.

    Args:
        fresh: build even when the files are there, for the seconds; the new files replace the old.
    """
    version = peers_build.VERSION, peer_versions(python)
    return _files(python, HERE / "peers_build.py", job, cache / "peers", version, fresh)


def edgekit_files(job: dict[str, Any], cache: Path, fresh: bool = False) -> Files:
    """edgekit's files of one job: "profile" in place of "layout"; see `peer_files`."""
    version = edgekit_build.VERSION, edgekit_sources()
    return _files(sys.executable, HERE / "edgekit_build.py", job, cache / "edgekit", version, fresh)


def _files(python: str, builder: Path, job: dict[str, Any], cache: Path, version: Any, fresh: bool) -> Files:
    folder, cached = kept(python, builder, job, cache, version, fresh)
    record = json.loads((folder / "build.json").read_text())
    return Files(folder / "float.tflite", folder / "int8.tflite", record, cached)


def kept(
    python: str, builder: Path, job: dict[str, Any], cache: Path, version: Any, fresh: bool = False
) -> tuple[Path, bool]:
    """The folder a builder filled for a job, build.json last, and whether it was there already."""
    settings = {k: v for k, v in job.items() if k not in ("weights", "calibration")}
    key = seeded.content_key(Path(job["weights"]), Path(job["calibration"]), version, settings)
    folder = cache / f"{job['name']}-{key}"
    cached = (folder / "build.json").exists() and not fresh
    if not cached:
        cache.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(dir=cache, prefix="building-"))
        try:
            fresh_process(python, builder, job | {"out": str(partial)}, cache / f"{job['name']}.log")
            shutil.rmtree(folder, ignore_errors=True)
            partial.rename(folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return folder, cached


def fresh_process(python: str, script: Path, job: dict[str, Any], log: Path) -> None:
    """`python script JOB.json`; what it prints goes to `log`, its last line into the error."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    if python == sys.executable:
        environment["PYTHONPATH"] = str(ROOT)  # this checkout, whatever is installed
    with tempfile.TemporaryDirectory() as folder, log.open("w") as stream:
        path = Path(folder, "job.json")
        path.write_text(json.dumps(job, default=str))
        command = [python, str(script), str(path)]
        done = subprocess.run(command, stdout=stream, stderr=subprocess.STDOUT, env=environment, check=False)
    if done.returncode:
        lines = log.read_text(errors="replace").strip().splitlines() or ["no message"]
        raise BuildFailure(
            f"{script.name} {job['name']}: ended with {done.returncode} ({lines[-1][:300]}): see {log}"
        )
