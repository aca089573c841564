"""Who labels the crystals that a campaign chose: a table of known labels, a person with a csv file, or onnes verify.

A labeller yields what it knows, one crystal at a time, so that the driver can write each label down at once. What it
does not yield waits; what cannot be labelled is a label without a Tc, with a reason code.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from onnes.campaign.settings import Settings
from onnes.errors import DataError, InputError, SettingsError

if TYPE_CHECKING:
    from pymatgen.core import Structure

    from onnes.data.records import Record

#: Labels of a record that are a Tc, the first that is there counts.
TC_LABELS = ("Tc_K", "Tc_exp_K", "Tc616_K")
#: Reasons of `onnes.dft.failures.Reason` that are about the machine and not the crystal: tried again at once.
MACHINE = ("killed", "out-of-memory", "walltime", "stopped-by-user")
#: Trust in a label by the tier of `onnes.dft`: quick runs have coarse grids.
TIER_WEIGHT = {"quick": 0.5, "standard": 1.0, "tight": 1.0}


@dataclass(frozen=True)
class Chosen:
    """A crystal that shall be labelled.

    Attributes
    ----------
    id : str
        Of the candidate.
    structure : dict
        As the ledger keeps it.
    numbers : dict
        Of its ``choose`` verdict and of the funnel.
    """

    id: str
    structure: dict[str, Any]
    numbers: dict[str, Any] = field(default_factory=dict)

    def crystal(self) -> Structure:
        """As a pymatgen structure."""
        from pymatgen.core import Lattice, Structure

        d = self.structure
        return Structure(Lattice(d["lattice"]), d["species"], d["frac"])

    @property
    def formula(self) -> str:
        """Alphabetical reduced formula."""
        from onnes.crystal.formula import formula_of

        return formula_of(self.structure["species"])


@dataclass(frozen=True)
class Label:
    """What is known of a crystal.

    Attributes
    ----------
    id : str
        Of the candidate.
    tc_K, lam, omega_log_K : float or None
        Kelvin; a Tc of None is no label, and `reason` says why.
    reason : str
        Code and words.
    source : str
        Who says so.
    weight : float
        Trust, see `onnes.campaign.retrain.Learnt`.
    seconds : float
    """

    id: str
    tc_K: float | None = None
    lam: float | None = None
    omega_log_K: float | None = None
    reason: str = ""
    source: str = ""
    weight: float = 1.0
    seconds: float = 0.0


class Labeller(Protocol):
    """What the rounds ask of a labeller."""

    #: What the labels depend on besides the crystal.
    settings: dict[str, Any]

    def labels(self, chosen: Sequence[Chosen], folder: Path, done: Collection[str] = ()) -> Iterator[Label]:
        """Yield the labels that are known.

        Parameters
        ----------
        chosen : sequence of Chosen
            Crystals of the round without a label.
        folder : Path
            Of the round.
        done : collection of str
            Ids of the crystals of the round that have theirs.
        """

    def waiting(self, left: Sequence[Chosen], folder: Path) -> str:
        """What has to be done for those that are left, in words."""


def labeller(settings: Settings) -> Labeller:
    """The labeller that the settings name, checked before anything is done.

    Raises
    ------
    InputError, DataError
        Of the table's file; ``no-qe``.
    """
    kind = settings.active.labeller
    if kind == "table":
        return Table(settings)
    return Verify(settings) if kind == "verify" else Person(settings)


def tc_of(lam: float, omega_log_K: float, settings: Settings, omega_2_K: float | None = None) -> float:
    """Tc of lambda and omega_log by the formula and the mu* of the run.

    Without an omega_2 it is the usual one of the training set.

    Raises
    ------
    PhysicsError
        Where the formula is not defined.
    """
    import numpy as np

    from onnes.learn.trained import OMEGA_2_RATIO
    from onnes.theory.tc import tc_array

    found = tc_array(
        np.array([lam]),
        np.array([omega_log_K]),
        np.array([OMEGA_2_RATIO * omega_log_K if omega_2_K is None else omega_2_K]),
        mu_star=float(settings.predict.mu_star),
        formula=settings.predict.formula,
    )
    return float(found[0])


def _tc_of_record(record: Record, settings: Settings) -> float:
    values = record.labels
    return tc_of(values["lambda"], values["omega_log_K"], settings, values.get("omega_2_K"))


class Table:
    """Labels of a file of records, for studies with known answers."""

    def __init__(self, settings: Settings) -> None:
        from onnes.data.records import read_records

        self._settings, self.match = settings, settings.active.match
        self.path = Path(settings.active.labels)
        self.settings = {"labeller": "table", "match": self.match}
        self.rows: dict[str, list[Record]] = {}
        for record in read_records(self.path):
            if self._tc(record) is not None:
                self.rows.setdefault(record.formula, []).append(record)
        if not self.rows:
            raise DataError(
                "no-label", f"{self.path}: no row has {', '.join(TC_LABELS)} or lambda and omega_log_K"
            )

    def _tc(self, record: Record) -> float | None:
        for name in TC_LABELS:
            if name in record.labels:
                return float(record.labels[name])
        if {"lambda", "omega_log_K"} <= set(record.labels):
            return _tc_of_record(record, self._settings)
        return None

    def labels(self, chosen: Sequence[Chosen], folder: Path, done: Collection[str] = ()) -> Iterator[Label]:
        """Look every crystal up; those that are not there have no label."""
        for one in chosen:
            found = self._find(one)
            if found is None:
                yield Label(one.id, reason=f"not-in-table: {one.formula}", source=self.path.name)
                continue
            lam, wlog = (found.labels.get(name) for name in ("lambda", "omega_log_K"))
            yield Label(one.id, self._tc(found), lam, wlog, source=f"{self.path.name}#{found.id}")

    def _find(self, one: Chosen) -> Record | None:
        from onnes.crystal.amd import same_crystal

        rows, crystal = self.rows.get(one.formula, []), one.crystal()
        volume = crystal.volume / len(crystal)
        near = sorted(rows, key=lambda r: (abs(r.volume / len(r.species) - volume), r.id))
        if self.match == "formula":
            return near[0] if near else None
        return next((r for r in near if same_crystal(crystal, r.structure())), None)

    def waiting(self, left: Sequence[Chosen], folder: Path) -> str:
        """Nothing waits for a table."""
        return ""


class Verify:
    """Electron-phonon calculations: ``onnes verify`` for one crystal after the other.

    On another engine than ``local`` its programs run there as well. A run that the machine ended is taken up again
    ``engine.retries`` times; then, like one that did not converge or was refused, it is a label without a Tc. A full
    disk stops the campaign.

    Parameters
    ----------
    settings : Settings
    command : sequence of str, optional
        In place of this installation's ``onnes verify``; whether Quantum ESPRESSO is there is not checked then.
    """

    def __init__(self, settings: Settings, command: Sequence[str] | None = None) -> None:
        a = settings.active
        self._settings = settings
        self.settings = {
            "labeller": "verify",
            "tier": a.tier,
            "mu_star": float(settings.predict.mu_star),
            "formula": str(settings.predict.formula),
        }
        self.tier, self.cores, self.pseudo = a.tier, a.cores, a.pseudo
        self.mu_star = float(settings.predict.mu_star)
        self.retries = settings.engine.retries
        self.engine = None if settings.engine.kind == "local" else settings.engine
        if command is None:
            from onnes.dft.programs import find_programs

            find_programs(None, self.cores)
            _pseudopotentials(self.pseudo)
            most = settings.engine.cores_per_node
            if settings.engine.kind == "slurm" and self.cores > most:
                raise SettingsError(
                    "bad-setting",
                    f"active.cores = {self.cores}: pw.x runs on one node, and engine.cores_per_node = {most}",
                )
        self.command = list(command or (sys.executable, "-m", "onnes.cli.main", "verify"))

    def labels(self, chosen: Sequence[Chosen], folder: Path, done: Collection[str] = ()) -> Iterator[Label]:
        """Run what is not finished; a run that was cut goes on where it was."""
        import time

        for one in chosen:
            began = time.monotonic()
            place = folder / "verify" / one.id
            place.mkdir(parents=True, exist_ok=True)
            write_cif(one, place / f"{one.id}.cif")
            row = self._run(place, one.id)
            for _ in range(self.retries):
                if row.get("reason") in MACHINE:
                    row = self._run(place, one.id)
            if row.get("reason") == "in-use":
                continue
            label = self._label(one.id, row, place / "run")
            yield Label(**{**label.__dict__, "seconds": time.monotonic() - began})

    def _run(self, place: Path, name: str) -> dict[str, Any]:
        options = ["--tier", self.tier, "--cores", str(self.cores), "--mu-star", repr(self.mu_star), "--json"]
        options += ["--out", str(place / "run")] + (["--pseudo", self.pseudo] if self.pseudo else [])
        options += self._elsewhere(place)
        with (place / "verify.log").open("a", encoding="utf-8") as log:
            done = subprocess.run(
                [*self.command, str(place / f"{name}.cif"), *options],
                stdout=subprocess.PIPE,
                stderr=log,
                stdin=subprocess.DEVNULL,
                text=True,
            )
        if done.returncode not in (0, 1):
            raise _stopped(place, name)
        try:
            row = dict(json.loads(done.stdout)[0])
        except (ValueError, LookupError, TypeError):
            raise InputError(
                "cannot-verify", f"onnes verify of {name} gave no result; see {place / 'verify.log'}"
            ) from None
        # A run that could not even be judged, or for which there is no room, says nothing about the crystal.
        unjudged = "verdict" not in row and row.get("reason") != "in-use"
        if row.get("status") == "failed" and (unjudged or row.get("reason") == "disk-full"):
            raise _stopped(place, name)
        return row

    def _elsewhere(self, place: Path) -> list[str]:
        """Options that send the programs to the engine of the campaign; its logs lie apart from the campaign's."""
        if self.engine is None:
            return []
        told = self.engine.model_dump()
        if told["folder"]:
            told["folder"] = str(Path(told["folder"]) / "verify")
        file = place / "engine.toml"
        # Words, numbers and lists of words are written alike in TOML and in JSON.
        lines = [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in told.items()]
        file.write_text("\n".join(["[engine]", *lines, ""]), encoding="utf-8")
        return ["--engine", str(file)]

    def _label(self, name: str, row: dict[str, Any], run: Path) -> Label:
        source = f"onnes-dft {self.tier}"
        record = _first_record(run / "records.jsonl")
        if (
            row.get("status") == "ok"
            and record is not None
            and {"lambda", "omega_log_K"} <= set(record.labels)
        ):
            if "lambda" in row and abs(row["lambda"] - record.labels["lambda"]) > 1e-6:
                raise InputError(
                    "cannot-verify", f"{run / 'records.jsonl'} is not of the run that has just ended"
                )
            # Not the record's Tc_K, which is always that of Allen and Dynes: predictions follow the run's formula.
            tc = _tc_of_record(record, self._settings)
            lam, wlog = record.labels["lambda"], record.labels["omega_log_K"]
            return Label(name, tc, lam, wlog, source=source, weight=TIER_WEIGHT[self.tier])
        code = str(row.get("status") or "failed")
        # The bare word stands for relaxations in the funnel.
        code = "dft-not-converged" if code == "not-converged" else code
        words = ": ".join(str(row[k]) for k in ("reason", "detail") if row.get(k))
        return Label(name, reason=f"{code}: {words}" if words else code, source=source)

    def waiting(self, left: Sequence[Chosen], folder: Path) -> str:
        """Runs that another process holds."""
        return (
            f"onnes verify of {', '.join(c.id for c in left)} is still running from before (in-use); "
            "resume when it has ended"
        )


