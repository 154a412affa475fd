"""Every fact of a row against what the row's function does: a forgotten one fails here."""

from __future__ import annotations

import ast
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from test_ops import CASES

import edgekit
from edgekit.errors import GraphError
from edgekit.graph.check import check
from edgekit.graph.ir import Graph, Node, Value
from edgekit.graph.ops import ACTIVATIONS, EVERYTHING, MOVES, OPS, Fixed, Free, Op, op
from edgekit.graph.run import run_node

Tensor = torch.Tensor


def _cases(op: str) -> list[tuple[list[Tensor | None], dict[str, Any]]]:
    return [(inputs, attrs) for name, inputs, attrs, _ in CASES.values() if name == op]


def _run(op: str, inputs: list[Tensor | None], attrs: dict[str, Any]) -> tuple[Tensor, ...]:
    return run_node(Node(op, [], [], attrs), inputs)


def _results(row: Op) -> slice:
    """Which inputs are results of the graph, not parameters."""
    return slice(0, 1) if row.channels in ("scale", "weigh", "along", "normalize") else slice(None)


@pytest.mark.parametrize("name", OPS)
def test_numbers_that_only_move(name: str) -> None:
    """Where every number of the output occurs in an input the row says so, and nowhere else.

    `where` chooses as well, but its operands keep grids of their own: the condition is no number of them.
    """
    moves = []
    for inputs, attrs in _cases(name):
        known = {float(x) for t in inputs if t is not None for x in t.flatten()} | {attrs.get("value", 0.0)}
        filled = known if name == "pad" else known - {0.0}
        moves.append(all(float(x) in filled for t in _run(name, inputs, attrs) for x in t.flatten()))
    assert all(moves) == (OPS[name].movement is not None or name == "where")


@pytest.mark.parametrize("name", OPS)
def test_homogeneous(name: str) -> None:
    row, holds = OPS[name], []
    for inputs, attrs in _cases(name):
        largest = max(float(t.abs().max()) for t in inputs if t is not None)
        once, twice = list(inputs), list(inputs)
        for i in range(len(inputs))[_results(row)]:
            if inputs[i] is not None:
                once[i], twice[i] = inputs[i] / largest * 2.9, inputs[i] / largest * 5.8
        pairs = zip(_run(name, once, attrs), _run(name, twice, attrs), strict=True)
        holds.append(all(torch.allclose(2 * a, b, rtol=1e-4, atol=1e-5) for a, b in pairs))
    assert all(holds) == row.homogeneous


@pytest.mark.parametrize("name", [name for name, row in OPS.items() if isinstance(row.ranges, Fixed)])
def test_fixed_ranges_hold_far_out_and_are_reached(name: str) -> None:
    ranges = OPS[name].ranges
    assert isinstance(ranges, Fixed)
    ((inputs, attrs),) = _cases(name)
    found = _run(name, [None if t is None else t * 50 for t in inputs], attrs)[0]
    assert ranges.low <= float(found.min()) and float(found.max()) <= ranges.high
    assert float(found.max()) > ranges.high - 0.2


@pytest.mark.parametrize("name", [name for name, row in OPS.items() if row.channels == "pass"])
def test_bounded_functions_say_so(name: str) -> None:
    """A function that stays within [-1, 1] and comes near has a fixed range; whose row says none has none."""
    for _, attrs in _cases(name):
        found = _run(name, [torch.linspace(-60, 60, 4001)], attrs)[0].nan_to_num(nan=0.0, posinf=1e9)
        bounded = float(found.abs().max()) <= 1.0
        assert bounded == isinstance(OPS[name].ranges, Fixed)


@pytest.mark.parametrize("name", [name for name, row in OPS.items() if row.channels == "pass"])
def test_what_readers_cannot_tell_apart(name: str) -> None:
    x = torch.linspace(-20, 20, 2001)
    low, high = OPS[name].reads
    for _, attrs in _cases(name):
        at_the_bound, beyond = _run(name, [x.clamp(low, high)], attrs)[0], _run(name, [x], attrs)[0]
        # half a step of an int8 output in [0, 1]
        assert torch.allclose(at_the_bound, beyond, atol=0.5 / 255, rtol=0, equal_nan=True)


