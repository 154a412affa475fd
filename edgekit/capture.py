"""nn.Module -> Graph, through torch.export with no decompositions.

Enters: a module in eval mode and one example (1, C, H, W). Leaves: a Graph of high-level ops.
Every ATen op has one importer in capture_aten; an op whose operands are all constants is simply executed, so
masks and position tables arrive as constants. In-place ops are read as plain ones; when a view of the
overwritten tensor is read later, the export is functionalised first.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import fx

from edgekit.capture_aten import IMPORTERS, aten
from edgekit.errors import CaptureError
from edgekit.ir import Graph, Node, Value, run

IDENTITY = {
    aten.dropout.default,
    aten.dropout_.default,
    aten.feature_dropout.default,
    aten.alias.default,
    aten.contiguous.default,
    aten.clone.default,
    aten.detach.default,
    aten.detach_.default,
    aten.lift_fresh_copy.default,
}
VIEWS = {
    aten.view.default,
    aten.reshape.default,
    aten.transpose.int,
    aten.permute.default,
    aten.chunk.default,
    aten.split.Tensor,
    aten.split_with_sizes.default,
    aten.slice.Tensor,
    aten.select.int,
    aten.unbind.int,
    aten.unsqueeze.default,
    aten.squeeze.dim,
    aten.squeeze.dims,
    aten.squeeze.default,
    aten.expand.default,
    aten.flatten.using_ints,
    aten.unflatten.int,
    aten.contiguous.default,
    aten.alias.default,
    operator.getitem,
}
RELATIVE_TOLERANCE = 1e-4


def capture(module: torch.nn.Module, example: torch.Tensor, name: str = "model") -> Graph:
    """Export `module` and import it.

    Args:
        module: in eval mode; its tensors are shared with the graph, not copied.
        example: (1, C, H, W) float32; shapes are recorded from it.
    Returns: a checked Graph whose result equals eager within 1e-4 relative, for batches of 1 and, when
        `graph.batchable`, of any N.
    Raises: CaptureError naming every operator without importer and its module, or the export's own reason.
    """
    if module.training:
        raise CaptureError(f"[capture] {name} is in training mode: call module.eval() first")
    with torch.inference_mode():
        try:
            reference = module(example)
        except (RuntimeError, ValueError, TypeError, AssertionError) as error:
            raise CaptureError(
                f"[capture] {name} does not run on an input {tuple(example.shape)}: {_one_line(error)}"
            ) from error
    try:
        with torch.no_grad():
            program = torch.export.export(module, (example,))
    except Exception as error:  # torch.export raises its internals' exceptions unwrapped
        raise CaptureError(f"[capture] torch.export cannot trace {name}: {_one_line(error)}") from error
    return import_program(program, name, example, reference)


def import_program(
    program: torch.export.ExportedProgram, name: str, example: torch.Tensor, reference: Any = None
) -> Graph:
    """An ExportedProgram (from `capture` or a loaded .pt2) as a Graph; see `capture`."""
    if _aliases_matter(program.graph):
        program = program.run_decompositions({})
    with torch.no_grad():
        graph = Importer(program, name).graph
    graph.remove_dead()
    graph.check()
    if reference is None:
        with torch.inference_mode():
            reference = program.module()(example)
    _prove(graph, example, _flatten(reference))
    return graph


def _prove(graph: Graph, example: torch.Tensor, reference: list[torch.Tensor]) -> None:
    with torch.inference_mode():
        got = run(graph, [example])
        for value, a, b in zip(graph.outputs, got, reference, strict=True):
            error = relative_error(a, b)
            if a.shape != b.shape or not error <= RELATIVE_TOLERANCE:
                raise CaptureError(
                    f"[capture] {graph.name}: output {value.name} differs from eager by {error:.1e}: "
                    f"at most {RELATIVE_TOLERANCE:.0e} relative; is it random or stateful in eval mode?"
                )
        try:
            pair = run(graph, [torch.cat([example, example])])
            graph.batchable = all(
                p.shape == (2, *a.shape[1:]) and relative_error(p[1:], a) <= RELATIVE_TOLERANCE
                for p, a in zip(pair, got, strict=True)
            )
        except RuntimeError:
            graph.batchable = False


def relative_error(a: torch.Tensor, b: torch.Tensor) -> float:
    """max |a - b| / max |b|; infinite when shapes differ."""
    if a.shape != b.shape:
        return float("inf")
    return float((a - b).abs().max() / b.abs().max().clamp_min(1e-12)) if b.numel() else 0.0


def _flatten(result: Any) -> list[torch.Tensor]:
    return [leaf for leaf in torch.utils._pytree.tree_leaves(result) if isinstance(leaf, torch.Tensor)]


def _one_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]


def _is_inplace(node: fx.Node) -> bool:
    return node.op == "call_function" and getattr(node.target, "__name__", "").split(".")[0].endswith("_")


def _aliases_matter(graph: fx.Graph) -> bool:
    """Is some tensor overwritten in place while a view of it, or what it is a view of, is read later?"""
    order = {node: i for i, node in enumerate(graph.nodes)}
    for node in graph.nodes:
        if not _is_inplace(node) or node.target in IDENTITY or not isinstance(node.args[0], fx.Node):
            continue
        written = node.args[0]
        relatives: list[fx.Node] = [user for user in written.users if user.target in VIEWS]
        base = written
        while base.op == "call_function" and base.target in VIEWS and isinstance(base.args[0], fx.Node):
            base = base.args[0]
            relatives.append(base)
        if any(order[user] > order[node] for r in relatives for user in r.users if user is not node):
            return base.op != "get_attr" and not _constant_chain(base)
    return False


def _constant_chain(node: fx.Node) -> bool:
    """True for tensors made inside the program (new_zeros ...): those are executed, aliases and all."""
    return node.op == "call_function" and node.target in CREATORS


class Importer:
    """Walks the exported fx graph once; `env` holds a Value, a tensor (constant) or a tuple of them."""

    def __init__(self, program: torch.export.ExportedProgram, name: str) -> None:
        self.graph = Graph([], [], [], name)
        self.env: dict[fx.Node, Any] = {}
        self.names: set[str] = set()
        self.constants: dict[int, Value] = {}
        self.constant_names: dict[int, str] = {}
        self.keep_alive: list[torch.Tensor] = []
        self.source = ""
        self.node: fx.Node
        placeholders = self._bind(program)
        missing: dict[str, str] = {}
        for node in program.graph.nodes:
            self.node = node
            if node.op == "placeholder":
                self.env[node] = placeholders[node.name]
            elif node.op == "get_attr":
                self.env[node] = operator.attrgetter(str(node.target))(program.graph_module)
            elif node.op == "output":
                leaves = _outputs(program, node)
                self.graph.outputs = [self.value(self.env[leaf]) for leaf in leaves]
            else:
                self.source = _module_path(node)
                self._call(node, missing)
        if missing:
            listing = "; ".join(f"{op} at {where or 'top level'}" for op, where in sorted(missing.items()))
            raise CaptureError(f"[capture] {name}: no importer for {listing}")

    def _bind(self, program: torch.export.ExportedProgram) -> dict[str, Any]:
        bound: dict[str, Any] = {}
        kinds = torch.export.graph_signature.InputKind
        for spec in program.graph_signature.input_specs:
            if spec.kind == kinds.USER_INPUT:
                bound[spec.arg.name] = None
                continue
            assert spec.target is not None
            state = program.state_dict if spec.target in program.state_dict else program.constants
            tensor = state[spec.target]
            assert isinstance(tensor, torch.Tensor)
            bound[spec.arg.name] = tensor = tensor.detach()
            self.constant_names.setdefault(id(tensor), spec.target)
            self.keep_alive.append(tensor)
        for node in program.graph.nodes:
            if node.op == "placeholder" and bound.get(node.name, 0) is None:
                meta = node.meta["val"]
                value = Value(self._name("input" if not self.graph.inputs else node.name), tuple(meta.shape))
                bound[node.name] = value
                self.graph.inputs.append(value)
        return bound

    def _call(self, node: fx.Node, missing: dict[str, str]) -> None:
        args = fx.node.map_arg(node.args, self.env.__getitem__)
        kwargs = fx.node.map_arg(node.kwargs, self.env.__getitem__)
        leaves = [
            x for x in torch.utils._pytree.tree_leaves((args, kwargs)) if isinstance(x, Value | _Missing)
        ]
        if any(isinstance(x, _Missing) for x in leaves):
            self.env[node] = _MISSING
        elif node.target is operator.getitem:
            self.env[node] = args[0][args[1]]
        elif node.target in IDENTITY:
            self.env[node] = args[0]
        elif node.target in CREATORS:
            like = node.meta["val"]
            self.env[node] = CREATORS[node.target](like.shape, args)
        elif not leaves:
            self.env[node] = node.target(*_private(args, node), **_host(kwargs))  # type: ignore[operator]
        elif node.target in IMPORTERS:
            self.env[node] = IMPORTERS[node.target](self, *args, **_host(kwargs))
            if _is_inplace(node) and isinstance(node.args[0], fx.Node):
                self._rebind(node.args[0], args[0], self.env[node])
        else:
            missing.setdefault(str(node.target), self.source)
            self.env[node] = _MISSING

    def _rebind(self, written: fx.Node, old: Any, new: Any) -> None:
        """After x.relu_(), every name of the same tensor means the new value."""
        for node, value in self.env.items():
            if value is old:
                self.env[node] = new

    # what importers use
    def _name(self, stem: str) -> str:
        stem = stem or "model"
        name, i = stem, 0
        while name in self.names:
            i += 1
            name = f"{stem}_{i}"
        self.names.add(name)
        return name

    def value(self, x: Any) -> Value:
        """A Value for a Value, tensor or number; the same tensor gives the same constant."""
        if isinstance(x, Value):
            return x
        if not isinstance(x, torch.Tensor):
            x = torch.tensor(x, dtype=torch.float32)
        if id(x) not in self.constants:
            name = self._name(self.constant_names.get(id(x), f"{self.source or 'model'}/constant"))
            data = x.detach()
            data = data.float() if data.is_floating_point() else data
            self.constants[id(x)] = Value(name, tuple(x.shape), str(data.dtype).removeprefix("torch."), data)
            self.keep_alive.append(x)
        return self.constants[id(x)]

    def emit(
        self, op: str, inputs: Iterable[Any], dims: Iterable[int] | None = None, /, **attrs: Any
    ) -> Value:
        """Append a node with one output, by default of the fx node's own shape."""
        if dims is None:
            dims = self.node.meta["val"].shape
        return self.emit_many(op, inputs, [dims], **attrs)[0]

    def emit_many(
        self, op: str, inputs: Iterable[Any], shapes: Iterable[Iterable[int]], /, **attrs: Any
    ) -> list[Value]:
        values = [None if x is None else self.value(x) for x in inputs]
        leaf = self.node.meta.get("edgekit_leaf", False) or _is_leaf(self.node)
        stem = self.source if leaf and self.source else "/".join(filter(None, (self.source, op)))
        outputs = [Value(self._name(stem), tuple(int(d) for d in shape)) for shape in shapes]
        self.graph.nodes.append(Node(op, values, outputs, attrs, self.source))
        return outputs


