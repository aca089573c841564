"""ALIGNN in plain torch: Choudhary & DeCost, npj Comput. Mater. 7, 185 (2021).

Messages pass on the bond graph and on its line graph (bonds as nodes, angles as edges) in turn. Angles enter
through the cosine only, so the output does not depend on the orientation of the crystal. Graphs may be merged
(`onnes.graph.merge`): weights stand for the number of equal neighbours, and the output is that of the full graph.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onnes.errors import SettingsError
from onnes.graph.batch import BondBatch
from onnes.graph.settings import GraphSettings
from onnes.nets.elements import one_hot
from onnes.nets.graph_parts import ElementTable, Gaussians, total


@dataclass(frozen=True)
class AlignnSettings:
    """Size of the network and the graphs it reads. The defaults are those of the paper.

    Attributes
    ----------
    graph : GraphSettings
    alignn_layers, gcn_layers : int
        Layers with and without angles; the latter come last.
    hidden, embedding : int
        Width; width of the first layer of the bond and angle embeddings.
    bond_bins, angle_bins : int
        Gaussians for distance (0 to 8 A) and cosine.
    targets : int
        Outputs a crystal.
    norm : str
        ``"layer"`` (as the pure-torch reference; one crystal never influences another) or ``"batch"`` (as the
        code of 2021).
    smoothing : float
        Weight of "no neighbour" in the mean over neighbours. Large enough, it lets a message fade in with its
        weight instead of jumping to its full value with the first trace of a bond.
    """

    graph: GraphSettings = field(default_factory=GraphSettings)
    alignn_layers: int = 4
    gcn_layers: int = 4
    hidden: int = 256
    embedding: int = 64
    bond_bins: int = 80
    angle_bins: int = 40
    targets: int = 1
    norm: str = "layer"
    smoothing: float = 1e-6

    def __post_init__(self) -> None:
        """Refuse what cannot be built."""
        if self.norm not in ("layer", "batch"):
            raise SettingsError("bad-setting", f"unknown norm {self.norm!r}; use layer or batch")
        if not 0.0 < self.smoothing <= 10.0:
            raise SettingsError(
                "bad-setting", f"smoothing = {self.smoothing}; use a value above 0, at most 10"
            )
        if self.alignn_layers and not self.graph.line:
            raise SettingsError("bad-setting", "ALIGNN layers need graphs with angles (line = True)")
        for name in ("hidden", "embedding", "targets"):
            if getattr(self, name) < 1:
                raise SettingsError("bad-setting", f"{name} = {getattr(self, name)}; use at least 1")
        for name, least in (("bond_bins", 2), ("angle_bins", 2), ("alignn_layers", 0), ("gcn_layers", 0)):
            if getattr(self, name) < least:
                raise SettingsError("bad-setting", f"{name} = {getattr(self, name)}; use at least {least}")

    def as_dict(self) -> dict[str, Any]:
        """Return the settings as plain values, for the checkpoint."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> AlignnSettings:
        """Read settings back from a checkpoint.

        Raises
        ------
        SettingsError
        """
        rest = dict(values)
        graph = GraphSettings.from_dict(rest.pop("graph", {}))
        unknown = sorted(set(rest) - set(cls.__dataclass_fields__))
        if unknown:
            raise SettingsError("unknown-setting", f"ALIGNN settings do not know {', '.join(unknown)}")
        return cls(graph=graph, **rest)


#: Named sizes: ``paper`` is the published architecture; ``onnes`` is smaller and reads soft graphs.
PRESETS: dict[str, AlignnSettings] = {
    "paper": AlignnSettings(),
    "onnes": AlignnSettings(
        graph=GraphSettings(kind="soft", neighbours=12, line_neighbours=8),
        alignn_layers=2,
        gcn_layers=2,
        hidden=96,
        embedding=48,
        bond_bins=48,
        angle_bins=24,
        smoothing=0.5,
    ),
}


def preset(name: str) -> AlignnSettings:
    """Return settings by name.

    Raises
    ------
    SettingsError
        ``unknown-preset``.
    """
    if name not in PRESETS:
        raise SettingsError(
            "unknown-preset", f"unknown ALIGNN preset {name!r}; use one of {', '.join(PRESETS)}"
        )
    return PRESETS[name]


