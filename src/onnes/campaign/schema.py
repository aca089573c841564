"""The ledger's tables, their versions, and how the file is opened, checked and migrated."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from onnes.campaign.entries import meta_digest, pointer_digest
from onnes.errors import LedgerError

#: Marks a SQLite file as ours ("onne").
APPLICATION_ID = 0x6F6E6E65

#: Version of the tables below. A change of them raises it and adds the step to `MIGRATIONS`.
SCHEMA_VERSION = 2

TABLES = (
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
        verdict INTEGER NOT NULL UNIQUE REFERENCES verdicts (row) ON DELETE CASCADE, digest TEXT NOT NULL,
        PRIMARY KEY (candidate, stage)) WITHOUT ROWID""",
    """CREATE TABLE earlier (
        row INTEGER PRIMARY KEY, candidate TEXT NOT NULL REFERENCES candidates (id), stage TEXT NOT NULL,
        input_hash TEXT NOT NULL, settings_hash TEXT NOT NULL, model_hash TEXT NOT NULL,
        passed INTEGER NOT NULL, reason TEXT NOT NULL, numbers TEXT NOT NULL, structure TEXT,
        seed TEXT NOT NULL, seconds REAL NOT NULL, digest TEXT NOT NULL, attempt INTEGER NOT NULL,
        at TEXT NOT NULL, by TEXT NOT NULL, cause TEXT NOT NULL, seal TEXT NOT NULL)""",
    "CREATE INDEX earlier_of ON earlier (candidate, stage)",
    "CREATE INDEX verdicts_at ON verdicts (stage)",
    """CREATE TABLE chunks (
        source TEXT NOT NULL, start INTEGER NOT NULL, stop INTEGER NOT NULL,
        PRIMARY KEY (source, start, stop)) WITHOUT ROWID""",
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL, digest TEXT NOT NULL) WITHOUT ROWID",
)


def _to_2(db: sqlite3.Connection) -> None:
    """Hashes for ``current`` and ``meta``, a table for verdicts that are tried again."""
    new = {
        name: next(t for t in TABLES if t.startswith(f"CREATE TABLE {name} ")) for name in ("current", "meta")
    }
    for name, table in new.items():
        db.execute(f"ALTER TABLE {name} RENAME TO old_{name}")
        db.execute(table)
    db.execute(
        "INSERT INTO current SELECT candidate, stage, verdict, pointer_digest(candidate, stage, verdict) "
        "FROM old_current"
    )
    db.execute("INSERT INTO meta SELECT key, value, meta_digest(key, value) FROM old_meta")
    for name in new:
        db.execute(f"DROP TABLE old_{name}")
    for table in TABLES:
        if " earlier" in table or "verdicts_at" in table:
            db.execute(table)


#: Step from a version to the next: ``MIGRATIONS[1]`` takes a file of version 1 to version 2.
MIGRATIONS: dict[int, Callable[[sqlite3.Connection], None]] = {1: _to_2}


def build(file: Path) -> None:
    """Create an empty ledger; the file appears under its name only when it is complete."""
    part = file.with_name(file.name + ".part")
    part.unlink(missing_ok=True)
    db = sqlite3.connect(part, isolation_level=None)
    try:
        with transaction(db):
            for table in TABLES:
                db.execute(table)
            db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    finally:
        db.close()
    os.replace(part, file)
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def connect(file: Path, *, read_only: bool = False) -> sqlite3.Connection:
    """Open, check and (as the driver) migrate a ledger.

    The driver runs SQLite's full integrity check; a reader the quick one, and it then stays inside one
    read transaction, so that all it reads belongs to one moment.
    """
    uri = file.resolve().as_uri()
    db = sqlite3.connect(
        uri + (_read_mode(file) if read_only else "?mode=rw"), uri=True, isolation_level=None
    )
    try:
        db.execute("PRAGMA busy_timeout = 10000")
        if read_only:
            db.execute("BEGIN")
        _check_kind(db, file)
        _check_pages(db, file, "quick_check" if read_only else "integrity_check")
        if not read_only:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
        db = _of_this_version(db, file, read_only)
        _check_rows(db, file)
        # Foreign keys are enforced after a migration: it moves rows about.
        db.execute(f"PRAGMA foreign_keys = {'OFF' if read_only else 'ON'}")
    except BaseException:
        db.close()
        raise
    return db


