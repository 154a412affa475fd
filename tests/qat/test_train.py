"""Training of quantized graphs: better on images it did not see, or given back; exact after a kill."""

import pytest
import torch
from qat_nets import float_graph, images, quantized

from edgekit.errors import TrainError
from edgekit.graph.ir import QuantParams
from edgekit.qat.judge import by_answers, by_labels, flat, float_answers, simulated_answers
from edgekit.qat.module import QuantizedModule, held
from edgekit.qat.optimizer import AdamInUnits
from edgekit.qat.train import Light, Rates, full, in_units, light
from edgekit.qat.waists import factors, waists
from edgekit.quantize import simulate
from edgekit.train import Settings, tensor_data, train

HELD = images(32, 77)


def clipped(name="convolutions"):
    """A graph whose ranges are too narrow: something to win back."""
    graph = quantized(name)
    for node in graph.nodes:
        quant = node.output.quant
        if node.op == "conv2d" and node.attrs.get("activation") is None and quant is not None:
            node.output.quant = QuantParams((quant.scale[0] * 0.5,), quant.zero_point, quant.dtype)
    return graph


def test_light_wins_back_what_clipping_lost():
    graph, plain = clipped(), float_graph("convolutions")
    before = simulate(graph, HELD)[0]
    told = Light(steps=40, rates=Rates(0.02, 0.02, 0.02), batch=8)
    found = light(graph, plain, tensor_data(images(48, 5)), HELD, told)
    assert found.judgement.accepted and found.judgement.gain > 1.0
    assert found.judgement.after["pooled_db"] > found.judgement.before["pooled_db"] + 1.0
    assert torch.equal(simulate(graph, HELD)[0], before)  # the given graph is as it was
    assert not torch.equal(simulate(found.graph, HELD)[0], before)


def test_what_does_not_gain_is_given_back():
    graph, plain = quantized("convolutions"), float_graph("convolutions")
    found = light(graph, plain, tensor_data(images(8, 5)), HELD, Light(steps=4, rates=Rates(3.0, 3.0, 0.5)))
    assert not found.judgement.accepted and found.graph is graph


@pytest.mark.parametrize("name", ["joins", "tokens"])
def test_networks_of_other_kinds_learn(name):
    told = Light(steps=3, batch=4)
    found = light(quantized(name), float_graph(name), tensor_data(images(8, 5)), HELD[:8], told)
    assert found.record.steps == 3 and found.judgement.images == 8


def test_a_killed_training_ends_with_the_same_bytes(tmp_path):
    graph, plain, data = quantized("convolutions"), float_graph("convolutions"), tensor_data(images(16, 5))
    told = Light(steps=6, batch=4)
    whole = light(graph, plain, data, HELD, told)

    class Killed(Exception):
        pass

    def stop(done, total):
        if done >= 4:
            raise Killed

    settings = told.settings(checkpoint_seconds=1e-9)
    object.__setattr__(told, "settings", lambda: settings)
    with pytest.raises(Killed):
        light(graph, plain, data, HELD, told, directory=tmp_path, progress=stop)
    again = light(graph, plain, data, HELD, told, directory=tmp_path)
    assert again.record.weights == whole.record.weights
    with pytest.raises(TrainError, match="another training"):
        light(graph, plain, tensor_data(images(16, 6)), HELD, told, directory=tmp_path)


def test_full_learns_labels_and_is_judged_by_them():
    graph, plain = quantized("convolutions"), float_graph("convolutions")
    x, y = images(64, 5), (images(64, 5).mean((1, 2, 3)) > 0).long()
    held_labels = (HELD.mean((1, 2, 3)) > 0).long()
    settings = Settings(steps=80, batch=16, ema=5, weight_decay=0.0)
    rates = Rates(0.2, 0.2, 0.01, 0.01, 0.02)

    def learn(module, optimizers):
        return train(module, tensor_data(x, y), settings, optimizers=optimizers)

    found = full(graph, plain, learn, HELD, held_labels, rates=rates)
    assert found.record.steps == 80
    assert found.judgement.by == "labels" and found.judgement.accepted
    assert found.judgement.after["log_likelihood"] > found.judgement.before["log_likelihood"] + 0.1


