"""The toy backend keeps the contract of backends; those of engines are in tests/engines."""

import jax.numpy as jnp
import numpy as np
import pytest

from pysamp.backends import toy
from pysamp.colvars import Distance, Group
from pysamp.testing import check_backend

CVS = [Distance([0, Group([1, 2])])]


def potential(x):
    return 0.5 * jnp.sum(x**2) + 0.1 * jnp.sum(x**4)


def generate_context(friction=1.0):
    positions = np.random.default_rng(1).normal(size=(4, 3))
    return toy.Simulation(potential, positions, masses=[1.0, 2.0, 3.0, 4.0], timestep=0.05, friction=friction)


@pytest.mark.parametrize("friction", [0.0, 1.0])
def test_contract(friction):
    check_backend(lambda: generate_context(friction), CVS)


def test_wrong_forces_are_found():
    """The check itself: here the bias does not reach the forces."""
    with pytest.raises(AssertionError, match="is not the sampler's"):
        check_backend(generate_context, CVS, forces=lambda bound: np.zeros((4, 3)))


def test_an_engine_that_does_not_repeat_itself_is_found():
    starts = iter(range(100))

    def restless():
        simulation = generate_context()
        simulation.positions = simulation.positions + 0.01 * next(starts)
        return simulation

    with pytest.raises(AssertionError, match="changes the positions"):
        check_backend(restless, CVS)
