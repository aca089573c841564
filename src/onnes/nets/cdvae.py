"""Crystal diffusion variational autoencoder (Xie et al., ICLR 2022, arXiv:2110.06197) on the shared periodic network.

Three parts, as published: an encoder of the clean crystal to a Gaussian over a latent vector z; heads that read
from z the number of atoms, the lattice, the composition and properties; a noise-conditional score decoder over
coordinates and atom types given z. What differs: encoder and decoder are stacks of `onnes.nets.denoiser.Layer` (all
pairs of atoms, periodic sums over images) instead of DimeNet++ and GemNet, about a hundred times cheaper on a
CPU; the lattice is the logarithm of the symmetric stretch instead of lengths and angles; and the decoder also
estimates the clean lattice, because a lattice read from z alone is not quite symmetric.

Symmetries: z and the heads are invariant under permutation of atoms, shift of the origin, lattice translations and
rotation; the decoder's types and scores are permuted with the atoms and invariant under the rest. z does depend
on the choice of cell, so crystals are brought to their Niggli-reduced primitive cell first.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from onnes.nets.denoiser import MAX_Z, DenoiserSettings, Layer, PairFeatures, sinusoidal

#: The variance of the posterior is kept between exp(-LOG_VAR) and exp(LOG_VAR).
LOG_VAR = 10.0
#: Minus the logarithm of the variance that training starts from.
FIRST_LOG_VAR = 4.0


@dataclass(frozen=True)
class CdvaeSettings:
    """Size of the autoencoder.

    Attributes
    ----------
    hidden : int
        Width of node features.
    encoder_layers, decoder_layers : int
        Rounds of messages.
    latent : int
        Length of z.
    fourier, radial : int
        Frequencies of fractional differences; radial functions on 0.4 .. ``cutoff`` angstrom.
    cutoff : float
    max_atoms : int
        Largest number of atoms in a cell.
    head_hidden, head_layers : int
        Width and hidden layers of the heads.
    """

    hidden: int = 192
    encoder_layers: int = 4
    decoder_layers: int = 6
    latent: int = 128
    fourier: int = 10
    radial: int = 16
    cutoff: float = 6.0
    max_atoms: int = 20
    head_hidden: int = 192
    head_layers: int = 1

    def as_dict(self) -> dict[str, float | int]:
        """Return the settings as plain numbers, for the checkpoint."""
        return asdict(self)

    @property
    def trunk(self) -> DenoiserSettings:
        """Settings of the shared parts."""
        return DenoiserSettings(
            hidden=self.hidden,
            layers=self.decoder_layers,
            fourier=self.fourier,
            radial=self.radial,
            cutoff=self.cutoff,
            max_atoms=self.max_atoms,
        )


#: Width and latent length of the published model, for a GPU.
PUBLISHED_SIZE = CdvaeSettings(hidden=256, encoder_layers=4, decoder_layers=6, latent=256)


@dataclass
class Read:
    """What the heads read from z.

    Attributes
    ----------
    count_logits : Tensor, shape (B, max_atoms + 1)
        Unnormalised log probabilities of the number of atoms; index 0 is never trained.
    lattice : Tensor, shape (B, 6)
        Standardised lattice vector.
    composition_logits : Tensor, shape (B, MAX_Z + 1)
        Unnormalised log fractions of the elements (index = atomic number).
    log_tc : Tensor, shape (B,)
        log10 of Tc in kelvin.
    e_form : Tensor, shape (B,)
        Formation energy, eV/atom.
    stable_logits : Tensor, shape (B, 2)
        Dynamically stable, unstable.
    """

    count_logits: Tensor
    lattice: Tensor
    composition_logits: Tensor
    log_tc: Tensor
    e_form: Tensor
    stable_logits: Tensor


@dataclass
class Decoded:
    """What the decoder says about a noisy crystal.

    Attributes
    ----------
    type_logits : Tensor, shape (B, N, MAX_Z + 1)
    score : Tensor, shape (B, N, 3)
        Coordinate score divided by the root of its mean square at this noise level.
    lattice : Tensor, shape (B, 6)
        Estimate of the clean standardised lattice vector.
    """

    type_logits: Tensor
    score: Tensor
    lattice: Tensor


def one_hot(types: Tensor) -> Tensor:
    """Types (B, N) as (B, N, MAX_Z + 1) of zeros and ones, without a check that would wait for a GPU."""
    every = torch.arange(MAX_Z + 1, device=types.device)
    return (types[..., None] == every).to(torch.get_default_dtype())


def _element(size: int) -> nn.Linear:
    """Embedding of `one_hot` types; as a matrix product its gradient needs no sorting."""
    layer = nn.Linear(MAX_Z + 1, size, bias=False)
    nn.init.normal_(layer.weight)
    return layer


def _mlp(size: int, hidden: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(size, hidden), nn.SiLU(), nn.Linear(hidden, out))


class Encoder(nn.Module):
    """Clean crystal to mean and log variance of z."""

    def __init__(self, settings: CdvaeSettings) -> None:
        super().__init__()
        size = settings.hidden
        self.pairs = PairFeatures(settings.trunk)
        self.element = _element(size)
        self.count = nn.Embedding(settings.max_atoms + 1, size)
        self.cell = _mlp(6, size, size)
        self.layers = nn.ModuleList(Layer(size, self.pairs.size) for _ in range(settings.encoder_layers))
        self.last = nn.LayerNorm(size)
        self.atom = _mlp(size, size, size)
        last = nn.Linear(size, 2 * settings.latent)
        # Narrow posteriors to begin with: z says something from the first step on, and what is not used widens.
        with torch.no_grad():
            last.weight[: settings.latent] *= 3.0
            last.bias[settings.latent :] -= FIRST_LOG_VAR
        self.to_latent = nn.Sequential(nn.Linear(2 * size, size), nn.SiLU(), last)

    def forward(self, types: Tensor, frac: Tensor, lattice: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log variance, each (B, latent).

        Parameters
        ----------
        types : Tensor of int, shape (B, N)
        frac : Tensor, shape (B, N, 3)
        lattice : Tensor, shape (B, 6)
            Standardised lattice vector.
        cell : Tensor, shape (B, 3, 3)
            The same lattice as rows of vectors, angstrom.
        """
        with torch.no_grad():
            pair, _ = self.pairs(frac, cell)
        whole = self.cell(lattice) + self.count.weight[types.shape[1]]
        h = self.element(one_hot(types).to(whole.dtype)) + whole[:, None]
        for layer in self.layers:
            h, _ = layer(h, pair, whole)
        pooled = torch.cat([self.atom(self.last(h)).mean(dim=1), whole], dim=-1)
        mean, log_var = self.to_latent(pooled).chunk(2, dim=-1)
        return mean, log_var.clamp(-LOG_VAR, LOG_VAR)


