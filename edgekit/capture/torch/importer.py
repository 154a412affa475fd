"""An exported program -> Graph: every fx node through its importer, constants executed."""

from __future__ import annotations

import contextlib
import operator
from typing import Any

import torch
from torch import fx
from torch.utils._python_dispatch import _disable_current_modes

from edgekit.capture.builder import Builder, Unsupported
from edgekit.capture.quantized import Quantized
from edgekit.capture.torch import (  # noqa: F401 (each registers its importers)
    activation,
    comparison,
    convolution,
    dropout,
    elementwise,
    indexing,
    movement,
    normalization,
    pooling,
    products,
    quantized,
    recurrent,
    reduction,
    resize,
)
from edgekit.capture.torch.aliases import VIEWS
from edgekit.capture.torch.derived import Record, Replay
from edgekit.capture.torch.fx import (
    COPIES,
    CREATORS,
    SAME,
    is_assertion,
    is_inplace,
    is_leaf,
    module_path,
    root,
    user_line,
)
from edgekit.capture.torch.registry import IMPORTERS
from edgekit.errors import CaptureError, GraphError
from edgekit.graph.ir import QuantParams, Value


class Importer(Builder):
    """Walks the exported fx graph once; `env` holds a Value, a tensor (constant) or a tuple of them."""

    def __init__(
        self,
        program: torch.export.ExportedProgram,
        name: str,
        module: torch.nn.Module | None = None,
        training: bool = False,
        stochastic: dict[str, str] | None = None,
    ) -> None:
        """module: what was exported, where it is at hand; the momentum of its batch norms is read there.

        stochastic: see `Builder`.
        """
        super().__init__(name, training)
        self.stochastic = stochastic or {}
        self.record = Record(lambda: self.source)
        self.replay = Replay(self)
        self.module = module
        self.state = program.state_dict
        self.env: dict[fx.Node, Any] = {}
        self.parameters: dict[int, QuantParams] = {}
        self.node: fx.Node
        placeholders = self._bind(program)
        missing: dict[str, list[str]] = {}
        with self.record if training else contextlib.nullcontext():
            self._walk(program, placeholders, missing)
        if missing:
            listing = "; ".join(f"{what} at {_places(where)}" for what, where in sorted(missing.items()))
            raise CaptureError(f"[capture] {name}: cannot import {listing}")

    def _walk(
        self,
        program: torch.export.ExportedProgram,
        placeholders: dict[str, Any],
        missing: dict[str, list[str]],
    ) -> None:
        for node in program.graph.nodes:
            self.node = node
            if node.op == "placeholder":
                self.env[node] = placeholders[node.name]
            elif node.op == "get_attr":
                self.env[node] = operator.attrgetter(str(node.target))(program.graph_module)
            elif node.op == "output":
                leaves = [self.env[leaf] for leaf in _outputs(program, node)]
                # integers that leave the model stand for the real numbers that the graph answers
                answers = [x.value if isinstance(x, Quantized) else x for x in leaves]
                self.graph.outputs = [self.value(x) for x in answers if not isinstance(x, _Missing)]
            else:
                self.source = module_path(node)
                self.leaf = node.meta.get("edgekit_leaf", False) or is_leaf(node)
                self.meta, self.args = node.meta.get("val"), node.args
                self._call(node, missing)

    def _bind(self, program: torch.export.ExportedProgram) -> dict[str, Any]:
        bound: dict[str, Any] = {}
        first: dict[int, torch.Tensor] = {}
        kinds = torch.export.graph_signature.InputKind
        for spec in program.graph_signature.input_specs:
            if spec.kind == kinds.USER_INPUT:
                bound[spec.arg.name] = None
                continue
            assert spec.target is not None
            state = program.state_dict if spec.target in program.state_dict else program.constants
            tensor = state[spec.target]
            assert isinstance(tensor, torch.Tensor)
            if self.training and id(tensor) in first:  # a shared parameter is one, under its first name
                bound[spec.arg.name] = first[id(tensor)]
                continue
            first[id(tensor)] = bound[spec.arg.name] = detached = tensor.detach()
            self.constant_names.setdefault(id(detached), spec.target)
            self.kinds[id(detached)] = _kind(spec, tensor)
            if self.training and self.kinds[id(detached)] == "parameter":
                self.record.parameter(detached)
            self.keep_alive.append(detached)
        for node in program.graph.nodes:
            if node.op == "placeholder" and bound.get(node.name, 0) is None:
                meta = node.meta["val"]
                value = Value(self.name("input" if not self.graph.inputs else node.name), tuple(meta.shape))
                bound[node.name] = value
                self.graph.inputs.append(value)
        return bound

    def norm_facts(self, mean: torch.Tensor | None, momentum: float) -> dict[str, Any]:
        """The program, traced in eval mode, says 0 where the layer says None: the mean of all batches."""
        if not self.training:
            return {}
        path = self.constant_names.get(id(mean), "").rpartition(".")[0]
        found: Any = momentum or None
        if self.module is not None and path:
            found = getattr(self.module.get_submodule(path), "momentum", found)
        batches = self.state.get(f"{path}.num_batches_tracked")
        return {
            "momentum": found if found is None else float(found),
            "batches": 0 if batches is None else int(batches),
        }

    def _call(self, node: fx.Node, missing: dict[str, list[str]]) -> None:
        args: Any = fx.node.map_arg(node.args, self.env.__getitem__)
        kwargs: Any = fx.node.map_arg(node.kwargs, self.env.__getitem__)
        leaves = [
            x
            for x in torch.utils._pytree.tree_leaves((args, kwargs))
            if isinstance(x, Value | Quantized | _Missing)
        ]
        known = node.target in IMPORTERS or node.target in SAME | COPIES | {operator.getitem}
        if any(isinstance(x, _Missing) for x in leaves):
            if not known and not is_assertion(node):
                self._lacks(node, missing)
            self.env[node] = _MISSING
        elif node.target is operator.getitem:
            self.env[node] = args[0][args[1]]
        elif is_assertion(node):
            self.env[node] = None
        elif (node.target in SAME and not self._at_random(node, leaves)) or (
            node.target in COPIES and leaves
        ):
            self.env[node] = args[0]
        elif node.target in CREATORS:
            like = node.meta["val"]
            self.env[node] = CREATORS[node.target](like.shape, args)
        elif not leaves:
            self.env[node] = self._executed(node, _private(args, node), _host(kwargs))
            if node.target in quantized.CONSTANTS:
                self._remember(self.env[node], node, args, missing)
        elif any(isinstance(x, Quantized) for x in leaves) and not quantized.reads_integers(node.target):
            missing.setdefault(f"{node.target} of integers", []).append(self._where(node))
            self.env[node] = _MISSING
        elif node.target in IMPORTERS:
            try:
                self.env[node] = IMPORTERS[node.target](self, *args, **_host(kwargs))
            except (Unsupported, GraphError) as reason:
                missing.setdefault(str(reason), []).append(self._where(node))
                self.env[node] = _MISSING
                return
            if is_inplace(node) and isinstance(node.args[0], fx.Node):
                self._rebind(node.args[0], args[0], self.env[node])
        else:
            self._lacks(node, missing)
            self.env[node] = _MISSING

    def _at_random(self, node: fx.Node, leaves: list[Any]) -> bool:
        return self.training and bool(leaves) and node.target in dropout.MODES

    def _executed(self, node: fx.Node, args: Any, kwargs: dict[str, Any]) -> Any:
        """The result of an operator on constants, recorded under the name that has an importer."""
        target: Any = node.target
        if not self.training:
            return target(*args, **kwargs)
        with _disable_current_modes():
            result = target(*args, **kwargs)
        self.record.note(target, args, kwargs, result)
        return result

    def _remember(self, made: torch.Tensor, node: fx.Node, args: Any, missing: dict[str, list[str]]) -> None:
        """The parameters of the integers that a constant came out of; a bias has those that follow."""
        if made.ndim < 2:
            return
        try:
            self.parameters[id(made)] = quantized.CONSTANTS[node.target](args)
            self.keep_alive.append(made)
        except Unsupported as reason:
            missing.setdefault(str(reason), []).append(self._where(node))

    def value(self, x: Any) -> Value:
        """As a Builder's; a constant that follows from parameters is derived from them, one that was made of
        integers has their parameters.
        """
        known = not self.training or isinstance(x, Value) or id(x) in self.constants
        found = super().value(x)
        found.quant = self.parameters.get(id(x), found.quant)
        made = None if known else self.record.made.get(id(x))
        if made is None or made.op is None or (derived := self.replay.constant(made, found)) is None:
            return found
        if derived is found:
            found.kind = "parameter"
        self.constants[id(x)] = derived
        return derived

    def _lacks(self, node: fx.Node, missing: dict[str, list[str]]) -> None:
        name = str(getattr(node.target, "name", lambda: node.target)()).removeprefix("aten::")
        known = DATA_DEPENDENT.get(name.partition(".")[0])
        what = f"{node.target} ({known})" if known else str(node.target)
        missing.setdefault(what, []).append(self._where(node))

    def _where(self, node: fx.Node) -> str:
        line = user_line(node)
        return f"{self.source or 'top level'}{f' ({line})' if line else ''}"

    def _rebind(self, written: fx.Node, old: Any, new: Any) -> None:
        """After x.relu_(), every name of the same tensor means the new value."""
        for node, value in self.env.items():
            if value is old:
                self.env[node] = new


