"""CVs of the box and of charges, against the same in NumPy."""

import jax.numpy as jnp
import numpy as np
import pytest

from pysamp import Cell, System
from pysamp.colvars import CellAngle, CellLength, Density, Dipole, DipoleMoment, Volume
from pysamp.errors import InvalidInputError
from pysamp.methods import Unbiased
from pysamp.sampler import Sampler

BOX = np.array([[2.0, 0.0, 0.0], [0.7, 1.9, 0.0], [-0.65, 0.6, 2.2]])
ORIGIN = jnp.zeros((1, 3))


def test_lengths_and_angles_of_a_triclinic_box():
    a, b, c = BOX
    cell = Cell.of(BOX)
    for name, vector in zip("abc", BOX, strict=True):
        np.testing.assert_allclose(CellLength(name)(ORIGIN, cell), np.linalg.norm(vector), rtol=1e-6)
    for name, (u, v) in {"alpha": (b, c), "beta": (a, c), "gamma": (a, b)}.items():
        expected = np.arccos(u @ v / np.linalg.norm(u) / np.linalg.norm(v))
        np.testing.assert_allclose(CellAngle(name)(ORIGIN, cell), expected, rtol=1e-6)


def test_volume_and_density():
    np.testing.assert_allclose(Volume()(ORIGIN, Cell.of(BOX)), np.linalg.det(BOX), rtol=1e-6)
    np.testing.assert_allclose(Volume()(ORIGIN, Cell.of(BOX[[1, 0, 2]])), np.linalg.det(BOX), rtol=1e-6)  # left-handed
    system = System(masses=np.array([2.0, 3.0, 4.0]), timestep=1.0, kT=1.0, periodic=True)
    density = Density().resolved(system)
    np.testing.assert_allclose(density(ORIGIN, Cell.of(BOX)), 9.0 / np.linalg.det(BOX), rtol=1e-6)


def test_dipoles_across_the_boundary():
    """A water molecule cut in two by the boundary, and a charged group wherever it is."""
    x = np.array([[0.01, 0.0, 0.0], [0.08, 0.06, 0.0], [-0.07, 0.06, 0.0]])
    q = np.array([-0.834, 0.417, 0.417])
    cut = x + np.array([0.0, 0.0, 1.0]) @ BOX
    np.testing.assert_allclose(Dipole([0, 1, 2], q)(jnp.asarray(cut), Cell.of(BOX)), q @ x, atol=1e-6)
    np.testing.assert_allclose(DipoleMoment([0, 1, 2], q)(jnp.asarray(x), Cell()), np.linalg.norm(q @ x), rtol=1e-6)
    charged = np.array([1.0, 0.5, 0.0])
    expected = charged @ (x - x.mean(axis=0))
    np.testing.assert_allclose(Dipole([0, 1, 2], charged)(jnp.asarray(x + 5.0), Cell()), expected, atol=1e-5)


@pytest.mark.parametrize("cv", [Volume(), Density(), CellLength("a"), CellAngle("beta")], ids=lambda cv: cv.name)
def test_without_a_box_they_say_so(cv):
    system = System(masses=np.ones(3), timestep=1.0, kT=1.0)
    with pytest.raises(InvalidInputError, match="periodic box"):
        Sampler.build(Unbiased(cv), system)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: CellLength("x"), "'a', 'b' or 'c'"),
        (lambda: CellAngle("a"), "alpha"),
        (lambda: Density(mass=-1.0), "positive"),
        (lambda: Density()(ORIGIN, Cell.of(BOX)), "mass="),
        (lambda: Dipole([0, 1], [1.0]), "one finite charge"),
        (lambda: DipoleMoment([0], [1.0]), "two or more"),
        (lambda: Volume()(ORIGIN, Cell()), "periodic box"),
    ],
)
def test_bad_input(make, text):
    with pytest.raises(InvalidInputError, match=text):
        make()
