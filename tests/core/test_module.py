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
from torchvision.models.convnext import CNBlockConfig, ConvNeXt
from torchvision.models.swin_transformer import SwinTransformer
from torchvision.models.vision_transformer import VisionTransformer
from torchvision.ops import StochasticDepth

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


# what trains besides: dropout, derived constants, batches
class Depth(nn.Module):
    """Stochastic depth as libraries write it: nothing of it is left in eval mode."""

    def __init__(self, drop_prob: float) -> None:
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return x
        keep = 1 - self.drop_prob
        return x * x.new_empty((len(x), *[1] * (x.ndim - 1))).bernoulli_(keep).div_(keep)


RANDOM: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "dropout": (lambda: nn.Dropout(0.3), "element"),
    "in place": (lambda: nn.Dropout(0.3, inplace=True), "element"),
    "channels": (lambda: nn.Dropout2d(0.3), "channel"),
    "alpha": (lambda: nn.AlphaDropout(0.3), "alpha"),
    "alpha channels": (lambda: nn.FeatureAlphaDropout(0.3), "alpha channel"),
    "functional": (lambda: Apply(lambda m, x: F.dropout(x, 0.3, m.training)), "element"),
    "rows": (lambda: Depth(0.3), "row"),
    "rows of torchvision": (lambda: StochasticDepth(0.3, "row"), "row"),
    "batch of torchvision": (lambda: StochasticDepth(0.3, "batch"), "batch"),
}


@pytest.mark.parametrize("name", RANDOM)
def test_dropout_is_the_originals(name: str) -> None:
    make, mode = RANDOM[name]
    original = nn.Sequential(nn.Conv2d(3, 4, 1), make()).eval()
    graph = capture(original, X, training=True)
    assert [(n.attrs["p"], n.attrs["mode"]) for n in graph.nodes if n.op == "dropout"] == [(0.3, mode)]
    module = as_module(graph)
    x = noise(64, 3, 8, 8)
    assert torch.equal(module.eval()(x), original(x))
    kept = []
    for m in (original, module):
        m.train()
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(1)
            kept.append(torch.stack([m(x) for _ in range(40)]))
    theirs, ours = kept
    if "alpha" not in mode:
        for each in kept:  # what is left is scaled up
            left = each != 0
            torch.testing.assert_close(each[left], (original.eval()(x) / 0.7).expand_as(each)[left])
    spread = {"element": 4, "channel": 3, "alpha": 4, "alpha channel": 3, "row": 2, "batch": 1}[mode]
    dropped = [(each == each.flatten()[each.flatten() == 0][:1].sum()).float() for each in kept]
    if "alpha" not in mode:
        assert all(
            torch.equal(d.flatten(spread)[..., :1].expand_as(d.flatten(spread)), d.flatten(spread))
            for d in dropped
            if spread < 4
        )
        assert all(abs(float(d.mean()) - 0.3) < (0.25 if mode == "batch" else 0.02) for d in dropped)
    assert abs(float(ours.std() / theirs.std()) - 1) < (0.3 if mode == "batch" else 0.02)


def test_dropout_goes_before_everything_else() -> None:
    original = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Dropout(0.3), nn.ReLU(), Depth(0.2), nn.Conv2d(4, 2, 1))
    plain, training = capture(original.eval(), X), capture(original, X, training=True)
    for graph in (plain, training):
        optimize(graph)
    shapes = [[(n.op, n.attrs, n.output.shape) for n in graph.nodes] for graph in (plain, training)]
    assert shapes[0] == shapes[1]
    torch.testing.assert_close(run(training, [X]), run(plain, [X]))
    assert "forward" not in vars(original[3]) and not any(m.training for m in original.modules())


def test_dropout_layers_are_found_under_their_paths() -> None:
    original = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Dropout(0.3), nn.MultiheadAttention(8, 2, dropout=0.1))
    module = of(
        Apply(lambda m, x: m.s[2](*[m.s[1](m.s[0](x))[:, :, 0]] * 3)[0], s=original), noise(1, 3, 8, 8)
    )
    layers = {path: p.p for path, p in module.named_modules() if isinstance(p, nn.Dropout)}
    assert layers == {"s.1": 0.3, "s.2.dropout": 0.1}
    x = noise(1, 3, 8, 8)
    for part in module.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
    torch.testing.assert_close(module.train()(x), module.eval()(x))


