"""Quantum ESPRESSO itself: aluminium from CIF to Tc, an unstable crystal, an insulator, kill -9 in a real ph.x.

Eighty seconds of one core, of which aluminium's 4x4x4 q-points, to compare with a published run, take fifty; the others
take the grids of the captured run `al_222`. Without the programs these tests skip; a warning at the end of pytest's
output says so.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
from pymatgen.core import Lattice, Structure
from qe_fixtures import captured
from test_run import TIER
from typer.testing import CliRunner

from onnes.cli.main import app
from onnes.dft import tiers
from onnes.dft.matdyn_files import parse_a2f
from onnes.dft.pseudo_install import default_folder
from onnes.dft.qe_text import real

DEBIAN = Path("/usr/share/espresso/pseudo")
#: The user's own set: taken before the tests put the cache elsewhere.
DOJO = Path(os.environ.get("ONNES_TEST_PSEUDO") or default_folder())
MISSING = [p for p in ("pw.x", "ph.x", "q2r.x", "matdyn.x") if shutil.which(p) is None]
if MISSING or not (DEBIAN / "Al.pz-vbc.UPF").is_file():
    warnings.warn(
        f"notice: Quantum ESPRESSO is not here ({', '.join(MISSING) or 'its pseudopotentials'}): the tests that run "
        "it are skipped (Debian: apt-get install quantum-espresso)",
        stacklevel=1,
    )
pytestmark = [
    pytest.mark.qe,
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        bool(MISSING) or not (DEBIAN / "Al.pz-vbc.UPF").is_file(),
        reason="Quantum ESPRESSO with the pseudopotentials of Debian is not installed",
    ),
]
#: The captured run of QE's aluminium example: sums of lambda.x over 4x4x4 q, k 8x8x8 and 16x16x16, 15 Ry.
SIGMA_LAMBDA_LOG = [
    (0.010, 0.434917, 352.907),
    (0.015, 0.426256, 341.188),
    (0.020, 0.397795, 336.155),
    (0.025, 0.376564, 332.369),
    (0.030, 0.367075, 329.075),
    (0.035, 0.366291, 326.422),
    (0.040, 0.370477, 324.414),
    (0.045, 0.376944, 322.944),
    (0.050, 0.383783, 321.866),
]
#: Between runs with thresholds 1e-8/1e-10 and 1e-12/1e-14, and with a cell of 8 digits, these quantities differ by 0.15
#: and 0.3 % (measured).
NOISE = 0.005


def verify(*arguments, timeout=800):
    """Run the command as a user does, in a process of its own; gives it with its CPU seconds."""
    began = os.times()
    done = subprocess.run(
        [sys.executable, "-m", "onnes.cli.main", "verify", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    ended = os.times()
    used = ended.children_user + ended.children_system - began.children_user - began.children_system
    return done, used


@pytest.fixture
def lda(tmp_path):
    (tmp_path / "pp").mkdir()
    shutil.copyfile(DEBIAN / "Al.pz-vbc.UPF", tmp_path / "pp" / "Al.UPF")
    return tmp_path / "pp"


def options(folder, pseudo, *more):
    return ["--pseudo", pseudo, "--ecut", "15", "--degauss", "0.05", "--out", folder, "--floor", "50", *more]


def test_aluminium_from_cif_to_tc(tmp_path, lda):
    # 7.5 bohr, the lattice parameter of the captured run.
    fcc = [[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]
    Structure(Lattice.cubic(7.5 * 0.529177210903), ["Al"] * 4, fcc).to(filename=str(tmp_path / "al.cif"))
    arguments = [tmp_path / "al.cif", *options(tmp_path / "out", lda, "--no-relax", "--cores", "2")]
    done, cpu = verify(*arguments)
    assert done.returncode == 0, done.stderr
    # Three minutes on two cores; counted in CPU time, because the machine of the tests may be busy.
    assert cpu < 180.0
    rows = [[real(x) for x in line.split(",")[:8]] for line in done.stdout.strip().splitlines()[1:]]
    for row, (sigma, lam, log) in zip(rows[1:], SIGMA_LAMBDA_LOG, strict=True):
        assert row[0] == pytest.approx(sigma)
        assert row[6] == pytest.approx(lam, rel=NOISE), sigma
        assert row[7] == pytest.approx(log, rel=NOISE), sigma
    # The interpolated lambda, which takes a finer mesh than the captured run did, within 3 % of it.
    table = re.findall(r"Broadening +(\S+) lambda +(\S+)", captured("al_lda/lambda"))
    stored = {round(float(sigma), 4): float(lam) for sigma, lam in table}
    for row in rows[5:]:
        assert row[1] == pytest.approx(stored[round(row[0], 4)], rel=0.03)
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["verdict"] == "superconductor" and 0.3 < result["tc_K"] < 3.0
    assert result["eliashberg"]["tc_K"] == result["tc_K"] and set(result["tc"]) >= {"allen-dynes", "xie"}
    assert not list((tmp_path / "out").rglob("tmp"))
    record = json.loads((tmp_path / "out" / "records.jsonl").read_text())
    assert record["lambda"] == result["lambda"] and record["meta"]["dft"]["quantum_espresso"].startswith("6.")


@pytest.fixture
def small(monkeypatch):
    """The command in this process, its quick tier with the grids of the captured run `al_222`."""
    monkeypatch.setitem(tiers.TIERS, tiers.TierName.QUICK, TIER)

    def run(*arguments):
        done = CliRunner().invoke(app, ["verify", *map(str, arguments)])
        assert done.exit_code == 0, done.output
        return done

    return run


#: The same in a process of its own, to be killed.
DRIVER = """import sys
sys.path.insert(0, {here!r})
from onnes.dft import tiers
from test_run import TIER
tiers.TIERS[tiers.TierName.QUICK] = TIER
from onnes.cli.main import main
main()
"""


def lambdas(csv: str) -> list[float]:
    return [float(line.split(",")[1]) for line in csv.strip().splitlines()[1:]]


def test_killed_in_ph_x_and_resumed(small, tmp_path, lda):
    """Of the q-points of a finished run one is taken away; ph.x and its driver are killed in it."""
    fcc = [[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]
    Structure(Lattice.cubic(3.97), ["Al"] * 4, fcc).to(filename=str(tmp_path / "al.cif"))
    out = tmp_path / "out"
    arguments = [tmp_path / "al.cif", "--pseudo", lda, "--ecut", "15", "--out", out, "--floor", "1"]
    first = lambdas(small(*arguments).stdout)
    wanted = [parse_a2f(captured(f"al_222/bands/a2F.dos{s}")).lam for s in range(1, 11)]
    # The captured run took the unrelaxed cell, so its lambda differs by what 1 % of length does.
    assert first == pytest.approx(wanted, rel=0.15)
    assert not list(out.rglob("tmp"))

    shutil.rmtree(out / "q002")
    code = DRIVER.format(here=str(Path(__file__).parent))
    driver = subprocess.Popen(
        [sys.executable, "-c", code, "verify", *map(str, arguments)],
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    output = out / "q002" / "ph.out"
    deadline = time.monotonic() + 300
    while not (output.is_file() and "Representation #" in output.read_text(encoding="latin-1")):
        assert driver.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    assert not (out / "q002" / "q002.done.json").exists()
    # Only this q, and what needs it, is done again, from the scf that the killed driver left, and gives the same.
    kept = (out / "q003" / "ph.out").stat().st_mtime_ns
    again = small(*arguments)
    assert (
        "q002: done (" in again.stderr and "q003" not in again.stderr and "dense: done before" in again.stderr
    )
    assert (out / "q003" / "ph.out").stat().st_mtime_ns == kept
    assert lambdas(again.stdout) == pytest.approx(first, rel=1e-3)


def test_simple_cubic_aluminium_is_unstable(small, tmp_path, lda):
    Structure(Lattice.cubic(5.1 * 0.529177210903), ["Al"], [[0, 0, 0]]).to(filename=str(tmp_path / "sc.cif"))
    done = small(tmp_path / "sc.cif", *options(tmp_path / "out", lda, "--no-relax"))
    assert "unstable: -" in done.stderr and "imaginary-modes" in done.stderr
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["verdict"] == "unstable" and result["tc_K"] is None
    record = json.loads((tmp_path / "out" / "records.jsonl").read_text())
    assert record["meta"]["verdict"] == "unstable" and "lambda" not in record


@pytest.mark.skipif(
    not all((DOJO / f"{e}.upf").is_file() for e in ("Na", "Cl")),
    reason="no PseudoDojo: `onnes pseudo install`, or ONNES_TEST_PSEUDO",
)
def test_rock_salt_is_stopped_as_an_insulator(small, tmp_path):
    sites = [[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]
    salt = [[x + 0.5, y, z] for x, y, z in sites]
    Structure(Lattice.cubic(5.64), ["Na"] * 4 + ["Cl"] * 4, sites + salt).to(
        filename=str(tmp_path / "nacl.cif")
    )
    arguments = [tmp_path / "nacl.cif", "--pseudo", DOJO, "--no-relax", "--ecut", "40", "--floor", "50"]
    done = small(*arguments, "--out", tmp_path / "out")
    gap = re.search(r"insulator: a gap of ([\d.]+) eV", done.stderr)
    assert gap and 4.0 < float(gap[1]) < 6.5
    # Nothing after the first scf was started.
    assert not (tmp_path / "out" / "scf" / "scf.out").exists()
    assert not list((tmp_path / "out").glob("q*/ph.out"))