class Heads(nn.Module):
    """Number of atoms, lattice, composition and properties from z.

    Parameters
    ----------
    settings : CdvaeSettings
    dropout : float
        In front of every layer but the first, in training only; properties have few labels and get three times it.
    """

    def __init__(self, settings: CdvaeSettings, dropout: float = 0.0) -> None:
        super().__init__()

        def head(out: int, drop: float) -> nn.Sequential:
            widths = [settings.latent] + settings.head_layers * [settings.head_hidden]
            parts: list[nn.Module] = []
            for before, after in pairwise(widths):
                # The names of the weights must not depend on the dropout.
                parts += [nn.Linear(before, after), nn.Sequential(nn.SiLU(), nn.Dropout(drop))]
            return nn.Sequential(*parts, nn.Linear(widths[-1], out))

        self.count = head(settings.max_atoms + 1, dropout)
        self.lattice = head(6, dropout)
        self.composition = head(MAX_Z + 1, dropout)
        self.properties = head(4, 3 * dropout)

    def forward(self, z: Tensor) -> Read:
        """Read latent vectors (B, latent)."""
        tc, e_form, *stable = self.properties(z).unbind(-1)
        return Read(
            self.count(z), self.lattice(z), self.composition(z), tc, e_form, torch.stack(stable, dim=-1)
        )


class Decoder(nn.Module):
    """Noise-conditional score network over coordinates and types given z."""

    def __init__(self, settings: CdvaeSettings) -> None:
        super().__init__()
        size = settings.hidden
        self.pairs = PairFeatures(settings.trunk)
        self.element = _element(size)
        self.count = nn.Embedding(settings.max_atoms + 1, size)
        self.time = _mlp(64, size, size)
        self.cell = _mlp(6, size, size)
        self.latent = _mlp(settings.latent, size, size)
        self.layers = nn.ModuleList(Layer(size, self.pairs.size) for _ in range(settings.decoder_layers))
        self.last = nn.LayerNorm(size)
        self.to_type = nn.Linear(size, MAX_Z + 1)
        self.to_score = nn.Linear(size, 3, bias=False)
        self.to_push = nn.Linear(size, settings.radial)
        self.to_lattice = _mlp(2 * size, size, 6)

    def forward(
        self, z: Tensor, types: Tensor, frac: Tensor, lattice: Tensor, cell: Tensor, time: Tensor
    ) -> Decoded:
        """Denoise a batch of crystals with N atoms each.

        Parameters
        ----------
        z : Tensor, shape (B, latent)
        types : Tensor of int, shape (B, N)
            Noisy atomic numbers.
        frac : Tensor, shape (B, N, 3)
            Noisy coordinates.
        lattice : Tensor, shape (B, 6)
            Standardised lattice vector, that of the crystal or the one read from z.
        cell : Tensor, shape (B, 3, 3)
            The same lattice as rows of vectors, angstrom.
        time : Tensor, shape (B,)
            Noise level in [0, 1].
        """
        with torch.no_grad():
            pair, push = self.pairs(frac, cell)
        whole = (
            self.time(sinusoidal(time, 64))
            + self.cell(lattice)
            + self.count.weight[types.shape[1]]
            + self.latent(z)
        )
        h = self.element(one_hot(types).to(whole.dtype)) + whole[:, None]
        message = h.new_zeros(())
        for layer in self.layers:
            h, message = layer(h, pair, whole)
        h = self.last(h)
        score = self.to_score(h)
        score = score + torch.einsum("bijk,bijkx->bix", self.to_push(message), push) / types.shape[1]
        # A common shift of all atoms changes nothing, so it has no score.
        score = score - score.mean(dim=1, keepdim=True)
        change = self.to_lattice(torch.cat([h.mean(dim=1), whole], dim=-1))
        return Decoded(self.to_type(h), score, lattice + change)


class Cdvae(nn.Module):
    """Encoder, heads and decoder.

    Parameters
    ----------
    settings : CdvaeSettings
    """

    def __init__(self, settings: CdvaeSettings) -> None:
        super().__init__()
        self.settings = settings
        self.encoder = Encoder(settings)
        self.heads = Heads(settings)
        self.decoder = Decoder(settings)
