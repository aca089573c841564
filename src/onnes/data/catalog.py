"""Named data sets: where the official files are, under which licence, and how to tell a good copy.

The package ships no row of them. Addresses and checksums are entered by hand from the sources' own pages and
from public programs that use the files; what is not known is left open (`None`) with the reason beside it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from onnes.errors import InputError

#: Why a file has no checksum here.
PINNED_ON_FIRST_USE = "no SHA-256 is published; the first fetch pins the one it sees in the cache"
#: Why a checksum is here although the host does not publish it.
RECORDED = "SHA-256 as recorded by public programs that use this file; the host publishes MD5 only"


@dataclass(frozen=True)
class RemoteFile:
    """One file of a data set.

    Attributes
    ----------
    name : str
        File name in the cache.
    url : str
        Where it is fetched from.
    sha256 : str or None
        Expected checksum; None: see `checksum_note`.
    checksum_note : str
        Where the checksum comes from, or why there is none.
    bytes : int or None
        Expected size, where known.
    """

    name: str
    url: str
    sha256: str | None = None
    checksum_note: str = PINNED_ON_FIRST_USE
    bytes: int | None = None


@dataclass(frozen=True)
class DataSet:
    """A data set of an official source.

    Attributes
    ----------
    name : str
        Short name on the command line.
    title, licence, citation, page : str
        What it is, its licence, what to cite, and the page that describes it.
    format : str
        What the files hold and whether ``onnes data import`` reads them.
    files : tuple of RemoteFile
        Empty where the source is an interface and not a file.
    how : str
        What a user has to do where fetching alone is not enough.
    tc_convention : str
        Formula and mu* behind the set's critical temperatures; kept with every imported row.
    """

    name: str
    title: str
    licence: str
    citation: str
    page: str
    format: str
    files: tuple[RemoteFile, ...] = field(default=())
    how: str = ""
    tc_convention: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)

    def file(self, name: str | None = None) -> RemoteFile:
        """Return the file of this name; without a name, the only file.

        Raises
        ------
        InputError
            ``no-file`` (the source is an interface), ``choose-file``, ``unknown-file``.
        """
        known = ", ".join(f.name for f in self.files)
        if not self.files:
            raise InputError("no-file", f"{self.name} is not a file to fetch: {self.how}")
        if name is None:
            if len(self.files) > 1:
                raise InputError("choose-file", f"{self.name} has {len(self.files)} files; name one: {known}")
            return self.files[0]
        for item in self.files:
            if item.name == name:
                return item
        raise InputError("unknown-file", f"{self.name} has no file {name!r}; it has {known}")


_FIGSHARE = "https://ndownloader.figshare.com/files/"
_MATERIALS_CLOUD = "https://archive.materialscloud.org/api/records/3kbt5-r3n56/files"
_CERQUEIRA = (
    "T. F. T. Cerqueira, A. Sanna, M. A. L. Marques, Sampling the materials space for conventional "
    "superconducting compounds, Adv. Mater. 36, 2307085 (2024), doi:10.1002/adma.202307085"
)
_JARVIS_JSON = "zip with one JSON list (jid, atoms, properties); importable"

_SETS = (
    DataSet(
        name="jarvis-sc-3d",
        title="JARVIS-SC: electron-phonon coupling of 1,058 bulk crystals, with alpha2F (NIST)",
        licence="CC BY 4.0",
        citation="K. Choudhary, K. Garrity, npj Comput. Mater. 8, 244 (2022), doi:10.1038/s41524-022-00933-1",
        page="https://doi.org/10.6084/m9.figshare.21370572",
        format=_JARVIS_JSON,
        files=(
            RemoteFile(
                "jarvis_epc_data_figshare_1058.json.zip",
                _FIGSHARE + "38307921",
                "4213651cee9b4c13a376dd74ac1f8d3bd9efcd451f1b8da615255c8df0e1487f",
                RECORDED,
                8828364,
            ),
        ),
        tc_convention="McMillan-Allen-Dynes mu*=0.085 (inferred)",
    ),
    DataSet(
        name="jarvis-sc-2d",
        title="JARVIS-SC: electron-phonon coupling of 161 two-dimensional crystals (NIST)",
        licence="CC BY 4.0",
        citation="D. Wines, K. Choudhary, A. J. Biacchi, K. F. Garrity, F. Tavazza, Nano Lett. 23, 969 "
        "(2023), doi:10.1021/acs.nanolett.2c04420",
        page="https://doi.org/10.6084/m9.figshare.21370572",
        format=_JARVIS_JSON,
        files=(RemoteFile("jarvis_epc_data_2d.json.zip", _FIGSHARE + "38950433", bytes=636970),),
    ),
    DataSet(
        name="jarvis-dft-3d",
        title="JARVIS-DFT: formation energy, hull distance, gap, moduli of 75,993 bulk crystals (NIST)",
        licence="CC BY 4.0",
        citation="K. Choudhary et al., npj Comput. Mater. 6, 173 (2020), doi:10.1038/s41524-020-00440-1",
        page="https://doi.org/10.6084/m9.figshare.6815699",
        format=_JARVIS_JSON,
        files=(
            RemoteFile(
                "jdft_3d-12-12-2022.json.zip",
                _FIGSHARE + "38521619",
                "d4c64660e9e1fa45c82bd8868a96ec10162195eed69636445972c05550d8d0d6",
                RECORDED,
            ),
        ),
    ),
    DataSet(
        name="alexandria-eph",
        title="Alexandria electron-phonon set (lambda, omega_log, Tc, N(EF)), 8,253 rows, as packed by JARVIS",
        licence="CC BY 4.0 (of the Alexandria data)",
        citation=_CERQUEIRA + "; T. F. T. Cerqueira et al., doi:10.1002/adfm.202404043",
        page="https://doi.org/10.6084/m9.figshare.27174897",
        format="zip with one JSON list (id, atoms, la, wlog, Tc, dosef, debye); importable",
        files=(RemoteFile("alex_supercon.json.zip", _FIGSHARE + "55551155"),),
        tc_convention="Allen-Dynes mu*=0.10",
    ),
    DataSet(
        name="alexandria-eph-archive",
        title="The calculations behind the Alexandria electron-phonon set: inputs, dynamical matrices, alpha2F",
        licence="CC BY 4.0",
        citation=_CERQUEIRA,
        page="https://doi.org/10.24435/materialscloud:qv-bq",
        format="17 tar.bz2 of Quantum ESPRESSO runs, tens of GB in all; not importable as they are",
        files=tuple(
            RemoteFile(f"batch-{letter}.tar.bz2", f"{_MATERIALS_CLOUD}/batch-{letter}.tar.bz2/content")
            for letter in "abcdefghijklmnopq"
        ),
        how="name one archive with --file; unpack it and import its geo_opt.cif files",
        tc_convention="Allen-Dynes mu*=0.10",
    ),
    DataSet(
        name="3dsc",
        title="3DSC(MP): measured Tc of doped and undoped superconductors with their Materials Project parents",
        licence="CC BY 4.0",
        citation="T. Sommer, R. Willa, J. Schmalian, P. Friederich, Sci. Data 10, 816 (2023), "
        "doi:10.1038/s41597-023-02721-y",
        page="https://doi.org/10.6084/m9.figshare.c.6914407.v1",
        format="csv of formulas, Tc and paths of CIF files: a table of labels, not a crystal set",
        files=(
            RemoteFile(
                "3DSC_MP.csv",
                "https://raw.githubusercontent.com/aimat-lab/3DSC/main/superconductors_3D/data/final/MP/3DSC_MP.csv",
            ),
        ),
        how="import the CIF files of the figshare collection and join this table's Tc with --labels",
    ),
    DataSet(
        name="materials-project",
        title="Materials Project: crystals with formation energy, hull distance, gap",
        licence="CC BY 4.0",
        citation="A. Jain et al., APL Mater. 1, 011002 (2013), doi:10.1063/1.4812323",
        page="https://next-gen.materialsproject.org/api",
        format="interface that needs a personal key; its JSON structures are importable",
        how="needs a personal key and has no file to fetch: save entries with the project's own client "
        "(mp-api, MP_API_KEY) as JSON and run onnes data import",
    ),
)

#: Data sets by name.
CATALOG: dict[str, DataSet] = {item.name: item for item in _SETS}


def data_set(name: str) -> DataSet:
    """Return the data set of this name.

    Raises
    ------
    InputError
        ``unknown-data-set``, with the known names.
    """
    try:
        return CATALOG[name]
    except KeyError:
        known = ", ".join(CATALOG)
        raise InputError("unknown-data-set", f"unknown data set {name!r}; use one of {known}") from None
