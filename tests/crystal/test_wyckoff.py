"""Wyckoff positions: the table against known facts and other programs, descriptions against their invariants."""

import itertools

import moyopy
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Lattice, Structure

from onnes.crystal.amd import amd
from onnes.crystal.families import cell_of, log_lattice
from onnes.crystal.wyckoff import (
    Described,
    Site,
    constrain,
    describe,
    family_projection,
    lattice_mask,
    project_strain,
    wyckoff_position,
    wyckoff_positions,
)
from onnes.crystal.wyckoff_table import changes, group_operations
from onnes.errors import CrystalError

SETTING = moyopy.Setting.standard()
# One or more groups of every lattice system and centring, polar and not, with screw axes and glides.
GROUPS = [
    1,
    2,
    4,
    5,
    8,
    14,
    15,
    19,
    31,
    36,
    43,
    44,
    47,
    62,
    63,
    70,
    71,
    75,
    82,
    99,
    129,
    139,
    141,
    146,
    148,
    152,
]
GROUPS += [160, 166, 167, 173, 186, 187, 191, 194, 198, 205, 206, 214, 216, 220, 221, 225, 227, 229, 230]


def points(frac):
    """Sorted points, wrapped and rounded, to compare sets."""
    return sorted(map(tuple, np.mod(np.round(np.mod(frac, 1.0), 6), 1.0).tolist()))


def random_crystal(number, rng, max_atoms=60):
    """A crystal of a group (or of a supergroup, by accident) and its description."""
    every = wyckoff_positions(number)
    elements = ["Nb", "O", "Al", "Ba", "Si"]
    sites, atoms = [], 0
    for i in rng.permutation(len(every))[:4]:
        position = every[i]
        if atoms and atoms + position.multiplicity > max_atoms:
            continue
        atoms += position.multiplicity
        sites.append(
            Site(
                position.letter,
                elements[len(sites)],
                tuple(rng.uniform(0.05, 0.45, position.freedom).tolist()),
            )
        )
    raw = (*rng.uniform(7, 13, 3), *rng.uniform(80, 105, 3))
    return Described(number, tuple(sites), constrain(number, raw))


def test_number_of_positions():
    counts = {n: len(wyckoff_positions(n)) for n in range(1, 231)}
    assert sum(counts.values()) == 1731
    for number, count in {
        1: 1,
        2: 9,
        47: 27,
        62: 4,
        139: 15,
        166: 9,
        191: 18,
        194: 12,
        221: 14,
        225: 12,
    }.items():
        assert counts[number] == count, number
    assert wyckoff_positions(47)[-1].letter == "A"


