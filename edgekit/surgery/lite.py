"""Lite surgery: a network into a form that accelerators map and that int8 keeps, started near its answers.

Each step is a function Graph -> (Graph, StepRecord): it edits a copy and fits what it changed, by least
squares, to what the reference computes at the same place, on calibration images, front to back. Structures
are recognised in the captured graph, before `passes.optimize`, whatever the modules are called.

    no-se   squeeze-and-excitation gates become their mean               gates.py
    3x3     depthwise kernels larger than 3 become 3 x 3                 kernels.py
    fuse    an expansion and its depthwise layer become one dense layer  fuse.py
    relu6   h-swish, SiLU, Mish and GELU become ReLU6                    activations.py

Enters: a Graph and images. Leaves: `Lite`, the changed graph and what each step did. Training follows where
the answers are to come nearer still.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from edgekit.errors import UsageError, did_you_mean
from edgekit.graph.check import check
from edgekit.graph.ir import Graph
from edgekit.graph.run import answers
from edgekit.passes.recognize_activation import recognize_activation
from edgekit.surgery.activations import replace_activations
from edgekit.surgery.fuse import fuse_pairs
from edgekit.surgery.gates import drop_gates
from edgekit.surgery.kernels import shrink_kernels
from edgekit.surgery.paired import CHUNK, Site, fit_front_to_back
from edgekit.surgery.record import Change, Climb, Left, StepRecord, macs, params, sqnr_db

Tensor = torch.Tensor
Images = Sequence[Tensor]
Edit = Callable[[Graph, Graph, Images, Collection[str] | None], tuple[list[Change], list[Left], list[Site]]]
# In the order in which they are made, whatever the order in which they are asked for.
STEPS: dict[str, Edit] = {
    "no-se": drop_gates,
    "3x3": lambda graph, reference, _, only: shrink_kernels(graph, reference, only),
    "fuse": lambda graph, reference, _, only: fuse_pairs(graph, reference, only),
    "relu6": lambda graph, reference, _, only: replace_activations(graph, reference, only),
}
DEFAULT = ("no-se", "relu6", "3x3")
_HELD_OUT = 4  # one image in so many fits nothing: what a step lost is said of these
_MANY = 16  # images from which on some are held out


@dataclass(frozen=True)
class Lite:
    """The changed graph, one record a step, and how the steps were chosen where they were (`ladder`)."""

    graph: Graph
    record: tuple[StepRecord, ...]
    climb: Climb | None = None

    def as_dict(self) -> dict[str, Any]:
        steps = {"steps": [step.as_dict() for step in self.record]}
        return steps if self.climb is None else {**steps, "climb": self.climb.as_dict()}


def lite(
    graph: Graph,
    images: Images | Tensor,
    *,
    steps: Sequence[str] = DEFAULT,
    fixed: Collection[str] = (),
) -> Lite:
    """Make the steps, each fitted to `graph`.

    Args:
        graph: as captured, not optimized; it stays as it is.
        images: calibration inputs, one tensor a graph input, (N, ...), or the one of the one input.
        steps: names of STEPS; they are made in the order of STEPS.
        fixed: paths of modules whose form stays, with all that is in them (a stem, a head); their weights may
            be fitted to what comes to them.
    Raises: UsageError for an unknown step, for a path that no module has.
    """
    known(steps)
    only = movable(graph, fixed) if fixed else None
    records, changed = [], graph
    for name in (name for name in STEPS if name in steps):
        changed, record = step(name, changed, images, reference=graph, only=only)
        records.append(record)
    return Lite(changed, tuple(records))


def step(
    name: str,
    graph: Graph,
    images: Images | Tensor,
    *,
    reference: Graph | None = None,
    only: Collection[str] | None = None,
) -> tuple[Graph, StepRecord]:
    """One step on a copy of `graph`.

    Args:
        reference: the graph whose values are to be kept; `graph` itself by default.
        only: paths of the modules that may be changed; None: all.
    """
    given = [images] if isinstance(images, Tensor) else list(images)
    fitted, judged = _split(given)
    meant = graph if reference is None else reference
    changed, (changes, left, sites) = _edited(name, graph, meant, fitted, only)
    fit_front_to_back(changed, meant, sites, fitted)
    check(changed)
    return changed, StepRecord(
        name,
        tuple(changes),
        tuple(left),
        params(graph),
        params(changed),
        macs(graph),
        macs(changed),
        len(given[0]),
        _sqnr(meant, changed, judged),
    )


def reshaped(
    name: str,
    graph: Graph,
    images: Sequence[Tensor],
    only: Collection[str] | None,
    *,
    reference: Graph | None = None,
) -> tuple[Graph, tuple[str, ...]]:
    """The form that a step gives, with nothing fitted: a copy, and the paths of what it changes."""
    few = [x[:1] for x in images]
    changed, (changes, _, _) = _edited(name, graph, graph if reference is None else reference, few, only)
    return changed, tuple(dict.fromkeys(change.module for change in changes))


def known(steps: Sequence[str]) -> None:
    """Raises: UsageError for a name that is no step."""
    for name in steps:
        if name not in STEPS:
            raise UsageError(f"[lite] '{name}' is no step{did_you_mean(name, STEPS)}: {', '.join(STEPS)}")


def _edited(
    name: str, graph: Graph, meant: Graph, images: Images, only: Collection[str] | None
) -> tuple[Graph, tuple[list[Change], list[Left], list[Site]]]:
    changed = graph.copy()
    recognize_activation(changed)
    changed.remove_dead()
    return changed, STEPS[name](changed, meant, images, only)


def movable(graph: Graph, fixed: Collection[str]) -> set[str]:
    """Paths of the modules that are not in one of `fixed`.

    Raises: UsageError for a path that no module has.
    """
    sources = {node.source for node in graph.nodes}
    held = {path: {s for s in sources if s == path or s.startswith(f"{path}.")} for path in fixed}
    for path, found in held.items():
        if not found:
            raise UsageError(f"[lite] fixed '{path}': no module of that path{did_you_mean(path, sources)}")
    return sources.difference(*held.values())


def _split(images: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Images to fit to, and images to judge by: the same where there are few."""
    count = len(images[0])
    if count < _MANY:
        return images, images
    held = torch.arange(count) % _HELD_OUT == _HELD_OUT - 1
    return [x[~held] for x in images], [x[held] for x in images]


@torch.inference_mode()
def _sqnr(reference: Graph, graph: Graph, images: list[Tensor]) -> float:
    parts = list(zip(*(x.split(CHUNK) for x in images), strict=True))
    sides = [
        [torch.cat(out) for out in zip(*(answers(g, part) for part in parts), strict=True)]
        for g in (reference, graph)
    ]
    return sqnr_db(*sides)
