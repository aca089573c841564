"""``onnes relax``."""

from __future__ import annotations

from pathlib import Path

from onnes.cli.common import read_aloud
from onnes.cli.relaxed import CIFS, FMAX, PATHS, POTENTIAL, STEPS, TABLE, write_assessed


def relax(
    paths: list[Path] = PATHS,
    out: Path = TABLE,
    cifs: Path = CIFS,
    potential: str = POTENTIAL,
    fmax: float = FMAX,
    max_steps: int = STEPS,
) -> None:
    """Relax cell and coordinates with a universal potential; one row per structure."""
    from onnes.stability.relax import RelaxSettings
    from onnes.stability.relax_table import RELAX_COLUMNS, relax_all

    settings = RelaxSettings(potential, fmax, max_steps)
    write_assessed(relax_all(read_aloud(paths), settings), RELAX_COLUMNS, out, cifs)
