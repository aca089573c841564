"""`onnes spectrum` and `onnes predict --model spectrum` with the shipped networks."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

import onnes
from in_process import onnes as run
from onnes.crystal.read import as_crystal
from onnes.errors import SettingsError
from onnes.spectra import ensemble, predict_spectra
from onnes.theory.spectral import Spectrum

pytestmark = pytest.mark.slow

MGB2 = Structure(
    Lattice.hexagonal(3.086, 3.524), ["Mg", "B", "B"], [[0, 0, 0], [1 / 3, 2 / 3, 0.5], [2 / 3, 1 / 3, 0.5]]
)
NB = Structure(Lattice.cubic(3.30), ["Nb", "Nb"], [[0, 0, 0], [0.5, 0.5, 0.5]])


def process(*args, cwd):
    """A process of its own."""
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "onnes.cli.main", *map(str, args)]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=600)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One run over a folder with a good crystal, one beyond any model and one that is no crystal."""
    where = tmp_path_factory.mktemp("spectrum run")
    (where / "in").mkdir()
    MGB2.to(str(where / "in" / "MgB2.cif"))
    # A bond of hydrogen molecules: its stretch lies at 516 meV.
    h2 = Structure(Lattice.cubic(2.8), ["H", "H"], [[0, 0, 0], [0.27, 0, 0]])
    h2.to(str(where / "in" / "solid H2.cif"))
    (where / "in" / "broken.cif").write_text("data_x\n")
    result = process("spectrum", "in", "--out", "out", cwd=where)
    return where, result


def test_a_row_a_csv_and_a_png_for_each_crystal_and_failures_as_rows(folder):
    where, result = folder
    assert result.returncode == 1 and "Traceback" not in result.stderr
    rows = {r["id"]: r for r in csv.DictReader(result.stdout.splitlines())}
    assert rows["MgB2"]["status"] == "ok" and rows["MgB2"]["model"] == "spectrum-cso"
    assert rows["broken"]["status"] == "refused" and rows["broken"]["reason"]
    assert (where / "out" / "spectra.csv").read_text() == result.stdout
    assert (where / "out" / "MgB2.png").read_bytes()[:4] == b"\x89PNG"
    assert not (where / "out" / "broken.csv").exists()


def test_a_crystal_whose_files_cannot_be_written_fails_alone(tmp_path):
    (tmp_path / "out" / "MgB2.csv").mkdir(parents=True)
    MGB2.to(str(tmp_path / "MgB2.cif"))
    NB.to(str(tmp_path / "Nb.cif"))
    result = run("spectrum", "MgB2.cif", "Nb.cif", "--no-eliashberg", "--out", "out", cwd=tmp_path)
    assert result.returncode == 1 and "Traceback" not in result.stderr and "cannot-write" in result.stderr
    rows = {r["id"]: r for r in csv.DictReader(result.stdout.splitlines())}
    assert rows["MgB2"]["status"] == "failed" and rows["MgB2"]["reason"] == "cannot-write"
    assert rows["Nb"]["status"] == "ok" and (tmp_path / "out" / "Nb.csv").is_file()


def test_rows_after_a_refused_crystal_keep_their_formula_of_tc(tmp_path):
    h2 = Structure(Lattice.cubic(2.8), ["H", "H"], [[0, 0, 0], [0.27, 0, 0]])
    crystals = [as_crystal(h2, id="a"), as_crystal(NB, id="b")]
    for k, item in enumerate(crystals):
        item.structure.to(str(tmp_path / f"{k}.cif"))
    result = run("spectrum", "0.cif", "1.cif", "--no-eliashberg", "--out", "out", cwd=tmp_path)
    rows = list(csv.DictReader(result.stdout.splitlines()))
    assert [r["status"] for r in rows] == ["refused", "ok"]
    assert {r["tc_formula"] for r in rows} == {"allen-dynes"}


def test_case_17_vibrations_beyond_the_grid_are_refused(folder):
    _, result = folder
    row = {r["id"]: r for r in csv.DictReader(result.stdout.splitlines())}["solid H2"]
    assert row["status"] == "refused" and row["reason"] == "beyond-grid"
    assert "beyond the model's end" in folder[1].stderr


def test_the_row_is_what_onnes_tc_says_of_the_csv(folder):
    where, result = folder
    row = next(r for r in csv.DictReader(result.stdout.splitlines()) if r["id"] == "MgB2")
    s = Spectrum.from_file(where / "out" / row["file"], unit="meV", column=1)
    assert s.lam == pytest.approx(float(row["lambda"]), rel=2e-3)
    assert s.omega_log_K == pytest.approx(float(row["omega_log_K"]), rel=2e-3)
    assert s.omega_2_K == pytest.approx(float(row["omega_2_K"]), rel=2e-3)
    again = json.loads(run("tc", where / "out" / row["file"], "--unit", "meV", "--json", cwd=where).stdout)
    assert again["tc"]["allen-dynes"]["tc_K"] == pytest.approx(float(row["tc_allen_dynes_K"]), rel=5e-3)
    assert again["eliashberg"]["tc_K"] == pytest.approx(float(row["tc_eliashberg_K"]), rel=5e-3)
    assert float(row["tc_low_K"]) < float(row["tc_K"]) < float(row["tc_high_K"])


def test_the_band_holds_the_curve(folder):
    where, _ = folder
    omega, mean, low, high = np.loadtxt(where / "out" / "MgB2.csv", delimiter=",", skiprows=1).T
    assert (low >= 0.0).all() and (low <= mean).all() and (mean <= high).all()
    assert omega[0] > 0.0 and omega[-1] == pytest.approx(250.0) and (high > low).any()


