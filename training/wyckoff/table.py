"""Compute the table of all Wyckoff positions of the 230 space groups: src/onnes/crystal/wyckoff_table.npz.

1. Operations of each group in the standard setting of the International Tables (unique axis b, cell choice 1,
   hexagonal axes, origin choice 2), from moyopy.
2. Exact enumeration (integers and fractions, no tolerance): the fixed sets of single operations are closed under
   intersection; the orbits of these affine subspaces under the group are its Wyckoff positions, because two points
   belong to one position exactly when their site-symmetry groups are conjugate.
3. Letters: a sample crystal with every position occupied by an element of its own is analysed by moyopy, and each
   atom, moved into the standard cell, is looked up among the enumerated subspaces. Representative coordinates are
   those of the International Tables, as moyopy prints them, after they were found among the enumerated subspaces.
4. Normaliser: proper changes of axes within the metric of the lattice system (for orthorhombic groups also exchanges
   of axes) and shifts of the origin that map the group onto itself, one of each coset, with the exchange of letters
   that each causes.
5. Checks: number of positions of known groups, 1,731 in all, multiplicities, and that both sources of letters agree.

    python training/wyckoff/table.py --out src/onnes/crystal/wyckoff_table.npz
"""

from __future__ import annotations

import argparse
import re
import time
from fractions import Fraction
from pathlib import Path

import moyopy
import numpy as np

#: Translations and offsets are whole multiples of 1 / UNIT.
UNIT = 24
LETTERS = "abcdefghijklmnopqrstuvwxyzA"
#: Known numbers of positions, and the total over all types.
KNOWN_COUNTS = {
    1: 1,
    2: 9,
    47: 27,
    62: 4,
    99: 7,
    123: 21,
    166: 9,
    191: 18,
    194: 12,
    221: 14,
    225: 12,
    227: 9,
    230: 8,
}
TOTAL = 1731

Integers = tuple[tuple[int, ...], ...]
#: An affine subspace modulo the lattice: integer rows W (saturated, Hermite form) and c with W x = c modulo 1.
Subspace = tuple[Integers, tuple[Fraction, ...]]


