"""The trained forward is the simulation, and what is lowered from it is what the runtime computes."""

import copy
import sys
from dataclasses import replace

import pytest
import torch
from qat_nets import NETS, float_graph, images, quantized

from edgekit.errors import QuantizationError
from edgekit.graph.ir import QuantParams
from edgekit.graph.run import run
from edgekit.lower.tflite import lower, prepare
from edgekit.qat.module import QuantizedModule, _Pass, biases, held, weight_scales
from edgekit.qat.straight_through import to_codes
from edgekit.quantize import annotate, simulate
from edgekit.quantize.choices import Choices
from edgekit.targets import get_target
from edgekit.verify.fidelity import fidelity, probe_values

TARGET = get_target("tflite-int8")


def answers(module, x):
    given = module(x)
    return given if isinstance(given, list) else [given]


def taught(name, steps=6, rate=0.01, **settings):
    """A module after a few steps in which weights, biases and scales all move."""
    module = QuantizedModule(quantized(name, **settings))
    optimizer = torch.optim.Adam([p for p in module.parameters() if p.requires_grad], lr=rate)
    for seed in range(steps):
        optimizer.zero_grad()
        sum((y - 0.7).square().mean() for y in answers(module, images(4, 50 + seed))).backward()
        optimizer.step()
    return module


@pytest.mark.parametrize("name", NETS)
def test_forward_is_the_simulation(name):
    graph = quantized(name)
    module = QuantizedModule(graph)
    x = images(5, 9)
    with torch.no_grad():
        assert all(map(torch.equal, answers(module, x), simulate(graph, x)))


@pytest.mark.parametrize("name", NETS)
def test_after_training_too_and_the_file_computes_it(name):
    module = taught(name)
    graph, x = module.to_graph(), images(3, 9)
    with torch.no_grad():
        assert all(map(torch.equal, answers(module, x), simulate(graph, x)))
    prepared = prepare(graph, TARGET)
    shipped = lower(prepared, TARGET)
    probe = lower(prepared, TARGET, outputs_also=probe_values(prepared))
    found = fidelity(prepared, probe, x.numpy(), shipped.data)
    inexact = {"conv_transpose2d", "matmul", "resize_bilinear", "layer_norm", "softmax"}
    assert found.probe_agrees and not found.unexpected()
    assert all(row["max_lsb"] == 0 or op in inexact for op, row in found.by_op.items()), found.by_op


@pytest.mark.parametrize("name", NETS)
def test_everything_learns_but_what_is_dictated(name):
    module = QuantizedModule(quantized(name))
    sum(y.square().sum() for y in answers(module, images(4, 3))).backward()
    for path in (
        *weight_scales(module),
        *weight_scales(module).values(),
        *biases(module),
        module.scales_path,
    ):
        grad = held(module, path).grad
        assert grad is not None and bool(torch.isfinite(grad).all()) and bool(grad.abs().sum() > 0), path
    before, after = quantized(name), taught(name).to_graph()
    moved = {v.name for v, w in zip(before.values(), after.values(), strict=True) if v.quant != w.quant}
    assert before.inputs[0].name not in moved and len(moved) > len(weight_scales(module))
    fixed = {n.output.name for n in before.nodes if n.op in ("hardsigmoid", "sigmoid", "softmax")}
    assert not fixed & moved


def test_gradients_are_those_of_the_float_graph_up_to_noise():
    graph = quantized("convolutions")
    module, x = QuantizedModule(graph), images(8, 4)
    module(x).sum().backward()
    plain = graph.copy()
    for value in plain.constants():
        value.data = value.data.clone().requires_grad_(value.data.is_floating_point())
    run(plain, [x])[0].sum().backward()
    wanted = {value.name: value.data.grad for value in plain.constants()}
    for path in weight_scales(module):
        got = held(module, path).grad
        assert torch.nn.functional.cosine_similarity(got.flatten(), wanted[path].flatten(), 0) > 0.9, path


