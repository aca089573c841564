"""Labellers: a table of records, a csv file that a person fills in, onnes verify (in its place a program of ours)."""

from __future__ import annotations

import csv
import json
import sys
from types import SimpleNamespace

import pytest
from pymatgen.core import Lattice, Structure

from onnes.campaign import labels_file as sheet
from onnes.campaign.labels import Chosen, Person, Table, Verify, required
from onnes.campaign.ledger import Candidate, Ledger, Verdict
from onnes.campaign.rounds import _label_verdict
from onnes.campaign.rounds_models import labelled
from onnes.campaign.settings import Settings, read_toml
from onnes.campaign.stages import plain
from onnes.data.records import Record, write_records
from onnes.errors import DataError, InputError, SettingsError
from onnes.report.words import reason_words
from onnes.theory.tc import tc


def rocksalt(a: float, metal: str, other: str) -> Structure:
    return Structure.from_spacegroup("Fm-3m", Lattice.cubic(a), [metal, other], [[0, 0, 0], [0.5, 0.5, 0.5]])


def caesium(a: float, metal: str, other: str) -> Structure:
    return Structure(Lattice.cubic(a), [metal, other], [[0, 0, 0], [0.5, 0.5, 0.5]])


def chosen(id: str, structure: Structure) -> Chosen:
    numbers = {"choose_tc_K": 12.3, "choose_low_K": 1.0, "choose_high_K": 30.0, "acquisition": 0.4}
    return Chosen(id, plain(structure.get_primitive_structure()), {**numbers, "space_group": "Fm-3m"})


def settings(**active) -> Settings:
    return Settings.from_dict({"active": {"rounds": 1, "generator": False, **active}})


@pytest.fixture
def table(tmp_path):
    rows = [
        Record.from_structure(rocksalt(4.47, "Nb", "C"), "nbc", labels={"Tc_K": 11.0, "lambda": 0.8}),
        Record.from_structure(caesium(2.8, "Nb", "C"), "nbc-cscl", labels={"Tc_K": 2.0}),
        Record.from_structure(rocksalt(4.2, "Ti", "N"), "tin", labels={"lambda": 0.7, "omega_log_K": 400.0}),
        Record.from_structure(rocksalt(5.6, "Na", "Cl"), "nacl", labels={"gap_eV": 5.0}),
    ]
    write_records(tmp_path / "known.jsonl", rows)
    return tmp_path / "known.jsonl"


def test_table_finds_the_same_crystal_not_only_the_formula(table, tmp_path):
    by = Table(settings(labeller="table", labels=str(table)))
    asked = [chosen("a", rocksalt(4.5, "Nb", "C")), chosen("b", caesium(2.75, "Nb", "C"))]
    found = list(by.labels(asked, tmp_path))
    assert [(one.tc_K, one.lam) for one in found] == [(11.0, 0.8), (2.0, None)]
    assert found[0].source == "known.jsonl#nbc"


def test_table_gives_reasons_and_derives_tc(table, tmp_path):
    by = Table(settings(labeller="table", labels=str(table)))
    unknown, derived = by.labels(
        [chosen("a", rocksalt(4.4, "V", "N")), chosen("b", rocksalt(4.25, "Ti", "N"))], tmp_path
    )
    assert unknown.tc_K is None and unknown.reason == "not-in-table: NV"
    # 400 K / 1.2 exp(-1.04 1.7 / (0.7 - 0.1 (1 + 0.62 0.7))) = 13.9 K; the factors f1, f2 add a few per cent.
    assert 13.9 < derived.tc_K < 14.8


def test_table_by_formula_takes_the_nearest_volume(table, tmp_path):
    by = Table(settings(labeller="table", labels=str(table), match="formula"))
    other = Structure(Lattice.hexagonal(3.2, 2.3), ["Nb", "C"], [[0, 0, 0], [1 / 3, 2 / 3, 0.5]])
    assert next(by.labels([chosen("a", other)], tmp_path)).source == "known.jsonl#nbc-cscl"


def test_table_without_a_tc_is_refused(tmp_path):
    write_records(tmp_path / "no.jsonl", [Record.from_structure(rocksalt(5.6, "Na", "Cl"), "nacl")])
    with pytest.raises(DataError, match="no-label"):
        Table(settings(labeller="table", labels=str(tmp_path / "no.jsonl")))
    with pytest.raises(SettingsError, match=r"active\.labels"):
        required(settings(labeller="table"))
    with pytest.raises(SettingsError, match=r"active\.generator"):
        required(Settings.from_dict({"active": {"rounds": 1}, "generate": {"model": "joint"}}))


