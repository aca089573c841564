"""What the spectral network is trained on: curves, moments, vibrational spectra; their inputs and folds."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import zlib
from pathlib import Path

import numpy as np
from ase.data import atomic_numbers

from onnes.errors import OnnesError
from onnes.graph.crystal_graph import build
from onnes.learn.spectrum_fit import SpectrumData
from onnes.nets.spectrum import GRIDS, PHONON_EDGES_MEV, SpectrumSettings
from onnes.theory.infer import omega_2_from_tc
from onnes.theory.spectral import Spectrum
from onnes.units import TO_KELVIN

SHARED = Path(os.environ.get("ONNES_SHARED", Path(__file__).resolve().parents[3] / "shared"))
FOLDS = 5
MEV = TO_KELVIN["meV"]
#: Middles of the 66 cells of the stored JARVIS phonon spectra (see shared/data/README.md).
JARVIS_PHONONS_CM1 = -300.0 + 20.0 * np.arange(66)


def _rows(name: str) -> list[dict]:
    with gzip.open(SHARED / "data" / f"{name}.jsonl.gz", "rt") as handle:
        return [json.loads(line) for line in handle]


def spectra() -> list[dict]:
    """JARVIS curves of stable crystals, the clean ones first."""
    rows = [r for r in _rows("jarvis_a2f") if r["stability"] == "stable"]
    return sorted(rows, key=lambda r: not r["clean"])


def alexandria() -> list[dict]:
    """Crystals with lambda, omega_log and Tc only."""
    return [r for r in _rows("alexandria_eph") if r["lambda"] > 0 and r["omega_log_K"] > 0]


def jarvis() -> list[dict]:
    """Stable JARVIS crystals with lambda and omega_log."""
    kept = [r for r in _rows("jarvis_supercon") if r.get("in_616_set")]
    return [r for r in kept if r["lambda"] > 0 and r["omega_log_K"] > 0]


def fold_of(formulas) -> np.ndarray:
    """Folds of the direct predictor for its formulas; the few others by a checksum."""
    known = sorted({r["formula"] for r in (*alexandria(), *jarvis())})
    numbers = np.random.default_rng(0).permutation(len(known)) % FOLDS
    rule = dict(zip(known, numbers, strict=True))
    return np.array([rule.get(f, zlib.crc32(f.encode()) % FOLDS) for f in formulas])


def curve(row: dict) -> Spectrum | None:
    """The spectrum of a clean row; None where more than 10 % of its lambda is unphysical."""
    if not row.get("clean"):
        return None
    try:
        return Spectrum.from_arrays(row["omega_meV"], row["alpha2F"], "meV", source=row["id"])
    except OnnesError:
        return None


def features(folders: list[str]) -> dict[str, np.ndarray]:
    """Features of the atoms by crystal, side by side for several potentials; "A:B" are two folders of one."""
    each: list[dict[str, np.ndarray]] = []
    for joined in folders:
        each.append({})
        for part in sorted(p for f in joined.split(":") for p in Path(f).glob("part-*.npz")):
            with np.load(part) as found:
                blocks = np.split(found["x"], np.cumsum(found["n"])[:-1])
                each[-1].update(zip(map(str, found["id"]), blocks, strict=True))
    common = set.intersection(*(set(e) for e in each))
    return {k: np.concatenate([e[k] for e in each], axis=1) for k in common}


def phonons(folder: Path | None) -> dict[str, np.ndarray]:
    """Modes of each atom on the cells of `phonons.EDGES`, by crystal."""
    out: dict[str, np.ndarray] = {}
    for part in sorted(folder.glob("part-*[0-9].npz")) if folder else []:
        with np.load(part) as found:
            out |= {k: found[k].astype(np.float32) for k in found.files}
    return out


def in_cells(weight: np.ndarray) -> np.ndarray:
    """Site spectra in the cells of the network, rows of sum 1; imaginary and higher modes in the end cells."""
    from onnes.learn.spectrum_inputs import phonon_cells

    return phonon_cells(np.arange(-30.0, 300.25, 0.5), weight)


def _jarvis_modes(row: dict) -> np.ndarray | None:
    found = row.get("ph_dos_66")
    if not found or not np.sum(found) > 0:
        return None
    edges = (np.append(JARVIS_PHONONS_CM1, JARVIS_PHONONS_CM1[-1] + 20.0) - 10.0) * TO_KELVIN["cm-1"] / MEV
    from onnes.learn.spectrum_inputs import phonon_cells

    return phonon_cells(edges, np.array([found], dtype=float))[0]


def load(
    settings: SpectrumSettings, feature_folders: list[str], phonon_folder: Path | None, *, modes: bool = True
) -> SpectrumData:
    """Everything; with a phonon folder as input only crystals that have phonons."""
    grid = GRIDS[settings.grid]()
    seen_features = features(feature_folders) if feature_folders else {}
    seen_phonons = phonons(phonon_folder)
    curves = {r["id"]: r for r in spectra()}
    rows = [(0, r) for r in alexandria()] + [(1, r) for r in jarvis()]
    have = {r["id"] for _, r in rows}
    rows += [(1, r) for i, r in curves.items() if i not in have]
    stored_modes = {r["id"]: r for r in _rows("jarvis_supercon")}
    keep, cols = [], {"moments": [], "shares": [], "modes": []}
    for source, row in rows:
        z = np.array([atomic_numbers[s] for s in row["species"]])
        if len(z) > 20 or (settings.features and row["id"] not in seen_features):
            continue
        if settings.phonons and row["id"] not in seen_phonons:
            continue
        s = curve(curves[row["id"]]) if row["id"] in curves else None
        if s is not None and _leaves(s, grid):
            s = None
        if s is None and row["id"] in curves and row["id"] not in have:
            continue
        moments, shares = _labels(source, row, s, grid, settings.grid == "linear")
        found = _jarvis_modes(stored_modes[row["id"]]) if modes and row["id"] in stored_modes else None
        if found is None and modes and row["id"] in seen_phonons:
            found = in_cells(seen_phonons[row["id"]]).mean(0)
        cols["moments"].append(moments)
        cols["shares"].append(shares)
        cols["modes"].append(np.full(len(PHONON_EDGES_MEV) - 1, np.nan) if found is None else found)
        graph = build(z, np.array(row["lattice"]), np.array(row["frac"]), settings.graph, allow_isolated=True)
        keep.append((source, row, graph))
    return SpectrumData(
        [r["id"] for _, r, _ in keep],
        [g for _, _, g in keep],
        np.array([r["formula"] for _, r, _ in keep]),
        np.array([s for s, _, _ in keep]),
        *(np.array(cols[k]) for k in ("moments", "shares", "modes")),
        [seen_features[r["id"]] for _, r, _ in keep] if settings.features else None,
        [in_cells(seen_phonons[r["id"]]) for _, r, _ in keep] if settings.phonons else None,
    )


def _leaves(s: Spectrum, grid) -> bool:
    """Whether a curve leaves the grid: it is refused then, not cut off."""
    try:
        s.on_grid(grid.omega_meV)
    except OnnesError:
        return True
    return False


def _labels(source: int, row: dict, s: Spectrum | None, grid, smooth: bool) -> tuple[np.ndarray, np.ndarray]:
    """ln lambda, ln omega_log/meV, ln omega_2/omega_log, and the shares; from the curve where there is one."""
    if s is not None:
        log = np.log(s.omega_log_meV)
        moments = [np.log(s.lam), log, np.log(s.omega_2_meV) - log]
        if smooth:
            parts = grid.smoothed(s) * grid.coupling
            return np.array(moments), parts / parts.sum()
        return np.array(moments), grid.shares(s)
    lam, wlog = row["lambda"], row["omega_log_K"]
    ratio = np.nan
    if source == 0:
        ratio = np.log(
            omega_2_from_tc(np.array(lam), np.array(wlog), np.array(max(row["Tc_K"], 0.0)), mu_star=0.10)
            / wlog
        )
    moments = [np.log(max(lam, 0.02)), np.log(max(wlog, 5.0) / MEV), float(ratio)]
    return np.array(moments), np.full(len(grid.omega_meV), np.nan)


def data_hash(data: SpectrumData) -> str:
    """Hash of crystals and labels."""
    digest = hashlib.sha256("\n".join(data.ids).encode())
    for array in (data.moments, data.shares, data.modes):
        digest.update(array.tobytes())
    return digest.hexdigest()[:16]
