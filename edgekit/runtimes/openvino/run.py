"""OpenVINO on this machine, CPU: open an .xml with its .bin, run images through it, read its tensors.

The precision is always stated: where the CPU has bfloat16 it is OpenVINO's default, and float32 figures would
not be float32. Threads are not pinned to cores, so that several runtimes can share a process.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from edgekit.errors import ArtifactError, UsageError
from edgekit.runtimes.sources import ModelFile, Slot


def settings(threads: int = 1) -> dict[str, Any]:
    """What the runtime is told besides the file: the properties of compile_model."""
    return {
        "INFERENCE_PRECISION_HINT": "f32",
        "ENABLE_CPU_PINNING": False,
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": threads,
    }


def read_network(file: ModelFile) -> Any:
    """The ov.Model of a file.

    Raises: ArtifactError for a damaged file, UsageError when OpenVINO is not installed.
    """
    core = _core(file)
    try:
        return core.read_model(model=file.data, weights=file.weights)
    except RuntimeError as error:
        raise ArtifactError(
            f"{file.where}: OpenVINO refuses it ({_line(error)}): a complete .xml with its .bin"
        ) from error


def compile_network(file: ModelFile, model: Any, threads: int = 1, **properties: Any) -> Any:
    """The compiled model on the CPU plugin with `settings`, and further properties as they are."""
    try:
        return _core(file).compile_model(model, "CPU", settings(threads) | properties)
    except RuntimeError as error:
        raise ArtifactError(
            f"{file.where}: OpenVINO cannot compile it ({_line(error)}): a file this runtime can run"
        ) from error


class Runner:
    """One compiled model that images go through; arrays are float, in the file's order and layout."""

    def __init__(self, file: ModelFile, threads: int = 1) -> None:
        self.model = read_network(file)
        self._start(file, self.model, threads)

    def _start(self, file: ModelFile, model: Any, threads: int) -> None:
        self.compiled = compile_network(file, model, threads)
        self.request = self.compiled.create_infer_request()
        self.dtypes = [np.dtype(entry.get_element_type().to_dtype()) for entry in self.compiled.inputs]
        self.inputs = list(map(_slot, self.model.inputs))
        self.outputs = list(map(_slot, self.model.outputs))
        for dtype in self.dtypes:
            if dtype.kind != "f":
                raise ArtifactError(f"{file.where}: the input is {dtype}: a float input is needed")

    def raw(self, arrays: Sequence[np.ndarray]) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """The input tensors as the model takes them, the outputs as it gives them."""
        taken = [np.ascontiguousarray(a, dtype) for a, dtype in zip(arrays, self.dtypes, strict=True)]
        self.request.infer(taken)
        return taken, [tensor.data.copy() for tensor in self.request.output_tensors]

    def real(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The outputs as float32; integers stay what they are."""
        return [a.astype(np.float32) if a.dtype.kind == "f" else a for a in self.raw(arrays)[1]]


class _Probe(Runner):
    """The same model with inner values as further outputs."""

    def __init__(self, file: ModelFile, names: Sequence[str]) -> None:
        self.model = read_network(file)
        held = _held_as(self.model, names)
        self.model.add_outputs(list({_key(output): output for output in held.values()}.values()))
        results = [port.get_node().input_value(0) for port in self.model.outputs]
        order = {_key(output): i for i, output in enumerate(results)}
        self.places = {name: order[_key(output)] for name, output in held.items()}
        self._start(file, self.model, 1)


def read_values(
    file: ModelFile, names: Sequence[str], rows: Iterable[Sequence[np.ndarray]]
) -> dict[str, np.ndarray]:
    """Inner values by tensor or operator name over rows of inputs: float32 (N, *the shape in the file).

    A value that the file quantizes is read behind its FakeQuantize.
    """
    probe = _Probe(file, names)
    found: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for arrays in rows:
        given = probe.real(arrays)
        for name, place in probe.places.items():
            found[name].append(given[place])
    return {name: np.stack(values) for name, values in found.items()}


def _slot(entry: Any) -> Slot:
    """By the tensor's names; by the operator's, where the file gives the tensor none."""
    names = sorted(entry.get_names()) or [entry.get_node().get_friendly_name()]
    shape = tuple(-1 if d.is_dynamic else d.get_length() for d in entry.get_partial_shape())
    return Slot(names[0], shape, tuple(names[1:]))


def _held_as(model: Any, names: Sequence[str]) -> dict[str, Any]:
    """For each name, the output to read: its FakeQuantize's where there is one."""
    by_name: dict[str, Any] = {}
    for node in model.get_ordered_ops():
        if node.get_type_name() in ("Result", "Constant"):
            continue
        for output in node.outputs():
            for name in output.get_names():
                by_name.setdefault(name, output)
        by_name.setdefault(node.get_friendly_name(), node.output(0))
    missing = [name for name in names if name not in by_name]
    if missing:
        raise ArtifactError(f"the .xml: no operator writes {missing[0]!r}: a tensor of the file")
    return {name: _quantized(by_name[name]) for name in names}


def _quantized(output: Any) -> Any:
    for reader in output.get_target_inputs():
        if reader.get_node().get_type_name() == "FakeQuantize" and reader.get_index() == 0:
            return reader.get_node().output(0)
    return output


def _key(output: Any) -> tuple[str, int]:
    return output.get_node().get_friendly_name(), output.get_index()


def _core(file: ModelFile) -> Any:
    try:
        import openvino
    except ImportError as error:
        raise UsageError(
            f"{file.where}: OpenVINO is not installed: pip install 'edgekit[openvino]'"
        ) from error
    return openvino.Core()


def _line(error: Exception) -> str:
    """The last, telling line of a C++ exception's trace."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith("Exception from")]
    return " ".join(told or lines)[:300]


def version() -> str:
    from importlib.metadata import version

    return f"openvino {version('openvino')}"
