"""Which channels move together.

Enters: a graph. Leaves: what one node carries, channel by channel (carried.py), and which elements of all
values stand or fall together (coupling.py).
"""

from edgekit.graph.channels.carried import (
    Atom,
    Families,
    Source,
    carried,
    depthwise,
    placed,
    weighs_one,
)
from edgekit.graph.channels.coupling import Coupling, couple

__all__ = [
    "Atom",
    "Coupling",
    "Families",
    "Source",
    "carried",
    "couple",
    "depthwise",
    "placed",
    "weighs_one",
]
