"""Exports are read back by the programs they are for."""

from __future__ import annotations

import json
import subprocess
import sys

import ase.db
import ase.io
import numpy as np
import pandas as pd
import pytest
import report_ledgers as ledgers
from pymatgen.core import Lattice, Structure

from onnes.errors import InputError, SettingsError
from onnes.report.export import FORMATS, export

ANGSTROM = 2e-6


@pytest.fixture
def ledger(tmp_path):
    with ledgers.finished(tmp_path / "run") as opened:
        yield opened


def relaxed_mgb2():
    frac = ledgers.MGB2["frac"]
    return Structure(Lattice([[3.0, 0, 0], [-1.5, 2.598076, 0], [0, 0, 3.4]]), ["Mg", "B", "B"], frac)


def same(found: Structure, wanted: Structure) -> None:
    assert np.allclose(found.lattice.parameters, wanted.lattice.parameters, atol=1e-5)
    assert np.allclose(found.distance_matrix, wanted.distance_matrix, atol=1e-4)
    assert [s.specie.symbol for s in found] == [s.specie.symbol for s in wanted]


def test_cif_reads_back_with_the_relaxed_cell(ledger, tmp_path):
    files = export(ledger, "cif", tmp_path / "cif")
    assert [f.name for f in files] == ["001_MgB2_g000001.cif", "002_Nb_g000000.cif"]
    same(Structure.from_file(files[0]), relaxed_mgb2())
    text = files[0].read_text("ascii")
    assert "# tc_K: 35.4" in text and "# e_hull_eV_atom: 0.012" in text
    assert "e_hull" not in files[1].read_text("ascii"), "unknown is left out, not written as a number"
    assert len(ase.io.read(files[0])) == 3


def test_cif_folder_loses_only_our_own_stale_files(ledger, tmp_path):
    folder = tmp_path / "cif"
    folder.mkdir()
    (folder / "003_Old_g9.cif").write_text("# onnes candidate g9\ndata_x\n")
    (folder / "mine.cif").write_text("data_mine\n")
    export(ledger, "cif", folder)
    assert not (folder / "003_Old_g9.cif").exists() and (folder / "mine.cif").exists()


def test_extxyz(ledger, tmp_path):
    (file,) = export(ledger, "extxyz", tmp_path / "c.extxyz")
    first, second = ase.io.read(file, index=":")
    assert first.get_chemical_formula() == "B2Mg" and first.info["tc_K"] == pytest.approx(35.4)
    assert np.allclose(first.cell.array, relaxed_mgb2().lattice.matrix, atol=ANGSTROM)
    assert second.info["in_domain"] in (False, np.False_) and "e_hull_eV_atom" not in second.info


def test_ase_database(ledger, tmp_path):
    (file,) = export(ledger, "ase", tmp_path / "c.db")
    with ase.db.connect(file) as database:
        rows = list(database.select(sort="rank"))
        assert [r.candidate for r in rows] == ["g000001", "g000000"]
        assert database.get(candidate="g000001").tc_K == pytest.approx(35.4)
        assert len(rows[0].toatoms()) == 3


def test_csv(ledger, tmp_path):
    (file,) = export(ledger, "csv", tmp_path / "c.csv")
    frame = pd.read_csv(file)
    assert list(frame["formula"]) == ["MgB2", "Nb"] and frame["e_hull_eV_atom"].isna().tolist() == [
        False,
        True,
    ]


def test_ase_db_command_lists_the_candidates(ledger, tmp_path):
    (file,) = export(ledger, "ase", tmp_path / "c.db")
    command = [sys.executable, "-m", "ase", "db", str(file), "-c", "formula,candidate,tc_K", "-s", "rank"]
    told = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    assert "MgB2" in told and "g000001" in told and "35.4" in told and "Rows: 2" in told


def test_parquet_keeps_its_types(ledger, tmp_path):
    (file,) = export(ledger, "parquet", tmp_path / "c.parquet")
    frame = pd.read_parquet(file)
    assert list(frame["formula"]) == ["MgB2", "Nb"] and frame["rank"].tolist() == [1, 2]
    assert frame["e_hull_eV_atom"].isna().tolist() == [False, True] and frame["tc_K"].dtype == float
    assert pd.api.types.is_integer_dtype(frame["n_atoms"])


