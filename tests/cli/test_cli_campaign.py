"""``onnes campaign``: status, show, why and retry of a small run, driven, stopped and damaged ones included."""

from __future__ import annotations

import json
import re
import sqlite3

import pytest
from typer.testing import CliRunner

from onnes.campaign.funnel import Outcome, Stage, run_funnel
from onnes.campaign.ledger import MOST_ATTEMPTS, Candidate, Ledger, Verdict
from onnes.campaign.models import fingerprints
from onnes.campaign.settings import Settings
from onnes.cli.main import app
from onnes.errors import LedgerError, SettingsError
from onnes.parallel import Workers

STAGES = ["check", "relax", "predict", "rank"]
MGB2 = {"lattice": [[3, 0, 0], [0, 3, 0], [0, 0, 3]], "species": ["Mg", "B", "B"], "frac": [[0, 0, 0]] * 3}
PREDICTED = {"tc_K": 8.25, "tc_low_K": 4.0, "tc_high_K": 16.5, "in_domain": True}


def verdict(k: int, stage: str, reason: str = "", settings: str = "s", **numbers) -> Verdict:
    return Verdict(
        f"g{k:06d}", stage, not reason, reason, numbers, None, "in", settings, "m-" + stage, k, 1.5
    )


@pytest.fixture
def run(tmp_path):
    """g0 ranked, g1 too slow to relax, g2 waiting for relax, g3 without a Tc, g4 refused at the gate."""
    folder = tmp_path / "run"
    settings = Settings()
    with Ledger.create(folder, settings.model_dump()) as ledger:
        ledger.add_candidates(
            [Candidate(f"g{k:06d}", k, MGB2, "symmetric abc", k, {"parent": "mp-763"}) for k in range(5)]
        )
        ledger.add_verdicts([verdict(k, "check", n_atoms=3) for k in range(4)])
        ledger.add_verdicts([verdict(4, "check", "overlapping-atoms: 0.3 A")])
        ledger.add_verdicts([verdict(1, "relax", "steps: 0.2 eV/A left", settings="older")])
        ledger.add_verdicts(
            [verdict(0, "relax"), verdict(1, "relax", "steps: 0.1 eV/A left"), verdict(3, "relax")]
        )
        ledger.add_verdicts(
            [verdict(0, "predict", **PREDICTED), verdict(3, "predict", "tc-below-limit: 2.1 K")]
        )
        ledger.add_verdicts([verdict(0, "rank", rank=1, score=8.0)])
        ledger.update_meta({"stages": STAGES, "state": "running", "models": fingerprints(settings)})
    return folder


def call(*arguments, code: int = 0) -> str:
    done = CliRunner().invoke(app, ["campaign", *map(str, arguments)])
    assert done.exit_code == code, (done.exit_code, done.output, done.exception)
    return done.output


def error(kind, *arguments):
    done = CliRunner().invoke(app, ["campaign", *map(str, arguments)])
    assert isinstance(done.exception, kind), done.output
    return done.exception


def test_status_counts_the_funnel(run):
    found = json.loads(call("status", run, "--json"))
    rows = {
        r["stage"]: (r["entered"], r["passed"], r["failed"], r["waiting"], r["seconds"])
        for r in found["stages"]
    }
    assert rows == {
        "check": (5, 4, 1, 0, 7.5),
        "relax": (4, 2, 1, 1, 4.5),
        "predict": (2, 1, 1, 0, 3.0),
        "rank": (1, 1, 0, 0, 1.5),
    }
    assert found["stages"][1]["reasons"] == {"steps": 1} and found["stages"][1]["models"] == {"m-relax": 3}
    assert (found["candidates"], found["seconds"], found["warnings"]) == (5, 16.5, [])
    # It says running, and nobody drives it.
    assert (found["state"], found["driver"]) == ("stopped", "")
    text = call("status", run)
    assert re.search(r"relax +4 +2 +1 +1 +4.5 s +steps 1", text) and "model of relax: m-relax" in text


