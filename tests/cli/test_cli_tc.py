import hashlib
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from onnes.theory.spectral import Spectrum
from onnes.theory.tc import FORMULAS, tc
from onnes.units import TO_KELVIN

OMEGA = np.linspace(0.2, 50.0, 250)
VALUES = 0.7 * np.exp(-(((OMEGA - 24.0) / 6.0) ** 2))
EXPECTED = Spectrum.from_arrays(OMEGA, VALUES, "meV")


def onnes_tc(*arguments):
    """Run the command in a process of its own, as a user does: (exit code, stdout, stderr)."""
    environment = {**os.environ, "NO_COLOR": "1", "COLUMNS": "200", "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(
        [sys.executable, "-m", "onnes.cli.main", "tc", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment,
        encoding="utf-8",
    )
    return done.returncode, done.stdout, done.stderr


def write(path, unit="meV", header=True, values=VALUES):
    omega = OMEGA * TO_KELVIN["meV"] / TO_KELVIN[unit]
    head = f"omega_{unit},alpha2F\n" if header else ""
    path.write_text(head + "\n".join(f"{a:.12e},{b:.12e}" for a, b in zip(omega, values, strict=True)))
    return path


def test_json_round_trip(tmp_path):
    code, out, err = onnes_tc(write(tmp_path / "a2f.csv"), "--json")
    assert (code, err) == (0, "")
    answer = json.loads(out)
    assert answer["lambda"] == pytest.approx(EXPECTED.lam, rel=1e-9)
    for name in ("omega_log_K", "omega_1_K", "omega_2_K"):
        assert answer[name] == pytest.approx(getattr(EXPECTED, name), rel=1e-9)
    assert answer["mu_star"] == 0.1
    for formula in FORMULAS:
        assert answer["tc"][str(formula)]["tc_K"] == pytest.approx(
            tc(EXPECTED, formula=formula).tc_K, rel=1e-9
        )


def test_text_shows_the_same_numbers_and_mu_star(tmp_path):
    code, out, err = onnes_tc(write(tmp_path / "with space é.csv"), "--mu-star", 0.13)
    assert (code, err) == (0, "")
    assert "mu* = 0.130" in out and f"{EXPECTED.lam:.4f}" in out and f"{EXPECTED.omega_log_K:.2f} K" in out
    for formula in FORMULAS:
        line = next(line for line in out.splitlines() if line.startswith(str(formula)))
        assert f"{tc(EXPECTED, mu_star=0.13, formula=formula).tc_K:.3f}" in line


def test_stated_unit_of_bare_columns_gives_the_same_tc(tmp_path):
    code, out, _ = onnes_tc(write(tmp_path / "bare.txt", "cm-1", header=False), "--unit", "cm-1", "--json")
    assert code == 0
    assert json.loads(out)["tc"]["allen-dynes"]["tc_K"] == pytest.approx(tc(EXPECTED).tc_K, rel=1e-6)


def test_two_mu_star_differ_and_the_file_is_left_alone(tmp_path):
    path = write(tmp_path / "a2f.csv")
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    answers = [json.loads(onnes_tc(path, "--json", "--mu-star", mu)[1]) for mu in (0.12, 0.14)]
    first, second = ([row["tc_K"] for row in answer["tc"].values()][:3] for answer in answers)
    assert all(a > b > 0 for a, b in zip(first, second, strict=True))
    assert hashlib.sha256(path.read_bytes()).hexdigest() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a2f.csv"]


def test_guard_is_reported_not_hidden(tmp_path):
    path = write(tmp_path / "weak.csv", values=VALUES * 0.05 / EXPECTED.lam)
    code, out, _ = onnes_tc(path)
    assert code == 0 and "below-guard" in out


def test_qe_file_with_several_smearings(tmp_path):
    omega = OMEGA * TO_KELVIN["meV"] / TO_KELVIN["THz"]
    path = tmp_path / "alpha2F.dat"
    path.write_text(
        "# E(THz)  0.005  0.010\n"
        + "\n".join(f"{a:.10f} {2 * b:.10f} {b:.10f}" for a, b in zip(omega, VALUES, strict=True))
    )
    code, _, err = onnes_tc(path)
    assert code == 2 and "choose-smearing" in err and "1: 0.005, 2: 0.010" in err
    for options in (("--column", 2), ("--smearing", 0.01)):
        code, out, _ = onnes_tc(path, *options, "--json")
        assert code == 0 and json.loads(out)["lambda"] == pytest.approx(EXPECTED.lam, rel=1e-5)


def test_qe_file_whose_own_lambda_is_nan_still_gives_valid_json(tmp_path):
    omega = OMEGA * TO_KELVIN["meV"] / TO_KELVIN["Ry"]
    body = "\n".join(f"{a:.10e} {b:.10e} {b:.10e}" for a, b in zip(omega, VALUES, strict=True))
    path = tmp_path / "a2F.dos1"
    path.write_text(
        f" # a2F\n # frequencies in Rydberg\n # total\n\n{body}\n lambda =  NaN  Delta = 1.0E-5\n"
    )
    code, out, err = onnes_tc(path, "--json")
    assert code == 0, err
    assert json.loads(out)["lambda"] == pytest.approx(EXPECTED.lam, rel=1e-6)


BAD = [
    ("no unit", lambda p: write(p, header=False), (), "no-unit"),
    ("unit conflict", write, ("--unit", "THz"), "unit-conflict"),
    ("unknown unit", write, ("--unit", "eV2"), "unknown-unit"),
    ("mu* too large", write, ("--mu-star", "2"), "bad-mu-star"),
    ("mu* is not a number", write, ("--mu-star", "nan"), "bad-mu-star"),
    ("unknown format", write, ("--format", "vasp"), "unknown-format"),
    ("empty file", lambda p: p.write_text(""), ("--unit", "meV"), "empty-file"),
    ("binary file", lambda p: p.write_bytes(b"\0\1\2" * 99), ("--unit", "meV"), "binary-file"),
    ("a folder", lambda p: p.mkdir(), (), "not-a-file"),
    ("no such file", lambda p: None, (), "not-found"),
    ("NaN", lambda p: p.write_text("1 0\n2 nan\n3 0\n"), ("--unit", "meV"), "not-finite"),
    ("goes back", lambda p: p.write_text("1 0\n3 1\n2 0\n"), ("--unit", "meV"), "grid-not-increasing"),
    ("mostly negative", lambda p: p.write_text("1 -1\n2 -1\n3 0.1\n"), ("--unit", "meV"), "negative-weight"),
]


@pytest.mark.parametrize(("make", "options", "reason"), [b[1:] for b in BAD], ids=[b[0] for b in BAD])
def test_bad_input_is_one_line_on_stderr_and_exit_2(tmp_path, make, options, reason):
    path = tmp_path / "curve.dat"
    make(path)
    code, out, err = onnes_tc(path, *options)
    assert (code, out) == (2, "")
    assert err.startswith("onnes: ") and err.count("\n") == 1 and f"[{reason}]" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("arguments", [(), ("a.csv", "--mu-star", "x"), ("a.csv", "--no-such-option")])
def test_usage_errors_exit_2_without_a_traceback(arguments):
    code, out, err = onnes_tc(*arguments)
    assert (code, out) == (2, "") and "Traceback" not in err
