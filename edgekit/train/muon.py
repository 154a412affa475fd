"""Muon: momentum whose update is orthogonalised, for weights that are matrices (Jordan et al. 2024).

A weight (out, in, kh, kw) is taken as a matrix (out, in kh kw). Every direction of the update gets the same
length, so rare directions learn as fast as common ones: in a short run on little hardware that is worth about
half the steps. Biases, normalisation, depthwise weights and the classifier stay with AdamW. torch.optim.Muon
takes matrices only, not the weights of convolutions, and multiplies in bfloat16.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

# Newton-Schulz quintic, coefficients of the reference implementation: singular values go to about 0.7..1.2
_A, _B, _C = 3.4445, -4.7750, 2.0315


def orthogonalise(matrix: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """The nearest matrix with all singular values about 1; axes after the first are one.

    Newton-Schulz multiplies X by a I + b G + c G^2, G = X X^T, again and again. All of that happens on the
    small side: the factors are gathered in G's space and meet X once, at the end.
    """
    x = matrix.flatten(1)
    tall = x.size(0) > x.size(1)
    if tall:
        x = x.T
    x = x / (x.norm() + 1e-7)
    gram = x @ x.T
    product = None
    for step in range(steps):
        factor = torch.addmm(gram, gram, gram, beta=_B, alpha=_C)
        factor.diagonal().add_(_A)
        product = factor if product is None else factor @ product
        if step < steps - 1:
            gram = factor @ gram @ factor
    x = product @ x
    return (x.T if tall else x).reshape(matrix.shape)


class Muon(torch.optim.Optimizer):
    """SGD with Nesterov momentum, orthogonalised, scaled to AdamW's usual update size, decoupled decay."""

    def __init__(
        self,
        parameters: Iterable[torch.Tensor] | Iterable[dict[str, Any]],
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.02,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            rate, momentum = group["lr"], group["momentum"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(parameter)
                average = state["momentum"].mul_(momentum).add_(parameter.grad)
                update = orthogonalise(parameter.grad + momentum * average)
                rows, columns = parameter.shape[0], parameter[0].numel()
                parameter.mul_(1.0 - rate * group["weight_decay"])
                parameter.add_(update, alpha=-rate * 0.2 * max(rows, columns) ** 0.5)
