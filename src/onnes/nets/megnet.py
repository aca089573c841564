"""MEGNet-like network: Chen et al., Chem. Mater. 31, 3564 (2019), with element properties at the atoms.

Bonds, atoms and one global state are updated in turn, each from the others: first every bond from its two atoms
and the state, then every atom from the mean of its bonds, then the state from the means of all bonds and atoms.
Set2Set (Vinyals et al. 2016) reads the crystal out. The eight properties of `onnes.nets.elements` stand beside a
learned embedding of the element, as in the formation-energy model of InvDesFlow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from onnes.errors import SettingsError
from onnes.graph.batch import BondBatch
from onnes.graph.settings import GraphSettings
from onnes.nets.elements import MAX_Z, standardised
from onnes.nets.graph_parts import ElementTable, Gaussians, weighted_mean


@dataclass(frozen=True)
class MegnetSettings:
    """Size of the network and the graphs it reads. The defaults are those of the 2019 paper.

    Attributes
    ----------
    graph : GraphSettings
        Without angles.
    properties : bool
        Whether atoms carry the eight element properties.
    embedding : int
        Learned numbers an element.
    wide, narrow : int
        Hidden and output width of every small network.
    blocks : int
    bond_bins : int
        Gaussians from 0 to the cut-off + 1 A, 0.5 A wide.
    readout_steps : int
        Steps of Set2Set.
    targets : int
    smoothing : float
        Weight of "no bond" in the means over bonds, per atom.
    """

    graph: GraphSettings = field(
        default_factory=lambda: GraphSettings(kind="radius", cutoff_A=5.0, line=False)
    )
    properties: bool = False
    embedding: int = 16
    wide: int = 64
    narrow: int = 32
    blocks: int = 3
    bond_bins: int = 100
    readout_steps: int = 3
    targets: int = 1
    smoothing: float = 1e-6

    def __post_init__(self) -> None:
        """Refuse what cannot be built."""
        for name in ("embedding", "wide", "narrow", "blocks", "readout_steps", "targets"):
            if getattr(self, name) < 1:
                raise SettingsError("bad-setting", f"{name} = {getattr(self, name)}; use at least 1")
        if not 0.0 < self.smoothing <= 10.0:
            raise SettingsError(
                "bad-setting", f"smoothing = {self.smoothing}; use a value above 0, at most 10"
            )
        if self.bond_bins < 2:
            raise SettingsError("bad-setting", f"bond_bins = {self.bond_bins}; use at least 2")

    def as_dict(self) -> dict[str, Any]:
        """Return the settings as plain values, for the checkpoint."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> MegnetSettings:
        """Read settings back from a checkpoint.

        Raises
        ------
        SettingsError
        """
        rest = dict(values)
        unknown = sorted(set(rest) - set(cls.__dataclass_fields__))
        if unknown:
            raise SettingsError("unknown-setting", f"MEGNet settings do not know {', '.join(unknown)}")
        if "graph" in rest:
            rest["graph"] = GraphSettings.from_dict(rest["graph"])
        return cls(**rest)


#: ``paper``: 2019. ``invdesflow``: 8 A and the eight properties. ``onnes``: the same on soft graphs, which bond
#: every atom whatever its size.
PRESETS: dict[str, MegnetSettings] = {
    "paper": MegnetSettings(),
    "invdesflow": MegnetSettings(
        graph=GraphSettings(kind="radius", cutoff_A=8.0, line=False), properties=True
    ),
    "onnes": MegnetSettings(
        graph=GraphSettings(kind="soft", neighbours=16, line=False),
        properties=True,
        wide=128,
        narrow=64,
        smoothing=0.5,
    ),
}


def preset(name: str) -> MegnetSettings:
    """Return settings by name.

    Raises
    ------
    SettingsError
        ``unknown-preset``.
    """
    if name not in PRESETS:
        raise SettingsError(
            "unknown-preset", f"unknown MEGNet preset {name!r}; use one of {', '.join(PRESETS)}"
        )
    return PRESETS[name]


