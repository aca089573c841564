"""A ledger of schema 1, as onnes wrote it before verdicts could be tried again, opened by this one."""

from __future__ import annotations

import sqlite3

import pytest

from onnes.campaign.canonical import canonical, text_hash
from onnes.campaign.ledger import Candidate, Ledger, Verdict
from onnes.campaign.schema import APPLICATION_ID, SCHEMA_VERSION
from onnes.errors import LedgerError

#: The tables of schema 1, word for word.
SCHEMA_1 = (
    """CREATE TABLE candidates (
        id TEXT PRIMARY KEY, idx INTEGER NOT NULL UNIQUE, structure TEXT NOT NULL, source TEXT NOT NULL,
        seed TEXT NOT NULL, meta TEXT NOT NULL, digest TEXT NOT NULL) WITHOUT ROWID""",
    """CREATE TABLE verdicts (
        row INTEGER PRIMARY KEY, candidate TEXT NOT NULL REFERENCES candidates (id), stage TEXT NOT NULL,
        input_hash TEXT NOT NULL, settings_hash TEXT NOT NULL, model_hash TEXT NOT NULL,
        passed INTEGER NOT NULL, reason TEXT NOT NULL, numbers TEXT NOT NULL, structure TEXT,
        seed TEXT NOT NULL, seconds REAL NOT NULL, digest TEXT NOT NULL,
        UNIQUE (candidate, stage, input_hash, settings_hash, model_hash))""",
    """CREATE TABLE current (
        candidate TEXT NOT NULL, stage TEXT NOT NULL,
        verdict INTEGER NOT NULL UNIQUE REFERENCES verdicts (row) ON DELETE CASCADE,
        PRIMARY KEY (candidate, stage)) WITHOUT ROWID""",
    """CREATE TABLE chunks (
        source TEXT NOT NULL, start INTEGER NOT NULL, stop INTEGER NOT NULL,
        PRIMARY KEY (source, start, stop)) WITHOUT ROWID""",
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
)
CRYSTAL = {"lattice": [[3.3, 0, 0], [0, 3.3, 0], [0, 0, 3.3]], "species": ["Nb"], "frac": [[0, 0, 0]]}


def verdict(k: int, settings: str, passed: bool) -> Verdict:
    reason = "" if passed else "steps: 0.2 eV/A left"
    return Verdict(f"g{k}", "relax", passed, reason, {"e": -1.5 - k}, None, "in", settings, "m", k, 0.5)


@pytest.fixture
def old(tmp_path):
    """Three candidates, verdicts of two settings, the second ones current."""
    file = tmp_path / "run" / "ledger.sqlite"
    file.parent.mkdir()
    db = sqlite3.connect(file)
    db.execute("PRAGMA journal_mode = WAL")
    for table in SCHEMA_1:
        db.execute(table)
    db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    db.execute("PRAGMA user_version = 1")
    for k in range(3):
        row = (f"g{k}", k, canonical(CRYSTAL), "symmetric", str(k), "{}")
        db.execute("INSERT INTO candidates VALUES (?,?,?,?,?,?,?)", (*row, text_hash(*map(str, row))))
    for settings, shift in (("s1", 0), ("s2", 1)):
        for k in range(3):
            v = verdict(k, settings, passed=k != shift)
            row = (v.candidate, v.stage, int(v.passed), v.reason, canonical(v.numbers), None)
            row = (*row, "in", settings, "m", str(k), 0.5)
            digest = text_hash(*(None if x is None else str(x) for x in row))
            names = "candidate, stage, passed, reason, numbers, structure, input_hash, settings_hash, model_hash, "
            names += "seed, seconds, digest"
            db.execute(f"INSERT INTO verdicts ({names}) VALUES ({','.join('?' * 12)})", (*row, digest))
    db.execute("INSERT INTO current SELECT candidate, stage, row FROM verdicts WHERE settings_hash = 's2'")
    db.execute("INSERT INTO chunks VALUES ('h', 0, 3)")
    db.executemany(
        "INSERT INTO meta VALUES (?, ?)", [("settings", '{"run":{"n":3}}'), ("state", '"finished"')]
    )
    db.commit()
    db.close()
    return file.parent


def test_a_reader_sees_it_all_and_changes_nothing(old):
    before = (old / "ledger.sqlite").read_bytes()
    with Ledger.open(old, read_only=True) as ledger:
        assert ledger.verdicts() == [verdict(k, "s2", passed=k != 1) for k in range(3)]
        assert ledger.meta == {"settings": {"run": {"n": 3}}, "state": "finished"}
        assert ledger.earlier() == [] and len(ledger.candidates()) == 3
    assert (old / "ledger.sqlite").read_bytes() == before


def test_a_schema_that_nothing_leads_from_is_refused(old):
    with sqlite3.connect(old / "ledger.sqlite") as db:
        db.execute("PRAGMA user_version = 0")
    for read_only in (True, False):
        with pytest.raises(LedgerError, match="older-ledger"):
            Ledger.open(old, read_only=read_only)


def test_a_driver_migrates_and_everything_is_still_there(old):
    with Ledger.open(old) as ledger:
        assert ledger.candidates() == [Candidate(f"g{k}", k, CRYSTAL, "symmetric", k, {}) for k in range(3)]
        assert ledger.verdicts() == [verdict(k, "s2", passed=k != 1) for k in range(3)]
        assert ledger.history() == [
            verdict(k, s, k != j) for j, s in enumerate(("s1", "s2")) for k in range(3)
        ]
        assert ledger.found("relax", "s1", "m")["g0", "in"] == verdict(0, "s1", passed=False)
        assert ledger.meta == {"settings": {"run": {"n": 3}}, "state": "finished"}
        assert ledger.chunks() == {("h", 0, 3)}
        # What the new schema is for works on the old verdicts.
        (failed,) = [v for v in ledger.verdicts() if not v.passed]
        assert ledger.retry([failed]) == ([failed], [])
    with sqlite3.connect(old / "ledger.sqlite") as db:
        assert db.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert db.execute("PRAGMA foreign_key_check").fetchall() == []
    with Ledger.open(old, read_only=True) as ledger:
        assert [e.verdict for e in ledger.earlier()] == [failed]
        assert [v.candidate for v in ledger.verdicts()] == ["g0", "g2"]


def test_a_migrated_ledger_has_the_tables_of_a_new_one(old, tmp_path):
    Ledger.open(old).close()
    Ledger.create(tmp_path / "new").close()

    def tables(folder):
        with sqlite3.connect(folder / "ledger.sqlite") as db:
            rows = db.execute("SELECT type, name, sql FROM sqlite_master").fetchall()
        return {(kind, name): " ".join((sql or "").replace('"', "").split()) for kind, name, sql in rows}

    assert tables(old) == tables(tmp_path / "new")


def test_a_migration_that_fails_leaves_the_old_ledger(old, monkeypatch):
    def broken(db):
        db.execute("ALTER TABLE current RENAME TO old_current")
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setitem(__import__("onnes.campaign.schema", fromlist=["x"]).MIGRATIONS, 1, broken)
    with pytest.raises(LedgerError, match="disk-full"):
        Ledger.open(old)
    monkeypatch.undo()
    with Ledger.open(old) as ledger:
        assert len(ledger.verdicts()) == 3


def test_a_newer_ledger_is_refused(old):
    with sqlite3.connect(old / "ledger.sqlite") as db:
        db.execute("PRAGMA user_version = 99")
    for read_only in (True, False):
        with pytest.raises(LedgerError, match="newer-ledger"):
            Ledger.open(old, read_only=read_only)
