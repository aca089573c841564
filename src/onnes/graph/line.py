"""Line graph: pairs of bonds that share an atom, with the cosine of the angle between them (numpy only)."""

from __future__ import annotations

import numpy as np

from onnes.graph.neighbours import Bonds
from onnes.graph.settings import GraphSettings
from onnes.graph.soft import fade


def line_edges(
    src: np.ndarray, dst: np.ndarray, n: int, allowed: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return every pair (a, b) of directed bonds where a ends at the atom from which b starts.

    The way back (b is a reversed, cosine 1) is one of the pairs, as in Choudhary & DeCost (2021).

    Parameters
    ----------
    src, dst : ndarray of int, shape (e,)
        Bonds, sorted by ``src``.
    n : int
        Number of atoms.
    allowed : ndarray of bool, shape (e,), optional
        Bonds that take part.

    Returns
    -------
    a, b : ndarray of int, shape (t,)
        Sorted by ``a``.
    """
    take = np.arange(len(src)) if allowed is None else np.flatnonzero(allowed)
    count = np.bincount(src[take], minlength=n)
    first = np.cumsum(count) - count  # bonds that start at an atom are consecutive in ``take``
    repeats = count[dst[take]]
    a = np.repeat(take, repeats)
    within = np.arange(len(a)) - np.repeat(np.cumsum(repeats) - repeats, repeats)
    b = take[np.repeat(first[dst[take]], repeats) + within]
    return a, b


def cosines(vector: np.ndarray, distance: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the cosine of the angle at the shared atom, ``-v_a . v_b / (|v_a| |v_b|)``.

    Parameters
    ----------
    vector : ndarray, shape (e, 3)
    distance : ndarray, shape (e,)
    a, b : ndarray of int, shape (t,)

    Returns
    -------
    ndarray, shape (t,)
    """
    unit = vector / distance[:, None]
    return np.clip(-np.einsum("tx,tx->t", unit[a], unit[b]), -1.0, 1.0)


def find_angles(
    bonds: Bonds, settings: GraphSettings
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the line graph of a crystal.

    Parameters
    ----------
    bonds : Bonds
    settings : GraphSettings

    Returns
    -------
    a, b : ndarray of int, shape (t,)
        Bonds of every angle.
    cosine : ndarray, shape (t,)
    weight : ndarray, shape (t,)
        Product of the weights of the two bonds, fading like them.
    """
    n = len(bonds.reach)
    if settings.line_neighbours and bonds.angle_reach is not None:
        # Of a bond, the weight at the end where the angle sits counts: where a ends, where b starts.
        reach = bonds.angle_reach[np.stack([bonds.dst, bonds.src])]
        at_end, at_start = fade(bonds.distance / reach, settings.fade)
    else:
        at_end = at_start = bonds.weight
    a, b = line_edges(bonds.src, bonds.dst, n, np.maximum(at_end, at_start) > 0)
    product = at_end[a] * at_start[b]
    if settings.kind != "nearest":
        keep = product > 0
        a, b, product = a[keep], b[keep], product[keep]
    return a, b, cosines(bonds.vector, bonds.distance, a, b), product
