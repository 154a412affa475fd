from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from graphs import Apply, captured, noise, ops, outputs, randomize
from torch import nn

from edgekit.capture import capture, import_program
from edgekit.errors import CaptureError
from edgekit.graph.module import as_module

X = noise(1, 4, 8, 8)
VECTOR = noise(4, 1, 1, seed=1)


def conv(**kwargs: Any) -> nn.Conv2d:
    return nn.Conv2d(4, 4, 3, padding=1, **kwargs)


def refusal(fn: Callable[..., Any], *inputs: torch.Tensor, **layers: nn.Module | torch.Tensor) -> str:
    with pytest.raises(CaptureError) as caught:
        captured(fn, *(inputs or (X,)), **layers)
    message = str(caught.value)
    assert message.startswith("[capture] ") and "\n" not in message
    return message


# one expression, the ops it becomes
EXPRESSIONS: dict[str, tuple[Callable[[Any, torch.Tensor], Any], list[str]]] = {
    "number first, sub": (lambda m, x: 3 - x, ["sub"]),
    "number first, div": (lambda m, x: 1 / (x.abs() + 1), ["abs", "add", "div", "mul"]),
    "number first, mul": (lambda m, x: 2 * x, ["mul"]),
    "number first, add": (lambda m, x: 2 + x, ["add"]),
    "rsub with a factor": (lambda m, x: torch.rsub(x, m.vector, alpha=2), ["mul", "sub"]),
    "add with a factor": (lambda m, x: torch.add(x, m.vector, alpha=3), ["add"]),
    "sub of two with a factor": (lambda m, x: torch.sub(x, x.relu(), alpha=3), ["relu", "mul", "sub"]),
    "square": (lambda m, x: x**2, ["mul"]),
    "cube": (lambda m, x: x**3, ["pow"]),
    "root": (lambda m, x: x.abs() ** 0.5, ["abs", "pow"]),
    "hardtanh": (lambda m, x: F.hardtanh(x), ["clamp"]),
    "hardtanh 0..6": (lambda m, x: F.hardtanh(x, 0, 6), ["relu6"]),
    "hardtanh -2..3": (lambda m, x: F.hardtanh(x, -2, 3), ["clamp"]),
    "clamp 0..6": (lambda m, x: (x * 9).clamp(0, 6), ["mul", "relu6"]),
    "clamp 0..": (lambda m, x: x.clamp(min=0), ["relu"]),
    "clamp ..1": (lambda m, x: x.clamp(max=1), ["clamp"]),
    "clamp_min": (lambda m, x: x.clamp_min(0.1), ["clamp"]),
    "clamp_max": (lambda m, x: x.clamp_max(0.1), ["clamp"]),
    "casts to the same type": (lambda m, x: x.float().to(torch.float32).type_as(m.vector) + 1, ["add"]),
    "dropouts": (lambda m, x: F.dropout2d(F.dropout(x, training=False), training=False) + 1, ["add"]),
    "alpha dropout": (lambda m, x: F.alpha_dropout(x, training=False) + 1, ["add"]),
    "expand": (lambda m, x: x.mean((2, 3), True).expand(-1, 4, 8, 8) + x, ["mean", "expand", "add"]),
    "expand_as": (lambda m, x: x.mean((2, 3), True).expand_as(x) + x, ["mean", "expand", "add"]),
    "view_as": (lambda m, x: x.flatten(1).view_as(x) * 2, ["reshape", "reshape", "mul"]),
    "normalize": (lambda m, x: F.normalize(x), ["mul", "sum", "sqrt", "clamp", "expand", "div"]),
    "global max pool": (lambda m, x: F.adaptive_max_pool2d(x, 1), ["amax"]),
    "indexing": (lambda m, x: x[:, None, 1:3, ..., -1], ["reshape", "slice", "slice", "reshape"]),
    "stack and unbind": (
        lambda m, x: torch.stack(x.unbind(1)[:2], 1),
        ["slice", "reshape"] * 2 + ["reshape", "reshape", "concat"],
    ),
    "shape arithmetic": (lambda m, x: x.view(x.shape[0], -1, x.shape[3] // 2), ["reshape"]),
    "constants are computed": (lambda m, x: x + torch.arange(8.0).sin().view(1, 1, 8, 1) * 2, ["add"]),
    "a mask made inside": (lambda m, x: x + torch.ones(8, 8).tril(), ["add"]),
    "upsample": (
        lambda m, x: F.interpolate(F.interpolate(x, scale_factor=2), (5, 7), mode="bilinear"),
        ["resize_nearest", "resize_bilinear"],
    ),
    "reflection": (lambda m, x: F.pad(x, (1, 2, 1, 0), "reflect"), ["pad"]),
    "crop": (lambda m, x: F.pad(x, (-1, 0, 1, 0)), ["pad"]),
}


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_expression(name: str) -> None:
    fn, expected = EXPRESSIONS[name]
    graph = captured(fn, X, vector=VECTOR)
    assert ops(graph) == expected
    assert graph.batchable
    batch = noise(3, 4, 8, 8, seed=2)
    (got,) = outputs(graph, batch)
    torch.testing.assert_close(got, fn(Apply(fn, vector=VECTOR), batch), rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths:UserWarning")
@pytest.mark.parametrize("kernel", [(2, 2), (4, 3), (1, 6)])
def test_same_padding_of_even_kernels(kernel: tuple[int, int]) -> None:
    module = randomize(nn.Conv2d(4, 5, kernel, padding="same", dilation=(2, 1)))
    graph = capture(module, X)
    torch.testing.assert_close(outputs(graph, X)[0], module(X), rtol=1e-4, atol=1e-5)


def test_transposed_convolution_with_groups() -> None:
    module = randomize(nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2))
    graph = capture(module, X)
    torch.testing.assert_close(outputs(graph, X)[0], module(X), rtol=1e-4, atol=1e-5)


# aliases: what in-place ops do to other names of the same memory
def _old_name(m: Any, x: torch.Tensor) -> torch.Tensor:
    y = m.conv(x)
    y.relu_()
    return y + 1


def _chain(m: Any, x: torch.Tensor) -> torch.Tensor:
    y = m.conv(x)
    z = y.relu_().add_(1)
    return y + z


def _clone(m: Any, x: torch.Tensor) -> torch.Tensor:
    y = m.conv(x)
    before = y.clone()
    y.relu_()
    return before + y


def _view(m: Any, x: torch.Tensor) -> torch.Tensor:
    y = m.conv(x)
    rows = y.view(1, 4, 64)
    y.relu_()
    return rows * 2


def _view_of_view(m: Any, x: torch.Tensor) -> torch.Tensor:
    y = m.conv(x)
    rows = y.view(1, 4, 64).transpose(1, 2)
    y.relu_()
    return rows * 2


def _base_of_view(m: Any, x: torch.Tensor) -> torch.Tensor:
    y = m.conv(x)
    y.view(1, 4, 64).relu_()
    return y * 2


def _slice(m: Any, x: torch.Tensor) -> torch.Tensor:
    y = m.conv(x)
    y[:, 1:3] *= 2
    return y


def _step(m: Any, x: torch.Tensor) -> torch.Tensor:
    y = m.conv(x)
    y[:, 0] = 0.5
    y[:, :, 2] = x[:, :, 3]
    return y


def _chunk(m: Any, x: torch.Tensor) -> torch.Tensor:
    a, b = m.conv(x).chunk(2, 1)
    a.relu_()
    return torch.cat([b, a], 1)


def _chunk_and_whole(m: Any, x: torch.Tensor) -> torch.Tensor:
    y = m.conv(x)
    a, b = y.chunk(2, 1)
    a.relu_()
    return y + torch.cat([b, a], 1)


def _input(m: Any, x: torch.Tensor) -> torch.Tensor:
    return x.add_(1) * x


def _constant_then_value(m: Any, x: torch.Tensor) -> torch.Tensor:
    mask = torch.zeros(1, 4, 8, 8)
    mask[:, :2] = 1
    y = m.conv(x)
    rows = y.view(1, 4, 64)
    y.relu_()
    return rows.view_as(y) * mask


def _value_into_constant(m: Any, x: torch.Tensor) -> torch.Tensor:
    canvas = torch.zeros(1, 4, 8, 8)
    canvas[:, :2] += x[:, :2]
    return canvas + x


def _constant_copy(m: Any, x: torch.Tensor) -> torch.Tensor:
    mask = m.vector.clone()
    mask[0] = 5
    mask.mul_(2)
    return x * mask + m.vector


@pytest.mark.parametrize(
    "fn",
    [
        _old_name,
        _chain,
        _clone,
        _view,
        _view_of_view,
        _base_of_view,
        _slice,
        _step,
        _chunk,
        _chunk_and_whole,
        _input,
        _constant_then_value,
        _value_into_constant,
        _constant_copy,
    ],
)
def test_in_place(fn: Callable[..., Any]) -> None:
    module = randomize(Apply(fn, conv=conv(), vector=VECTOR.clone()))
    state = {k: v.clone() for k, v in module.state_dict().items()}
    given = X.clone()
    graph = capture(module, given)
    assert torch.equal(given, X)
    assert all(torch.equal(state[k], v) for k, v in module.state_dict().items())
    batch = noise(2, 4, 8, 8, seed=3)
    with torch.no_grad():
        expected = torch.cat([module(image.clone()) for image in batch.split(1)])
    torch.testing.assert_close(outputs(graph, batch)[0], expected, rtol=1e-4, atol=1e-5)
    assert all(torch.equal(state[k], v) for k, v in module.state_dict().items())


def test_a_chunk_written_in_place_needs_no_copies() -> None:
    assert ops(captured(_chunk, X, conv=conv())) == ["conv2d", "split", "relu", "concat"]


def test_overwriting_a_buffer_is_refused() -> None:
    def count(m: Any, x: torch.Tensor) -> torch.Tensor:
        m.vector.add_(1)
        return x * m.vector

    assert "overwrites a buffer in eval mode" in refusal(count, vector=VECTOR.clone())


# structure
def test_several_inputs_and_outputs() -> None:
    def fn(m: Any, x: torch.Tensor, y: torch.Tensor) -> dict[str, Any]:
        return {"sum": x + y, "pair": (m.conv(x), None, 3), "input": y}

    module = randomize(Apply(fn, conv=conv()))
    graph = capture(module, [X, X * 2])
    assert len(graph.inputs) == 2 and len(graph.outputs) == 3 and graph.batchable
    a, b = noise(2, 4, 8, 8), noise(2, 4, 8, 8, seed=1)
    got = outputs(graph, a, b)
    torch.testing.assert_close(got[0], a + b)
    torch.testing.assert_close(got[1], module.conv(a), rtol=1e-4, atol=1e-5)
    assert torch.equal(got[2], b)
    with pytest.raises(CaptureError, match="does not run on an input"):
        capture(module, X)


def test_the_same_output_twice_and_a_constant_output() -> None:
    graph = captured(lambda m, x: (x + 1, m.vector, x), X, vector=VECTOR)
    assert [torch.equal(a, b) for a, b in zip(outputs(graph, X), (X + 1, VECTOR, X), strict=True)] == [
        True
    ] * 3


def test_a_module_used_twice_shares_its_weights() -> None:
    graph = captured(lambda m, x: m.conv(m.conv(x).relu()), X, conv=conv())
    first, second = (n for n in graph.nodes if n.op == "conv2d")
    assert first.inputs[1] is second.inputs[1] and first.inputs[2] is second.inputs[2]
    assert first.inputs[1].name == "conv.weight" and first.output.name != second.output.name
    names = [v.name for v in graph.values()]
    assert len(names) == len(set(names))


def test_tied_parameters_are_one_constant() -> None:
    one, two = conv(), conv()
    two.weight = one.weight
    graph = captured(lambda m, x: m.two(m.one(x)), X, one=one, two=two)
    weights = [n.inputs[1] for n in graph.nodes]
    assert weights[0] is weights[1]


def test_names_come_from_module_paths() -> None:
    module = nn.Sequential()
    module.stem = nn.Sequential(conv(), nn.BatchNorm2d(4), nn.ReLU())
    module.head = Apply(lambda m, x: m.fc(x.mean((2, 3)) * 2), fc=nn.Linear(4, 3))
    graph = capture(randomize(module), X)
    assert [v.name for n in graph.nodes for v in n.outputs] == [
        "stem.0",
        "stem.1",
        "stem.2",
        "head/mean",
        "head/mul",
        "head.fc",
    ]
    assert [n.source for n in graph.nodes] == ["stem.0", "stem.1", "stem.2", "head", "head", "head.fc"]
    assert {"stem.0.weight", "stem.1.running_var", "head/constant"} <= {v.name for v in graph.constants()}


def test_buffers_are_constants_whether_saved_or_not() -> None:
    module = Apply(lambda m, x: x * m.vector + m.hidden, vector=VECTOR.clone())
    module.register_buffer("hidden", torch.ones(4, 1, 1), persistent=False)
    graph = capture(module.eval(), X)
    assert {v.name for v in graph.constants()} == {"vector", "hidden"}


def test_dropout_disappears() -> None:
    module = nn.Sequential(nn.Dropout(), conv(), nn.Dropout2d(), nn.ReLU(), nn.Dropout(inplace=True))
    assert ops(capture(randomize(module), X)) == ["conv2d", "relu"]


def test_mixing_a_batch_is_not_batchable() -> None:
    graph = captured(lambda m, x: x - x.mean(0, keepdim=True), X)
    assert not graph.batchable
    assert not outputs(graph, noise(3, 4, 8, 8))[0].any()


def test_an_output_of_zeros_proves_no_batch() -> None:
    def fn(m: Any, x: torch.Tensor) -> torch.Tensor:
        return m.vector * 0 * (x - x.mean(0, keepdim=True))

    assert not captured(fn, X, vector=VECTOR).batchable


def test_a_saved_program_is_imported_with_its_own_reference() -> None:
    module = randomize(conv())
    program = torch.export.export(module, (X,))
    torch.testing.assert_close(
        outputs(import_program(program, "p", X), X)[0], module(X), rtol=1e-4, atol=1e-5
    )
    with pytest.raises(CaptureError, match="p takes 1 inputs: 2 examples were given"):
        import_program(program, "p", [X, X])


# refusals
def test_training_mode_is_refused_wherever_it_hides() -> None:
    module = nn.Sequential(conv(), nn.Sequential(nn.BatchNorm2d(4)))
    with pytest.raises(CaptureError, match=r"training mode at the module: call module\.eval\(\) first"):
        capture(module, X)
    module.eval()[1][0].train()
    with pytest.raises(CaptureError, match=r"training mode at 1\.0"):
        capture(module, X)


def test_all_unsupported_ops_are_listed_with_their_modules() -> None:
    def body(m: Any, x: torch.Tensor) -> torch.Tensor:
        return torch.erfinv(x) + torch.cumprod(x, 1)

    module = nn.Sequential(Apply(body), nn.SELU(), Apply(lambda m, x: torch.erfinv(x)))
    with pytest.raises(CaptureError) as caught:
        capture(module.eval(), X, "net")
    message = str(caught.value)
    assert message.startswith("[capture] net: cannot import ") and "\n" not in message
    line = f"(graphs.py:{Apply.forward.__code__.co_firstlineno + 1})"
    assert f"aten.erfinv.default at 0 {line}, 2 {line}" in message
    assert f"aten.cumprod.default at 0 {line}" in message


def test_unsupported_arguments_are_listed_too() -> None:
    def fn(m: Any, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (
            F.softplus(x, threshold=1),
            F.avg_pool2d(x, 3, 2, 1, count_include_pad=False, divisor_override=3),
            torch.linalg.vector_norm(x, 0),
            x.gather(1, x.argmax(1, keepdim=True)),
            x.half().float(),
            torch.einsum("ncii->nc", x),
            F.grid_sample(x, m.grid, align_corners=False),
            torch.cumprod(x, 1),
        )

    message = refusal(fn, grid=torch.zeros(1, 8, 8, 2))
    for part in (
        "softplus with a threshold of 1 (at least 14)",
        "a divisor of its own and windows of several sizes",
        "a 0-norm (any other)",
        "indices that depend on the input (fixed ones)",
        "a cast from float32 to float16 (float32)",
        "which takes a diagonal",
        "grid_sample (resizing to a fixed size)",
        "aten.cumprod",
    ):
        assert part in message


@pytest.mark.filterwarnings("ignore:LSTM with projections")
def test_layers_over_too_many_steps_are_named() -> None:
    lines = {
        "a recurrent layer over 300 steps (unrolled: at most 256)": nn.GRU(4, 4, batch_first=True),
        "an LSTM with a projection (proj_size=0)": nn.LSTM(4, 4, batch_first=True, proj_size=2),
    }
    for line, layer in lines.items():
        steps = 300 if "steps" in line else 8
        assert line in refusal(lambda m, x: m.rnn(x.flatten(2).mT[:, :1].expand(1, steps, 4))[0], rnn=layer)  # noqa: B023


def test_batch_norm_without_statistics() -> None:
    module = nn.Sequential(conv(), nn.BatchNorm2d(4, track_running_stats=False))
    with pytest.raises(CaptureError, match="batch norm without running statistics at 1"):
        capture(module.eval(), X)


def test_data_dependent_control_flow() -> None:
    message = refusal(lambda m, x: x + 1 if x.sum() > 0 else x)
    assert "decides by the picture's numbers at the top level (test_capture.py:" in message
    assert "torch.where" in message


class Undecided(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.mean() > 0 else -x


def test_a_decision_within_a_module_names_it_and_its_line(caplog: pytest.LogCaptureFixture) -> None:
    line = Undecided.forward.__code__.co_firstlineno + 1
    message = refusal(lambda m, x: m.inner(m.conv(x)), conv=conv(), inner=nn.Sequential(Undecided()))
    assert f"at inner.0 (test_capture.py:{line})" in message
    assert not [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]


@pytest.mark.parametrize(
    ("fn", "cure"),
    [
        (lambda m, x: x * x.sum().item(), "a Python number out of a tensor: keep it a tensor"),
        (lambda m, x: x[x > 0].sum(), "indices that depend on the input (fixed ones)"),
        (lambda m, x: (x > 0).nonzero().float().sum(), "write it with torch.where"),
        (lambda m, x: x.masked_select(x > 0).sum(), "write it with torch.where"),
    ],
)
def test_numbers_and_shapes_out_of_the_picture(fn: Callable[..., Any], cure: str) -> None:
    message = refusal(fn)
    assert cure in message and "at top level (graphs.py:" in message


@pytest.mark.parametrize("fn", [lambda m, x: F.dropout(x), lambda m, x: x + torch.rand(1, 4, 8, 8)])
def test_randomness_in_eval_mode(fn: Callable[..., Any]) -> None:
    with torch.random.fork_rng():
        assert "random or stateful" in refusal(fn)


def test_a_module_that_does_not_run() -> None:
    message = refusal(lambda m, x: m.conv(x[:, :3]), conv=conv())
    assert "does not run on an input (1, 4, 8, 8)" in message and "expected input" in message
    assert "does not run" in refusal(lambda m, x: {}["absent"])


@pytest.mark.parametrize("example", [noise(2, 4, 8, 8), X.double(), torch.tensor(1.0)])
def test_examples_must_be_one_float_image(example: torch.Tensor) -> None:
    with pytest.raises(CaptureError, match="shapes are recorded from one float32 image"):
        capture(conv().eval(), example)


def test_capture_leaves_gradients_and_parameters_alone() -> None:
    module = randomize(nn.Sequential(conv(), nn.BatchNorm2d(4), nn.ReLU(inplace=True)))
    state = {k: v.clone() for k, v in module.state_dict().items()}
    graph = capture(module, X)
    module.train()(X).sum().backward()
    assert all(p.grad is not None for p in module.parameters())
    module.eval()
    as_module(graph)
    assert all(
        torch.equal(state[k], v)
        for k, v in module.state_dict().items()
        if "running" not in k and "num" not in k
    )
