"""Training through the command line: finished, resumed, refused; every held-out sample is scored."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from onnes.data.records import Record, write_records
from onnes.errors import DataError, InputError, SettingsError
from onnes.learn.fit import FitSettings, fit, targets_of
from onnes.learn.store import Checkpoint
from onnes.learn.tasks import TASKS, task

# fmt: off
METALS = [
    "Li", "Be", "Na", "Mg", "Al", "K", "Ca", "Sc", "Ti", "V", "Cr", "Fe", "Co", "Ni",
    "Cu", "Zn", "Ga", "Rb", "Sr", "Y", "Zr", "Nb", "Mo", "Ru", "Rh", "Pd", "Ag",
]
# fmt: on


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    rng = np.random.default_rng(0)
    records = []
    for k, symbol in enumerate(METALS):
        structure = Structure(Lattice.cubic(2.6 + 0.03 * k), [symbol], [[0, 0, 0]])
        labels = {"lambda": float(0.2 + 0.02 * k), "omega_log_K": float(400 - 10 * k)}
        if k % 3 == 0:
            labels["dos_ef_states_eV_cell"] = float(rng.uniform(0.3, 3))
        records.append(Record.from_structure(structure, f"r{k}", labels=labels))
    path = tmp_path_factory.mktemp("data") / "set.jsonl"
    write_records(path, records)
    return path


def train(*arguments):
    command = [sys.executable, "-m", "onnes.cli.main", "train", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=250)


@pytest.mark.slow
def test_train_and_resume(data, tmp_path):
    out = tmp_path / "t"
    done = train("epc", "--data", data, "--out", out, "--epochs", 2, "--batch", 64)
    assert done.returncode == 0, done.stderr
    first = Checkpoint.load(out / "model.safetensors", "property")
    assert json.loads(done.stdout)["lambda"]["n"] == first.card["n_val"] == 3
    assert first.card["n_train"] + first.card["n_val"] == len(METALS)
    assert first.card["settings"]["seed"] == 0 and first.card["data_hash"]
    assert [t.name for t in targets_of(first)] == ["lambda", "omega_log_K", "dos_ef_states_eV_atom"]
    again = train("epc", "--data", data, "--out", out, "--epochs", 2)
    assert again.returncode == 2 and "training-exists" in again.stderr
    more = train("epc", "--data", data, "--out", out, "--epochs", 4, "--batch", 64, "--resume")
    assert more.returncode == 0, more.stderr
    second = Checkpoint.load(out / "model.safetensors", "property")
    assert second.hash != first.hash and second.card["data_hash"] == first.card["data_hash"]


@pytest.mark.slow
def test_two_processes_by_settings_of_lightning_alone(data, tmp_path):
    """Several devices need no code of ours: here two processes on the CPU, by the variables that Lightning reads."""
    out = tmp_path / "two"
    command = [sys.executable, "-m", "onnes.cli.main", "train", "lambda", "--model", "megnet-onnes"]
    command += ["--data", str(data), "--out", str(out), "--epochs", "2", "--batch", "8"]
    devices = {"PL_TRAINER_DEVICES": "2", "PL_TRAINER_STRATEGY": "ddp", "PL_TRAINER_ACCELERATOR": "cpu"}
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, **devices, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert "MEMBER: 2/2" in done.stderr
    found = Checkpoint.load(out / "model.safetensors", "property")
    assert found.card["validation"]["lambda"]["n"] == found.card["n_val"] == 3
    assert json.loads(done.stdout)["lambda"]["n"] == 3


def test_same_seed_same_weights(data, tmp_path):
    one, two = (
        fit([data], tmp_path / name, FitSettings("lambda", epochs=1, seed=5)).hash for name in ("a", "b")
    )
    assert one == two


@pytest.mark.parametrize("model", ["alignn-onnes", "megnet-onnes"])
def test_graph_networks_train_too(data, tmp_path, model):
    checkpoint = fit([data], tmp_path / model, FitSettings("epc", model, epochs=1, batch=16))
    assert checkpoint.settings["model"] == model and checkpoint.card["validation"]["lambda"]["n"] == 3
    assert len(list((tmp_path / model / "graphs").rglob("*.npz"))) == len(METALS)


def test_validation_smaller_than_a_batch_is_scored_whole(data, tmp_path):
    card = fit([data], tmp_path / "v", FitSettings("omega-log", epochs=1, batch=50, validation=0.2)).card
    assert card["validation"]["omega_log_K"]["n"] == card["n_val"] == 5


def test_bad_calls_are_typed(data, tmp_path):
    with pytest.raises(SettingsError, match="unknown-task"):
        fit([data], tmp_path / "x", FitSettings("magic"))
    with pytest.raises(SettingsError, match="unknown-model"):
        fit([data], tmp_path / "x", FitSettings("lambda", model="magic"))
    with pytest.raises(DataError, match="no-labels"):
        fit([data], tmp_path / "x", FitSettings("debye"))
    with pytest.raises(DataError, match="duplicate-id"):
        fit([data, data], tmp_path / "x", FitSettings("lambda"))
    with pytest.raises(InputError):
        fit([tmp_path / "none.jsonl"], tmp_path / "x", FitSettings("lambda"))
    with pytest.raises(SettingsError, match="bad-setting"):
        FitSettings("lambda", epochs=0)
    assert not (tmp_path / "x" / "model.safetensors").exists()


@pytest.mark.parametrize("name", sorted(TASKS))
def test_targets_encode_and_decode(name):
    for target in task(name):
        label = target.labels[0]
        value = 2.5
        coded = target.encode({label: value}, 2)
        if target.binary:
            assert coded == 1.0 and target.encode({label: 0.0}, 2) == 0.0
        else:
            assert target.decode(coded) == pytest.approx(
                max(value / (2 if target.per_atom else 1), target.floor)
            )
        assert np.isnan(target.encode({}, 2))
