"""The target whose artifact is a TensorFlow SavedModel directory: a hand-over, nothing a device runs."""

from __future__ import annotations

from edgekit.targets.promises import Promises
from edgekit.targets.target import Target
from edgekit.targets.words import Loading, Words

WORDS = Words(
    runtime="TensorFlow",
    package="tensorflow",
    seen="Read back from the written file, not from what was meant.",
    left="in float where the file asks for int8",
    slow="In float",
    taker="the integer kernels",
    parts="parts",
    layout="layout changes",
    gentler="savedmodel",
    loading=Loading(
        "python",
        (
            "import tensorflow as tf",
            "",
            "model = tf.saved_model.load({folder})",
            "outputs = model.signatures[{signature}](**{{{input}: tf.constant(image)}})",
        ),
    ),
    signatures=True,
)

SAVEDMODEL_TARGETS = (
    Target(
        "savedmodel",
        format="savedmodel",
        family="savedmodel",
        activations="float32",
        weights="float32",
        io_dtypes=("float32",),
        runtime="tensorflow",
        baseline="tflite-float32",
        words=WORDS,
        promises=Promises(
            max_lsb=1, min_float_sqnr_db=80.0, max_top1_drop=0.015, min_sqnr_db=15.0, min_equal=0.9
        ),
        doc="For teams that go on in TensorFlow: float32, weights as variables, signature serving_default.",
    ),
)
