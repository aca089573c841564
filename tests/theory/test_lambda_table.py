"""Tables of lambda against smearing, from real QE output and made-up broken ones."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from onnes.errors import InputError
from onnes.theory.lambda_table import is_lambda_table, read_lambda_table

MATDYN = """
  Electron-phonon coupling constant, lambda

 Broadening   0.0150 lambda       0.4020 dos(Ef)  2.1232 omega_ln [K]    374.1404
 Broadening   0.0200 lambda       0.3813 dos(Ef)  2.2497 omega_ln [K]    357.0790
"""


def test_matdyn_format(tmp_path):
    (tmp_path / "lambda").write_text(MATDYN)
    rows = read_lambda_table(tmp_path / "lambda")
    assert [r.lam for r in rows] == [0.4020, 0.3813]
    assert (rows[0].smearing_Ry, rows[0].omega_log_K, rows[0].dos_ef) == (0.015, 374.1404, 2.1232)


def test_nan_of_an_imaginary_mode_is_an_error(tmp_path):
    (tmp_path / "lambda").write_text(MATDYN.replace("374.1404", "NaN"))
    with pytest.raises(InputError, match="not-finite"):
        read_lambda_table(tmp_path / "lambda")


def test_other_text_is_not_one(tmp_path):
    (tmp_path / "x").write_text("lambda is a Greek letter\n")
    assert not is_lambda_table(tmp_path / "x") and not is_lambda_table(tmp_path / "none")
    with pytest.raises(InputError, match="not-a-lambda-table"):
        read_lambda_table(tmp_path / "x")


def test_real_output_gives_the_codes_own_tc(shared):
    """lambda.x prints McMillan-Allen-Dynes Tc at the mu* of its input, here 0.1."""
    folder = shared / "qe_outputs" / "al_pz_444_ref"
    text = (folder / "lambda.out").read_text().splitlines()
    start = next(i for i, line in enumerate(text) if line.split()[:1] == ["lambda"] and "T_c" in line)
    printed = [float(line.split()[2]) for line in text[start + 1 :] if len(line.split()) == 3]
    done = subprocess.run(
        [sys.executable, "-m", "onnes.cli.main", "tc", str(folder / "lambda.out"), "--json"],
        capture_output=True,
        text=True,
    )
    rows = json.loads(done.stdout)["rows"]
    assert [r["tc_K"] for r in rows] == pytest.approx(printed, abs=2e-3)
    assert len(read_lambda_table(folder / "lambda")) == 10
