"""Targets whose artifact is a .tflite file, run by LiteRT with its XNNPACK delegate."""

from __future__ import annotations

from functools import partial

from edgekit.targets.promises import Promises
from edgekit.targets.target import Target
from edgekit.targets.words import Loading, Words

WORDS = Words(
    runtime="LiteRT",
    package="ai-edge-litert",
    seen="Read back from the written file and from the runtime, not from what was meant.",
    left="outside the delegate",
    slow="Not on the fast path",
    taker="the delegate",
    parts="delegate partitions",
    layout="transposes",
    gentler="tflite-dynamic-int8, which keeps activations in float",
    loading=Loading(
        "python",
        (
            "from ai_edge_litert.interpreter import Interpreter",
            "",
            "run = Interpreter(model_path={path}).get_signature_runner({signature})",
            "outputs = run(**{{{input}: image}})",
        ),
    ),
    delegates=True,
    signatures=True,
)

_tflite = partial(
    Target, format="tflite", family="tflite", runtime="litert", baseline="tflite-float32", words=WORDS
)

TFLITE_TARGETS = (
    _tflite(
        "tflite-float32",
        activations="float32",
        weights="float32",
        io_dtypes=("float32",),
        promises=Promises(
            max_lsb=1, min_float_sqnr_db=80.0, max_top1_drop=0.015, min_sqnr_db=15.0, min_equal=0.9
        ),
        doc="The reference: same numbers as PyTorch up to float rounding.",
    ),
    _tflite(
        "tflite-float16",
        activations="float32",
        weights="float16",
        io_dtypes=("float32",),
        promises=Promises(
            max_lsb=1, min_float_sqnr_db=35.0, max_top1_drop=0.015, min_sqnr_db=15.0, min_equal=0.9
        ),
        doc="Half the size at the speed of float32: weights are float16 behind DEQUANTIZE.",
    ),
    _tflite(
        "tflite-int8",
        activations="int8",
        weights="int8",
        io_dtypes=("int8", "float32", "uint8"),
        promises=Promises(
            max_lsb=1,
            min_float_sqnr_db=30.0,
            max_top1_drop=0.015,
            min_sqnr_db=15.0,
            min_equal=0.9,
            min_pairwise_agreement=0.99,
            max_latency_ratio=1.0,
        ),
        dtypes=("int8", "int16", "float32"),
        forms=frozenset(("center_matmul_operands", "widen_depthwise")),
        doc="Static int8 in the forms a CPU runs fastest.",
    ),
    _tflite(
        "tflite-int16x8",
        activations="int16",
        weights="int8",
        io_dtypes=("int16", "float32"),
        promises=Promises(
            max_lsb=1, min_float_sqnr_db=15.0, max_top1_drop=0.015, min_sqnr_db=15.0, min_equal=0.9
        ),
        dtypes=("int16", "float32"),
        doc="int16 activations on int8 weights: an accuracy fallback; nothing is delegated, so it is slow.",
    ),
    _tflite(
        "tflite-dynamic-int8",
        activations="float32",
        weights="int8",
        io_dtypes=("float32",),
        promises=Promises(
            max_lsb=1, min_float_sqnr_db=15.0, max_top1_drop=0.015, min_sqnr_db=15.0, min_equal=0.9
        ),
        doc="int8 convolution and linear weights, float activations and depthwise: no calibration needed.",
    ),
)
