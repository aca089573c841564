"""Graph auto-encoder with a neighbourhood decoder, and the classifier built on its encoder.

The encoder is a gated convolution of the CGCNN family. In pre-training every atom must describe, from its latent
alone, its own element, the shell of its bonds, and the set of its neighbours one layer earlier. Sets have no order:
the decoded set is matched to the true one by optimal transport, as in NWR-GAE (Tang, Yang & Li, ICLR 2022,
arXiv:2202.09025), which the superconductor classifier of InvDesFlow follows. The transport plan is that of the
entropic problem (Cuturi, NIPS 2013).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from onnes.errors import SettingsError
from onnes.graph.batch import BondBatch
from onnes.graph.settings import GraphSettings
from onnes.nets.elements import MAX_Z, standardised
from onnes.nets.graph_parts import ElementTable, Gaussians, weighted_mean

#: Answers of the classifier, in the order of its logits.
QUESTIONS = ("superconductor", "strong")


@dataclass(frozen=True)
class AutoencoderSettings:
    """Size of encoder, decoder and classifier, and the graphs they read.

    Attributes
    ----------
    graph : GraphSettings
        Without angles.
    embedding : int
        Learned numbers an element, beside its eight properties.
    width : int
        Numbers an atom in every layer.
    layers : int
    bond_bins : int
        Gaussians of the bond length, from 0.5 A to the cut-off.
    smoothing : float
        Weight of "no bond" in the means over bonds, per atom.
    latent : int
        Numbers of the crystal before the logits.
    dropout : float
        Of the classifier, in training only.
    samples : int
        Vectors in a decoded neighbourhood.
    noise : int
        Normal random numbers behind each of them.
    transport_steps : int
        Sinkhorn iterations.
    regularisation : float
        Entropic term, as a fraction of the mean cost.
    """

    graph: GraphSettings = field(
        default_factory=lambda: GraphSettings(kind="soft", neighbours=12, line=False)
    )
    embedding: int = 16
    width: int = 80
    layers: int = 3
    bond_bins: int = 32
    smoothing: float = 0.5
    latent: int = 64
    dropout: float = 0.25
    samples: int = 8
    noise: int = 16
    transport_steps: int = 15
    regularisation: float = 0.1

    def __post_init__(self) -> None:
        """Refuse what cannot be built."""
        for name in ("embedding", "width", "layers", "latent", "samples", "noise", "transport_steps"):
            if getattr(self, name) < 1:
                raise SettingsError("bad-setting", f"{name} = {getattr(self, name)}; use at least 1")
        if self.bond_bins < 2:
            raise SettingsError("bad-setting", f"bond_bins = {self.bond_bins}; use at least 2")
        if not 0.0 <= self.dropout < 1.0:
            raise SettingsError("bad-setting", f"dropout = {self.dropout}; use a value from 0 to below 1")
        for name in ("smoothing", "regularisation"):
            value = getattr(self, name)
            if not 0.0 < value <= 10.0:
                raise SettingsError("bad-setting", f"{name} = {value}; use a value above 0, at most 10")

    def as_dict(self) -> dict[str, Any]:
        """Return the settings as plain values, for the checkpoint."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> AutoencoderSettings:
        """Read settings back from a checkpoint.

        Raises
        ------
        SettingsError
            ``unknown-setting`` or ``bad-setting``.
        """
        rest = dict(values)
        unknown = sorted(set(rest) - set(cls.__dataclass_fields__))
        if unknown:
            raise SettingsError("unknown-setting", f"auto-encoder settings do not know {', '.join(unknown)}")
        if "graph" in rest:
            rest["graph"] = GraphSettings.from_dict(rest["graph"])
        return cls(**rest)


