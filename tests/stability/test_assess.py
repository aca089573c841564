"""`onnes relax` and `onnes stability` through the command line."""

from __future__ import annotations

import csv
import io

import pytest
from pymatgen.core import Lattice, Structure

from in_process import onnes


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("in puts")
    hexagonal = Lattice.hexagonal(3.1, 3.5)
    mgb2 = Structure.from_spacegroup("P6/mmm", hexagonal, ["Mg", "B"], [[0, 0, 0], [1 / 3, 2 / 3, 0.5]])
    mgb2.to(str(folder / "MgB2.cif"))
    Structure(Lattice.cubic(3.35), ["Po"], [[0, 0, 0]]).to(str(folder / "Po.cif"))
    Structure(Lattice.cubic(7.0), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]).to(str(folder / "apart.cif"))
    (folder / "broken.cif").write_text("data_x\n_cell_length_a 3\n")
    return folder


def test_stability_reports_every_input(inputs, tmp_path):
    done = onnes("stability", inputs, "--cifs", tmp_path / "relaxed")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    rows = {r["id"]: r for r in csv.DictReader(io.StringIO(done.stdout))}
    assert len(rows) == 4
    good = rows["MgB2"]
    assert "materials-project" in good["known_source"] and good["charge_balance"] == "not-asked"
    assert good["formation_energy_unexplained_eV_atom"] and good["formation_energy_flag"] == ""
    assert "S.U.N. 0 of 4 given" in done.stderr and "energies of 7net-0" in done.stderr
    assert (good["status"], good["novelty"], good["space_group"]) == ("ok", "known", "P6/mmm")
    assert float(good["e_hull_eV_atom"]) == pytest.approx(0.0, abs=0.03)
    assert float(good["formation_energy_eV_atom"]) < -0.1
    assert (rows["Po"]["status"], rows["Po"]["reason"]) == ("refused", "potential-unknown-element")
    assert rows["apart"]["status"] == "failed" and "no neighbour within 5 A" in rows["apart"]["reason"]
    assert rows["apart"]["e_hull_eV_atom"] == ""
    assert rows["broken"]["status"] == "refused"
    (cif,) = (tmp_path / "relaxed").glob("*.cif")
    assert Structure.from_file(cif).composition.reduced_formula == "MgB2"


def test_relax_writes_its_table(inputs, tmp_path):
    out = tmp_path / "t.csv"
    done = onnes("relax", inputs / "MgB2.cif", "--out", out)
    assert done.returncode == 0
    (row,) = csv.DictReader(out.open())
    assert row["converged"] == "True" and int(row["steps"]) >= 1


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["relax", "{}", "--potential", "magic"], "unknown-potential"),
        (["relax", "{}", "--fmax", "0"], "bad-setting"),
        (["relax", "nowhere.cif"], ""),
    ],
)
def test_bad_calls_are_one_line(inputs, arguments, code):
    done = onnes(*[a.format(inputs / "MgB2.cif") for a in arguments])
    assert done.returncode == 2 and code in done.stderr and "Traceback" not in done.stderr


def test_unwritable_folder_is_found_before_any_work(inputs, tmp_path):
    (tmp_path / "file").write_text("")
    done = onnes("relax", inputs / "MgB2.cif", "--cifs", tmp_path / "file")
    assert done.returncode == 2 and "cannot-write" in done.stderr and "MgB2: ok" not in done.stderr


def test_a_potential_without_a_table_is_refused():
    """In Python as on the command line, and before the first crystal is read."""
    from onnes.errors import SettingsError
    from onnes.stability.assess import assess
    from onnes.stability.relax import RelaxSettings

    with pytest.raises(SettingsError) as error:
        assess(iter(()), RelaxSettings("7net-l3i5"))
    assert error.value.code == "no-hull-table" and "7net-0" in error.value.message
    assert list(assess(iter(()), RelaxSettings())) == []


