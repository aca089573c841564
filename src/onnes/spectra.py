"""The one door to predicted alpha2F(omega): structures in, curves with bands, moments and Tc out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from onnes.crystal.formula import numbers, reduced_formula
from onnes.crystal.read import Crystal, Refused
from onnes.errors import OnnesError, SettingsError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pymatgen.core import Structure

    from onnes.learn.properties import PropertyEnsemble
    from onnes.learn.spectrum import SpectrumEnsemble
    from onnes.theory.phonon_dos import SiteSpectra
    from onnes.theory.spectral import Spectrum

#: Share of imaginary modes above which a crystal is dynamically unstable.
UNSTABLE = 0.01
#: Crystals whose features are evaluated together.
CHUNK = 16


@dataclass(frozen=True)
class PredictedSpectrum:
    """Prediction for one crystal, or why there is none.

    Attributes
    ----------
    id, formula : str
    status : str
        ``ok`` or ``refused``.
    reason : str
        Of a refusal the code; else why the crystal is outside the training domain, or empty.
    message : str
        One line for a person.
    variant : str
        ``cso``, ``cpd`` or ``fpd``.
    spectrum : Spectrum or None
        The mean curve.
    low, high : ndarray, shape (K,), or None
        Its 68.3 % band.
    numbers : dict
        lambda, omega_log, omega_2 and Tc with deviations and 90 % interval, as `onnes.predict` names them.
    """

    id: str
    formula: str
    status: str
    reason: str
    message: str
    variant: str
    spectrum: Spectrum | None = None
    low: NDArray[np.float64] | None = None
    high: NDArray[np.float64] | None = None
    numbers: dict[str, Any] = field(default_factory=dict)


def predict_spectra(
    items: Iterable[Crystal | Refused],
    *,
    phonons: str = "none",
    sites: SiteSpectra | None = None,
    mu_star: float = 0.10,
    formula: str = "allen-dynes",
    source: str = "",
    model: str | Path | None = None,
) -> Iterator[PredictedSpectrum]:
    """Predict the Eliashberg function of crystals, one after another.

    Parameters
    ----------
    items : iterable of Crystal or Refused
        As `onnes.crystal.read.read` yields them.
    phonons : str
        ``none``: from the structure alone; ``coarse`` or ``fine``: with vibrational spectra of the atoms, which the
        shipped potential computes (seconds, minutes).
    sites : SiteSpectra, optional
        Given vibrational spectra (from DFT) for a single crystal, read by the variant of ``coarse``.
    mu_star, formula
        For Tc.
    source : str
        Convention of the labels to answer in: of the shipped networks ``alexandria`` (default) or ``jarvis``, of
        others the name of a data file that they were trained on.
    model : path, optional
        A checkpoint of ``onnes train spectrum`` or its folder, instead of the shipped networks.

    Raises
    ------
    SettingsError
        ``unknown-phonons``, ``unknown-source``.
    ModelError
        ``no-model``, ``wrong-model``, ``no-variant``, ``damaged-model``.
    """
    from onnes.learn.spectrum import BY_PHONONS

    if phonons not in BY_PHONONS:
        raise SettingsError(
            "unknown-phonons", f"phonons {phonons!r} unknown; use one of {', '.join(BY_PHONONS)}"
        )
    variant = "cpd" if sites is not None else BY_PHONONS[phonons]
    loaded = ensemble(variant, None if model is None else str(model))
    source = loaded.convention(source)
    stream = iter(items)
    while chunk := list(islice(stream, CHUNK)):
        yield from _chunk(chunk, loaded, phonons, sites, mu_star=mu_star, formula=formula, source=source)


@lru_cache(maxsize=3)
def ensemble(variant: str, model: str | None = None) -> SpectrumEnsemble:
    """The networks of a variant, loaded once a process: the shipped ones, or those of a checkpoint or its folder."""
    from onnes.learn.spectrum import SpectrumEnsemble
    from onnes.learn.store import MODEL_FILE

    if model is None:
        return SpectrumEnsemble(variant)
    path = Path(model)
    return SpectrumEnsemble(variant, path / MODEL_FILE if path.is_dir() else path)


def vibrations(structure: Structure, phonons: str, potential: str = "7net-0") -> SiteSpectra:
    """Vibrational spectra of the atoms of a crystal, as a variant of the networks reads them.

    Parameters
    ----------
    structure : pymatgen Structure
    phonons : str
        ``coarse`` or ``fine``.
    potential : str

    Raises
    ------
    CrystalError, PhysicsError
        Those of `onnes.stability.phonons.site_spectra`.
    """
    from onnes.stability.phonons import COARSE, FINE, site_spectra

    return site_spectra(structure, replace(FINE if phonons == "fine" else COARSE, potential=potential))


def _chunk(
    chunk: list[Crystal | Refused],
    loaded: SpectrumEnsemble,
    phonons: str,
    sites: SiteSpectra | None,
    **how: Any,
) -> Iterator[PredictedSpectrum]:
    good = [item for item in chunk if isinstance(item, Crystal)]
    features = loaded.features([item.structure for item in good])
    seen = iter(features)
    for item in chunk:
        if isinstance(item, Refused):
            yield PredictedSpectrum(item.id, item.formula, "refused", item.code, item.message, loaded.variant)
            continue
        yield _one(item, next(seen), loaded, phonons, sites, **how)


def _one(
    item: Crystal,
    features: dict[str, Any] | OnnesError,
    loaded: SpectrumEnsemble,
    phonons: str,
    sites: SiteSpectra | None,
    **how: Any,
) -> PredictedSpectrum:
    formula = reduced_formula(item.structure)
    try:
        if isinstance(features, OnnesError):
            raise features
        if loaded.settings.phonons and sites is None:
            sites = vibrations(item.structure, phonons, loaded.phonon_potential)
        crystal = loaded.prepare(item.structure, features, sites, name=item.id)
        found = loaded.predict([crystal], **how)
        refusal = loaded.beyond(found, 0, item.id)
        if refusal is not None:
            raise refusal
    except OnnesError as error:
        return PredictedSpectrum(item.id, formula, "refused", error.code, error.message, loaded.variant)
    m = found.moments
    spread = 0.0 if m.tc_spread is None else float(m.tc_spread[0])
    flat = [f for f in item.meta.get("flags", []) if f in ("slab", "molecule", "chain")]
    z, slab = numbers(item.structure), flat[:1] == ["slab"]
    outside = loaded.outside(z, crystal.volume_A3, spread, slab=slab)
    if flat and not outside and not slab:
        outside = f"{flat[0]} in vacuum; the training set holds bulk crystals and layers"
    if not outside and loaded.settings.phonons and sites is not None and sites.imaginary > UNSTABLE:
        outside = f"{100 * sites.imaginary:.0f} % of the modes are imaginary: the crystal is not stable"
    if not outside:
        outside = _gapped(features, z, crystal.volume_A3)
    columns = {
        "lambda": m.lam,
        "lambda_std": m.lam_std,
        "omega_log_K": m.omega_log_K,
        "omega_log_K_std": m.omega_log_K_std,
        "omega_2_K": m.omega_2_K,
        "tc_K": m.tc_K,
        "tc_low_K": m.tc_low_K,
        "tc_high_K": m.tc_high_K,
    }
    return PredictedSpectrum(
        item.id,
        formula,
        "ok",
        outside,
        outside,
        loaded.variant,
        found.spectrum(0, item.id),
        found.low[0],
        found.high[0],
        {name: float(value[0]) for name, value in columns.items()},
    )


@lru_cache(maxsize=1)
def _properties() -> PropertyEnsemble:
    from onnes.learn.properties import PropertyEnsemble

    return PropertyEnsemble()


def _gapped(features: dict[str, Any], z: NDArray[np.int64], volume: float) -> str:
    """Why a crystal is likely no metal; empty if it is likely one, or cannot be asked."""
    from onnes.learn.predictors import gapped

    heads = _properties()
    if heads.potential not in features:
        return ""
    return gapped(heads.predict([(features[heads.potential], z, volume)]), 0)
