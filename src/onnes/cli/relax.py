"""``onnes relax``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from onnes.cli.common import free_name, read_aloud
from onnes.cli.relaxed import CIFS, FMAX, PATHS, POTENTIAL, RESUME, STEPS, TABLE, WORKERS, probe

if TYPE_CHECKING:
    from onnes.crystal.read import Crystal, Refused
    from onnes.stability.relax import RelaxSettings
    from onnes.stability.relax_journal import Journal


def relax(
    paths: list[Path] = PATHS,
    out: Path = TABLE,
    cifs: Path = CIFS,
    potential: str = POTENTIAL,
    fmax: float = FMAX,
    max_steps: int = STEPS,
    pressure: float = typer.Option(0.0, "--pressure", help="GPa: the enthalpy is minimised."),
    symmetry: bool = typer.Option(False, "--symmetry", help="Stay in the space group found at the start."),
    symmetrise: bool = typer.Option(
        False, "--symmetrise", help="Afterwards, the highest space group that costs < 1 meV/atom."
    ),
    dock: bool = typer.Option(False, "--dock", help="For generated cells: separate clashing atoms first."),
    max_volume_change: float = typer.Option(4.0, "--max-volume-change", help="Stop beyond this factor."),
    patience: int = typer.Option(
        0, "--patience", help="Give up after so many steps without progress; 0: never."
    ),
    workers: int = WORKERS,
    resume: bool = RESUME,
) -> None:
    """Relax cell and coordinates with a universal potential; one row per structure."""
    from onnes.errors import SettingsError
    from onnes.parallel import single_thread
    from onnes.stability.potentials import potential as known
    from onnes.stability.relax import RelaxSettings

    single_thread()
    settings = RelaxSettings(
        known(potential).name,
        fmax,
        max_steps,
        pressure_GPa=pressure,
        symmetry=symmetry,
        max_volume_change=max_volume_change,
        dock=dock,
        patience=patience,
    )
    if resume and out is None:
        raise SettingsError("bad-setting", "--resume needs the table of --out to go on with")
    probe(out, cifs)
    _Table(settings, symmetrise, out, cifs).make(paths, workers, resume)


class _Table:
    """The table of one call, and the folder of relaxed structures."""

    def __init__(
        self, settings: RelaxSettings, symmetrise: bool, out: Path | None, cifs: Path | None
    ) -> None:
        self.settings, self.symmetrise, self.out, self.cifs = settings, symmetrise, out, cifs
        self.rows: dict[int, dict[str, Any]] = {}
        self.todo: list[tuple[int, Crystal | Refused, str]] = []
        self.journal: Journal | None = None

    def make(self, paths: list[Path], workers: int, resume: bool) -> None:
        """Relax, write, and exit with 1 when a row failed."""
        from onnes.crystal.read import Crystal
        from onnes.stability.relax_journal import Journal, run_key
        from onnes.stability.relax_table import relax_each

        if self.out is not None:
            self.journal = Journal(self.out, run_key(self.settings, self.symmetrise), resume)
        finished = False
        try:
            stream = relax_each(
                self._pending(paths), self.settings, workers=workers, symmetrise=self.symmetrise
            )
            for k, (row, structure) in stream:
                place, item, name = self.todo[k]
                self._write_cif(name, structure)
                if self.journal is not None and isinstance(item, Crystal):
                    self.journal.add(item, row)
                self.rows[place] = row
                typer.echo(f"{row['id']}: {row['status']} {row['reason']}".rstrip(), err=True)
            self._write_table()
            finished = True
        finally:
            if self.journal is not None:
                self.journal.close(finished=finished)
        if any(row["status"] != "ok" for row in self.rows.values()):
            raise typer.Exit(1)

    def _pending(self, paths: list[Path]) -> Iterator[Crystal | Refused]:
        """Inputs whose row is not there yet."""
        from onnes.crystal.read import Crystal
        from onnes.stability.relax_journal import crystal_key

        taken: set[str] = set()
        for place, item in enumerate(read_aloud(paths)):
            name = free_name(item.id, taken)
            if self.journal is not None and isinstance(item, Crystal):
                row = self.journal.rows.get(crystal_key(item))
                if row is not None and (self._cif(name) is None or row["status"] != "ok" or self._has(name)):
                    self.rows[place] = row
                    continue
            self.todo.append((place, item, name))
            yield item

    def _cif(self, name: str) -> Path | None:
        return None if self.cifs is None else self.cifs / f"{name}.cif"

    def _has(self, name: str) -> bool:
        path = self._cif(name)
        return path is not None and path.is_file()

    def _write_cif(self, name: str, structure: Any) -> None:
        path = self._cif(name)
        if path is None or structure is None:
            return
        from pymatgen.io.cif import CifWriter

        from onnes.data.files import atomic_text

        with atomic_text(path) as handle:
            handle.write(str(CifWriter(structure, significant_figures=6)))

    def _write_table(self) -> None:
        import pandas as pd

        from onnes.data.files import atomic_text
        from onnes.stability.relax_table import columns

        rows = [self.rows[place] for place in sorted(self.rows)]
        table = pd.DataFrame(rows).reindex(columns=list(columns(self.settings, self.symmetrise)))
        text = table.to_csv(index=False, float_format="%.6g")
        if self.out is None:
            typer.echo(text.rstrip("\n"))
            return
        with atomic_text(self.out) as handle:
            handle.write(text)
