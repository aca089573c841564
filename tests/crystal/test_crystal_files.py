from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from crystal_inputs import CASES, cif, one, put, pw, refusal, unreadable

from onnes.crystal import Crystal, Limits, Refused, as_crystal, fingerprint, read
from onnes.errors import CrystalError

# --- files and folders --------------------------------------------------------------------------------


def test_two_blocks_are_both_read_even_with_one_name(tmp_path: Path) -> None:
    other = cif().replace("3.524", "3.7")
    found = list(read(put(tmp_path, "Zwei Blöcke 二.cif", cif() + other.replace("data_MgB2", "data_x"))))
    assert [c.id for c in found] == ["Zwei Blöcke 二#MgB2", "Zwei Blöcke 二#x"]
    volumes = [c.structure.volume for c in found if isinstance(c, Crystal)]
    assert volumes[1] / volumes[0] == pytest.approx(3.7 / 3.524)
    same_name = list(read(put(tmp_path, "same.cif", "data_global\n_audit_author 'x'\n" + cif() + other)))
    assert len({c.id for c in same_name}) == 2
    assert all(isinstance(c, Crystal) for c in same_name)


def test_bad_input_does_not_stop_a_batch(tmp_path: Path) -> None:
    put(tmp_path, "1.cif", b"")
    put(tmp_path, "2.cif", cif())
    put(tmp_path, "sub/3.cif", cif()[:-12])
    put(tmp_path, "sub/2.cif", cif())
    put(tmp_path, ".hidden.cif", cif())
    put(tmp_path, "README.md", "text")
    put(tmp_path, "ph.in", "&inputph\n/\n")
    found = list(read([tmp_path / "nowhere", tmp_path]))
    assert [(r.id, getattr(r, "code", "")) for r in found] == [
        ("nowhere", "missing-path"),
        ("1", "empty-file"),
        ("2", ""),
        ("2~2", ""),
        ("3", "truncated"),
    ]


def test_nothing_readable_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "dir.cif").mkdir()
    put(tmp_path, "docs/README.md", "text")
    assert unreadable(tmp_path / "nope.cif") == "missing-path"
    assert unreadable(tmp_path / "empty") == "empty-folder"
    assert unreadable(tmp_path / "dir.cif") == "empty-folder"
    assert unreadable(tmp_path / "docs") == "no-structure-file"
    assert unreadable(put(tmp_path, "zero.cif", b"")) == "empty-file"
    assert unreadable(put(tmp_path, "blank.cif", b" \n\n")) == "empty-file"
    assert unreadable(put(tmp_path, "elf.cif", bytes(range(256)) * 9)) == "binary-file"
    assert unreadable(put(tmp_path, "a.cif.gz", gzip.compress(cif().encode())[:-30])) == "truncated"
    assert unreadable(put(tmp_path, "what.dat", b"hello")) == "unknown-format"
    assert unreadable(put(tmp_path, "s.json", b'{"a": 1}')) == "no-structure"
    assert unreadable(put(tmp_path, "t.json", b'{"lattice": [')) == "bad-json"
    assert unreadable(put(tmp_path, "deep.json", b"[" * 100_000)) == "bad-json"
    assert unreadable(put(tmp_path, "no.cif", b"data_x\n_audit_author me\n")) == "no-structure"
    assert unreadable([]) == "no-input"
    assert unreadable("x" * 5000) == "unreadable"
    assert unreadable("nul\0byte") == "unreadable"
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.cif")
        assert unreadable(tmp_path / "pipe.cif") == "not-a-file"


def test_format_is_recognised_without_an_ending(tmp_path: Path) -> None:
    poscar = "x\n1\n3 0 0\n0 3 0\n0 0 3\nPo\n1\nDirect\n0 0 0\n"
    record = json.dumps({"lattice": (np.eye(3) * 3).tolist(), "species": ["Po"], "frac": [[0, 0, 0]]})
    texts = [cif(), poscar, '1\nLattice="3 0 0 0 3 0 0 0 3"\nPo 0 0 0\n', record, f"{record}\n{record}\n"]
    texts += [pw("ibrav=4, celldm(1)=5.8, celldm(3)=1.1"), cif().replace("\n", "\r\n"), "\ufeff" + cif()]
    for k, text in enumerate(texts):
        assert all(isinstance(r, Crystal) for r in read(put(tmp_path, f"file{k}", text))), k
    utf16 = put(tmp_path, "win", cif().encode("utf-16"))
    assert isinstance(one(utf16), Crystal)


def test_size_limit_is_applied_while_reading(tmp_path: Path) -> None:
    big = CASES["CsCl"] * (5, 5, 5)
    path = put(tmp_path, "big.json", json.dumps(big.as_dict()))
    assert refusal(path).code == "too-many-atoms"
    (passed,) = read(path, limits=Limits(max_atoms=300))
    assert isinstance(passed, Crystal)


def test_flags_reach_meta(tmp_path: Path) -> None:
    text = '2\nLattice="15 0 0 0 15 0 0 0 15" pbc="F F F"\nN 0 0 0\nN 0 0 1.1\n'
    assert one(put(tmp_path, "n2.xyz", text)).meta["flags"] == ["molecule", "made-periodic"]


