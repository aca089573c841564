"""Settings of a discovery run, and their TOML file."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

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


class ChemistryPart(_Part):
    """Elements that are not wanted, whoever made the crystal; nothing asks metals for oxidation states."""

    no_radioactive: bool = Field(default=False, description="no elements without a stable isotope")
    no_toxic: bool = Field(default=False, description="no As, Be, Cd, Co, Hg, Pb, Te, Tl, U (EU CLP)")
    min_abundance_ppm: Real = Field(default=0.0, ge=0, description="no element rarer in the Earth's crust")
    exclude: list[str] = Field(default=[], description="none of these elements, in own crystals too")
    max_elements: int = Field(default=118, ge=1, description="different elements in a crystal")


class RelaxPart(_Part):
    """Relaxation."""

    potential: str = Field(default="7net-0", description="universal potential")
    fmax_eV_A: Real = Field(default=0.05, gt=0, description="largest force left")
    max_steps: int = Field(
        default=200, ge=1, description="optimiser steps; crystals that need more are refused"
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
    generator_steps: int = Field(default=150, ge=1, le=100_000, description="steps of the fine-tuning")
    data: list[str] = Field(default=[], description="files of records with own labels, for the correction")


class Settings(_Part):
    """Everything a discovery run depends on."""

    run: RunPart = RunPart()
    generate: GeneratePart = GeneratePart()
    check: CheckPart = CheckPart()
    chemistry: ChemistryPart = ChemistryPart()
    relax: RelaxPart = RelaxPart()
    novel: NovelPart = NovelPart()
    hull: HullPart = HullPart()
    predict: PredictPart = PredictPart()
    active: ActivePart = ActivePart()

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Settings:
        """Check and complete a nested dict.

        Raises
        ------
        SettingsError
            ``unknown-setting``, ``bad-setting``, ``unknown-potential``, ``unknown-formula``.
        """
        try:
            settings = cls.model_validate(values)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(map(str, first["loc"]))
            code = "unknown-setting" if first["type"] == "extra_forbidden" else "bad-setting"
            text = "there is no such setting" if code == "unknown-setting" else first["msg"]
            raise SettingsError(code, f"{where}: {text}; onnes discover --print-config lists all") from None
        settings._check()
        return settings

    @classmethod
    def from_toml(cls, path: str | Path) -> Settings:
        """Read a TOML file.

        Raises
        ------
        SettingsError
            ``cannot-read``, ``not-toml`` and those of `from_dict`.
        """
        try:
            values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not a text file"
            raise SettingsError("cannot-read", f"cannot read {path}: {reason}") from None
        except tomllib.TOMLDecodeError as error:
            raise SettingsError("not-toml", f"{path} is not TOML: {error}") from None
        base = Path(path).resolve().parent
        settings = cls.from_dict(values)
        return settings._beside(base)

    def _beside(self, base: Path) -> Settings:
        """Paths in a file mean: beside that file, wherever the command is run."""
        generate, active = self.generate, self.active
        new = {
            "generate": generate.model_copy(update={"paths": [str(base / p) for p in generate.paths]}),
            "active": active.model_copy(
                update={
                    "labels": str(base / active.labels) if active.labels else "",
                    "pseudo": str(base / active.pseudo) if active.pseudo else "",
                    "data": [str(base / p) for p in active.data],
                }
            ),
        }
        return self.model_copy(update=new)

    def _check(self) -> None:
        from onnes.stability.hull import METHOD
        from onnes.stability.potentials import potential
        from onnes.theory.tc import formula_named

        potential(self.relax.potential)
        if self.relax.potential != METHOD:
            raise SettingsError(
                "no-hull-table",
                f"relax.potential: the hull holds energies of {METHOD}; those of {self.relax.potential} cannot be "
                "compared with it",
            )
        formula_named(self.predict.formula)
        chemistry_of(self.chemistry.model_dump())
        if self.check.min_packing >= self.check.max_packing:
            raise SettingsError("bad-setting", "check.min_packing must lie below check.max_packing")
        active = self.active
        if active.rounds and active.labeller == "table" and not active.labels:
            raise SettingsError("bad-setting", "active.labels: the labeller table needs a file of records")
        if active.rounds and active.generator and self.generate.model != "symmetric":
            raise SettingsError(
                "bad-setting",
                f"active.generator: only the symmetric model can be tuned, not {self.generate.model}; set it false",
            )

    def to_toml(self) -> str:
        """Write as TOML with a comment a setting; `from_toml` reads it back."""
        lines = ["# Settings of onnes discover. Every value shown can be left out.", ""]
        for name, field in type(self).model_fields.items():
            part = getattr(self, name)
            lines.append(f"[{name}]  # {(field.annotation.__doc__ or '').strip()}")
            for key, inner in type(part).model_fields.items():
                value = getattr(part, key)
                lines.append(f"{key} = {_toml(value)}  # {inner.description}")
            lines.append("")
        return "\n".join(lines)


def chemistry_of(values: dict[str, Any]) -> Chemistry:
    """The chemistry screen of the settings.

    Raises
    ------
    SettingsError
        ``unknown-element``.
    """
    from onnes.stability.chemistry import Chemistry

    return Chemistry(**{**values, "exclude": tuple(values["exclude"])})


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, str):
        # A TOML basic string escapes as JSON does.
        import json

        return json.dumps(value, ensure_ascii=False)
    return repr(value)
