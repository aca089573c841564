"""What a ledger holds: candidates and verdicts, how they become rows, and the hashes that guard the rows."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from onnes.campaign.canonical import HASH_LENGTH, canonical, text_hash

#: Reasons that are the machine's or our own fault, not the crystal's.
MACHINE = ("internal-error", "worker-died")


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
    def code(self) -> str:
        """The reason code alone; empty when it passed."""
        return self.reason.split(":")[0].strip()

    @property
    def key(self) -> tuple[str, str, str, str, str]:
        """Candidate, stage, input hash, settings hash, model hash."""
        return (self.candidate, self.stage, self.input_hash, self.settings_hash, self.model_hash)


@dataclass(frozen=True)
class Earlier:
    """A verdict that another one took the place of.

    Attributes
    ----------
    verdict : Verdict
    attempt : int
        1 for the first verdict of its key.
    at, by : str
        When it was put aside (ISO 8601), and by whom: user, host and process.
    cause : str
        ``retry``: asked for by a person; ``again``: computed again on a resume.
    """

    verdict: Verdict
    attempt: int
    at: str
    by: str
    cause: str


class UnequalError(ValueError):
    """A row does not match its hash."""


def pointer_digest(candidate: str, stage: str, verdict: int) -> str:
    """Hash of a row of ``current``."""
    return hashlib.sha256(f"{candidate}\x1f{stage}\x1f{verdict}".encode()).hexdigest()[:HASH_LENGTH]


def meta_digest(key: str, value: str) -> str:
    """Hash of a row of ``meta``."""
    return text_hash(key, value)


def seal(digest: str, attempt: int, at: str, by: str, cause: str) -> str:
    """Hash of what a row of ``earlier`` says about a verdict."""
    return text_hash(digest, str(attempt), at, by, cause)


def candidate_row(c: Candidate) -> tuple[Any, ...]:
    """Row of ``candidates``."""
    row = (c.id, int(c.index), canonical(c.structure), c.source, str(int(c.seed)), canonical(c.meta))
    return (*row, text_hash(*map(str, row)))


def verdict_row(v: Verdict) -> tuple[Any, ...]:
    """Row of ``verdicts``."""
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


def candidate_of(row: tuple[Any, ...]) -> Candidate:
    """Read a row of ``candidates``; `UnequalError` where its hash says otherwise."""
    id_, index, structure, source, seed, meta, digest = row
    if text_hash(*map(str, row[:-1])) != digest:
        raise UnequalError(f"the entry of {id_}")
    return Candidate(id_, index, json.loads(structure), source, int(seed), json.loads(meta))


def verdict_of(row: tuple[Any, ...]) -> Verdict:
    """Read a row of ``verdicts``; `UnequalError` where its hash says otherwise."""
    candidate, stage, passed, reason, numbers, structure, given, settings, model, seed, seconds, digest = row
    if _verdict_digest(*row[:-1]) != digest:
        raise UnequalError(f"verdict {stage} of {candidate}")
    changed = None if structure is None else json.loads(structure)
    found = json.loads(numbers)
    return Verdict(
        candidate, stage, bool(passed), reason, found, changed, given, settings, model, int(seed), seconds
    )
