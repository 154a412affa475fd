"""Smaller networks: what can go, which of it goes, and the graph without it.

    smaller = edgekit.prune(module, example, macs=0.5, calibration=images)

Enters: a captured graph, before batch norm is folded. Leaves: a smaller graph, the same function of what is
left, with its layers fitted to what went.
"""

import sys
from types import ModuleType

from edgekit.prune.cut import cut
from edgekit.prune.groups import Analysis, Closed, Group, Place, analyse
from edgekit.prune.masked import masked
from edgekit.prune.module import prune_module
from edgekit.prune.prune import Pruned, prune_graph

__all__ = ["Analysis", "Closed", "Group", "Place", "Pruned", "analyse", "cut", "masked", "prune_graph"]


class _Callable(ModuleType):
    """Python puts a loaded package in its parent's namespace, over the function of the same name."""

    __call__ = staticmethod(prune_module)


sys.modules[__name__].__class__ = _Callable
