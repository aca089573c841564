"""Magnets, named by hand: no data set at hand carries the moments of metals.

Three kinds, told apart in every table:

* ``named``: ferro-, ferri- and antiferromagnets of the textbooks, by formula, whatever their polymorph.
* ``4f``: metals with at least a tenth of rare-earth atoms with an open 4f shell and a firm local moment. Nearly
  all order at low temperature. Ce and Yb, whose moments come and go, are left out, and so are La and Lu.
* ``3d``: metals that are mostly Mn, Fe or Co. The weakest rule: some of them are Pauli paramagnets.
"""

from __future__ import annotations

from collections import Counter

from pymatgen.core import Composition

from onnes.crystal.formula import formula_of

OPEN_4F = {"Pr", "Nd", "Sm", "Eu", "Gd", "Tb", "Dy", "Ho", "Er", "Tm"}
LEAST_4F = 0.1
LEAST_3D = {"Mn": 0.6, "Fe": 0.6, "Co": 0.75}

_NAMED = """
Fe Co Ni Cr Mn Gd Tb Dy Ho Er Tm Nd Pr Sm Eu Fe3O4 Fe2O3 FeO MnO CoO NiO Cr2O3 CrO2 MnO2 Mn3O4 Mn2O3 Co3O4
CuO EuO EuS EuSe EuTe V2O3 Ti2O3 NiF2 MnF2 FeF2 CoF2 CrF3 FeF3 FeCl2 FeBr2 FeI2 CoCl2 CoBr2 NiCl2 NiBr2 NiI2
MnCl2 MnBr2 MnI2 CrCl3 CrBr3 CrI3 CrCl2 VI3 RuCl3 MnS MnSe MnTe FeS CoS2 NiS2 MnS2 MnSe2 MnTe2 NiS Fe7S8 CrS
CrSe CrTe Cr2Te3 Cr3Te4 Cr5Te6 Cr2S3 Cr2Se3 CrSb CrSb2 CrAs CrN CrGeTe3 CrSiTe3 Fe3GeTe2 MnPS3 FePS3 NiPS3
MnPSe3 CrPS4 MnBi2Te4 Fe5GeTe2 MnP MnAs MnSb MnBi MnB MnB2 FeB Fe2B Fe3B Fe3P Fe2P FeP Fe3C Fe5C2 Fe4N Fe3N
Fe16N2 Mn4N Mn3N2 MnN CoB Co2B Co3B Ni3Mn Fe3Si Fe5Si3 FeGe FeGe2 FeSn FeSn2 Fe3Sn Fe3Sn2 Fe5Sn3 MnSi Mn5Si3
Mn3Si Mn5Ge3 Mn3Ge Mn3Sn Mn3Ga Mn2Sb Mn2As Mn2Au MnAu MnAu2 MnAu4 MnPt MnPt3 Mn3Pt MnPd MnPd3 MnNi MnIr
Mn3Ir Mn3Rh MnRh MnHg MnAl MnGa MnZn MnZn3 Mn3Zn MnNiGe MnCoGe MnCoSi MnFeP FePt Fe3Pt FePt3 FePd FePd3 FeNi
FeNi3 Ni3Fe FeCo FeRh Fe3Al Fe3Ga CoPt CoPt3 Co3Pt CoPd Co3W Co3Ti NiMn CrPt CrPt3 Cr2Al Fe3Ge Co3Sn2S2
CoMnO3 Mn3GaN Mn3NiN Mn3ZnN Mn3SnN Mn3CuN Mn3GeN Mn3ZnC Mn3SnC Mn3GaC Mn3AlC Fe3NiN FeCrAs FeMnP CrNiAs
CuMnAs CuMnSb NiMnSb PtMnSb CoMnSb PdMnSb IrMnSb RhMnSb AuMnSb Co2MnSi Co2MnGe Co2MnSn Co2MnAl Co2MnGa
Co2FeSi Co2FeAl Co2FeGa Co2FeGe Co2CrAl Co2CrGa Co2TiAl Co2TiSi Co2TiSn Co2TiGe Co2VAl Co2VGa Co2VSn Co2ZrSn
Co2HfSn Co2NbSn Ni2MnGa Ni2MnIn Ni2MnSn Ni2MnSb Ni2MnAl Ni2MnGe Cu2MnAl Cu2MnIn Cu2MnSn Pd2MnSn Pd2MnSb
Pd2MnIn Pd2MnGe Rh2MnGe Rh2MnSn Rh2MnPb Ru2MnSi Ru2MnGe Ru2MnSn Ru2MnSb Au2MnAl Mn2VAl Mn2VGa Mn2CoGa
Mn2CoAl Mn2NiGa Mn2RuGa Fe2MnSi Fe2CrAl Fe2CoAl Fe2NiAl Fe2CoGe Fe2CoSi Fe2MnAl SmCo5 YCo5 LaCo5 CeCo5 PrCo5
NdCo5 GdCo5 TbCo5 DyCo5 Sm2Co17 Y2Co17 Nd2Fe14B Y2Fe14B Sm2Fe17 Y2Fe17 YFe2 ZrFe2 HfFe2 ScFe2 LuFe2 TiFe2
NbFe2 YFe3 YFe5 YCo3 GdFe2 TbFe2 DyFe2 HoFe2 ErFe2 TmFe2 SmFe2 CeFe2 GdCo2 TbCo2 DyCo2 HoCo2 ErCo2 NdCo2
PrCo2 GdNi2 TbNi2 DyNi2 GdNi5 USb UAs UP UN US USe UTe UCu5 UPt UMn2 UFe2 UGa2 UGa3 UIn3 UPb3 NpO2 UO2 NpFe2
PuFe2 NpAl2 UPdSn UNiAl URhAl UCu2Si2 UNi2Si2 UPd2Si2 URh2Si2 UCo2Ge2 UCu2Ge2 UMn2Si2 UMn2Ge2 GdN TbN DyN
HoN ErN EuN GdP GdAs GdSb GdBi GdAg GdCu GdZn GdCd GdMg GdAl2 GdIn3 GdB6 GdB4 EuB6 EuC2 GdC2 NdB6 PrB6 CeB6
EuIn2As2 EuCd2As2 EuSn2As2 EuMnBi2 YMn2 YMn4Al8 LaMn2Ge2 LaMn2Si2 YMn2Ge2 YMn2Si2 CaMn2Ge2 YMn6Sn6 MgMn6Sn6
ScMn6Sn6 LaMnSi LaMnGe LaCrGe3 LaCrSb3 LaFe12B6 LaCo2P2 CeCo2P2 YFe6Ge6 MgFe6Ge6 HfFe6Ge6 BaMn2As2 BaMn2Sb2
BaMn2Bi2 SrMn2As2 CaMn2As2 SrMn2Sb2 CaMn2Sb2 CaMn2Bi2 BaMn2P2 SrMn2P2 BaCr2As2 SrCr2As2 EuCr2As2 LiMnAs
NaMnAs KMnAs LiMnP NaMnP NaMnBi KMnBi LaMnAsO LaMnPO LaMnO3 LaCrO3 LaFeO3 YMnO3 YFeO3 YCrO3 BiFeO3 BiMnO3
CaMnO3 SrMnO3 BaMnO3 SrRuO3 SrFeO3 SrCoO3 CaFeO3 YTiO3 LaTiO3 LaVO3 YVO3 PbVO3 Sr2FeMoO6 Sr2CrReO6 Ca2FeReO6
Ba2FeMoO6 Sr2CrWO6 CoFe2O4 NiFe2O4 MnFe2O4 ZnFe2O4 MgFe2O4 CuFe2O4 CoCr2O4 MnCr2O4 FeCr2O4 NiCr2O4 ZnCr2O4
CdCr2O4 CdCr2S4 CdCr2Se4 HgCr2Se4 CuCr2S4 CuCr2Se4 CuCr2Te4 FeCr2S4 MnCr2S4 ZnCr2Se4 HgCr2S4 BaFe12O19
SrFe12O19 Y3Fe5O12 Ca2RuO4 Sr2IrO4 NaOsO3 Cd2Os2O7 CuFeO2 CuCrO2 AgFeO2 NaFeO2 LiFeO2 NaCrO2 LiCrO2 NaNiO2
LiMnO2 NaMnO2 LiCoPO4 LiFePO4 LiMnPO4 LiNiPO4 KMnF3 KFeF3 KCoF3 KNiF3 RbMnF3 CsMnF3 NaMnF3 NaFeF3 NaNiF3
K2NiF4 K2MnF4 K2CoF4 Rb2MnF4 CsNiCl3 CsFeCl3 CsCuCl3 CsMnBr3 RbNiCl3 CuFeS2 KFeS2 FeTiO3 MnTiO3 NiTiO3
CoTiO3 MnWO4 FeWO4 CoWO4 NiWO4 CuWO4
"""


def named() -> set[str]:
    """Alphabetical reduced formulas of the hand-written list."""
    formulas = set()
    for text in _NAMED.split():
        composition = Composition(text)
        formulas.add(formula_of(e.symbol for e, n in composition.items() for _ in range(round(n))))
    return formulas


def kind_of(species: list[str], metal: bool, known: set[str]) -> str | None:
    """Kind of magnet, or None where nothing says that it is one."""
    if formula_of(species) in known:
        return "named"
    share = {e: n / len(species) for e, n in Counter(species).items()}
    if metal and sum(share.get(e, 0.0) for e in OPEN_4F) >= LEAST_4F:
        return "4f"
    if metal and any(share.get(e, 0.0) >= least for e, least in LEAST_3D.items()):
        return "3d"
    return None