def test_a_scale_learns_from_rounding_inside_and_from_the_code_outside():
    """LSQ: d(scale * code) / d scale is code - x / scale inside, the code it is clamped to outside."""
    x = torch.tensor([0.26, -0.4, 3.0, -9.0], requires_grad=True)
    scale = torch.tensor(0.1, requires_grad=True)
    codes = to_codes(x, scale, -20.0, 25.0, divides=True)
    (codes * scale).backward(torch.tensor([1.0, 10.0, 100.0, 1000.0]))
    wanted = (3 - 2.6) + 10 * (-4 + 4) + 100 * 25 + 1000 * -20
    assert codes.tolist() == [3.0, -4.0, 25.0, -20.0]
    assert scale.grad.item() == pytest.approx(wanted, rel=1e-5)
    assert x.grad.tolist() == pytest.approx([1.0, 10.0, 0.0, 0.0])


def test_relu6_stays_six_whatever_its_scale():
    """A bound that moves with the scale: six is six, so no gradient pulls the scale there."""
    graph = quantized("convolutions")
    value = next(n.output for n in graph.nodes if n.attrs.get("activation") == "relu6")
    value.quant = QuantParams((0.03,), (-128,))
    module = QuantizedModule(graph)
    bounds = _Pass(module).bounds(next(v for v in module._graph.values() if v.name == value.name), "relu6")
    assert bounds[0] == 0.0 and float(bounds[1].detach()) == 200.0
    (gradient,) = torch.autograd.grad(bounds[1], held(module, module.scales_path))
    assert gradient.abs().max().item() == pytest.approx(6 / 0.03)


def test_two_integer_types_meet_as_in_the_file():
    graph = quantized("convolutions")
    chosen = {n.output: "int16" for n in graph.nodes if n.op == "add"}
    annotate(graph, choices=Choices(dtypes=chosen))
    module, x = QuantizedModule(graph), images(3, 2)
    with torch.no_grad():
        assert torch.equal(module(x), simulate(graph, x)[0])
    module(x).square().sum().backward()
    assert bool(held(module, module.scales_path).grad.abs().sum() > 0)
    assert torch.equal(simulate(module.to_graph(), x)[0], simulate(graph, x)[0])


def test_image_by_image_where_the_batch_is_baked_in():
    graph = replace(quantized("joins"), batchable=False)
    x = images(3, 2)
    with torch.no_grad():
        assert all(map(torch.equal, answers(QuantizedModule(graph), x), simulate(graph, x)))


def test_what_is_told_is_real_and_what_is_given_back_is_read():
    module, seen = QuantizedModule(quantized("convolutions")), {}
    x = images(2, 5)

    def see(name, tensor):
        seen[name] = tensor
        return tensor.detach() if "add" in name else tensor

    with torch.no_grad():
        (given,) = module.watched((x,), see)
        assert torch.equal(given, module(x))
    assert (seen[module._graph.inputs[0].name] - x).abs().max() < 0.05


def test_nothing_quantized_is_refused():
    with pytest.raises(QuantizationError, match="nothing of it is quantized"):
        QuantizedModule(float_graph("joins"))


def test_copies_and_states_are_whole():
    module = taught("convolutions")
    other = QuantizedModule(quantized("convolutions"))
    other.load_state_dict(module.state_dict())
    x = images(2, 5)
    with torch.no_grad():
        assert torch.equal(other(x), module(x)) and torch.equal(copy.deepcopy(module)(x), module(x))
    assert not torch.equal(QuantizedModule(quantized("convolutions"))(x), module(x))


def test_shared_parameters_stay_shared():
    graph = taught("joins").to_graph()
    for node in graph.nodes:
        if node.op in ("max_pool2d", "concat"):
            before = next(n for n in quantized("joins").nodes if n.output.name == node.output.name)
            for old, new in zip(before.operands, node.operands, strict=True):
                assert (old.quant == before.output.quant) == (new.quant == node.output.quant)


def test_what_the_simulation_computes_on_codes_is_trained_on_codes():
    assert set(sys.modules["edgekit.qat.module"]._EXACT) == set(
        sys.modules["edgekit.quantize.simulate"]._EXACT
    )


def test_frozen_weight_scales_leave_the_other_gradients_as_they_are():
    module, x = QuantizedModule(quantized("convolutions")), images(4, 3)
    (module(x) - 0.3).square().sum().backward()
    wanted = {name: p.grad.clone() for name, p in module.named_parameters()}
    module.zero_grad()
    for path in weight_scales(module).values():
        held(module, path).requires_grad_(False)
    (module(x) - 0.3).square().sum().backward()
    for name, parameter in module.named_parameters():
        if name not in weight_scales(module).values():
            assert torch.allclose(parameter.grad, wanted[name], rtol=1e-3, atol=1e-4), name
