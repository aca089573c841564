"""Models of a round: made once from the labels before it, made again only if they come out the same."""

from __future__ import annotations

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from onnes.campaign import retrain
from onnes.campaign.active import kelvin, normal_of, score
from onnes.campaign.ledger import Candidate, Ledger, Verdict
from onnes.campaign.rounds_models import PREDICTOR, folder_of, own_data, prepare
from onnes.campaign.settings import Settings
from onnes.campaign.stages import plain
from onnes.data.records import Record, write_records
from onnes.errors import ModelError
from onnes.learn.predictors import model_hash
from onnes.prediction import predict

#: None of these formulas is in the training set of the shipped predictors.
PAIRS = [(a, b) for a in ("Nb", "V", "Zr", "Ta", "Hf") for b in ("Ga", "Si")]


def caesium(metal: str, other: str, a: float = 3.05) -> Structure:
    return Structure(Lattice.cubic(a), [metal, other], [[0, 0, 0], [0.5, 0.5, 0.5]])


def settings(**active) -> Settings:
    return Settings.from_dict(
        {
            "run": {"n": 10},
            "predict": {"model": "trees"},
            "active": {"rounds": 2, "generator": False, **active},
        }
    )


def verdict(id: str, stage: str, numbers: dict, structure, hash: str) -> Verdict:
    return Verdict(id, stage, True, "", numbers, structure, "i", "s", hash, 0, 0.0)


def filled(folder, pairs):
    """A ledger with a label of each pair, all at twice what the shipped trees say (as scores go)."""
    crystals = [caesium(*pair) for pair in pairs]
    table = predict(crystals, model="trees").to_dict("records")
    with Ledger.create(folder, {}) as book:
        for k, (crystal, row) in enumerate(zip(crystals, table, strict=True)):
            name, shape = f"g{k:06d}", plain(crystal)
            mean, std = normal_of(row["tc_K"], row["tc_low_K"], row["tc_high_K"])
            book.add_candidates([Candidate(name, k, shape)])
            chosen = {"choose_round": 1, "score_shipped_mean": mean, "score_shipped_std": std}
            label = {"label_round": 1, "label_tc_K": float(kelvin(mean + 0.3)), "label_weight": 1.0}
            book.add_verdicts(
                [
                    verdict(name, "choose", chosen, shape, model_hash("trees")),
                    verdict(name, "label", label, None, ""),
                ]
            )
        yield book


@pytest.fixture
def ledger(tmp_path):
    yield from filled(tmp_path / "run", PAIRS)


def test_a_round_learns_from_the_labels_before_it_once(ledger, tmp_path, monkeypatch):
    out = tmp_path / "run"
    first = prepare(ledger, settings(), out, 1, generator=False)
    assert first.correction is None and first.predictor_hash == model_hash("trees") and first.learnt == {}
    second = prepare(ledger, settings(), out, 2, generator=False)
    said = second.learnt["predictor"]
    assert said["used"] and said["n"] == 10 and said["mae_corrected"] < 0.6 * said["mae_shipped"]
    assert second.predictor_hash == f"{first.predictor_hash}+{said['hash']}"
    # What the correction says of an unseen crystal of the same kind: higher.
    other = caesium("Mo", "Ga", 3.1)
    row = predict([other], model="trees").to_dict("records")[0]
    mean, std = normal_of(row["tc_K"], row["tc_low_K"], row["tc_high_K"])
    correction = retrain.Correction.load(second.correction)
    (m,), _ = correction.apply(np.array([mean]), np.array([std]), retrain.descriptors([other]))
    assert m == pytest.approx(mean + 0.3, abs=0.1)
    monkeypatch.setattr(retrain, "learn", None)
    assert prepare(ledger, settings(), out, 2, generator=False) == second


