"""A captured graph as a module, against the module it was captured from: eager in float64 is the judge."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from graphs import Apply, chain, noise, randomize
from torch import nn
from torchvision import models

import edgekit
from edgekit.capture import capture
from edgekit.errors import GraphError
from edgekit.graph.file import graph_hash, load, save
from edgekit.graph.ir import Graph
from edgekit.graph.module import GraphModule, as_module
from edgekit.graph.run import run
from edgekit.passes import optimize

X = noise(1, 3, 8, 8)


def of(module: nn.Module, *examples: torch.Tensor) -> GraphModule:
    return as_module(capture(module.eval(), [x.clone() for x in examples or (X,)], training=True))


def net(**norm: Any) -> nn.Module:
    layers = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4, **norm), nn.ReLU())
    return randomize(nn.Sequential(layers, nn.Flatten(), nn.Linear(144, 3)))


def leaves(answer: Any) -> list[torch.Tensor]:
    return [x for x in torch.utils._pytree.tree_leaves(answer) if isinstance(x, torch.Tensor)]


def loss(answer: Any) -> torch.Tensor:
    """No two elements weigh the same."""
    parts = [y * torch.linspace(0.5, 1, y.numel(), dtype=y.dtype).reshape(y.shape) for y in leaves(answer)]
    return torch.stack([part.mean() for part in parts]).sum()


def follow(original: nn.Module, module: nn.Module, *inputs: torch.Tensor, steps: int = 3) -> None:
    """Both train on the same batches in float64: answers, gradients, weights and statistics stay equal."""
    original, module = (copy.deepcopy(m).double().train() for m in (original, module))
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.05, momentum=0.9) for m in (original, module)]
    for step in range(steps):
        batch = [x.double() * (1 + 0.1 * step) for x in inputs]
        for m, optimizer in zip((original, module), optimizers, strict=True):
            optimizer.zero_grad()
            loss(m(*batch)).backward()
        theirs = {name: p.grad for name, p in original.named_parameters() if p.grad is not None}
        ours = {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
        assert ours.keys() == theirs.keys() and theirs
        for name, grad in theirs.items():
            torch.testing.assert_close(ours[name], grad, rtol=1e-9, atol=1e-11, msg=name)
        for optimizer in optimizers:
            optimizer.step()
    state = module.state_dict()
    for name, tensor in original.state_dict().items():
        torch.testing.assert_close(state[name], tensor, rtol=1e-9, atol=1e-11, msg=name)
    for m in (original, module):
        m.eval()
    for ours_, theirs_ in zip(leaves(module(*batch)), leaves(original(*batch)), strict=True):
        torch.testing.assert_close(ours_, theirs_, rtol=1e-9, atol=1e-11)


def test_the_public_function() -> None:
    original = net()
    module = edgekit.graph_module(original, X)
    assert module.state_dict().keys() == original.state_dict().keys()
    follow(original, module, noise(4, 3, 8, 8))


# state
def test_the_state_is_the_originals() -> None:
    original = net()
    module = of(original)
    theirs, ours = original.state_dict(), module.state_dict()
    assert theirs.keys() == ours.keys()
    assert all(torch.equal(theirs[name], ours[name]) for name in theirs)
    names = {name for name, _ in original.named_parameters()}
    assert {name for name, _ in module.named_parameters()} == names
    assert all(theirs[name].data_ptr() != ours[name].data_ptr() for name in theirs)
    other = net()
    with torch.no_grad():
        other[0][0].weight.mul_(0.5)
    module.load_state_dict(other.state_dict())
    torch.testing.assert_close(module.eval()(X), other(X))
    original.load_state_dict(module.state_dict())
    torch.testing.assert_close(original(X), other(X))


@pytest.mark.parametrize("make", [models.resnet18, models.mobilenet_v3_small])
def test_library_models_follow(make: Callable[..., nn.Module]) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        original = randomize(make(num_classes=5))
    for part in original.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
    module = of(original, noise(1, 3, 32, 32))
    module.load_state_dict(original.state_dict())
    follow(original, module, noise(4, 3, 32, 32), steps=2)


def test_nothing_of_the_graph_or_the_original_is_written() -> None:
    original = net()
    state = {name: x.clone() for name, x in original.state_dict().items()}
    graph = capture(original, X, training=True)
    before = graph_hash(graph)
    module = as_module(graph)
    module.train()(noise(4, 3, 8, 8)).sum().backward()
    with torch.no_grad():
        for p in module.parameters():
            p.add_(1)
    assert graph_hash(graph) == before
    assert all(torch.equal(state[name], x) for name, x in original.state_dict().items())


def test_to_graph_has_the_present_numbers() -> None:
    module = of(net())
    module.double().train()(noise(4, 3, 8, 8).double())
    graph = module.eval().to_graph()
    given = noise(2, 3, 8, 8)
    torch.testing.assert_close(run(graph, [given])[0], module(given.double()).float(), rtol=1e-5, atol=1e-6)
    (norm,) = (node for node in graph.nodes if node.op == "batch_norm")
    assert norm.attrs["batches"] == 1
    optimize(graph)
    assert all(type(v.data) is torch.Tensor and v.data.grad_fn is None for v in graph.constants())
    again = as_module(module.to_graph())
    pairs = zip(again.state_dict().values(), module.state_dict().values(), strict=True)
    assert all(torch.equal(a.float(), b.float()) for a, b in pairs)


def test_a_graph_from_a_file_trains_as_well(tmp_path: Any) -> None:
    original = net(momentum=None)
    save(capture(original, X, training=True), tmp_path / "graph.safetensors")
    follow(original, as_module(load(tmp_path / "graph.safetensors")), noise(4, 3, 8, 8))


def test_capture_for_inference_knows_nothing_of_training() -> None:
    graph = capture(net(), X)
    assert not any(value.kind for value in graph.values())
    assert all(node.attrs.keys() <= {"eps"} for node in graph.nodes if node.op == "batch_norm")


# norms
NORMS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "momentum": (lambda: nn.BatchNorm2d(3, momentum=0.3), (3, 4, 4)),
    "all batches": (lambda: nn.BatchNorm2d(3, momentum=None), (3, 4, 4)),
    "eps": (lambda: nn.BatchNorm2d(3, eps=0.1), (3, 4, 4)),
    "no affine": (lambda: nn.Sequential(nn.BatchNorm2d(3, affine=False), nn.Conv2d(3, 3, 1)), (3, 4, 4)),
    "vectors": (lambda: nn.BatchNorm1d(6), (6,)),
    "lines": (lambda: nn.BatchNorm1d(6), (6, 5)),
    "no statistics": (lambda: nn.BatchNorm2d(3, track_running_stats=False), (3, 4, 4)),
    "instance": (lambda: nn.InstanceNorm2d(3, affine=True, track_running_stats=True), (3, 4, 4)),
    "instance, no statistics": (lambda: nn.InstanceNorm2d(3, affine=True), (3, 4, 4)),
}


@pytest.mark.parametrize("name", NORMS)
def test_norms_train_as_they_do(name: str) -> None:
    make, shape = NORMS[name]
    original = nn.Sequential(make(), nn.Tanh())
    follow(original.eval(), of(original, noise(1, *shape)), noise(4, *shape))


def test_one_batch_norm_in_two_places_counts_both() -> None:
    original = Apply(lambda m, x: m.n(m.c(m.n(x))), n=nn.BatchNorm2d(3, momentum=None), c=nn.Conv2d(3, 3, 1))
    follow(original.eval(), of(original), noise(4, 3, 8, 8))


def test_batch_norms_that_share_weights() -> None:
    original = Apply(lambda m, x: m.a(x) * m.b(x + 1), a=nn.BatchNorm2d(3), b=nn.BatchNorm2d(3))
    original.b.weight = original.a.weight
    module = of(original)
    assert module.b.weight is module.a.weight
    follow(original.eval(), module, noise(4, 3, 8, 8))


def test_batch_norms_are_frozen_by_their_class() -> None:
    module = of(net()).train()
    before = {name: x.clone() for name, x in module.state_dict().items()}
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.eval()
    module(noise(4, 3, 8, 8)).sum().backward()
    assert all(torch.equal(before[name], x) for name, x in module.state_dict().items())


def test_parameters_without_gradient_stay_so() -> None:
    original = net()
    original[0][0].weight.requires_grad_(False)
    module = of(original)
    assert [p.requires_grad for _, p in sorted(module.named_parameters())] == [
        p.requires_grad for _, p in sorted(original.named_parameters())
    ]


def test_buffers_and_numbers_of_the_code_do_not_train() -> None:
    def fn(m: Any, x: torch.Tensor) -> torch.Tensor:
        return m.c((x - m.mean) / 3 + torch.full((3, 1, 1), 0.5))

    original = Apply(fn, c=nn.Conv2d(3, 2, 1), mean=noise(3, 1, 1))
    original.register_buffer("gone", torch.ones(1), persistent=False)
    module = of(original)
    assert module.state_dict().keys() == {"mean", "c.weight", "c.bias"}
    assert {name for name, _ in module.named_parameters()} == {"c.weight", "c.bias"}
    follow(original, module, noise(4, 3, 8, 8))


def test_a_batch_that_the_batch_norms_would_not_see_is_refused() -> None:
    numbers = [torch.ones(4), torch.zeros(4), torch.zeros(4), torch.ones(4)]
    graph = chain(
        (1, 4, 2, 2),
        ("batch_norm", (1, 4, 2, 2), numbers, {"eps": 1e-5}),
        ("reshape", (4, 4), [], {"shape": (4, 4)}),
    )
    graph.batchable = False
    module = as_module(graph)
    with pytest.raises(GraphError, match="its batch norms see no batch: a batch of 1"):
        module(noise(2, 4, 2, 2))
    assert module.eval()(noise(2, 4, 2, 2)).shape == (2, 4, 4)


# what else a module does
def test_a_copy_is_its_own() -> None:
    module = of(net())
    copied = copy.deepcopy(module)
    with torch.no_grad():
        for p in copied.parameters():
            p.zero_()
    assert not copied.eval()(X).any() and module.eval()(X).any()
    assert not any(v.data.any() for v in copied.to_graph().constants() if v.name.endswith("weight"))


def test_export() -> None:
    module = of(net()).eval()
    program = torch.export.export(module, (X,))
    torch.testing.assert_close(program.module()(X), module(X))
    assert program.state_dict.keys() == module.state_dict().keys()
    again = of(module)
    assert again.state_dict().keys() == module.state_dict().keys()
    follow(module, again, noise(4, 3, 8, 8))


def test_several_inputs_and_outputs() -> None:
    def fn(m: Any, a: torch.Tensor, b: torch.Tensor) -> dict[str, torch.Tensor]:
        y = m.n(m.c(a))
        return {"sum": y + m.d(b), "gate": y.mean((2, 3)).sigmoid()}

    original = randomize(Apply(fn, c=nn.Conv2d(3, 4, 1), d=nn.Conv2d(2, 4, 1), n=nn.BatchNorm2d(4)))
    shapes = ((3, 8, 8), (2, 8, 8))
    follow(original, of(original, *(noise(1, *s) for s in shapes)), *(noise(4, *s) for s in shapes))


def _named(*names: str) -> Graph:
    graph = chain((1, 2), *[("add", (1, 2), [torch.full((2,), 0.1 * i)], {}) for i in range(len(names))])
    for node, name in zip(graph.nodes, names, strict=True):
        node.inputs[1].name = name
    return graph


@pytest.mark.parametrize(
    "names",
    [
        ("a.b", "a/b", "graph"),
        ("a", "a.b", "a.b.c"),
        ("a.b.c", "a.b", "a"),
        ("forward", "training", "to_graph", "to_graph.weight", "_paths.x"),
        ("", ".", "a..b", "..", "a."),
    ],
)
def test_names_of_any_file_are_kept_apart(names: tuple[str, ...]) -> None:
    graph = _named(*names)
    module = as_module(graph)
    assert len(list(module.parameters())) == len(names)
    torch.testing.assert_close(module(torch.zeros(1, 2)), run(graph, [torch.zeros(1, 2)])[0])
    assert [v.name for v in module.to_graph().values()] == [v.name for v in graph.values()]


def test_batch_norm_under_names_of_a_file() -> None:
    numbers = [torch.full((4,), 0.5), torch.zeros(4), torch.zeros(4), torch.ones(4)]
    graph = chain((1, 4, 2, 2), ("batch_norm", (1, 4, 2, 2), numbers, {"eps": 1e-5}))
    module = as_module(graph)
    original = nn.BatchNorm2d(4)
    with torch.no_grad():
        original.weight.fill_(0.5)
    x = noise(3, 4, 2, 2)
    torch.testing.assert_close(module(x), original(x))
    torch.testing.assert_close(module.to_graph().nodes[0].inputs[3].data, original.running_mean)
    torch.testing.assert_close(F.relu(module.eval()(x)), F.relu(original.eval()(x)))
