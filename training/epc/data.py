"""What the electron-phonon predictor is trained on: labels, features, folds."""

from __future__ import annotations

import gzip
import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase.data import atomic_numbers

from onnes.theory.infer import omega_2_from_tc

SHARED = Path(os.environ.get("ONNES_SHARED", Path(__file__).resolve().parents[3] / "shared"))
FOLDS, SEEDS, MU_STAR, FORMULA = 5, 3, 0.10, "allen-dynes"
#: Larger crystals are left out (five JARVIS rows).
MOST_ATOMS = 20


def labels() -> dict[str, tuple[int, dict]]:
    """Rows by id with their source: 0 Alexandria, 1 dynamically stable JARVIS rows."""
    out = {}
    for source, name in enumerate(("alexandria_eph", "jarvis_supercon")):
        with gzip.open(SHARED / "data" / f"{name}.jsonl.gz", "rt") as handle:
            for line in handle:
                row = json.loads(line)
                if source == 1 and not row.get("in_616_set"):
                    continue
                if row["lambda"] > 0 and row["omega_log_K"] > 0:
                    out[row["id"]] = (source, row)
    return out


@dataclass
class Data:
    """The crystals in the order of their feature files.

    ``y`` holds ln lambda, ln omega_log, ln N(EF)/atom and ln omega_2/omega_log, NaN where unknown.
    """

    ids: list[str]
    formula: np.ndarray
    source: np.ndarray
    group: np.ndarray
    x: np.ndarray
    z: np.ndarray
    log_volume: np.ndarray
    y: np.ndarray
    truth: dict[str, np.ndarray]

    @property
    def fold(self) -> np.ndarray:
        """Fold of each crystal: whole reduced formulas."""
        rule = fold_of(self.formula)
        return np.array([rule[f] for f in self.formula])


def fold_of(formulas) -> dict[str, int]:
    """Fold of each formula."""
    names = np.unique(formulas)
    numbers = np.random.default_rng(0).permutation(len(names)) % FOLDS
    return {str(n): int(k) for n, k in zip(names, numbers, strict=True)}


def features(folders: list[Path], known) -> tuple[list[str], np.ndarray]:
    """Features per atom of the labelled crystals, side by side for several potentials, zero-padded."""
    blocks: dict[str, list[np.ndarray]] = {}
    for folder in folders:
        for part in sorted(folder.glob("part-*.npz")):
            with np.load(part) as found:
                ids, counts, x = found["id"], found["n"], found["x"]
            for name, block in zip(ids, np.split(x, np.cumsum(counts)[:-1]), strict=True):
                if str(name) in known and len(block) <= MOST_ATOMS:
                    blocks.setdefault(str(name), []).append(block)
    # A crystal that one of the potentials refused is left out everywhere.
    names = [n for n, b in blocks.items() if len(b) == len(folders)]
    size = sum(b.shape[1] for b in blocks[names[0]])
    x = np.zeros((len(names), MOST_ATOMS, size), dtype=np.float16)
    for i, name in enumerate(names):
        x[i, : len(blocks[name][0])] = np.concatenate(blocks[name], axis=1)
    return names, x


def load(folders: list[Path]) -> Data:
    """Read labels and features."""
    known = labels()
    names, x = features(folders, known)
    sources, rows = zip(*(known[n] for n in names), strict=True)
    z = np.zeros((len(rows), MOST_ATOMS), dtype=np.int64)
    for i, row in enumerate(rows):
        z[i, : len(row["species"])] = [atomic_numbers[s] for s in row["species"]]
    count = (z > 0).sum(1)
    lam, wlog, tc = (np.array([r[k] for r in rows], dtype=float) for k in ("lambda", "omega_log_K", "Tc_K"))
    source = np.array(sources)
    dos = np.array([r.get("dos_ef_states_eV_cell") or np.nan for r in rows], dtype=float)
    dos = np.where(dos > 1e-3, dos, np.nan) / count
    ratio = omega_2_from_tc(lam, wlog, np.maximum(tc, 0.0), mu_star=MU_STAR) / wlog
    # JARVIS' Tc was computed without the shape factor that holds omega_2.
    ratio[source == 1] = np.nan
    y = np.column_stack(
        [np.log(np.maximum(lam, 0.02)), np.log(np.maximum(wlog, 5.0)), np.log(dos), np.log(ratio)]
    )
    volume = np.array([abs(np.linalg.det(np.array(r["lattice"]))) for r in rows]) / count
    truth = {"lambda": lam, "omega_log_K": wlog, "tc_K": tc, "omega_2_ratio": ratio}
    formula = np.array([r["formula"] for r in rows])
    group = np.array([r.get("set", "JARVIS") for r in rows])
    return Data(names, formula, source, group, x, z, np.log(volume), y, truth)
