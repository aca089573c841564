"""Novelty: the descriptor's invariances and what the shipped index recognises."""

from __future__ import annotations

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from onnes.stability.novelty import TOLERANCE, KnownCrystals, descriptor


def perovskite(a: str = "Ca", b: str = "Ti", x: str = "O", size: float = 3.9) -> Structure:
    sites = [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0]]
    return Structure.from_spacegroup("Pm-3m", Lattice.cubic(size), [a, b, x], sites)


def mgb2(scale: float = 1.0) -> Structure:
    lattice = Lattice.hexagonal(3.08 * scale, 3.52 * scale)
    return Structure.from_spacegroup("P6/mmm", lattice, ["Mg", "B"], [[0, 0, 0], [1 / 3, 2 / 3, 0.5]])


@pytest.mark.parametrize("structure", [perovskite(), mgb2()], ids=["perovskite", "MgB2"])
def test_cell_origin_order_and_scale_do_not_matter(structure):
    here = descriptor(structure)
    assert here.shape == (13 * len(structure.elements),)
    big = structure.copy()
    big.make_supercell([[2, 1, 0], [0, 1, 0], [0, 0, 2]])
    moved = Structure(
        structure.lattice, structure.species[::-1], structure.frac_coords[::-1] + np.array([0.1, 0.7, 0.3])
    )
    larger = Structure(Lattice(structure.lattice.matrix * 1.3), structure.species, structure.frac_coords)
    for other in (big, moved, larger, structure.get_reduced_structure("niggli")):
        np.testing.assert_allclose(descriptor(other), here, atol=1e-8)


def test_decorations_of_one_lattice_differ():
    assert np.abs(descriptor(perovskite()) - descriptor(perovskite("Ti", "Ca"))).max() > 5 * TOLERANCE
    # L1_0 and L1_1: the same fcc sites, layers along [001] or [111].
    first = Structure(Lattice.tetragonal(2.8, 2.8 * 2**0.5), ["Cu", "Au"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    fcc = Structure.from_spacegroup("Fm-3m", Lattice.cubic(2.8 * 2**0.5), ["Cu"], [[0, 0, 0]])
    second = fcc.get_primitive_structure()
    second.make_supercell([[1, 0, 0], [0, 1, 0], [1, 1, 2]])
    assert len(second) == 2
    second.replace(1, "Au")
    assert np.abs(descriptor(first) - descriptor(second)).max() > 2 * TOLERANCE


def test_small_noise_moves_it_little():
    noisy = perovskite()
    noisy.perturb(0.01, seed=0)
    assert 0 < np.abs(descriptor(noisy) - descriptor(perovskite())).max() < TOLERANCE / 2


def test_known_crystal_is_found_at_any_volume():
    index = KnownCrystals.load()
    assert len(index) > 60_000
    for scale in (1.0, 1.05):
        found = index.find(mgb2(scale))
        assert found.novelty == "known" and found.known_id and found.distance <= TOLERANCE
        assert found.nearness == "same-formula"
        assert {"materials-project", "jarvis", "3dsc"} <= set(found.source.split())


def test_every_source_is_in_the_index():
    index = KnownCrystals.load()
    held = {name: int((index.sources >> k & 1).sum()) for k, name in enumerate(index.source_names)}
    least = {
        "materials-project": 25_000,
        "alexandria": 7_000,
        "jarvis": 1_000,
        "3dsc": 2_500,
        "bete-net": 500,
        "invdesflow": 150,
        "inverted-perovskites": 100,
        "perov-5": 18_000,
        "carbon-24": 7_000,
    }
    assert held.keys() == least.keys()
    assert all(held[name] >= number for name, number in least.items()), held
    assert (index.sources > 0).all()


def test_known_composition_in_an_unknown_structure():
    wrong = Structure.from_spacegroup(
        "Fm-3m", Lattice.cubic(6.0), ["Mg", "B"], [[0, 0, 0], [0.25, 0.25, 0.25]]
    )
    found = KnownCrystals.load().find(wrong)
    assert found.novelty == "known-composition-new-structure" and found.distance > TOLERANCE


def test_unknown_composition_names_the_nearest_prototype():
    found = KnownCrystals.load().find(perovskite("Xe", "Kr", "Pu"))
    assert (found.novelty, found.nearness) == ("new-composition", "same-prototype")
    assert found.known_id and found.source and found.distance <= TOLERANCE
    assert found.numbers()["known_nearness"] == "same-prototype"


def test_one_atom_and_two_hundred():
    """CASE 29: the answer does not depend on the size of the cell."""
    index = KnownCrystals.load()
    niobium = Structure(Lattice.cubic(3.3), ["Nb", "Nb"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    one = index.find(niobium.get_primitive_structure())
    many = niobium.copy()
    many.make_supercell([5, 5, 4])
    assert len(many) == 200
    two_hundred = index.find(many)
    assert one.novelty == two_hundred.novelty == "known" and one.known_id == two_hundred.known_id


def test_alone_in_a_large_cell_is_finite():
    """CASE 5: the index answers; the gate of `onnes.crystal.check` refuses an atom without a neighbour before."""
    found = KnownCrystals.load().find(Structure(Lattice.cubic(100.0), ["H"], [[0, 0, 0]]))
    assert found.known_id and np.isfinite(found.distance)
    caesium = Structure(Lattice.cubic(6.14), ["Cs", "Cs"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    assert KnownCrystals.load().find(caesium).novelty == "known"


def test_vacuum_changes_the_answer():
    """CASE 29, the stated limit: lengths are in units of the cell, so a slab with more vacuum is another crystal."""
    layers = []
    for c in (3.35, 15.0, 30.0):
        lattice = Lattice.hexagonal(2.46, c)
        layers.append(descriptor(Structure(lattice, ["C", "C"], [[1 / 3, 2 / 3, 0.5], [2 / 3, 1 / 3, 0.5]])))
    assert all(np.isfinite(d).all() for d in layers)
    assert np.abs(layers[1] - layers[2]).max() > TOLERANCE
