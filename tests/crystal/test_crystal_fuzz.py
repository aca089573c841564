"""No input, however damaged, gives anything but a crystal, a `Refused` or an `OnnesError`."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
from crystal_prototypes import prototypes
from hypothesis import given, settings
from hypothesis import strategies as st
from test_crystal_read import CRYSTAL, cif, pw

from onnes.crystal import Crystal, Refused, as_crystal, check, read
from onnes.errors import OnnesError

NAMES = ["x.cif", "POSCAR", "x.xyz", "x.in", "x.json", "x.jsonl", "x.cif.gz", "x"]
RECORD = {
    "id": "r",
    "lattice": [[3, 0, 0], [0, 3, 0], [0, 0, 3]],
    "species": ["Po"],
    "frac": [[0, 0, 0]],
    "t": 1,
}
GOOD = {
    "x.cif": cif("O1 O 0 0 0 0.8\nH1 H 0 0 0 0.2\nB1 B1- 0.333 0.667 0.5 1", "O0.8 H0.2 B2"),
    "POSCAR": "x\n-27.0\n3 0 0\n0 3 0\n0 0 3\nPd D\n1 1\nSelective\nCart\n0 0 0 T T T\n.5 .5 .5 F F F\n",
    "x.xyz": '2\nLattice="3 0 0 0 3 0 0 0 3" a=1\nPd 0 0 0\nD 1.5 1.5 1.5\n' * 2,
    "x.in": pw("ibrav=4, celldm(1)=5.8, celldm(3)=1.1", CRYSTAL),
    "x.json": json.dumps([RECORD, prototypes()["CsCl"].as_dict()]),
    "x.jsonl": f"{json.dumps(RECORD)}\n{json.dumps(RECORD)}\n",
}


def outcome(name: str, data: bytes) -> list[Crystal | Refused] | str:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(data)
        try:
            found = list(read(path, order_disorder=True))
        except OnnesError as error:
            assert error.code
            assert error.code != "internal-error", error
            assert "\n" not in str(error)
            return error.code
    assert found
    for result in found:
        if isinstance(result, Crystal):
            check(result.structure)
        else:
            assert result.code
            assert result.code != "internal-error", result
            assert "\n" not in result.message
    return found


@pytest.mark.parametrize("name", NAMES)
@given(data=st.binary(max_size=300))
@settings(max_examples=40, deadline=None)
def test_random_bytes(name: str, data: bytes) -> None:
    outcome(name, data)


@pytest.mark.parametrize("name", GOOD)
def test_the_unharmed_files_are_good(name: str) -> None:
    found = outcome(name, GOOD[name].encode())
    assert isinstance(found, list)
    assert all(isinstance(r, Crystal) for r in found)


@pytest.mark.parametrize("name", GOOD)
@given(
    cut=st.floats(0, 1),
    edits=st.lists(
        st.tuples(
            st.floats(0, 1),
            st.sampled_from(
                ["", " ", "\n", "-", "nan", "1e999", "0", "9", "'", '"', "Xx", "é", ";", "²", "٣", "="]
            ),
        ),
        max_size=4,
    ),
)
@settings(max_examples=60, deadline=None)
def test_damaged_files(name: str, cut: float, edits: list[tuple[float, str]]) -> None:
    text = GOOD[name]
    for where, what in edits:
        at = int(where * len(text))
        text = text[:at] + what + text[at + 1 :]
    if cut < 0.5:
        text = text[: int(len(text) * 2 * cut)]
    outcome(name, text.encode())


@pytest.mark.parametrize("name", GOOD)
@given(lines=st.lists(st.text(max_size=20), max_size=3), where=st.floats(0, 1), drop=st.integers(0, 3))
@settings(max_examples=40, deadline=None)
def test_lines_lost_or_inserted(name: str, lines: list[str], where: float, drop: int) -> None:
    rows = GOOD[name].split("\n")
    at = int(where * len(rows))
    outcome(name, "\n".join([*rows[:at], *lines, *rows[at + drop :]]).encode("utf-8", "ignore"))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


@given(lattice=JSON, species=JSON, frac=JSON, key=st.sampled_from(["species", "sites", "structure", "atoms"]))
@settings(max_examples=150, deadline=None)
def test_records_of_any_shape(lattice: object, species: object, frac: object, key: str) -> None:
    row = {"lattice": lattice, key: species, "frac": frac}
    outcome("x.json", json.dumps(row).encode())
    with pytest.raises(OnnesError):
        as_crystal(row)


@given(
    matrix=st.lists(st.lists(st.floats(), min_size=3, max_size=3), min_size=3, max_size=3),
    frac=st.lists(st.lists(st.floats(), min_size=3, max_size=3), min_size=1, max_size=3),
)
@settings(max_examples=150, deadline=None)
def test_any_numbers(matrix: list[list[float]], frac: list[list[float]]) -> None:
    row = {"lattice": matrix, "species": ["Nb"] * len(frac), "frac": frac}
    outcome("x.json", json.dumps(row).encode())
