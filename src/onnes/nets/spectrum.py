"""An E(3)-equivariant network for alpha2F(omega): tensor-product message passing, pooled to a non-negative spectrum.

Atoms carry scalars, vectors and tensors (e3nn: Geiger and Smidt, arXiv:2207.09453); messages are tensor products of
a neighbour's features with spherical harmonics of the bond, weighted by a radial network, then gated. The network of
Gibson et al. (BETE-NET, arXiv:2401.16611) is the preset ``bete``.

Two ways to put out the spectrum: ``bins`` (the seed's: one non-negative number a bin, averaged over the atoms) and
``scaled``: lambda, a frequency scale s, and a distribution of lambda over ln(omega/s). There a crystal that is twice
as stiff differs in one number, so labels of lambda and omega_log alone teach s, and few curves teach the shape.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from onnes.errors import SettingsError
from onnes.graph.batch import BondBatch
from onnes.graph.settings import GraphSettings
from onnes.nets.elements import MAX_Z
from onnes.nets.graph_parts import total
from onnes.theory.spectral_grid import SpectralGrid

OUTPUTS = ("bins", "scaled")
GRIDS = {"quadratic": SpectralGrid.quadratic, "linear": SpectralGrid.linear}
#: Knots of the shape in ln(omega/s) of the ``scaled`` output.
KNOTS, LOWEST, HIGHEST = 28, -2.6, 1.6
#: Cells of the phonon spectrum of an atom: roots of meV, equally spaced.
PHONON_EDGES_MEV = np.linspace(0.0, np.sqrt(260.0), 41) ** 2
#: Least site spectrum in logarithms: a mode is never impossible, only unlikely.
LEAST = 1e-3


@dataclass(frozen=True)
class SpectrumSettings:
    """Size and inputs of the network.

    Attributes
    ----------
    graph : GraphSettings
        A full graph (``merge_A = 0``, no line graph).
    grid : str
        A key of `GRIDS`.
    output : str
        One of `OUTPUTS`.
    embed, multiplicity, layers, lmax : int
        Width of the node input; copies of each irreducible representation; message passings; highest degree.
    parity : bool
        Both parities of every degree, or the natural one only.
    radial, neurons : int
        Radial functions; width of the radial network.
    features : int
        Scalars a potential gives for each atom; 0 without.
    phonons : bool
        Whether the atoms' vibrational spectra are inputs (the variants CPD and FPD).
    sources : int
        Conventions of labels; given as input to the readout.
    readout : int
        Width of the readout of ``scaled``.
    dropout : float
        Of the readout and the features, in training.
    """

    graph: GraphSettings = field(
        default_factory=lambda: GraphSettings(kind="soft", neighbours=14, line=False, merge_A=0.0)
    )
    grid: str = "quadratic"
    output: str = "scaled"
    embed: int = 64
    multiplicity: int = 24
    layers: int = 2
    lmax: int = 2
    parity: bool = False
    radial: int = 10
    neurons: int = 64
    features: int = 0
    phonons: bool = False
    sources: int = 2
    readout: int = 128
    dropout: float = 0.1

    def __post_init__(self) -> None:
        if self.output not in OUTPUTS or self.grid not in GRIDS:
            raise SettingsError(
                "bad-setting", f"output is one of {', '.join(OUTPUTS)} and grid one of {', '.join(GRIDS)}"
            )
        if self.graph.merge_A or self.graph.line:
            raise SettingsError("bad-setting", "the spectral network needs a full graph without angles")
        for name, least in (("embed", 1), ("multiplicity", 1), ("layers", 1), ("lmax", 0), ("radial", 2)):
            if getattr(self, name) < least:
                raise SettingsError("bad-setting", f"{name} = {getattr(self, name)}; use at least {least}")

    def as_dict(self) -> dict[str, Any]:
        """Return the settings as plain values, for the checkpoint."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SpectrumSettings:
        """Read settings back from a checkpoint.

        Raises
        ------
        SettingsError
            ``unknown-setting``.
        """
        rest = dict(values)
        unknown = sorted(set(rest) - set(cls.__dataclass_fields__))
        if unknown:
            raise SettingsError(
                "unknown-setting", f"settings of the spectral network do not know {', '.join(unknown)}"
            )
        if "graph" in rest:
            rest["graph"] = GraphSettings.from_dict(rest["graph"])
        return cls(**rest)


