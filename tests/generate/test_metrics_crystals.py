"""Metrics of generated crystals against crystals for which the answer is known."""

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from onnes.errors import CrystalError, SettingsError
from onnes.generate.metrics import (
    DEFAULT,
    LOOSE,
    Fingerprints,
    covered,
    displacement,
    measure,
    prediction,
    unique,
    unlike,
)
from onnes.generate.shares import resampled, share
from onnes.generate.validity import compositionally_valid, overlapping, shortest, structurally_valid


def cubic(a, species, frac):
    return Structure(Lattice.cubic(a), species, frac)


def rock_salt(a, one, two):
    return Structure.from_spacegroup(
        225, Lattice.cubic(a), [one, two], [[0, 0, 0], [0.5, 0, 0]]
    ).get_primitive_structure()


def set_of_crystals():
    pairs = [("Na", "Cl", 5.64), ("Mg", "O", 4.21), ("Ti", "N", 4.24), ("Nb", "C", 4.47), ("Ca", "S", 5.69)]
    return [rock_salt(a, x, y) for x, y, a in pairs] + [
        cubic(3.3, ["Nb", "Nb"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    ]


def test_share_is_wilsons():
    # Known value: 8 of 10 gives 0.490 to 0.943.
    figure = share(8, 10)
    assert (figure.value, figure.n) == (0.8, 10)
    assert (figure.low, figure.high) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert share(0, 0).n == 0 and np.isnan(share(0, 0).value)
    assert share(0, 5).low == 0.0 and share(5, 5).high == 1.0


def test_bootstrap_interval_holds_the_mean_and_narrows():
    rng = np.random.default_rng(0)
    small, large = (resampled(np.mean, rng.normal(3.0, 1.0, n)) for n in (20, 2000))
    assert small.low < small.value < small.high
    assert large.high - large.low < 0.3 * (small.high - small.low)
    # Half-width of the mean of 2,000 normal values: 1.96 / sqrt(2000).
    assert large.high - large.low == pytest.approx(2 * 1.96 / np.sqrt(2000), rel=0.2)
    assert np.isnan(resampled(np.mean, []).value) and np.isnan(resampled(np.mean, [1.0]).low)


def test_atoms_overlap_by_their_own_radii():
    """C-C of 1.4 A is a bond, Nb-Nb of 2 A is not; images of one atom and flat cells count."""
    chain = Structure(Lattice.orthorhombic(8, 8, 8), ["C", "C"], [[0, 0, 0], [0, 0, 1.4 / 8]])
    assert not overlapping(chain, 0.75)
    metal = Structure(Lattice.orthorhombic(8, 8, 8), ["Nb", "Nb"], [[0, 0, 0], [0, 0, 2.0 / 8]])
    assert overlapping(metal, 0.75) and not overlapping(metal, 0.5)
    assert overlapping(Structure(Lattice.orthorhombic(2.0, 8, 8), ["Nb"], [[0, 0, 0]]), 0.75)
    assert overlapping(Structure(Lattice.orthorhombic(0.01, 1, 1), ["H"], [[0, 0, 0]]), 0.0)
    assert not overlapping(rock_salt(5.64, "Na", "Cl"), 0.75)


def test_structural_validity_counts_images_of_an_atom():
    assert structurally_valid(rock_salt(5.64, "Na", "Cl"))
    assert not structurally_valid(cubic(4.0, ["Na", "Cl"], [[0, 0, 0], [0.1, 0, 0]]))
    thin = Structure(Lattice.from_parameters(0.4, 4, 4, 90, 90, 90), ["Na"], [[0, 0, 0]])
    assert shortest(thin) == pytest.approx(0.4) and not structurally_valid(thin)
    flat = Structure(Lattice.from_parameters(3, 3, 1e-3, 90, 90, 90), ["Na"], [[0, 0, 0]])
    assert not structurally_valid(flat)


@pytest.mark.parametrize(
    ("species", "valid"),
    [
        (["Na", "Cl"], True),
        (["Nb", "Ti", "Zr"], True),  # an alloy
        (["S"], True),  # an element
        (["Na", "Cl", "Cl"], False),  # Na2+ does not exist
        (["Al", "Al", "O", "O", "O"], True),
        (["Fe", "Fe", "Fe", "O", "O", "O", "O"], False),  # one state an element: SMACT refuses magnetite, too
        (["Na", "He"], False),
        (["K", "Br", "O", "O", "O"], True),
    ],
)
def test_compositional_validity(species, valid):
    frac = np.random.default_rng(0).random((len(species), 3))
    assert compositionally_valid(Structure(Lattice.cubic(8), species, frac)) is valid


def test_uniqueness_and_novelty():
    base = set_of_crystals()
    moved = base[0].copy()
    moved.translate_sites(range(2), [0.2, 0.3, 0.4])
    moved.make_supercell([[1, 1, 0], [0, 1, 0], [0, 0, 2]])
    caesium = cubic(3.4, ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    assert unique([*base, moved, caesium]).tolist() == [True] * 6 + [False, True]
    judge = unlike(base)
    assert not judge(moved) and judge(caesium)


def test_coverage_of_a_set_by_itself_and_by_others():
    ours = Fingerprints.of(set_of_crystals())
    assert covered(ours, ours).all()
    other = Fingerprints.of([cubic(4.0, ["Cs", "F"], [[0, 0, 0], [0.5, 0.5, 0.5]])])
    assert not covered(ours, other).any() and not covered(other, ours).any()
    assert not covered(ours, Fingerprints.of([])).any()
    strained = [s.copy() for s in set_of_crystals()]
    for s in strained:
        s.apply_strain([0.01, 0, 0])
    assert covered(ours, Fingerprints.of(strained)).all()


def test_displacement_is_free_of_the_origin():
    s = cubic(10.0, ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    after = s.copy()
    after.translate_sites([0, 1], [0.48, 0.01, 0.3])
    assert displacement(s, after) == pytest.approx(0.0, abs=1e-9)
    after.translate_sites([1], [0.02, 0, 0])
    # 0.2 A between two atoms: each 0.1 A from the mean.
    assert displacement(s, after) == pytest.approx(0.1)
    with pytest.raises(CrystalError, match="different-atoms"):
        displacement(s, cubic(10.0, ["Cl", "Na"], [[0, 0, 0], [0.5, 0.5, 0.5]]))


def test_structure_prediction():
    truth = set_of_crystals()[:3]
    caesium = cubic(3.0, ["Mg", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    guesses = [[truth[0]], [caesium, truth[1]], []]
    found = prediction(guesses, truth)
    assert (found["match_rate_first"].value, found["match_rate_first"].n) == (pytest.approx(1 / 3), 3)
    assert found["match_rate_any"].value == pytest.approx(2 / 3)
    assert found["rmsd_first"].n == 1 and found["rmsd_first"].value == pytest.approx(0.0, abs=1e-6)
    # 0.45 (V/n)^(1/3) off: only the loose matcher agrees.
    off = truth[0].copy()
    off.translate_sites([1], [0.11, 0.11, 0.11])
    strict, loose = (prediction([[off]], truth[:1], t)["match_rate_first"].value for t in (DEFAULT, LOOSE))
    assert strict <= loose and loose == 1.0
    with pytest.raises(SettingsError, match="length-mismatch"):
        prediction(guesses, truth[:2])


def test_a_set_measured_against_itself_and_a_worse_one():
    good = set_of_crystals()
    found = measure(good, reference=good)
    f = {k: v.value for k, v in found.figures.items()}
    assert f["structural_validity"] == f["unique"] == f["coverage_recall"] == f["coverage_precision"] == 1.0
    assert f["novel"] == f["P1_share"] == f["five_or_more_elements"] == 0.0
    assert f["wasserstein_density_g_cm3"] == f["wasserstein_elements"] == 0.0
    assert found.space_groups == {225: 5, 229: 1}
    assert all(v.n > 0 for v in found.figures.values())
    rng = np.random.default_rng(1)
    noise = [
        Structure(
            Lattice.cubic(5),
            rng.choice(["Li", "F", "Cs", "O", "Ge", "Nb", "H"], 6, replace=False),
            rng.random((6, 3)),
        )
        for _ in range(12)
    ]
    worse = measure(
        noise, reference=good, refused=4, relaxed=[(noise[0], noise[0])], energies=([0.0, 1.0], [0.0, 0.0])
    )
    w = {k: v.value for k, v in worse.figures.items()}
    assert worse.figures["structural_validity"].n == 16 and w["structural_validity"] <= 0.75
    assert w["five_or_more_elements"] == 1.0 and w["coverage_recall"] < 0.5 and w["P1_share"] == 1.0
    assert w["wasserstein_elements"] == pytest.approx(np.mean([6 - x for x in (2, 2, 2, 2, 2, 1)]))
    assert w["rmsd_to_relaxed_A"] == 0.0
    assert w["wasserstein_formation_energy_eV_atom"] == pytest.approx(0.5)
    assert worse.to_dict()["figures"]["rmsd_to_relaxed_A"]["low"] is None
    with pytest.raises(SettingsError, match="no-crystals"):
        measure([])
