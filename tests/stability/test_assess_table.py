"""`onnes stability` over workers, killed and gone on with: the same table to the last byte."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from pymatgen.core import Lattice, Structure

from in_process import onnes
from onnes.crystal.read import Crystal, Refused
from onnes.stability.relax import RelaxSettings
from onnes.stability.relax_journal import Journal, run_key
from onnes.stability.relax_table import relax_all

PAIRS = [("Na", "Cl"), ("Mg", "O"), ("Nb", "C"), ("Ti", "N"), ("Cs", "I"), ("Al", "Ni")]


@pytest.fixture(scope="module")
def crystals(tmp_path_factory):
    """Six compounds a little off, the first of them again under another name, and one that is refused."""
    folder = tmp_path_factory.mktemp("crystals")
    for k, pair in enumerate([*PAIRS, PAIRS[0]]):
        a = 3.4 if "Na" in pair else 3.2 + 0.1 * (k % 3)
        s = Structure(Lattice.cubic(a), pair, [[0, 0, 0], [0.5, 0.5, 0.48]])
        s.to(str(folder / f"a{k}.cif"))
    Structure(Lattice.cubic(3.35), ["Po"], [[0, 0, 0]]).to(str(folder / "b.cif"))
    return folder


def arguments(crystals, folder, *more):
    base = ["stability", crystals, "--out", folder / "t.csv", "--cifs", folder / "c", "--max-steps", "6"]
    return [*map(str, base), *more]


def same(one, two):
    assert (one / "t.csv").read_bytes() == (two / "t.csv").read_bytes()
    names = sorted(p.name for p in (one / "c").iterdir())
    assert names == sorted(p.name for p in (two / "c").iterdir())
    assert all((one / "c" / n).read_bytes() == (two / "c" / n).read_bytes() for n in names)


@pytest.fixture(scope="module")
def serial(crystals, tmp_path_factory):
    folder = tmp_path_factory.mktemp("serial")
    done = onnes(*arguments(crystals, folder))
    assert done.returncode == 1 and "Traceback" not in done.stderr
    text = (folder / "t.csv").read_text()
    assert text.count("\n") == 9 and "potential-unknown-element" in text
    assert not (folder / "t.csv.part").exists()
    return folder


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_kill_and_resume_over_workers_give_the_same_table(serial, crystals, tmp_path):
    """A process is killed after the first crystals; the others are computed by two workers of another."""
    journal = tmp_path / "t.csv.part"
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "onnes.cli.main", *arguments(crystals, tmp_path)]
    process = subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL)
    limit = time.time() + 600
    while time.time() < limit and not (journal.exists() and journal.read_bytes().count(b"\n") >= 3):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    journal.write_bytes(journal.read_bytes() + b'{"crystal": "torn')
    refused = onnes(*arguments(crystals, tmp_path))
    assert refused.returncode == 2 and "unfinished-run" in refused.stderr
    done = onnes(*arguments(crystals, tmp_path, "--resume", "--workers", "2"))
    assert done.returncode == 1 and "Traceback" not in done.stderr
    same(serial, tmp_path)
    assert not journal.exists()


def test_what_a_journal_holds_is_not_computed_again(tmp_path):
    """A row that no relaxation gives comes back as it was kept, in its place, with its structure to the last bit."""
    settings = RelaxSettings(max_steps=1)
    structure = Structure(Lattice.cubic(0.1 + 3.5), ["Cu"], [[0, 0, 1 / 3]])
    one, two = Crystal("one", structure, "made"), Crystal("two", structure, "made")
    bad = Refused("bad", "file", "overlapping-atoms", "too close", "NaCl")
    key = run_key(settings, False, structures=True)
    assert key != run_key(settings, False)
    with Journal(tmp_path / "t.csv", key, False) as journal:
        journal.add(one, {"id": "one", "status": "ok", "reason": "", "steps": 12345}, structure)
        journal.add(two, {"id": "two", "status": "failed", "reason": "steps"})
        journal.close(finished=False)
        assert len(journal.path.read_text().splitlines()) == 3
        kept = Journal(tmp_path / "t.csv", key, True)
        first, middle, last = relax_all([one, bad, two], settings, journal=kept)
    assert first.row["steps"] == 12345 and first.structure == structure
    assert (first.structure.lattice.matrix == structure.lattice.matrix).all()
    assert middle.row["reason"] == "overlapping-atoms"
    assert last.row == {"id": "two", "status": "failed", "reason": "steps"} and last.structure is None


def test_a_journal_without_rows_does_not_stay(tmp_path):
    with pytest.raises(KeyboardInterrupt), Journal(tmp_path / "t.csv", "key", False):
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())
    with pytest.raises(KeyboardInterrupt), Journal(tmp_path / "t.csv", "key", False) as journal:
        journal.add(Crystal("x", Structure(Lattice.cubic(3), ["Cu"], [[0, 0, 0]]), "made"), {"id": "x"})
        raise KeyboardInterrupt
    lines = (tmp_path / "t.csv.part").read_text().splitlines()
    assert json.loads(lines[1])["row"] == {"id": "x"}


def test_resume_needs_a_table(crystals):
    done = onnes("stability", crystals, "--resume")
    assert done.returncode == 2 and "bad-setting" in done.stderr
