"""The two formation energies beside each other, and the flag where they disagree."""

from __future__ import annotations

import math

import pytest
from pymatgen.core import Lattice, Structure

from onnes import formation
from onnes.errors import DataError
from onnes.formation import Expected, cross_checked, model_formation_energy
from onnes.stability.hull import HullReferences
from onnes.stability.relax_table import Assessed


def nacl(a: float = 5.69) -> Structure:
    sites = [[0, 0, 0], [0.5, 0.5, 0.5]]
    return Structure.from_spacegroup("Fm-3m", Lattice.cubic(a), ["Na", "Cl"], sites).get_primitive_structure()


def row(value):
    return {"id": "a", "formation_energy_eV_atom": value}


def hull_formation(structure: Structure) -> float:
    from onnes.learn.features import FrozenPotential

    (features,) = FrozenPotential().evaluate([structure])
    return HullReferences.load().evaluate(structure, features.energy_eV_atom).formation_energy_eV_atom


def test_shifts_are_taken_off_by_hand():
    expected = Expected({"A": 0.3, "B": -0.1}, 0.2, "7net-0")
    assert expected.unexplained(["A", "A", "B"], -1.0, -1.4) == pytest.approx(0.4 - (0.3 + 0.3 - 0.1) / 3)
    assert math.isnan(expected.unexplained(["A", "C"], -1.0, -1.4))


def test_plus_u_shifts_an_oxide_and_no_alloy():
    expected = Expected({"V": 0.0, "V+U": 1.0, "O": 0.5, "Si": 0.1}, 0.2, "7net-0")
    assert expected.unexplained(["V", "V", "V", "Si"], 0.0, 0.0) == pytest.approx(-0.1 / 4)
    assert expected.unexplained(["V", "O"], 0.0, 0.0) == pytest.approx(-1.5 / 2)


def test_sound_crystal_is_not_flagged_and_a_wrong_number_is():
    """Rock salt: 0.6 eV per Cl lie between the conventions, and are expected."""
    structure = nacl()
    value, model = hull_formation(structure), model_formation_energy(structure)
    assert model == pytest.approx(-2.1, abs=0.1) and value > model + 0.2
    (good,) = cross_checked([Assessed(row(value), structure)])
    (wrong,) = cross_checked([Assessed(row(value + 1.0), structure)])
    assert good.row["formation_energy_flag"] == ""
    assert good.row["formation_energy_model_eV_atom"] == model
    assert wrong.row["formation_energy_flag"] == "disagrees"
    difference = (
        wrong.row["formation_energy_unexplained_eV_atom"] - good.row["formation_energy_unexplained_eV_atom"]
    )
    assert difference == pytest.approx(1.0)


def test_nothing_to_check_leaves_the_row_alone():
    for assessed in (Assessed(row(None), nacl()), Assessed(row(-1.0), None)):
        before = dict(assessed.row)
        assert next(cross_checked([assessed])).row == before
    # Unknown to the potential: no opinion, no flag.
    polonium = Structure(Lattice.cubic(3.35), ["Po"], [[0, 0, 0]])
    assert "formation_energy_flag" not in next(cross_checked([Assessed(row(0.0), polonium)])).row


def test_shipped_table_covers_the_common_elements():
    expected = Expected.load()
    assert 0.03 < expected.threshold_eV_atom < 0.2 and expected.potential == "7net-0"
    assert {"Mg", "B", "Nb", "N", "O", "Cl", "Ti", "La", "Si", "H"} <= expected.shift_eV.keys()
    # The Materials Project's corrections bind anions more strongly than the potential does; metals are left alone.
    assert expected.shift_eV["Cl"] > 0.3 and expected.shift_eV["O"] > 0.3
    assert abs(expected.shift_eV["Nb"]) < 0.2 and abs(expected.shift_eV["Al"]) < 0.2
    # So is vanadium, whose oxides are computed with +U.
    assert abs(expected.shift_eV["V"]) < 0.2 and expected.shift_eV["V+U"] > 0.5


def test_damaged_table_is_named(monkeypatch, tmp_path):
    (tmp_path / formation.TABLE).write_text("{")
    monkeypatch.setattr(formation, "files", lambda _: tmp_path)
    with pytest.raises(DataError, match="damaged-table"):
        Expected.load()