# What makes shapes or numbers of the graph depend on the picture, and what to write instead.
_FIXED = "its result's shape depends on the picture: write it with torch.where"
DATA_DEPENDENT = {
    "item": "a Python number out of a tensor: keep it a tensor",
    "_local_scalar_dense": "a Python number out of a tensor: keep it a tensor",
    "nonzero": _FIXED,
    "nonzero_numpy": _FIXED,
    "masked_select": _FIXED,
    "_unique2": _FIXED,
    "unique_dim": _FIXED,
    "bincount": _FIXED,
}


def _kind(spec: Any, tensor: torch.Tensor) -> str:
    """What a tensor of the program is to training, see `Value.kind`."""
    kinds = torch.export.graph_signature.InputKind
    if spec.kind == kinds.PARAMETER:
        return "parameter" if tensor.requires_grad else "frozen"
    return "buffer" if spec.kind == kinds.BUFFER and spec.persistent else "constant"


class _Missing:
    pass


_MISSING = _Missing()


def _private(args: Any, node: fx.Node) -> Any:
    """Constants that an in-place op is about to overwrite must not be the user's own parameters."""
    if is_inplace(node) and root(node, VIEWS | SAME).op in ("placeholder", "get_attr"):
        where = module_path(node) or "the module"
        raise CaptureError(f"[capture] {where} overwrites a buffer in eval mode: make it functional")
    return args


def _host(kwargs: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in kwargs.items() if k not in ("device", "pin_memory", "layout")}


def _outputs(program: torch.export.ExportedProgram, node: fx.Node) -> list[fx.Node]:
    kinds = torch.export.graph_signature.OutputKind
    specs = program.graph_signature.output_specs
    leaves = list(node.args[0])  # type: ignore[arg-type]
    return [
        leaf
        for leaf, spec in zip(leaves, specs, strict=True)
        if spec.kind == kinds.USER_OUTPUT and isinstance(leaf, fx.Node)
    ]


def _places(paths: list[str]) -> str:
    names = list(dict.fromkeys(paths))
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
