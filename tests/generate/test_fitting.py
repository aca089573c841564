"""The training loop: it learns, resumes, stops in time, survives a loss that is not finite, keeps the best weights."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from onnes.errors import DataError, SettingsError
from onnes.generate import fitting
from onnes.generate.fitting import Fit, FitSettings, fit


class Line(nn.Module):
    """y = a x, one number to learn."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.zeros(()))
        self.poison = False

    def forward(self, batch):
        error = (self.a * batch["x"] - batch["y"]).square().mean()
        return {"square": error * (float("nan") if self.poison else 1.0)}


def groups(slope: float = 2.0):
    g = torch.Generator().manual_seed(0)
    out = {}
    for n in (1, 3):
        x = torch.randn(50, generator=g)
        out[n] = {"x": x, "y": slope * x, "weight": torch.ones(50)}
    return out


def settings(**more):
    return FitSettings(**{"steps": 400, "lr": 0.05, "warmup": 5, "ema": 0.9, "every": 50, **more})


def test_it_learns_and_returns_the_averaged_weights(tmp_path):
    module = Line()
    line, weights = fit(module, module, groups(), settings(), tmp_path, groups())
    assert abs(float(weights["a"]) - 2.0) < 0.02 and line["val_square"] < 1e-3 and line["step"] == 400
    log = [json.loads(x) for x in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [x["step"] for x in log][:3] == [50, 100, 150]


def test_a_run_goes_on_from_its_checkpoint(tmp_path):
    module = Line()
    fit(module, module, groups(), settings(steps=100), tmp_path)
    again = Line()
    run = Fit(again, again, groups(), settings(steps=300), tmp_path)
    run.run()
    assert run.step == 300 and run.before > 0
    first = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[-2])
    assert first["step"] > 100


def test_time_ends_a_run_and_the_rate_follows_it(tmp_path):
    module = Line()
    run = Fit(module, module, groups(), settings(steps=10**9, seconds=1.0), tmp_path)
    began = time.monotonic()
    line = run.run()
    # A last window that is too short for a verdict is not logged: the line may be a little older than the end.
    assert time.monotonic() - began >= 1.0 and 0.0 <= line["seconds"] < 20.0
    assert run.progress(0.5) == pytest.approx(0.5, abs=1e-3)


def test_a_loss_that_is_not_finite_changes_nothing_and_one_that_never_is_ends_the_run(tmp_path):
    module = Line()
    module.poison = True
    run = Fit(module, module, groups(), settings(steps=20, weight_decay=0.0), tmp_path)
    with pytest.raises(DataError, match="no-finite-loss"):
        run.run()
    assert float(module.a.detach()) == 0.0


def test_a_few_losses_that_are_not_finite_do_not_end_the_run(tmp_path):
    module = Line()
    data = groups()
    data[3]["y"] *= float("nan")
    run = Fit(module, module, data, settings(weight_decay=0.0), tmp_path)
    run.run()
    assert abs(float(module.a.detach()) - 2.0) < 0.02


def test_weights_of_crystals_decide_what_is_learnt(tmp_path):
    data = groups(2.0)
    for n, other in groups(-1.0).items():
        data[n] = {k: torch.cat([data[n][k], other[k]]) for k in other}
        data[n]["tuned_weight"] = torch.cat([torch.zeros(50), torch.ones(50)])
    module = Line()
    _, weights = fit(module, module, data, settings(tuned=0.3, steps=600), tmp_path)
    assert abs(float(weights["a"]) + 1.0) < 0.05


def test_the_best_weights_are_kept(tmp_path):
    module = Line()
    run = Fit(module, module, groups(2.0), settings(keep_best=True, checks=20, every=20), tmp_path)
    # Held-out data ask for 1: training to 2 passes it on the way.
    run.run(lambda: run.mean_loss(groups(1.0)))
    assert abs(float(run.weights()["a"]) - 1.0) < abs(float(run.mean[0]) - 1.0)


