"""Text of every input file of the electron-phonon chain; the same crystal and settings give the same bytes.

The chain (all with one prefix): ``relax`` - ``dense`` (scf with la2F on the dense grid) - ``scf`` (coarse grid, in the
same folder, afterwards) - one ``ph.x`` for each irreducible q in a folder of its own - ``q2r.x`` - ``matdyn.x`` for
bands, and for alpha2F with the DOS. No input ever asks ph.x to take up a run that was cut: it gives wrong modes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from onnes.dft.grids import Grids, Subdivisions, vacuum_axes
from onnes.dft.tiers import Tier
from onnes.errors import InputError

if TYPE_CHECKING:
    from pymatgen.core import Structure

#: Prefix of QE's files, and its scratch folder below the folder of a step.
PREFIX, SCRATCH = "onnes", "./tmp"
#: Where inputs look for pseudopotentials: beside the folders of the steps.
PSEUDO_FOLDER = "../pseudo"
#: q-points on every leg of the phonon bands.
BAND_POINTS = 20
#: Elements looked at for magnetism: open 3d, 4f and 5f shells, and oxygen (O2, superoxides).
MAGNETIC = frozenset(
    [
        "V",
        "Cr",
        "Mn",
        "Fe",
        "Co",
        "Ni",
        "O",
        "Ce",
        "Pr",
        "Nd",
        "Pm",
        "Sm",
        "Eu",
        "Gd",
        "Tb",
        "Dy",
        "Ho",
        "Er",
        "Tm",
        "Yb",
        "U",
        "Np",
        "Pu",
        "Am",
        "Cm",
    ]
)
#: Share of the valence electrons of a magnetic element that starts with one spin; the others start without.
START_POLARISATION = 0.3


@dataclass(frozen=True)
class Cell:
    """What the inputs say of a crystal.

    Attributes
    ----------
    structure : pymatgen Structure
        Standardised primitive cell.
    masses : dict of str to float
        Element -> mass in u.
    files : dict of str to str
        Element -> name of its pseudopotential in the run's folder of them.
    ecutwfc_Ry, ecutrho_Ry : float
    """

    structure: Structure
    masses: dict[str, float]
    files: dict[str, str]
    ecutwfc_Ry: float
    ecutrho_Ry: float

    @property
    def elements(self) -> list[str]:
        """Element symbols in alphabetical order: the species of every input."""
        return sorted({site.specie.symbol for site in self.structure})


def masses_of(structure: Structure, isotopes: dict[int, float] | None = None) -> dict[str, float]:
    """Mass of every element in u, isotopes of the original sites respected.

    Parameters
    ----------
    structure : pymatgen Structure
        As read, before it was standardised: `isotopes` counts its sites.
    isotopes : dict, optional
        Site index -> mass in u (D, T).

    Raises
    ------
    InputError
        ``mixed-isotopes``: sites of one element with different masses.
    """
    from ase.data import atomic_masses, atomic_numbers

    found: dict[str, set[float]] = {}
    for index, site in enumerate(structure):
        symbol = site.specie.symbol
        natural = float(atomic_masses[atomic_numbers[symbol]])
        found.setdefault(symbol, set()).add(round(float((isotopes or {}).get(index, natural)), 6))
    for symbol, several in found.items():
        if len(several) > 1:
            raise InputError(
                "mixed-isotopes",
                f"{symbol} sites have masses {', '.join(f'{m:g}' for m in sorted(several))} u; "
                "one mass an element is supported",
            )
    return {symbol: several.pop() for symbol, several in sorted(found.items())}


def relax_input(cell: Cell, tier: Tier, grid: Subdivisions) -> str:
    """``pw.x`` input that relaxes cell and positions (the cell in the plane only, for a slab)."""
    vacuum = vacuum_axes(cell.structure)
    free = "  cell_dofree='2Dxy'\n" if vacuum == (False, False, True) else ""
    control = (
        "  tprnfor=.true.\n  tstress=.true.\n  forc_conv_thr=1.0d-4\n  etot_conv_thr=1.0d-5\n  nstep=100\n"
    )
    tail = f"&ions\n/\n&cell\n  press=0.0\n  press_conv_thr=0.2\n{free}/\n"
    # Fixed cells (two or three empty directions) only move their atoms.
    moving = "vc-relax" if sum(vacuum) < 2 and vacuum in ((False,) * 3, (False, False, True)) else "relax"
    if moving == "relax":
        tail = "&ions\n/\n"
    return _pw(cell, tier, grid, moving, control=control, threshold_Ry=1e-10, tail=tail)


def dense_input(cell: Cell, tier: Tier, grids: Grids) -> str:
    """``pw.x`` input of the Fermi-surface grid; writes ``prefix.a2Fsave``. To be run before `scf_input`."""
    return _pw(cell, tier, grids.dense, "scf", system="  la2F=.true.\n", threshold_Ry=tier.scf_threshold_Ry)


def scf_input(cell: Cell, tier: Tier, grids: Grids) -> str:
    """``pw.x`` input of the coarse grid the linear response starts from, in the folder of `dense_input`."""
    return _pw(cell, tier, grids.k, "scf", threshold_Ry=tier.scf_threshold_Ry)


def spin_input(cell: Cell, tier: Tier, grid: Subdivisions) -> str:
    """``pw.x`` input of a spin-polarised scf that starts ferromagnetic on the elements of `MAGNETIC`.

    An antiferromagnet whose magnetic cell is larger than the crystal's is not found by it.
    """
    start = "".join(
        f"  starting_magnetization({n})={START_POLARISATION if element in MAGNETIC else 0.0:.1f}\n"
        for n, element in enumerate(cell.elements, start=1)
    )
    # A looser threshold than that of the coupling: a moment is wanted, not a density for linear response.
    return _pw(cell, tier, grid, "scf", system=f"  nspin=2\n{start}", threshold_Ry=1e-8)


def ph_input(tier: Tier, q: Subdivisions, number: int) -> str:
    """``ph.x`` input of one irreducible q.

    Parameters
    ----------
    tier : Tier
    q : tuple of 3 int
        The whole grid: ph.x finds the irreducible points and takes the one asked for.
    number : int
        From 1, in the order of ``prefix.dyn0``.
    """
    return (
        f"q {number} of {'x'.join(map(str, q))}\n"
        "&inputph\n"
        f"  prefix='{PREFIX}'\n"
        f"  outdir='{SCRATCH}'\n"
        f"  tr2_ph={_double(tier.ph_threshold)}\n"
        f"  fildyn='{PREFIX}.dyn'\n"
        f"  fildvscf='dvscf'\n"
        "  electron_phonon='interpolated'\n"
        f"  el_ph_sigma={tier.sigma_Ry:.6f}\n"
        f"  el_ph_nsigma={tier.n_sigma}\n"
        "  trans=.true.\n"
        "  ldisp=.true.\n"
        f"  nq1={q[0]}\n  nq2={q[1]}\n  nq3={q[2]}\n"
        f"  start_q={number}\n  last_q={number}\n"
        "/\n"
    )


def q2r_input() -> str:
    """``q2r.x`` input: force constants, and the interpolation tables of the coupling."""
    return f"&input\n  zasr='simple'\n  fildyn='{PREFIX}.dyn'\n  flfrc='{PREFIX}.fc'\n  la2F=.true.\n/\n"


def bands_input(structure: Structure) -> str:
    """``matdyn.x`` input of the phonon bands along the standard path."""
    path = band_path(structure)
    rows = "".join(f"  {_number(a)} {_number(b)} {_number(c)}\n" for a, b, c in path)
    return (
        "&input\n"
        "  asr='simple'\n"
        f"  flfrc='{PREFIX}.fc'\n"
        f"  flfrq='{PREFIX}.freq'\n"
        "  flvec=' '\n"
        "  la2F=.true.\n"
        "  dos=.false.\n"
        "  q_in_cryst_coord=.true.\n"
        f"/\n{len(path)}\n{rows}"
    )


def a2f_input(tier: Tier, q: Subdivisions) -> str:
    """``matdyn.x`` input of alpha2F at every broadening, with the phonon density of states."""
    nk = [1 if n == 1 else n * tier.matdyn_factor for n in q]
    return (
        "&input\n"
        "  asr='simple'\n"
        f"  flfrc='{PREFIX}.fc'\n"
        f"  flfrq='{PREFIX}.dos.freq'\n"
        "  flvec=' '\n"
        "  la2F=.true.\n"
        "  dos=.true.\n"
        f"  fldos='{PREFIX}.phdos'\n"
        f"  nk1={nk[0]}\n  nk2={nk[1]}\n  nk3={nk[2]}\n"
        f"  ndos={tier.dos_points}\n"
        "/\n"
    )


def lambda_input(
    q: Sequence[Sequence[float]], weights: Sequence[int], emax_THz: float, mu_star: float
) -> str:
    """Input of ``lambda.x``, read from standard input; only a cross-check of the alpha2F of matdyn.x.

    Parameters
    ----------
    q : sequence of 3 floats each
        Irreducible points, cartesian in 2 pi/alat, in the order of ``prefix.dyn0``.
    weights : sequence of int
    emax_THz : float
        Must lie above the highest frequency: lambda.x cuts its integral there.
    mu_star : float
    """
    rows = "".join(
        f"{_number(a)} {_number(b)} {_number(c)} {w:d}.0\n" for (a, b, c), w in zip(q, weights, strict=True)
    )
    files = "".join(f"elph_dir/elph.inp_lambda.{i}\n" for i in range(1, len(q) + 1))
    return f"{emax_THz:.4f} 0.12 1\n{len(q)}\n{rows}{files}{mu_star:.4f}\n"


def band_path(structure: Structure) -> list[tuple[float, float, float]]:
    """Points of the standard path in units of the reciprocal vectors of the cell.

    The legs of W. Setyawan and S. Curtarolo, Comput. Mater. Sci. 49, 299 (2010), as ASE keeps them, `BAND_POINTS` each.
    """
    return _band_path(structure)[0]


def band_corners(structure: Structure) -> list[tuple[str, int]]:
    """Names of the corners of `band_path` with their places in it; where the path jumps two follow each other."""
    return _band_path(structure)[1]


def _band_path(structure: Structure) -> tuple[list[tuple[float, float, float]], list[tuple[str, int]]]:
    from ase.cell import Cell as AseCell

    vacuum = vacuum_axes(structure)
    path = AseCell(np.array(structure.lattice.matrix)).bandpath(
        npoints=0, pbc=[not v for v in vacuum], eps=1e-3
    )
    points: list[tuple[float, float, float]] = []
    names: list[tuple[str, int]] = []
    for stretch in _stretches(path.path):
        corners = [path.special_points[name] for name in stretch]
        for name, (start, end) in zip(stretch, pairwise(corners), strict=False):
            names.append((name, len(points)))
            for t in np.arange(BAND_POINTS) / BAND_POINTS:
                points.append(_triple(start + t * (end - start)))
        names.append((stretch[-1], len(points)))
        points.append(_triple(corners[-1]))
    return points, names


def _stretches(path: str) -> list[list[str]]:
    """``GXU,KG`` -> [[G, X, U], [K, G]]; names may carry digits."""
    import re

    return [re.findall(r"[A-Z][a-z]?\d*", part) for part in path.split(",") if part]


def _pw(
    cell: Cell,
    tier: Tier,
    grid: Subdivisions,
    calculation: str,
    *,
    threshold_Ry: float,
    control: str = "",
    system: str = "",
    tail: str = "",
) -> str:
    """Any ``pw.x`` input: the cell goes in with ibrav 0, its symmetry intact to 12 digits."""
    structure = cell.structure
    elements = cell.elements
    species = "".join(f"  {e} {cell.masses[e]:.6f} {cell.files[e]}\n" for e in elements)
    vectors = "".join("  " + " ".join(_number(x, 12) for x in row) + "\n" for row in structure.lattice.matrix)
    sites = "".join(
        f"  {site.specie.symbol} " + " ".join(_number(x, 12) for x in site.frac_coords) + "\n"
        for site in structure
    )
    return (
        "&control\n"
        f"  calculation='{calculation}'\n"
        "  restart_mode='from_scratch'\n"
        f"  prefix='{PREFIX}'\n"
        f"  pseudo_dir='{PSEUDO_FOLDER}'\n"
        f"  outdir='{SCRATCH}'\n"
        f"{control}"
        "/\n"
        "&system\n"
        "  ibrav=0\n"
        f"  nat={len(structure)}\n"
        f"  ntyp={len(elements)}\n"
        f"  ecutwfc={cell.ecutwfc_Ry:.1f}\n"
        f"  ecutrho={cell.ecutrho_Ry:.1f}\n"
        "  occupations='smearing'\n"
        f"  smearing='{tier.smearing}'\n"
        f"  degauss={tier.degauss_Ry:.6f}\n"
        f"{system}"
        "/\n"
        "&electrons\n"
        f"  conv_thr={_double(threshold_Ry)}\n"
        "  mixing_beta=0.7\n"
        "  electron_maxstep=200\n"
        "/\n"
        f"{tail}"
        f"ATOMIC_SPECIES\n{species}"
        f"CELL_PARAMETERS angstrom\n{vectors}"
        f"ATOMIC_POSITIONS crystal\n{sites}"
        f"K_POINTS automatic\n  {grid[0]} {grid[1]} {grid[2]} 0 0 0\n"
    )


def _number(value: float, digits: int = 9) -> str:
    """Fixed point; minus zero, whose sign is rounding noise, is zero."""
    text = f"{value:.{digits}f}"
    return text[1:] if text.startswith("-") and float(text) == 0.0 else text


def _double(value: float) -> str:
    """Fortran double: 1e-12 -> ``1.0d-12``."""
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa}d{int(exponent)}"


def _triple(values: np.ndarray) -> tuple[float, float, float]:
    a, b, c = (float(v) for v in values)
    return a, b, c
