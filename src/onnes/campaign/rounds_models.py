"""Models of a round: made from the labels of the rounds before, kept in ``round-k/``, their hashes in the ledger."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from onnes.campaign.active import normal_of, score
from onnes.campaign.ledger import Ledger
from onnes.campaign.settings import Settings
from onnes.errors import ModelError

if TYPE_CHECKING:
    from onnes.campaign.retrain import Learnt
    from onnes.data.records import Record

#: Fact of the run that holds, by round, what was learnt.
LEARNT = "round_models"
#: Rows of own data at most: the cost of a Gaussian process grows with the cube of their number.
DATA_ROWS = 300
PREDICTOR, GENERATOR = "predictor.safetensors", "generator.safetensors"


@dataclass(frozen=True)
class Models:
    """What a round predicts and generates with.

    Attributes
    ----------
    correction, generator : Path or None
        Checkpoints; None means as shipped.
    predictor_hash, generator_hash : str
    learnt : dict
        What `onnes.campaign.retrain.learn` and `onnes.campaign.retrain_generator.tune` say, by ``predictor`` and
        ``generator``; empty in the first round.
    """

    correction: Path | None
    generator: Path | None
    predictor_hash: str
    generator_hash: str
    learnt: dict[str, Any]


def folder_of(out: Path, k: int) -> Path:
    """Folder of a round."""
    # Absolute: workers on other nodes have a folder of their own.
    return out.resolve() / f"round-{k}"


def prepare(ledger: Ledger, settings: Settings, out: Path, k: int, *, generator: bool) -> Models:
    """Models of round k, made when they are not there.

    Parameters
    ----------
    ledger : Ledger
        Open for writing.
    settings : Settings
    out : Path
        Folder of the run.
    k : int
        Round, from 1. The round after the last one has a predictor for the final ranking.
    generator : bool
        Whether the round draws crystals.

    Raises
    ------
    ModelError
        ``changed-model`` when a model of the round had to be made again and came out different.
    """
    from onnes.learn.predictors import model_hash

    a = settings.active
    held: dict[str, Any] = ledger.get_meta(LEARNT, {}).get(str(k), {})
    before = dict(held)
    if before.get("predictor", {}).get("corrects") != model_hash(settings.predict.model):
        # The errors of another predictor, from before a change of settings.
        before.pop("predictor", None)
    learnt = dict(before)
    folder = folder_of(out, k)
    if k > 1 and a.predictor and not _kept(learnt.get("predictor"), folder / PREDICTOR):
        learnt["predictor"] = _same(
            before.get("predictor"), _correct(ledger, settings, k, folder / PREDICTOR)
        )
    if k > 1 and a.generator and generator and not _kept(learnt.get("generator"), folder / GENERATOR):
        learnt["generator"] = _same(before.get("generator"), _tune(ledger, settings, k, folder / GENERATOR))
    if learnt != before:
        ledger.set_meta(LEARNT, {**ledger.get_meta(LEARNT, {}), str(k): learnt})
    on = {"predictor": a.predictor, "generator": a.generator and generator}
    return _models(settings, folder, {key: said for key, said in learnt.items() if on[key]}, generator)


def _models(settings: Settings, folder: Path, learnt: dict[str, Any], generator: bool) -> Models:
    from onnes.learn.predictors import model_hash

    shipped, own = model_hash(settings.predict.model), learnt.get("predictor", {}).get("hash", "")
    made = learnt.get("generator", {}).get("hash", "")
    return Models(
        folder / PREDICTOR if own else None,
        folder / GENERATOR if made else None,
        f"{shipped}+{own}" if own else shipped,
        made or (shipped_generator(settings) if generator else ""),
        learnt,
    )


def shipped_generator(settings: Settings) -> str:
    """Hash of the generator as shipped."""
    from onnes.campaign.source import sampler_settings
    from onnes.generate.models import open_sampler

    return open_sampler(sampler_settings(settings.generate)).checkpoint.hash


def _kept(said: dict[str, Any] | None, path: Path) -> bool:
    """Whether the ledger's word on a model and its file agree."""
    from onnes.learn.store import Checkpoint

    if said is None:
        return False
    if not said["hash"]:
        return True
    try:
        return Checkpoint.load(path).hash == said["hash"]
    except ModelError:
        return False


def _same(before: dict[str, Any] | None, now: dict[str, Any]) -> dict[str, Any]:
    if before is not None and before["hash"] != now["hash"]:
        raise ModelError(
            "changed-model",
            f"model {before['hash']} of this round is gone, and made again it is {now['hash'] or 'none'}; "
            "put its file back or start another --out",
        )
    return now


@dataclass(frozen=True)
class Known:
    """A labelled candidate: structure as stored, numbers and predictor of its choice, Tc and trust in it."""

    id: str
    predictor: str
    structure: dict[str, Any]
    numbers: dict[str, Any]
    tc_K: float
    weight: float

    @property
    def formula(self) -> str:
        """Alphabetical reduced formula."""
        from onnes.campaign.labels import Chosen

        return Chosen(self.id, self.structure).formula


def labelled(ledger: Ledger, k: int) -> list[Known]:
    """Candidates labelled with a Tc in the rounds before k, in the order of their ids."""
    choices = {v.candidate: v for v in ledger.history(stage="choose")}
    found = [
        Known(
            v.candidate,
            choices[v.candidate].model_hash,
            choices[v.candidate].structure or {},
            choices[v.candidate].numbers,
            float(v.numbers["label_tc_K"]),
            float(v.numbers["label_weight"]),
        )
        for v in ledger.verdicts(stage="label")
        if v.passed and v.numbers["label_round"] < k
    ]
    return sorted(found, key=lambda one: one.id)


