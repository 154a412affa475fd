"""Parts of networks on a board at the end of a wire."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from boards import Board, leftovers

from edgekit.device.harness import runner
from edgekit.device.inventory import Device, Limits
from edgekit.device.parts import Part, Timer, on_board
from edgekit.errors import InfrastructureError, InvalidMeasurementError, UsageError


@pytest.fixture
def device(pi: Board) -> Iterator[Device]:
    limits = Limits(cool_down_s=0.0)
    yield Device(
        "pi4-a", "raspberry_pi", pi.transport, python=sys.executable, base=str(pi.base), limits=limits
    )
    (pi.root / "throttled").write_text("0x0\n")
    assert leftovers(pi.base) == []


@pytest.fixture
def model(models: dict[str, Path]) -> bytes:
    return models["tflite-int8"].read_bytes()


def test_parts_and_wholes_are_timed_beside_the_reference(device: Device, model: bytes) -> None:
    def work(timer: Timer) -> None:
        found = timer.time([Part("part", model, model, 2), Part("whole", model)])
        assert set(found) == {"part", "whole"}
        assert found["whole"].ns > 0 and found["whole"].reference_ns > 0
        assert {time.delegate for time in found.values()} == {"xnnpack"}
        assert timer.runtime.version and timer.facts["machine"] and len(timer.fingerprint) == 16

    on_board(device, model, work)


def test_a_board_that_stays_throttled_gives_no_times(pi: Board, device: Device, model: bytes) -> None:
    (pi.root / "throttled").write_text("0x50005\n")
    with pytest.raises(InvalidMeasurementError, match=r"pi4-a: throttled.*keeps its clocks"):
        on_board(device, model, lambda timer: timer.time([Part("whole", model)]))


def test_a_lost_link_costs_an_attempt_and_what_is_known_is_kept(device: Device, model: bytes) -> None:
    known: dict[str, object] = {}
    said: list[str] = []

    def work(timer: Timer) -> int:
        if not known:
            known.update(timer.time([Part("whole", model)]))
            raise InfrastructureError("pi4-a: the link is lost", device="pi4-a")
        return len(known)

    assert on_board(device, model, work, progress=said.append) == 1
    assert said == ["attempt 1 of 3: pi4-a: the link is lost"]


def test_tools_that_time_whole_files_are_refused(device: Device, model: bytes) -> None:
    with pytest.raises(UsageError, match="benchmark_model times whole files"):
        on_board(device, model, lambda timer: None, runtime="benchmark_model")
    with pytest.raises(UsageError, match="threads = 0"):
        on_board(device, model, lambda timer: None, threads=0)


class Clock:
    """Nanoseconds that only pass while something runs."""

    def __init__(self) -> None:
        self.now = 0
        self.preempted = 0

    def perf_counter_ns(self) -> int:
        return self.now


class Net:
    """Takes the next of its times, from the first again after the last."""

    def __init__(self, clock: Clock, times: list[int], preempted: bool = False) -> None:
        self.clock, self.times, self.preempted, self.runs = clock, times, preempted, 0

    def run(self) -> None:
        self.clock.now += self.times[self.runs % len(self.times)]
        self.runs += 1
        self.clock.preempted += self.preempted


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(runner, "time", clock)
    monkeypatch.setattr(runner, "preemptions", lambda: lambda: clock.preempted)
    return clock


def test_what_wakes_a_sleeping_processor_is_not_its_clock(clock: Clock) -> None:
    """After another network the reference needs two runs until it is at its speed."""
    reference = Net(clock, [90, 40, 20, 20])
    found = runner.rounds_of(Net(clock, [100]), Net(clock, [160]), reference, 16)
    assert found["reference_ns"] == 20 and found["more_ns"] == 60 and found["quiet"] == 16
    assert reference.runs == 4 * 16


def test_what_disturbs_some_rounds_only_ever_adds(clock: Clock) -> None:
    often = Net(clock, [160, 160, 900, 160, 700])
    found = runner.rounds_of(Net(clock, [100, 100, 100, 400]), often, Net(clock, [20]), 16)
    assert found["more_ns"] == 60


def test_a_network_alone_has_the_median_of_its_second_runs(clock: Clock) -> None:
    found = runner.rounds_of(Net(clock, [300, 100]), None, Net(clock, [20]), 16)
    assert found == {"once_ns": 100, "reference_ns": 20, "quiet": 48}


def test_where_every_round_is_interrupted_all_of_them_count(clock: Clock) -> None:
    found = runner.rounds_of(Net(clock, [100], preempted=True), Net(clock, [160]), Net(clock, [20]), 16)
    assert found["quiet"] == 0 and found["more_ns"] == 60


def test_files_run_in_an_order_that_is_new_in_every_round_and_process(clock: Clock) -> None:
    """A B, B A would run the file at the end twice in a row: it would find its own things in the caches."""
    job = {"seed": 0, "samples": 40, "seconds": 0.0, "max_seconds": 60.0}
    orders = []
    for process in range(2):
        ran: list[str] = []
        models = {name: Told(name, ran, clock) for name in "abc"}
        taken = runner.sample(models, job | {"process": process}, lambda: 0, 0)
        assert all(len(kept) == 40 and not lost for kept, lost in taken.values())
        rounds = ["".join(ran[i : i + 6]) for i in range(0, len(ran), 6)]
        assert {a[0::2] for a in rounds} == {"abc", "acb", "bac", "bca", "cab", "cba"}
        assert all(a[0::2] == a[1::2] for a in rounds)  # each once untimed right before
        orders.append(rounds)
    assert orders[0] != orders[1]


def test_a_preempted_sample_is_taken_again(clock: Clock) -> None:
    """Of a file that is interrupted every third time all samples that count are undisturbed."""
    job = {"seed": 0, "samples": 20, "seconds": 0.0, "max_seconds": 60.0, "process": 0}
    model = Sometimes(clock)
    taken = runner.sample({"a": model, "b": Net(clock, [7])}, job, lambda: clock.preempted, 0)
    kept, lost = taken["a"]
    assert len(kept) == 20 and {end - start for start, end in kept} == {10}
    assert lost and {end - start for start, end in lost} == {900}
    assert len(taken["b"][0]) == 20 and not taken["b"][1]


class Told:
    """Says that it ran."""

    def __init__(self, name: str, ran: list[str], clock: Clock) -> None:
        self.name, self.ran, self.clock = name, ran, clock

    def run(self) -> None:
        self.ran.append(self.name)
        self.clock.now += 1


class Sometimes:
    """Every third run is interrupted for long."""

    def __init__(self, clock: Clock) -> None:
        self.clock, self.runs = clock, 0

    def run(self) -> None:
        self.runs += 1
        away = self.runs % 3 == 0
        self.clock.now += 900 if away else 10
        self.clock.preempted += away
