import pytest
import torch

from onnes.errors import ModelError
from onnes.learn.regimes import Regimes


def walk(losses, regimes=None):
    regimes = regimes or Regimes()
    for epoch, loss in enumerate(losses, 1 + max([0, *regimes.epochs.values()])):
        regimes.see(epoch, loss, loss, {"w": torch.tensor([float(loss)])})
    return regimes


DESCENT = [1.0 - 0.02 * k for k in range(30)]
RISE = [0.42 + 0.02 * k for k in range(40)]
SECOND = [1.2 - 0.02 * k for k in range(50)]


def test_a_double_descent_is_seen_in_three_parts():
    r = walk(DESCENT + RISE + SECOND)
    assert 25 <= r.epochs["classical"] <= 45
    assert 65 <= r.epochs["critical"] <= 85
    assert r.epochs["modern"] == 120
    assert float(r.state("modern")["w"][0]) == pytest.approx(SECOND[-1])


def test_a_loss_that_only_falls_never_leaves_the_classical_regime():
    r = walk(DESCENT)
    assert set(r.epochs) == {"classical"}
    assert r.state("critical") is None and r.state("modern") is None


def test_a_dip_before_a_higher_maximum_is_no_second_descent():
    r = walk(DESCENT + RISE + SECOND[:8] + [1.3 + 0.02 * k for k in range(40)])
    assert "modern" not in r.epochs


def test_snapshots_are_copies_and_survive_a_restart():
    r = Regimes()
    w = {"w": torch.ones(2)}
    r.see(1, 1.0, 1.0, w)
    w["w"].zero_()
    assert r.state("classical")["w"].tolist() == [1.0, 1.0]
    back = walk(RISE + SECOND, Regimes.from_dict(walk(DESCENT).as_dict()))
    whole = walk(DESCENT + RISE + SECOND)
    assert back.values == whole.values


def test_a_diverged_training_is_an_error_not_a_model():
    with pytest.raises(ModelError, match="diverged"):
        Regimes().see(1, float("nan"), float("nan"), {})


def test_without_validation_the_last_weights_are_kept():
    r = Regimes()
    for k in range(3):
        r.see(k, float("nan"), 1.0 - k, {"w": torch.tensor([float(k)])})
    assert float(r.state("modern")["w"][0]) == 2.0
