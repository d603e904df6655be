"""CVs that take masses from the engine."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pysamp.colvars import AbstractCV, Group
from pysamp.colvars._weights import as_weights, known, with_masses
from pysamp.colvars.base import as_points, type_of_points
from pysamp.errors import InvalidInputError
from pysamp.methods import HarmonicBias, Unbiased
from pysamp.sampler import Particles, Sampler
from pysamp.snapshot import Cell
from pysamp.system import System

MASSES = np.array([1.0, 12.0, 16.0, 14.0, 0.0, 0.0])


class Moment(AbstractCV):
    """Sum of weights times heights, of first weights only and of both."""

    atoms: type_of_points = eqx.field(static=True)
    first: np.ndarray | None
    second: np.ndarray | None

    def __init__(self, atoms, first=None, second=None):
        self.atoms = as_points(atoms)
        self.first, self.second = as_weights(first, len(self.atoms)), as_weights(second, len(self.atoms))

    def __call__(self, x, cell):
        return jnp.sum(known(self.first, self, x) * known(self.second, self, x) * x[:, 2])

    def resolved(self, system):
        return with_masses(self, system, lambda cv: cv.first, lambda cv: cv.second)


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


def value(cv, heights):
    sampler = Sampler.build(Unbiased([cv]), System(masses=MASSES, timestep=1.0, kT=1.0))
    x = jnp.zeros((6, 3)).at[:, 2].set(jnp.asarray(heights, dtype=float))[jnp.array(sampler.atoms)]
    return np.asarray(jax.jit(lambda x: sampler.xi(Particles(x)))(x))


def test_masses_are_those_of_the_points_in_their_order():
    assert value(Moment([2, 0, 1], second=1), [1.0, 10.0, 100.0, 0, 0, 0]) == pytest.approx(1 + 120 + 1600)


def test_a_group_counts_with_its_total_mass_whatever_its_weights():
    """Would catch the group's own weights (3, 1) taken for masses: the point lies at 2.5."""
    assert value(Moment([0, Group([1, 2], weights=[3, 1])], second=1), [0, 2.0, 4.0, 0, 0, 0]) == pytest.approx(
        28 * 2.5
    )


def test_given_weights_stay():
    cv = Moment([0, 1], first=[2.0, 3.0])
    assert value(cv, [1.0, 1.0, 0, 0, 0, 0]) == pytest.approx(2 * 1 + 3 * 12)
    assert cv.second is None  # the user's own object is as it was


def test_parts_of_combinations_get_them():
    heights = [1.0, 2.0, 0, 0, 0, 0]
    cv = 2 * (Moment([0, 1], second=1) + Moment([1], second=1))
    assert value(cv, heights) == pytest.approx(2 * (1 + 24 + 24))


def test_a_bias_acts_through_them():
    cv = Moment([1], second=1)
    system = System(masses=MASSES, timestep=1.0, kT=1.0)
    sampler = Sampler.build(HarmonicBias([cv], kspring=2.0, center=0.0), system)
    particles = Particles(jnp.array([[0.0, 0.0, 0.5]]))
    forces = sampler.evaluate(sampler.init(particles), particles)
    assert forces.energy == pytest.approx(36.0)
    np.testing.assert_allclose(forces.forces, [[0.0, 0.0, -2.0 * 6.0 * 12.0]])


def test_without_an_engine_it_says_what_to_do():
    with pytest.raises(InvalidInputError, match=r"weights=1"):
        Moment([0])(jnp.zeros((1, 3)), Cell())
    with pytest.raises(InvalidInputError, match="no mass"):
        value(Moment([4, 5], second=1), np.zeros(6))


@pytest.mark.parametrize("wrong", [[1.0], [1.0, -1.0], [0.0, 0.0], 0.0, [np.nan, 1.0], "mass"])
def test_wrong_weights(wrong):
    with pytest.raises(InvalidInputError):
        Moment([0, 1], first=wrong)
