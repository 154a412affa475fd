from __future__ import annotations

import json
import subprocess
import sys
import weakref
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from graphs import chain, noise, outputs
from safetensors.torch import load_file, save_file

from edgekit.errors import ArtifactError, GraphError
from edgekit.graph.check import check
from edgekit.graph.file import graph_hash, load, save
from edgekit.graph.ir import Graph, Node, QuantParams, Value
from edgekit.graph.module import as_module
from edgekit.graph.run import run, run_node, walk

CONV = {"stride": (1, 1), "padding": (1, 1, 1, 1), "dilation": (1, 1), "groups": 1}


def small() -> Graph:
    return chain(
        (1, 3, 6, 6),
        ("conv2d", (1, 4, 6, 6), [noise(4, 3, 3, 3), noise(4, seed=1)], dict(CONV)),
        ("relu", (1, 4, 6, 6), [], {}),
        ("mean", (1, 4), [], {"dims": (2, 3), "keepdim": False}),
    )


def annotated() -> Graph:
    graph = small()
    conv = graph.nodes[0]
    conv.output.range = (-1.5, 2.25)
    conv.output.quant = QuantParams((0.1,), (3,))
    conv.inputs[1].quant = QuantParams((0.1, 0.2, 0.3, 0.4), (0, 0, 0, 0), "int8", 0)
    return graph


# check
def _duplicate_name(graph: Graph) -> None:
    graph.nodes[1].output.name = graph.nodes[0].output.name


def _unknown_op(graph: Graph) -> None:
    graph.nodes[1].op = "relu7"


def _wrong_order(graph: Graph) -> None:
    graph.nodes.reverse()


def _produced_twice(graph: Graph) -> None:
    graph.nodes.append(Node("relu", [graph.nodes[0].output], [graph.nodes[1].output]))


def _writes_constant(graph: Graph) -> None:
    weight = graph.nodes[0].inputs[1]
    graph.nodes.append(Node("relu", [weight], [weight]))


def _writes_input(graph: Graph) -> None:
    graph.nodes.append(Node("relu", [graph.inputs[0]], [graph.inputs[0]]))


def _lost_output(graph: Graph) -> None:
    graph.outputs = [Value("elsewhere", (1, 4))]


def _wrong_shape(graph: Graph) -> None:
    graph.nodes[1].output.shape = (1, 4, 6, 5)


def _constant_shape(graph: Graph) -> None:
    graph.nodes[0].inputs[1].data = noise(4, 3, 1, 1)


def _too_many_outputs(graph: Graph) -> None:
    graph.nodes[1].outputs.append(Value("second", (1, 4, 6, 6)))


def _bad_attribute(graph: Graph) -> None:
    del graph.nodes[0].attrs["stride"]


def _bad_activation(graph: Graph) -> None:
    graph.nodes[0].attrs["activation"] = "relu7"


def _misfit(graph: Graph) -> None:
    graph.nodes[0].attrs["groups"] = 2


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_duplicate_name, "two values are named 'conv2d0'"),
        (_unknown_op, "unknown op 'relu7' at layer1"),
        (_wrong_order, "mean at layer2 reads %relu1 before it is computed"),
        (_produced_twice, "%relu1 is produced twice"),
        (_writes_constant, "%conv2d0/0 is produced twice"),
        (_writes_input, "%input is produced twice"),
        (_lost_output, "output %elsewhere is never computed"),
        (_wrong_shape, "relu at layer1 computes"),
        (_constant_shape, "constant %conv2d0/0 holds"),
        (_too_many_outputs, "relu at layer1 computes"),
        (_bad_attribute, "conv2d at layer0 cannot run"),
        (_bad_activation, "no activation 'relu7'"),
        (_misfit, "conv2d at layer0 cannot run"),
    ],
)
def test_check_finds(damage: Callable[[Graph], None], message: str) -> None:
    graph = small()
    damage(graph)
    with pytest.raises(GraphError, match=message) as caught:
        check(graph)
    assert "\n" not in str(caught.value)


def test_quant_params_refuse_nonsense() -> None:
    for scale, zero_point in (((0.1,), (0, 0)), ((0.0,), (0,)), ((float("nan"),), (0,))):
        with pytest.raises(GraphError):
            QuantParams(scale, zero_point)


