"""A runtime is one folder and one entry: a made-up one runs, is audited and timed without another change."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from edgekit.runtimes.audit import Audit, Delegation, OpRecord, Undelegated, audit, delegation, totals
from edgekit.runtimes.registry import RUNTIMES, FileKind, Runtime, kinds, opening
from edgekit.runtimes.runtime import run_model, settings
from edgekit.runtimes.sources import Slot, kind_of, open_source
from edgekit.runtimes.times import Prefixes, Profiled
from edgekit.targets import TARGETS
from edgekit.verify.layer_times import layer_times

PACKAGE = Path(__file__).parents[2] / "edgekit"
FAKE = Runtime("abacus", FileKind("beads", ".beads", (0, b"BEADS"), weights=".wires"))


def _run() -> ModuleType:
    module = ModuleType("edgekit.runtimes.abacus.run")

    class Runner:
        inputs = (Slot("x", (1, 3)),)
        outputs = (Slot("y", (1, 3)),)

        def __init__(self, file, threads=1):
            self.factor = int(file.weights)

        def real(self, arrays):
            return [self.factor * arrays[0]]

    module.Runner = Runner
    module.settings = lambda threads: {"beads": threads}
    module.version = lambda: "abacus 1"
    return module


def _audit() -> ModuleType:
    module = ModuleType("edgekit.runtimes.abacus.audit")
    rows = (OpRecord(0, "SLIDE", "int8", "frame", 3, 0), OpRecord(1, "FLICK", "float", "frame", 3, 0))

    def audit_of(file, modules):
        nothing = {"per_channel_share": 0.0, "weight_bytes": {}, "tensors": 2, "subgraphs": 1}
        io = {"inputs": (), "outputs": (), "metadata": (), "signatures": (), "transposes": ()}
        return Audit(size_bytes=file.size_bytes, **nothing, **io, **totals(rows))

    module.audit = audit_of
    module.placement = lambda file, modules: Delegation(1, (Undelegated(1, "FLICK", "frame"),), 2, "abacus 1")
    return module


@pytest.fixture
def abacus(monkeypatch):
    parts = {"run": _run(), "audit": _audit(), "times": ModuleType("edgekit.runtimes.abacus.times")}
    parts["times"].times = lambda file, threads, cuts: Profiled(((0, 1.0), (1, 3.0)))
    for name, module in parts.items():
        monkeypatch.setitem(sys.modules, f"edgekit.runtimes.abacus.{name}", module)
    monkeypatch.setitem(sys.modules, "edgekit.runtimes.abacus", ModuleType("edgekit.runtimes.abacus"))
    monkeypatch.setitem(RUNTIMES, "abacus", FAKE)
    return parts


def test_a_folder_and_an_entry_make_a_runtime(abacus, tmp_path):
    path = tmp_path / "model.beads"
    path.write_bytes(b"BEADS")
    path.with_suffix(".wires").write_bytes(b"7")
    assert kind_of(path) == "beads" and open_source(b"BEADS").kind == "beads"
    assert open_source(path).files == {"model.beads": b"BEADS", "model.wires": b"7"}
    (given,) = run_model(path, np.ones((2, 3), np.float32))
    np.testing.assert_array_equal(given, np.full((2, 3), 7.0))
    assert settings("beads", 2) == {"beads": 2} and opening("beads").version() == "abacus 1"
    assert audit(path).float_ops == ("FLICK at frame",)
    assert [str(op) for op in delegation(path).undelegated_ops] == ["FLICK at frame"]

    timed = SimpleNamespace(runtime="abacus 1", profile="quick", files={"whole": SimpleNamespace(p50_ms=8.0)})
    found = layer_times(path, latency=lambda files, **options: timed)
    assert found.method == "profiler" and [row.ms for row in found.rows] == [2.0, 6.0]


def test_a_runtime_that_hides_its_operators_is_cut(abacus):
    abacus["times"].times = lambda file, threads, cuts: Prefixes((1, 2), (b"BEADS1", b"BEADS2"))

    samples = {"1": [np.full(4, 2_000_000)], "2": [np.full(4, 5_000_000)]}
    timed = SimpleNamespace(
        runtime="abacus 1", profile="quick", samples_ns=samples, files={"2": SimpleNamespace(p50_ms=5.0)}
    )
    files = {"model.beads": b"BEADS", "model.wires": b"1"}
    found = layer_times(files, latency=lambda files, **options: timed)
    assert found.method == "prefixes" and [row.ms for row in found.rows] == [2.0, 3.0]


def test_every_target_names_a_runtime_and_every_kind_one_that_opens_it():
    assert {target.runtime for target in TARGETS.values()} == set(RUNTIMES)
    assert {opening(kind.name).name for kind in kinds()} == {"litert", "onnxruntime", "openvino"}
    for runtime in RUNTIMES.values():
        assert not runtime.second or runtime.second in RUNTIMES
        assert (PACKAGE / "runtimes" / (runtime.folder or runtime.name) / "run.py").is_file()


# Who names OpenVINO in code outside the folders of runtimes, targets and lowerings, and why.
NAMES_IT = {
    "cli/main.py": "help",
    "device/harness": "boards have scripts and tools of their own",
    "pipeline/pipeline.py": "NNCF writes its files",
    "pipeline/versions.py": "packages whose versions a result depends on",
}


# Modules of verify that ask one runtime by name, and why.
ASKS_ONE = {
    "verify/fidelity.py": "every operator of a .tflite file against its formula, in copies of the file",
    "verify/gates.py": "what TensorFlow's interpreter says of a .tflite file",
}


def test_verify_asks_a_runtime_and_knows_none():
    folders = "|".join({runtime.folder or runtime.name for runtime in RUNTIMES.values()})
    asking = {
        path.relative_to(PACKAGE).as_posix()
        for path in (PACKAGE / "verify").glob("*.py")
        if re.search(rf"edgekit\.runtimes\.({folders})\b", path.read_text())
    }
    assert asking == set(ASKS_ONE)


def test_a_runtime_is_named_nowhere_else():
    found = set()
    for path in sorted(PACKAGE.rglob("*.py")):
        place = path.relative_to(PACKAGE).as_posix()
        code = re.sub(r'"""(?:.|\n)*?"""|#.*', "", path.read_text())
        if not place.startswith(("runtimes/", "targets/", "lower/")) and re.search("openvino", code, re.I):
            found.add(place)
    assert {place for place in found if not place.startswith(tuple(NAMES_IT))} == set()
    assert {name for name in NAMES_IT if any(place.startswith(name) for place in found)} == set(NAMES_IT)
