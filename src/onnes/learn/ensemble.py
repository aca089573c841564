"""The shipped electron-phonon predictor: an ensemble of heads on frozen features, with calibrated intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from onnes.learn.features import AtomFeatures
from onnes.learn.store import Checkpoint, pretrained
from onnes.nets.property_head import HeadSettings, PropertyHead
from onnes.theory.tc import tc_array

FloatArray = NDArray[np.float64]

#: Label conventions the heads were trained on; predictions are given in the first one.
SOURCES = ("alexandria", "jarvis")
#: Tc enters the interval as ln(Tc + FLOOR): relative errors where superconductivity is strong, absolute near 0.
FLOOR_K = 0.3


@dataclass(frozen=True)
class EpcPrediction:
    """Predicted electron-phonon quantities, one entry a crystal.

    Attributes
    ----------
    lam, lam_std : ndarray, shape (n,)
        lambda and its calibrated standard deviation.
    omega_log_K, omega_log_K_std, omega_2_K : ndarray, shape (n,)
        Frequencies in kelvin. omega_2 is a fixed ratio times omega_log, stated in the card.
    tc_K, tc_low_K, tc_high_K : ndarray, shape (n,)
        Tc by the formula asked for and its conformal interval (coverage in the card).
    dos_ef : ndarray, shape (n,)
        N(EF), states/eV/atom.
    """

    lam: FloatArray
    lam_std: FloatArray
    omega_log_K: FloatArray
    omega_log_K_std: FloatArray
    omega_2_K: FloatArray
    tc_K: FloatArray
    tc_low_K: FloatArray
    tc_high_K: FloatArray
    dos_ef: FloatArray


def tc_spread(
    log_outputs: FloatArray, ratio: float, mu_star: float, formula: str
) -> tuple[FloatArray, FloatArray]:
    """Tc of the ensemble mean and the deviation of ln(Tc + FLOOR_K) over its members.

    Parameters
    ----------
    log_outputs : ndarray, shape (members, n, >= 2)
        ln lambda and ln omega_log of every member.
    ratio : float
        omega_2 / omega_log.
    """
    lam, wlog = np.exp(log_outputs[..., 0]), np.exp(log_outputs[..., 1])
    each = tc_array(lam, wlog, ratio * wlog, mu_star=mu_star, formula=formula)
    mean = log_outputs.mean(0)
    a, b = np.exp(mean[:, 0]), np.exp(mean[:, 1])
    centre = tc_array(a, b, ratio * b, mu_star=mu_star, formula=formula)
    return centre, np.log(each + FLOOR_K).std(0)


#: A crystal as the heads see it: features by name of the potential, atomic numbers, volume per atom.
Seen = tuple[Mapping[str, AtomFeatures], NDArray[np.int64], float]


class Part:
    """The heads on the features of one potential.

    Attributes
    ----------
    potential : str
    layers : tuple of str
        Interaction layers of the potential that are read.
    weight : float
        Share in the mean; the shares of all parts add up to 1.
    """

    def __init__(self, checkpoint: Checkpoint, number: int) -> None:
        settings = checkpoint.settings["parts"][number]
        self.potential: str = settings["potential"]
        self.layers: tuple[str, ...] = tuple(settings["layers"])
        self.weight: float = settings["weight"]
        self.centre, self.spread = np.array(settings["center"]), np.array(settings["spread"])
        self.heads = []
        for member in range(checkpoint.settings["members"]):
            head = PropertyHead(HeadSettings(**settings["head"]))
            prefix = f"{number}.{member}."
            weights = checkpoint.tensors.items()
            head.load_state_dict(
                {k.removeprefix(prefix): v.float() for k, v in weights if k.startswith(prefix)}
            )
            self.heads.append(head.eval())

    def outputs(self, crystals: Sequence[Seen]) -> FloatArray:
        """As `EpcEnsemble.outputs`, of these heads alone."""
        result = np.empty((len(self.heads), len(crystals), 3))
        with torch.no_grad():
            for i, (features, numbers, volume) in enumerate(crystals):
                x = torch.as_tensor(features[self.potential].x)[None]
                z = torch.as_tensor(numbers)[None]
                v, s = torch.tensor([np.log(volume)], dtype=torch.float32), torch.tensor([0])
                for m, head in enumerate(self.heads):
                    result[m, i] = head(x, z, v, s)[0].double().numpy()
        return result * self.spread + self.centre


class EpcEnsemble:
    """Heads, standardisation and calibration read from one checkpoint.

    Parameters
    ----------
    path : path, optional
        A checkpoint of kind ``epc``; the shipped one by default.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self.checkpoint = Checkpoint.load(path or pretrained("epc.safetensors"), "epc")
        settings = self.checkpoint.settings
        self.members: int = settings["members"]
        self.parts = [Part(self.checkpoint, k) for k in range(len(settings["parts"]))]
        self.calibration: dict[str, float] = settings["calibration"]
        self.ratio: float = settings["omega_2_ratio"]
        self.element_counts: dict[int, int] = {int(k): v for k, v in settings["element_counts"].items()}
        self.volume_range: tuple[float, float] = tuple(settings["volume_per_atom_range"])

    def outputs(self, crystals: Sequence[Seen]) -> FloatArray:
        """Ln lambda, ln omega_log, ln N(EF)/atom of every member, shape (members, n, 3).

        A member is the weighted mean of one head of each part.

        Parameters
        ----------
        crystals : sequence of (features by potential, atomic numbers, volume per atom in cubic angstrom)
        """
        result = np.zeros((self.members, len(crystals), 3))
        for part in self.parts:
            result += part.weight * part.outputs(crystals)
        return result

    def predict(
        self,
        crystals: Sequence[Seen],
        *,
        mu_star: float = 0.10,
        formula: str = "allen-dynes",
    ) -> EpcPrediction:
        """Predict with intervals; see `outputs` for the input and `EpcPrediction` for the result."""
        log = self.outputs(crystals)
        mean, std = log.mean(0), log.std(0)
        c = self.calibration
        u = np.hypot(std[:, :2], [c["lambda_floor"], c["omega_log_floor"]])
        lam, wlog = np.exp(mean[:, 0]), np.exp(mean[:, 1])
        tc, tc_std = tc_spread(log, self.ratio, mu_star, formula)
        width = c["tc_quantile"] * np.hypot(tc_std, c["tc_floor"])
        middle = np.log(tc + FLOOR_K)
        return EpcPrediction(
            lam,
            lam * c["lambda_scale"] * u[:, 0],
            wlog,
            wlog * c["omega_log_scale"] * u[:, 1],
            self.ratio * wlog,
            tc,
            np.maximum(np.exp(middle - width) - FLOOR_K, 0.0),
            np.exp(middle + width) - FLOOR_K,
            np.exp(mean[:, 2]),
        )

    def outside(self, numbers: NDArray[np.int64], volume: float) -> str:
        """Why a crystal is outside the training domain; empty if it is inside.

        The criterion: every element occurs in at least 10 training crystals and the volume per atom lies
        between the 0.1 % and 99.9 % quantiles of the training set.
        """
        from pymatgen.core import Element

        rare = [int(z) for z in np.unique(numbers) if self.element_counts.get(int(z), 0) < 10]
        if rare:
            names = ", ".join(Element.from_Z(z).symbol for z in rare)
            return f"fewer than 10 training crystals contain {names}"
        low, high = self.volume_range
        if not low <= volume <= high:
            return f"volume per atom {volume:.1f} A^3 outside {low:.1f} to {high:.1f} A^3 of the training set"
        return ""