def _read_mode(file: Path) -> str:
    # SQLite keeps its shared-memory file beside the ledger. In a folder that cannot be written, a
    # ledger without a pending log is read as a plain file instead.
    wal = file.with_name(file.name + "-wal")
    pending = wal.exists() and wal.stat().st_size > 0
    return "?mode=ro" if pending or os.access(file.parent, os.W_OK) else "?mode=ro&immutable=1"


def _check_kind(db: sqlite3.Connection, file: Path) -> None:
    (kind,) = db.execute("PRAGMA application_id").fetchone()
    if kind != APPLICATION_ID:
        what = "is empty" if file.stat().st_size == 0 else "is not a ledger of onnes"
        raise LedgerError("not-a-ledger", f"{file} {what}")


def _check_pages(db: sqlite3.Connection, file: Path, pragma: str) -> None:
    found = [str(row[0]) for row in db.execute(f"PRAGMA {pragma}(3)")]
    if found != ["ok"]:
        raise LedgerError("damaged-ledger", f"{file} is damaged: {'; '.join(found)}")


def _check_rows(db: sqlite3.Connection, file: Path) -> None:
    """The rows that say what counts, and the facts of the run, against their hashes."""
    bad = db.execute("SELECT key FROM meta WHERE digest <> meta_digest(key, value)").fetchone()
    if bad is not None:
        raise LedgerError("damaged-ledger", f"{file}: the entry {bad[0]} of meta does not match its hash")
    bad = db.execute(
        "SELECT candidate, stage FROM current WHERE digest <> pointer_digest(candidate, stage, verdict)"
    ).fetchone()
    bad = (
        bad
        or db.execute(
            "SELECT c.candidate, c.stage FROM current c LEFT JOIN verdicts v ON v.row = c.verdict "
            "WHERE v.row IS NULL OR v.candidate <> c.candidate OR v.stage <> c.stage"
        ).fetchone()
    )
    if bad is not None:
        raise LedgerError(
            "damaged-ledger", f"{file}: the current verdict {bad[1]} of {bad[0]} does not match its hash"
        )


def _of_this_version(db: sqlite3.Connection, file: Path, read_only: bool) -> sqlite3.Connection:
    """Migrate an older ledger: the driver the file itself, a reader a copy in memory."""
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version > SCHEMA_VERSION:
        raise LedgerError(
            "newer-ledger",
            f"{file} has schema {version}, this onnes knows up to {SCHEMA_VERSION}: use a newer onnes",
        )
    if version < SCHEMA_VERSION and read_only:
        copy = sqlite3.connect(":memory:", isolation_level=None)
        db.backup(copy)
        db.close()
        db = copy
    db.create_function("pointer_digest", 3, pointer_digest, deterministic=True)
    db.create_function("meta_digest", 2, meta_digest, deterministic=True)
    if version < SCHEMA_VERSION:
        with transaction(db):
            for step in range(version, SCHEMA_VERSION):
                if step not in MIGRATIONS:
                    raise LedgerError(
                        "older-ledger", f"{file} has schema {version}, which can no longer be read"
                    )
                MIGRATIONS[step](db)
            db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    return db


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """All or nothing: commit at the end, roll back on any exception."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


@contextmanager
def guard(file: Path) -> Iterator[None]:
    """Turn SQLite's and the system's errors into a `LedgerError` with a reason code."""
    try:
        yield
    except sqlite3.IntegrityError as error:
        code = "unknown-candidate" if "FOREIGN KEY" in str(error) else "ledger-conflict"
        words = (
            "a verdict names a candidate that is not in the ledger" if "FOREIGN" in str(error) else str(error)
        )
        raise LedgerError(code, f"{file}: {words}") from error
    except sqlite3.Error as error:
        code, hint = _explain(str(error))
        raise LedgerError(code, f"{file}: {error}{hint}") from error
    except OSError as error:
        raise LedgerError("unwritable-run", f"{error.filename or file}: {error.strerror}") from error


def _explain(text: str) -> tuple[str, str]:
    table = {
        "full": ("disk-full", "; free some space, then resume"),
        "readonly": ("read-only", "; the run folder must be writable"),
        "locked": ("run-in-use", ""),
        "unable to open": ("unreadable-ledger", "; check the permissions of the run folder"),
        "disk I/O": ("disk-error", ""),
        "closed": ("closed-ledger", ""),
    }
    return next((entry for part, entry in table.items() if part in text), ("damaged-ledger", ""))
