"""The shipped property heads on textbook crystals."""

from __future__ import annotations

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

import onnes
from onnes.learn.properties import TARGETS, PropertyEnsemble


def rocksalt(a: str, b: str, size: float) -> Structure:
    sites = [[0, 0, 0], [0.5, 0.5, 0.5]]
    return Structure.from_spacegroup("Fm-3m", Lattice.cubic(size), [a, b], sites).get_primitive_structure()


def cubic(group: str, symbol: str, size: float) -> Structure:
    return Structure.from_spacegroup(group, Lattice.cubic(size), [symbol], [[0, 0, 0]])


@pytest.fixture(scope="module")
def table():
    crystals = {
        "NaCl": rocksalt("Na", "Cl", 5.69),
        "MgO": rocksalt("Mg", "O", 4.25),
        "TiN": rocksalt("Ti", "N", 4.24),
        "Al": cubic("Fm-3m", "Al", 4.04),
        "Cu": cubic("Fm-3m", "Cu", 3.63),
        "Nb": cubic("Im-3m", "Nb", 3.32),
    }
    frame = onnes.predict(list(crystals.values()))
    frame.index = list(crystals)
    return frame


def test_insulators_and_metals(table):
    assert (table.loc[["NaCl", "MgO"], "p_nonmetal"] > 0.9).all()
    assert (table.loc[["TiN", "Al", "Cu", "Nb"], "p_nonmetal"] < 0.1).all()
    assert (table.loc[["TiN", "Al", "Cu", "Nb"], "gap_eV"] == 0).all()
    # PBE gaps: NaCl 5.0, MgO 4.5 eV.
    assert table.gap_eV["NaCl"] == pytest.approx(5.0, abs=1.0)
    assert table.gap_eV["MgO"] == pytest.approx(4.5, abs=1.0)
    assert not table.in_domain["NaCl"] and "gap" in table.reason["NaCl"]


def test_formation_energies_follow_materials_project(table):
    """Measured enthalpies, which the Materials Project's corrections are fitted to (eV/atom)."""
    for name, expected in (("NaCl", -2.13), ("MgO", -3.12), ("TiN", -1.75)):
        assert table.formation_energy_eV_atom[name] == pytest.approx(expected, abs=0.2)
    assert table.formation_energy_eV_atom["Al"] == pytest.approx(0.0, abs=0.05)


def test_moduli_and_debye_temperature(table):
    # Voigt moduli of DFT: Al 78 and 30, Cu 140 and 55, Nb 170 and 30 GPa.
    for name, bulk in (("Al", 78), ("Cu", 140), ("Nb", 170)):
        assert table.bulk_GPa[name] == pytest.approx(bulk, rel=0.25)
    assert table.debye_K["Al"] == pytest.approx(420, rel=0.2)
    assert (table.p_dynamically_stable.between(0, 1)).all()


def test_supercell_and_order_do_not_matter():
    small = rocksalt("Ti", "N", 4.24)
    big = small.copy()
    big.make_supercell([[2, 0, 0], [0, 1, 0], [0, 0, 1]])
    other = Structure(small.lattice, small.species[::-1], small.frac_coords[::-1] + 0.1)
    frame = onnes.predict([small, big, other])
    for name in ("formation_energy_eV_atom", "gap_eV", "p_nonmetal", "bulk_GPa", "shear_GPa", "debye_K"):
        values = frame[name].to_numpy(float)
        np.testing.assert_allclose(values, values[0], rtol=1e-4, atol=1e-4)


def test_card_states_split_n_and_baselines():
    card = PropertyEnsemble().checkpoint.card["cross_validation"]
    assert tuple(card["targets"]) == TARGETS and "folds" in card["split"]
    for row in card["table"].values():
        assert row["n"] > 500 and len(row) >= 4
        assert all("ci95" in v for v in row.values() if isinstance(v, dict))


def test_batched_crystals_are_those_predicted_alone():
    from onnes.learn.features import AtomFeatures

    heads, rng = PropertyEnsemble(), np.random.default_rng(0)
    width = len(heads.heads[0].mean)
    sizes = [1, 7, 3, 20, 2] * 14
    crystals = [
        (AtomFeatures(rng.normal(size=(n, width)).astype(np.float32), -2.0), rng.integers(1, 80, n), 12.0 + n)
        for n in sizes
    ]
    together = heads.outputs(crystals)
    assert together.shape == (10, len(sizes), len(TARGETS))
    for k in (0, 3, 63, 64, 69):
        np.testing.assert_allclose(together[:, k], heads.outputs([crystals[k]])[:, 0], rtol=1e-5, atol=1e-5)
