"""Parameters and MACs of a module.

Convention: a MAC is one multiply-add. Convolutions, linear layers and matrix products (attention included)
are counted; normalisation, activations, pooling, resizing, element-wise arithmetic and bias additions are
not. Tables elsewhere often say FLOPs for the same number.
"""

from __future__ import annotations

import warnings

import torch
from torch import nn


def count_parameters(module: nn.Module) -> int:
    """Trainable numbers; batch norm's running statistics are not among them."""
    return sum(p.numel() for p in module.parameters())


def count_macs(module: nn.Module, shape: tuple[int, ...]) -> int:
    """Multiply-adds of one forward pass, counted on the operators torch really runs.

    Args:
        module: on any device; on the meta device nothing is computed.
        shape: of the input, (N, C, H, W).
    """
    from torch.utils.flop_counter import FlopCounterMode

    device = next(module.parameters()).device
    module.eval()
    # With gradients on, nn.MultiheadAttention does not take its fused path, which has no formula.
    with warnings.catch_warnings(), FlopCounterMode(display=False) as counter, torch.enable_grad():
        warnings.simplefilter("ignore")
        module(torch.zeros(shape, device=device))
    return counter.get_total_flops() // 2
