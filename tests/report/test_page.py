"""The page: self-contained, escaped, the same for the same ledger, and honest about what is missing."""

from __future__ import annotations

import base64
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import report_ledgers as ledgers
from pymatgen.core import Structure

from onnes.campaign.ledger import Ledger
from onnes.errors import InputError
from onnes.report import candidates
from onnes.report.page import page_html, script_json, write_page

VOID = {"meta", "br", "link", "img", "input", "hr"}


class Page(HTMLParser):
    """Elements, attributes, ids and the text that a reader sees; refuses unbalanced markup."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.scripts: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] in (["script"], ["style"]):
            self.scripts.append(data)
        else:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).split())

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


def page(ledger) -> Page:
    with ledger:
        return Page(page_html(ledger))


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Page:
    return page(ledgers.finished(tmp_path_factory.mktemp("run")))


@pytest.fixture(scope="module")
def bad(tmp_path_factory) -> Page:
    return page(ledgers.hostile(tmp_path_factory.mktemp("run")))


def data(found: Page) -> dict:
    return json.loads(next(s for s in found.scripts if s.startswith('{"charts"')))


def test_loads_nothing(whole):
    for tag, attrs in whole.tags:
        assert tag not in ("link", "img", "iframe", "object", "embed", "base", "video"), tag
        for key in ("src", "href", "action", "data", "srcset", "poster"):
            value = attrs.get(key) or "#"
            assert value.startswith("#") or value.startswith("data:chemical/x-cif;base64,"), (tag, value[:60])
    styles = [s for s in whole.scripts if ":root" in s[:20]]
    assert len(styles) == 1 and "url(" not in styles[0] and "@import" not in styles[0]
    policy = next(a["content"] for a in whole.all("meta") if a.get("http-equiv"))
    assert policy.startswith("default-src 'none'") and "http" not in policy


def test_plotly_is_there_once_and_only_when_something_is_drawn(whole, tmp_path):
    assert sum(len(s) > 1_000_000 for s in whole.scripts) == 1
    with Ledger.create(tmp_path) as empty:
        text = page_html(empty)
    # The training set is drawn behind an empty run too, when this installation has its histograms.
    assert (len(text) > 1_000_000) == ('class="chart"' in text)


def test_reading_order(whole):
    ids = [attrs["id"] for attrs in whole.all("section")]
    assert ids == ["funnel", "charts", "elements", "candidates", "structures", "trust", "details"]


def test_facts_limits_and_reasons_are_told(whole):
    for words in (
        "1 h 02 min",
        "Seed11",
        "Tc > 6.5 K",
        "E_hull < 0.17 eV/atom",
        "2 atoms closer to each other than any bond allows",
        "1 predicted critical temperature below the limit",
        "MgB2 with".replace("2", "₂"),
        "35.4",
        "31.4 to 41.4",
        "unknown",
        "outside",
        "7net-0",
        "SevenNet-0",
        "allen-dynes",
        "Peak memory2.3 GB",
    ):
        assert words.lower() in whole.text.lower(), words


def test_every_candidate_has_a_view_a_legend_and_its_cif(whole):
    views = whole.all("canvas")
    assert len(views) == 2 and all("Unit cell of" in a["aria-label"] for a in views)
    models = data(whole)["models"]
    assert [sorted(e[0] for e in m["elements"]) for m in models] == [["B", "Mg"], ["Nb"]]
    links = [a for a in whole.all("a") if "download" in a]
    assert [a["download"] for a in links] == ["001_MgB2_g000001.cif", "002_Nb_g000000.cif"]
    cif = base64.b64decode(links[0]["href"].split(",", 1)[1]).decode("ascii")
    found = Structure.from_str(cif, fmt="cif")
    assert np.allclose(found.lattice.abc, (3.0, 3.0, 3.4), atol=1e-4)


def test_charts_have_words(whole):
    charts = [a for a in whole.all("div") if a.get("class") == "chart"]
    assert len(charts) == 4 and len(whole.all("figcaption")) == 6
    assert all(a["role"] == "img" and len(a["aria-label"]) > 40 for a in charts)
    assert "1 candidate with unknown energy above the hull not shown" in whole.text


def test_ids_are_unique_and_links_lead_somewhere(whole):
    ids = [a["id"] for _, a in whole.tags if "id" in a]
    assert len(ids) == len(set(ids))
    for a in whole.all("a"):
        if a["href"].startswith("#"):
            assert a["href"][1:] in ids


def test_hostile_texts_stay_texts(bad, whole):
    # Parsed as a browser would, the hostile run has no script, bold or comment that the benign one lacks.
    assert len(bad.all("script")) == len(whole.all("script"))
    assert bad.all("b") == [] and "alert" not in "".join(a for _, t in bad.tags for a in t if a)
    assert ledgers.HOSTILE in bad.text
    assert all(
        "onnes" in s or "alert(" not in s or s.startswith('{"charts"') for s in bad.scripts if len(s) < 10**6
    )
    link = next(a for a in bad.all("a") if "download" in a)
    assert re.fullmatch(r"[A-Za-z0-9._-]+", link["download"])


def test_script_json_cannot_end_its_element():
    text = script_json({"a": "</script><!--<script>&\u2028"})
    assert "<" not in text and ">" not in text and "&" not in text and text.isascii()
    assert json.loads(text)["a"].startswith("</script>")


def test_same_ledger_same_bytes(tmp_path):
    with ledgers.finished(tmp_path / "run") as ledger:
        first = write_page(ledger, tmp_path / "a.html").read_bytes()
    with Ledger.open(tmp_path / "run", read_only=True) as again:
        assert write_page(again, tmp_path / "b" / "report.html").read_bytes() == first


def test_unfinished_run_says_so(tmp_path):
    found = page(ledgers.unfinished(tmp_path))
    assert "This run is not finished" in found.text and "not ranked yet" in found.text
    assert "Finished" not in [w.strip() for w in found.words]


def test_run_without_crystals(tmp_path):
    found = page(Ledger.create(tmp_path))
    assert "no crystal has entered the funnel" in found.text.lower()
    assert found.all("canvas") == []


def test_run_without_candidates_says_where_they_fell(tmp_path):
    w = ledgers.Writer()
    for k in range(3):
        w.verdict(w.candidate(f"g{k}", ledgers.NBN), "check", "flat-cell: x")
    found = page(w.write(tmp_path, **ledgers.FINISHED))
    assert "3 of 3" in found.text and "Valid crystal" in found.text and found.all("canvas") == []


def test_one_crystal_that_no_file_can_hold_does_not_spoil_the_page(tmp_path):
    w = ledgers.Writer()
    strange = {**ledgers.NBN, "species": ["Zz", "N"]}
    w.until_predict(w.candidate("g0", strange), 20.0, hull=0.1)
    w.verdict("g0", "rank", rank=1, score=1.0)
    found = page(w.write(tmp_path, **ledgers.FINISHED))
    assert len(found.all("canvas")) == 1 and not [a for a in found.all("a") if "download" in a]


def test_long_runs_fold_their_cards(tmp_path, monkeypatch):
    monkeypatch.setattr(candidates, "OPEN_CARDS", 1)
    found = page(ledgers.finished(tmp_path))
    assert "1 more" in found.text and len(found.all("article")) == 2


def test_damaged_meta_is_shown_not_trusted(tmp_path):
    with ledgers.finished(tmp_path) as ledger:
        ledger.update_meta(
            {"settings": ["x"], "versions": 3, "started": 5, "peak_memory_MB": "a", "refused_inputs": "b"}
        )
        assert "Discovery run" in page_html(ledger)


def test_cannot_write(tmp_path):
    (tmp_path / "file").write_text("")
    with ledgers.finished(tmp_path / "run") as ledger:
        for place in (tmp_path, tmp_path / "file" / "r.html"):
            with pytest.raises(InputError) as refused:
                write_page(ledger, place)
            assert refused.value.code == "cannot-write"
    assert (tmp_path / "file").read_text() == ""


@pytest.mark.parametrize(
    ("model", "error"), [("standard", "0.9 K"), ("spectrum", "1.1 K"), ("fast", "1.0 K"), ("trees", "1.1 K")]
)
def test_notes_quote_the_predictor_of_the_run(model, error):
    from types import SimpleNamespace

    from onnes.report.facts import _error_note, _interval_note

    run = SimpleNamespace(meta={"settings": {"predict": {"model": model}}})
    assert f"of the {model} predictor are {error} in Tc" in " ".join(
        _error_note(run).replace("\xa0", " ").split()
    )
    assert "by range of predicted Tc it held 8" in _interval_note(run) or "it held 90" in _interval_note(run)
