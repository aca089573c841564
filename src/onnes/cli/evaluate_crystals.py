"""``onnes evaluate FOLDER``: metrics of generated crystals, whoever generated them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from onnes.cli.common import read_aloud

if TYPE_CHECKING:
    from pymatgen.core import Structure

    from onnes.crystal.read import Crystal, Refused
    from onnes.generate.metrics import Report

#: Formats that only hold structures: a folder with one of them is a folder of crystals.
_STRUCTURES = ("cif", "poscar", "extxyz", "espresso")
ENERGY = "formation_energy_eV_atom"


def holds_structures(model: str) -> bool:
    """Whether the argument of ``onnes evaluate`` is a file or folder of crystals and not a model."""
    from onnes.crystal.files import find, named_format
    from onnes.errors import InputError

    path = Path(model)
    if path.is_file():
        return named_format(path) is not None
    if not path.is_dir() or any(path.glob("*.safetensors")):
        return False
    try:
        return any(named_format(p) in _STRUCTURES for p in find(path))
    except InputError:
        return False


def run(
    model: str,
    *,
    reference: Path | None,
    relaxed: Path | None,
    truth: Path | None,
    stability: Path | None,
    stable_below: float,
    symprec: float,
    seed: int,
    out: Path | None,
    as_json: bool,
) -> None:
    """Read, measure, print; exit code 1 where some crystals, or true ones of `truth`, were refused.

    Raises
    ------
    InputError
        Nothing readable; ``missing-path``; ``cannot-write``, for `out`.
    DataError
        ``bad-table``, for `stability`; ``duplicate-id``, for `relaxed` and `truth`.
    SettingsError
        ``no-data`` for what is no set of crystals; ``bad-setting``; ``no-truth`` where no true crystal could be
        read; ``no-pairs`` where `truth` or the table of `stability` has no name of a crystal.
    """
    import json

    from onnes.cli.common import probe_folder
    from onnes.errors import SettingsError
    from onnes.generate.metrics import measure
    from onnes.stability.sun import sun

    if not holds_structures(model):
        raise SettingsError(
            "no-data",
            f"--data is needed to score the model {model}; without it give a file or folder of structures",
        )
    path = Path(model)
    if not 0.0 < symprec < 1.0:
        raise SettingsError("bad-setting", f"--symprec {symprec:g} is no tolerance in A; 0.1 is usual")
    # All that can be wrong is told before `measure`, which takes long: a threshold, a folder, a table, names.
    sun([], threshold_eV_atom=stable_below)
    if out is not None:
        probe_folder(out)
    assessed = _assessed(stability) if stability else None
    crystals, refused = _read(path)
    against, lost = _read(reference) if reference else ([], [])
    pairs = _pairs(crystals, refused, *_read(relaxed)) if relaxed else None
    true, unread = _read(truth) if truth else ([], [])
    targets = _targets(crystals, refused, true, unread) if truth else None
    ours = None if assessed is None else _ours(crystals, assessed)
    energies = [_energies(crystals), _energies(against)]
    found = measure(
        [c.structure for c in crystals],
        reference=[c.structure for c in against] or None,
        refused=len(refused),
        relaxed=pairs,
        energies=(energies[0], energies[1]) if all(energies) else None,
        symprec=symprec,
        seed=seed,
    )
    if lost:
        found.notes.append(f"{len(lost)} crystals of the reference were refused and left out")
    if relaxed:
        found.notes.append(
            f"{len(pairs or [])} of {len(crystals)} crystals have a relaxed one of the same name"
        )
    if targets is not None:
        _predicted(found, targets, unread)
    if ours is not None:
        _sun(found, ours, len(crystals) - len(ours) + len(refused), stable_below)
    if as_json:
        typer.echo(json.dumps(found.to_dict(), indent=1, allow_nan=False))
    else:
        _print(found, f"{path}: {len(crystals)} crystals, {len(refused)} refused", len(against))
    if out is not None:
        _write(found, out)
    if refused or unread:
        raise typer.Exit(1)


def _read(path: Path) -> tuple[list[Crystal], list[Refused]]:
    from onnes.crystal.read import Refused

    crystals: list[Crystal] = []
    refused: list[Refused] = []
    for item in read_aloud([path]):
        if isinstance(item, Refused):
            refused.append(item)
        else:
            crystals.append(item)
    return crystals, refused


def _repeated(items: Iterable[Crystal | Refused]) -> set[str]:
    """Names that several crystals of one read have: `onnes.crystal.read.read` calls the second of them x~2."""
    from onnes.crystal.read import Crystal

    every = list(items)
    ids = {item.id for item in every}
    twice = set()
    for item in every:
        name, mark, number = item.id.rpartition("~")
        if not (mark and number.isdigit() and name in ids):
            continue
        own = item.meta.get("record_id") if isinstance(item, Crystal) else None
        # A file or record may be called x~2 by its maker, beside an x.
        if own != item.id and mark + number not in Path(item.source).name:
            twice.add(name)
    return twice


def _refuse_repeated(ours: Sequence[Crystal | Refused], theirs: Sequence[Crystal | Refused]) -> None:
    """Which of two crystals of one name belongs to which of the other folder is not ours to guess.

    Raises
    ------
    DataError
        ``duplicate-id``.
    """
    from onnes.errors import DataError

    shared = {i.id for i in ours} & {i.id for i in theirs}
    several = sorted(shared & (_repeated(ours) | _repeated(theirs)))
    if several:
        raise DataError(
            "duplicate-id",
            f"several crystals are called {_some(several)}; they are paired by name, so each must have its own",
        )


def _some(names: Sequence[str], most: int = 5) -> str:
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def _pairs(
    crystals: list[Crystal], refused: list[Refused], relaxed: list[Crystal], lost: list[Refused]
) -> list[tuple[Structure, Structure]]:
    _refuse_repeated([*crystals, *refused], [*relaxed, *lost])
    by_id = {c.id: c.structure for c in relaxed}
    return [(c.structure, by_id[c.id]) for c in crystals if c.id in by_id]


def _targets(
    crystals: list[Crystal], refused: list[Refused], true: list[Crystal], unread: list[Refused]
) -> list[tuple[list[Structure], Structure]]:
    """The guess for each true crystal, the crystal of its name, or none, and the true one.

    Raises
    ------
    SettingsError
        ``no-truth``, ``no-pairs``.
    DataError
        ``duplicate-id``.
    """
    from onnes.errors import SettingsError

    if not true:
        names = _some([r.id for r in unread])
        raise SettingsError("no-truth", f"none of the true crystals could be read: {names}")
    _refuse_repeated([*crystals, *refused], [*true, *unread])
    guesses = {c.id: c.structure for c in crystals}
    # A guess that is no crystal is a wrong guess, and no sign that the wrong folder was given.
    if not {t.id for t in true} & {*guesses, *(r.id for r in refused)}:
        raise SettingsError("no-pairs", "no crystal has the name of a true one")
    return [([guesses[t.id]] if t.id in guesses else [], t.structure) for t in true]


def _predicted(found: Report, pairs: list[tuple[list[Structure], Structure]], unread: list[Refused]) -> None:
    """Structure prediction: the crystal of a name is the guess for the true one of that name."""
    from onnes.generate.metrics import DEFAULT, LOOSE, prediction

    for name, tolerances in (("loose", LOOSE), ("default", DEFAULT)):
        rates = prediction([g for g, _ in pairs], [t for _, t in pairs], tolerances)
        found.figures[f"match_rate_{name}"] = rates["match_rate_first"]
        found.figures[f"rmsd_{name}"] = rates["rmsd_first"]
    missing = sum(not g for g, _ in pairs)
    found.notes.append(
        f"match rate of {len(pairs)} true crystals, {missing} of them without a guess; rmsd in (V/n)^(1/3)"
    )
    if unread:
        found.notes.append(
            f"{len(unread)} of {len(pairs) + len(unread)} true crystals could not be read or were refused and are "
            f"not in the match rate: {_some([r.id for r in unread])}"
        )


def _assessed(path: Path) -> dict[str, dict[str, Any]]:
    """Rows of the table of ``onnes stability`` by id.

    Raises
    ------
    InputError
        ``missing-path``.
    DataError
        ``bad-table``.
    """
    import pandas as pd

    from onnes.errors import DataError, InputError

    needed = ["id", "status", "e_hull_eV_atom", "novelty", "same_as"]
    try:
        # Texts as they stand: a crystal may be called NA or null.
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        missing = [c for c in needed if c not in table]
        if missing:
            raise DataError(
                "bad-table", f"{path} lacks {', '.join(missing)}; onnes stability --out writes them"
            )
        table = table[needed].fillna("")  # fields that a short line lacks
        high = table["e_hull_eV_atom"].str.strip()
        energies = pd.to_numeric(high.mask(high.str.lower().isin(["", "nan"]))).astype(float)
    except FileNotFoundError:
        raise InputError("missing-path", f"{path} does not exist") from None
    except (OSError, ValueError) as error:
        raise DataError("bad-table", f"{path} is no table of onnes stability: {error!s:.100}") from None
    twice = sorted(set(table["id"][table["id"].duplicated()]))
    if twice:
        raise DataError("bad-table", f"{path} has several rows of {_some(twice)}")
    rows = table.assign(e_hull_eV_atom=energies).to_dict("records")
    return {str(row["id"]): {str(k): v for k, v in row.items()} for row in rows}


def _ours(crystals: list[Crystal], rows: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of our crystals, each compared with ours only.

    The table may be of more crystals: of those that are the same as one that is not ours, the first is unique here.

    Raises
    ------
    SettingsError
        ``no-pairs``.
    """
    from onnes.errors import SettingsError

    ours = [dict(rows[c.id]) for c in crystals if c.id in rows]
    if not ours:
        raise SettingsError("no-pairs", "no row of the table of --stability has the id of a crystal")
    seen = {row["id"] for row in ours}
    for row in ours:
        if row["same_as"] and row["same_as"] not in seen:
            seen.add(row["same_as"])
            row["same_as"] = ""
    return ours


