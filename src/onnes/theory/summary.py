"""Everything `onnes tc` says about one spectrum, as plain data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from onnes.errors import PhysicsError
from onnes.theory.spectral import Spectrum
from onnes.theory.tc import DEFAULT_MU_STAR, FORMULAS, Formula, guard_lambda, tc, tc_array, validity

#: mu* over which the Tc range is quoted: the spread met in practice.
MU_BAND = (0.08, 0.15)
#: A relative difference between the file's own lambda and ours above this is pointed out.
_LAMBDA_MISMATCH = 0.02


def summarise(
    spectrum: Spectrum,
    *,
    mu_star: float = DEFAULT_MU_STAR,
    mu_band: tuple[float, float] = MU_BAND,
    solve: bool = True,
    cutoff_meV: float | None = None,
    mu_star_at_meV: float | None = None,
) -> dict[str, Any]:
    """Return moments, Tc by every closed formula with its range over a mu* band, and all notes.

    Parameters
    ----------
    spectrum : Spectrum
        Cleaned alpha2F.
    mu_star : float
        Coulomb pseudopotential of the quoted Tc.
    mu_band : tuple of float
        Lowest and highest mu* of the quoted range.
    solve : bool
        Also solve the Eliashberg equations.
    cutoff_meV, mu_star_at_meV : float, optional
        Cut-off of the Coulomb term in them, and the energy mu* belongs to; see
        `onnes.theory.superconductor.eliashberg`.

    Returns
    -------
    dict
        JSON-ready. ``tc`` maps each formula to ``tc_K``, ``low_K`` and ``high_K`` (at the band's ends),
        ``reason``, ``fallback`` and ``notes``; ``eliashberg`` holds Tc, its range and the properties of the
        gap (None where unknown, with ``error``); ``notes`` are about the spectrum.
    """
    lam, wlog, w2 = spectrum.lam, spectrum.omega_log_K, spectrum.omega_2_K
    rows: dict[str, Any] = {}
    for name in FORMULAS:
        result = tc(lam, wlog, w2, mu_star=mu_star, formula=name)
        ends = tc_array(lam, wlog, w2, mu_star=list(mu_band), formula=name)
        rows[str(name)] = {
            "tc_K": result.tc_K,
            "low_K": float(ends.min()),
            "high_K": float(ends.max()),
            "reason": result.reason,
            "fallback": result.fallback,
            "notes": validity(name, lam, wlog, w2),
        }
    return {
        "source": spectrum.source,
        "points": int(spectrum.omega_meV.size),
        "omega_max_meV": spectrum.omega_max_meV,
        "mu_star": float(mu_star),
        "mu_band": [float(mu) for mu in mu_band],
        "guard_lambda": float(guard_lambda(mu_star)),
        "lambda": lam,
        "omega_log_K": wlog,
        "omega_1_K": spectrum.omega_1_K,
        "omega_2_K": w2,
        "removed_fraction": spectrum.hygiene.removed,
        "meta": {key: value for key, value in spectrum.meta.items() if key != "notes"},
        "notes": [*spectrum.notes, *_cross_check(spectrum)],
        "tc": rows,
        "eliashberg": _eliashberg(spectrum, mu_star, mu_band, cutoff_meV, mu_star_at_meV) if solve else None,
    }


def _eliashberg(
    spectrum: Spectrum,
    mu_star: float,
    mu_band: tuple[float, float],
    cutoff_meV: float | None,
    at_meV: float | None,
) -> dict[str, Any]:
    """Solve the equations; what cannot be solved is said, never guessed."""
    from onnes.theory.superconductor import eliashberg

    names = (
        "tc_K",
        "gap_meV",
        "gap_ratio",
        "z",
        "jump_ratio",
        "condensation_ratio",
        "cutoff_meV",
        "mu_star",
    )
    empty: dict[str, Any] = dict.fromkeys((*names, "low_K", "high_K"))
    try:
        where: dict[str, Any] = {"cutoff_meV": cutoff_meV, "mu_star_at_meV": at_meV}
        found = eliashberg(spectrum, mu_star=mu_star, **where)
    except PhysicsError as error:
        return {**empty, "reason": "", "error": error.code, "message": error.message}
    try:
        ends = [eliashberg(spectrum, mu_star=mu, gap=False, **where).tc_K for mu in mu_band]
    except PhysicsError:
        ends = []
    values = {name: getattr(found, name) for name in names}
    known = {name: value if value == value else None for name, value in values.items()}
    return {
        **empty,
        **known,
        "low_K": min(ends, default=None),
        "high_K": max(ends, default=None),
        "reason": found.reason,
        "error": "",
    }


def _cross_check(spectrum: Spectrum) -> list[str]:
    """Compare with the lambda the code itself wrote into the file."""
    stated = spectrum.meta.get("lambda_file")
    if not isinstance(stated, float) or not stated > 0.0:
        return []
    difference = spectrum.lam / stated - 1.0
    if abs(difference) <= _LAMBDA_MISMATCH:
        return []
    return [
        f"warning: lambda {spectrum.lam:.4f} differs by {100 * difference:+.1f} % from the {stated:.4f} "
        "written in the file (negative alpha2F counts there, and is cut here)"
    ]


def summarise_table(path: str | Path, *, mu_star: float = DEFAULT_MU_STAR) -> dict[str, Any]:
    """Tc at every smearing of QE's ``lambda`` or ``lambda.out``, by the formula that needs no omega_2.

    Raises
    ------
    InputError
        See `onnes.theory.lambda_table.read_lambda_table`.
    """
    from onnes.theory.lambda_table import read_lambda_table

    rows = [
        {
            "smearing_Ry": row.smearing_Ry,
            "lambda": row.lam,
            "omega_log_K": row.omega_log_K,
            "dos_ef": row.dos_ef,
            "tc_K": tc(row.lam, row.omega_log_K, mu_star=mu_star, formula=Formula.MCMILLAN_ALLEN_DYNES).tc_K,
        }
        for row in read_lambda_table(path)
    ]
    notes = ["Tc by mcmillan-allen-dynes: the file has no spectrum, hence no omega_2 and no Eliashberg Tc"]
    values = [row["tc_K"] for row in rows]
    if len(values) > 1 and max(values) > 1.5 * max(min(values), 1e-9):
        notes.append("Tc follows the smearing: converge the k- and q-grids before choosing one")
    return {"source": Path(path).name, "mu_star": float(mu_star), "rows": rows, "notes": notes}
