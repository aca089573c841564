"""CIF. pymatgen reads tokens and symmetry operations; sites are expanded here.

pymatgen's own site handling is not used because it turns a site shared by O and H into O, takes an unreadable
occupancy for 1, keeps only the last of two blocks with one name, and falls back to P1 where it does not
know the symmetry.
"""

from __future__ import annotations

import re
import warnings
from typing import Any

import numpy as np

from onnes.crystal.formula import atomic_numbers
from onnes.crystal.parsed import ISOTOPE_MASS, Parsed, Problem, Site, Species, parse_species
from onnes.errors import CrystalError, InputError, OnnesError

#: Images of one row closer than this (A) are one atom: three-digit coordinates miss a special position by
#: this much.
MERGE_A = 0.1
#: Composition stated and composition found may differ by this relative amount.
FORMULA_TOLERANCE = 0.01
#: More rows times operations than this are refused before they are expanded.
MAX_EXPANDED = 200_000
#: More atoms than this in the expanded cell are refused here; the gate has a lower, settable limit.
MAX_SITES = 5_000

_MISSING = {"", "?", "."}
#: Space groups with two standard origins: a symbol alone does not say which one is meant.
_TWO_ORIGINS = {
    *(48, 50, 59, 68, 70, 85, 86, 88, 125, 126, 129, 130, 133, 134, 137, 138, 141, 142),
    *(201, 203, 222, 224, 227, 228),
}
_EXPLICIT = ("symmetry_equiv_pos_as_xyz", "space_group_symop_operation_xyz", "symop_magn_operation")


def parse(text: str) -> list[Parsed | Problem]:
    """Read every data block that describes a structure.

    Parameters
    ----------
    text : str
        A CIF file.

    Returns
    -------
    list of Parsed or Problem
        One entry a block; blocks without a cell and atoms (``data_global``) are left out.

    Raises
    ------
    InputError
        ``no-structure`` when no block describes one.
    """
    blocks = re.split(r"^\s*data_", "\n" + text, flags=re.MULTILINE | re.IGNORECASE)[1:]
    found: list[Parsed | Problem] = []
    for number, body in enumerate(blocks, start=1):
        if not re.search(r"^\s*_(cell_length_a|atom_site_fract_x)", body, flags=re.MULTILINE | re.IGNORECASE):
            continue
        head = (body.split(None, 1) or [""])[0] if not body[:1].isspace() else ""
        name = head or str(number)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found.append(_block(body, name))
        except OnnesError as error:
            found.append(Problem(error, name))
        except Exception as error:  # pymatgen raises many types on damaged text
            if "zip()" in str(error) or isinstance(error, ZeroDivisionError):
                error = InputError("truncated", "a table of the block breaks off within a row")
                found.append(Problem(error, name))
                continue
            found.append(Problem(InputError("bad-cif", f"cannot read the block: {_short(error)}"), name))
    if not found:
        raise InputError("no-structure", "no data block has a cell and atoms")
    if len(found) == 1:
        found[0].block = ""
    names = [entry.block for entry in found]
    for k, entry in enumerate(found):
        if names.count(entry.block) > 1:
            entry.block = f"{entry.block}-{k + 1}"
    return found


def _short(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:160]


def _block(body: str, name: str) -> Parsed:
    from pymatgen.io.cif import CifParser

    parser = CifParser.from_str(f"data_{name}\n" + body.partition("\n")[2], check_cif=False)
    raw = next(iter(parser.as_dict().values()))
    data = {key.lower(): value for key, value in raw.items()}
    lattice = _lattice(data)
    rows = _rows(data)
    if not rows:
        raise InputError("no-structure", "the block has a cell but no atoms")
    operations = _operations(parser, data, lattice)
    if len(rows) * len(operations) > MAX_EXPANDED:
        raise CrystalError("too-many-atoms", f"{len(rows)} rows times {len(operations)} symmetry operations")
    sites = _expand(rows, operations, lattice)
    _check_formula(sites, data)
    return Parsed(lattice, sites, name)


