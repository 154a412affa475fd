"""Smaller networks: what can go, which of it goes, and the graph without it.

Enters: a captured graph, before batch norm is folded. Leaves: a smaller graph, the same function of what is
left.
"""

from edgekit.prune.cut import cut
from edgekit.prune.groups import Analysis, Closed, Group, Place, analyse
from edgekit.prune.masked import masked

__all__ = ["Analysis", "Closed", "Group", "Place", "analyse", "cut", "masked"]
