"""A discovery run from settings to report."""

from __future__ import annotations

import os
import platform
import resource
import sys
from contextlib import AbstractContextManager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnes.campaign.dossier_verify import attach_all
from onnes.campaign.engine import check_engine, open_engine
from onnes.campaign.funnel import Silent, Watcher, run_funnel
from onnes.campaign.ledger import Ledger, ledger_file, now
from onnes.campaign.models import fingerprints
from onnes.campaign.rounds import check, run_rounds
from onnes.campaign.settings import Settings
from onnes.campaign.source import require_same, source
from onnes.parallel import Engine, single_thread

if TYPE_CHECKING:
    import pandas as pd

#: Packages whose version can change a number of a run.
PACKAGES = ("onnes", "torch", "sevenn", "pymatgen", "ase", "moyopy", "numpy", "scipy")


def discover(
    settings: Settings | dict[str, Any] | str | Path | None = None,
    out: str | Path = "run",
    *,
    resume: bool = False,
    watcher: Watcher | None = None,
) -> pd.DataFrame:
    """Run a discovery campaign: generate, screen, rank, report.

    Parameters
    ----------
    settings : Settings, dict, path of a TOML file, or None
        None means the defaults, or the settings of the run that is resumed.
    out : path
        Folder of the run: ledger, ``candidates/``, ``candidates.csv``, ``references.bib``, ``report.html``.
    resume : bool
        Continue the run in `out` if there is one. Without it an existing run is an error.
    watcher : Watcher, optional
        Told about progress.

    Returns
    -------
    DataFrame
        The candidates in order of rank, as in ``candidates.csv``.

    Raises
    ------
    SettingsError, LedgerError, InputError
        With a reason code; a crystal that fails is a verdict in the ledger, not an error.
    """
    from onnes.campaign.stages import build

    single_thread()
    out = Path(out)
    given = _settings(settings)
    held = _held(out) if resume else None
    chosen = given or (Settings.from_dict(held) if held is not None else Settings())
    # Everything that can be wrong with the settings is found here, before the run is made or touched.
    check(chosen)
    check_engine(chosen.engine, out)
    origin, stages = source(chosen), build(chosen)
    ledger = Ledger.open(out) if held is not None else Ledger.create(out, chosen.model_dump())
    with ledger, _engine(chosen, ledger, out) as workers:
        require_same(ledger, origin, chosen)
        ledger.update_meta(
            {
                "settings": chosen.model_dump(),
                "source": origin.digest,
                "versions": versions(),
                "models": fingerprints(chosen),
                "machine": f"{platform.machine()}, {os.cpu_count()} cores",
                "state": "running",
                "started": ledger.get_meta("started") or now(),
            }
        )
        state = "finished"
        if chosen.active.rounds:
            state = run_rounds(ledger, chosen, origin, out, workers, watcher)
        else:
            origin.fill(ledger, workers, watcher or Silent())
            run_funnel(ledger, stages, workers, watcher)
        workers.close(kill=False)
        ledger.update_meta({"state": state, "finished": now(), "peak_memory_MB": peak_memory_MB(workers)})
        attach_all(ledger, out)
        return publish(ledger, out)


def _engine(chosen: Settings, ledger: Ledger, out: Path) -> AbstractContextManager[Engine]:
    """Who computes; what it runs is on record in the ledger."""

    def note(entry: dict[str, Any]) -> None:
        ledger.set_meta("engine", entry)

    return open_engine(chosen.engine, chosen.run.workers, out, ledger.get_meta("engine"), note)


def _held(out: Path) -> dict[str, Any] | None:
    """Settings of the run in a folder; None when there is none."""
    if not ledger_file(out).exists():
        return None
    with Ledger.open(out, read_only=True) as ledger:
        found: dict[str, Any] = ledger.get_meta("settings", {})
    return found


def publish(ledger: Ledger, out: Path) -> pd.DataFrame:
    """Write what a person reads of a run: CIF files, table, what to cite, page. Only the ledger is read."""
    from onnes.report.export import export
    from onnes.report.page import write_page
    from onnes.report.story import read_run
    from onnes.report.tables import candidate_rows

    run = read_run(ledger)
    export(run, "cif", out / "candidates")
    export(run, "csv", out / "candidates.csv")
    export(run, "bib", out / "references.bib")
    write_page(run, out / "report.html")
    return candidate_rows(run)


def _settings(given: Settings | dict[str, Any] | str | Path | None) -> Settings | None:
    if given is None or isinstance(given, Settings):
        return given
    if isinstance(given, dict):
        return Settings.from_dict(given)
    return Settings.from_toml(given)


def versions() -> dict[str, str]:
    """Versions of what a run's numbers depend on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def peak_memory_MB(engine: Engine) -> int:
    """Upper estimate of the memory of a run: the driver's peak plus the largest worker's, times workers."""
    unit = 1 if sys.platform == "darwin" else 1024
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    child = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit
    return round(own / 1e6 + engine.count * max(child / 1e6, engine.peak_worker_MB))
