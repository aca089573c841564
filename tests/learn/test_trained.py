"""onnes evaluate on what onnes train wrote: the same numbers, and seen formulas never pass for a test."""

from __future__ import annotations

import json

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure
from typer.testing import CliRunner

from onnes.cli.main import app
from onnes.data.records import Record, read_records, write_records
from onnes.errors import OnnesError
from onnes.learn.fit import FitSettings, fit
from onnes.learn.store import Checkpoint
from onnes.learn.trained import TrainedRun

# fmt: off
OLD = [
    "Li", "Be", "Na", "Mg", "Al", "K", "Ca", "Sc", "Ti", "V", "Cr", "Fe",
    "Co", "Ni", "Cu", "Zn", "Ga", "Rb", "Sr", "Y", "Zr", "Nb", "Mo", "Ru",
]
# fmt: on
NEW = ["Rh", "Pd", "Ag", "In", "Sn", "Hf", "Ta", "W"]


def crystal(k: int, symbol: str) -> Record:
    structure = Structure(Lattice.cubic(2.6 + 0.03 * k), [symbol], [[0, 0, 0]])
    labels = {"lambda": 0.2 + 0.02 * k, "omega_log_K": 400.0 - 9 * k, "Tc_K": 0.2 * k}
    return Record.from_structure(structure, f"r{k}", source="set", labels=labels)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run on 24 metals, and those with 8 others."""
    place = tmp_path_factory.mktemp("run")
    records = [crystal(k, symbol) for k, symbol in enumerate([*OLD, *NEW])]
    write_records(place / "set.jsonl", records[: len(OLD)])
    write_records(place / "more.jsonl", records)
    fit(
        [place / "set.jsonl"],
        place / "run",
        FitSettings("epc", "megnet-onnes", epochs=1, batch=16, validation=0.2),
    )
    return place


@pytest.fixture
def run():
    def call(*args):
        result = CliRunner().invoke(app, ["evaluate", *map(str, args)])
        if isinstance(result.exception, OnnesError):
            return 2, "", str(result.exception)
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, result.stdout, result.stderr

    return call


def test_the_card_and_the_table_say_what_was_seen(folder):
    checkpoint = Checkpoint.load(folder / "run" / "model.safetensors", "property")
    assert checkpoint.card["formulas"]["training"] + checkpoint.card["formulas"]["validation"] == len(OLD)
    marks = TrainedRun(folder / "run").marks(read_records(folder / "more.jsonl"))
    assert marks[len(OLD) :] == ["unseen"] * len(NEW)
    assert marks.count("seen (early stopping)") == checkpoint.card["n_val"] == 5
    assert marks.count("seen (trained on)") == checkpoint.card["n_train"]


def test_reloaded_weights_give_the_errors_of_the_card(folder):
    trained = TrainedRun(folder / "run")
    records = read_records(folder / "set.jsonl")
    held = [r for r, m in zip(records, trained.marks(records), strict=True) if m == "seen (early stopping)"]
    for label in ("lambda", "omega_log_K"):
        value, _ = trained.predict(held, label, mu_star=0.1, formula="allen-dynes")
        stated = trained.checkpoint.card["validation"][label]["mae"]
        assert np.abs(value - [r.labels[label] for r in held]).mean() == pytest.approx(stated, rel=1e-5)
    known = [
        r.labels["lambda"] for r, m in zip(records, trained.marks(records), strict=True) if "trained" in m
    ]
    assert trained.median("lambda") == pytest.approx(np.median(known), rel=1e-5)


def test_seen_and_unseen_apart(folder, run, tmp_path):
    code, text, _ = run(
        folder / "run", "--data", folder / "more.jsonl", "--task", "epc", "--json", "--out", tmp_path
    )
    assert code == 0
    found = json.loads(text)
    n = {line["rows"]: line["n"] for line in found["lines"] if line["name"] == "mae"}
    assert (n["unseen"], n["seen (trained on)"], n["seen (early stopping)"]) == (8, 19, 5)
    assert found["headline"] == "unseen" and found["target"] == "lambda"
    # Everything that is not named "seen" is of unseen formulas only.
    assert sum(n[k] for k in n if k.startswith("truth")) == 8
    assert {e["element"] for e in found["elements"]} == set(NEW)
    assert "8 unseen" in " ".join(found["notes"])
    assert (tmp_path / "parity.png").stat().st_size > 5000
    table = run(folder / "run", "--data", folder / "set.jsonl", "--target", "Tc_K")[1]
    assert "NOT A TEST" in table
    for line in table.splitlines():
        if " mae " in line or ("precision" in line.split("(")[0] and "predicted above" in line):
            assert line.startswith("seen")


def test_tc_follows_from_both_moments(folder):
    from onnes.theory.tc import tc_array

    trained, records = TrainedRun(folder / "run"), read_records(folder / "more.jsonl")
    lam, wlog, tc = (
        trained.predict(records, k, mu_star=0.13, formula="mcmillan-allen-dynes")[0]
        for k in ("lambda", "omega_log_K", "Tc_K")
    )
    assert tc == pytest.approx(tc_array(lam, wlog, mu_star=0.13, formula="mcmillan-allen-dynes"))


def test_unseen_only(folder, run):
    code, text, _ = run(folder / "run", "--data", folder / "more.jsonl", "--unseen-only", "--json")
    assert code == 0
    assert {line["rows"].split(" ")[0] for line in json.loads(text)["lines"]} == {"unseen", "truth"}
    code, _, error = run(folder / "run", "--data", folder / "set.jsonl", "--unseen-only")
    assert code == 2 and error.endswith("[all-seen]")


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (["--task", "gap"], "task-mismatch"),
        (["--task", "magic"], "unknown-task"),
        (["--target", "gap_eV"], "unknown-target"),
        (["--target", "dos_ef_states_eV_cell"], "no-label"),
        (["--folds", "3"], "conflicting-options"),
    ],
)
def test_one_line_for_each_mistake(folder, run, args, code):
    status, out, error = run(folder / "run", "--data", folder / "more.jsonl", *args)
    assert (status, out) == (2, "")
    assert error.endswith(f"[{code}]") and "\n" not in error


def test_data_without_labels_and_folders_without_a_run(folder, run, tmp_path):
    write_records(tmp_path / "bare.jsonl", [r.model_copy(update={"labels": {}}) for r in [crystal(0, "Li")]])
    assert run(folder / "run", "--data", tmp_path / "bare.jsonl")[2].endswith("[no-label]")
    assert run(tmp_path, "--data", folder / "set.jsonl")[2].endswith("[no-model]")
    assert run("trees", "--data", folder / "set.jsonl", "--task", "epc")[2].endswith("[conflicting-options]")


def test_a_checkpoint_without_a_table_is_never_called_unseen(folder, tmp_path, run):
    old = Checkpoint.load(folder / "run" / "model.safetensors")
    settings = {k: v for k, v in old.settings.items() if k not in ("formula_table", "median")}
    Checkpoint("property", settings, old.card, old.tensors).save(tmp_path / "model.safetensors")
    found = json.loads(run(tmp_path, "--data", folder / "more.jsonl", "--json")[1])
    assert found["headline"] == "seen or not"
    assert all(line["rows"].startswith("seen or not") for line in found["lines"])


def test_another_network_of_the_same_name_is_refused(folder, tmp_path):
    old = Checkpoint.load(folder / "run" / "model.safetensors")
    changed = {**old.settings, "network": {**old.settings["network"], "blocks": 99}}
    Checkpoint("property", changed, old.card, old.tensors).save(tmp_path / "model.safetensors")
    with pytest.raises(OnnesError, match=r"\[incompatible-model\]"):
        TrainedRun(tmp_path)
