"""Targets whose artifact is an .onnx file: for ONNX Runtime on CPUs, and for TensorRT to compile."""

from __future__ import annotations

from edgekit.targets.target import Target

ONNX_TARGETS = (
    Target(
        "onnx-float32",
        format="onnx",
        activations="float32",
        weights="float32",
        activation_form="table",
        io_dtypes=("float32",),
        runtime="onnxruntime",
        baseline="onnx-float32",
        doc="The reference: same numbers as PyTorch up to float rounding.",
    ),
    Target(
        "onnx-int8",
        format="onnx",
        activations="int8",
        weights="int8",
        activation_form="table",
        io_dtypes=("float32", "uint8"),
        runtime="onnxruntime",
        baseline="onnx-float32",
        doc="Static int8 as QDQ, placed where ONNX Runtime's CPU kernels gain by it.",
    ),
    Target(
        "tensorrt-int8",
        format="onnx",
        activations="int8",
        weights="int8",
        activation_form="integer",
        io_dtypes=("float32",),
        runtime="tensorrt",
        baseline="onnx-float32",
        doc="Symmetric int8 as QDQ by TensorRT's explicit rules, for a Jetson to compile.",
    ),
)
