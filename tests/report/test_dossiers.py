"""Dossiers, periodic tables, the active-learning curve and the models of a run, as they stand on the page."""

from __future__ import annotations

import re

import pytest
import report_ledgers as ledgers
from test_page import Page, page

from onnes.campaign.ledger import Verdict
from onnes.report import candidates, dossiers, models
from onnes.report.elements import element_counts
from onnes.report.learning import rounds_of
from onnes.report.page import page_html
from onnes.report.story import Run, Story, read_run
from onnes.report.svg import Axis, Plot, round_step
from onnes.report.tables import candidate_rows, funnel_rows


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Page:
    return page(ledgers.deep(tmp_path_factory.mktemp("run")))


def test_a_dossier_says_everything_in_words_too(whole):
    for words in (
        "Tc 35.4 K (31.4 to 41.4); 0.012 eV/atom above the hull; 3 models between 25.0 and 38.0 K;",
        "phonons: unstable (−44 cm⁻¹ at K); DFT: superconductor, Tc 39.0 K.",
        "Agreement of the models",
        "Outside the domain: spectrum: far away",
        "unknown-element",
        "supercell 4×4×4",
        "Dashed: DFT",
        "39.0 K (predicted 35.4 K)",
        "tier quick",
        "Tc(μ*)",
    ):
        assert words in whole.text.replace("\xa0", " "), words
    assert len([a for a in whole.all("article") if a["class"] == "dossier"]) == 1
    assert len([a for a in whole.all("article") if a["class"] == "card"]) == 1


def test_every_chart_of_a_dossier_has_a_name(whole):
    charts = [a for a in whole.all("svg") if "plot" in a["class"]]
    # alpha2F, Tc(mu*), models, bands, DOS, broadening; two curves of rounds.
    assert len(charts) == 8 and all(len(a["aria-label"]) > 12 for a in charts)
    for attrs in whole.all("path"):
        assert "nan" not in attrs["d"] and "inf" not in attrs["d"]


def test_closer_looks_are_no_gates(tmp_path):
    with ledgers.deep(tmp_path / "run") as ledger:
        funnel = funnel_rows(ledger)
        assert "dossier" not in set(funnel["stage"]) and "phonons" not in set(funnel["stage"])
        last = funnel.iloc[-1]
        assert (last["stage"], last["in"], last["passed"], last["pending"]) == ("verify", 2, 1, 1)
        row = candidate_rows(ledger).iloc[0]
        assert (row["phonon_verdict"], row["dft_verdict"], row["dft_tc_K"]) == (
            "unstable",
            "superconductor",
            39.0,
        )
        # Refused by DFT, it stays in the ranking, with its reason in the funnel.
        broken = Verdict("g000000", "verify", False, "imaginary-modes: x", {}, None, "i", "s", "", 0, 1.0)
        ledger.add_verdicts([broken])
        assert len(candidate_rows(ledger)) == 2
        assert funnel_rows(ledger).iloc[-1]["reasons"] == {"imaginary-modes": 1}


def test_a_dossier_of_earlier_settings_is_not_shown(tmp_path):
    with ledgers.deep(tmp_path) as ledger:
        ledger.set_meta("stages", ledgers.STAGES)
        assert "Agreement of the models" not in page_html(ledger)


def test_hostile_numbers_stay_texts(tmp_path):
    found = page(ledgers.deep(tmp_path / "bad", ledgers.HOSTILE))
    benign = page(ledgers.deep(tmp_path / "good"))
    assert len(found.all("script")) == len(benign.all("script")) and ledgers.HOSTILE in found.text
    assert "alert" not in "".join(name for name, _ in found.tags)


@pytest.mark.parametrize(
    "junk", [None, "x", [], [[1]], [[1, 2], [1]], {"a": 1}, [["a", "b"], ["c", "d"]], 7, [None]]
)
def test_damaged_numbers_leave_their_part_out(tmp_path, junk):
    with ledgers.finished(tmp_path) as ledger:
        for stage, numbers in ledgers.dossier_numbers().items():
            spoilt = {k: junk if isinstance(v, list) else v for k, v in numbers.items()}
            ledger.add_verdicts([Verdict("g000001", stage, True, "", spoilt, None, "in", "set", "", 0, 1.0)])
        ledger.update_meta({"stages": [*ledgers.STAGES, "dossier", "phonons"], "rounds": junk})
        found = Page(page_html(ledger))
        assert len(found.all("article")) == 2 and "31.4 to 41.4" in found.text