def _correct(ledger: Ledger, settings: Settings, k: int, path: Path) -> dict[str, Any]:
    from onnes.campaign.retrain import learn
    from onnes.learn.predictors import model_hash

    shipped = model_hash(settings.predict.model)
    # Errors of another predictor, from before a change of settings, say nothing about this one.
    known = [one for one in labelled(ledger, k) if one.predictor.startswith(shipped)]
    unseen = _unseen([one.formula for one in known])
    rows, notes = _rows([one for one, new in zip(known, unseen, strict=True) if new], settings)
    if not all(unseen):
        notes["labels_left_out"] = {"in_training": unseen.count(False)}
    found = learn(rows, path, shipped, settings.run.seed)
    return {**found, **notes, "corrects": shipped}


def _unseen(formulas: list[str]) -> list[bool]:
    """Whether the shipped predictors were not trained on each formula: their errors on the others are of training."""
    from onnes.learn.fold_of import UNSEEN, FormulaTable
    from onnes.learn.store import Checkpoint, pretrained

    # All predictors were trained on the rows of the standard one, which keeps their formulas.
    table = FormulaTable.read(Checkpoint.load(pretrained("epc.safetensors")))
    assert table is not None
    return [bool(part == UNSEEN) for part in table.parts_of(formulas)]


def _rows(known: list[Known], settings: Settings) -> tuple[Learnt, dict[str, Any]]:
    """Labels, and own data, as what a correction learns from."""
    from onnes.campaign.labels import Chosen
    from onnes.campaign.retrain import Learnt, descriptors

    crystals = [Chosen(one.id, one.structure).crystal() for one in known]
    normal = [(one.numbers["score_shipped_mean"], one.numbers["score_shipped_std"]) for one in known]
    truth = [float(score(one.tc_K)) for one in known]
    weight = [one.weight for one in known]
    formula = [one.formula for one in known]
    notes: dict[str, Any] = {}
    if settings.active.data:
        more, left = own_data(settings)
        notes = {"data_rows": len(more), "data_left_out": left}
        crystals += [record.structure() for record, _, _ in more]
        normal += [given for _, given, _ in more]
        truth += [value for _, _, value in more]
        weight += [1.0] * len(more)
        formula += [record.formula for record, _, _ in more]
    x = descriptors(crystals)
    good = np.flatnonzero(np.isfinite(x).all(1))
    pair = np.array(normal, dtype=float).reshape(-1, 2)
    every = Learnt(
        x,
        pair[:, 0],
        pair[:, 1],
        np.array(truth, dtype=float),
        np.array(weight, dtype=float),
        tuple(formula),
    )
    return every.rows(good), notes


def own_data(settings: Settings) -> tuple[list[tuple[Record, tuple[float, float], float]], dict[str, int]]:
    """Rows of the user's files with a Tc that say something about the shipped predictor.

    Formulas that it was trained on are left out: its errors on them are those of training.

    Returns
    -------
    list of (record, (mean, std) of the predicted score, score of the label)
        At most `DATA_ROWS`, every so many of them.
    dict
        How many rows were left out, by reason.
    """
    from onnes.campaign.labels import TC_LABELS
    from onnes.data.records import read_records
    from onnes.prediction import predict

    records = [r for path in settings.active.data for r in read_records(path)]
    with_tc = [r for r in records if any(name in r.labels for name in TC_LABELS)]
    new = _unseen([r.formula for r in with_tc])
    unseen = [r for r, good in zip(with_tc, new, strict=True) if good]
    step = max(1, -(-len(unseen) // DATA_ROWS))
    taken = unseen[::step]
    rows = []
    if taken:
        p = settings.predict
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = predict(
                [r.structure() for r in taken], mu_star=float(p.mu_star), formula=p.formula, model=p.model
            )
        for record, row in zip(taken, found.to_dict("records"), strict=True):
            if row["status"] == "ok" and row["tc_K"] == row["tc_K"]:
                tc = next(float(record.labels[name]) for name in TC_LABELS if name in record.labels)
                given = normal_of(row["tc_K"], row["tc_low_K"], row["tc_high_K"])
                rows.append((record, given, float(score(tc))))
    left = {
        "no_tc": len(records) - len(with_tc),
        "in_training": len(with_tc) - len(unseen),
        "too_many": len(unseen) - len(taken),
        "no_prediction": len(taken) - len(rows),
    }
    return rows, {key: n for key, n in left.items() if n}


def _tune(ledger: Ledger, settings: Settings, k: int, path: Path) -> dict[str, Any]:
    from onnes.campaign.labels import Chosen
    from onnes.campaign.retrain_generator import tune
    from onnes.learn.store import pretrained

    a = settings.active
    if settings.generate.formula:
        # A network that draws for formulas only would go on as shipped.
        return {"used": False, "hash": "", "why": f"only {settings.generate.formula} is asked for"}
    return tune(
        pretrained("symmetric.safetensors"),
        [(Chosen(one.id, one.structure).crystal(), one.tc_K, one.weight) for one in labelled(ledger, k)],
        target_tc_K=float(a.target_tc_K),
        asked_tc_K=float(settings.generate.target_tc_K),
        steps=a.generator_steps,
        path=path,
        seed=settings.run.seed * 1000 + k,
    )
