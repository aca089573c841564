"""A whole run through the command line: finished, killed and resumed, stopped, refused."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from in_process import onnes
from onnes.campaign.ledger import Ledger
from onnes.errors import LedgerError

pytestmark = pytest.mark.slow

#: The fast predictor starts quickest; a folder of crystals below is screened with the standard one.
CONFIG = """
[run]
n = 5
seed = 3
workers = 2
[generate]
steps = 12
atoms = 3
[relax]
max_steps = 80
fmax_eV_A = 0.2
[hull]
max_formation_energy_eV_atom = 1.0
max_e_hull_eV_atom = 1.0
[novel]
keep = "all"
[predict]
min_tc_K = 0.0
model = "fast"
[dossier]
top = 0
"""
COMMAND = [sys.executable, "-m", "onnes.cli.main", "discover"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def inside(folder: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return onnes("discover", *arguments, cwd=folder)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("discover")
    (folder / "c.toml").write_text(CONFIG)
    return folder


@pytest.fixture(scope="module")
def whole(home):
    """On one process; those that are killed below have two workers."""
    done = inside(home, "c.toml", "--out", "whole", "--workers", "1")
    assert done.returncode == 0, done.stderr
    return done


def results(run: Path) -> dict[str, bytes]:
    files = [run / "candidates.csv", *sorted((run / "candidates").glob("*.cif"))]
    return {p.name: p.read_bytes() for p in files}


def verdicts(run: Path) -> dict[tuple, tuple]:
    with Ledger.open(run, read_only=True) as ledger:
        return {v.key: (v.passed, v.reason, v.numbers, v.structure) for v in ledger.verdicts()}


def seconds(run: Path) -> dict[tuple, float]:
    with Ledger.open(run, read_only=True) as ledger:
        return {v.key: v.seconds for v in ledger.history()}


def test_run_ends_with_table_files_and_report(whole, home):
    run = home / "whole"
    names = results(run)
    assert len(names) >= 3
    table = (run / "candidates.csv").read_text().splitlines()
    assert len(table) == len(names)
    assert "e_hull" in whole.stdout.lower() and "report.html" in whole.stdout
    assert "relax" in whole.stderr
    page = (run / "report.html").read_text()
    assert page.lstrip().lower().startswith("<!doctype html>") and "Tc" in page
    with Ledger.open(run, read_only=True) as ledger:
        assert ledger.get_meta("state") == "finished"
        for v in ledger.verdicts():
            assert v.input_hash and v.settings_hash and v.seconds >= 0 and v.seed >= 0
        assert {v.model_hash for v in ledger.verdicts(stage="predict")} != {""}


@pytest.fixture
def start(home):
    """Start a run in the background, or go on with it; nothing of it outlives the test."""
    begun = []

    def run(out: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*COMMAND, "c.toml", "--out", out, "--resume"],
            cwd=home,
            env=ENVIRONMENT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        begun.append(process)
        return process

    yield run
    for process in begun:
        for pid in members(process.pid):
            os.kill(pid, signal.SIGKILL)
        process.wait()
        process.stderr.close()


def wait_for(run: Path, stage: str, count: int, process: subprocess.Popen[str]) -> int:
    """Wait until the ledger holds so many verdicts of a stage (or candidates)."""
    end = time.monotonic() + 300
    while time.monotonic() < end and process.poll() is None:
        try:
            with Ledger.open(run, read_only=True) as ledger:
                held = len(ledger.candidates() if stage == "generate" else ledger.verdicts(stage=stage))
        except LedgerError:
            held = 0
        if held >= count:
            return held
        time.sleep(0.05)
    raise AssertionError(f"{stage} never reached {count}")


def members(session: int) -> list[int]:
    """Living processes of a session."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                text = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            if int(text[3]) == session and text[0] != "Z":
                found.append(int(entry.name))
    return found


def kill(process: subprocess.Popen[str]) -> None:
    """Kill -9 the driver; its workers must go by themselves."""
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    # They notice when they have loaded what they are loading.
    end = time.monotonic() + 120
    while members(process.pid) and time.monotonic() < end:
        time.sleep(0.1)
    assert not members(process.pid), "workers outlived their driver"