class Judged:
    """Calls the slope's distance from a number its quality; uses up random numbers and 1,000 s of a clock."""

    clock = 0.0

    def __init__(self, wanted: float = 2.0, stop_at: int = 10**9) -> None:
        self.wanted, self.stop_at, self.seen = wanted, stop_at, []

    def __call__(self, weights):
        if len(self.seen) == self.stop_at:
            raise RuntimeError("killed")
        torch.rand(7)
        Judged.clock += 1000.0
        self.seen.append(float(weights["a"]))
        return {"quality": -abs(self.seen[-1] - self.wanted), "figures": {"slope": self.seen[-1]}}


def lines_of(folder):
    """Lines of the log that tell of drawn crystals."""
    log = [json.loads(x) for x in (folder / "log.jsonl").read_text().splitlines()]
    return [x for x in log if "quality" in x]


def test_judging_drawn_crystals_changes_nothing_in_the_training(tmp_path, monkeypatch):
    monkeypatch.setattr(fitting, "time", SimpleNamespace(time=lambda: time.time() + Judged.clock))
    plain, judged, judge = Line(), Line(), Judged()
    one = Fit(plain, plain, groups(), settings(steps=100), tmp_path / "plain")
    one.run()
    two = Fit(judged, judged, groups(), settings(steps=100, draw_every=30), tmp_path / "judged")
    line = two.run(judge=judge)
    assert torch.equal(one.weights()["a"], two.weights()["a"]) and torch.equal(plain.a, judged.a)
    # With the averaged weights, at the steps asked for and at the end; what it takes is no training time.
    assert [x["step"] for x in lines_of(tmp_path / "judged")] == [30, 60, 90, 100]
    assert judge.seen[-1] == float(two.mean[0]) != float(judged.a.detach())
    assert two.drawn == lines_of(tmp_path / "judged") and line["seconds"] < 1000.0


def test_a_run_that_ends_within_a_judgement_goes_on(tmp_path):
    wanted = settings(steps=100, draw_every=30, keep_drawn=True)
    module = Line()
    with pytest.raises(RuntimeError):
        Fit(module, module, groups(), wanted, tmp_path).run(judge=Judged(stop_at=2))
    again = Line()
    run = Fit(again, again, groups(), wanted, tmp_path)
    run.run(judge=Judged())
    assert [x["step"] for x in run.drawn] == [30, 60, 90, 100] and run.drawn == lines_of(tmp_path)
    # A finished one is not judged anew.
    last = Fit(again, again, groups(), wanted, tmp_path)
    last.run(judge=Judged(stop_at=0))
    assert last.drawn == run.drawn and last.highest == run.highest


def test_the_weights_of_the_best_crystals_are_kept(tmp_path):
    # The slope rises from 0 to 2 and passes 1.2 on the way; a second session keeps what the first one found.
    module, wanted = Line(), settings(steps=20, draw_every=2, keep_drawn=True, keep_best=True)
    first = Fit(module, module, groups(), wanted, tmp_path)
    first.run(judge=Judged(1.2))
    run = Fit(module, module, groups(), replace(wanted, steps=120), tmp_path)
    run.run(lambda: run.mean_loss(groups()), Judged(1.2))
    best = next(x["figures"]["slope"] for x in run.drawn if x["step"] == run.finest_step)
    assert run.highest == -abs(best - 1.2) == max(x["quality"] for x in run.drawn)
    assert float(run.weights()["a"]) == best and abs(best - 1.2) < 0.3 < abs(float(run.mean[0]) - 1.2)


@pytest.mark.parametrize("bad", [{"steps": 0}, {"batch": 0}, {"tuned": 0.0}, {"ema": 1.0}])
def test_bad_settings_are_refused(bad):
    with pytest.raises(SettingsError, match="bad-setting"):
        FitSettings(**bad)
