"""Files of any origin to records: units, cartesian coordinates, unknown values, and what is refused."""

from __future__ import annotations

import gzip
import json
import zipfile

import pytest

from onnes.data.importers import import_file, import_paths
from onnes.data.records import read_records, write_records
from onnes.errors import DataError, InputError

# MgB2 by hand: a = 3.07, c = 3.52 angstrom.
LATTICE = [[3.07, 0.0, 0.0], [-1.535, 2.658698, 0.0], [0.0, 0.0, 3.52]]
FRAC = [[0.0, 0.0, 0.0], [1 / 3, 2 / 3, 0.5], [2 / 3, 1 / 3, 0.5]]
CARTESIAN = [[0.0, 0.0, 0.0], [0.0, 1.772465, 1.76], [1.535, 0.886233, 1.76]]

CIF = """data_NaCl
_cell_length_a 5.64
_cell_length_b 5.64
_cell_length_c 5.64
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_space_group_name_H-M_alt 'F m -3 m'
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
Na1 Na 0 0 0
Cl1 Cl 0.5 0.5 0.5
"""


def jarvis(jid="X-1", cartesian=True, **fields):
    atoms = {
        "lattice_mat": LATTICE,
        "coords": CARTESIAN if cartesian else FRAC,
        "elements": ["Mg", "B", "B "],
        "cartesian": cartesian,
        "props": ["", "", ""],
    }
    return {"jid": jid, "atoms": atoms, **fields}


def ours(id="a", **fields):
    return {"id": id, "lattice": LATTICE, "species": ["Mg", "B", "B"], "frac": FRAC, **fields}


def put(path, value):
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


@pytest.mark.parametrize("cartesian", [True, False])
def test_jarvis_rows(tmp_path, cartesian):
    row = jarvis(
        cartesian=cartesian, lamb=0.7, wlog=700.5, Tc=float("nan"), ehull="na", a2F=[0.1, float("nan")]
    )
    found = import_file(put(tmp_path / "set.json", [row]), source="jarvis-sc-3d")
    (record,) = found.records
    assert record.formula == "B2Mg" and record.id == "X-1"
    assert record.labels == {"lambda": 0.7, "omega_log_K": 700.5}, "na and NaN are unknown, not numbers"
    assert record.meta["a2F"] == [0.1, None]
    assert (
        max(abs(a - b) for x, y in zip(record.frac, FRAC, strict=True) for a, b in zip(x, y, strict=True))
        < 1e-5
    )
    write_records(tmp_path / "o.jsonl.gz", found.records)
    assert list(read_records(tmp_path / "o.jsonl.gz")) == [record]


def test_jarvis_zip_and_the_convention_of_tc(tmp_path):
    with zipfile.ZipFile(tmp_path / "s.json.zip", "w") as archive:
        archive.writestr("s.json", json.dumps([jarvis(Tc=32.7)]))
    assert "Tc_formula" not in import_file(tmp_path / "s.json.zip").records[0].meta
    record = import_file(tmp_path / "s.json.zip", source="jarvis-sc-3d").records[0]
    assert record.labels["Tc_K"] == 32.7 and "mu*=0.085" in record.meta["Tc_formula"]


def test_flag_cartesian_is_not_guessed(tmp_path):
    row = jarvis()
    del row["atoms"]["cartesian"]
    with pytest.raises(InputError, match="cartesian") as error:
        import_file(put(tmp_path / "s.json", [row]))
    assert error.value.code == "missing-field"


def test_wrong_flag_is_caught_by_the_gate(tmp_path):
    row = jarvis()
    row["atoms"]["coords"] = [[0, 0, 0], [0.1, 0, 0], [0, 0.1, 0.1]]  # fractional, but called cartesian
    with pytest.raises(InputError) as error:
        import_file(put(tmp_path / "s.json", [row]))
    assert error.value.code == "overlapping-atoms"


def test_bad_rows_are_named_and_the_rest_goes_on(tmp_path):
    rows = [
        jarvis("good"),
        jarvis("good"),
        {"jid": "no-atoms", "Tc": 3},
        5,
        {**jarvis("short"), "atoms": {**jarvis()["atoms"], "coords": CARTESIAN[:2]}},
        {**jarvis("flat"), "atoms": {**jarvis()["atoms"], "lattice_mat": [LATTICE[0]] * 3}},
        {**jarvis("odd"), "atoms": {**jarvis()["atoms"], "elements": ["Mg", "B", "Xx"]}},
        {**jarvis("none"), "atoms": {**jarvis()["atoms"], "elements": None}},
        jarvis("last"),
    ]
    found = import_file(put(tmp_path / "s.json", rows))
    assert [r.id for r in found.records] == ["good", "last"]
    codes = [bad.code for bad in found.bad]
    assert codes[0] == "duplicate-id" and "not-an-object" in codes and "unknown-element" in codes
    assert {"zero-volume", "site-count", "missing-field"} <= set(codes) and len(codes) == 7
    assert all("\n" not in str(bad) for bad in found.bad)
    assert any("row 5" in str(bad) for bad in found.bad)


