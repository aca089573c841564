"""A user's own phases: files, declared methods, and what is refused."""

from __future__ import annotations

import gzip
import json

import pytest
from pymatgen.core import Composition, Lattice, Structure
from pymatgen.entries.computed_entries import ComputedEntry, ComputedStructureEntry

from onnes.errors import DataError, InputError, SettingsError
from onnes.stability.hull import HullReferences, Reference
from onnes.stability.hull_entries import own_hull, read_energies, read_entries


@pytest.fixture
def table() -> HullReferences:
    references = [Reference("Mg", -1.2, "m"), Reference("B", -6.0, "b"), Reference("B2Mg", -4.6, "mb")]
    return HullReferences(references, "0123", "7net-0", "shipped table")


def crystal(*species: str) -> Structure:
    n = len(species)
    return Structure(Lattice.cubic(5.0), species, [[k / n, k / n, k / n] for k in range(n)])


def written(path, text: str):
    path.write_text(text)
    return path


CSV = "formula,energy_eV_atom,id\nMgB4,-5.25,mine\n"


def test_csv_of_the_same_potential_joins_the_table(table, tmp_path):
    own = own_hull(table, [written(tmp_path / "own.csv", CSV)], method="7net-0")
    assert own.energies is None and len(own.table) == 4 and own.table.digest != table.digest
    # MgB3 (0.25 Mg): between MgB4 (0.2) and MgB2 (1/3), by atoms 0.375 MgB2 and 0.625 MgB4.
    found = own.table.evaluate(crystal("Mg", "B", "B", "B"), -5.0)
    assert found.e_hull_eV_atom == pytest.approx(-5.0 - (0.375 * -4.6 + 0.625 * -5.25))
    assert found.decomposition == "0.625 MgB4 + 0.375 MgB2"
    # The shipped table itself is as it was.
    assert len(table) == 3
    assert table.evaluate(crystal("Mg", "B", "B", "B"), -5.0).decomposition == "0.75 MgB2 + 0.25 B"


def test_an_element_may_be_added(table, tmp_path):
    structure = crystal("Mg", "Kr")
    assert table.evaluate(structure, -1.0).unknown_references == ("Kr",)
    own = own_hull(
        table, [written(tmp_path / "kr.csv", "formula,energy_eV_atom\nKr,-0.01\n")], method="7net-0"
    )
    found = own.table.evaluate(structure, -1.0)
    assert found.unknown_references == () and found.formation_energy_eV_atom == pytest.approx(-1.0 + 0.605)


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("single", [False, True])
def test_computed_entries_are_read(tmp_path, zipped, single):
    composition = Composition("Mg2B4")
    entry = ComputedEntry(composition, -30.0, correction=-0.6, entry_id="mp-763")
    with_structure = ComputedStructureEntry(crystal("Mg", "B", "B"), -14.0, entry_id="other")
    found = entry.as_dict() if single else [entry.as_dict(), with_structure.as_dict()]
    text = json.dumps(found).encode()
    path = tmp_path / ("e.json.gz" if zipped else "e.json")
    path.write_bytes(gzip.compress(text) if zipped else text)
    read = read_entries(path)
    assert read[0].reference == Reference("B2Mg", pytest.approx(-30.6 / 6), "mp-763")
    assert read[0].correction_eV == pytest.approx(-0.6)
    if not single:
        assert read[1].reference == Reference("B2Mg", pytest.approx(-14.0 / 3), "other")


def test_nothing_enters_undeclared(table, tmp_path):
    path = written(tmp_path / "own.csv", CSV)
    with pytest.raises(SettingsError, match="undeclared-method"):
        own_hull(table, [path])
    with pytest.raises(SettingsError, match="no-entries"):
        own_hull(table, method="7net-0")
    assert own_hull(table).table is table


def test_another_method_is_the_whole_hull_and_needs_the_candidates_energies(table, tmp_path):
    path = written(tmp_path / "own.csv", "formula,energy_eV_atom,id\nMg,-1.5,a\nMgB2,-5.0,c\n")
    with pytest.raises(SettingsError, match="mixed-methods"):
        own_hull(table, [path], method="PBE")
    energies = written(tmp_path / "cand.csv", "id,energy_eV_atom\nmgb4,-5.5\n")
    own = own_hull(table, [path], method="PBE", energies=energies)
    assert own.energies == {"mgb4": -5.5} and own.table.method == "PBE"
    # Boron of the shipped table is not used: the element has no reference here.
    assert own.table.evaluate(crystal("Mg", "B", "B", "B", "B"), -5.5).unknown_references == ("B",)
    with pytest.raises(SettingsError, match="mixed-methods"):
        own_hull(table, [path], method="7net-0", energies=energies)


@pytest.mark.parametrize(
    ("more", "code"),
    [({"parameters": {"run_type": "GGA"}}, "GGA"), ({"correction": -0.6}, "corrected by")],
)
def test_dft_entries_do_not_pass_for_the_potential(table, tmp_path, more, code):
    entry = ComputedEntry(Composition("MgB4"), -25.0, entry_id="mp-1", **more)
    path = written(tmp_path / "e.json", json.dumps(entry.as_dict()))
    with pytest.raises(SettingsError, match=code):
        own_hull(table, [path], method="7net-0")