def test_libraries_stay_silent(tmp_path: Path) -> None:
    """A fresh interpreter, because pytest itself captures warnings."""
    put(tmp_path, "a.cif", cif("Pd1 Pd 0 0 0 1\nD1 D 0.333 0.667 0.5 1", "Pd D2"))
    put(tmp_path, "b.cif", cif("O1 O 0 0 0 0.8\nH1 H 0 0 0 0.2\nB1 B 0.333 0.667 0.5 1", "O0.8 H0.2 B2"))
    put(tmp_path, "c.vasp", "x\n1\n3 0 0\n0 3 0\n0 0 3\n1\nDirect\n0 0 0\n")
    put(tmp_path, "d.cif", cif()[:-12])
    put(tmp_path, "e.vasp", "x\n1\n3 0 0\n0 3 0\n0 0 3\nAm Cm\n1 1\nDirect\n0 0 0\n.5 .5 .5\n")
    code = (
        "import sys\nfrom onnes.crystal import *\nfor r in read(sys.argv[1]):\n"
        "    isinstance(r, Crystal) and (fingerprint(r.structure * (2, 1, 1)), geometry(r.structure))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_reading_does_not_import_torch(tmp_path: Path) -> None:
    path = put(tmp_path, "a.cif", cif())
    code = "import sys\nfrom onnes.crystal import read\nlist(read(sys.argv[1]))\n"
    code += "assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code, str(path)]).returncode == 0


@pytest.mark.parametrize("nat", ["nan", "1d400", "2.5", "-1", "0"])
def test_counts_that_are_no_counts(nat: str, tmp_path: Path) -> None:
    text = pw("ibrav=4, celldm(1)=5.8, celldm(3)=1.1").replace("nat=3", f"nat={nat}")
    assert unreadable(put(tmp_path, "n.in", text)) in ("bad-number", "truncated")


def test_digits_that_are_no_numbers(tmp_path: Path) -> None:
    assert unreadable(put(tmp_path, "a.xyz", "²\nx\nH 0 0 0\n")) == "bad-frame"
    poscar = "x\n1\n3 0 0\n0 3 0\n0 0 3\nPo\n¹\nDirect\n0 0 0\n"
    assert unreadable(put(tmp_path, "a.vasp", poscar)) == "truncated"


def test_a_fault_of_the_reader_is_reported_and_the_batch_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from onnes.crystal import files

    def broken(text: str) -> list[object]:
        raise KeyError("oops")

    monkeypatch.setitem(files.PARSERS, "poscar", broken)
    put(tmp_path, "a.vasp", "x")
    put(tmp_path, "b.cif", cif())
    bad, good = read(tmp_path)
    assert isinstance(bad, Refused)
    assert bad.code == "internal-error"
    assert isinstance(good, Crystal)


# --- objects ------------------------------------------------------------------------------------------


def test_as_crystal_accepts_what_users_hold() -> None:
    from pymatgen.io.ase import AseAtomsAdaptor

    s = CASES["MgB2"]
    record = {"id": "m", "lattice": s.lattice.matrix.tolist(), "species": ["Mg", "B", "B"]}
    record["frac"] = s.frac_coords.tolist()
    for obj in (s, AseAtomsAdaptor.get_atoms(s), record, s.as_dict(), as_crystal(s)):
        assert fingerprint(as_crystal(obj).structure) == fingerprint(s)
    assert as_crystal(record).id == "m"
    assert as_crystal(s).id == "B2Mg"
    assert as_crystal(s, id="mine").id == "mine"


def test_as_crystal_keeps_isotopes_and_flags_of_atoms() -> None:
    from ase import Atoms

    atoms = Atoms("PdH", scaled_positions=[[0, 0, 0], [0.5, 0.5, 0.5]], cell=[3, 3, 3], pbc=True)
    assert as_crystal(atoms).meta == {}
    atoms.set_masses([106.42, 2.014])
    assert as_crystal(atoms).meta == {"isotopes": {1: 2.014}}


@pytest.mark.parametrize(
    ("obj", "code"),
    [
        (42, "unknown-object"),
        ("MgB2", "unknown-object"),
        ({}, "bad-record"),
        ({"lattice": [[1]], "species": ["H"], "frac": [[0, 0, 0]]}, "bad-record"),
        ({"lattice": (np.eye(3) * 3).tolist(), "species": ["H", "H"], "frac": [[0, 0, 0]]}, "bad-record"),
        ({"lattice": (np.eye(3) * 3).tolist(), "species": [], "frac": []}, "no-atoms"),
        ({"lattice": (np.eye(3) * 3).tolist(), "species": [None], "frac": [[0, 0, 0]]}, "unknown-element"),
        ({"lattice": (np.eye(3) * -3).tolist(), "species": ["Po"], "frac": [[0, 0, 0]]}, "left-handed"),
    ],
)
def test_as_crystal_refuses_with_a_code(obj: object, code: str) -> None:
    with pytest.raises(CrystalError) as caught:
        as_crystal(obj)
    assert caught.value.code == code
