"""What `onnes stability` writes, and when: tables that survive an interruption, names that do not collide."""

from __future__ import annotations

import csv
import subprocess
import sys

import pytest
from pymatgen.core import Lattice, Structure

from onnes.cli.relaxed import probe, write_assessed
from onnes.errors import InputError

COLUMNS = ("id", "energy_eV_atom", "status", "reason")
CRYSTAL = Structure(Lattice.cubic(2.9), ["Ni", "Al"], [[0, 0, 0], [0.5, 0.5, 0.5]])


def row(id: str, status: str = "ok") -> dict[str, object]:
    return {"id": id, "energy_eV_atom": -1.25, "status": status, "reason": ""}


def ids(path) -> list[str]:
    with path.open() as handle:
        return [r["id"] for r in csv.DictReader(handle)]


def test_the_table_is_there_after_the_first_row(tmp_path):
    """What kill -9 would leave: the file is whole while the second crystal is still computed."""
    out = tmp_path / "new" / "t.csv"

    def assessed():
        yield row("a"), None
        assert ids(out) == ["a"]
        yield row("b", "failed"), None

    rows = write_assessed(assessed(), COLUMNS, out, None)
    assert ids(out) == ["a", "b"] and [r["id"] for r in rows] == ["a", "b"]
    assert [p.name for p in out.parent.iterdir()] == ["t.csv"]


@pytest.mark.parametrize("stop", [KeyboardInterrupt, ValueError])
def test_an_interruption_leaves_every_finished_row(tmp_path, stop):
    def assessed():
        for k in range(200):
            yield row(f"r{k}"), None
        raise stop

    with pytest.raises(stop):
        write_assessed(assessed(), COLUMNS, tmp_path / "t.csv", None)
    assert ids(tmp_path / "t.csv") == [f"r{k}" for k in range(200)]


def test_names_that_become_the_same_keep_their_own_file(tmp_path):
    other = Structure(Lattice.cubic(3.3), ["Nb"], [[0, 0, 0]])
    write_assessed(iter([(row("a b"), CRYSTAL), (row("a_b"), other)]), COLUMNS, None, tmp_path)
    found = {p.name: Structure.from_file(p).composition.reduced_formula for p in tmp_path.glob("*.cif")}
    assert found == {"a_b.cif": "AlNi", "a_b-2.cif": "Nb"}


def test_places_that_cannot_be_written_to(tmp_path):
    (tmp_path / "file").write_text("")
    for out, cifs in ((tmp_path / "file" / "t.csv", None), (tmp_path, None), (None, tmp_path / "file")):
        with pytest.raises(InputError) as error:
            probe(out, cifs)
        assert error.value.code == "cannot-write"
    probe(tmp_path / "t.csv", tmp_path / "cifs")
    assert not (tmp_path / "t.csv").exists()


@pytest.mark.parametrize("words", [["stability"], ["relax"], ["elastic"]])
def test_unwritable_table_is_found_before_any_work(tmp_path, words):
    CRYSTAL.to(str(tmp_path / "a.cif"))
    command = [sys.executable, "-m", "onnes.cli.main", *words, str(tmp_path / "a.cif"), "--out"]
    done = subprocess.run(
        [*command, str(tmp_path / "a.cif" / "t.csv")], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 2 and "cannot-write" in done.stderr and "Traceback" not in done.stderr
    # Every command says what became of a crystal when it is done with it.
    assert not any(sign in done.stderr for sign in ("a: ok", "S.U.N."))


def test_screen_finds_an_unwritable_table_before_any_strain(tmp_path, monkeypatch):
    from onnes.cli.screen import screen

    asked = []
    monkeypatch.setattr("onnes.stability.screen.from_strains", lambda item: asked.append(item) or (1.0, 1.0))
    CRYSTAL.to(str(tmp_path / "a.cif"))
    how = {"min_debye": 300.0, "min_dos": 0.0, "require_dos": False, "elastic": True, "learned": False}
    with pytest.raises(InputError) as error:
        screen([tmp_path / "a.cif"], out=tmp_path / "a.cif" / "t.csv", **how)
    assert error.value.code == "cannot-write" and not asked
    screen([tmp_path / "a.cif"], out=tmp_path / "t.csv", **how)
    assert len(asked) == 1 and ids(tmp_path / "t.csv") == ["a"]
