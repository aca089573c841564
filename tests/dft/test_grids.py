"""Grids: commensurate, symmetric, at the density asked for; point counts against those of pw.x and ph.x."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymatgen.core import Lattice, Structure
from qe_fixtures import captured, few

from onnes.crystal import standardise
from onnes.dft.dyn_file import parse_dyn, parse_dyn0
from onnes.dft.grids import (
    commensurate,
    irreducible,
    k_points_at,
    little_group,
    make_grids,
    mixed_axes,
    point_rotations,
    subdivisions,
    vacuum_axes,
)
from onnes.dft.ph_output import parse_ph
from onnes.dft.pw_output import parse_pw
from onnes.errors import SettingsError

FCC = Structure(Lattice(np.array([[-1, 0, 1], [0, 1, 1], [-1, 1, 0]]) * 2.0), ["Al"], [[0, 0, 0]])
SC = Structure(Lattice.cubic(2.7), ["Al"], [[0, 0, 0]])


def cell(name: str) -> Structure:
    """Awkward cells."""
    a = Lattice.from_parameters
    if name == "needle":
        return Structure(a(3, 3, 60, 90, 90, 20), ["Al", "Nb"], [[0, 0, 0], [0.3, 0.2, 0.07]])
    if name == "hexagonal":
        return Structure(
            Lattice.hexagonal(3.085, 3.523),
            ["Mg", "B", "B"],
            [[0, 0, 0], [1 / 3, 2 / 3, 0.5], [2 / 3, 1 / 3, 0.5]],
        )
    if name == "fcc":
        return FCC
    if name == "twenty atoms":
        rng = np.random.default_rng(3)
        return Structure(a(5.1, 6.3, 9.7, 83, 97, 104), ["Al"] * 10 + ["B"] * 10, rng.random((20, 3)))
    if name == "slab":
        return Structure(
            Lattice.hexagonal(3.0, 25.0),
            ["Nb", "S", "S"],
            [[0, 0, 0.5], [1 / 3, 2 / 3, 0.56], [1 / 3, 2 / 3, 0.44]],
        )
    if name == "bct":
        return standardise(
            Structure(Lattice.tetragonal(3.2, 9.5), ["In", "In"], [[0, 0, 0], [0.5, 0.5, 0.5]])
        )
    if name == "rhombohedral":
        return Structure(Lattice.rhombohedral(4.7, 57.0), ["As", "As"], [[0.23] * 3, [0.77] * 3])
    if name == "base centred":
        return standardise(
            Structure(
                Lattice.orthorhombic(2.8, 5.9, 4.9),
                ["U", "U", "U", "U"],
                [[0, 0.1, 0.25], [0, 0.9, 0.75], [0.5, 0.6, 0.25], [0.5, 0.4, 0.75]],
            )
        )
    raise KeyError(name)


CELLS = ["needle", "hexagonal", "fcc", "twenty atoms", "slab", "bct", "rhombohedral", "base centred"]


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize(("k", "q"), [(20, 7.5), (30, 10), (40, 15)])
def test_grids_are_commensurate_and_mapped_onto_themselves(name, k, q):
    structure = cell(name)
    found = make_grids(structure, k, q)
    rotations = point_rotations(structure)
    for i in range(3):
        assert found.k[i] % found.q[i] == 0 and found.dense[i] % found.k[i] == 0
    for grid in (found.q, found.k, found.dense):
        points, weights = irreducible(grid, rotations)
        assert weights.sum() == math.prod(grid) and len(points) == len(weights)
    wanted = subdivisions(structure.lattice.matrix, q)
    vacuum = vacuum_axes(structure)
    for i in range(3):
        # A q axis may lose to commensurability, by less than half.
        assert vacuum[i] or found.q[i] >= max(1, wanted[i] // 2 + wanted[i] % 2 - 1)
        assert vacuum[i] or found.k[i] >= subdivisions(structure.lattice.matrix, k)[i] - 1


def test_axes_mixed_by_symmetry_are_found():
    assert mixed_axes(point_rotations(FCC)) == [[0, 1, 2]]
    assert mixed_axes(point_rotations(cell("hexagonal"))) == [[0, 1], [2]]
    assert mixed_axes(point_rotations(cell("twenty atoms"))) == [[0], [1], [2]]
    # Its primitive reciprocal vectors have two lengths, and a fourfold rotation mixes all three.
    assert mixed_axes(point_rotations(cell("bct"))) == [[0, 1, 2]]


def test_unequal_subdivisions_of_mixed_axes_are_refused():
    with pytest.raises(SettingsError, match="grid-breaks-symmetry"):
        irreducible((4, 4, 3), point_rotations(FCC))


def test_slab_has_one_point_along_its_vacuum():
    found = make_grids(cell("slab"), 30, 10)
    assert (found.q[2], found.k[2], found.dense[2]) == (1, 1, 1) and found.q[0] > 1
    assert vacuum_axes(cell("slab")) == (False, False, True)


def test_thin_axis_of_a_needle_gets_the_points():
    found = make_grids(cell("needle"), 20, 7.5)
    assert found.q[2] == 1 and found.k[2] == 1 and max(found.q) >= 7


@given(st.integers(1, 60), st.integers(1, 60))
@few
def test_one_axis(k, q):
    new_k, new_q = commensurate(k, q)
    assert new_k % new_q == 0 and 1 <= new_q <= q and abs(new_k - k) <= 1


@pytest.mark.parametrize(
    ("k", "q", "expected"),
    [(12, 4, (12, 4)), (13, 5, (12, 4)), (15, 7, (14, 7)), (17, 6, (18, 6)), (5, 1, (5, 1))],
)
def test_order_of_the_rule(k, q, expected):
    assert commensurate(k, q) == expected


def test_noise_of_a_cubic_cell_does_not_change_a_grid():
    for noise in (-1e-9, 0.0, 1e-9):
        lattice = Lattice.cubic(4.0 + noise)
        assert subdivisions(lattice.matrix, 40.0) == (10, 10, 10)


def test_gamma_alone_is_an_error():
    big = Structure(Lattice.cubic(12.0), ["Al"] * 2, [[0, 0, 0], [0.5, 0.5, 0.5]])
    with pytest.raises(SettingsError, match="grid-too-coarse"):
        make_grids(big, 12, 4)
    for k, q in ((10, 20), (10, 0), (0, 0)):
        with pytest.raises(SettingsError, match="bad-density"):
            make_grids(FCC, k, q)


@pytest.mark.parametrize(
    ("name", "structure", "grid"),
    [
        ("al_pbesol/scf.out", FCC, 12),
        ("al_pbesol/dense.out", FCC, 24),
        ("al_lda/scf.out", FCC, 8),
        ("al_lda/dense.out", FCC, 16),
        ("sc_al/scf.out", SC, 8),
        ("sc_al/dense.out", SC, 16),
        ("al_222/scf/scf.out", FCC, 6),
        ("al_222/scf/dense.out", FCC, 12),
    ],
)
def test_irreducible_k_points_are_as_many_as_pw_counts(name, structure, grid):
    points, _ = irreducible((grid,) * 3, point_rotations(structure))
    assert len(points) == parse_pw(captured(name)).k_points


@pytest.mark.parametrize(
    ("folder", "structure", "k"), [("al_pbesol", FCC, 12), ("al_lda", FCC, 8), ("sc_al", SC, 8)]
)
def test_irreducible_q_and_the_k_points_at_each_are_as_many_as_ph_counts(folder, structure, k):
    listed = parse_dyn0(captured(f"{folder}/al.dyn0"))
    rotations = point_rotations(structure)
    points, weights = irreducible(listed.grid, rotations)
    assert len(points) == len(listed.q)
    ours = sorted((int(w), k_points_at(q, (k,) * 3, rotations)) for q, w in zip(points, weights, strict=True))
    run = parse_ph(captured(f"{folder}/ph.out"))
    stars = {}
    if folder != "al_pbesol":
        stars = {n: parse_dyn(captured(f"{folder}/al.dyn{n + 1}")).weight for n in range(len(points))}
        assert ours == sorted((stars[n], p.k_points) for n, p in enumerate(run.points))
    assert sorted(k for _, k in ours) == sorted(p.k_points for p in run.points)


def test_little_group_of_gamma_is_the_point_group_with_time_reversal():
    rotations = point_rotations(cell("hexagonal"))
    assert len(little_group(np.zeros(3), rotations)) == 24
    polar = Structure(Lattice.tetragonal(3, 4), ["Ti", "O"], [[0, 0, 0], [0.5, 0.5, 0.4]])
    assert len(little_group(np.zeros(3), point_rotations(polar))) == 16


FOUR = [[0, 0.1, 0.25], [0, 0.9, 0.75], [0.5, 0.6, 0.25], [0.5, 0.4, 0.75]]
HEX, TRICLINIC = Lattice.hexagonal, Lattice.from_parameters(3.1, 4.3, 4.9, 83, 97, 104)
#: Counted by pw.x and ph.x 6.7 at these cells (Al on every site) and equal k and q grids: operations, grid, points.
COUNTED = {
    "hcp": (Structure(HEX(2.86, 4.7), ["Al"] * 2, [[1 / 3, 2 / 3, 0.25], [2 / 3, 1 / 3, 0.75]]), 24, (4, 4, 2), 8),
    "polar": (Structure(HEX(3.1, 5.0), ["Al"] * 2, [[1 / 3, 2 / 3, 0], [2 / 3, 1 / 3, 0.42]]), 12, (4, 4, 2), 8),
    "bct": (standardise(Structure(Lattice.tetragonal(3.2, 6.5), ["Al"] * 2, [[0] * 3, [0.5] * 3])), 16, (4, 4, 4), 13),
    "rhombohedral": (
        Structure(Lattice.rhombohedral(4.7, 57.0), ["Al"] * 2, [[0.23] * 3, [0.77] * 3]),
        12, (3, 3, 3), 6,
    ),
    "bcc": (standardise(Structure(Lattice.cubic(3.2), ["Al"] * 2, [[0] * 3, [0.5] * 3])), 48, (4, 4, 4), 8),
    "triclinic": (
        Structure(TRICLINIC, ["Al"] * 2, [[0.1, 0.2, 0.3], [0.52, 0.71, 0.87]]),
        2, (4, 3, 2), 14,
    ),
    "base centred": (
        standardise(Structure(Lattice.orthorhombic(2.8, 5.9, 4.9), ["Al"] * 4, FOUR)),
        8, (4, 4, 2), 14,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", COUNTED)
def test_counts_of_quantum_espresso_in_every_kind_of_lattice(name):
    structure, operations, grid, points = COUNTED[name]
    rotations = point_rotations(structure)
    assert (len(rotations), len(irreducible(grid, rotations)[0])) == (operations, points)
    assert make_grids(structure, 9, 9, dense_factor=1).q == grid
