"""Which survivors of the funnel are labelled next, written down as verdicts of the stage ``choose``."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from onnes.campaign.active import acquisition, choose, interval_of, normal_of, score
from onnes.campaign.canonical import content_hash
from onnes.campaign.funnel import Item
from onnes.campaign.labels import Chosen
from onnes.campaign.ledger import Ledger, Verdict
from onnes.campaign.settings import ActivePart, Settings
from onnes.errors import OnnesError

Floats = NDArray[np.float64]

#: Raised when the way of choosing changes.
REVISION = 1


def pool_of(ledger: Ledger, alive: list[Item], k: int) -> list[Item]:
    """Survivors without a label of an earlier round, in order of their index."""
    before = {v.candidate for v in ledger.verdicts(stage="label") if v.numbers["label_round"] < k}
    return [item for item in alive if item.id not in before]


def chosen_in(ledger: Ledger, k: int) -> list[Chosen]:
    """What a round has chosen already: a choice stands once it is written."""
    found = [v for v in ledger.history(stage="choose") if v.numbers["choose_round"] == k]
    found.sort(key=lambda v: int(v.numbers["choose_place"]))
    return [Chosen(v.candidate, v.structure or {}, v.numbers) for v in found]


def choose_batch(
    ledger: Ledger, settings: Settings, pool: list[Item], k: int, predictor_hash: str
) -> list[Chosen]:
    """Choose the batch of a round and write it down in one transaction.

    Parameters
    ----------
    ledger : Ledger
    settings : Settings
    pool : list of Item
        With ``tc_K``, ``tc_low_K``, ``tc_high_K`` among their numbers.
    k : int
    predictor_hash : str
        Of the predictor that gave these numbers.

    Returns
    -------
    list of Chosen
        Best first.
    """
    a = settings.active
    cost = costs(pool, settings)
    if cost is not None:
        # What no calculation can be planned for cannot be chosen.
        kept = np.isfinite(cost)
        pool, cost = [i for i, good in zip(pool, kept, strict=True) if good], cost[kept]
    if not pool:
        return []
    normal = np.array([_normal(item) for item in pool])
    mean, std = normal[:, 0], normal[:, 1]
    target, best = float(score(float(a.target_tc_K))), best_score(ledger, k)
    order = choose(
        mean,
        std,
        a.batch,
        strategy=a.strategy,
        target=target,
        best=best,
        cost=cost,
        features=np.array([fractions(item) for item in pool]),
        apart=float(a.diversity),
        seed=int(np.random.default_rng([settings.run.seed, k]).integers(2**31)),
    )
    gain = acquisition(mean, std, a.strategy, target, best, cost)
    verdicts = [
        _verdict(
            pool[i], place, k, a, predictor_hash, mean[i], std[i], gain[i], None if cost is None else cost[i]
        )
        for place, i in enumerate(order.tolist(), start=1)
    ]
    ledger.add_verdicts(verdicts)
    return chosen_in(ledger, k)


def _normal(item: Item) -> tuple[float, float]:
    n = item.numbers
    return normal_of(float(n["tc_K"]), n.get("tc_low_K"), n.get("tc_high_K"))


def best_score(ledger: Ledger, k: int) -> float | None:
    """Best labelled score of the rounds before; None without labels."""
    found = [
        float(v.numbers["label_tc_K"])
        for v in ledger.verdicts(stage="label")
        if v.passed and v.numbers["label_round"] < k
    ]
    return float(score(max(found))) if found else None


def fractions(item: Item) -> Floats:
    """Atomic fractions by element, the space in which a batch is spread out."""
    from onnes.crystal.formula import atomic_numbers

    z = [atomic_numbers()[s] for s in item.structure["species"]]
    out: Floats = np.bincount(z, minlength=119) / len(z)
    return out


def costs(pool: list[Item], settings: Settings) -> Floats | None:
    """Relative costs of labelling, shape (n,), inf where DFT cannot be planned; None where they do not count."""
    kind = settings.active.cost
    if kind == "none" or not pool:
        return None
    if kind == "atoms":
        return np.array([float(len(item.structure["species"])) for item in pool])
    return np.array([_dft_seconds(item, settings.active) for item in pool])


def _dft_seconds(item: Item, active: ActivePart) -> float:
    """Estimated CPU seconds of onnes verify."""
    from onnes.dft.estimate import estimate
    from onnes.dft.plan import make_cell, make_plan
    from onnes.dft.tiers import tier_named

    tier = tier_named(active.tier)
    try:
        cell = make_cell(Chosen(item.id, item.structure).crystal(), tier)
        return float(estimate(make_plan(cell, tier, None)).cpu_s)
    except OnnesError:
        return float("inf")


def _verdict(
    item: Item,
    place: int,
    k: int,
    a: ActivePart,
    predictor_hash: str,
    mean: float,
    std: float,
    gain: float,
    cost: float | None,
) -> Verdict:
    n = item.numbers
    tc, low, high = interval_of(float(mean), float(std))
    # Before any correction: what a correction learns from.
    shipped = [n.get(f"tc_shipped{e}_K", n.get(f"tc{e}_K")) for e in ("", "_low", "_high")]
    base_mean, base_std = normal_of(float(shipped[0] or 0.0), shipped[1], shipped[2])
    numbers = {
        "choose_round": k,
        "choose_place": place,
        "choose_strategy": a.strategy,
        "acquisition": float(gain),
        "choose_tc_K": tc,
        "choose_low_K": low,
        "choose_high_K": high,
        "score_mean": float(mean),
        "score_std": float(std),
        "score_shipped_mean": base_mean,
        "score_shipped_std": base_std,
        **({} if cost is None else {"choose_cost": float(cost)}),
        **({"space_group": n["space_group"]} if "space_group" in n else {}),
    }
    settings = {"round": k, "revision": REVISION, **a.model_dump(include=_DECIDES)}
    given = content_hash([item.structure, n])
    return Verdict(
        item.id,
        "choose",
        True,
        "",
        numbers,
        item.structure,
        given,
        content_hash(settings),
        predictor_hash,
        item.seed,
        0.0,
    )


#: Settings on which a choice depends.
_DECIDES = {"batch", "strategy", "target_tc_K", "diversity", "cost", "tier"}
