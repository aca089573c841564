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
