"""``onnes phonons``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from onnes.cli.common import free_name, probe_folder, read_aloud

Paths = Annotated[list[Path], typer.Argument(help="Structure files, record files or folders.")]
Potentials = Annotated[
    list[str] | None, typer.Option("--potential", help="Universal potential (7net-0); repeated, they vote.")
]
Out = Annotated[
    Path | None, typer.Option("--out", help="Folder for phonons.csv and, per crystal, figure, DOS and bands.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print a JSON list instead of the csv.")]
Relax = Annotated[
    bool, typer.Option("--relax/--no-relax", help="Relax first, or refuse a crystal that is not at rest.")
]
FixedCell = Annotated[
    bool, typer.Option("--fixed-cell", help="Relax the atoms only (a crystal under pressure).")
]
Length = Annotated[
    float, typer.Option("--supercell-length", help="Shortest supercell, A; repetitions are even.")
]
Tolerance = Annotated[
    float, typer.Option("--tolerance", help="Imaginary modes above minus this are noise, cm-1.")
]


def phonons(
    paths: Paths,
    potential: Potentials = None,
    out: Out = None,
    as_json: AsJson = False,
    relax: Relax = True,
    fixed_cell: FixedCell = False,
    supercell_length: Length = 9.0,
    tolerance: Tolerance = 5.0,
) -> None:
    """Phonon bands, densities of states, heat capacity, Debye temperature and verdict; one row per structure."""
    import math
    from dataclasses import replace

    from onnes.errors import SettingsError
    from onnes.stability.phonon_report import AS_GIVEN, RELAXED, report_all
    from onnes.stability.phonon_verdict import require_tolerance
    from onnes.stability.potentials import DEFAULT
    from onnes.stability.potentials import potential as known

    names = [known(name).name for name in potential or [DEFAULT]]
    require_tolerance(tolerance)
    if not 0.0 < supercell_length < math.inf:
        raise SettingsError("bad-setting", f"the supercell length must be > 0 A, got {supercell_length}")
    settings = replace(RELAXED if relax else AS_GIVEN, least_length_A=supercell_length)
    if fixed_cell:
        settings = replace(settings, relax_cell=False)
    if out is not None:
        probe_folder(out)
    rows: list[dict[str, Any]] = []
    each: list[list[dict[str, Any]]] = []
    taken: set[str] = set()
    for row, reports in report_all(read_aloud(paths), settings, names, tolerance):
        rows.append(row)
        each.append([report.numbers() for report in reports])
        said = f"{row.get('verdict') or ''} {row['reason']} {row.get('note') or ''}"
        typer.echo(f"{row['id']}: {row['status']} {' '.join(said.split())}".rstrip(), err=True)
        if out is not None:
            _write(reports, out, free_name(row["id"], taken), len(set(names)) > 1)
            # After every crystal: a long run that is stopped leaves what it finished.
            _save(rows, out / "phonons.csv")
    if as_json:
        typer.echo(_json(rows, each))
    elif out is None:
        typer.echo(_csv(rows).rstrip("\n"))
    if any(row["status"] != "ok" for row in rows):
        raise typer.Exit(1)


def _write(reports: Any, out: Path, name: str, several: bool) -> None:
    from onnes.stability.phonon_files import write_files

    for report in reports:
        write_files(report, out, f"{name}.{report.potential}" if several else name)


def _csv(rows: list[dict[str, Any]]) -> str:
    import pandas as pd

    from onnes.stability.phonon_report import COLUMNS

    return pd.DataFrame(rows).reindex(columns=list(COLUMNS)).to_csv(index=False, float_format="%.6g")


def _save(rows: list[dict[str, Any]], path: Path) -> None:
    from onnes.data.files import atomic_text

    with atomic_text(path) as handle:
        handle.write(_csv(rows))


def _json(rows: list[dict[str, Any]], each: list[list[dict[str, Any]]]) -> str:
    """Rows of the table, with the numbers of every potential."""
    import json
    import math

    from onnes.stability.phonon_report import COLUMNS

    def plain(row: dict[str, Any]) -> dict[str, Any]:
        return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}

    full = [
        {**plain({name: row.get(name) for name in COLUMNS}), "by_potential": [plain(one) for one in ones]}
        for row, ones in zip(rows, each, strict=True)
    ]
    return json.dumps(full, indent=2, allow_nan=False)
