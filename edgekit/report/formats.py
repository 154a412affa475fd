"""File formats in words: which runtime runs a target, and how its files are loaded. A target's name goes in.

Targets are named 'format-precision' ('openvino-int8'); a SavedModel, always float32, has no precision there.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

FLOAT = ("float32", "float16")
_SPOKEN = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO", "ai-edge-litert": "LiteRT"}
_PRECISION = {"savedmodel": "float32"}


@dataclass(frozen=True)
class Format:
    """`delegates`: whether its runtime hands partitions to a delegate. `seen`: where its operators were read.

    `left`: what an operator is that the runtime did not take over as the file asks.
    """

    runtime: str
    seen: str
    left: str
    delegates: bool = False
    signatures: bool = False


_LEFT = "in float where the file asks for int8"
FORMATS = {
    "tflite": Format(
        "LiteRT",
        "Read back from the written file and from the runtime, not from what was meant.",
        "outside the delegate",
        delegates=True,
        signatures=True,
    ),
    "onnx": Format(
        "ONNX Runtime", "Read back from the graph that ONNX Runtime executes, not from what was meant.", _LEFT
    ),
    "openvino": Format(
        "OpenVINO", "Read back from the graph that OpenVINO executes, not from what was meant.", _LEFT
    ),
    "tensorrt": Format(
        "TensorRT",
        "Read from the written file and from ONNX Runtime, which ran it here; which kernels TensorRT picks "
        "is known only on the GPU.",
        _LEFT,
    ),
    "savedmodel": Format(
        "TensorFlow", "Read back from the written file, not from what was meant.", _LEFT, signatures=True
    ),
}


def family(target: str) -> str:
    """'onnx' of 'onnx-int8'."""
    return target.split("-", 1)[0]


def precision(target: str) -> str:
    """'int8' of 'onnx-int8'; 'float32' of 'savedmodel'."""
    return _PRECISION.get(target, target.split("-", 1)[-1])


def of(target: str) -> Format:
    """The format of a target; one that is not known is taken for a .tflite file."""
    return FORMATS.get(family(target), FORMATS["tflite"])


def float_twin(target: str) -> str:
    """The float target whose file holds the same model in the same format."""
    kind = {"tensorrt": "onnx"}.get(family(target), family(target))
    return kind if kind == "savedmodel" else f"{kind}-float32"


def runtime_name(text: str) -> str:
    """'ONNX Runtime 1.31.1' for 'onnxruntime 1.31.1'."""
    first, _, rest = text.partition(" ")
    return f"{_SPOKEN.get(first.lower(), first)} {rest}".strip()


def setting(value: Any) -> str:
    """What a runtime was told, as a word."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def untimed(target: str, others_timed: bool) -> str:
    """Why there is no latency."""
    if family(target) == "tensorrt":
        return "for TensorRT on an NVIDIA GPU; not timed on this host"
    return "this target was not timed" if others_timed else "the latency stage did not run"


def load(target: str, file: str, signature: str, tensor: str) -> tuple[str, list[str]]:
    """How a model is loaded: the language of the lines, and the lines.

    Args:
        file: name of the model in its bundle; a SavedModel is loaded by its folder.
        signature, tensor: names of the signature and of the input tensor in the file.
    """
    given, path = json.dumps(tensor), json.dumps(file)
    match family(target):
        case "onnx":
            return "python", [
                "import onnxruntime",
                "",
                f"session = onnxruntime.InferenceSession({path})",
                f"outputs = session.run(None, {{{given}: image}})",
            ]
        case "openvino":
            return "python", [
                "import openvino",
                "",
                f'model = openvino.Core().compile_model({path}, "CPU")',
                "outputs = model([image])",
            ]
        case "tensorrt":
            return "sh", [f"trtexec --onnx={file} --int8 --saveEngine=model.engine"]
        case "savedmodel":
            at = PurePosixPath(file)
            folder = str(at.parent if at.name == "saved_model.pb" else at)
            return "python", [
                "import tensorflow as tf",
                "",
                f"model = tf.saved_model.load({json.dumps(folder)})",
                f"outputs = model.signatures[{json.dumps(signature)}](**{{{given}: tf.constant(image)}})",
            ]
    return "python", [
        "from ai_edge_litert.interpreter import Interpreter",
        "",
        f"run = Interpreter(model_path={path}).get_signature_runner({json.dumps(signature)})",
        f"outputs = run(**{{{given}: image}})",
    ]
