"""Optimizers for the parameters that learn, each group with its own highest rate.

Every group carries `peak`; at each step its rate is the schedule's value times that. Biases and norms do not
decay. Rates by depth are geometric: the first layer has `rates` times the last one's.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from torch import nn

from edgekit.train.layers import depths, matrices
from edgekit.train.muon import Muon
from edgekit.train.settings import Settings

# Muon's update has AdamW's usual size; from fresh weights several times AdamW's rate is best.
MUON_TIMES = 7.5
_LARGEST_SIDE = 768  # of the smaller side: its cube is what a step costs


def depth_factor(depth: float, rates: float) -> float:
    """The rate of a layer at `depth` in 0..1 as a share of the last one's."""
    return rates ** (1.0 - depth)


def make_optimizers(
    module: nn.Module, learning: dict[str, nn.Parameter], settings: Settings
) -> list[torch.optim.Optimizer]:
    """One optimizer, two for muon; the rates of their groups are set by `set_rates`."""
    depth = depths(module)
    orthogonal = _matrices(learning, module) if settings.optimizer == "muon" else set()
    main: dict[tuple[float, bool], list[nn.Parameter]] = defaultdict(list)
    muon: dict[float, list[nn.Parameter]] = defaultdict(list)
    for name, parameter in learning.items():
        share = depth_factor(depth.get(name, 1.0), settings.rates)
        if name in orthogonal:
            muon[share].append(parameter)
        else:
            main[share, parameter.ndim > 1].append(parameter)
    groups: list[dict[str, Any]] = [
        {
            "params": parameters,
            "peak": settings.rate * share,
            "weight_decay": settings.weight_decay if decays else 0.0,
        }
        for (share, decays), parameters in main.items()
    ]
    found: list[torch.optim.Optimizer] = []
    if muon:
        rows = [{"params": p, "peak": settings.rate * MUON_TIMES * share} for share, p in muon.items()]
        found.append(Muon(rows, 0.0, settings.momentum, settings.weight_decay))
    if groups and settings.optimizer == "sgd":
        nesterov = settings.momentum > 0
        found.append(torch.optim.SGD(groups, lr=0.0, momentum=settings.momentum, nesterov=nesterov))
    elif groups:
        found.append(torch.optim.AdamW(groups, lr=0.0, betas=(settings.momentum, 0.98)))
    return found


def set_rates(optimizers: list[torch.optim.Optimizer], share: float) -> None:
    """Every group learns at `share` of its highest rate."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = share * group["peak"]


def _matrices(learning: dict[str, nn.Parameter], module: nn.Module) -> set[str]:
    """The weights that Muon takes: matrices whose smaller side is not too large."""
    sides = {name: min(learning[name].flatten(1).shape) for name in matrices(module) & set(learning)}
    return {name for name, side in sides.items() if side <= _LARGEST_SIDE}
