"""Rounds with a generator, stages and a labeller of our own: what is chosen, labelled, kept, and not done twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from onnes.campaign import rounds, rounds_models, stages
from onnes.campaign.canonical import content_hash
from onnes.campaign.funnel import Item, Outcome, Stage
from onnes.campaign.labels import Label, Person
from onnes.campaign.ledger import Candidate, Ledger
from onnes.campaign.rounds_choose import choose_batch, costs
from onnes.campaign.rounds_models import Models
from onnes.campaign.settings import Settings
from onnes.errors import LedgerError, SettingsError
from onnes.parallel import Workers

METALS = ("Nb", "V", "Ti", "Zr", "Hf", "Ta", "Mo", "W")


def crystal(index: int) -> dict:
    a = 3.0 + (index * 37 % 23) / 20
    kinds = [METALS[index % 8], ("C", "N", "B")[index // 8 % 3]]
    return {
        "lattice": [[a, 0, 0], [0, a, 0], [0, 0, a]],
        "species": kinds,
        "frac": [[0, 0, 0], [0.5, 0.5, 0.5]],
    }


def true_tc(structure: dict) -> float:
    return 20.0 * (structure["lattice"][0][0] - 3.0)


def predicted(items, shift):
    """Off by up to 3 K from the truth; refuses a few."""
    out = []
    for i in items:
        tc = max(true_tc(i.structure) + (int(content_hash(i.structure)[:4], 16) % 7 - 3) + shift, 0.1)
        numbers = {"tc_K": tc, "tc_low_K": tc / 2, "tc_high_K": tc * 2}
        out.append(Outcome(i.id, tc > 1.0, "" if tc > 1.0 else "tc-below-limit", numbers))
    return out


def ranked(items):
    order = sorted(items, key=lambda i: (-i.numbers["tc_K"], i.index))
    return [Outcome(i.id, True, "", {"rank": k}) for k, i in enumerate(order, 1)]


class Teller:
    """Labels by the truth, fails for tungsten, and remembers whom it was asked about."""

    settings = {"labeller": "test"}  # noqa: RUF012

    def __init__(self, withheld=()):
        self.asked, self.withheld = [], set(withheld)

    def labels(self, chosen, folder, done=()):
        for one in chosen:
            if one.id in self.withheld:
                continue
            self.asked.append(one.id)
            if "W" in one.structure["species"]:
                yield Label(one.id, reason="unstable: imaginary modes", source="test")
            else:
                yield Label(one.id, true_tc(one.structure), 0.7, 300.0, source="test")

    def waiting(self, left, folder):
        return f"{len(left)} wait"


class NoFiles:
    digest = "test"


def settings(n=10, **active) -> Settings:
    base = {"rounds": 3, "batch": 3, "target_tc_K": 10.0, "diversity": 0.0}
    return Settings.from_dict({"run": {"n": n, "workers": 1, "seed": 4}, "active": {**base, **active}})


def prepared(ledger, settings, out, k, *, generator):
    return Models(None, None, f"p{k}", f"g{k}", {})


def fake_build(settings, shift=0.0):
    return [
        Stage("predict", partial(predicted, shift=shift), {}, "p", batch_size=4),
        Stage("rank", ranked, {}, whole=True),
    ]


def draw(asked, path, seed, chunk):
    return [(i, crystal(i)) for i in range(*chunk)]


@pytest.fixture(autouse=True)
def fakes(monkeypatch):
    monkeypatch.setattr(rounds_models, "prepare", prepared)
    monkeypatch.setattr(stages, "build", fake_build)
    monkeypatch.setattr(rounds, "draw_block", draw)


def run(out: Path, monkeypatch, teller=None, chosen=None) -> tuple[str, Teller]:
    teller, chosen = teller or Teller(), chosen or settings()
    monkeypatch.setattr(rounds, "required", lambda s: teller)
    ledger = Ledger.open(out) if (out / "ledger.sqlite").exists() else Ledger.create(out, {})
    with ledger:
        return rounds.run_rounds(ledger, chosen, NoFiles(), out, Workers(1)), teller


def told(out: Path) -> dict:
    """All that a run holds but times."""
    with Ledger.open(out, read_only=True) as ledger:
        entries = [{k: v for k, v in e.items() if k != "seconds"} for e in ledger.get_meta("rounds", [])]
        current = {v.key: (v.passed, v.reason, v.numbers, v.structure) for v in ledger.verdicts()}
        return {"rounds": entries, "candidates": ledger.candidates(), "verdicts": current}


def test_rounds_are_on_record(tmp_path, monkeypatch):
    state, teller = run(tmp_path, monkeypatch)
    assert state == "finished" and len(teller.asked) == len(set(teller.asked)) == 9
    found = told(tmp_path)
    assert [c.id for c in found["candidates"]] == [f"g{i:06d}" for i in range(30)]
    assert [c.meta["round"] for c in found["candidates"]] == [1] * 10 + [2] * 10 + [3] * 10
    assert found["candidates"][10].meta["parents"] == ["g2"]
    with Ledger.open(tmp_path, read_only=True) as ledger:
        entries, labels = ledger.get_meta("rounds"), ledger.verdicts(stage="label")
        choices = {v.candidate: v for v in ledger.history(stage="choose")}
        assert ledger.get_meta("waiting") is None and ledger.get_meta("round_clock") is None
    assert [e["round"] for e in entries] == [1, 2, 3]
    for e in entries:
        own = [v for v in labels if v.numbers["label_round"] == e["round"]]
        assert len(own) == e["n_chosen"] == e["n_labelled"] + e["n_failed"] == 3
        assert e["n_hits"] == sum(v.numbers["label_hit"] for v in own) and e["seconds"] > 0
        upto = [v for v in labels if v.passed and v.numbers["label_round"] <= e["round"]]
        assert e["best_tc_K"] == max(v.numbers["label_tc_K"] for v in upto)
        assert (e["strategy"], e["target_tc_K"], e["model_hash"]) == ("probability", 10.0, f"p{e['round']}")
        assert (e["n_candidates"], e["generator_hash"]) == (10, f"g{e['round']}")
    for v in labels:
        assert v.passed == ("label_tc_K" in v.numbers) and v.passed != v.reason.startswith("unstable")
        c = choices[v.candidate].numbers
        assert (
            0 <= c["acquisition"] <= 1
            and c["score_std"] > 0
            and c["choose_round"] == v.numbers["label_round"]
        )


def test_the_likeliest_of_what_is_left_is_chosen(tmp_path, monkeypatch):
    run(tmp_path, monkeypatch, chosen=settings(rounds=2))
    with Ledger.open(tmp_path, read_only=True) as ledger:
        tc = {v.candidate: v.numbers["tc_K"] for v in ledger.history(stage="predict") if v.passed}
        chosen = [(v.numbers["choose_round"], v.candidate) for v in ledger.history(stage="choose")]
    first = {c for k, c in chosen if k == 1}
    second = {c for k, c in chosen if k == 2}
    one = [c for c in tc if c < "g000010"]
    # Intervals are alike on the scale of the score: the largest Tc is the likeliest above the target.
    assert first == set(sorted(one, key=lambda c: -tc[c])[:3])
    assert second == set(sorted(set(tc) - first, key=lambda c: -tc[c])[:3])


def test_the_same_seed_gives_the_same_run(tmp_path, monkeypatch):
    for name in ("a", "b"):
        run(tmp_path / name, monkeypatch, chosen=settings(strategy="random"))
    assert told(tmp_path / "a") == told(tmp_path / "b")


class Killed(BaseException):
    pass


def test_a_driver_that_dies_at_any_write_loses_and_repeats_nothing(tmp_path, monkeypatch):
    run(tmp_path / "whole", monkeypatch)
    real, asked, sessions = Ledger._transaction, [], 0
    state = "killed"
    while state == "killed":
        # Every session gets one write further than the one before.
        left = [2 + sessions]

        def counted(self, left=left):
            if not left[0]:
                raise Killed
            left[0] -= 1
            return real(self)

        teller = Teller()
        monkeypatch.setattr(Ledger, "_transaction", counted)
        try:
            state, _ = run(tmp_path / "cut", monkeypatch, teller)
        except Killed:
            sessions += 1
        monkeypatch.setattr(Ledger, "_transaction", real)
        asked += teller.asked
        assert sessions < 200
    assert sessions > 5 and told(tmp_path / "cut") == told(tmp_path / "whole")
    # Asked again is only who was under way when the driver died.
    assert len(asked) - len(set(asked)) <= sessions


PROGRAM = """
import os, signal, sys
from pathlib import Path
import test_rounds as t
from onnes.campaign import rounds, rounds_models, stages
from onnes.campaign.ledger import Ledger
from onnes.parallel import Workers
rounds_models.prepare, stages.build, rounds.draw_block = t.prepared, t.fake_build, t.draw
out, left = Path(sys.argv[1]), int(sys.argv[2])
real = Ledger._transaction
def counted(self):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(self)
Ledger._transaction = counted
rounds.required = lambda s: t.Teller()
with Ledger.open(out) if (out / "ledger.sqlite").exists() else Ledger.create(out, {}) as ledger:
    rounds.run_rounds(ledger, t.settings(), t.NoFiles(), out, Workers(1))
