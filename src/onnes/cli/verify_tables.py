"""What ``onnes verify`` prints before a run: grids, cost, cautions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onnes.crystal.read import Crystal
    from onnes.dft.estimate import Estimate
    from onnes.dft.plan import Plan


def plan_row(
    item: Crystal, plan: Plan, cost: Estimate, cores: int, lanes: int, folder: Path | None
) -> dict[str, Any]:
    """What ``--json`` says of a plan with so many processes of pw.x and q-points side by side."""
    from onnes.crystal import reduced_formula

    return {
        "id": item.id,
        "status": "ok",
        "reason": "",
        "formula": reduced_formula(item.structure),
        "tier": str(plan.tier.name),
        "atoms": cost.atoms,
        "electrons": cost.electrons,
        "ecutwfc_Ry": plan.cell.ecutwfc_Ry,
        "q": list(plan.grids.q),
        "k": list(plan.grids.k),
        "dense": list(plan.grids.dense),
        "irreducible_q": len(plan.q_weights),
        "cpu_hours": round(cost.cpu_s / 3600.0, 4),
        "wall_hours": round(cost.wall_s(cores, lanes) / 3600.0, 4),
        "memory_MB": round(cost.memory_MB),
        "disk_MB": round(cost.disk_MB(lanes)),
        "cautions": list(cost.cautions),
        "folder": None if folder is None else str(folder),
    }


def plan_table(item: Crystal, plan: Plan, cost: Estimate, cores: int, lanes: int) -> str:
    """What a person reads: the crystal, its grids, a row for each kind of step, totals, cautions."""
    from onnes.crystal import reduced_formula

    grids = [
        f"{name} {'x'.join(map(str, g))}" for name, g in zip("qk", (plan.grids.q, plan.grids.k), strict=True)
    ]
    lines = [
        f"{item.id}: {reduced_formula(item.structure)}, tier {plan.tier.name}",
        f"  cell        {cost.atoms} atoms, {cost.electrons:g} electrons, {cost.bands} bands, "
        f"{cost.symmetries} operations",
        f"  cut-offs    {plan.cell.ecutwfc_Ry:g} / {plan.cell.ecutrho_Ry:g} Ry, FFT {'x'.join(map(str, cost.fft))}",
        f"  grids       {', '.join(grids)}, Fermi surface {'x'.join(map(str, plan.grids.dense))}",
        f"  {'step':<12}{'runs':>6}{'k-points':>10}{'CPU time':>12}",
    ]
    for step in cost.steps:
        points = str(step.k_points) if step.k_points else ""
        lines.append(f"  {step.kind:<12}{step.count:>6}{points:>10}{_time(step.cpu_s):>12}")
    lines += [
        f"  {'in all':<12}{'':>6}{'':>10}{_time(cost.cpu_s):>12}",
        f"  wall time   {_time(cost.wall_s(cores, lanes))} with {lanes} q side by side, pw.x on {cores} cores "
        f"(longest q {_time(cost.longest_q_s)})",
        f"  memory      {_size(cost.memory_MB)} a process;  disk {_size(cost.disk_MB(lanes))}",
        "  accuracy    a factor of 2 on the machine of the fit; other machines and large cells more",
        *(f"  caution     {text}" for text in cost.cautions),
    ]
    return "\n".join(lines)


def _time(seconds: float) -> str:
    if seconds < 90.0:
        return f"{seconds:.0f} s"
    if seconds < 5400.0:
        return f"{seconds / 60.0:.0f} min"
    return f"{seconds / 3600.0:.1f} h" if seconds < 48 * 3600.0 else f"{seconds / 86400.0:.1f} d"


def _size(megabytes: float) -> str:
    return f"{megabytes:.0f} MB" if megabytes < 1000.0 else f"{megabytes / 1000.0:.1f} GB"
