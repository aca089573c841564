from __future__ import annotations

import itertools

import numpy as np
import pytest
from crystal_prototypes import prototypes
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.core import Lattice, Structure

from onnes.crystal import Limits, check, flags, geometry, reduced_formula
from onnes.crystal.geometry import min_distance, nearest, pairs
from onnes.errors import CrystalError

CASES = prototypes()


def code_of(structure: Structure, limits: Limits | None = None) -> str:
    with pytest.raises(CrystalError) as caught:
        check(structure, limits)
    assert "\n" not in str(caught.value)
    return caught.value.code


def brute(lattice: np.ndarray, frac: np.ndarray, cutoff: float) -> list[float]:
    """All pair distances below a cut-off, by looking at every image that could matter."""
    heights = 1.0 / np.linalg.norm(np.linalg.inv(lattice), axis=0)
    reach = [int(np.ceil(cutoff / h)) + 2 for h in heights]
    frac = np.mod(frac, 1.0)
    images = np.array(list(itertools.product(*(range(-r, r + 1) for r in reach))))
    out = []
    for a in frac:
        for b in frac:
            d = np.linalg.norm((b - a + images) @ lattice, axis=1)
            out += d[(d < cutoff) & (d > 1e-9)].tolist()
    return sorted(out)


@pytest.mark.parametrize("name", CASES)
def test_prototypes_pass_and_are_bulk(name: str) -> None:
    check(CASES[name])
    assert flags(CASES[name]) == []


def test_needle_cell_finds_the_neighbours_brute_force_finds() -> None:
    cell = Lattice.from_parameters(3, 3, 60, 90, 90, 20).matrix
    sheared = Lattice.from_parameters(3, 3, 60, 20, 20, 20).matrix
    frac = np.array([[0.1, 0.2, 0.3], [0.6, 0.9, 0.31], [0.2, 0.1, 0.8]])
    for lattice in (cell, sheared):
        for cutoff in (2.0, 4.0, 6.5):
            ours = np.sort(pairs(lattice, frac, cutoff)[2])
            np.testing.assert_allclose(ours, brute(lattice, frac, cutoff), atol=1e-9)
        assert min_distance(lattice, frac) == pytest.approx(brute(lattice, frac, 7.0)[0], abs=1e-9)


@given(
    edges=st.tuples(*[st.floats(2.0, 12.0)] * 3),
    angles=st.tuples(*[st.floats(55.0, 115.0)] * 3),
    frac=st.lists(st.tuples(*[st.floats(-2, 2)] * 3), min_size=1, max_size=4),
)
@settings(max_examples=60, deadline=None)
def test_shortest_distance_equals_brute_force(
    edges: tuple[float, ...], angles: tuple[float, ...], frac: list[tuple[float, ...]]
) -> None:
    cosines = np.cos(np.radians(angles))
    if 1 - np.sum(cosines**2) + 2 * np.prod(cosines) < 0.05:
        return
    lattice = Lattice.from_parameters(*edges, *angles).matrix
    points = np.array(frac)
    gaps = [np.linalg.norm(a - b - np.round(a - b)) for a, b in itertools.combinations(points, 2)]
    if any(g < 1e-3 for g in gaps):
        return
    expected = brute(lattice, points, float(np.linalg.norm(lattice, axis=1).min()) + 1e-6)[0]
    assert min_distance(lattice, points) == pytest.approx(expected, abs=1e-9)


def test_coincident_atoms_are_at_distance_zero() -> None:
    assert min_distance(np.eye(3) * 4, np.zeros((2, 3))) == 0.0


def test_nearest_reports_what_is_out_of_reach() -> None:
    d, j = nearest(np.diag([30.0, 30.0, 30.0]), np.array([[0, 0, 0], [0.05, 0, 0], [0.5, 0.5, 0.5]]), 5.0)
    np.testing.assert_allclose(d[:2], 1.5)
    assert j.tolist() == [1, 0, -1]
    assert np.isinf(d[2])


def test_geometry_of_aluminium_and_diamond() -> None:
    for cell in (CASES["fcc-Al"], CASES["fcc-Al"].get_primitive_structure()):
        g = geometry(cell)
        assert g["min_distance_A"] == pytest.approx(4.05 / np.sqrt(2))
        assert g["volume_per_atom_A3"] == pytest.approx(4.05**3 / 4)
        assert g["density_g_cm3"] == pytest.approx(2.698, abs=0.003)  # handbook value of Al: 2.70
        assert g["formula"] == "Al"
    diamond = Structure.from_spacegroup(227, Lattice.cubic(3.567), ["C"], [[0, 0, 0]])
    assert geometry(diamond)["density_g_cm3"] == pytest.approx(3.515, abs=0.005)
    # touching spheres of 1.545/2 A fill pi sqrt(3)/16; covalent radius of carbon is 0.76 A
    expected = np.pi * np.sqrt(3) / 16 * (2 * 0.76 / (3.567 * np.sqrt(3) / 4)) ** 3
    assert geometry(diamond)["packing_fraction"] == pytest.approx(expected, rel=1e-6)
    assert set(geometry(diamond)) == {
        "n_atoms",
        "min_distance_A",
        "volume_per_atom_A3",
        "density_g_cm3",
        "packing_fraction",
        "formula",
    }


