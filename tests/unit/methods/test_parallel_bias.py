"""Parallel-bias metadynamics: energies and heights by hand, which CV feels the force, and bad input."""

from math import exp, log, pi

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pysamp import Grid
from pysamp.colvars import Component, DihedralAngle
from pysamp.errors import InvalidInputError
from pysamp.methods import Metadynamics, ParallelBiasMetadynamics

from .trajectories import follow, observe

X, Y, PHI = Component([0], axis=0), Component([0], axis=1), DihedralAngle([0, 1, 2, 3])
GRID = Grid((-2.0, -pi), (2.0, pi), (80, 60), periodic=(False, True))
METHOD = ParallelBiasMetadynamics([X, PHI], height=2.0, sigma=[0.2, 0.4], stride=2, bias_factor=5, grid=GRID)


def gaussian(distance, sigma):
    return exp(-0.5 * (distance / sigma) ** 2)


def test_two_hills_by_hand():
    """First hills share the height; the second ones go by what each CV feels. The angle's second is across the period."""
    state = follow(METHOD, [[0.0, 0.0], [0.0, 0.0], [0.5, 3.0], [0.5, 3.0], [0.3, -3.1]], kT=1.0)
    assert int(state.n_hills) == 2
    hills = np.asarray(state.hills)[:, :2]
    # follow() observes steps 0, 1, 2, ...: hills at steps 2 and 4
    np.testing.assert_allclose(hills[:2], [[0.5, 0.3], [3.0, -3.1]])
    np.testing.assert_allclose(hills[2:, 0], [1.0, 1.0])
    v = [gaussian(0.2, 0.2), gaussian(2 * pi - 6.1, 0.4)]
    share = [exp(-v[0]) / (exp(-v[0]) + exp(-v[1])), exp(-v[1]) / (exp(-v[0]) + exp(-v[1]))]
    expected = [2.0 * share[d] * exp(-v[d] / 4.0) for d in range(2)]
    np.testing.assert_allclose(hills[2:, 1], expected, rtol=1e-3)  # the table's interpolation
    at = np.array([0.4, 3.1])
    v = [
        1.0 * gaussian(0.1, 0.2) + expected[0] * gaussian(0.1, 0.2),
        1.0 * gaussian(0.1, 0.4) + expected[1] * gaussian(2 * pi - 6.2, 0.4),
    ]
    assert float(METHOD.bias(state, observe(at)).energy) == pytest.approx(-log((exp(-v[0]) + exp(-v[1])) / 2), rel=1e-3)


def test_the_cv_with_the_lower_bias_feels_the_force():
    """A hill of 40 kT on x alone: x is left alone where the angle has no bias."""
    state = METHOD.init(observe([0.0, 0.0]))
    tables = METHOD.on_nodes(jnp.array([0.0, 0.0]), jnp.array([40.0, 0.0]))
    state = type(state)(state.hills, state.n_hills, tables, state.outside)
    bias = METHOD.bias(state, observe([0.1, 1.0]))
    assert abs(float(bias.force[0])) < 1e-10
    assert float(bias.energy) == pytest.approx(log(2.0))  # half of the mean is 1, the other nothing


def test_one_cv_is_metadynamics():
    options = {"height": 1.0, "sigma": 0.2, "stride": 2, "bias_factor": 5, "grid": Grid(-2.0, 2.0, 80)}
    path = np.random.default_rng(0).normal(size=(30, 1)) * 0.5
    one, other = ParallelBiasMetadynamics(X, **options), Metadynamics(X, **options)
    first, second = follow(one, path), follow(other, path)
    at = observe([0.3])
    np.testing.assert_allclose(one.bias(first, at).force, other.bias(second, at).force, rtol=1e-10)
    np.testing.assert_allclose(one.bias(first, at).energy, other.bias(second, at).energy, rtol=1e-10)


def test_room_and_outside():
    method = ParallelBiasMetadynamics(X, height=1.0, sigma=0.2, stride=1, bias_factor=5, grid=Grid(-2.0, 2.0, 80))
    state = method.reserve(method.init(observe([0.0])), 3000)
    assert state.hills.shape == (2, 4096)
    state = jax.jit(lambda s, o: method.update(s, o))(state, observe([3.0], 1))
    assert float(method.diagnostics(state)["outside"]) == 1
    assert float(method.bias(state, observe([3.0])).force[0]) == 0.0
    assert int(method.truncated(state, 0).n_hills) == 0


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"bias_factor": 1.0}, "greater than 1"),
        ({"height": -1.0}, "height"),
        ({"sigma": [0.2, 0.0]}, "sigma must be positive"),
        ({"sigma": [0.2, 2.0]}, "its own image"),
        ({"sigma": [0.02, 0.4]}, "wider than sigma"),
        ({"stride": 0}, "stride"),
        ({"grid": Grid(-1.0, 1.0, 8)}, "1 axes, but there are 2 CVs"),
    ],
    ids=str,
)
def test_bad_input(options, says):
    options = {"height": 2.0, "sigma": [0.2, 0.4], "stride": 2, "bias_factor": 5, "grid": GRID, **options}
    with pytest.raises(InvalidInputError, match=says):
        ParallelBiasMetadynamics([X, PHI], **options)
