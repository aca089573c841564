"""Site-projected phonon densities of states, and their files: phonopy, matdyn.x, or any table of columns."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from onnes.errors import InputError
from onnes.theory.spectral import unit_factor
from onnes.theory.tables import parse_table, read_text

FloatArray = NDArray[np.float64]

#: A total column may differ from the sum of the others by this fraction of its largest value.
SUM_TOLERANCE = 0.05
#: Areas of the atoms' densities of states may differ by this fraction (three modes each).
ALIKE = 0.25


@dataclass(frozen=True)
class SiteSpectra:
    """Vibrational spectrum of every atom.

    Attributes
    ----------
    edges_meV : ndarray, shape (m + 1,)
        Edges of equal cells; imaginary modes lie below zero.
    weight : ndarray, shape (N, m)
        Modes of each atom in each cell; a row sums to 3.
    """

    edges_meV: FloatArray
    weight: FloatArray

    @property
    def omega_meV(self) -> FloatArray:
        """Middles of the cells, shape (m,)."""
        return (self.edges_meV[1:] + self.edges_meV[:-1]) / 2.0

    @property
    def total(self) -> FloatArray:
        """Modes of the cell per meV, shape (m,)."""
        return np.asarray(self.weight.sum(0) / np.diff(self.edges_meV))

    @property
    def imaginary(self) -> float:
        """Share of the modes below -0.5 meV."""
        low = self.edges_meV[1:] <= -0.5
        return float(self.weight[:, low].sum() / self.weight.sum())

    @property
    def highest_meV(self) -> float:
        """Upper edge of the spectrum."""
        return float(self.edges_meV[1:][self.weight.sum(0) > 0][-1])

    def on(self, edges_meV: FloatArray, smear_meV: float = 0.0) -> FloatArray:
        """Modes of each atom in other cells, shape (N, len(edges) - 1).

        Parameters
        ----------
        edges_meV : ndarray
            Increasing; what lies outside is left out.
        smear_meV : float
            Deviation of a Gaussian that widens every mode first.
        """
        if smear_meV > 0.0:
            from scipy.special import ndtr

            share = ndtr((edges_meV[:, None] - self.omega_meV) / smear_meV)
            return np.asarray(self.weight @ np.diff(share, axis=0).T)
        below = np.concatenate([np.zeros((len(self.weight), 1)), np.cumsum(self.weight, axis=1)], axis=1)
        return np.diff(np.stack([np.interp(edges_meV, self.edges_meV, row) for row in below]), axis=1)


def read_phonon_dos(
    path: str | Path, atoms: int, unit: str | None = None, *, alike: bool = False
) -> tuple[FloatArray, FloatArray]:
    """Read the density of states of every atom.

    Parameters
    ----------
    path : path
        First column frequency, then one column an atom; a total in front of them is recognised. One density of
        states for all is enough where the atoms are alike.
    atoms : int
        Of the crystal, N.
    unit : str, optional
        Of the frequency; read from the header where it names one (matdyn.x writes cm-1, phonopy THz).
    alike : bool
        Whether all atoms are equivalent.

    Returns
    -------
    edges_meV : ndarray, shape (m + 1,)
        Cells around the frequencies; imaginary modes below zero.
    weight : ndarray, shape (N, m)
        Modes in each cell; rows sum to 3.

    Raises
    ------
    InputError
        ``no-unit``, ``grid-not-increasing``, ``wrong-columns``, ``needs-site-projected``, ``no-modes``, and those of
        a file that cannot be read.
    """
    source = Path(path).name
    table = parse_table(read_text(Path(path)), source)
    factor = unit_factor(unit or _unit(table.header))
    omega, columns = table.rows[:, 0] * factor, table.rows[:, 1:]
    if len(omega) < 3 or not np.isfinite(table.rows).all() or (np.diff(omega) <= 0.0).any():
        raise InputError("grid-not-increasing", f"{source}: the frequencies must be finite and rise")
    dos = np.maximum(_of_the_atoms(columns, atoms, alike, source), 0.0)
    middle = (omega[1:] + omega[:-1]) / 2.0
    edges = np.concatenate([[2.0 * omega[0] - middle[0]], middle, [2.0 * omega[-1] - middle[-1]]])
    weight = dos.T * np.diff(edges)
    if not (weight.sum(1) > 0.0).all():
        raise InputError("no-modes", f"{source}: an atom has no density of states")
    return edges, 3.0 * weight / weight.sum(1, keepdims=True)


def _unit(header: str) -> str | None:
    low = header.lower()
    for word, unit in (("thz", "THz"), ("cm^-1", "cm-1"), ("cm-1", "cm-1"), ("mev", "meV")):
        if word in low:
            return unit
    # phonopy writes its smearing and no unit.
    return "THz" if "sigma =" in low else None


def _of_the_atoms(columns: FloatArray, atoms: int, alike: bool, source: str) -> FloatArray:
    """The columns that belong to the atoms, shape (m, N)."""
    found = columns.shape[1]
    if found == atoms:
        area = np.maximum(columns, 0.0).sum(0)
        if area.max() > (1.0 + ALIKE) * area.min():
            raise InputError(
                "wrong-columns",
                f"{source}: the {found} densities of states have unequal areas; every atom has three modes",
            )
        return columns
    if found == atoms + 1:
        total, rest = columns[:, 0], columns[:, 1:]
        if np.abs(rest.sum(1) - total).max() <= SUM_TOLERANCE * np.abs(total).max():
            return rest
        raise InputError(
            "wrong-columns",
            f"{source}: the first of {found} densities of states is not the sum of the others",
        )
    if found == 1:
        if alike:
            return np.repeat(columns, atoms, axis=1)
        raise InputError(
            "needs-site-projected",
            f"{source}: a total density of states; one column for each of the {atoms} atoms is needed",
        )
    raise InputError(
        "wrong-columns",
        f"{source}: {found} densities of states for {atoms} atoms; give one an atom, in order",
    )
