"""How constants follow from parameters, recorded as they are computed and replayed as nodes.

An operator on parameters alone is executed by the importer, and importers reshape and cut constants
themselves. Under `Record` every such result remembers its operator and arguments. When a result becomes a
constant of the program, its operators go through their importers once more, into `Graph.derivations`. What
they cannot express, or do not compute to the same numbers, stays a constant.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from edgekit.capture.builder import Builder, Unsupported
from edgekit.capture.torch.fx import IDENTITY, aten
from edgekit.capture.torch.registry import IMPORTERS
from edgekit.errors import GraphError
from edgekit.graph.derivations import derive, equal
from edgekit.graph.ir import Node, Value

_SAME = IDENTITY | {aten._to_copy.default, aten.detach.default}


@dataclass(eq=False)
class Made:
    """A tensor out of parameters: one itself (`op` is None), or a result of an operator."""

    result: torch.Tensor
    op: Any = None
    args: Any = ()
    kwargs: Any = None
    source: str = ""
    which: int | None = None  # of an operator with several results


class Record(TorchDispatchMode):
    """Remembers every floating result of operators on parameters; `source` says in which module."""

    def __init__(self, source: Callable[[], str]) -> None:
        super().__init__()
        self.source = source
        self.made: dict[int, Made] = {}

    def parameter(self, tensor: torch.Tensor) -> None:
        self.made[id(tensor)] = Made(tensor)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        self.note(func, args, kwargs or {}, result)
        return result

    def note(self, func: Any, args: Any, kwargs: dict[str, Any], result: Any) -> None:
        """That `func` gave `result` of these arguments."""
        given = pytree.tree_map(self._known, (args, kwargs))
        if not any(isinstance(x, Made) for x in pytree.tree_leaves(given)):
            return
        several = isinstance(result, tuple | list)
        for i, tensor in enumerate(result if several else [result]):
            if isinstance(tensor, torch.Tensor) and tensor.is_floating_point():
                which = i if several else None
                self.made[id(tensor)] = Made(tensor, func, given[0], given[1], self.source(), which)

    def _known(self, x: Any) -> Any:
        return self.made.get(id(x), x) if isinstance(x, torch.Tensor) else x


class Replay:
    """Made tensors as values of `imp`, their nodes in the order in which they are computed."""

    def __init__(self, imp: Builder) -> None:
        self.imp = imp
        self.values: dict[Made, Any] = {}

    def constant(self, made: Made, value: Value) -> Value | None:
        """`value`, a constant with the numbers of `made`, as the result of derivations; None if that fails.

        What turns out to be a parameter itself, its copy or the whole of it, is that parameter.
        """
        imp, nodes = self.imp, self.imp.graph.nodes
        before = (imp.source, imp.leaf, imp.meta, imp.args)
        derivations: list[Node] = []
        imp.graph.nodes, imp.leaf = derivations, False
        known = dict(self.values)
        try:
            found = self._value(made)
            if isinstance(found, Value) and found.is_constant and not derivations:
                assert found.data is not None
                return found if equal(found.data, made.result) else None
            whole = [*imp.graph.derivations, *derivations]
            node = next((node for node in derivations if found in node.outputs), None)
            if node is None or not equal(derive(whole, _stored)[found], made.result):
                self.values = known
                return None
        except (Unsupported, GraphError, RuntimeError, NotImplementedError, TypeError, AttributeError):
            self.values = known  # an importer of results that meets a parameter in a constant's place
            return None
        finally:
            imp.graph.nodes = nodes
            imp.source, imp.leaf, imp.meta, imp.args = before
        node.outputs = [value if out is found else out for out in node.outputs]
        for other in derivations:
            other.inputs = [value if v is found else v for v in other.inputs]
        self.values = {key: value if x is found else x for key, x in self.values.items()}
        imp.graph.derivations += derivations
        return value

    def _value(self, made: Made) -> Any:
        if made not in self.values:
            self.values[made] = self._computed(made)
        return self.values[made]

    def _computed(self, made: Made) -> Any:
        imp = self.imp
        if made.op is None:
            return imp.value(made.result)
        args, kwargs = pytree.tree_map(
            lambda x: self._value(x) if isinstance(x, Made) else x, (made.args, made.kwargs)
        )
        if made.op in _SAME:
            return args[0]
        if made.op is operator.getitem:
            return args[0][args[1]]
        if made.op not in IMPORTERS:
            raise Unsupported(str(made.op))
        imp.source, imp.meta, imp.args = made.source, made.result, made.args
        result = IMPORTERS[made.op](imp, *args, **kwargs)
        return result if made.which is None else result[made.which]


def _stored(value: Value) -> torch.Tensor:
    assert value.data is not None, value
    return value.data
