"""Expansion and depthwise as one dense layer: exact where it can be, fitted elsewhere, left with a reason."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edgekit.capture import capture
from edgekit.graph.check import check
from edgekit.graph.ir import Graph
from edgekit.graph.run import run
from edgekit.surgery import step

Tensor = torch.Tensor


def _images(count: int, side: int = 20) -> Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(1))


class Inverted(nn.Module):
    """Expansion, activation, depthwise, projection."""

    def __init__(
        self, between: nn.Module, *, stride: int = 1, padding: int = 1, norm: bool = True, bias: bool = False
    ) -> None:
        super().__init__()

        def after(channels: int) -> nn.Module:
            return nn.BatchNorm2d(channels) if norm else nn.Identity()

        self.expand, self.norm = nn.Conv2d(3, 12, 1, bias=bias), after(12)
        self.between = between
        self.wide = nn.Conv2d(12, 12, 3, stride, padding, groups=12, bias=bias)
        self.wide_norm = after(12)
        self.project = nn.Conv2d(12, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.between(self.norm(self.expand(x)))
        return self.project(torch.relu(self.wide_norm(self.wide(x))))


def _graph(module: nn.Module) -> Graph:
    torch.manual_seed(0)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, std=0.3)
            part.running_mean.normal_(std=0.2)  # type: ignore[union-attr]
            part.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
    return capture(module.eval(), torch.zeros(1, 3, 20, 20))


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("stride", [1, 2])
def test_without_an_activation_between_one_layer_is_the_same(norm: bool, bias: bool, stride: int) -> None:
    module = Inverted(nn.Identity(), stride=stride, padding=0, norm=norm, bias=bias)
    changed, record = step("fuse", _graph(module), _images(20))
    assert record.modules == ("wide",)
    check(changed)
    assert [n.op for n in changed.nodes].count("conv2d") == 2
    with torch.no_grad():
        torch.testing.assert_close(run(changed, [_images(3)])[0], module(_images(3)), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.ReLU6(), nn.Hardswish(), nn.SiLU()])
def test_over_an_activation_it_is_the_best_dense_layer(activation: nn.Module) -> None:
    graph = _graph(Inverted(activation))
    changed, record = step("fuse", graph, _images(64))
    assert record.macs_after > record.macs_before
    assert [n.op for n in changed.nodes] == ["conv2d", "batch_norm", "relu", "conv2d"]
    assert record.sqnr_db is not None and record.sqnr_db > 8.0


def test_what_is_read_elsewhere_stays_with_its_reason() -> None:
    class Tapped(Inverted):
        def forward(self, x: Tensor) -> Tensor:
            y = self.between(self.norm(self.expand(x)))
            return self.project(self.wide_norm(self.wide(y)) + y)

    _, record = step("fuse", _graph(Tapped(nn.ReLU())), _images(4))
    assert not record.changes
    assert [left.reason for left in record.left] == [
        "what comes between expansion and depthwise is read elsewhere too"
    ]


def test_relu6_follows_on_a_fused_layer() -> None:
    graph = _graph(Inverted(nn.Hardswish()))
    fused, _ = step("fuse", graph, _images(32))
    changed, record = step("relu6", fused, _images(32), reference=graph)
    assert not record.changes and not {n.op for n in changed.nodes} & {"hardswish"}
