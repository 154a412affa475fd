"""The description of one target. Which ops it takes is not listed here: the lowering table of its format
says.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """What a runtime is given and what it accelerates.

    format: the file format, which names the package under `edgekit.lower` ("tflite").
    activations: "float32", "int8" or "int16"; int16 is symmetric.
    weights: "float32", "float16" or "int8" (per output channel, symmetric).
    activation_form: "table" takes the forms a CPU delegate folds into one lookup (a float operator between
        DEQUANTIZE and QUANTIZE); "integer" is for accelerators that know integer operators only.
    io_dtypes: what the file's inputs and outputs may be; the first is the default.
    runtime: what runs the file: "litert", "onnxruntime", "openvino", "tensorrt" or "tensorflow".
    baseline: the float target whose latency this one's is held against.
    channel_multiple: channel counts the kernels prefer; a hint for the pruner.
    """

    name: str
    format: str
    activations: str
    weights: str
    activation_form: str
    io_dtypes: tuple[str, ...]
    runtime: str = "litert"
    baseline: str = "tflite-float32"
    channel_multiple: int = 8
    doc: str = ""

    @property
    def quantized(self) -> bool:
        """Whether activations carry integers, so that calibration is needed."""
        return self.activations != "float32"
