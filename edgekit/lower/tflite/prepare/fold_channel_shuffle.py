"""Channel shuffles folded into the weights around them: no TRANSPOSE, no GATHER, the same numbers.

Concat, split, slice and shuffle only say which channel goes where. So every value they make is a list of
atoms (root value, channel), where a root is what some arithmetic produced. A convolution that reads such a
list takes its channels in any order once its weight's columns are permuted, and a root that a convolution
produced can have its channels in any order once that weight's rows are.

Each root is sorted by where its channels leave for, so that what one reader needs of it is one contiguous
run; each reader then gets the concatenation of those runs. Depthwise convolutions, activations and pooling
between carry an order along. A grouped convolution is free within its groups only. Everything else must see
the original
order: if that does not come out of few runs, the nodes that lead there are left alone. A convolution that
is read in pieces only writes them itself where that costs nothing.

    x (N, C, H, W) of the result holds, at channel i, the original's channel order[i].
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from edgekit.graph.channels import Atom, Source, carried, depthwise, placed
from edgekit.graph.ir import Graph, Node, QuantParams, Value
from edgekit.lower.tflite.prepare.split_convolution import affordable_cuts, split_convolution
from edgekit.targets import Target

MOST_RUNS = 16


def fold_channel_shuffle(graph: Graph, target: Target) -> int:
    """Rewrite every channel_shuffle that the weights around it can take in; returns how many are gone."""
    before = sum(node.op == "channel_shuffle" for node in graph.nodes)
    if not before:
        return 0
    places = {node: found for node in graph.nodes if (found := _places(node)) is not None}
    fixed: set[Node] = set()  # moving nodes that some reader's order forbids to take apart
    plan = _Plan(graph, places, fixed)
    while refused := plan.choose():
        fixed |= plan.upstream(refused)
        plan = _Plan(graph, places, fixed)
    plan.apply()
    graph.remove_dead()
    return before - sum(node.op == "channel_shuffle" for node in graph.nodes)


@dataclass
class _Run:
    """Channels [start, start + length) of a root in its new order."""

    root: Value
    start: int
    length: int


@dataclass
class _Plan:
    """atoms: what every moved or read value is made of. order: new channel i <- original channel
    order[v][i].
    """

    graph: Graph
    places: dict[Node, list[list[Source]]]
    fixed: set[Node]
    atoms: dict[Value, list[Atom]] = field(default_factory=dict)
    order: dict[Value, list[int]] = field(default_factory=dict)
    runs: dict[Value, list[_Run]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.users, self.producers = self.graph.users(), self.graph.producers()
        self.use_counts = self.graph.use_counts()
        self.moves = {n for n in self.graph.nodes if n not in self.fixed and n in self.places}
        for value in self.graph.values():
            if len(value.shape) == 4 and not value.is_constant:
                self.atoms[value] = [(value, i) for i in range(value.shape[1])]
        for node in self.graph.nodes:
            if node in self.moves:
                self._trace(node)

    def _trace(self, node: Node) -> None:
        """What a moving node makes of the atoms it reads."""
        lists = [self.atoms[v] for v in node.operands]
        for out, sources in zip(node.outputs, self.places[node], strict=True):
            self.atoms[out] = [lists[operand][channel] for operand, channel in sources]

    def is_root(self, value: Value) -> bool:
        return self.producers.get(value) not in self.moves

    # what readers demand: 0 for the original order, g for any order within each of g groups
    def freedom(self, value: Value) -> int:
        if value in self.graph.outputs:
            return 0
        readers = [node for node in self.users.get(value, []) if node not in self.moves]
        found = [self._reader_freedom(node, value) for node in readers]
        if not found:
            return 1
        if 0 in found or len({f for f in found if f > 1}) > 1:
            return 0
        return max(found)

    def _reader_freedom(self, node: Node, value: Value) -> int:
        if node.op == "conv2d" and not depthwise(node) and node.inputs.index(value) == 0:
            return node.attrs["groups"] if self._own(node.inputs[1]) else 0
        if node.op == "linear":
            return 1 if self._own(node.inputs[1]) else 0
        if self._carries(node):
            moved_on = any(user in self.moves for user in self.users.get(node.output, []))
            return 0 if moved_on else self.freedom(node.output)
        return 0

    def _carries(self, node: Node) -> bool:
        if depthwise(node):
            return self._own(node.inputs[1]) and (node.inputs[2] is None or self._own(node.inputs[2]))
        return len(node.inputs) == 1 and bool(carried(node))

    def _own(self, constant: Value | None) -> bool:
        return constant is not None and constant.is_constant and self.use_counts[constant] == 1

    def sortable(self, root: Value) -> int:
        """In how many groups the root's channels may be reordered; 0 if not at all."""
        node = self.producers.get(root)
        if node is None or node.op != "conv2d" or depthwise(node) or root in self.graph.outputs:
            return 0
        own = self._own(node.inputs[1]) and (node.inputs[2] is None or self._own(node.inputs[2]))
        direct = [n for n in self.users.get(root, []) if n not in self.moves]
        if not own or any(self._reader_freedom(n, root) != 1 for n in direct):
            return 0
        return node.attrs["groups"]

    # the plan
    def choose(self) -> list[Value]:
        """Choose orders for all roots and readers of moved channels; the readers that cannot be served."""
        read = [
            value
            for value in self.atoms
            if not self.is_root(value)
            and (value in self.graph.outputs or any(n not in self.moves for n in self.users.get(value, [])))
        ]
        leaving: dict[Atom, list[tuple[int, int]]] = {}
        for at, value in enumerate(read):
            groups = max(self.freedom(value), 1)
            width = len(self.atoms[value]) // groups
            for i, atom in enumerate(self.atoms[value]):
                leaving.setdefault(atom, []).append((at, i // width))
        place: dict[Atom, int] = {}
        for root in dict.fromkeys(atom[0] for value in read for atom in self.atoms[value]):
            channels = list(range(root.shape[1]))
            groups = self.sortable(root)
            if groups:
                width = len(channels) // groups
                channels.sort(key=lambda c: (c // width, leaving.get((root, c), []), c))
            self.order[root] = channels
            place.update({(root, c): i for i, c in enumerate(channels)})
        return [value for value in read if not self._serve(value, place)]

    def upstream(self, values: list[Value]) -> set[Node]:
        """The moving nodes these values come through."""
        found: set[Node] = set()
        waiting = list(values)
        while waiting:
            node = self.producers.get(waiting.pop())
            if node is not None and node in self.moves and node not in found:
                found.add(node)
                waiting += node.operands
        return found

    def _serve(self, value: Value, place: dict[Atom, int]) -> bool:
        atoms, groups = self.atoms[value], self.freedom(value)
        indices = list(range(len(atoms)))
        if groups:
            width = len(atoms) // groups
            count: dict[tuple[int, Value], int] = {}
            for i, (root, _) in enumerate(atoms):
                count[i // width, root] = count.get((i // width, root), 0) + 1
            first = {root: i for i, (root, _) in reversed(list(enumerate(atoms)))}
            indices.sort(
                key=lambda i: (
                    i // width,
                    count[i // width, atoms[i][0]],  # short pieces first: they are joined first
                    first[atoms[i][0]],
                    place[atoms[i]],
                )
            )
        runs: list[_Run] = []
        for i in indices:
            root, at = atoms[i][0], place[atoms[i]]
            if runs and runs[-1].root is root and runs[-1].start + runs[-1].length == at:
                runs[-1].length += 1
            else:
                runs.append(_Run(root, at, 1))
        self.order[value], self.runs[value] = indices, runs
        return len(runs) <= MOST_RUNS

    # the rewrite
    def apply(self) -> None:
        for root, order in self.order.items():
            if self.is_root(root):
                node = self.producers.get(root)
                if node is not None and order != sorted(order):
                    _permute_rows(node, order)
        for value, order in list(self.order.items()):
            if order != sorted(order):
                self._inform_readers(value, order)
        self._split_producers()
        self._rebuild()

    def _inform_readers(self, value: Value, order: list[int]) -> None:
        for node in self.users.get(value, []):
            if node in self.moves:
                continue
            if node.op == "conv2d" and not depthwise(node):
                _permute_columns(node, order, node.attrs["groups"])
            elif node.op == "linear":
                _permute_columns(node, order, 1)
            else:
                if depthwise(node):
                    _permute_rows(node, order)
                self._inform_readers(node.output, order)

    def _split_producers(self) -> None:
        """Let convolutions write the pieces that readers take, where that costs no time."""
        wanted: dict[Value, dict[int, _Run]] = {}
        every = [run for runs in self.runs.values() for run in runs]
        for run in every:
            wanted.setdefault(run.root, {})[run.start] = run
        for root, by_start in wanted.items():
            node = self.producers.get(root)
            runs = [by_start[start] for start in sorted(by_start)]
            ends = [0, *(run.start + run.length for run in runs)]
            whole = (
                all(run.start == end for run, end in zip(runs, ends, strict=False))
                and ends[-1] == root.shape[1]
            )
            direct = any(reader not in self.moves for reader in self.users.get(root, []))
            if node is None or self.sortable(root) != 1 or direct or not whole or len(runs) < 2:
                continue
            cuts = affordable_cuts([run.length for run in runs])
            if len(cuts) < 2:
                continue
            parts = split_convolution(node, cuts)
            at = self.graph.nodes.index(node)
            self.graph.nodes[at : at + 1] = parts
            last, start = parts[-1].output, root.shape[1] - cuts[-1]
            for run in every:
                if run.root is not root:
                    continue
                if run.start >= start:
                    run.root, run.start = last, run.start - start
                else:
                    part = parts[[r.start for r in runs].index(run.start)].output
                    run.root, run.start = part, 0

    def _rebuild(self) -> None:
        """Replace the moving nodes by one slice per run and one concat per reader."""
        pieces: dict[tuple[Value, int, int], Value] = {}
        taken = {value.name for value in self.graph.values()}
        nodes: list[Node] = []
        for node in self.graph.nodes:
            if node not in self.moves:
                nodes.append(node)
                continue
            for out in node.outputs:
                if out in self.runs:
                    nodes += self._gather(out, node.source, pieces, taken)
        self.graph.nodes = nodes

    def _gather(
        self, value: Value, source: str, pieces: dict[tuple[Value, int, int], Value], taken: set[str]
    ) -> list[Node]:
        nodes, parts = [], []
        for run in self.runs[value]:
            if run.length == run.root.shape[1]:
                parts.append(run.root)
                continue
            key = (run.root, run.start, run.length)
            if key not in pieces:
                name = f"{run.root.name}.{run.start}"
                while name in taken:
                    name += "_"
                taken.add(name)
                shape = (run.root.shape[0], run.length, *run.root.shape[2:])
                pieces[key] = Value(name, shape, run.root.dtype, None, run.root.range, run.root.quant)
                attrs = {"dim": 1, "start": run.start, "end": run.start + run.length, "step": 1}
                nodes.append(Node("slice", [run.root], [pieces[key]], attrs, source))
            parts.append(pieces[key])
        if len(parts) > 1:
            nodes.append(Node("concat", list(parts), [value], {"dim": 1}, source))
            return nodes
        if nodes:
            nodes[-1].outputs = [value]
            pieces[self.runs[value][0].root, self.runs[value][0].start, value.shape[1]] = value
        else:
            self.graph.replace_uses(value, parts[0])
            self._later_uses(value, parts[0])
        return nodes

    def _later_uses(self, old: Value, new: Value) -> None:
        for runs in self.runs.values():
            for run in runs:
                if run.root is old:
                    run.root = new


def _places(node: Node) -> list[list[Source]] | None:
    """Where the channels of a node that only places them came from."""
    values = [*node.operands, *node.outputs]
    if any(len(v.shape) != 4 for v in values) or len({v.quant for v in values}) != 1:
        return None
    return placed(node)


def _permute_rows(node: Node, order: list[int]) -> None:
    """Output channel i becomes what was output channel order[i]."""
    for value in node.inputs[1:3]:
        if value is None:
            continue
        assert value.data is not None
        value.data = value.data.detach()[torch.tensor(order)].contiguous()
        if value.quant is not None and value.quant.axis == 0:
            value.quant = _reordered(value.quant, order)


def _permute_columns(node: Node, order: list[int], groups: int) -> None:
    """Input channel i becomes what was order[i]; within groups, each row has its own columns."""
    weight = node.inputs[1]
    assert weight is not None and weight.data is not None
    data = weight.data.detach()
    width, rows = data.shape[1], data.shape[0] // groups
    blocks = []
    for g in range(groups):
        columns = torch.tensor([c - g * width for c in order[g * width : (g + 1) * width]])
        blocks.append(data[g * rows : (g + 1) * rows][:, columns])
    weight.data = torch.cat(blocks).contiguous()


def _reordered(quant: QuantParams, order: list[int]) -> QuantParams:
    scale = tuple(quant.scale[i] for i in order)
    return QuantParams(scale, tuple(quant.zero_point[i] for i in order), quant.dtype, quant.axis)