def test_hull_phases_by_share_and_by_unit(tmp_path):
    w = ledgers.Writer()
    w.until_predict(w.candidate("g0", ledgers.MGB2), 20.0, hull=0.1)
    old = w.verdicts[5]
    assert old.stage == "hull"
    numbers = {**old.numbers, "decomposition": "0.667 B + 0.333 Mg"}
    w.verdicts[5] = Verdict("g0", "hull", True, "", numbers, None, "in", "set", "", 0, 0.5)
    w.verdict("g0", "rank", rank=1, score=1.0)
    w.verdict("g0", "dossier", dossier_known_formula="")
    found = page(
        w.write(
            tmp_path,
            **ledgers.FINISHED,
        )
    )
    assert "What it may decay into" not in found.text, "the stage is not one of this run"
    w2 = tmp_path / "b"
    with w.write(w2, **ledgers.FINISHED) as ledger:
        ledger.set_meta("stages", [*ledgers.STAGES, "dossier"])
        text = Page(page_html(ledger)).text
    assert "What it may decay into" in text and "B66.7 %2" in text and "Mg33.3 %1" in text


@pytest.mark.parametrize(
    ("hull", "said"),
    [
        (0.0004, ("on the hull;", "It lies on the hull:")),
        (-0.0004, ("on the hull;", "It lies on the hull:")),
        (0.1, ("0.100 eV/atom above the hull;", "Set free: 0.100 eV/atom.")),
        (-0.1, ("0.100 eV/atom below the hull;", "It lies 0.100 eV/atom below these known phases")),
    ],
)
def test_nothing_lies_zero_below_the_hull(hull, said):
    record = {"tc_K": None, "e_hull_eV_atom": hull, "decomposition": "0.667 B + 0.333 Mg", "formula": "MgB2"}
    numbers = {**ledgers.dossier_numbers()["dossier"], "formula": "MgB2"}
    verdict = Verdict("g0", "dossier", True, "", numbers, None, "in", "set", "", 0, 1.0)
    story = Story("g0", 0, "", 0, ledgers.MGB2, [verdict])
    text = Page(
        "<p>" + dossiers.summary(story, record) + "</p>" + dossiers._decomposition(story, record)
    ).text
    text = text.replace("\xa0", " ")
    assert all(words in text for words in said) and "0.000" not in text


@pytest.mark.parametrize(
    ("mine", "words"),
    [
        (0.13, "μ*0.13; the prediction is for 0.1, so compare λ and ωlog"),
        (0.1, "μ*0.1λ"),
        (None, "μ*not recorded"),
    ],
)
def test_a_computed_tc_stands_beside_its_mu_star(tmp_path, mine, words):
    with ledgers.deep(tmp_path) as ledger:
        numbers = {**ledgers.dossier_numbers()["verify"], "verify_mu_star": mine}
        ledger.add_verdicts([Verdict("g000001", "verify", True, "", numbers, None, "new", "set", "", 0, 1.0)])
        text = Page(page_html(ledger)).text.replace("\xa0", " ")
    assert words in text
    assert ("DFT: superconductor, Tc 39.0 K at μ* = 0.13" in text) == (mine == 0.13)


def test_the_caption_of_phonons_says_things_once(whole):
    assert whole.text.count("supercell 4×4×4") == 1


def test_elements_are_counted_once_a_crystal(tmp_path):
    with ledgers.finished(tmp_path) as ledger:
        counts = element_counts(read_run(ledger))
    assert counts["B"] == (1, 1, 1, 35.4) and counts["Nb"][:3] == (6, 1, 2)
    assert counts["Nb"].mean_tc_K == pytest.approx((9.2 + 2.0) / 2)


def test_the_table_has_all_elements_in_their_places():
    from onnes.report.elements import _places

    places = {symbol: (x, y) for symbol, x, y in _places()}
    assert len(places) == 118 == len(set(places.values()))
    wanted = {
        "H": (0, 0),
        "He": (17, 0),
        "B": (12, 1),
        "Fe": (7, 3),
        "Hf": (3, 5),
        "Lr": (16, 8.4),
        "Og": (17, 6),
    }
    assert {k: places[k] for k in wanted} == wanted


