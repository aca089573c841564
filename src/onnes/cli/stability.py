"""``onnes stability``."""

from __future__ import annotations

from pathlib import Path

from onnes.cli.common import read_aloud
from onnes.cli.relaxed import CIFS, FMAX, PATHS, POTENTIAL, STEPS, TABLE, write_assessed


def stability(
    paths: list[Path] = PATHS,
    out: Path = TABLE,
    cifs: Path = CIFS,
    potential: str = POTENTIAL,
    fmax: float = FMAX,
    max_steps: int = STEPS,
) -> None:
    """Relax, then formation energy, energy above the hull, and whether the crystal is known."""
    from onnes.errors import SettingsError
    from onnes.stability.assess import STABILITY_COLUMNS, assess
    from onnes.stability.potentials import DEFAULT
    from onnes.stability.relax import RelaxSettings

    settings = RelaxSettings(potential, fmax, max_steps)
    if potential != DEFAULT:
        raise SettingsError("no-hull-table", f"the hull table holds energies of {DEFAULT} only")
    write_assessed(assess(read_aloud(paths), settings), STABILITY_COLUMNS, out, cifs)