def bete(**changes: Any) -> SpectrumSettings:
    """The published sizes: 4 angstrom, 64 features, multiplicity 32, 2 layers, 10 radial functions, 100 neurons."""
    graph = GraphSettings(kind="radius", cutoff_A=4.0, line=False, merge_A=0.0)
    published: dict[str, Any] = {
        "graph": graph,
        "grid": "linear",
        "output": "bins",
        "multiplicity": 32,
        "parity": True,
        "neurons": 100,
        "dropout": 0.0,
    }
    return SpectrumSettings(**{**published, **changes})


class SpectrumOutput(NamedTuple):
    """What the network says of B crystals on a grid of K points.

    Attributes
    ----------
    log_lambda : Tensor, shape (B,)
    shares : Tensor, shape (B, K)
        Shares of lambda at the points; rows sum to 1.
    phonons : Tensor, shape (B, P), or None
        Shares of the vibrational modes in the cells of `PHONON_EDGES_MEV` (``scaled`` only): learned beside.
    """

    log_lambda: Tensor
    shares: Tensor
    phonons: Tensor | None


class SpectrumNet(nn.Module):
    """Spectral network.

    Parameters
    ----------
    settings : SpectrumSettings
    """

    mass: Tensor
    feature_mean: Tensor
    feature_std: Tensor
    coupling: Tensor
    log_omega: Tensor
    square_omega: Tensor

    def __init__(self, settings: SpectrumSettings) -> None:
        super().__init__()
        from ase.data import atomic_masses

        s = self.settings = settings
        grid = GRIDS[s.grid]()
        for name in ("coupling", "log_omega", "square_omega"):
            self.register_buffer(name, torch.tensor(getattr(grid, name)).float(), persistent=False)
        masses = torch.tensor(np.nan_to_num(atomic_masses[: MAX_Z + 1], nan=0.0)).float()
        self.register_buffer("mass", masses, persistent=False)
        self.register_buffer("feature_mean", torch.zeros(s.features))
        self.register_buffer("feature_std", torch.ones(s.features))
        cells = len(PHONON_EDGES_MEV) - 1
        self.element = nn.Embedding(MAX_Z + 1, s.embed)
        self.by_mass = nn.Embedding(MAX_Z + 1, s.embed)
        extra = s.features + (cells if s.phonons else 0)
        #: What the atoms bring along feeds the messages and, past them, the readout.
        self.inputs = (
            nn.Sequential(
                nn.Linear(extra, s.readout),
                nn.SiLU(),
                nn.Dropout(s.dropout),
                nn.Linear(s.readout, s.readout),
                nn.SiLU(),
            )
            if extra
            else None
        )
        self.to_messages = nn.Linear(s.readout, s.embed) if extra else None
        self.body = _Body(s)
        self.read: _Bins | _Scaled = _Bins(s, grid) if s.output == "bins" else _Scaled(s, grid)

    def forward(
        self,
        batch: BondBatch,
        source: Tensor,
        features: Tensor | None = None,
        phonons: Tensor | None = None,
    ) -> SpectrumOutput:
        """Spectra of a batch.

        Parameters
        ----------
        batch : BondBatch
        source : Tensor of int, shape (B,)
        features : Tensor, shape (n, features)
            Of the atoms, from a potential.
        phonons : Tensor, shape (n, P)
            Shares of each atom's modes in the cells of `PHONON_EDGES_MEV`; rows sum to 1.

        Raises
        ------
        ModelError
            ``graph-settings``.
        SettingsError
            ``missing-input``.
        """
        s = self.settings
        batch.require(s.graph)
        z = batch.numbers
        h = self.element(z) + self.by_mass(z) * (self.mass[z] / 100.0).unsqueeze(1)
        parts = []
        if s.features:
            parts.append((_given(features, "features") - self.feature_mean) / self.feature_std)
        if s.phonons:
            parts.append(10.0 * _given(phonons, "phonons"))
        brought = None
        if self.inputs is not None and self.to_messages is not None:
            brought = self.inputs(torch.cat(parts, dim=1))
            h = h + self.to_messages(brought)
        scalars = self.body(h, batch)
        if brought is not None and s.output == "scaled":
            scalars = torch.cat([scalars, brought], dim=1)
        out: SpectrumOutput = self.read(scalars, batch, source, phonons if s.phonons else None)
        return out

    def moments(self, out: SpectrumOutput) -> tuple[Tensor, Tensor, Tensor]:
        """Ln lambda, ln(omega_log/meV) and ln(omega_2/meV), shape (B,) each."""
        log = out.shares @ self.log_omega
        return out.log_lambda, log, (out.shares @ self.square_omega).log() / 2.0

    def values(self, out: SpectrumOutput) -> Tensor:
        """alpha2F at the points of the grid, shape (B, K)."""
        return out.log_lambda.exp().unsqueeze(1) * out.shares / self.coupling


