"""`edgekit.qat`: a module in, the module of its deployed integers out.

Enters: an nn.Module, an example of its inputs and images to calibrate with. Leaves: an nn.Module of the same
inputs and outputs whose forward is the int8 file's, to be trained by any loop and taken by `edgekit.build`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from edgekit import passes
from edgekit.capture import capture, parameters
from edgekit.data.arrays import array_images
from edgekit.errors import QuantizationError
from edgekit.qat.module import QuantizedModule
from edgekit.quantize import QuantizeSettings, quantize


def quantized_module(module: nn.Module, example: Any, calibration: Any, **settings: Any) -> QuantizedModule:
    """See edgekit.qat; further settings are QuantizeSettings'."""
    if isinstance(module, QuantizedModule):
        raise QuantizationError("[qat] the module is one of integers already: the float module")
    graph = capture(module, example)
    passes.optimize(graph)
    given = array_images("calibration", calibration, parameters=parameters(module))
    images = [torch.from_numpy(array) for array in given.arrays]
    told = QuantizeSettings(**{"profile": "thorough", "calibration": len(images[0]), **settings})
    return QuantizedModule(quantize(graph, images, told).graph)