@pytest.fixture(scope="module")
def broken(home):
    """Folder of a run that the next two tests interrupt one after the other: each start finds more done."""
    return home / "broken"


def test_kill_9_after_generation_then_ctrl_c(broken, start):
    process = start(broken.name)
    wait_for(broken, "generate", 1, process)
    kill(process)
    before = seconds(broken)
    process = start(broken.name)
    # Said once generation has found the crystals: checks come next, and workers that start.
    assert any("already in the ledger" in line for line in process.stderr)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "--resume" in err and "Traceback" not in err
    assert before.items() <= seconds(broken).items(), "finished work was computed again"


def test_kill_9_among_relaxations_and_resume_gives_the_same_result(whole, home, broken, start):
    process = start(broken.name)
    wait_for(broken, "relax", 1, process)
    kill(process)
    before = seconds(broken)
    again = inside(home, "--out", broken.name, "--resume")
    assert again.returncode == 0, again.stderr
    assert before.items() < seconds(broken).items(), "finished work was computed again"
    assert results(broken) == results(home / "whole")
    assert verdicts(broken) == verdicts(home / "whole")
    with Ledger.open(broken, read_only=True) as ledger:
        assert ledger.get_meta("peak_memory_MB") < 4000


def test_resume_of_a_finished_run_computes_nothing(whole, home):
    before = seconds(home / "whole")
    done = inside(home, "--out", "whole", "--resume")
    assert done.returncode == 0 and seconds(home / "whole") == before


def test_existing_run_is_not_overwritten(whole, home):
    done = inside(home, "c.toml", "--out", "whole")
    assert done.returncode == 2 and "ledger-exists" in done.stderr and "Traceback" not in done.stderr


def test_refused_resume_leaves_the_run_as_it_was(whole, home):
    for change in (["--seed", "4"], ["--n", "3"]):
        done = inside(home, "--out", "whole", "--resume", *change)
        assert done.returncode == 2 and "other-source" in done.stderr
    with Ledger.open(home / "whole", read_only=True) as ledger:
        assert ledger.get_meta("state") == "finished"
        assert ledger.get_meta("settings")["run"]["seed"] == 3
    assert inside(home, "--out", "whole", "--resume").returncode == 0


def test_bad_settings_leave_no_run_behind(home):
    (home / "bad.toml").write_text(CONFIG.replace("steps = 12", 'steps = 12\nelements = ["Nbb"]'))
    done = inside(home, "bad.toml", "--out", "bad")
    assert done.returncode == 2 and "untrained-element" in done.stderr
    assert not (home / "bad").exists()


def test_a_folder_of_crystals_is_screened_instead(whole, home):
    crystals = home / "crystals"
    crystals.mkdir()
    for path in list((home / "whole" / "candidates").glob("*.cif"))[:2]:
        (crystals / path.name).write_bytes(path.read_bytes())
    (crystals / "broken.cif").write_text("data_x\n_cell_length_a 3\n")
    config = CONFIG.replace("[generate]\n", '[generate]\npaths = ["crystals"]\n')
    config = config.replace("workers = 2", "workers = 1").replace('"fast"', '"standard"')
    (home / "files.toml").write_text(config)
    done = inside(home, "files.toml", "--out", "files")
    assert done.returncode == 0, done.stderr
    # The gate's limits are the run's own, and can be changed on resume.
    (home / "files.toml").write_text(config + "[check]\nmax_atoms = 1\n")
    again = inside(home, "files.toml", "--out", "files", "--resume")
    assert again.returncode == 0, again.stderr
    with Ledger.open(home / "files", read_only=True) as ledger:
        assert {v.reason.split(":")[0] for v in ledger.verdicts(stage="check") if not v.passed} == {
            "too-many-atoms"
        }
        assert len(ledger.candidates()) == 2
        ((source, code, _),) = ledger.get_meta("refused_inputs")
        assert "broken.cif" in source and code
