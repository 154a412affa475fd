"""Dockerfiles without a Docker daemon: linted, versions in one place, paths that exist, README's commands."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from dockerfiles import DOCKER, DOCKERFILES, PLACE, ROOT, findings, instructions, read_versions
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

VERSIONS, PINS = read_versions((ROOT / PLACE).read_text())
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
README = (DOCKER / "README.md").read_text()
each_dockerfile = pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)


def ignore_file(path: Path) -> str:
    beside = path.with_name(path.name + ".dockerignore")
    return beside.read_text() if beside.exists() else ""


def test_there_is_one_for_each_toolchain() -> None:
    assert [path.name.removesuffix(".Dockerfile") for path in DOCKERFILES] == [
        "board-arm64",
        "edgetpu-compiler",
        "host",
        "jetson",
    ]


@each_dockerfile
def test_hadolint_has_nothing_to_say(path: Path) -> None:
    beside = Path(sys.executable).with_name("hadolint")
    linter = str(beside) if beside.exists() else shutil.which("hadolint")
    if linter is None:
        if os.environ.get("EDGEKIT_CI") == "1":
            pytest.fail("hadolint is missing, and EDGEKIT_CI is set: pip install -e '.[dev]'")
        pytest.skip("hadolint is missing: pip install -e '.[dev]'")
    done = subprocess.run([linter, "--no-color", str(path)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@each_dockerfile
def test_nothing_is_wrong(path: Path) -> None:
    assert findings(path.read_text(), VERSIONS, ROOT, ignore_file(path)) == []


GOOD = 'ARG BASE=debian:12.1\nFROM ${BASE}\nCOPY a /\nUSER 1000\nHEALTHCHECK NONE\nENTRYPOINT ["a"]\n'


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "BASE=debian:12.1",
            "BASE=debian:12.2",
            "ARG BASE=debian:12.2: docker/versions.txt says debian:12.1",
        ),
        ("FROM ${BASE}", "FROM debian:latest", "FROM debian:latest: a tag with a version"),
        ("FROM ${BASE}", "FROM debian", "FROM debian: a tag with a version"),
        ("COPY a", "COPY b", "COPY b: there is no such path"),
        ("COPY a", "COPY c", "COPY c: its .dockerignore keeps it out"),
        ("USER 1000", "USER 0", "USER 0: a number that is not root's"),
        ("USER 1000\n", "", "USER None: a number that is not root's"),
        ("USER 1000", "USER 1000\nENV API_TOKEN=1", "ENV API_TOKEN=1: no secrets"),
        ("HEALTHCHECK NONE\n", "", "HEALTHCHECK: a command, or NONE"),
        ('["a"]', "a", "ENTRYPOINT: a list"),
    ],
)
def test_what_is_wrong_is_found(tmp_path: Path, old: str, new: str, message: str) -> None:
    (tmp_path / "a").touch()
    (tmp_path / "c").touch()
    versions = {"BASE": "debian:12.1"}
    assert findings(GOOD, versions, tmp_path, "*\n!a\n") == []
    assert findings(GOOD.replace(old, new), versions, tmp_path, "*\n!a\n") == [message]


def test_every_version_is_used() -> None:
    used = {
        value.partition("=")[0]
        for path in DOCKERFILES
        for name, value in instructions(path.read_text())
        if name == "ARG"
    }
    assert used == set(VERSIONS)


def test_pins_are_what_the_project_asks_for() -> None:
    host = (DOCKER / "host.Dockerfile").read_text()
    (extras,) = re.findall(r"edgekit-\*\.whl\)\[([\w,]+)\]", host)
    lines = [*PROJECT["dependencies"]]
    for extra in extras.split(","):
        lines += PROJECT["optional-dependencies"][extra]
    wanted = {found.name: found.specifier for found in map(Requirement, lines)}
    assert set(PINS) == set(wanted)
    assert [f"{name}=={PINS[name]}" for name in wanted if PINS[name] not in wanted[name]] == []


def test_python_is_one_the_project_and_the_boards_take() -> None:
    version = VERSIONS["PYTHON_IMAGE"].removeprefix("python:").split("-")[0]
    assert version in SpecifierSet(PROJECT["requires-python"])
    assert version in SpecifierSet("<3.12")  # tflite-runtime's last release
    assert VERSIONS["TFLITE_RUNTIME_NUMPY"] in SpecifierSet("<2")


@pytest.fixture(scope="module")
def commands() -> list[list[str]]:
    """README's docker commands as a shell splits them."""
    blocks = "".join(re.findall(r"```sh\n(.*?)```", README, re.DOTALL))
    shell = "docker() { printf '%s\\x1f' \"$@\"; printf '\\x1e'; }\n" + blocks
    done = subprocess.run(["bash", "-euc", shell], capture_output=True, text=True, check=True)
    return [command.split("\x1f")[:-1] for command in done.stdout.split("\x1e")[:-1]]


def test_readme_builds_every_image_and_runs_what_it_builds(commands: list[list[str]]) -> None:
    built = {
        words[words.index("-t") + 1]: words[words.index("-f") + 1]
        for words in commands
        if words[0] == "build"
    }
    assert set(built.values()) == {f"docker/{path.name}" for path in DOCKERFILES}
    run = [word for words in commands if words[0] == "run" for word in words if word.startswith("edgekit-")]
    assert sorted(run) == sorted(built)


def test_readme_job_runs_on_the_boards_script(commands: list[list[str]]) -> None:
    """What README passes to the board's image, passed to the script that the image starts."""
    entry = dict(instructions((DOCKER / "board-arm64.Dockerfile").read_text()))["ENTRYPOINT"]
    script = ROOT / "edgekit/device/harness" / Path(json.loads(entry)[1]).name
    (job,) = [words[-1] for words in commands if words[0] == "run" and "edgekit-board-arm64" in words]
    model = ROOT / "tests/device/models/tflite-int8"
    argv = [sys.executable, str(script), job.replace("/work", str(model))]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["files"]["model"]["partitions"] == 1
