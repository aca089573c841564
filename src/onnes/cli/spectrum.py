"""``onnes spectrum``: predicted alpha2F(omega), a csv and a figure for each crystal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from onnes.cli.common import free_name, probe_folder, read_aloud

if TYPE_CHECKING:
    from onnes.spectra import PredictedSpectrum

#: Columns after those of Tc by every formula; in front stand the first ten of `onnes predict`.
LAST = (
    "tc_eliashberg_K",
    "gap_meV",
    "in_domain",
    "status",
    "reason",
    "tc_formula",
    "mu_star",
    "model",
    "file",
)

Paths = Annotated[list[Path], typer.Argument(help="Structure files, record files or folders.")]
Out = Annotated[Path, typer.Option("--out", help="Folder for spectra.csv and, per crystal, csv and png.")]
Phonons = Annotated[
    str,
    typer.Option(
        "--phonons",
        help="none (structure only), coarse or fine (with the atoms' vibrations, from the shipped potential).",
    ),
]
Dos = Annotated[
    Path | None,
    typer.Option(
        "--phonon-dos", help="Site-projected phonon DOS of one crystal (phonopy, matdyn.x, columns)."
    ),
]
DosUnit = Annotated[str | None, typer.Option("--dos-unit", help="Frequency unit of --phonon-dos.")]
MuStar = Annotated[float, typer.Option("--mu-star", help="Coulomb pseudopotential.")]
TcFormula = Annotated[str, typer.Option("--formula", help="Tc formula of tc_K and its interval.")]
Source = Annotated[
    str,
    typer.Option(
        "--labels",
        help="Convention to answer in: alexandria or jarvis (DFT settings); of an own model, a data file's name.",
    ),
]
Model = Annotated[
    Path | None, typer.Option("--model", help="Folder or checkpoint of `onnes train spectrum`.")
]
Solve = Annotated[bool, typer.Option("--eliashberg/--no-eliashberg", help="Solve the Eliashberg equations.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print a JSON list instead of the csv.")]


def spectrum(
    paths: Paths,
    out: Out = Path("spectra"),
    phonons: Phonons = "none",
    phonon_dos: Dos = None,
    dos_unit: DosUnit = None,
    mu_star: MuStar = 0.10,
    formula: TcFormula = "allen-dynes",
    labels: Source = "",
    model: Model = None,
    eliashberg: Solve = True,
    as_json: AsJson = False,
) -> None:
    """Predict alpha2F(omega) with its band, moments, and Tc by every formula; one row per structure."""
    from onnes.errors import DataError, InputError
    from onnes.spectra import predict_spectra
    from onnes.theory.tc import formula_named

    name = str(formula_named(formula))
    if not 0.0 <= mu_star < 1.0:
        raise InputError("bad-mu-star", f"mu* {mu_star} is not allowed; use a number in [0, 1)")
    items: Any = read_aloud(paths)
    sites = None
    if phonon_dos is not None:
        items = list(items)
        sites = _given_sites(items, phonon_dos, dos_unit)
    probe_folder(out)
    rows: list[dict[str, Any]] = []
    taken = {"spectra"}  # the table's own name
    for found in predict_spectra(
        items, phonons=phonons, sites=sites, mu_star=mu_star, formula=name, source=labels, model=model
    ):
        row = _row(found, mu_star, name, solve=eliashberg)
        if model is not None:
            row["model"] = str(model)
        if found.spectrum is not None:
            try:
                row["file"] = _write(found, out, free_name(found.id, taken))
            except DataError as error:
                row |= {"status": "failed", "reason": error.code}
                typer.echo(f"onnes: {error}", err=True)
        elif found.formula:
            # What was no crystal at all has been said when it was read.
            who = "" if found.message.startswith(found.id) else f"{found.id}: "
            typer.echo(f"onnes: {who}{found.message} [{found.reason}]", err=True)
        rows.append(row)
        _save(rows, out / "spectra.csv")
    typer.echo(_json(rows) if as_json else _csv(rows).rstrip("\n"))
    if any(row["status"] != "ok" for row in rows):
        raise typer.Exit(1)


def _given_sites(items: list[Any], path: Path, unit: str | None) -> Any:
    from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

    from onnes.crystal.read import Crystal
    from onnes.errors import InputError
    from onnes.theory.phonon_dos import SiteSpectra, read_phonon_dos

    if len(items) != 1 or not isinstance(items[0], Crystal):
        raise InputError("one-crystal", f"--phonon-dos belongs to one crystal; {len(items)} were given")
    structure = items[0].structure
    alike = len(set(SpacegroupAnalyzer(structure, 1e-3).get_symmetry_dataset().equivalent_atoms)) == 1
    return SiteSpectra(*read_phonon_dos(path, len(structure), unit, alike=alike))


def _row(found: PredictedSpectrum, mu_star: float, formula: str, *, solve: bool) -> dict[str, Any]:
    from onnes.theory.summary import summarise

    row: dict[str, Any] = {
        "id": found.id,
        "formula": found.formula,
        **found.numbers,
        "in_domain": found.status == "ok" and not found.reason,
        "status": found.status,
        "reason": found.reason,
        "tc_formula": formula,
        "mu_star": mu_star,
        "model": f"spectrum-{found.variant}",
    }
    if found.spectrum is None:
        return row
    summary = summarise(found.spectrum, mu_star=mu_star, solve=solve)
    for name, each in summary["tc"].items():
        row[f"tc_{name.replace('-', '_')}_K"] = each["tc_K"]
    if summary["eliashberg"]:
        row["tc_eliashberg_K"] = summary["eliashberg"]["tc_K"]
        row["gap_meV"] = summary["eliashberg"]["gap_meV"]
    return row


def _write(found: PredictedSpectrum, out: Path, name: str) -> str:
    """Write the curve and its figure; returns the name of the csv."""
    import io

    from onnes.data.files import atomic_text, atomic_write
    from onnes.theory.plots import alpha2f_figure

    assert found.spectrum is not None and found.low is not None and found.high is not None
    s = found.spectrum
    with atomic_text(out / f"{name}.csv") as handle:
        handle.write("omega_meV,alpha2F,alpha2F_low,alpha2F_high\n")
        for values in zip(s.omega_meV, s.alpha2F, found.low, found.high, strict=True):
            handle.write(",".join(f"{v:.6g}" for v in values) + "\n")
    picture = io.BytesIO()
    figure = alpha2f_figure(s, (found.low, found.high))
    axes = figure.axes[0]
    filled = s.omega_meV[found.high > 0.04 * found.high.max()]
    axes.set_xlim(0.0, 1.05 * float(filled[-1]))
    axes.set_title(
        f"{found.formula} ({found.variant}), " + axes.get_title(loc="left"), loc="left", fontsize=10
    )
    figure.savefig(picture, format="png", dpi=140)
    with atomic_write(out / f"{name}.png") as binary:
        binary.write(picture.getvalue())
    return f"{name}.csv"


def _table(rows: list[dict[str, Any]]) -> Any:
    import pandas as pd

    from onnes.prediction import COLUMNS

    first = COLUMNS[: COLUMNS.index("tc_high_K") + 1]
    formulas = sorted({k for row in rows for k in row} - set(first) - set(LAST))
    return pd.DataFrame(rows).reindex(columns=[*first, *formulas, *LAST])


def _csv(rows: list[dict[str, Any]]) -> str:
    return str(_table(rows).to_csv(index=False, float_format="%.6g"))


def _save(rows: list[dict[str, Any]], path: Path) -> None:
    from onnes.data.files import atomic_text

    with atomic_text(path) as handle:
        handle.write(_csv(rows))


def _json(rows: list[dict[str, Any]]) -> str:
    return str(_table(rows).to_json(orient="records", indent=1))