# identity and files
def test_hash_is_stable_over_copy_save_and_process(tmp_path: Path) -> None:
    graph = annotated()
    path = tmp_path / "graph.safetensors"
    save(graph, path)
    assert graph_hash(graph.copy()) == graph_hash(graph) == graph_hash(load(path))
    other = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; from edgekit.graph.file import *; print(graph_hash(load(sys.argv[1])))",
            path,
        ],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert other.stdout.strip() == graph_hash(graph)


def _flip_bit(graph: Graph) -> None:
    graph.nodes[0].inputs[1].data.view(torch.int32)[0, 0, 0, 0] ^= 1


def _attribute(graph: Graph) -> None:
    graph.nodes[0].attrs["activation"] = "relu"


def _range(graph: Graph) -> None:
    graph.nodes[1].output.range = (0.0, 1.0)


def _scale(graph: Graph) -> None:
    graph.nodes[0].output.quant = QuantParams((0.2,), (3,))


def _batchable(graph: Graph) -> None:
    graph.batchable = False


@pytest.mark.parametrize("change", [_flip_bit, _attribute, _range, _scale, _batchable])
def test_hash_changes_with(change: Callable[[Graph], None]) -> None:
    graph = annotated()
    before = graph_hash(graph)
    change(graph)
    assert graph_hash(graph) != before


def test_save_and_load_keep_everything(tmp_path: Path) -> None:
    graph = annotated()
    graph.batchable = False
    integers = Value("indices", (2,), "int64", torch.tensor([1, 2]))
    scalar = Value("three", (), data=torch.tensor(3.0))
    last = graph.outputs[0]
    graph.nodes.append(Node("mul", [last, scalar], [Value("tripled", (1, 4))], source="head"))
    graph.nodes.append(Node("layer_norm", [Value("tripled", (1, 4)), None, None], [Value("normed", (1, 4))]))
    graph.nodes[-1].inputs[0] = graph.nodes[-2].output
    graph.nodes[-1].attrs = {"normalized_shape": (4,), "eps": 1e-5}
    graph.outputs = [last, graph.nodes[-1].output, integers]
    check(graph)
    path = tmp_path / "graph.safetensors"
    save(graph, path)
    back = load(path)
    assert str(back) == str(graph)
    assert back.batchable is False and back.name == graph.name
    assert [n.attrs for n in back.nodes] == [n.attrs for n in graph.nodes]
    assert isinstance(back.nodes[0].attrs["stride"], tuple)
    conv = back.nodes[0]
    assert conv.output.range == (-1.5, 2.25)
    assert conv.output.quant == graph.nodes[0].output.quant
    assert conv.inputs[1].quant == graph.nodes[0].inputs[1].quant
    assert back.nodes[-1].inputs[1] is None
    x = noise(1, 3, 6, 6, seed=2)
    for a, b in zip(outputs(graph, x), outputs(back, x), strict=True):
        assert torch.equal(a, b)


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def _cut_header(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:40])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _remove(path: Path) -> None:
    path.unlink()


def _foreign(path: Path) -> None:
    path.write_bytes(b"PK\x03\x04 not ours" * 50)


def _foreign_safetensors(path: Path) -> None:
    save_file({"a": torch.zeros(3)}, path)


def _rewrite(change: Callable[[dict], None], path: Path) -> None:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        content = json.loads(file.metadata()["edgekit_graph"])
    change(content)
    save_file(load_file(path), path, metadata={"edgekit_graph": json.dumps(content)})


def _newer(path: Path) -> None:
    _rewrite(lambda c: c.update(format=99), path)


def _list(path: Path) -> None:
    save_file({"a": torch.zeros(3)}, path, metadata={"edgekit_graph": "[]"})


def _lost_tensor(path: Path) -> None:
    tensors = load_file(path)
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    tensors.pop("conv2d0/0")
    save_file(tensors, path, metadata=metadata)


def _bad_index(path: Path) -> None:
    _rewrite(lambda c: c["outputs"].append(10_000), path)


def _no_nodes(path: Path) -> None:
    _rewrite(lambda c: c.pop("nodes"), path)


def _bad_op(path: Path) -> None:
    _rewrite(lambda c: c["nodes"][0].update(op="exec"), path)


def _bad_quant(path: Path) -> None:
    _rewrite(lambda c: c["values"][0].update(quant=[[0.0], [0], "int8", None]), path)


