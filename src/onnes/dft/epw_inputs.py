"""Inputs of the EPW route (Wannier interpolation of the coupling): experimental, written and not run by onnes.

The chain, in a folder of its own (``epw/``)::

    pw.x scf.in  ->  ph.x ph.in (every q of the coarse grid, dvscf kept)  ->  collect.sh (files into save/)
    ->  pw.x nscf.in (all k-points of the coarse grid)  ->  epw.x epw.in (Wannier functions, fine grids, Eliashberg)

Which Wannier functions and energy windows describe a crystal is a matter of judgement that no rule settles: the
projections written are a start (s and p, or s and d), and a person has to compare the interpolated bands with pw.x's.

Bands of semicore states are left out (``bands_skipped``). epw.x takes the lowest bands for the functions and fills
them with the electrons of all: with the semicore among them, the frozen window holds more bands than there are
functions (it stops), or the Fermi level is a wrong one (it does not).
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING

from onnes.data.files import atomic_text
from onnes.dft.estimate import bands_of
from onnes.dft.grids import Subdivisions, subdivisions
from onnes.dft.inputs import PREFIX, SCRATCH, scf_input
from onnes.errors import SettingsError

if TYPE_CHECKING:
    from onnes.dft.plan import Plan

#: Density of the fine k grid, A; the fine q grid has half as many points along an axis.
FINE_K_DENSITY_A = 120.0
#: Kept electrons and their broadening around the Fermi level, eV, and the broadening of phonons, meV.
FERMI_WINDOW_EV, DEGAUSS_EV, DEGAUSS_MEV = 0.4, 0.1, 0.5
#: Frozen window above the Fermi level, eV.
FROZEN_EV = 1.0
#: Matsubara cut-off, eV.
CUTOFF_EV = 1.0
#: Temperatures of the Eliashberg equations as fractions of the Tc expected, and that Tc where nothing is known, K.
#: Above Tc epw.x 5.3.1 does not end its iterations and stops with an error of its mixing.
FRACTIONS, EXPECTED_K = (0.2, 0.4, 0.6, 0.8), 5.0


def write_epw(
    plan: Plan,
    folder: Path,
    *,
    electrons: float | None = None,
    fermi_eV: float | None = None,
    fine_k: Subdivisions | None = None,
    mu_star: float = 0.10,
    tc_K: float | None = None,
) -> list[Path]:
    """Write the inputs of the chain below ``folder/epw``.

    Parameters
    ----------
    plan : Plan
        Of the relaxed cell, so that both routes see one crystal.
    folder : Path
        Of the run.
    electrons : float, optional
        Of the cell; from the cut-off table where left out.
    fermi_eV : float, optional
        From the scf. The frozen window is made from it; without it a line to fill in takes its place, because epw.x
        would freeze every band.
    fine_k : tuple of 3 int, optional
        Fine k grid; the fine q grid is its half.
    mu_star : float
    tc_K : float, optional
        Expected, from the run of ph.x: decides the temperatures.

    Returns
    -------
    list of Path

    Raises
    ------
    SettingsError
        ``bad-grid``.
    """
    place = folder / "epw"
    files = {
        "scf.in": scf_input(plan.cell, plan.tier, plan.grids),
        "ph.in": ph_input(plan),
        "nscf.in": nscf_input(plan, electrons),
        "epw.in": epw_input(plan, electrons, fermi_eV, fine_k, mu_star, tc_K),
        "collect.sh": collect_script(len(plan.q_weights)),
    }
    written = []
    for name, text in files.items():
        with atomic_text(place / name) as stream:
            stream.write(text)
        written.append(place / name)
    return written


def ph_input(plan: Plan) -> str:
    """``ph.x`` input of every q of the coarse grid; EPW needs the change of the potential, not the coupling of ph.x."""
    a, b, c = plan.grids.q
    return (
        f"phonons for EPW, {a}x{b}x{c}\n&inputph\n  prefix='{PREFIX}'\n  outdir='{SCRATCH}'\n"
        f"  tr2_ph=1.0d-14\n  fildyn='{PREFIX}.dyn'\n  fildvscf='dvscf'\n  ldisp=.true.\n"
        f"  nq1={a}\n  nq2={b}\n  nq3={c}\n/\n"
    )


def nscf_input(plan: Plan, electrons: float | None = None) -> str:
    """``pw.x`` input of all points of the coarse k grid, listed, as Wannier functions need them.

    Symmetry stays on: with ``nosym`` epw.x 5.3.1 ends in a segmentation fault, because ph.x used the symmetry.
    """
    text = scf_input(plan.cell, plan.tier, plan.grids)
    text = text.replace("calculation='scf'", "calculation='nscf'").replace(
        "  ibrav=0\n", f"  ibrav=0\n  nbnd={_bands(plan, electrons)}\n"
    )
    head = text[: text.index("K_POINTS")]
    n = plan.grids.k
    points = list(itertools.product(*(range(m) for m in n)))
    weight = 1.0 / len(points)
    rows = "".join(f"  {i / n[0]:.10f} {j / n[1]:.10f} {k / n[2]:.10f} {weight:.10f}\n" for i, j, k in points)
    return f"{head}K_POINTS crystal\n{len(points)}\n{rows}"


def epw_input(
    plan: Plan,
    electrons: float | None = None,
    fermi_eV: float | None = None,
    fine_k: Subdivisions | None = None,
    mu_star: float = 0.10,
    tc_K: float | None = None,
) -> str:
    """``epw.x`` input: Wannier functions, fine grids, alpha2F and the isotropic Eliashberg equations."""
    cell, (k, q) = plan.cell, (plan.grids.k, plan.grids.q)
    fine = fine_k or _fine(plan)
    if any(n < 1 or (n % 2 and n > 1) for n in fine):
        raise SettingsError("bad-grid", f"fine k grid {'x'.join(map(str, fine))}: even numbers, or 1")
    temperatures = [f"{fraction * (tc_K or EXPECTED_K):.3f}" for fraction in FRACTIONS]
    half = tuple(max(1, n // 2) for n in fine)
    wannier = _projections(plan)
    masses = "".join(f"  amass({n})={cell.masses[e]:.6f}\n" for n, e in enumerate(cell.elements, start=1))
    functions = "".join(
        f"  proj({n})='{e}:{kinds}'\n" for n, (e, kinds) in enumerate(wannier.items(), start=1)
    )
    skipped = semicore_bands(plan, electrons)
    below = f"  bands_skipped='exclude_bands = 1:{skipped}'\n" if skipped else ""
    frozen = (
        f"  ! FILL IN, or epw.x freezes every band: Fermi energy of scf.out + {FROZEN_EV:g} eV\n  ! dis_froz_max=\n"
        if fermi_eV is None
        else f"  dis_froz_max={fermi_eV + FROZEN_EV:.4f}\n"
    )
    return (
        "EPW: experimental, made by onnes\n&inputepw\n"
        f"  prefix='{PREFIX}'\n  outdir='{SCRATCH}/'\n  dvscf_dir='./save'\n{masses}"
        "  elph=.true.\n  epwwrite=.true.\n  epwread=.false.\n  etf_mem=1\n"
        f"  wannierize=.true.\n  nbndsub={_functions(plan)}\n  num_iter=300\n{below}{frozen}{functions}"
        f"  fsthick={FERMI_WINDOW_EV:g}\n  degaussw={DEGAUSS_EV:g}\n  degaussq={DEGAUSS_MEV:g}\n"
        "  ephwrite=.true.\n  eliashberg=.true.\n  liso=.true.\n  limag=.true.\n  lpade=.true.\n"
        f"  nsiter=500\n  conv_thr_iaxis=1.0d-3\n  wscut={CUTOFF_EV:g}\n  muc={mu_star:g}\n"
        f"  nstemp={len(temperatures)}\n  temps={' '.join(temperatures)}\n"
        f"  nk1={k[0]}\n  nk2={k[1]}\n  nk3={k[2]}\n  nq1={q[0]}\n  nq2={q[1]}\n  nq3={q[2]}\n"
        f"  mp_mesh_k=.true.\n  nkf1={fine[0]}\n  nkf2={fine[1]}\n  nkf3={fine[2]}\n"
        f"  nqf1={half[0]}\n  nqf2={half[1]}\n  nqf3={half[2]}\n/\n"
    )


def collect_script(q_points: int) -> str:
    """Shell script that puts what ph.x left where EPW looks for it (what QE's own ``pp.py`` does)."""
    return (
        "#!/bin/sh\n# Between ph.x and epw.x: dynamical matrices and changes of the potential into save/.\n"
        "set -eu\nmkdir -p save\n"
        f"cp -r tmp/_ph0/{PREFIX}.phsave save/\n"
        f"for q in $(seq 1 {q_points}); do\n"
        f"  cp {PREFIX}.dyn$q save/{PREFIX}.dyn_q$q\n"
        f'  if [ "$q" -eq 1 ]; then from=tmp/_ph0; else from=tmp/_ph0/{PREFIX}.q_$q; fi\n'
        f"  cp $from/{PREFIX}.dvscf1 save/{PREFIX}.dvscf_q$q\n"
        "done\n"
    )


_FUNCTIONS = {"s": 1, "p": 3, "d": 5, "f": 7}


def _group(symbol: str) -> int:
    from pymatgen.core import Element

    return int(Element(symbol).group)


def _projections(plan: Plan) -> dict[str, str]:
    """S and p, s and d for groups 3 to 12, s alone for hydrogen and helium."""
    found = {symbol: "s;d" if 3 <= _group(symbol) <= 12 else "s;p" for symbol in plan.cell.elements}
    return {symbol: "s" if symbol in ("H", "He") else kinds for symbol, kinds in found.items()}


def _functions(plan: Plan) -> int:
    """Wannier functions of the cell."""
    kinds = _projections(plan)
    return sum(
        _FUNCTIONS[kind] for site in plan.cell.structure for kind in kinds[site.specie.symbol].split(";")
    )


def semicore_bands(plan: Plan, electrons: float | None = None) -> int:
    """Bands below those of the valence shell, for which there are no functions.

    The valence shell holds as many electrons as the number of the group says, ten less behind the transition metals.

    Parameters
    ----------
    plan : Plan
    electrons : float, optional
        Of the cell; from the cut-off table where left out.
    """
    groups = [(site.specie, _group(site.specie.symbol)) for site in plan.cell.structure]
    if any(s.symbol not in ("La", "Lu") and (s.is_lanthanoid or s.is_actinoid) for s, _ in groups):
        # Whether 4f or 5f electrons are valence is for a person to say.
        return 0
    shell = sum(2 if s.symbol == "He" else g if g <= 12 else g - 10 for s, g in groups)
    return max(0, round(_electrons(plan, electrons) - shell) // 2)


def _fine(plan: Plan) -> Subdivisions:
    """Even subdivisions of `FINE_K_DENSITY_A`; an axis of vacuum keeps its one point."""
    found = subdivisions(plan.cell.structure.lattice.matrix, FINE_K_DENSITY_A)
    a, b, c = (1 if k == 1 else n + n % 2 for n, k in zip(found, plan.grids.k, strict=True))
    return a, b, c


def _electrons(plan: Plan, electrons: float | None) -> float:
    from onnes.dft.cutoffs import cutoffs_of

    return electrons or sum(cutoffs_of(site.specie.symbol).z_valence for site in plan.cell.structure)


def _bands(plan: Plan, electrons: float | None) -> int:
    """Bands of the non-self-consistent run: those of the metal, and more than the Wannier functions need."""
    needed = semicore_bands(plan, electrons) + _functions(plan) + 4
    return max(bands_of(_electrons(plan, electrons)), needed)