def test_status_beside_a_living_driver(run):
    with Ledger.open(run):
        found = json.loads(call("status", run, "--json"))
        assert found["state"] == "running" and "process" in found["driver"]
        assert "run-in-use" in str(error(LedgerError, "retry", run, "--stage", "relax"))
    assert json.loads(call("status", run, "--json"))["driver"] == ""


def test_status_warns_of_other_models(run, monkeypatch):
    with Ledger.open(run) as ledger:
        held = ledger.get_meta("models")
        held["hull"] = dict.fromkeys(held["hull"], "0" * 16)
        ledger.set_meta("models", held)
        other = verdict(3, "relax")
        ledger.add_verdicts([Verdict(**{**other.__dict__, "model_hash": "m-2"})])
    warnings = json.loads(call("status", run, "--json"))["warnings"]
    assert any("relax: verdicts of 2 models" in w for w in warnings)
    assert any("hull_references.csv.gz was 0000000000000000" in w for w in warnings) and len(warnings) == 2
    assert "warning: hull: hull_references" in call("status", run)


def test_show_tells_everything(run):
    with Ledger.open(run) as ledger:
        (failed,) = [v for v in ledger.verdicts("g000001") if not v.passed]
        ledger.retry([failed])
        ledger.add_verdicts([verdict(1, "relax", "steps: 0.09 eV/A left")])
    text = call("show", run, "g000001")
    for part in (
        "source symmetric abc, index 1, seed 1",
        "parent: mp-763",
        "computing time: 6.0 s",
        "check: passed (1.5 s)",
        "input in, settings s, model m-relax, seed 1",
        "relax: refused, steps: 0.09 eV/A left",
        "of other settings, inputs or models",
        "relax: refused, steps: 0.2 eV/A left",
        "attempt 1, put aside ",
        "(retry)",
    ):
        assert part in text, part
    data = json.loads(call("show", run, "g000001", "--json"))
    assert (
        data["refused_at"] == "relax" and data["structure"] == MGB2 and data["meta"] == {"parent": "mp-763"}
    )
    assert [v["stage"] for v in data["verdicts"]] == ["check", "relax"]
    assert [v["reason"] for v in data["other_settings"]] == ["steps: 0.2 eV/A left"]
    assert [(e["attempt"], e["cause"], e["verdict"]["reason"]) for e in data["earlier"]] == [
        (1, "retry", "steps: 0.1 eV/A left")
    ]


@pytest.mark.parametrize(
    ("id", "words"),
    [
        ("g000000", ["passed all 4 stages", "number 1 in rank", "Tc 8.2 K", "4.0 to 16.5 K"]),
        ("g000001", ["refused at the stage relax", "0.1 eV/A left", "relax.max_steps = 200"]),
        ("g000002", ["has passed check and no verdict yet at the stage relax", "the run is not at its end"]),
        ("g000003", ["refused at the stage predict", "2.1 K", "predict.min_tc_K = 5.0"]),
        ("g000004", ["refused at the stage check", "closer", "0.3 A"]),
    ],
)
def test_why_says_it_in_plain_words(run, id, words):
    text = call("why", run, id)
    assert text.startswith(f"{id} (B2Mg)") and text.rstrip().endswith(".")
    for part in words:
        assert part in text.replace("\N{NO-BREAK SPACE}", " "), (part, text)


def test_retry_takes_failures_out_and_keeps_them(run):
    assert "1 taken out (relax 1)" in call("retry", run, "--stage", "relax", "--reason", "steps")
    with Ledger.open(run, read_only=True) as ledger:
        assert [v.stage for v in ledger.verdicts("g000001")] == ["check"]
        (old,) = ledger.earlier()
        assert old.verdict.candidate == "g000001" and old.cause == "retry" and "process" in old.by
        assert ledger.get_meta("state") == "stopped"
    assert "waits" not in call("why", run, "g000001") and "no verdict yet" in call("why", run, "g000001")
    assert json.loads(call("status", run, "--json"))["tried_again"] == {"relax": 1}
    assert "2 taken out" in call("retry", run, "g000003", "g000004")


