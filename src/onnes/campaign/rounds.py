"""Active learning: rounds of generate, screen, choose, label and learn, every step of them in the ledger.

Round k has n candidates of its own (indices (k - 1) n to k n - 1), drawn by the generator of that round. All candidates
of the run then go through the funnel with the predictor of that round, so that what an earlier round left unlabelled
competes again. Of the survivors a batch is chosen (verdicts of the stage ``choose``) and labelled (``label``). From
the labels of the rounds before, a round gets its models, kept in ``round-k/``: see `onnes.campaign.retrain`
(predictor) and `onnes.campaign.retrain_generator`.

What the ledger holds is not done again: choices stand once they are written, a crystal is labelled once, models are
kept with their hashes. A driver that is killed loses what was under way.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnes.campaign import rounds_choose as choosing
from onnes.campaign import rounds_models as models
from onnes.campaign.canonical import content_hash
from onnes.campaign.funnel import Silent, Stage, Watcher, run_funnel
from onnes.campaign.labels import Chosen, Label, Labeller, required
from onnes.campaign.ledger import Candidate, Ledger, Verdict
from onnes.campaign.rounds_models import Models, folder_of
from onnes.campaign.settings import Settings
from onnes.campaign.stages import REVISION as REVISIONS
from onnes.errors import SettingsError

if TYPE_CHECKING:
    from onnes.campaign.source import Source
    from onnes.parallel import Engine

#: Raised when what a label verdict means changes.
REVISION = 2
#: Stages that decide who may be chosen.
RANKED = tuple(REVISIONS)[: list(REVISIONS).index("rank") + 1]
#: Facts of the run under which the ledger keeps the rounds, what they wait for, and the seconds of the open one.
ROUNDS, WAITING, CLOCK = "rounds", "waiting", "round_clock"


@dataclass(frozen=True)
class Run:
    """What every step of the rounds needs."""

    ledger: Ledger
    settings: Settings
    source: Source
    labeller: Labeller
    out: Path
    engine: Engine
    watcher: Watcher


def check(settings: Settings) -> None:
    """Refuse settings of active learning that cannot work; called before a run is made or touched.

    Raises
    ------
    SettingsError, InputError, DataError
    """
    if settings.active.rounds:
        required(settings)


def run_rounds(
    ledger: Ledger,
    settings: Settings,
    source: Source,
    out: Path,
    engine: Engine,
    watcher: Watcher | None = None,
) -> str:
    """Do the rounds that are not done.

    Parameters
    ----------
    ledger : Ledger
        Open for writing.
    settings : Settings
        With ``active.rounds`` above 0.
    source : Source
        Of the first round; files give all their crystals to it.
    out : Path
        Folder of the run.
    engine : Engine
    watcher : Watcher, optional

    Returns
    -------
    str
        State of the run: ``finished``, or ``waiting`` when labels are missing; the fact ``waiting`` of the ledger then
        says what has to be done.

    Raises
    ------
    SettingsError
        ``other-source`` when n is not that of the rounds before.
    ModelError
        ``changed-model``.
    """
    run = Run(ledger, settings, source, required(settings), out, engine, watcher or Silent())
    _require_same_n(run)
    ledger.set_meta(WAITING, None)
    done = len(ledger.get_meta(ROUNDS, []))
    for k in range(done + 1, settings.active.rounds + 1):
        words = _round(run, k)
        if words:
            ledger.set_meta(WAITING, words)
            return "waiting"
    # What the last labels teach belongs into the final ranking.
    last = models.prepare(run.ledger, settings, out, len(ledger.get_meta(ROUNDS, [])) + 1, generator=False)
    run_funnel(ledger, _stages(run, last), engine, run.watcher)
    return "finished"


def _require_same_n(run: Run) -> None:
    held, n = run.ledger.get_meta("rounds_n"), run.settings.run.n
    if held is not None and held != n:
        raise SettingsError(
            "other-source", f"the rounds of this run have n = {held}, not {n}; use another --out"
        )
    run.ledger.set_meta("rounds_n", n)


def _round(run: Run, k: int) -> str:
    """Do a round; in words what has to be done when labels are missing."""
    with _clock(run.ledger):
        made = models.prepare(run.ledger, run.settings, run.out, k, generator=not _reads(run))
        fresh = _fill(run, k, made)
        # What comes after the ranking describes the candidates of the whole run: at the end, once.
        ranked = [s for s in _stages(run, made) if s.name in RANKED]
        alive = run_funnel(run.ledger, ranked, run.engine, run.watcher)
        pool = choosing.pool_of(run.ledger, alive, k)
        chosen = choosing.chosen_in(run.ledger, k) or choosing.choose_batch(
            run.ledger, run.settings, pool, k, made.predictor_hash
        )
        words = _label(run, k, chosen)
    if words:
        return words
    _close(run, k, made, fresh, len(pool), chosen)
    return ""


def _reads(run: Run) -> bool:
    return bool(run.settings.generate.paths)


@contextmanager
def _clock(ledger: Ledger) -> Iterator[None]:
    """Count the seconds of the open round over all sessions that end by themselves."""
    began = time.monotonic()
    try:
        yield
    finally:
        ledger.set_meta(CLOCK, round(float(ledger.get_meta(CLOCK, 0.0)) + time.monotonic() - began, 3))


def _stages(run: Run, made: Models) -> list[Stage]:
    """The funnel with the predictor of a round."""
    from onnes.campaign.retrain import predict
    from onnes.campaign.stages import build

    stages = build(run.settings)
    if made.correction is None:
        return stages
    process = partial(predict, settings=run.settings.predict.model_dump(), path=str(made.correction))
    return [
        replace(s, process=process, model_hash=made.predictor_hash) if s.name == "predict" else s
        for s in stages
    ]


def _fill(run: Run, k: int, made: Models) -> int:
    """Bring the candidates of a round into the ledger; how many it has."""
    if _reads(run):
        run.source.fill(run.ledger, run.engine, run.watcher)
        return len(run.ledger.candidates()) if k == 1 else 0
    n, seed = run.settings.run.n, run.settings.run.seed
    first, last = (k - 1) * n, k * n
    held = {c.index for c in run.ledger.candidates()}
    todo = [c for c in _blocks(first, last) if not set(range(*c)) <= held]
    run.watcher.begin("generate", n, sum(first <= i < last for i in held))
    run.watcher.advance("generate", sum(first <= i < last for i in held), 0)
    for chunk, drawn in _drawn(run, made, todo, seed):
        rows = [
            Candidate(
                f"g{index:06d}",
                index,
                structure,
                f"{run.settings.generate.model} {made.generator_hash}",
                index,
                {"round": k, "parents": [made.generator_hash]},
            )
            for index, structure in drawn
            if index not in held
        ]
        run.ledger.add_candidates(rows, chunk=(made.generator_hash, *chunk))
        run.watcher.advance("generate", len(rows), 0)
    run.watcher.end("generate")
    return n


def _blocks(first: int, last: int) -> list[tuple[int, int]]:
    """Cut indices where the sampler's own blocks end."""
    from onnes.generate.sampling import BLOCK

    edges = [first, *range((first // BLOCK + 1) * BLOCK, last, BLOCK), last]
    return list(pairwise(edges))


def _drawn(
    run: Run, made: Models, todo: list[tuple[int, int]], seed: int
) -> Iterator[tuple[tuple[int, int], list[tuple[int, dict[str, Any]]]]]:
    from onnes.campaign.source import sampler_settings
    from onnes.parallel import WorkerDiedError, completed

    draw = partial(draw_block, sampler_settings(run.settings.generate), str(made.generator or ""), seed)
    if not run.engine.remote:
        for chunk in todo:
            yield chunk, draw(chunk)
        return
    for chunk, answer in completed(run.engine, draw, todo):
        if isinstance(answer, WorkerDiedError):
            raise answer
        yield chunk, answer


def draw_block(asked: Any, path: str, seed: int, chunk: tuple[int, int]) -> list[tuple[int, dict[str, Any]]]:
    """Draw the crystals with these indices from a checkpoint, the shipped one where there is no path."""
    from onnes.campaign.stages import plain
    from onnes.generate.models import open_sampler

    return [(index, plain(s)) for index, s in open_sampler(asked, path or None).sample(*chunk, seed)]


def _label(run: Run, k: int, chosen: list[Chosen]) -> str:
    """Label what has no label yet, each written down at once; what has to be done for the rest, in words."""
    labelled = {v.candidate for v in run.ledger.verdicts(stage="label")}
    todo = [c for c in chosen if c.id not in labelled]
    run.watcher.begin("label", len(chosen), len(chosen) - len(todo))
    if not todo:
        run.watcher.end("label")
        return ""
    folder = folder_of(run.out, k)
    folder.mkdir(parents=True, exist_ok=True)
    by_id = {c.id: c for c in todo}
    for label in run.labeller.labels(todo, folder, {c.id for c in chosen} - set(by_id)):
        one = by_id.pop(label.id)
        run.ledger.add_verdicts([_label_verdict(run, k, one, label)])
        run.watcher.advance("label", int(label.tc_K is not None), int(label.tc_K is None))
    run.watcher.end("label")
    return f"round {k}: {run.labeller.waiting(list(by_id.values()), folder)}" if by_id else ""


def _label_verdict(run: Run, k: int, one: Chosen, label: Label) -> Verdict:
    target = float(run.settings.active.target_tc_K)
    known = label.tc_K is not None
    numbers = {
        "label_round": k,
        "label_tc_K": label.tc_K,
        "label_lambda": label.lam,
        "label_omega_log_K": label.omega_log_K,
        "label_source": label.source,
        "label_weight": label.weight,
        "label_target_tc_K": target,
        "label_hit": label.tc_K is not None and label.tc_K > target,
    }
    return Verdict(
        one.id,
        "label",
        known,
        "" if known else label.reason,
        {key: value for key, value in numbers.items() if value is not None},
        None,
        content_hash(one.structure),
        content_hash({**run.labeller.settings, "revision": REVISION}),
        "",
        0,
        label.seconds,
    )


def _close(run: Run, k: int, made: Models, fresh: int, pool: int, chosen: list[Chosen]) -> None:
    """Write the round down as done."""
    ledger, a = run.ledger, run.settings.active
    ids = {c.id for c in chosen}
    every = [v for v in ledger.verdicts(stage="label") if v.numbers.get("label_round", k) <= k]
    own = [v for v in every if v.candidate in ids]
    best = [float(v.numbers["label_tc_K"]) for v in every if v.passed]
    entry = {
        "round": k,
        "n_candidates": fresh,
        "n_pool": pool,
        "n_chosen": len(chosen),
        "n_labelled": sum(v.passed for v in own),
        "n_failed": sum(not v.passed for v in own),
        "n_hits": sum(bool(v.numbers["label_hit"]) for v in own),
        "best_tc_K": max(best) if best else None,
        "target_tc_K": float(a.target_tc_K),
        "strategy": a.strategy,
        "labeller": a.labeller,
        "model_hash": made.predictor_hash,
        "generator_hash": "" if _reads(run) else made.generator_hash,
        "learnt": made.learnt,
        "seconds": ledger.get_meta(CLOCK, 0.0),
    }
    ledger.update_meta({ROUNDS: [*ledger.get_meta(ROUNDS, []), entry], CLOCK: None})