def test_facts_of_the_international_tables():
    at = {n: {p.letter: p for p in wyckoff_positions(n)} for n in (62, 194, 225, 227)}
    assert points(at[225]["a"].orbit(())) == points([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
    assert at[225]["c"].multiplicity == 8 and at[225]["l"].multiplicity == 192
    assert at[225]["e"].site_order == 8 and at[225]["e"].freedom == 1
    # Second origin choice: 8a of diamond lies at 1/8.
    assert points(at[227]["a"].orbit(()))[0] == (0.125, 0.125, 0.125)
    assert (1 / 3, 2 / 3, 0.25) in {tuple(x) for x in at[194]["c"].orbit(()).tolist()}
    x, z = 0.1, 0.2
    c = [[x, 0.25, z], [0.5 - x, 0.75, z + 0.5], [-x, 0.75, -z], [x + 0.5, 0.25, 0.5 - z]]
    assert points(at[62]["c"].orbit((x, z))) == points(c)


@pytest.mark.parametrize("number", range(1, 231))
def test_operations_are_those_of_moyopy_and_orbits_close(number):
    rotations, translations = group_operations(number)
    theirs = moyopy.operations_from_number(number, setting=SETTING)
    ours = {
        (*r.ravel().tolist(), *np.mod(np.rint(t * 24), 24))
        for r, t in zip(rotations, translations, strict=True)
    }
    assert ours == {
        (*np.ravel(r).tolist(), *np.mod(np.rint(np.array(t) * 24), 24))
        for r, t in zip(theirs.rotations, theirs.translations, strict=True)
    }
    rng = np.random.default_rng(number)
    for p in wyckoff_positions(number):
        assert p.matrices.shape == (p.multiplicity, 3, p.freedom)
        assert p.site_order * p.multiplicity == len(rotations)
        orbit = p.orbit(rng.uniform(0.03, 0.47, p.freedom))
        assert len(set(points(orbit))) == p.multiplicity
        pick = rng.integers(len(rotations), size=4)
        for r, t in zip(rotations[pick], translations[pick], strict=True):
            assert points(orbit @ r.T + t) == points(orbit)


@pytest.mark.parametrize("number", GROUPS)
def test_projection(number):
    rng = np.random.default_rng(number)
    lattice = np.array(Lattice.from_parameters(*constrain(number, (8, 9, 11, 83, 97, 101))).matrix)
    for p in wyckoff_positions(number):
        orbit = p.orbit(rng.random(p.freedom))
        x = orbit[rng.integers(len(orbit))] + rng.integers(-1, 2, 3)
        u, distance = p.project(x)
        assert distance < 1e-9
        near = p.orbit(u) - x
        assert np.abs(near - np.rint(near)).max(axis=1).min() < 1e-9
        # Off the subspace: a point of the orbit lies at the distance told, and no parameters come nearer.
        x = rng.random(3)
        u, distance = p.project(x, lattice)

        def nearest(v, p=p, x=x):
            delta = p.orbit(v) - x
            delta = (delta - np.rint(delta))[:, None] + np.array(
                list(itertools.product((-1, 0, 1), repeat=3))
            )
            return np.sqrt(((delta @ lattice) ** 2).sum(-1)).min()

        assert nearest(u) == pytest.approx(distance, abs=1e-9)
        for _ in range(10):
            assert nearest(u + rng.normal(0, 0.02, p.freedom)) >= distance - 1e-9


@pytest.mark.parametrize("number", GROUPS)
def test_changes_keep_the_group_and_permute_letters(number):
    known, positions = changes(number), wyckoff_positions(number)
    rotations, translations = group_operations(number)
    group = {
        (*r.ravel().tolist(), *np.mod(np.rint(t * 24), 24))
        for r, t in zip(rotations, translations, strict=True)
    }
    assert (known.matrices[0] == np.eye(3)).all() and (known.letters[0] == np.arange(len(positions))).all()
    rng = np.random.default_rng(number)
    for matrix, shift, letters in zip(known.matrices, known.shifts, known.letters, strict=True):
        assert np.linalg.det(matrix) == pytest.approx(1.0)
        assert sorted(letters) == list(range(len(positions)))
        turned = matrix @ rotations @ np.linalg.inv(matrix)
        moved = translations @ matrix.T + shift - turned @ shift
        assert group == {
            (*np.rint(r).ravel().tolist(), *np.mod(np.rint(t * 24), 24))
            for r, t in zip(turned, moved, strict=True)
        }
        for p, new in zip(positions, letters, strict=True):
            x = matrix @ p.orbit(rng.random(p.freedom))[0] + shift
            assert positions[new].project(x)[1] < 1e-9
            assert positions[new].multiplicity == p.multiplicity


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(1, 230), st.integers(0, 10**6))
def test_random_crystals_have_the_group_and_come_back(number, seed):
    made = random_crystal(number, np.random.default_rng(seed))
    whole = made.structure()
    assert len(whole) == made.n_atoms
    dataset = moyopy.MoyoDataset(
        moyopy.Cell(whole.lattice.matrix.tolist(), whole.frac_coords.tolist(), [s.Z for s in whole.species]),
        symprec=1e-3,
        setting=SETTING,
    )
    # Our operations must be among those found: the group itself or a supergroup.
    theirs = np.array(dataset.operations.rotations), np.array(dataset.operations.translations)
    for r, t in zip(*group_operations(number), strict=True):
        gap = theirs[1][(theirs[0] == r).all(axis=(1, 2))] - t
        assert len(gap) and np.abs(gap - np.rint(gap)).max(axis=1).min() < 1e-4
    found = describe(whole, 1e-3)
    assert found.number == dataset.number
    if found.number == number and len(dataset.operations) == len(group_operations(number)[0]):
        assert sorted(found.multiplicities) == sorted(made.multiplicities)
    built = found.primitive()
    assert len(built) == found.n_primitive and len(whole) % len(built) == 0
    # The matcher does not find the primitive cell of every crystal with open space; distances do not ask for it.
    np.testing.assert_allclose(amd(built), amd(whole), atol=1e-3)
    assert any(StructureMatcher().fit(cell, whole) for cell in (built, found.structure()))
    again = describe(built, 1e-3)
    assert (again.number, again.letters) == (found.number, found.letters)


@pytest.mark.parametrize("number", GROUPS)
def test_descriptions_do_not_depend_on_cell_origin_or_order(number):
    rng = np.random.default_rng(1000 + number)
    first = random_crystal(number, rng, max_atoms=24)
    whole = first.structure()
    found = describe(whole, 1e-3)
    for change in (
        [[1, 1, 0], [0, 1, 0], [0, 0, 1]],
        [[2, 0, 0], [0, 1, 1], [0, 0, 1]],
        [[0, 1, 0], [0, 0, 1], [1, 0, 0]],
    ):
        other = whole.make_supercell(change, in_place=False)
        other.translate_sites(range(len(other)), rng.random(3))
        order = rng.permutation(len(other))
        other = Structure(other.lattice, [other[i].specie for i in order], other.frac_coords[order])
        again = describe(other, 1e-3)
        assert (again.number, [(s.letter, s.element) for s in again.sites]) == (
            found.number,
            [(s.letter, s.element) for s in found.sites],
        )
        np.testing.assert_allclose(again.lattice, found.lattice, rtol=1e-5)
        u, v = (np.array([x for s in d.sites for x in s.parameters]) for d in (found, again))
        assert np.abs(u - v - np.rint(u - v)).max(initial=0.0) < 1e-3


def test_handedness_is_kept():
    # Quartz-like: P3_1 21 and P3_2 21 are mirror images.
    right = Described(
        152, (Site("a", "Si", (0.47,)), Site("c", "O", (0.41, 0.27, 0.12))), (4.91, 4.91, 5.4, 90, 90, 120)
    )
    whole = right.structure()
    mirrored = Structure(whole.lattice, whole.species, -whole.frac_coords)
    assert (describe(whole).number, describe(mirrored).number) == (152, 154)


def test_known_crystals():
    nacl = Structure.from_spacegroup(225, Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    found = describe(nacl)
    assert (found.number, found.letters, found.n_atoms, found.n_primitive) == (225, "ab", 8, 2)
    # Of the two origins the one that gives 4a to the lighter element.
    assert [(s.letter, s.element) for s in found.sites] == [("a", "Na"), ("b", "Cl")]
    nacl.translate_sites(range(8), [0.5, 0.5, 0.5])
    assert describe(nacl).sites == found.sites
    rutile = Structure.from_spacegroup(
        136, Lattice.tetragonal(4.59, 2.96), ["Ti", "O"], [[0, 0, 0], [0.305, 0.305, 0]]
    )
    found = describe(rutile)
    assert found.letters == "af" and found.formula == "O2Ti"
    assert found.sites[1].parameters[0] == pytest.approx(0.305, abs=1e-6)


def test_distorted_crystals_are_described_at_the_tolerance_asked_for():
    cell = Structure.from_spacegroup(
        221, Lattice.cubic(3.9), ["Sr", "Ti", "O"], [[0, 0, 0], [0.5] * 3, [0.5, 0.5, 0]]
    )
    cell.translate_sites([1], [0, 0, 0.01])
    assert describe(cell, 0.1).number == 221
    assert describe(cell, 0.005).number == 99


@pytest.mark.parametrize("number", [1, 2, 14, 62, 139, 166, 194, 225])
def test_lattice_families(number):
    rng = np.random.default_rng(number)
    mask = lattice_mask(number)
    parameters = constrain(number, (*rng.uniform(4, 9, 3), *rng.uniform(75, 110, 3)))
    cell = np.array(Lattice.from_parameters(*parameters).matrix)
    matrix, offset = family_projection(number)
    np.testing.assert_allclose(matrix @ matrix, matrix, atol=1e-12)
    assert round(np.trace(matrix)) == sum(mask)
    vector = log_lattice(cell)
    # Cells of the family stay; any vector ends in the family.
    np.testing.assert_allclose(matrix @ vector + offset, vector, atol=1e-9)
    back = Lattice(cell_of(matrix @ (vector + rng.normal(0, 0.1, 6)) + offset))
    np.testing.assert_allclose(constrain(number, back.parameters), back.parameters, rtol=1e-9)
    np.testing.assert_allclose(Lattice(cell_of(vector)).parameters, parameters, rtol=1e-9)
    # A projected strain is the mean over the point group, in Cartesian axes.
    strain = rng.normal(size=(3, 3))
    strain = strain + strain.T
    rotations, _ = group_operations(number)
    cartesian = cell.T @ rotations @ np.linalg.inv(cell.T)
    mean = (cartesian @ strain @ np.swapaxes(cartesian, 1, 2)).mean(axis=0)
    voigt = ([0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1])
    if number == 14:
        assert abs(cell[1][[0, 2]]).max() < 1e-9
    if number not in (1, 2):
        np.testing.assert_allclose(project_strain(number, strain[voigt]), mean[voigt], atol=1e-9)


@pytest.mark.parametrize(
    ("call", "code"),
    [
        (lambda: wyckoff_positions(0), "unknown-space-group"),
        (lambda: wyckoff_positions(231), "unknown-space-group"),
        (lambda: wyckoff_position(225, "m"), "unknown-wyckoff-letter"),
        (lambda: wyckoff_position(225, ""), "unknown-wyckoff-letter"),
        (lambda: wyckoff_position(225, "e").orbit((0.1, 0.2)), "wrong-parameters"),
        (lambda: wyckoff_position(225, "e").orbit((float("nan"),)), "wrong-parameters"),
        (lambda: Described(225, (), (4, 4, 4, 90, 90, 90)), "no-atoms"),
        (lambda: Described(225, (Site("a", "Xx"),), (4, 4, 4, 90, 90, 90)), "unknown-element"),
        (lambda: Described(225, (Site("a", "Al"),), (4, 4, 5, 90, 90, 90)), "wrong-lattice"),
        (lambda: Described(225, (Site("a", "Al"),), (4, 4, 4)), "wrong-lattice"),
    ],
)
def test_refusals(call, code):
    with pytest.raises(CrystalError) as error:
        call()
    assert error.value.code == code