def _sun(found: Report, ours: list[dict[str, Any]], left: int, below: float) -> None:
    """Stable, unique and novel, of all crystals given; `left` of them were refused or have no row."""
    from onnes.generate.shares import share
    from onnes.stability.sun import sun

    lost: list[dict[str, Any]] = [{"status": "missing"}] * left
    rates = sun(ours + lost, threshold_eV_atom=below)
    for name, rate in (
        ("stable", rates.stable),
        ("unique_relaxed", rates.unique),
        ("novel_to_index", rates.novel),
        ("stable_unique_novel", rates.sun),
    ):
        found.figures[name] = share(rate.count, rate.n)
    found.notes.append(
        f"stable: at most {below:g} eV/atom above the hull of the table of --stability, relaxed; of all given, "
        f"{rates.lost} refused, failed or not in the table, {rates.unknown} without a reference"
    )


def _energies(crystals: list[Crystal]) -> list[float]:
    values = (c.meta.get("labels", {}).get(ENERGY) for c in crystals)
    return [float(v) for v in values if v is not None]


def _rows(found: Report) -> list[dict[str, Any]]:
    rows = []
    for name, figure in found.figures.items():
        base = found.baselines.get(name)
        rows.append(
            {
                "metric": name,
                **figure.to_dict(),
                "reference_halves": None if base is None else base.to_dict()["value"],
            }
        )
    return rows


