"""Which channels move together.

Enters: a graph. Leaves: what one node carries, channel by channel (carried.py), and which elements of all
values stand or fall together (coupling.py).
"""

from edgekit.graph.channels.atoms import components
from edgekit.graph.channels.carried import (
    Atom,
    Families,
    Source,
    carried,
    depthwise,
    placed,
    weighs_one,
)
from edgekit.graph.channels.coupling import STATISTICS, Coupling, couple, every

__all__ = [
    "STATISTICS",
    "Atom",
    "Coupling",
    "Families",
    "Source",
    "carried",
    "components",
    "couple",
    "depthwise",
    "every",
    "placed",
    "weighs_one",
]
