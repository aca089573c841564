"""Dossiers: who gets one, what is kept, and that nothing in them stops a run; results of verify in the ledger."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pytest

from onnes.campaign import dossier as dossiers
from onnes.campaign.canonical import canonical
from onnes.campaign.discover import publish
from onnes.campaign.dossier_verify import attach_all, attach_verification
from onnes.campaign.funnel import Item, Outcome, Stage, run_funnel
from onnes.campaign.ledger import Candidate, Ledger, Verdict
from onnes.campaign.settings import Settings
from onnes.errors import InputError
from onnes.parallel import Workers

# Loading four predictors takes 20 s of an idle core, and minutes where many share it.
pytestmark = pytest.mark.timeout(1200)

ALUMINIUM = {
    "lattice": [[0, 2.02, 2.02], [2.02, 0, 2.02], [2.02, 2.02, 0]],
    "species": ["Al"],
    "frac": [[0, 0, 0]],
}
MGB2 = {
    "lattice": [[3.086, 0.0, 0.0], [-1.543, 2.67256, 0.0], [0.0, 0.0, 3.524]],
    "species": ["Mg", "B", "B"],
    "frac": [[0.0, 0.0, 0.0], [1 / 3, 2 / 3, 0.5], [2 / 3, 1 / 3, 0.5]],
}
ASKED = {"mu_star": 0.1, "formula": "allen-dynes"}


def item(rank: int, structure=MGB2, **numbers) -> Item:
    return Item(f"g{rank}", rank, structure, {"rank": rank, **numbers})


@pytest.fixture(scope="module")
def mgb2() -> dict:
    (found,) = dossiers.dossier([item(1, known_id="mp-763")], ASKED)
    assert found.passed
    return found.numbers


@pytest.mark.slow
def test_alpha2f_has_a_band_around_its_mean(mgb2):
    omega, mean, low, high = map(np.array, mgb2["dossier_alpha2F"])
    assert omega[0] == 0 and 60 < omega[-1] < 200 and np.all(np.diff(omega) > 0)
    assert np.all(low <= mean + 1e-9) and np.all(mean <= high + 1e-9) and (high - low).max() > 0.01
    # The moment of the stored curve is the lambda that the model gives.
    lam = 2 * np.trapezoid(mean[1:] / omega[1:], omega[1:])
    spectrum = next(r for r in mgb2["dossier_models"] if r[0] == "spectrum")
    assert lam == pytest.approx(spectrum[1], rel=0.15)


@pytest.mark.slow
def test_tc_falls_with_mu_star_and_meets_the_model(mgb2):
    mu, tc, low, high, solved = mgb2["dossier_tc_mu"]
    assert all(a > b for a, b in pairwise(tc))
    assert all(a <= b <= c for a, b, c in zip(low, tc, high, strict=True))
    assert all(a > b for a, b in pairwise(solved))
    spectrum = next(r for r in mgb2["dossier_models"] if r[0] == "spectrum")
    assert tc[mu.index(0.1)] == pytest.approx(spectrum[5], rel=1e-3)


@pytest.mark.slow
def test_four_models_side_by_side(mgb2):
    from onnes.prediction import predict

    assert [r[0] for r in mgb2["dossier_models"]] == list(dossiers.MODELS)
    assert all(len(r) == len(dossiers.MODEL_COLUMNS) for r in mgb2["dossier_models"])
    structure = {"lattice": MGB2["lattice"], "species": MGB2["species"], "frac": MGB2["frac"]}
    from pymatgen.core import Structure

    told = predict(Structure(structure["lattice"], structure["species"], structure["frac"]), model="trees")
    assert mgb2["dossier_models"][3][5] == pytest.approx(float(told["tc_K"][0]), rel=1e-3)
    assert mgb2["dossier_known_formula"] == "MgB2"


@pytest.mark.slow
def test_a_dossier_is_small_and_plain(mgb2):
    assert len(canonical(mgb2)) < 12_000


def test_what_no_model_takes_is_a_note():
    strange = {**ALUMINIUM, "species": ["Og"]}
    (outcome,) = dossiers.dossier([item(1, strange)], ASKED)
    assert outcome.passed and "dossier_alpha2F" not in outcome.numbers and outcome.numbers["dossier_note"]
    assert all(r[5] is None and r[9] for r in outcome.numbers["dossier_models"][:2])


def test_phonons_of_aluminium():
    (found,) = dossiers.phonons([item(1, ALUMINIUM)], {"max_atoms": 2, "potential": "7net-0"})
    numbers = found.numbers
    assert numbers["phonon_verdict"] in ("stable", "acoustic-noise")
    x, *branches = numbers["phonon_bands"]
    assert len(branches) == 3 and len(x) <= 2 * dossiers.PATH_POINTS
    # Neutrons have 40 meV (Gilat and Nicklow 1966); this potential is soft (docs/phonons.md).
    assert 25.0 < max(map(max, branches)) < 41.0
    assert max(map(max, branches)) == pytest.approx(numbers["phonon_top_cm1"] / 8.0655, rel=0.01)
    assert [name for _, name in numbers["phonon_ticks"]][:2] == ["Γ", "X"]
    assert numbers["phonon_legs"][-1][1] == len(x) - 1
    omega, dos = numbers["phonon_dos"]
    assert np.trapezoid(dos, omega) == pytest.approx(3.0, rel=0.03), "three modes an atom"
    assert len(canonical(numbers)) < 20_000


def test_large_cells_get_no_phonons():
    (outcome,) = dossiers.phonons([item(1)], {"max_atoms": 2, "potential": "7net-0"})
    assert (
        outcome.passed
        and list(outcome.numbers) == ["phonon_note"]
        and "3 atoms" in outcome.numbers["phonon_note"]
    )


def test_stages_follow_the_settings():
    def names(**part):
        return [s.name for s in dossiers.dossier_stages(Settings.from_dict({"dossier": part}))]

    assert names() == ["dossier", "phonons"] and names(phonons=0) == ["dossier"] and names(top=0) == []
    few, many = (dossiers.dossier_stages(Settings.from_dict({"dossier": {"top": k}})) for k in (2, 3))
    assert not few[0].wanted(item(3)) and many[0].wanted(item(3)), "passed by under 2, looked at under 3"
    few, many = (dossiers.dossier_stages(Settings.from_dict({"dossier": {"top": k}})) for k in (1, 9))
    assert not few[1].wanted(item(2)) and many[1].wanted(item(2)) and not many[1].wanted(item(3))


def test_dossiers_are_computed_again_only_for_what_they_use(tmp_path, monkeypatch):
    """Of 500 survivors only the wanted are asked for, and each once, whatever its place or the other settings."""
    calls: dict[str, list[str]] = {"dossier": [], "phonons": []}
    for name, mine in calls.items():
        monkeypatch.setattr(
            dossiers, f"_{name}", lambda i, s, mine=mine: mine.append((i.id, sorted(i.numbers))) or {}
        )
    order = {k: k + 1 for k in range(500)}

    def ranked(items):
        return [Outcome(i.id, True, "", {"rank": order[i.index], "known_id": "a"}) for i in items]

    def run(**change):
        found = Stage("rank", ranked, {"order": sorted(order.items())}, whole=True)
        run_funnel(ledger, [found, *dossiers.dossier_stages(Settings.from_dict(change))], Workers(1))
        told = {k: [id for id, _ in v] for k, v in calls.items()}
        for v in calls.values():
            v.clear()
        return told["dossier"], told["phonons"]

    with Ledger.create(tmp_path / "run", {}) as ledger:
        ledger.add_candidates(Candidate(f"c{k}", k, ALUMINIUM) for k in range(500))
        commits, add = [], ledger.add_verdicts
        monkeypatch.setattr(
            ledger, "add_verdicts", lambda new, **how: commits.append(len(new)) or add(new, **how)
        )
        assert run() == (["c0", "c1", "c2", "c3", "c4"], ["c0", "c1"])
        # The ranking; 495 and 498 passed by in batches of 64; the wanted one by one.
        assert len(commits) == 1 + 8 + 5 + 8 + 2
        assert run() == ([], [])
        assert run(predict={"mu_star": 0.12}) == (["c0", "c1", "c2", "c3", "c4"], [])
        assert run(dossier={"top": 6, "phonons": 3}) == (["c5"], ["c2"])
        order.update({0: 2, 1: 1})
        assert run() == ([], []), "another place among the wanted is nothing new"
        order.update({0: 7, 6: 2})
        assert run() == (["c6"], ["c6"])
        assert run(dossier={"phonon_max_atoms": 3}) == ([], ["c1", "c6"])


# -- results of verify -----------------------------------------------------------------------------


@pytest.fixture
def ledger(tmp_path):
    with Ledger.create(tmp_path / "run", {}) as opened:
        opened.add_candidates([Candidate("g000000", 0, ALUMINIUM), Candidate("g000001", 1, MGB2)])
        opened.set_meta("stages", ["relax", "rank"])
        relaxed = {**ALUMINIUM, "lattice": [[0, 2.0, 2.0], [2.0, 0, 2.0], [2.0, 2.0, 0]]}
        opened.add_verdicts([Verdict("g000000", "relax", True, "", {}, relaxed, "i", "s", "", 0, 1.0)])
        yield opened


def verified(folder, elements=("Al",), **more):
    folder.mkdir(parents=True)
    result = {
        "verdict": "superconductor",
        "reason": "",
        "detail": "lambda 0.34",
        "tc_K": 0.95,
        "lambda": 0.34,
        "omega_log_K": 347.0,
        "curve": [{"sigma_Ry": 0.01, "lambda": None}, {"sigma_Ry": 0.02, "lambda": 0.36}],
        "notes": [],
        **more,
    }
    (folder / "result.json").write_text(json.dumps(result))
    plan = {"masses_u": dict.fromkeys(elements, 1.0), "tier": {"name": "quick"}, "ecutwfc_Ry": 40.0}
    (folder / "plan.json").write_text(json.dumps({**plan, "grids": {"k": [8, 8, 8], "q": [4, 4, 4]}}))
    (folder / "alpha2F.csv").write_text("omega_meV,alpha2F\n0,0\n10,0.2\n20,0.3\n")
    return folder


def test_a_result_becomes_a_verdict(ledger, tmp_path):
    verdict = attach_verification(ledger, "g000000", verified(tmp_path / "Al"))
    assert verdict.passed and ledger.verdicts("g000000", "verify") == [verdict]
    numbers = verdict.numbers
    assert numbers["verify_tc_K"] == 0.95 and numbers["verify_alpha2F"][1] == [0.0, 0.2, 0.3]
    assert numbers["verify_settings"] == "tier quick, k grid 8×8×8, q grid 4×4×4, cut-off 40 Ry"
    attach_verification(ledger, "g000000", tmp_path / "Al")
    assert len(ledger.history("g000000", "verify")) == 1, "the same result is one verdict"


def test_an_unstable_crystal_fails_with_its_reason(ledger, tmp_path):
    told = {"verdict": "unstable", "reason": "imaginary-modes", "detail": "-41.0 cm-1", "tc_K": None}
    verdict = attach_verification(ledger, "g000000", verified(tmp_path / "Al", **told))
    assert not verdict.passed and verdict.reason == "imaginary-modes: -41.0 cm-1"


@pytest.mark.parametrize(
    ("id", "spoil", "code"),
    [
        ("g9", {}, "unknown-candidate"),
        ("g000001", {}, "other-crystal"),
        ("g000000", {"verdict": "failed"}, "not-final"),
        ("g000000", {"verdict": "not-converged"}, "not-final"),
    ],
)
def test_results_that_are_not_taken(ledger, tmp_path, id, spoil, code):
    with pytest.raises(InputError) as refused:
        attach_verification(ledger, id, verified(tmp_path / "x", **spoil))
    assert refused.value.code == code and ledger.verdicts(stage="verify") == []


def test_damaged_results(ledger, tmp_path):
    folder = verified(tmp_path / "x")
    (folder / "result.json").write_text("{")
    with pytest.raises(InputError) as refused:
        attach_verification(ledger, "g000000", folder)
    assert refused.value.code == "cannot-read"
    (folder / "result.json").write_text("[]")
    with pytest.raises(InputError):
        attach_verification(ledger, "g000000", folder)


def test_all_below_verify_are_found_and_the_highest_rung_counts(ledger, tmp_path):
    run = tmp_path / "run"
    verified(run / "verify" / "001_Al_g000000" / "standard", tc_K=0.8)
    verified(run / "verify" / "001_Al_g000000" / "quick", tc_K=0.9)
    verified(run / "verify" / "g000001", elements=("B", "Mg"), tc_K=30.0)
    verified(run / "verify" / "somebody")
    refused = attach_all(ledger, run)
    assert [(r.folder, r.code) for r in refused] == [("verify/somebody", "unknown-candidate")]
    assert {v.candidate: v.numbers["verify_tc_K"] for v in ledger.verdicts(stage="verify")} == {
        "g000000": 0.8,
        "g000001": 30.0,
    }
    assert ledger.get_meta("unverified")[0][0] == "verify/somebody"


def test_results_of_rounds_are_found_and_better_ones_by_hand_count_more(ledger, tmp_path):
    run = tmp_path / "run"
    relaxed = ledger.verdicts("g000000", "relax")[0].structure
    numbers = {"choose_round": 1, "choose_place": 1}
    moved = {**MGB2, "lattice": [[1.01 * x for x in row] for row in MGB2["lattice"]]}
    ledger.add_verdicts([
        Verdict("g000000", "choose", True, "", numbers, relaxed, "i", "s", "", 0, 1.0),
        Verdict("g000001", "choose", True, "", numbers, MGB2, "i", "s", "", 0, 1.0),
        Verdict("g000001", "relax", True, "", {}, moved, "i", "s", "", 0, 1.0),
    ])  # fmt: skip
    verified(run / "round-1" / "verify" / "g000000" / "run", tc_K=0.9)
    verified(run / "round-1" / "verify" / "g000001" / "run", elements=("B", "Mg"))
    refused = attach_all(ledger, run)
    # The second has another structure now than the one that was chosen.
    assert [(r.folder, r.code) for r in refused] == [("round-1/verify/g000001/run", "other-structure")]
    (taken,) = ledger.verdicts(stage="verify")
    assert taken.candidate == "g000000" and taken.numbers["verify_tc_K"] == 0.9
    tight = {"tier": {"name": "tight"}, "masses_u": {"Al": 27.0}, "ecutwfc_Ry": 60.0}
    verified(run / "verify" / "g000000", tc_K=1.2, settings=tight)
    attach_all(ledger, run)
    (taken,) = ledger.verdicts(stage="verify")
    assert taken.numbers["verify_tc_K"] == 1.2
    # By its own word, whatever plan lies beside it.
    assert taken.numbers["verify_settings"] == "tier tight, cut-off 60 Ry"


def test_a_result_for_another_structure_leaves_the_run(ledger, tmp_path):
    run = tmp_path / "run"
    verified(run / "verify" / "g000000")
    assert attach_all(ledger, run) == [] and attach_all(ledger, run) == []
    (taken,) = ledger.verdicts(stage="verify")
    moved = {**ALUMINIUM, "lattice": [[0, 2.1, 2.1], [2.1, 0, 2.1], [2.1, 2.1, 0]]}
    ledger.add_verdicts([Verdict("g000000", "relax", True, "", {}, moved, "i", "other", "", 0, 1.0)])
    for _ in range(2):
        refused = attach_all(ledger, run)
        assert [(r.folder, r.code) for r in refused] == [("verify/g000000", "other-structure")]
        assert ledger.verdicts(stage="verify") == [] and ledger.history("g000000", "verify") == [taken]
        assert ledger.get_meta("unverified")[0][1] == "other-structure"
    verified(run / "verify" / "again" / "g000000", tc_K=1.1)  # verified again, as the message says
    assert [r.folder for r in attach_all(ledger, run)] == ["verify/g000000"]
    assert [v.numbers["verify_tc_K"] for v in ledger.verdicts(stage="verify")] == [1.1]


@pytest.mark.parametrize(
    ("file", "spoilt"),
    [
        ("result.json", {"notes": 5}),
        ("result.json", {"curve": 3}),
        ("plan.json", {"masses_u": 3}),
        ("plan.json", {"ecutwfc_Ry": "much"}),
        ("plan.json", {"grids": {"k": 8}}),
    ],
)
def test_values_of_the_wrong_type_do_not_stop_the_others(ledger, tmp_path, file, spoilt):
    run = tmp_path / "run"
    bad = verified(run / "verify" / "g000000")
    (bad / file).write_text(json.dumps({**json.loads((bad / file).read_text()), **spoilt}))
    verified(run / "verify" / "g000001", elements=("B", "Mg"))
    assert [(r.folder, r.code) for r in attach_all(ledger, run)] == [("verify/g000000", "cannot-read")]
    assert [v.candidate for v in ledger.verdicts(stage="verify")] == ["g000001"]


def test_no_result_makes_all_candidates_be_read(ledger, tmp_path, monkeypatch):
    verified(tmp_path / "run" / "verify" / "g000000")
    monkeypatch.setattr(Ledger, "candidates", lambda self: pytest.fail("the whole run was decoded"))
    assert attach_all(ledger, tmp_path / "run") == []


def test_publishing_reads_the_run_once(ledger, tmp_path, monkeypatch):
    read, times = Ledger.candidates, []
    monkeypatch.setattr(Ledger, "candidates", lambda self: times.append(1) or read(self))
    publish(ledger, tmp_path / "run")
    assert len(times) == 1 and (tmp_path / "run" / "report.html").is_file()
