"""Counting and wording: the funnel's numbers, the candidates' order, and the sentence that sums a run up."""

from __future__ import annotations

import io

import pytest
import report_ledgers as ledgers
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from onnes.campaign.settings import Settings
from onnes.campaign.stages import REVISION
from onnes.report.facts import LIMITS, notes, run_facts, stage_about, stage_limits, stage_seconds
from onnes.report.story import read_run
from onnes.report.tables import candidate_rows, funnel_rows, headline, novelty_words, print_candidates
from onnes.report.words import STAGES, finite, reason_words, show, show_seconds, subscript_html


def funnel(ledger):
    return {row["stage"]: row for row in funnel_rows(ledger).to_dict("records")}


def counts(row):
    return tuple(row[k] for k in ("in", "passed", "failed", "pending"))


def test_funnel_counts_and_reasons(tmp_path):
    rows = funnel(ledgers.finished(tmp_path))
    assert list(rows) == ["generate", *ledgers.STAGES]
    assert counts(rows["generate"]) == (7, 7, 0, 0)
    assert counts(rows["check"]) == (7, 4, 3, 0)
    assert rows["check"]["reasons"] == {"overlapping-atoms": 2, "flat-cell": 1}
    assert counts(rows["unique"]) == (4, 3, 1, 0)
    assert counts(rows["predict"]) == (3, 2, 1, 0)
    assert rows["predict"]["reasons"] == {"tc-below-limit": 1}
    assert counts(rows["rank"]) == (2, 2, 0, 0)


def test_unfinished_run_counts_what_waits(tmp_path):
    ledger = ledgers.unfinished(tmp_path)
    rows = funnel(ledger)
    assert counts(rows["relax"]) == (2, 1, 0, 1)
    assert counts(rows["rank"]) == (1, 0, 0, 1)
    assert "not finished" in headline(ledger)
    frame = candidate_rows(ledger)
    assert frame.attrs["provisional"] and frame["rank"].isna().all() and list(frame["formula"]) == ["MgB2"]


def test_candidates_in_order_of_rank_with_unknown_kept_unknown(tmp_path):
    frame = candidate_rows(ledgers.finished(tmp_path))
    assert list(frame["id"]) == ["g000001", "g000000"] and list(frame["rank"]) == [1, 2]
    assert frame["e_hull_eV_atom"].isna().tolist() == [False, True]
    assert frame["in_domain"].tolist() == [True, False]


def test_headline_names_the_best(tmp_path):
    text = headline(ledgers.finished(tmp_path))
    assert "7 crystals" in text and "2 came out" in text and "MgB₂" in text and "35.4" in text


@pytest.mark.parametrize(
    ("hull", "words"),
    [
        (0.012, "0.012\u00a0eV/atom above the hull"),
        (-0.068, "0.068\u00a0eV/atom below the hull"),
        (-6e-8, "K), on the hull of known phases"),
        (None, "its energy above the hull is unknown"),
    ],
)
def test_headline_says_on_which_side_of_the_hull(tmp_path, hull, words):
    w = ledgers.Writer()
    w.until_predict(w.candidate("g000000", ledgers.NBN), 12.0, hull=hull)
    w.verdict("g000000", "rank", rank=1, score=1.0)
    assert words in headline(w.write(tmp_path, **ledgers.FINISHED))


def test_empty_and_fruitless_runs(tmp_path):
    empty = ledgers.Writer().write(tmp_path / "a", state="running")
    assert headline(empty) == "No crystal has entered the funnel yet."
    w = ledgers.Writer()
    w.verdict(w.candidate("g000000", ledgers.MGB2), "check", "flat-cell: x")
    fruitless = w.write(tmp_path / "b", **ledgers.FINISHED)
    assert headline(fruitless) == "1 crystal entered the funnel; none of them passed every gate."
    console = Console(file=io.StringIO(), width=100)
    print_candidates(fruitless, console)
    assert "flat" in console.file.getvalue()


def test_finished_run_whose_last_survivors_fell_is_not_provisional(tmp_path):
    w = ledgers.Writer()
    w.until_predict(w.candidate("g000000", ledgers.MGB2), 30.0, hull=0.1)
    # A run that ended without ranking anything (rank removed by hand): its survivors are no candidates.
    assert candidate_rows(w.write(tmp_path, **ledgers.FINISHED)).empty


def test_unreadable_inputs_are_counted(tmp_path):
    refused = [
        ["a.cif", "partial-occupancy", "x"],
        ["b.cif", "partial-occupancy", "y"],
        ["c", "no-atoms", "z"],
    ]
    row = funnel(ledgers.finished(tmp_path, refused_inputs=refused))["read"]
    assert counts(row) == (10, 7, 3, 0)
    assert row["reasons"] == {"partial-occupancy": 2, "no-atoms": 1}


def test_limits_are_those_of_the_run(tmp_path):
    run = read_run(ledgers.finished(tmp_path))
    assert "Tc > 6.5 K" in stage_limits(run, "predict")
    assert "E_hull < 0.17 eV/atom" in stage_limits(run, "hull")
    assert stage_limits(run, "novel") == []  # not recorded: nothing is claimed


