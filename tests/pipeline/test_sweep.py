"""Sweeps: points planned, built in processes of their own, kept, timed beside the original, drawn."""

import json
import sys
from pathlib import Path

import pytest
from small_model import NET

from edgekit.errors import UsageError
from edgekit.pipeline import recipe as recipes
from edgekit.sweep import page, report, work
from edgekit.sweep.plan import AS_IT_IS, plan

sys.path.insert(0, str(Path(__file__).parents[1] / "report"))
import browser


def _base(**content):
    return recipes.from_dict({"model": NET, **content})


def _labels(*grid, budget=None, **content):
    return [point.label for point in plan(_base(**content), grid, budget)]


def test_every_combination_is_a_point_and_the_original_is_the_first():
    assert _labels("quantize.profile=fast,thorough", "data.calibration=8,16") == [
        AS_IT_IS,
        "quantize.profile fast, data.calibration 8",
        "quantize.profile fast, data.calibration 16",
        "quantize.profile thorough, data.calibration 8",
        "quantize.profile thorough, data.calibration 16",
    ]
    points = plan(_base(prune={"keep": 0.5}), ["prune=macs=0.6,dead,off"], None)
    assert points[0].recipe.prune is None
    pruned = [point.recipe.prune for point in points]
    assert [p and (p.keep, p.macs, p.dead) for p in pruned] == [
        None, (None, 0.6, False), (None, None, True),
    ]  # fmt: skip
    (_, lite) = plan(_base(), ["lite=no-se+relu6"], None)
    assert lite.recipe.lite.steps == ("no-se", "relu6")
    (_, macs) = plan(_base(prune={"keep": 0.5}), ["prune.macs=0.6"], None)
    assert (macs.recipe.prune.keep, macs.recipe.prune.macs) == (None, 0.6)
    budgets = plan(_base(), [], "3ms,4.5ms")[1:]
    assert [point.recipe.prune.latency_ms for point in budgets] == [3.0, 4.5]
    assert all(point.measures for point in budgets) and not macs.measures
    assert {point.recipe.device.profile for point in points} == {"off"}
    assert len({point.id for point in points}) == len(points)


@pytest.mark.parametrize(
    ("grid", "said"),
    [
        ("quantize.profil=fast", r"\[quantize\] 'profil' is not a setting; did you mean profile"),
        ("quantise.profile=fast", "no section of a recipe"),
        ("quantize.profile", "KEY=a,b,c"),
        ("quantize.profile=", "KEY=a,b,c"),
        ("quantize.profile=quick", "profile = 'quick'"),
        ("prune=keeep=0.5", "'keeep'"),
        ("resolution=big", "resolution = 'big'"),
    ],
)
def test_what_is_no_setting_is_said(grid, said):
    with pytest.raises(UsageError, match=said):
        plan(_base(), [grid], None)


def test_a_setting_varied_twice_is_said():
    with pytest.raises(UsageError, match="prune is varied twice"):
        plan(_base(), ["prune=0.5"], "3ms")


def _row(accuracy, p50_ms, size_bytes):
    return {"accuracy": accuracy, "p50_ms": p50_ms, "size_bytes": size_bytes}


def test_the_front_is_what_nothing_beats():
    rows = [_row(90, 3, 30), _row(89, 2, 30), _row(88, 2, 30), _row(88, 2.5, 10), _row(90, 3, 30)]
    assert report.front(rows) == [True, True, False, True, True]
    assert report.front([_row(90, None, 30), _row(80, 1, 40)]) == [True, False]


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    return tmp_path_factory.mktemp("sweep")


def _sweep(edgekit, out, folder, *more):
    return edgekit(
        "sweep", NET, "--data", f"imagefolder:{folder}", "--grid", "data.calibration=8,16", "--grid",
        "quantize.profile=fast", "--target", "tflite-int8", "--target", "tflite-float32", "--workers", 1,
        "--out", out, *more,
    )  # fmt: skip


