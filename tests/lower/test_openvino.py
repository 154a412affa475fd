"""Every op case on both OpenVINO targets: torch, our graph, the CPU plugin in true float32."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from litert import annotate
from openvino_runs import lowered_case, run_files

from edgekit.errors import UnsupportedError, UsageError
from edgekit.graph.ir import Graph, Node, Value
from edgekit.graph.ops import OPS
from edgekit.graph.run import run
from edgekit.lower.openvino import lower, prepare, supported, unsupported
from edgekit.quantize import simulate
from edgekit.targets import get_target
from tests.cases import OP_CASES, Case

FLOAT16, INT8 = get_target("openvino-float16"), get_target("openvino-int8")
CASES = [pytest.param(case, id=name) for name, case in OP_CASES.items()]


@pytest.mark.parametrize("case", CASES)
def test_the_float_form_answers_as_torch_does(case: Case) -> None:
    """With constants that float16 holds exactly, nothing but float rounding is left."""
    graph = case.graph()
    for value in graph.constants():
        if value.data is not None and value.data.is_floating_point():
            value.data = value.data.half().float()
    image = case.images(1)
    found = run_files(lower(prepare(graph, FLOAT16), FLOAT16).files, image)
    for wanted, got in zip(run(graph, [image]), found, strict=True):
        error = np.abs(got - wanted.numpy()).max() / np.abs(wanted.numpy()).max()
        assert error <= max(case.float_tolerance, 1e-5)


@pytest.mark.parametrize("name", ["conv2d-grouped", "linear", "attention"])
def test_float16_weights_stay_close(name: str) -> None:
    case = OP_CASES[name]
    _, lowered = lowered_case(case, "openvino-float16")
    image = case.images(1)
    (wanted,), (found,) = run(case.graph(), [image]), run_files(lowered.files, image)
    error = np.abs(found - wanted.numpy()).max() / np.abs(wanted.numpy()).max()
    assert 1e-6 < error <= 4e-3


@pytest.mark.parametrize("case", CASES)
def test_int8_answers_as_the_simulation_does(case: Case) -> None:
    prepared, lowered = lowered_case(case, "openvino-int8")
    reference = case.graph()
    annotate(reference, case.images())
    image = case.images(1)
    for value, wanted, found in zip(
        reference.outputs, simulate(prepared, image), run_files(lowered.files, image), strict=True
    ):
        step = value.quant.scale[0] if value.quant else 0.0  # places are whole numbers
        assert np.abs(found - wanted.numpy()).max() <= (case.int8_lsb + 0.01) * step


@pytest.mark.parametrize("target", ["openvino-float16", "openvino-int8"])
def test_every_op_is_expressed(target: str) -> None:
    assert supported(get_target(target)) == set(OPS) - {"dropout"}  # no target sees it


@pytest.mark.parametrize("name", ["attention", "expand", "windows", "conv2d-depthwise", "linear", "mul-gate"])
def test_an_open_batch_answers_image_by_image(name: str) -> None:
    case = OP_CASES[name]
    graph = prepare(case.graph(), FLOAT16)
    images = case.images(3)
    if not graph.batchable:
        pytest.fail("a case for an open batch must be batchable")
    (found,) = run_files(lower(graph, FLOAT16, dynamic_batch=True).files, images)
    wanted = torch.cat([run(graph, [image[None]])[0] for image in images]).numpy()
    assert np.abs(found - wanted).max() <= 4e-3 * np.abs(wanted).max()


def test_inner_values_can_be_read() -> None:
    case = OP_CASES["mul-gate"]
    prepared, _ = lowered_case(case, "openvino-int8")
    inner = next(node.output for node in prepared.nodes if node.op == "hardsigmoid")
    lowered = lower(prepared, INT8, outputs_also=(inner.name,))
    image = case.images(1)
    found = run_files(lowered.files, image)[1]
    seen: dict[Value, torch.Tensor] = {}
    run(prepared, [image], on_value=lambda v, t: seen.setdefault(v, t))
    assert inner.quant is not None
    assert found.shape == inner.shape
    assert np.abs(found - seen[inner].numpy()).max() <= 6 * inner.quant.scale[0]
    steps = found / inner.quant.scale[0]
    assert np.abs(steps - np.rint(steps)).max() < 1e-2


_BUILD = """
import sys
sys.path[:0] = [{root!r}, {here!r}]
from test_openvino import digests
print(*digests())
"""


def digests() -> list[str]:
    """Hashes of the files of one network, float and int8."""
    graphs = [lowered_case(OP_CASES["layer_norm-channels-last"], t) for t in (FLOAT16.name, INT8.name)]
    return [hashlib.sha256(data).hexdigest() for _, found in graphs for data in found.files.values()]


def test_two_processes_write_the_same_bytes(tmp_path: Path) -> None:
    """This process has made operators before, which must not show."""
    here = Path(__file__).parent
    lowered_case(OP_CASES["attention"], INT8.name)
    script = _BUILD.format(root=str(here.parents[1]), here=str(here))
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout.split() == digests()
    assert len(digests()) == 4


def test_the_file_holds_no_path_and_names_modules() -> None:
    _, lowered = lowered_case(OP_CASES["mul-gate"], "openvino-int8")
    text = lowered.files["model.xml"].decode()
    assert list(lowered.files) == ["model.xml", "model.bin"]
    assert "/tmp" not in text
    assert "edgekit-" not in text
    assert {"conv2d.1/Convolution", "conv2d.2/Convolution"} <= {op.name for op in lowered.operators}
    assert all(f'name="{op.name}"' in text for op in lowered.operators)


def test_a_node_that_cannot_be_lowered_is_named_with_its_module() -> None:
    x = Value("image", (1, 4, 6, 6))
    node = Node("pad", [x], [Value("y", (1, 4, 6, 8))], {"pads": (1, 1), "mode": "circular"}, "stem.pad")
    graph = Graph([x], [node.output], [node])
    (line,) = unsupported(graph, INT8)
    assert line == ("cannot lower 'pad' at stem.pad (mode 'circular': constant, reflect or replicate)")
    with pytest.raises(UnsupportedError, match=r"openvino-int8: cannot lower 'pad' at stem\.pad"):
        lower(graph, INT8)


def test_unknown_io_types_and_batches_are_refused_in_one_line() -> None:
    graph = prepare(OP_CASES["linear"].graph(), FLOAT16)
    with pytest.raises(UsageError, match="'int8' is no input type of openvino-float16: one of float32"):
        lower(graph, FLOAT16, io_dtype="int8")
    graph.batchable = False
    with pytest.raises(UsageError, match="dynamic_batch=False"):
        lower(graph, FLOAT16, dynamic_batch=True)


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = prepare(OP_CASES["linear"].graph(), FLOAT16)
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(UsageError, match=r"pip install 'edgekit\[openvino\]'"):
        lower(graph, FLOAT16)
