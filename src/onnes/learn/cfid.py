"""Classical force-field inspired descriptors (CFID) of jarvis-tools, with its slow loops done by arrays.

Choudhary, DeCost, Tavazza, Phys. Rev. Materials 2 (2018) 083801. jarvis-tools computes them; only its
Python loops over neighbour pairs and dihedral angles, which take seconds a crystal, are replaced by arrays that
give the same numbers up to rounding (the tests compare both where jarvis-tools is installed). Rounding shows where
symmetry puts a distance exactly on the edge of a histogram bin: there both are arbitrary.
"""

from __future__ import annotations

import io
from contextlib import redirect_stdout
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pymatgen.core import Structure

from onnes.errors import ModelError

FloatArray = NDArray[np.float64]


@lru_cache(maxsize=1)
def _library() -> Any:
    """The descriptor class and the atoms class of jarvis-tools.

    Raises
    ------
    ModelError
        ``missing-extra``.
    """
    try:
        from jarvis.ai.descriptors import cfid
        from jarvis.core.atoms import Atoms
    except ImportError as error:
        text = f"CFID needs jarvis-tools: pip install 'onnes[cfid]' ({error})"
        raise ModelError("missing-extra", text) from None
    plain = cfid.NeighborsAnalysis

    class Neighbours(plain):  # type: ignore[misc, valid-type]  # an untyped library class
        """The same pairs, by arrays, and once for equal questions."""

        asked: ClassVar[dict[tuple[float, float], dict[str, Any]]] = {}

        def nbor_list(self, rcut: float = 10.0, c_size: float = 12.0) -> dict[str, Any]:
            """Neighbour arrays of the enlarged cell; the library's own loop where its limit would bite."""
            key = (rcut, c_size)
            if key not in self.asked:
                cell = self.get_structure_data(c_size)
                found = pair_arrays(np.array(cell["coords"]), np.array(cell["lat"]), rcut, self.max_n)
                if found is None:
                    return plain.nbor_list(self, rcut, c_size)
                bonds = _by_kind(np.asarray(cell["new_symbs"]), found.pop("pairs"), found.pop("lengths"))
                self.asked[key] = {**found, "nat": cell["nat"], "different_bond": bonds}
            return self.asked[key]

        def get_ddf(self, plot: bool = False) -> tuple[FloatArray, FloatArray]:
            """Histogram of dihedral angles up to the first cut-off."""
            edges = np.arange(1, 181.0, 1)
            angle, atom = dihedrals(self.nbor_list(rcut=self.rcut1))
            values, which = np.unique(angle, return_inverse=True)
            times = np.bincount(which, minlength=len(values))
            pairs = np.unique(np.stack([which, atom]), axis=1)[0]
            atoms = np.bincount(pairs, minlength=len(values))
            # An angle counts as often as it occurs at each atom that has it.
            return np.histogram(values, weights=times / np.maximum(atoms, 1), bins=edges)

    return cfid, Atoms, Neighbours


def dihedrals(near: dict[str, Any]) -> tuple[FloatArray, NDArray[np.intp]]:
    """Dihedral angles over every bond i-j with j > i, in degrees rounded to three decimals.

    Parameters
    ----------
    near : dict
        As returned by `pair_arrays`.

    Returns
    -------
    angle : ndarray, shape (m,)
        Negative ones (and zeros) with their sign turned.
    atom : ndarray of int, shape (m,)
        The atom i of each.
    """
    arrows = np.stack([near[f"bond{axis}"] for axis in "xyz"], axis=-1)
    other, count = near["nn_id"], near["nn"]
    angles, atoms = [np.zeros(0)], [np.zeros(0, dtype=np.intp)]
    for i in range(len(count)):
        ends = other[: count[i], i]
        for k in np.flatnonzero(ends > i):
            j = ends[k]
            first = arrows[: count[i], i][ends != j]
            third = -arrows[: count[j], j][other[: count[j], j] != i]
            middle = -arrows[k, i]
            normal_1, normal_3 = np.cross(first, middle), np.cross(middle, third)
            theta = np.degrees(
                np.arctan2(np.linalg.norm(middle) * (first @ normal_3.T), normal_1 @ normal_3.T)
            ).ravel()
            angles.append(np.round(np.where(theta < 1e-5, -theta, theta), 3))
            atoms.append(np.full(len(theta), i))
    return np.concatenate(angles), np.concatenate(atoms)