class Encoder(nn.Module):
    """Latents of the atoms, layer by layer, and of the crystal.

    Parameters
    ----------
    settings : AutoencoderSettings
    """

    def __init__(self, settings: AutoencoderSettings) -> None:
        super().__init__()
        s = self.settings = settings
        self.elements = ElementTable(standardised())
        self.embedding = nn.Embedding(MAX_Z + 1, s.embedding)
        low, high = 0.5, s.graph.cutoff_A
        spacing = (high - low) / (s.bond_bins - 1)
        self.basis = Gaussians(low, high, s.bond_bins, gamma=1.0 / spacing**2)
        self.first = nn.Linear(s.embedding + self.elements.values.shape[1], s.width)
        self.layers = nn.ModuleList(_Convolution(s) for _ in range(s.layers))

    def forward(self, batch: BondBatch, hidden: Tensor | None = None) -> list[Tensor]:
        """Latents of the nodes of the batch after 0, 1, ... layers, each of shape (n, width).

        Parameters
        ----------
        batch : BondBatch
        hidden : Tensor of bool, shape (n,), optional
            Nodes whose element is not shown (pre-training).

        Raises
        ------
        ModelError
            ``graph-settings`` or ``unknown-element``.
        """
        batch.require(self.settings.graph)
        # Row 0 of both tables belongs to no element: there it stands for "not shown".
        numbers = batch.numbers if hidden is None else batch.numbers.masked_fill(hidden, 0)
        h = self.first(torch.cat([self.elements(numbers), self.embedding(numbers)], dim=1))
        states, bonds = [h], self.basis(batch.distance)
        for layer in self.layers:
            h = layer(h, bonds, batch)
            states.append(h)
        return states

    def pooled(self, batch: BondBatch, states: list[Tensor]) -> Tensor:
        """Mean over the atoms of every crystal of all layers, shape (batch.size, (layers + 1) width)."""
        rows = torch.cat(states, dim=1)
        return weighted_mean(rows, batch.share, batch.crystal, batch.size, none=0.0)


class _Convolution(nn.Module):
    """``h_i + silu(norm(mean_j sigmoid(gate_ij) * silu(value_ij)))``, gate and value linear in (h_i, h_j, bond)."""

    def __init__(self, s: AutoencoderSettings) -> None:
        super().__init__()
        self.smoothing = s.smoothing
        # One matrix on (h_i, h_j, bond) is the sum of three; those of the atoms act before the bonds are listed.
        self.target = nn.Linear(s.width, 2 * s.width)
        self.source = nn.Linear(s.width, 2 * s.width, bias=False)
        self.bond = nn.Linear(s.bond_bins, 2 * s.width, bias=False)
        self.norm = nn.LayerNorm(s.width)

    def forward(self, h: Tensor, bonds: Tensor, batch: BondBatch) -> Tensor:
        mixed = self.target(h).index_select(0, batch.dst) + self.source(h).index_select(0, batch.src)
        gate, value = (mixed + self.bond(bonds)).chunk(2, dim=1)
        message = torch.sigmoid(gate) * nn.functional.silu(value)
        mean = weighted_mean(message, batch.weight, batch.dst, len(h), self.smoothing)
        return h + nn.functional.silu(self.norm(mean))


def sinkhorn(cost: Tensor, rows: Tensor, columns: Tensor, regularisation: float, steps: int) -> Tensor:
    """Return the plans of entropic optimal transport for a batch of costs.

    Parameters
    ----------
    cost : Tensor, shape (b, m, n)
        Not negative.
    rows : Tensor, shape (b, m)
        Masses, positive.
    columns : Tensor, shape (b, n)
        Masses with the same sum; a column of mass 0 is padding.
    regularisation : float
        Weight of the entropy, as a fraction of the mean cost of each problem.
    steps : int

    Returns
    -------
    Tensor, shape (b, m, n)
        Row sums are exact, column sums after convergence. No gradient: by the envelope theorem the
        derivative of the transport cost is that of ``(plan * cost).sum()`` at a fixed plan.
    """
    with torch.no_grad():
        mass = rows.sum(1)
        mean = (cost * rows[:, :, None] * columns[:, None, :]).sum((1, 2)) / mass.square()
        scaled = -cost / (regularisation * mean.clamp(min=1e-12))[:, None, None]
        # exp(-1e4) is 0 in single precision, and differences of such numbers are still exact enough.
        log_rows, log_columns = rows.log(), columns.clamp(min=1e-30).log()
        log_columns = torch.where(columns > 0, log_columns, torch.full_like(columns, -1e4))
        f = torch.zeros_like(rows)
        for _ in range(steps):
            g = log_columns - torch.logsumexp(scaled + f[:, :, None], dim=1)
            f = log_rows - torch.logsumexp(scaled + g[:, None, :], dim=2)
        return (scaled + f[:, :, None] + g[:, None, :]).exp()


