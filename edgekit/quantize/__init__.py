"""Quantization: ranges and weights are decided once, on our graph; every target derives its own from them."""

from edgekit.quantize.ptq import QuantizeResult, QuantizeSettings, quantize
from edgekit.quantize.qparams import annotate, bias_integers, integers
from edgekit.quantize.simulate import fake_quantize, simulate, sqnr_db

__all__ = [
    "QuantizeResult",
    "QuantizeSettings",
    "annotate",
    "bias_integers",
    "fake_quantize",
    "integers",
    "quantize",
    "simulate",
    "sqnr_db",
]
