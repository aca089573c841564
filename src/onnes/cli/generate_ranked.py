"""``onnes generate --ranked`` and ``--model prototypes``: crystals of one composition, best first."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from onnes.cli.common import read_aloud

if TYPE_CHECKING:
    from onnes.generate.asked import SamplerSettings
    from onnes.generate.prototypes import Templates
    from onnes.generate.ranking import Candidate
    from onnes.generate.site_sampling import Wish

#: Gives the energies.
POTENTIAL = "7net-0"


def run(
    out: Path,
    n: int,
    seed: int,
    settings: SamplerSettings,
    *,
    drawn: bool,
    ranked: bool,
    templates: Path | None,
) -> int:
    """Propose, rank where asked, write the n best and ``ranking.csv``; says how many there are.

    Raises
    ------
    SettingsError
        ``no-formula``, ``no-templates``; those of `SamplerSettings`.
    InputError
        As `onnes.generate.write.write_crystals`; ``missing-path``, ``no-candidates``; those of `read`, for
        the templates.
    """
    from onnes.errors import InputError, SettingsError
    from onnes.generate.evidence import PrototypeOrder
    from onnes.generate.ranking import DRAWN, SCALE, candidates
    from onnes.generate.symmetric import SymmetricSampler
    from onnes.generate.write import claim, claimed, facts_of

    if not settings.formula:
        raise SettingsError("no-formula", "candidates are ranked for one composition; give --formula")
    if not drawn and templates is None:
        raise SettingsError("no-templates", "--model prototypes takes known crystals from --templates PATH")
    sampler = SymmetricSampler(settings)
    facts = {"weights": sampler.checkpoint.hash if drawn else "", "seed": seed, **facts_of(settings)}
    facts |= {} if drawn else {"model": "prototypes"}
    # With n: a folder holds the n best, and `ranking.csv` lists them.
    facts |= {"ranked": _weights() if ranked else "", "templates": _digest(templates), "n": n}
    facts |= {
        "order": PrototypeOrder().checkpoint.hash if templates else "",
        "weights_of_votes": [DRAWN, SCALE],
    }
    if claimed(out, facts) and (out / "ranking.csv").exists():  # written last: the run is complete
        return len(list(out.glob("g*.cif")))
    known = _templates(templates, settings.formula, settings.like) if templates else None
    found = candidates(sampler, known, seed=seed) if drawn else _substituted(sampler.wish, known)
    typer.echo(f"{len(found)} candidates", err=True)
    if ranked:
        found = _ranked(found)
    if not found:
        raise InputError("no-candidates", f"nothing is left for {settings.formula}")
    # Only now: whatever was wrong above leaves the folder free.
    claim(out, facts)
    _write(out, found[:n])
    return min(n, len(found))


def _substituted(wish: Wish, known: Templates | None) -> list[Candidate]:
    from onnes.generate.ranking import Candidate, fitting

    guesses = fitting(wish, known) if known is not None else []
    return [Candidate(g.crystal.primitive(), 0.0, chance) for g, chance in guesses]


def _ranked(found: list[Candidate]) -> list[Candidate]:
    from onnes.generate.ranking import merged, ranked, with_energies
    from onnes.learn.features import FrozenPotential

    done = ranked(merged(with_energies(found, FrozenPotential(potential=POTENTIAL))))
    if len(done) < len(found):
        typer.echo(f"{len(found) - len(done)} equal to others, or without energy", err=True)
    return done


def _templates(path: Path, formula: str, like: str) -> Templates:
    """Templates with the amounts of the formula; others can never be asked for.

    The learned order is that of JARVIS-SC: it is for crystals like those, or like none in particular.
    """
    from onnes.errors import CrystalError
    from onnes.generate.asked import amounts
    from onnes.generate.evidence import HOME
    from onnes.generate.prototypes import Templates, template
    from onnes.generate.ranking import learned

    at_home = 0

    def made() -> Iterator[Any]:
        nonlocal at_home
        wanted, count = _amounts(amounts(formula, range(1, 119), most=10**9)), 0
        for crystal in read_aloud([path]):
            structure = getattr(crystal, "structure", None)
            if structure is None or not structure.is_ordered:
                continue
            home = like in ("", "jarvis") and _home(crystal)
            at_home += home
            if _amounts(Counter(s.specie.symbol for s in structure)) != wanted:
                continue
            try:
                yield template(crystal.id, structure, home=home)
            except CrystalError:
                continue
            count += 1
            if count % 500 == 0:
                typer.echo(f"{count} templates", err=True)

    found = Templates(made())
    # Counted over all amounts: the order was trained on all of them.
    found.at_home = at_home
    if not learned(found):
        typer.echo(
            f"{found.at_home} crystals of {HOME[0]} wanted among the templates: in the order of votes, not of what was "
            "learned from that data set",
            err=True,
        )
    return found


def _home(crystal: Any) -> bool:
    """Whether a template is of JARVIS-SC: the record says so, or the name of its file."""
    from onnes.generate.evidence import HOME

    file = Path(crystal.source.rsplit("#", 1)[0]).name.split(".")[0]
    return file in HOME or crystal.meta.get("data_set") in HOME


def _amounts(count: Mapping[Any, int]) -> list[int]:
    whole = sorted(count.values())
    return [n // math.gcd(*whole) for n in whole]


def _weights() -> str:
    from onnes.stability.potentials import potential_hash

    return f"{POTENTIAL} {potential_hash(POTENTIAL)}"


def _digest(path: Path | None) -> str:
    """Of the file; of the names and sizes in a folder."""
    from onnes.errors import InputError

    if path is None:
        return ""
    if not path.exists():
        raise InputError("missing-path", f"--templates {path}: no such file or folder")
    if path.is_file():
        return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    listed = sorted((str(p.relative_to(path)), p.stat().st_size) for p in path.rglob("*") if p.is_file())
    return hashlib.sha256(repr(listed).encode()).hexdigest()[:16]


def _write(out: Path, found: list[Candidate]) -> None:
    import pandas as pd

    from onnes.crystal.symmetry import space_group
    from onnes.data.files import atomic_text
    from onnes.generate.write import write_cif

    rows = []
    for i, c in enumerate(found):
        path = write_cif(out, i, c.structure)
        known = math.isfinite(c.energy_eV_atom)
        rows.append(
            {
                "id": path.stem,
                "atoms": len(c.structure),
                "space_group": space_group(c.structure, 0.1)[0],
                "drawn": c.drawn,
                "substituted": c.substituted,
                "energy_eV_atom": c.energy_eV_atom if known else None,
                "score": c.score() if known else math.log(c.votes),
            }
        )
    with atomic_text(out / "ranking.csv") as handle:
        handle.write(pd.DataFrame(rows).to_csv(index=False, float_format="%.6g"))
