"""Every op of the graph: one row an op, in the file of its family; every table about ops is derived here.

Leaves: `OPS`, name -> `Op` (row.py says what a row holds), and the tables that several rooms read.
"""

from __future__ import annotations

from edgekit.graph.ops import (  # noqa: F401 (each fills OPS)
    activation,
    attention,
    comparison,
    convolution,
    elementwise,
    movement,
    normalization,
    pooling,
    resize,
)
from edgekit.graph.ops.row import ACTIVATIONS, EVERYTHING, OPS, Fixed, Free, Op, Place, Range, Same, op

# Output and inputs share one scale and zero point, and why.
SAME: dict[str, str] = {name: row.ranges.why for name, row in OPS.items() if isinstance(row.ranges, Same)}
# Every number of the output occurs in an input (or fills a border): nothing is rounded.
MOVES = frozenset(name for name, row in OPS.items() if row.movement)
# Several tensors put into one.
CONCATS = frozenset(name for name, row in OPS.items() if row.movement == "place" and row.variadic)
# Elements stay where they are, only their dimensions get other names.
VIEWS = frozenset(name for name, row in OPS.items() if row.movement == "view")
# Ops whose results are places: whole numbers that integers of one byte cannot hold.
PLACES = frozenset(name for name, row in OPS.items() if isinstance(row.ranges, Place))
# Ops with an int8 weight: which axis of inputs[1] is the output channel. inputs[2] is the int32 bias.
WEIGHT_AXIS: dict[str, int] = {
    name: row.weight_axis for name, row in OPS.items() if row.weight_axis is not None
}
# Ops that compute on integers as they are, so that all their operands are of one integer type.
SUMS = frozenset(name for name, row in OPS.items() if (row.sums or row.macs) and not row.composite)
# Ops that take in the activation behind them.
FUSES = frozenset(name for name, row in OPS.items() if row.fuses_activation)

__all__ = [
    "ACTIVATIONS",
    "CONCATS",
    "EVERYTHING",
    "FUSES",
    "MOVES",
    "OPS",
    "PLACES",
    "SAME",
    "SUMS",
    "VIEWS",
    "WEIGHT_AXIS",
    "Fixed",
    "Free",
    "Op",
    "Range",
    "Same",
    "op",
]
