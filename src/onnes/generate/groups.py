"""Training sets of the generators, read from the file that ``training/generate/crystals.py`` packs.

Crystals of one size are stacked, so that every tensor is dense. Nothing here needs more than numpy and torch:
training runs on bare machines, too.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from onnes.crystal.families import log_lattice
from onnes.errors import DataError
from onnes.generate.orbits import Frame, frame_batch
from onnes.generate.process import LatticeScale

SPLITS = ("train", "val", "test")
Group = dict[str, Tensor]
Groups = dict[int, Group]
Arrays = dict[str, NDArray[Any]]


def read_packed(path: str | Path, split: str | None = None) -> Arrays:
    """Arrays of a packed file, the rows of one split.

    Parameters
    ----------
    path : path
    split : {"train", "val", "test"}, optional
        All rows without it.

    Returns
    -------
    dict of str to ndarray
        As stored, with ``start`` and ``site_start``, the first atom and the first orbit of every row.

    Raises
    ------
    DataError
        ``no-training-set`` when the file is absent or is no such file.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays: Arrays = {name: stored[name] for name in stored.files}
        n, sites = arrays["n"].astype(int), arrays["n_sites"].astype(int)
    except (OSError, KeyError, ValueError) as error:
        raise DataError("no-training-set", f"{path} is no packed set of crystals: {error}") from None
    arrays["start"] = np.concatenate([[0], np.cumsum(n)[:-1]])
    arrays["site_start"] = np.concatenate([[0], np.cumsum(sites)[:-1]])
    if split is not None:
        rows = arrays["split"] == SPLITS.index(split)
        for name in ("id", "formula", "source", "split", "n", "cell", "log_tc", "e_form", "stable"):
            arrays[name] = arrays[name][rows]
        for name in ("number", "lattice", "n_sites", "start", "site_start"):
            arrays[name] = arrays[name][rows]
    return arrays


def packed_hash(path: str | Path) -> str:
    """Hash of a packed file's arrays, for the card."""
    digest = hashlib.sha256()
    with np.load(path, allow_pickle=False) as stored:
        for name in sorted(stored.files):
            digest.update(name.encode() + np.ascontiguousarray(stored[name]).tobytes())
    return digest.hexdigest()[:16]


def load_groups(path: str | Path, split: str = "train", device: str = "cpu") -> Groups:
    """Primitive Niggli cells by their number of atoms.

    Returns
    -------
    dict of int to dict of str to Tensor
        For each N: ``types`` (M, N), ``frac`` (M, N, 3), ``lattice`` (M, 6; `LatticeScale.raw`), ``log_tc`` (M,) and
        ``e_form`` (M,) with NaN where unknown, ``stable`` (M,; 0 unknown, 1 stable, 2 unstable), ``source`` (M,),
        ``weight`` (M,; ones).
    """
    arrays = read_packed(path, split)
    out: Groups = {}
    for n in np.unique(arrays["n"]).tolist():
        rows = np.flatnonzero(arrays["n"] == n)
        atoms = arrays["start"][rows][:, None].astype(int) + np.arange(n)
        group = {
            "types": arrays["types"][atoms].astype(np.int64),
            "frac": arrays["frac"][atoms],
            "lattice": LatticeScale.raw(arrays["cell"][rows].astype(float), n).astype(np.float32),
            **_labels(arrays, rows),
        }
        out[int(n)] = {name: torch.as_tensor(value, device=device) for name, value in group.items()}
    return out


def _labels(arrays: Arrays, rows: NDArray[np.int64]) -> Arrays:
    return {
        "log_tc": arrays["log_tc"][rows],
        "e_form": arrays["e_form"][rows],
        "stable": arrays["stable"][rows].astype(np.int64),
        "source": arrays["source"][rows].astype(np.int64),
        "weight": np.ones(len(rows), dtype=np.float32),
    }


def load_frames(path: str | Path, split: str = "train", device: str = "cpu") -> Groups:
    """Crystals as space group, orbits and free parameters, by the number of atoms in the primitive cell.

    Returns
    -------
    dict of int to dict of str to Tensor
        For each N the tensors of `onnes.generate.orbits.frame_batch`, the parameters ``w`` (M, N, 3), ``lattice``
        (M, 6; log-symmetric vector of the conventional cell, ln(atoms)/3 subtracted) and the labels of `load_groups`.
    """
    arrays = read_packed(path, split)
    by_size: dict[int, list[tuple[int, Frame]]] = {}
    for row in np.flatnonzero(arrays["number"] > 0).tolist():
        frame = frame_of(arrays, row)
        by_size.setdefault(frame.n_atoms, []).append((row, frame))
    out: Groups = {}
    for n, members in sorted(by_size.items()):
        rows = np.array([row for row, _ in members])
        group = frame_batch([frame for _, frame in members], device)
        w = np.zeros((len(rows), n, 3), dtype=np.float32)
        for i, (row, frame) in enumerate(members):
            start = int(arrays["site_start"][row])
            w[i, : len(frame.letters)] = np.nan_to_num(
                arrays["site_parameters"][start : start + len(frame.letters)]
            )
        vectors = log_lattice(_cells(arrays["lattice"][rows].astype(float)))
        group["w"] = torch.as_tensor(w, device=device)
        group["lattice"] = torch.as_tensor(vectors.astype(np.float32), device=device)
        group["lattice"][:, :3] -= group["log_n"][:, None]
        for name, value in _labels(arrays, rows).items():
            group[name] = torch.as_tensor(value, device=device)
        out[n] = group
    return out


def frame_of(arrays: Arrays, row: int) -> Frame:
    """Space group and orbits of one row of a packed set."""
    sites = slice(
        int(arrays["site_start"][row]), int(arrays["site_start"][row]) + int(arrays["n_sites"][row])
    )
    return Frame(
        int(arrays["number"][row]),
        tuple(arrays["site_letter"][sites].tolist()),
        tuple(arrays["site_z"][sites].tolist()),
    )


def _cells(parameters: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cells (M, 3, 3) of a, b, c (A) and alpha, beta, gamma (degrees); any orientation."""
    lengths, angles = parameters[:, :3], np.cos(np.radians(parameters[:, 3:]))
    metric = np.empty((len(parameters), 3, 3))
    for i, j, k in ((1, 2, 0), (0, 2, 1), (0, 1, 2)):
        metric[:, i, j] = metric[:, j, i] = lengths[:, i] * lengths[:, j] * angles[:, k]
    for i in range(3):
        metric[:, i, i] = lengths[:, i] ** 2
    return np.asarray(np.linalg.cholesky(metric), dtype=float)
