"""Quadrature for a piecewise-linear function against kernels that are singular at omega = 0."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

_X, _W = np.polynomial.legendre.leggauss(4)
#: Widest piece: with x1/x0 <= sqrt(2) four Gauss points integrate 1/x to about 1e-9.
_MAX_LOG_RATIO = 0.5 * np.log(2.0)
#: The piece between 0 and the first point starts at this fraction of it; what is below carries 1e-9 of it.
_ROOT = 2.0**-30
#: A grid k d or (k + 1/2) d starts 1 or 1/2 spacing above zero; outside this window zero is no point of it.
_MISSING_POINT = (0.1, 1.25)


def reaches_zero(omega: FloatArray) -> bool:
    """Whether zero is the missing first point of the grid, so that the function goes linearly to 0 there.

    Otherwise it is 0 below its first point: a box that starts at 2 meV on a grid of three points stays one.
    """
    if omega.size < 2:
        return False
    low, high = _MISSING_POINT
    return bool(low <= omega[0] / (omega[1] - omega[0]) <= high)


def linear_rule(
    omega: FloatArray, values: FloatArray, *, from_zero: bool | None = None
) -> tuple[FloatArray, FloatArray, NDArray[np.int64]]:
    """Return nodes, weights and, per node, the index of the grid point that closes its piece.

    Parameters
    ----------
    omega : ndarray, shape (n,)
        Strictly increasing, > 0.
    values : ndarray, shape (n,)
        The function on the grid.
    from_zero : bool, optional
        Whether the function goes linearly to 0 at omega = 0; decided by `reaches_zero` when not given.

    Returns
    -------
    nodes, weights : ndarray, shape (m,)
        sum(weights * f(nodes)) approximates int f(x) linear-interpolant(x) dx.
    owner : ndarray of int, shape (m,)
        Grid index i such that the node lies in (omega[i-1], omega[i]].
    """
    x, y, first = omega, values, 1
    if reaches_zero(omega) if from_zero is None else from_zero:
        x = np.concatenate([[omega[0] * _ROOT], omega])
        y = np.concatenate([[values[0] * _ROOT], values])
        first = 0
    # A ratio of the extremes of floating point overflows; a difference of logarithms does not.
    log_ratio = np.diff(np.log(x))
    pieces = np.maximum(1, np.ceil(log_ratio / _MAX_LOG_RATIO)).astype(np.int64)
    interval = np.repeat(np.arange(x.size - 1), pieces)
    step = np.arange(interval.size) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    start, width = x[interval], x[interval + 1] - x[interval]
    left = _edge(start, width, log_ratio[interval], step, pieces[interval])
    right = _edge(start, width, log_ratio[interval], step + 1, pieces[interval])
    half, middle = 0.5 * (right - left), 0.5 * (right + left)
    # Offsets from the interval's start keep full precision for narrow intervals far from zero.
    offset = middle[:, None] + half[:, None] * _X
    fraction = offset / width[:, None]
    value = y[interval, None] * (1.0 - fraction) + y[interval + 1, None] * fraction
    nodes = (start[:, None] + offset).ravel()
    weights = (half[:, None] * _W * value).ravel()
    owner = np.repeat(interval + first, _X.size)
    used = weights != 0.0
    return nodes[used], weights[used], owner[used]


def _edge(
    start: FloatArray,
    width: FloatArray,
    log_ratio: FloatArray,
    step: NDArray[np.int64],
    pieces: NDArray[np.int64],
) -> FloatArray:
    """Offset of the step-th of `pieces` geometric cuts from the interval's start."""
    edge = start * np.expm1(log_ratio * step / pieces)
    return np.asarray(np.where(step == pieces, width, edge))