def test_total_energies_do_not_pass_for_energies_per_atom(table, tmp_path):
    path = written(tmp_path / "own.csv", "formula,energy_eV_atom\nMgB2,-13.8\n")
    with pytest.raises(SettingsError, match="not per atom"):
        own_hull(table, [path], method="7net-0")


@pytest.mark.parametrize(
    ("rows", "ok"),
    [
        ("Mg7B3Nb2,-60.0", False),  # a composition that no table holds
        ("Mg7B3,-4.5", False),  # 1.56 below the hull of Mg and MgB2
        ("Mg7B3,-3.5", True),
        ("Mg,-1.8", False),
        ("Mg,-1.6", True),
        ("Kr,-60.0", False),
        ("Kr,-0.01\nKrB,-60.0", False),
        ("Kr,-0.01\nKrF2,-60.0", False),
        ("Kr,-0.01\nKrB,-3.1", True),
        ("MgF2,-6.0", True),  # 4.33 below Mg and F: ionic compounds do form so strongly
        ("MgF2,-6.5", False),
    ],
)
def test_entries_far_below_the_hull_are_of_another_method(tmp_path, rows, ok):
    references = [Reference("Mg", -1.2, "m"), Reference("B", -6.0, "b"), Reference("B2Mg", -4.6, "mb")]
    references += [Reference("F", -1.9, "f"), Reference("Nb", -10.0, "nb")]
    table = HullReferences(references, "0123", "7net-0", "shipped table")
    path = written(tmp_path / "own.csv", f"formula,energy_eV_atom\n{rows}\n")
    if ok:
        assert len(own_hull(table, [path], method="7net-0").table) == 5 + len(rows.split("\n"))
        return
    with pytest.raises(SettingsError) as error:
        own_hull(table, [path], method="7net-0")
    assert error.value.code == "mixed-methods" and "below 7net-0's hull" in error.value.message


def test_a_false_phase_does_not_reach_the_shipped_hull(tmp_path):
    shipped = HullReferences.load()
    with pytest.raises(SettingsError, match="mixed-methods"):
        own_hull(
            shipped,
            [written(tmp_path / "own.csv", "formula,energy_eV_atom\nMg7B3Nb2,-60.0\n")],
            method="7net-0",
        )


def test_gga_and_r2scan_share_no_hull(table, tmp_path):
    entries = [
        ComputedEntry(Composition("Mg"), -1.5, entry_id=k, parameters={"run_type": k}).as_dict()
        for k in ("GGA", "R2SCAN")
    ]
    energies = written(tmp_path / "cand.csv", "id,energy_eV_atom\nx,-5.5\n")
    with pytest.raises(SettingsError, match="no common hull"):
        own_hull(table, [written(tmp_path / "e.json", json.dumps(entries))], method="DFT", energies=energies)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.csv", "formula,energy\nMg,-1\n", "no column energy_eV_atom"),
        ("a.csv", "formula,energy_eV_atom\n", "holds no row"),
        ("a.csv", "", "no column formula"),
        ("a.csv", "formula,energy_eV_atom\nMg,nan\n", "row 1: 'nan' is no energy"),
        ("a.csv", "formula,energy_eV_atom\nMg,-1\nMg2Qq,-1\n", "row 2: 'Mg2Qq' is no formula"),
        ("a.csv", "formula,energy_eV_atom\nMg0.5B,-1\n", "whole numbers"),
        ("a.json", "[]", "holds no entry"),
        ("a.json", "{}", "no pymatgen ComputedEntry"),
        ("a.json", "[3]", "no pymatgen ComputedEntry"),
        ("a.json", "formula\n", "neither csv"),
    ],
)
def test_bad_files_are_one_line(tmp_path, name, text, words):
    with pytest.raises(DataError) as error:
        read_entries(written(tmp_path / name, text))
    assert error.value.code == "bad-entries" and words in error.value.message


def test_missing_and_doubled(tmp_path):
    with pytest.raises(InputError, match="missing-path"):
        read_entries(tmp_path / "nowhere.csv")
    with pytest.raises(DataError, match="twice"):
        read_energies(written(tmp_path / "c.csv", "id,energy_eV_atom\na,-1\na,-2\n"))
    (tmp_path / "b.csv").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(DataError, match="cannot be read"):
        read_entries(tmp_path / "b.csv")


@pytest.mark.parametrize("name", ["e.csv.gz", "e.json.gz"])
def test_a_damaged_archive_is_one_line(tmp_path, name):
    packed = bytearray(gzip.compress(CSV.encode() * 50, mtime=0))
    packed[10:20] = b"\xff" * 10  # a block type that does not exist: zlib's own error, no OSError
    (tmp_path / name).write_bytes(packed)
    with pytest.raises(DataError) as error:
        read_entries(tmp_path / name)
    assert error.value.code == "bad-entries" and "cannot be read" in error.value.message


@pytest.mark.parametrize(
    ("text", "line"), [("formula,energy_eV_atom\nMg,-1\n{},-1\n", "line 3"), ("formula,{}\n", "line 1")]
)
def test_an_endless_cell_is_one_line(tmp_path, text, line):
    path = written(tmp_path / "e.csv", text.format("M" * 140_000))
    with pytest.raises(DataError) as error:
        read_entries(path)
    assert error.value.code == "bad-entries" and line in error.value.message
