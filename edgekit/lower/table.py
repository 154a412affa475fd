"""What every format's lowering shares: registering a function, and refusing what it cannot lower.

Enters: a format's own tables, op -> lowering and op -> check. Leaves: nothing, or an error that names all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from edgekit.errors import GraphError, UnsupportedError, UsageError
from edgekit.graph.ir import Graph, Node
from edgekit.targets import Target

Check = Callable[[Node, Target], str | None]
Lowering = TypeVar("Lowering", bound=Callable[..., Any])


def op_name(fn: Callable[..., Any]) -> str:
    """The op a lowering is named after."""
    return fn.__name__.rstrip("_")


def register(
    fn: Lowering, lowerings: dict[str, Lowering], checks: dict[str, Check], check: Check | None
) -> Lowering:
    """Enter `fn` as the lowering of the op it is named after. Raises: GraphError for a second one."""
    name = op_name(fn)
    if name in lowerings:
        raise GraphError(f"[lower] {name!r} is registered twice")
    lowerings[name] = fn
    if check:
        checks[name] = check
    return fn


def unsupported(
    graph: Graph, target: Target, lowerings: Mapping[str, Any], checks: Mapping[str, Check]
) -> list[str]:
    """One line for every node that cannot be lowered, with its module and what would be accepted."""
    lines = []
    for node in graph.nodes:
        where = f"cannot lower {node.op!r} at {node.source or 'top level'}"
        if node.op not in lowerings:
            lines.append(where)
        elif node.op in checks and (reason := checks[node.op](node, target)):
            lines.append(f"{where} ({reason})")
    return lines


def refuse(lines: list[str], target: Target) -> None:
    """Raises: UnsupportedError with all lines, if there are any."""
    if lines:
        raise UnsupportedError(f"{target.name}: {'; '.join(dict.fromkeys(lines))}")


def checked_io(target: Target, asked: str | None) -> str:
    """The type of inputs and outputs, the target's own when None. Raises: UsageError for one it lacks."""
    io_dtype = asked or target.io_dtypes[0]
    if io_dtype not in target.io_dtypes:
        raise UsageError(
            f"[target] {io_dtype!r} is no input type of {target.name}: one of {', '.join(target.io_dtypes)}"
        )
    return io_dtype