@pytest.mark.parametrize("weights", [False, True])
def test_attention_drops_in_training(weights: bool) -> None:
    """The softmax's results are left out, whether attention is one operator or spelled out."""
    attention = nn.MultiheadAttention(8, 2, dropout=0.4, batch_first=True)
    original = Apply(lambda m, x: m.a(x, x, x, need_weights=weights)[0], a=attention).eval()
    x = noise(1, 16, 8)
    module = of(original, x)
    torch.testing.assert_close(module.eval()(x), original(x))
    moments = []
    for m in (original.train(), module.train()):
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(0)
            answers = torch.stack([m(x) for _ in range(300)])
        moments.append((answers.mean(0), answers.std(0)))
    for ours, theirs in zip(*moments, strict=True):
        assert float((ours - theirs).norm() / theirs.norm()) < 0.15
    assert float(moments[1][1].mean()) > 0.01


def test_recurrent_layers_drop_between_them() -> None:
    original = Apply(lambda m, x: m.r(x)[0], r=nn.LSTM(4, 3, num_layers=3, dropout=0.25, batch_first=True))
    graph = capture(original.eval(), noise(1, 5, 4), training=True)
    assert [n.attrs for n in graph.nodes if n.op == "dropout"] == [{"p": 0.25, "mode": "element"}] * 2


def _table(m: Any, x: torch.Tensor) -> torch.Tensor:
    index = torch.tensor([0, 2, 1, 1, 0, 2, 2, 0])
    return m.c(x) * m.scale.reshape(1, -1, 1, 1) + m.table[index].view(1, 1, 1, 8)


def _standardized(m: Any, x: torch.Tensor) -> torch.Tensor:
    w = m.c.weight
    w = (w - w.mean((1, 2, 3), keepdim=True)) / (
        w.var((1, 2, 3), keepdim=True, unbiased=False) + 2**-12
    ).sqrt()
    return F.conv2d(x, w * m.scale.view(-1, 1, 1, 1), m.c.bias)


def _token(m: Any, x: torch.Tensor) -> torch.Tensor:
    tokens = m.c(x).flatten(2).transpose(1, 2)
    return torch.cat([m.token.expand(len(x), -1, -1), tokens], 1) * F.softplus(m.scale)


DERIVED = {"table": _table, "standardized": _standardized, "token": _token}


def derived(name: str) -> nn.Module:
    original = Apply(DERIVED[name], c=nn.Conv2d(3, 4, 1))
    original.scale = nn.Parameter(noise(4, seed=1) + 1.5)
    if name != "standardized":
        original.register_parameter(
            "table" if name == "table" else "token",
            nn.Parameter(noise(3, seed=2) if name == "table" else noise(1, 1, 4, seed=2)),
        )
    return original.eval()


@pytest.mark.parametrize("name", DERIVED)
def test_constants_that_follow_from_parameters_train_them(name: str, tmp_path: Any) -> None:
    original = derived(name)
    graph = capture(original, X, training=True)
    assert graph.derivations and graph.batchable
    plain = capture(original, X)
    assert [n.op for n in graph.nodes] == [n.op for n in plain.nodes] and not plain.derivations
    save(graph, tmp_path / "graph.safetensors")
    again = load(tmp_path / "graph.safetensors")
    assert graph_hash(again) == graph_hash(graph) == graph_hash(graph.copy())
    for each in (graph, again):
        module = as_module(each)
        assert module.state_dict().keys() == original.state_dict().keys()
        follow(original, module, noise(4, 3, 8, 8))
    with torch.no_grad():
        module.scale.mul_(2.0)
        original.scale.mul_(2.0)
    changed = module.to_graph()
    torch.testing.assert_close(run(changed, [X])[0], original(X), rtol=1e-5, atol=1e-5)
    follow(original, as_module(changed), noise(2, 3, 8, 8))
    assert optimize(changed) and not changed.derivations


def test_a_constant_that_was_changed_follows_no_more() -> None:
    graph = capture(derived("table"), X, training=True)
    changed = graph.copy()
    (scale,) = (v for v in changed.constants() if v.shape == (1, 4, 1, 1))
    scale.data = scale.data * 0.5
    module = as_module(changed)
    torch.testing.assert_close(module.eval()(X), run(changed, [X])[0])
    names = {name for name, _ in module.named_parameters()}
    assert "scale" not in names and {"c.weight", "c.bias", "table"} < names