def test_overlap_names_the_atoms_and_the_distance() -> None:
    s = Structure(Lattice.cubic(4), ["Nb", "Ge"], [[0, 0, 0], [0.075, 0, 0]])
    with pytest.raises(CrystalError, match=r"0 \(Nb\) and 1 \(Ge\) are 0\.300 A") as caught:
        check(s)
    assert caught.value.code == "overlapping-atoms"


def test_overlap_of_an_atom_with_its_own_image() -> None:
    assert code_of(Structure(Lattice.orthorhombic(0.9, 6, 6), ["Nb"], [[0, 0, 0]])) == "overlapping-atoms"


def test_hydrogen_molecule_passes_and_two_metals_as_close_do_not() -> None:
    cell = Lattice.orthorhombic(3, 3, 4)
    check(Structure(cell, ["H", "H"], [[0, 0, 0], [0, 0, 0.185]]))
    assert code_of(Structure(cell, ["Zr", "Zr"], [[0, 0, 0], [0, 0, 0.185]])) == "overlapping-atoms"


def test_an_overlap_hidden_behind_shorter_allowed_bonds_is_found() -> None:
    # Cs-Cs at 2.0 A overlaps although each Cs has an acceptable H at 1.5 A
    s = Structure(Lattice.cubic(9), ["Cs", "Cs", "H"], [[0, 0, 0], [2.0 / 9, 0, 0], [1.0 / 9, 1.12 / 9, 0]])
    assert code_of(s) == "overlapping-atoms"


def test_isolated_atom_names_atom_distance_and_cutoff() -> None:
    with pytest.raises(
        CrystalError, match=r"atom 0 \(H\) has no neighbour within 8 A \(nearest: 100\.00 A\)"
    ):
        check(Structure(Lattice.cubic(100), ["H"], [[0, 0, 0]]))
    check(Structure.from_spacegroup(229, Lattice.cubic(6.14), ["Cs"], [[0, 0, 0]]))


@pytest.mark.parametrize(
    ("matrix", "code"),
    [
        ([[0, 3, 0], [3, 0, 0], [0, 0, 3]], "left-handed"),
        ([[3, 0, 0], [0, 3, 0], [3, 3, 0]], "zero-volume"),
        ([[3, 0, 0], [0, 3, 0], [0, 0, 0]], "zero-volume"),
        ([[3, 0, 0], [0, 3, 0], [0, 0, 0.05]], "flat-cell"),
        ([[3, 0, 0], [0, float("nan"), 0], [0, 0, 3]], "non-finite"),
        ([[3, 0, 0], [0, float("inf"), 0], [0, 0, 3]], "non-finite"),
        ([[1e200, 0, 0], [0, 1e200, 0], [0, 0, 1e200]], "huge-cell"),
    ],
)
def test_bad_cells(matrix: list[list[float]], code: str) -> None:
    from onnes.crystal.check import check_cell

    with pytest.raises(CrystalError) as caught:
        check_cell(np.array(matrix, dtype=float), np.zeros((1, 3)))
    assert caught.value.code == code


def test_bad_sites() -> None:
    cell = Lattice.cubic(4)
    assert code_of(Structure(cell, ["Nb"], [[0, float("nan"), 0]])) == "non-finite"
    assert code_of(Structure(cell, [{"Nb": 0.8, "Zr": 0.2}], [[0, 0, 0]])) == "partial-occupancy"
    assert code_of(Structure(cell, [], [])) == "no-atoms"
    assert code_of(Structure(cell, ["X"], [[0, 0, 0]])) == "unknown-element"


def test_size_limit_is_stated_and_can_be_moved() -> None:
    big = CASES["CsCl"] * (5, 5, 5)
    with pytest.raises(CrystalError, match="250 atoms in the cell; at most 200"):
        check(big)
    check(big, Limits(max_atoms=250))
    check(CASES["CsCl"] * (5, 5, 4))


def test_flags() -> None:
    slab = Structure(Lattice.hexagonal(2.46, 18), ["C", "C"], [[1 / 3, 2 / 3, 0.5], [2 / 3, 1 / 3, 0.5]])
    chain = Structure(Lattice.orthorhombic(15, 15, 2.6), ["C", "C"], [[0, 0, 0], [0, 0, 0.5]])
    box = Structure(Lattice.cubic(12), ["O", "H", "H"], [[0, 0, 0], [0.08, 0, 0], [-0.02, 0.077, 0]])
    graphite = Structure.from_spacegroup(
        194, Lattice.hexagonal(2.46, 6.71), ["C", "C"], [[0, 0, 0.25], [1 / 3, 2 / 3, 0.25]]
    )
    assert [flags(s) for s in (slab, chain, box, graphite)] == [["slab"], ["chain"], ["molecule"], []]
    assert flags(slab * (2, 2, 1)) == ["slab"]
    # across the cell border, and with the slab's layers written in different cells
    moved = Structure(slab.lattice, slab.species, slab.frac_coords + np.array([0.3, -4.2, 0.5]))
    assert flags(moved) == ["slab"]


def test_formula_convention() -> None:
    assert reduced_formula(CASES["MgB2"] * (2, 1, 1)) == "B2Mg"
    assert reduced_formula(CASES["perovskite"]) == "O3SrTi"
    charged = CASES["CsCl"].copy()
    charged.add_oxidation_state_by_element({"Cs": 1, "Cl": -1})
    assert reduced_formula(charged) == "ClCs"