@pytest.mark.parametrize(
    "damage",
    [
        _truncate,
        _cut_header,
        _empty,
        _remove,
        _foreign,
        _foreign_safetensors,
        _newer,
        _list,
        _lost_tensor,
        _bad_index,
        _no_nodes,
        _bad_op,
        _bad_quant,
    ],
)
def test_load_refuses_damaged_files(damage: Callable[[Path], None], tmp_path: Path) -> None:
    path = tmp_path / "graph.safetensors"
    save(annotated(), path)
    damage(path)
    with pytest.raises(ArtifactError, match=r"graph\.safetensors: ") as caught:
        load(path)
    assert "\n" not in str(caught.value)


# execution
def test_run_takes_any_batch() -> None:
    graph = small()
    x = noise(5, 3, 6, 6)
    (batch,) = outputs(graph, x)
    assert batch.shape == (5, 4)
    single = torch.cat([outputs(graph, image)[0] for image in x.split(1)])
    torch.testing.assert_close(batch, single)


@pytest.mark.parametrize("shape", [(1, 3, 6, 5), (1, 4, 6, 6), (3, 6, 6), (1, 1, 3, 6, 6)])
def test_run_refuses_other_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(GraphError, match=r"input input has shape .* expected \(N, 3, 6, 6\)"):
        run(small(), [noise(*shape)])


def test_run_refuses_another_number_of_inputs() -> None:
    with pytest.raises(GraphError, match="2 inputs given: the graph takes 1"):
        run(small(), [noise(1, 3, 6, 6)] * 2)


def test_on_value_sees_every_value_once_and_decides_what_readers_see() -> None:
    graph = small()
    constant = Value("table", (2,), data=torch.ones(2))
    graph.outputs += [graph.inputs[0], constant, graph.nodes[1].output]
    seen: Counter[str] = Counter()

    def watch(value: Value, tensor: torch.Tensor) -> torch.Tensor:
        seen[value.name] += 1
        return tensor * 0 if value.name == "relu1" else tensor

    results = run(graph, [noise(2, 3, 6, 6)], watch)
    assert seen == Counter({value.name: 1 for value in graph.values()})
    assert not results[0].any() and not results[3].any() and results[1].any()


def test_apply_computes_each_node_from_its_arguments() -> None:
    graph = small()
    seen = []

    def apply(node: Node, args: list[torch.Tensor | None]) -> tuple[torch.Tensor, ...]:
        seen.append((node.op, [arg is not None for arg in args]))
        return tuple(2 * t for t in run_node(node, args))

    x = noise(1, 3, 6, 6)
    (result,) = run(graph, [x], apply=apply)
    assert [op for op, _ in seen] == ["conv2d", "relu", "mean"]
    torch.testing.assert_close(result, 8 * outputs(graph, x)[0])


def test_a_walk_yields_what_nodes_computed_and_its_readers_see_what_the_hook_says() -> None:
    graph = small()
    steps = walk(graph, [noise(2, 3, 6, 6)], run_node, lambda v, t: t * 0 if v.name == "relu1" else t)
    found = {node.op: results for node, results in steps}
    assert found["relu"][0].any() and not found["mean"][0].any()


def test_a_walk_holds_nothing_that_nobody_reads_any_more() -> None:
    """The second result of a split has no reader, and the image none behind the split."""
    image = Value("image", (1, 4, 2, 2))
    left, right, out = (Value(n, (1, 2, 2, 2)) for n in ("left", "right", "out"))
    last = Value("last", (1, 2, 2, 2))
    nodes = [
        Node("split", [image], [left, right], {"sizes": (2, 2), "dim": 1}),
        Node("relu", [left], [out]),
        Node("neg", [out], [last]),
    ]
    made: dict[str, weakref.ref[torch.Tensor]] = {}

    def apply(node: Node, args: list[torch.Tensor | None]) -> list[torch.Tensor]:
        return [t.clone() for t in run_node(node, args)]  # pieces are views of the whole otherwise

    def watch(value: Value, tensor: torch.Tensor) -> torch.Tensor:
        tensor = tensor.clone()
        made[value.name] = weakref.ref(tensor)
        return tensor

    alive = []
    steps = walk(Graph([image], [last], nodes), [noise(1, 4, 2, 2)], apply, watch)
    while True:
        try:
            next(steps)
        except StopIteration:
            break
        alive.append({name for name, one in made.items() if one() is not None})
    assert alive == [{"left"}, {"out"}, {"last"}]


