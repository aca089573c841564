"""The label names the project knows: unit and meaning of each, in one table."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Label:
    """One labelled quantity.

    Attributes
    ----------
    name : str
        Key in a record's `labels` and at the top level of a jsonl row.
    unit : str
        Unit of the stored number; empty for a dimensionless one.
    meaning : str
        What the number is, and what it must not be confused with.
    """

    name: str
    unit: str
    meaning: str


_TABLE = (
    # superconductivity, computed
    ("lambda", "", "electron-phonon coupling constant"),
    ("omega_log_K", "K", "logarithmic average phonon energy"),
    ("omega_2_K", "K", "root of the second moment of the coupling-weighted spectrum"),
    ("Tc_K", "K", "critical temperature from DFT coupling; formula and mu* differ by source: see Tc_formula"),
    ("Tc616_K", "K", "Tc of the public 616-material JARVIS benchmark, rounded to 1 mK"),
    ("Tc_hydride_plus_bulk_K", "K", "Tc of the public bulk and hydride JARVIS benchmark"),
    ("lambda_from_curve", "", "lambda integrated from the stored alpha2F"),
    ("omega_log_K_from_curve", "K", "omega_log integrated from the stored alpha2F"),
    ("omega2_K_from_curve", "K", "omega_2 integrated from the stored alpha2F"),
    ("negative_weight_fraction", "", "share of the alpha2F weight at imaginary modes"),
    ("dos_ef_states_eV_cell", "1/eV/cell", "electronic density of states at the Fermi level, per cell"),
    # superconductivity, measured or guessed
    ("Tc_exp_K", "K", "measured critical temperature, median of the entries; 0 means none found"),
    ("Tc_min_K", "K", "lowest measured critical temperature"),
    ("Tc_max_K", "K", "highest measured critical temperature"),
    ("Tc_pred_K", "K", "critical temperature predicted by somebody's model: not a physical label"),
    # stability
    ("formation_energy_eV_atom", "eV/atom", "formation energy, of the record's own source"),
    ("formation_energy_eV_atom_v2022", "eV/atom", "formation energy, JARVIS release of 2022"),
    ("formation_energy_megnet_eV_atom", "eV/atom", "formation energy, Materials Project release of 2018"),
    ("ehull_eV_atom", "eV/atom", "energy above the convex hull of the record's own source"),
    ("ehull_eV_atom_v2022", "eV/atom", "energy above the hull, JARVIS release of 2022"),
    ("energy_eV_atom", "eV/atom", "total energy of the source's own DFT set-up"),
    ("energy_per_atom", "eV/atom", "total energy in the carbon_24 set"),
    ("heat_ref", "eV/atom", "heat of formation in the perov_5 set"),
    # electrons, elasticity, heat
    ("gap_eV", "eV", "band gap, functional of the record's own source"),
    ("gap_pbe_eV", "eV", "band gap, PBE"),
    ("gap_megnet_eV", "eV", "band gap, PBE, Materials Project release of 2018"),
    ("gap_optb88vdw_eV", "eV", "band gap, OptB88vdW"),
    ("gap_optb88vdw_eV_v2022", "eV", "band gap, OptB88vdW, JARVIS release of 2022"),
    ("gap_mbj_eV", "eV", "band gap, Tran-Blaha modified Becke-Johnson"),
    ("gap_mbj_eV_v2022", "eV", "band gap, modified Becke-Johnson, JARVIS release of 2022"),
    ("bulk_modulus_kv_GPa", "GPa", "bulk modulus, Voigt average"),
    ("bulk_modulus_kv_GPa_v2022", "GPa", "bulk modulus, Voigt, JARVIS release of 2022"),
    ("shear_modulus_gv_GPa", "GPa", "shear modulus, Voigt average"),
    ("shear_modulus_gv_GPa_v2022", "GPa", "shear modulus, Voigt, JARVIS release of 2022"),
    ("magmom_oszicar_muB", "mu_B", "total magnetic moment of the cell"),
    ("ph_heat_capacity_J_mol_K", "J/mol/K", "phonon heat capacity of the cell"),
    ("debye_T_K", "K", "Debye temperature"),
    ("debye_T_K_predicted", "K", "Debye temperature predicted by a model: not a measured or DFT label"),
)

#: Known labels by name.
LABELS: dict[str, Label] = {name: Label(name, unit, meaning) for name, unit, meaning in _TABLE}
