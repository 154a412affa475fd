"""The report of a run: figures, verdicts against history, and what a reader must not miss."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import farm_fixture
import numpy as np
import pytest
from history_records import noisy

from edgekit.farm import page, report, state
from edgekit.history import History


def test_a_slower_run_is_called_and_a_like_one_is_not(tmp_path: Path) -> None:
    found = farm_fixture.report(tmp_path)
    changes = {(job["device"], job["target"]): job["change"] for job in found["jobs"] if job["change"]}
    assert changes["pi4-a", "tflite-int8"]["verdict"] == "no difference"
    assert changes["pi4-b", "tflite-int8"]["verdict"] == "regression"
    assert changes["pi4-b", "tflite-int8"]["percent"] == pytest.approx(21, abs=5)
    assert found["regressions"] == 1
    first = next(job for job in found["jobs"] if job["device"] == "orin" and job["status"] == "valid")
    assert first["change"] is None and len(first["points"]) == 1
    course = next(job for job in found["jobs"] if job["device"] == "pi4-b")["points"]
    assert len(course) == 8 and course[-1]["p50_ms"] > course[0]["p50_ms"]


def test_complaint_names_what_is_wrong(tmp_path: Path) -> None:
    found = farm_fixture.report(tmp_path)
    assert report.complaint(found) == "1 INVALID, 1 failed, 2 not run, 1 slower than before"
    good = {"counts": dict.fromkeys(report.STATUSES, 0), "regressions": 0, "exclusive": True}
    assert report.complaint(good) is None
    assert "two jobs at once" in str(report.complaint(good | {"exclusive": False}))


def test_files_are_written_and_say_the_same(tmp_path: Path) -> None:
    found = farm_fixture.report(tmp_path)
    place = report.write(tmp_path / "out", found)
    html, markdown = place.read_text(), (place.parent / "report.md").read_text()
    assert json.loads((place.parent / "report.json").read_text()) == json.loads(json.dumps(found))
    for text in (html, markdown):
        assert "throttled: under-voltage" in text and "regression" in text and "+2" in text
        assert "3 failures of the board in a row" in text and "does not load" in text
    assert not re.search(r"<script|https?://|@import|url\(", html)
    assert html.count('<svg class="spark"') == sum(len(job["points"]) > 1 for job in found["jobs"])


def test_names_cannot_break_out_of_the_page(tmp_path: Path) -> None:
    found = farm_fixture.report(tmp_path)
    evil = "<img src=x onerror=alert(1)>|`"
    for job in found["jobs"]:
        job |= {"model": evil, "target": evil, "reasons": [evil] if job["reasons"] else []}
    html, markdown = page.render_html(found), page.render_markdown(found)
    assert "<img" not in html and "<img" not in markdown
    rows = [line for line in markdown.splitlines() if line.startswith("| pi4-a")]
    assert rows and all(len(re.findall(r"(?<!\\)\|", row)) == 9 for row in rows[:1])


def test_equal_reasons_of_a_board_are_said_once(tmp_path: Path) -> None:
    shown = page.problems(farm_fixture.report(tmp_path))["shown"]
    assert [(row["tag"], row["what"]) for row in shown] == [
        ("slower", "mobilenet_v3_large tflite-int8 on pi4-b"),
        ("INVALID", "efficientnet_lite0 tflite-int8 on pi4-b"),
        ("failed", "efficientnet_lite0 tflite-int8 on orin"),
        ("not run", "2 jobs on pixel"),
    ]


@pytest.mark.parametrize(
    ("drift", "words"),
    [
        (None, "—"),
        ({"identical": 32}, "all 32 bit for bit"),
        ({"identical": 30, "max_lsb": 2}, "30 of 32 bit for bit, up to 2 LSB, 96.9 % the same class"),
        (
            {"identical": 32, "top1_device": 0.5, "top1_reference": 0.25},
            "all 32 bit for bit, top-1 50.0 % (reference 25.0 %)",
        ),
    ],
)
def test_answers_in_words(drift: dict[str, Any] | None, words: str) -> None:
    assert page.answers(farm_fixture.drift(**drift) if drift else None) == words


def test_a_sparkline_marks_what_is_invalid() -> None:
    points = [{"p50_ms": 2.0 + 0.1 * i, "ok": i != 2} for i in range(5)]
    line = page.sparkline(points)
    assert line is not None and line["path"].count("L") == 3 and line["invalid"] == [50.0]
    heights = [float(pair.split()[1]) for pair in line["path"][1:].split("L")]
    assert heights == sorted(heights, reverse=True)  # slower is higher on the page
    assert page.sparkline(points[:1]) is None
    flat = page.sparkline([{"p50_ms": 2.0 + 0.001 * i, "ok": True} for i in range(5)])
    assert flat is not None
    heights = [float(pair.split()[1]) for pair in flat["path"][1:].split("L")]
    assert max(heights) - min(heights) < 2  # noise is no cliff


def test_unlike_runs_are_not_compared(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    with History(tmp_path / "h.sqlite") as history:
        history.add(noisy(rng, "old-pi", device__id="pi", created="2026-03-01T00:00:00Z"))
        history.add(
            noisy(
                rng,
                "new-pi",
                device__id="pi",
                created="2026-03-02T00:00:00Z",
                device__fingerprint={"model": "another"},
            )
        )
        row = {"model": "mobilenet_v2", "target": "tflite-int8", "device": "pi", "record": "new-pi"}
        course = report._course(row | {"status": state.VALID}, history)
    assert course["change"]["verdict"] == "not comparable" and "fingerprint" in course["change"]["words"]


def test_two_builds_of_one_name_are_told_apart(tmp_path: Path) -> None:
    found = farm_fixture.report(tmp_path)
    found["unfinished"] = None  # its command is code
    assert "<code>" not in page.render_html(found).split("<footer>")[0]
    found["jobs"].append(found["jobs"][1] | {"sha256": "0123456789" * 6})
    assert "<code>01234567</code>" in page.render_html(found)


def test_what_is_missing_comes_with_the_command(tmp_path: Path) -> None:
    found = farm_fixture.report(tmp_path)
    assert found["unfinished"] == {"jobs": 2, "command": "edgekit farm run --resume"}
    assert page.verdict(found)["word"] == "Not all measured."
    found |= {"interrupted": True}
    assert page.verdict(found)["word"] == "Interrupted."
    said = "2 of 11 jobs are missing: edgekit farm run --resume goes on"
    assert said in re.sub("<.*?>", "", page.render_html(found))
    assert said in page.render_markdown(found).replace("`", "")
    found["unfinished"] = None
    assert "are missing" not in page.render_html(found) + page.render_markdown(found)


@pytest.mark.parametrize(
    ("interval", "words"),
    [((7.18, 7.214), "7.18 to 7.21 ms"), ((0.0985, 0.1012), "98.5 µs to 0.101 ms"), (None, "")],
)
def test_an_interval_names_its_unit_once(interval: tuple[float, float] | None, words: str) -> None:
    assert page._between(interval) == words
