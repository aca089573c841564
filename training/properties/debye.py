"""Debye temperature of the shipped moduli heads, out of fold: debye.py --jarvis DIR (features of training/epc).

theta_D from predicted bulk and shear modulus against theta_D from JARVIS' own moduli, the two heads of the fold that
had not seen the formula; beside it extra-trees on composition and cell trained on theta_D, and the median. Writes
the row into the card of the shipped heads.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from ase.data import atomic_numbers
from folds import folds
from pymatgen.core import Structure
from train import MOST, SEEDS, features, interval, jarvis_targets, rows, trees

from onnes.crystal.geometry import geometry
from onnes.learn.properties import PropertyEnsemble
from onnes.learn.store import pretrained
from onnes.theory.debye import debye_temperature


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--jarvis", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    heads = PropertyEnsemble()
    fold_of = folds()
    jarvis = {r["id"]: r for r in rows("jarvis_supercon")}
    truth, ours, fold, formula, cells, bulk, true_bulk = [], [], [], [], [], [], []
    for name, block, _ in features(args.jarvis):
        row = jarvis.get(name)
        if row is None or len(block) > MOST or not np.isfinite(jarvis_targets(row)[3]):
            continue
        shape = geometry(Structure(row["lattice"], row["species"], row["frac"]))
        k = int(fold_of[row["formula"]])
        z = torch.tensor([[atomic_numbers[s] for s in row["species"]]])
        volume = torch.tensor([np.log(shape["volume_per_atom_A3"])]).float()
        x = torch.as_tensor(block)[None].float()
        with torch.no_grad():
            out = [h(x, z, volume, torch.tensor([1])) for h in heads.heads[k * SEEDS : (k + 1) * SEEDS]]
        mean = torch.stack(out).mean(0)[0].double().numpy() * heads.spread + heads.centre
        rest = (shape["density_g_cm3"], shape["volume_per_atom_A3"])
        truth.append(debye_temperature(row["bulk_modulus_kv_GPa"], row["shear_modulus_gv_GPa"], *rest))
        ours.append(debye_temperature(*np.exp(mean[3:5]), *rest))
        bulk.append(np.exp(mean[3]))
        true_bulk.append(row["bulk_modulus_kv_GPa"])
        composition = np.bincount(z[0].numpy(), minlength=101) / len(block)
        cells.append([*composition, float(volume[0]), len(block)])
        fold.append(k)
        formula.append(row["formula"])
    truth, ours, fold, formula = map(np.array, (truth, ours, fold, formula))
    bulk, true_bulk = np.array(bulk), np.array(true_bulk)
    constant = np.array([np.median(truth[fold != k]) for k in fold])
    found = {
        "shipped heads (theta_D from the moduli)": ours,
        "extra-trees on composition and cell": trees(np.array(cells), truth, fold, False),
        "constant median": constant,
    }
    result: dict = {"n": len(truth)}
    for name, values in found.items():
        error = np.abs(values - truth)
        result[name] = {"mae": round(float(error.mean()), 2), "ci95": interval(error, formula)}
    # The same heads must give the moduli's errors of the card, or the folds were not those of the training.
    error = float(np.mean(np.abs(bulk - true_bulk)))
    stored = heads.checkpoint.card["cross_validation"]["table"]["bulk_modulus_GPa"]["shipped heads"]["mae"]
    if abs(error - stored) > 0.05:
        raise SystemExit(
            f"bulk modulus error {error:.2f} GPa, {stored:.2f} in the card: other folds or features"
        )
    heads.checkpoint.card["cross_validation"]["table"]["debye_K"] = result
    heads.checkpoint.save(pretrained("properties.safetensors"))
    text = json.dumps(heads.checkpoint.card, indent=1) + "\n"
    Path(pretrained("properties.card.json")).write_text(text)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
