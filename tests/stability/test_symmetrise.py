"""Symmetrisation after relaxation: what noise hid comes back, a real distortion stays."""

from __future__ import annotations

import numpy as np
import pytest
from ase.calculators.emt import EMT
from pymatgen.core import Lattice, Structure

from onnes.crystal.symmetry import space_group
from onnes.errors import CrystalError
from onnes.stability.relax import RelaxSettings, relax
from onnes.stability.symmetrise import COST_EV_ATOM, symmetrise

CU3AU = Structure(
    Lattice.cubic(3.8), ["Au", "Cu", "Cu", "Cu"], [[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]
)


def shaken(structure: Structure, seed: int, amount: float = 0.05) -> Structure:
    """Atoms moved by `amount` (A), cell sheared a little: P1."""
    s = structure.copy()
    s.perturb(amount, seed=seed)
    rng = np.random.default_rng(seed)
    s.lattice = Lattice(s.lattice.matrix @ (np.eye(3) + rng.uniform(-0.01, 0.01, (3, 3))))
    assert space_group(s, 1e-3)[0] == 1
    return s


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_shaken_alloy_comes_back_to_its_group(seed):
    settings = RelaxSettings()
    done = relax(shaken(CU3AU, seed), settings, EMT())
    assert done.converged
    found = symmetrise(done, settings, EMT())
    assert found.after == 221 == space_group(found.relaxed.structure, 1e-4)[0]
    assert found.cost_eV_atom < COST_EV_ATOM and found.relaxed.converged
    assert found.relaxed.structure.volume == pytest.approx(done.structure.volume, rel=0.01)
    numbers = found.numbers()
    assert numbers["space_group_symmetrised"] == 221
    assert numbers["symmetrise_cost_meV_atom"] == pytest.approx(
        1e3 * (numbers["energy_symmetrised_eV_atom"] - done.energy_eV_atom)
    )


def test_a_crystal_on_its_symmetry_is_left_alone():
    settings = RelaxSettings(symmetry=True)
    done = relax(CU3AU, settings, EMT())
    found = symmetrise(done, settings, EMT())
    assert (found.before, found.after, found.cost_eV_atom, found.tried) == (221, 221, 0.0, ())
    assert found.relaxed is done


def test_only_a_relaxed_crystal_is_symmetrised():
    done = relax(shaken(CU3AU, 1), RelaxSettings(max_steps=1), EMT())
    with pytest.raises(CrystalError, match="not-relaxed"):
        symmetrise(done, RelaxSettings(), EMT())


PROTOTYPES = {
    "NbC": (
        225,
        Structure.from_spacegroup("Fm-3m", Lattice.cubic(4.47), ["Nb", "C"], [[0, 0, 0], [0.5, 0, 0]]),
    ),
    "MgB2": (
        191,
        Structure.from_spacegroup(
            "P6/mmm", Lattice.hexagonal(3.08, 3.52), ["Mg", "B"], [[0, 0, 0], [1 / 3, 2 / 3, 0.5]]
        ),
    ),
    "Nb3Sn": (
        223,
        Structure.from_spacegroup("Pm-3n", Lattice.cubic(5.3), ["Sn", "Nb"], [[0, 0, 0], [0.25, 0, 0.5]]),
    ),
}


@pytest.mark.parametrize(
    "name", ["MgB2", *(pytest.param(n, marks=pytest.mark.slow) for n in ("NbC", "Nb3Sn"))]
)
def test_prototypes_of_superconductors_come_back(name):
    number, ideal = PROTOTYPES[name]
    settings = RelaxSettings()
    done = relax(shaken(ideal.get_primitive_structure(), 4), settings)
    found = symmetrise(done, settings)
    assert found.after == number, found.tried
    assert found.cost_eV_atom < COST_EV_ATOM


def test_a_real_distortion_is_not_undone():
    # KNbO3, rhombohedral as it is below 263 K: niobium 0.2 A off the centre of its octahedron in the cubic perovskite.
    away = [[0, 0, 0], [0.487] * 3, [0.511, 0.511, 0.018], [0.511, 0.018, 0.511], [0.018, 0.511, 0.511]]
    cell = Lattice.from_parameters(4.04, 4.04, 4.04, 89.87, 89.87, 89.87)
    settings = RelaxSettings()
    done = relax(Structure(cell, ["K", "Nb", "O", "O", "O"], away), settings)
    found = symmetrise(done, settings)
    assert done.converged and found.before == found.after == 160
    # It was tried and found too dear, not overlooked.
    assert [t.space_group for t in found.tried] == [221]
    assert found.tried[0].cost_eV_atom > 2 * COST_EV_ATOM