def test_retry_ends_after_so_many_attempts(run):
    for _ in range(MOST_ATTEMPTS - 1):
        call("retry", run, "g000001")
        with Ledger.open(run) as ledger:
            ledger.add_verdicts([verdict(1, "relax", "steps: 0.1 eV/A left")], replace=True)
    assert "retry-limit" in call("retry", run, "g000001", code=1)
    assert f"It was tried {MOST_ATTEMPTS} times." in call("why", run, "g000001")


def test_mistakes_are_named(run, tmp_path):
    assert "did you mean g000003" in str(error(LedgerError, "show", run, "3"))
    assert "did you mean g000003" in str(error(LedgerError, "why", run, "G000003"))
    assert "its ids go from g000000 to g000004" in str(error(LedgerError, "why", run, "MgB2"))
    assert "no-such-candidate" in str(error(LedgerError, "retry", run, "g000009"))
    nothing = str(error(LedgerError, "retry", run, "--stage", "hull"))
    assert "relax steps (1)" in nothing and "nothing-to-retry" in nothing
    assert "bad-setting" in str(error(SettingsError, "retry", run))
    assert "no-ledger" in str(error(LedgerError, "status", tmp_path))
    with sqlite3.connect(run / "ledger.sqlite") as db:
        db.execute("UPDATE meta SET value = '\"finished\"' WHERE key = 'state'")
    assert "damaged-ledger" in str(error(LedgerError, "status", run))


def test_a_run_without_stages_or_candidates(tmp_path):
    with Ledger.create(tmp_path / "new") as ledger:
        assert json.loads(call("status", tmp_path / "new", "--json"))["state"] == "new"
        ledger.add_candidates([Candidate("a", 0, MGB2)])
    assert "no stage has begun" in call("why", tmp_path / "new", "a")
    assert "it has none yet" not in str(error(LedgerError, "why", tmp_path / "new", "b"))


def test_what_is_retried_is_done_again_and_nothing_else(tmp_path):
    asked = []

    def process(items):
        asked.append(sorted(i.id for i in items))
        # What was refused the first time passes once the cause is gone.
        refused = {"g000001": "steps"} if len(asked) == 1 else {}
        return [Outcome(i.id, i.id not in refused, refused.get(i.id, "")) for i in items]

    stage = Stage("relax", process)
    with Ledger.create(tmp_path / "run") as ledger, Workers(1) as workers:
        ledger.add_candidates([Candidate(f"g{k:06d}", k, MGB2) for k in range(3)])
        assert [i.id for i in run_funnel(ledger, [stage], workers)] == ["g000000", "g000002"]
    call("retry", tmp_path / "run", "g000001")
    with Ledger.open(tmp_path / "run") as ledger, Workers(1) as workers:
        assert len(run_funnel(ledger, [stage], workers)) == 3
        assert asked == [["g000000", "g000001", "g000002"], ["g000001"]]
        assert [(v.passed, v.reason) for v in ledger.history("g000001")] == [(False, "steps"), (True, "")]


def test_rounds_of_active_learning_are_told(run):
    with Ledger.open(run) as ledger:
        entry = {
            "round": 1,
            "n_candidates": 48,
            "n_chosen": 8,
            "n_labelled": 7,
            "n_hits": 2,
            "best_tc_K": 11.25,
        }
        ledger.set_meta("rounds", [entry])
        ledger.add_verdicts([verdict(0, "label", label_tc_K=11.25)])
    text = call("status", run)
    assert "round 1: 48 candidates, 8 chosen, 7 labelled, 2 hits, best Tc 11.2 K" in text
    assert re.search(r"label +1 +1 +0 +0", text)
