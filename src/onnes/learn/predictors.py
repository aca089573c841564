"""The shipped electron-phonon predictors behind one interface: standard, fast, spectrum, trees.

============  ==========================================================  ========================
name          how                                                         needs
============  ==========================================================  ========================
standard      heads on frozen features of two potentials, and fast        torch, sevenn
fast          one graph network from scratch, five members                torch
spectrum      moments of a predicted alpha2F (equivariant networks)       torch, e3nn, sevenn
trees         boosted trees on composition and neighbour distances        neither
============  ==========================================================  ========================

Errors of each stand in its card (``onnes/pretrained/*.card.json``); `onnes.prediction` is the door for users.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from onnes.crystal.formula import numbers as atomic_numbers_of
from onnes.errors import CrystalError, ModelError, OnnesError, SettingsError

if TYPE_CHECKING:
    from pymatgen.core import Structure

    from onnes.learn.epc import EpcPrediction

#: Above this probability of a gap, lambda and Tc are those of a metal that the crystal is not.
NONMETAL = 0.5
#: Below this probability the classifier takes a crystal for an insulator or a magnet.
UNLIKELY = 0.05

#: Columns of one crystal, or why it was refused.
Row = dict[str, Any] | OnnesError


class Predictor(Protocol):
    """What `onnes.prediction` asks of a predictor."""

    def rows(self, structures: Sequence[Structure], mu_star: float, formula: str) -> list[Row]:
        """Columns of each crystal in order: numbers, ``outside`` (why it is beyond the domain) and ``warning``."""


def choose(name: str) -> str:
    """The predictor to use: ``auto`` is the standard one, or trees where no potential is installed.

    Raises
    ------
    SettingsError
        ``unknown-model``.
    """
    if name == "auto":
        return "standard" if find_spec("sevenn") is not None else "trees"
    if name not in PREDICTORS:
        raise SettingsError(
            "unknown-model", f"unknown model {name!r}; use auto or one of {', '.join(PREDICTORS)}"
        )
    return name


@lru_cache(maxsize=4)
def predictor(name: str) -> Predictor:
    """Load a predictor, once a process.

    Raises
    ------
    SettingsError
        ``unknown-model``.
    ModelError
        ``no-potential`` where the standard one is asked for without sevenn; ``damaged-model``.
    """
    return PREDICTORS[choose(name)]()


def model_hash(name: str) -> str:
    """Hash of everything the predictor computes with, for the ledger."""
    from importlib.metadata import version

    from onnes.learn.store import Checkpoint, pretrained

    found = choose(name)
    hashes = [Checkpoint.load(pretrained(f"{file}.safetensors")).hash for file in FILES[found]]
    # The features come from potentials inside the sevenn package: its version stands for their weights.
    return "+".join([*hashes, version("sevenn")] if found in ("standard", "spectrum") else hashes)


class Standard:
    """Heads on frozen features, with the property heads and the classifier."""

    def __init__(self) -> None:
        if find_spec("sevenn") is None:
            raise ModelError("no-potential", "the standard model needs the package sevenn; use --model trees")
        from onnes.learn.classifier import SuperconductorClassifier
        from onnes.learn.ensemble import EpcEnsemble
        from onnes.learn.properties import PropertyEnsemble

        self.epc, self.properties = EpcEnsemble(), PropertyEnsemble()
        self.classifier = SuperconductorClassifier()

    def rows(self, structures: Sequence[Structure], mu_star: float, formula: str) -> list[Row]:
        """See `Predictor`."""
        out: list[Row] = [{} for _ in structures]
        seen, places = [], []
        for k, crystal in enumerate(self.epc.look(structures)):
            if isinstance(crystal, OnnesError):
                out[k] = crystal
                continue
            seen.append(crystal)
            places.append(k)
        if not seen:
            return out
        found = self.epc.predict(seen, mu_star=mu_star, formula=formula)
        own = self.properties.potential
        more = self.properties.predict([(c.features[own], c.numbers, c.volume_A3) for c in seen])
        likely = self.classifier.assess([structures[k] for k in places]).superconductor
        assert found.tc_spread is not None
        for i, k in enumerate(places):
            z, volume = seen[i].numbers, seen[i].volume_A3
            outside = self.epc.outside(z, volume) or self.epc.doubt(float(found.tc_spread[i]))
            outside = outside or gapped(more, i)
            out[k] = {
                **coupling(found, i),
                **_properties(more, i, structures[k]),
                "p_superconductor": float(likely[i]),
                "outside": outside,
                "warning": self.epc.warning(z, float(found.lam[i])),
            }
        return out


class Fast:
    """The graph network alone, with the classifier: much faster, larger errors, no other properties."""

    def __init__(self) -> None:
        from onnes.learn.classifier import SuperconductorClassifier
        from onnes.learn.fast import FastEpc

        self.epc, self.classifier = FastEpc(), SuperconductorClassifier()

    def rows(self, structures: Sequence[Structure], mu_star: float, formula: str) -> list[Row]:
        """See `Predictor`."""
        out: list[Row] = [{} for _ in structures]
        inputs, places = [], []
        for k, structure in enumerate(structures):
            try:
                inputs.append(self.epc.prepare(structure))
                places.append(k)
            except (CrystalError, ModelError) as error:
                out[k] = error
        if not inputs:
            return out
        found = self.epc.predict(inputs, mu_star=mu_star, formula=formula)
        likely = self.classifier.assess([structures[k] for k in places]).superconductor
        for i, k in enumerate(places):
            z = atomic_numbers_of(structures[k])
            outside = self.epc.outside(z, structures[k].volume / len(z))
            if likely[i] < UNLIKELY and not outside:
                outside = "likely an insulator or a magnet; lambda and Tc are those of a nonmagnetic metal"
            out[k] = {
                **coupling(found, i),
                "p_superconductor": float(likely[i]),
                "outside": outside,
                "warning": "",
            }
        return out


class Spectral:
    """Moments of the predicted alpha2F (structure only), with the property heads and the classifier."""

    def __init__(self) -> None:
        if find_spec("sevenn") is None:
            raise ModelError("no-potential", "the spectrum model needs the package sevenn; use --model trees")
        from onnes.learn.classifier import SuperconductorClassifier
        from onnes.learn.properties import PropertyEnsemble
        from onnes.learn.spectrum import SpectrumEnsemble

        self.ensemble, self.properties = SpectrumEnsemble("cso"), PropertyEnsemble()
        self.classifier = SuperconductorClassifier()

    def rows(self, structures: Sequence[Structure], mu_star: float, formula: str) -> list[Row]:
        """See `Predictor`."""
        out: list[Row] = [{} for _ in structures]
        features, crystals, places = self.ensemble.features(structures), [], []
        for k, each in enumerate(features):
            try:
                if isinstance(each, OnnesError):
                    raise each
                crystals.append(self.ensemble.prepare(structures[k], each, name=f"structure {k}"))
                places.append(k)
            except OnnesError as error:
                out[k] = error
        if not crystals:
            return out
        found = self.ensemble.predict(crystals, mu_star=mu_star, formula=formula)
        z = [atomic_numbers_of(structures[k]) for k in places]
        own = self.properties.potential
        more = self.properties.predict(
            [(features[k][own], z[i], crystals[i].volume_A3) for i, k in enumerate(places)]  # type: ignore[index]
        )
        likely = self.classifier.assess([structures[k] for k in places]).superconductor
        assert found.moments.tc_spread is not None
        for i, k in enumerate(places):
            refusal = self.ensemble.beyond(found, i, crystals[i].name)
            if refusal is not None:
                out[k] = refusal
                continue
            spread = float(found.moments.tc_spread[i])
            outside = self.ensemble.outside(z[i], crystals[i].volume_A3, spread)
            outside = outside or gapped(more, i)
            out[k] = {
                **coupling(found.moments, i),
                **_properties(more, i, structures[k]),
                "p_superconductor": float(likely[i]),
                "outside": outside,
                "warning": "",
            }
        return out


class Trees:
    """Composition and neighbour distances only: works without torch's potentials, with the largest errors."""

    def __init__(self) -> None:
        from onnes.learn.fallback import TreesEpc

        self.epc = TreesEpc()

    def rows(self, structures: Sequence[Structure], mu_star: float, formula: str) -> list[Row]:
        """See `Predictor`."""
        found = self.epc.predict(list(structures), mu_star=mu_star, formula=formula)
        out: list[Row] = []
        for k, structure in enumerate(structures):
            if not np.isfinite(found.lam[k]):
                out.append(ModelError("unknown-element", "an element has no properties in the table"))
                continue
            z: NDArray[np.int64] = atomic_numbers_of(structure)
            outside = self.epc.outside(z, structure.volume / len(z))
            out.append({**coupling(found, k), "outside": outside, "warning": ""})
        return out


