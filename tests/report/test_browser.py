"""The page in a real browser: no error, no request, no sideways scrolling on a phone, nothing empty in print."""

from __future__ import annotations

import time

import pytest
import report_ledgers as ledgers
from chromium import Chromium, program

from onnes.report.page import write_page

pytestmark = pytest.mark.skipif(
    program() is None, reason="no headless Chromium here (apt: chromium-headless-shell)"
)


@pytest.fixture(scope="module")
def browser():
    with Chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    folder = tmp_path_factory.mktemp("good")
    with ledgers.deep(folder / "run") as ledger:
        return write_page(ledger, folder / "report.html")


@pytest.fixture(scope="module")
def bad(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bad")
    wide = "W" * 300
    with ledgers.deep(folder / "run", ledgers.HOSTILE + wide, machine=wide) as ledger:
        return write_page(ledger, folder / "report.html")


@pytest.mark.parametrize("width", [390, 768, 1280])
@pytest.mark.parametrize("which", ["good", "bad"])
def test_nothing_is_loaded_fails_or_scrolls_sideways(browser, request, which, width):
    file = request.getfixturevalue(which)
    browser.errors.clear()
    browser.requests.clear()
    browser.run("window.name = ''")
    browser.open(file, width, 844, mobile=width < 500)
    assert browser.errors == [] and browser.requests == [file.resolve().as_uri()]
    assert browser.run("document.documentElement.scrollWidth") <= width
    assert browser.run("document.querySelectorAll('.chart .main-svg').length") > 0, "plotly has drawn"


def test_hostile_texts_run_nothing(browser, bad):
    browser.call("Page.addScriptToEvaluateOnNewDocument", source="window.alert = () => { window.evil = 1; };")
    browser.open(bad)
    assert browser.run("window.evil") is None
    assert browser.run("document.querySelectorAll('main script').length") == 0


def test_letters_on_a_phone_can_be_read(browser, good):
    browser.open(good, 390, 844, mobile=True)
    sizes = browser.run(
        "Array.from(document.querySelectorAll('.dossier .plot .tick'), t => t.getBoundingClientRect().height)"
    )
    assert len(sizes) > 20 and min(s for s in sizes if s) > 8


def test_crystals_are_drawn_when_they_are_seen(browser, good):
    browser.open(good)
    browser.run("document.querySelector('.dossier canvas').scrollIntoView({behavior: 'instant'})")
    painted = (
        "(() => { const c = document.querySelector('.dossier canvas');"
        " const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
        " return d.some((v, k) => k % 4 === 3 && v > 0); })()"
    )
    end = time.monotonic() + 20
    while not browser.run(painted):
        assert time.monotonic() < end, "the view stays empty"
        time.sleep(0.1)


def test_sorting_and_links(browser, good):
    browser.open(good)
    first = "document.querySelector('.sortable tbody tr th').textContent"
    assert browser.run(first) == "MgB2"
    browser.run(
        "Array.from(document.querySelectorAll('.sortable button')).find(b => b.textContent === 'λ').click()"
    )
    browser.run("document.querySelectorAll('.sortable button')[3].click()")
    assert browser.run(first) == "Nb", "by Tc, lowest first"
    browser.run("document.querySelector('.sortable tbody a[href=\"#c1\"]').click()")
    assert browser.run("location.hash") == "#c1"


def test_print(browser, good, tmp_path):
    browser.open(good)
    browser.pdf(tmp_path / "page.pdf")
    data = (tmp_path / "page.pdf").read_bytes()
    assert data.startswith(b"%PDF") and len(data) > 30_000
    browser.call("Emulation.setEmulatedMedia", media="print")
    # A4 without margins is 794 CSS pixels wide; nothing may be cut at the side.
    browser.open(good, 720, 1000)
    cut = browser.run(
        "Array.from(document.querySelectorAll('main table, main svg, main canvas, main figure'))"
        ".filter(e => e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 80))"
    )
    browser.call("Emulation.setEmulatedMedia", media="")
    assert cut == []
