"""A ledger that was changed behind the program's back is refused, not believed."""

from __future__ import annotations

import sqlite3

import pytest

from onnes.campaign.ledger import Candidate, Ledger, Verdict
from onnes.errors import LedgerError


@pytest.fixture
def run(tmp_path):
    with Ledger.create(tmp_path / "run", {"a": 1}) as ledger:
        ledger.add_candidates([Candidate("c0", 0, {"species": ["Al"]}, "x", 3)])
        ledger.add_verdicts([Verdict("c0", "s", True, "", {"k": 1.5}, None, "i", "s", "m", 3, 0.25)])
    return tmp_path / "run"


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE verdicts SET numbers = '{\"k\":2.5}'",
        "UPDATE verdicts SET passed = 0",
        "UPDATE verdicts SET seed = 'abc'",
        "UPDATE verdicts SET seed = '4'",
        "UPDATE verdicts SET seconds = 0.5",
        'UPDATE candidates SET structure = \'{"species":["Au"]}\'',
        "UPDATE candidates SET seed = 'abc'",
    ],
)
def test_changed_entries_are_refused(run, change):
    with sqlite3.connect(run / "ledger.sqlite") as db:
        db.execute(change)
    with Ledger.open(run, read_only=True) as ledger, pytest.raises(LedgerError, match="damaged-ledger"):
        ledger.verdicts()
        ledger.candidates()


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE meta SET value = '{\"a\":2}' WHERE key = 'settings'",
        "UPDATE meta SET key = 'other' WHERE key = 'settings'",
        "UPDATE current SET stage = 't'",
        "UPDATE current SET candidate = 'c1'",
        "UPDATE current SET verdict = 2",
        "UPDATE current SET digest = ''",
        "DELETE FROM verdicts",
    ],
)
@pytest.mark.parametrize("read_only", [True, False])
def test_changed_pointers_and_facts_are_refused_on_opening(run, change, read_only):
    with Ledger.open(run) as ledger:
        ledger.add_candidates([Candidate("c1", 1, {"species": ["Al"]}, "x", 3)])
        ledger.add_verdicts([Verdict("c1", "r", True, "", {}, None, "i", "s", "m", 3, 0.25)])
        ledger.forget(["c1"], ["r"])
    with sqlite3.connect(run / "ledger.sqlite") as db:
        db.execute(change)
    with pytest.raises(LedgerError, match="damaged-ledger"):
        Ledger.open(run, read_only=read_only)


def test_a_changed_earlier_verdict_is_refused(run):
    with Ledger.open(run) as ledger:
        ledger.add_candidates([Candidate("c1", 1, {"species": ["Al"]}, "x", 3)])
        failed = Verdict("c1", "r", False, "steps", {}, None, "i", "s", "m", 3, 0.25)
        ledger.add_verdicts([failed])
        ledger.retry([failed])
    for change in ("by = 'nobody'", "attempt = 7", "passed = 1"):
        with sqlite3.connect(run / "ledger.sqlite") as db:
            db.execute(f"UPDATE earlier SET {change}")
        with Ledger.open(run, read_only=True) as ledger, pytest.raises(LedgerError, match="damaged-ledger"):
            ledger.earlier()


def test_untouched_entries_come_back(run):
    with Ledger.open(run, read_only=True) as ledger:
        (verdict,) = ledger.verdicts()
        assert (verdict.numbers, verdict.seed, verdict.seconds) == ({"k": 1.5}, 3, 0.25)