def test_the_chemistry_screen_shows_what_is_on(tmp_path):
    run = read_run(ledgers.finished(tmp_path))
    plain = stage_limits(run, "check")
    run.meta["settings"]["chemistry"] = Settings().chemistry.model_dump()
    assert stage_limits(run, "check") == plain  # all off: nothing to say
    run.meta["settings"]["chemistry"] |= {
        "no_radioactive": True,
        "no_toxic": True,
        "min_abundance_ppm": 0.01,
        "exclude": ["Tl", "Os"],
        "max_elements": 4,
    }
    assert stage_limits(run, "check")[len(plain) :] == [
        "no radioactive elements",
        "no toxic elements",
        "elements of at least 0.01 ppm of the crust",
        "without Tl, Os",
        "at most 4 different elements",
    ]


def test_a_run_without_relaxation_is_not_said_to_relax(tmp_path):
    run = read_run(ledgers.finished(tmp_path))
    assert stage_limits(run, "relax") == ["forces < 0.05 eV/Å", "within 200 steps"]
    assert "Every crystal was relaxed" in dict(notes(run))["Structures and energies"]
    run.meta["settings"]["relax"] |= {"skip": True, "skip_max_force_eV_A": 0.8}
    assert stage_limits(run, "relax") == ["as they came: forces ≤ 0.8 eV/Å"]
    told = " ".join(text for _, text in notes(run)) + stage_about(run, "relax") + stage_about(run, "distinct")
    assert "No crystal was relaxed in this run" in told and "one energy each" in told
    assert not any(words in told for words in ("was relaxed with", "the relaxed crystal", "after relaxation"))


def test_limits_that_are_off_are_left_out(tmp_path):
    run = read_run(ledgers.finished(tmp_path))
    settings = run.meta["settings"]
    settings["prescreen"] = Settings().prescreen.model_dump()
    assert stage_limits(run, "prescreen") == [
        "classifier: p ≥ 0.05",
        "Tc of the fast network > 3 K",
        "N(EF) > 0.1 states/eV/atom",
    ]
    assert "stiff" not in stage_about(run, "prescreen")
    settings["prescreen"] |= {"min_debye_K": 300.0, "min_tc_K": 0.0, "min_dos_ef_states_eV_atom": 0}
    assert stage_limits(run, "prescreen") == ["classifier: p ≥ 0.05", "Debye temperature > 300 K"]
    assert "stiff enough" in stage_about(run, "prescreen")


def test_limits_of_the_check(tmp_path):
    run = read_run(ledgers.finished(tmp_path))
    assert stage_limits(run, "read") == [], "reading takes cells of any size"
    settings = run.meta["settings"]
    settings["check"]["dimensions"], settings["chemistry"] = "any", {"require": []}
    plain = stage_limits(run, "check")
    settings["check"]["dimensions"], settings["chemistry"] = "slab", {"require": ["H", "La"]}
    assert stage_limits(run, "check") == [*plain, "dimensions: slab", "with H, La"]


def test_every_limit_is_a_setting_that_exists():
    settings = Settings().model_dump()
    for entries in LIMITS.values():
        for section, key, _ in entries:
            assert key in settings[section], (section, key)


def test_every_stage_of_discover_has_words():
    assert set(REVISION) <= set(STAGES)
    order = [s for s in STAGES if s in REVISION]
    assert order == list(REVISION), "a run without recorded stages is shown in the order of discover"


def test_facts(tmp_path):
    run = read_run(ledgers.finished(tmp_path))
    facts = dict(run_facts(run))
    assert facts["Seed"] == "11" and facts["Elapsed"] == "1 h 02 min" and facts["Peak memory"] == "2.3 GB"
    assert {s: t for s, _, t in stage_seconds(run)}["check"] == pytest.approx(3.5)


def test_facts_of_a_ledger_that_says_nothing(tmp_path):
    ledger = ledgers.Ledger.create(tmp_path)
    facts = dict(run_facts(read_run(ledger)))
    assert "Seed" not in facts and "Finished" not in facts


@given(st.text(max_size=30))
def test_words_never_emit_markup(text):
    assert "<script" not in subscript_html(text).lower()
    assert subscript_html(text).replace("<sub>", "").replace("</sub>", "").count("<") == 0
    assert isinstance(reason_words(text), str)


@given(st.one_of(st.none(), st.floats(), st.text(max_size=5), st.booleans()))
def test_show_is_a_number_or_a_dash(value):
    assert (show(value) == "–") == (finite(value) is None)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.25, "0.2 s"), (59.4, "59 s"), (185, "3 min 05 s"), (7800, "2 h 10 min")]
)
def test_durations(seconds, text):
    assert show_seconds(seconds) == text


@pytest.mark.parametrize(
    ("novelty", "known", "words"),
    [
        ("known", "mp-1", "known (mp-1)"),
        ("new-composition", "mp-1", "new composition (nearest known: mp-1)"),
        (
            "known-composition-new-structure",
            "mp-1",
            "new structure of a known composition (nearest known: mp-1)",
        ),
        ("new", "", "new"),
    ],
)
def test_the_nearest_known_crystal_is_not_called_the_crystal(novelty, known, words):
    assert novelty_words({"novelty": novelty, "known_id": known}) == words
