"""`onnes train spectrum`: from record files and curves to a checkpoint that `onnes spectrum` reads."""

import csv
import json
import shutil

import numpy as np
import pytest
import torch
from pymatgen.core import Lattice, Structure
from typer.testing import CliRunner

from in_process import onnes as run
from onnes.cli.main import app
from onnes.crystal.read import read
from onnes.data.records import Record, write_records
from onnes.errors import DataError, ModelError, OnnesError, SettingsError
from onnes.learn.spectrum import SpectrumEnsemble
from onnes.learn.spectrum_data import curve_files, curve_of, prepare
from onnes.learn.spectrum_fit import FitSettings, Member, SpectrumData
from onnes.learn.spectrum_score import SpectralRun
from onnes.learn.spectrum_train import TrainSettings, enough_curves, open_run
from onnes.learn.store import Checkpoint
from onnes.spectra import predict_spectra

ELEMENTS = [
    "Al",
    "Nb",
    "V",
    "Ta",
    "Mo",
    "Pb",
    "Sn",
    "In",
    "Cu",
    "Ag",
    "Zr",
    "Ti",
    "Hf",
    "W",
    "Re",
    "Mg",
    "Ca",
    "Zn",
    "Ga",
    "Sc",
]
OMEGA = np.linspace(1.0, 40.0, 50)


def bump(center, height):
    return height * np.exp(-0.5 * ((OMEGA - center) / 3.0) ** 2)


def records(n=20, *, curves=18):
    """Elements in the fcc structure: made-up curves for the first, moments alone for the rest."""
    out = []
    for k in range(n):
        cell = Structure(Lattice.cubic(4.0 + 0.05 * k).scale(16.0 + k), [ELEMENTS[k]], [[0, 0, 0]])
        labels = {"lambda": 0.5, "omega_log_K": 150.0} if k >= curves else {}
        meta = {}
        if k < curves:
            meta = {"omega_meV": OMEGA.tolist(), "alpha2F": bump(12.0 + k, 0.3 + 0.05 * k).tolist()}
        out.append(Record.from_structure(cell, id=f"x{k}", source="mine", labels=labels, meta=meta))
    return out


TRAIN = ("train", "spectrum", "--data", "mine.jsonl", "--out", "my model", "--members", 6, "--epochs", 2)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    where = tmp_path_factory.mktemp("train spectrum")
    write_records(
        where / "mine.jsonl", [*records(), records(1)[0].model_copy(update={"id": "no", "meta": {}})]
    )
    return where, run(*TRAIN, cwd=where)


@pytest.mark.slow
def test_it_says_out_of_bag_errors_beside_the_median_and_what_it_left_out(trained):
    where, result = trained
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)["curves"]
    assert {"mae", "ci95", "median_mae", "n"} <= set(found["lambda"]) and found["lambda"]["n"] >= 5
    assert "no: no-labels" in result.stderr and "1 refused" in result.stderr
    card = Checkpoint.load(where / "my model" / "model.safetensors", "spectrum").card
    assert card["n"] == {"crystals": 20, "curves": 18, "refused": 1} and card["data_hash"]


@pytest.mark.slow
def test_the_checkpoint_predicts_in_the_convention_of_its_data(trained):
    where, _ = trained
    Structure(Lattice.cubic(3.3), ["Nb", "Nb"], [[0, 0, 0], [0.5, 0.5, 0.5]]).to(str(where / "Nb.cif"))
    good = run("spectrum", "Nb.cif", "--model", "my model", "--labels", "mine", "--out", "out", cwd=where)
    (row,) = csv.DictReader(good.stdout.splitlines())
    assert row["status"] == "ok" and row["model"] == "my model" and float(row["lambda"]) > 0.0
    with pytest.raises(SettingsError, match="mine"):
        next(predict_spectra([], model=where / "my model", source="jarvis"))
    with pytest.raises(ModelError, match="no cpd"):
        next(predict_spectra([], model=where / "my model", phonons="coarse"))
    with pytest.raises(ModelError, match="no checkpoint"):
        next(predict_spectra([], model=where))