def _number(value: object, what: str) -> float:
    """Read a CIF number; ``1.234(5)`` carries its uncertainty in brackets."""
    text = str(value).strip()
    found = re.fullmatch(
        r"([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|[+-]?(?:nan|inf))(\(\d*\)?)?", text, re.IGNORECASE
    )
    if not found:
        raise InputError("bad-number", f"{what} is {text[:40]!r}, not a number")
    return float(found[1])


def _lattice(data: dict[str, Any]) -> np.ndarray:
    from pymatgen.core import Lattice

    keys = [f"_cell_length_{k}" for k in "abc"] + [f"_cell_angle_{k}" for k in ("alpha", "beta", "gamma")]
    missing = [key for key in keys if str(data.get(key, "")).strip() in _MISSING]
    if missing:
        raise InputError("no-cell", f"{missing[0]} is missing")
    values = [_number(data[key], key) for key in keys]
    if not np.all(np.isfinite(values)):
        raise CrystalError("non-finite", f"cell parameters {values}")
    if min(values[:3]) <= 0 or not all(0 < a < 180 for a in values[3:]):
        raise CrystalError("zero-volume", f"cell parameters {values} span no cell")
    cosines = np.cos(np.radians(values[3:]))
    if 1 - np.sum(cosines**2) + 2 * np.prod(cosines) <= 0:
        raise CrystalError("zero-volume", f"no cell has the angles {values[3:]}")
    return np.array(Lattice.from_parameters(*values).matrix)


def _column(data: dict[str, Any], key: str, n: int) -> list[str] | None:
    column = data.get(key)
    if column is None:
        return None
    column = [column] if isinstance(column, str) else list(column)
    if len(column) != n:
        raise InputError("truncated", f"{key} has {len(column)} entries for {n} atoms")
    return column


def _rows(data: dict[str, Any]) -> list[Site]:
    """Read the atom table as it stands, one `Site` a row."""
    x = data.get("_atom_site_fract_x")
    if x is None:
        return []
    n = 1 if isinstance(x, str) else len(x)
    axes = [_column(data, f"_atom_site_fract_{k}", n) for k in "xyz"]
    labels = _column(data, "_atom_site_label", n) or [""] * n
    types = _column(data, "_atom_site_type_symbol", n)
    occupancies = _column(data, "_atom_site_occupancy", n)
    hydrogens = _column(data, "_atom_site_attached_hydrogens", n)
    if any(axis is None for axis in axes):
        raise InputError("missing-coordinates", "one of _atom_site_fract_x, _y, _z is missing")
    charges, stated = _oxidation_table(data), _stated_formula(data)
    rows = []
    for k in range(n):
        coordinates = [str(axis[k]).strip() for axis in axes if axis is not None]
        name = labels[k] or f"row {k + 1}"
        if hydrogens and hydrogens[k].strip() not in _MISSING and _number(hydrogens[k], "attached hydrogens"):
            raise CrystalError("implicit-hydrogen", f"{name} carries hydrogen without coordinates")
        if any(c in _MISSING for c in coordinates):
            raise CrystalError(
                "missing-coordinates", f"{name} has coordinates {coordinates}; it would be dropped"
            )
        amount = occupancies[k].strip() if occupancies else "1"
        weight = 1.0 if amount in _MISSING else _number(amount, f"occupancy of {name}")
        if not 0 <= weight <= 1.01:
            raise CrystalError("bad-occupancy", f"{name} has occupancy {weight:g}; 0 to 1 is accepted")
        content = _content(types[k] if types else None, labels[k], weight, charges, stated)
        if weight > 0:
            rows.append(
                Site(np.array([_number(c, f"coordinate of {name}") for c in coordinates]), content, name)
            )
    return rows


def _oxidation_table(data: dict[str, Any]) -> dict[str, float]:
    symbols, charges = data.get("_atom_type_symbol"), data.get("_atom_type_oxidation_number")
    if symbols is None or charges is None:
        return {}
    pairs = [(symbols, charges)] if isinstance(symbols, str) else zip(symbols, charges, strict=False)
    return {str(s): _number(c, "oxidation number") for s, c in pairs if str(c).strip() not in _MISSING}


