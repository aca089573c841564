"""Descriptors and baselines: invariances, known tables, nothing of the test rows used."""

from __future__ import annotations

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from onnes.data.records import Record
from onnes.errors import DataError, ModelError
from onnes.learn import descriptors as d
from onnes.learn.baselines import BASELINES, baseline, fit_predict, space_of
from onnes.learn.calibrate import Space

MGB2 = Structure(
    Lattice.hexagonal(3.086, 3.524), ["Mg", "B", "B"], [[0, 0, 0], [1 / 3, 2 / 3, 0.5], [2 / 3, 1 / 3, 0.5]]
)
ROCKSALT = Structure.from_spacegroup("Fm-3m", Lattice.cubic(4.47), ["Nb", "N"], [[0, 0, 0], [0.5, 0.5, 0.5]])


def record(structure, id="x"):
    return Record.from_structure(structure, id)


@pytest.mark.parametrize("kind", ["cell", "structure"])
@pytest.mark.parametrize("crystal", [MGB2, ROCKSALT], ids=["MgB2", "NbN"])
def test_same_crystal_same_descriptors(kind, crystal):
    """Moved origin and other order of sites; the supercell differs in its size and lattice shape only."""
    whole = d.DESCRIPTORS[kind](record(crystal))
    moved = crystal.copy()
    moved.translate_sites(range(len(moved)), [0.13, 0.27, 0.41])
    moved = Structure.from_sites(moved[::-1])
    np.testing.assert_allclose(d.DESCRIPTORS[kind](record(moved)), whole, atol=1e-9)
    doubled = d.DESCRIPTORS[kind](record(crystal * (2, 1, 1)))
    changed = set(np.flatnonzero(~np.isclose(doubled, whole, atol=1e-8)))
    n_atoms = 103 + 60 + 3
    lattice_shape = set(range(n_atoms + 1 + 24, n_atoms + 1 + 24 + 5))
    assert n_atoms in changed
    assert changed <= {n_atoms} | lattice_shape


def test_known_numbers():
    row = d.cell(record(MGB2))
    assert row[11] == pytest.approx(1 / 3)  # magnesium is element 12
    assert row[4] == pytest.approx(2 / 3)
    assert row[103] == pytest.approx((12 + 2 * 5) / 3)  # mean Z
    assert row[-4] == pytest.approx(MGB2.volume / 3)
    assert row[-1] == 3
    # Nb has 6 N at 2.24 A and 12 Nb at 3.16 A (< 1.3 * 3.28 A), N only its 6 Nb.
    bonds = d.structure(record(ROCKSALT))[-21:]
    np.testing.assert_allclose(bonds[:4], [12.0, 6.0, 6.0, 18.0])
    assert bonds[-1] == pytest.approx(0.5)  # like bonds


@pytest.mark.parametrize(
    ("symbol", "valence"),
    [("Nb", [1, 0, 4, 0]), ("Pb", [2, 2, 0, 0]), ("La", [2, 0, 1, 0]), ("U", [2, 0, 1, 3])],
)
def test_valence(symbol, valence):
    from pymatgen.core import Element

    assert d._valence(Element(symbol).full_electronic_structure) == valence


def test_table_has_no_holes():
    assert np.isfinite(d.element_table()).all()


def test_no_bond_in_range_is_a_row_of_numbers():
    lonely = Structure(Lattice.cubic(60.0), ["H"], [[0, 0, 0]])
    assert np.isfinite(d.structure(record(lonely))).all()


def test_crystals_without_descriptors_stay_as_rows():
    odd = Structure(Lattice.cubic(4.0), ["Db"], [[0, 0, 0]])
    found = d.describe([record(MGB2), record(odd)], "cell")
    assert np.isfinite(found[0]).all()
    assert np.isnan(found[1]).all()
    with pytest.raises(DataError, match=r"\[unknown-element\]"):
        d.describe([record(odd)], "cell")
    with pytest.raises(DataError, match="use one of cell, structure, invariant, cfid"):
        d.describe([record(MGB2)], "magic")


def test_cfid_is_an_extra():
    try:
        import jarvis.ai.descriptors.cfid  # noqa: F401
    except ImportError:
        with pytest.raises(ModelError, match=r"pip install 'onnes\[cfid\]'.*\[missing-extra\]"):
            d.describe([record(MGB2)], "cfid")
    else:
        assert d.describe([record(MGB2)], "cfid").shape == (1, 1557)


def rows(n=160):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, 5))
    return x, np.exp(0.8 * x[:, 0]) + 0.05 * rng.normal(size=n) ** 2


@pytest.mark.parametrize("name", ["trees", "boosting"])
def test_learns_and_never_looks_at_the_test_rows(name):
    x, y = rows()
    train, test = np.arange(0, 120), np.arange(120, 160)
    found = fit_predict(baseline(name), x, y, train, test, space=Space(0.3))
    constant = fit_predict(baseline("median"), x, y, train, test)
    assert np.abs(found - y[test]).mean() < 0.5 * np.abs(constant - y[test]).mean()
    other = y.copy()
    other[test] = 1e6
    np.testing.assert_array_equal(fit_predict(baseline(name), x, other, train, test, space=Space(0.3)), found)


def test_median_is_the_median_of_train():
    _, y = rows()
    nothing = np.zeros((160, 0))
    found = fit_predict(baseline("median"), nothing, y, np.arange(100), np.arange(100, 160), space=Space(0.3))
    np.testing.assert_allclose(found, np.exp(np.median(np.log(y[:100] + 0.3))) - 0.3)


def test_rows_without_descriptors_are_predicted_as_missing():
    x, y = rows()
    x[[3, 150]] = np.nan
    found = fit_predict(baseline("trees"), x, y, np.arange(120), np.arange(120, 160))
    assert np.flatnonzero(np.isnan(found)).tolist() == [30]


def test_refused():
    x, y = rows()
    with pytest.raises(ModelError, match="use one of median, trees, boosting, cfid"):
        baseline("forest")
    with pytest.raises(DataError, match=r"\[rows-overlap\]"):
        fit_predict(baseline("median"), x, y, np.arange(3), np.arange(2, 5))
    with pytest.raises(DataError, match=r"\[no-training-rows\]"):
        fit_predict(baseline("median"), x, y, np.arange(0), np.arange(2, 5))


def test_floors_follow_the_target():
    assert space_of("Tc616_K") == space_of("Tc_K") == Space(0.3)
    assert space_of("formation_energy_eV_atom") == Space()
    assert space_of("lambda").floor > 0
    assert {b.descriptors for b in BASELINES.values()} <= {"", *d.DESCRIPTORS}