def test_our_jsonl(tmp_path):
    lines = [json.dumps(ours("a", Tc_K=39.0)), "{broken", json.dumps(ours("b", mine=2.5)), ""]
    (tmp_path / "s.jsonl.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    found = import_file(tmp_path / "s.jsonl.gz", extra_labels=["mine"])
    assert [(r.id, r.labels, r.source) for r in found.records] == [
        ("a", {"Tc_K": 39.0}, "s"),
        ("b", {"mine": 2.5}, "s"),
    ]
    assert [(b.code, b.where.split()[-1]) for b in found.bad] == [("not-json", "2")]


def test_row_that_cannot_be_written_is_a_bad_row(tmp_path):
    (tmp_path / "s.jsonl").write_text(
        json.dumps(ours("a"))
        + "\n"
        + json.dumps(ours("b", note=[float("nan")]))
        + "\n"
        + json.dumps(ours("\ud800"))
    )
    found = import_file(tmp_path / "s.jsonl")
    assert [r.id for r in found.records] == ["a"] and [b.code for b in found.bad] == ["not-json", "bad-field"]


def test_pymatgen_dictionary(tmp_path):
    from pymatgen.core import Structure

    row = {
        "material_id": "mp-x",
        "structure": Structure(LATTICE, ["Mg", "B", "B"], FRAC).as_dict(),
        "gap_pbe_eV": 0,
    }
    record = import_file(put(tmp_path / "s.json", row)).records[0]
    assert (record.id, record.formula, record.labels) == ("mp-x", "B2Mg", {"gap_pbe_eV": 0.0})


def test_folder_of_structures_with_labels(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "a" / "x.cif").write_text(CIF)
    (tmp_path / "b" / "x.cif").write_text(CIF)
    (tmp_path / "b" / "bad.cif").write_text("")
    (tmp_path / "t.csv").write_text("name,Tc_exp_K,colour\nx,0.5,red\nx~2,,blue\ny,3,red\nx,9,red\n")
    found = import_paths([tmp_path / "a", tmp_path / "b"], labels=tmp_path / "t.csv", id_column="name")
    assert [(r.id, r.labels) for r in found.records] == [("x", {"Tc_exp_K": 0.5}), ("x~2", {})]
    assert sorted(b.code for b in found.bad) == ["duplicate-id", "empty-file", "unmatched-label"]
    assert "colour" in found.notes[0]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("name,Tc_exp_K\na,1\n", "missing-column"),
        ("id,colour\na,red\n", "no-label-column"),
        ("id,Tc_K,Tc\na,1,2\n", "duplicate-column"),
        ("", "empty-file"),
    ],
)
def test_label_tables_that_cannot_be_joined(tmp_path, text, code):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(InputError) as error:
        import_file(put(tmp_path / "s.json", ours()), labels=tmp_path / "t.csv")
    assert error.value.code == code


def test_label_cells(tmp_path):
    (tmp_path / "t.csv").write_text("id,Tc_K,lambda\na,hot,inf\na2,1\nb,1e1,-\n")
    found = import_file(put(tmp_path / "s.json", [ours("a"), ours("b")]), labels=tmp_path / "t.csv")
    assert [r.labels for r in found.records] == [{}, {"Tc_K": 10.0}]
    assert [b.code for b in found.bad] == ["not-a-number", "not-finite", "row-length"]


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("f.csv", b"formula,Tc\nMgB2,39\n", "not-crystals"),
        ("f.pkl", b"\x80\x04N.", "unknown-format"),
        ("f.json", b"[]", "no-input"),
        ("f.json", b"{", "not-json"),
        ("f.json", b"", "empty-file"),
        ("f.json", b"\x00\xff", "not-text"),
        ("f.jsonl.gz", b"\x1f\x8b\x08", "truncated-file"),
        ("f.zip", b"PK\x03\x04 cut", "truncated-file"),
        ("none.json", None, "missing-path"),
    ],
)
def test_files_that_hold_no_crystals(tmp_path, name, content, code):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises((InputError, DataError)) as error:
        import_file(tmp_path / name)
    assert error.value.code == code and "\n" not in str(error.value)


def test_zip_with_two_sets(tmp_path):
    with zipfile.ZipFile(tmp_path / "f.zip", "w") as archive:
        archive.writestr("a.json", "[]")
        archive.writestr("b.json", "[]")
    with pytest.raises(InputError) as error:
        import_file(tmp_path / "f.zip")
    assert error.value.code == "ambiguous-archive"
