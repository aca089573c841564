"""The funnel: nothing done twice, nothing lost, one bad crystal is one verdict."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import pytest

from onnes.campaign.funnel import Item, Outcome, Stage, guarded, run_funnel
from onnes.campaign.ledger import Candidate, Ledger
from onnes.errors import CrystalError, ModelError
from onnes.parallel import Workers


def structure(k: int) -> dict:
    return {"lattice": [[3 + k, 0, 0], [0, 4, 0], [0, 0, 5]], "species": ["Al"], "frac": [[0.0, 0.0, 0.0]]}


def logged(items: list[Item], log: str, limit: int = 100) -> list[Outcome]:
    """Write down what was asked, so that a test sees what was computed."""
    with open(log, "a") as handle:
        handle.writelines(f"{i.id}\n" for i in items)
    return [
        Outcome(i.id, i.index < limit, "" if i.index < limit else "too-high", {"k": i.index}) for i in items
    ]


def picky(items: list[Item]) -> list[Outcome]:
    if any(i.index == 3 for i in items):
        raise CrystalError("bad-one", "number three")
    return [Outcome(i.id, True) for i in items]


def broken(items: list[Item]) -> list[Outcome]:
    if any(i.index == 2 for i in items):
        raise ZeroDivisionError("oops")
    return [Outcome(i.id, True) for i in items]


def hungry(items: list[Item]) -> list[Outcome]:
    if len(items) > 2:
        raise MemoryError
    return [Outcome(i.id, True, "", {"batch": len(items)}) for i in items]


def deadly(items: list[Item]) -> list[Outcome]:
    if any(i.index == 4 for i in items):
        os._exit(9)
    return [Outcome(i.id, True, "", {"twice": 2 * i.index}) for i in items]


def best(items: list[Item]) -> list[Outcome]:
    order = sorted(items, key=lambda i: -i.numbers["k"])
    return [Outcome(i.id, True, "", {"rank": r}) for r, i in enumerate(order, 1)]


@pytest.fixture
def ledger(tmp_path: Path):
    with Ledger.create(tmp_path / "run", {}) as opened:
        opened.add_candidates(Candidate(f"c{k}", k, structure(k)) for k in range(8))
        yield opened


def stages(log: Path, limit: int = 100) -> list[Stage]:
    first = Stage("first", partial(logged, log=str(log)), batch_size=3)
    second = Stage("second", partial(logged, log=str(log), limit=limit), {"limit": limit}, batch_size=2)
    return [first, second, Stage("rank", best, whole=True)]


def asked(log: Path) -> list[str]:
    return log.read_text().split() if log.exists() else []


def test_survivors_come_in_order_and_carry_all_numbers(ledger, tmp_path):
    alive = run_funnel(ledger, stages(tmp_path / "log", 6), Workers(1))
    assert [i.id for i in alive] == [f"c{k}" for k in range(6)]
    assert alive[0].numbers == {"k": 0, "rank": 6}
    assert {v.reason for v in ledger.verdicts(stage="second") if not v.passed} == {"too-high"}


def test_second_run_computes_nothing(ledger, tmp_path):
    log = tmp_path / "log"
    run_funnel(ledger, stages(log), Workers(1))
    before = asked(log)
    history = len(ledger.history())
    run_funnel(ledger, stages(log), Workers(1))
    assert asked(log) == before and len(before) == 16
    assert len(ledger.history()) == history


def test_changed_setting_redoes_only_its_stage_and_comes_back_for_free(ledger, tmp_path):
    log = tmp_path / "log"
    run_funnel(ledger, stages(log), Workers(1))
    alive = run_funnel(ledger, stages(log, 4), Workers(1))
    assert len(asked(log)) == 16 + 8 and len(alive) == 4
    assert {v.candidate for v in ledger.verdicts(stage="rank")} == {"c0", "c1", "c2", "c3"}
    alive = run_funnel(ledger, stages(log), Workers(1))
    assert len(asked(log)) == 16 + 8 and len(alive) == 8


def test_interrupted_run_keeps_finished_batches(ledger, tmp_path):
    log = tmp_path / "log"

    class Stop:
        seen = 0

        def begin(self, *_): ...

        def end(self, *_): ...

        def advance(self, stage, passed, failed):
            self.seen += passed + failed
            if self.seen >= 6:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_funnel(ledger, stages(log), Workers(1), Stop())
    assert len(ledger.verdicts(stage="first")) == 6
    run_funnel(ledger, stages(log), Workers(1))
    assert sorted(asked(log)) == sorted([f"c{k}" for k in range(8)] * 2)


def test_typed_error_is_the_verdict_of_its_crystal_alone(ledger):
    alive = run_funnel(ledger, [Stage("picky", picky, batch_size=8)], Workers(1))
    assert len(alive) == 7
    (bad,) = [v for v in ledger.verdicts() if not v.passed]
    assert (bad.candidate, bad.reason) == ("c3", "bad-one: number three")


def modelless(items: list[Item]) -> list[Outcome]:
    raise ModelError("no-model", "no checkpoint")


def test_missing_model_ends_the_run_and_is_nobodys_verdict(ledger):
    for workers in (Workers(1), Workers(2)):
        with workers, pytest.raises(ModelError, match="no-model"):
            run_funnel(ledger, [Stage("s", modelless, batch_size=2, parallel=True)], workers)
    assert ledger.verdicts() == []
    assert len(run_funnel(ledger, [Stage("s", best_of_none)], Workers(1))) == 8


def test_our_own_fault_is_tried_again_on_resume(ledger):
    run_funnel(ledger, [Stage("s", broken, batch_size=8)], Workers(1))
    (bad,) = [v for v in ledger.verdicts() if not v.passed]
    assert bad.reason == "internal-error: ZeroDivisionError: oops"
    alive = run_funnel(ledger, [Stage("s", picky, batch_size=8)], Workers(1))
    assert "c2" in [i.id for i in alive] and len(ledger.verdicts()) == 8


def test_out_of_memory_halves_the_batch(ledger):
    alive = run_funnel(ledger, [Stage("s", hungry, batch_size=8)], Workers(1))
    assert len(alive) == 8 and {i.numbers["batch"] for i in alive} == {2}


def test_missing_answer_is_reported(ledger):
    run_funnel(
        ledger, [Stage("s", lambda items: [Outcome(i.id, True) for i in items[1:]], whole=True)], Workers(1)
    )
    (bad,) = [v for v in ledger.verdicts() if not v.passed]
    assert bad.candidate == "c0" and bad.reason.startswith("internal-error")


def test_dead_worker_costs_one_crystal_and_is_tried_again(ledger):
    stage = Stage("s", deadly, batch_size=2, parallel=True)
    with Workers(2) as workers:
        alive = run_funnel(ledger, [stage], workers)
    assert [i.index for i in alive] == [0, 1, 2, 3, 5, 6, 7]
    (bad,) = [v for v in ledger.verdicts() if not v.passed]
    assert bad.reason.startswith("worker-died")
    alone = run_funnel(ledger, [Stage("s", best_of_none, batch_size=2)], Workers(1))
    assert len(alone) == 8


def best_of_none(items: list[Item]) -> list[Outcome]:
    return [Outcome(i.id, True) for i in items]


def test_workers_give_the_same_verdicts_as_the_driver(ledger, tmp_path):
    with Workers(2) as workers:
        run_funnel(ledger, [Stage("s", best_of_none, batch_size=3, parallel=True)], workers)
    many = [(v.key, v.passed, v.numbers) for v in sorted(ledger.verdicts(), key=lambda v: v.candidate)]
    with Ledger.create(tmp_path / "other", {}) as other:
        other.add_candidates(ledger.candidates())
        run_funnel(other, [Stage("s", best_of_none, batch_size=3)], Workers(1))
        one = [(v.key, v.passed, v.numbers) for v in sorted(other.verdicts(), key=lambda v: v.candidate)]
    assert many == one


def test_guarded_reports_seconds():
    outcomes, seconds = guarded(best_of_none, [Item("a", 0, {}, {})])
    assert outcomes[0].passed and seconds >= 0


def test_numbers_that_a_stage_does_not_see_repeat_nothing(ledger, tmp_path):
    """A changed guess ahead of the costly stage; what follows still has all numbers."""
    log, shown = tmp_path / "log", []

    def guess(items, by):
        return [Outcome(i.id, True, "", {"guess_tc": by * i.index}) for i in items]

    def costly(items):
        shown.extend(set(i.numbers) for i in items)
        return logged(items, str(log))

    def of(by):
        first = Stage("guess", partial(guess, by=by), {"by": by})
        return [first, Stage("costly", costly, sees=lambda name: not name.startswith("guess_"))]

    run_funnel(ledger, of(1.0), Workers(1))
    alive = run_funnel(ledger, of(2.0), Workers(1))
    assert len(asked(log)) == 8 and shown == [set()] * 8
    assert alive[3].numbers == {"guess_tc": 6.0, "k": 3}


def few(item: Item, top: int) -> bool:
    return item.numbers["rank"] <= top


def test_those_passed_by_cost_few_commits_and_no_call(tmp_path, monkeypatch):
    log, commits = tmp_path / "log", []

    def stage(top: int) -> Stage:
        return Stage(
            "page",
            partial(logged, log=str(log), limit=1000),
            batch_size=1,
            parallel=True,
            sees=lambda name: False,
            wanted=partial(few, top=top),
        )

    with Ledger.create(tmp_path / "many", {}) as many, Workers(1) as workers:
        many.add_candidates(Candidate(f"c{k}", k, structure(k), meta={"given": {"k": k}}) for k in range(503))
        rank = Stage("rank", best, whole=True)
        run_funnel(many, [rank], workers)
        add = many.add_verdicts
        monkeypatch.setattr(
            many, "add_verdicts", lambda new, **how: commits.append(len(new)) or add(new, **how)
        )
        alive = run_funnel(many, [rank, stage(3)], workers)
        assert len(alive) == 503 and sorted(asked(log)) == ["c500", "c501", "c502"]
        assert sorted(commits) == [1, 1, 1, 52, *[64] * 7], "the wanted one at a time, the others together"
        assert alive[0].numbers == {"k": 0, "rank": 503}, "passed by: no numbers"
        # More wanted: those looked at before are not looked at again, nor when fewer are wanted.
        run_funnel(many, [rank, stage(4)], workers)
        assert asked(log)[3:] == ["c499"] and commits[11:] == [1]
        alive = run_funnel(many, [rank, stage(3)], workers)
        assert len(asked(log)) == 4 and len(commits) == 12 and len(alive) == 503