def _content(
    kind: str | None, label: str, weight: float, charges: dict[str, float], stated: dict[str, float]
) -> list[tuple[Species, float]]:
    if kind is not None and kind.strip() not in _MISSING:
        if "+" in kind and re.match(r"\s*[\d.]", kind):  # Pauling file: "0.8Nb + 0.2Zr"
            parts = re.findall(r"([\d.]+)\s*([A-Z][a-z]?)", kind)
            return [(parse_species(s), weight * _number(x, "occupancy")) for x, s in parts]
        species = parse_species(kind)
        if species.oxidation is None and kind in charges:
            species = Species(species.symbol, charges[kind], species.mass)
        return [(species, weight)]
    return [(_from_label(label, stated), weight)]


def _from_label(label: str, stated: dict[str, float]) -> Species:
    """Guess the element of a label such as ``Nb1`` or ``O2A`` where the file names no type."""
    letters = re.match(r"[A-Za-z]+", label.strip())
    if not letters:
        raise CrystalError("unknown-element", f"label {label[:40]!r} names no element")
    options = [letters[0][:2].capitalize(), letters[0][:1].upper()]
    options = [s for s in dict.fromkeys(options) if s in atomic_numbers() or s in ISOTOPE_MASS]
    if stated:
        options = [s for s in options if s in stated or (s in ISOTOPE_MASS and "H" in stated)]
    elif len(options) > 1 and letters[0][1:2].islower():
        options = options[:1]  # "Co1" is cobalt; "CO1" could be carbon
    if len(options) != 1:
        raise CrystalError("unknown-element", f"label {label[:40]!r} does not name one element ({options})")
    return parse_species(options[0])


