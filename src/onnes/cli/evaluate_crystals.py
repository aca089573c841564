"""``onnes evaluate FOLDER``: metrics of generated crystals, whoever generated them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from onnes.cli.common import read_aloud

if TYPE_CHECKING:
    from pymatgen.core import Structure

    from onnes.crystal.read import Crystal
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
    """Read, measure, print; exit code 1 where some crystals were refused.

    Raises
    ------
    InputError
        Nothing readable; ``missing-path``.
    DataError
        ``bad-table``, for ``stability``.
    SettingsError
        ``no-data`` for what is no set of crystals; ``bad-setting``.
    """
    import json

    from onnes.errors import SettingsError
    from onnes.generate.metrics import measure

    if not holds_structures(model):
        raise SettingsError(
            "no-data",
            f"--data is needed to score the model {model}; without it give a file or folder of structures",
        )
    path = Path(model)
    if not 0.0 < symprec < 1.0:
        raise SettingsError("bad-setting", f"--symprec {symprec:g} is no tolerance in A; 0.1 is usual")
    # Before anything that takes long: a table that cannot be used.
    assessed = _assessed(stability) if stability else None
    crystals, refused = _read(path)
    against, lost = _read(reference) if reference else ([], 0)
    pairs = _pairs(crystals, _read(relaxed)[0]) if relaxed else None
    energies = [_energies(crystals), _energies(against)]
    found = measure(
        [c.structure for c in crystals],
        reference=[c.structure for c in against] or None,
        refused=refused,
        relaxed=pairs,
        energies=(energies[0], energies[1]) if all(energies) else None,
        symprec=symprec,
        seed=seed,
    )
    if lost:
        found.notes.append(f"{lost} crystals of the reference were refused and left out")
    if relaxed:
        found.notes.append(
            f"{len(pairs or [])} of {len(crystals)} crystals have a relaxed one of the same name"
        )
    if truth:
        _predicted(found, crystals, _read(truth)[0])
    if assessed is not None:
        _sun(found, crystals, refused, assessed, stable_below)
    if as_json:
        typer.echo(json.dumps(found.to_dict(), indent=1, allow_nan=False))
    else:
        _print(found, f"{path}: {len(crystals)} crystals, {refused} refused", len(against))
    if out is not None:
        _write(found, out)
    if refused:
        raise typer.Exit(1)


def _read(path: Path) -> tuple[list[Crystal], int]:
    from onnes.crystal.read import Refused

    crystals: list[Crystal] = []
    refused = 0
    for item in read_aloud([path]):
        if isinstance(item, Refused):
            refused += 1
        else:
            crystals.append(item)
    return crystals, refused


def _pairs(crystals: list[Crystal], relaxed: list[Crystal]) -> list[tuple[Structure, Structure]]:
    by_id = {c.id: c.structure for c in relaxed}
    return [(c.structure, by_id[c.id]) for c in crystals if c.id in by_id]


def _predicted(found: Report, crystals: list[Crystal], truth: list[Crystal]) -> None:
    """Structure prediction: the crystal of a name is the guess for the true one of that name."""
    from onnes.errors import SettingsError
    from onnes.generate.metrics import DEFAULT, LOOSE, prediction

    guesses = {c.id: c.structure for c in crystals}
    pairs = [([guesses[t.id]] if t.id in guesses else [], t.structure) for t in truth]
    missing = sum(not g for g, _ in pairs)
    if missing == len(pairs):
        raise SettingsError("no-pairs", "no crystal has the name of a true one")
    for name, tolerances in (("loose", LOOSE), ("default", DEFAULT)):
        rates = prediction([g for g, _ in pairs], [t for _, t in pairs], tolerances)
        found.figures[f"match_rate_{name}"] = rates["match_rate_first"]
        found.figures[f"rmsd_{name}"] = rates["rmsd_first"]
    found.notes.append(
        f"match rate of {len(pairs)} true crystals, {missing} of them without a guess; rmsd in (V/n)^(1/3)"
    )


def _assessed(path: Path) -> dict[str, dict[str, Any]]:
    """Rows of the table of ``onnes stability`` by id."""
    import pandas as pd

    from onnes.errors import DataError, InputError

    needed = ("id", "status", "e_hull_eV_atom", "novelty", "same_as")
    try:
        table = pd.read_csv(path, dtype={c: str for c in needed if c != "e_hull_eV_atom"})
        missing = [c for c in needed if c not in table]
        if missing:
            raise DataError(
                "bad-table", f"{path} lacks {', '.join(missing)}; onnes stability --out writes them"
            )
        energies = pd.to_numeric(table["e_hull_eV_atom"])
    except FileNotFoundError:
        raise InputError("missing-path", f"{path} does not exist") from None
    except (OSError, ValueError) as error:
        raise DataError("bad-table", f"{path} is no table of onnes stability: {error!s:.100}") from None
    texts = table[list(needed)].drop(columns="e_hull_eV_atom").fillna("")
    rows = texts.assign(e_hull_eV_atom=energies).to_dict("records")
    return {str(row["id"]): {str(k): v for k, v in row.items()} for row in rows}


def _sun(
    found: Report, crystals: list[Crystal], refused: int, rows: dict[str, dict[str, Any]], below: float
) -> None:
    """Stable, unique and novel, of all crystals given."""
    from onnes.errors import SettingsError
    from onnes.generate.shares import share
    from onnes.stability.sun import sun

    ours = [rows[c.id] for c in crystals if c.id in rows]
    if not ours:
        raise SettingsError("no-pairs", "no row of the table of --stability has the id of a crystal")
    lost: list[dict[str, Any]] = [{"status": "missing"}] * (len(crystals) - len(ours) + refused)
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

    from onnes.cli.common import probe_folder
    from onnes.data.files import atomic_text

    probe_folder(out)
    groups = [{"space_group": g, "crystals": n} for g, n in found.space_groups.items()]
    for name, rows in (("metrics.csv", _rows(found)), ("space_groups.csv", groups)):
        with atomic_text(out / name) as handle:
            handle.write(pd.DataFrame(rows).to_csv(index=False, float_format="%.6g"))
        typer.echo(f"onnes: wrote {out / name}", err=True)


def _number(x: float | None) -> str:
    return "-" if x is None else f"{x:.4g}"
