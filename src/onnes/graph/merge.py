"""Merging of equal atoms, bonds and angles: the same output for a fraction of the work.

A message-passing network gives the same features to atoms (bonds, angles) with the same surroundings. Colour
refinement (Weisfeiler & Leman 1968) finds these classes before the network runs: colours start from element,
distance and cosine, and are refined by the multiset of incoming colours until no class splits. The partition is
equitable, so one representative of each class, with counts as weights, carries the whole computation. No
space-group search is needed, and symmetry that is broken beyond the tolerance simply merges less.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from onnes.graph.crystal_graph import BondGraph

_U = np.uint64


def merge(graph: BondGraph) -> BondGraph:
    """Return the merged graph, or the graph itself where ``merge_A`` is 0 or nothing is equal.

    Parameters
    ----------
    graph : BondGraph
        Full graph.

    Returns
    -------
    BondGraph
        Distances, cosines and fades are the means of each class.
    """
    quantum = graph.settings.merge_A
    if quantum == 0 or len(graph.src) == 0:
        return graph
    atom, bond, angle = _colours(graph, quantum)
    node_of, nodes, n_in = _classes(atom)
    bond_of, bonds, e_in = _classes(bond)
    line_of, lines, t_in = _classes(angle)
    if len(nodes) == len(atom) and len(bonds) == len(bond):
        return graph

    def mean(values: np.ndarray, of: np.ndarray, size: np.ndarray) -> np.ndarray:
        return np.bincount(of, values, len(size)) / np.maximum(size, 1)

    dst = node_of[graph.dst[bonds]]
    line_dst = bond_of[graph.line_dst[lines]]
    bond_share = mean(graph.weight, bond_of, e_in) * e_in
    return replace(
        graph,
        numbers=graph.numbers[nodes],
        share=n_in.astype(float),
        src=node_of[graph.src[bonds]],
        dst=dst,
        vector=graph.vector[bonds],
        distance=mean(graph.distance, bond_of, e_in),
        weight=bond_share / n_in[dst],
        bond_share=bond_share,
        line_src=bond_of[graph.line_src[lines]],
        line_dst=line_dst,
        cosine=mean(graph.cosine, line_of, t_in),
        line_weight=np.bincount(line_of, graph.line_weight, len(t_in)) / e_in[line_dst],
    )


def _classes(colour: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Class of every item, first item of every class, size of every class."""
    _, first, of, size = np.unique(colour, return_index=True, return_inverse=True, return_counts=True)
    return of, first, size


def _mix(x: np.ndarray) -> np.ndarray:
    """Scramble 64-bit numbers (xor-shift and multiply), so that sums of them tell multisets apart."""
    x = (x ^ (x >> _U(32))) * _U(0xD6E8FEB86659FD93)
    x = (x ^ (x >> _U(32))) * _U(0xD6E8FEB86659FD93)
    return x ^ (x >> _U(32))


def _first(x: np.ndarray) -> np.ndarray:
    return x * _U(0x9E3779B97F4A7C15)


def _second(x: np.ndarray) -> np.ndarray:
    return _mix(x + _U(0x632BE59BD9B4E019))


def _pair(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Colour of an ordered pair of colours."""
    return _mix(_first(x) + _second(y))


def _rounded(values: np.ndarray, quantum: float) -> np.ndarray:
    return np.rint(values / quantum).astype(np.int64).view(np.uint64)


def _gather(colour: np.ndarray, at: np.ndarray, n: int) -> np.ndarray:
    """Sum, modulo 2**64, of the colours that arrive at each of n places."""
    total = np.zeros(n, np.uint64)
    np.add.at(total, at, colour)
    return total


def _colours(graph: BondGraph, quantum: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    n, e = len(graph.numbers), len(graph.src)
    atom = _mix(graph.numbers.astype(np.uint64))
    bond = _pair(_rounded(graph.distance, quantum), _rounded(graph.weight, quantum))
    # The half of `_pair` that never changes stays out of the loop.
    angle = _first(_pair(_rounded(graph.cosine, quantum), _rounded(graph.line_weight, quantum)))
    found = (0, 0)
    while True:
        bond = _with_ends(bond, atom, graph)
        if len(angle):
            arriving = _mix(angle + _second(bond)[graph.line_src])
            bond = _pair(bond, _gather(arriving, graph.line_dst, e))
        atom = _pair(atom, _gather(bond, graph.dst, n))  # a bond's colour holds that of its source
        classes = (len(set(atom.tolist())), len(set(bond.tolist())))
        if classes == found:
            break
        found = classes
    bond = _with_ends(bond, atom, graph)
    if len(angle):
        end = _second(bond)
        angle = _mix(_first(_mix(angle + end[graph.line_src])) + end[graph.line_dst])
    return atom, bond, angle


def _with_ends(bond: np.ndarray, atom: np.ndarray, graph: BondGraph) -> np.ndarray:
    end = _second(atom)
    return _mix(_first(bond) + _first(end)[graph.src] + end[graph.dst])
