"""Stages as plain functions of their items."""

from __future__ import annotations

from onnes.campaign.funnel import Item
from onnes.campaign.settings import Settings
from onnes.campaign.stages import build

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
