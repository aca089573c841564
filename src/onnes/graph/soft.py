"""Smoothly fading neighbour counts and the radius of every atom that holds a given count."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def fade(x: np.ndarray, width: float) -> np.ndarray:
    """Return a weight that is 1 up to 1 - width and falls to 0 at 1, twice differentiable.

    Parameters
    ----------
    x : ndarray
        Distance over radius.
    width : float
        Length of the fall.

    Returns
    -------
    ndarray
    """
    t = np.clip((1.0 - x) / width, 0.0, 1.0)
    return t**3 * (10.0 - 15.0 * t + 6.0 * t * t)


def soft_radii(
    src: np.ndarray, distance: np.ndarray, n: int, counts: Sequence[int], cap: float, width: float
) -> np.ndarray:
    """Return the radii of every atom at which the faded count of its neighbours reaches given numbers.

    The sum over neighbours of ``fade(d / r, width)`` grows with r; the root is found by Newton steps kept inside
    a bracket. The target is ``count - 0.5``: where no neighbour is fading the sum is a whole number and flat, so
    a half-integer has exactly one root, and the root moves smoothly when the crystal does.

    Parameters
    ----------
    src : ndarray of int, shape (p,)
        Centre of every pair.
    distance : ndarray, shape (p,)
        In A.
    n : int
        Number of atoms.
    counts : sequence of int, length c
        Numbers of neighbours wanted.
    cap : float
        Largest radius in A.
    width : float
        See `fade`.

    Returns
    -------
    ndarray, shape (c, n)
        Radii in A, at most ``cap``.
    """
    # Below d_k fewer than k are inside; at d_k / (1 - width) all of the k nearest count fully. The root is between
    # the two, and pairs beyond the upper one do not matter.
    kth = _kth_distances(src, distance, n, counts, cap)
    high = np.minimum(kth / (1 - width), cap)
    rows, taken = np.nonzero(distance < high[:, src])
    at, d = rows * n + src[taken], distance[taken]
    low, high = np.minimum(kth, high).ravel(), high.ravel()
    target = np.repeat(np.asarray(counts) - 0.5, n)
    capped = np.bincount(at, fade(d / high[at], width), len(high)) <= target
    low = np.where(capped, high, low)
    for _ in range(2):
        low, high = _narrow(at, d, target, low, high, width)
    r = (low + high) / 2
    for _ in range(60):
        x = d / r[at]
        t = np.minimum(np.maximum((1.0 - x) / width, 0.0), 1.0)
        value = np.bincount(at, t**3 * (10.0 - 15.0 * t + 6.0 * t * t), len(r)) - target
        if (capped | (np.abs(value) < 1e-10)).all():
            break
        slope = np.bincount(at, 30.0 * (t * (1.0 - t)) ** 2 * x, len(r)) / (width * r)
        below = value < 0
        low, high = np.where(below, r, low), np.where(below, high, r)
        newton = r - value / np.maximum(slope, 1e-300)
        new = np.where((newton > low) & (newton < high), newton, (low + high) / 2)
        r = np.where(capped, r, new)
    return r.reshape(len(counts), n)


def _narrow(
    at: np.ndarray, d: np.ndarray, target: np.ndarray, low: np.ndarray, high: np.ndarray, width: float
) -> tuple[np.ndarray, np.ndarray]:
    """Narrow brackets seven-fold: one look at eight radii saves many Newton steps on a flat part of the sum."""
    steps, size = 8, len(low)
    grid = low + np.linspace(0.0, 1.0, steps)[:, None] * (high - low)
    place = at + size * np.arange(steps)[:, None]
    count = np.bincount(place.ravel(), fade(d / grid[:, at], width).ravel(), steps * size)
    first = np.clip((count.reshape(steps, size) < target).sum(axis=0), 1, steps - 1)
    column = np.arange(size)
    return grid[first - 1, column], grid[first, column]


def rank(src: np.ndarray, distance: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sort the pairs of every atom by distance.

    Parameters
    ----------
    src : ndarray of int, shape (p,)
    distance : ndarray, shape (p,)
    n : int
        Number of atoms.

    Returns
    -------
    order : ndarray of int, shape (p,)
        By atom, then distance.
    start, count : ndarray of int, shape (n,)
        Where the pairs of every atom start in that order, and how many there are.
    """
    count = np.bincount(src, minlength=n)
    return np.lexsort((distance, src)), np.cumsum(count) - count, count


def _kth_distances(
    src: np.ndarray, distance: np.ndarray, n: int, counts: Sequence[int], default: float
) -> np.ndarray:
    order, start, count = rank(src, distance, n)
    kth = np.full((len(counts), n), default)
    for row, k in zip(kth, counts, strict=True):
        enough = count >= k
        row[enough] = distance[order[start[enough] + k - 1]]
    return kth
