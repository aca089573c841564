"""`onnes relax` and `onnes stability` through the command line."""

from __future__ import annotations

import csv
import io
import subprocess
import sys

import pytest
from pymatgen.core import Lattice, Structure


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("in puts")
    hexagonal = Lattice.hexagonal(3.1, 3.5)
    mgb2 = Structure.from_spacegroup("P6/mmm", hexagonal, ["Mg", "B"], [[0, 0, 0], [1 / 3, 2 / 3, 0.5]])
    mgb2.to(str(folder / "MgB2.cif"))
    Structure(Lattice.cubic(3.35), ["Po"], [[0, 0, 0]]).to(str(folder / "Po.cif"))
    Structure(Lattice.cubic(7.0), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]).to(str(folder / "apart.cif"))
    (folder / "broken.cif").write_text("data_x\n_cell_length_a 3\n")
    return folder


def call(*arguments):
    command = [sys.executable, "-m", "onnes.cli.main", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_stability_reports_every_input(inputs, tmp_path):
    done = call("stability", inputs, "--cifs", tmp_path / "relaxed")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    rows = {r["id"]: r for r in csv.DictReader(io.StringIO(done.stdout))}
    assert len(rows) == 4
    good = rows["MgB2"]
    assert (good["status"], good["novelty"], good["space_group"]) == ("ok", "known", "P6/mmm")
    assert float(good["e_hull_eV_atom"]) == pytest.approx(0.0, abs=0.03)
    assert float(good["formation_energy_eV_atom"]) < -0.1
    assert (rows["Po"]["status"], rows["Po"]["reason"]) == ("refused", "potential-unknown-element")
    assert rows["apart"]["status"] == "failed" and rows["apart"]["reason"].startswith("diverged")
    assert rows["apart"]["e_hull_eV_atom"] == ""
    assert rows["broken"]["status"] == "refused"
    (cif,) = (tmp_path / "relaxed").glob("*.cif")
    assert Structure.from_file(cif).composition.reduced_formula == "MgB2"


def test_relax_writes_its_table(inputs, tmp_path):
    out = tmp_path / "t.csv"
    done = call("relax", inputs / "MgB2.cif", "--out", out)
    assert done.returncode == 0
    (row,) = csv.DictReader(out.open())
    assert row["converged"] == "True" and int(row["steps"]) >= 1


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["relax", "{}", "--potential", "magic"], "unknown-potential"),
        (["relax", "{}", "--fmax", "0"], "bad-setting"),
        (["relax", "nowhere.cif"], ""),
    ],
)
def test_bad_calls_are_one_line(inputs, arguments, code):
    done = call(*[a.format(inputs / "MgB2.cif") for a in arguments])
    assert done.returncode == 2 and code in done.stderr and "Traceback" not in done.stderr


def test_unwritable_folder_is_found_before_any_work(inputs, tmp_path):
    (tmp_path / "file").write_text("")
    done = call("relax", inputs / "MgB2.cif", "--cifs", tmp_path / "file")
    assert done.returncode == 2 and "cannot-write" in done.stderr and "MgB2: ok" not in done.stderr
