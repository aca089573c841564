"""Docking: clashes are gone, what was sound stays, the volume is plausible."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.core import Lattice, Structure

from onnes.crystal.formula import covalent_radii, numbers
from onnes.crystal.geometry import packing_fraction, pairs
from onnes.errors import CrystalError
from onnes.stability import dock as module
from onnes.stability.dock import CONTACT, PACKING, dock


def contact(s: Structure) -> float:
    radii = covalent_radii()[numbers(s)]
    i, j, d, _ = pairs(np.array(s.lattice.matrix), np.array(s.frac_coords), 2 * radii.max())
    return float((d / (radii[i] + radii[j])).min()) if len(d) else np.inf


def test_a_sound_crystal_is_returned_itself():
    mgb2 = Structure(
        Lattice.hexagonal(3.07, 3.52), ["Mg", "B", "B"], [[0, 0, 0], [1 / 3, 2 / 3, 0.5], [2 / 3, 1 / 3, 0.5]]
    )
    done = dock(mgb2)
    assert done.structure is mgb2 and (done.steps, done.volume_ratio) == (0, 1.0)
    assert done.contact == pytest.approx(contact(mgb2))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(1, 12), edge=st.floats(2.0, 9.0))
def test_any_cell_ends_without_clashes(seed, n, edge):
    rng = np.random.default_rng(seed)
    lattice = Lattice(edge * (np.eye(3) + rng.uniform(-0.3, 0.3, (3, 3))))
    start = Structure(lattice, rng.choice(["H", "B", "Nb", "La", "Cl"], n), rng.random((n, 3)))
    done = dock(start)
    assert contact(done.structure) >= CONTACT * (1 - 1e-6)
    assert done.structure.species == start.species
    assert done.volume_ratio == pytest.approx(done.structure.volume / start.volume)
    # Atoms pushed apart may need more room than the range has, never less.
    assert packing_fraction(done.structure) <= PACKING[1]
    again = dock(start)
    assert np.array_equal(again.structure.frac_coords, done.structure.frac_coords)
    assert np.array_equal(again.structure.lattice.matrix, done.structure.lattice.matrix)


def test_atoms_on_one_site_are_separated():
    done = dock(Structure(Lattice.cubic(4.0), ["Nb"] * 4, [[0, 0, 0]] * 4))
    assert contact(done.structure) >= CONTACT * (1 - 1e-6)


def test_an_atom_too_close_to_its_own_image_gets_a_longer_cell():
    needle = Structure(Lattice.orthorhombic(1.2, 6.0, 6.0), ["Nb"] * 2, [[0, 0, 0], [0.5, 0.5, 0.5]])
    done = dock(needle)
    a, b, c = done.structure.lattice.abc
    assert a >= CONTACT * 2 * covalent_radii()[41] * (1 - 1e-6)
    assert b == pytest.approx(6.0) and c == pytest.approx(6.0)


@pytest.mark.parametrize("edge", [1.5, 20.0])
def test_an_implausible_volume_is_replaced(edge):
    start = Structure(Lattice.cubic(edge), ["Nb", "Nb"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    assert not PACKING[0] <= packing_fraction(start) <= PACKING[1]
    done = dock(start)
    assert packing_fraction(done.structure) == pytest.approx(module.USUAL_PACKING, rel=0.05)
    # bcc niobium: 3.30 A.
    assert done.structure.lattice.a == pytest.approx(3.3, abs=0.7)


def test_what_cannot_be_docked_is_said(monkeypatch):
    monkeypatch.setattr(module, "MAX_STEPS", 0)
    with pytest.raises(CrystalError, match="dock-failed"):
        dock(Structure(Lattice.cubic(4.0), ["Nb"] * 4, [[0, 0, 0]] * 4))
