"""Autoregressive transformer over number of atoms, space group, Wyckoff letters and elements.

A crystal without its free parameters is a short sequence ``conditions, N, group, letter, element, letter,
element, ...`` with letters rising and the elements of a repeated letter rising, until the orbits hold N atoms
of the primitive cell (after CrystalFormer, Cao et al., arXiv:2403.15734, which writes coordinates into the
sequence, too). What cannot follow is masked: letters that the group does not have, that are used up or too
large, elements not asked for.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn

from onnes.crystal.wyckoff import centring_vectors
from onnes.crystal.wyckoff_table import changes, wyckoff_positions

N_LETTERS = 27
N_GROUPS = 231
MAX_Z = 100
#: Of each element, see `onnes.generate.prototypes.element_features`.
N_FEATURES = 4
#: For what cannot be: large and negative, yet finite, so that masked losses stay finite.
NEVER = -1e4


@dataclass(frozen=True)
class SiteSettings:
    """Size of the transformer.

    Attributes
    ----------
    hidden, layers, heads : int
    max_atoms : int
        Of the primitive cell.
    dropout : float
    sources : int
        Data sets that a crystal can be asked to be like; 0 for a network without this condition.
    """

    hidden: int = 256
    layers: int = 6
    heads: int = 8
    max_atoms: int = 20
    dropout: float = 0.1
    sources: int = 0

    def as_dict(self) -> dict[str, float | int]:
        """Return the settings as plain numbers, for the checkpoint."""
        return asdict(self)


@dataclass(frozen=True)
class PositionTable:
    """Wyckoff positions of all groups as arrays indexed by (group, letter).

    Attributes
    ----------
    multiplicity : int array, shape (231, 27)
        Atoms of the primitive cell; 0 where the group has no such letter.
    freedom : int array, shape (231, 27)
    identity : int array, shape (231, 27)
        Row of the position among all 1,731; 1,731 where there is none.
    features : float array, shape (1732, 7)
        Logarithm of multiplicity and site order, freedom one-hot, share of the largest multiplicity.
    relabel : int array, shape (231, R, 27)
        Letters that each letter becomes by the changes of origin and axes of a group, distinct rows, repeated to R.
    relabels : int array, shape (231,)
        Distinct rows of each group.
    """

    multiplicity: np.ndarray
    freedom: np.ndarray
    identity: np.ndarray
    features: np.ndarray
    relabel: np.ndarray
    relabels: np.ndarray


@lru_cache(maxsize=1)
def position_table() -> PositionTable:
    """Tabulate all groups."""
    multiplicity = np.zeros((N_GROUPS, N_LETTERS), np.int64)
    freedom = np.zeros((N_GROUPS, N_LETTERS), np.int64)
    count = sum(len(wyckoff_positions(g)) for g in range(1, N_GROUPS))
    identity = np.full((N_GROUPS, N_LETTERS), count, np.int64)
    features = np.zeros((count + 1, 7), np.float32)
    rows: dict[int, np.ndarray] = {}
    k = 0
    for g in range(1, N_GROUPS):
        every = wyckoff_positions(g)
        centring = len(centring_vectors(g))
        for i, p in enumerate(every):
            m = p.multiplicity // centring
            multiplicity[g, i], freedom[g, i], identity[g, i] = m, p.freedom, k
            features[k, :3] = math.log(m), math.log(p.site_order), p.multiplicity / every[-1].multiplicity
            features[k, 3 + p.freedom] = 1.0
            k += 1
        rows[g] = np.unique(changes(g).letters, axis=0)
    most = max(len(r) for r in rows.values())
    relabel = np.tile(np.arange(N_LETTERS), (N_GROUPS, most, 1))
    relabels = np.ones(N_GROUPS, np.int64)
    for g, r in rows.items():
        relabels[g] = len(r)
        relabel[g, : len(r), : r.shape[1]] = r
    return PositionTable(multiplicity, freedom, identity, features, relabel, relabels)


@dataclass
class Asked:
    """Conditions of a batch; what is not asked is hidden.

    Attributes
    ----------
    log_tc : Tensor, shape (B,)
        NaN where not asked.
    stable : Tensor of int, shape (B,)
        0 not asked, 1 stable, 2 unstable.
    group : Tensor of int, shape (B,)
        0 not asked.
    composition : Tensor, shape (B, MAX_Z + 1)
        Fractions; all zero where not asked.
    elements : Tensor, shape (B, MAX_Z + 1)
        1 for allowed; all zero where not asked.
    source : Tensor of int, shape (B,), or None
        1 + the number of the data set that the crystal is to be like; 0 not asked. None for nobody.
    """

    log_tc: Tensor
    stable: Tensor
    group: Tensor
    composition: Tensor
    elements: Tensor
    source: Tensor | None = None


class Block(nn.Module):
    """Pre-norm transformer layer with causal attention."""

    def __init__(self, size: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.norm1, self.norm2 = nn.LayerNorm(size), nn.LayerNorm(size)
        self.qkv = nn.Linear(size, 3 * size)
        self.out = nn.Linear(size, size)
        self.mlp = nn.Sequential(
            nn.Linear(size, 4 * size), nn.GELU(), nn.Dropout(dropout), nn.Linear(4 * size, size)
        )
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (B, T, H)."""
        b, t, size = x.shape
        q, k, v = self.qkv(self.norm1(x)).reshape(b, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        p = self.dropout if self.training else 0.0
        y = nn.functional.scaled_dot_product_attention(q, k, v, dropout_p=p, is_causal=True)
        x = x + self.drop(self.out(y.transpose(1, 2).reshape(b, t, size)))
        return x + self.drop(self.mlp(self.norm2(x)))


class SiteTransformer(nn.Module):
    """Distribution over N, space group, letters and elements.

    Parameters
    ----------
    settings : SiteSettings
    """

    multiplicity: Tensor
    freedom: Tensor
    identity: Tensor
    features: Tensor
    element_features: Tensor

    def __init__(self, settings: SiteSettings) -> None:
        super().__init__()
        self.settings = settings
        size = settings.hidden
        table = position_table()
        for name in ("multiplicity", "freedom", "identity", "features"):
            self.register_buffer(name, torch.as_tensor(getattr(table, name)), persistent=False)
        # Features of the elements travel with the weights; the training sets them.
        self.register_buffer("element_features", torch.zeros(MAX_Z + 1, N_FEATURES))
        rows = len(table.features)
        self.tc = nn.Sequential(nn.Linear(2, size), nn.SiLU(), nn.Linear(size, size))
        self.stable = nn.Embedding(3, size)
        self.asked_group = nn.Embedding(N_GROUPS, size)
        if settings.sources:
            # Zero at first, and for nobody always: a network trained without the condition is what it was.
            self.like = nn.Embedding(settings.sources + 1, size, padding_idx=0)
            nn.init.zeros_(self.like.weight)
        wide = MAX_Z + 2 + 2 * N_FEATURES
        self.composition = nn.Sequential(nn.Linear(wide, size), nn.SiLU(), nn.Linear(size, size))
        self.allowed = nn.Sequential(nn.Linear(MAX_Z + 2, size), nn.SiLU(), nn.Linear(size, size))
        self.count = nn.Embedding(settings.max_atoms + 1, size)
        self.group = nn.Embedding(N_GROUPS, size)
        self.position = nn.Embedding(rows, size)
        self.position_features = nn.Linear(self.features.shape[1], size)
        self.element = nn.Embedding(MAX_Z + 1, size)
        self.from_features = nn.Linear(N_FEATURES, size)
        self.to_features = nn.Linear(size, N_FEATURES)
        self.place = nn.Embedding(2 * settings.max_atoms + 3, size)
        self.left = nn.Embedding(settings.max_atoms + 1, size)
        self.wanting = nn.Linear(MAX_Z + 1, size, bias=False)
        self.blocks = nn.ModuleList(
            Block(size, settings.heads, settings.dropout) for _ in range(settings.layers)
        )
        self.last = nn.LayerNorm(size)
        self.to_count = nn.Linear(size, settings.max_atoms + 1)
        self.to_group = nn.Linear(size, N_GROUPS)
        self.to_query = nn.Linear(size, size)
        self.to_element = nn.Linear(size, MAX_Z + 1)
        self.drop = nn.Dropout(settings.dropout)

    def first_token(self, asked: Asked) -> Tensor:
        """Conditions as one token (B, H)."""
        known = ~torch.isnan(asked.log_tc)
        tc = torch.stack([torch.nan_to_num(asked.log_tc), known.to(asked.log_tc.dtype)], dim=-1)

        def flagged(x: Tensor) -> Tensor:
            return torch.cat([x, (x.sum(-1, keepdim=True) > 0).to(x.dtype)], dim=-1)

        return (
            self.tc(tc)
            + self.stable(asked.stable)
            + self.asked_group(asked.group)
            + self.composition(
                torch.cat([flagged(asked.composition), *self._moments(asked.composition)], dim=-1)
            )
            + self.allowed(flagged(asked.elements))
        )

    def _moments(self, fractions: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation (B, F) of the elements' features."""
        mean = fractions @ self.element_features
        square = fractions @ self.element_features.square()
        return mean, (square - mean.square()).clamp(min=1e-6).sqrt()

    def element_logits(self, hidden: Tensor) -> Tensor:
        """Logits (..., MAX_Z + 1) of elements; like elements share what is learned through their features."""
        return self.to_element(hidden) + self.to_features(hidden) @ self.element_features.T

    def _positions(self, group: Tensor) -> Tensor:
        """Vectors (B, 27, H) of the letters of each crystal's group."""
        rows = self.identity[group]
        return self.position(rows) + self.position_features(self.features[rows])

    def trunk(self, asked: Asked, n: Tensor, group: Tensor, letters: Tensor, kinds: Tensor) -> Tensor:
        """Hidden states of all tokens.

        Parameters
        ----------
        asked : Asked
        n, group : Tensor of int, shape (B,)
        letters, kinds : Tensor of int, shape (B, S)
            Place of the letter and atomic number; any value where there is no orbit.

        Returns
        -------
        Tensor, shape (B, 3 + 2 S, H)
        """
        b, s = letters.shape
        safe = letters.clamp(min=0)
        own = torch.gather(self._positions(group), 1, safe[..., None].expand(-1, -1, self.settings.hidden))
        m = torch.gather(self.multiplicity[group], 1, safe) * (letters >= 0)
        used = torch.cumsum(m, dim=1)
        left = (n[:, None] - torch.cat([torch.zeros_like(n)[:, None], used], dim=1)).clamp(min=0)
        onehot = nn.functional.one_hot(kinds.clamp(min=0), MAX_Z + 1) * m[..., None]
        spent = torch.cat([torch.zeros_like(onehot[:, :1]), torch.cumsum(onehot, dim=1)], dim=1)
        need = n[:, None, None] * asked.composition[:, None, :]
        composed = (asked.composition.sum(-1) > 0)[:, None, None]
        need = (need - spent) * composed / 4.0
        state = self.left(left) + self.wanting(need.to(own.dtype))
        # Tokens: conditions, N, group, then letter and element of each orbit in turn.
        known = kinds.clamp(min=0)
        element = self.element(known) + self.from_features(self.element_features[known])
        pairs = torch.stack([own + state[:, :-1], element + state[:, 1:]], dim=2)
        head = torch.stack(
            [self.first_token(asked), self.count(n) + state[:, 0], self.group(group) + state[:, 0]], dim=1
        )
        x = torch.cat([head, pairs.reshape(b, 2 * s, -1)], dim=1)
        whole = self.group(group)[:, None] * (torch.arange(3 + 2 * s, device=n.device) >= 2)[None, :, None]
        x = x + whole + self.place.weight[: 3 + 2 * s]
        if self.settings.sources and asked.source is not None:
            x = x + self.like(asked.source)[:, None]
        x = self.drop(x)
        for block in self.blocks:
            x = block(x)
        return self.last(x)

    def letter_logits(self, hidden: Tensor, group: Tensor) -> Tensor:
        """Logits (B, S, 27) of letters from hidden states (B, S, H), -1e4 for letters that do not exist."""
        keys = self._positions(group)
        logits = torch.einsum("bsh,blh->bsl", self.to_query(hidden), keys) / math.sqrt(keys.shape[-1])
        return logits.masked_fill((self.multiplicity[group] == 0)[:, None, :], NEVER)
