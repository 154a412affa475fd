"""Quantization-aware training: an annotated graph as a module whose forward is the deployed integers, taught
by its float graph or by labels, and kept where held-out images say so.

Enters: what `edgekit.quantize` made of a float graph. Leaves: the same with other numbers, for every int8
target.
"""

import sys
from types import ModuleType

from edgekit.qat.module import QuantizedModule
from edgekit.qat.prepare import quantized_module

__all__ = ["QuantizedModule"]


class _Callable(ModuleType):
    """Python puts a loaded package in its parent's namespace, over the function of the same name."""

    __call__ = staticmethod(quantized_module)


sys.modules[__name__].__class__ = _Callable