def _given(value: Tensor | None, name: str) -> Tensor:
    if value is None:
        raise SettingsError("missing-input", f"this spectral network was trained with {name}; give them")
    return value


class _Body(nn.Module):
    """Message passing; returns invariants of each atom."""

    def __init__(self, s: SpectrumSettings) -> None:
        super().__init__()
        from e3nn import o3

        self.harmonics = o3.Irreps.spherical_harmonics(s.lmax)
        m = s.multiplicity
        parities = (1, -1)
        hidden = o3.Irreps(
            [
                (m, (degree, p))
                for degree in range(s.lmax + 1)
                for p in parities
                if s.parity or p == (-1) ** degree
            ]
        )
        self.cutoff, self.radial = s.graph.cutoff_A, s.radial
        self.scale = float(s.graph.neighbours) ** 0.5
        irreps = o3.Irreps(f"{s.embed}x0e")
        layers = []
        for _ in range(s.layers):
            layer = _Layer(irreps, hidden, self.harmonics, s)
            layers.append(layer)
            irreps = layer.irreps_out
        self.layers = nn.ModuleList(layers)
        self.last = _Convolution(irreps, o3.Irreps(f"{s.embed}x0e"), self.harmonics, s)

    def forward(self, h: Tensor, batch: BondBatch) -> Tensor:
        from e3nn import o3
        from e3nn.math import soft_one_hot_linspace

        # e3nn's axes are y, z, x; a fixed permutation of coordinates is a rotation and changes nothing.
        sh = o3.spherical_harmonics(self.harmonics, batch.vector, normalize=True, normalization="component")
        radial = soft_one_hot_linspace(
            batch.distance, 0.0, self.cutoff, self.radial, basis="gaussian", cutoff=False
        ) * (self.radial**0.5)
        bonds = (batch.src, batch.dst, sh, radial, batch.weight.unsqueeze(1) / self.scale)
        for layer in self.layers:
            h = layer(h, bonds)
        out: Tensor = self.last(h, bonds)
        return out


class _Layer(nn.Module):
    """Convolution and gate."""

    def __init__(self, irreps: Any, hidden: Any, harmonics: Any, s: SpectrumSettings) -> None:
        super().__init__()
        from e3nn import o3
        from e3nn.nn import Gate

        reachable = {ir for _, a in irreps for _, b in harmonics for ir in a * b}
        scalars = o3.Irreps([(n, ir) for n, ir in hidden if ir.l == 0 and ir in reachable])
        gated = o3.Irreps([(n, ir) for n, ir in hidden if ir.l > 0 and ir in reachable])
        gates = o3.Irreps([(n, "0e") for n, _ in gated])
        # Odd scalars need an odd activation.
        acts = [torch.nn.functional.silu if ir.p == 1 else torch.tanh for _, ir in scalars]
        self.gate = Gate(scalars, acts, gates, [torch.sigmoid] * len(gates), gated)
        self.convolution = _Convolution(irreps, self.gate.irreps_in, harmonics, s)
        self.irreps_out = self.gate.irreps_out

    def forward(self, h: Tensor, bonds: tuple[Tensor, ...]) -> Tensor:
        out: Tensor = self.gate(self.convolution(h, bonds))
        return out


