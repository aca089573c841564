"""Rows, folds and graphs of the training of the fast predictor."""

from __future__ import annotations

import hashlib
import importlib.util
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

# Labels and folds follow the rule of the standard predictor, not a copy of it. Loaded by path: both folders have a
# train.py, and only one of them may be on the path of imports.
_spec = importlib.util.spec_from_file_location("epc_data", Path(__file__).parents[1] / "epc" / "data.py")
epc_data = sys.modules["epc_data"] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(epc_data)

FOLDS, MU_STAR, SHARED, labels = epc_data.FOLDS, epc_data.MU_STAR, epc_data.SHARED, epc_data.labels

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


def interval(errors: np.ndarray, groups: np.ndarray, seed: int = 0) -> list[float]:
    """95 % interval of the mean by resampling whole formulas."""
    names, where = np.unique(groups, return_inverse=True)
    sums, counts = np.bincount(where, errors), np.bincount(where)
    pick = np.random.default_rng(seed).integers(len(names), size=(1000, len(names)))
    means = sums[pick].sum(1) / counts[pick].sum(1)
    return [round(float(q), 4) for q in np.percentile(means, [2.5, 97.5])]


def precision_interval(hit: np.ndarray, score: np.ndarray, groups: np.ndarray) -> list[float]:
    """95 % interval of the average precision by resampling whole formulas."""
    names, where = np.unique(groups, return_inverse=True)
    rng, found = np.random.default_rng(0), []
    for _ in range(200):
        times = np.bincount(rng.integers(len(names), size=len(names)), minlength=len(names))[where]
        found.append(average_precision_score(hit, score, sample_weight=times))
    return [round(float(q), 4) for q in np.percentile(found, [2.5, 97.5])]


def scores(lam, wlog, tc, truth: dict, groups) -> dict:
    """Errors with intervals, and the average precision for Tc above 5 K."""
    out: dict = {}
    for name, predicted in (("lambda", lam), ("omega_log_K", wlog), ("tc_K", tc)):
        error = np.abs(predicted - truth[name])
        out[name] = {"mae": round(float(error.mean()), 4), "ci95": interval(error, groups)}
    out["average_precision_tc_5K"] = round(float(average_precision_score(truth["tc_K"] > 5, tc)), 4)
    out["average_precision_ci95"] = precision_interval(truth["tc_K"] > 5, tc, groups)
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
