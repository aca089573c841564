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


def test_untouched_entries_come_back(run):
    with Ledger.open(run, read_only=True) as ledger:
        (verdict,) = ledger.verdicts()
        assert (verdict.numbers, verdict.seed, verdict.seconds) == ({"k": 1.5}, 3, 0.25)