@pytest.mark.parametrize("name", [name for name, row in OPS.items() if row.turns is not None])
def test_functions_that_turn_once(name: str) -> None:
    """Falling before the place that the row names, rising behind."""
    at = OPS[name].turns
    assert at is not None and OPS[name].channels == "pass"
    x = torch.linspace(-6, 6, 2401, dtype=torch.float64)
    for _, attrs in _cases(name):
        y = _run(name, [x], attrs if math.isinf(at) else {})[0]
        falls, rises = y[x <= at].diff(), y[x >= at].diff()
        assert not (falls > 0).any() and not (rises < 0).any()
        if not math.isinf(at):
            near = _run(name, [torch.tensor([at - 1e-3, at, at + 1e-3], dtype=torch.float64)], {})[0]
            assert near[1] < near[0] and near[1] < near[2] and len(falls) and len(rises)


@pytest.mark.parametrize("name", OPS)
def test_channels(name: str) -> None:
    row = OPS[name]
    for inputs, attrs in _cases(name):
        x = inputs[0]
        assert x is not None
        if row.channels == "move":
            ids = [
                torch.arange(t.numel()).view(t.shape) + 1000 * i
                for i, t in enumerate(inputs)
                if t is not None
            ]
            moved = _run(name, ids, {**attrs, "value": 0} if "value" in attrs else attrs)  # type: ignore[arg-type]
            assert all(t.dtype == torch.int64 for t in moved)
            continue
        other = x.clone()
        other[:, 1] = other[:, 1] * 0.5 - 0.3
        changed = [
            (a != b).flatten(2).any(2).any(0)
            for a, b in zip(_run(name, inputs, attrs), _run(name, [other, *inputs[1:]], attrs), strict=True)
            if a.ndim > 2
        ]
        if row.channels in ("pass", "window", "join", "scale"):
            assert all(bool(c[1]) and not bool(c[0]) and not bool(c[2:].any()) for c in changed)
        if row.channels in ("pass", "join", "scale"):
            assert all(t.shape == x.shape for t in _run(name, inputs, attrs))
    if row.channels == "reduce":
        kept = _run(name, [torch.rand(2, 3, 4, 5)], {"dims": (2, 3), "keepdim": True})[0]
        assert kept.shape == (2, 3, 1, 1)


@pytest.mark.parametrize("name", [name for name, row in OPS.items() if row.dtypes != "floats"])
def test_dtypes(name: str) -> None:
    row = OPS[name]
    for inputs, attrs in _cases(name):
        kinds = (torch.int64, torch.bool) if row.dtypes == "any" else (torch.int64,)
        for dtype in kinds if attrs.get("mode") != "reflect" else ():
            cast = [None if t is None else (t * 10).to(dtype) for t in inputs]
            given = {**attrs, "value": 0} if "value" in attrs else attrs
            assert all(t.dtype == dtype for t in _run(name, cast, given))


def test_an_op_that_reads_a_type_it_cannot_compute_in_is_refused() -> None:
    for name, dtype, accepted in (("sigmoid", "int64", "floats"), ("relu", "bool", "numbers")):
        x = Value("x", (1, 3), dtype)
        graph = Graph([x], [], [Node(name, [x], [Value("y", (1, 3))], {}, "head")])
        graph.outputs = [graph.nodes[0].output]
        with pytest.raises(GraphError, match=rf"{name} at head reads %x, which is {dtype}: takes {accepted}"):
            check(graph)


@pytest.mark.parametrize("name", [name for name, row in OPS.items() if row.fuses_activation])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_fused_activations(name: str, activation: str) -> None:
    for inputs, attrs in _cases(name):
        plain = _run(name, inputs, {k: v for k, v in attrs.items() if k != "activation"})[0]
        fused = _run(name, inputs, {**attrs, "activation": activation})[0]
        assert torch.equal(fused, ACTIVATIONS[activation](plain))


