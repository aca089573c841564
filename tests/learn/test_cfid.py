"""The arrays behind CFID against plain loops, and the descriptors against jarvis-tools alone."""

from __future__ import annotations

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from onnes.errors import ModelError
from onnes.learn.cfid import _library, cfid, dihedrals, pair_arrays


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


def test_dihedrals_equal_a_library_of_its_own():
    """ASE's dihedral of four atoms, on clusters in a cell so large that no image is near."""
    from ase import Atoms

    rng = np.random.default_rng(2)
    points = rng.uniform(4.0, 8.0, (7, 3))
    lattice = 40.0 * np.eye(3)
    near = pair_arrays(points / 40.0, lattice, 3.0, 20)
    angle, atom = dihedrals(near)
    cluster = Atoms("H7", positions=points)
    distance = cluster.get_all_distances()
    bonded = (distance < 3.0) & (distance >= 0.1)
    expected = []
    for i, j in np.argwhere(np.triu(bonded)):
        for a in np.flatnonzero(bonded[i]):
            for b in np.flatnonzero(bonded[j]):
                if a != j and b != i and a != b:
                    turn = cluster.get_dihedral(a, i, j, b)
                    expected.append((i, min(turn, 360.0 - turn)))
    assert len(expected) > 20
    # Closed triangles (a is b) have a dihedral of zero; ASE refuses them.
    found = sorted((i, abs(t)) for i, t in zip(atom.tolist(), angle, strict=True) if abs(t) > 1e-6)
    np.testing.assert_allclose(found, sorted(expected), atol=2e-3)


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


def test_prints_nothing(library, capsys):
    cfid(Structure(Lattice.cubic(14.0), ["Al"], [[0, 0, 0]]))
    assert capsys.readouterr().out == ""


def test_one_crystal_does_not_leak_into_the_next(library):
    first = cfid(generic(1))
    cfid(generic(2))
    np.testing.assert_array_equal(cfid(generic(1)), first)
