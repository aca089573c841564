"""Records and their files: round trips, refusals, files that are complete or absent."""

from __future__ import annotations

import gzip
import json
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.core import Structure

from onnes.data.files import atomic_text, text_lines
from onnes.data.labels import LABELS
from onnes.data.records import BadRow, Record, iter_records, read_records, write_records
from onnes.errors import DataError, InputError

CELL = [[4.0, 0.0, 0.0], [0.0, 4.0, 0.0], [0.0, 0.0, 4.0]]


def row(**changes):
    return {
        "id": "a",
        "lattice": CELL,
        "species": ["Cs", "Cl"],
        "frac": [[0, 0, 0], [0.5, 0.5, 0.5]],
        **changes,
    }


numbers = st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.booleans() | st.integers(-(2**53), 2**53) | numbers | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)


@st.composite
def records(draw):
    n = draw(st.integers(1, 4))
    return Record(
        id=draw(names),
        lattice=CELL,
        species=draw(st.lists(st.sampled_from(["H", "D", "B", "Mg", "Nb", "Og"]), min_size=n, max_size=n)),
        frac=draw(st.lists(st.tuples(numbers, numbers, numbers), min_size=n, max_size=n)),
        source=draw(st.text(st.characters(exclude_categories=["Cs"]), max_size=4)),
        labels=draw(st.dictionaries(st.sampled_from([*LABELS, "my label", "id"]), numbers, max_size=4)),
        meta=draw(st.dictionaries(names, json_values, max_size=3)),
    )


@settings(max_examples=80, deadline=None)
@given(records())
def test_row_gives_the_record_back(record):
    decoded = json.loads(json.dumps(record.to_row()))
    assert Record.from_row(decoded) == record


@settings(max_examples=25, deadline=None)
@given(st.lists(records(), min_size=1, max_size=4, unique_by=lambda r: r.id), st.sampled_from(["", ".gz"]))
def test_file_gives_the_records_back(tmp_path_factory, found, ending):
    path = tmp_path_factory.mktemp("r") / f"set.jsonl{ending}"
    assert write_records(path, found) == len(found)
    again = read_records(path)
    assert [r.model_copy(update={"source": ""}) for r in again] == [
        r.model_copy(update={"source": ""}) for r in found
    ]
    assert all(a.source == (b.source or "set") for a, b in zip(again, found, strict=True))
    before = path.read_bytes()
    write_records(path, found)
    assert path.read_bytes() == before, "equal records, equal bytes"


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from([*row(), "Tc_K", "labels", "meta", "formula", "nsites"]), json_values))
def test_damaged_rows_are_typed_errors(changes):
    try:
        record = Record.from_row(row(**changes))
    except DataError as error:
        assert error.code and "\n" not in str(error)
    else:
        assert record.species and record.volume > 0


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"species": ["Cs", "Xx"]}, "unknown-element"),
        ({"species": ["Cs"]}, "site-count"),
        ({"nsites": 3}, "site-count"),
        ({"formula": "CsCl2"}, "formula-mismatch"),
        ({"formula": "nonsense!"}, "bad-field"),
        ({"lattice": CELL[:2]}, "bad-shape"),
        ({"lattice": [CELL[0], CELL[0], CELL[2]]}, "flat-cell"),
        ({"lattice": [CELL[1], CELL[0], CELL[2]]}, "left-handed-cell"),
        ({"frac": [[0, 0, float("nan")], [0, 0, 0]]}, "not-finite"),
        ({"frac": [["0", 0, 0], [0, 0, 0]]}, "not-a-number"),
        ({"Tc_K": "9.2"}, "not-a-number"),
        ({"Tc_K": True}, "not-a-number"),
        ({"Tc_K": float("inf")}, "not-finite"),
        ({"labels": 3}, "bad-field"),
        ({"id": ""}, "bad-field"),
        ({"species": None}, "missing-field"),
    ],
)
def test_refusals(changes, code):
    with pytest.raises(DataError) as error:
        Record.from_row(row(**changes))
    assert error.value.code == code


