"""Fused units: the same from a graph and from its file, and as files of their own with the same answers."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from cost.networks import built, small
from torch import nn

from edgekit.capture import capture
from edgekit.cost.shapes import operators_of
from edgekit.cost.units import Unit, units_of
from edgekit.cost.widths import narrower, scaled
from edgekit.errors import ArtifactError, UnsupportedError
from edgekit.graph.ir import QuantParams
from edgekit.lower.tflite.copies import reference, side_by_side
from edgekit.lower.tflite.reader import read_model
from edgekit.lower.tflite.unpack import unpack
from edgekit.runtimes.litert.run import open_interpreter
from edgekit.targets import get_target

TARGETS = ("tflite-int8", "tflite-float32", "tflite-float16", "tflite-dynamic-int8", "tflite-int16x8")


def graph_units(graph, target="tflite-int8") -> list[Unit]:
    operators, signature, _ = operators_of(graph, get_target(target))
    return units_of(operators, signature)


def file_units(data: bytes) -> list[Unit]:
    return units_of(*unpack(data))


@pytest.mark.parametrize("target", TARGETS)
def test_units_of_a_graph_are_those_of_its_file(target: str) -> None:
    graph = small()
    from_graph, from_file = graph_units(graph, target), file_units(built(graph, target).data)
    assert [unit.key for unit in from_graph] == [unit.key for unit in from_file]
    assert [(unit.kind, unit.sizes) for unit in from_graph] == [(u.kind, u.sizes) for u in from_file]


def test_asking_leaves_the_graph_alone() -> None:
    graph = small()
    before, weights = str(graph), [value.data.clone() for value in graph.constants()]
    graph_units(graph)
    assert str(graph) == before
    assert all(torch.equal(a, b.data) for a, b in zip(weights, graph.constants(), strict=True))


@pytest.mark.parametrize("target", ["tflite-int8", "tflite-float32", "tflite-float16", "tflite-dynamic-int8"])
def test_every_operator_is_in_a_unit_and_its_unit_computes_what_the_whole_does(target: str) -> None:
    """Bit for bit: the unit's file fed with what the whole had at its inputs."""
    data = built(small(), target).data
    operators, signature = unpack(data)
    units = units_of(operators, signature)
    taken = Counter(id(op) for unit in units for op in unit.operators)
    assert set(taken) == {id(op) for op in operators}
    whole = open_interpreter(data, experimental_preserve_all_tensors=True, delegate=False)
    _fill(whole)
    whole.invoke()
    names = {detail["name"]: detail["index"] for detail in whole.get_tensor_details()}
    for unit in units:
        alone = open_interpreter(
            side_by_side(unit.operators, unit.inputs, unit.outputs, 1, seed=None, whole=True), delegate=False
        )
        for detail, tensor in zip(alone.get_input_details(), unit.inputs, strict=True):
            alone.set_tensor(detail["index"], whole.get_tensor(names[tensor.name]))
        alone.invoke()
        for detail, tensor in zip(alone.get_output_details(), unit.outputs, strict=True):
            found, wanted = alone.get_tensor(detail["index"]), whole.get_tensor(names[tensor.name])
            np.testing.assert_array_equal(found, wanted, unit.key)


def _fill(interpreter) -> None:
    rng = np.random.default_rng(0)
    for detail in interpreter.get_input_details():
        values = rng.integers(-128, 128, detail["shape"])
        if detail["dtype"] == np.float32:
            values = values / 128
        interpreter.set_tensor(detail["index"], values.astype(detail["dtype"]))


def test_what_fuses() -> None:
    units = graph_units(small())
    names = ["+".join(op.name for op in unit.operators) for unit in units]
    assert "PAD+CONV_2D" in names and "PAD+DEPTHWISE_CONV_2D" in names
    assert "DEQUANTIZE+HARD_SWISH+QUANTIZE" in names
    assert "DEQUANTIZE+LOGISTIC+QUANTIZE+MUL" in names  # SiLU
    assert [unit.kind for unit in units if "LOGISTIC" in unit.key] == ["gated table int8"]


def test_half_weights_belong_to_their_reader() -> None:
    units = graph_units(small(), "tflite-float16")
    assert all(unit.operators[-1].name != "DEQUANTIZE" for unit in units)
    assert any(op.name == "DEQUANTIZE" for unit in units for op in unit.operators)


def test_a_pad_that_two_read_is_a_unit_of_its_own() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3)

        def forward(self, x):
            x = nn.functional.pad(torch.relu(x), (1, 1, 1, 1))
            return self.a(x) * torch.sigmoid(self.b(x))

    operators, signature = unpack(built(capture(Two().eval(), torch.rand(1, 8, 6, 6)), "tflite-int8").data)
    pads = [op for op in operators if op.name == "PAD"]
    readers = {id(pad): sum(pad.outputs[0] in op.inputs for op in operators) for pad in pads}
    for unit in units_of(operators, signature):
        for op in unit.operators:
            if op.name == "PAD":
                assert (len(unit.operators) == 1) == (readers[id(op)] > 1)


