"""Named sets of settings: what a preset changes, and why. Whatever a file or the command line says overrides it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from onnes.errors import SettingsError

#: Elements without a stable isotope that the generators know.
RADIOACTIVE = ("Ac", "Np", "Pa", "Pm", "Po", "Pu", "Tc", "Th", "U")
#: 3d metals that usually carry a moment, and lanthanides with an open f shell: electron-phonon pairing is broken by the
#: moments, and the predictors assume nonmagnetic metals. La and Lu have no such shell.
MAGNETIC_3D = ("Cr", "Mn", "Fe", "Co", "Ni")
OPEN_4F = ("Ce", "Pr", "Nd", "Sm", "Eu", "Gd", "Tb", "Dy", "Ho", "Er", "Tm", "Yb")


@dataclass(frozen=True)
class Preset:
    """A named set of settings.

    Attributes
    ----------
    summary : str
        One line: what it is for.
    limits : str
        One line: what it cannot do.
    values : dict
        Nested as in the TOML file.
    """

    summary: str
    limits: str
    values: dict[str, dict[str, Any]]


PRESETS: dict[str, Preset] = {
    "quick": Preset(
        "a first look in minutes: few crystals, the fast predictor, short relaxations, no phonons",
        "the fast predictor errs more than the standard one and knows no band gap",
        {
            "run": {"n": 24},
            "relax": {"max_steps": 100},
            "predict": {"model": "fast"},
            "dossier": {"top": 3, "phonons": 0},
        },
    ),
    "ambient-high-tc": Preset(
        "nonmagnetic metals near the hull with a predicted Tc above 10 K, at no pressure",
        "no magnetism is computed: elements that usually bring it are left out instead",
        {
            "run": {"n": 480},
            "generate": {
                "target_tc_K": 20.0,
                "guidance": 1.0,
                "exclude": sorted({*RADIOACTIVE, *MAGNETIC_3D, *OPEN_4F}),
            },
            "chemistry": {"no_radioactive": True, "exclude": sorted({*MAGNETIC_3D, *OPEN_4F})},
            "hull": {"max_e_hull_eV_atom": 0.1},
            "predict": {"min_tc_K": 10.0, "min_p_superconductor": 0.2},
        },
    ),
    "hydride": Preset(
        "hydrides of metals at ambient pressure: a crystal without H is refused",
        "pressure is not supported (no H3S or LaH10: those exist above 100 GPa), and hull energies hold no "
        "zero-point energy, which for H can shift them by 0.1 eV/atom",
        {
            # Of 48 drawn crystals 6 held H (3 at the default temperature): most of a run is refused at the gate, before
            # anything that takes time.
            "run": {"n": 1920},
            "generate": {
                # Metals of the known ambient and predicted low-pressure hydrides, Al and Si as their partners.
                "elements": [
                    *("H", "Li", "Na", "K", "Rb", "Cs", "Mg", "Ca", "Sr", "Ba", "Sc", "Y", "La", "Lu"),
                    *("Ti", "Zr", "Hf", "V", "Nb", "Ta", "Mo", "W", "Re", "Ru", "Rh", "Ir", "Pd", "Pt"),
                    *("Cu", "Ag", "Au", "Zn", "Al", "Ga", "In", "Si"),
                ],
                "target_tc_K": 20.0,
                "guidance": 1.0,
                "temperature": 1.2,
            },
            "chemistry": {"require": ["H"]},
            # Light atoms in open cages take more steps than the heavy frame around them.
            "relax": {"max_steps": 300},
            "hull": {"max_e_hull_eV_atom": 0.15},
        },
    ),
    "2d": Preset(
        "single layers with vacuum that you bring along (--from): every bulk crystal is refused",
        "the generators draw bulk crystals only, so this preset needs --from; every Tc is marked out of domain (the "
        "training set holds bulk crystals), novelty means little for a cell with vacuum, and the hull is that of bulk "
        "phases",
        {
            # Vacuum is counted as volume: packing fractions of layers are far below those of bulk crystals.
            "check": {"dimensions": "slab", "min_packing": 0.005},
            # Moduli of a cell with vacuum depend on the vacuum: no Debye temperature follows from them. The classifier
            # knows bulk crystals only, and takes a layer of NbSe2, a superconductor, for an insulator.
            "prescreen": {"min_p_superconductor": 0.0, "min_tc_K": 0.0},
            # A free layer lies above the bulk hull by the energy that binds layers, up to 0.2 eV/atom.
            "hull": {"max_formation_energy_eV_atom": 0.2, "max_e_hull_eV_atom": 0.3},
            "novel": {"keep": "all"},
            # Predictions for layers are extrapolations: they order, but hardly refuse.
            "predict": {"min_tc_K": 0.1, "min_p_superconductor": 0.0},
        },
    ),
}

#: What changes when crystals are read from files: known ones are wanted, and an element is its own reference phase
#: (formation energy 0).
READING: dict[str, dict[str, Any]] = {
    "novel": {"keep": "all"},
    "hull": {"max_formation_energy_eV_atom": 0.05},
}


def completed(values: Mapping[str, Any]) -> dict[str, Any]:
    """Put a preset, and the defaults of screening files, beneath what was given.

    Parameters
    ----------
    values : mapping
        Nested settings; ``values["preset"]`` names a preset.

    Raises
    ------
    SettingsError
        ``unknown-preset``.
    """
    name = values.get("preset", "")
    if name and (not isinstance(name, str) or name not in PRESETS):
        raise SettingsError("unknown-preset", f"preset = {name!r}: use one of {', '.join(PRESETS)}")
    generate = values.get("generate")
    below = READING if isinstance(generate, Mapping) and generate.get("paths") else {}
    return merged(merged(below, PRESETS[name].values if name else {}), values)


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings of both; where both have a key, that of `above`."""
    result = copy.deepcopy(dict(below))
    for key, value in above.items():
        held = result.get(key)
        both = isinstance(held, Mapping) and isinstance(value, Mapping)
        result[key] = merged(held, value) if both else copy.deepcopy(value)  # type: ignore[arg-type]
    return result
