"""``onnes tc`` where the Eliashberg equations are solved, skipped, or have no answer."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest


@pytest.fixture(scope="module")
def curve(tmp_path_factory):
    x = np.linspace(0.5, 40.0, 80)
    path = tmp_path_factory.mktemp("curve") / "c.csv"
    rows = "\n".join(f"{a:.6f},{b:.8f}" for a, b in zip(x, 0.5 * np.exp(-(((x - 20) / 4) ** 2)), strict=True))
    path.write_text("omega_meV,alpha2F\n" + rows + "\n")
    return path


def call(*arguments):
    command = [sys.executable, "-m", "onnes.cli.main", "tc", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_gap_and_band_are_printed(curve):
    done = call(curve, "--json")
    found = json.loads(done.stdout)["eliashberg"]
    assert done.returncode == 0 and found["error"] == ""
    assert found["low_K"] < found["tc_K"] < found["high_K"]
    assert 3.4 < found["gap_ratio"] < 4.0 and 1.3 < found["jump_ratio"] < 1.8


def test_closed_only_solves_and_draws_nothing_more(curve, tmp_path):
    done = call(curve, "--closed-only", "--plot", tmp_path / "p", "--json")
    assert done.returncode == 0 and json.loads(done.stdout)["eliashberg"] is None
    assert {p.stem for p in (tmp_path / "p").iterdir()} == {"alpha2F", "tc_mu"}


def test_strong_repulsion_gives_no_absurd_tc(curve):
    found = json.loads(call(curve, "--mu-band", 0.1, 0.3, "--json").stdout)["eliashberg"]
    assert found["high_K"] <= found["tc_K"] * 1.001 and found["low_K"] < found["high_K"]


@pytest.mark.parametrize("cutoff", ["inf", "1e300", "1"])
def test_impossible_cutoff_keeps_the_closed_formulas(curve, cutoff):
    done = call(curve, "--cutoff", cutoff)
    assert done.returncode == 1 and "bad-cutoff" in done.stderr and "Traceback" not in done.stderr
    assert "allen-dynes" in done.stdout


def test_uncertainty_is_added(curve):
    found = json.loads(call(curve, "--sigma", 0.1, "--json").stdout)["uncertainty"]
    assert found["lambda"]["std"] == pytest.approx(0.1 * found["lambda"]["mean"], rel=0.1)