def test_formula_in_any_order_is_the_same_formula():
    assert Record.from_row(row(formula="CsCl")).formula == "ClCs"
    assert Record.from_row(row(species=["D", "Cl"], formula="HCl")).formula == "ClH"


def test_structure_round_trip():
    structure = Structure(CELL, ["Cs+", "Cl-"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    record = Record.from_structure(structure, "x", labels={"Tc_K": 1}, source="s")
    assert record.species == ("Cs", "Cl") and record.labels == {"Tc_K": 1.0}
    assert record.structure() == Structure(CELL, ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    structure[0] = {"Cs": 0.5, "Rb": 0.5}
    with pytest.raises(DataError) as error:
        Record.from_structure(structure, "x")
    assert error.value.code == "disordered-site"


def test_bad_rows_do_not_stop_the_file(tmp_path):
    path = tmp_path / "s.jsonl"
    lines = [json.dumps(row()), "{", "", json.dumps(row()), json.dumps([1]), json.dumps(row(id=7, Tc_K=None))]
    path.write_text("\n".join(lines))
    with pytest.warns(UserWarning, match="3 bad rows"):
        found = read_records(path)
    assert [r.id for r in found] == ["a", "7"]
    assert [(b.line, b.code) for b in found.bad] == [
        (2, "not-json"),
        (4, "duplicate-id"),
        (5, "not-an-object"),
    ]
    assert sum(isinstance(item, BadRow) for item in iter_records(path)) == 3


def test_file_without_a_good_row(tmp_path):
    (tmp_path / "s.jsonl").write_text("{}\n")
    with pytest.raises(DataError) as error:
        read_records(tmp_path / "s.jsonl")
    assert error.value.code == "no-good-row"


def test_cut_gzip_is_noticed(tmp_path):
    packed = gzip.compress("\n".join(json.dumps(row(id=str(k))) for k in range(200)).encode())
    for cut in (3, len(packed) // 2, len(packed) - 1):
        (tmp_path / "s.jsonl.gz").write_bytes(packed[:cut])
        with pytest.raises(DataError) as error:
            read_records(tmp_path / "s.jsonl.gz")
        assert error.value.code == "truncated-file"


@pytest.mark.parametrize(
    ("make", "code"), [(None, "no-such-file"), ("dir", "is-a-folder"), (b"", "empty-file")]
)
def test_unreadable_files(tmp_path, make, code):
    path = tmp_path / "x"
    if make == "dir":
        path.mkdir()
    elif make is not None:
        path.write_bytes(make)
    with pytest.raises(InputError) as error:
        list(text_lines(path))
    assert error.value.code == code
    with pytest.raises(InputError):
        list(text_lines(tmp_path / "a\0b"))


def test_interrupted_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "sub" / "s.txt"
    with atomic_text(path) as stream:
        stream.write("old\n")
    with pytest.raises(KeyboardInterrupt), atomic_text(path) as stream:
        stream.write("new")
        raise KeyboardInterrupt
    assert path.read_text() == "old\n" and os.listdir(path.parent) == ["s.txt"]
    record = Record.from_row(row())
    with pytest.raises(DataError) as error:
        write_records(path, [record, record])
    assert error.value.code == "duplicate-id" and path.read_text() == "old\n"


def test_write_where_a_folder_is(tmp_path):
    with pytest.raises(DataError) as error:
        write_records(tmp_path, [Record.from_row(row())])
    assert error.value.code == "cannot-write"


def test_meta_json_cannot_hold(tmp_path):
    for value in (float("nan"), {1, 2}, "\ud800"):
        record = Record.from_row(row()).model_copy(update={"meta": {"x": value}})
        with pytest.raises(DataError) as error:
            write_records(tmp_path / "s.jsonl", [record])
        assert error.value.code == "not-json" and not (tmp_path / "s.jsonl").exists()
