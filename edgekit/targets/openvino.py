"""Targets whose artifact is an OpenVINO .xml with its .bin, run by the CPU plugin.

It is fastest with some operators in float and reorders tensors on its own: int8 is promised for most MACs and
for every operator that the file quantizes.
"""

from __future__ import annotations

from functools import partial

from edgekit.targets.promises import Promises
from edgekit.targets.target import OWN, Target
from edgekit.targets.words import Loading, Words

WORDS = Words(
    runtime="OpenVINO",
    package="openvino",
    seen="Read back from the graph that OpenVINO executes, not from what was meant.",
    left="in float where the file asks for int8",
    slow="In float",
    taker="OpenVINO's integer kernels",
    parts="compiled parts",
    layout="layout changes",
    gentler="openvino-float16",
    loading=Loading(
        "python",
        (
            "import openvino",
            "",
            'model = openvino.Core().compile_model({path}, "CPU")',
            "outputs = model([image])",
        ),
    ),
)

_openvino = partial(
    Target,
    format="openvino",
    family="openvino",
    io_dtypes=("float32",),
    runtime="openvino",
    baseline="openvino-float16",
    open_batch=True,
    words=WORDS,
)

OPENVINO_TARGETS = (
    _openvino(
        "openvino-float16",
        activations="float32",
        weights="float16",
        promises=Promises(
            max_lsb=1, min_float_sqnr_db=35.0, max_top1_drop=0.015, min_sqnr_db=15.0, min_equal=0.9
        ),
        forms=frozenset(("drop_quantization",)),
        doc="Half the size at the speed of float32: weights are float16 behind Convert.",
    ),
    _openvino(
        "openvino-int8",
        activations="int8",
        weights="int8",
        promises=Promises(
            max_lsb=1,
            min_float_sqnr_db=30.0,
            max_top1_drop=0.015,
            min_sqnr_db=15.0,
            min_equal=0.9,
            min_pairwise_agreement=0.99,
            max_undelegated=0,
            min_int8_macs_share=0.5,
            max_latency_ratio=1.0,
        ),
        mixed=True,
        quantizers=(OWN, "nncf"),
        dtypes=("int8", "float32"),
        forms=frozenset(("place_quantization", "sum_in_place")),
        doc="Static int8 as FakeQuantize, placed where OpenVINO's CPU kernels gain by it.",
    ),
)
