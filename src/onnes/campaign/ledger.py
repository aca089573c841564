"""The ledger of a run: one SQLite file that alone knows what has been done.

Verdicts are never changed or deleted; one that is tried again moves to the table ``earlier``. A small table,
``current``, says which verdict of each candidate and stage belongs to the run as it is set up now: with other
settings it points elsewhere, and with the old settings back it returns to the old verdicts without any work.
"""

from __future__ import annotations

import dataclasses
import datetime
import gc
import json
import os
import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from onnes.campaign import schema
from onnes.campaign.canonical import canonical, content_hash
from onnes.campaign.entries import (
    MACHINE,
    Candidate,
    Earlier,
    UnequalError,
    Verdict,
    candidate_of,
    candidate_row,
    meta_digest,
    seal,
    verdict_of,
    verdict_row,
)
from onnes.campaign.lock import LOCK_NAME, DriverLock, me
from onnes.errors import LedgerError

__all__ = ["FILE_NAME", "Candidate", "Earlier", "Ledger", "Verdict", "content_hash"]

T = TypeVar("T")

FILE_NAME = "ledger.sqlite"
#: Attempts a candidate may have at a stage before `Ledger.retry` refuses another one.
MOST_ATTEMPTS = 5

_CANDIDATE = "id, idx, structure, source, seed, meta, digest"
_COLUMNS = (
    "candidate, stage, passed, reason, numbers, structure, input_hash, settings_hash, model_hash, seed, seconds, "
    "digest"
)
_VERDICT = ", ".join(f"v.{name}" for name in _COLUMNS.split(", "))
_KEY = "candidate = ? AND stage = ? AND input_hash = ? AND settings_hash = ? AND model_hash = ?"