def smith(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unimodular U (k, k), diagonal D (k, 3) and unimodular V (3, 3) with U M V = D, all integers."""
    d = np.array(matrix, dtype=object)
    k, n = d.shape
    u, v = np.eye(k, dtype=object), np.eye(n, dtype=object)
    u, v = u.astype(int).astype(object), v.astype(int).astype(object)
    for step in range(min(k, n)):
        while True:
            rest = [(abs(d[i, j]), i, j) for i in range(step, k) for j in range(step, n) if d[i, j]]
            if not rest:
                return u, d, v
            _, i, j = min(rest)
            d[[step, i]], u[[step, i]] = d[[i, step]], u[[i, step]]
            d[:, [step, j]], v[:, [step, j]] = d[:, [j, step]], v[:, [j, step]]
            pivot = d[step, step]
            for r in range(step + 1, k):
                q = d[r, step] // pivot
                d[r], u[r] = d[r] - q * d[step], u[r] - q * u[step]
            for c in range(step + 1, n):
                q = d[step, c] // pivot
                d[:, c], v[:, c] = d[:, c] - q * d[:, step], v[:, c] - q * v[:, step]
            if not any(d[step + 1 :, step]) and not any(d[step, step + 1 :]):
                break
    return u, d, v


def inverse(unimodular: np.ndarray) -> np.ndarray:
    """Inverse of an integer matrix with determinant +-1."""
    found = np.rint(np.linalg.inv(unimodular.astype(float))).astype(int).astype(object)
    assert (found.dot(unimodular) == np.eye(len(unimodular), dtype=int)).all()
    return found


def hermite(rows: np.ndarray) -> np.ndarray:
    """Row-style Hermite normal form of an integer matrix of full row rank, and the unimodular matrix to it."""
    h = np.array(rows, dtype=object)
    k = len(h)
    t = np.eye(k, dtype=int).astype(object)
    top = 0
    for column in range(h.shape[1]):
        while True:
            nonzero = [r for r in range(top, k) if h[r, column]]
            if not nonzero:
                break
            pivot = min(nonzero, key=lambda r: abs(h[r, column]))
            h[[top, pivot]], t[[top, pivot]] = h[[pivot, top]], t[[pivot, top]]
            if h[top, column] < 0:
                h[top], t[top] = -h[top], -t[top]
            for r in range(k):
                if r != top:
                    q = h[r, column] // h[top, column]
                    h[r], t[r] = h[r] - q * h[top], t[r] - q * t[top]
            if not any(h[r, column] for r in range(top + 1, k)):
                top += 1
                break
        if top == k:
            break
    return np.concatenate([h, t], axis=1)


def canonical(w: np.ndarray, c: np.ndarray) -> Subspace:
    """One form of each subspace modulo the lattice."""
    if not len(w):
        return (), ()
    both = hermite(w)
    h, t = both[:, :3], both[:, 3:]
    return (
        tuple(tuple(int(x) for x in row) for row in h),
        tuple(Fraction(x) % 1 for x in t.dot(c)),
    )


def solve(matrix: np.ndarray, c: np.ndarray) -> list[Subspace]:
    """All solutions of M x = c modulo 1: components modulo the lattice."""
    u, d, v = smith(matrix)
    right = u.dot(c)
    rank = sum(1 for i in range(min(d.shape)) if d[i, i])
    if any(Fraction(x).denominator != 1 for x in right[rank:]):
        return []
    rows = inverse(v)[:rank]
    values: list[list[Fraction]] = [[]]
    for i in range(rank):
        size = abs(int(d[i, i]))
        start = Fraction(right[i]) / int(d[i, i])
        values = [[*head, start + Fraction(j, size)] for head in values for j in range(size)]
    return [canonical(rows, np.array(value, dtype=object)) for value in values]


def point_of(space: Subspace) -> np.ndarray:
    """A point of a subspace."""
    w, c = space
    if not w:
        return np.array([Fraction(0)] * 3, dtype=object)
    u, d, v = smith(np.array(w, dtype=object))
    y = [Fraction(x) / int(d[i, i]) for i, x in enumerate(u.dot(np.array(c, dtype=object)))]
    return v.dot(np.array(y + [Fraction(0)] * (3 - len(y)), dtype=object))


def operations(number: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Operations modulo whole translations in the standard setting, centring included."""
    found = moyopy.operations_from_number(number, setting=moyopy.Setting.standard())
    out = []
    for rotation, translation in zip(found.rotations, found.translations, strict=True):
        t = np.rint(np.array(translation) * UNIT)
        assert np.abs(t - np.array(translation) * UNIT).max() < 1e-6
        out.append(
            (
                np.array(rotation, dtype=int).astype(object),
                np.array([Fraction(int(x) % UNIT, UNIT) for x in t], dtype=object),
            )
        )
    return out


def image(space: Subspace, rotation: np.ndarray, back: np.ndarray, translation: np.ndarray) -> Subspace:
    """The subspace after an operation; ``back`` is the inverse rotation."""
    w, c = space
    if not w:
        return space
    rows = np.array(w, dtype=object).dot(back)
    return canonical(rows, np.array(c, dtype=object) + rows.dot(translation))


def enumerate_positions(number: int) -> list[set[Subspace]]:
    """Orbits of stabiliser subspaces of a group, special ones first."""
    ops = [(r, inverse(r), t) for r, t in operations(number)]
    identity = np.eye(3, dtype=int).astype(object)
    single: set[Subspace] = set()
    for r, _, t in ops:
        single.update(solve(r - identity, -t))
    orbits: list[set[Subspace]] = []
    todo: list[Subspace] = sorted(single, key=lambda s: len(s[0]))
    seen: set[Subspace] = set()
    while todo:
        space = todo.pop()
        if space in seen:
            continue
        orbit = {image(space, *op) for op in ops}
        seen |= orbit
        orbits.append(orbit)
        w, c = space
        if len(w) == 3:
            continue
        for other in single:
            if other[0] and other != space:
                rows = np.array([*w, *other[0]], dtype=object)
                todo += [s for s in solve(rows, np.array([*c, *other[1]], dtype=object)) if s not in seen]
    return sorted(orbits, key=lambda orbit: -len(min(orbit)[0]))


def parse(text: str) -> tuple[np.ndarray, np.ndarray]:
    """Matrix (3, d) and offset of coordinates such as ``x,2x,z+1/4``; columns are the letters that occur."""
    names = [name for name in "xyz" if name in text]
    a = np.zeros((3, len(names)), dtype=int).astype(object)
    b = np.array([Fraction(0)] * 3, dtype=object)
    for row, part in enumerate(text.replace(" ", "").split(",")):
        for sign, size, name in re.findall(r"([+-]?)(\d+(?:/\d+)?)?\*?([xyz]?)", part):
            if not size and not name:
                continue
            value = Fraction(size or 1) * (-1 if sign == "-" else 1)
            if name:
                a[row, names.index(name)] += int(value)
            else:
                b[row] += value
    return a, b


def subspace_of(a: np.ndarray, b: np.ndarray) -> Subspace:
    """Canonical form of x = A u + b, which must be saturated."""
    d = a.shape[1]
    if d == 0:
        return canonical(np.eye(3, dtype=int).astype(object), b)
    if d == 3:
        return (), ()
    u, diagonal, _ = smith(a)
    assert all(abs(diagonal[i, i]) == 1 for i in range(d)), "free parameters do not have period 1"
    rows = u[d:]
    return canonical(rows, rows.dot(b))


def generic_lattice(number: int) -> np.ndarray:
    """Rows of a lattice of the group's family without accidental symmetry."""
    from pymatgen.core import Lattice

    a, b, c = 9.13, 10.37, 12.71
    if number <= 2:
        return np.array(Lattice.from_parameters(a, b, c, 81.0, 97.0, 104.0).matrix)
    if number <= 15:
        return np.array(Lattice.from_parameters(a, b, c, 90, 103.0, 90).matrix)
    if number <= 74:
        return np.diag([a, b, c])
    if number <= 142:
        return np.diag([a, a, c])
    if number <= 194:
        return np.array(Lattice.hexagonal(a, c).matrix)
    return np.diag([a, a, a])


def sample(number: int, orbits: list[set[Subspace]], rng: np.random.Generator) -> moyopy.Cell:
    """A crystal that occupies every position with an element of its own, and the general one three times."""
    ops = operations(number)
    rotations = np.array([r.astype(float) for r, _ in ops])
    shifts = np.array([t.astype(float) for _, t in ops])
    frac, kind = [], []
    spaces = [min(orbit) for orbit in orbits] + [((), ())] * 2
    for index, space in enumerate(spaces):
        origin = point_of(space).astype(float)
        free = smith(np.array(space[0], dtype=object))[2][:, len(space[0]) :] if space[0] else np.eye(3)
        x = origin + free.astype(float) @ rng.uniform(0.03, 0.47, free.shape[1])
        points = (rotations @ x + shifts) % 1.0
        unique: list[np.ndarray] = []
        for p in points:
            if not any(np.abs((p - q) - np.rint(p - q)).max() < 1e-5 for q in unique):
                unique.append(p)
        frac += unique
        kind += [index + 1] * len(unique)
    return moyopy.Cell(generic_lattice(number).tolist(), [p.tolist() for p in frac], kind)


def lettered(number: int) -> list[tuple[str, int, np.ndarray, np.ndarray, Subspace]]:
    """Letter, multiplicity, A, b and subspace of all positions of a group, in the order of letters."""
    orbits = enumerate_positions(number)
    where = {space: i for i, orbit in enumerate(orbits) for space in orbit}
    order = len(operations(number))
    cell = sample(number, orbits, np.random.default_rng(number))
    found = moyopy.MoyoDataset(cell, symprec=1e-4, setting=moyopy.Setting.standard())
    assert found.number == number, (number, found.number)
    printed = {w.letter: w for w in found.normalizer_wyckoff_positions().wyckoffs}
    table = {}
    for letter, w in printed.items():
        a, b = parse(w.coordinates)
        table[where[subspace_of(a, b)]] = (letter, w.multiplicity, a, b, subspace_of(a, b))
    assert len(table) == len(orbits), (number, len(table), len(orbits))
    by_transformation = letters_of_atoms(cell, found, orbits)
    for index, (letter, multiplicity, a, b, _) in table.items():
        assert by_transformation[index] == letter, (number, letter, by_transformation[index])
        assert images_count(number, a, b) == multiplicity and order % multiplicity == 0
    out = sorted(table.values(), key=lambda row: LETTERS.index(row[0]))
    assert [row[0] for row in out] == list(LETTERS[: len(out)]), number
    return out


def images_count(number: int, a: np.ndarray, b: np.ndarray) -> int:
    """Number of different maps u -> x among the operations applied to A u + b."""
    return len(
        {
            (tuple(r.dot(a).ravel()), tuple(Fraction(x) % 1 for x in r.dot(b) + t))
            for r, t in operations(number)
        }
    )


def letters_of_atoms(
    cell: moyopy.Cell, found: moyopy.MoyoDataset, orbits: list[set[Subspace]]
) -> dict[int, str]:
    """Letter of each orbit of subspaces, from atoms moved into the standard cell, not from printed coordinates."""
    back = np.linalg.inv(np.array(found.std_linear))
    moved = (np.array(cell.positions) - np.array(found.std_origin_shift)) @ back.T
    arrays = [
        [(np.array(w, dtype=float).reshape(-1, 3), np.array(c, dtype=float)) for w, c in orbit]
        for orbit in orbits
    ]
    out: dict[int, str] = {}
    first = {kind: i for i, kind in reversed(list(enumerate(cell.numbers)))}
    for i in first.values():
        # Special positions come first, so the first hit is the smallest subspace that holds the atom.
        for index, spaces in enumerate(arrays):
            rest = [w @ moved[i] - c for w, c in spaces]
            if any(len(r) == 0 or np.abs(r - np.rint(r)).max() < 1e-5 for r in rest):
                assert out.setdefault(index, found.wyckoffs[i]) == found.wyckoffs[i]
                break
    return out


def axes_changes(number: int) -> list[np.ndarray]:
    """Proper rotations of the lattice system in the basis of the cell; all exchanges of axes if orthorhombic."""
    if number <= 2:
        return [np.eye(3, dtype=int).astype(object)]
    if number <= 15:
        return [np.diag(d).astype(object) for d in ([1, 1, 1], [-1, 1, -1])]
    if 143 <= number <= 194:
        generators = [
            np.array(g) for g in ([[1, -1, 0], [1, 0, 0], [0, 0, 1]], [[0, 1, 0], [1, 0, 0], [0, 0, -1]])
        ]
    else:
        generators = [np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1]]), np.diag([1, -1, -1])]
        if not 75 <= number <= 142:
            generators.append(np.array([[0, 0, 1], [1, 0, 0], [0, 1, 0]]))
    found = {tuple(np.eye(3, dtype=int).ravel())}
    grown = True
    while grown:
        products = {tuple((np.reshape(m, (3, 3)) @ g).ravel()) for m in found for g in generators}
        grown = not products <= found
        found |= products
    # The identity first, so that a description stays as it is where nothing speaks against it.
    return [
        np.reshape(m, (3, 3)).astype(object) for m in sorted(found, key=lambda m: (m[0] + m[4] + m[8] < 3, m))
    ]


