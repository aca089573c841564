"""The ledger of a run: one SQLite file that alone knows what has been done.

Verdicts are never changed or deleted. Next to them a small table, ``current``, says which verdict of
each candidate and stage belongs to the run as it is set up now: with other settings it points
elsewhere, and with the old settings back it returns to the old verdicts without any work.
"""

from __future__ import annotations

import datetime
import json
import os
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onnes.campaign import schema
from onnes.campaign.canonical import canonical, content_hash, text_hash
from onnes.campaign.lock import DriverLock
from onnes.errors import LedgerError

__all__ = ["FILE_NAME", "Candidate", "Ledger", "Verdict", "content_hash"]

FILE_NAME = "ledger.sqlite"
LOCK_NAME = "driver.lock"

_CANDIDATE = "id, idx, structure, source, seed, meta, digest"
_VERDICT = (
    "v.candidate, v.stage, v.passed, v.reason, v.numbers, v.structure, v.input_hash, v.settings_hash, "
    "v.model_hash, v.seed, v.seconds, v.digest"
)
_KEY = "candidate = ? AND stage = ? AND input_hash = ? AND settings_hash = ? AND model_hash = ?"


@dataclass(frozen=True)
class Candidate:
    """A crystal as it entered the run.

    Attributes
    ----------
    id : str
        Name inside the run, ``"g000017"``.
    index : int
        Position in the run, from 0, unique.
    structure : dict
        ``lattice`` (3, 3) in angstrom, ``species`` (n,), ``frac`` (n, 3).
    source : str
        Where it came from: a model, or ``path#block``.
    seed : int
        Random seed it was drawn with, and that its stages may use.
    meta : dict
        Anything else worth keeping, JSON types.
    """

    id: str
    index: int
    structure: dict[str, Any]
    source: str = ""
    seed: int = 0
    meta: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """What one stage found about one candidate.

    Attributes
    ----------
    candidate, stage : str
        Whom and what it is about.
    passed : bool
        Whether the candidate goes on.
    reason : str
        Reason code when it does not; empty when it does.
    numbers : dict
        Results: float, int, str, bool, list or None. Numbers that are not finite are stored as None.
    structure : dict or None
        The new structure when the stage changed it.
    input_hash, settings_hash, model_hash : str
        What the verdict depends on. Together with candidate and stage they are its key.
    seed : int
        Random seed of the candidate.
    seconds : float
        Time spent on this candidate (its share of the batch).
    """

    candidate: str
    stage: str
    passed: bool
    reason: str
    numbers: dict[str, Any]
    structure: dict[str, Any] | None
    input_hash: str
    settings_hash: str
    model_hash: str
    seed: int
    seconds: float

    @property
    def key(self) -> tuple[str, str, str, str, str]:
        """Candidate, stage, input hash, settings hash, model hash."""
        return (self.candidate, self.stage, self.input_hash, self.settings_hash, self.model_hash)


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
            ``no-ledger``, ``not-a-ledger``, ``damaged-ledger``, ``newer-ledger``, ``older-ledger``
            (read-only: only a driver may migrate), ``run-in-use``, ``unwritable-run``.
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
        rows = [_candidate_row(c) for c in candidates]
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
        return [self._candidate(row) for row in rows]

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
            What to do with a verdict of the same key: keep the stored one (default), or replace it
            (a retry of a failure that was the machine's, not the crystal's).

        Returns
        -------
        int
            How many were written.

        Raises
        ------
        LedgerError
            ``unknown-candidate``; nothing is written then.
        """
        batch = list(verdicts)
        sql = "INSERT OR REPLACE" if replace else "INSERT OR IGNORE"
        with self._transaction() as db:
            before = db.total_changes
            db.executemany(
                f"{sql} INTO verdicts (candidate, stage, passed, reason, numbers, structure, input_hash, "
                "settings_hash, model_hash, seed, seconds, digest) VALUES (?,?,?,?,?,?,?,?,?,?,?,?)",
                [_verdict_row(v) for v in batch],
            )
            added = db.total_changes - before
            self._point(batch)
        return added

    def choose(self, verdicts: Iterable[Verdict]) -> None:
        """Make stored verdicts the current ones of their candidate and stage."""
        batch = list(verdicts)
        if batch:
            with self._transaction():
                self._point(batch)

    def _point(self, batch: list[Verdict]) -> None:
        self._db.executemany(
            "INSERT INTO current (candidate, stage, verdict) "
            f"SELECT candidate, stage, row FROM verdicts WHERE {_KEY} "
            "ON CONFLICT (candidate, stage) DO UPDATE SET verdict = excluded.verdict "
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
        """Return every verdict ever written, those of earlier settings included."""
        return self._select("", candidate=candidate, stage=stage)

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
        return [self._verdict(row) for row in rows]

    # -- run information -------------------------------------------------------------------------

    @property
    def meta(self) -> dict[str, Any]:
        """All run information: settings, versions, ``created``, ``started``, ``finished``, ``state``..."""
        with schema.guard(self.path):
            rows = self._db.execute("SELECT key, value FROM meta ORDER BY key").fetchall()
        return {key: self._json(value, f"meta {key}") for key, value in rows}

    def get_meta(self, key: str, default: Any = None) -> Any:
        """Return one piece of run information."""
        return self.meta.get(key, default)

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
                    db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, canonical(value)))

    # -- inside ----------------------------------------------------------------------------------

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        if self.read_only:
            raise LedgerError("read-only", f"{self.path} was opened for reading")
        with schema.guard(self.path), schema.transaction(self._db):
            yield self._db

    def _candidate(self, row: tuple[Any, ...]) -> Candidate:
        id_, index, structure, source, seed, meta, digest = row
        if text_hash(*map(str, row[:-1])) != digest:
            raise LedgerError("damaged-ledger", f"{self.path}: the entry of {id_} does not match its hash")
        return Candidate(id_, index, json.loads(structure), source, int(seed), json.loads(meta))

    def _verdict(self, row: tuple[Any, ...]) -> Verdict:
        (
            candidate,
            stage,
            passed,
            reason,
            numbers,
            structure,
            given,
            settings,
            model,
            seed,
            seconds,
            digest,
        ) = row
        if (
            _verdict_digest(
                candidate, stage, passed, reason, numbers, structure, given, settings, model, seed, seconds
            )
            != digest
        ):
            raise LedgerError(
                "damaged-ledger", f"{self.path}: verdict {stage} of {candidate} does not match its hash"
            )
        changed = None if structure is None else json.loads(structure)
        return Verdict(
            candidate,
            stage,
            bool(passed),
            reason,
            json.loads(numbers),
            changed,
            given,
            settings,
            model,
            int(seed),
            seconds,
        )

    def _json(self, text: str, what: str) -> Any:
        try:
            return json.loads(text)
        except ValueError:
            raise LedgerError("damaged-ledger", f"{self.path}: {what} cannot be read") from None


def ledger_file(path: str | os.PathLike[str]) -> Path:
    """Return the ledger's file for a run folder or for the file itself."""
    given = Path(path)
    return given if given.suffix == ".sqlite" and not given.is_dir() else given / FILE_NAME


def now() -> str:
    """Return the present time, ISO 8601 with its offset, to the second."""
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")


def _candidate_row(c: Candidate) -> tuple[Any, ...]:
    row = (c.id, int(c.index), canonical(c.structure), c.source, str(int(c.seed)), canonical(c.meta))
    return (*row, text_hash(*map(str, row)))


def _verdict_row(v: Verdict) -> tuple[Any, ...]:
    numbers = canonical(v.numbers)
    structure = None if v.structure is None else canonical(v.structure)
    passed, seconds = int(v.passed), float(v.seconds)
    body = (v.candidate, v.stage, passed, v.reason, numbers, structure)
    key = (v.input_hash, v.settings_hash, v.model_hash)
    seed = str(int(v.seed))
    return (*body, *key, seed, seconds, _verdict_digest(*body, *key, seed, seconds))


def _verdict_digest(candidate: str, stage: str, passed: int, *rest: Any) -> str:
    texts = [None if value is None else str(value) for value in rest]
    return text_hash(candidate, stage, str(passed), *texts)