PREDICTORS: dict[str, Any] = {"standard": Standard, "fast": Fast, "spectrum": Spectral, "trees": Trees}
#: Checkpoints each one reads.
FILES = {
    "standard": ("epc", "fast", "properties", "classifier"),
    "fast": ("fast", "classifier"),
    "spectrum": ("spectrum", "properties", "classifier"),
    "trees": ("trees",),
}


def gapped(more: Any, i: int) -> str:
    """Why crystal i of a property prediction is likely no metal; empty if it is one."""
    if more.p_nonmetal[i] <= NONMETAL:
        return ""
    return f"a gap of {more.gap_eV[i]:.1f} eV is likely; lambda and Tc are those of a metal"


def coupling(found: EpcPrediction, i: int) -> dict[str, float]:
    """Columns of the electron-phonon prediction of crystal i."""
    return {
        "lambda": float(found.lam[i]),
        "lambda_std": float(found.lam_std[i]),
        "omega_log_K": float(found.omega_log_K[i]),
        "omega_log_K_std": float(found.omega_log_K_std[i]),
        "omega_2_K": float(found.omega_2_K[i]),
        "tc_K": float(found.tc_K[i]),
        "tc_low_K": float(found.tc_low_K[i]),
        "tc_high_K": float(found.tc_high_K[i]),
        "dos_ef_states_eV_atom": float(found.dos_ef[i]),
    }


def _properties(more: Any, i: int, structure: Structure) -> Mapping[str, float]:
    """Columns of the property heads for one crystal."""
    from onnes.crystal.geometry import geometry
    from onnes.theory.debye import debye_temperature

    shape = geometry(structure)
    bulk, shear = float(more.bulk_GPa[i]), float(more.shear_GPa[i])
    return {
        "formation_energy_eV_atom": float(more.formation_energy_eV_atom[i]),
        "gap_eV": float(more.gap_eV[i]),
        "p_nonmetal": float(more.p_nonmetal[i]),
        "p_dynamically_stable": float(more.p_dynamically_stable[i]),
        "bulk_GPa": bulk,
        "shear_GPa": shear,
        "debye_K": float(debye_temperature(bulk, shear, shape["density_g_cm3"], shape["volume_per_atom_A3"])),
    }
