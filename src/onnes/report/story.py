"""The story of a run, read once from its ledger: every candidate with its verdicts in funnel order."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

from onnes.report.words import STAGES, finite, reason_code

#: Stages that look closer at candidates without being gates: they refuse nobody, and are no step of the funnel.
CLOSER = ("dossier", "phonons", "label")
#: Those of them that a run lists among its stages.
LISTED = ("dossier", "phonons")


class LedgerLike(Protocol):
    """What a report needs from ``onnes.campaign.ledger.Ledger``."""

    def candidates(self) -> list[Any]:
        """All candidates of the run."""

    def verdicts(self, candidate: str | None = None, stage: str | None = None) -> list[Any]:
        """Latest verdict of each candidate and stage."""


@dataclass(frozen=True)
class Story:
    """One candidate from its birth to its last verdict.

    Attributes
    ----------
    id, source : str
        Identity and origin of the candidate.
    index, seed : int
        Position in the run and the random seed it was drawn with.
    verdicts : list
        Verdicts in funnel order, up to and including the first that failed.
    born : dict
        Structure as generated or read: ``lattice`` (3x3, angstrom), ``species``, ``frac`` (n, 3).
    """

    id: str
    index: int
    source: str
    seed: int
    born: dict[str, Any]
    verdicts: list[Any] = field(default_factory=list)

    @cached_property
    def numbers(self) -> dict[str, Any]:
        """Numbers of all verdicts merged; a later stage overrides an earlier one."""
        merged: dict[str, Any] = {}
        for verdict in self.verdicts:
            merged.update(verdict.numbers or {})
        return merged

    @property
    def structure(self) -> dict[str, Any]:
        """The structure after the last stage that changed it."""
        return next((v.structure for v in reversed(self.verdicts) if v.structure), self.born)

    @property
    def failed(self) -> Any | None:
        """The verdict that ended the story, or None for a survivor."""
        return next((v for v in self.verdicts if not v.passed and v.stage not in CLOSER), None)

    def verdict(self, stage: str) -> Any | None:
        """Return the verdict of ``stage``, or None when the candidate did not get there."""
        return self._by_stage.get(stage)

    @cached_property
    def _by_stage(self) -> dict[str, Any]:
        return {v.stage: v for v in self.verdicts}


@dataclass(frozen=True)
class Run:
    """A whole run: its stories, the order of its stages and its meta entries."""

    stories: list[Story]
    stages: list[str]
    meta: dict[str, Any]

    @property
    def gates(self) -> list[str]:
        """The stages that can refuse a crystal."""
        return [s for s in self.stages if s not in CLOSER]

    @cached_property
    def ranked(self) -> list[Story]:
        """Stories that passed ``rank``, best first."""
        survivors = [s for s in self.stories if (v := s.verdict("rank")) is not None and v.passed]
        return sorted(survivors, key=lambda s: (_number(s, "rank", 1e18), s.index, s.id))

    @cached_property
    def provisional(self) -> bool:
        """Whether the run has not been ranked yet, so that ``final`` is only a preview."""
        if self.meta.get("state") == "finished":
            return False
        return not any(s.verdict("rank") for s in self.stories)

    @cached_property
    def unfinished(self) -> bool:
        """Whether work is left: the run says so, or a crystal that nothing refused lacks verdicts."""
        state = self.meta.get("state")
        if state is not None:
            return bool(state != "finished")
        asked = set(self.gates) - {"verify"}
        return any(s.failed is None and not asked <= {v.stage for v in s.verdicts} for s in self.stories)

    @cached_property
    def final(self) -> list[Story]:
        """The candidates: ranked ones or, before ranking, those with a Tc that no stage has refused."""
        if not self.provisional:
            return self.ranked
        alive = [s for s in self.stories if s.failed is None and finite(s.numbers.get("tc_K")) is not None]
        return sorted(alive, key=lambda s: (-_number(s, "tc_K", 0.0), s.index, s.id))


def read_run(ledger: LedgerLike | Run) -> Run:
    """Read a ledger once.

    Verdicts behind the first failed stage are left out: they were written under other settings and
    no longer belong to the candidate's path.

    Parameters
    ----------
    ledger : Ledger
        An open ledger (or a `Run`, returned unchanged, so that callers can share one reading).
    """
    if isinstance(ledger, Run):
        return ledger
    by_candidate: dict[str, dict[str, Any]] = {}
    seen: Counter[str] = Counter()
    for verdict in ledger.verdicts():
        by_candidate.setdefault(verdict.candidate, {})[verdict.stage] = verdict
        seen[verdict.stage] += 1
    meta = read_meta(ledger)
    stages = order_stages(seen, meta.get("stages"))
    if isinstance(meta.get("stages"), list):
        # A dossier of earlier settings is not one of this run.
        stages = [s for s in stages if s not in LISTED or s in meta["stages"]]
    stories = []
    for candidate in sorted(ledger.candidates(), key=lambda c: (c.index, c.id)):
        path = _path(by_candidate.get(candidate.id, {}), stages)
        stories.append(
            Story(candidate.id, candidate.index, candidate.source, candidate.seed, candidate.structure, path)
        )
    return Run(stories, stages, meta)


def order_stages(seen: Counter[str], recorded: Any = None) -> list[str]:
    """Put stage names in funnel order: as the run recorded them, else the usual order."""
    usual = list(STAGES)
    if isinstance(recorded, list) and recorded:
        names = [str(name) for name in recorded]
        return names + [name for name in _usual_order(seen, usual) if name not in names]
    return _usual_order(seen, usual)


def reason_counts(verdicts: Iterable[Any]) -> dict[str, int]:
    """Count failures by reason code, most frequent first, ties by name."""
    counts = Counter(reason_code(v.reason) for v in verdicts)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def read_meta(ledger: Any) -> dict[str, Any]:
    """Return the meta entries of a ledger as one dict, JSON text decoded."""
    raw = ledger.meta
    entries = raw() if callable(raw) else raw
    return {key: _decode(value) for key, value in dict(entries).items()}


def _usual_order(seen: Counter[str], usual: list[str]) -> list[str]:
    """Known stages in their usual place; others, most visited first, just before ``rank``."""
    others = sorted((s for s in seen if s not in usual), key=lambda s: (-seen[s], s))
    names = [s for s in usual if seen[s] and s != "rank"] + others
    return names + (["rank"] if seen["rank"] else [])


def _path(verdicts: dict[str, Any], stages: list[str]) -> list[Any]:
    """Verdicts in funnel order up to the first failure."""
    path = []
    for stage in stages:
        verdict = verdicts.get(stage)
        if verdict is None:
            continue
        path.append(verdict)
        if not verdict.passed and stage not in CLOSER:
            break
    return path


def _number(story: Story, key: str, default: float) -> float:
    value = finite(story.numbers.get(key))
    return default if value is None else value


def _decode(value: Any) -> Any:
    if isinstance(value, str) and value[:1] in "{[":
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value
