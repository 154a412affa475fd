"""Where single tensors depart from the target's own dtype, or from the parameters their operator dictates."""

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
