"""Adam that counts in steps of integers, and the freezing of weights that oscillate between two of them.

A rate is the share of a parameter's own unit that one update moves it by at most: of a weight its channel's
step, of a bias its output's, of a scale's logarithm 1. Layers and channels whose steps differ a hundredfold
then learn alike, however calibration equalized them.

A weight whose gradient wants the middle between two integers jumps from one to the other for ever, which
changes a depthwise channel's output each time. One that turns back too often is set to the integer it was at
most and stays there (Nagel et al. 2022, https://arxiv.org/abs/2203.11086).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch

Tensor = torch.Tensor
Grid = Callable[[], Tensor]
_MEMORY = 0.02  # of the oscillation's averages, for each step


class AdamInUnits(torch.optim.Optimizer):
    """Adam (Kingma and Ba 2015) on parameters measured in their units.

    Args:
        groups: of "params", with "peak", the highest rate, and "freezes": how often a weight may turn back,
            as a share of the steps, before it stays; 0 for ever.
        units: the size of a unit, broadcasting over its parameter; 1 where there is none.
        grids: what gives the present step of a weight that may be frozen.
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        units: Mapping[torch.nn.Parameter, Tensor],
        grids: Mapping[torch.nn.Parameter, Grid] | None = None,
        betas: tuple[float, float] = (0.9, 0.99),
    ) -> None:
        super().__init__(groups, {"lr": 0.0, "betas": betas, "eps": 1e-8, "freezes": 0.0})
        self.units, self.grids = units, grids or {}

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update of everything that has a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, group)

    def _move(self, parameter: torch.nn.Parameter, group: Mapping[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["step"] = 0
            state["mean"], state["square"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        unit = self.units.get(parameter)
        assert parameter.grad is not None
        grad = parameter.grad if unit is None else parameter.grad * unit.to(parameter.device)
        state["step"] += 1
        first, second = group["betas"]
        state["mean"].lerp_(grad, 1.0 - first)
        state["square"].mul_(second).addcmul_(grad, grad, value=1.0 - second)
        size = (state["square"] / (1.0 - second ** state["step"])).sqrt_().add_(group["eps"])
        move = state["mean"] / size * (group["lr"] / (1.0 - first ** state["step"]))
        parameter.sub_(move if unit is None else move * unit.to(parameter.device))
        if group["freezes"] > 0 and parameter in self.grids:
            _hold(parameter, self.grids[parameter](), state, group["freezes"])


def _hold(parameter: Tensor, grid: Tensor, state: dict[str, Any], most: float) -> None:
    """Follow how often each weight turns back, and keep those that do too often."""
    codes = torch.round(parameter / grid)
    if "codes" not in state:
        zeros = torch.zeros_like(parameter)
        state |= {"codes": codes, "turned": zeros, "often": zeros.clone(), "usual": codes.clone()}
        state["frozen"] = torch.zeros_like(parameter, dtype=torch.bool)
    went = torch.sign(codes - state["codes"])
    back = (went * state["turned"] < 0).to(parameter.dtype)
    state["often"].lerp_(back, _MEMORY)
    state["usual"].lerp_(codes, _MEMORY)
    state["turned"] = torch.where(went != 0, went, state["turned"])
    newly = (state["often"] > most) & ~state["frozen"]
    kept = torch.where(state["frozen"], state["codes"], torch.round(state["usual"]))
    state["frozen"] |= newly
    parameter.copy_(torch.where(state["frozen"], kept * grid, parameter))
    state["codes"] = torch.where(state["frozen"], kept, codes)
