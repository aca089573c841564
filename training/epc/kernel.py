"""Kernel regression on frozen features: python training/epc/kernel.py --features DIR DIR --out DIR.

A Gaussian process over the Alexandria rows (`onnes.learn.kernel`) in the five folds of the heads. Components, scale and
widths come from the features of these crystals, which know no label; sizes and noise were chosen on fold 0. Writes
DIR/kernel.safetensors, whose weights of fold k are zero on the crystals of fold k, and DIR/oof.npz. 2 CPU minutes.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from scipy.linalg import cho_factor, cho_solve

from data import FOLDS, Data, load
from onnes.learn.kernel import OUTPUTS, AtomKernel, half_log_mass

#: Principal components; variance of the labels' noise against that of the labels' prior.
COMPONENTS, NOISE = 160, 3e-3
#: Squared widths in units of the median squared distance of two atoms.
NARROW, WIDE = 0.1, 0.8
#: Atoms of a crystal are equal whose components differ by less (mean square), where the deviation of features is 1.
EQUAL = 2e-3
CRYSTALS_AT_A_TIME = 500


def merged(p: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Components of the different atoms of a crystal, and the share of each."""
    left, kept, share = np.arange(len(p)), [], []
    while len(left):
        same = (((p[left] - p[left[0]]) ** 2).mean(1) < EQUAL) & (z[left] == z[left[0]])
        kept.append(p[left[same]].mean(0))
        share.append(same.sum() / len(p))
        left = left[~same]
    return np.array(kept), np.array(share)


def support(x: np.ndarray, z: np.ndarray) -> AtomKernel:
    """Training atoms, without weights; x (n, atoms, F) and z (n, atoms) are padded with zeros."""
    real = z > 0
    atoms = x[real].astype(np.float32)
    # As they are stored, in half precision.
    center, spread = (v.astype(np.float16).astype(np.float32) for v in (atoms.mean(0), atoms.std(0) + 1e-3))
    atoms = (atoms - center) / spread
    _, axes = np.linalg.eigh(atoms.T @ atoms / len(atoms))
    axes = axes[:, ::-1][:, :COMPONENTS].astype(np.float16).astype(np.float32)
    parts = np.split(atoms @ axes, np.cumsum(real.sum(1))[:-1])
    found = [merged(p, row[row > 0]) for p, row in zip(parts, z, strict=True)]
    p = np.concatenate([f[0] for f in found])
    step = np.abs(p).max(0) / 127.0
    some = p[np.random.default_rng(0).permutation(len(p))[:3000]]
    squares = (some**2).sum(1)
    median = float(np.median(squares[:, None] + squares - 2.0 * some @ some.T))
    return AtomKernel(
        center,
        spread,
        axes,
        np.round(p / step).astype(np.int8),
        step.astype(np.float32),
        np.concatenate([f[1] for f in found]).astype(np.float32),
        np.concatenate([[0], np.cumsum([len(f[1]) for f in found])[:-1]]),
        (NARROW * median, WIDE * median),
        np.zeros((FOLDS, len(z), OUTPUTS)),
        np.zeros((FOLDS, OUTPUTS)),
    )


def gram(kernel: AtomKernel) -> np.ndarray:
    """Kernel of all training crystals, shape (C, C)."""
    vectors = np.split(kernel.training, kernel.first[1:])
    shares = np.split(kernel.share, kernel.first[1:])
    starts = range(0, len(vectors), CRYSTALS_AT_A_TIME)
    blocks = [slice(a, a + CRYSTALS_AT_A_TIME) for a in starts]
    return np.concatenate([kernel.similarity(vectors[b], shares[b]) for b in blocks])


def solved(kernel: AtomKernel, alike: np.ndarray, y: np.ndarray, fold: np.ndarray) -> AtomKernel:
    """With the weights of every fold."""
    weights, offset = kernel.weights.copy(), kernel.offset.copy()
    for k in range(FOLDS):
        train = np.flatnonzero(fold != k)
        offset[k] = y[train].mean(0)
        matrix = alike[np.ix_(train, train)].astype(float)
        matrix[np.diag_indices_from(matrix)] += NOISE
        factor = cho_factor(matrix, lower=True, overwrite_a=True, check_finite=False)
        weights[k, train] = cho_solve(factor, y[train] - offset[k])
        print("fold", k, flush=True)
    return replace(kernel, weights=weights, offset=offset)


def labels_of(data: Data, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Learned quantities, shape (n, 2), and half the mean ln M."""
    half = half_log_mass([row[row > 0] for row in data.z[rows]])
    y = data.y[rows, :OUTPUTS].copy()
    y[:, 1] += half
    return y, half


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--features", type=Path, nargs="+", required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    data = load(args.features)
    rows = np.flatnonzero(data.source == 0)
    fold = data.fold[rows]
    y, half = labels_of(data, rows)
    kernel = support(data.x[rows], data.z[rows])
    print(len(rows), "crystals", len(kernel.atoms), "different atoms", flush=True)
    alike = gram(kernel)
    kernel = solved(kernel, alike, y, fold)
    out = np.full((len(data.ids), OUTPUTS), np.nan)
    for k in range(FOLDS):
        test = fold == k
        found = alike[test] @ kernel.weights[k] + kernel.offset[k]
        found[:, 1] -= half[test]
        out[rows[test]] = found
    tensors = {k: v.numpy() for k, v in kernel.tensors().items()}
    save_file(tensors, args.out / "kernel.safetensors", {"widths": json.dumps(kernel.widths)})
    np.savez(args.out / "oof.npz", out=out, id=np.array(data.ids))
    truth = np.column_stack([data.truth["lambda"], data.truth["omega_log_K"]])[rows]
    print("MAE of lambda and omega_log/K:", np.abs(np.exp(out[rows]) - truth).mean(0).round(4))


if __name__ == "__main__":
    main()
