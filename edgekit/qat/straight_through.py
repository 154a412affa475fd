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


def to_codes(x: Tensor, factor: Tensor, low: float, high: float | Tensor, *, divides: bool = False) -> Tensor:
    """round(x * factor) within [low, high].

    Args:
        factor: broadcasts over x from the right; `divides` divides by it instead.
        high: a bound that moves with a scale is a tensor.
    """
    codes: Tensor = _Codes.apply(x, factor, high, low, divides)
    return codes


def rounded(x: Tensor) -> Tensor:
    """round(x), with the gradient of x."""
    return x + (x.round() - x).detach()


def weighted_sum(a: Tensor, b: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """first * a + second * b, of two plain numbers, added in one rounding as the simulation does."""
    total: Tensor = _Sum.apply(a, b, first, second)
    return total


class _Codes(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, factor: Tensor, high: float | Tensor, low: float, divides: bool
    ) -> Tensor:
        scaled = torch.div(x, factor) if divides else torch.mul(x, factor)
        ctx.save_for_backward(scaled, factor)
        ctx.low, ctx.high, ctx.divides = low, float(high), divides
        return scaled.round().clamp_(low, ctx.high)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        scaled, factor = ctx.saved_tensors
        inside = grad * ((scaled >= ctx.low) & (scaled <= ctx.high))
        to_x = to_factor = to_high = None
        if ctx.needs_input_grad[0]:
            to_x = torch.div(inside, factor) if ctx.divides else torch.mul(inside, factor)
        if ctx.needs_input_grad[1]:
            moved = (inside * scaled).sum_to_size(factor.shape) / factor
            to_factor = -moved if ctx.divides else moved
        if ctx.needs_input_grad[2]:
            to_high = (grad * (scaled > ctx.high)).sum()
        return to_x, to_factor, to_high, None, None


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