def test_a_lost_model_is_made_again_if_it_is_the_same(ledger, tmp_path):
    out = tmp_path / "run"
    before = prepare(ledger, settings(), out, 2, generator=False)
    (folder_of(out, 2) / PREDICTOR).unlink()
    assert prepare(ledger, settings(), out, 2, generator=False) == before
    (folder_of(out, 2) / PREDICTOR).write_bytes(b"damaged")
    held = ledger.get_meta("round_models")
    held["2"]["predictor"]["hash"] = "0123456789abcdef"
    ledger.set_meta("round_models", held)
    with pytest.raises(ModelError, match="changed-model"):
        prepare(ledger, settings(), out, 2, generator=False)


def test_labels_of_later_rounds_and_of_another_predictor_do_not_count(ledger, tmp_path):
    assert prepare(ledger, settings(predictor=False), tmp_path / "run", 2, generator=False).learnt == {}
    found = prepare(ledger, with_model("fast"), tmp_path / "run", 2, generator=False)
    assert found.correction is None and found.learnt["predictor"]["n"] == 0


def with_model(name: str, **active) -> Settings:
    found = settings(**active)
    return found.model_copy(update={"predict": found.predict.model_copy(update={"model": name})})


def test_a_correction_of_one_predictor_is_not_applied_to_another(ledger, tmp_path):
    out = tmp_path / "run"
    trees = prepare(ledger, settings(), out, 2, generator=False)
    assert trees.learnt["predictor"]["corrects"] == model_hash("trees")
    fast = prepare(ledger, with_model("fast"), out, 2, generator=False)
    assert fast.correction is None and fast.predictor_hash == model_hash("fast")
    assert fast.learnt["predictor"]["corrects"] == model_hash("fast")
    # Back again it is learnt again, and comes out the same.
    assert prepare(ledger, settings(), out, 2, generator=False) == trees


def test_what_was_learnt_is_used_only_while_it_is_switched_on(ledger, tmp_path):
    out = tmp_path / "run"
    on = prepare(ledger, settings(), out, 2, generator=False)
    held = ledger.get_meta("round_models")
    held["2"]["generator"] = {"hash": "0123456789abcdef"}
    ledger.set_meta("round_models", held)
    off = prepare(ledger, settings(predictor=False), out, 2, generator=True)
    assert off.correction is None and off.generator is None and off.learnt == {}
    assert off.predictor_hash == model_hash("trees")
    assert off.generator_hash == prepare(ledger, settings(), out, 1, generator=True).generator_hash
    assert prepare(ledger, settings(), out, 2, generator=False) == on


def test_labels_of_training_formulas_teach_nothing(tmp_path):
    known = [("Nb", "C"), ("Nb", "N"), ("Ti", "N")]
    for ledger in filled(tmp_path / "run", PAIRS + known):
        said = prepare(ledger, settings(), tmp_path / "run", 2, generator=False).learnt["predictor"]
    assert said["n"] == len(PAIRS) and said["labels_left_out"] == {"in_training": 3}


def test_paths_of_a_file_are_beside_it(tmp_path):
    (tmp_path / "c.toml").write_text('[active]\nlabels = "known.jsonl"\ndata = ["a.jsonl", "b/c.jsonl"]\n')
    found = Settings.from_toml(tmp_path / "c.toml").active
    assert found.labels == str(tmp_path / "known.jsonl") and found.pseudo == ""
    assert found.data == [str(tmp_path / "a.jsonl"), str(tmp_path / "b/c.jsonl")]


def test_own_data_leaves_out_what_the_predictor_was_trained_on(tmp_path):
    # NbN is one of the training formulas; no data set holds this one.
    sites = [[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5], [0.5, 0.5, 0.5]]
    odd = Structure(Lattice.cubic(4.1), ["Nb", "V", "Ti", "Ga", "C"], sites)
    rows = [
        Record.from_structure(caesium("Nb", "N"), "known", labels={"Tc_K": 12.0}),
        Record.from_structure(odd, "own", labels={"Tc_K": 3.0}),
        Record.from_structure(odd, "none"),
    ]
    write_records(tmp_path / "own.jsonl", rows)
    found, left = own_data(settings(data=[str(tmp_path / "own.jsonl")]))
    assert [r.id for r, _, _ in found] == ["own"] and found[0][2] == pytest.approx(float(score(3.0)))
    assert left == {"no_tc": 1, "in_training": 1}
