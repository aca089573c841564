"""Crystals of a given space group as free parameters: what the constrained diffusion moves.

The atoms of the primitive cell are ``x_k = A_k w_s + b_k`` with w_s the free parameters of the orbit s of atom
k, each of period 1. Noise is added to the parameters, so that the group is kept exactly at every step (as in
DiffCSP++, Jiao et al., ICLR 2024, which projects; here nothing else exists). The lattice is the log-symmetric
vector of the conventional cell, whose family is an affine subspace.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from onnes.crystal.families import family_projection
from onnes.crystal.wyckoff import centring_vectors, primitive_basis
from onnes.crystal.wyckoff_table import changes, wyckoff_positions
from onnes.generate.process import NARROWEST, cells_of, constant

Floats = NDArray[np.float64]
Batch = dict[str, Tensor]


@lru_cache(maxsize=4096)
def position_maps(number: int, index: int) -> tuple[Floats, Floats, Floats, Floats]:
    """Maps of one Wyckoff position in the primitive cell.

    Parameters
    ----------
    number : int
        Space group.
    index : int
        Place of the letter.

    Returns
    -------
    A : ndarray, shape (m, 3, 3)
        Columns beyond the position's freedom are zero.
    b : ndarray, shape (m, 3)
    back : ndarray, shape (m, 3, 3)
        Least-squares displacement of the parameters that a displacement of each atom asks for.
    polar : ndarray, shape (3, 3)
        Row p: change of the parameters when the origin moves along polar axis p of the conventional cell.
    """
    position = wyckoff_positions(number)[index]
    to_primitive = np.linalg.inv(primitive_basis(number))
    m = position.multiplicity // len(centring_vectors(number))
    offsets = position.offsets @ to_primitive
    matrices = np.einsum("kcd,cp->kpd", position.matrices, to_primitive)
    kept = _modulo_lattice(matrices, offsets, m)
    a = np.zeros((m, 3, 3))
    a[:, :, : position.freedom] = matrices[kept]
    back: Floats = np.asarray(np.linalg.pinv(a), dtype=float)
    polar = np.zeros((3, 3))
    for axis in np.flatnonzero(changes(number).polar):
        # The representative's own map: every point of the orbit moves by the same vector.
        polar[axis, : position.freedom] = np.linalg.pinv(position.matrices[0])[:, axis]
    return a, offsets[kept] % 1.0, back, polar


def _modulo_lattice(matrices: Floats, offsets: Floats, count: int) -> list[int]:
    """One point of each set that centring joins."""
    kept: list[int] = []
    for k in range(len(offsets)):
        for j in kept:
            delta = offsets[k] - offsets[j]
            if np.allclose(matrices[k], matrices[j]) and np.allclose(delta, np.rint(delta), atol=1e-6):
                break
        else:
            kept.append(k)
    assert len(kept) == count, "centring joins the points of an orbit in equal sets"
    return kept


@dataclass(frozen=True)
class Frame:
    """What a space group and its occupied orbits fix of a crystal of N primitive atoms and S orbits.

    Attributes
    ----------
    number : int
    letters, kinds : tuple of int, length S
        Place of each orbit's letter; its atomic number.
    """

    number: int
    letters: tuple[int, ...]
    kinds: tuple[int, ...]

    @property
    def multiplicities(self) -> tuple[int, ...]:
        """Primitive atoms of each orbit."""
        return tuple(len(position_maps(self.number, letter)[1]) for letter in self.letters)

    @property
    def n_atoms(self) -> int:
        """Atoms in the primitive cell."""
        return sum(self.multiplicities)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Arrays of the frame, orbits padded to S = N; see `frame_batch`."""
        n = self.n_atoms
        out: dict[str, Any] = {
            "types": np.zeros(n, np.int64),
            "letter": np.zeros(n, np.int64),
            "site": np.zeros(n, np.int64),
            "A": np.zeros((n, 3, 3), np.float32),
            "b": np.zeros((n, 3), np.float32),
            "back": np.zeros((n, 3, 3), np.float32),
            "free": np.zeros((n, 3), np.float32),
            "polar": np.zeros((3, n, 3), np.float32),
        }
        start = 0
        for s, (letter, kind) in enumerate(zip(self.letters, self.kinds, strict=True)):
            a, b, back, polar = position_maps(self.number, letter)
            atoms = slice(start, start + len(b))
            out["types"][atoms], out["letter"][atoms], out["site"][atoms] = kind, letter + 1, s
            out["A"][atoms], out["b"][atoms] = a, b
            out["back"][atoms] = back / len(b)
            out["free"][s] = np.abs(a[0]).sum(0) > 0
            out["polar"][:, s] = polar
            start += len(b)
        out["polar"] = _orthonormal(out["polar"].reshape(3, -1)).reshape(3, n, 3).astype(np.float32)
        matrix, offset = family_projection(self.number)
        out["family"], out["fixed"] = matrix.astype(np.float32), offset.astype(np.float32)
        out["basis"] = primitive_basis(self.number).astype(np.float32)
        conventional = n * len(centring_vectors(self.number))
        out["log_n"] = np.float32(math.log(conventional) / 3.0)
        out["group"] = np.int64(self.number)
        return out