def generators(ops: list[tuple[np.ndarray, np.ndarray]]) -> list[tuple[np.ndarray, np.ndarray]]:
    """A few operations whose rotations generate the point group."""
    group = {(1, 0, 0, 0, 1, 0, 0, 0, 1)}
    chosen = []
    for r, t in sorted(ops, key=lambda op: -abs(int(np.trace(op[0])))):
        if tuple(r.ravel()) in group:
            continue
        chosen.append((r, t))
        group.add(tuple(r.ravel()))
        while True:
            products = {tuple(np.reshape(a, (3, 3)).dot(c[0]).ravel()) for a in group for c in chosen}
            if products <= group:
                break
            group |= products
    return chosen


def normaliser(number: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Changes x -> P x + p that map the group onto itself, one of each coset; shifts along polar axes are 0."""
    ops = operations(number)
    by_rotation: dict[tuple[int, ...], list[np.ndarray]] = {}
    for r, t in ops:
        by_rotation.setdefault(tuple(r.ravel()), []).append(t)
    first = generators([(np.reshape(r, (3, 3)), ts[0]) for r, ts in by_rotation.items()])
    centring = by_rotation[(1, 0, 0, 0, 1, 0, 0, 0, 1)]
    identity = np.eye(3, dtype=int).astype(object)
    seen: set[tuple[tuple[int, ...], Subspace]] = set()
    covered: set[tuple[int, ...]] = set()
    out = []
    for p in axes_changes(number):
        # Another member of a coset of the point group only finds the changes of the first one again.
        if tuple(p.ravel()) in covered:
            continue
        covered |= {tuple(p.dot(np.reshape(r, (3, 3))).ravel()) for r in by_rotation}
        back = inverse(p)
        if not all(any(all(x % 1 == 0 for x in p.dot(c) - d) for d in centring) for c in centring):
            continue
        spaces: list[Subspace] = [((), ())]
        for r, t in first:
            turned = p.dot(r).dot(back)
            options = by_rotation.get(tuple(turned.ravel()), [])
            grown = set()
            for w, c in spaces:
                for s in options:
                    rows = np.array([*w, *(identity - turned)], dtype=object)
                    grown.update(solve(rows, np.array([*c, *(s - p.dot(t))], dtype=object)))
            spaces = sorted(grown)
        for w, c in spaces:
            rows = np.array(w, dtype=object).reshape(-1, 3)
            members = {
                (tuple(p.dot(r).ravel()), canonical(rows, np.array(c, dtype=object) + rows.dot(p.dot(t))))
                for r, t in ops
            }
            if not members & seen:
                out.append((p, point_of((w, c))))
            seen |= members
    return out


def exchanged(number: int, changes: list[tuple[np.ndarray, np.ndarray]], rows: list) -> list[list[int]]:
    """Index of the letter that each position becomes under each change."""
    ops = [(r, inverse(r), t) for r, t in operations(number)]
    where = {image(row[4], *op): i for i, row in enumerate(rows) for op in ops}
    return [[where[image(row[4], p, inverse(p), shift)] for row in rows] for p, shift in changes]


def whole(values: np.ndarray) -> list[int]:
    """Fractions in units of 1 / UNIT."""
    scaled = [Fraction(x) % 1 * UNIT for x in values]
    assert all(x.denominator == 1 for x in scaled)
    return [int(x) for x in scaled]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    began = time.time()
    operation_rows, position_rows, change_rows = [], [], []
    for number in range(1, 231):
        rows = lettered(number)
        assert len(rows) == KNOWN_COUNTS.get(number, len(rows)), number
        for r, t in operations(number):
            operation_rows.append([number, *(int(x) for x in r.ravel()), *whole(t)])
        for letter, multiplicity, a, b, _ in rows:
            padded = np.zeros((3, 3), dtype=int)
            padded[:, : a.shape[1]] = a
            position_rows.append(
                [number, LETTERS.index(letter), multiplicity, a.shape[1], *padded.ravel().tolist(), *whole(b)]
            )
        changes = normaliser(number)
        for (p, shift), letters in zip(changes, exchanged(number, changes, rows), strict=True):
            padding = [-1] * (len(LETTERS) - len(letters))
            change_rows.append([number, *(int(x) for x in p.ravel()), *whole(shift), *letters, *padding])
        print(
            f"{number}: {len(rows)} positions, {len(changes)} changes, {time.time() - began:.0f} s",
            flush=True,
        )
    assert len(position_rows) == TOTAL, len(position_rows)
    np.savez_compressed(
        out,
        operations=np.array(operation_rows, dtype=np.int16),
        positions=np.array(position_rows, dtype=np.int16),
        changes=np.array(change_rows, dtype=np.int16),
        unit=np.array(UNIT),
    )
    print(f"{len(position_rows)} positions, {len(operation_rows)} operations, {out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
