"""Cell vectors of the Bravais lattices as numbered by Quantum ESPRESSO's ``ibrav``."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from onnes.errors import InputError

Vectors = list[list[float]]


def _fcc(a: float, *_: float) -> Vectors:
    h = a / 2
    return [[-h, 0, h], [0, h, h], [-h, h, 0]]


def _bcc(a: float, *_: float) -> Vectors:
    h = a / 2
    return [[h, h, h], [-h, h, h], [-h, -h, h]]


def _bcc_symmetric(a: float, *_: float) -> Vectors:
    h = a / 2
    return [[-h, h, h], [h, -h, h], [h, h, -h]]


def _hexagonal(a: float, _b: float, c: float, *_: float) -> Vectors:
    return [[a, 0, 0], [-a / 2, a * np.sqrt(3) / 2, 0], [0, 0, c]]


def _trigonal(a: float, _b: float, _c: float, cosine: float, *_: float) -> Vectors:
    x, y, z = np.sqrt((1 - cosine) / 2), np.sqrt((1 - cosine) / 6), np.sqrt((1 + 2 * cosine) / 3)
    return [[a * x, -a * y, a * z], [0, 2 * a * y, a * z], [-a * x, -a * y, a * z]]


def _trigonal_111(a: float, _b: float, _c: float, cosine: float, *_: float) -> Vectors:
    y, z = np.sqrt((1 - cosine) / 6), np.sqrt((1 + 2 * cosine) / 3)
    u, v = a / np.sqrt(3) * (z - 2 * np.sqrt(2) * y), a / np.sqrt(3) * (z + np.sqrt(2) * y)
    return [[u, v, v], [v, u, v], [v, v, u]]


def _body_tetragonal(a: float, _b: float, c: float, *_: float) -> Vectors:
    return [[a / 2, -a / 2, c / 2], [a / 2, a / 2, c / 2], [-a / 2, -a / 2, c / 2]]


def _base(a: float, b: float, c: float, *_: float) -> Vectors:
    return [[a / 2, b / 2, 0], [-a / 2, b / 2, 0], [0, 0, c]]


def _base_other(a: float, b: float, c: float, *_: float) -> Vectors:
    return [[a / 2, -b / 2, 0], [a / 2, b / 2, 0], [0, 0, c]]


def _base_a(a: float, b: float, c: float, *_: float) -> Vectors:
    return [[a, 0, 0], [0, b / 2, -c / 2], [0, b / 2, c / 2]]


def _face(a: float, b: float, c: float, *_: float) -> Vectors:
    return [[a / 2, 0, c / 2], [a / 2, b / 2, 0], [0, b / 2, c / 2]]


def _body(a: float, b: float, c: float, *_: float) -> Vectors:
    return [[a / 2, b / 2, c / 2], [-a / 2, b / 2, c / 2], [-a / 2, -b / 2, c / 2]]


def _monoclinic_c(a: float, b: float, c: float, cos_ab: float, *_: float) -> Vectors:
    return [[a, 0, 0], [b * cos_ab, b * np.sqrt(1 - cos_ab**2), 0], [0, 0, c]]


def _monoclinic_b(a: float, b: float, c: float, _4: float, cos_ac: float, *_: float) -> Vectors:
    return [[a, 0, 0], [0, b, 0], [c * cos_ac, 0, c * np.sqrt(1 - cos_ac**2)]]


def _base_monoclinic_c(a: float, b: float, c: float, cos_ab: float, *_: float) -> Vectors:
    return [[a / 2, 0, -c / 2], [b * cos_ab, b * np.sqrt(1 - cos_ab**2), 0], [a / 2, 0, c / 2]]


def _base_monoclinic_b(a: float, b: float, c: float, _4: float, cos_ac: float, *_: float) -> Vectors:
    return [[a / 2, b / 2, 0], [-a / 2, b / 2, 0], [c * cos_ac, 0, c * np.sqrt(1 - cos_ac**2)]]


def _triclinic(a: float, b: float, c: float, bc: float, ac: float, ab: float) -> Vectors:
    sine = np.sqrt(1 - ab**2)
    y = (bc - ac * ab) / sine
    return [[a, 0, 0], [b * ab, b * sine, 0], [c * ac, c * y, c * np.sqrt(1 - ac**2 - y**2)]]


#: ibrav -> (function of a, b, c and three cosines; the celldm entries that must be set)
_TABLE: dict[int, tuple[Callable[..., Vectors], tuple[int, ...]]] = {
    1: (lambda a, *_: [[a, 0, 0], [0, a, 0], [0, 0, a]], ()),
    2: (_fcc, ()),
    3: (_bcc, ()),
    -3: (_bcc_symmetric, ()),
    4: (_hexagonal, (3,)),
    5: (_trigonal, (4,)),
    -5: (_trigonal_111, (4,)),
    6: (lambda a, _b, c, *_: [[a, 0, 0], [0, a, 0], [0, 0, c]], (3,)),
    7: (_body_tetragonal, (3,)),
    8: (lambda a, b, c, *_: [[a, 0, 0], [0, b, 0], [0, 0, c]], (2, 3)),
    9: (_base, (2, 3)),
    -9: (_base_other, (2, 3)),
    91: (_base_a, (2, 3)),
    10: (_face, (2, 3)),
    11: (_body, (2, 3)),
    12: (_monoclinic_c, (2, 3, 4)),
    -12: (_monoclinic_b, (2, 3, 5)),
    13: (_base_monoclinic_c, (2, 3, 4)),
    -13: (_base_monoclinic_b, (2, 3, 5)),
    14: (_triclinic, (2, 3, 4, 5, 6)),
}


def bravais_cell(ibrav: int, celldm: list[float]) -> np.ndarray:
    """Return the primitive vectors of a numbered Bravais lattice.

    Parameters
    ----------
    ibrav : int
        Number in the pw.x input.
    celldm : list of 6 floats
        a in any length unit; b/a; c/a; three cosines, as pw.x defines them for this ibrav. Zero means not
        given.

    Returns
    -------
    ndarray, shape (3, 3)
        Row vectors in the unit of a.

    Raises
    ------
    InputError
        ``unknown-ibrav``; ``no-cell`` when a needed entry is missing or the angles span no cell.
    """
    if ibrav not in _TABLE:
        raise InputError("unknown-ibrav", f"ibrav = {ibrav}; known are {sorted(_TABLE)} and 0")
    make, needed = _TABLE[ibrav]
    # A cosine of 0 is a right angle, so only lengths can be recognised as missing.
    missing = [k for k in (1, *needed) if k <= 3 and celldm[k - 1] == 0.0]
    if missing:
        raise InputError("no-cell", f"ibrav = {ibrav} needs celldm({missing[0]})")
    a, b, c = celldm[0], celldm[0] * celldm[1], celldm[0] * celldm[2]
    with np.errstate(invalid="ignore", divide="ignore"):
        cell = np.array(make(a, b, c, *celldm[3:6]), dtype=float)
    if not np.all(np.isfinite(cell)):
        raise InputError("no-cell", f"ibrav = {ibrav}: the cosines {celldm[3:6]} span no cell")
    return cell
