"""Interatomic potentials by name, as ASE calculators: those that come with the package, an extra, and anyone's.

Any package can add one through the entry-point group ``onnes.potentials``::

    [project.entry-points."onnes.potentials"]
    my-potential = "my_package:load"

``load()`` returns an ASE calculator. It may carry ``title``, ``citation`` (str), ``elements`` (symbols or atomic
numbers) and ``hash`` (str, of the weights) as attributes; see docs/relaxation.md.
"""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnes.errors import CrystalError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable

    from ase.calculators.calculator import Calculator
    from pymatgen.core import Structure

GROUP = "onnes.potentials"


@dataclass(frozen=True)
class Potential:
    """A universal potential.

    Attributes
    ----------
    name : str
        Name in settings and on the command line.
    title, citation : str
        For reports.
    weights : str
        Name of the weights in the package that ships them; for a potential of another package, where it was found.
    modal : str
        Which of the theories a potential of several was trained on; empty for one.
    kind : str
        ``sevennet``, ``chgnet`` (extra), or ``entry-point``.
    """

    name: str
    title: str
    citation: str
    weights: str
    modal: str = ""
    kind: str = "sevennet"


_SEVENNET = "Y. Park et al., J. Chem. Theory Comput. 20, 4857 (2024)"
_MULTI = "J. Kim et al., J. Am. Chem. Soc. 147, 1042 (2025)"


def _named(*potentials: Potential) -> dict[str, Potential]:
    return {each.name: each for each in potentials}


#: Always installed.
POTENTIALS: dict[str, Potential] = _named(
    Potential(
        "7net-0",
        "SevenNet-0 (11 July 2024), trained on MPtrj (PBE and PBE+U relaxations of Materials Project)",
        _SEVENNET,
        "7net-0",
    ),
    Potential(
        "7net-l3i5",
        "SevenNet-l3i5, angular momenta to 3 and 5 layers, trained on MPtrj (PBE and PBE+U)",
        _SEVENNET,
        "7net-l3i5",
    ),
    Potential(
        "7net-mf-0",
        "SevenNet-MF-0, trained on MPtrj and r2SCAN relaxations of Materials Project; its PBE side",
        _MULTI,
        "7net-mf-0",
        "PBE",
    ),
    Potential(
        "7net-mf-0-r2scan",
        "SevenNet-MF-0, trained on MPtrj and r2SCAN relaxations of Materials Project; its r2SCAN side",
        _MULTI,
        "7net-mf-0",
        "R2SCAN",
    ),
)
#: Known by name, installed with the extra of the same name.
EXTRAS: dict[str, Potential] = _named(
    Potential(
        "chgnet",
        "CHGNet 0.3.0, trained on MPtrj (PBE and PBE+U relaxations of Materials Project)",
        "B. Deng et al., Nat. Mach. Intell. 5, 1031 (2023)",
        "0.3.0",
        kind="chgnet",
    )
)
DEFAULT = "7net-0"


def plugins() -> dict[str, EntryPoint]:
    """Potentials that installed packages register, by name; a name of our own cannot be taken.

    Raises
    ------
    SettingsError
        ``ambiguous-potential``: two packages register the same name.
    """
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=GROUP):
        if point.name in POTENTIALS or point.name in EXTRAS:
            continue
        known = found.setdefault(point.name, point)
        if known.value != point.value:
            raise SettingsError(
                "ambiguous-potential",
                f"potential {point.name!r} is registered by {_package(known)} and by {_package(point)}",
            )
    return found


def available() -> dict[str, Potential]:
    """Every potential that can be named: shipped, extra, and of other packages (those are not loaded for it)."""
    others = (
        Potential(name, f"from {_package(point)}", "", point.value, kind="entry-point")
        for name, point in sorted(plugins().items())
    )
    return {**POTENTIALS, **EXTRAS, **_named(*others)}


def potential(name: str) -> Potential:
    """Return the potential of this name.

    Raises
    ------
    SettingsError
        ``unknown-potential``, ``broken-potential``, ``ambiguous-potential``.
    """
    if name in POTENTIALS:
        return POTENTIALS[name]
    every = available()
    if name not in every:
        raise SettingsError("unknown-potential", f"unknown potential {name!r}; use one of {', '.join(every)}")
    chosen = every[name]
    if chosen.kind != "entry-point":
        return chosen
    factory = _factory(name)
    title = str(getattr(factory, "title", "") or chosen.title)
    return Potential(name, title, str(getattr(factory, "citation", "")), chosen.weights, kind=chosen.kind)