class Alignn(nn.Module):
    """Targets of a crystal from its atoms, bonds and bond angles.

    Parameters
    ----------
    settings : AlignnSettings
    elements : ndarray, shape (z, f), optional
        Features of element Z in row Z; default `onnes.nets.elements.one_hot`.
    """

    def __init__(self, settings: AlignnSettings, elements: np.ndarray | None = None) -> None:
        super().__init__()
        s = self.settings = settings
        table = one_hot() if elements is None else elements
        self.elements = ElementTable(table)
        self.atom = _Dense(table.shape[1], s.hidden, s.norm)
        self.bond = _embedding(Gaussians(0.0, 8.0, s.bond_bins), s.bond_bins, s)
        self.angle = _embedding(Gaussians(-1.0, 1.0, s.angle_bins), s.angle_bins, s)
        self.alignn = nn.ModuleList(
            _AlignnLayer(s.hidden, s.norm, s.smoothing) for _ in range(s.alignn_layers)
        )
        self.gcn = nn.ModuleList(EdgeGatedConv(s.hidden, s.norm, s.smoothing) for _ in range(s.gcn_layers))
        self.out = nn.Linear(s.hidden, s.targets)

    def forward(self, batch: BondBatch) -> Tensor:
        """Targets, shape (batch.size, targets).

        Raises
        ------
        ModelError
            ``graph-settings`` or ``unknown-element``.
        """
        return self.out(self.pool(self.atoms(batch), batch))

    def atoms(self, batch: BondBatch) -> Tensor:
        """Features of every node after the last layer, shape (n, hidden)."""
        batch.require(self.settings.graph)
        x = self.atom(self.elements(batch.numbers))
        y = self.bond(batch.distance)
        bonds = _Edges(batch.src, batch.dst, batch.weight)
        if len(self.alignn):
            z = self.angle(batch.cosine)
            angles = _Edges(batch.line_src, batch.line_dst, batch.line_weight)
            for k, layer in enumerate(self.alignn):
                x, y, z = layer(x, y, z, bonds, angles, last=k == len(self.alignn) - 1)
        for k, layer in enumerate(self.gcn):
            x, y = layer(x, y, bonds, last=k == len(self.gcn) - 1)
        return x

    def pool(self, x: Tensor, batch: BondBatch) -> Tensor:
        """Mean over the atoms of every crystal, shape (batch.size, hidden)."""
        return total(x * batch.share.unsqueeze(1), batch.crystal, batch.size) / batch.n_atoms.unsqueeze(1)


@dataclass(frozen=True)
class _Edges:
    """Edges of a graph: ends, and what each counts where it arrives."""

    src: Tensor
    dst: Tensor
    weight: Tensor


class EdgeGatedConv(nn.Module):
    """Edge-gated graph convolution with residual connections.

    With ``m = A x[src] + B x[dst] + C y`` and ``g = sigmoid(m)``, nodes become
    ``x + silu(norm(D x + sum(g * (E x)[src]) / (sum(g) + smoothing)))`` and edges ``y + silu(norm(m))``.

    Parameters
    ----------
    width : int
    norm : str
    smoothing : float
        See `AlignnSettings`.
    """

    def __init__(self, width: int, norm: str, smoothing: float) -> None:
        super().__init__()
        self.smoothing = smoothing
        self.gate_src = nn.Linear(width, width)
        self.gate_dst = nn.Linear(width, width)
        self.gate_edge = nn.Linear(width, width)
        self.own = nn.Linear(width, width)
        self.message = nn.Linear(width, width)
        self.norm_node = _norm(width, norm)
        self.norm_edge = _norm(width, norm)

    def forward(self, x: Tensor, y: Tensor, edges: _Edges, last: bool = False) -> tuple[Tensor, Tensor]:
        """New node and edge features; the edges are left as they are where nothing reads them (``last``)."""
        # For angles these are the largest tensors of the network: what autograd does not need is written in place.
        free = not torch.is_grad_enabled()
        m = self.gate_edge(y)
        m += self.gate_src(x).index_select(0, edges.src)
        m += self.gate_dst(x).index_select(0, edges.dst)
        message = self.message(x).index_select(0, edges.src)
        gate, weight = m.sigmoid(), edges.weight.unsqueeze(1)
        gate = gate.mul_(weight) if free else gate * weight
        message = message.mul_(gate) if free else message * gate
        mean = total(message, edges.dst, len(x)) / (total(gate, edges.dst, len(x)) + self.smoothing)
        x_new = F.silu(self.norm_node(self.own(x) + mean)).add_(x)
        return x_new, y if last else F.silu(self.norm_edge(m), inplace=free).add_(y)


class _AlignnLayer(nn.Module):
    """One convolution on the bond graph, then one on the line graph."""

    def __init__(self, width: int, norm: str, smoothing: float) -> None:
        super().__init__()
        self.on_bonds = EdgeGatedConv(width, norm, smoothing)
        self.on_angles = EdgeGatedConv(width, norm, smoothing)

    def forward(
        self, x: Tensor, y: Tensor, z: Tensor, bonds: _Edges, angles: _Edges, last: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        x, y = self.on_bonds(x, y, bonds)
        y, z = self.on_angles(y, z, angles, last=last)
        return x, y, z


class _Dense(nn.Sequential):
    """Linear, norm, SiLU."""

    def __init__(self, inputs: int, outputs: int, norm: str) -> None:
        super().__init__(nn.Linear(inputs, outputs), _norm(outputs, norm), nn.SiLU())


def _embedding(basis: Gaussians, bins: int, s: AlignnSettings) -> nn.Sequential:
    return nn.Sequential(basis, _Dense(bins, s.embedding, s.norm), _Dense(s.embedding, s.hidden, s.norm))


def _norm(width: int, kind: str) -> nn.Module:
    return nn.LayerNorm(width) if kind == "layer" else nn.BatchNorm1d(width)