@pytest.mark.slow
def test_what_is_lost_is_made_again_and_the_result_is_the_same(trained, capfd):
    """Outputs, states and cached features that are gone; a member's outputs hold its weights. In two processes."""
    where, _ = trained
    folder = where / "my model"
    before = SpectrumEnsemble("cso", folder / "model.safetensors").weights
    for name in ("member-0.pt", "member-1.npz", "member-2.npz", "member-2.pt", "model.safetensors"):
        (folder / name).unlink()
    for path in sorted((folder / "features-7net-0").iterdir())[:2]:
        path.unlink()
    again = run(*TRAIN, "--resume", "--workers", 2, cwd=where)
    assert again.returncode == 0, again.stderr
    said = capfd.readouterr().err
    assert "member 2" in said and "member 0" not in said + again.stderr
    assert "member 2" not in again.stderr, "a process of its own trains a member that was lost"
    after = SpectrumEnsemble("cso", folder / "model.safetensors").weights
    for k, (old, new) in enumerate(zip(before, after, strict=True)):
        for name, value in old.items():
            # Features computed in other company differ in their last bits, and with them what is trained anew.
            assert torch.allclose(value, new[name], atol=1e-2) if k == 2 else torch.equal(value, new[name])


@pytest.mark.slow
def test_every_interval_is_finite(trained):
    where, _ = trained
    stored = SpectrumEnsemble("cso", where / "my model" / "model.safetensors")
    for conformal in stored.calibration["mine"].values():
        assert np.isfinite(conformal.quantiles).all()


@pytest.mark.parametrize(
    "changes", [{"regime": "modren"}, {"members": 2}, {"phonons": "some"}, {"model": "x"}]
)
def test_bad_settings_are_refused_before_anything_is_computed(changes):
    with pytest.raises(SettingsError):
        TrainSettings(**changes)


@pytest.mark.parametrize("epochs", [1, 2, 5, 9])
def test_a_training_of_few_steps_is_one(tmp_path, epochs):
    settings = TrainSettings(model="spectrum-bete")
    prepared = prepare(records(10, curves=10), settings.network(), {}, tmp_path)
    fit = FitSettings(epochs=epochs, batch=64, seed=1)
    Member(prepared.data, np.arange(10), settings.network(1), fit, tmp_path / "m.pt").run()


def test_epochs_make_about_three_thousand_steps(tmp_path):
    settings = TrainSettings(model="spectrum-bete", batch=4)
    data = prepare(records(), settings.network(), {}, tmp_path).data
    fit = settings.fit(data, 0)
    assert fit.epochs == 400 or fit.epochs * 0.63 * len(data) / 4 == pytest.approx(3000, rel=0.05)
    assert settings.fit(data, 0).seed != settings.fit(data, 1).seed


def test_a_kept_epoch_that_the_crystals_chose_is_said():
    assert not TrainSettings(regime="critical").fit(_some(), 0).cycle
    assert TrainSettings().fit(_some(), 0).cycle


def _some():
    return SpectrumData(
        [], [], np.array([]), np.zeros(0, int), np.zeros((50, 3)), np.zeros((50, 2)), np.zeros((50, 2))
    )


def test_a_folder_belongs_to_one_training(tmp_path):
    settings = TrainSettings()
    open_run(tmp_path, settings, "abc", resume=False)
    open_run(tmp_path, settings, "abc", resume=True)
    for other, digest, resume, code in (
        (settings, "abc", False, "training-exists"),
        (settings, "abd", True, "other-run"),
        (TrainSettings(seed=1), "abc", True, "other-run"),
    ):
        with pytest.raises(OnnesError) as error:
            open_run(tmp_path, other, digest, resume=resume)
        assert error.value.code == code


@pytest.mark.slow
def test_options_of_the_spectrum_are_refused_elsewhere(trained):
    where, _ = trained
    result = run("train", "lambda", "--data", "mine.jsonl", "--out", "x", "--curve-unit", "meV", cwd=where)
    assert result.returncode == 2 and "--curve-unit" in result.stderr and not (where / "x").exists()


def test_too_few_curves_are_refused(tmp_path):
    settings = TrainSettings(model="spectrum-bete")
    prepared = prepare(records(8, curves=4), settings.network(), {}, tmp_path)
    with pytest.raises(DataError, match="4 curves of 4 formulas"):
        enough_curves(prepared.data)


