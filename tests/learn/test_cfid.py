"""The pair arrays behind CFID against a plain loop, and the descriptors against jarvis-tools alone."""

from __future__ import annotations

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from onnes.errors import ModelError
from onnes.learn.cfid import _library, cfid, pair_arrays


@pytest.fixture
def library():
    try:
        return _library()
    except ModelError as error:
        pytest.skip(str(error))


def generic(seed: int) -> Structure:
    """No symmetry: no distance falls on the edge of a bin by rounding."""
    rng = np.random.default_rng(seed)
    lattice = Lattice.from_parameters(*rng.uniform(5.0, 7.0, 3), *rng.uniform(75, 105, 3))
    return Structure(lattice, ["Nb", "N", "Nb", "C"], rng.random((4, 3)))


@pytest.mark.parametrize("reach", [0.5, 3.0, 6.0])
def test_pairs_equal_a_loop(reach):
    rng = np.random.default_rng(1)
    frac, lattice = rng.random((25, 3)), np.diag([9.0, 10.0, 11.0]) + rng.normal(0, 0.5, (3, 3))
    found = pair_arrays(frac, lattice, reach, 60)
    nearby: list[list[tuple[int, float]]] = [[] for _ in frac]
    for i in range(25):
        for j in range(i + 1, 25):
            step = frac[i] - frac[j]
            step -= np.where(np.abs(step) > 0.5, np.sign(step), 0.0)
            d = np.linalg.norm(step @ lattice)
            if 0.1 <= d < reach:
                nearby[i].append((j, d))
                nearby[j].append((i, d))
    for atom, expected in enumerate(nearby):
        n = found["nn"][atom]
        assert n == len(expected)
        assert found["nn_id"][:n, atom].tolist() == [j for j, _ in expected]
        np.testing.assert_allclose(found["dist"][:n, atom], [d for _, d in expected], atol=1e-12)
        assert not found["dist"][n:, atom].any()
        arrow = np.stack([found[f"bond{a}"][:n, atom] for a in "xyz"], axis=-1)
        np.testing.assert_allclose(np.linalg.norm(arrow, axis=-1), found["dist"][:n, atom], atol=1e-12)


def test_too_many_neighbours_are_left_to_the_library():
    assert pair_arrays(np.random.default_rng(0).random((40, 3)), 3.0 * np.eye(3), 10.0, 38) is None


def test_equal_to_the_library_alone(library):
    module, atoms_class, _ = library
    crystal = generic(4)
    atoms = atoms_class(
        lattice_mat=crystal.lattice.matrix,
        coords=crystal.frac_coords,
        elements=[site.specie.symbol for site in crystal],
        cartesian=False,
    )
    alone = np.asarray(module.CFID(atoms).get_comp_descp(), dtype=float)
    np.testing.assert_allclose(cfid(crystal), alone, atol=1e-9)


def test_one_crystal_does_not_leak_into_the_next(library):
    first = cfid(generic(1))
    cfid(generic(2))
    np.testing.assert_array_equal(cfid(generic(1)), first)