class Ledger:
    """An open ledger. Use `create` or `open`; close it, or use it in a ``with`` statement.

    Attributes
    ----------
    path : Path
        The SQLite file.
    read_only : bool
        Whether it was opened for reading. A reader sees the run as it was at the moment of opening,
        needs no lock and never disturbs the driver.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection, lock: DriverLock | None) -> None:
        self.path = path
        self.read_only = lock is None
        self._db = connection
        self._lock = lock

    @classmethod
    def create(cls, path: str | os.PathLike[str], settings: Mapping[str, Any] | str | None = None) -> Ledger:
        """Create the ledger of a new run and open it as its driver.

        Parameters
        ----------
        path : path
            The run folder, or the ``.sqlite`` file in it. Missing folders are made.
        settings : dict or str
            The settings of the run (a dict, or its JSON text), kept under ``meta["settings"]``.

        Raises
        ------
        LedgerError
            ``ledger-exists``, ``run-in-use``, ``unwritable-run``, ``disk-full``.
        """
        file = ledger_file(path)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise LedgerError("unwritable-run", f"cannot make {file.parent}: {error.strerror}") from None
        lock = DriverLock(file.with_name(LOCK_NAME))
        try:
            if file.exists():
                raise LedgerError("ledger-exists", f"{file} exists: resume that run, or use another folder")
            with schema.guard(file):
                schema.build(file)
                ledger = cls(file, schema.connect(file), lock)
            loaded = json.loads(settings) if isinstance(settings, str) else settings
            ledger.update_meta({"settings": loaded or {}, "created": now()})
            return ledger
        except BaseException:
            lock.release()
            raise

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, read_only: bool = False) -> Ledger:
        """Open the ledger of a run.

        Parameters
        ----------
        path : path
            The run folder, or the ``.sqlite`` file in it.
        read_only : bool
            False: as the driver, the only one allowed to write. True: for a report, at any time.

        Raises
        ------
        LedgerError
            ``no-ledger``, ``not-a-ledger``, ``damaged-ledger``, ``newer-ledger``, ``older-ledger``, ``run-in-use``,
            ``unwritable-run``. A ledger of an older schema is migrated: by the driver in its file, by a reader in
            memory.
        """
        file = ledger_file(path)
        if not file.is_file():
            raise LedgerError("no-ledger", f"{file.parent} holds no run: {file.name} is missing")
        lock = None if read_only else DriverLock(file.with_name(LOCK_NAME))
        try:
            with schema.guard(file):
                return cls(file, schema.connect(file, read_only=read_only), lock)
        except BaseException:
            if lock is not None:
                lock.release()
            raise

    def close(self) -> None:
        """Close the file and let another driver in. Harmless when repeated."""
        self._db.close()
        if self._lock is not None:
            self._lock.release()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # -- candidates ------------------------------------------------------------------------------

    def add_candidates(
        self, candidates: Iterable[Candidate], *, chunk: tuple[str, int, int] | None = None
    ) -> int:
        """Add candidates in one transaction; those already there, with the same content, are left alone.

        Parameters
        ----------
        candidates : iterable of Candidate
        chunk : (str, int, int)
            Source hash, start and stop of the indices these candidates complete; see `chunks`.

        Returns
        -------
        int
            How many were new.

        Raises
        ------
        LedgerError
            ``candidate-conflict``: the id or the index exists with other content.
        """
        rows = [candidate_row(c) for c in candidates]
        with self._transaction() as db:
            before = db.total_changes
            db.executemany(f"INSERT OR IGNORE INTO candidates ({_CANDIDATE}) VALUES (?,?,?,?,?,?,?)", rows)
            added = db.total_changes - before
            if added < len(rows):
                self._refuse_conflicts(rows)
            if chunk is not None:
                db.execute("INSERT OR IGNORE INTO chunks (source, start, stop) VALUES (?,?,?)", chunk)
        return added

    def _refuse_conflicts(self, rows: list[tuple[Any, ...]]) -> None:
        for row in rows:
            held = self._db.execute("SELECT idx, digest FROM candidates WHERE id = ?", (row[0],)).fetchone()
            if held is None:
                raise LedgerError(
                    "candidate-conflict", f"index {row[1]} of {row[0]} belongs to another candidate"
                )
            if held != (row[1], row[6]):
                raise LedgerError("candidate-conflict", f"{row[0]} is in the ledger with another content")

    def candidates(self) -> list[Candidate]:
        """Return all candidates in the order of their index."""
        with schema.guard(self.path):
            rows = self._db.execute(f"SELECT {_CANDIDATE} FROM candidates ORDER BY idx").fetchall()
        with _uncollected():
            return [self._read(candidate_of, row) for row in rows]

    def chunks(self) -> set[tuple[str, int, int]]:
        """Return the completed chunks of generation: (source hash, start, stop)."""
        with schema.guard(self.path):
            return set(self._db.execute("SELECT source, start, stop FROM chunks"))

    # -- verdicts --------------------------------------------------------------------------------

    def add_verdicts(self, verdicts: Iterable[Verdict], *, replace: bool = False) -> int:
        """Add verdicts in one transaction and make them the current ones.

        Parameters
        ----------
        verdicts : iterable of Verdict
            Of candidates that are in the ledger.
        replace : bool
            What to do with a verdict of the same key: keep the stored one (default), or put it among the
            `earlier` ones (a retry of a failure that was the machine's, not the crystal's).

        Returns
        -------
        int
            How many were written.

        Raises
        ------
        LedgerError
            ``unknown-candidate``; nothing is written then.
        """
        given = batch = list(verdicts)
        with self._transaction() as db:
            if replace:
                batch = self._put_aside(batch)
            before = db.total_changes
            db.executemany(
                f"INSERT OR IGNORE INTO verdicts ({_COLUMNS}) VALUES ({','.join('?' * 12)})",
                [verdict_row(v) for v in batch],
            )
            added = db.total_changes - before
            self._point(given)
        return added

    def _put_aside(self, batch: list[Verdict]) -> list[Verdict]:
        """Move what the batch replaces to the earlier verdicts; returns what is really new.

        The same answer again (a stage that compares all crystals answers for all) changes nothing; a fault of the
        machine that comes back is another attempt.
        """
        fresh = []
        for v in batch:
            held = self.find(*v.key)
            if (
                held is not None
                and dataclasses.replace(v, seconds=held.seconds) == held
                and v.code not in MACHINE
            ):
                continue
            if held is not None:
                self._archive(held, "again")
            fresh.append(v)
        return fresh

    def _archive(self, v: Verdict, cause: str) -> int:
        """Put a stored verdict among the earlier ones; returns which attempt it was."""
        sql = f"SELECT COUNT(*) FROM earlier WHERE {_KEY}"
        attempt = 1 + int(self._db.execute(sql, v.key).fetchone()[0])
        row, at, by = verdict_row(v), now(), me()
        self._db.execute(
            f"INSERT INTO earlier ({_COLUMNS}, attempt, at, by, cause, seal) VALUES ({','.join('?' * 17)})",
            (*row, attempt, at, by, cause, seal(row[-1], attempt, at, by, cause)),
        )
        self._db.execute(f"DELETE FROM verdicts WHERE {_KEY}", v.key)
        return attempt

    def retry(
        self, verdicts: Iterable[Verdict], *, most: int = MOST_ATTEMPTS
    ) -> tuple[list[Verdict], list[Verdict]]:
        """Take failed current verdicts out of the run: the next resume does them again.

        They stay among the `earlier` verdicts, with who asked and when.

        Parameters
        ----------
        verdicts : iterable of Verdict
            Current ones that failed; others are left alone.
        most : int
            Attempts that a candidate may have at a stage.

        Returns
        -------
        (list of Verdict, list of Verdict)
            Taken out; left because they had their attempts.
        """
        taken, spent = [], []
        with self._transaction():
            for v in verdicts:
                if v.passed or self.find(*v.key) != v:
                    continue
                if self.attempts(v) >= most:
                    spent.append(v)
                    continue
                self._archive(v, "retry")
                taken.append(v)
        return taken, spent

    def attempts(self, verdict: Verdict) -> int:
        """How often this was tried: 1 + the earlier verdicts of the same key."""
        with schema.guard(self.path):
            row = self._db.execute(f"SELECT COUNT(*) FROM earlier WHERE {_KEY}", verdict.key).fetchone()
        return 1 + int(row[0])

    def earlier(self, candidate: str | None = None) -> list[Earlier]:
        """Return the verdicts that others took the place of, oldest first."""
        sql = f"SELECT {_COLUMNS}, attempt, at, by, cause, seal FROM earlier"
        sql += " ORDER BY row" if candidate is None else " WHERE candidate = ? ORDER BY row"
        with schema.guard(self.path):
            rows = self._db.execute(sql, () if candidate is None else (candidate,)).fetchall()
        return [self._earlier(row) for row in rows]

    def _earlier(self, row: tuple[Any, ...]) -> Earlier:
        verdict = self._read(verdict_of, row[:12])
        attempt, at, by, cause, sealed = row[12:]
        if seal(row[11], attempt, at, by, cause) != sealed:
            raise LedgerError(
                "damaged-ledger", f"{self.path}: an earlier verdict of {row[0]} does not match its hash"
            )
        return Earlier(verdict, attempt, at, by, cause)

    def choose(self, verdicts: Iterable[Verdict]) -> None:
        """Make stored verdicts the current ones of their candidate and stage."""
        batch = list(verdicts)
        if batch:
            with self._transaction():
                self._point(batch)

    def _point(self, batch: list[Verdict]) -> None:
        self._db.executemany(
            "INSERT INTO current (candidate, stage, verdict, digest) "
            f"SELECT candidate, stage, row, pointer_digest(candidate, stage, row) FROM verdicts WHERE {_KEY} "
            "ON CONFLICT (candidate, stage) DO UPDATE SET verdict = excluded.verdict, digest = excluded.digest "
            "WHERE verdict <> excluded.verdict",
            [v.key for v in batch],
        )

    def forget(self, candidates: Collection[str], stages: Sequence[str]) -> None:
        """Take verdicts out of the current run; they stay stored and `find` still finds them."""
        with schema.guard(self.path):
            held = {name for (name,) in self._db.execute("SELECT DISTINCT stage FROM current")}
        pairs = [(c, s) for s in stages if s in held for c in candidates]
        if pairs:
            with self._transaction() as db:
                db.executemany("DELETE FROM current WHERE candidate = ? AND stage = ?", pairs)

    def verdicts(self, candidate: str | None = None, stage: str | None = None) -> list[Verdict]:
        """Return the current verdict of each candidate and stage, in the order they were first written.

        Parameters
        ----------
        candidate, stage : str
            Only those of one candidate, of one stage.
        """
        return self._select("JOIN current c ON c.verdict = v.row", candidate=candidate, stage=stage)

    def history(self, candidate: str | None = None, stage: str | None = None) -> list[Verdict]:
        """Return every verdict ever written: those that were replaced, then those of all settings."""
        old = [e.verdict for e in self.earlier(candidate) if stage in (None, e.verdict.stage)]
        return old + self._select("", candidate=candidate, stage=stage)

    def tally(self) -> list[tuple[str, str, bool, str, float, str]]:
        """Current verdicts in short: candidate, stage, passed, reason code, seconds, model hash.

        For counting tens of thousands: hashes of verdicts are not checked, and nothing large is read.
        """
        with schema.guard(self.path):
            rows = self._db.execute(
                "SELECT v.candidate, v.stage, v.passed, v.reason, v.seconds, v.model_hash "
                "FROM current c JOIN verdicts v ON v.row = c.verdict"
            ).fetchall()
        return [(c, s, bool(p), r.split(":")[0].strip(), t, m) for c, s, p, r, t, m in rows]

    def ids(self) -> list[str]:
        """Ids of all candidates in the order of their index."""
        with schema.guard(self.path):
            return [row[0] for row in self._db.execute("SELECT id FROM candidates ORDER BY idx")]

    def candidate(self, id: str) -> Candidate | None:
        """Return one candidate, or None."""
        with schema.guard(self.path):
            row = self._db.execute(f"SELECT {_CANDIDATE} FROM candidates WHERE id = ?", (id,)).fetchone()
        return None if row is None else self._read(candidate_of, row)

    def found(self, stage: str, settings_hash: str, model_hash: str) -> dict[tuple[str, str], Verdict]:
        """Return all verdicts of a stage under given settings, by (candidate, input hash)."""
        rows = self._select("", stage=stage, settings_hash=settings_hash, model_hash=model_hash)
        return {(v.candidate, v.input_hash): v for v in rows}

    def find(
        self, candidate: str, stage: str, input_hash: str, settings_hash: str, model_hash: str
    ) -> Verdict | None:
        """Return the verdict with this key, or None: what is found need not be done again."""
        rows = self._select(
            "",
            candidate=candidate,
            stage=stage,
            input_hash=input_hash,
            settings_hash=settings_hash,
            model_hash=model_hash,
        )
        return rows[0] if rows else None

    def _select(self, join: str, **where: str | None) -> list[Verdict]:
        given = {k: v for k, v in where.items() if v is not None}
        condition = " AND ".join(f"v.{k} = ?" for k in given)
        sql = f"SELECT {_VERDICT} FROM verdicts v {join}"
        sql += f" WHERE {condition} ORDER BY v.row" if condition else " ORDER BY v.row"
        with schema.guard(self.path):
            rows = self._db.execute(sql, tuple(given.values())).fetchall()
        with _uncollected():
            return [self._read(verdict_of, row) for row in rows]

    # -- run information -------------------------------------------------------------------------

    @property
    def meta(self) -> dict[str, Any]:
        """All run information: settings, versions, ``created``, ``started``, ``finished``, ``state``..."""
        with schema.guard(self.path):
            rows = self._db.execute("SELECT key, value FROM meta ORDER BY key").fetchall()
        return {key: self._json(value, f"meta {key}") for key, value in rows}

    def get_meta(self, key: str, default: Any = None) -> Any:
        """Return one piece of run information."""
        with schema.guard(self.path):
            row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return default if row is None else self._json(row[0], f"meta {key}")

    def set_meta(self, key: str, value: Any) -> None:
        """Store one piece of run information (JSON types)."""
        self.update_meta({key: value})

    def update_meta(self, entries: Mapping[str, Any]) -> None:
        """Store several pieces of run information in one transaction; None removes an entry."""
        with self._transaction() as db:
            for key, value in entries.items():
                if value is None:
                    db.execute("DELETE FROM meta WHERE key = ?", (key,))
                else:
                    text = canonical(value)
                    db.execute(
                        "INSERT OR REPLACE INTO meta VALUES (?, ?, ?)", (key, text, meta_digest(key, text))
                    )

    # -- inside ----------------------------------------------------------------------------------

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        if self.read_only:
            raise LedgerError("read-only", f"{self.path} was opened for reading")
        with schema.guard(self.path), schema.transaction(self._db):
            yield self._db

    def _read(self, decode: Callable[[tuple[Any, ...]], T], row: tuple[Any, ...]) -> T:
        try:
            return decode(row)
        except UnequalError as error:
            raise LedgerError("damaged-ledger", f"{self.path}: {error} does not match its hash") from None

    def _json(self, text: str, what: str) -> Any:
        try:
            return json.loads(text)
        except ValueError:
            raise LedgerError("damaged-ledger", f"{self.path}: {what} cannot be read") from None


@contextmanager
def _uncollected() -> Iterator[None]:
    """Hold the garbage collector off while tens of thousands of rows are read: nothing of them is garbage yet."""
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()


def ledger_file(path: str | os.PathLike[str]) -> Path:
    """Return the ledger's file for a run folder or for the file itself."""
    given = Path(path)
    return given if given.suffix == ".sqlite" and not given.is_dir() else given / FILE_NAME


def now() -> str:
    """Return the present time, ISO 8601 with its offset, to the second."""
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")
