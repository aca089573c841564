"""The ladder: who climbs, from which cell, what is written, and that nothing is kept outside the runs."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from onnes.dft.ladder import COLUMNS, Rule, climb
from onnes.dft.outcome import COARSE, Outcome, Verdict
from onnes.dft.tiers import TierName
from onnes.errors import SettingsError

QUICK, STANDARD, TIGHT = TierName.QUICK, TierName.STANDARD, TierName.TIGHT


def outcome(verdict=Verdict.SUPERCONDUCTOR, tc=5.0, lam=0.5, lowest=0.0):
    number = verdict in (Verdict.SUPERCONDUCTOR, Verdict.NORMAL)
    return Outcome(
        verdict,
        "" if number else str(verdict),
        "",
        results=SimpleNamespace(lowest_cm1=lowest),
        spectrum=SimpleNamespace(lam=lam, omega_log_K=200.0) if number else None,
        summary={"eliashberg": {"tc_K": tc}, "tc": {}} if number else {},
    )


#: Name -> outcome at each tier.
CRYSTALS = {
    "low": {QUICK: outcome(tc=0.5)},
    "best": {QUICK: outcome(tc=9.0, lam=1.0), STANDARD: outcome(tc=8.0, lam=0.9), TIGHT: outcome(tc=8.1)},
    "good": {QUICK: outcome(tc=4.0), STANDARD: outcome(tc=3.0)},
    "open": {QUICK: outcome(Verdict.NO_PLATEAU), STANDARD: outcome(tc=6.0), TIGHT: outcome(tc=6.0)},
    "apart": {QUICK: replace(outcome(Verdict.NOT_CONVERGED), reason=COARSE), STANDARD: outcome(tc=0.5)},
    "soft": {QUICK: outcome(Verdict.UNSTABLE, lowest=-157.0)},
    "kohn": {QUICK: outcome(Verdict.UNSTABLE, lowest=-41.0), STANDARD: outcome(tc=2.0)},
    "salt": {QUICK: outcome(Verdict.INSULATOR)},
    "cut": {QUICK: outcome(Verdict.FAILED)},
    "falls": {QUICK: outcome(tc=3.0), STANDARD: outcome(Verdict.UNSTABLE)},
}


@pytest.fixture
def climbed(tmp_path):
    calls = []

    def run_one(structure, name, tier, folder):
        calls.append((name, tier))
        assert folder == tmp_path / name / tier
        # Each rung gets the cell of the one below.
        assert structure == {QUICK: "read", STANDARD: "quick cell", TIGHT: "standard cell"}[tier]
        return CRYSTALS[name][tier], f"{tier} cell"

    def start(rule=None, table=None):
        calls.clear()
        crystals = [(name, "read", tmp_path / name) for name in CRYSTALS]
        return climb(crystals, run_one, rule or Rule(best=2), table), list(calls)

    return start


def test_survivors_and_the_best_climb_in_the_order_of_tc(climbed):
    rungs, calls = climbed()
    assert calls[:10] == [(name, QUICK) for name in CRYSTALS]
    # A shallow instability may be the coarse grid's and climbs, like numbers that disagree; a deep one is believed.
    assert calls[10:16] == [(name, STANDARD) for name in ("best", "good", "falls", "open", "apart", "kohn")]
    assert calls[16:] == [("best", TIGHT), ("open", TIGHT)]
    change = {(r.id, r.tier): r.lambda_change for r in rungs}
    assert change[("best", STANDARD)] == pytest.approx(-0.1) and change[("open", STANDARD)] is None
    assert {(r.id, r.tier) for r in rungs if r.climbs} == {
        *((name, QUICK) for name in ("best", "good", "open", "apart", "falls", "kohn")),
        *((name, STANDARD) for name in ("best", "open")),
    }


def test_rule_decides(climbed):
    _, calls = climbed(Rule(keep_above_K=8.5, best=0))
    assert [c for c in calls if c[1] is STANDARD] == [
        (name, STANDARD) for name in ("best", "open", "apart", "kohn")
    ]
    assert not [c for c in calls if c[1] is TIGHT]


def test_table_and_second_climb_are_the_same(climbed, tmp_path):
    rungs, _ = climbed(table=tmp_path / "ladder.csv")
    first = (tmp_path / "ladder.csv").read_text()
    lines = first.splitlines()
    assert lines[0] == COLUMNS and len(lines) == 1 + len(rungs) == 19
    assert "best,standard,superconductor,0.9,200,8,-0.1,yes," in lines
    assert "salt,quick,insulator,,,,,no,insulator" in lines
    climbed(table=tmp_path / "ladder.csv")
    assert (tmp_path / "ladder.csv").read_text() == first


@pytest.mark.parametrize("wrong", [{"keep_above_K": -1.0}, {"best": -1}, {"keep_above_K": float("nan")}])
def test_bad_rules_are_refused(wrong):
    with pytest.raises(SettingsError, match="bad-setting"):
        Rule(**wrong)
