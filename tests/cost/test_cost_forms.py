"""Forms fitted to points that were made by a known law, and tables on disk."""

from __future__ import annotations

import json

import numpy as np
import pytest

from edgekit.cost.forms import fit
from edgekit.cost.table import Entry, Table, Whole, tables
from edgekit.errors import StoreError


def staircase(sizes, tile_out: int, tile_in: int = 1) -> float:
    """The published form of int8 1x1 convolutions, ns."""
    o = -(-sizes["out"] // tile_out) * tile_out
    i = -(-sizes["in"] // tile_in) * tile_in
    return 38 + sizes["pixels"] * (0.186 + o * (0.072 + 0.00191 * i)) + 0.00055 * o * i


def points(count: int, law, seed: int = 0):
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        sizes = {
            "pixels": int(rng.choice([49, 196, 784, 3136])),
            "in": int(rng.integers(8, 400)),
            "out": int(rng.integers(8, 400)),
            "taps": 1,
        }
        found.append((sizes, law(sizes)))
    return found


@pytest.mark.parametrize(("tile_out", "tile_in"), [(16, 1), (8, 1), (64, 64)])
def test_the_staircase_is_found_and_holds_at_unseen_sizes(tile_out: int, tile_in: int) -> None:
    form = fit("pointwise", points(60, lambda sizes: staircase(sizes, tile_out, tile_in)))
    assert form.tiles == (tile_out, tile_in)
    for sizes, ns in points(50, lambda sizes: staircase(sizes, tile_out, tile_in), seed=1):
        assert form.ns(sizes) == pytest.approx(ns, rel=0.03)


def test_sixteen_points_are_enough_for_a_staircase_in_the_output_channels() -> None:
    form = fit("pointwise", points(16, lambda sizes: staircase(sizes, 16)))
    errors = [
        form.ns(sizes) / ns - 1 for sizes, ns in points(150, lambda sizes: staircase(sizes, 16), seed=2)
    ]
    assert np.mean(np.abs(errors)) < 0.04


def test_noise_of_a_measurement_does_not_choose_the_tile() -> None:
    rng = np.random.default_rng(3)
    form = fit("pointwise", points(80, lambda sizes: staircase(sizes, 16) * rng.normal(1.0, 0.02)))
    assert form.tiles[0] == 16
    assert form.error is not None and form.error < 0.05


def test_what_the_form_leaves_over_is_taken_from_neighbours() -> None:
    def law(sizes) -> float:  # a kernel that is half as fast again at few pixels
        return staircase(sizes, 16) * (1.5 if sizes["pixels"] < 100 else 1.0)

    form = fit("pointwise", points(120, law))
    errors = [form.ns(sizes) / ns - 1 for sizes, ns in points(60, law, seed=4)]
    assert np.mean(np.abs(errors)) < 0.06


def test_elements_take_a_line() -> None:
    given = [({"read": n, "written": n, "rows": n // 16}, 60 + n / 26) for n in (160, 1600, 16000, 160000)]
    form = fit("table int8", given)
    assert form.ns({"read": 48000, "written": 48000, "rows": 3000}) == pytest.approx(
        60 + 48000 / 26, rel=0.02
    )


def test_one_point_gives_itself() -> None:
    form = fit("linear", [({"pixels": 1, "in": 1280, "out": 1000, "taps": 1}, 30_000.0)])
    assert form.error is None
    assert form.ns({"pixels": 1, "in": 1280, "out": 1000, "taps": 1}) == pytest.approx(30_000.0, rel=0.02)


def test_units_of_equal_sizes_and_unlike_times_give_no_explosion_elsewhere() -> None:
    """Pieces that are cut out at different places: sizes do not tell why one takes longer."""
    rng = np.random.default_rng(5)
    given = [
        ({"read": n * 2, "written": n, "rows": n // 8}, (200 + n / 10) * rng.uniform(0.5, 2.0))
        for n in (320, 640, 1280, 2560) * 6
    ]
    form = fit("SLICE int8", given)
    for n in (16, 800, 8000, 80_000):
        ns = form.ns({"read": 2 * n, "written": n, "rows": n // 8})
        assert (200 + n / 10) / 4 < ns < (200 + n / 10) * 4


def _table(**changes) -> Table:
    settings = {"fingerprint": "f00d", "version": "2.14.0", "delegate": "xnnpack", "threads": 1, **changes}
    return Table(device="pi4-a", runtime="tflite-runtime", reference_ns=1000.0, **settings)


def test_a_table_comes_back_as_it_was(tmp_path) -> None:
    table = _table()
    table.units["k"] = Entry(12.5, (12.5, 13.0), "table int8", {"read": 4, "written": 4, "rows": 1})
    table.models["m"] = Whole("tflite-int8", 1.1, 1.0)
    table.write(tmp_path)
    (found,) = tables(tmp_path)
    assert found == table


def test_what_another_process_added_meanwhile_stays(tmp_path) -> None:
    first, second = _table(), _table()
    first.units["a"] = Entry(1.0, (1.0,), "x int8", {"read": 1})
    second.units["b"] = Entry(2.0, (2.0,), "x int8", {"read": 2})
    first.write(tmp_path)
    second.write(tmp_path)
    (found,) = tables(tmp_path)
    assert set(found.units) == {"a", "b"}


def test_boards_versions_and_threads_have_tables_of_their_own(tmp_path) -> None:
    for changes in ({}, {"fingerprint": "beef"}, {"version": "2.3.0"}, {"threads": 2}, {"delegate": "none"}):
        _table(**changes).write(tmp_path)
    assert len(tables(tmp_path)) == 5


def test_the_constant_is_the_median_over_models_of_the_target() -> None:
    table = _table()
    assert table.constant("tflite-int8") == 1.0
    for i, ratio in enumerate((1.05, 1.08, 1.3)):
        table.models[f"m{i}"] = Whole("tflite-int8", ratio * 2.0, 2.0)
    table.models["f"] = Whole("tflite-float32", 1.2, 1.0)
    assert table.constant("tflite-int8") == pytest.approx(1.08)
    assert table.constant("tflite-float32") == pytest.approx(1.2)


def test_a_damaged_table_is_an_error_of_one_line_and_another_schema_is_passed_over(tmp_path) -> None:
    path = _table().write(tmp_path)
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"schema_version": 99}))
    assert tables(tmp_path) == []
    path.write_text(path.read_text()[:40])
    with pytest.raises(StoreError, match="delete it"):
        tables(tmp_path)