def test_a_sweep_from_the_command_line(swept, cache, folder, edgekit, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    code, printed, error = _sweep(edgekit, swept, folder)
    assert code == 0, error
    assert "data.calibration 8" in printed and str(swept / "sweep.html") in printed
    found = json.loads((swept / "sweep.json").read_text())
    assert [point["status"] for point in found["points"]] == 3 * ["done"]
    assert len(found["rows"]) == 6 and any(row["front"] for row in found["rows"])
    for row in found["rows"]:
        assert row["accuracy_low"] <= row["accuracy"] <= row["accuracy_high"]
        assert row["p50_ms"] > 0 and ("ratio" in row) == (row["label"] != AS_IT_IS)
        assert (swept / row["build"] / "report.html").exists()
    assert "**" in (swept / "sweep.md").read_text()
    before = {path: path.stat().st_mtime_ns for path in swept.glob("points/*/*.json")}
    code, _, error = _sweep(edgekit, swept, folder)
    assert code == 0 and "done" not in error and "timing" not in error
    assert {path: path.stat().st_mtime_ns for path in swept.glob("points/*/*.json")} == before
    lost = next(path for path in before if path.name == "result.json")
    lost.unlink()
    code, _, error = _sweep(edgekit, swept, folder, "--json")
    assert code == 0 and error.count("done") == 1
    browser.require()
    with browser.Browser(tmp_path / "chromium") as shown:
        for width in (1280, 390):
            shown.open(swept / "sweep.html", width)
            assert shown.requests == [(swept / "sweep.html").resolve().as_uri()]
            assert shown.evaluate("document.querySelectorAll('.scatter .dot').length") == 6
            assert shown.evaluate("document.documentElement.scrollWidth") <= width


def test_a_point_that_fails_costs_that_point(tmp_path, cache, folder, edgekit):
    code, _, error = edgekit(
        "sweep", NET, "--data", f"imagefolder:{folder}", "--grid", "resolution=32,7000000",
        "--latency", "off", "--target", "tflite-float32", "--workers", 1, "--out", tmp_path,
    )  # fmt: skip
    found = json.loads((tmp_path / "sweep.json").read_text())
    assert code == 1 and "1 of 3 points were not built" in error
    assert [point["status"] for point in found["points"]][:2] == ["done", "done"]
    assert found["points"][2]["status"] in ("failed", "crashed") and found["points"][2]["reason"]
    assert "Not built" in (tmp_path / "sweep.html").read_text()


def test_a_scheduler_s_workers_need_nothing_but_the_network(tmp_path, cache, folder, edgekit):
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, protocol="tcp", dashboard_address=None
    ) as cluster:
        code, _, error = _sweep(
            edgekit, tmp_path, folder, "--scheduler", cluster.scheduler_address, "--latency", "off"
        )
    assert code == 0, error
    assert len(list(tmp_path.glob("points/*/build/tflite-int8/*.tflite"))) == 3


def test_a_scheduler_that_is_not_there_is_said(tmp_path, folder, edgekit):
    code, _, error = _sweep(edgekit, tmp_path, folder, "--scheduler", "tcp://127.0.0.1:9")
    assert code == 2 and "not reached" in error


def test_a_point_that_takes_too_long_is_ended():
    recipe = _base().to_dict()
    found = work.build_point({"recipe": recipe, "cache": None, "trust": False, "alone": False}, 0.2)
    assert found["status"] == "timeout" and "archive" not in found


def test_nothing_varied_is_said(tmp_path, edgekit):
    code, _, error = edgekit("sweep", NET, "--out", tmp_path / "out")
    assert code == 2 and "nothing is varied" in error and not (tmp_path / "out").exists()


def test_names_are_made_harmless():
    row = _row(90.0, 1.0, 10) | {
        "label": "<b>x|y</b>", "target": "tflite-int8", "metric": "top1", "accuracy_low": None,
        "accuracy_high": None, "macs": 1, "verdict": "passed", "build": "points/a/build", "front": True,
    }  # fmt: skip
    content = {
        "edgekit": "0", "created": "2026-01-01", "model": "<m>", "data": "d", "weights": "w", "machine": {},
        "points": [{"label": "<p>", "status": "failed", "reason": "<r>"}], "rows": [row, row],
    }  # fmt: skip
    assert not {"<b>", "<m>", "<p>x", "<r>"} & set(page.render_html(content).split())
    assert "<b>x|y</b>" not in page.render_html(content)
    assert "&lt;b>x\\|y&lt;/b>" in page.render_markdown(content)