def test_curves_come_from_a_folder_by_the_names_of_the_records(tmp_path):
    (tmp_path / "x1.csv").write_text(
        "omega_meV,alpha2F\n" + "".join(f"{a},{b}\n" for a, b in zip(OMEGA, bump(12, 0.4), strict=True))
    )
    (tmp_path / "x2.dat").write_text("1 0.1\n2 0.2\n3 0.3\n4 0.1\n")
    (tmp_path / "x3.dat").write_text("")
    (tmp_path / "stray.dat").write_text("1 0.1\n")
    (tmp_path / "x1.png").write_bytes(b"what onnes spectrum writes beside a curve")
    (tmp_path / "x3.csv").write_text("")
    plain = [r.model_copy(update={"meta": {}, "labels": {}}) for r in records(4)]
    files = curve_files(tmp_path)
    assert curve_of(plain[0], files, None) is None
    assert curve_of(plain[1], files, None).lam > 0.0
    net = TrainSettings(model="spectrum-bete").network()
    prepared = prepare(plain, net, {}, tmp_path / "cache", curves=tmp_path)
    assert prepared.data.ids == ["x1"]
    codes = {k.split("/")[-1]: v.split(":")[0] for k, v in prepared.refused.items()}
    assert codes == {"x0": "no-labels", "x2": "no-unit", "x3": "two-curves", "stray.dat": "no-record"}
    assert prepare(plain, net, {}, tmp_path, curves=tmp_path, unit="meV").data.ids == ["x1", "x2"]


def test_a_curve_beyond_the_published_grid_is_refused(tmp_path):
    far = records(2)[1]
    far = far.model_copy(
        update={"meta": {"omega_meV": (4 * OMEGA).tolist(), "alpha2F": bump(35, 1.0).tolist()}}
    )
    prepared = prepare([records(1)[0], far], TrainSettings(model="spectrum-bete").network(), {}, tmp_path)
    assert prepared.refused["x1"].startswith("beyond-grid")


def test_the_shipped_conventions_stay():
    assert SpectrumEnsemble("cso").sources == ("alexandria", "jarvis")


def evaluate(*args):
    found = CliRunner().invoke(app, ["evaluate", *map(str, args), "--json"])
    assert found.exit_code == 0, found.output
    return json.loads(found.stdout)


@pytest.mark.slow
def test_evaluate_scores_a_folder_out_of_bag(trained):
    """The same rows and figures as the card's, from the checkpoint: each crystal by the members that lacked it."""
    where, _ = trained
    write_records(where / "curves.jsonl", records(18))
    model = where / "my model"
    found = evaluate(model, "--data", where / "curves.jsonl")
    card = Checkpoint.load(model / "model.safetensors").card["out_of_bag"]["curves"]["lambda"]
    line = next(x for x in found["lines"] if x["name"] == "mae")
    assert line["rows"] == "out of bag" and line["n"] == card["n"]
    # The weights are kept in half precision.
    assert line["value"] == pytest.approx(card["mae"], rel=0.02)
    assert line["low"] < line["value"] < line["high"] and line["constant"] > 0.0
    notes = " ".join(found["notes"])
    assert "area between the curves" in notes and "bootstrap sample" in notes
    warmer = evaluate(model, "--data", where / "curves.jsonl", "--target", "Tc_K", "--mu-star", 0.2)
    assert "mu* 0.2" in " ".join(warmer["notes"]) and warmer["lines"][0]["n"] == card["n"]