ASKED = [chosen("g000001", rocksalt(4.5, "Nb", "C")), chosen("g000002", rocksalt(4.2, "Ti", "N"))]


def fill(path, changes, delimiter=",", encoding="utf-8"):
    """Write into rows of the file as a spreadsheet would save it."""
    with path.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    for row in rows:
        row.update(changes.get(row["id"], {}))
    with path.open("w", newline="", encoding=encoding) as stream:
        out = csv.DictWriter(stream, rows[0].keys(), delimiter=delimiter)
        out.writeheader()
        out.writerows(rows)


def test_a_person_gets_a_file_with_crystals_and_its_labels_are_read(tmp_path):
    by = Person(settings())
    assert list(by.labels(ASKED, tmp_path)) == []
    assert "2 crystals wait" in by.waiting(ASKED, tmp_path) and "to_label.csv" in by.waiting(ASKED, tmp_path)
    rows = list(csv.DictReader((tmp_path / sheet.NAME).open()))
    assert [r["id"] for r in rows] == ["g000001", "g000002"] and rows[0]["predicted_tc_K"] == "12.3"
    assert Structure.from_file(tmp_path / rows[0]["cif"]).reduced_formula == "NbC"
    changes = {
        "g000001": {"tc_K": "9.5", "source": "Smith 1970"},
        "g000002": {"lambda": "0.7", "omega_log_K": "400"},
    }
    fill(tmp_path / sheet.NAME, changes, delimiter=";", encoding="utf-8-sig")
    one, two = by.labels(ASKED, tmp_path)
    assert (one.tc_K, one.source, two.lam) == (9.5, "Smith 1970", 0.7)
    assert 13.9 < two.tc_K < 14.8


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"tc_K": "warm"}, "not-a-number"),
        ({"tc_K": "9,5"}, "not-a-number"),
        ({"tc_K": "-1"}, "out-of-range"),
        ({"tc_K": "nan"}, "out-of-range"),
        ({"tc_K": "5000"}, "out-of-range"),
        ({"lambda": "0.5"}, "incomplete-row"),
        ({"tc_K": "1", "failed": "unstable"}, "contradiction"),
        ({"id": "g000002", "tc_K": "1"}, "duplicate-row"),
        ({"id": "g000009", "tc_K": "1"}, "unknown-id"),
    ],
)
def test_a_mistake_is_named_and_its_row_waits(tmp_path, change, code):
    by = Person(settings())
    list(by.labels(ASKED, tmp_path))
    fill(tmp_path / sheet.NAME, {"g000001": change})
    assert not [one for one in by.labels(ASKED, tmp_path) if one.id == "g000001"]
    words = by.waiting(ASKED, tmp_path)
    assert f"[{code}]" in words and "line 2" in words


def test_failures_and_blanks(tmp_path):
    by = Person(settings())
    list(by.labels(ASKED, tmp_path))
    fill(tmp_path / sheet.NAME, {"g000002": {"failed": "imaginary modes"}})
    (only,) = by.labels(ASKED, tmp_path)
    assert (only.id, only.tc_K, only.reason) == ("g000002", None, "failed: imaginary modes")
    skipping = Person(settings(blanks="skip"))
    assert {one.id: one.reason.split(":")[0] for one in skipping.labels(ASKED, tmp_path)} == {
        "g000002": "failed",
        "g000001": "skipped",
    }


def test_skipping_does_not_skip_a_file_nobody_touched(tmp_path):
    by = Person(settings(blanks="skip"))
    assert list(by.labels(ASKED, tmp_path)) == [] and list(by.labels(ASKED, tmp_path)) == []


def test_a_file_without_its_columns_is_refused(tmp_path):
    (tmp_path / sheet.NAME).write_text("id,tc\na,1\n")
    with pytest.raises(InputError, match="missing-column"):
        list(Person(settings()).labels(ASKED, tmp_path))
    (tmp_path / sheet.NAME).write_bytes(b"\xff\xfe\x00id")
    with pytest.raises(InputError, match="cannot-read"):
        list(Person(settings()).labels(ASKED, tmp_path))


