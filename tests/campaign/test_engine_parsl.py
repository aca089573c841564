"""Real worker processes of Parsl: the same ledger as the local engine, whoever is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("parsl", reason="the engine tests need Parsl: pip install 'onnes[cluster]'")

from engine_kills import attack, content, undisturbed

from onnes.campaign.discover import discover
from onnes.campaign.engine import open_engine
from onnes.campaign.engine_leftovers import processes_of
from onnes.campaign.engine_parsl import ParslEngine, Shape, machine
from onnes.campaign.ledger import Ledger
from onnes.campaign.settings import EnginePart
from onnes.parallel import EngineError, completed

PARSL = {"kind": "parsl", "workers": 2, "retries": 20}


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    return undisturbed(tmp_path_factory.mktemp("local"))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_killed_workers_drivers_and_interchanges_change_nothing(tmp_path, expected):
    done = attack(tmp_path, ["worker", "driver", "worker", "interchange"], 5, PARSL)
    assert content(done.run) == expected
    assert len(done.rows) >= 3, "the campaign ended before it was attacked"
    # Only what was under way is asked about again: batches of up to three on two workers.
    assert len(done.repeated) <= 6 * len(done.rows)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_killed_manager_is_replaced(tmp_path, expected):
    assert content(attack(tmp_path, ["manager"], 6, PARSL).run) == expected


# -- a campaign from files to report ---------------------------------------------------------------------------------

POSCARS = {"Al": 4.04, "Cu": 3.62, "Pb": 5.0, "Pd": 3.94, "Ca": 5.5, "Sr": 6.0}
#: Every relaxation ends at once; what is left is quick.
CAMPAIGN = {
    "run": {"workers": 1},
    "relax": {"fmax_eV_A": 50.0},
    "prescreen": {"use": "never"},
    "novel": {"keep": "all"},
    "hull": {"max_formation_energy_eV_atom": 5.0, "max_e_hull_eV_atom": 5.0},
    "predict": {"model": "trees", "min_tc_K": 0.0, "min_p_superconductor": 0.0, "max_gap_eV": 10.0},
    "dossier": {"top": 0},
}


@pytest.fixture
def crystals(tmp_path):
    """Settings that read some face-centred cubic metals."""
    folder = tmp_path / "crystals"
    folder.mkdir()
    for symbol, a in POSCARS.items():
        sites = "0 0 0\n0 .5 .5\n.5 0 .5\n.5 .5 0\n"
        text = f"{symbol}\n1.0\n{a} 0 0\n0 {a} 0\n0 0 {a}\n{symbol}\n4\nDirect\n{sites}"
        (folder / f"{symbol}.poscar").write_text(text)
    return {**CAMPAIGN, "generate": {"paths": [str(folder)]}}


class Killer:
    """Kills a worker when the second crystal is relaxed; told by the driver, so that it is always half-way."""

    def __init__(self, run: Path) -> None:
        self.run, self.relaxed, self.killed = run, 0, []

    def begin(self, stage: str, total: int, kept: int) -> None: ...

    def end(self, stage: str) -> None: ...

    def advance(self, stage: str, passed: int, failed: int) -> None:
        self.relaxed += passed + failed if stage == "relax" else 0
        if self.relaxed == 2 and not self.killed:
            with Ledger.open(self.run, read_only=True) as ledger:
                token = ledger.get_meta("engine")["token"]
            commands = {p: Path(f"/proc/{p}/cmdline").read_bytes() for p in processes_of(token)}
            # The two workers come after a helper of theirs.
            workers = sorted(p for p, command in commands.items() if b"spawn_main" in command)
            assert len(workers) == 3
            self.killed = workers[-1:]
            os.kill(self.killed[0], signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_campaign_that_loses_a_worker_ends_like_one_on_local_processes(tmp_path, crystals):
    local = discover(crystals, tmp_path / "local")
    killer = Killer(tmp_path / "cluster")
    cluster = discover({**crystals, "engine": {"kind": "parsl", "workers": 2}}, killer.run, watcher=killer)
    assert killer.killed
    assert len(local) == len(POSCARS) and cluster.equals(local)
    assert content(killer.run) == content(tmp_path / "local")
    with Ledger.open(killer.run, read_only=True) as ledger:
        assert ledger.get_meta("state") == "finished" and ledger.get_meta("peak_memory_MB") > 300


# -- ends ------------------------------------------------------------------------------------------------------------

TERMINATED = """
import sys
from pathlib import Path
from onnes.campaign.engine import open_engine
from onnes.campaign.settings import EnginePart
from onnes.parallel import completed
import time

def note(entry):
    print(entry.get("token", "closed"), flush=True)

if __name__ == "__main__":
    with open_engine(EnginePart(kind="parsl"), 2, Path(sys.argv[1]), None, note) as engine:
        for task, _ in completed(engine, time.sleep, [0.0, 60.0, 60.0]):
            print("first", flush=True)
"""


@pytest.mark.timeout(600)
def test_sigterm_leaves_nothing_running(tmp_path):
    (tmp_path / "driver.py").write_text(TERMINATED)
    with open(tmp_path / "output", "wb") as output:
        driver = subprocess.Popen(
            [sys.executable, "driver.py", str(tmp_path / "run")], cwd=tmp_path, stdout=output, stderr=output
        )
    text = ""
    end = time.monotonic() + 250
    while "first" not in text and time.monotonic() < end and driver.poll() is None:
        time.sleep(0.1)
        text = (tmp_path / "output").read_text()
    token = text.split()[0]
    running = processes_of(token)
    driver.terminate()
    assert driver.wait(60) == 143
    text = (tmp_path / "output").read_text()
    assert len(running) >= 4, text  # Interchange, manager, two workers.
    assert text.split()[-1] == "closed" and "Traceback" not in text
    assert processes_of(token) == []


def in_vain(workers: int) -> Shape:
    """Workers whose set-up fails, as with a module that does not exist."""
    good = machine(workers)
    return Shape(
        "parsl", workers, workers, lambda init: good.provider("echo no such module >&2; exit 3\n" + init),
        good.address, good.here,
    )  # fmt: skip


@pytest.mark.timeout(600)
def test_workers_that_never_come_end_the_run_with_what_they_said(tmp_path):
    notes: list[dict] = []
    engine = ParslEngine(in_vain(2), tmp_path / "engine", 2, notes.append)
    try:
        with pytest.raises(EngineError, match=r"no such module.*no-workers"):
            list(completed(engine, abs, [1]))
    finally:
        engine.close()
    assert "token" not in notes[-1] and processes_of(notes[0]["token"]) == []


@pytest.mark.timeout(600)
def test_a_function_that_workers_cannot_import_is_named(tmp_path, monkeypatch):
    import types

    module = types.ModuleType("only_here")
    exec("def f(x): return x", module.__dict__)
    module.f.__module__ = "only_here"
    monkeypatch.setitem(sys.modules, "only_here", module)
    with (
        open_engine(EnginePart(kind="parsl"), 1, tmp_path, None, lambda entry: None) as engine,
        pytest.raises(EngineError, match=r"only_here.*worker-import"),
    ):
        list(completed(engine, module.f, [1]))
