"""Geometry: what is drawn is what was measured."""

import numpy as np
import pytest
import report_fixture

from edgekit.report import charts


@pytest.mark.parametrize("count", [1, 2, 7, 60, 500])
def test_treemap_tiles_the_box(count: int) -> None:
    rng = np.random.default_rng(count)
    layers = [
        {"name": f"l{i}", "op": "conv2d", "bytes": float(v)} for i, v in enumerate(rng.lognormal(0, 2, count))
    ]
    tiles = charts.treemap(layers, "bytes")
    assert sum(t.width * t.height for t in tiles) == pytest.approx(100 * 100, rel=2e-3)
    for tile in tiles:
        assert tile.x >= -0.01 and tile.x + tile.width <= 100.02
        assert tile.y >= -0.01 and tile.y + tile.height <= 100.02
    for i, a in enumerate(tiles):
        for b in tiles[:i]:
            wide = min(a.x + a.width, b.x + b.width) - max(a.x, b.x)
            high = min(a.y + a.height, b.y + b.height) - max(a.y, b.y)
            assert wide < 0.01 or high < 0.01
    largest = max(layers, key=lambda row: row["bytes"])
    assert tiles[0].name == largest["name"]


def test_treemap_without_values_is_empty() -> None:
    assert charts.treemap([], "bytes") == []
    assert charts.treemap([{"name": "a", "op": "add", "bytes": 0}], "bytes") == []


@pytest.mark.parametrize(
    ("low", "high", "count", "expected"),
    [(0.0, 10.0, 5, [0, 2, 4, 6, 8, 10]), (2.9, 3.55, 5, [3.0, 3.2, 3.4]), (1.0, 1.0, 5, [1.0])],
)
def test_ticks_are_round(low: float, high: float, count: int, expected: list[float]) -> None:
    assert charts.nice_ticks(low, high, count) == pytest.approx(expected)


def test_distributions() -> None:
    ours, floats = report_fixture.samples(3.0, 1), report_fixture.samples(6.0, 2)
    drawn = charts.latency(ours, floats, "int8")
    assert drawn is not None
    assert [band.name for band in drawn.bands] == ["int8", "float32"]
    for band, samples in zip(drawn.bands, (ours, floats), strict=True):
        assert [mark.name for mark in band.marks] == ["p50", "p90", "p99"]
        assert band.marks[0].text == f"{np.median(np.concatenate(samples)):.2f} ms"
        assert [m.at for m in band.marks] == sorted(m.at for m in band.marks)
        assert len(band.processes) == 5
    assert [level.text for level in drawn.levels] == ["50 %", "90 %", "99 %", "99.9 %"]


def test_distributions_of_little() -> None:
    assert charts.latency([], [], "int8") is None
    assert charts.latency([1.0], [], "int8") is None
    same = charts.latency([2.0, 2.0, 2.0], [2.0, 2.0], "int8")
    assert same is not None and "nan" not in repr(same) and "inf" not in repr(same)
    zero = charts.latency([0.0, 0.0], [], "int8")
    assert zero is not None and "nan" not in repr(zero)


def test_culprits_are_ranked() -> None:
    layers = report_fixture.layers()
    profile = charts.error_profile(layers)
    assert profile is not None
    worst = max(layers, key=lambda row: row["introduced_error_share"])
    assert profile.culprits[0].name == worst["name"]
    assert profile.culprits[0].bar == 100
    assert [c.rank for c in profile.culprits] == [1, 2, 3, 4, 5, 6]
    assert charts.error_profile([{"name": "a", "op": "b"}]) is None


def test_placement_cuts_where_the_place_changes() -> None:
    rows = [{"name": str(i), "op": "add", "where": where} for i, where in enumerate("xxcx")]
    assert [(run.where, len(run.cells)) for run in charts.placement(rows)] == [("x", 2), ("c", 1), ("x", 1)]
    assert charts.placement([{"name": "a", "op": "add"}]) == []
