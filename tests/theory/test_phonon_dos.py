import numpy as np
import pytest

from onnes.errors import InputError
from onnes.theory.phonon_dos import read_phonon_dos

OMEGA = np.linspace(-0.5, 10.0, 106)
SITES = np.stack([np.exp(-((OMEGA - c) ** 2)) for c in (3.0, 5.0, 8.0)], axis=1)


def write(path, columns, header=""):
    path.write_text(
        header + "\n".join(" ".join(f"{v:.8e}" for v in row) for row in np.column_stack([OMEGA, columns]))
    )
    return path


@pytest.mark.parametrize("header", ["# Sigma = 0.100000\n", "# Frequency[THz] dos\n"])
def test_columns_of_the_atoms_are_modes_with_three_an_atom(tmp_path, header):
    edges, weight = read_phonon_dos(write(tmp_path / "projected_dos.dat", SITES, header), 3)
    assert weight.shape == (3, len(OMEGA)) and weight.sum(1) == pytest.approx([3.0, 3.0, 3.0])
    middle = (edges[1:] + edges[:-1]) / 2
    assert (weight @ middle / 3.0)[0] == pytest.approx(3.0 * 4.135667696, rel=1e-3)


def test_a_total_in_front_is_recognised_and_a_stranger_refused(tmp_path):
    plain = read_phonon_dos(write(tmp_path / "a", SITES), 3, "THz")[1]
    total = np.column_stack([SITES.sum(1), SITES])
    assert read_phonon_dos(write(tmp_path / "b", total, "# Frequency[cm^-1] DOS PDOS\n"), 3)[
        1
    ] == pytest.approx(plain)
    with pytest.raises(InputError, match="wrong-columns"):
        read_phonon_dos(write(tmp_path / "c", np.column_stack([SITES[:, 0], SITES])), 3, "THz")


def test_total_and_two_of_three_atoms_are_not_taken_for_three(tmp_path):
    columns = np.column_stack([SITES.sum(1), SITES[:, :2]])
    with pytest.raises(InputError, match="unequal areas"):
        read_phonon_dos(write(tmp_path / "a", columns), 3, "THz")


def test_a_total_alone_serves_only_atoms_that_are_alike(tmp_path):
    path = write(tmp_path / "total_dos.dat", SITES.sum(1), "# Sigma = 0.1\n")
    weight = read_phonon_dos(path, 4, alike=True)[1]
    assert (weight == weight[0]).all()
    with pytest.raises(InputError, match="needs-site-projected"):
        read_phonon_dos(path, 4)


def test_what_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(InputError, match="no-unit"):
        read_phonon_dos(write(tmp_path / "a", SITES), 3)
    with pytest.raises(InputError, match="wrong-columns"):
        read_phonon_dos(write(tmp_path / "b", SITES), 5, "THz")
    with pytest.raises(InputError, match="no-modes"):
        read_phonon_dos(write(tmp_path / "c", SITES * 0.0), 3, "THz")
    falling = tmp_path / "d"
    falling.write_text("1 1\n3 1\n2 1\n")
    with pytest.raises(InputError, match="grid-not-increasing"):
        read_phonon_dos(falling, 1, "THz")
    with pytest.raises(InputError, match="not-found"):
        read_phonon_dos(tmp_path / "absent", 1, "THz")