def test_constants_as_operands_and_as_outputs_pass_the_hook_once() -> None:
    table = Value("table", (1, 3, 6, 6), data=noise(1, 3, 6, 6))
    image, total, twice = (Value(n, (1, 3, 6, 6)) for n in ("image", "total", "twice"))
    nodes = [Node("add", [table, image], [total]), Node("mul", [total, table], [twice])]
    seen: Counter[str] = Counter()

    def watch(value: Value, tensor: torch.Tensor) -> torch.Tensor:
        seen[value.name] += 1
        return -tensor if value is table else tensor

    x = noise(2, 3, 6, 6, seed=1)
    got = run(Graph([image], [twice, table], nodes), [x], watch)
    torch.testing.assert_close(got[0], (x - table.data) * -table.data)
    torch.testing.assert_close(got[1], -table.data)
    assert set(seen.values()) == {1}


def test_a_graph_that_bakes_the_batch_runs_image_by_image() -> None:
    graph = chain((1, 4, 2, 2), ("reshape", (4, 4), [], {"shape": (4, 4)}), ("relu", (4, 4), [], {}))
    graph.batchable = False
    x = noise(3, 4, 2, 2)
    torch.testing.assert_close(outputs(graph, x)[0], x.relu().reshape(3, 4, 4))


def test_a_graph_that_bakes_the_batch_splits_every_input() -> None:
    a, b, total = Value("a", (1, 2)), Value("b", (1, 2)), Value("total", (2,))
    flat = [Value("flat_a", (2,)), Value("flat_b", (2,))]
    nodes = [Node("reshape", [v], [f], {"shape": (2,)}) for v, f in zip((a, b), flat, strict=True)]
    graph = Graph([a, b], [total], [*nodes, Node("add", flat, [total])], batchable=False)
    check(graph)
    x, y = noise(3, 2), noise(3, 2, seed=1)
    torch.testing.assert_close(outputs(graph, x, y)[0], x + y)


def test_training_the_module_changes_a_graph_of_its_own() -> None:
    graph = small()
    given = graph.nodes[0].inputs[1].data
    before, kept = graph_hash(graph), given.clone()
    module = as_module(graph)
    assert {name for name, _ in module.named_parameters()} == {"conv2d0/0", "conv2d0/1"}
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    x = noise(4, 3, 6, 6)
    first = module(x).square().mean()
    first.backward()
    optimizer.step()
    assert graph_hash(graph) == before
    assert module(x).square().mean() < first
    trained = module.to_graph()
    assert graph_hash(trained) != before
    assert torch.equal(outputs(trained, x)[0], module(x).detach())
    assert torch.equal(given, kept)  # the tensors handed in belong to their owner
    copied = graph.copy()
    assert (
        graph_hash(copied) == graph_hash(graph)
        and copied.nodes[0].inputs[1].data is not graph.nodes[0].inputs[1].data
    )


def test_parameter_names_never_collide() -> None:
    graph = chain(
        (1, 2),
        ("add", (1, 2), [torch.ones(2)], {}),
        ("add", (1, 2), [torch.ones(2)], {}),
        ("add", (1, 2), [torch.ones(2)], {}),
    )
    for node, name in zip(graph.nodes, ("a.b", "a/b", "graph"), strict=True):
        node.inputs[1].name = name
    assert len(list(as_module(graph).parameters())) == 3


# edits
def test_remove_dead_keeps_what_outputs_need() -> None:
    graph = small()
    graph.nodes.append(Node("neg", [graph.nodes[1].output], [Value("unread", (1, 4, 6, 6))]))
    assert graph.remove_dead() == 1
    assert [n.op for n in graph.nodes] == ["conv2d", "relu", "mean"]


def test_replace_uses_reaches_graph_outputs() -> None:
    graph = small()
    relu = graph.nodes[1]
    graph.outputs.append(relu.output)
    graph.replace_uses(relu.output, graph.nodes[0].output)
    assert graph.nodes[2].inputs[0] is graph.outputs[1] is graph.nodes[0].output


def test_fresh_name_avoids_every_value() -> None:
    graph = small()
    assert graph.fresh_name("new") == "new"
    assert graph.fresh_name("relu1") == "relu1_1"
