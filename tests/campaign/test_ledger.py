"""The ledger: round trip, idempotence, lock, damage."""

from __future__ import annotations

import dataclasses
import math

import pytest

from onnes.campaign.ledger import Candidate, Ledger, Verdict
from onnes.errors import LedgerError

STRUCTURE = {"lattice": [[3.0, 0, 0], [0, 3.0, 0], [0, 0, 3.0]], "species": ["Nb"], "frac": [[0, 0, 0]]}


def candidate(i):
    return Candidate(f"g{i:06d}", i, STRUCTURE, "test", 7, {})


def verdict(i, stage="check", **change):
    base = Verdict(f"g{i:06d}", stage, True, "", {"n_atoms": 1}, None, "in", "set", "model", 7, 0.5)
    return dataclasses.replace(base, **change)


def test_round_trip_and_idempotence(tmp_path):
    with Ledger.create(tmp_path, {"a": 1}) as ledger:
        ledger.add_candidates([candidate(0), candidate(1)])
        ledger.add_candidates([candidate(1)])
        ledger.add_verdicts([verdict(0), verdict(1, passed=False, reason="overlapping-atoms")])
        ledger.add_verdicts([verdict(0)])
    with Ledger.open(tmp_path) as again:
        assert again.candidates() == [candidate(0), candidate(1)]
        assert again.verdicts() == [verdict(0), verdict(1, passed=False, reason="overlapping-atoms")]
        assert again.find("g000000", "check", "in", "set", "model") == verdict(0)
        assert again.find("g000000", "check", "other", "set", "model") is None


def test_numbers_that_are_not_finite_are_stored_as_null(tmp_path):
    with Ledger.create(tmp_path) as ledger:
        ledger.add_candidates([candidate(0)])
        ledger.add_verdicts([verdict(0, numbers={"tc_K": math.nan, "e": math.inf, "x": 1.5})])
        assert ledger.verdicts()[0].numbers == {"tc_K": None, "e": None, "x": 1.5}


def test_second_driver_is_refused_and_a_reader_is_not(tmp_path):
    with Ledger.create(tmp_path) as ledger:
        ledger.add_candidates([candidate(0)])
        with pytest.raises(LedgerError):
            Ledger.open(tmp_path)
        with Ledger.open(tmp_path, read_only=True) as reader:
            assert len(reader.candidates()) == 1
    Ledger.open(tmp_path).close()


def test_damaged_file_is_refused(tmp_path):
    with Ledger.create(tmp_path) as ledger:
        ledger.add_candidates([candidate(i) for i in range(50)])
    (path,) = tmp_path.glob("*.sqlite")
    body = bytearray(path.read_bytes())
    body[0:64] = b"x" * 64
    path.write_bytes(bytes(body))
    with pytest.raises(LedgerError):
        Ledger.open(tmp_path)


def failure(i, **change):
    return verdict(i, "relax", passed=False, reason="steps: 0.1 eV/A left", **change)


def test_a_retry_keeps_the_old_verdict_and_is_bounded(tmp_path):
    with Ledger.create(tmp_path) as ledger:
        ledger.add_candidates([candidate(0), candidate(1)])
        ledger.add_verdicts([failure(0), verdict(1, "relax")])
        assert ledger.retry([failure(0), verdict(1, "relax"), failure(1)]) == ([failure(0)], [])
        assert ledger.verdicts() == [verdict(1, "relax")]
        # The key is free again: what asks finds nothing and computes.
        assert ledger.find(*failure(0).key) is None and ("g000000", "in") not in ledger.found(
            "relax", "set", "model"
        )
        ledger.add_verdicts([failure(0, seconds=2.0)], replace=True)
        assert ledger.attempts(failure(0)) == 2
        assert ledger.retry([failure(0, seconds=2.0)], most=2) == ([], [failure(0, seconds=2.0)])
        (old,) = ledger.earlier("g000000")
        assert (old.verdict, old.attempt, old.cause) == (failure(0), 1, "retry") and "process" in old.by
        assert ledger.history("g000000") == [failure(0), failure(0, seconds=2.0)]


def test_what_is_replaced_is_kept_and_the_same_again_changes_nothing(tmp_path):
    fault = failure(0, seconds=9.0)
    fault = dataclasses.replace(fault, reason="worker-died: killed")
    with Ledger.create(tmp_path) as ledger:
        ledger.add_candidates([candidate(0), candidate(1)])
        ledger.add_verdicts([fault, verdict(1)], replace=True)
        assert ledger.add_verdicts([verdict(1, seconds=7.0)], replace=True) == 0
        assert ledger.verdicts("g000001") == [verdict(1)]
        ledger.add_verdicts([fault], replace=True)
        ledger.add_verdicts([verdict(0, "relax")], replace=True)
        assert ledger.verdicts("g000000") == [verdict(0, "relax")]
        assert [(e.attempt, e.cause, e.verdict) for e in ledger.earlier()] == [
            (1, "again", fault),
            (2, "again", fault),
        ]
        assert ledger.attempts(fault) == 3


def test_one_candidate_and_short_rows(tmp_path):
    with Ledger.create(tmp_path) as ledger:
        ledger.add_candidates([candidate(1), candidate(0)])
        ledger.add_verdicts([verdict(0), failure(1)])
        assert ledger.ids() == ["g000000", "g000001"]
        assert ledger.candidate("g000001") == candidate(1) and ledger.candidate("none") is None
        assert sorted(ledger.tally()) == [
            ("g000000", "check", True, "", 0.5, "model"),
            ("g000001", "relax", False, "steps", 0.5, "model"),
        ]
