"""A recipe and what is varied in it -> points, each a recipe of its own.

The first point is the recipe without any step ([lite], [prune], [train]): the original as it would ship,
which the others are held against.
"""

from __future__ import annotations

import copy
import hashlib
import itertools
import json
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from edgekit import __version__
from edgekit.errors import UsageError
from edgekit.pipeline import recipe as recipes
from edgekit.pipeline.recipe import Recipe
from edgekit.pipeline.step_settings import EITHER, lite_of, prune_of, qat_of, train_of

AS_IT_IS = "as it is"
_NONE = "off"
# A step's own word on the command line -> its section; steps of surgery are joined by "+" here.
_WORDS: dict[str, Callable[[str], dict[str, Any]]] = {
    "lite": lambda text: lite_of(text.replace("+", ",")),
    "prune": lambda text: prune_of(text.replace("+", ",")),
    "train": train_of,
    "qat": lambda text: qat_of(text.replace("+", ",")),
}


@dataclass(frozen=True)
class Point:
    """values: what is varied, as it was written. id: of the recipe and the edgekit that builds it."""

    values: dict[str, str]
    recipe: Recipe

    @property
    def id(self) -> str:
        content = json.dumps([self.recipe.to_dict(), __version__], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:12]

    @property
    def label(self) -> str:
        return ", ".join(f"{key} {value}" for key, value in self.values.items()) or AS_IT_IS

    @property
    def measures(self) -> bool:
        """Whether the build itself times something, beside which nothing else may run."""
        steps = (self.recipe.prune, self.recipe.lite)
        timed = steps[0] is not None and steps[0].latency_ms is not None
        return timed or (steps[1] is not None and "auto" in steps[1].steps)


def plan(base: Recipe, grid: Sequence[str], budget: str | None = None) -> list[Point]:
    """Every combination of what is varied, the original first.

    Args:
        base: builds are not timed one by one: its [device] says how the points are.
        grid: "KEY=a,b,c": a setting's path in a recipe ("prune.macs", "resolution"), or a step with the words
            of its option ("prune=0.5,macs=0.7,off", "lite=off,no-se+relu6").
        budget: "3ms,4ms", pruned to these latencies.
    Raises: UsageError for a key that is no setting, and for a value that it does not take.
    """
    axes = [_axis(text) for text in grid]
    if budget is not None:
        axes.append(("prune", [f"latency={part.strip()}" for part in budget.split(",")]))
    names = [key for key, _ in axes]
    if twice := sorted({key for key in names if names.count(key) > 1}):
        raise UsageError(f"sweep: {', '.join(twice)} is varied twice: one --grid for each setting")
    untimed = replace(base, device=replace(base.device, profile="off"))
    points = [Point({}, replace(untimed, lite=None, prune=None, train=None))]
    for values in itertools.product(*(found for _, found in axes)):
        content = untimed.to_dict()
        for key, value in zip(names, values, strict=True):
            _set(content, key, value)
        varied = dict(zip(names, values, strict=True))
        points.append(Point(varied, recipes.from_dict(content, f"sweep {Point(varied, base).label}")))
    different: dict[str, Point] = {}
    for point in points:
        different.setdefault(point.id, point)
    return list(different.values())


def _axis(text: str) -> tuple[str, list[str]]:
    key, equals, values = text.partition("=")
    found = [value.strip() for value in values.split(",")]
    if not equals or not key.strip() or not all(found):
        raise UsageError(f"sweep: --grid {text}: KEY=a,b,c such as prune.macs=0.5,0.7")
    return key.strip(), found


def _set(content: dict[str, Any], key: str, value: str) -> None:
    """Put one value into a recipe's plain data."""
    if key in _WORDS:
        content[key] = None if value == _NONE else _WORDS[key](value)
        return
    *path, name = key.split(".")
    if len(path) > 1 or (path and path[0] not in content):
        known = ", ".join(k for k, v in content.items() if isinstance(v, dict) or k in _WORDS)
        raise UsageError(f"sweep: --grid {key}: no section of a recipe: {known}")
    section = content
    if path:
        section = content[path[0]] = copy.copy(content[path[0]] or {})
        if not isinstance(section, dict):
            raise UsageError(f"sweep: --grid {key}: {path[0]} is a setting, not a section")
    others = EITHER.get(".".join(path), frozenset())
    for other in others if name in others else ():
        section.pop(other, None)
    section[name] = _value(value)


def _value(text: str) -> Any:
    """A number, a truth or a list as TOML has them; anything else is a word."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