def test_parquet_without_pyarrow_is_one_line(ledger, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(SettingsError) as refused:
        export(ledger, "parquet", tmp_path / "c.parquet")
    assert refused.value.code == "missing-extra" and "onnes[parquet]" in refused.value.message
    assert not (tmp_path / "c.parquet").exists()


def test_optimade(ledger, tmp_path):
    (file,) = export(ledger, "optimade", tmp_path / "c.json")
    document = json.loads(file.read_text("utf-8"))
    entry = document["data"][0]
    a = entry["attributes"]
    assert document["meta"]["data_returned"] == 2 and entry["type"] == "structures"
    assert (a["chemical_formula_reduced"], a["chemical_formula_anonymous"]) == ("B2Mg", "A2B")
    assert a["elements"] == ["B", "Mg"] and a["elements_ratios"] == pytest.approx([2 / 3, 1 / 3])
    assert a["last_modified"] == "2026-01-02T04:06:05Z"
    back = Structure(
        a["lattice_vectors"], a["species_at_sites"], a["cartesian_site_positions"], coords_are_cartesian=True
    )
    same(back, relaxed_mgb2())


def test_pymatgen_reads_the_optimade_entry(ledger, tmp_path):
    from pymatgen.io.optimade import OptimadeStructureAdapter

    (file,) = export(ledger, "optimade", tmp_path / "c.json")
    entry = json.loads(file.read_text("utf-8"))["data"][0]
    try:
        found = OptimadeStructureAdapter.get_structure(entry)
    except ImportError as error:
        pytest.skip(f"pymatgen's OPTIMADE adapter is not usable here: {error}")
    same(found, relaxed_mgb2())


@pytest.mark.parametrize("format", [f for f in FORMATS if f != "ase"])
def test_same_ledger_same_bytes(ledger, tmp_path, format):
    first, second = (export(ledger, format, tmp_path / f"{k}.out") for k in "ab")
    assert [f.read_bytes() for f in first] == [f.read_bytes() for f in second]


@pytest.mark.parametrize("format", list(FORMATS))
def test_run_without_candidates(tmp_path, format):
    ledger = ledgers.Writer().write(tmp_path / "run", **ledgers.FINISHED)
    files = export(ledger, format, tmp_path / "out")
    if format == "cif":
        assert files == [] and (tmp_path / "out").is_dir()
    else:
        assert files[0].is_file()
    if format == "ase":
        with ase.db.connect(files[0], type="db") as database:
            assert len(database) == 0
    if format == "optimade":
        assert json.loads(files[0].read_text())["data"] == []


@pytest.mark.parametrize("format", list(FORMATS))
def test_hostile_texts(tmp_path, format):
    ledger = ledgers.hostile(tmp_path / "run")
    out = tmp_path / "deep" / "out.db"  # ASE takes the kind of a database from its name
    files = export(ledger, format, out)
    assert len(files) == 1
    if format == "cif":
        assert files[0].parent == out
        same(
            Structure.from_file(files[0]),
            Structure(ledgers.MGB2["lattice"], ["Mg", "B", "B"], ledgers.MGB2["frac"]),
        )
    if format in ("extxyz", "ase"):
        assert len(ase.io.read(files[0], format="extxyz" if format == "extxyz" else "db")) == 3


def test_refusals(ledger, tmp_path):
    with pytest.raises(InputError) as unknown:
        export(ledger, "xyz", tmp_path / "x")
    assert unknown.value.code == "unknown-format"
    (tmp_path / "file").write_text("")
    for format, place in (
        ("csv", tmp_path),
        ("cif", tmp_path / "file"),
        ("csv", tmp_path / "file" / "x.csv"),
    ):
        with pytest.raises(InputError) as refused:
            export(ledger, format, place)
        assert refused.value.code == "cannot-write"
    assert not list(tmp_path.glob(".onnes-*"))
