"""Targets whose artifact is a .tflite file, run by LiteRT with its XNNPACK delegate."""

from __future__ import annotations

from edgekit.targets.target import Target

TFLITE_TARGETS = (
    Target(
        "tflite-float32",
        format="tflite",
        activations="float32",
        weights="float32",
        activation_form="table",
        io_dtypes=("float32",),
        doc="The reference: same numbers as PyTorch up to float rounding.",
    ),
    Target(
        "tflite-float16",
        format="tflite",
        activations="float32",
        weights="float16",
        activation_form="table",
        io_dtypes=("float32",),
        doc="Half the size at the speed of float32: weights are float16 behind DEQUANTIZE.",
    ),
    Target(
        "tflite-int8",
        format="tflite",
        activations="int8",
        weights="int8",
        activation_form="table",
        io_dtypes=("int8", "float32", "uint8"),
        doc="Static int8 in the forms a CPU runs fastest.",
    ),
    Target(
        "tflite-int16x8",
        format="tflite",
        activations="int16",
        weights="int8",
        activation_form="integer",
        io_dtypes=("int16", "float32"),
        doc="int16 activations on int8 weights: an accuracy fallback; nothing is delegated, so it is slow.",
    ),
    Target(
        "tflite-dynamic-int8",
        format="tflite",
        activations="float32",
        weights="int8",
        activation_form="table",
        io_dtypes=("float32",),
        doc="int8 convolution and linear weights, float activations and depthwise: no calibration needed.",
    ),
)