def _print(found: Report, title: str, against: int) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, width=120)
    console.print(title, markup=False, soft_wrap=True)
    table = Table(box=None, pad_edge=False)
    table.add_column("metric", no_wrap=True)
    for name in ("n", "value", "95 % CI", *(["reference halves"] if against else [])):
        table.add_column(name, justify="right", no_wrap=True)
    for row in _rows(found):
        cells = [row["metric"], str(row["n"]), _number(row["value"])]
        cells.append(f"{_number(row['low'])} to {_number(row['high'])}")
        table.add_row(*cells, *([_number(row["reference_halves"])] if against else []))
    console.print(table)
    common = sorted(found.space_groups.items(), key=lambda pair: (-pair[1], pair[0]))[:10]
    console.print("most frequent space groups: " + ", ".join(f"{g} ({n})" for g, n in common), soft_wrap=True)
    for note in found.notes:
        console.print(f"note: {note}", markup=False, soft_wrap=True)


def _write(found: Report, out: Path) -> None:
    import pandas as pd

    from onnes.data.files import atomic_text

    groups = [{"space_group": g, "crystals": n} for g, n in found.space_groups.items()]
    for name, rows in (("metrics.csv", _rows(found)), ("space_groups.csv", groups)):
        with atomic_text(out / name) as handle:
            handle.write(pd.DataFrame(rows).to_csv(index=False, float_format="%.6g"))
        typer.echo(f"onnes: wrote {out / name}", err=True)


def _number(x: float | None) -> str:
    return "-" if x is None else f"{x:.4g}"