class Megnet(nn.Module):
    """Targets of a crystal from its atoms and bond lengths.

    Parameters
    ----------
    settings : MegnetSettings
    """

    def __init__(self, settings: MegnetSettings) -> None:
        super().__init__()
        s = self.settings = settings
        table = standardised()
        self.elements = ElementTable(table)
        self.embedding = nn.Embedding(MAX_Z + 1, s.embedding)
        inputs = s.embedding + (table.shape[1] if s.properties else 0)
        self.basis = Gaussians(0.0, s.graph.cutoff_A + 1.0, s.bond_bins, gamma=1.0 / 0.5**2)
        self.atom = _mlp(inputs, s.wide, s.narrow)
        self.bond = _mlp(s.bond_bins, s.wide, s.narrow)
        self.state = nn.Parameter(torch.zeros(s.narrow))
        self.blocks = nn.ModuleList(_Block(s, first=k == 0) for k in range(s.blocks))
        self.read_atoms = Set2Set(s.narrow, s.readout_steps)
        self.read_bonds = Set2Set(s.narrow, s.readout_steps)
        self.out = nn.Sequential(
            nn.Linear(5 * s.narrow, s.narrow),
            _Softplus(),
            nn.Linear(s.narrow, s.narrow // 2 + 1),
            _Softplus(),
            nn.Linear(s.narrow // 2 + 1, s.targets),
        )

    def forward(self, batch: BondBatch) -> Tensor:
        """Targets, shape (batch.size, targets).

        Raises
        ------
        ModelError
            ``graph-settings`` or ``unknown-element``.
        """
        batch.require(self.settings.graph)
        properties = self.elements(batch.numbers)  # also refuses elements without features
        v = self.embedding(batch.numbers)
        if self.settings.properties:
            v = torch.cat([v, properties], dim=1)
        v, e = self.atom(v), self.bond(self.basis(batch.distance))
        u = self.state.expand(batch.size, -1)
        for block in self.blocks:
            v, e, u = block(v, e, u, batch)
        atoms = self.read_atoms(v, batch.share, batch.crystal, batch.size)
        bonds = self.read_bonds(e, batch.bond_share, batch.bond_crystal, batch.size)
        return self.out(torch.cat([atoms, bonds, u], dim=1))


class _Block(nn.Module):
    """One update of bonds, atoms and state, each with a residual connection."""

    def __init__(self, s: MegnetSettings, first: bool) -> None:
        super().__init__()
        k = s.narrow
        self.smoothing = s.smoothing
        # The embeddings have just been through a network of their own; later blocks prepare their input first.
        self.prepare = nn.ModuleList(nn.Identity() if first else _mlp(k, s.wide, k) for _ in range(3))
        self.on_bonds = _mlp(4 * k, s.wide, k, s.wide)
        self.on_atoms = _mlp(3 * k, s.wide, k, s.wide)
        self.on_state = _mlp(3 * k, s.wide, k, s.wide)

    def forward(self, v0: Tensor, e0: Tensor, u0: Tensor, batch: BondBatch) -> tuple[Tensor, Tensor, Tensor]:
        v, e, u = (f(x) for f, x in zip(self.prepare, (v0, e0, u0), strict=True))
        ends = v.index_select(0, batch.src), v.index_select(0, batch.dst)
        e = self.on_bonds(torch.cat([*ends, e, u.index_select(0, batch.bond_crystal)], dim=1))
        bonds_of_atom = weighted_mean(e, batch.weight, batch.dst, len(v), self.smoothing)
        v = self.on_atoms(torch.cat([v, bonds_of_atom, u[batch.crystal]], dim=1))
        # Per atom, so that a supercell has the same mean.
        none = self.smoothing * batch.n_atoms
        bonds_of_crystal = weighted_mean(e, batch.bond_share, batch.bond_crystal, batch.size, none)
        atoms_of_crystal = weighted_mean(v, batch.share, batch.crystal, batch.size, none=0.0)
        u = self.on_state(torch.cat([u, bonds_of_crystal, atoms_of_crystal], dim=1))
        return v0 + v, e0 + e, u0 + u


class Set2Set(nn.Module):
    """Read a weighted set: an LSTM asks, attention answers, a few times.

    Parameters
    ----------
    width : int
    steps : int
    """

    def __init__(self, width: int, steps: int) -> None:
        super().__init__()
        self.steps = steps
        self.cell = nn.LSTMCell(2 * width, width)

    def forward(self, rows: Tensor, share: Tensor, at: Tensor, size: int) -> Tensor:
        """Summary of the rows of every place, shape (size, 2 width).

        Parameters
        ----------
        rows : Tensor, shape (n, width)
        share : Tensor, shape (n,)
            How many equal members of the set a row stands for (a fraction where it fades out).
        at : Tensor of int, shape (n,)
        size : int
        """
        width = rows.shape[1]
        answer = rows.new_zeros(size, 2 * width)
        state = (rows.new_zeros(size, width), rows.new_zeros(size, width))
        for _ in range(self.steps):
            state = self.cell(answer, state)
            score = (rows * state[0][at]).sum(1)
            # Subtracting the largest score changes nothing but keeps the exponentials finite.
            top = score.new_full((size,), -torch.inf).scatter_reduce(0, at, score.detach(), "amax")
            attention = torch.exp(score - top[at]) * share
            answer = torch.cat([state[0], weighted_mean(rows, attention, at, size, none=1e-12)], dim=1)
        return answer


class _Softplus(nn.Module):
    """``ln((1 + exp(x)) / 2)``: 0 at 0, as in MEGNet."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.softplus(x) - 0.6931471805599453


def _mlp(inputs: int, wide: int, outputs: int, between: int | None = None) -> nn.Sequential:
    """Two layers, or three with ``between``, an activation after each."""
    sizes = [inputs, wide, *([between] if between else []), outputs]
    layers: list[nn.Module] = []
    for a, b in pairwise(sizes):
        layers += [nn.Linear(a, b), _Softplus()]
    return nn.Sequential(*layers)
