"""The shipped spectral ensemble: structures (and vibrational spectra of their atoms) in, alpha2F with a band out.

Every member predicts a whole curve; the ensemble's curve is their mean, and lambda, omega_log, omega_2 and Tc are the
moments of that curve. Intervals are conformal, from curves that the members had not seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from onnes.errors import ModelError, OnnesError, PhysicsError, SettingsError
from onnes.graph.batch import collate
from onnes.graph.crystal_graph import BondGraph, graph_of
from onnes.learn import domain
from onnes.learn.calibrate import Conformal
from onnes.learn.epc import SOURCES, EpcPrediction, calibrated
from onnes.learn.features import AtomFeatures, FrozenPotential, by_potential
from onnes.learn.spectrum_inputs import phonon_cells
from onnes.learn.store import Checkpoint, pretrained
from onnes.nets.spectrum import GRIDS, SpectrumNet, SpectrumSettings
from onnes.theory.badger import stretch_meV
from onnes.theory.spectral import Spectrum
from onnes.units import TO_KELVIN

if TYPE_CHECKING:
    from pymatgen.core import Structure

    from onnes.theory.phonon_dos import SiteSpectra

FloatArray = NDArray[np.float64]

#: Variants of the network: crystal structure only; with coarse; with fine vibrational spectra of the atoms.
VARIANTS = ("cso", "cpd", "fpd")
#: The variant that reads vibrational spectra of a quality.
BY_PHONONS = dict(zip(("none", "coarse", "fine"), VARIANTS, strict=True))
#: Share of lambda in the last points of the grid beyond which a curve has left it.
AT_THE_END, LAST_POINTS = 0.02, 2
#: Bonds in a metal are softer than Badger's rule for molecules says; beyond this times the grid's end they are not.
STIFF = 1.2
#: Share of the modes that may lie beyond the grid: the tails of a smeared density of states.
DUST = 1e-3
#: Crystals in a batch.
BATCH = 64
MEV = TO_KELVIN["meV"]


@dataclass(frozen=True)
class SpectrumInput:
    """A crystal as the networks see it.

    Attributes
    ----------
    name : str
        For messages.
    graph : BondGraph
    features : float array, shape (N, F)
        Of the atoms, from the potentials, side by side.
    phonons : float array, shape (N, P), or None
        Shares of the atoms' modes (`onnes.learn.spectrum_inputs.phonon_cells`).
    volume_A3 : float
        Per atom.
    """

    name: str
    graph: BondGraph
    features: NDArray[np.float32]
    phonons: FloatArray | None
    volume_A3: float


@dataclass(frozen=True)
class SpectrumPrediction:
    """Predicted curves of n crystals on K points.

    Attributes
    ----------
    omega_meV : ndarray, shape (K,)
    alpha2F : ndarray, shape (n, K)
        Mean over the members.
    low, high : ndarray, shape (n, K)
        Calibrated 68.3 % band of the curve, point by point.
    moments : EpcPrediction
        lambda, omega_log, omega_2 and Tc of the mean curves with calibrated intervals; no N(EF).
    """

    omega_meV: FloatArray
    alpha2F: FloatArray
    low: FloatArray
    high: FloatArray
    moments: EpcPrediction

    def spectrum(self, k: int, source: str) -> Spectrum:
        """Curve k as an object with moments, Tc and a solver (`onnes.theory`)."""
        from onnes.theory.hygiene import Hygiene

        return Spectrum(self.omega_meV, self.alpha2F[k], source, Hygiene(from_zero=True))


class SpectrumEnsemble:
    """Members, calibration and domain of one variant, read from a checkpoint.

    Parameters
    ----------
    variant : str
        One of `VARIANTS`.
    path : path, optional
        A checkpoint of kind ``spectrum``; the shipped one by default.

    Raises
    ------
    SettingsError
        ``unknown-variant``.
    ModelError
        ``no-model``, ``damaged-model``, ``wrong-model``, ``no-variant``.
    """

    def __init__(self, variant: str = "cso", path: str | Path | None = None) -> None:
        if variant not in VARIANTS:
            raise SettingsError(
                "unknown-variant", f"unknown variant {variant!r}; use one of {', '.join(VARIANTS)}"
            )
        self.checkpoint = Checkpoint.load(path or pretrained("spectrum.safetensors"), "spectrum")
        if variant not in self.checkpoint.settings.get("variants", {}):
            held = ", ".join(self.checkpoint.settings.get("variants", {})) or "none"
            raise ModelError(
                "no-variant",
                f"the checkpoint holds no {variant} networks (none: cso, coarse: cpd, fine: fpd); it holds {held}",
            )
        self.variant = variant
        #: Conventions of labels it can answer in; the first is the usual one.
        self.sources: tuple[str, ...] = tuple(self.checkpoint.settings.get("sources", SOURCES))
        try:
            self._read(self.checkpoint.settings["variants"][variant])
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise ModelError(
                "damaged-model", f"the checkpoint does not fit this version: {error!r}"
            ) from None

    def _read(self, s: Mapping[str, Any]) -> None:
        self.settings = SpectrumSettings.from_dict(s["net"])
        self.grid = GRIDS[self.settings.grid]()
        self.members: int = s["members"]
        self.potentials: dict[str, tuple[str, ...]] = {
            p["potential"]: tuple(p["layers"]) for p in s["potentials"]
        }
        # Building a network takes a second, so one of them serves all members' weights.
        self.net = _interpreted(self.settings)
        #: Which vibrational spectra it was trained with, of which potential.
        self.phonons: str = s.get("phonons", {"cpd": "coarse", "fpd": "fine"}.get(self.variant, "none"))
        self.phonon_potential: str = s.get("phonon_potential", "7net-0")
        self.weights = [self._weights(k) for k in range(self.members)]
        #: By convention of the labels: errors against the one are not those against the other.
        self.calibration = {
            source: {k: Conformal.from_dict(v) for k, v in of["intervals"].items()}
            for source, of in s["calibration"].items()
        }
        self.width_limits = {source: dict(of["width_limits"]) for source, of in s["calibration"].items()}
        #: Half the band over `band_scale`, and its floor.
        self.band: tuple[float, float] = (s["band"]["factor"], s["band"]["floor"])
        self.element_counts = {int(k): v for k, v in s["element_counts"].items()}
        self.volume_range: tuple[float, float] = tuple(s["volume_per_atom_range"])
        self.spread_limit: float = s["calibration"][self.sources[0]]["spread_limit"]

    def _weights(self, member: int) -> dict[str, torch.Tensor]:
        prefix = f"{self.variant}.{member}."
        own = self.net.state_dict()
        found = {
            k.removeprefix(prefix): v.float()
            for k, v in self.checkpoint.tensors.items()
            if k.startswith(prefix)
        }
        # What only shapes the code (e3nn's tables) is not in the file.
        self.net.load_state_dict({**own, **found})
        missing = sorted(name for name, _ in self.net.named_parameters() if name not in found)
        if missing:
            raise KeyError(missing[0])
        return found

    @cached_property
    def frozen(self) -> dict[str, FrozenPotential]:
        """The potentials whose features the networks read."""
        return {name: FrozenPotential(potential=name, layers=k) for name, k in self.potentials.items()}

    def features(self, structures: Sequence[Structure]) -> list[dict[str, AtomFeatures] | OnnesError]:
        """Features of each crystal by name of the potential, or why there are none."""
        return by_potential(self.frozen, structures)

    def prepare(
        self,
        structure: Structure,
        features: Mapping[str, AtomFeatures],
        sites: SiteSpectra | None = None,
        *,
        name: str = "crystal",
    ) -> SpectrumInput:
        """Collect the inputs of one crystal.

        Parameters
        ----------
        structure : pymatgen Structure
        features : mapping of str to AtomFeatures
            By name of the potential (`potentials`).
        sites : SiteSpectra, optional
            Vibrational spectra of the atoms, in the order of the structure; needed by ``cpd`` and ``fpd``.
        name : str
            For messages.

        Raises
        ------
        SettingsError
            ``missing-input``.
        PhysicsError
            ``beyond-grid``: vibrations above the networks' grid (given ones, or those of the shortest bonds).
        CrystalError
            Those of `onnes.graph.crystal_graph.build`.
        """
        cells = None
        if self.settings.phonons:
            if sites is None:
                raise SettingsError(
                    "missing-input", f"{self.variant} networks need the atoms' vibrational spectra"
                )
            if len(sites.weight) != len(structure):
                raise SettingsError(
                    "missing-input", f"{len(sites.weight)} site spectra for {len(structure)} atoms"
                )
            self._inside(sites, name)
            cells = phonon_cells(sites.edges_meV, sites.weight)
        x = np.concatenate(
            [features[p].x for p in self.potentials] or [np.zeros((len(structure), 0), np.float32)], axis=1
        )
        graph = graph_of(structure, self.settings.graph)
        if cells is None:
            self._soft_enough(graph, name)
        return SpectrumInput(name, graph, x, cells, structure.volume / len(structure))

    def _inside(self, sites: SiteSpectra, name: str) -> None:
        top = float(self.grid.omega_meV[-1])
        modes = np.cumsum(sites.weight.sum(0))
        reach = float(sites.edges_meV[1:][np.searchsorted(modes, (1.0 - DUST) * modes[-1])])
        if reach > top:
            raise PhysicsError(
                "beyond-grid",
                f"{name}: vibrations reach {reach:.0f} meV, beyond the model's end at {top:.0f} meV",
            )

    def _soft_enough(self, graph: BondGraph, name: str) -> None:
        """Refuse molecules whose bonds stretch beyond the grid; without vibrations only their lengths tell."""
        top = float(self.grid.omega_meV[-1])
        stretch = stretch_meV(graph.numbers[graph.src], graph.numbers[graph.dst], graph.distance)
        if stretch.size and stretch.max() > STIFF * top:
            k = int(stretch.argmax())
            raise PhysicsError(
                "beyond-grid",
                f"{name}: a bond of {graph.distance[k]:.2f} A stretches at about {stretch[k]:.0f} meV, beyond the "
                f"model's end at {top:.0f} meV",
            )

    def shares(self, crystals: Sequence[SpectrumInput], source: str = "") -> tuple[FloatArray, FloatArray]:
        """Of every member: ln lambda, shape (members, n), and shares of lambda, shape (members, n, K)."""
        number = self.sources.index(source or self.sources[0])
        log = np.empty((self.members, len(crystals)))
        shares = np.empty((self.members, len(crystals), len(self.grid.omega_meV)))
        with torch.no_grad():
            for start in range(0, len(crystals), BATCH):
                part = crystals[start : start + BATCH]
                batch = collate([c.graph for c in part])
                of = torch.full((len(part),), number, dtype=torch.long)
                x = torch.as_tensor(np.concatenate([c.features for c in part])).float()
                modes = None
                if self.settings.phonons:
                    given = [c.phonons for c in part if c.phonons is not None]
                    modes = torch.as_tensor(np.concatenate(given)).float()
                inputs = (batch, of, x if self.settings.features else None, modes)
                for m, weights in enumerate(self.weights):
                    out = torch.func.functional_call(self.net, weights, inputs)
                    log[m, start : start + BATCH] = out.log_lambda.double().numpy()
                    shares[m, start : start + BATCH] = out.shares.double().numpy()
        return log, shares

    def predict(
        self,
        crystals: Sequence[SpectrumInput],
        *,
        mu_star: float = 0.10,
        formula: str = "allen-dynes",
        source: str = "",
    ) -> SpectrumPrediction:
        """Curves with bands, moments and Tc.

        Parameters
        ----------
        crystals : sequence of SpectrumInput
        mu_star, formula
            For Tc.
        source : str
            Convention of the labels to answer in, one of `sources`; by default the first.

        Raises
        ------
        SettingsError
            ``unknown-source``.
        """
        source = self.convention(source)
        log, shares = self.shares(crystals, source)
        values = self.grid.values(shares, np.exp(log))
        return self.of_values(values, source, mu_star=mu_star, formula=formula)

    def of_values(
        self, values: FloatArray, source: str, *, mu_star: float, formula: str
    ) -> SpectrumPrediction:
        """Mean curve, band, moments and Tc of some members' curves.

        Parameters
        ----------
        values : ndarray, shape (members, n, K)
        source : str
            One of `sources`.
        mu_star, formula
            For Tc.
        """
        return summarised(
            values,
            self.grid,
            self.calibration[source],
            self.width_limits[source],
            self.band,
            mu_star=mu_star,
            formula=formula,
        )

    def convention(self, source: str) -> str:
        """The convention of labels of this name, or the usual one where it is empty.

        Raises
        ------
        SettingsError
            ``unknown-source``.
        """
        if source and source not in self.sources:
            raise SettingsError(
                "unknown-source", f"unknown labels {source!r}; use one of {', '.join(self.sources)}"
            )
        return source or self.sources[0]

    def beyond(self, prediction: SpectrumPrediction, k: int, name: str) -> PhysicsError | None:
        """The refusal of a curve that runs into the end of the grid, or None."""
        share = self.grid.coupling * prediction.alpha2F[k]
        end = float(share[-LAST_POINTS:].sum() / max(share.sum(), 1e-300))
        if end <= AT_THE_END:
            return None
        return PhysicsError(
            "beyond-grid",
            f"{name}: {100 * end:.0f} % of lambda lies at the end of the model's range, "
            f"{self.grid.omega_meV[-1]:.0f} meV",
        )

    def outside(self, numbers: NDArray[np.int64], volume: float, spread: float, *, slab: bool = False) -> str:
        """Why a crystal is beyond the training domain; empty if it is inside.

        The volume of a slab counts its vacuum, which says nothing; it is not looked at.
        """
        limits = (0.0, np.inf) if slab else self.volume_range
        found = domain.outside(numbers, volume, self.element_counts, limits)
        if not found and spread > self.spread_limit:
            found = f"the members disagree: ln Tc varies by {spread:.2f} (limit {self.spread_limit:.2f})"
        return found


def _interpreted(settings: SpectrumSettings) -> SpectrumNet:
    """A network without TorchScript: recompiling it for every new size of a crystal costs seconds."""
    import e3nn

    before = e3nn.get_optimization_defaults()
    e3nn.set_optimization_defaults(jit_script_fx=False)
    try:
        return SpectrumNet(settings).eval()
    finally:
        e3nn.set_optimization_defaults(**before)


def summarised(
    values: FloatArray,
    grid: Any,
    calibration: Mapping[str, Conformal],
    width_limits: Mapping[str, float],
    band: tuple[float, float],
    *,
    mu_star: float,
    formula: str,
) -> SpectrumPrediction:
    """Mean curve, band and moments of members' curves.

    Parameters
    ----------
    values : ndarray, shape (members, n, K)
    """
    mean, deviation = values.mean(0), values.std(0)
    factor, floor = band
    half = factor * band_scale(mean, deviation, floor)
    logs = log_moments(values, mean, grid)
    moments = calibrated(logs, calibration, mu_star, formula, width_limits)
    return SpectrumPrediction(
        grid.omega_meV,
        mean,
        np.maximum(mean - half, 0.0),
        mean + half,
        replace(moments, dos_ef=np.full(len(mean), np.nan)),
    )


def band_scale(mean: FloatArray, deviation: FloatArray, floor: float) -> FloatArray:
    """What the half width of the band is proportional to, shape (n, K).

    The members' deviation, and a part of the curve that counts more near its peak than where it dies away.
    """
    return np.hypot(deviation, floor * np.sqrt(mean * mean.max(1, keepdims=True)))


def log_moments(values: FloatArray, mean: FloatArray, grid: Any) -> FloatArray:
    """Members' moments as `onnes.learn.epc.TARGETS`, moved so that their mean is that of the mean curve.

    Parameters
    ----------
    values : ndarray, shape (members, n, K)
        alpha2F; a member of NaN is left out.
    mean : ndarray, shape (n, K)
    grid : SpectralGrid

    Returns
    -------
    ndarray, shape (members, n, 4)
        ln lambda, ln omega_log/K, 0 (no N(EF)), ln omega_2/omega_log.
    """
    each, middle = _moments(values, grid), _moments(mean, grid)
    return np.asarray(each - np.nanmean(each, axis=0) + middle)


def _moments(values: FloatArray, grid: Any) -> FloatArray:
    parts = values * grid.coupling
    lam = parts.sum(-1)
    shares = parts / lam[..., None]
    log = shares @ grid.log_omega
    second = np.log(shares @ grid.square_omega) / 2.0
    return np.stack([np.log(lam), log + np.log(MEV), np.zeros_like(lam), second - log], axis=-1)
