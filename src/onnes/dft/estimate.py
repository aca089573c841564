"""What a run will cost before it starts: CPU time, memory, disk, from a model fitted to captured timings.

Work of plane-wave programs here is Fourier transforms: k-points x bands x perturbations x n log2 n of the FFT grid. The
constants are fitted to three complete Al runs (cut-offs 15 and 40 Ry) and two single q of Nb and MgB2 at 60 Ry on one
core of a cloud machine, which they reproduce within a factor of 1.6 (`tests/dft/test_estimate.py`). A larger cell or
another machine can differ by more; the table says so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnes.dft.cutoffs import CUTOFFS
from onnes.dft.grids import irreducible, k_points_at, point_rotations
from onnes.dft.inputs import MAGNETIC
from onnes.dft.plan import Plan
from onnes.dft.pseudopotentials import Pseudopotential
from onnes.dft.pw_output import BOHR_A

#: Seconds for each k-point, band, perturbation and n log2 n: linear response; self-consistent field.
_PH_S, _SCF_S = 23e-9, 55e-9
#: d and f electrons need more iterations and projectors (Nb and NbC beside Al and MgB2).
_D_FACTOR = 2.0
#: Seconds for each dense k-point, pair of bands, pair of modes and broadening: sums on the Fermi surface.
_FERMI_S = 6e-8
#: A relaxation, in self-consistent runs.
_RELAX_RUNS = 8.0
#: matdyn.x: seconds for each point of its grid and pair of atoms.
_MATDYN_S = 2e-3
#: Memory of an idle ph.x with its libraries, MB (measured).
_BASE_MB = 60.0

#: Elements whose moments matter: without a spin-polarised check their lambda may be that of a state that is not there.
_WARNED = MAGNETIC - {"V", "O"}
#: Atomic numbers with d or f electrons in the valence.
_D_SHELLS = frozenset([*range(21, 31), *range(39, 49), *range(57, 81), *range(89, 104)])


@dataclass(frozen=True)
class StepCost:
    """One row of the table: kind of step, how many, k-points in all, CPU seconds in all."""

    kind: str
    count: int
    k_points: int
    cpu_s: float


@dataclass(frozen=True)
class Estimate:
    """Cost of a plan.

    Attributes
    ----------
    electrons : float
    bands, plane_waves, atoms, symmetries : int
    fft : tuple of 3 int
    steps : tuple of StepCost
    memory_MB : float
        Of one process.
    scf_disk_MB, largest_q_disk_MB : float
        Scratch of the self-consistent run (copied for every q at work) and of the largest q beside it.
    longest_q_s : float
        CPU seconds of the longest q: the shortest possible wall time of the phonons.
    cautions : tuple of str
    """

    electrons: float
    bands: int
    plane_waves: int
    atoms: int
    symmetries: int
    fft: tuple[int, int, int]
    steps: tuple[StepCost, ...]
    memory_MB: float
    scf_disk_MB: float
    largest_q_disk_MB: float
    longest_q_s: float
    cautions: tuple[str, ...]

    @property
    def cpu_s(self) -> float:
        """CPU seconds in all."""
        return sum(step.cpu_s for step in self.steps)

    def disk_MB(self, lanes: int) -> float:
        """Largest at one time: the scf, and as many q as are side by side; finished ones are cleaned."""
        phonons = max(s.count for s in self.steps if s.kind == "ph.x")
        return self.scf_disk_MB + min(lanes, phonons) * (self.scf_disk_MB + self.largest_q_disk_MB)

    def wall_s(self, cores: int, lanes: int | None = None) -> float:
        """Wall seconds.

        Parameters
        ----------
        cores : int
            Processes of pw.x, which share the k-points; q2r.x and matdyn.x are serial.
        lanes : int, optional
            q-points side by side, where they are not as many as `cores`.
        """
        phonons = sum(s.cpu_s for s in self.steps if s.kind == "ph.x")
        serial = sum(s.cpu_s for s in self.steps if "matdyn" in s.kind)
        scf = self.cpu_s - phonons - serial
        return scf / cores + max(phonons / (lanes or cores), self.longest_q_s) + serial


def fft_grid(lattice_A: np.ndarray, ecutrho_Ry: float) -> tuple[int, int, int]:
    """FFT dimensions of a density cut-off: the next products of 2, 3 and 5."""
    lengths = np.linalg.norm(lattice_A, axis=1) / BOHR_A
    a, b, c = (_good(math.sqrt(ecutrho_Ry) * x / math.pi + 1.0) for x in lengths)
    return a, b, c


def bands_of(electrons: float) -> int:
    """Bands pw.x takes for a metal: 20 % more than half the electrons, and 4 more at least."""
    half = electrons / 2.0
    return max(_nint(1.2 * half), _nint(half) + 4)


def linear_response_s(
    k_points: int, modes: int, bands: int, fft: Sequence[int], *, d_electrons: bool = False
) -> float:
    """CPU seconds of the linear response at one q."""
    return _PH_S * k_points * modes * bands * _work(fft) * (_D_FACTOR if d_electrons else 1.0)


def fermi_sum_s(dense_points: int, modes: int, bands: int, n_sigma: int) -> float:
    """CPU seconds of the coupling sums at one q."""
    return _FERMI_S * dense_points * bands**2 * modes**2 * n_sigma


def estimate(plan: Plan, pseudos: dict[str, Pseudopotential] | None = None) -> Estimate:
    """Estimate a plan.

    Parameters
    ----------
    plan : Plan
    pseudos : dict, optional
        Their valence charges; the table's where there are none (elements outside it count 10 electrons, and a caution
        says so).
    """
    structure = plan.cell.structure
    elements = [site.specie.symbol for site in structure]
    electrons = sum(_valence(e, pseudos) for e in elements)
    bands, modes = bands_of(electrons), 3 * len(structure)
    fft = fft_grid(np.array(structure.lattice.matrix), plan.cell.ecutrho_Ry)
    rotations = point_rotations(structure)
    heavy = any(site.specie.Z in _D_SHELLS for site in structure)
    factor = _D_FACTOR if heavy else 1.0
    grids, tier = plan.grids, plan.tier
    coarse, dense = (len(irreducible(g, rotations)[0]) for g in (grids.k, grids.dense))
    q_points, _ = irreducible(grids.q, rotations)
    k_at_q = [k_points_at(q, grids.k, rotations) for q in q_points]
    sums = fermi_sum_s(math.prod(grids.dense), modes, bands, tier.n_sigma)
    each_q = [linear_response_s(k, modes, bands, fft, d_electrons=heavy) + sums for k in k_at_q]
    scf = _SCF_S * bands * _work(fft) * factor
    steps = []
    if any(s.name == "relax" for s in plan.steps):
        steps.append(StepCost("relax", 1, coarse, _RELAX_RUNS * scf * coarse))
    if any(s.name == "spin" for s in plan.steps):
        # Two spins, and a moment that builds up over more iterations: not fitted to runs.
        steps.append(StepCost("spin scf", 1, 2 * coarse, 3.0 * scf * coarse))
    steps += [
        StepCost("dense scf", 1, dense, scf * dense),
        StepCost("scf", 1, coarse, scf * coarse),
        StepCost("ph.x", len(q_points), sum(k_at_q), sum(each_q)),
        StepCost("q2r, matdyn", 3, 0, _matdyn_s(plan, len(structure))),
    ]
    volume = float(structure.volume) / BOHR_A**3
    waves = round(volume * plan.cell.ecutwfc_Ry**1.5 / (6.0 * math.pi**2))
    return Estimate(
        electrons=electrons,
        bands=bands,
        plane_waves=waves,
        atoms=len(structure),
        symmetries=len(rotations),
        fft=fft,
        steps=tuple(steps),
        memory_MB=_memory_MB(waves, bands, fft, modes, dense),
        scf_disk_MB=(coarse * waves * bands * 16 + dense * bands * 25 + math.prod(fft) * 16) / 1e6,
        largest_q_disk_MB=_q_disk_MB(waves, bands, fft, modes, max(k_at_q)),
        longest_q_s=max(each_q),
        cautions=_cautions(plan, electrons, pseudos),
    )


def _matdyn_s(plan: Plan, atoms: int) -> float:
    points = math.prod(n * plan.tier.matdyn_factor for n in plan.grids.q if n > 1)
    return 1.0 + _MATDYN_S * points * atoms**2


def _memory_MB(waves: int, bands: int, fft: Sequence[int], modes: int, k_points: int) -> float:
    """Davidson keeps four sets of bands twice; linear response a handful of densities, two for every mode."""
    numbers = waves * bands * 16 + math.prod(fft) * (20 + 2 * modes) + k_points * bands
    return _BASE_MB + numbers * 16 / 1e6


def _q_disk_MB(waves: int, bands: int, fft: Sequence[int], modes: int, k_points: int) -> float:
    """Wave functions at k and k + q with up to three first-order ones, and the potential's response to each mode."""
    return (4.0 * k_points * waves * bands * 16 + modes * math.prod(fft) * 16) / 1e6


