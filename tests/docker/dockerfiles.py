"""Dockerfiles as text: their instructions in, what is wrong with them out, beyond what hadolint looks at."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
DOCKERFILES = sorted(DOCKER.glob("*.Dockerfile"))
PLACE = "docker/versions.txt"
_SECRET = re.compile(r"TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL|API_?KEY", re.IGNORECASE)


class Instruction(NamedTuple):
    name: str
    value: str


def instructions(text: str) -> list[Instruction]:
    """Every instruction with its continuation lines joined."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    split = (line.split(maxsplit=1) for line in joined.splitlines() if line.strip())
    return [Instruction(name.upper(), value) for name, value in split]


def read_versions(text: str) -> tuple[dict[str, str], dict[str, str]]:
    """ARGs of Dockerfiles (NAME=value) and pins of Python packages (name==version)."""
    lines = [line for line in text.splitlines() if line]
    pins = dict(line.split("==") for line in lines if "==" in line)
    return dict(line.split("=", 1) for line in lines if "==" not in line), pins


def findings(text: str, versions: dict[str, str], root: Path, ignored: str = "") -> list[str]:
    """What is wrong with a Dockerfile; `ignored` is the text of the .dockerignore beside it."""
    found: list[str] = []
    given: dict[str, str] = {}
    stages: set[str] = set()
    last: dict[str, str] = {}
    for name, value in instructions(text):
        last[name] = value
        if name in ("ARG", "ENV") and _SECRET.search(value.split("=")[0]):
            found.append(f"{name} {value}: no secrets")
        if name == "ARG":
            key, _, given[key] = value.partition("=")
            if versions.get(key) != given[key]:
                found.append(f"ARG {value}: {PLACE} says {versions.get(key)}")
        elif name == "FROM":
            image, _, stage = value.partition(" AS ")
            image = re.sub(r"\$\{(\w+)\}", lambda match: given.get(match[1], ""), image)
            if image not in stages and not re.fullmatch(r"[\w./-]+:[\w.-]*\d[\w.-]*", image):
                found.append(f"FROM {value}: a tag with a version")
            stages.add(stage)
        elif name == "COPY" and not value.startswith("--from="):
            for source in value.split()[:-1]:
                found += _copied(source, root, ignored)
    if not re.fullmatch(r"[1-9]\d*", last.get("USER", "")):
        found.append(f"USER {last.get('USER')}: a number that is not root's")
    if not last.get("ENTRYPOINT", "").startswith("["):
        found.append("ENTRYPOINT: a list")
    if "HEALTHCHECK" not in last:
        found.append("HEALTHCHECK: a command, or NONE")
    return found


def _copied(source: str, root: Path, ignored: str) -> list[str]:
    if not (root / source).exists():
        return [f"COPY {source}: there is no such path"]
    return [] if f"!{source}" in ignored.splitlines() else [f"COPY {source}: its .dockerignore keeps it out"]