def _pseudopotentials(folder: str) -> None:
    """Refuse a campaign whose every crystal would be refused.

    Raises
    ------
    InputError
        ``missing-pseudopotential``.
    """
    from onnes.dft.pseudo_install import default_folder

    place = Path(folder) if folder else default_folder()
    if not place.is_dir():
        raise InputError(
            "missing-pseudopotential",
            f"no pseudopotentials in {place}: `onnes pseudo install`, or set active.pseudo",
        )


def _stopped(place: Path, name: str) -> InputError:
    """What to raise when onnes verify could not run, in its own last words."""
    lines = (place / "verify.log").read_text(encoding="utf-8", errors="replace").splitlines()
    said = next((line for line in reversed(lines) if line.strip()), "it said nothing")
    return InputError("cannot-verify", f"onnes verify of {name} stopped: {said.removeprefix('onnes: ')}")


def _first_record(path: Path) -> Record | None:
    from onnes.data.records import read_records

    if not path.is_file():
        return None
    return read_records(path)[0]


def write_cif(one: Chosen, path: Path) -> None:
    """Write a crystal's CIF; a reader sees all of it or nothing."""
    part = path.with_suffix(".part")
    one.crystal().to(filename=str(part), fmt="cif")
    part.replace(path)


class Person:
    """A csv file that somebody fills in: `onnes.campaign.labels_file`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.settings = {"labeller": "file"}
        self._mistakes: list[str] = []

    def labels(self, chosen: Sequence[Chosen], folder: Path, done: Collection[str] = ()) -> Iterator[Label]:
        """Write the file if it is not there; read what has been filled in."""
        from onnes.campaign import labels_file as sheet

        path = folder / sheet.NAME
        if not path.exists():
            (folder / "cif").mkdir(parents=True, exist_ok=True)
            for one in chosen:
                write_cif(one, folder / "cif" / f"{one.id}.cif")
            sheet.write(path, chosen)
        skip = self._settings.active.blanks == "skip"
        fresh = not any(sheet.filled(path))
        read = sheet.read(path, {one.id for one in chosen} | set(done))
        self._mistakes = read.mistakes
        # Rows taken before are still in the file.
        rows = [row for row in read.rows if row.id not in done]
        known = {row.id for row in rows}
        for row in rows:
            tc = row.tc_K
            if tc is None and not row.failed:
                assert row.lam is not None and row.omega_log_K is not None
                tc = tc_of(row.lam, row.omega_log_K, self._settings)
            reason = f"failed: {row.failed}" if row.failed else ""
            yield Label(
                row.id, None if reason else tc, row.lam, row.omega_log_K, reason, row.source or sheet.NAME
            )
        # An untouched file is not one whose rows somebody left empty on purpose.
        if skip and not fresh and not read.mistakes:
            for one in chosen:
                if one.id not in known:
                    yield Label(one.id, reason="skipped: the row was left empty", source=sheet.NAME)

    def waiting(self, left: Sequence[Chosen], folder: Path) -> str:
        """What is to be filled in, and the mistakes found."""
        from onnes.campaign import labels_file as sheet

        text = (
            f"{len(left)} crystals wait for labels: in {folder / sheet.NAME} fill in tc_K, or lambda and "
            "omega_log_K, or a word in the column failed; then resume"
        )
        shown = self._mistakes[:20]
        more = len(self._mistakes) - len(shown)
        return "\n".join([text, *shown, *([f"and {more} more mistakes"] if more else [])])


def required(settings: Settings) -> Labeller:
    """Refuse settings of active learning that cannot work, before the run is touched; the labeller.

    Raises
    ------
    SettingsError
        ``bad-setting``.
    InputError, DataError
        As `labeller`.
    """
    a, generate = settings.active, settings.generate
    if a.labeller == "table" and not a.labels:
        raise SettingsError("bad-setting", "active.labels: the labeller table needs a file of records")
    if a.generator and not generate.paths and generate.model != "symmetric":
        raise SettingsError(
            "bad-setting",
            f"active.generator: only the symmetric model can be tuned, not {generate.model}; set it false",
        )
    return labeller(settings)
