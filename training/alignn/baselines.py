"""Baselines on the same folds: python training/alignn/baselines.py --kind boosting --out DIR [--fold 0].

``trees``: extra-trees on composition and cell; ``boosting``: gradient boosting on composition and neighbours;
``cfid``: the same boosting on the CFID of jarvis-tools (about 0.2 CPU seconds a crystal; kept in parts, so that a
rerun resumes). Trained and scored on Alexandria. Writes DIR/KIND-FOLD.npz like train.py.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

import epc_rows
import numpy as np
from pymatgen.core import Lattice, Structure

from onnes.errors import ModelError
from onnes.learn.baselines import baseline, fit_predict, space_of
from onnes.learn.descriptors import cell_of, structure_of

PART = 250


def describe(kind: str, crystals, folder: Path) -> np.ndarray:
    """Descriptors of all crystals, computed in parts that are kept."""
    from onnes.learn.cfid import cfid

    how = {"trees": cell_of, "boosting": structure_of, "cfid": cfid}[kind]
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for start in range(0, len(crystals), PART):
        path = folder / f"{start:06d}.npy"
        if not path.exists():
            rows = []
            for z, lattice, frac in crystals[start : start + PART]:
                try:
                    rows.append(how(Structure(Lattice(lattice), z.tolist(), frac)))
                except ModelError as error:
                    if error.code == "missing-extra":
                        raise
                    rows.append(None)
            width = max(len(r) for r in rows if r is not None)
            part = np.array([np.full(width, np.nan) if r is None else r for r in rows], dtype=np.float32)
            with open(path.with_suffix(".tmp"), "wb") as handle:
                np.save(handle, part)
            os.replace(path.with_suffix(".tmp"), path)
        found.append(np.load(path))
    return np.concatenate(found).astype(float)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kind", choices=("trees", "boosting", "cfid"), required=True)
    parser.add_argument("--fold", type=int, nargs="+", default=list(range(epc_rows.FOLDS)))
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    rows = epc_rows.load()
    alex = np.flatnonzero(rows.source == 0)
    x = np.zeros((len(rows.ids), 0))
    values = describe(args.kind, [rows.crystals[i] for i in alex], args.out / f"descriptors-{args.kind}")
    x = np.full((len(rows.ids), values.shape[1]), np.nan)
    x[alex] = values
    for fold in args.fold:
        path = args.out / f"{args.kind}-{fold}.npz"
        if path.exists():
            continue
        train, test = alex[rows.fold[alex] != fold], alex[rows.fold[alex] == fold]
        begun = time.process_time()
        out = np.full((len(test), 3), np.nan)
        for k, target in enumerate(("lambda", "omega_log_K")):
            found = fit_predict(
                baseline(args.kind), x, rows.truth[target], train, test, space=space_of(target), seed=fold
            )
            # A crystal without descriptors gets the median: it stays in every mean.
            found = np.where(np.isfinite(found), found, np.median(rows.truth[target][train]))
            out[:, k] = np.log(np.maximum(found, 1e-3))
        about = {"data_hash": rows.hash, "cpu_s": round(time.process_time() - begun, 1)}
        np.savez(path, out=out, test=test, about=json.dumps(about))
        error = np.abs(
            np.exp(out[:, :2]) - np.column_stack([rows.truth[k][test] for k in ("lambda", "omega_log_K")])
        )
        print(path.name, len(test), "MAE", error.mean(0).round(4), about, flush=True)


if __name__ == "__main__":
    main()
