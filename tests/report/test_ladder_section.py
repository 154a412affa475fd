"""The ladder's picture stands where its table says: the right numbers, taken and not taken apart."""

import pytest
from report_fixture import report as example_report

from edgekit.report.html import render_html
from edgekit.report.ladder import picture
from edgekit.report.markdown import render_markdown


def _rung(step, won, drop, taken=True, outcome="taken"):
    price = None if drop is None else won / (100 * max(drop, 0.001))
    return {
        "step": step,
        "modules": ["a.b", "c"],
        "ms_won": won,
        "drop": drop,
        "price": price,
        "outcome": outcome,
        "taken": taken,
    }


RUNGS = [
    _rung("no-se", 0.2, 0.004),
    _rung("relu6", 0.1, -0.002),
    _rung("3x3", 0.1, 0.016, False, "loses more than is left of the budget"),
    _rung("fuse", -0.1, None, False, "wins no time"),
]


def test_rungs_stand_one_on_the_other():
    drawn = picture(RUNGS, 0.01)
    assert [pin.rank for pin in drawn.pins] == [1, 2, 3]
    wide, high = 1.06 * 2.0, 1.06 * 0.4  # 0.4 and 1.6 points; one that gains loses nothing
    assert [pin.x for pin in drawn.pins] == pytest.approx([40 / wide, 40 / wide, 200 / wide], abs=0.01)
    assert [pin.y for pin in drawn.pins] == pytest.approx(
        [100 - 20 / high, 100 - 30 / high, 100 - 40 / high], abs=0.01
    )
    assert drawn.limit == pytest.approx(100 / wide, abs=0.01)
    assert drawn.taken.count("M") == 2 and drawn.left.count("M") == 1
    assert [tick.text for tick in drawn.across][:2] == ["0", "1"]
    assert picture(RUNGS[3:], 0.01) is None
    assert picture([_rung("no-se", 0.2, 0.0)], None).limit is None


def test_the_page_draws_it_beside_its_table():
    report = example_report()
    same = {"name": "net", "params": 10, "macs": 20}
    report["variants"] = [
        {"step": "original", **same},
        {"step": "lite", **same, "record": {"ladder": RUNGS, "max_drop": 0.01, "notes": []}},
    ]
    page = render_html(report)
    assert page.count("plot tall ladder") == 1 and "points lost" in page and ">not taken<" in page
    assert (
        "wins no time" in page
        and "\N{MINUS SIGN}0.100 ms" in page
        and "The ladder of lite" in render_markdown(report)
    )
    report["variants"][1]["record"]["ladder"] = RUNGS[3:]
    assert "plot tall ladder" not in render_html(report)
