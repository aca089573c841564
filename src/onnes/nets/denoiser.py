"""Periodic equivariant score network over lattice, fractional coordinates and atom types.

The network follows the fractional-coordinate message passing of CSPNet (Jiao et al., DiffCSP,
NeurIPS 2023, arXiv:2309.04475) with four changes that make it small enough to train on a CPU:

* all crystals of a batch have the same number of atoms, so every tensor is dense and no scatter is needed;
* the first edge layer is split into per-node, per-edge and per-graph terms;
* besides the Fourier features of fractional differences, edges carry periodic sums of radial functions of
  the real interatomic distances (images included), which are invariant and tell the network what a bond is;
* the coordinate score has an explicit pairwise part, a learned combination of radially weighted periodic
  displacement vectors.

Symmetries: permutation of atoms (equivariant), translation of the origin and integer shifts (invariant), and
rotation (the lattice enters only through the logarithm of its metric, the coordinates are fractional).
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

#: Token of an atom whose type is not known yet. Types are atomic numbers 1..MAX_Z.
MASK = 0
MAX_Z = 100


@dataclass(frozen=True)
class DenoiserSettings:
    """Size of the network.

    Attributes
    ----------
    hidden, layers : int
        Width of node features; number of message-passing layers.
    fourier : int
        Number of frequencies of the fractional differences.
    radial : int
        Number of Gaussian radial functions on 0.4 .. ``cutoff`` angstrom.
    cutoff : float
        Largest centre of the radial functions, angstrom.
    max_atoms : int
        Largest number of atoms in a cell.
    symmetry : bool
        Whether the network is told space group and Wyckoff letters.
    dropout : float
        Of the updates of node features, in training.
    """

    hidden: int = 192
    layers: int = 5
    fourier: int = 10
    radial: int = 16
    cutoff: float = 6.0
    max_atoms: int = 20
    symmetry: bool = False
    dropout: float = 0.0

    def as_dict(self) -> dict[str, float | int | bool]:
        """Return the settings as plain numbers, for the checkpoint."""
        return asdict(self)


@dataclass
class Denoised:
    """What the network says about a noisy crystal.

    Attributes
    ----------
    type_logits : Tensor, shape (B, N, MAX_Z + 1)
        Unnormalised log probabilities of the clean atom types (index = atomic number).
    lattice : Tensor, shape (B, 6)
        Estimate of the clean, standardised lattice vector.
    score : Tensor, shape (B, N, 3)
        Coordinate score divided by the root of its mean square at this noise level.
    """

    type_logits: Tensor
    lattice: Tensor
    score: Tensor


def sinusoidal(t: Tensor, size: int) -> Tensor:
    """Sinusoidal features of a time in [0, 1], shape (B, size)."""
    k = torch.exp(torch.arange(size // 2, device=t.device) * (-math.log(1000.0) / (size // 2 - 1)))
    x = 1000.0 * t[:, None] * k
    return torch.cat([x.sin(), x.cos()], dim=-1)


class PairFeatures(nn.Module):
    """Invariant features and radially weighted displacements of all ordered pairs of atoms.

    Parameters
    ----------
    settings : DenoiserSettings
    """

    images: Tensor
    centres: Tensor

    def __init__(self, settings: DenoiserSettings) -> None:
        super().__init__()
        self.fourier = settings.fourier
        axis = torch.tensor([-1.0, 0.0, 1.0])
        self.register_buffer("images", torch.cartesian_prod(axis, axis, axis), persistent=False)
        centres = torch.linspace(0.4, settings.cutoff, settings.radial)
        self.register_buffer("centres", centres, persistent=False)
        self.width = float(centres[1] - centres[0])

    @property
    def size(self) -> int:
        """Number of invariant features a pair."""
        return 6 * self.fourier + len(self.centres)

    def forward(self, frac: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, N, N, size) and displacements (B, N, N, radial, 3), the latter fractional.

        Parameters
        ----------
        frac : Tensor, shape (B, N, 3)
        cell : Tensor, shape (B, 3, 3)
            Rows are lattice vectors, angstrom.
        """
        n = frac.shape[1]
        delta = frac[:, None, :, :] - frac[:, :, None, :]
        k = 2.0 * math.pi * torch.arange(1, self.fourier + 1, device=frac.device, dtype=frac.dtype)
        phase = delta[..., None] * k
        waves = torch.cat([phase.sin(), phase.cos()], dim=-1).flatten(-2)
        # The 27 images around the minimum-image one: enough for the nearest shells of reduced cells.
        wrapped = delta - delta.round()
        shifted = wrapped[..., None, :] + self.images
        distance = torch.einsum("bijrx,bxy->bijry", shifted, cell).norm(dim=-1)
        radial = torch.exp(-0.5 * ((distance[..., None] - self.centres) / self.width) ** 2)
        itself = torch.eye(n, device=frac.device, dtype=torch.bool)[:, :, None] & (
            self.images.abs().sum(-1) == 0
        )
        radial = radial.masked_fill(itself[None, ..., None], 0.0)
        push = torch.einsum("bijrk,bijrx->bijkx", radial, shifted)
        return torch.cat([waves, radial.sum(dim=-2)], dim=-1), push


