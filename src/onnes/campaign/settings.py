"""Settings of a discovery run, and their TOML file."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from onnes.campaign.presets import PRESETS, completed
from onnes.errors import SettingsError

if TYPE_CHECKING:
    from onnes.stability.chemistry import Chemistry


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


#: A number; 15 and 15.0 are one setting.
Real = Annotated[FiniteFloat | int, AfterValidator(float)]


class RunPart(_Part):
    """The run as a whole."""

    n: int = Field(default=96, ge=1, le=1_000_000, description="crystals to generate")
    seed: int = Field(default=0, ge=0, description="the same seed gives the same run")
    workers: int = Field(default=2, ge=1, le=512, description="processes on this machine, one thread each")


class GeneratePart(_Part):
    """Where the crystals come from."""

    paths: list[str] = Field(
        default=[], description="files or folders to screen instead of generating crystals"
    )
    model: Literal["symmetric", "joint", "cdvae"] = Field(
        default="symmetric", description="generator; symmetric decides on the space group first"
    )
    elements: list[str] = Field(default=[], description="only these elements; empty for all the model knows")
    exclude: list[str] = Field(
        default=["Ac", "Np", "Pa", "Pm", "Po", "Pu", "Tc", "Th", "U"],
        description="none of these elements (by default the radioactive ones)",
    )
    target_tc_K: Real = Field(default=15.0, ge=0, description="Tc the generator is asked for; 0: none")
    guidance: Real = Field(default=0.5, ge=0, le=10, description="how hard it is pushed towards the target")
    formula: str = Field(default="", description="exactly this reduced formula; empty for any")
    atoms: int = Field(default=0, ge=0, le=20, description="atoms in the primitive cell; 0: any")
    space_group: int = Field(default=0, ge=0, le=230, description="kept exactly; 0: any (symmetric only)")
    steps: int = Field(default=0, ge=0, le=5000, description="sampling steps; 0: the model's own number")
    temperature: Real = Field(default=0.9, gt=0, le=5, description="of the draw of symbols")


class CheckPart(_Part):
    """The gate."""

    max_atoms: int = Field(default=60, ge=1, description="largest cell")
    min_distance_A: Real = Field(default=0.5, gt=0, description="atoms closer than this overlap")
    min_packing: Real = Field(default=0.05, ge=0, description="emptier crystals are refused")
    max_packing: Real = Field(default=2.5, gt=0, description="more crowded crystals are refused")
    dimensions: Literal["any", "bulk", "slab"] = Field(
        default="any",
        description='"slab" refuses all but single layers with vacuum, "bulk" refuses those, chains and molecules',
    )


class ChemistryPart(_Part):
    """Elements that are not wanted, whoever made the crystal; nothing asks metals for oxidation states."""

    no_radioactive: bool = Field(default=False, description="no elements without a stable isotope")
    no_toxic: bool = Field(default=False, description="no As, Be, Cd, Co, Hg, Pb, Te, Tl, U (EU CLP)")
    min_abundance_ppm: Real = Field(default=0.0, ge=0, description="no element rarer in the Earth's crust")
    exclude: list[str] = Field(default=[], description="none of these elements, in own crystals too")
    require: list[str] = Field(default=[], description="each of these elements must be there")
    max_elements: int = Field(default=118, ge=1, description="different elements in a crystal")


class PrescreenPart(_Part):
    """Cheap gates before anything is relaxed: what files say, then the fast network, then learned moduli."""

    use: Literal["files", "always", "never"] = Field(
        default="files", description='"files": when crystals are read instead of generated'
    )
    min_p_superconductor: Real = Field(
        default=0.05,
        ge=0,
        le=1,
        description="probability that it is no insulator or magnet must not be below",
    )
    min_tc_K: Real = Field(default=3.0, ge=0, description="Tc of the fast network must lie above; 0: off")
    min_dos_ef_states_eV_atom: Real = Field(
        default=0.1, ge=0, description="N(EF) (both spins) must lie above; 0: off"
    )
    min_debye_K: Real = Field(
        default=0.0,
        ge=0,
        description="Debye temperature must lie above (300 as published); 0: off, it favours no Tc",
    )


class RelaxPart(_Part):
    """Relaxation."""

    potential: str = Field(default="7net-0", description="universal potential")
    fmax_eV_A: Real = Field(default=0.05, gt=0, description="largest force left")
    max_steps: int = Field(
        default=200, ge=1, description="optimiser steps; crystals that need more are refused"
    )
    skip: bool = Field(
        default=False, description="take crystals as they are (relaxed by DFT, say): one energy each"
    )
    skip_max_force_eV_A: Real = Field(
        default=1.0, gt=0, description="with skip: a larger force means not relaxed, and is refused"
    )


class NovelPart(_Part):
    """Comparison with the known crystals."""

    keep: Literal["new", "all"] = Field(default="new", description='"all" keeps crystals that are known')


class HullPart(_Part):
    """Stability."""

    max_formation_energy_eV_atom: Real = Field(default=0.0, description="formation energy must lie below")
    max_e_hull_eV_atom: Real = Field(default=0.2, description="energy above the hull must lie below")
    unknown: Literal["keep", "refuse"] = Field(default="keep", description="crystals with unknown references")


class PredictPart(_Part):
    """Superconductivity."""

    model: Literal["standard", "spectrum", "fast", "trees"] = Field(
        default="standard",
        description="predictor: standard errs least, spectrum goes through alpha2F, fast and trees are quicker",
    )
    min_p_superconductor: Real = Field(
        default=0.05,
        ge=0,
        le=1,
        description="probability that it is no insulator or magnet must not be below",
    )
    min_tc_K: Real = Field(default=5.0, ge=0, description="predicted Tc must lie above")
    max_gap_eV: Real = Field(default=0.05, ge=0, description="predicted band gap must not exceed this")
    mu_star: Real = Field(default=0.10, ge=0, lt=1, description="Coulomb pseudopotential")
    formula: str = Field(default="allen-dynes", description="closed Tc formula")
    in_domain_only: bool = Field(default=False, description="refuse crystals unlike the training set")


class ActivePart(_Part):
    """Active learning: rounds of n crystals, of which some are labelled and learnt from."""

    rounds: int = Field(default=0, ge=0, le=1000, description="rounds; 0: one run of the funnel, no labels")
    batch: int = Field(default=8, ge=1, description="crystals to label in a round")
    strategy: Literal["expected-improvement", "probability", "greedy", "random"] = Field(
        default="probability",
        description="which: likeliest above the target, by improvement, by Tc, by chance",
    )
    target_tc_K: Real = Field(default=10.0, gt=0, description="a labelled Tc above it is a hit")
    diversity: Real = Field(
        default=0.1, ge=0, description="least distance between compositions (atomic fractions) of a batch"
    )
    cost: Literal["none", "atoms", "dft"] = Field(
        default="none",
        description="what the gain is divided by: atoms in the cell, or estimated CPU time of DFT",
    )
    labeller: Literal["file", "table", "verify"] = Field(
        default="file",
        description="who labels: a person in a csv file, a table of known labels, onnes verify",
    )
    labels: str = Field(default="", description="labeller table: file of records (.jsonl, .jsonl.gz)")
    match: Literal["crystal", "formula"] = Field(
        default="crystal", description="labeller table: same crystal, or nearest volume of the same formula"
    )
    blanks: Literal["wait", "skip"] = Field(
        default="wait", description="labeller file: empty rows hold the next round up, or go without a label"
    )
    tier: Literal["quick", "standard", "tight"] = Field(default="quick", description="of onnes verify")
    pseudo: str = Field(
        default="", description="folder of pseudopotentials for onnes verify; empty: installed"
    )
    cores: int = Field(default=1, ge=1, le=4096, description="of one onnes verify")
    predictor: bool = Field(default=True, description="correct the predictor by the labels where that helps")
    generator: bool = Field(default=True, description="fine-tune the symmetric generator on the hits")
    generator_steps: int = Field(default=100, ge=1, le=100_000, description="steps of the fine-tuning")
    data: list[str] = Field(default=[], description="files of records with own labels, for the correction")


class DossierPart(_Part):
    """What is computed of the best candidates for their pages, after the ranking."""

    top: int = Field(default=5, ge=0, le=1000, description="candidates with alpha2F and all models; 0: none")
    phonons: int = Field(default=2, ge=0, le=1000, description="of these, how many with phonon bands too")
    phonon_max_atoms: int = Field(default=8, ge=1, description="no phonons of larger primitive cells")


def _one_word(text: str) -> str:
    if text.split() != [text] and text:
        raise ValueError("use one word without spaces")
    return text


def _hours(text: str) -> str:
    parts = text.split(":")
    if len(parts) != 3 or not all(p.isdecimal() for p in parts) or int(parts[1]) > 59 or int(parts[2]) > 59:
        raise ValueError("use hours:minutes:seconds, for example 04:00:00")
    return text


def _option(text: str) -> str:
    if not text.startswith("--") or "\n" in text:
        raise ValueError('each begins with "--" and is one line')
    return text


#: Goes into the head of a batch script.
Word = Annotated[str, AfterValidator(_one_word)]


class EnginePart(_Part):
    """Who computes; the results do not depend on it."""

    kind: Literal["local", "parsl", "slurm"] = Field(
        default="local", description="processes of this machine, the same under Parsl, or pilot jobs of Slurm"
    )
    workers: int = Field(
        default=0, ge=0, le=4096, description="processes on this machine; 0: run.workers (not for slurm)"
    )
    retries: int = Field(
        default=2, ge=0, le=100, description="new attempts at a crystal whose worker died; then worker-died"
    )
    folder: str = Field(
        default="",
        description="for certificates and logs of Parsl; empty: engine/ in the run; all nodes see it",
    )
    partition: Word = Field(default="", description="slurm: partition; empty: the default one")
    account: Word = Field(default="", description="slurm: account; empty: the default one")
    walltime: Annotated[str, AfterValidator(_hours)] = Field(
        default="01:00:00", description="slurm: of one job; a crystal under way at its end is started again"
    )
    jobs: int = Field(default=1, ge=1, le=1000, description="slurm: pilot jobs at a time, one node each")
    cores_per_node: int = Field(
        default=1, ge=1, le=1024, description="slurm: cores of a job, one process each"
    )
    memory_GB: int = Field(default=0, ge=0, description="slurm: memory of a job; 0: what the partition gives")
    options: list[Annotated[str, AfterValidator(_option)]] = Field(
        default=[], description='slurm: further options of sbatch, such as "--qos=short"'
    )
    worker_init: str = Field(
        default="", description="slurm: shell commands before the workers start (module load ...)"
    )
    address: Word = Field(
        default="", description="slurm: of this machine as the nodes reach it; empty: all are tried"
    )


class Settings(_Part):
    """Everything a discovery run depends on."""

    preset: str = Field(default="", description="name of a preset; what is set below overrides it")
    run: RunPart = RunPart()
    engine: EnginePart = EnginePart()
    generate: GeneratePart = GeneratePart()
    check: CheckPart = CheckPart()
    chemistry: ChemistryPart = ChemistryPart()
    prescreen: PrescreenPart = PrescreenPart()
    relax: RelaxPart = RelaxPart()
    novel: NovelPart = NovelPart()
    hull: HullPart = HullPart()
    predict: PredictPart = PredictPart()
    dossier: DossierPart = DossierPart()
    active: ActivePart = ActivePart()

    @property
    def reads_files(self) -> bool:
        """Whether crystals are read instead of generated."""
        return bool(self.generate.paths)

    @property
    def prescreens(self) -> bool:
        """Whether the pre-screen is one of the stages."""
        return self.prescreen.use == "always" or (self.prescreen.use == "files" and self.reads_files)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Settings:
        """Check and complete a nested dict: what it says, then its preset, then the defaults.

        Raises
        ------
        SettingsError
            ``unknown-preset``, ``unknown-setting``, ``bad-setting``, ``unknown-potential``, ``no-hull-table``,
            ``unknown-formula``, ``unknown-element``: each names the key, the value and what is allowed.
        """
        try:
            settings = cls.model_validate(completed(values))
        except ValidationError as error:
            raise _explained(cls, error.errors(include_url=False)[0]) from None
        settings._check()
        return settings

    @classmethod
    def from_toml(cls, path: str | Path) -> Settings:
        """Read a TOML file.

        Raises
        ------
        SettingsError
            Those of `read_toml` and `from_dict`.
        """
        return cls.from_dict(read_toml(path))

    def _check(self) -> None:
        from onnes.stability.hull import METHOD
        from onnes.stability.potentials import potential
        from onnes.theory.tc import formula_named

        with naming("relax.potential"):
            potential(self.relax.potential)
        if self.relax.potential != METHOD:
            raise SettingsError(
                "no-hull-table",
                f"relax.potential = {_toml(self.relax.potential)}: the hull holds energies of {METHOD}, with which "
                f"others cannot be compared; use {METHOD}",
            )
        with naming("predict.formula"):
            formula_named(self.predict.formula)
        with naming("chemistry"):
            chemistry_of(self.chemistry.model_dump())
        if self.check.min_packing >= self.check.max_packing:
            raise SettingsError(
                "bad-setting",
                f"check.min_packing = {self.check.min_packing}: must lie below check.max_packing = "
                f"{self.check.max_packing}",
            )

    def to_toml(self) -> str:
        """Write as TOML with a comment a setting; `from_toml` reads it back."""
        lines = ["# Settings of onnes discover. Every value shown can be left out.", ""]
        if self.preset:
            chosen = PRESETS[self.preset]
            lines[1:] = [f"# {self.preset}: {chosen.summary}.", f"# Limits: {chosen.limits}.", ""]
            lines += [f"preset = {_toml(self.preset)}  # {type(self).model_fields['preset'].description}", ""]
        for name in type(self).model_fields:
            part = getattr(self, name)
            if not isinstance(part, BaseModel):
                continue
            lines.append(f"[{name}]  # {(type(part).__doc__ or '').strip()}")
            for key, inner in type(part).model_fields.items():
                value = getattr(part, key)
                lines.append(f"{key} = {_toml(value)}  # {inner.description}")
            lines.append("")
        return "\n".join(lines)


def read_toml(path: str | Path) -> dict[str, Any]:
    """Read a settings file as a nested dict, unchecked; paths in it are made absolute.

    Raises
    ------
    SettingsError
        ``cannot-read``, ``not-toml``.
    """
    try:
        values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a text file"
        raise SettingsError("cannot-read", f"cannot read {path}: {reason}") from None
    except tomllib.TOMLDecodeError as error:
        raise SettingsError("not-toml", f"{path} is not TOML: {error}") from None
    # Paths in a file mean: beside that file, wherever the command is run.
    base = Path(path).resolve().parent
    paths = (("active", "labels"), ("active", "pseudo"), ("active", "data"), ("engine", "folder"))
    for table, key in (("generate", "paths"), *paths):
        part = values.get(table)
        if isinstance(part, dict) and part.get(key):
            part[key] = _beside(base, part[key])
    return values


def _beside(base: Path, given: Any) -> Any:
    """Absolute paths for a path or a list of them; anything else is refused later, as it is."""
    if isinstance(given, str):
        return str(base / given)
    good = isinstance(given, list) and all(isinstance(p, str) for p in given)
    return [str(base / p) for p in given] if good else given


def chemistry_of(values: dict[str, Any]) -> Chemistry:
    """The chemistry screen of the settings.

    Raises
    ------
    SettingsError
        ``unknown-element``.
    """
    from onnes.crystal.formula import atomic_numbers
    from onnes.stability.chemistry import Chemistry

    given = dict(values)
    for symbol in given.pop("require", []):
        if symbol not in atomic_numbers():
            raise SettingsError(
                "unknown-element", f"require: {symbol!r} is no element; give symbols such as H"
            )
    return Chemistry(**{**given, "exclude": tuple(given["exclude"])})


@contextmanager
def naming(key: str) -> Iterator[None]:
    """Put the key in front of what is wrong with its value."""
    try:
        yield
    except SettingsError as error:
        raise SettingsError(error.code, f"{key}: {error.message}") from None


def _explained(cls: type[Settings], error: Any) -> SettingsError:
    """Turn a validation error into key, value and what is allowed."""
    # pydantic adds the branch of a union after the key: "constrained-float".
    where = [w for k, w in enumerate(error["loc"]) if k < 2 or isinstance(w, int)]
    key = ".".join(str(w) for w in where[:2]) + "".join(f"[{w}]" for w in where[2:])
    if error["type"] == "extra_forbidden":
        return SettingsError("unknown-setting", f"{key}: there is no such setting; {_instead(cls, where)}")
    field = _field(cls, where)
    value = error.get("input")
    if len(where) == 1 and where[0] != "preset":
        return SettingsError("bad-setting", f"{key} = {_shown(value)}: must be a table, [{key}]")
    allowed = str(error["msg"]).replace("Input should be", "must be").removeprefix("Value error, ")
    about = f" ({field.description})" if field is not None and field.description else ""
    return SettingsError("bad-setting", f"{key} = {_shown(value)}: {allowed}{about}")


def _field(cls: type[Settings], where: list[Any]) -> Any:
    field: Any = cls.model_fields.get(str(where[0]))
    if len(where) == 1 or field is None:
        return field
    return getattr(field.annotation, "model_fields", {}).get(str(where[1]))


def _instead(cls: type[Settings], where: list[Any]) -> str:
    """What may have been meant by an unknown key."""
    parts = {name: getattr(f.annotation, "model_fields", {}) for name, f in cls.model_fields.items()}
    if len(where) == 1:
        names, place = list(parts), "the tables are"
    else:
        names, place = list(parts[str(where[0])]), f"[{where[0]}] has"
    near = get_close_matches(str(where[-1]), names, 1)
    elsewhere = [f"{name}.{where[-1]}" for name, part in parts.items() if where[-1] in part]
    meant = [*(near if len(where) == 1 else [f"{where[0]}.{n}" for n in near]), *elsewhere]
    return f"{f'did you mean {meant[0]}? ' if meant else ''}{place} {', '.join(names)}"


def _shown(value: Any) -> str:
    try:
        return _toml(value)[:80]
    except TypeError:
        return repr(value)[:80]


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, str):
        # A TOML basic string escapes as JSON does.
        return json.dumps(value, ensure_ascii=False)
    return repr(value)
