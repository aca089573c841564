"""The funnel: stages applied one after the other to whatever is still alive, every verdict in the ledger.

A stage never re-does what the ledger holds for the same input, settings and model. The driver alone writes;
workers compute and return. Batches are committed as they come back, so a run killed at any moment loses at
most the batches under way.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from typing import Any, Protocol

from onnes.campaign.canonical import content_hash
from onnes.campaign.ledger import Candidate, Ledger, Verdict
from onnes.errors import CrystalError, OnnesError, PhysicsError
from onnes.parallel import Engine, WorkerDiedError, completed

#: Reasons that are the machine's or our own fault: such verdicts are tried again on every resume.
RETRY = ("internal-error", "worker-died")
#: Items a commit of those that a stage passes by.
PASSED_BY = 64


@dataclass(frozen=True)
class Item:
    """A crystal on its way through the funnel.

    Attributes
    ----------
    id, index : str, int
        Identity in the ledger.
    structure : dict
        ``lattice``, ``species``, ``frac`` after the last stage that changed it.
    numbers : dict
        Numbers of all earlier stages, merged.
    seed : int
    """

    id: str
    index: int
    structure: dict[str, Any]
    numbers: dict[str, Any]
    seed: int = 0


@dataclass(frozen=True)
class Outcome:
    """What a stage says about one item."""

    id: str
    passed: bool
    reason: str = ""
    numbers: dict[str, Any] = field(default_factory=dict)
    structure: dict[str, Any] | None = None


def everything(name: str) -> bool:
    """Hide no number from a stage."""
    return True


@dataclass(frozen=True)
class Stage:
    """One stage.

    Attributes
    ----------
    name : str
    process : callable
        Takes a list of items and returns one outcome each, in any order. Picklable where it is `parallel`.
    settings : dict
        Everything the outcome depends on besides the input; hashed into the ledger's key.
    model_hash : str
        Of the weights or tables it uses.
    batch_size : int
        Items a call.
    parallel : bool
        Sent to the engine.
    whole : bool
        Called once with all survivors (ranking, comparing with each other).
    sees : callable
        Name of a number -> whether the stage uses it. The others neither reach `process` nor enter the ledger's key,
        so that a change of theirs repeats nothing.
    wanted : callable, optional
        Whether an item, with all its numbers, is looked at. The others pass with no numbers, answered by the driver
        in batches of `PASSED_BY`. Not for a stage that is `whole`.
    """

    name: str
    process: Callable[[list[Item]], list[Outcome]]
    settings: Mapping[str, Any] = field(default_factory=dict)
    model_hash: str = ""
    batch_size: int = 16
    parallel: bool = False
    whole: bool = False
    sees: Callable[[str], bool] = everything
    wanted: Callable[[Item], bool] | None = None

    @property
    def settings_hash(self) -> str:
        """Hash of the settings."""
        return content_hash(self.settings)


class Watcher(Protocol):
    """Who wants to know how far the funnel is."""

    def begin(self, stage: str, total: int, kept: int) -> None:
        """A stage starts with ``total`` items, ``kept`` of which the ledger already answers."""

    def advance(self, stage: str, passed: int, failed: int) -> None:
        """So many more items have their verdict."""

    def end(self, stage: str) -> None:
        """The stage is complete."""


class Silent:
    """A watcher that says nothing."""

    def begin(self, stage: str, total: int, kept: int) -> None:
        """Ignore."""

    def advance(self, stage: str, passed: int, failed: int) -> None:
        """Ignore."""

    def end(self, stage: str) -> None:
        """Ignore."""


def run_funnel(
    ledger: Ledger, stages: Sequence[Stage], engine: Engine, watcher: Watcher | None = None
) -> list[Item]:
    """Send the candidates of a ledger through the stages.

    Parameters
    ----------
    ledger : Ledger
        Open for writing, with its candidates.
    stages : sequence of Stage
    engine : Engine
        Who computes the parallel stages: `onnes.parallel.Workers` or a cluster.
    watcher : Watcher, optional

    Returns
    -------
    list of Item
        The survivors of the last stage, in order of their index.
    """
    watcher = watcher or Silent()
    alive = [_first_item(c) for c in ledger.candidates()]
    names = [s.name for s in stages]
    ledger.set_meta("stages", names)
    for place, stage in enumerate(stages):
        verdicts = _run_stage(ledger, stage, alive, engine, watcher)
        later = names[place + 1 :]
        ledger.forget([v.candidate for v in verdicts.values() if not v.passed], later)
        alive = [_next_item(item, verdicts[item.id]) for item in alive if verdicts[item.id].passed]
    return alive


def _first_item(c: Candidate) -> Item:
    return Item(c.id, c.index, c.structure, dict(c.meta.get("given", {})), c.seed)


def _next_item(item: Item, verdict: Verdict) -> Item:
    structure = verdict.structure or item.structure
    return Item(item.id, item.index, structure, {**item.numbers, **verdict.numbers}, item.seed)


def _run_stage(
    ledger: Ledger, stage: Stage, alive: list[Item], engine: Engine, watcher: Watcher
) -> dict[str, Verdict]:
    """Return the verdict of every item, computing those the ledger does not hold."""
    passed_by = {i.id for i in alive if stage.wanted is not None and not stage.wanted(i)}
    alive = [_view(stage, item) for item in alive]
    hashes = _input_hashes(stage, alive, passed_by)
    held = ledger.found(stage.name, stage.settings_hash, stage.model_hash)
    verdicts = {}
    for item in alive:
        verdict = held.get((item.id, hashes[item.id]))
        if verdict is not None and verdict.reason.split(":")[0] not in RETRY:
            verdicts[item.id] = verdict
    ledger.choose(verdicts.values())
    todo = [item for item in alive if item.id not in verdicts]
    if stage.whole and todo:
        todo, verdicts = alive, {}
    watcher.begin(stage.name, len(alive), len(verdicts))
    for v in verdicts.values():
        watcher.advance(stage.name, int(v.passed), int(not v.passed))
    idle = [item for item in todo if item.id in passed_by]
    todo = [item for item in todo if item.id not in passed_by]
    size = max(len(todo), 1) if stage.whole else stage.batch_size
    answers = chain(
        ((batch, {i.id: Outcome(i.id, True) for i in batch}, 0.0) for batch in _batches(idle, PASSED_BY)),
        _compute(stage, _batches(todo, size), engine),
    )
    for batch, outcomes, seconds in answers:
        fresh = [_verdict(stage, item, outcomes, hashes, seconds / len(batch)) for item in batch]
        ledger.add_verdicts(fresh, replace=True)
        verdicts.update({v.candidate: v for v in fresh})
        watcher.advance(stage.name, sum(v.passed for v in fresh), sum(not v.passed for v in fresh))
    watcher.end(stage.name)
    return verdicts


def _view(stage: Stage, item: Item) -> Item:
    """An item with the numbers that a stage uses."""
    return replace(item, numbers={k: v for k, v in item.numbers.items() if stage.sees(k)})


def _batches(items: list[Item], size: int) -> list[list[Item]]:
    return [items[i : i + size] for i in range(0, len(items), size)]


def _input_hashes(stage: Stage, alive: list[Item], passed_by: set[str]) -> dict[str, str]:
    hashes = {
        item.id: content_hash("passed by" if item.id in passed_by else [item.structure, item.numbers])
        for item in alive
    }
    if stage.whole:
        # What a crystal gets depends on its company.
        company = content_hash(hashes)
        return dict.fromkeys(hashes, company)
    return hashes


def _verdict(
    stage: Stage, item: Item, outcomes: dict[str, Outcome], hashes: dict[str, str], seconds: float
) -> Verdict:
    o = outcomes.get(item.id) or Outcome(item.id, False, "internal-error: the stage gave no answer")
    return Verdict(
        item.id,
        stage.name,
        o.passed,
        o.reason,
        o.numbers,
        o.structure,
        hashes[item.id],
        stage.settings_hash,
        stage.model_hash,
        item.seed,
        seconds,
    )


def _compute(
    stage: Stage, batches: list[list[Item]], engine: Engine
) -> Iterator[tuple[list[Item], dict[str, Outcome], float]]:
    """Yield each batch with its outcomes and the seconds spent, as they are finished."""
    process = partial(guarded, stage.process)
    if not stage.parallel or not engine.remote:
        for batch in batches:
            outcomes, seconds = process(batch)
            yield batch, {o.id: o for o in outcomes}, seconds
        return
    # What was under way when a worker died is repeated one item at a time: the culprit dies alone.
    for batch, answer in completed(engine, process, batches, lambda batch: [[item] for item in batch]):
        if isinstance(answer, WorkerDiedError):
            outcomes, seconds = [Outcome(i.id, False, f"{answer.code}: {answer.message}") for i in batch], 0.0
        else:
            outcomes, seconds = answer
        yield batch, {o.id: o for o in outcomes}, seconds


def guarded(process: Callable[[list[Item]], list[Outcome]], batch: list[Item]) -> tuple[list[Outcome], float]:
    """Process a batch; when it fails, halve it until the one item at fault is alone.

    A `CrystalError` or `PhysicsError` is that item's verdict. A missing model, a damaged table or a bad setting
    is nobody's verdict: it ends the run with its own message. Anything else is a fault of ours: reported as
    ``internal-error`` and tried again on resume.

    Raises
    ------
    OnnesError
        All other typed errors.
    """
    began = time.perf_counter()
    return _split(process, batch), time.perf_counter() - began


def _split(process: Callable[[list[Item]], list[Outcome]], batch: list[Item]) -> list[Outcome]:
    try:
        return process(batch)
    except (CrystalError, PhysicsError) as error:
        reason = f"{error.code}: {error.message}"
    except OnnesError:
        raise
    except Exception as error:
        reason = f"internal-error: {type(error).__name__}: {str(error)[:200]}"
    if len(batch) == 1:
        return [Outcome(batch[0].id, False, reason)]
    middle = len(batch) // 2
    return _split(process, batch[:middle]) + _split(process, batch[middle:])
