"""What a proof is: a question about artifacts, its gates and its part of the report, in one file each.

A proof asks `edgekit.verify` or a runtime, and keeps the answer in the store under what it depends on. What
nobody else reads it keeps in `Built.found` under its name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit.pipeline.job import Built, Facts, Form, Job
from edgekit.pipeline.recipe import Recipe
from edgekit.pipeline.session import Session
from edgekit.targets import Promises
from edgekit.tasks import Task
from edgekit.verify.gates import Gate


@dataclass(frozen=True)
class Asked:
    """What is proven, and against what.

    reference: directory with the original's answers, if any. forms: from the original to what is proven.
    """

    session: Session
    recipe: Recipe
    job: Job
    task: Task
    reference: Path | None
    baselines: dict[str, Built]
    forms: list[Form]


def no_gates(_one: Built, _promises: Promises) -> list[Gate]:
    return []


def no_section(_facts: Facts, _one: Built) -> dict[str, Any]:
    return {}


@dataclass(frozen=True)
class Proof:
    """prove: asked of all artifacts of a build, it adds what it found to each.

    gates: what it found against what is promised. section: its keys of an artifact in report.json, whose rows
    stand in edgekit/report/schema.json. Both are empty for an artifact that was not asked about.
    """

    name: str
    prove: Callable[[Asked, list[Built]], None]
    gates: Callable[[Built, Promises], list[Gate]] = no_gates
    section: Callable[[Facts, Built], dict[str, Any]] = no_section


def each(prove: Callable[[Asked, Built], None]) -> Callable[[Asked, list[Built]], None]:
    """A question about one artifact, asked of every one."""

    def ask(asked: Asked, built: list[Built]) -> None:
        for one in built:
            prove(asked, one)

    return ask
