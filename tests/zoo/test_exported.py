import io
import json
import zipfile

import pytest
import torch
from small_models import Bomb, small_module

from edgekit.errors import UnknownModelError, UsageError, WeightsError
from edgekit.zoo import resolve
from edgekit.zoo.exported import unsafe_parts


def archive(shape=(1, 3, 32, 32), **settings) -> bytes:
    buffer = io.BytesIO()
    torch.export.save(torch.export.export(small_module(), (torch.zeros(shape),), **settings), buffer)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def exported() -> bytes:
    return archive()


def rewritten(data: bytes, change) -> bytes:
    """The archive with every member passed through `change(name, bytes)`."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    return out.getvalue()


def edited(data: bytes, change) -> bytes:
    """The archive with its program's JSON edited in place."""

    def apply(name, content):
        if not name.endswith("models/model.json"):
            return content
        program = json.loads(content)
        change(program)
        return json.dumps(program).encode()

    return rewritten(data, apply)


def test_round_trip(offline, exported):
    path = offline / "small.pt2"
    path.write_bytes(exported)
    model = resolve(str(path))
    image = torch.rand(1, 3, 32, 32)
    assert torch.equal(model.module(image), small_module()(image))
    assert (model.source, model.input_shape, model.name) == ("exported", (1, 3, 32, 32), "small")
    assert model.weights["kind"] == "file" and not model.weights["untrained"]
    assert not model.module.eval().training
    again = torch.export.export(model.module, (image,)).module()
    assert torch.equal(again(image), small_module()(image))


def test_preprocessing_and_labels_travel_in_the_archive(offline):
    path = offline / "labelled.pt2"
    program = torch.export.export(small_module(), (torch.zeros(1, 3, 32, 32),))
    extra = {"preprocessing.json": '{"mean": [0.5, 0.5, 0.5], "resize": 40}', "labels.txt": "a\nb\nc\nd\ne\n"}
    torch.export.save(program, path, extra_files=extra)
    model = resolve(str(path))
    assert model.class_names == ("a", "b", "c", "d", "e")
    assert model.preprocessing.mean == (0.5, 0.5, 0.5) and model.preprocessing.resize == 40
    for wrong in ("{", "[1]", '{"resolution": "wide"}', '{"men": 1}'):
        torch.export.save(program, path, extra_files=extra | {"preprocessing.json": wrong})
        with pytest.raises(UsageError, match="preprocessing"):
            resolve(str(path))


def test_what_an_archive_cannot_do(offline, exported):
    path = offline / "small.pt2"
    path.write_bytes(exported)
    with pytest.raises(WeightsError, match="its own weights"):
        resolve(str(path), "random")
    with pytest.raises(UsageError, match="32 px"):
        resolve(str(path), resolution=64)
    with pytest.raises(UsageError, match="num_classes"):
        resolve(str(path), num_classes=4)
    with pytest.raises(UnknownModelError, match="no such file"):
        resolve(str(offline / "absent.pt2"))
    path.write_bytes(archive((2, 3, 32, 32)))
    with pytest.raises(UsageError, match="batches of 2"):
        resolve(str(path))


def test_damaged_archives_are_one_line(offline, exported):
    path = offline / "small.pt2"
    for damaged in (b"", b"PK\x03\x04 nothing", exported[: len(exported) // 2]):
        path.write_bytes(damaged)
        with pytest.raises(WeightsError) as raised:
            resolve(str(path))
        assert "\n" not in str(raised.value) and str(path) in str(raised.value)


def test_a_pickle_in_an_archive_is_not_run(offline, exported):
    trace, path = offline / "trace", offline / "bomb.pt2"
    bomb = io.BytesIO()
    torch.save(Bomb(trace), bomb)
    path.write_bytes(
        rewritten(exported, lambda n, c: bomb.getvalue() if n.endswith("inputs/model.pt") else c)
    )
    with pytest.raises(WeightsError, match=r"pickled objects.*--trust"):
        resolve(str(path))
    assert not trace.exists()


def first_node(program: dict) -> dict:
    return program["graph_module"]["graph"]["nodes"][0]


CRAFTED = {
    "operator": (
        lambda p: first_node(p).update(target="torch.serialization.os.system"),
        "calls torch.serial",
    ),
    "library": (lambda p: first_node(p).update(target="torch.ops.load_library"), "calls torch.ops.load"),
    "file": (
        lambda p: first_node(p).update(target="torch.ops.aten.from_file.default"),
        "calls torch.ops.aten",
    ),
    "guards": (lambda p: p.update(guards_code=["print(1)"]), "guards"),
    "symbols": (lambda p: p.update(range_constraints={"s0": {"min_val": 1, "max_val": 4}}), "symbolic"),
    "names": (
        lambda p: p["graph_module"]["signature"]["input_specs"][0]["parameter"].update(
            parameter_name="a=print()"
        ),
        "the name",
    ),
    "arguments": (
        lambda p: p["graph_module"]["module_call_graph"][0]["signature"].update(
            forward_arg_names=["x=print()"]
        ),
        "the argument",
    ),
    "containers": (
        lambda p: p["graph_module"]["module_call_graph"][0]["signature"].update(
            out_spec='[1, {"type": "collections.defaultdict", "context": "{}", "children_spec": []}]'
        ),
        "a container",
    ),
}


@pytest.mark.parametrize("part", CRAFTED)
def test_parts_that_could_run_code_are_found(exported, part):
    assert unsafe_parts(exported) == []
    change, words = CRAFTED[part]
    assert any(found.startswith(words) or words in found for found in unsafe_parts(edited(exported, change)))


def test_pickled_weights_and_foreign_members_are_found(exported):
    def pickled(name, content):
        return (
            content.replace(b'"use_pickle": false', b'"use_pickle": true')
            if name.endswith("config.json")
            else content
        )

    assert "0.weight is pickled" in unsafe_parts(rewritten(exported, pickled))
    out = io.BytesIO(exported)
    with zipfile.ZipFile(out, "a") as more:
        more.writestr(more.namelist()[0].split("/")[0] + "/data/aotinductor/model/a.so", b"")
    assert "data/aotinductor/model/a.so" in unsafe_parts(out.getvalue())


def test_trust_loads_what_was_refused(offline):
    path = offline / "dynamic.pt2"
    path.write_bytes(archive((2, 3, 32, 32), dynamic_shapes=({0: torch.export.Dim("batch")},)))
    with pytest.raises(WeightsError, match="symbolic"):
        resolve(str(path))
    model = resolve(str(path), trust=True)
    image = torch.rand(1, 3, 32, 32)
    assert torch.allclose(model.module(image), small_module()(image), atol=1e-6)