@pytest.mark.slow
def test_evaluate_tells_new_formulas_from_those_that_every_member_has_seen(trained):
    where, _ = trained
    run = SpectralRun(where / "my model")
    cell = Structure(Lattice.cubic(4.1), ["Y"], [[0, 0, 0]])
    new = Record.from_structure(cell, id="new", source="mine", labels={"lambda": 0.5})
    old = records(1)[0].model_copy(update={"labels": {"lambda": 0.5}})
    k = run.table.place(old.formula)
    assert run.marks([new])[0] == "unseen" and run.allowed([new]).all()
    assert run.left.shape == (6, 20) and 0 < run.left.sum() < run.left.size
    run.left[:, k] = [True, False, True, False, False, False]
    assert run.marks([old]) == ["out of bag"] and run.allowed([old])[:, 0].tolist() == run.left[:, k].tolist()
    curves = run.curves([old, new])
    assert np.isfinite(curves[:, :, 0]).tolist() == [[m, True] for m in run.left[:, k].tolist()]
    run.left[:, k] = False
    assert run.marks([old]) == ["seen (trained on)"] and run.allowed([old]).all()
    found = run.score([old, new], "lambda", mu_star=0.1, formula="allen-dynes")
    assert np.isfinite(found.value).all() and found.marks == ["seen (trained on)", "unseen"]
    run.left = None
    assert run.marks([old, new]) == ["seen (trained on)", "unseen"]
    with pytest.raises(ModelError, match="was trained for"):
        run.chosen("epc", None, [new])
    with pytest.raises(ModelError, match="predicts no gap_eV"):
        run.chosen(None, "gap_eV", [new])
    with pytest.raises(DataError, match="--curves"):
        run.chosen(None, None, records(1))


@pytest.mark.slow
def test_curves_are_for_spectral_runs_alone(trained):
    where, _ = trained
    args = ["evaluate", "median", "--data", where / "mine.jsonl", "--curves", where]
    found = CliRunner().invoke(app, [*map(str, args)])
    assert isinstance(found.exception, SettingsError) and found.exception.code == "conflicting-options"


@pytest.mark.slow
def test_members_by_hand_with_vibrations_are_those_of_one_command(tmp_path):
    """Six tasks of a job array, then the collecting call, against one call; with coarse vibrations as inputs."""
    write_records(tmp_path / "mine.jsonl", records(16, curves=15))
    base = ["train", "spectrum", "--data", tmp_path / "mine.jsonl", "--members", 6, "--epochs", 1]
    base += ["--model", "spectrum-bete", "--phonons", "coarse"]

    def train(folder, *more):
        return CliRunner().invoke(app, [*map(str, [*base, "--out", folder, *more])])

    one, many = tmp_path / "one", tmp_path / "many"
    found = train(one)
    assert found.exit_code == 0, found.output
    assert len(list((one / "vibrations").glob("*.npy"))) == 16
    shutil.copytree(one / "vibrations", many / "vibrations")
    for k in (2, 0, 3, 5, 4):
        assert train(many, "--member", k).exit_code == 0
        assert (many / f"member-{k}.npz").exists() and not (many / "model.safetensors").exists()
    outside = train(many, "--member", 6)
    assert isinstance(outside.exception, SettingsError) and "members are 0 to 5" in str(outside.exception)
    assert isinstance(train(many).exception, OnnesError)  # a training is there: --resume
    assert train(many, "--resume").exit_code == 0  # member 1 was left out and is trained
    first, second = (Checkpoint.load(x / "model.safetensors", "spectrum") for x in (one, many))
    assert first.settings == second.settings and list(first.settings["variants"]) == ["cpd"]
    assert first.tensors.keys() == second.tensors.keys()
    assert all(torch.equal(v, second.tensors[k]) for k, v in first.tensors.items())
    write_records(tmp_path / "curves.jsonl", records(15))
    scored = evaluate(many, "--data", tmp_path / "curves.jsonl", "--target", "omega_log_K")
    card = second.card["out_of_bag"]["curves"]["omega_log_K"]
    line = next(x for x in scored["lines"] if x["name"] == "mae")
    assert (line["rows"], line["n"]) == ("out of bag", card["n"])
    assert line["value"] == pytest.approx(card["mae"], rel=0.02)
    Structure(Lattice.cubic(3.3), ["Nb", "Nb"], [[0, 0, 0], [0.5, 0.5, 0.5]]).to(str(tmp_path / "Nb.cif"))
    (crystal,) = read([tmp_path / "Nb.cif"])
    (curve,) = predict_spectra([crystal], model=many, phonons="coarse")
    assert curve.status == "ok" and curve.variant == "cpd" and curve.numbers["lambda"] > 0.0