#: Stands in for onnes verify: its record, its JSON and its exit codes, without Quantum ESPRESSO.
PROGRAM = """
import json, sys
from pathlib import Path
from onnes.crystal.read import read
from onnes.data.records import Record, write_records
path, args = Path(sys.argv[1]), sys.argv[2:]
out = Path(args[args.index("--out") + 1])
out.mkdir(exist_ok=True)
crystal = next(iter(read([path])))
formula = crystal.structure.reduced_formula
if formula == "NbC":
    values = {"Tc_K": 11.5, "lambda": 0.9, "omega_log_K": 300.0, "omega_2_K": 360.0}
    record = Record.from_structure(crystal.structure, path.stem, labels=values)
    write_records(out / "records.jsonl", [record])
    print(json.dumps([{"id": path.stem, "status": "ok"}]))
elif formula == "TiN":
    print(json.dumps([{"status": "unstable", "reason": "imaginary", "detail": "at X"}]))
    sys.exit(1)
elif formula == "VN":
    print(json.dumps([{"id": path.stem, "status": "failed", "reason": "in-use"}]))
    sys.exit(1)
elif formula == "HfN":
    print("onnes: no room on the disk [cannot-write]", file=sys.stderr)
    print(json.dumps([{"id": path.stem, "status": "failed", "reason": "cannot-write"}]))
    sys.exit(1)
else:
    print("onnes: no pseudopotentials [missing-pseudopotential]", file=sys.stderr)
    sys.exit(2)
"""


#: What onnes verify says of a crystal by its id, at every call in turn and the last one again.
SAYS = """
import json, sys
from pathlib import Path
name, out = Path(sys.argv[1]).stem, Path(sys.argv[sys.argv.index("--out") + 1])
out.mkdir(exist_ok=True)
with (out / "calls").open("a") as calls:
    calls.write("x")
turns = {
    "killed-twice": [["failed", "killed"], ["failed", "out-of-memory"], ["unstable", "imaginary-modes"]],
    "killed": [["failed", "killed"]],
    "full": [["failed", "disk-full"]],
    "refused": [["refused", "missing-pseudopotential"]],
    "scf": [["not-converged", "scf-not-converged"]],
}[name]
status, reason = turns[min(len((out / "calls").read_text()), len(turns)) - 1]
print(f"onnes: words of {name} [{reason}]", file=sys.stderr)
print(json.dumps([{"id": name, "status": status, "verdict": status, "reason": reason}]))
sys.exit(status in ("failed", "refused", "not-converged"))
"""


@pytest.fixture
def saying(tmp_path):
    (tmp_path / "says.py").write_text(SAYS)
    return Verify(settings(labeller="verify"), [sys.executable, "-S", str(tmp_path / "says.py")])


