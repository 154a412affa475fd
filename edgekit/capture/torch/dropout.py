"""What a module does at random in training: dropout, stochastic depth, dropout within attention.

Exported in eval mode, a layer of dropout leaves an operator, which `training=True` imports. Stochastic depth
leaves none, and attention's own dropout a probability of 0: `as_trained` makes the export show them.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode

from edgekit.capture.torch.registry import aten, importer
from edgekit.graph.ir import Value

if TYPE_CHECKING:
    from edgekit.capture.builder import Builder

MODES = {
    aten.dropout.default: "element",
    aten.dropout_.default: "element",
    aten.feature_dropout.default: "channel",
    aten.feature_dropout_.default: "channel",
    aten.alpha_dropout.default: "alpha",
    aten.feature_alpha_dropout.default: "alpha channel",
}
_PROBABILITIES = ("drop_prob", "p")
_ROWS = 512  # of the probe


def _importer(overload: Any, mode: str) -> None:
    def fn(imp: Builder, x: Value, p: float, train: bool) -> Value:
        whole = imp.stochastic.get(imp.source)
        imp.leaf = imp.leaf or whole is not None
        return imp.emit("dropout", (x,), x.shape, p=float(p), mode=whole or mode) if p > 0 else x

    importer(overload)(fn)


for _overload, _mode in MODES.items():
    _importer(_overload, _mode)


@contextmanager
def as_trained(module: nn.Module, examples: list[torch.Tensor]) -> Iterator[dict[str, str]]:
    """The module as its export is to see it; it is as before afterwards.

    Yields: the path of each layer of stochastic depth -> "row" or "batch".
    """
    depth = {path: mode for path, part in module.named_modules() if (mode := _stochastic(part))}
    flagged = [part for part in _attending(module, examples) if _drops(part)]
    flagged += [part for part in module.modules() if _caches(part) and part not in flagged]
    for path in depth:
        part = module.get_submodule(path)
        part.forward = _Marked(_probability(part))
    for part in flagged:
        part.training = True  # of this module alone: what it asks is its own flag
    try:
        yield depth
    finally:
        for path in depth:
            del module.get_submodule(path).forward
        for part in flagged:
            part.training = False


class _Marked:
    """Stands in for the forward of stochastic depth in an export."""

    def __init__(self, p: float) -> None:
        self.p = p

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return F.dropout(x, self.p, False)


def _probability(part: nn.Module) -> float:
    found = [getattr(part, name, None) for name in _PROBABILITIES]
    return next((p for p in found if isinstance(p, float) and 0 < p < 1), 0.0)


def _stochastic(part: nn.Module) -> str:
    """ "row" or "batch" for a layer of stochastic depth, by what it does to ones; nothing for another."""
    p = _probability(part)
    plain = next(part.parameters(), next(part.buffers(), next(part.children(), None))) is None
    if not p or not plain or type(part).__module__.startswith("torch.nn.") or "forward" in vars(part):
        return ""
    x = torch.ones(_ROWS, 2, 1, 1)
    try:
        if part(x) is not x:
            return ""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            trained = copy.copy(part)
            trained.training = True
            rows = [trained(x.clone()) for _ in range(8)]
    except Exception:  # a layer of something else that the module's author wrote
        return ""
    scaled = x / (1.0 - p)
    if not all(y.shape == x.shape and bool(((y == 0) | (y - scaled).abs().lt(1e-5)).all()) for y in rows):
        return ""
    if all(bool((y == y[0, 0, 0, 0]).all()) for y in rows) and getattr(part, "mode", "batch") == "batch":
        return "batch"
    return "row" if all(bool((y[:, :1] == y).all()) for y in rows) else ""


class _Watch(TorchFunctionMode):
    """Which modules call attention, by the innermost that runs."""

    def __init__(self) -> None:
        super().__init__()
        self.running: list[nn.Module] = []
        self.found: dict[nn.Module, None] = {}

    def leave(self) -> None:
        self.running.pop()

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is F.scaled_dot_product_attention and self.running:
            self.found[self.running[-1]] = None
        return func(*args, **(kwargs or {}))


def _attending(module: nn.Module, examples: list[torch.Tensor]) -> list[nn.Module]:
    """The modules whose own code attends."""
    own = [part for part in module.modules() if isinstance(part, nn.MultiheadAttention)]
    watch = _Watch()
    hooks = []
    for part in module.modules():
        hooks.append(part.register_forward_pre_hook(lambda part, _args: watch.running.append(part)))
        hooks.append(part.register_forward_hook(lambda *_: watch.leave(), always_call=True))
    try:
        with torch.no_grad(), watch:
            module(*(x.clone() for x in examples))
    finally:
        for hook in hooks:
            hook.remove()
    return list(dict.fromkeys([*own, *watch.found]))


def _caches(part: nn.Module) -> bool:
    """Whether a module keeps tensors that it computed, as attention biases are kept in eval mode."""
    own = [x for name, x in vars(part).items() if not name.startswith("_") and isinstance(x, dict)]
    return any(isinstance(x, torch.Tensor) for cache in own for x in cache.values())


def _drops(part: nn.Module) -> bool:
    """Whether a module, or a layer of its own, has a probability."""
    if any(isinstance(child, nn.Dropout) and child.p > 0 for child in part.children()):
        return True
    return any("drop" in name and isinstance(x, float) and x > 0 for name, x in vars(part).items())
