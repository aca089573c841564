"""Two real rounds through the command line: the generator, the funnel, a table of labels, tuned weights."""

from __future__ import annotations

import sys

import pytest
from pymatgen.core import Lattice, Structure

from onnes.campaign import retrain_generator
from onnes.campaign.ledger import Ledger
from onnes.cli.main import main
from onnes.data.records import Record, write_records
from onnes.learn.store import Checkpoint, pretrained

CONFIG = """
[run]
n = 2
seed = 1
workers = 1
[generate]
elements = ["Mg", "B"]
atoms = 3
steps = 10
[relax]
fmax_eV_A = 0.5
[hull]
max_formation_energy_eV_atom = 9.0
max_e_hull_eV_atom = 9.0
[novel]
keep = "all"
[predict]
min_tc_K = 0.0
max_gap_eV = 99.0
model = "trees"
[dossier]
top = 0
phonons = 0
[active]
rounds = 2
batch = 1
labeller = "table"
labels = "known.jsonl"
match = "formula"
generator_steps = 2
"""


@pytest.fixture
def discover(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(retrain_generator, "REHEARSED", 6)
    monkeypatch.setattr(retrain_generator, "HELD", 4)
    monkeypatch.chdir(tmp_path)
    # Not one formula, for which nothing is tuned: every composition of three atoms has its label.
    known = [
        Structure(Lattice.hexagonal(3.08, 3.52), kinds, [[0, 0, 0], [1 / 3, 2 / 3, 0.5], [2 / 3, 1 / 3, 0.5]])
        for kinds in (["Mg", "B", "B"], ["B", "Mg", "Mg"], ["Mg"] * 3, ["B"] * 3)
    ]
    records = [Record.from_structure(s, f"k{i}", labels={"Tc_K": 39.0}) for i, s in enumerate(known)]
    write_records("known.jsonl", records)
    (tmp_path / "c.toml").write_text(CONFIG)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["onnes", "discover", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        return int(end.value.code or 0), *capsys.readouterr()

    return run


@pytest.mark.slow
def test_two_rounds_with_a_table(discover, tmp_path):
    code, _, err = discover("c.toml", "--out", "run")
    assert code == 0 and "Traceback" not in err and "wait" not in err
    with Ledger.open(tmp_path / "run", read_only=True) as ledger:
        entries, labels = ledger.get_meta("rounds"), ledger.verdicts(stage="label")
        candidates, state = ledger.candidates(), ledger.get_meta("state")
    assert state == "finished" and [c.id for c in candidates] == [f"g{i:06d}" for i in range(4)]
    assert [e["round"] for e in entries] == [1, 2] and entries[0]["n_hits"] == entries[0]["n_labelled"] == 1
    assert entries[1]["best_tc_K"] == 39.0 and all(v.numbers["label_tc_K"] == 39.0 for v in labels)
    # The second round drew with weights of its own, which lie in its folder.
    shipped = Checkpoint.load(pretrained("symmetric.safetensors")).hash
    tuned = Checkpoint.load(tmp_path / "run" / "round-2" / "generator.safetensors").hash
    assert [e["generator_hash"] for e in entries] == [shipped, tuned] and tuned != shipped
    assert candidates[3].meta == {"round": 2, "parents": [tuned]} and tuned in candidates[3].source
    before = (tmp_path / "run" / "candidates.csv").read_bytes()
    code, _, err = discover("--out", "run", "--resume")
    assert code == 0 and (tmp_path / "run" / "candidates.csv").read_bytes() == before
    with Ledger.open(tmp_path / "run", read_only=True) as ledger:
        assert ledger.get_meta("rounds") == entries and len(ledger.history(stage="label")) == len(labels)