def test_the_same_crystal_in_other_cells_and_the_table_of_predict():
    crystals = [as_crystal(s) for s in (NB, NB.get_primitive_structure(), NB * (2, 1, 1))]
    found = list(predict_spectra(crystals))
    for other in found[1:]:
        assert other.numbers["lambda"] == pytest.approx(found[0].numbers["lambda"], rel=1e-4)
        assert other.spectrum.alpha2F == pytest.approx(found[0].spectrum.alpha2F, abs=1e-4)
    table = onnes.predict([NB], model="spectrum", mu_star=0.12)
    row = table.iloc[0]
    assert row["model"] == "spectrum" and row["status"] == "ok" and row["in_domain"]
    assert row["lambda"] == pytest.approx(found[0].numbers["lambda"], rel=1e-5)
    assert row["tc_K"] < found[0].numbers["tc_K"]  # mu* 0.12 against 0.10
    assert 0.0 <= row["p_superconductor"] <= 1.0 and np.isfinite(row["formation_energy_eV_atom"])


def test_insulators_and_unstable_crystals_are_outside_and_labels_have_their_own_intervals():
    nacl = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0, 0]])
    (found,) = predict_spectra([as_crystal(nacl)])
    assert found.status == "ok" and "gap" in found.reason
    cubic = Structure(Lattice.cubic(2.7), ["Al"], [[0, 0, 0]])
    (found,) = predict_spectra([as_crystal(cubic)], phonons="coarse")
    assert found.status == "ok" and "imaginary" in found.reason
    wide, narrow = (next(iter(predict_spectra([as_crystal(NB)], source=s))) for s in ("jarvis", "alexandria"))
    # The errors against JARVIS are twice those against Alexandria.
    assert wide.numbers["lambda_std"] / wide.numbers["lambda"] > 1.3 * (
        narrow.numbers["lambda_std"] / narrow.numbers["lambda"]
    )


def test_a_crystal_with_the_name_of_the_table_keeps_its_curve(tmp_path):
    NB.to(str(tmp_path / "spectra.cif"))
    result = run("spectrum", "spectra.cif", "--out", "out", "--no-eliashberg", "--json", cwd=tmp_path)
    (row,) = json.loads(result.stdout)
    assert row["file"] != "spectra.csv"
    assert (tmp_path / "out" / row["file"]).read_text().startswith("omega_meV")
    assert (tmp_path / "out" / "spectra.csv").read_text().startswith("id,")


def write_dos(path, top):
    """Site-projected densities of states: magnesium low, boron around `top` (meV)."""
    omega = np.linspace(0.5, 1.3 * top, 200)
    low, high = (np.exp(-(((omega - c) / 6.0) ** 2)) for c in (0.4 * top, 0.9 * top))
    np.savetxt(path, np.column_stack([omega, low, high, high]), header="omega (meV) Mg B B")


def test_given_vibrations_shape_the_curve_and_beyond_the_grid_they_are_refused(tmp_path):
    MGB2.to(str(tmp_path / "MgB2.cif"))
    logs, above = {}, {}
    for top in (60, 100, 300):
        write_dos(tmp_path / "dos", top)
        options = ["--phonon-dos", "dos", "--out", f"out{top}", "--no-eliashberg", "--json"]
        result = run("spectrum", "MgB2.cif", *options, cwd=tmp_path)
        (row,) = json.loads(result.stdout)
        assert row["model"] == "spectrum-cpd"
        if top == 300:
            assert result.returncode == 1 and row["reason"] == "beyond-grid"
            continue
        omega, mean, *_ = np.loadtxt(tmp_path / f"out{top}" / "MgB2.csv", delimiter=",", skiprows=1).T
        logs[top] = row["omega_log_K"]
        above[top] = np.trapezoid(np.where(omega > 72.0, mean, 0.0), omega) / np.trapezoid(mean, omega)
    assert logs[60] < logs[100]
    # Softer vibrations leave less above their end.
    assert above[60] < 0.6 * above[100]


def test_a_dos_of_another_crystal_is_refused(tmp_path):
    MGB2.to(str(tmp_path / "MgB2.cif"))
    write_dos(tmp_path / "dos", 100)
    text = (tmp_path / "dos").read_text().splitlines()
    (tmp_path / "dos").write_text("\n".join(line.rsplit(" ", 1)[0] for line in text))
    result = run("spectrum", "MgB2.cif", "--phonon-dos", "dos", cwd=tmp_path)
    assert result.returncode == 2 and "wrong-columns" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_a_batch_equals_one_by_one_and_members_are_at_least_eight():
    loaded = ensemble("cso")
    assert loaded.members >= 8
    crystals = [MGB2, NB, NB * (2, 2, 1)]
    inputs = [loaded.prepare(s, f) for s, f in zip(crystals, loaded.features(crystals), strict=True)]
    together = loaded.predict(inputs).alpha2F
    alone = np.concatenate([loaded.predict([one]).alpha2F for one in inputs])
    assert together == pytest.approx(alone, abs=1e-5)


def test_unknown_choices_are_refused_in_one_line(tmp_path):
    MGB2.to(str(tmp_path / "MgB2.cif"))
    for option in (["--phonons", "finest"], ["--labels", "nobody"], ["--mu-star", "2"]):
        result = run("spectrum", "MgB2.cif", *option, cwd=tmp_path)
        assert result.returncode == 2 and len(result.stderr.strip().splitlines()) == 1, result.stderr
    with pytest.raises(SettingsError, match="unknown-phonons"):
        list(predict_spectra([], phonons="finest"))


def test_the_checkpoint_is_shipped_small(folder):
    from onnes.learn.store import pretrained

    assert Path(pretrained("spectrum.safetensors")).stat().st_size < 30e6
