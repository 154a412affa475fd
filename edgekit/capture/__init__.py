"""nn.Module -> Graph, through torch.export with no decompositions.

Enters: a module in eval mode and one example (1, C, H, W). Leaves: a Graph of high-level ops.
Every ATen op has one importer in aten.py; an op whose operands are all constants is simply executed, so
masks and position tables arrive as constants. In-place ops are read as plain ones; when a view of the
overwritten tensor is read later, the export is functionalised first.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

import torch
from torch import fx

from edgekit.capture import movement  # noqa: F401 (registers its importers)
from edgekit.capture.aten import IMPORTERS, Unsupported, aten
from edgekit.errors import CaptureError
from edgekit.ir import Graph, Node, Value, run

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
ASSERTIONS = {aten._assert_tensor_metadata.default}
VIEWS = {
    aten.view.default,
    aten.reshape.default,
    aten.reshape_as.default,
    aten.view_as.default,
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
    aten.expand_as.default,
    aten.flatten.using_ints,
    aten.unflatten.int,
    aten.to.dtype,
    aten.to.dtype_layout,
    aten.to.device,
    aten.type_as.default,
    operator.getitem,
}
RELATIVE_TOLERANCE = 1e-4


def capture(
    module: torch.nn.Module, example: torch.Tensor | Sequence[torch.Tensor], name: str = "model"
) -> Graph:
    """Export `module` and import it.

    Args:
        module: in eval mode; its tensors are shared with the graph, not copied.
        example: (1, C, H, W) float32, or one such tensor per input; shapes are recorded from it.
    Returns: a checked Graph whose result equals eager within 1e-4 relative, for batches of 1 and, when
        `graph.batchable`, of any N.
    Raises: CaptureError naming every operator without importer and its module, or the export's own reason.
    """
    examples = _examples(example, name)
    training = [path or "the module" for path, part in module.named_modules() if part.training]
    if training:
        raise CaptureError(f"[capture] {name} is in training mode at {training[0]}: call module.eval() first")
    with torch.no_grad():
        try:
            reference = module(*(x.clone() for x in examples))
        except Exception as error:  # the module's own code may raise anything
            shapes = ", ".join(str(tuple(x.shape)) for x in examples)
            raise CaptureError(
                f"[capture] {name} does not run on an input {shapes}: {_one_line(error)}"
            ) from error
        try:
            program = torch.export.export(module, tuple(x.clone() for x in examples))
        except Exception as error:  # torch.export raises its internals' exceptions unwrapped
            raise CaptureError(f"[capture] torch.export cannot trace {name}: {_one_line(error)}") from error
    return import_program(program, name, example, reference)


def import_program(
    program: torch.export.ExportedProgram,
    name: str,
    example: torch.Tensor | Sequence[torch.Tensor],
    reference: Any = None,
) -> Graph:
    """An ExportedProgram (from `capture` or a loaded .pt2) as a Graph; see `capture`."""
    examples = _examples(example, name)
    if _aliases_matter(program):
        program = program.run_decompositions({})
    with torch.no_grad():
        graph = Importer(program, name).graph
        if len(graph.inputs) != len(examples):
            raise CaptureError(
                f"[capture] {name} takes {len(graph.inputs)} inputs: {len(examples)} examples were given"
            )
        graph.remove_dead()
        graph.check()
        if reference is None:
            reference = program.module()(*(x.clone() for x in examples))
        _prove(graph, examples, _flatten(reference))
    return graph


def _examples(example: torch.Tensor | Sequence[torch.Tensor], name: str) -> list[torch.Tensor]:
    examples = [example] if isinstance(example, torch.Tensor) else list(example)
    for x in examples:
        if x.dtype != torch.float32 or x.ndim < 1 or x.shape[0] != 1:
            raise CaptureError(
                f"[capture] {name}: the example is {str(x.dtype).removeprefix('torch.')} {tuple(x.shape)}: "
                "shapes are recorded from one float32 image, (1, C, H, W)"
            )
    return examples


def _prove(graph: Graph, examples: list[torch.Tensor], reference: list[torch.Tensor]) -> None:
    got = run(graph, examples)
    for value, a, b in zip(graph.outputs, got, reference, strict=True):
        error = relative_error(a, b)
        if not error <= RELATIVE_TOLERANCE:
            raise CaptureError(
                f"[capture] {graph.name}: output {value.name} differs from eager by {error:.1e}: "
                f"at most {RELATIVE_TOLERANCE:.0e} relative; is it random or stateful in eval mode?"
            )
    graph.batchable = find_batchable(graph, examples, got)


def find_batchable(graph: Graph, examples: list[torch.Tensor], got: list[torch.Tensor]) -> bool:
    """Does a batch of two answer for its second image what `got` says of it alone?"""
    # The companion differs from the example, or mixing two images of a batch would go unseen.
    batches = [torch.cat([x + torch.linspace(-1, 1, x.numel()).reshape(x.shape), x]) for x in examples]
    graph.batchable = True  # or `run` would split the batch
    try:
        return all(
            tuple(p.shape) == (2, *a.shape[1:]) and relative_error(p[1:], a) <= RELATIVE_TOLERANCE
            for p, a in zip(run(graph, batches), got, strict=True)
        ) and all(bool(a.any()) for a in got)  # zeros (an untrained head) would prove nothing
    except RuntimeError:
        return False


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


def _chain(node: fx.Node, targets: Collection[Any]) -> list[fx.Node]:
    """`node`, the tensor it is a view of (by one of `targets`, or in place), and so on to the owner."""
    chain = [node]
    while node.op == "call_function" and (node.target in targets or _is_inplace(node)):
        if not node.args or not isinstance(node.args[0], fx.Node):
            break
        node = node.args[0]
        chain.append(node)
    return chain


def _root(node: fx.Node, targets: Collection[Any]) -> fx.Node:
    return _chain(node, targets)[-1]


def _disjoint(a: fx.Node, b: fx.Node) -> bool:
    """Do `a` and `b` stand on different pieces of one split?"""
    above_a, above_b = _chain(a, VIEWS | IDENTITY)[::-1], _chain(b, VIEWS | IDENTITY)[::-1]
    x, y = next(((x, y) for x, y in zip(above_a, above_b, strict=False) if x is not y), (a, b))
    return bool(x.target is y.target is operator.getitem and x.args[1] != y.args[1])


def _aliases_matter(program: torch.export.ExportedProgram) -> bool:
    """Is some tensor overwritten in place while another view of its memory, made before, is read later?

    The importer renames the overwritten tensor itself; ops on constants are executed, aliases and all.
    """
    nodes = list(program.graph.nodes)
    order = {node: i for i, node in enumerate(nodes)}
    inputs = set(program.graph_signature.user_inputs)
    constant: set[fx.Node] = set()
    families: dict[fx.Node, list[fx.Node]] = {}
    for node in nodes:
        families.setdefault(_root(node, VIEWS | IDENTITY), []).append(node)
        if node.op == "placeholder":
            fixed = node.name not in inputs
        else:
            fixed = node.target in CREATORS or all(arg in constant for arg in node.all_input_nodes)
        if fixed:
            constant.add(node)
    for node in nodes:
        if not _is_inplace(node) or node.target in IDENTITY or node in constant:
            continue
        written = _root(node, SAME)
        for relative in families[_root(node, VIEWS | IDENTITY)]:
            if order[relative] >= order[node] or _root(relative, SAME) is written:
                continue
            if _disjoint(relative, written):
                continue
            if any(order[user] > order[node] for user in relative.users):
                return True
    return False


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
        missing: dict[str, list[str]] = {}
        for node in program.graph.nodes:
            self.node = node
            if node.op == "placeholder":
                self.env[node] = placeholders[node.name]
            elif node.op == "get_attr":
                self.env[node] = operator.attrgetter(str(node.target))(program.graph_module)
            elif node.op == "output":
                leaves = [self.env[leaf] for leaf in _outputs(program, node)]
                self.graph.outputs = [self.value(x) for x in leaves if not isinstance(x, _Missing)]
            else:
                self.source = _module_path(node)
                self._call(node, missing)
        if missing:
            listing = "; ".join(f"{what} at {_places(where)}" for what, where in sorted(missing.items()))
            raise CaptureError(f"[capture] {name}: cannot import {listing}")

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

    def _call(self, node: fx.Node, missing: dict[str, list[str]]) -> None:
        args: Any = fx.node.map_arg(node.args, self.env.__getitem__)
        kwargs: Any = fx.node.map_arg(node.kwargs, self.env.__getitem__)
        leaves = [
            x for x in torch.utils._pytree.tree_leaves((args, kwargs)) if isinstance(x, Value | _Missing)
        ]
        known = node.target in IMPORTERS or node.target in SAME | COPIES | {operator.getitem}
        if any(isinstance(x, _Missing) for x in leaves):
            if not known:
                missing.setdefault(str(node.target), []).append(self.source)
            self.env[node] = _MISSING
        elif node.target is operator.getitem:
            self.env[node] = args[0][args[1]]
        elif node.target in ASSERTIONS:
            self.env[node] = None
        elif node.target in SAME or (node.target in COPIES and leaves):
            self.env[node] = args[0]
        elif node.target in CREATORS:
            like = node.meta["val"]
            self.env[node] = CREATORS[node.target](like.shape, args)
        elif not leaves:
            self.env[node] = node.target(*_private(args, node), **_host(kwargs))  # type: ignore[operator]
        elif node.target in IMPORTERS:
            try:
                self.env[node] = IMPORTERS[node.target](self, *args, **_host(kwargs))
            except Unsupported as reason:
                missing.setdefault(str(reason), []).append(self.source)
                self.env[node] = _MISSING
                return
            if _is_inplace(node) and isinstance(node.args[0], fx.Node):
                self._rebind(node.args[0], args[0], self.env[node])
        else:
            missing.setdefault(str(node.target), []).append(self.source)
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
    if _is_inplace(node) and _root(node, VIEWS | SAME).op in ("placeholder", "get_attr"):
        where = _module_path(node) or "the module"
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
    names = list(dict.fromkeys(path or "top level" for path in paths))
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


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
