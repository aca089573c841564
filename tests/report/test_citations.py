"""What a run cites: everything it used, nothing else, in BibTeX that parses."""

from __future__ import annotations

import re

import pytest
import report_ledgers as ledgers

from onnes.campaign.ledger import Verdict
from onnes.report.citations import bibliography, entries
from onnes.report.export import export
from onnes.report.story import read_run


def keys(text: str) -> list[str]:
    return re.findall(r"^@\w+\{([^,]+),$", text, flags=re.M)


def balanced(text: str) -> bool:
    depth = 0
    for c in text:
        depth += (c == "{") - (c == "}")
        if depth < 0:
            return False
    return depth == 0


def test_entries_are_whole():
    held = entries()
    assert len(held) > 15
    for key, body in held.items():
        assert balanced(body + "}"), key
        assert (
            re.search(r"\n  (year|url|note) = \{", body) and "author = {" in body and "title = {" in body
        ), key
        for doi in re.findall(r"doi = \{([^}]*)\}", body):
            assert re.fullmatch(r"10\.\d{4,}/\S+", doi)


def test_a_run_cites_what_it_used(tmp_path):
    with ledgers.finished(tmp_path / "flat") as ledger:
        text = bibliography(read_run(ledger))
    flat = keys(text)
    assert len(flat) == len(set(flat)) and balanced(text)
    assert {"park2024sevennet", "allen1975transition", "cerqueira2024sampling", "moyo", "onnes"} <= set(flat)
    assert not {"togo2023first", "giannozzi2017advanced", "gibson2025accelerating", "xie2022machine"} & set(
        flat
    )
    with ledgers.deep(tmp_path / "deep") as ledger:
        deep = keys(bibliography(read_run(ledger)))
    assert set(deep) - set(flat) >= {"togo2023first", "giannozzi2017advanced", "gibson2025accelerating"}


@pytest.mark.parametrize(
    ("part", "key"),
    [
        ({"predict": {"formula": "xie"}}, "xie2022machine"),
        ({"predict": {"model": "spectrum"}}, "gibson2025accelerating"),
        ({"generate": {"model": "cdvae", "paths": []}}, "xie2022crystal"),
        ({"relax": {"potential": "chgnet"}}, "deng2023chgnet"),
    ],
)
def test_settings_decide(tmp_path, part, key):
    with ledgers.finished(tmp_path) as ledger:
        assert key not in keys(bibliography(read_run(ledger)))
        ledger.set_meta("settings", {k: {**v, **part.get(k, {})} for k, v in ledgers.SETTINGS.items()})
        assert key in keys(bibliography(read_run(ledger)))


def test_what_gets_cited_for_what(tmp_path):
    with ledgers.finished(tmp_path) as ledger:
        ledger.add_verdicts([Verdict("g000000", "prescreen", True, "", {}, None, "in", "set", "h", 0, 0.5)])
        ledger.set_meta("stages", ["check", "prescreen", *ledgers.STAGES[1:]])
        held = {**ledgers.SETTINGS, "relax": {**ledgers.SETTINGS["relax"], "skip": True}}
        before = bibliography(read_run(ledger))
        ledger.set_meta("settings", held)
        after = bibliography(read_run(ledger))
    assert "pre-screen: fast" in before and "relaxation (7net-0)" in before
    assert "energies of crystals as they came (7net-0)" in after and "relaxation" not in after


def test_hostile_texts_cannot_leave_their_line(tmp_path):
    with ledgers.finished(tmp_path / "run") as ledger:
        bad = "}\n@misc{evil, % {"
        ledger.update_meta({"versions": {"onnes": bad, "sevenn": bad}})
        (file,) = export(ledger, "bib", tmp_path / "r.bib")
    text = file.read_text("ascii")
    assert "evil" not in keys(text) and balanced("\n".join(x for x in text.splitlines() if x[:1] != "%"))
