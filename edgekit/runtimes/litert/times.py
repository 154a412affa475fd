"""A .tflite file cut after the k-th operator, for some two dozen k.

XNNPACK hides the operators it takes, and running it without fusion times another program; the difference of
two neighbouring prefixes is the time of the operators between them. No cut falls inside a chain that XNNPACK
folds into one table.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgekit.lower.tflite.expose import prefix
from edgekit.lower.tflite.reader import read_model
from edgekit.runtimes.litert.audit import table_chains
from edgekit.runtimes.sources import ModelFile
from edgekit.runtimes.times import Prefixes


def times(file: ModelFile, threads: int, parts: int) -> Prefixes:
    """The prefixes to time. Raises: ArtifactError for a damaged file."""
    graph = read_model(file.data, file.where).main
    chains = [(chain[0].index, chain[-1].index) for chain in table_chains(graph)]
    points = cut_points(len(graph.operators), chains, parts)
    files = [*(prefix(file.data, k) for k in points[:-1]), file.data]
    return Prefixes(tuple(points), tuple(files))


def cut_points(operators: int, inseparable: Sequence[tuple[int, int]], cuts: int) -> list[int]:
    """How many operators each prefix keeps, ascending, the last one all of them.

    Args:
        inseparable: (first, last) operator of chains that stay whole.
    """
    inside = {k for first, last in inseparable for k in range(first + 1, last + 1)}
    allowed = [k for k in range(1, operators + 1) if k not in inside]
    wanted = min(max(1, cuts), len(allowed))
    places = np.linspace(0, len(allowed), wanted + 1)[1:].round().astype(int) - 1
    return [allowed[place] for place in places]
