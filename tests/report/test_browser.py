"""The page in a real browser: something is drawn, nothing overflows, nothing is fetched."""

from collections.abc import Iterator
from pathlib import Path

import browser
import formats_fixture
import numpy as np
import pytest
import report_fixture
from PIL import Image
from test_html import hostile

from edgekit.report.html import render_html

WIDER = """[...document.querySelectorAll('body *')].filter(e => {
  const r = e.getBoundingClientRect();
  return r.width && r.right > innerWidth + 1 && !e.closest('.scroll, .strip, svg, .map');
}).map(e => e.className + ' ' + e.textContent.slice(0, 40))"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[browser.Browser]:
    browser.require()
    with browser.Browser(tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.mark.parametrize(
    ("kind", "width"),
    [
        ("passed", 390),
        ("passed", 1280),
        ("failed", 390),
        ("several", 320),
        ("several", 1280),
        ("hostile", 320),
        ("hostile", 1280),
        ("formats", 390),
        ("formats", 1280),
        ("hostile formats", 390),
    ],
)
def test_nothing_overflows(page: browser.Browser, tmp_path: Path, kind: str, width: int) -> None:
    report = report_fixture.report(targets=2 if kind == "several" else 1, fail=kind == "failed")
    if "formats" in kind:
        report = formats_fixture.report()
    if "hostile" in kind:
        report = hostile(report)
        report["model"] = "x" * 300
        report["gates"][0]["detail"] = "y" * 300
    file = tmp_path / "report.html"
    file.write_text(render_html(report), encoding="utf-8")
    page.open(file, width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(WIDER) == []
    assert [url for url in page.requests if not url.startswith("data:")] == [file.resolve().as_uri()]


@pytest.mark.parametrize("dark", [False, True])
def test_something_is_drawn(page: browser.Browser, tmp_path: Path, dark: bool) -> None:
    file, shot = tmp_path / "report.html", tmp_path / "shot.png"
    file.write_text(render_html(report_fixture.report()), encoding="utf-8")
    page.open(file, 1280, dark=dark)
    page.screenshot(shot, scale=0.25)
    pixels = np.asarray(Image.open(shot).convert("L"), dtype=np.float32)
    assert (pixels[0, 0] < 60) == dark
    bands = np.array_split(pixels, 12)
    assert min(band.std() for band in bands) > 2
    assert page.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [390, 1280])
def test_the_comparison_is_drawn_to_scale(
    page: browser.Browser, tmp_path: Path, width: int, dark: bool
) -> None:
    report, file = formats_fixture.report(), tmp_path / "report.html"
    file.write_text(render_html(report), encoding="utf-8")
    page.open(file, width, dark=dark)
    bars = page.evaluate("[...document.querySelectorAll('.run')].map(e => e.getBoundingClientRect().width)")
    times = [row["p50_ms"] for row in report["runtimes"]]
    assert len(bars) == len(times)
    assert np.allclose(np.divide(bars, bars[0]), np.divide(times, times[0]), rtol=0.02)
    table = "document.querySelector('.agree')"
    assert page.evaluate(f"{table}.scrollWidth <= {table}.parentElement.clientWidth")
    shades = page.evaluate(
        f"[...{table}.querySelectorAll('tbody td:not(.self)')].map(e => getComputedStyle(e).backgroundColor)"
    )
    assert len(shades) == 12 and len(set(shades)) == 3  # none, up to 0.5 % and up to 2 % of answers differ


def test_prints(page: browser.Browser, tmp_path: Path) -> None:
    file, document = tmp_path / "report.html", tmp_path / "report.pdf"
    file.write_text(render_html(report_fixture.report()), encoding="utf-8")
    page.open(file, 1280, dark=True)
    page.print(document)
    data = document.read_bytes()
    assert data.startswith(b"%PDF") and len(data) > 20_000