class _Convolution(nn.Module):
    """Tensor product of neighbours' features with spherical harmonics, weights from the bond length."""

    def __init__(self, irreps: Any, irreps_out: Any, harmonics: Any, s: SpectrumSettings) -> None:
        super().__init__()
        from e3nn import o3
        from e3nn.nn import FullyConnectedNet

        wanted = {ir for _, ir in irreps_out}
        found: list[Any] = []
        paths = []
        for i, (n, a) in enumerate(irreps):
            for j, (_, b) in enumerate(harmonics):
                for ir in a * b:
                    if ir in wanted:
                        paths.append((i, j, len(found)))
                        found.append((n, ir))
        middle, order, _ = o3.Irreps(found).sort()
        instructions = [(i, j, order[k], "uvu", True) for i, j, k in paths]
        self.first = o3.Linear(irreps, irreps)
        self.product = o3.TensorProduct(
            irreps, harmonics, middle, instructions, shared_weights=False, internal_weights=False
        )
        self.weights = FullyConnectedNet(
            [s.radial, s.neurons, self.product.weight_numel], torch.nn.functional.silu
        )
        self.second = o3.Linear(middle, irreps_out)
        self.itself = o3.Linear(irreps, irreps_out)

    def forward(self, h: Tensor, bonds: tuple[Tensor, ...]) -> Tensor:
        src, dst, sh, radial, weight = bonds
        message = self.product(self.first(h)[src], sh, self.weights(radial) * weight)
        gathered = total(message, dst, len(h))
        out: Tensor = self.itself(h) + self.second(gathered)
        return out


class _Bins(nn.Module):
    """One non-negative value a bin, the mean over the atoms."""

    coupling: Tensor

    def __init__(self, s: SpectrumSettings, grid: SpectralGrid) -> None:
        super().__init__()
        self.register_buffer("coupling", torch.tensor(grid.coupling).float(), persistent=False)
        self.out = nn.Sequential(nn.LayerNorm(s.embed), nn.Linear(s.embed, len(grid.omega_meV)))
        # Sums over many messages are large: curves that begin far too high are pushed to zero, and stay there.
        nn.init.normal_(self.out[1].weight, std=0.01)  # type: ignore[arg-type]
        nn.init.zeros_(self.out[1].bias)  # type: ignore[arg-type]
        self.source = nn.Embedding(s.sources, s.embed)

    def forward(self, x: Tensor, batch: BondBatch, source: Tensor, phonons: Tensor | None) -> SpectrumOutput:
        x = x + self.source(source).index_select(0, batch.crystal)
        n = batch.n_atoms.unsqueeze(1)
        v = nn.functional.softplus(total(self.out(x), batch.crystal, batch.size) / n, beta=5.0)
        parts = v * self.coupling
        lam = parts.sum(1, keepdim=True).clamp(min=1e-6)
        return SpectrumOutput(lam.squeeze(1).log(), parts / lam, None)