class _Missing:
    pass


_MISSING = _Missing()


def _private(args: Any, node: fx.Node) -> Any:
    """Constants that an in-place op is about to overwrite must not be the user's own parameters."""
    if _is_inplace(node) and isinstance(args[0], torch.Tensor) and isinstance(node.args[0], fx.Node):
        base = node.args[0]
        while base.op == "call_function" and base.target in VIEWS and isinstance(base.args[0], fx.Node):
            base = base.args[0]
        if base.op in ("placeholder", "get_attr"):
            raise CaptureError(
                f"[capture] {_module_path(node)} overwrites a buffer in eval mode: make it functional"
            )
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
        if spec.kind == kinds.USER_OUTPUT and leaf is not None
    ]


def _module_path(node: fx.Node) -> str:
    stack = node.meta.get("nn_module_stack") or {}
    return str(list(stack.values())[-1][0]) if stack else ""


def _is_leaf(node: fx.Node) -> bool:
    """Did the op come from a torch.nn layer of its own (then the module path alone names it)?"""
    stack = node.meta.get("nn_module_stack") or {}
    kind = str(list(stack.values())[-1][1]) if stack else ""
    return kind.startswith("torch.nn.modules.") and not kind.endswith(("Sequential", "MultiheadAttention"))


CREATORS: dict[Any, Callable[[Any, Any], torch.Tensor]] = {
    aten.new_zeros.default: lambda shape, _args: torch.zeros(tuple(shape)),
    aten.new_ones.default: lambda shape, _args: torch.ones(tuple(shape)),
    aten.new_full.default: lambda shape, args: torch.full(tuple(shape), args[2]),
    aten.zeros_like.default: lambda shape, _args: torch.zeros(tuple(shape)),
    aten.ones_like.default: lambda shape, _args: torch.ones(tuple(shape)),
}
