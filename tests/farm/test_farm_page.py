"""The page in a real browser, on a phone and on a desk: drawn, to scale, nothing cut off, nothing fetched."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import browser
import farm_fixture
import numpy as np
import pytest
from PIL import Image

from edgekit.farm import report

WIDER = """[...document.querySelectorAll('body *')].filter(e => {
  const r = e.getBoundingClientRect();
  return r.width && r.right > innerWidth + 1 && !e.closest('.scroll, svg');
}).map(e => e.className + ' ' + e.textContent.slice(0, 40))"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[browser.Browser]:
    browser.require()
    with browser.Browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("farm")
    found = farm_fixture.report(folder)
    found["jobs"][0]["reasons"] = ["x" * 300]
    found["boards"]["pixel"]["bad"] = "y" * 300
    found["unfinished"]["command"] += f" --out {'z' * 300}"
    return report.write(folder / "out", found)


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [390, 1280])
def test_it_is_drawn_and_nothing_overflows(
    page: browser.Browser, file: Path, tmp_path: Path, width: int, dark: bool
) -> None:
    page.open(file, width, dark=dark)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(WIDER) == []
    assert page.evaluate(
        "[...document.querySelectorAll('.scroll')].every(e => e.scrollWidth <= e.clientWidth)"
    )
    assert page.requests == [file.resolve().as_uri()]
    shot = tmp_path / "shot.png"
    page.screenshot(shot, scale=0.5)
    pixels = np.asarray(Image.open(shot).convert("L"), dtype=np.float32)
    assert pixels.shape[1] == width // 2 and (pixels[0, 0] < 60) == dark
    assert min(band.std() for band in np.array_split(pixels, 12)) > 2


def test_bars_are_to_scale(page: browser.Browser, file: Path) -> None:
    page.open(file, 1280)
    rows = page.evaluate(
        "[...document.querySelectorAll('.model')].map(m => [...m.querySelectorAll('.races li')].map(e => "
        "[e.querySelector('.run').getBoundingClientRect().width, "
        "parseFloat(e.querySelector('.won b').textContent)]))"
    )
    assert [len(bars) for bars in rows] == [2, 6]
    for bars in rows:
        widths, times = np.array(bars).T
        assert np.allclose(widths / widths[0], times / times[0], rtol=0.02)


def test_what_is_invalid_looks_invalid(page: browser.Browser, file: Path) -> None:
    page.open(file, 390)
    struck = page.evaluate(
        "[...document.querySelectorAll('.runs .void .num span')]"
        ".map(e => getComputedStyle(e).textDecorationLine)"
    )
    assert struck and set(struck) == {"line-through"}
    void, plain = page.evaluate(
        "['.runs tr.void', '.runs tr:not(.void)']"
        ".map(s => getComputedStyle(document.querySelector(s)).backgroundColor)"
    )
    assert void != plain
    sparks = page.evaluate(
        "[...document.querySelectorAll('.spark')].map(e => e.getBoundingClientRect().height)"
    )
    assert len(sparks) == 6 and min(sparks) > 15
