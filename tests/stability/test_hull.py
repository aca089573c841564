"""Hull: hand-made systems with known answers, and the shipped table against textbook facts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymatgen.core import Lattice, Structure

from onnes.errors import DataError
from onnes.stability import hull
from onnes.stability.hull import HullReferences, Reference


def toy() -> HullReferences:
    return HullReferences(
        [
            Reference("Mg", -1.0, "m"),
            Reference("Mg", -1.2, "m2"),
            Reference("B", -6.0, "b"),
            Reference("B2Mg", -4.6, "mb"),
            Reference("B4Mg", -5.0, "mb4"),
        ]
    )


def crystal(*species: str) -> Structure:
    n = len(species)
    return Structure(Lattice.cubic(5.0), species, [[k / n, k / n, k / n] for k in range(n)])


def test_numbers_by_hand():
    found = toy().evaluate(crystal("Mg", "B"), -3.5)
    assert found.formation_energy_eV_atom == pytest.approx(-3.5 - (-1.2 - 6.0) / 2)
    # MgB lies between Mg (x = 0) and MgB2 (x = 2/3) of the hull: 1/4 Mg + 3/4 MgB2 by atoms.
    assert found.e_hull_eV_atom == pytest.approx(-3.5 - (0.25 * -1.2 + 0.75 * -4.6))
    assert found.decomposition == "0.75 MgB2 + 0.25 Mg"


def test_phase_on_the_hull_is_at_zero_and_below_it_negative():
    assert toy().evaluate(crystal("Mg", "B", "B"), -4.6).e_hull_eV_atom == pytest.approx(0.0)
    assert toy().evaluate(crystal("Mg", "B", "B"), -4.7).e_hull_eV_atom == pytest.approx(-0.1)


def test_element_without_reference_is_unknown_not_zero():
    found = toy().evaluate(crystal("Mg", "Xe", "B"), -3.0)
    assert found.e_hull_eV_atom is None and found.formation_energy_eV_atom is None
    assert found.unknown_references == ("Xe",)


def test_element_the_potential_knows_and_the_table_does_not():
    """CASE 25: helium has no reference in the shipped table; the hull says so instead of zero."""
    table = HullReferences.load()
    assert "He" not in table.elements
    found = table.evaluate(crystal("Nb", "He", "Nb", "N"), -5.0)
    assert found.e_hull_eV_atom is None and found.unknown_references == ("He",)
    assert found.numbers()["e_hull_eV_atom"] is None and found.numbers()["unknown_references"] == ["He"]


def test_size_of_the_cell_does_not_matter():
    """CASE 29: 1 atom and 200 atoms, energies per atom."""
    one, many = crystal("Mg"), crystal(*["Mg"] * 50, *["B"] * 150)
    assert toy().evaluate(one, -1.0).e_hull_eV_atom == pytest.approx(0.2)
    small = toy().evaluate(crystal("Mg", "B", "B", "B"), -4.0)
    assert toy().evaluate(many, -4.0) == small


def test_table_tells_what_it_is():
    table = HullReferences.load()
    assert table.method == "7net-0" and "7net-0" in table.describe() and "shipped table" in table.describe()
    more = table.joined([Reference("Xe", -0.1, "x")], "mine.csv")
    assert more.elements["Xe"] == -0.1 and "Xe" not in table.elements
    assert "mine.csv" in more.describe() and len(more) == len(table) + 1


@given(st.floats(-8, 0), st.integers(1, 4), st.integers(1, 4))
def test_hull_never_lies_above_the_elements(energy, a, b):
    found = toy().evaluate(crystal(*["Mg"] * a, *["B"] * b), energy)
    assert found.e_hull_eV_atom >= found.formation_energy_eV_atom - 1e-9


def test_shipped_table_knows_the_elements_and_stable_compounds():
    table = HullReferences.load()
    assert len(table.elements) >= 80 and table.digest
    assert table.evaluate(crystal("Mg", "B", "B"), -99.0).e_hull_eV_atom < 0
    phases = {p.formula for p in table.phases(["Na", "Cl"])}
    assert {"Na", "Cl", "ClNa"} <= phases


@pytest.mark.parametrize(
    ("group", "lattice", "species", "sites", "experiment"),
    [
        ("Fm-3m", Lattice.cubic(5.69), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]], -2.13),
        ("Fm-3m", Lattice.cubic(4.24), ["Ti", "N"], [[0, 0, 0], [0.5, 0.5, 0.5]], -1.75),
        ("Fm-3m", Lattice.cubic(4.71), ["Ta", "C"], [[0, 0, 0], [0.5, 0.5, 0.5]], -0.75),
        ("Pm-3m", Lattice.cubic(2.89), ["Al", "Ni"], [[0, 0, 0], [0.5, 0.5, 0.5]], -0.65),
    ],
    ids=["NaCl", "TiN", "TaC", "NiAl"],
)
def test_formation_energies_are_near_experiment(group, lattice, species, sites, experiment):
    """Measured enthalpies (NIST-JANAF, per atom, rounded) are met by uncorrected PBE to 0.25 eV/atom.

    Chlorides are not: PBE misses 0.6 eV per Cl, which the Materials Project corrects and this table does not.
    """
    from onnes.stability.relax import relax

    done = relax(Structure.from_spacegroup(group, lattice, species, sites).get_primitive_structure())
    found = HullReferences.load().evaluate(done.structure, done.energy_eV_atom)
    assert found.formation_energy_eV_atom == pytest.approx(experiment, abs=0.35 if "Cl" in species else 0.25)
    assert found.e_hull_eV_atom == pytest.approx(0.0, abs=0.03)


def test_damaged_table_is_named(monkeypatch, tmp_path):
    (tmp_path / hull.TABLE).write_bytes(b"\x1f\x8bno gzip")
    monkeypatch.setattr(hull, "files", lambda _: tmp_path)
    hull._shipped.cache_clear()
    try:
        with pytest.raises(DataError, match="damaged-table"):
            HullReferences.load()
    finally:
        monkeypatch.undo()
        hull._shipped.cache_clear()