def test_keys_tell_what_time_depends_on() -> None:
    def key(**settings) -> str:
        given = {"kernel_size": 3, "padding": 1, **settings}
        inner, outer = given.pop("inner", 8), given.pop("outer", 16)
        activation = given.pop("activation", nn.Identity())
        target = given.pop("target", "tflite-int8")
        net = nn.Sequential(nn.Conv2d(inner, outer, **given), activation).eval()
        (unit,) = graph_units(capture(net, torch.rand(1, inner, 12, 12)), target)
        return unit.key

    keys = [
        key(),
        key(stride=2),
        key(outer=24),
        key(inner=16),
        key(kernel_size=5, padding=2),
        key(dilation=2, padding=2),
        key(activation=nn.ReLU6()),
        key(groups=8),
        key(target="tflite-float32"),
    ]
    assert len(set(keys)) == len(keys)
    assert key() == keys[0]


def test_keys_do_not_tell_scales_names_or_weights() -> None:
    unit = next(unit for unit in graph_units(small()) if unit.kind.startswith("depthwise"))
    renamed = {
        t: replace(t, name=f"{t.name}/other") for op in unit.operators for t in (*op.inputs, *op.outputs)
    }
    for tensor in renamed.values():
        if tensor.quant is not None and tensor.data is None:
            tensor.quant = QuantParams((0.123,), (7,))
    other = [
        replace(op, inputs=[renamed[t] for t in op.inputs], outputs=[renamed[t] for t in op.outputs])
        for op in unit.operators
    ]
    ends = ([("x", renamed[unit.inputs[0]])], [("y", renamed[unit.outputs[0]])])
    (found,) = units_of(other, type(unpack(reference())[1])(*ends))
    assert found.key == unit.key


def test_copies_have_weights_of_their_own_and_end_in_one_element() -> None:
    unit = next(u for u in graph_units(small()) if u.kind.startswith("pointwise") and u.sizes["pixels"] > 1)
    graph = read_model(side_by_side(unit.operators, unit.inputs, unit.outputs, 3)).main
    weights = [graph.tensors[op.inputs[1]] for op in graph.operators if op.name == "CONV_2D"]
    assert len(weights) == 3
    assert len({weight.raw.tobytes() for weight in weights}) == 3
    assert len(graph.inputs) == 1
    assert [graph.tensors[i].elements for i in graph.outputs] == [1, 1, 1]


def test_the_reference_runs_in_the_delegate_and_never_changes() -> None:
    import hashlib

    interpreter = open_interpreter(reference())
    assert any(op["op_name"] == "DELEGATE" for op in interpreter._get_ops_details())
    weights = [
        t.raw.tobytes() for t in read_model(reference()).main.tensors if t.dtype == "int8" and t.is_constant
    ]
    assert hashlib.sha256(b"".join(weights)).hexdigest()[:16] == REFERENCE


REFERENCE = "d9edeca2b0d8b3f3"  # times in every table are held against it


def test_thinner_forms_are_the_units_of_thinner_layers() -> None:
    def only(net: nn.Module, channels: int) -> Unit:
        (unit,) = graph_units(capture(net.eval(), torch.rand(1, channels, 12, 12)))
        return unit

    thin = scaled(only(nn.Conv2d(16, 32, 3, 2, 1), 16), 0.5, 0.75)
    assert thin is not None and thin.key == only(nn.Conv2d(8, 24, 3, 2, 1), 8).key
    thin = scaled(only(nn.Conv2d(16, 16, 3, 1, 1, groups=16), 16), 0.3, 0.5)
    assert thin is not None and thin.key == only(nn.Conv2d(8, 8, 3, 1, 1, groups=8), 8).key
    assert scaled(only(nn.Conv2d(16, 16, 3, 1, 1, groups=4), 16), 0.5, 0.5) is None


def test_thinner_forms_run() -> None:
    for target in ("tflite-int8", "tflite-float32"):
        thin = narrower(graph_units(small(32), target), 2)
        assert thin and len({unit.key for unit in thin}) == len(thin)
        for unit in thin:
            interpreter = open_interpreter(side_by_side(unit.operators, unit.inputs, unit.outputs, 2))
            _fill(interpreter)
            interpreter.invoke()


def test_other_formats_and_damaged_files_are_refused_in_one_line() -> None:
    with pytest.raises(UnsupportedError, match=r"onnx-int8: .*\.tflite"):
        operators_of(small(), get_target("onnx-int8"))
    with pytest.raises(ArtifactError):
        unpack(built(small(), "tflite-int8").data[:500])
