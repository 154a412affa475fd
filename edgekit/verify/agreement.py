"""Do artifacts of one model answer alike? Outputs of several files on the same images -> Agreement.

Every pair is compared: the share of images with the same answer, as the task sees it, and the SQNR of one's
outputs against the other's, the lowest of them. When a pair parts, `first_divergence` runs both files and
names the first value in graph order at which they part: quantized with the same scales and integers, two
runtimes stay within a step of each other, so the SQNR between them falls slowly, and a sudden fall is a
difference in meaning.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np

from edgekit.errors import DataError
from edgekit.graph.ir import Value
from edgekit.runtimes.runtime import Inputs
from edgekit.tasks import Output, Task
from edgekit.tasks.classification import Classification
from edgekit.tasks.errors import measure
from edgekit.tasks.statistics import SQNR_CEILING_DB, sqnr_db
from edgekit.verify.placed import Placed, placed_values

MAX_DIFFERING = 100
FALL_DB = 6.0  # a noise power four times larger, and more than a layer of rounding adds
_NEAR_DB = 30.0  # below this two values no longer differ by rounding alone


@dataclass(frozen=True)
class Pair:
    """Two artifacts. agreement: percent of images; differing: image indices, at most MAX_DIFFERING."""

    first: str
    second: str
    agreement: float
    sqnr_db: float
    differing: tuple[int, ...]
    disagreements: int

    def __str__(self) -> str:
        return f"{self.first} and {self.second}"


@dataclass(frozen=True)
class Agreement:
    """Every pair once, over `n` images."""

    names: tuple[str, ...]
    n: int
    pairs: tuple[Pair, ...]

    def pair(self, first: str, second: str) -> Pair:
        """The comparison of two artifacts, in either order."""
        for pair in self.pairs:
            if {pair.first, pair.second} == {first, second}:
                return pair
        raise KeyError(f"{first} and {second} were not compared")

    @property
    def worst(self) -> Pair | None:
        return min(self.pairs, key=lambda pair: (pair.agreement, pair.sqnr_db), default=None)

    def matrix(self) -> dict[str, dict[str, float]]:
        """agreement[first][second] in percent, both ways, 100 on the diagonal."""
        table = {name: dict.fromkeys(self.names, 100.0) for name in self.names}
        for pair in self.pairs:
            table[pair.first][pair.second] = table[pair.second][pair.first] = pair.agreement
        return table

    def as_dict(self) -> dict[str, Any]:
        """Plain data for report.json."""
        return asdict(self) | {"matrix": self.matrix()}


def agreement(
    answers: Mapping[str, np.ndarray | Sequence[np.ndarray]],
    max_differing: int = MAX_DIFFERING,
    task: Task | None = None,
) -> Agreement:
    """Compare every pair of artifacts.

    Args:
        answers: artifact name -> every output, one array (N, ...) each, all over the same N images.
        task: what makes two answers the same; None: each artifact has one array of logits (N, K).
    Raises: DataError when shapes differ or a number is none.
    """
    arrays = {n: [a] if isinstance(a, np.ndarray) else list(a) for n, a in answers.items()}
    shapes = {name: [array.shape for array in outputs] for name, outputs in arrays.items()}
    first_shapes = next(iter(shapes.values()), [])
    if task is None:
        task = Classification(tuple(Output("logits", shape[1:]) for shape in first_shapes))
        wrong = any(len(shape) != 2 for shape in first_shapes)
    else:
        wrong = False
    if wrong or any(s != first_shapes or not s or not s[0][0] for s in shapes.values()):
        told = ", ".join(f"{name} {' '.join(map(str, shape))}" for name, shape in shapes.items())
        raise DataError(f"agreement: answers of shapes {told}: equal (N, K) are needed")
    pairs = []
    for first, second in combinations(arrays, 2):
        errors = measure(task.outputs, arrays[first], arrays[second])
        apart = np.flatnonzero(~task.same(arrays[first], arrays[second]))
        n = len(arrays[first][0])
        pairs.append(
            Pair(
                first,
                second,
                100.0 * (1.0 - len(apart) / n),
                min(one.error.sqnr_db for one in errors),
                tuple(int(index) for index in apart[:max_differing]),
                len(apart),
            )
        )
    return Agreement(tuple(arrays), first_shapes[0][0] if first_shapes else 0, tuple(pairs))


@dataclass(frozen=True)
class Divergence:
    """The first value at which two files part: dB between them before and at it; values compared."""

    value: str
    op: str
    module: str
    before_db: float
    after_db: float
    shared: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.op} at {self.module} ({self.before_db:.1f} -> {self.after_db:.1f} dB)"


def first_divergence(
    first: Placed, second: Placed, inputs: Inputs, fall_db: float = FALL_DB
) -> Divergence | None:
    """The first layer in graph order where two files' values part by more than rounding.

    Compared are values of the same name that both files hold on the same grid, or both in float. The answer
    is the first of them whose SQNR between the files lies below 30 dB and `fall_db` below the lowest SQNR of
    what it was computed from; where nothing falls that far, the one with the largest fall.

    Args:
        first: its graph gives the order and who reads whom.
        inputs: float32, one array a graph input, (N, ...); a few images are enough, best those on which the
            files disagree.
    Returns: None when the files share no value or never differ.
    """
    names = _shared(first, second)
    if not names:
        return None
    graph = first.graph
    one, other = (placed_values(placed, names, inputs) for placed in (first, second))
    between = {name: float(sqnr_db(one[name], other[name])) for name in names}
    felt: dict[str, float] = {value.name: SQNR_CEILING_DB for value in graph.inputs}
    found: list[Divergence] = []
    for node in graph.nodes:
        before = min((felt.get(v.name, SQNR_CEILING_DB) for v in node.operands), default=SQNR_CEILING_DB)
        for value in node.outputs:
            after = between.get(value.name, before)
            felt[value.name] = after
            if value.name in between and after < before:
                module = node.source or value.name
                found.append(Divergence(value.name, node.op, module, before, after, len(names)))
    parted = [d for d in found if d.after_db < _NEAR_DB and d.before_db - d.after_db >= fall_db]
    return parted[0] if parted else max(found, key=lambda d: d.before_db - d.after_db, default=None)


def _shared(first: Placed, second: Placed) -> list[str]:
    """Names of the results that both files hold and that mean the same in both."""
    theirs = {value.name: value for node in second.graph.nodes for value in node.outputs}
    return [
        value.name
        for node in first.graph.nodes
        for value in node.outputs
        if value.name in first.tensors and value.name in second.tensors and value.name in theirs
        if _grid(value) == _grid(theirs[value.name]) and value.shape == theirs[value.name].shape
    ]


def _grid(value: Value) -> tuple[float, int] | None:
    """Scale and zero point as int8: uint8 with 128 more is the same grid."""
    if value.quant is None:
        return None
    shift = 128 if value.quant.dtype == "uint8" else 0
    return value.quant.scale[0], value.quant.zero_point[0] - shift