def _orthonormal(rows: NDArray[Any]) -> Floats:
    """Rows made orthonormal; zero rows stay."""
    out = np.array(rows, dtype=float)
    for i in range(len(out)):
        for j in range(i):
            out[i] -= out[j] * (out[i] @ out[j])
        norm = np.linalg.norm(out[i])
        out[i] = out[i] / norm if norm > 1e-6 else 0.0
    return out


def frame_batch(frames: list[Frame], device: str = "cpu") -> Batch:
    """Stack frames with equal numbers of atoms.

    Returns
    -------
    dict of str to Tensor
        ``types``, ``letter`` (place + 1), ``site`` (B, N); ``A``, ``back`` (B, N, 3, 3); ``b`` (B, N, 3); ``free``
        (B, S, 3); ``polar`` (B, 3, S, 3) orthonormal; ``family`` (B, 6, 6), ``fixed`` (B, 6), ``basis`` (B, 3, 3),
        ``log_n`` and ``group`` (B,), with S = N.
    """
    every = [frame.arrays() for frame in frames]
    return {name: torch.as_tensor(np.stack([a[name] for a in every]), device=device) for name in every[0]}


def positions(w: Tensor, frame: Batch) -> Tensor:
    """Fractional coordinates (B, N, 3) in the primitive cell of the parameters w (B, S, 3)."""
    own = torch.gather(w, 1, frame["site"][..., None].expand(-1, -1, 3))
    return (torch.einsum("bnxd,bnd->bnx", frame["A"], own) + frame["b"]) % 1.0


def to_parameters(displacement: Tensor, frame: Batch) -> Tensor:
    """Displacements of the atoms (B, N, 3) as displacements of the parameters (B, S, 3), averaged over each orbit."""
    part = torch.einsum("bndx,bnx->bnd", frame["back"], displacement)
    out = torch.zeros_like(displacement)
    return out.scatter_add(1, frame["site"][..., None].expand(-1, -1, 3), part)


def without_drift(w: Tensor, frame: Batch) -> Tensor:
    """Remove what is only a shift of the origin along polar axes; (B, S, 3)."""
    along = torch.einsum("bpsd,bsd->bp", frame["polar"], w)
    return w - torch.einsum("bp,bpsd->bsd", along, frame["polar"])


@dataclass(frozen=True)
class FamilyScale:
    """Standardisation of the conventional cell's log-symmetric vector that commutes with every family's projection.

    Attributes
    ----------
    mean : float
        Of the diagonal entries, ln(atoms in the conventional cell)/3 subtracted.
    diagonal, other : float
        Standard deviations of diagonal and off-diagonal entries.
    """

    mean: float
    diagonal: float
    other: float

    @classmethod
    def fit(cls, vectors: Tensor) -> FamilyScale:
        """From vectors (M, 6) with ln(n)/3 subtracted; deviations below ``NARROWEST`` count as that."""
        diagonal, other = vectors[:, :3], vectors[:, 3:]
        wide = (max(float(part.std()), NARROWEST) for part in (diagonal, other))
        return cls(float(diagonal.mean()), *wide)

    @property
    def _std(self) -> tuple[float, ...]:
        return (self.diagonal,) * 3 + (self.other,) * 3

    @property
    def _mean(self) -> tuple[float, ...]:
        return (self.mean,) * 3 + (0.0,) * 3

    def encode(self, vector: Tensor, frame: Batch) -> Tensor:
        """Standardised free part (B, 6) of vectors (B, 6)."""
        return self.project((vector - constant(self._mean, vector)) / constant(self._std, vector), frame)

    def project(self, x: Tensor, frame: Batch) -> Tensor:
        """Onto the free directions of each crystal's family."""
        return torch.einsum("bij,bj->bi", frame["family"], x)

    def seen(self, x: Tensor, frame: Batch) -> Tensor:
        """What the network sees: the free part and the fixed one (hexagonal axes)."""
        return x + frame["fixed"] / constant(self._std, x)

    def cells(self, x: Tensor, frame: Batch) -> tuple[Tensor, Tensor]:
        """Conventional (symmetric) and primitive cells, rows in A, of standardised vectors."""
        vector = x * constant(self._std, x) + constant(self._mean, x) + frame["fixed"]
        conventional = cells_of(vector, frame["log_n"])
        return conventional, frame["basis"] @ conventional
