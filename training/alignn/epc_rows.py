"""Rows, folds and graphs of the training of the fast predictor."""

from __future__ import annotations

import hashlib
import os
import pickle
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase.data import atomic_numbers
from sklearn.metrics import average_precision_score

from onnes.errors import CrystalError
from onnes.graph.batch import build
from onnes.graph.settings import GraphSettings

# The rule of the labels and the scoring are those of the standard predictor, not a copy of them.
sys.path.insert(0, str(Path(__file__).parents[1] / "epc"))
import data  # isort: skip
import scoring  # isort: skip

FOLDS, MU_STAR, SHARED = data.FOLDS, data.MU_STAR, data.SHARED
interval, labels = scoring.interval, data.labels

MOST = 20
#: Median omega_2/omega_log of the Alexandria rows whose Tc determines it (`onnes.theory.infer`).
RATIO = 1.18


@dataclass
class Rows:
    """Labelled crystals; source 0 is Alexandria, 1 the stable JARVIS rows."""

    ids: list[str]
    crystals: list[tuple[np.ndarray, np.ndarray, np.ndarray]]
    formula: np.ndarray
    source: np.ndarray
    volume: np.ndarray
    sets: np.ndarray
    y: np.ndarray
    truth: dict[str, np.ndarray]
    fold: np.ndarray

    @property
    def hash(self) -> str:
        digest = hashlib.sha256(repr(self.ids).encode() + self.y.tobytes())
        return digest.hexdigest()[:16]


def folds(formula: np.ndarray) -> np.ndarray:
    """The folds of training/epc/train.py."""
    names = np.unique(formula)
    fold_of = dict(zip(names, np.random.default_rng(0).permutation(len(names)) % FOLDS, strict=True))
    return np.array([fold_of[f] for f in formula])


def scores(lam, wlog, tc, truth: dict, groups) -> dict:
    """Errors with intervals, and the average precision for Tc above 5 K."""
    out: dict = {}
    for name, predicted in (("lambda", lam), ("omega_log_K", wlog), ("tc_K", tc)):
        error = np.abs(predicted - truth[name])
        out[name] = {"mae": round(float(error.mean()), 4), "ci95": interval(error, groups)}
    out["average_precision_tc_5K"] = round(float(average_precision_score(truth["tc_K"] > 5, tc)), 4)
    out["n"] = len(lam)
    return out


def load() -> Rows:
    found = [(k, s, r) for k, (s, r) in sorted(labels().items()) if len(r["species"]) <= MOST]
    crystals, y, volume = [], [], []
    for _, _, row in found:
        lattice, n = np.array(row["lattice"]), len(row["species"])
        crystals.append(
            (np.array([atomic_numbers[s] for s in row["species"]]), lattice, np.array(row["frac"]))
        )
        volume.append(abs(np.linalg.det(lattice)) / n)
        dos = row.get("dos_ef_states_eV_cell")
        dos = np.log(dos / n) if dos and dos > 1e-3 else np.nan
        y.append([np.log(max(row["lambda"], 0.02)), np.log(max(row["omega_log_K"], 5.0)), dos])
    rows = [r for _, _, r in found]
    formula = np.array([r["formula"] for r in rows])
    names = {"lambda": "lambda", "omega_log_K": "omega_log_K", "tc_K": "Tc_K"}
    return Rows(
        [k for k, _, _ in found],
        crystals,
        formula,
        np.array([s for _, s, _ in found]),
        np.array(volume),
        np.array([r.get("set", "JARVIS") for r in rows]),
        np.array(y),
        {k: np.array([r[v] for r in rows], dtype=float) for k, v in names.items()},
        folds(formula),
    )


def graphs(crystals, settings: GraphSettings, path: Path) -> list:
    """Graphs of all crystals, kept in one file; None where the settings leave an atom without a bond."""
    path = path.with_name(f"{path.name}-{hashlib.sha256(repr(settings).encode()).hexdigest()[:10]}.pkl")
    if path.exists():
        return pickle.loads(path.read_bytes())
    found = []
    for crystal in crystals:
        try:
            found.append(build(*crystal, settings))
        except CrystalError:
            found.append(None)
    path.with_suffix(".tmp").write_bytes(pickle.dumps(found))
    os.replace(path.with_suffix(".tmp"), path)
    return found


def auxiliary(folders: list[Path], ids: list[str], train: np.ndarray, count: int) -> np.ndarray:
    """Principal components of frozen features, averaged over the atoms; NaN where a crystal has none.

    Features of SevenNet see the structure alone, never a label; scale and components are those of the training
    rows. Every component is divided by the deviation of the first one of its potential, so that what varies
    most counts most.
    """
    parts = []
    for folder in folders:
        means = {}
        for part in sorted(folder.glob("part-*.npz")):
            with np.load(part) as data:
                cuts = np.cumsum(data["n"])[:-1]
                for name, block in zip(data["id"], np.split(data["x"].astype(np.float32), cuts), strict=True):
                    means[str(name)] = block.mean(0)
        width = len(next(iter(means.values())))
        x = np.array([means.get(k, np.full(width, np.nan)) for k in ids])
        known = train[np.isfinite(x[train]).all(1)]
        x = (x - x[known].mean(0)) / (x[known].std(0) + 1e-3)
        _, axes = np.linalg.eigh(x[known].T @ x[known])
        z = x @ axes[:, ::-1][:, : count // len(folders)]
        parts.append(z / z[known].std(0).max() ** 0.5 / z[known].std(0) ** 0.5)
    return np.concatenate(parts, axis=1)
