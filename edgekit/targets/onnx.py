"""Targets whose artifact is an .onnx file: for ONNX Runtime on CPUs, and for TensorRT to compile.

ONNX Runtime is fastest with some operators in float and reorders tensors on its own: int8 is promised for
most MACs and for every operator that the file quantizes. TensorRT fuses and places operators on the GPU it
compiles for, which is not here: nothing is promised of that.
"""

from __future__ import annotations

from functools import partial

from edgekit.targets.promises import Promises
from edgekit.targets.target import Target
from edgekit.targets.words import Loading, Words

WORDS = Words(
    runtime="ONNX Runtime",
    package="onnxruntime",
    seen="Read back from the graph that ONNX Runtime executes, not from what was meant.",
    left="in float where the file asks for int8",
    slow="In float",
    taker="ONNX Runtime's integer kernels",
    parts="session parts",
    layout="layout changes",
    gentler="onnx-float32",
    loading=Loading(
        "python",
        (
            "import onnxruntime",
            "",
            "session = onnxruntime.InferenceSession({path})",
            "outputs = session.run(None, {{{input}: image}})",
        ),
    ),
)
TENSORRT_WORDS = Words(
    runtime="TensorRT",
    package="tensorrt",
    seen="Read from the written file and from ONNX Runtime, which ran it here; which kernels TensorRT picks "
    "is known only on the GPU.",
    left="in float where the file asks for int8",
    slow="In float",
    taker="the integer kernels",
    parts="engine parts",
    layout="layout changes",
    gentler="onnx-float32",
    loading=Loading("sh", ("trtexec --onnx={file} --int8 --saveEngine=model.engine",)),
    elsewhere="TensorRT did not run here: the file was checked by its structure and through ONNX Runtime. "
    "Time it, and compare its answers, on the GPU you ship to.",
    untimed="for TensorRT on an NVIDIA GPU; not timed on this host",
)

FORMS = frozenset(  # what ONNX Runtime's CPU kernels gain by
    (
        "unsigned",
        "padded_image",
        "end_at_six",
        "fold_shuffle",
        "place_for_onnxruntime",
        "widen_depthwise",
        "expand_gates",
        "round_biases",
    )
)

_onnx = partial(Target, format="onnx", baseline="onnx-float32", open_batch=True)

ONNX_TARGETS = (
    _onnx(
        "onnx-float32",
        family="onnx",
        activations="float32",
        weights="float32",
        io_dtypes=("float32",),
        runtime="onnxruntime",
        words=WORDS,
        promises=Promises(
            max_lsb=1, min_float_sqnr_db=80.0, max_top1_drop=0.015, min_sqnr_db=15.0, min_equal=0.9
        ),
        forms=frozenset(("fold_shuffle",)),
        doc="The reference: same numbers as PyTorch up to float rounding.",
    ),
    _onnx(
        "onnx-int8",
        family="onnx",
        activations="int8",
        weights="int8",
        io_dtypes=("float32", "uint8"),
        runtime="onnxruntime",
        words=WORDS,
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
        dtypes=("int8", "float32"),
        forms=FORMS,
        alignment=16,
        doc="Static int8 as QDQ, placed where ONNX Runtime's CPU kernels gain by it.",
    ),
    _onnx(
        "tensorrt-int8",
        family="tensorrt",
        activations="int8",
        weights="int8",
        io_dtypes=("float32",),
        runtime="tensorrt",
        words=TENSORRT_WORDS,
        promises=Promises(
            max_lsb=1,
            min_float_sqnr_db=30.0,
            max_top1_drop=0.015,
            min_sqnr_db=15.0,
            min_equal=0.9,
            max_latency_ratio=1.0,
        ),
        mixed=True,
        dtypes=("int8", "float32"),
        forms=frozenset(("symmetric", "float_bias", "place_for_tensorrt")),
        doc="Symmetric int8 as QDQ by TensorRT's explicit rules, for a Jetson to compile.",
    ),
)