class Layer(nn.Module):
    """One round of messages between all pairs of atoms of a crystal."""

    def __init__(self, hidden: int, pair: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.drop = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(hidden)
        self.sender = nn.Linear(hidden, hidden)
        self.receiver = nn.Linear(hidden, hidden, bias=False)
        self.pair = nn.Linear(pair, hidden, bias=False)
        self.whole = nn.Linear(hidden, hidden, bias=False)
        self.edge = nn.Sequential(nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU())
        self.node = nn.Sequential(nn.Linear(2 * hidden, hidden), nn.SiLU(), nn.Linear(hidden, hidden))

    def forward(self, h: Tensor, pair: Tensor, whole: Tensor) -> tuple[Tensor, Tensor]:
        """Return the new node features (B, N, H) and the messages (B, N, N, H)."""
        x = self.norm(h)
        first = (
            self.receiver(x)[:, :, None]
            + self.sender(x)[:, None, :]
            + self.pair(pair)
            + self.whole(whole)[:, None, None]
        )
        message = self.edge(first)
        return h + self.drop(self.node(torch.cat([x, message.mean(dim=2)], dim=-1))), message


class Denoiser(nn.Module):
    """Joint denoiser of types, lattice and coordinates, conditioned on Tc and dynamical stability.

    Parameters
    ----------
    settings : DenoiserSettings
    """

    def __init__(self, settings: DenoiserSettings) -> None:
        super().__init__()
        self.settings = settings
        #: Messages in bfloat16 (training on a GPU); geometry stays in single precision.
        self.in_half = False
        size = settings.hidden
        self.pairs = PairFeatures(settings)
        self.element = nn.Embedding(MAX_Z + 1, size)
        self.count = nn.Embedding(settings.max_atoms + 1, size)
        self.time = nn.Sequential(nn.Linear(64, size), nn.SiLU(), nn.Linear(size, size))
        self.cell = nn.Sequential(nn.Linear(6, size), nn.SiLU(), nn.Linear(size, size))
        self.tc = nn.Sequential(nn.Linear(2, size), nn.SiLU(), nn.Linear(size, size))
        self.stable = nn.Embedding(3, size)
        if settings.symmetry:
            # 0 stands for "not told"; letters are places in the alphabet of the International Tables, plus one.
            self.group = nn.Embedding(231, size)
            self.letter = nn.Embedding(28, size)
        self.layers = nn.ModuleList(
            Layer(size, self.pairs.size, settings.dropout) for _ in range(settings.layers)
        )
        self.drop = nn.Dropout(settings.dropout)
        self.last = nn.LayerNorm(size)
        self.to_type = nn.Linear(size, MAX_Z + 1)
        self.to_score = nn.Linear(size, 3, bias=False)
        self.to_push = nn.Linear(size, settings.radial)
        self.to_lattice = nn.Sequential(nn.Linear(2 * size, size), nn.SiLU(), nn.Linear(size, 6))

    def forward(
        self,
        types: Tensor,
        frac: Tensor,
        lattice: Tensor,
        cell: Tensor,
        time: Tensor,
        log_tc: Tensor,
        stable: Tensor,
        group: Tensor | None = None,
        letter: Tensor | None = None,
    ) -> Denoised:
        """Denoise a batch of crystals with N atoms each.

        Parameters
        ----------
        types : Tensor of int, shape (B, N)
            Atomic numbers, ``MASK`` where unknown.
        frac : Tensor, shape (B, N, 3)
        lattice : Tensor, shape (B, 6)
            Noisy standardised lattice vector.
        cell : Tensor, shape (B, 3, 3)
            The same lattice as rows of vectors, angstrom.
        time : Tensor, shape (B,)
            Noise level in [0, 1].
        log_tc : Tensor, shape (B,)
            log10 of the target Tc in kelvin; NaN where not conditioned.
        stable : Tensor of int, shape (B,)
            0 not conditioned, 1 dynamically stable, 2 unstable.
        group : Tensor of int, shape (B,), optional
            Space group; only where the settings ask for it.
        letter : Tensor of int, shape (B, N), optional
            Place of each atom's Wyckoff letter, plus one.
        """
        with torch.no_grad():
            pair, push = self.pairs(frac, cell)
        n = torch.full_like(types[:, 0], types.shape[1])
        asked = ~torch.isnan(log_tc)
        target = torch.stack([torch.nan_to_num(log_tc), asked.to(log_tc.dtype)], dim=-1)
        whole = (
            self.time(sinusoidal(time, 64))
            + self.cell(lattice)
            + self.count(n)
            + self.tc(target)
            + self.stable(stable)
        )
        h = self.drop(self.element(types))
        if self.settings.symmetry:
            if group is None or letter is None:
                raise ValueError("this network needs space group and letters")
            whole = whole + self.group(group)
            h = h + self.letter(letter)
        h = h + whole[:, None]
        message = h.new_zeros(())
        with torch.autocast(h.device.type, torch.bfloat16, enabled=self.in_half, cache_enabled=False):
            # Cast once, not in every layer.
            pair = pair.to(torch.bfloat16) if self.in_half else pair
            for layer in self.layers:
                h, message = layer(h, pair, whole)
            push_weight = self.to_push(message)
        h = self.last(h.to(frac.dtype))
        # The per-node part can only be a function of differences: remove its mean, a shift of the origin.
        score = self.to_score(h)
        pushes = torch.einsum("bijk,bijkx->bix", push_weight.to(push.dtype), push) / types.shape[1]
        score = score + pushes
        score = score - score.mean(dim=1, keepdim=True)
        pooled = torch.cat([h.mean(dim=1), whole], dim=-1)
        return Denoised(self.to_type(h), self.to_lattice(pooled), score)
