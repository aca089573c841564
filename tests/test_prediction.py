"""The door to inference, on the shipped weights."""

from __future__ import annotations

import csv
import json
import subprocess
import sys

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure
from pymatgen.io.ase import AseAtomsAdaptor

import onnes
from onnes.learn.store import Checkpoint, pretrained


def mgb2():
    lattice = Lattice.hexagonal(3.085, 3.523)
    return Structure(lattice, ["Mg", "B", "B"], [[0, 0, 0], [1 / 3, 2 / 3, 0.5], [2 / 3, 1 / 3, 0.5]])


def element(symbol, a, frac):
    return Structure(Lattice.cubic(a), [symbol] * len(frac), frac)


FCC = [[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]
BCC = [[0, 0, 0], [0.5, 0.5, 0.5]]
NUMBERS = [
    "lambda",
    "lambda_std",
    "omega_log_K",
    "omega_log_K_std",
    "omega_2_K",
    "tc_K",
    "tc_low_K",
    "tc_high_K",
]


def test_known_superconductors_get_sensible_numbers():
    table = onnes.predict([element("Nb", 3.30, BCC), element("Al", 4.05, FCC), mgb2()])
    assert (table.status == "ok").all() and table.in_domain[:2].all()
    assert np.isfinite(table[NUMBERS].to_numpy(float)).all()
    assert ((table.tc_low_K <= table.tc_K) & (table.tc_K <= table.tc_high_K)).all()
    nb, al, mg = table.tc_K
    assert nb > al and mg > al
    assert 3 < nb < 25 and al < 4
    # No crystal like MgB2 is in the training set: the networks disagree, and the row says so.
    assert not table.in_domain[2] and "disagree" in table.reason[2] and table.tc_high_K[2] < 1000


def test_supercell_rotation_and_ase_give_the_same_prediction():
    q, _ = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))
    turned = Structure(
        Lattice(mgb2().lattice.matrix @ (q * np.linalg.det(q))), mgb2().species, mgb2().frac_coords
    )
    table = onnes.predict(
        [mgb2(), mgb2() * (2, 2, 1), turned, AseAtomsAdaptor.get_atoms(mgb2(), msonable=False)]
    )
    for name in NUMBERS:
        np.testing.assert_allclose(table[name], table[name][0], rtol=2e-4)


def test_smaller_mu_star_means_larger_tc():
    low, high = (onnes.predict(mgb2(), mu_star=m).tc_K[0] for m in (0.08, 0.14))
    assert low > high


def test_element_outside_the_potential_is_refused_and_a_rare_one_marked():
    cm = element("Cm", 4.5, FCC)
    ar = element("Ar", 5.3, FCC)
    table = onnes.predict([cm, ar])
    assert list(table.status) == ["refused", "ok"]
    assert table.reason[0] == "unknown-element" and not table.in_domain[1] and "Ar" in table.reason[1]


def test_card_has_split_n_baselines_and_intervals():
    card = Checkpoint.load(pretrained("epc.safetensors"), "epc").card
    table = card["cross_validation"]["table"]
    ours, trees = table["shipped ensemble"], table["extra-trees on composition and cell"]
    for name in ("lambda", "omega_log_K", "tc_K"):
        assert ours[name]["mae"] < trees[name]["mae"] < table["constant median"][name]["mae"]
        low, high = ours[name]["ci95"]
        assert low < ours[name]["mae"] < high
    for row in card["interval"]["coverage_cross_fold"]:
        assert row["n"] > 100 and row["share"] == pytest.approx(0.9, abs=0.02)


def test_command_line_gives_a_row_for_every_input(tmp_path):
    mgb2().to(str(tmp_path / "MgB2.cif"))
    (tmp_path / "broken.cif").write_text("data_x\n_cell_length_a oops\n")
    out = tmp_path / "t.csv"
    done = subprocess.run(
        [sys.executable, "-m", "onnes.cli.main", "predict", str(tmp_path), "--out", str(out)],
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    rows = {r["id"]: r for r in csv.DictReader(out.open())}
    assert len(rows) == 2 and sorted(r["status"] for r in rows.values()) == ["ok", "refused"]
    assert float(rows["MgB2"]["tc_K"]) > 1


def test_bad_formula_is_one_line_and_exit_2(tmp_path):
    mgb2().to(str(tmp_path / "MgB2.cif"))
    command = [sys.executable, "-m", "onnes.cli.main", "predict", str(tmp_path), "--formula", "nonsense"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1
    assert json.dumps("allen-dynes").strip('"') in done.stderr
