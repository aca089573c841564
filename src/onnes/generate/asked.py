"""What a user asks of generated crystals, checked once for all models."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from pymatgen.core import Composition, Element

from onnes.errors import SettingsError
from onnes.generate.site_sampling import Wish

#: Models of ``onnes generate``; the first is the default.
MODELS = ("symmetric", "joint", "cdvae")
#: Noise levels visited where none are asked for.
STEPS = {"symmetric": 30, "joint": 100, "cdvae": 0}


@dataclass(frozen=True)
class SamplerSettings:
    """How to sample.

    Attributes
    ----------
    model : {"symmetric", "joint", "cdvae"}
        Space group, Wyckoff letters and elements first, then lattice and free parameters; all at once; autoencoder.
    steps : int or None
        Noise levels visited (each costs two evaluations: predictor and corrector); the model's own number
        where not given.
    corrector : float
        Step size of the Langevin corrector relative to (sigma/sigma_min)^2.
    temperature : float
        Of the draw of elements (``joint``) or of all symbols (``symmetric``); below 1 prefers common chemistry.
    elements : tuple of str
        Only these elements; empty for all trained ones.
    exclude : tuple of str
        None of these elements.
    formula : str
        Exactly this reduced formula; empty for any.
    atoms : int or None
        In the primitive cell.
    space_group : int or None
        Kept exactly (``symmetric`` only).
    target_tc : float or None
        Condition on this Tc in kelvin.
    guidance : float
        Classifier-free guidance towards the target (Ho & Salimans, arXiv:2207.12598): 0 samples the
        conditioned model, w extrapolates w times further away from the unconditioned one. Doubles the cost.
    like : str
        Training data set whose kind of crystal is wanted (``symmetric`` only); empty for any.
    """

    model: str = MODELS[0]
    steps: int | None = None
    corrector: float = 1e-5
    temperature: float = 0.9
    elements: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    formula: str = ""
    atoms: int | None = None
    space_group: int | None = None
    target_tc: float | None = None
    guidance: float = 0.0
    like: str = ""

    def __post_init__(self) -> None:
        if self.model not in MODELS:
            raise SettingsError("unknown-model", f"model {self.model!r} is not one of {', '.join(MODELS)}")
        steps = 2 if self.steps is None else self.steps
        numbers = (self.temperature, self.corrector, self.guidance)
        fine = np.isfinite(numbers).all() and self.temperature > 0 and min(numbers) >= 0
        if not fine or steps < 2:
            raise SettingsError(
                "bad-setting",
                f"steps {steps}, temperature {self.temperature:g}, corrector {self.corrector:g}, guidance "
                f"{self.guidance:g}: finite ones are needed, steps >= 2, temperature > 0, the others >= 0",
            )
        if self.target_tc is not None and not 0 < self.target_tc < np.inf:
            raise SettingsError(
                "bad-setting", f"target Tc {self.target_tc} K is not allowed; give a positive one"
            )
        if self.space_group is not None and self.model != "symmetric":
            raise SettingsError(
                "no-space-group", f"model {self.model} cannot keep a space group; use --model symmetric"
            )
        if self.like and self.model != "symmetric":
            raise SettingsError(
                "no-data-set", f"model {self.model} cannot be asked for a data set; use --model symmetric"
            )
        if self.space_group is not None and not 1 <= self.space_group <= 230:
            raise SettingsError("bad-setting", f"space group {self.space_group} is not one of 1 to 230")

    @property
    def n_steps(self) -> int:
        """Noise levels that will be visited."""
        return STEPS[self.model] if self.steps is None else self.steps


def element_number(symbol: str, trained: Iterable[int] | None = None) -> int:
    """Atomic number of a symbol.

    Raises
    ------
    SettingsError
        ``unknown-element``; ``untrained-element`` when ``trained`` is given and lacks it.
    """
    known = set(trained) if trained is not None else None
    if Element.is_valid_symbol(symbol):
        z = int(Element(symbol).Z)
        if known is None or z in known:
            return z
    elif known is None:
        raise SettingsError("unknown-element", f"{symbol!r} is no element")
    names = ", ".join(Element.from_Z(z).symbol for z in sorted(known))
    raise SettingsError("untrained-element", f"element {symbol!r} is not one of {names}")


def allowed_elements(settings: SamplerSettings, trained: Iterable[int]) -> set[int]:
    """Atomic numbers that may be used.

    Raises
    ------
    SettingsError
        ``untrained-element``, ``unknown-element``, ``bad-setting`` when none is left.
    """
    known = set(trained)
    numbers = {element_number(s, known) for s in settings.elements} if settings.elements else set(known)
    numbers -= {element_number(s) for s in settings.exclude}
    if not numbers:
        raise SettingsError("bad-setting", "no element is left: all are excluded")
    return numbers


def amounts(formula: str, trained: Iterable[int], most: int) -> dict[int, int]:
    """Amounts of a reduced formula by atomic number; D and T are hydrogen, as when a file is read.

    Raises
    ------
    SettingsError
        ``bad-formula``, ``untrained-element``, ``too-many-atoms``.
    """
    try:
        whole = Composition(formula).as_dict()
    except ValueError:
        raise SettingsError("bad-formula", f"{formula!r} is no chemical formula") from None
    if not whole or any(v <= 0 or abs(v - round(v)) > 1e-6 for v in whole.values()):
        raise SettingsError("bad-formula", f"{formula!r} has no whole amounts of elements")
    # Isotopes share a number: HDO is two hydrogens and one oxygen.
    atoms: Counter[int] = Counter()
    for symbol, count in whole.items():
        atoms[element_number(symbol, trained)] += round(count)
    unit = math.gcd(*atoms.values())
    out = {z: count // unit for z, count in atoms.items()}
    if sum(out.values()) > most:
        raise SettingsError(
            "too-many-atoms",
            f"{formula} has {sum(out.values())} atoms in its formula unit, at most {most} can be made",
        )
    return dict(sorted(out.items()))


def wish_of(
    settings: SamplerSettings, trained: Iterable[int], most: int, sources: Sequence[str] = ()
) -> Wish:
    """The conditions by atomic numbers.

    Parameters
    ----------
    settings : SamplerSettings
    trained : iterable of int
    most : int
        Largest number of atoms of the model.
    sources : sequence of str
        Data sets that the model can be asked for.

    Raises
    ------
    SettingsError
        As `allowed_elements` and `amounts`; ``cannot-fill`` when the number of atoms is out of reach;
        ``unknown-data-set``.
    """
    known = set(trained)
    formula = amounts(settings.formula, known, most) if settings.formula else {}
    unit = sum(formula.values()) or 1
    asked = settings.elements or settings.exclude
    allowed = frozenset(allowed_elements(settings, known)) if asked else frozenset()
    if asked and not allowed >= set(formula):
        raise SettingsError("bad-setting", f"{settings.formula} has elements that are excluded or not listed")
    if settings.atoms is not None and (not 1 <= settings.atoms <= most or settings.atoms % unit):
        units = f", multiples of {unit} for {settings.formula}" if formula else ""
        raise SettingsError("cannot-fill", f"{settings.atoms} atoms cannot be made: 1 to {most}{units}")
    if settings.like and settings.like not in sources:
        raise SettingsError(
            "unknown-data-set",
            f"{settings.like!r} is not one of {', '.join(sources) or 'none, for these weights'}",
        )
    return Wish(
        elements=frozenset() if formula else allowed,
        formula=formula,
        atoms=settings.atoms,
        group=settings.space_group,
        log_tc=None if settings.target_tc is None else math.log10(settings.target_tc),
        guidance=settings.guidance,
        temperature=settings.temperature,
        source=1 + list(sources).index(settings.like) if settings.like else 0,
    )
