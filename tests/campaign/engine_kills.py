"""A campaign whose parts are killed (kill -9) at random moments, compared with one that nobody disturbs.

The stages write a line for every crystal they are asked about, in one atomic write, so that what was done twice shows.
``python tests/campaign/engine_kills.py study --moments 20 --out DIR`` makes the table of ``docs/cluster.md``.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from onnes.campaign.engine import open_engine
from onnes.campaign.engine_leftovers import processes_of
from onnes.campaign.funnel import Item, Outcome, Stage, run_funnel
from onnes.campaign.ledger import Candidate, Ledger, ledger_file
from onnes.campaign.settings import EnginePart
from onnes.errors import CrystalError, LedgerError

#: Crystals of the campaign, and seconds of work on each in each of the two parallel stages.
CRYSTALS, WORK_S = 60, 0.1
VICTIMS = ("worker", "driver", "manager", "interchange")
PATIENCE_S = 280.0


def asked(items: list[Item], *, stage: str, log: str, work_s: float) -> list[Outcome]:
    """Write down who is asked, work a little, answer; every seventh crystal is refused."""
    lines = "".join(f"{stage} {item.id} {os.getpid()}\n" for item in items)
    with open(log, "ab", buffering=0) as stream:
        stream.write(lines.encode())
    time.sleep(work_s * len(items))
    found = []
    for item in items:
        value = (item.index * 37 + len(stage)) % 101
        reason = "" if value % 7 else f"unlucky: {value}"
        found.append(Outcome(item.id, not reason, reason, {stage: value / 7.0}, item.structure))
    return found


def strict(items: list[Item], *, log: str, work_s: float) -> list[Outcome]:
    """Refuse by a typed error, which is the verdict of one crystal."""
    if any(item.index % 11 == 5 for item in items) and len(items) == 1:
        raise CrystalError("no-eleven", f"crystal {items[0].index}")
    return asked(items, stage="second", log=log, work_s=work_s)


def best(items: list[Item]) -> list[Outcome]:
    order = sorted(items, key=lambda i: (-i.numbers["second"], i.index))
    return [Outcome(i.id, True, "", {"rank": k}) for k, i in enumerate(order)]


def stages(log: Path, work_s: float) -> list[Stage]:
    """Two parallel stages, in batches and singly, and one that compares all."""
    first = partial(asked, stage="first", log=str(log), work_s=work_s)
    second = partial(strict, log=str(log), work_s=work_s)
    return [
        Stage("first", first, {"k": 1}, "m1", batch_size=3, parallel=True),
        Stage("second", second, {"k": 2}, "m2", batch_size=1, parallel=True),
        Stage("rank", best, whole=True),
    ]


def drive(run: Path, log: Path, part: EnginePart, work_s: float = WORK_S) -> None:
    """Do the campaign, or go on with it."""
    crystal = {"lattice": [[3, 0, 0], [0, 4, 0], [0, 0, 5]], "species": ["Al"], "frac": [[0.0, 0.0, 0.0]]}
    held = ledger_file(run).exists()
    with Ledger.open(run) if held else Ledger.create(run, {}) as ledger:
        ledger.add_candidates(Candidate(f"c{k:03d}", k, {**crystal, "k": k}) for k in range(CRYSTALS))

        def note(entry: dict[str, Any]) -> None:
            ledger.set_meta("engine", entry)

        with open_engine(part, 2, run, ledger.get_meta("engine"), note) as engine:
            run_funnel(ledger, stages(log, work_s), engine)
            engine.close(kill=False)


def content(run: Path) -> dict[str, Any]:
    """What a ledger says, apart from the seconds."""
    with Ledger.open(run, read_only=True) as ledger:
        found = {
            v.key: (v.passed, v.reason, v.numbers, v.structure, v.seed)
            for v in sorted(ledger.verdicts(), key=lambda v: v.key)
        }
        return {"candidates": ledger.candidates(), "verdicts": found}


def committed(run: Path) -> set[tuple[str, str]]:
    """Stages and crystals whose verdict is in the ledger."""
    try:
        with Ledger.open(run, read_only=True) as ledger:
            return {(v.stage, v.candidate) for v in ledger.verdicts()}
    except LedgerError:
        return set()


def record(run: Path) -> dict[str, Any]:
    """What the ledger says of the running engine."""
    try:
        with Ledger.open(run, read_only=True) as ledger:
            return dict(ledger.get_meta("engine") or {})
    except LedgerError:
        return {}


def executions(log: Path) -> list[tuple[str, str, int]]:
    """Stage, crystal and process of every line."""
    if not log.exists():
        return []
    lines = [line.split() for line in log.read_text().splitlines()]
    return [(stage, crystal, int(pid)) for stage, crystal, pid in lines]


@dataclass
class Campaign:
    """A campaign under attack."""

    folder: Path
    rng: random.Random
    part: dict[str, Any]
    environment: dict[str, str] | None = None
    rows: list[dict[str, Any]] = field(default_factory=list)
    repeated: set[tuple[str, str]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.run, self.log = self.folder / "run", self.folder / "log"
        self.driver: subprocess.Popen[bytes] | None = None
        self.looks: list[tuple[set[tuple[str, str]], int]] = []

    def start(self) -> None:
        """Start a driver; its output goes to a file: what outlives it must not hold a pipe open."""
        command = [sys.executable, __file__, "drive", str(self.run), str(self.log), json.dumps(self.part)]
        with open(self.folder / "output", "ab") as output:
            self.driver = subprocess.Popen(
                command, stdout=output, stderr=output, start_new_session=True, env=self.environment
            )

    def wait_for(self, count: int) -> bool:
        """Wait until so many crystals were asked about; False when the campaign ended before."""
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            if len(executions(self.log)) >= count:
                return True
            if self.driver is not None and self.driver.poll() is not None:
                return False
            time.sleep(0.02)
        raise AssertionError(f"{count} crystals were never asked about; see {self.folder / 'output'}")

    def strike(self, victim: str, done: int) -> None:
        """Kill at a random moment after so many crystals."""
        if not self.wait_for(done):
            return
        time.sleep(self.rng.uniform(0.0, 2 * WORK_S))
        before, began = len(executions(self.log)), time.monotonic()
        pid = self.pid_of(victim)
        if pid is None:
            return
        os.kill(pid, signal.SIGKILL)
        self.looks.append((committed(self.run), len(executions(self.log))))
        if victim == "driver":
            assert self.driver is not None
            self.driver.wait()
            self.start()
        ahead = len(executions(self.log)) + 4
        row = {"victim": victim, "asked_before": before}
        self.wait_for(ahead)
        row["seconds_until_work_went_on"] = round(time.monotonic() - began, 1)
        self.rows.append(row)

    def pid_of(self, victim: str) -> int | None:
        """Process to kill; None when there is none at this moment."""
        assert self.driver is not None
        if victim == "driver":
            return self.driver.pid
        if victim == "interchange":
            return record(self.run).get("interchange")
        # The last one that was asked; on Parsl its parent is the manager.
        worker = executions(self.log)[-1][2]
        try:
            parent = int(Path(f"/proc/{worker}/stat").read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            return None
        return worker if victim == "worker" else parent

    def finish(self) -> None:
        """Wait for the end and check what must hold."""
        assert self.driver is not None
        code = self.driver.wait(PATIENCE_S)
        assert code == 0, (self.folder / "output").read_text()[-2000:]
        log = executions(self.log)
        for known, place in self.looks:
            again = {(stage, crystal) for stage, crystal, _ in log[place:]} & known
            assert not again, f"asked again although the ledger had the answer: {sorted(again)[:5]}"
        keys = [(stage, crystal) for stage, crystal, _ in log]
        self.repeated = {key for key in keys if keys.count(key) > 1}
        token = record(self.run).get("token")
        assert token is None, "the engine was not closed"

    def end(self) -> None:
        """Leave nothing running, whatever happened."""
        token = record(self.run).get("token")
        if self.driver is not None and self.driver.poll() is None:
            self.driver.kill()
            self.driver.wait()
        for pid in processes_of(token) if token else []:
            os.kill(pid, signal.SIGKILL)


def attack(
    folder: Path,
    victims: list[str],
    seed: int,
    part: dict[str, Any],
    environment: dict[str, str] | None = None,
) -> Campaign:
    """Run one campaign, killing the victims one after the other at random moments."""
    rng = random.Random(seed)
    campaign = Campaign(folder, rng, part, environment)
    # Answers are 60 of the first stage and about 50 of the second; what is done again comes on top.
    moments = sorted(rng.sample(range(4, 90), len(victims)))
    try:
        campaign.start()
        for victim, moment in zip(victims, moments, strict=True):
            campaign.strike(victim, moment)
        campaign.finish()
    finally:
        campaign.end()
    return campaign


def undisturbed(folder: Path) -> dict[str, Any]:
    """Content of the ledger of a campaign on two local processes."""
    folder.mkdir(parents=True, exist_ok=True)
    drive(folder / "run", folder / "log", EnginePart(kind="local", workers=2), work_s=0.0)
    return content(folder / "run")


def study(out: Path, moments: int, seed: int) -> None:
    """Print a table: for every campaign whom it lost and whether its ledger is the undisturbed one."""
    expected = undisturbed(out / "undisturbed")
    total = len(executions(out / "undisturbed" / "log"))
    rows: list[dict[str, Any]] = []
    part = {"kind": "parsl", "workers": 2, "retries": 20}
    for k in range((moments + 3) // 4):
        victims = [VICTIMS[(k + i) % 4] if i == 3 else VICTIMS[i % 2] for i in range(min(4, moments - 4 * k))]
        done = attack(out / f"campaign-{k}", victims, seed + k, part)
        found = content(done.run)
        assert found["candidates"] == expected["candidates"]
        equal = found["verdicts"] == expected["verdicts"]
        asked_about = len(executions(done.log))
        for row in done.rows:
            rows.append({"campaign": k, **row})
            print(json.dumps(rows[-1]), flush=True)
        summary = {"campaign": k, "kills": len(done.rows), "ledger_equal": equal, "asked": asked_about}
        print(json.dumps({**summary, "undisturbed": total, "asked_twice": len(done.repeated)}), flush=True)
        assert equal


def main() -> None:
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(dest="command", required=True)
    driving = commands.add_parser("drive")
    driving.add_argument("run", type=Path)
    driving.add_argument("log", type=Path)
    driving.add_argument("part", type=json.loads)
    studying = commands.add_parser("study")
    studying.add_argument("--out", type=Path, required=True)
    studying.add_argument("--moments", type=int, default=20)
    studying.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if args.command == "drive":
        # Workers import this file by its name; the driver's own copy of it is called __main__.
        import engine_kills

        engine_kills.drive(args.run, args.log, EnginePart(**args.part))
    else:
        study(args.out, args.moments, args.seed)


if __name__ == "__main__":
    main()