def test_scales_learn_in_an_optimizer_of_their_own():
    module = QuantizedModule(quantized("convolutions"))
    first, second = in_units(Rates(0.1, 0.1, 0.01, 0.01))(module)
    assert any(p is held(module, module.scales_path) for p in second.param_groups[0]["params"])
    assert not {id(p) for g in first.param_groups for p in g["params"]} & {
        id(p) for g in second.param_groups for p in g["params"]
    }
    assert len(in_units(Rates(0.1, 0.1, 0.0))(module)) == 1


def test_an_update_is_a_share_of_the_unit():
    weight = torch.nn.Parameter(torch.zeros(2))
    optimizer = AdamInUnits([{"params": [weight]}], {weight: torch.tensor([1.0, 100.0])})
    optimizer.param_groups[0]["lr"] = 0.01
    for _ in range(3):
        weight.grad = torch.tensor([1.0, 1e-3])
        optimizer.step()
    assert weight.tolist() == pytest.approx([-0.03, -3.0], rel=1e-4)


def test_a_weight_that_oscillates_is_set_to_where_it_was_most():
    weight = torch.nn.Parameter(torch.tensor([1.49, 7.2]))
    group = {"params": [weight], "freezes": 0.1}
    optimizer = AdamInUnits([group], {}, {weight: lambda: torch.ones(2)}, betas=(0.0, 0.99))
    optimizer.param_groups[0]["lr"] = 0.05
    for _ in range(60):
        sign = 1.0 if float(weight[0].detach()) >= 1.5 else -1.0  # always towards the edge
        weight.grad = torch.tensor([sign, 0.0])
        optimizer.step()
    assert float(weight[0].detach()) in (1.0, 2.0) and float(weight[1].detach()) == pytest.approx(7.2)


def test_acceptance_needs_a_gain_above_its_error_and_no_pooled_loss():
    wanted = torch.randn(64, 5, generator=torch.Generator().manual_seed(0))
    noise = torch.randn(64, 5, generator=torch.Generator().manual_seed(1)) * 0.1
    assert by_answers(wanted, wanted + noise, wanted + 0.8 * noise).accepted
    assert not by_answers(wanted, wanted + noise, wanted + noise).accepted
    worse = noise * 0.8
    worse[0] *= 100  # one strange image: the mean gains, the pooled figure loses
    found = by_answers(wanted, wanted + noise, wanted + worse)
    assert found.gain > found.error and not found.accepted
    labels = wanted.argmax(1)
    assert by_labels(labels, wanted, 2 * wanted).accepted
    assert not by_labels(labels, wanted, -wanted).accepted


def test_waists_are_where_nothing_else_is_alive():
    graph = quantized("convolutions")
    found = waists(graph, most=100)
    ops = {node.output.name: node.op for node in graph.nodes}
    assert {"add", "mean"} <= {ops[name] for name in found} and "mul" not in {ops[name] for name in found}
    assert graph.outputs[0].name not in found and len(waists(graph, most=2)) == 2


def test_factors_undo_equalization():
    wanted = torch.randn(4, 3, 5, 5)
    scale = torch.tensor([0.5, 2.0, 8.0])
    assert torch.allclose(factors(wanted, wanted * scale.view(1, 3, 1, 1)).flatten(), scale)
    tokens = torch.randn(4, 7, 3)
    assert torch.allclose(factors(tokens, tokens * scale).flatten(), scale)


def test_answers_are_by_image():
    graph = quantized("joins")
    rows = flat(simulated_answers(graph, HELD[:3]))
    assert rows.shape[0] == 3 and torch.equal(rows[1:2], flat(simulated_answers(graph, HELD[1:2])))
    assert flat(float_answers(float_graph("joins"), HELD[:3])).shape == rows.shape
