"""Prototype substitution: labels that do not depend on the description, exchanges that keep the prototype."""

import numpy as np
import pytest
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Lattice, Structure

from onnes.crystal.wyckoff import describe
from onnes.errors import CrystalError, SettingsError
from onnes.generate.prototypes import (
    Templates,
    atomic_volumes,
    element_distances,
    prototype_of,
    substitute,
    template,
)


def crystal(group, lattice, species, frac):
    return Structure.from_spacegroup(group, lattice, species, frac)


def rock_salt(a, one, two):
    return crystal(225, Lattice.cubic(a), [one, two], [[0, 0, 0], [0.5, 0, 0]])


def caesium_chloride(a, one, two):
    return crystal(221, Lattice.cubic(a), [one, two], [[0, 0, 0], [0.5, 0.5, 0.5]])


def diboride(a, c, metal):
    return crystal(191, Lattice.hexagonal(a, c), [metal, "B"], [[0, 0, 0], [1 / 3, 2 / 3, 0.5]])


def fluorite(a, one, two):
    return crystal(225, Lattice.cubic(a), [one, two], [[0, 0, 0], [0.25, 0.25, 0.25]])


@pytest.fixture(scope="module")
def known():
    made = [
        ("NaCl", rock_salt(5.64, "Na", "Cl")),
        ("MgO", rock_salt(4.21, "Mg", "O")),
        ("CsCl", caesium_chloride(4.12, "Cs", "Cl")),
        ("AlB2", diboride(3.01, 3.26, "Al")),
        ("TiB2", diboride(3.03, 3.23, "Ti")),
        ("CaF2", fluorite(5.46, "Ca", "F")),
    ]
    return Templates([template(name, s) for name, s in made])


def test_prototype_does_not_depend_on_elements_or_description():
    p, orders = prototype_of(describe(rock_salt(5.64, "Na", "Cl")))
    assert prototype_of(describe(rock_salt(4.2, "O", "Mg")))[0] == p
    # The two elements of rock salt may be exchanged, those of a diboride not.
    assert len(orders) == 2
    q, orders = prototype_of(describe(diboride(3, 3.3, "Al")))
    assert (q.number, q.amounts, orders) == (191, (2, 1), (("B", "Al"),))
    assert prototype_of(describe(caesium_chloride(4, "Cs", "Cl")))[0] != p
    # Half-Heusler: three elements on 4a, 4b, 4c. The one on 4c is told apart, the others may be exchanged.
    sites = [[0, 0, 0], [0.5, 0.5, 0.5], [0.25, 0.25, 0.25]]
    half = crystal(216, Lattice.cubic(6), ["Ti", "Sn", "Ni"], sites)
    p, orders = prototype_of(describe(half))
    assert len(orders) == 2
    centre = {p.sites[o.index("Ni")][1] for o in orders}
    assert len({o.index("Ni") for o in orders}) == 1 and len(centre) == 1
    for other in (["Sn", "Ti", "Ni"], ["V", "Sb", "Fe"]):
        assert prototype_of(describe(crystal(216, Lattice.cubic(6), other, sites)))[0] == p
    for canonical in (True, False):
        shifted = half.copy()
        shifted.translate_sites(range(len(shifted)), [0.25, 0.25, 0.25])
        assert prototype_of(describe(shifted, canonical=canonical))[0] == p


def test_the_nearest_prototype_comes_first(known):
    first = substitute("MgB2", known)[0]
    assert first.crystal.number == 191 and first.template in ("AlB2", "TiB2")
    assert StructureMatcher().fit(first.crystal.structure(), diboride(3.08, 3.52, "Mg"))
    assert substitute("RbCl", known)[0].template == "CsCl"
    assert substitute("KCl", known)[0].crystal.formula == "ClK"
    assert substitute("NiO", known)[0].template == "MgO"


def test_guesses_differ_and_shares_add_up(known):
    guesses = substitute({"Y": 1, "Bi": 1}, known, 6)
    assert len(guesses) == 2  # rock salt and caesium chloride, each with one assignment up to exchange
    assert sum(g.share for g in guesses) == pytest.approx(1.0)
    for g in substitute("ZrC2", known, 6):
        assert g.crystal.formula == "C2Zr" and describe(g.crystal.structure()).number == g.crystal.number
    assert len(substitute("ZrC2", known, 1)) == 1


def test_volume_follows_the_elements(known):
    small, large = (substitute(f, known)[0].crystal.structure() for f in ("BeO", "BaO"))
    assert small.volume / len(small) < large.volume / len(large)
    rng = np.random.default_rng(0)
    true = {"Na": 20.0, "Cl": 30.0, "Mg": 12.0, "O": 9.0}
    crystals = []
    for _ in range(16):
        x, y = rng.choice(list(true), 2, replace=False)
        crystals.append(describe(rock_salt((4 * (true[x] + true[y])) ** (1 / 3), x, y)))
    # Many crystals outweigh the prior of the regression.
    volumes = atomic_volumes(crystals * 20)
    assert [volumes[z] for z in (11, 17, 12, 8)] == pytest.approx([20, 30, 12, 9], rel=0.01)


def test_distances_between_elements():
    d = element_distances()
    assert (np.diag(d) == 0).all() and (d == d.T).all() and np.isfinite(d).all()
    z = {"Nb": 41, "Ta": 73, "O": 8, "Cl": 17, "Br": 35, "Na": 11}
    assert d[z["Nb"], z["Ta"]] < d[z["Nb"], z["O"]]
    assert d[z["Cl"], z["Br"]] < d[z["Cl"], z["Na"]]


@pytest.mark.parametrize("bad", ["Xx2", "", "B0.5C", {"B": -1}, "AlBCDyErFGa"])
def test_bad_compositions(known, bad):
    with pytest.raises(SettingsError, match="bad-composition"):
        substitute(bad, known)


def test_no_template(known):
    with pytest.raises(CrystalError, match="no-template"):
        substitute("Al7B3", known)