def test_rounds_add_up(tmp_path, whole):
    with ledgers.deep(tmp_path) as ledger:
        rounds = rounds_of(read_run(ledger))
    assert [r["labelled"] for r in rounds] == [5, 10, 15] and [r["hits"] for r in rounds] == [1, 3, 6]
    assert "3 rounds, 15 crystals labelled, 6 of them with a labelled Tc above 10.0" in whole.text.replace(
        "\xa0", " "
    )


def test_long_runs_are_cut_and_say_so(tmp_path, monkeypatch):
    monkeypatch.setattr(candidates, "MOST_ROWS", 1)
    monkeypatch.setattr(candidates, "MOST_CARDS", 1)
    found = page(ledgers.finished(tmp_path))
    assert "The first 1 are shown; candidates.csv" in found.text and len(found.all("canvas")) == 1
    assert "1 more are not drawn" in found.text or "2 crystals" in found.text


def test_hashes_without_torch_are_those_of_the_checkpoints():
    from onnes.learn.predictors import FILES, model_hash
    from onnes.learn.store import Checkpoint, pretrained
    from onnes.stability.hull import HullReferences
    from onnes.stability.novelty import INDEX, KnownCrystals

    for name in (*FILES["standard"], "symmetric"):
        assert models.checkpoint_hash(name) == Checkpoint.load(pretrained(f"{name}.safetensors")).hash
    assert all(models.predictor_hash(name) == model_hash(name) for name in FILES)
    assert models.table_hash("hull_references.csv.gz") == HullReferences.load().digest
    assert models.table_hash(INDEX) == KnownCrystals.load().digest


@pytest.mark.parametrize("debye", [0.0, 300.0])
def test_hashes_of_pre_screen_and_dossier_are_those_of_the_stages(debye):
    from onnes.campaign.dossier import dossier_hash
    from onnes.campaign.prescreen import model_hash

    run = Run([], [], {"settings": {"prescreen": {"min_debye_K": debye}}})
    assert models._prescreen_hash(run) == model_hash({"min_debye_K": debye})
    assert models.dossier_hash() == dossier_hash()


def test_every_stage_with_a_model_is_listed(tmp_path):
    with ledgers.finished(tmp_path) as ledger:
        stages = ("prescreen", "relax", "novel", "hull", "predict", "dossier", "phonons")
        ledger.add_verdicts(
            [Verdict("g000001", s, True, "", {}, None, "in", "other", f"h-{s}", 0, 1.0) for s in stages]
        )
        ledger.set_meta("stages", ["check", "prescreen", *ledgers.STAGES[1:], "dossier", "phonons"])
        found = {u.hash: u for u in models.used(read_run(ledger))}
    assert {f"h-{s}" for s in stages} <= set(found)
    assert found["h-relax"].name == "potential 7net-0" and found["h-relax"].here == models.INSIDE
    assert found["h-prescreen"].here == found["h-dossier"].here == models.OTHER


@pytest.mark.parametrize(("hash", "told"), [("own", models.SAME), ("0" * 16, models.OTHER)])
def test_other_models_are_pointed_out(tmp_path, hash, told):
    w = ledgers.Writer()
    w.until_predict(w.candidate("g0", ledgers.MGB2), 20.0, hull=0.1)
    value = models.predictor_hash("standard") if hash == "own" else hash
    w.verdicts[-1] = Verdict(
        "g0", "predict", True, "", w.verdicts[-1].numbers, None, "in", "set", value, 0, 0.5
    )
    found = page(
        w.write(
            tmp_path,
            **ledgers.FINISHED,
        )
    )
    assert f"{value} ({told})" in found.text
    assert ("This installation has other versions of: predictor standard" in found.text) == (
        told == models.OTHER
    )


def test_axes():
    assert [round_step(x) for x in (0.3, 1.0, 1.1, 4.0, 0.07)] == [0.5, 1.0, 2.0, 5.0, pytest.approx(0.1)]
    assert [w for _, w in Axis.over(-0.1, 0.2, "x", 3).ticks] == ["−0.1", "0.0", "0.1", "0.2"]
    assert Axis.over(2.0, 2.0, "x").high > 2.0
    plot = Plot(Axis.over(0, 1, "x & y"), Axis.over(0, 1, ""), 'a "name"')
    plot.line([0, 0.5, 1], [0, None, 1], "main")
    text = plot.svg()
    assert "x &amp; y" in text and 'aria-label="a &quot;name&quot;"' in text
    assert re.search(r'd="M46\.0 182\.0M330\.0 12\.0"', text), "a line breaks at a gap"
