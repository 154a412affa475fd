"""Where single tensors depart from the target's own dtype, or from the parameters their operator dictates.

A graph may hold int8, int16 and float values at once. A value's type is how its numbers are kept, and the
type of a node's result is the one it computes in: an int16 convolution (int8 weights, int64 bias) is one
whose result is chosen int16, and precise from end to end when its input is int16 too. Where types meet:

1. An operator that sums or multiplies integers reads one type: an operand of the other is converted in front
   of it (`edgekit.graph.boundaries`), exactly from int8 to int16.
2. An operator that ties inputs and output (concat, pooling, reshape) takes the output's type and parameters
   and rounds each operand of another type to them; only values of equal type share a scale.
3. Between float and integers stand QUANTIZE and DEQUANTIZE.

The simulation computes the same conversions, and a target that lacks a type refuses it by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from edgekit.graph.ir import Value


@dataclass(frozen=True)
class Choices:
    """dtypes: "int8", "int16" or "float32" of single values. calibrated: values whose operator dictates
    parameters that they do not take.
    """

    dtypes: Mapping[Value, str] = field(default_factory=dict)
    calibrated: frozenset[Value] = frozenset()


NO_CHOICES = Choices()