class _Scaled(nn.Module):
    """lambda, a frequency scale, and the distribution of lambda over ln(omega/scale)."""

    place: Tensor
    log_coupling: Tensor
    phonon_place: Tensor
    phonon_width: Tensor
    to_grid: Tensor

    def __init__(self, s: SpectrumSettings, grid: SpectralGrid) -> None:
        super().__init__()
        middle = (PHONON_EDGES_MEV[1:] + PHONON_EDGES_MEV[:-1]) / 2.0
        for name, value in (
            ("place", grid.log_omega),
            # A flat shape is a flat density in ln omega: points that stand for more of it get more.
            ("log_coupling", np.log(np.gradient(grid.log_omega))),
            ("phonon_place", np.log(middle)),
        ):
            self.register_buffer(name, torch.tensor(value).float(), persistent=False)
        between = np.stack([np.interp(grid.omega_meV, middle, row) for row in np.eye(len(middle))], axis=0)
        self.register_buffer("to_grid", torch.tensor(between).float(), persistent=False)
        self.register_buffer(
            "phonon_width", torch.tensor(np.diff(PHONON_EDGES_MEV)).float(), persistent=False
        )
        brought = s.readout if s.features or s.phonons else 0
        self.atom = nn.Sequential(nn.Linear(s.embed + brought, s.readout), nn.SiLU(), nn.Dropout(s.dropout))
        self.score = nn.Linear(s.readout, 2)
        self.source = nn.Embedding(s.sources, 8)
        self.mix = nn.Sequential(
            nn.Linear(4 * s.readout + 9, s.readout),
            nn.SiLU(),
            nn.Dropout(s.dropout),
            nn.Linear(s.readout, s.readout),
            nn.SiLU(),
        )
        self.scalars = nn.Linear(s.readout, 3)
        self.shape = nn.Linear(s.readout, KNOTS)
        self.phonon_shape = nn.Linear(s.readout, KNOTS)
        if s.phonons:
            self.site = nn.Linear(s.readout, 1)
            #: Weights of the vibrations in the shape, the scale and ln lambda; the last two begin at nothing.
            self.gain = nn.Parameter(torch.tensor([0.3, 0.0, 0.0]))
        nn.init.normal_(self.scalars.weight, std=0.01)
        nn.init.zeros_(self.scalars.bias)
        for layer in (self.shape, self.phonon_shape):
            nn.init.zeros_(layer.weight)
            with torch.no_grad():
                layer.bias.copy_(-2.0 * torch.linspace(LOWEST, HIGHEST, KNOTS).square())
        self.start = nn.Parameter(torch.tensor([-1.1, 2.9, 3.0]))

    def forward(self, x: Tensor, batch: BondBatch, source: Tensor, phonons: Tensor | None) -> SpectrumOutput:
        a = self.atom(x)
        at, size, n = batch.crystal, batch.size, batch.n_atoms.unsqueeze(1)
        mean = total(a, at, size) / n
        off = a - mean.index_select(0, at)
        deviation = (total(off.square(), at, size) / n + 1e-6).sqrt()
        attention = (5.0 * torch.tanh(self.score(a) / 5.0)).exp()
        attention = attention / total(attention, at, size).index_select(0, at)
        heads = total((attention.unsqueeze(2) * a.unsqueeze(1)).flatten(1), at, size)
        c = self.mix(torch.cat([mean, deviation, heads, self._volume(batch), self.source(source)], dim=1))
        log_lambda, centre, phonon_centre = (self.scalars(c) + self.start).unbind(1)
        modes = _interpolate(self.phonon_shape(c), self.phonon_place - phonon_centre.unsqueeze(1))
        modes = (modes + (self.phonon_width / self.phonon_place.exp()).log()).softmax(1)
        if phonons is not None:
            # Vibrations stiffer than the structure made the network expect: alpha2F moves up with them, and
            # lambda, which goes as omega^-2 for the same electrons, goes down.
            seen = total(phonons, at, size) / n
            stiffer = (seen - modes) @ self.phonon_place
            centre = centre + self.gain[1] * stiffer
            log_lambda = log_lambda - self.gain[2] * stiffer
        logits = _interpolate(self.shape(c), self.place - centre.unsqueeze(1)) + self.log_coupling
        if phonons is not None:
            share = phonons * nn.functional.softplus(self.site(a))
            density = total(share, at, size) / n / self.phonon_width
            at_grid = (density @ self.to_grid) * self.place.exp()
            logits = logits + self.gain[0] * (at_grid + LEAST).log()
        return SpectrumOutput(log_lambda, logits.softmax(1), modes)

    def _volume(self, batch: BondBatch) -> Tensor:
        """Logarithm of the mean bond length of each crystal, a stand-in for the volume, shape (B, 1)."""
        weight = batch.bond_share
        length = total((weight * batch.distance.log()).unsqueeze(1), batch.bond_crystal, batch.size)
        count = total(weight.unsqueeze(1), batch.bond_crystal, batch.size)
        return 3.0 * (length / count - 1.0)


def _interpolate(values: Tensor, x: Tensor) -> Tensor:
    """Linear interpolation of values (B, KNOTS) at x (B, K); a steep parabola falls off beyond the knots."""
    step = (HIGHEST - LOWEST) / (KNOTS - 1)
    place = (x.clamp(LOWEST, HIGHEST) - LOWEST) / step
    below = place.floor().clamp(max=KNOTS - 2)
    part = place - below
    index = below.long()
    inside = values.gather(1, index) * (1.0 - part) + values.gather(1, index + 1) * part
    beyond = x - x.clamp(LOWEST, HIGHEST)
    return inside - 20.0 * beyond.square()
