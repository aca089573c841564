"""What a space group asks of the lattice: free cell parameters, and projections of lattice vectors and strains.

Families are those of the conventional cell in the standard setting: triclinic, monoclinic (unique axis b),
orthorhombic, tetragonal, hexagonal (R groups on hexagonal axes included), cubic.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnes.crystal.wyckoff_table import valid_number

Floats = NDArray[np.float64]

#: Last group of each family.
_FAMILIES = (
    (2, "triclinic"),
    (15, "monoclinic"),
    (74, "orthorhombic"),
    (142, "tetragonal"),
    (194, "hexagonal"),
    (230, "cubic"),
)
#: Which of a, b, c, alpha, beta, gamma are free; a tied length follows a.
_MASKS = {
    "triclinic": (True, True, True, True, True, True),
    "monoclinic": (True, True, True, False, True, False),
    "orthorhombic": (True, True, True, False, False, False),
    "tetragonal": (True, False, True, False, False, False),
    "hexagonal": (True, False, True, False, False, False),
    "cubic": (True, False, False, False, False, False),
}
#: Entries (xx, yy, zz, yz, xz, xy) of a symmetric matrix that the family ties to their mean; entries in none are 0.
_TIES = {
    "triclinic": ((0,), (1,), (2,), (3,), (4,), (5,)),
    "monoclinic": ((0,), (1,), (2,), (4,)),
    "orthorhombic": ((0,), (1,), (2,)),
    "tetragonal": ((0, 1), (2,)),
    "hexagonal": ((0, 1), (2,)),
    "cubic": ((0, 1, 2),),
}


def family(number: int) -> str:
    """Crystal family of a space group.

    Parameters
    ----------
    number : int
        1 to 230.

    Returns
    -------
    str
        ``triclinic``, ``monoclinic``, ``orthorhombic``, ``tetragonal``, ``hexagonal`` or ``cubic``.

    Raises
    ------
    CrystalError
        ``unknown-space-group``.
    """
    valid_number(number)
    return next(name for last, name in _FAMILIES if number <= last)


def lattice_mask(number: int) -> tuple[bool, bool, bool, bool, bool, bool]:
    """Which of a, b, c, alpha, beta, gamma are free.

    Lengths that are not free equal a; angles that are not free are 90 degrees, gamma of the hexagonal family 120.

    Parameters
    ----------
    number : int
        Space group.

    Returns
    -------
    tuple of six bool

    Raises
    ------
    CrystalError
        ``unknown-space-group``.
    """
    a, b, c, alpha, beta, gamma = _MASKS[family(number)]
    return a, b, c, alpha, beta, gamma


def constrain(number: int, parameters: tuple[float, ...] | Floats) -> tuple[float, ...]:
    """Cell parameters moved onto the family: tied lengths become their geometric mean, fixed angles their value.

    Parameters
    ----------
    number : int
        Space group.
    parameters : six numbers
        a, b, c in A and alpha, beta, gamma in degrees.

    Returns
    -------
    tuple of six float

    Raises
    ------
    CrystalError
        ``unknown-space-group``.
    """
    name, mask = family(number), lattice_mask(number)
    lengths, angles = np.array(parameters[:3], dtype=float), np.array(parameters[3:], dtype=float)
    for tied in _TIES[name]:
        if tied[0] < 3:
            lengths[list(tied)] = np.exp(np.log(lengths[list(tied)]).mean())
    fixed = np.array([90.0, 90.0, 120.0 if name == "hexagonal" else 90.0])
    angles = np.where(mask[3:], angles, fixed)
    return tuple(float(x) for x in (*lengths, *angles))


def family_projection(number: int) -> tuple[Floats, Floats]:
    """Orthogonal projection of the log-symmetric lattice vector onto the family.

    The vector is log S of the symmetric stretch ``S = (L L^T)^(1/2)`` of the conventional cell with rows L, written
    (xx, yy, zz, sqrt2 yz, sqrt2 xz, sqrt2 xy); adding a multiple of (1, 1, 1, 0, 0, 0), which scales the volume,
    commutes with it. The cells of one family form an affine subspace: in the hexagonal one ``xy = -ln(3) / 4``, because
    the metric of the basal plane has the eigenvalues a^2/2 and 3 a^2/2; in the others zeros and equal entries (after
    Jiao et al., DiffCSP++, ICLR 2024).

    Parameters
    ----------
    number : int
        Space group.

    Returns
    -------
    matrix : ndarray, shape (6, 6)
        Symmetric projector.
    offset : ndarray, shape (6,)
        The projected vector is ``matrix @ v + offset``.

    Raises
    ------
    CrystalError
        ``unknown-space-group``.
    """
    name = family(number)
    matrix, offset = np.zeros((6, 6)), np.zeros(6)
    for tied in _TIES[name]:
        matrix[np.ix_(tied, tied)] = 1.0 / len(tied)
    if name == "hexagonal":
        offset[5] = -math.sqrt(2.0) * math.log(3.0) / 4.0
    return matrix, offset


def log_lattice(cells: Floats) -> Floats:
    """Log-symmetric vectors of cells.

    Parameters
    ----------
    cells : ndarray, shape (..., 3, 3)
        Rows in A.

    Returns
    -------
    ndarray, shape (..., 6)
        (xx, yy, zz, sqrt2 yz, sqrt2 xz, sqrt2 xy) of log (L L^T)^(1/2).
    """
    w, v = np.linalg.eigh(cells @ np.swapaxes(cells, -1, -2))
    log_s = (v * (0.5 * np.log(w))[..., None, :]) @ np.swapaxes(v, -1, -2)
    r = math.sqrt(2.0)
    parts = [log_s[..., i, i] for i in range(3)]
    parts += [r * log_s[..., 1, 2], r * log_s[..., 0, 2], r * log_s[..., 0, 1]]
    return np.stack(parts, axis=-1)


def cell_of(vectors: Floats) -> Floats:
    """Cells (symmetric matrices) of log-symmetric vectors, the inverse of `log_lattice` up to a rotation.

    Parameters
    ----------
    vectors : ndarray, shape (..., 6)

    Returns
    -------
    ndarray, shape (..., 3, 3)
        Rows in A, right-handed.
    """
    x = np.asarray(vectors, dtype=float)
    r = 1.0 / math.sqrt(2.0)
    xx, yy, zz, yz, xz, xy = np.moveaxis(x * np.array([1, 1, 1, r, r, r]), -1, 0)
    log_s = np.stack([xx, xy, xz, xy, yy, yz, xz, yz, zz], axis=-1).reshape(*x.shape[:-1], 3, 3)
    w, v = np.linalg.eigh(log_s)
    cells: Floats = (v * np.exp(w)[..., None, :]) @ np.swapaxes(v, -1, -2)
    return cells


def project_strain(number: int, strain: Floats) -> Floats:
    """Part of a strain that keeps the family, in the Cartesian axes of the standard cell.

    Axes: b along y in the monoclinic family (as ``pymatgen.core.Lattice.from_parameters`` places it), the principal
    axes along x, y, z in the orthorhombic, tetragonal and cubic ones, c along z in the hexagonal one. The result is the
    mean of the strain over the point group.

    Parameters
    ----------
    number : int
        Space group.
    strain : ndarray, shape (..., 6)
        (xx, yy, zz, yz, xz, xy), any scaling of the last three.

    Returns
    -------
    ndarray, shape (..., 6)

    Raises
    ------
    CrystalError
        ``unknown-space-group``.
    """
    projected: Floats = np.asarray(strain, dtype=float) @ family_projection(number)[0]
    return projected


def lattice_of(parameters: tuple[float, ...]) -> Any:
    """Build the pymatgen ``Lattice`` of six cell parameters (A and degrees)."""
    from pymatgen.core import Lattice

    return Lattice.from_parameters(*parameters)