def _operations(
    parser: Any, data: dict[str, Any], lattice: np.ndarray
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Symmetry operations (rotation, translation), checked against the cell they act on."""
    explicit = [k for k in data if any(name in k for name in _EXPLICIT)]
    block = next(iter(parser._cif.data.values()))
    magnetic = any("magn" in k for k in explicit)
    found = parser.get_magsymops(block) if magnetic else parser.get_symops(block)
    operations = [(np.array(op.rotation_matrix), np.array(op.translation_vector)) for op in found]
    if not explicit:
        _check_implied(data, operations)
    metric = lattice @ lattice.T
    for rotation, _ in operations:
        if np.abs(rotation.T @ metric @ rotation - metric).max() > 0.02 * metric.max():
            raise CrystalError("symmetry-mismatch", "a symmetry operation of the file does not fit its cell")
    return operations


def _check_implied(data: dict[str, Any], operations: list[tuple[np.ndarray, np.ndarray]]) -> None:
    """Refuse where operations derived from a space-group name could be the wrong ones."""
    numbers = [data[k] for k in data if k in ("_space_group_it_number", "_symmetry_int_tables_number")]
    names = [v for k, v in data.items() if re.match(r"_(symmetry_)?space_group_name_", k)]
    stated = [str(v).strip() for v in numbers + names if str(v).strip() not in _MISSING]
    trivial = all(re.sub(r"\s|1", "", v).upper() in ("", "P") for v in stated)
    if len(operations) == 1 and not trivial:
        raise CrystalError("unknown-symmetry", f"the file gives no operations and names {stated[0]!r}")
    if _space_group_number(stated) in _TWO_ORIGINS:
        raise CrystalError(
            "ambiguous-origin", f"{stated[0]!r} has two origins; the file must list its symmetry operations"
        )


def _space_group_number(stated: list[str]) -> int:
    from pymatgen.symmetry.groups import SpaceGroup

    for text in stated:
        if text.isdecimal():
            return int(text)
        try:
            return int(SpaceGroup(re.sub(r"\s", "", text.split(":")[0])).int_number)
        except ValueError:
            continue
    return 0


def _expand(
    rows: list[Site], operations: list[tuple[np.ndarray, np.ndarray]], lattice: np.ndarray
) -> list[Site]:
    """Apply the operations to each row, then join rows that share a position."""
    sites: list[Site] = []
    for row in rows:
        known = np.array([site.frac for site in sites]).reshape(-1, 3)
        for position in _orbit(row.frac, operations, lattice):
            close = np.flatnonzero(_distances(known, position, lattice) < MERGE_A)
            if len(close) == 0:
                sites.append(Site(position, list(row.content), row.label))
            else:
                twin = sites[int(close[0])]
                twin.content += row.content
                twin.label = f"{twin.label}+{row.label}"
        if len(sites) > MAX_SITES:
            raise CrystalError("too-many-atoms", f"the symmetry operations give more than {MAX_SITES} atoms")
    for site in sites:
        total = sum(amount for _, amount in site.content)
        if total > 1.01:
            raise CrystalError("overlapping-atoms", f"site {site.describe()} holds {total:g} atoms")
    return sites


def _distances(points: np.ndarray, position: np.ndarray, lattice: np.ndarray) -> np.ndarray:
    """Distances (A) to a position, exact where they are far below the cell edges."""
    difference = points - position
    return np.asarray(np.linalg.norm((difference - np.round(difference)) @ lattice, axis=-1))


def _orbit(
    frac: np.ndarray, operations: list[tuple[np.ndarray, np.ndarray]], lattice: np.ndarray
) -> list[np.ndarray]:
    """Return the images of a position; near-coincident ones are replaced by their mean."""
    rest = np.array([rotation @ frac + translation for rotation, translation in operations])
    orbit = []
    while len(rest):
        close = _distances(rest, rest[0], lattice) < MERGE_A
        shift = rest[close] - rest[0]
        orbit.append(np.mod(rest[0] + np.mean(shift - np.round(shift), axis=0), 1.0))
        rest = rest[~close]
    return orbit


def _stated_formula(data: dict[str, Any]) -> dict[str, float]:
    """Return the amounts of ``_chemical_formula_sum``; empty where absent or not a plain formula."""
    text = data.get("_chemical_formula_sum")
    if not isinstance(text, str) or text.strip() in _MISSING:
        return {}
    plain = re.sub(r"[\s'\"]", "", text)
    if not re.fullmatch(r"(?:[A-Z][a-z]?\d*\.?\d*)+", plain):
        return {}
    amounts: dict[str, float] = {}
    for symbol, amount in re.findall(r"([A-Z][a-z]?)(\d*\.?\d*)", plain):
        name = "H" if symbol in ISOTOPE_MASS else symbol
        value = float(amount) if amount not in ("", ".") else 1.0
        if value > 0:
            amounts[name] = amounts.get(name, 0.0) + value
    return amounts


def _check_formula(sites: list[Site], data: dict[str, Any]) -> None:
    """Compare what was read with the formula the file states, so that nothing (H above all) is lost."""
    stated = _stated_formula(data)
    if not stated:
        return
    found: dict[str, float] = {}
    for site in sites:
        for symbol, amount in site.occupancies().items():
            found[symbol] = found.get(symbol, 0.0) + amount
    scale = sum(found.values()) / sum(stated.values())
    wrong = [
        symbol
        for symbol in sorted(set(stated) | set(found))
        if abs(stated.get(symbol, 0.0) * scale - found.get(symbol, 0.0))
        > FORMULA_TOLERANCE * max(stated.get(symbol, 0.0) * scale, found.get(symbol, 0.0))
    ]
    if wrong:
        lost = ", ".join(f"no site holds {s}" for s in stated if s not in found)
        raise CrystalError(
            "formula-mismatch",
            f"the file states {_write(stated)} but its sites hold {_write(found)};"
            f" {lost or 'wrong amount of ' + ', '.join(wrong)}",
        )


def _write(amounts: dict[str, float]) -> str:
    return "".join(f"{s}{amounts[s]:.4g}" for s in sorted(amounts))
