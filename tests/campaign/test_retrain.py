"""The correction of the predictor: it helps where there is something to learn, and is not used where there is not."""

from __future__ import annotations

import numpy as np
import pytest

from onnes.campaign import retrain, stages
from onnes.campaign.active import interval_of, normal_of, score
from onnes.campaign.funnel import Item, Outcome
from onnes.campaign.retrain import Correction, Kernel, Learnt, Process, condition, judge, learn
from onnes.errors import ModelError


def made(n: int, seed: int = 0, bias: float = 0.0, local: float = 0.0) -> Learnt:
    rng = np.random.default_rng(seed)
    x, mean = rng.normal(size=(n, 6)), rng.normal(1.0, 0.3, n)
    error = bias + local * np.sin(x[:, 0]) + 0.1 * rng.normal(size=n)
    formulas = tuple(f"F{i // 2}" for i in range(n))
    return Learnt(x, mean, np.full(n, 0.3), mean + error, np.ones(n), formulas)


def test_score_and_interval_undo_each_other():
    mean, std = normal_of(12.0, *interval_of(float(score(12.0)), 0.2)[1:])
    assert (mean, std) == pytest.approx((float(score(12.0)), 0.2))
    # A lower end that is cut off at 0 K says nothing of the width; without ends it is unknown.
    tc, _, high = interval_of(float(score(0.5)), 0.4)
    assert normal_of(tc, 0.0, high)[1] == pytest.approx(0.4)
    assert normal_of(5.0, None, float("inf"))[1] == 1.0


@pytest.mark.parametrize(("bias", "local"), [(-0.5, 0.0), (0.0, 0.6)])
def test_a_real_error_is_learnt_and_unseen_crystals_gain(bias, local, tmp_path):
    inside = []
    for seed in range(4):
        rows, unseen = made(30, seed, bias, local), made(200, seed + 50, bias, local)
        said = learn(rows, tmp_path / "c.safetensors", "shipped")
        assert said["used"] and said["mae_corrected"] < 0.8 * said["mae_shipped"]
        mean, std = Correction.load(tmp_path / "c.safetensors").apply(unseen.mean, unseen.std, unseen.x)
        before, after = np.abs(unseen.truth - unseen.mean).mean(), np.abs(unseen.truth - mean).mean()
        assert after < 0.75 * before
        inside.append(np.abs(unseen.truth - mean) < 1.645 * std)
    assert 0.82 < np.mean(inside) < 0.98


def test_without_an_error_to_learn_the_shipped_predictor_stays(tmp_path):
    used = [learn(made(24, seed), tmp_path / "c.safetensors", "s")["used"] for seed in range(8)]
    assert sum(used) <= 2
    few = learn(made(6, 3, -0.5), tmp_path / "d.safetensors", "s")
    assert not few["used"] and "3 formulas" in few["why"] and not (tmp_path / "d.safetensors").exists()


def test_one_formula_is_never_on_both_sides_of_a_cut():
    # Twins with one random error each: predicted from its twin, every label would be exact.
    rng = np.random.default_rng(5)
    x, error = rng.normal(size=(20, 6)).repeat(2, 0), 0.5 * rng.normal(size=20).repeat(2)
    mean = rng.normal(1.0, 0.3, 20).repeat(2)
    names = tuple(f"F{i // 2}" for i in range(40))
    found = judge(Learnt(x, mean, np.full(40, 0.3), mean + error, np.ones(40), names))
    assert found is not None and found.formulas == 20 and found.mae_corrected > 0.8 * found.mae_shipped


def test_the_process_is_that_of_the_textbook():
    """Against the direct formulas (Rasmussen and Williams, eqs. 2.22 to 2.26)."""
    rows, new = made(12, 4, -0.3, 0.4), made(5, 6)
    kernel = Kernel(0.5, 0.2, 0.7, 2.0, 0.3)
    one = Process(rows, kernel, rows.x.mean(0), rows.x.std(0), 1.0, 0.3)

    def k(a: Learnt, b: Learnt) -> np.ndarray:
        u, v = ((r.x - rows.x.mean(0)) / rows.x.std(0) for r in (a, b))
        p, q = ((np.clip(r.mean, rows.mean.min(), rows.mean.max()) - 1.0) / 0.3 for r in (a, b))
        square = ((u[:, None] - v[None]) ** 2).sum(-1)
        return 0.5 + 0.2 * np.outer(p, q) + 0.7 * np.exp(-square / 8.0)

    # Every std is 0.3 here, so that the noise is the same for all.
    inverse = np.linalg.inv(k(rows, rows) + 0.3 * np.eye(12))
    z = rows.truth - rows.mean
    cross = k(new, rows)
    shift = cross @ inverse @ z
    left = np.diag(k(new, new)) - np.einsum("ij,jk,ik->i", cross, inverse, cross) + 0.3
    mean, std = one.corrected(new.mean, new.std, new.x)
    np.testing.assert_allclose(mean, new.mean + shift, rtol=1e-5)
    np.testing.assert_allclose(std, np.sqrt(left), rtol=1e-5)


