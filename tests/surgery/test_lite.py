"""Lite surgery: structures in every spelling, what is fitted, what is left and why, parameter goldens."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from edgekit import passes
from edgekit.capture import capture
from edgekit.errors import UsageError
from edgekit.graph.check import check
from edgekit.graph.ir import Graph
from edgekit.graph.run import run
from edgekit.lower.tflite import lower, prepare
from edgekit.quantize import qparams, rules
from edgekit.runtimes.edgetpu.preflight import preflight
from edgekit.surgery import Lite, lite, step
from edgekit.surgery.activations import best_ramp
from edgekit.surgery.layers import Layers, refits
from edgekit.surgery.paired import fit_front_to_back
from edgekit.targets import get_target

Tensor = torch.Tensor


def _images(count: int = 32, side: int = 24, channels: int = 3) -> Tensor:
    return torch.randn(count, channels, side, side, generator=torch.Generator().manual_seed(1))


def _graph(module: nn.Module, side: int = 24, channels: int = 3) -> Graph:
    return capture(module.eval(), torch.zeros(1, channels, side, side))


def _lively(module: nn.Module) -> nn.Module:
    """Seeded weights with statistics that fit them, so that activations move."""
    generator = torch.Generator().manual_seed(0)
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            fan = part.weight[0].numel()
            part.weight.data = torch.randn(part.weight.shape, generator=generator) * (2.0 / fan) ** 0.5
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = None
            part.weight.data = torch.rand(part.weight.shape, generator=generator) + 0.5
            part.bias.data = torch.randn(part.bias.shape, generator=generator) * 0.3
    module.train()
    with torch.no_grad():
        module(_images())
    return module.eval()


class Gated(nn.Module):
    """A block with a gate between its depthwise and its last convolution, spelled as asked."""

    def __init__(self, spelling: str) -> None:
        super().__init__()
        self.spelling = spelling
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        linear = spelling in ("linear", "expanded")
        self.down: nn.Module = nn.Linear(16, 4) if linear else nn.Conv2d(16, 4, 1)
        self.up: nn.Module = nn.Linear(4, 16) if linear else nn.Conv2d(4, 16, 1)
        self.last = nn.Conv2d(16, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        match self.spelling:
            case "torchvision":
                gate = F.hardsigmoid(self.up(F.relu(self.down(F.adaptive_avg_pool2d(x, 1)))))
            case "timm":
                gate = torch.sigmoid(self.up(F.silu(self.down(x.mean((2, 3), keepdim=True)))))
            case "pieces":
                gate = F.relu6(self.up(F.relu(self.down(F.avg_pool2d(x, x.shape[-1])))) + 3.0) / 6.0
            case "linear":
                pooled = F.adaptive_avg_pool2d(x, 1).flatten(1)
                gate = torch.sigmoid(self.up(F.relu(self.down(pooled)))).view(-1, 16, 1, 1)
            case "expanded":
                gate = torch.sigmoid(self.up(F.relu(self.down(x.mean((2, 3))))))[:, :, None, None].expand_as(
                    x
                )
            case "two pools":
                pooled = [F.adaptive_avg_pool2d(x, 1), F.adaptive_max_pool2d(x, 1)]
                gate = torch.sigmoid(self.up(F.relu(self.down(pooled[0]))) + self.up(self.down(pooled[1])))
            case "effective":
                gate = F.hardsigmoid(self.up(self.down(x.mean((2, 3), keepdim=True))))
        return self.last(x * gate)


@pytest.mark.parametrize(
    "spelling", ["torchvision", "timm", "pieces", "linear", "expanded", "two pools", "effective"]
)
def test_a_gate_becomes_its_mean_in_every_spelling(spelling: str) -> None:
    module = _lively(Gated(spelling))
    graph = _graph(module)
    before = str(graph), [v.data.clone() for v in graph.constants() if v.data is not None]
    changed, record = step("no-se", graph, _images())
    assert len(record.changes) == 1 and "its mean in last" in record.changes[0].what
    assert [node.op for node in changed.nodes] == ["conv2d", "batch_norm", "relu", "conv2d"]
    numbers = 2 if spelling == "pieces" else 0  # of relu6(x + 3) / 6
    assert record.params_before - record.params_after == 16 * 4 * 2 + 4 + 16 + numbers
    assert record.sqnr_db is not None and record.sqnr_db > 15.0
    assert before[0] == str(graph)  # the graph that was given stays as it was
    assert all(torch.equal(a, v.data) for a, v in zip(before[1], graph.constants(), strict=True))  # type: ignore[arg-type]


def test_a_constant_gate_is_folded_exactly() -> None:
    module = _lively(Gated("torchvision"))
    nn.init.zeros_(module.up.weight)  # type: ignore[arg-type]
    changed, _ = step("no-se", _graph(module), _images())
    with torch.no_grad():
        torch.testing.assert_close(run(changed, [_images(5)])[0], module(_images(5)), atol=1e-5, rtol=1e-4)


class GatedResidual(nn.Module):
    """The product is added: its gate can only go into the layer before it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 2, 1)
        self.conv, self.norm = nn.Conv2d(16, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        self.down, self.up = nn.Conv2d(16, 4, 1), nn.Conv2d(4, 16, 1)
        self.last = nn.Conv2d(16, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        y = self.norm(self.conv(x))
        gate = torch.sigmoid(self.up(F.relu(self.down(y.mean((2, 3), keepdim=True)))))
        return self.last(F.relu(x + y * gate))


def test_before_a_sum_the_gate_goes_into_the_layer_that_makes_the_map() -> None:
    changed, record = step("no-se", _graph(_lively(GatedResidual())), _images())
    assert "its mean in conv" in record.changes[0].what
    assert "mul" not in {node.op for node in changed.nodes}
    assert record.sqnr_db is not None and record.sqnr_db > 15.0


class PlaceGate(nn.Module):
    """Spatial attention: the factor differs from place to place."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.gate = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return x * torch.sigmoid(self.gate(x))


def test_a_gate_over_places_stays_with_its_reason() -> None:
    graph = _graph(PlaceGate())
    changed, record = step("no-se", graph, _images(4))
    assert not record.changes and str(changed) == str(graph)
    assert [left.reason for left in record.left] == ["its gate differs from place to place"]


class Depthwise(nn.Module):
    def __init__(self, kernel: int, stride: int, padding: int, dilation: int, groups: int = 8) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 1, 1)
        self.wide = nn.Conv2d(8, 16, kernel, stride, padding, dilation, groups)
        self.last = nn.Conv2d(16, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.relu(self.wide(F.relu(self.stem(x)))))


@pytest.mark.parametrize(("kernel", "padding"), [(5, 2), (7, 3), (5, 1)])
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (1, 2), (2, 2)])
def test_a_kernel_that_is_zero_outside_its_middle_shrinks_exactly(
    kernel: int, padding: int, stride: int, dilation: int
) -> None:
    torch.manual_seed(0)
    module = Depthwise(kernel, stride, padding * dilation, dilation).eval()
    edge = (kernel - 3) // 2
    with torch.no_grad():
        middle = module.wide.weight[..., edge:-edge, edge:-edge].clone()
        module.wide.weight.zero_()[..., edge:-edge, edge:-edge] = middle
    changed, record = step("3x3", _graph(module), _images(20))
    assert record.modules == ("wide",)
    with torch.no_grad():
        torch.testing.assert_close(run(changed, [_images(3)])[0], module(_images(3)), atol=1e-3, rtol=1e-3)


def test_a_fitted_kernel_is_nearer_than_the_middle_of_the_large_one() -> None:
    module = _lively(Depthwise(5, 1, 2, 1))
    images = _images(32)
    _, record = step("3x3", _graph(module), images)
    with torch.no_grad():
        meant = module(images)
        module.wide.weight[..., [0, -1], :] = 0.0
        module.wide.weight[..., :, [0, -1]] = 0.0
        cropped = 10 * torch.log10(meant.square().mean() / (module(images) - meant).square().mean())
    assert record.sqnr_db is not None and record.sqnr_db > float(cropped) + 1.0


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ((5, 1, 2, 1, 1), "5x5: every output reads several channels"),
        ((4, 1, 2, 1, 8), "4x4: an even kernel has no middle"),
        ((5, 1, 0, 1, 8), "5x5: it pads less than it would lose"),
    ],
)
def test_a_kernel_that_cannot_shrink_stays_with_its_reason(arguments: Sequence[int], reason: str) -> None:
    graph = _graph(Depthwise(*arguments))
    changed, record = step("3x3", graph, _images(4))
    assert not record.changes and str(changed) == str(graph)
    assert [left.reason for left in record.left] == [reason]


class Smooth(nn.Module):
    """Expansion, depthwise, projection, and a head, with a smooth activation behind each but the third."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.act = activation
        self.expand, self.norm = nn.Conv2d(3, 16, 1, bias=False), nn.BatchNorm2d(16)
        self.wide, self.wide_norm = nn.Conv2d(16, 16, 3, 2, 1, groups=16, bias=False), nn.BatchNorm2d(16)
        self.project, self.last_norm = nn.Conv2d(16, 8, 1, bias=False), nn.BatchNorm2d(8)
        self.hidden, self.head = nn.Linear(8, 32), nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.norm(self.expand(x)))
        x = self.act(self.wide_norm(self.wide(x)))
        x = self.last_norm(self.project(x)).mean((2, 3))
        return self.head(self.act(self.hidden(x)))


@pytest.mark.parametrize("activation", [nn.Hardswish(), nn.SiLU(), nn.Mish(), nn.GELU()])
def test_smooth_activations_become_relu6_near_their_answers(activation: nn.Module) -> None:
    changed, record = step("relu6", _graph(_lively(Smooth(activation))), _images(64))
    assert len(record.changes) == 3 and record.params_after == record.params_before
    assert [n.op for n in changed.nodes].count("relu6") == 3
    assert record.sqnr_db is not None and record.sqnr_db > 12.0


def test_written_in_pieces_it_is_the_same() -> None:
    class Pieces(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * F.relu6(x + 3.0) / 6.0

    changed, record = step("relu6", _graph(_lively(Smooth(Pieces()))), _images(64))
    assert len(record.changes) == 3 and {n.op for n in changed.nodes} & {"mul", "div"} == set()


def test_batch_norm_behind_a_refitted_layer_holds_the_statistics_of_its_sums() -> None:
    graph = _graph(_lively(Smooth(nn.Hardswish())))
    changed, _ = step("relu6", graph, _images(12))
    norm = next(n for n in changed.nodes if n.source == "last_norm")
    sums: dict[str, Tensor] = {}
    run(changed, [_images(12)], lambda v, t: sums.setdefault(v.name, t))
    made = sums[norm.inputs[0].name]  # type: ignore[union-attr]
    mean, var = (v.data for v in norm.inputs[3:])  # type: ignore[union-attr]
    torch.testing.assert_close(made.mean((0, 2, 3)), mean, atol=0.05, rtol=0.05)
    torch.testing.assert_close(made.var((0, 2, 3), unbiased=False), var, atol=0.05, rtol=0.05)


def test_the_best_ramp_of_a_ramp_is_that_ramp() -> None:
    x = torch.linspace(-4.0, 8.0, 1000, dtype=torch.float64).repeat(2, 1)
    y = torch.stack([2.0 * x[0].clamp(-4.0, 9.0) + 1.0, 3.0 * x[1].clamp_min(-4.0)])
    ramp = best_ramp(x, y)
    made = ((x - ramp.start[:, None]) / (ramp.stop - ramp.start)[:, None]).clamp(0, 1) * 6.0
    made = made * ramp.scale[:, None] + ramp.shift[:, None]
    torch.testing.assert_close(made, y, atol=0.05, rtol=0.02)


@pytest.mark.parametrize(
    ("build", "without_gates", "with_small_kernels"),
    [
        (torchvision.models.mobilenet_v3_large, 3_970_752, 3_924_288),
        (torchvision.models.mobilenet_v3_small, 2_081_216, 2_044_736),
    ],
)
def test_parameters_of_the_lite_forms(build, without_gates: int, with_small_kernels: int) -> None:
    found: Lite = lite(_graph(build(weights=None), 32), _images(1, 32), steps=("3x3", "no-se", "relu6"))
    check(found.graph)
    assert [r.params_after for r in found.record] == [without_gates, with_small_kernels, with_small_kernels]
    assert not any(record.left for record in found.record)
    placed = preflight(_int8(found.graph))
    assert placed.complete, placed.unmapped


def _int8(graph: Graph) -> bytes:
    """The .tflite file of a copy, ranges made up."""
    plain, target = graph.copy(), get_target("tflite-int8")
    passes.optimize(plain)
    qparams.annotate(plain, {v: v.range or (-1.0, 1.0) for v in rules.activations(plain)}, "int8")
    return lower(prepare(plain, target), target).data


def test_b0_becomes_lite0_with_stem_and_head_as_they_were() -> None:
    graph = _graph(torchvision.models.efficientnet_b0(weights=None), 32)
    ends = ("features.0", "features.8", "classifier")
    found = lite(graph, _images(1, 32), steps=("no-se", "relu6"), fixed=ends)
    check(found.graph)
    assert [record.params_after for record in found.record] == [4_652_008, 4_652_008]
    assert [n.source for n in found.graph.nodes if n.op == "silu"] == ["features.0.2", "features.8.2"]
    assert len(found.record[1].changes) == 15 * 2 + 1  # the first of 16 blocks expands nothing


def test_only_named_modules_are_changed() -> None:
    graph = _graph(_lively(Smooth(nn.SiLU())))
    names = [n.source for n in graph.nodes if n.op == "silu"]
    _, record = step("relu6", graph, _images(4), only=names[:1])
    assert record.modules == tuple(n for n in names if n == names[0])


def test_fixed_modules_stay() -> None:
    graph = _graph(torchvision.models.mobilenet_v3_small(weights=None), 32)
    found = lite(graph, _images(2, 32), fixed=("features.0", "features.12", "classifier"))
    held = ["features.0.2", "features.12.2", "classifier.1"]
    assert [node.source for node in found.graph.nodes if node.op == "hardswish"] == held
    with pytest.raises(UsageError, match=r"fixed 'feature.0': no module of that path"):
        lite(graph, _images(2, 32), fixed=("feature.0",))


def test_an_unknown_step_is_named() -> None:
    with pytest.raises(UsageError, match=r"'no_se' is no step.*no-se"):
        lite(_graph(Smooth(nn.SiLU())), _images(2), steps=("no_se",))


class Residual(nn.Module):
    """Two gated blocks, each added to what it reads."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3, 2, 1)
        self.blocks = nn.ModuleList(Depthwise(5, 1, 2, 1) for _ in range(2))
        for block in self.blocks:
            block.stem, block.last = nn.Conv2d(12, 8, 1), nn.Conv2d(16, 12, 1)
        self.head = nn.Conv2d(12, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = x + block(x)
        return self.head(x)


def test_a_block_meets_the_sum_and_repairs_what_the_other_part_lost() -> None:
    graph = _graph(_lively(Residual()))
    changed = graph.copy()
    first, last = (next(n for n in changed.nodes if n.source == f"blocks.{i}.last") for i in (0, 1))
    adds = [node for node in changed.nodes if node.op == "add"]
    layers = Layers(changed)
    sites = refits(changed, [layers.found[first], layers.found[last]], graph)
    for site, add in zip(sites, adds, strict=True):
        assert site.meant.name == add.output.name
        assert site.beside in add.operands and site.beside is not layers.found[site.before].out
    # Broken from outside: the stem gives a tenth too much.
    stem = next(n for n in changed.nodes if n.source == "stem").inputs[1]
    assert stem is not None and stem.data is not None
    stem.data = stem.data * 1.1
    broken = run(changed, [_images(8)])[0]
    fit_front_to_back(changed, graph, sites, [_images(48)])
    meant, mended = run(graph, [_images(8)])[0], run(changed, [_images(8)])[0]
    assert float((mended - meant).square().mean()) < 0.5 * float((broken - meant).square().mean())
