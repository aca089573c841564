"""Folds of the property heads: folds.py [--check N] [--exact] [--write].

The fold of a crystal is a function of its formula and of the list of all formulas (train.py), so it can be told without
training anything again. That these are the folds the shipped heads were trained on is checked:

* the numbers of labels are those of the card;
* on N crystals drawn at random, in each fold, the heads that left it out have the largest error of formation energy;
* with --exact (some minutes) the standardisation inside the heads of fold 0, the mean over 4,000 crystals drawn by
  number from those of the other folds, comes out the same (the mean over half of them, printed beside it, does not);
* `debye.py` finds the error of the bulk modulus of the card to 0.05 GPa with them, and stops otherwise.

With --write the table goes into the shipped checkpoint (`onnes.learn.fold_of`); weights, card and other settings stay.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import numpy as np
import torch
from ase.data import atomic_numbers, chemical_symbols
from pymatgen.core import Structure
from train import FOLDS, MOST, SEEDS, potential_formation, rows

from onnes.learn.features import FrozenPotential
from onnes.learn.fold_of import KEY, fold_table
from onnes.learn.properties import PropertyEnsemble
from onnes.learn.store import Checkpoint, pretrained
from onnes.stability.hull import HullReferences
from onnes.stability.potentials import elements


def crystals() -> Iterator[dict]:
    """Training crystals in the order of train.py."""
    known = {chemical_symbols[z] for z in elements("7net-0")}
    for name in ("mp_crystals", "jarvis_supercon"):
        for r in rows(name):
            if len(r["species"]) <= MOST and set(r["species"]) <= known:
                yield {**r, "jarvis": name.startswith("jarvis")}


def folds() -> dict[str, int]:
    """Fold of every formula by the rule of train.py."""
    names = np.unique([r["formula"] for r in crystals()])
    order = np.random.default_rng(0).permutation(len(names)) % FOLDS
    return {str(n): int(k) for n, k in zip(names, order, strict=True)}


def counts(found: list[dict], table: dict) -> None:
    """Compare the numbers of labels with the card."""
    mp = [r for r in found if not r["jarvis"]]
    mine = {
        "formation_energy_eV_atom": len(energies(found)),
        "gap_eV": sum(r.get("gap_pbe_eV") is not None for r in mp),
        "dynamically_stable": len(found) - len(mp),
    }
    wrong = {k: (n, table[k]["n"]) for k, n in mine.items() if n != table[k]["n"]}
    if wrong:
        raise SystemExit(f"other crystals than those of the card: {wrong}")
    print("labels", mine, flush=True)


def evaluated(found: list[dict], some: np.ndarray, potential: FrozenPotential) -> dict:
    """Features of the crystals with these numbers."""
    features = {}
    for start in range(0, len(some), 500):
        part = some[start : start + 500]
        structures = [Structure(found[i]["lattice"], found[i]["species"], found[i]["frac"]) for i in part]
        features |= dict(zip(part.tolist(), potential.evaluate(structures), strict=True))
        print("features", len(features), flush=True)
    return features


def standardisation(found: list[dict], fold: np.ndarray, heads: PropertyEnsemble, potential) -> None:
    """The mean inside the heads of fold 0, from the same draw of crystals."""
    train = np.flatnonzero(fold != 0)
    some = train[np.random.default_rng(0).choice(len(train), 4000, replace=False)]
    features = evaluated(found, some, potential)
    x = np.concatenate([features[i].x for i in some]).astype(np.float16).astype(np.float64)
    mean, std = heads.heads[0].mean.numpy(), heads.heads[0].std.numpy()
    off = np.abs(x.mean(0) - mean) / std
    other = np.abs(x[: len(x) // 2].mean(0) - mean) / std
    print(
        f"mean of the features: off by at most {off.max():.1e} deviations; of half of them {other.max():.1e}"
    )
    if off.max() > 1e-3:
        raise SystemExit("these are not the crystals the heads were standardised on")


def errors(found: list[dict], fold: np.ndarray, heads: PropertyEnsemble, features: dict) -> None:
    """Formation-energy errors of the heads that left a fold out and of those that did not, by fold."""
    inputs = []
    for i, block in features.items():
        z = np.array([atomic_numbers[s] for s in found[i]["species"]])
        inputs.append((block, z, abs(np.linalg.det(np.array(found[i]["lattice"]))) / len(z)))
    truth = np.array([found[i]["formation_energy_eV_atom"] for i in features])
    outputs, mine = heads.outputs(inputs), fold[list(features)]
    guess = np.stack(
        [
            heads.properties(outputs[k * SEEDS : (k + 1) * SEEDS], inputs).formation_energy_eV_atom
            for k in range(FOLDS)
        ]
    )
    for k in range(FOLDS):
        here = mine == k
        error = np.abs(guess[:, here] - truth[here]).mean(1)
        print(f"fold {k}, n {here.sum()}: MAE by the heads of each fold", np.round(error, 4), flush=True)
        if error.argmax() != k:
            raise SystemExit(f"the heads of fold {k} know its formulas")


def energies(found: list[dict]) -> list[int]:
    """Numbers of the crystals whose formation energy is learned."""
    hull = HullReferences.load()
    return [
        i
        for i, r in enumerate(found)
        if not r["jarvis"]
        and r.get("formation_energy_eV_atom") is not None
        and potential_formation(r["species"], 0.0, hull) is not None
    ]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--check", type=int, default=300)
    parser.add_argument("--exact", action="store_true")
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    heads = PropertyEnsemble()
    rule, found = folds(), list(crystals())
    fold = np.array([rule[r["formula"]] for r in found])
    counts(found, heads.checkpoint.card["cross_validation"]["table"])
    potential = FrozenPotential(potential=heads.potential)
    some = np.random.default_rng(1).choice(energies(found), args.check, replace=False)
    errors(found, fold, heads, evaluated(found, some, potential))
    if args.exact:
        standardisation(found, fold, heads, potential)
    if args.write:
        old = heads.checkpoint
        salt = old.card["cross_validation"]["data_hash"]
        table = fold_table(rule, salt, members_per_fold=SEEDS)
        settings, tensors = {**old.settings, KEY: table.settings()}, {**old.tensors, **table.tensors()}
        Checkpoint(old.kind, settings, old.card, tensors).save(pretrained("properties.safetensors"))


if __name__ == "__main__":
    main()