@lru_cache(maxsize=4)
def calculator(name: str = DEFAULT) -> Calculator:
    """Load the potential as an ASE calculator (on the CPU, once a process).

    Raises
    ------
    SettingsError
        ``unknown-potential``, ``missing-extra``, ``broken-potential``, ``ambiguous-potential``.
    """
    chosen = potential(name)
    if chosen.kind == "chgnet":
        return _from_extra(chosen, "load")
    if chosen.kind == "entry-point":
        return _from_plugin(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from sevenn.calculator import SevenNetCalculator

        return SevenNetCalculator(chosen.weights, device="cpu", modal=chosen.modal or None)


@lru_cache(maxsize=4)
def elements(name: str = DEFAULT) -> frozenset[int]:
    """Atomic numbers the potential was trained on; all of them for a potential that does not say."""
    chosen = potential(name)
    if chosen.kind == "chgnet":
        from onnes.stability.chgnet import LAST_ELEMENT

        return frozenset(range(1, LAST_ELEMENT + 1))
    if chosen.kind == "entry-point":
        return _declared(name)
    loaded: Any = calculator(name)
    return frozenset(int(z) for z in loaded.type_map)


def require_elements(structure: Structure, name: str = DEFAULT) -> None:
    """Refuse elements the potential does not know.

    Raises
    ------
    CrystalError
        ``potential-unknown-element``.
    """
    known = elements(name)
    unknown = sorted({e.symbol for e in structure.elements if e.Z not in known})
    if unknown:
        raise CrystalError("potential-unknown-element", f"{name} does not know {', '.join(unknown)}")


@lru_cache(maxsize=4)
def potential_hash(name: str = DEFAULT) -> str:
    """Hash of the weights file (and the side of it that is used): part of the key of every relaxation in a ledger.

    A potential of another package that declares no hash is identified by that package's name and version.
    """
    chosen = potential(name)
    if chosen.kind == "chgnet":
        return str(_from_extra(chosen, "weights_hash"))
    if chosen.kind == "entry-point":
        declared = str(getattr(_factory(name), "hash", ""))
        text = declared or f"{_package(plugins()[name])} {chosen.weights}"
        return hashlib.sha256(f"{name} {text}".encode()).hexdigest()[:16]
    from sevenn.util import pretrained_name_to_path

    weights = Path(pretrained_name_to_path(chosen.weights)).read_bytes()
    return hashlib.sha256(weights + chosen.modal.encode()).hexdigest()[:16]


def _from_extra(chosen: Potential, what: str) -> Any:
    from onnes.stability import chgnet

    try:
        return getattr(chgnet, what)()
    except ImportError as error:
        raise SettingsError(
            "missing-extra",
            f"potential {chosen.name!r}: {error}; install it with: pip install 'onnes[{chosen.name}]'",
        ) from None


def _package(point: EntryPoint) -> str:
    owner = point.dist
    return f"{owner.name} {owner.version}" if owner is not None else point.value


def _factory(name: str) -> Callable[[], Any]:
    """Import what a package registered; whatever it raises is that package's fault and told in one line."""
    point = plugins()[name]
    try:
        loaded = point.load()
    except Exception as error:
        raise _broken(name, point, error) from error
    if not callable(loaded):
        raise _broken(name, point, f"{type(loaded).__name__} is not a function that returns a calculator")
    return loaded


def _from_plugin(name: str) -> Any:
    point, factory = plugins()[name], _factory(name)
    try:
        made = factory()
    except Exception as error:
        raise _broken(name, point, error) from error
    if not callable(getattr(made, "get_property", None)):
        raise _broken(name, point, f"it returned {type(made).__name__}, which is no ASE calculator")
    return made


def _declared(name: str) -> frozenset[int]:
    from ase.data import atomic_numbers

    given = getattr(_factory(name), "elements", None)
    if given is None:
        return frozenset(range(1, 119))
    try:
        return frozenset(atomic_numbers[e] if isinstance(e, str) else int(e) for e in given)
    except (KeyError, TypeError, ValueError) as error:
        raise _broken(name, plugins()[name], f"its list of elements holds {error}") from error


def _broken(name: str, point: EntryPoint, error: Exception | str) -> SettingsError:
    words = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
    return SettingsError(
        "broken-potential", f"potential {name!r} of {_package(point)} cannot be used: {str(words)[:200]}"
    )