"""


def test_kill_9_and_resume(tmp_path, monkeypatch):
    run(tmp_path / "whole", monkeypatch)
    place = str(Path(__file__).parent)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": place}
    for writes in (9, 12):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(tmp_path / "cut"), str(writes)], env=environment, cwd=tmp_path
        )
        assert done.returncode == -signal.SIGKILL
    assert run(tmp_path / "cut", monkeypatch)[0] == "finished"
    assert told(tmp_path / "cut") == told(tmp_path / "whole")


def test_missing_labels_hold_the_round_up_and_more_rounds_go_on(tmp_path, monkeypatch):
    whole, _ = run(tmp_path / "whole", monkeypatch)
    with Ledger.open(tmp_path / "whole", read_only=True) as ledger:
        late = next(v.candidate for v in ledger.history(stage="choose") if v.numbers["choose_round"] == 2)
    state, _ = run(tmp_path / "a", monkeypatch, Teller([late]), settings(rounds=2))
    with Ledger.open(tmp_path / "a", read_only=True) as ledger:
        assert state == "waiting" and ledger.get_meta("waiting") == "round 2: 1 wait"
        assert len(ledger.get_meta("rounds")) == 1 and len(ledger.verdicts(stage="label")) == 5
    state, teller = run(tmp_path / "a", monkeypatch, chosen=settings(rounds=2))
    assert state == "finished" and teller.asked == [late]
    assert run(tmp_path / "a", monkeypatch)[0] == whole
    assert told(tmp_path / "a") == told(tmp_path / "whole")


def test_a_person_who_corrects_a_mistake_later_still_has_blanks_skipped(tmp_path, monkeypatch):
    chosen = settings(rounds=1, labeller="file", blanks="skip")
    assert run(tmp_path, monkeypatch, Person(chosen), chosen)[0] == "waiting"
    path = tmp_path / "round-1" / "to_label.csv"
    head, *rows = path.read_text().splitlines()
    (good, typo, blank), columns = rows, head.split(",")
    assert columns[-5:] == ["tc_K", "lambda", "omega_log_K", "failed", "source"]
    good, wrong, right = good[:-4] + "7,,,,", typo[:-4] + "warm,,,,", typo[:-4] + "8,,,,"
    path.write_text("\n".join([head, good, wrong, blank]) + "\n")
    assert run(tmp_path, monkeypatch, Person(chosen), chosen)[0] == "waiting"
    with Ledger.open(tmp_path, read_only=True) as ledger:
        assert [v.numbers["label_tc_K"] for v in ledger.verdicts(stage="label")] == [7.0]
        assert "not-a-number" in ledger.get_meta("waiting")
    path.write_text("\n".join([head, good, right, blank]) + "\n")
    assert run(tmp_path, monkeypatch, Person(chosen), chosen)[0] == "finished"
    with Ledger.open(tmp_path, read_only=True) as ledger:
        found = {v.candidate: v for v in ledger.history(stage="label")}
        assert len(ledger.history(stage="label")) == 3
    ids = [row.split(",")[0] for row in rows]
    assert [found[i].numbers.get("label_tc_K") for i in ids] == [7.0, 8.0, None]
    assert found[ids[2]].reason.startswith("skipped")


def test_choices_stand_when_settings_change(tmp_path, monkeypatch):
    run(tmp_path, monkeypatch, Teller(f"g{i:06d}" for i in range(10)), settings(rounds=1))
    _, teller = run(tmp_path, monkeypatch, chosen=settings(rounds=1, batch=7, strategy="greedy"))
    assert len(teller.asked) == 3


def test_another_n_and_a_second_driver_are_refused(tmp_path, monkeypatch):
    run(tmp_path, monkeypatch, chosen=settings(rounds=1))
    with pytest.raises(SettingsError, match="n = 10, not 12"):
        run(tmp_path, monkeypatch, chosen=settings(n=12))
    with Ledger.open(tmp_path), pytest.raises(LedgerError, match="run-in-use"):
        run(tmp_path, monkeypatch)


@pytest.mark.parametrize(("cost", "cheap"), [("atoms", True), ("none", False)])
def test_cost_prefers_the_smaller_cell(tmp_path, monkeypatch, cost, cheap):
    small = {"tc_K": 12.0, "tc_low_K": 6.0, "tc_high_K": 24.0}
    large = {"tc_K": 13.0, "tc_low_K": 6.5, "tc_high_K": 26.0}
    double = {**crystal(1), "species": ["V", "V", "V", "C"], "frac": [[0, 0, k / 4] for k in range(4)]}
    with Ledger.create(tmp_path, {}) as ledger:
        rows = [("g000000", 0, crystal(0)), ("g000001", 1, double)]
        ledger.add_candidates([Candidate(*row) for row in rows])
        pool = [Item("g000000", 0, crystal(0), small), Item("g000001", 1, double, large)]
        (one,) = choose_batch(ledger, settings(batch=1, cost=cost), pool, 1, "p")
    assert (one.id == "g000000") == cheap


def test_dft_cost_counts_and_what_cannot_be_planned_is_left_out(tmp_path):
    heavy = {**crystal(0), "species": ["Nb", "Og"]}
    s = settings(cost="dft")
    light, big, none = costs(
        [Item(str(k), k, x, {}) for k, x in enumerate((crystal(0), crystal(22), heavy))], s
    )
    assert 0 < light < big
    assert none == float("inf") or none > light
