"""Kernel regression on the atoms of crystals: what the heads of the standard predictor are mixed with.

Two crystals A and B are alike as their atoms are, k(A, B) being the mean over all pairs of atoms of a Gaussian in
the principal components of the potentials' features; normalised, so that k(A, A) = 1 and a supercell is its
primitive cell (the average kernel of De, Bartok, Csanyi & Ceriotti, Phys. Chem. Chem. Phys. 18, 13754 (2016)). A
narrow Gaussian is added to the square of a wide one, which also sees which atoms occur together. Predictions are
those of a Gaussian process: weighted sums over the training crystals, with one set of weights for each fold, zero on
the crystals of that fold.

Instead of ln omega_log the sum gives ln omega_log + <ln M>/2, with masses M: force constants, which chemistry decides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
Float32 = NDArray[np.float32]

#: Prefix of the tensors in a checkpoint.
PREFIX = "kernel."
#: What the kernel predicts, the first columns of `onnes.learn.epc.TARGETS`.
OUTPUTS = 2
#: Atoms compared with all training atoms at a time: bounds memory (some 10 MB each for 100 atoms).
ATOMS = 128


@dataclass(frozen=True)
class AtomKernel:
    """Training atoms and weights.

    Attributes
    ----------
    center, spread : float32 array, shape (F,)
        Of the features.
    axes : float32 array, shape (F, D)
        Principal components.
    atoms : int8 array, shape (A, D)
        Components of the training atoms, atoms that are equal by symmetry merged, in units of `step`.
    step : float32 array, shape (D,)
    share : float32 array, shape (A,)
        Of each atom in its crystal; adds up to 1 there.
    first : int array, shape (C,)
        First atom of each training crystal.
    widths : (float, float)
        Squared widths of the narrow and the wide Gaussian.
    weights : float array, shape (folds, C, OUTPUTS)
    offset : float array, shape (folds, OUTPUTS)
        Means of the training labels.
    """

    center: Float32
    spread: Float32
    axes: Float32
    atoms: NDArray[np.int8]
    step: Float32
    share: Float32
    first: NDArray[np.int64]
    widths: tuple[float, float]
    weights: FloatArray
    offset: FloatArray

    @classmethod
    def read(cls, tensors: Mapping[str, torch.Tensor], widths: Sequence[float]) -> AtomKernel:
        """Of the tensors of a checkpoint.

        Raises
        ------
        KeyError
            One is missing.
        """
        found = {name: tensors[PREFIX + name].numpy() for name in _STORED}
        values: dict[str, Any] = {k: found[k].astype(np.float32) for k in _SINGLE}
        values |= {k: found[k].astype(np.float64) for k in ("weights", "offset")}
        first = np.concatenate([[0], np.cumsum(found["count"].astype(np.int64))[:-1]])
        narrow, wide = widths
        return cls(**values, atoms=found["atoms"], first=first, widths=(narrow, wide))

    def tensors(self) -> dict[str, torch.Tensor]:
        """What goes into a checkpoint; `read` gives it back, components and scale rounded to half precision."""
        values: dict[str, Any] = {
            k: getattr(self, k).astype(np.float16) for k in ("center", "spread", "axes")
        }
        values |= {k: getattr(self, k).astype(np.float32) for k in ("step", "share", "weights", "offset")}
        count = np.diff(np.append(self.first, len(self.atoms))).astype(np.uint8)
        values |= {"atoms": self.atoms, "count": count}
        return {PREFIX + k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in values.items()}

    def vectors(self, x: NDArray[np.floating]) -> Float32:
        """Principal components of features of shape (N, F), shape (N, D)."""
        scaled = ((x.astype(np.float32) - self.center) / self.spread).astype(np.float32)
        return np.asarray(scaled @ self.axes, dtype=np.float32)

    @cached_property
    def training(self) -> Float32:
        """Components of the training atoms, shape (A, D)."""
        return self.atoms.astype(np.float32) * self.step

    def similarity(self, vectors: Sequence[Float32], shares: Sequence[Float32]) -> Float32:
        """Kernel between crystals and the training crystals, shape (n, C), each between 0 and 1.

        Parameters
        ----------
        vectors : sequence of float32 arrays, each of shape (N, D)
        shares : sequence of float32 arrays, each of shape (N,)
            Of each atom in its crystal.
        """
        q = self.training
        own = np.array([[_pair(p, s, w) for p, s in zip(vectors, shares, strict=True)] for w in self.widths])
        sums = np.zeros((2, len(vectors), len(self.first)), dtype=np.float32)
        squares = (q**2).sum(1)
        for block in _blocks([len(p) for p in vectors]):
            p = np.concatenate([vectors[i] for i in block])
            distance = np.maximum((p**2).sum(1)[:, None] + squares - 2.0 * p @ q.T, 0.0)
            starts = np.cumsum([0, *(len(vectors[i]) for i in block[:-1])])
            mine = np.concatenate([shares[i] for i in block])[:, None]
            for k, width in enumerate(self.widths):
                alike = np.exp(distance * np.float32(-0.5 / width)) * mine * self.share
                sums[k, block] = np.add.reduceat(np.add.reduceat(alike, self.first, axis=1), starts, axis=0)
        narrow, wide = sums / np.sqrt(own[:, :, None] * self._own[:, None, :])
        found: Float32 = (0.5 * (narrow + wide**2)).astype(np.float32)
        return found

    def outputs(
        self, features: Sequence[NDArray[np.floating]], numbers: Sequence[NDArray[np.int64]]
    ) -> FloatArray:
        """Ln lambda and ln omega_log/K of each fold's weights, shape (folds, n, OUTPUTS).

        Parameters
        ----------
        features : sequence of arrays, each of shape (N, F)
        numbers : sequence of int arrays, each of shape (N,)
            Atomic numbers.
        """
        if not len(features):
            return np.zeros((len(self.weights), 0, OUTPUTS))
        vectors = [self.vectors(x) for x in features]
        shares = [np.full(len(x), 1.0 / len(x), dtype=np.float32) for x in features]
        alike = self.similarity(vectors, shares).astype(float)
        out: FloatArray = alike @ self.weights + self.offset[:, None, :]
        out[..., 1] -= half_log_mass(numbers)
        return out

    @cached_property
    def _own(self) -> FloatArray:
        """Kernel of each training crystal with itself before normalisation, shape (2, C)."""
        q = self.training
        bounds = list(zip(self.first, np.append(self.first[1:], len(q)), strict=True))
        return np.array([[_pair(q[a:b], self.share[a:b], w) for a, b in bounds] for w in self.widths])


def _pair(p: Float32, share: Float32, width: float) -> float:
    """Kernel of a crystal with itself before normalisation."""
    squares = (p**2).sum(1)
    distance = np.maximum(squares[:, None] + squares - 2.0 * p @ p.T, 0.0)
    return float(share @ np.exp(-0.5 / width * distance) @ share)


_SINGLE = ("center", "spread", "axes", "step", "share")
_STORED = (*_SINGLE, "atoms", "count", "weights", "offset")


def half_log_mass(numbers: Sequence[NDArray[np.int64]]) -> FloatArray:
    """Half the mean ln of the atoms' masses in u, shape (n,)."""
    from ase.data import atomic_masses

    return np.array([0.5 * np.log(atomic_masses[z]).mean() for z in numbers])


def _blocks(sizes: Sequence[int]) -> list[list[int]]:
    """Numbers of the crystals that are compared together."""
    blocks: list[list[int]] = []
    held = ATOMS + 1
    for i, size in enumerate(sizes):
        if held + size > ATOMS:
            blocks.append([])
            held = 0
        blocks[-1].append(i)
        held += size
    return blocks