@dataclass(frozen=True)
class Reconstruction:
    """Losses of pre-training, one number each.

    Attributes
    ----------
    element : Tensor
        Cross entropy of the own element.
    shell : Tensor
        Mean square error of mean, deviation and least of the bond lengths, in A^2.
    neighbours : Tensor
        Transport cost of the neighbour sets, mean over layers.
    """

    element: Tensor
    shell: Tensor
    neighbours: Tensor

    @property
    def total(self) -> Tensor:
        """The sum that is minimised."""
        return self.element + self.shell + self.neighbours


class Autoencoder(nn.Module):
    """Encoder and neighbourhood decoder.

    From the latent of an atom after layer t + 1 a normal distribution is read, ``samples`` vectors are drawn from it
    and mapped to guesses of (latent after layer t, bond length) of its neighbours. Layer 0 is compared as the eight
    element properties, which cannot collapse; later layers as their normalised latents, without gradient.

    Parameters
    ----------
    settings : AutoencoderSettings
    """

    def __init__(self, settings: AutoencoderSettings) -> None:
        super().__init__()
        s = self.settings = settings
        self.encoder = Encoder(s)
        self.element = nn.Linear(s.width, MAX_Z + 1)
        self.shell = nn.Linear(s.width, 3)
        properties = self.encoder.elements.values.shape[1]
        sizes = [properties] + [s.width] * (s.layers - 1)
        self.normal = nn.ModuleList(nn.Linear(s.width, 2 * s.noise) for _ in sizes)
        self.draw = nn.ModuleList(
            nn.Sequential(nn.Linear(s.noise, s.width), nn.SiLU(), nn.Linear(s.width, size + 1))
            for size in sizes
        )

    def forward(
        self, batch: BondBatch, hidden: Tensor | None = None, nodes: Tensor | None = None
    ) -> Reconstruction:
        """Reconstruction losses.

        Parameters
        ----------
        batch : BondBatch
        hidden : Tensor of bool, shape (n,), optional
            Nodes whose element is not shown; only these are asked for it (all nodes without).
        nodes : Tensor of int, optional
            Distinct nodes whose neighbourhood is decoded; all by default.
        """
        states = self.encoder(batch, hidden)
        last = states[-1]
        asked = slice(None) if hidden is None or not hidden.any() else hidden
        element = nn.functional.cross_entropy(self.element(last[asked]), batch.numbers[asked])
        shell = (self.shell(last) - _shell(batch)).square().mean()
        if nodes is None:
            nodes = torch.arange(len(last))
        return Reconstruction(element, shell, self._neighbours(batch, states, nodes))

    def _neighbours(self, batch: BondBatch, states: list[Tensor], nodes: Tensor) -> Tensor:
        bond, place, mass = _sets(batch, nodes)
        length = batch.distance[bond].unsqueeze(1)
        rows = mass.new_full((len(nodes), self.settings.samples), 1.0 / self.settings.samples)
        total = mass.new_zeros(())
        for t, (normal, draw) in enumerate(zip(self.normal, self.draw, strict=True)):
            state = states[t].detach()
            what = self.encoder.elements(batch.numbers) if t == 0 else _normalised(state)
            truth = torch.cat([what[batch.src[bond]], length], dim=1)
            padded = truth.new_zeros(*mass.shape, truth.shape[1])
            padded[place] = truth
            guess = draw(_samples(normal(states[t + 1][nodes]), self.settings.samples))
            # Bond lengths weigh as much as everything that says which atom it is.
            scale = truth.new_full((truth.shape[1],), 1.0 / what.shape[1])
            scale[-1] = 1.0
            cost = _square_distances(guess * scale.sqrt(), padded * scale.sqrt())
            plan = sinkhorn(cost, rows, mass, self.settings.regularisation, self.settings.transport_steps)
            total = total + (plan * cost).sum((1, 2)).mean()
        return total / len(self.draw)