@pytest.fixture(scope="module")
def alloys(tmp_path_factory):
    """A disguised copy of B2-NiAl, the same with lead and thallium, and a slab of aluminium."""
    folder = tmp_path_factory.mktemp("alloys")
    cell = Lattice.cubic(2.9)
    nial = Structure(cell, ["Ni", "Al"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    nial.to(str(folder / "a.cif"))
    twice = nial.copy()
    twice.make_supercell([1, 1, 2])
    twice.translate_sites(range(4), [0.1, 0.2, 0.3])
    twice.to(str(folder / "b.cif"))
    Structure(cell, ["Pb", "Tl"], [[0, 0, 0], [0.5, 0.5, 0.5]]).scale_lattice(60.0).to(str(folder / "c.cif"))
    Structure(Lattice.tetragonal(2.86, 18.0), ["Al"] * 2, [[0, 0, 0.5], [0.5, 0.5, 0.6125]]).to(
        str(folder / "d.cif")
    )
    return folder


def table_of(done):
    return {r["id"]: r for r in csv.DictReader(io.StringIO(done.stdout))}


def test_duplicates_screens_and_flags(alloys):
    done = onnes(
        "stability", alloys, "--no-toxic", "--no-cross-check", "--stable-below", "0.05", "--fmax", "0.1"
    )
    rows = table_of(done)
    assert done.returncode == 1  # the screen refused one
    assert (rows["a"]["status"], rows["a"]["same_as"]) == ("ok", "")
    assert (rows["b"]["status"], rows["b"]["same_as"]) == ("ok", "a")
    assert (rows["c"]["status"], rows["c"]["reason"]) == ("refused", "chemistry-toxic")
    assert rows["d"]["flags"] == "slab"
    assert rows["a"]["formation_energy_model_eV_atom"] == ""
    assert "0.05 eV/atom" in done.stderr


def test_energies_of_another_method_are_the_whole_hull(alloys, tmp_path):
    entries = tmp_path / "pbe.csv"
    entries.write_text("formula,energy_eV_atom,id\nNi,-5.5,ni\nAl,-3.7,al\nNi3Al,-5.5,l12\n")
    one, other = alloys / "a.cif", alloys / "d.cif"
    refused = onnes("stability", one, "--entries", entries)
    assert refused.returncode == 2 and "undeclared-method" in refused.stderr
    refused = onnes("stability", one, "--entries", entries, "--entries-method", "PBE")
    assert refused.returncode == 2 and "mixed-methods" in refused.stderr
    energies = tmp_path / "mine.csv"
    energies.write_text("id,energy_eV_atom\na,-5.2\n")
    done = onnes(
        "stability",
        one,
        other,
        "--entries",
        entries,
        "--entries-method",
        "PBE",
        "--candidate-energies",
        energies,
    )
    rows = table_of(done)
    assert float(rows["a"]["formation_energy_eV_atom"]) == pytest.approx(-5.2 + 4.6)
    # Between Al and Ni3Al: a third and two thirds of the atoms.
    assert float(rows["a"]["e_hull_eV_atom"]) == pytest.approx(-5.2 + (3.7 + 2 * 5.5) / 3, abs=1e-5)
    assert rows["a"]["converged"] == "" and rows["a"]["energy_eV_atom"] == "-5.2"
    assert (rows["d"]["status"], rows["d"]["reason"]) == ("refused", "no-energy")
    assert "energies of PBE" in done.stderr


def test_own_folder_and_own_entries_of_the_potential(tmp_path):
    odd = Structure(Lattice.cubic(3.3), ["Nb", "Ta"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    (tmp_path / "known").mkdir()
    odd.to(str(tmp_path / "known" / "mine.cif"))
    odd.to(str(tmp_path / "candidate.cif"))
    entries = tmp_path / "e.csv"
    entries.write_text("formula,energy_eV_atom,id\nNbTa,-11.4,lower\n")
    done = onnes(
        "stability",
        tmp_path / "candidate.cif",
        "--known",
        tmp_path / "known",
        "--entries",
        entries,
        "--entries-method",
        "7net-0",
        "--no-cross-check",
    )
    (row,) = table_of(done).values()
    assert done.returncode == 0 and row["novelty"] == "known" and "user" in row["known_source"]
    assert float(row["e_hull_eV_atom"]) == pytest.approx(float(row["energy_eV_atom"]) + 11.4, abs=1e-4)
    assert row["decomposition"] in ("1 TaNb", "1 NbTa") and "e.csv" in done.stderr


def test_materials_project_without_key(alloys, monkeypatch):
    monkeypatch.delenv("MP_API_KEY", raising=False)
    done = onnes("stability", alloys / "a.cif", "--mp", "potential")
    assert done.returncode == 2 and "no-key" in done.stderr and "Traceback" not in done.stderr
