"""Targets whose artifact is an OpenVINO .xml with its .bin, run by the CPU plugin."""

from __future__ import annotations

from edgekit.targets.target import Target

OPENVINO_TARGETS = (
    Target(
        "openvino-float16",
        format="openvino",
        activations="float32",
        weights="float16",
        activation_form="table",
        io_dtypes=("float32",),
        runtime="openvino",
        baseline="openvino-float16",
        doc="Half the size at the speed of float32: weights are float16 behind Convert.",
    ),
    Target(
        "openvino-int8",
        format="openvino",
        activations="int8",
        weights="int8",
        activation_form="table",
        io_dtypes=("float32",),
        runtime="openvino",
        baseline="openvino-float16",
        doc="Static int8 as FakeQuantize, placed where OpenVINO's CPU kernels gain by it.",
    ),
)
