"""Moving restraints and ratchets: where they are, what they do, and what work that is."""

from math import pi

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pysamp.colvars import Component, DihedralAngle
from pysamp.errors import InvalidInputError
from pysamp.methods import MovingRestraint, Ratchet

from .trajectories import follow, observe

X, Y, PHI = Component([0], axis=0), Component([0], axis=1), DihedralAngle([0, 1, 2, 3])


def test_the_centre_follows_the_schedule():
    method = MovingRestraint([X, Y], kspring=1.0, centers=[[0.0, 1.0], [2.0, 1.0], [2.0, -1.0]], steps=[10, 20, 30])
    for step, expected in ((0, [0, 1]), (10, [0, 1]), (15, [1, 1]), (20, [2, 1]), (25, [2, 0]), (99, [2, -1])):
        np.testing.assert_allclose(method.center(step), expected, atol=1e-12)


def test_the_spring_can_change():
    method = MovingRestraint(X, kspring=[[1.0], [3.0]], centers=[0.0, 0.0], steps=[0, 10])
    assert float(method.potential(jnp.array([2.0]), 5)) == pytest.approx(0.5 * 2.0 * 4.0)


def test_a_periodic_centre_crosses_the_boundary():
    method = MovingRestraint(PHI, kspring=1.0, centers=[3.0, 3.5], steps=[0, 10])
    assert float(method.potential(jnp.array([3.5 - 2 * pi]), 10)) == pytest.approx(0.0, abs=1e-12)


def test_work_of_a_move_at_standstill_is_the_change_of_the_energy():
    """The particle does not move: all the energy comes from the restraint."""
    method = MovingRestraint(X, kspring=3.0, centers=[0.0, 1.0], steps=[2, 8])
    state = follow(method, np.full((12, 1), 0.25))
    expected = 0.5 * 3.0 * (0.75**2 - 0.25**2)
    assert float(state.work) == pytest.approx(expected)


def test_work_counts_moves_of_the_restraint_only():
    """By the definition, on a trajectory."""
    method = MovingRestraint(X, kspring=3.0, centers=[0.0, 1.0], steps=[0, 10])
    xi = np.random.default_rng(0).normal(size=15)
    state = follow(method, xi[:, None])
    v = lambda x, t: 1.5 * (x - min(t, 10) / 10) ** 2  # noqa: E731
    assert float(state.work) == pytest.approx(sum(v(xi[t - 1], t) - v(xi[t - 1], t - 1) for t in range(1, 15)))


def test_other_evaluations_find_the_restraint_where_it_was():
    """A barostat's trial after step 5 comes with the number of the next step."""
    method = MovingRestraint(X, kspring=2.0, centers=[0.0, 1.0], steps=[0, 10])
    state = follow(method, np.zeros((6, 1)))
    assert float(method.bias(state, observe(0.0, 6)).energy) == pytest.approx(0.25)


def test_a_ratchet_lets_go_forward_and_holds_back():
    method = Ratchet(X, kspring=4.0, target=1.0)
    state = follow(method, np.array([[0.0], [0.5], [0.2]]))
    assert float(state) == pytest.approx(0.25)
    back, forth = method.bias(state, observe(0.2)), method.bias(state, observe(0.6))
    assert float(back.energy) == pytest.approx(0.5 * 4.0 * (0.64 - 0.25) ** 2)
    assert float(back.force[0]) > 0
    assert float(forth.energy) == float(forth.force[0]) == 0.0


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"kspring": 1.0, "centers": [0.0, 1.0], "steps": [0, 0]}, "increasing"),
        ({"kspring": 1.0, "centers": [0.0, 1.0], "steps": [5]}, "two or more"),
        ({"kspring": 1.0, "centers": [0.0, 1.0, 2.0], "steps": [0, 5]}, "one row of 1 numbers"),
        ({"kspring": [1.0, 2.0, 3.0], "centers": [0.0, 1.0], "steps": [0, 5]}, "kspring must be one number"),
        ({"kspring": -1.0, "centers": [0.0, 1.0], "steps": [0, 5]}, "not negative"),
        ({"kspring": 1.0, "centers": [0.0, np.inf], "steps": [0, 5]}, "finite"),
    ],
)
def test_bad_schedules(options, text):
    with pytest.raises(InvalidInputError, match=text):
        MovingRestraint(X, **options)


@pytest.mark.parametrize(
    ("options", "text"),
    [({"kspring": 0.0, "target": 1.0}, "positive"), ({"kspring": 1.0, "target": np.inf}, "finite")],
)
def test_bad_ratchets(options, text):
    with pytest.raises(InvalidInputError, match=text):
        Ratchet(X, **options)


def test_the_schedule_compiles_to_one_trace():
    method = MovingRestraint(X, kspring=3.0, centers=[0.0, 1.0], steps=[0, 10])
    centers = jax.jit(jax.vmap(method.center))(jnp.arange(12))
    np.testing.assert_allclose(centers[:, 0], np.minimum(np.arange(12) / 10, 1.0))
