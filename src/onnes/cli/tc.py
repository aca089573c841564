"""``onnes tc``: an alpha2F file in, moments and Tc by every formula out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

Unit = Annotated[
    str | None,
    typer.Option(help="Unit of omega (meV, THz, cm-1, Ry, Ha, K, eV) where the file does not say."),
]
MuStar = Annotated[float, typer.Option(help="Coulomb pseudopotential mu*.")]
MuBand = Annotated[tuple[float, float], typer.Option(help="Two mu* between which the Tc range is quoted.")]
FileFormat = Annotated[
    str | None, typer.Option("--format", help="qe-a2f-dos, qe-alpha2f, epw, elk, abinit or columns.")
]
Column = Annotated[int | None, typer.Option(help="Number of the curve, from 1, in files with several.")]
Smearing = Annotated[float | None, typer.Option(help="Smearing of the curve, as written in the file.")]
Closed = Annotated[bool, typer.Option("--closed-only", help="Do not solve the Eliashberg equations.")]
Cutoff = Annotated[
    float | None, typer.Option(help="Cut-off of mu* in them, meV; 10 times the highest phonon frequency.")
]
MuAt = Annotated[
    float | None,
    typer.Option(help="Energy mu* belongs to in them, meV, if not the cut-off; it is then converted."),
]
Plot = Annotated[
    Path | None, typer.Option(help="Folder for figures: alpha2F, Tc(mu*), gap functions; png and svg.")
]
Sigma = Annotated[
    float | None, typer.Option(help="Relative error of alpha2F: adds intervals of lambda, omega_log and Tc.")
]
Correlation = Annotated[
    float | None, typer.Option(help="Correlation length of that error, meV; without it an error of scale.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def tc(
    file: Annotated[Path, typer.Argument(help="alpha2F of QE, EPW, ABINIT, Elk, or two columns.")],
    unit: Unit = None,
    mu_star: MuStar = 0.10,
    mu_band: MuBand = (0.08, 0.15),
    file_format: FileFormat = None,
    column: Column = None,
    smearing: Smearing = None,
    closed_only: Closed = False,
    cutoff: Cutoff = None,
    mu_at: MuAt = None,
    plot: Plot = None,
    sigma: Sigma = None,
    correlation: Correlation = None,
    as_json: AsJson = False,
) -> None:
    """Compute lambda, omega_log, omega_2, Tc by closed formulas and Eliashberg, and the gap."""
    from onnes.theory.lambda_table import is_lambda_table
    from onnes.theory.readers import read_a2f
    from onnes.theory.summary import summarise, summarise_table

    if file_format is None and is_lambda_table(file):
        table = summarise_table(file, mu_star=mu_star)
        if as_json:
            import json

            typer.echo(json.dumps(table, indent=2, allow_nan=False))
        else:
            typer.echo("\n".join(_table_lines(table)))
        return

    spectrum = read_a2f(file, unit=unit, format=file_format, column=column, smearing=smearing)
    summary = summarise(spectrum, mu_star=mu_star, mu_band=mu_band, solve=not closed_only, cutoff_meV=cutoff)
    if sigma is not None:
        from dataclasses import asdict

        from onnes.theory.uncertain import propagate

        spread = propagate(spectrum, sigma, correlation_meV=correlation, mu_star=mu_star)
        summary["uncertainty"] = {name: asdict(value) for name, value in spread.items()}
    if as_json:
        import json

        typer.echo(json.dumps(summary, indent=2, allow_nan=False))
    else:
        typer.echo("\n".join(_lines(summary)))
    if plot is not None:
        from onnes.theory.plots import draw_all

        broken = bool(summary["eliashberg"] and summary["eliashberg"]["error"])
        for path in draw_all(
            spectrum, plot, mu_star=mu_star, cutoff_meV=cutoff, solve=not closed_only and not broken
        ):
            typer.echo(str(path), err=True)
    solved = summary["eliashberg"]
    if solved and solved["error"]:
        typer.echo(f"onnes: {solved['message']} [{solved['error']}]", err=True)
        raise typer.Exit(1)


def _lines(summary: dict[str, Any]) -> list[str]:
    meta, (low, high) = summary["meta"], summary["mu_band"]
    title = f"{summary['source']}  ({meta.get('format', 'array')}, {meta.get('unit', 'meV')}"
    lines = [
        f"{title}, {summary['points']} points to {summary['omega_max_meV']:.1f} meV)",
        f"lambda      {summary['lambda']:12.4f}",
        f"omega_log   {summary['omega_log_K']:12.2f} K",
        f"omega_1     {summary['omega_1_K']:12.2f} K",
        f"omega_2     {summary['omega_2_K']:12.2f} K",
        "",
        f"{'Tc at mu* = ' + format(summary['mu_star'], '.3f'):24s}{'K':>10s}   "
        f"range for mu* {high:g} to {low:g}",
    ]
    notes = list(summary["notes"])
    for name, row in summary["tc"].items():
        flag = " *" if row["fallback"] else ""
        lines.append(f"{name:24s}{row['tc_K']:10.3f}   {row['low_K']:.3f} to {row['high_K']:.3f} K{flag}")
        notes += [f"{name}: {text}" for text in [row["reason"], *row["notes"]] if text]
    solved = summary["eliashberg"]
    if solved and not solved["error"]:
        low, high = solved["low_K"], solved["high_K"]
        band = "range not converged" if low is None else f"{low:.3f} to {high:.3f} K"
        lines.append(f"{'eliashberg':24s}{solved['tc_K']:10.3f}   {band}")
        notes.append(
            f"eliashberg: mu* = {solved['mu_star']:.4f} at a cut-off of {solved['cutoff_meV']:.4g} meV"
        )
        if solved["gap_meV"] is not None:
            lines += [
                "",
                f"gap at T = 0          {solved['gap_meV']:12.4f} meV   (Eliashberg)",
                f"2 gap/k Tc            {solved['gap_ratio']:12.3f}       (3.53 at weak coupling)",
                f"jump of C over gamma Tc {solved['jump_ratio']:10.3f}       (1.43)",
                f"gamma Tc^2/Hc(0)^2    {solved['condensation_ratio']:12.4f}       (0.168)",
            ]
        elif solved["reason"]:
            notes.append(f"eliashberg: {solved['reason']}")
    spreads = summary.get("uncertainty", {})
    lines += ["", "with the stated error of alpha2F (Tc by allen-dynes):"] if spreads else []
    for name, spread in spreads.items():
        lines.append(
            f"{name:14s}{spread['mean']:10.4g} +- {spread['std']:.3g}   "
            f"90 %: {spread['low']:.4g} to {spread['high']:.4g}"
        )
    return lines + ([""] + [f"note: {text}" for text in notes] if notes else [])


def _table_lines(table: dict[str, Any]) -> list[str]:
    lines = [
        f"{table['source']}  (lambda against smearing, mu* = {table['mu_star']:.3f})",
        "smearing (Ry)    lambda   omega_log (K)   N(EF) (1/spin/Ry)   Tc (K)",
    ]
    for row in table["rows"]:
        lines.append(
            f"{row['smearing_Ry']:13.4f}{row['lambda']:10.4f}{row['omega_log_K']:16.2f}"
            f"{row['dos_ef']:20.4f}{row['tc_K']:9.3f}"
        )
    return [*lines, "", *[f"note: {text}" for text in table["notes"]]]
