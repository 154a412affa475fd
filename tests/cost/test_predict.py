"""Whole models from units: on tables made up by a law, and on one that this machine measured."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.resources import files
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
from cost.networks import built, small

from edgekit.cost.measure import agreed, measure
from edgekit.cost.models import of_file, of_graph
from edgekit.cost.predict import FITTED, MEASURED, POOLED, Cost, cost_for
from edgekit.cost.table import Entry, Table, Whole, tables
from edgekit.device.inventory import HOST, load_inventory
from edgekit.errors import InvalidMeasurementError, UsageError
from edgekit.targets import get_target

INT8 = get_target("tflite-int8")


def _made_up(graph, kinds=None) -> Table:
    """A table in which a unit takes as many microseconds as its key is long."""
    table = Table("pi4-a", "f00d", "ai-edge-litert", "2.3.0", "xnnpack", 1, 1000.0)
    for unit in of_graph("m", graph, INT8.name).units:
        if kinds is None or unit.kind in kinds:
            times = (len(unit.key) * 1e3,)
            table.units[unit.key] = Entry(times[0], times, unit.kind, dict(unit.sizes))
    return table


def test_measured_units_add_up_times_the_constant() -> None:
    graph = small()
    table = _made_up(graph)
    cost = Cost(table, INT8)
    units = cost.units(graph)
    keys = [unit.key for unit in of_graph("m", graph, INT8.name).units]
    assert [unit.key for unit in units] == keys
    assert {unit.how for unit in units} == {MEASURED}
    assert cost.graph_ms(graph) == pytest.approx(sum(map(len, keys)) / 1e3)
    table.models["m"] = Whole(INT8.name, 1.1, 1.0)
    assert cost.graph_ms(graph) == pytest.approx(1.1 * sum(map(len, keys)) / 1e3)


def test_units_name_the_values_and_modules_they_come_from() -> None:
    graph = small()
    units = Cost(_made_up(graph), INT8).units(graph)
    stem = next(unit for unit in units if unit.kind.startswith("convolution"))
    assert stem.source == "stem" and stem.outputs
    names = {value.name for node in graph.nodes for value in node.outputs}
    assert {unit.source.split(".")[0] for unit in units} >= {"stem", "depthwise", "gate", "head"}
    assert sum(bool(names & set(unit.outputs)) for unit in units) > len(units) // 2


def test_a_measured_relative_gives_the_constant() -> None:
    graph = small()
    cost = Cost(_made_up(graph), INT8)
    calibrated = cost.calibrate(graph, 7.0)
    assert calibrated.graph_ms(graph) == pytest.approx(7.0)
    assert cost.factor == 1.0
    with pytest.raises(UsageError, match="a measured p50"):
        cost.calibrate(graph, 0.0)


def test_a_variant_says_which_units_were_not_measured() -> None:
    table = _made_up(small(16))
    units = Cost(table, INT8).units(small(24))
    hows = {unit.how for unit in units}
    assert hows <= {MEASURED, FITTED, POOLED} and FITTED in hows
    assert all(unit.ms > 0 for unit in units)


def test_kinds_that_were_never_met_are_pooled_or_refused() -> None:
    graph = small()
    elements = {unit.kind for unit in of_graph("m", graph, INT8.name).units if "out" not in unit.sizes}
    with pytest.raises(UsageError, match=r"nothing like convolution int8\*int8 \(stem\).*--device pi4-a"):
        Cost(_made_up(graph, elements), INT8).graph_ms(graph)
    without = {unit.kind for unit in of_graph("m", graph, INT8.name).units} - {"table int8"}
    units = Cost(_made_up(graph, without), INT8).units(graph)
    assert {unit.how for unit in units if unit.kind == "table int8"} == {POOLED}


def test_a_board_without_a_table_is_told_what_to_do(tmp_path) -> None:
    with pytest.raises(UsageError, match=r"no times of pi4-a.*cost measure --device pi4-a"):
        cost_for("pi4-a", cache=tmp_path)
    _made_up(small()).write(tmp_path)
    assert cost_for("pi4-a", cache=tmp_path).table.device == "pi4-a"
    with pytest.raises(UsageError, match="with 4 threads"):
        cost_for("pi4-a", threads=4, cache=tmp_path)
    with pytest.raises(UsageError, match="no times of host"):
        cost_for(HOST, cache=tmp_path)  # the table is another machine's


@pytest.fixture(scope="module")
def kept(tmp_path_factory) -> Path:
    """A folder with this machine's table of one small model."""
    root = tmp_path_factory.mktemp("cost")
    measure(load_inventory().device(HOST), [of_graph("small", small(), INT8.name)], root=root)
    return root


