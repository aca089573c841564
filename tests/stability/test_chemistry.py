"""Chemistry screens: alloys pass, unwanted elements do not, charge balance never refuses."""

from __future__ import annotations

import pytest
from pymatgen.core import Lattice, Structure

from onnes.crystal.read import Crystal, Refused
from onnes.errors import SettingsError
from onnes.stability.chemistry import CRUST_PPM, TOXIC, Chemistry, charge_balance, radioactive


def crystal(*species: str) -> Structure:
    n = len(species)
    return Structure(Lattice.cubic(5.0), species, [[k / n, k / n, k / n] for k in range(n)])


STRICT = Chemistry(no_radioactive=True, no_toxic=True, min_abundance_ppm=0.1, max_elements=4)


@pytest.mark.parametrize(
    "species",
    [("Nb", "Ti"), ("Nb", "Zr", "Hf", "Ti"), ("V", "V", "V", "Si"), ("Mg", "B", "B"), ("Nb",), ("Nb", "N")],
)
def test_metals_pass_all_screens(species):
    """CASE 28: no rule on oxidation states stands in the way of an alloy, a boride or an element."""
    assert STRICT.refusal(species) is None
    item = Crystal("a", crystal(*species), "here")
    assert list(STRICT.screen([item])) == [item]


@pytest.mark.parametrize(
    ("screen", "species", "code"),
    [
        (Chemistry(no_radioactive=True), ("Tc", "B"), "chemistry-radioactive"),
        (Chemistry(no_radioactive=True), ("U", "Be"), "chemistry-radioactive"),
        (Chemistry(no_toxic=True), ("Pb", "Bi"), "chemistry-toxic"),
        (Chemistry(no_toxic=True), ("U", "Si"), "chemistry-toxic"),
        (Chemistry(no_toxic=True), ("Ba", "Fe", "As"), "chemistry-toxic"),
        (Chemistry(min_abundance_ppm=0.01), ("Au", "Sb"), "chemistry-rare"),
        (Chemistry(min_abundance_ppm=1e-12), ("Tc",), "chemistry-rare"),
        (Chemistry(exclude=("Tl", "Pb")), ("Tl", "Sn"), "chemistry-excluded"),
        (Chemistry(max_elements=2), ("Y", "Ni", "B"), "chemistry-too-many-elements"),
        (Chemistry(min_elements=2), ("Nb",), "chemistry-too-few-elements"),
    ],
)
def test_each_screen_names_its_reason(screen, species, code):
    assert Chemistry().refusal(species) is None
    found = screen.refusal(species)
    assert found is not None and found[0] == code
    (refused,) = screen.screen([Crystal("x", crystal(*species), "here")])
    assert isinstance(refused, Refused) and refused.code == code and refused.formula


def test_message_names_the_element_and_why():
    assert "Pb (Repr. 1A)" in Chemistry(no_toxic=True).refusal(["Pb", "Mo"])[1]
    assert "Au (0.004 ppm)" in Chemistry(min_abundance_ppm=0.01).refusal(["Au", "Sb"])[1]


def test_refused_inputs_pass_through_unchanged():
    broken = Refused("b", "here", "overlapping-atoms", "touching")
    assert list(STRICT.screen([broken])) == [broken]


@pytest.mark.parametrize(
    "setting",
    [
        {"exclude": ("Xx",)},
        {"min_abundance_ppm": -1.0},
        {"min_abundance_ppm": float("nan")},
        {"min_elements": 0},
    ],
)
def test_bad_settings_are_named(setting):
    with pytest.raises(SettingsError):
        Chemistry(**setting)


def test_tables_hold_what_they_should():
    assert {s for s in ("Tc", "Pm", "Po", "Th", "U", "Pu") if not radioactive(s)} == set()
    assert not any(radioactive(s) for s in ("Bi", "Pb", "Nb", "H"))
    assert len(CRUST_PPM) == 88 and max(CRUST_PPM, key=lambda s: CRUST_PPM[s]) == "O"
    # The shares of all elements add up to the crust.
    assert sum(CRUST_PPM.values()) == pytest.approx(1e6, rel=0.02)
    assert set(TOXIC) == {"As", "Be", "Cd", "Co", "Hg", "Pb", "Te", "Tl", "U"}
    # A hazard of the elemental liquid or gas is none of its compounds.
    assert Chemistry(no_toxic=True).refusal(["Nb", "Br", "Cl", "F", "P"]) is None


@pytest.mark.parametrize(
    ("species", "answer"),
    [
        (("Na", "Cl"), "balanced"),
        (("Na", "Cl", "Cl"), "unbalanced"),
        (("Fe", "Fe", "Fe", "O", "O", "O", "O"), "balanced"),  # mixed valence
        (("Ca", "Ti", "O", "O", "O"), "balanced"),
        (("Ca", "O", "O", "O", "O", "O"), "unbalanced"),
        (("Nb", "Ti"), "not-asked"),
        (("Mg", "B", "B"), "not-asked"),
        (("O", "O"), "not-asked"),
        (("O", "F", "F"), "unbalanced"),  # no cation
    ],
)
def test_charge_balance_is_information(species, answer):
    assert charge_balance(crystal(*species)) == answer


def test_large_cells_balance_quickly():
    """Counts are reduced first, and sums are sets: 200 atoms cost no more than their formula."""
    assert charge_balance(crystal(*["Mg"] * 100, *["O"] * 100)) == "balanced"
    assert charge_balance(crystal(*["Al"] * 79, *["O"] * 121)) == "unbalanced"
