"""Quantization-aware training: an annotated graph as a module whose forward is the deployed integers."""

from edgekit.qat.module import QuantizedModule

__all__ = ["QuantizedModule"]
