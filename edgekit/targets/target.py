"""The description of one target. Which ops it takes is not listed here: the lowering table of its format
says.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from edgekit.targets.promises import Promises
from edgekit.targets.words import Words

OWN = "edgekit"  # the quantizer


@dataclass(frozen=True)
class Target:
    """What a runtime is given, what it accelerates and what is promised of it.

    format: the file format, which names the package under `edgekit.lower` ("tflite").
    family: whose files these are, the first part of the name ("tensorrt"); formats are shared by families.
    activations: "float32", "int8" or "int16"; int16 is symmetric.
    weights: "float32", "float16" or "int8" (per output channel, symmetric).
    io_dtypes: what the file's inputs and outputs may be; the first is the default.
    runtime: what proves the file: its entry in `edgekit.runtimes`.
    baseline: the float target whose latency and size this one's are held against.
    dtypes: what a value that is computed with may be; without "float32" for integer accelerators.
    forms: what its lowering does for it alone: names of preparation passes (`lowered.Form`), and of ways to
        store: "unsigned" activations, "symmetric" ones, "float_bias", "padded_image" (channels of a picture
        in fours).
    alignment: channel counts that the kernels take whole are multiples of it: depthwise convolutions are
        filled up to it where that pays, and pruning keeps to it.
    mixed: whether its lowering leaves operators in float where the runtime gains by it, so that biases are
        fitted after placement.
    quantizers: who may choose its integers, edgekit first.
    open_batch: whether a file may leave its batch open.
    min_runtime: the oldest version of the runtime that has to run the file ("2.9"); empty: a present one.
    promises: the thresholds of the gates where a recipe asks nothing else.
    """

    name: str
    format: str
    family: str
    activations: str
    weights: str
    io_dtypes: tuple[str, ...]
    runtime: str
    baseline: str
    words: Words = field(repr=False)  # repr is what an artifact depends on
    promises: Promises = field(default=Promises(), repr=False)
    dtypes: tuple[str, ...] = ("float32",)
    forms: frozenset[str] = frozenset()
    alignment: int = 8
    mixed: bool = False
    quantizers: tuple[str, ...] = (OWN,)
    open_batch: bool = False
    min_runtime: str = ""
    doc: str = field(default="", repr=False)

    @property
    def quantized(self) -> bool:
        """Whether activations carry integers, so that calibration is needed."""
        return self.activations != "float32"

    @property
    def integer_only(self) -> bool:
        """Whether it has no float arithmetic to fall back on."""
        return "float32" not in self.dtypes

    @property
    def precision(self) -> str:
        """The type that decides its size or speed: the activations', of a float target the weights'."""
        return self.activations if self.quantized else self.weights

    @property
    def variant(self) -> str:
        """The name without the family: 'dynamic-int8' of 'tflite-dynamic-int8'."""
        return self.name.removeprefix(f"{self.family}-") if "-" in self.name else self.precision