@pytest.fixture
def verify(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    return Verify(settings(labeller="verify", tier="quick"), [sys.executable, str(tmp_path / "program.py")])


def test_verify_reads_records_and_verdicts(verify, tmp_path):
    asked = [*ASKED, chosen("g000003", rocksalt(4.1, "V", "N"))]
    good, bad = verify.labels(asked, tmp_path)
    assert (good.lam, good.omega_log_K, good.weight, good.source) == (0.9, 300.0, 0.5, "onnes-dft quick")
    assert bad.tc_K is None and bad.reason == "unstable: imaginary: at X"
    # A run that another process holds is no verdict on the crystal.
    assert "g000003" in verify.waiting(asked[2:], tmp_path)
    assert json.loads((tmp_path / "verify/g000001/run/records.jsonl").read_text())["Tc_K"] == 11.5


@pytest.mark.parametrize("formula", ["mcmillan-allen-dynes", "allen-dynes", "xie"])
def test_verify_labels_follow_the_formula_of_the_predictions(verify, tmp_path, formula):
    given = {"active": {"rounds": 1, "labeller": "verify"}, "predict": {"formula": formula, "mu_star": 0.13}}
    by = Verify(Settings.from_dict(given), verify.command)
    (label,) = by.labels(ASKED[:1], tmp_path)
    assert label.tc_K == pytest.approx(tc(0.9, 300.0, 360.0, mu_star=0.13, formula=formula).tc_K)
    assert by.settings["formula"] == formula and label.tc_K != 11.5


def test_a_full_disk_is_no_verdict_on_a_crystal(verify, tmp_path):
    with pytest.raises(InputError, match=r"no room on the disk \[cannot-write\]"):
        list(verify.labels([chosen("g000005", rocksalt(4.5, "Hf", "N"))], tmp_path))


def test_no_room_for_a_run_is_no_verdict_either(saying, tmp_path):
    with pytest.raises(InputError, match=r"words of full \[disk-full\]"):
        list(saying.labels([chosen("full", rocksalt(5.3, "La", "N"))], tmp_path))


def test_a_run_that_the_machine_ended_is_taken_up_again(saying, tmp_path):
    asked = [chosen("killed-twice", rocksalt(4.6, "Zr", "N")), chosen("killed", rocksalt(4.5, "Sc", "N"))]
    unstable, killed, unconverged = saying.labels([*asked, chosen("scf", rocksalt(4.4, "Ta", "C"))], tmp_path)
    assert unconverged.tc_K is None and unconverged.reason == "dft-not-converged: scf-not-converged"
    assert reason_words(unconverged.reason) == "the DFT calculation did not converge (scf-not-converged)"
    assert unstable.reason == "unstable: imaginary-modes" and killed.reason == "failed: killed"
    assert unstable.tc_K is None and killed.tc_K is None
    calls = [(tmp_path / "verify" / one.id / "run" / "calls").read_text() for one in asked]
    assert calls == ["xxx", "xxx"]  # engine.retries is 2


def test_what_was_refused_is_a_label_without_a_tc_that_nothing_learns_from(saying, tmp_path):
    one = chosen("refused", rocksalt(4.9, "Y", "N"))
    (label,) = saying.labels([one], tmp_path)
    assert label.tc_K is None and label.reason == "refused: missing-pseudopotential"
    run = SimpleNamespace(settings=saying._settings, labeller=saying)
    with Ledger.create(tmp_path / "run", {}) as ledger:
        ledger.add_candidates([Candidate(one.id, 0, one.structure)])
        choice = {**one.numbers, "choose_round": 1, "choose_place": 1}
        ledger.add_verdicts([
            Verdict(one.id, "choose", True, "", choice, one.structure, "i", "s", "m", 0, 1.0),
            _label_verdict(run, 1, one, label),
        ])  # fmt: skip
        (held,) = ledger.verdicts(stage="label")
        assert not held.passed and "label_tc_K" not in held.numbers and not held.numbers["label_hit"]
        assert held.reason == "refused: missing-pseudopotential" and labelled(ledger, 2) == []


def test_verify_runs_on_the_engine_of_the_campaign(saying, tmp_path):
    part = {"kind": "slurm", "folder": "/shared/logs", "options": ["--qos=x"], "worker_init": 'a "b"\nc'}
    given = {"active": {"rounds": 1, "labeller": "verify"}, "engine": part}
    by = Verify(Settings.from_dict(given), saying.command)
    list(by.labels([chosen("killed", rocksalt(4.5, "Sc", "N"))], tmp_path))
    place = tmp_path / "verify" / "killed"
    assert by._elsewhere(place) == ["--engine", str(place / "engine.toml")]
    read = Settings.from_dict({"engine": read_toml(place / "engine.toml")["engine"]}).engine
    assert read.model_dump() == {
        **Settings.from_dict(given).engine.model_dump(),
        "folder": "/shared/logs/verify",
    }
    assert by.settings == saying.settings, "labels do not depend on who computes"


def test_a_campaign_without_pseudopotentials_is_refused_before_any_work(monkeypatch, tmp_path):
    monkeypatch.setattr("onnes.dft.programs.find_programs", lambda *given: None)
    with pytest.raises(InputError, match="missing-pseudopotential"):
        required(settings(labeller="verify", pseudo=str(tmp_path / "none")))
    given = {
        "active": {"rounds": 1, "labeller": "verify", "pseudo": str(tmp_path), "cores": 4, "generator": False}
    }
    with pytest.raises(SettingsError, match="cores_per_node = 2"):
        required(Settings.from_dict({**given, "engine": {"kind": "slurm", "cores_per_node": 2}}))


def test_verify_that_cannot_run_stops_the_campaign_with_its_words(verify, tmp_path):
    with pytest.raises(InputError, match="missing-pseudopotential"):
        list(verify.labels([chosen("g000004", rocksalt(5.6, "Na", "Cl"))], tmp_path))


def test_verify_without_quantum_espresso_is_refused_before_any_work(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(InputError, match="no-qe"):
        required(settings(labeller="verify"))
