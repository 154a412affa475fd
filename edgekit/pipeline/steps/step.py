"""What a step is: it makes the next variant of a model's graph, and says what it did.

Enters a captured graph that nothing has optimized, with batch norm, and the settings of a recipe's section.
Leaves a graph of the same kind and a `record`, plain data for the report:

    changed    [{"module", "what"}]     what is not as it was
    left       [{"module", "reason"}]   what the step could not or would not touch
    settings   {...}                    what it decided by itself, as settings of its section that ask for
                                        exactly that: `repro` does
    notes      ["..."]                  sentences for the reader
    fitted     128                      images that layers were fitted to in closed form, where any were
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from edgekit.graph.ir import Graph
from edgekit.pipeline.calibration import calibration_rows
from edgekit.pipeline.job import Job
from edgekit.pipeline.recipe import Recipe
from edgekit.pipeline.session import Line


@dataclass(frozen=True)
class Context:
    """What a step may ask for.

    original: the captured graph that every proof refers to, a teacher. line: the step's progress line.
    work: a directory that outlives a killed build: what is left there is there again when the same step is
        made the next time, and must lead to the same graph. cache: for what is the same in every build.
    """

    recipe: Recipe
    job: Job
    original: Graph
    line: Line
    work: Path
    cache: Path

    def images(self) -> list[torch.Tensor]:
        """The calibration images, up to `MOST_IMAGES`: a tensor (N, ...) for each input."""
        return [rows[:MOST_IMAGES] for rows in calibration_rows(self.job.calibration.images)]


MOST_IMAGES = 1024
Made = tuple[Graph, dict[str, Any]]


@dataclass(frozen=True)
class Step:
    """name: of the recipe's section. apply: makes the graph. depends: what its result depends on besides the
    settings, the two graphs (it is given the original), threads and versions."""

    name: str
    apply: Callable[[Graph, Any, Context], Made]
    depends: Callable[[Any, Recipe, Job, Graph], dict[str, Any]]
