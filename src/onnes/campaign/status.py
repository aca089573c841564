"""How far a run is, and the whole story of one candidate, read from its ledger."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from difflib import get_close_matches
from typing import Any

from onnes.campaign.ledger import Candidate, Earlier, Ledger, Verdict
from onnes.campaign.lock import driver
from onnes.errors import LedgerError, SettingsError

#: The setting that decides about a refusal, by stage and reason code.
LIMITS = {
    ("check", "too-many-atoms"): "check.max_atoms",
    ("check", "overlapping-atoms"): "check.min_distance_A",
    ("check", "wrong-dimensions"): "check.dimensions",
    ("check", "chemistry-missing"): "chemistry.require",
    ("prescreen", "classifier"): "prescreen.min_p_superconductor",
    ("prescreen", "tc-below-limit"): "prescreen.min_tc_K",
    ("prescreen", "dos-low"): "prescreen.min_dos_ef_states_eV_atom",
    ("prescreen", "debye-low"): "prescreen.min_debye_K",
    ("relax", "steps"): "relax.max_steps",
    ("relax", "not-relaxed"): "relax.skip_max_force_eV_A",
    ("novel", "known-crystal"): "novel.keep",
    ("hull", "positive-formation-energy"): "hull.max_formation_energy_eV_atom",
    ("hull", "e-hull-above-limit"): "hull.max_e_hull_eV_atom",
    ("hull", "unknown-references"): "hull.unknown",
    ("predict", "gap-above-limit"): "predict.max_gap_eV",
    ("predict", "classifier"): "predict.min_p_superconductor",
    ("predict", "tc-below-limit"): "predict.min_tc_K",
    ("predict", "out-of-domain"): "predict.in_domain_only",
}


@dataclass
class StageCount:
    """One row of the funnel.

    Attributes
    ----------
    stage : str
    entered, passed, failed, waiting : int
    seconds : float
        Of the current verdicts.
    reasons : dict
        Reason code -> count, most frequent first.
    models : dict
        Model hash -> verdicts that were made with it.
    """

    stage: str
    entered: int = 0
    passed: int = 0
    failed: int = 0
    waiting: int = 0
    seconds: float = 0.0
    reasons: dict[str, int] = field(default_factory=dict)
    models: dict[str, int] = field(default_factory=dict)


@dataclass
class Status:
    """How far a run is.

    Attributes
    ----------
    state : str
        As the driver wrote it last; ``stopped`` where it says running and no driver lives.
    driver : str
        Who drives the run now; empty when nobody does.
    candidates, unreadable : int
    stages : list of StageCount
        In the order of the run; stages beside the funnel (choices and labels of active learning) last.
    seconds, seconds_before : float
        Computing time of all current verdicts; of those that others took the place of.
    tried_again : dict
        Stage -> how many verdicts were computed again after a fault or a retry.
    rounds : list
        Facts of the rounds of active learning.
    warnings : list of str
        Models that are not those installed now, or several models in one stage.
    facts : dict
        When it was made, started and finished, versions, machine, memory.
    """

    state: str
    driver: str
    candidates: int
    unreadable: int
    stages: list[StageCount]
    seconds: float
    seconds_before: float
    tried_again: dict[str, int]
    rounds: list[Any]
    warnings: list[str]
    facts: dict[str, Any]


def status(ledger: Ledger) -> Status:
    """Summarise a run.

    Parameters
    ----------
    ledger : Ledger
        Open for reading.
    """
    meta = ledger.meta
    alive = ledger.ids()
    by_stage: dict[str, dict[str, tuple[bool, str, float, str]]] = defaultdict(dict)
    for candidate, stage, passed, code, seconds, model in ledger.tally():
        by_stage[stage][candidate] = (passed, code, seconds, model)
    planned = [s for s in meta.get("stages", []) if isinstance(s, str)]
    rows, survivors = [], alive
    for stage in planned:
        row, survivors = _count(stage, survivors, by_stage.get(stage, {}))
        rows.append(row)
    for stage in sorted(set(by_stage) - set(planned)):
        row, _ = _count(stage, list(by_stage[stage]), by_stage[stage])
        rows.append(row)
    earlier = ledger.earlier()
    holder = driver(ledger.path.parent)
    state = str(meta.get("state", "new"))
    return Status(
        state="stopped" if state == "running" and not holder else state,
        driver=holder,
        candidates=len(alive),
        unreadable=len(meta.get("refused_inputs") or []),
        stages=rows,
        seconds=sum(r.seconds for r in rows),
        seconds_before=sum(e.verdict.seconds for e in earlier),
        tried_again=dict(Counter(e.verdict.stage for e in earlier)),
        rounds=list(meta.get("rounds") or []),
        warnings=_warnings(meta, rows),
        facts={
            k: meta[k]
            for k in ("created", "started", "finished", "versions", "machine", "peak_memory_MB")
            if k in meta
        },
    )


def _count(
    stage: str, entered: Sequence[str], held: dict[str, tuple[bool, str, float, str]]
) -> tuple[StageCount, list[str]]:
    row = StageCount(stage, len(entered))
    reasons: Counter[str] = Counter()
    models: Counter[str] = Counter()
    survivors = []
    for candidate in entered:
        verdict = held.get(candidate)
        if verdict is None:
            row.waiting += 1
            continue
        passed, code, seconds, model = verdict
        row.seconds += seconds
        models[model] += 1
        if passed:
            survivors.append(candidate)
        else:
            reasons[code or "no reason given"] += 1
    row.passed, row.failed = len(survivors), sum(reasons.values())
    row.reasons = dict(sorted(reasons.items(), key=lambda item: (-item[1], item[0])))
    row.models = dict(models.most_common())
    return row, survivors


def _warnings(meta: dict[str, Any], rows: list[StageCount]) -> list[str]:
    from onnes.campaign.models import differences
    from onnes.campaign.settings import Settings

    found = []
    for row in rows:
        if len(row.models) > 1 and row.stage not in ("choose", "label"):
            found.append(
                f"{row.stage}: verdicts of {len(row.models)} models are mixed; --resume makes them one"
            )
    try:
        found += differences(meta.get("models"), Settings.from_dict(meta.get("settings") or {}))
    except SettingsError as error:
        found.append(f"its settings are not those of this onnes: {error.message}")
    return found


@dataclass(frozen=True)
class Story:
    """Everything a ledger knows about one candidate.

    Attributes
    ----------
    candidate : Candidate
    path : list of Verdict
        Current verdicts in the order of the run, up to the first that failed.
    beside : list of Verdict
        Current verdicts of stages beside the funnel, or left from other settings.
    other : list of Verdict
        Of other settings, inputs or models: not current.
    earlier : list of Earlier
        Verdicts that were tried again.
    stages : list of str
        Of the run.
    settings : dict
        Of the run.
    state : str
        Of the run.
    """

    candidate: Candidate
    path: list[Verdict]
    beside: list[Verdict]
    other: list[Verdict]
    earlier: list[Earlier]
    stages: list[str]
    settings: dict[str, Any]
    state: str

    @property
    def refusal(self) -> Verdict | None:
        """The verdict that ended its way, if one did."""
        return self.path[-1] if self.path and not self.path[-1].passed else None

    @property
    def waits_for(self) -> str:
        """The next stage; empty when it is refused or through."""
        done = {v.stage for v in self.path}
        return "" if self.refusal else next((s for s in self.stages if s not in done), "")

    @property
    def numbers(self) -> dict[str, Any]:
        """Numbers of its path, merged."""
        return {k: value for v in self.path for k, value in v.numbers.items()}

    @property
    def species(self) -> list[str]:
        """Element of each atom of the last structure."""
        changed = [v.structure for v in self.path if v.structure]
        return list((changed[-1] if changed else self.candidate.structure).get("species", []))

    @property
    def seconds(self) -> float:
        """Computing time spent on it, everything ever tried included."""
        every = [*self.path, *self.beside, *self.other, *(e.verdict for e in self.earlier)]
        return sum(v.seconds for v in every)

    def limit(self) -> tuple[str, Any] | None:
        """The setting that decided about its refusal, and its value."""
        if self.refusal is None:
            return None
        key = LIMITS.get((self.refusal.stage, self.refusal.code))
        if key is None:
            return None
        table, name = key.split(".")
        value = self.settings.get(table, {}).get(name)
        return None if value is None else (key, value)

    def as_dict(self) -> dict[str, Any]:
        """JSON types: what ``onnes campaign show --json`` prints."""
        return {
            "id": self.candidate.id,
            "index": self.candidate.index,
            "source": self.candidate.source,
            "seed": self.candidate.seed,
            "meta": self.candidate.meta,
            "structure": self.candidate.structure,
            "refused_at": self.refusal.stage if self.refusal else None,
            "reason": self.refusal.reason if self.refusal else None,
            "waits_for": self.waits_for or None,
            "seconds": self.seconds,
            "verdicts": [asdict(v) for v in self.path],
            "beside": [asdict(v) for v in self.beside],
            "other_settings": [asdict(v) for v in self.other],
            "earlier": [asdict(e) for e in self.earlier],
        }


def story(ledger: Ledger, id: str) -> Story:
    """Collect what a ledger knows about one candidate.

    Raises
    ------
    LedgerError
        ``no-such-candidate``, with ids that are near.
    """
    candidate = ledger.candidate(id)
    if candidate is None:
        raise LedgerError("no-such-candidate", f"the run has no candidate {id!r}; {_near(id, ledger.ids())}")
    meta = ledger.meta
    stages = [s for s in meta.get("stages", []) if isinstance(s, str)]
    current = {v.stage: v for v in ledger.verdicts(candidate=id)}
    path: list[Verdict] = []
    for stage in stages:
        if stage not in current or (path and not path[-1].passed):
            break
        path.append(current[stage])
    earlier = ledger.earlier(id)
    walked = [*path, *(e.verdict for e in earlier)]
    beside = [v for v in current.values() if v not in path]
    other = [v for v in ledger.history(candidate=id) if v not in walked and v not in beside]
    state = str(meta.get("state", "new"))
    return Story(candidate, path, beside, other, earlier, stages, meta.get("settings") or {}, state)


def _near(id: str, ids: Sequence[str]) -> str:
    if not ids:
        return "it has none yet"
    padded = f"g{int(id):06d}" if id.isdecimal() and len(id) < 7 else ""
    found = [padded] if padded in ids else []
    found += [i for i in ids if i.casefold() == id.casefold()][:3]
    found += get_close_matches(id, ids[:20_000], 3, 0.75)
    # No two are shown twice; the order is kept.
    near = list(dict.fromkeys(found))[:3]
    return f"did you mean {', '.join(near)}?" if near else f"its ids go from {ids[0]} to {ids[-1]}"


def retry(
    ledger: Ledger, ids: Iterable[str] = (), *, stage: str = "", reason: str = ""
) -> tuple[list[Verdict], list[Verdict]]:
    """Take failed verdicts out of a run, so that the next resume does them again.

    Parameters
    ----------
    ledger : Ledger
        Open as its driver.
    ids : iterable of str
        Candidates; all where none is given.
    stage, reason : str
        Only failures at this stage, with this reason code.

    Returns
    -------
    (list of Verdict, list of Verdict)
        Taken out; left because they were tried `onnes.campaign.ledger.MOST_ATTEMPTS` times.

    Raises
    ------
    LedgerError
        ``no-such-candidate``, ``nothing-to-retry``: says what has failed.
    SettingsError
        ``bad-setting`` where nothing says which failures are meant.
    """
    wanted = set(ids)
    if not (wanted or stage or reason):
        raise SettingsError("bad-setting", "say what to retry: ids, --stage or --reason")
    every = set(ledger.ids())
    for id in sorted(wanted - every):
        raise LedgerError("no-such-candidate", f"the run has no candidate {id!r}; {_near(id, ledger.ids())}")
    failed = [(c, s, code) for c, s, passed, code, _, _ in ledger.tally() if not passed]
    chosen = {
        (c, s)
        for c, s, code in failed
        if (not wanted or c in wanted) and stage in ("", s) and reason in ("", code)
    }
    if not chosen:
        counts = Counter(f"{s} {code}" for c, s, code in failed if not wanted or c in wanted)
        there = ", ".join(f"{name} ({n})" for name, n in counts.most_common(8)) or "nothing"
        raise LedgerError("nothing-to-retry", f"no failure of that kind; what failed: {there}")
    stages = {s for _, s in chosen}
    verdicts = [v for s in sorted(stages) for v in ledger.verdicts(stage=s) if (v.candidate, s) in chosen]
    taken, spent = ledger.retry(verdicts)
    if taken:
        ledger.set_meta("state", "stopped")
    return taken, spent
