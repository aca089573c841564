"""Stages as plain functions of their items."""

from __future__ import annotations

from dataclasses import replace

import pytest

from onnes.campaign.funnel import Item, Outcome, run_funnel
from onnes.campaign.ledger import Candidate, Ledger
from onnes.campaign.settings import Settings
from onnes.campaign.stages import build
from onnes.parallel import Workers

CELL = [[4.0, 0, 0], [0, 4.0, 0], [0, 0, 4.0]]


def item(id, *species):
    frac = [[0, 0, 0], [0.5, 0.5, 0.5]][: len(species)]
    structure = {"lattice": CELL if len(species) > 1 else [[2.9, 0, 0], [0, 2.9, 0], [0, 0, 2.9]]}
    return Item(id, 0, {**structure, "species": list(species), "frac": frac}, {}, 0)


def checked(chemistry, *items):
    stage = next(s for s in build(Settings.from_dict({"chemistry": chemistry})) if s.name == "check")
    return {o.id: o.reason.split(":")[0] for o in stage.process(list(items))}


def test_unwanted_elements_stop_at_the_gate_and_alloys_do_not():
    crystals = [
        item("alloy", "Nb", "Ti"),
        item("toxic", "Pb", "Mg"),
        item("heavy", "Th", "Mg"),
        item("gold", "Au", "Mg"),
    ]
    assert set(checked({}, *crystals).values()) == {""}
    found = checked(
        {"no_radioactive": True, "no_toxic": True, "min_abundance_ppm": 0.1, "exclude": ["Sc"]}, *crystals
    )
    assert found == {
        "alloy": "",
        "toxic": "chemistry-toxic",
        "heavy": "chemistry-radioactive",
        "gold": "chemistry-rare",
    }
    assert checked({"exclude": ["Ti"]}, crystals[0]) == {"alloy": "chemistry-excluded"}
    assert checked({"max_elements": 1}, crystals[0]) == {"alloy": "chemistry-too-many-elements"}


#: What a stage of the real funnel may say without computing it.
SAID = {
    "relax": {"energy_eV_atom": -3.0},
    "hull": {"e_hull_eV_atom": 0.01},
    "predict": {"tc_K": 9.0, "in_domain": True},
    "rank": {"rank": 1},
}


@pytest.fixture
def screened(tmp_path):
    """The real stages of a screen with nothing behind them; returns which ones were asked under given settings."""
    with Ledger.create(tmp_path / "run", {}) as ledger:
        ledger.add_candidates([Candidate("a", 0, item("a", "Nb").structure)])

        def run(**change):
            called = []
            settings = Settings.from_dict({"generate": {"paths": ["x"]}, "dossier": {"phonons": 1}, **change})
            first = {"prescreen_tc_K": 100 * settings.predict.mu_star}

            def fake(name):
                def process(items):
                    called.append(name)
                    told = first if name == "prescreen" else SAID.get(name, {})
                    return [Outcome(i.id, True, "", told) for i in items]

                return process

            (alive,) = run_funnel(
                ledger, [replace(s, process=fake(s.name)) for s in build(settings)], Workers(1)
            )
            assert alive.numbers["prescreen_tc_K"] == first["prescreen_tc_K"]
            return called

        yield run


def test_mu_star_and_gates_repeat_nothing_that_is_costly(screened):
    assert screened() == [s.name for s in build(Settings.from_dict({"generate": {"paths": ["x"]}}))]
    assert screened() == []
    assert screened(predict={"mu_star": 0.13}) == ["prescreen", "predict", "dossier"]
    assert screened(predict={"formula": "xie"}) == ["prescreen", "predict", "dossier"]
    assert screened(prescreen={"min_tc_K": 1.0}) == ["prescreen"]
    assert screened(predict={"model": "fast"}) == ["predict"]
    assert screened(hull={"max_e_hull_eV_atom": 0.1}) == ["hull", "rank"]
    assert screened() == []
