"""What an exported fx node is: a view, a copy, an op in place, and which module it came from."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Collection
from pathlib import PurePath
from typing import Any

import torch
from torch import fx

aten = torch.ops.aten

SAME = {  # in eval mode the result is the very tensor that went in
    aten.dropout.default,
    aten.dropout_.default,
    aten.feature_dropout.default,
    aten.feature_dropout_.default,
    aten.alpha_dropout.default,
    aten.feature_alpha_dropout.default,
    aten.alias.default,
    aten.detach.default,
    aten.detach_.default,
}
COPIES = {  # equal numbers, memory of its own (contiguous: perhaps)
    aten.contiguous.default,
    aten.clone.default,
    aten.lift_fresh_copy.default,
}
IDENTITY = SAME | COPIES
_FRAME = re.compile(r'\s*File "(.+)", line (\d+)')
_GUARDS = (
    "_assert",
    "sym_constrain",
    "_functional_assert",
    "_functional_sym_constrain",
    "sym_size",
    "_check",
)


def is_inplace(node: fx.Node) -> bool:
    return node.op == "call_function" and getattr(node.target, "__name__", "").split(".")[0].endswith("_")


def chain(node: fx.Node, targets: Collection[Any]) -> list[fx.Node]:
    """`node`, the tensor it is a view of (by one of `targets`, or in place), and so on to the owner."""
    chain = [node]
    while node.op == "call_function" and (node.target in targets or is_inplace(node)):
        if not node.args or not isinstance(node.args[0], fx.Node):
            break
        node = node.args[0]
        chain.append(node)
    return chain


def root(node: fx.Node, targets: Collection[Any]) -> fx.Node:
    return chain(node, targets)[-1]


def module_path(node: fx.Node) -> str:
    stack = node.meta.get("nn_module_stack") or {}
    return str(list(stack.values())[-1][0]) if stack else ""


def is_leaf(node: fx.Node) -> bool:
    """Did the op come from a torch.nn layer of its own (then the module path alone names it)?"""
    stack = node.meta.get("nn_module_stack") or {}
    kind = str(list(stack.values())[-1][1]) if stack else ""
    return kind.startswith("torch.nn.modules.") and not kind.endswith(("Sequential", "MultiheadAttention"))


def user_line(node: fx.Node) -> str:
    """file.py:line of the model's own code that called the operator, where the export remembers it."""
    for line in reversed((node.meta.get("stack_trace") or "").splitlines()):
        found = _FRAME.match(line)
        if found and not is_library(found[1]):
            return f"{PurePath(found[1]).name}:{found[2]}"
    return ""


def is_library(path: str) -> bool:
    """Does a source file belong to torch or to this package?"""
    return any(part in PurePath(path).parts for part in ("torch", "edgekit")) or path.startswith("<")


def is_assertion(node: fx.Node) -> bool:
    """Torch's own guards, which compute nothing; a size they ask for is known here."""
    name = getattr(node.target, "__name__", str(node.target))
    return name.startswith(_GUARDS) or node.target in (operator.ge, operator.le, operator.gt, operator.lt)


CREATORS: dict[Any, Callable[[Any, Any], torch.Tensor]] = {
    aten.new_zeros.default: lambda shape, _args: torch.zeros(tuple(shape)),
    aten.new_ones.default: lambda shape, _args: torch.ones(tuple(shape)),
    aten.new_full.default: lambda shape, args: torch.full(tuple(shape), args[2]),
    aten.zeros_like.default: lambda shape, _args: torch.zeros(tuple(shape)),
    aten.ones_like.default: lambda shape, _args: torch.ones(tuple(shape)),
}
