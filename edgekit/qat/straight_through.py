"""Rounding that gradients pass through: integer codes forward, as the simulation computes them, and backward
what the real numbers behind them would give.

A value's real number is scale * code. Inside the range a gradient reaches the number as if nothing were
rounded, and the scale by the rounding error (LSQ, Esser et al. 2020, https://arxiv.org/abs/1902.08153);
outside it reaches the scale alone, by the code it is clamped to.
"""

from __future__ import annotations

from typing import Any

import torch

Tensor = torch.Tensor


def to_codes(
    x: Tensor,
    factor: Tensor,
    low: float,
    high: float | Tensor,
    *,
    divides: bool = False,
    gain: Tensor | None = None,
) -> Tensor:
    """round(x * factor) within [low, high].

    Args:
        factor: broadcasts over x from the right; `divides` divides by it instead.
        high: a bound that moves with a scale is a tensor.
        gain: a plain number whose logarithm is in the factor already, where that one takes no gradient: one
            sum over everything instead of one a channel.
    """
    codes: Tensor = _Codes.apply(x, factor, high, gain, low, divides)
    return codes


def to_reals(codes: Tensor, scale: Tensor) -> Tensor:
    """codes * scale, of a plain number."""
    reals: Tensor = _Reals.apply(codes, scale)
    return reals


def rounded(x: Tensor) -> Tensor:
    """round(x), with the gradient of x."""
    return x + (x.round() - x).detach()


def weighted_sum(a: Tensor, b: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """first * a + second * b, of two plain numbers, added in one rounding as the simulation does."""
    total: Tensor = _Sum.apply(a, b, first, second)
    return total


_EDGE = 1e-3  # what lies on a bound is inside


class _Codes(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        factor: Tensor,
        high: float | Tensor,
        gain: Tensor | None,
        low: float,
        divides: bool,
    ) -> Tensor:
        scaled = torch.div(x, factor) if divides else torch.mul(x, factor)
        ctx.save_for_backward(scaled, factor)
        ctx.low, ctx.high, ctx.divides = low, float(high), divides
        return scaled.round().clamp_(low, ctx.high)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        scaled, factor = ctx.saved_tensors
        needs = ctx.needs_input_grad
        inside = torch.ops.aten.hardtanh_backward(grad, scaled, ctx.low - _EDGE, ctx.high + _EDGE)
        to_x = to_factor = to_high = to_gain = None
        if needs[1]:
            plain = factor.numel() == 1
            moved = _dot(inside, scaled) if plain else (inside * scaled).sum_to_size(factor.shape)
            moved = moved.reshape(factor.shape) / factor
            to_factor = -moved if ctx.divides else moved
        if needs[2]:
            to_high = (grad * (scaled > ctx.high)).sum()
        if needs[3]:
            to_gain = _dot(inside, scaled)
        if needs[0]:
            to_x = inside.div_(factor) if ctx.divides else inside.mul_(factor)
        return to_x, to_factor, to_high, to_gain, None, None


class _Reals(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, codes: Tensor, scale: Tensor) -> Tensor:
        ctx.save_for_backward(codes, scale)
        return codes * scale

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        codes, scale = ctx.saved_tensors
        needs = ctx.needs_input_grad
        return grad * scale if needs[0] else None, _dot(grad, codes) if needs[1] else None


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """The sum of products, without a tensor of them where both lie in memory alike."""
    dense = a.is_contiguous() or a.is_contiguous(memory_format=torch.channels_last)
    if not dense or a.stride() != b.stride() or a.shape != b.shape:
        return (a * b).sum()
    return torch.dot(a.as_strided((a.numel(),), (1,)), b.as_strided((b.numel(),), (1,)))


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, first: Tensor, second: Tensor) -> Tensor:
        ctx.save_for_backward(a, b, first, second)
        return torch.add(a * float(first), b, alpha=float(second))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        a, b, first, second = ctx.saved_tensors
        needs = ctx.needs_input_grad
        return (
            (grad * first).sum_to_size(a.shape) if needs[0] else None,
            (grad * second).sum_to_size(b.shape) if needs[1] else None,
            (grad * a).sum().to(first.dtype) if needs[2] else None,
            (grad * b).sum().to(second.dtype) if needs[3] else None,
        )