class SuperconductorNet(nn.Module):
    """The encoder, pooled and read out as one logit for each of `QUESTIONS`.

    Parameters
    ----------
    settings : AutoencoderSettings
    """

    def __init__(self, settings: AutoencoderSettings) -> None:
        super().__init__()
        s = self.settings = settings
        self.encoder = Encoder(s)
        self.reduce = nn.Linear((s.layers + 1) * s.width, s.latent)
        self.dropout = nn.Dropout(s.dropout)
        self.out = nn.Linear(s.latent, len(QUESTIONS))

    def latent(self, batch: BondBatch) -> Tensor:
        """Latent of every crystal, shape (batch.size, latent)."""
        return nn.functional.silu(self.reduce(self.encoder.pooled(batch, self.encoder(batch))))

    def read(self, latent: Tensor) -> Tensor:
        """Logits of latents, shape (batch.size, 2)."""
        logits: Tensor = self.out(self.dropout(latent))
        return logits

    def forward(self, batch: BondBatch) -> Tensor:
        """Logits, shape (batch.size, 2), in the order of `QUESTIONS`.

        Raises
        ------
        ModelError
            ``graph-settings`` or ``unknown-element``.
        """
        return self.read(self.latent(batch))


def _shell(batch: BondBatch) -> Tensor:
    """Mean, deviation and least of the bond lengths at every node, shape (n, 3), in A."""
    n, d = len(batch.numbers), batch.distance.unsqueeze(1)
    mean = weighted_mean(d, batch.weight, batch.dst, n)
    spread = weighted_mean((d - mean[batch.dst]).square(), batch.weight, batch.dst, n).sqrt()
    least = d.new_full((n,), torch.inf).scatter_reduce(0, batch.dst, batch.distance, "amin")
    return torch.cat([mean, spread, torch.where(least.isfinite(), least, 0.0).unsqueeze(1)], dim=1)


def _sets(batch: BondBatch, nodes: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor], Tensor]:
    """Bonds that end at some nodes, their places in padded sets, and the masses there (rows sum to 1)."""
    row = torch.full((len(batch.numbers),), -1).index_put((nodes,), torch.arange(len(nodes)))
    bond = torch.nonzero(row[batch.dst] >= 0).squeeze(1)
    bond = bond[torch.argsort(row[batch.dst[bond]], stable=True)]
    at = row[batch.dst[bond]]
    count = torch.bincount(at, minlength=len(nodes))
    column = torch.arange(len(bond)) - (count.cumsum(0) - count)[at]
    mass = batch.weight.new_zeros(len(nodes), int(count.max()))
    mass[at, column] = batch.weight[bond]
    # A bond that has faded out entirely may leave a node with nothing: its set is then its first bond.
    mass[:, 0] += (mass.sum(1) == 0).to(mass.dtype)
    return bond, (at, column), mass / mass.sum(1, keepdim=True)


def _samples(parameters: Tensor, count: int) -> Tensor:
    """Draw from normal distributions, differentiable in mean and deviation: (k, 2 r) to (k, count, r)."""
    mean, log_deviation = parameters.unsqueeze(1).chunk(2, dim=2)
    noise = torch.randn(len(mean), count, mean.shape[2])
    return mean + log_deviation.clamp(-6.0, 3.0).exp() * noise


def _normalised(h: Tensor) -> Tensor:
    return nn.functional.layer_norm(h, h.shape[1:])


def _square_distances(a: Tensor, b: Tensor) -> Tensor:
    """Squared distances of sets, (k, m, f) and (k, n, f) to (k, m, n)."""
    product = a @ b.transpose(1, 2)
    square = a.square().sum(2).unsqueeze(2) + b.square().sum(2).unsqueeze(1)
    return (square - 2.0 * product).clamp(min=0.0)
