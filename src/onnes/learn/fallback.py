"""Electron-phonon predictions without a universal potential: boosted trees on composition and neighbours.

For machines on which ``sevenn`` cannot be installed, and for a first look at very many crystals. The trees see
the descriptors ``invariant`` of `onnes.learn.descriptors`, all computed here, so a crystal gets one prediction
whatever cell describes it. The card has the errors, which are larger than those of
`onnes.learn.ensemble.EpcEnsemble`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from onnes.errors import DataError, ModelError
from onnes.learn import domain
from onnes.learn.calibrate import Conformal, Space
from onnes.learn.descriptors import cell_of, invariant_of, structure_of
from onnes.learn.epc import EpcPrediction
from onnes.learn.store import Checkpoint, pretrained
from onnes.learn.tree_arrays import TreeArrays
from onnes.theory.tc import tc_array

if TYPE_CHECKING:
    from pymatgen.core import Structure

FloatArray = NDArray[np.float64]

KIND = "epc-trees"
#: Outputs in their order: lambda, omega_log in kelvin, N(EF) in states/eV/atom.
OUTPUTS = ("lambda", "omega_log_K", "dos_ef_states_eV_atom")
#: Conventions of the Tc on which the intervals were calibrated.
REFERENCE = {"mu_star": 0.10, "formula": "allen-dynes"}
_DESCRIBE = {"cell": cell_of, "structure": structure_of, "invariant": invariant_of}


class TreesEpc:
    """Boosted trees, calibration and domain read from one checkpoint.

    Parameters
    ----------
    path : path, optional
        A checkpoint of kind ``epc-trees``; the shipped one by default.

    Raises
    ------
    ModelError
        ``no-model``, ``damaged-model``, ``wrong-model``.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self.checkpoint = Checkpoint.load(path or pretrained("trees.safetensors"), KIND)
        s = self.checkpoint.settings
        self.trees = {
            name: TreeArrays.read(self.checkpoint.tensors, name, s["base"][name]) for name in OUTPUTS
        }
        self.spaces = {name: Space(s["floor"][name]) for name in OUTPUTS}
        self.calibration = {name: Conformal.from_dict(v) for name, v in s["calibration"].items()}
        self.ratio: float = s["omega_2_ratio"]
        self.columns: int = s["columns"]
        self.describe = _DESCRIBE[s["descriptors"]]
        self.element_counts: dict[int, int] = {int(k): v for k, v in s["element_counts"].items()}
        self.volume_range: tuple[float, float] = tuple(s["volume_per_atom_range"])

    def descriptors(self, structures: Sequence[Structure]) -> FloatArray:
        """Inputs of the trees, shape (n, columns); a row of NaN where an element has no properties.

        Raises
        ------
        ModelError
            ``wrong-model`` when the checkpoint was trained on another set of descriptors.
        """
        x = np.full((len(structures), self.columns), np.nan)
        for i, structure in enumerate(structures):
            try:
                row = self.describe(structure)
            except DataError:
                continue
            if len(row) != self.columns:
                raise ModelError(
                    "wrong-model", f"the trees were trained on {self.columns} descriptors, not {len(row)}"
                )
            x[i] = row
        return x

    def outputs(self, structures: Sequence[Structure]) -> FloatArray:
        """lambda, omega_log in K, N(EF) in states/eV/atom, shape (n, 3)."""
        x = self.descriptors(structures)
        return np.column_stack([self.spaces[k].backward(self.trees[k].predict(x)) for k in OUTPUTS])

    def predict(
        self,
        structures: Sequence[Structure],
        *,
        mu_star: float = 0.10,
        formula: str = "allen-dynes",
    ) -> EpcPrediction:
        """Predict with intervals.

        Parameters
        ----------
        structures : sequence of pymatgen Structure
        mu_star : float
        formula : str
            Closed Tc formula, see `onnes.theory.tc`.

        Returns
        -------
        EpcPrediction
            NaN where a crystal cannot be described (an element beyond Z = 103). `lam_std` and
            `omega_log_K_std` are half-widths of 68.3 % intervals, `tc_low_K` and `tc_high_K` bound a 90 %
            interval, all conformal on residuals of unseen formulas and, unlike those of the ensemble, of one
            width for all crystals of one range of the prediction.
        """
        lam, wlog, dos = self.outputs(structures).T
        ratio = self.ratio
        known = np.isfinite(lam)
        tc, reference = np.full(len(lam), np.nan), np.full(len(lam), np.nan)
        a, b = lam[known], wlog[known]
        tc[known] = tc_array(a, b, ratio * b, mu_star=mu_star, formula=formula)
        reference[known] = tc_array(a, b, ratio * b, **REFERENCE)  # type: ignore[arg-type]
        space = self.calibration["Tc_K"].space
        # The range is that of the crystal's reference Tc: its error belongs to lambda and omega_log, not to mu*.
        width = self.calibration["Tc_K"].reach(reference)
        middle = space.forward(tc)
        return EpcPrediction(
            lam,
            self._spread("lambda", lam),
            wlog,
            self._spread("omega_log_K", wlog),
            ratio * wlog,
            tc,
            space.backward(middle - width),
            space.backward(middle + width),
            dos,
        )

    def _spread(self, name: str, value: FloatArray) -> FloatArray:
        """Half-width of the 68.3 % interval, to first order in the space where it is calibrated."""
        c = self.calibration[name]
        return (value + (c.space.floor or 0.0)) * c.reach(value)

    def outside(self, numbers: NDArray[np.int64], volume: float) -> str:
        """Why a crystal is outside the training domain; empty if inside. See `onnes.learn.domain.outside`.

        Parameters
        ----------
        numbers : int array, shape (n,)
            Atomic numbers.
        volume : float
            Per atom, cubic angstrom.
        """
        return domain.outside(numbers, volume, self.element_counts, self.volume_range)