def test_this_machine_measures_and_finds_its_table(kept) -> None:
    cost = cost_for(HOST, cache=kept)
    keys = {unit.key for unit in of_graph("small", small(), INT8.name).units}
    assert set(cost.table.units) == keys
    assert all(
        len(entry.passes) == 2 and entry.ns == agreed(entry.passes) for entry in cost.table.units.values()
    )
    whole = cost.table.models["small"]
    assert whole.p50_ms > 0 and whole.units_ms > 0
    assert cost.graph_ms(small()) == pytest.approx(whole.p50_ms)


def test_passes_that_agree_have_their_mean_and_a_disturbed_one_does_not_count() -> None:
    assert agreed((100.0, 110.0)) == 105.0
    assert agreed((300.0, 100.0)) == 100.0
    assert agreed((0.0, 2.0)) == 0.0


def test_what_is_known_is_not_measured_again(kept) -> None:
    said: list[str] = []
    device, model = load_inventory().device(HOST), of_graph("small", small(), INT8.name)
    before = tables(kept)[0].units
    again = measure(device, [model], root=kept, progress=said.append)
    assert said == [] and again.units == before
    measure(device, [of_graph("wider", small(24), INT8.name)], root=kept, progress=said.append)
    shared = {u.key for u in model.units} & {u.key for u in of_graph("w", small(24), INT8.name).units}
    wanted = len({u.key for u in of_graph("w", small(24), INT8.name).units})
    assert said[0].startswith(f"{wanted - len(shared)} of {wanted} units")


def test_a_file_and_a_graph_have_the_same_units(tmp_path) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(built(small(), INT8.name).data)
    file, graph = of_file(path, INT8.name), of_graph("m", small(), INT8.name)
    assert [unit.key for unit in file.units] == [unit.key for unit in graph.units]
    assert file.name.startswith("model-")


def _cli(*words: str, cache: Path) -> subprocess.CompletedProcess[str]:
    start = "from edgekit.cli.main import main; main()"
    command = [sys.executable, "-c", start, "cost", *words, "--cache", str(cache)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_the_command_measures_shows_and_predicts(tmp_path) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(built(small(), INT8.name).data)
    cache = tmp_path / "tables"
    missing = _cli("predict", str(path), cache=cache)
    assert missing.returncode == 2 and "edgekit cost measure --device host" in missing.stderr
    done = _cli("measure", "--models", str(path), "--widths", "1", cache=cache)
    assert done.returncode == 0, done.stderr
    assert "p50" in done.stdout
    predicted = _cli("predict", str(path), "--json", cache=cache)
    content = json.loads(predicted.stdout)
    assert content["ms"] == pytest.approx(sum(unit["ms"] for unit in content["units"]))
    shown = json.loads(_cli("show", "--json", cache=cache).stdout)
    assert shown["device"] == HOST and shown["kinds"] and len(shown["models"]) == 1
    assert "of it measured units" in _cli("predict", str(path), cache=cache).stdout


def _runner():
    spec = spec_from_file_location("runner", str(files("edgekit.device.harness") / "runner.py"))
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class _Model:
    """Takes as long as it says, on a clock of its own."""

    def __init__(self, clock: list[int], ns: int) -> None:
        self.clock, self.ns = clock, ns

    def run(self) -> None:
        self.clock[0] += self.ns


def test_rounds_that_were_interrupted_do_not_count(monkeypatch) -> None:
    runner, clock, switches = _runner(), [0], [0]

    class Disturbed(_Model):
        calls = 0

        def run(self) -> None:
            self.calls += 1
            if self.calls % 3 == 0:
                switches[0] += 1
                self.clock[0] += 1_000_000
            super().run()

    monkeypatch.setattr(runner.time, "perf_counter_ns", lambda: clock[0])
    monkeypatch.setattr(runner, "preemptions", lambda: lambda: switches[0])
    found = runner.rounds_of(Disturbed(clock, 100), _Model(clock, 400), _Model(clock, 50), 9)
    assert found == {"once_ns": 100, "more_ns": 300, "reference_ns": 50, "quiet": 9}


def test_a_board_on_which_something_always_runs_still_answers(monkeypatch) -> None:
    runner, clock, switches = _runner(), [0], iter(range(10_000))
    monkeypatch.setattr(runner.time, "perf_counter_ns", lambda: clock[0])
    monkeypatch.setattr(runner, "preemptions", lambda: lambda: next(switches))
    found = runner.rounds_of(_Model(clock, 100), _Model(clock, 400), _Model(clock, 50), 9)
    assert found == {"once_ns": 100, "more_ns": 300, "reference_ns": 50, "quiet": 0}


def test_a_runtime_without_the_delegate_measures_nothing(tmp_path) -> None:
    with pytest.raises(InvalidMeasurementError, match="libedgetpu"):
        measure(
            load_inventory().device(HOST),
            [of_graph("small", small(), INT8.name)],
            delegate="libedgetpu.so.1",
            root=tmp_path,
        )
    assert tables(tmp_path) == []