def test_attention_biases_that_are_kept_in_eval_mode_train() -> None:
    class Biased(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bias, self.kept = nn.Parameter(noise(3)), {}

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            index = torch.tensor([0, 2, 1, 1, 0, 2, 2, 0])
            if self.training:
                return x + self.bias[index]
            if "cpu" not in self.kept:
                self.kept["cpu"] = self.bias[index]
            return x + self.kept["cpu"]

    original = nn.Sequential(nn.Conv2d(3, 4, 1), Biased()).eval()
    module = of(original)
    original[1].kept.clear()
    assert module.state_dict().keys() == original.state_dict().keys()
    x = noise(2, 3, 8, 8)
    for m in (original.train(), module.train()):
        loss(m(x)).backward()
    torch.testing.assert_close(module.get_parameter("1.bias").grad, original[1].bias.grad)


def test_attention_takes_batches() -> None:
    """nn.MultiheadAttention puts heads and images in one dimension, which an export of one image fixes."""

    def fn(m: Any, x: torch.Tensor) -> torch.Tensor:
        tokens = torch.cat([m.t.expand(len(x), -1, -1), x.flatten(2).transpose(1, 2)], 1)
        return m.l((tokens + m.a(tokens, tokens, tokens, need_weights=False)[0])[:, 0])

    attention = nn.MultiheadAttention(8, 2, batch_first=True)
    original = Apply(fn, a=attention, l=nn.Linear(8, 3))
    original.t = nn.Parameter(noise(1, 1, 8))
    x = noise(1, 8, 3, 4)
    assert capture(original.eval(), x, training=True).batchable
    follow(original, of(original, x), noise(3, 8, 3, 4))


LIBRARY = {
    "convnext": lambda: ConvNeXt([CNBlockConfig(8, 16, 1), CNBlockConfig(16, None, 1)], 0.2, num_classes=3),
    "swin": lambda: SwinTransformer([4, 4], 8, [1, 1], [2, 2], [4, 4], 1.0, num_classes=3),
    "vit": lambda: VisionTransformer(32, 8, 1, 2, 16, 32, 0.1, 0.1, 3),
    "shufflenet": lambda: models.shufflenet_v2_x0_5(num_classes=3),
}


@pytest.mark.parametrize("name", LIBRARY)
def test_every_parameter_of_library_models_trains(name: str) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        original = randomize(LIBRARY[name]())
    module = of(original, noise(1, 3, 32, 32))
    assert name == "shufflenet" or any(isinstance(part, nn.Dropout) for part in module.modules())
    for part in (*original.modules(), *module.modules()):
        if isinstance(part, nn.Dropout | StochasticDepth):
            part.p = 0.0
        elif isinstance(part, nn.MultiheadAttention):
            part.dropout = 0.0
    x = noise(3, 3, 32, 32)
    for m in (original.train(), module.train()):
        loss(m(x)).backward()
    ours, theirs = ({name: p.grad for name, p in m.named_parameters()} for m in (module, original))
    assert ours.keys() == theirs.keys()
    for path, grad in theirs.items():
        assert float((ours[path] - grad).norm()) <= 1e-4 * float(grad.norm()) + 1e-7, path


class _Sided(nn.Module):
    """Pooled to a side of its own, then to one place."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(F.pad(x, (0, 1, 0, 1)), 2)
        parts = torch.cat([x[:, :2], F.adaptive_avg_pool2d(x[:, 1:], 1) * x[:, 1:]], 1).split(2, 1)
        return F.adaptive_avg_pool2d(torch.sigmoid(parts[0]) + parts[1], 2).flatten(1)


@pytest.mark.parametrize(
    "original",
    [
        lambda: models.mobilenet_v2(width_mult=0.1, num_classes=5),
        lambda: models.resnet18(num_classes=5),
        _Sided,
    ],
)
def test_pictures_of_another_side_are_answered_as_the_module_does(original: Callable[[], nn.Module]) -> None:
    net = original().eval()
    module = of(net, noise(1, 3, 64, 64)).eval()
    for height, width in ((64, 64), (32, 48), (80, 64)):
        pictures = noise(2, 3, height, width)
        assert torch.equal(module(pictures), net(pictures))


@pytest.mark.parametrize(
    ("forward", "node"),
    [
        (lambda m, x: F.interpolate(x, size=(16, 16)), "resize_nearest"),
        (lambda m, x: x.flatten(2).softmax(-1), "reshape"),
        (lambda m, x: x + torch.linspace(0, 1, 8), "add"),
        (lambda m, x: F.linear(x, torch.ones(4, 8)), "linear"),
        (lambda m, x: x.mean(3), "mean"),
    ],
)
def test_a_graph_that_knows_its_side_says_which_node_does(forward: Any, node: str) -> None:
    module = of(Apply(forward))
    with pytest.raises(GraphError, match=f"captured at 8x8 and {node} at"):
        module(noise(1, 3, 12, 12))