def test_a_trusted_label_counts_more():
    rows = made(10, 7, -0.5)
    weak = Learnt(rows.x, rows.mean, rows.std, rows.truth, np.full(10, 0.05), rows.formula)
    kernel = Kernel(1.0, 0.0, 0.0, 1.0, 0.5)
    shift = [
        (
            Process(r, kernel, r.x.mean(0), r.x.std(0), 1.0, 0.3).corrected(r.mean, r.std, r.x)[0] - r.mean
        ).mean()
        for r in (rows, weak)
    ]
    assert shift[0] < shift[1] < 0


def test_no_slope_is_continued_beyond_the_labels():
    # All labels at one predicted score: what lies far below it must not be sent to zero or to infinity.
    rng = np.random.default_rng(11)
    x, mean = rng.normal(size=(8, 6)), rng.normal(1.2, 0.02, 8)
    truth = mean - 0.5 + 8.0 * (mean - 1.2) + 0.05 * rng.normal(size=8)
    rows = Learnt(x, mean, np.full(8, 0.12), truth, np.ones(8), tuple("ABCDEFGH"))
    low, high = condition(rows).corrected(np.array([0.2, 2.0]), np.full(2, 0.12), np.zeros((2, 6)))[0]
    assert 0.2 - 1.2 < low < 0.2 + 0.3 and 2.0 - 1.2 < high < 2.0 + 0.3


def test_a_file_gives_the_same_numbers_and_damage_is_told(tmp_path):
    rows = made(20, 8, -0.4)
    kept = Correction(condition(rows), 1.1)
    kept.checkpoint({}).save(tmp_path / "c.safetensors")
    again = Correction.load(tmp_path / "c.safetensors")
    for a, b in zip(
        kept.apply(rows.mean, rows.std, rows.x), again.apply(rows.mean, rows.std, rows.x), strict=True
    ):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(ModelError, match="no-model"):
        Correction.load(tmp_path / "other.safetensors")


def test_the_predict_stage_corrects_tc_and_filters_by_it(tmp_path, monkeypatch):
    rows = made(30, 9, -0.5)
    learn(rows, tmp_path / "c.safetensors", "s")
    numbers = {"tc_K": 10.0, "tc_low_K": 3.0, "tc_high_K": 30.0, "lambda": 0.9}
    outcomes = {
        "a": Outcome("a", True, "", dict(numbers)),
        "b": Outcome("b", False, "gap-above-limit: 1.00 eV", dict(numbers)),
        "c": Outcome("c", True, "", {**numbers, "tc_K": 6.0, "tc_low_K": 2.0, "tc_high_K": 18.0}),
    }
    monkeypatch.setattr(stages, "predict", lambda items, settings: [outcomes[i.id] for i in items])
    monkeypatch.setattr(stages, "structure_of", lambda item: None)
    monkeypatch.setattr(retrain, "descriptors", lambda crystals: np.zeros((len(crystals), 6)))
    items = [Item(name, k, {}, {}) for k, name in enumerate("abc")]
    a, b, c = retrain.predict(items, {"min_tc_K": 2.5}, str(tmp_path / "c.safetensors"))
    assert a.passed and 2.5 < a.numbers["tc_K"] < 5.0 and a.numbers["tc_shipped_K"] == 10.0
    assert a.numbers["tc_low_K"] < a.numbers["tc_K"] < a.numbers["tc_high_K"] and a.numbers["lambda"] == 0.9
    assert not b.passed and b.numbers["tc_K"] == 10.0
    assert not c.passed and c.reason.startswith("tc-below-limit")