def test_multiply_adds_of_small_products() -> None:
    conv, up, linear, matmul = (OPS[op].macs for op in ("conv2d", "conv_transpose2d", "linear", "matmul"))
    assert conv and up and linear and matmul
    assert conv([(1, 4, 5, 6), (8, 2, 3, 3)], (1, 8, 5, 6)) == 8 * 5 * 6 * 2 * 9
    assert up([(1, 4, 5, 6), (4, 3, 2, 2)], (1, 3, 10, 12)) == 4 * 5 * 6 * 3 * 4
    assert linear([(1, 7, 16), (10, 16)], (1, 7, 10)) == 7 * 10 * 16
    assert matmul([(1, 3, 4, 5), (1, 3, 5, 6)], (1, 3, 4, 6)) == 3 * 4 * 5 * 6


def test_a_row_that_contradicts_itself_or_says_too_little_is_refused() -> None:
    relu, conv = OPS["relu"], OPS["conv2d"]
    for row, change in (
        (relu, {"movement": "place"}),
        (conv, {"weight_axis": None}),
        (conv, {"macs": None}),
        (relu, {"channels": "reduce"}),
        (relu, {"layout": "nhwc"}),
        (relu, {"dtypes": "int8"}),
    ):
        with pytest.raises(GraphError, match=row.name):
            replace(row, **change)
    for missing in ("channels", "ranges", "layout", "dtypes"):
        facts = {"channels": "pass", "ranges": Free(), "layout": "any", "dtypes": "floats"}
        del facts[missing]
        with pytest.raises(TypeError, match=missing):
            op(**facts)


# Where tables of op names may stand outside the rows, and why.
TABLES = {
    "capture": "importers: the source's operators, each with the op it becomes",
    "passes/fold_scale.py": "the three operations it folds, each in its own way",
    "quantize/simulate.py": "a function for each op it computes on codes",
    "qat/module.py": "the same functions as simulate's, with gradients",
    "verify/integers.py": "the second opinion shares nothing",
    "prune/moves.py": "a function for each op it moves the names of channels by",
    "report/charts.py": "operators of files, drawn without torch",
}


def _collections(tree: ast.AST) -> Iterator[tuple[int, set[str]]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Set | ast.Tuple | ast.List):
            items: list[Any] = list(node.elts)
        elif isinstance(node, ast.Dict):
            items = list(node.keys)
        elif isinstance(node, ast.MatchOr):
            items = [part.value for part in node.patterns if isinstance(part, ast.MatchValue)]
        else:
            continue
        names = {item.value for item in items if isinstance(item, ast.Constant)} & set(OPS)
        if len(names) > 2:
            yield node.lineno, names


def test_no_table_of_op_names_stands_beside_the_rows() -> None:
    package = Path(edgekit.__file__).parent
    found = []
    for path in package.rglob("*.py"):
        place = path.relative_to(package).as_posix()
        if place.startswith("graph/ops/") or any(place.startswith(known) for known in TABLES):
            continue
        tables = _collections(ast.parse(path.read_text()))
        found += [f"{place}:{line}: {sorted(names)}" for line, names in tables]
    assert not found, "facts about ops belong in their rows, edgekit/graph/ops: " + "; ".join(found)


@pytest.mark.parametrize("name", sorted(name for name in OPS if OPS[name].sums))
def test_what_sums_is_linear_in_all_of_its_operands(name: str) -> None:
    """f(4x) = 4f(x), of a product 16f(x): nothing is computed that integers cannot."""
    assert name not in MOVES and not OPS[name].macs
    for inputs, attrs in _cases(name):
        plain = {key: None if key == "activation" else value for key, value in attrs.items()}
        (once,) = _run(name, inputs, plain)
        (scaled,) = _run(name, [None if x is None else 4.0 * x for x in inputs], plain)
        assert any(torch.allclose(scaled, factor * once) for factor in (4.0, 16.0))


def test_intervals_are_intervals() -> None:
    assert (-math.inf, math.inf) == EVERYTHING
    assert all(row.reads[0] < row.reads[1] for row in OPS.values())
