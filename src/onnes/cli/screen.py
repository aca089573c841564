"""``onnes screen``: the BCS pre-screen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from onnes.cli.common import read_aloud
from onnes.cli.relaxed import probe

if TYPE_CHECKING:
    from onnes.crystal.read import Crystal
    from onnes.stability.screen import Given


def screen(
    paths: list[Path] = typer.Argument(..., help="Structure files, record files with labels, or folders."),
    out: Path = typer.Option(None, "--out", help="Write the csv here instead of stdout."),
    min_debye: float = typer.Option(300.0, "--min-debye", help="Debye temperature to exceed, K."),
    min_dos: float = typer.Option(0.0, "--min-dos", help="N(EF) to exceed, states/eV/atom."),
    require_dos: bool = typer.Option(False, "--require-dos", help="Stop crystals whose N(EF) is unknown."),
    elastic: bool = typer.Option(
        False,
        "--elastic",
        help="Missing moduli from strains of the potential (seconds a crystal; soft in shear).",
    ),
    learned: bool = typer.Option(
        False, "--learned", help="Missing moduli from the property heads, trained on DFT moduli."
    ),
) -> None:
    """Screen crystals by Debye temperature and N(EF); one row each, counts per gate on stderr."""
    import pandas as pd

    from onnes.data.files import atomic_text
    from onnes.errors import SettingsError
    from onnes.stability.screen import COLUMNS, counts, from_strains
    from onnes.stability.screen import screen as run
    from onnes.theory.bcs import Screen

    if elastic and learned:
        raise SettingsError("bad-setting", "missing moduli come from --elastic or --learned, not from both")
    moduli: Callable[[Crystal], Given] | None = from_strains if elastic else None
    source = "potential"
    if learned:
        from onnes.heads import learned_moduli

        moduli, source = learned_moduli, "learned"
    limits = Screen(min_debye, min_dos)
    probe(out)
    rows = list(run(read_aloud(paths), limits, require_dos=require_dos, moduli=moduli, source=source))
    text = pd.DataFrame(rows, columns=list(COLUMNS)).to_csv(index=False, float_format="%.6g")
    if out is None:
        typer.echo(text.rstrip("\n"))
    else:
        with atomic_text(out) as handle:
            handle.write(text)
    words = ", ".join(f"{gate} {n}" for gate, n in counts(rows).items())
    unknown = sum(r["gate"] == "" and r["dos_ef_states_eV_atom"] is None for r in rows)
    typer.echo(
        f"{len(rows)} crystals: {words}" + (f" ({unknown} with N(EF) unknown)" if unknown else ""), err=True
    )
    if any(row["status"] == "refused" for row in rows):
        raise typer.Exit(1)
