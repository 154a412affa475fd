"""The target whose artifact is a TensorFlow SavedModel directory: a hand-over, nothing a device runs."""

from __future__ import annotations

from edgekit.targets.target import Target

SAVEDMODEL_TARGETS = (
    Target(
        "savedmodel",
        format="savedmodel",
        activations="float32",
        weights="float32",
        activation_form="table",
        io_dtypes=("float32",),
        runtime="tensorflow",
        doc="For teams that go on in TensorFlow: float32, weights as variables, signature serving_default.",
    ),
)