def _by_kind(
    kinds: NDArray[Any], pairs: tuple[NDArray[np.intp], NDArray[np.intp]], length: FloatArray
) -> dict[str, FloatArray]:
    """Lengths by the sorted symbols of both ends, kinds in order of first appearance."""
    names, code = np.unique(kinds, return_inverse=True)
    low, high = np.sort(np.stack([code[pairs[0]], code[pairs[1]]]), axis=0)
    pair = low * len(names) + high
    values, appears = np.unique(pair, return_index=True)
    ordered = values[np.argsort(appears)]
    return {f"{names[v // len(names)]}_{names[v % len(names)]}": length[pair == v] for v in ordered}


def pair_arrays(frac: FloatArray, lattice: FloatArray, reach: float, most: int) -> dict[str, Any] | None:
    """Neighbours of every atom under the minimum-image rule of a large cell.

    Parameters
    ----------
    frac : ndarray, shape (n, 3)
    lattice : ndarray, shape (3, 3)
    reach : float
        Pairs from 0.1 to below this distance, angstrom.
    most : int
        Rows of the arrays.

    Returns
    -------
    dict or None
        ``dist``, ``nn_id``, ``bondx``, ``bondy``, ``bondz``: shape (most, n), filled from the top in the order
        of the pairs; ``nn``: neighbours of each atom; ``pairs``, ``lengths``. None when an atom has more
        neighbours than fit.
    """
    n = len(frac)
    i, j = np.triu_indices(n, 1)
    step = frac[i] - frac[j]
    step = np.where(np.abs(step) > 0.5, step - np.sign(step), step) @ lattice
    length = np.linalg.norm(step, axis=1)
    near = (length < reach) & (length >= 0.1)
    i, j, step, length = i[near], j[near], step[near], length[near]
    count = np.bincount(np.concatenate([i, j]), minlength=n)
    if count.max(initial=0) > most:
        return None
    # Each pair once from both ends, interleaved so that the order within an atom is the order of the pairs.
    end = np.stack([i, j], axis=1).ravel()
    other = np.stack([j, i], axis=1).ravel()
    arrow = np.stack([step, -step], axis=1).reshape(-1, 3)
    order = np.argsort(end, kind="stable")
    row = np.empty(len(end), dtype=int)
    row[order] = np.arange(len(end)) - np.repeat(np.cumsum(count) - count, count)
    out: dict[str, Any] = {"nn": count, "pairs": (i, j), "lengths": length}
    columns = {"dist": np.repeat(length, 2), "nn_id": other}
    columns |= {f"bond{axis}": arrow[:, k] for k, axis in enumerate("xyz")}
    for name, values in columns.items():
        out[name] = np.zeros((most, n), dtype=values.dtype)
        out[name][row, end] = values
    return out


def cfid(structure: Structure) -> FloatArray:
    """CFID of a crystal, shape (1557,).

    Raises
    ------
    ModelError
        ``missing-extra`` without jarvis-tools; ``descriptor-failed`` when it cannot describe the crystal.
    """
    library, atoms_class, neighbours = _library()
    atoms = atoms_class(
        lattice_mat=structure.lattice.matrix,
        coords=structure.frac_coords,
        elements=[site.specie.symbol for site in structure],
        cartesian=False,
    )
    kept = library.NeighborsAnalysis
    neighbours.asked.clear()  # of the crystal before
    library.NeighborsAnalysis = neighbours
    try:
        # It prints remarks about cut-offs, which would end up inside our JSON.
        with redirect_stdout(io.StringIO()):
            found = np.asarray(library.CFID(atoms).get_comp_descp(), dtype=float)
    except Exception as error:  # jarvis-tools raises whatever its arrays raise
        raise ModelError("descriptor-failed", f"CFID of {structure.formula} failed: {error}") from None
    finally:
        library.NeighborsAnalysis = kept
    if found.ndim != 1 or not np.isfinite(found).all():
        raise ModelError("descriptor-failed", f"CFID of {structure.formula} is not a row of finite numbers")
    return found
