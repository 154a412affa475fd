"""Run an image's pip lines on this machine, as its Dockerfile has them, from only the files it copies.

    python tests/docker/rehearse.py host|board-arm64 FOLDER

FOLDER is new and stands in for the image's root; each stage has its environment, FOLDER/STAGE. Packages are
those of this machine's architecture. TORCH_INDEX= in the environment takes torch from PyPI.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

from dockerfiles import DOCKER, PLACE, ROOT, instructions, read_versions

# Absolute paths of the Dockerfiles that RUN lines and COPY targets name.
_PLACES = re.compile(r"(?<![\w/.}])/(src|wheels|etc/edgekit|opt/edgekit)\b")


def rehearse(image: str, folder: Path) -> None:
    """Raises: CalledProcessError for a RUN line that fails."""
    folder.mkdir(parents=True)
    arguments, _ = read_versions((ROOT / PLACE).read_text())
    environment = arguments | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"} | os.environ
    work = folder
    for name, value in instructions((DOCKER / f"{image}.Dockerfile").read_text()):
        value = _PLACES.sub(rf"{folder}/\1", value)
        if name == "FROM":
            stage = folder / (value.partition(" AS ")[2] or "image")
            venv.create(stage, with_pip=True)
            environment["PATH"] = f"{stage}/bin:{os.environ['PATH']}"
        elif name == "WORKDIR" and value.startswith(str(folder)):
            work = Path(value)
            work.mkdir()
        elif name == "COPY" and not value.startswith("--from="):
            *sources, target = value.split()
            for source in sources:
                _copy(ROOT / source, work / target, whole=target.endswith("/"))
        elif name == "RUN" and "pip " in value:
            print(f"$ {value}", flush=True)
            subprocess.run(["sh", "-euc", value], cwd=work, env=environment, check=True)


def _copy(source: Path, target: Path, whole: bool) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        return
    if whole:
        target.mkdir(parents=True, exist_ok=True)
        target = target / source.name
    shutil.copyfile(source, target)


if __name__ == "__main__":
    rehearse(sys.argv[1], Path(sys.argv[2]).resolve())