def _cautions(plan: Plan, electrons: float, pseudos: dict[str, Pseudopotential] | None) -> tuple[str, ...]:
    found = []
    elements = plan.cell.elements
    magnetic = [e for e in elements if e in _WARNED]
    if magnetic:
        found.append(
            f"{', '.join(magnetic)}: magnetic elements; the run is not spin-polarised, check for a moment first"
        )
    if abs(electrons / 2.0 - round(electrons / 2.0)) < 1e-6:
        text = "an even number of electrons: may be an insulator, which the scf will tell"
        if _ionic(elements):
            text = (
                "an even number of electrons and a salt by electronegativity: likely an insulator; no Tc then"
            )
        found.append(text)
    if pseudos is None:
        found.append(
            "no pseudopotentials given: cut-offs and valence charges are those of PseudoDojo 0.4 PBEsol"
        )
        unknown = [e for e in elements if e not in CUTOFFS]
        if unknown:
            found.append(f"{', '.join(unknown)}: valence charge unknown, 10 electrons taken")
    elif any(p.functional != "PBEsol" for p in pseudos.values()):
        found.append(
            f"functional {next(iter(pseudos.values())).functional}: the defaults were made for PBEsol"
        )
    if 1 in plan.grids.q:
        found.append(f"q grid {'x'.join(map(str, plan.grids.q))}: one axis has Gamma only")
    if math.prod(plan.grids.q) < 8:
        found.append("fewer than 8 q-points: lambda is a rough number")
    return tuple(found)


def _ionic(elements: Sequence[str]) -> bool:
    """Whether Pauling electronegativities differ by 1.7 or more, as between a salt's ions."""
    from pymatgen.core import Element

    values = [x for x in (Element(e).X for e in elements) if x == x]
    return len(values) > 1 and max(values) - min(values) >= 1.7


def _valence(element: str, pseudos: dict[str, Pseudopotential] | None) -> float:
    if pseudos is not None:
        return pseudos[element].z_valence
    return CUTOFFS[element].z_valence if element in CUTOFFS else 10.0


def _work(fft: Sequence[int]) -> float:
    points = math.prod(fft)
    return points * math.log2(points)


def _good(least: float) -> int:
    number = math.ceil(least)
    while True:
        rest = number
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return number
        number += 1


def _nint(value: float) -> int:
    """Fortran's NINT: halves away from zero."""
    return math.floor(value + 0.5)
