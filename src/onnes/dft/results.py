"""What a finished run says: stability from the dynamical matrices, lambda, omega_log and Tc at every broadening.

Tc follows the broadening: the curve is the result, and where it does not level off there is no number to quote.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from onnes.data.files import atomic_text
from onnes.dft.dyn_file import parse_dyn
from onnes.dft.failures import Failure, Reason
from onnes.dft.inputs import PREFIX
from onnes.dft.plan import Plan
from onnes.dft.q_sum import q_sums
from onnes.dft.step_checks import text_of
from onnes.errors import OnnesError

COLUMNS = "sigma_Ry,lambda,omega_log_K,omega_2_K,tc_allen_dynes_K,removed_weight,lambda_q_sum,omega_log_q_sum_K,reason"


@dataclass(frozen=True)
class SigmaRow:
    """Moments and Tc at one broadening; numbers are None where `reason` says why.

    `lam_q_sum` and `omega_log_q_sum_K` are sums over the computed q-points (`onnes.dft.q_sum`), all others integrals
    over the interpolated alpha2F.
    """

    sigma_Ry: float
    lam: float | None
    omega_log_K: float | None
    omega_2_K: float | None
    tc_K: float | None
    removed: float | None
    reason: str
    lam_q_sum: float | None = None
    omega_log_q_sum_K: float | None = None


@dataclass(frozen=True)
class Results:
    """Stability and the curve over the broadenings.

    Attributes
    ----------
    unstable : Failure or None
        The deepest imaginary mode of all q; None for a stable crystal.
    lowest_cm1 : float
        Lowest frequency of all q; the acoustic ones at Gamma, zero by translation, count.
    rows : tuple of SigmaRow
    mu_star : float
    """

    unstable: Failure | None
    rows: tuple[SigmaRow, ...]
    mu_star: float
    lowest_cm1: float = 0.0

    def csv(self) -> str:
        """Table of the rows."""
        lines = [COLUMNS]
        for row in self.rows:
            numbers = (
                *(row.lam, row.omega_log_K, row.omega_2_K, row.tc_K, row.removed),
                *(row.lam_q_sum, row.omega_log_q_sum_K),
            )
            cells = ["" if x is None else f"{x:.6g}" for x in numbers]
            lines.append(",".join([f"{row.sigma_Ry:g}", *cells, row.reason]))
        return "\n".join(lines) + "\n"


def read_results(plan: Plan, folder: Path, mu_star: float = 0.10) -> Results:
    """Read a run all of whose steps are done.

    Parameters
    ----------
    plan : Plan
    folder : Path
    mu_star : float
        Coulomb pseudopotential of the Allen-Dynes formula.

    Returns
    -------
    Results
        With imaginary modes the rows hold their reason and no numbers: lambda of such a crystal means nothing, though
        matdyn.x prints one.
    """
    place = folder / "bands"
    found = [parse_dyn(text_of(place / f"{PREFIX}.dyn{n}")) for n in range(1, len(plan.q_weights) + 1)]
    imaginary = [(min(d.omega_cm1), d.imaginary()) for d in found if d.omega_cm1 is not None]
    unstable = min(((w, f) for w, f in imaginary if f is not None), default=(0.0, None), key=lambda x: x[0])[
        1
    ]
    rows = [
        _row(place / f"a2F.dos{s}", s * plan.tier.sigma_Ry, mu_star, unstable)
        for s in range(1, plan.tier.n_sigma + 1)
    ]
    if unstable is None:
        sums = q_sums(place, len(plan.q_weights), plan.tier.n_sigma)
        rows = [
            row if found is None else replace(row, lam_q_sum=found[0], omega_log_q_sum_K=found[1])
            for row, found in zip(rows, sums, strict=True)
        ]
    return Results(unstable, tuple(rows), mu_star, min((float(w) for w, _ in imaginary), default=0.0))


def write_results(results: Results, folder: Path) -> Path:
    """Write ``lambda.csv``."""
    file = folder / "lambda.csv"
    with atomic_text(file) as stream:
        stream.write(results.csv())
    return file


def _row(file: Path, sigma_Ry: float, mu_star: float, unstable: Failure | None) -> SigmaRow:
    from onnes.theory.readers import read_a2f
    from onnes.theory.tc import tc

    if unstable is not None:
        return SigmaRow(sigma_Ry, None, None, None, None, None, str(Reason.UNSTABLE))
    try:
        spectrum = read_a2f(file)
        value = tc(spectrum, mu_star=mu_star, formula="allen-dynes")
    except OnnesError as error:
        return SigmaRow(sigma_Ry, None, None, None, None, None, error.code)
    return SigmaRow(
        sigma_Ry,
        spectrum.lam,
        spectrum.omega_log_K,
        spectrum.omega_2_K,
        value.tc_K,
        max(spectrum.hygiene.imaginary, spectrum.hygiene.zero, spectrum.hygiene.negative),
        value.reason or "",
    )
