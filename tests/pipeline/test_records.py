"""What a proof found comes back from its file as it was."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from edgekit.pipeline import records
from edgekit.pipeline.session import Session
from edgekit.pipeline.store import Store


@dataclass(frozen=True)
class Steps:
    most: int
    rows: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Noise:
    sqnr_db: float | None
    by_name: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Found:
    what: Steps | Noise | None
    more: list[Steps]
    label: int | str = 0


@pytest.mark.parametrize(
    "record",
    [
        Found(Steps(1, (("conv", 0.25), ("add", float("inf")))), [Steps(0)], "cat"),
        Found(Noise(None, {"a": 1.5}), [], 3),
        Found(Noise(20.5), [Steps(2), Steps(3)]),
        Found(None, []),
    ],
)
def test_a_record_comes_back(tmp_path, record):
    records.write(tmp_path / "found.json", record)
    assert records.read(tmp_path / "found.json", Found) == record


def test_a_stage_is_run_once(tmp_path):
    made = []

    def make(_line):
        made.append(1)
        return Found(Steps(len(made)), [])

    for _ in range(2):
        session = Session(Store(tmp_path))
        assert session.record("proof", {"of": "this"}, Found, make) == Found(Steps(1), [])
    assert session.stages[0]["cached"] and made == [1]
    assert Session(Store(tmp_path)).record("proof", {"of": "that"}, Found, make) == Found(Steps(2), [])
