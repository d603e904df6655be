"""Metadynamics: heights and times of hills, the interpolated bias, and what happens outside the grid."""

from math import pi

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pysamp import Grid
from pysamp.colvars import Component, DihedralAngle
from pysamp.errors import InvalidInputError
from pysamp.methods import Metadynamics

from .trajectories import follow, observe

X, Y, PHI = Component([0], axis=0), Component([0], axis=1), DihedralAngle([0, 1, 2, 3])


def hills(method, trajectory, **options):
    state = follow(method, trajectory, **options)
    n = int(state.n_hills)
    return np.asarray(state.centers)[:n], np.asarray(state.heights)[:n]


def energies(method, state, points):
    return np.asarray(jax.jit(jax.vmap(lambda xi: method.potential(state, xi)))(jnp.asarray(points)))


def gaussians(method, state, points):
    """The definition, written out."""
    n = int(state.n_hills)
    difference = np.asarray(points)[:, None] - np.asarray(state.centers)[None, :n]
    for d, period in enumerate(method.periods):
        if period is not None:
            difference[..., d] -= period * np.round(difference[..., d] / period)
    return np.exp(-0.5 * ((difference / method.sigma) ** 2).sum(-1)) @ np.asarray(state.heights)[:n]


@pytest.mark.parametrize("grid", [None, Grid(-1.0, 1.0, 64)], ids=["sum", "grid"])
def test_second_hill_is_tempered(grid):
    """The second hill at the same place has height h exp(-h / (kT (gamma - 1)))."""
    method = Metadynamics(X, height=0.8, sigma=0.2, stride=1, bias_factor=5, grid=grid)
    # on a node of the grid, where the interpolation is exact
    _, heights = hills(method, np.zeros((3, 1)), kT=0.5)
    np.testing.assert_allclose(heights, [0.8, 0.8 * np.exp(-0.8 / (0.5 * 4))], rtol=1e-12)


def test_a_given_thermal_energy_comes_before_the_engines():
    method = Metadynamics(X, height=0.8, sigma=0.2, stride=1, bias_factor=5, kT=2.0)
    _, heights = hills(method, np.zeros((3, 1)), kT=0.5)
    np.testing.assert_allclose(heights[1], 0.8 * np.exp(-0.8 / (2.0 * 4)), rtol=1e-12)


def test_standard_hills_keep_their_height():
    _, heights = hills(Metadynamics(X, height=0.8, sigma=0.2, stride=1), np.zeros((4, 1)))
    assert heights.tolist() == [0.8, 0.8, 0.8]


def test_hills_come_at_multiples_of_the_stride():
    """At steps stride, 2 stride, ...: none at step 0, where every replica and every continuation begins."""
    centers, _ = hills(Metadynamics(X, height=0.8, sigma=0.2, stride=3), np.arange(11.0)[:, None])
    assert centers[:, 0].tolist() == [3.0, 6.0, 9.0]


def test_no_hill_is_lost_when_room_runs_out():
    method = Metadynamics(X, height=0.1, sigma=0.2, stride=1)
    state = method.init(observe(0.0))
    room = len(state.heights)
    n_steps = 3 * room
    update = jax.jit(lambda state, obs: jax.lax.scan(lambda s, o: (method.update(s, o), None), state, obs)[0])
    for start in range(0, n_steps, room):  # chunk by chunk, as a run does
        state = method.reserve(state, room)
        steps = jnp.arange(start, start + room)
        state = update(state, jax.vmap(lambda step: observe(0.01 * step, step))(steps))
    assert int(state.n_hills) == n_steps - 1
    np.testing.assert_allclose(state.centers[: n_steps - 1, 0], 0.01 * np.arange(1, n_steps))
    assert energies(method, state, [[5.0]]) == pytest.approx(gaussians(method, state, [[5.0]]))


def test_reserve_grows_in_few_shapes():
    method = Metadynamics(X, height=0.1, sigma=0.2, stride=2)
    state = method.init(observe(0.0))
    rooms = {len(method.reserve(state, n).heights) for n in range(0, 4000, 7)}
    assert rooms == {1024, 2048}


def test_sum_of_hills_in_two_dimensions():
    rng = np.random.default_rng(2)
    method = Metadynamics([X, PHI], height=0.5, sigma=[0.2, 0.4], stride=1, bias_factor=4)
    state = follow(method, rng.uniform(-pi, pi, (12, 2)))
    points = rng.uniform(-pi, pi, (20, 2))
    np.testing.assert_allclose(energies(method, state, points), gaussians(method, state, points), atol=1e-13)


GRIDDED = {
    "line": Metadynamics(X, height=0.5, sigma=0.2, stride=1, grid=Grid(-1.0, 1.0, 80)),
    "circle": Metadynamics(PHI, height=0.5, sigma=0.3, stride=1, grid=Grid(-pi, pi, 160, periodic=True)),
    "mixed": Metadynamics(
        [X, PHI],
        height=0.5,
        sigma=[0.2, 0.3],
        stride=1,
        grid=Grid((-1.0, 0.0), (1.0, 2 * pi), (80, 160), periodic=(False, True)),
    ),
}


@pytest.mark.parametrize("method", GRIDDED.values(), ids=GRIDDED)
def test_gridded_bias(method):
    """Sum of hills to the accuracy of the interpolation; its force is the exact gradient of the interpolated energy."""
    rng = np.random.default_rng(3)
    low, high = method.grid.lower, method.grid.upper
    state = follow(method, rng.uniform(low, high, (7, method.n_cvs)))
    # of the periodic axes also points several periods away
    outer = np.where(method.grid.periodic, 2.0, 0.0) * (high - low)
    points = rng.uniform(low - outer, high + outer, (40, method.n_cvs))
    expected = gaussians(method, state, points)
    # third power of bin width / sigma, of hills of 0.5
    np.testing.assert_allclose(energies(method, state, points), expected, atol=2e-3 * expected.max())
    force = jax.jit(jax.vmap(lambda xi: method.bias(state, observe(xi)).force))
    step = 1e-6
    for d in range(method.n_cvs):
        shift = step * np.eye(method.n_cvs)[d]
        slope = (energies(method, state, points + shift) - energies(method, state, points - shift)) / (2 * step)
        np.testing.assert_allclose(np.asarray(force(jnp.asarray(points)))[:, d], -slope, atol=1e-7)


def test_outside_the_grid():
    """Energy continues its value at the boundary, without a force along that axis, and the steps are counted."""
    method = Metadynamics([X, Y], height=0.5, sigma=0.3, stride=1, grid=Grid((-1, -1), (1, 1), (20, 20)))
    state = follow(method, [[0.0, 0.0], [0.9, 0.1], [1.4, 0.2], [0.0, -1.1], [0.5, 0.5]])
    assert int(state.outside) == 2
    assert float(method.diagnostics(state)["outside"]) == 2.0
    boundary, beyond = energies(method, state, [[1.0, 0.15], [1.7, 0.15]])
    assert beyond == boundary > 0
    np.testing.assert_allclose(energies(method, state, [[1.0 + 1e-9, 0.15]]), boundary, rtol=1e-6)
    inside = method.bias(state, observe([1.0 - 1e-9, 0.15])).force
    force = method.bias(state, observe([1.7, 0.15])).force
    assert force[0] == 0.0
    assert force[1] == pytest.approx(float(inside[1]), rel=1e-6)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"height": 0.0}, "height must be positive"),
        ({"height": float("nan")}, "height must be positive"),
        ({"sigma": -0.2}, "sigma must be positive"),
        ({"sigma": [0.2, 0.2]}, "one number or 1 numbers"),
        ({"sigma": 2.0}, r"Use at most 1\.05"),
        ({"stride": 0}, "stride must be a positive whole number"),
        ({"stride": 2.5}, "stride must be a positive whole number"),
        ({"bias_factor": 1.0}, "greater than 1.*leave it out for standard"),
        ({"adapt_sigma": 0}, "adapt_sigma must be a positive whole number"),
        ({"kT": -1.0}, "kT must be positive"),
        ({"cvs": []}, "at least one collective variable"),
        ({"cvs": [lambda x: x]}, r"pysamp\.colvars\.custom\(function, atoms="),
        ({"grid": Grid((-pi, 0), (pi, 1), (32, 32))}, "2 axes, but there are 1 CVs"),
        ({"grid": Grid(-pi, pi, 64)}, "say periodic=True"),
        ({"grid": Grid(0.0, pi, 64, periodic=True)}, "let upper - lower be the period, such as -3.14159 to 3.14159"),
        ({"grid": Grid(-pi, pi, 8, periodic=True)}, r"Use shape=\(63,\) or finer"),
        ({"cvs": X, "grid": Grid(-1.0, 1.0, 64, periodic=True)}, "say periodic=False"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_bad_input(options, says):
    arguments = {"cvs": PHI, "height": 1.0, "sigma": 0.2, "stride": 10, **options}
    with pytest.raises(InvalidInputError, match=says):
        Metadynamics(arguments.pop("cvs"), **arguments)


def test_misspelt_options_are_errors():
    misspelt: dict = {"bias_facto": 5}
    with pytest.raises(TypeError, match="bias_facto"):
        Metadynamics(X, height=1.0, sigma=0.2, stride=10, **misspelt)


@pytest.mark.parametrize("grid", [None, Grid((-2, -pi), (2, pi), (80, 90), (False, True))], ids=["hills", "grid"])
def test_adaptive_widths(grid):
    """The running variances written out; hills at steps 2 and 4. The angle crosses its period, and ends at the widest."""
    method = Metadynamics([X, PHI], sigma=[0.1, 0.2], height=1.0, stride=2, adapt_sigma=2, grid=grid)
    path = np.array([[0.0, 3.1], [0.5, -3.1], [0.0, 3.1], [0.0, 3.1], [0.0, 0.5]])
    mean, variance, widths = path[0], np.zeros(2), []
    for xi in path:
        away = xi - mean
        away[1] -= 2 * pi * np.round(away[1] / (2 * pi))
        mean, variance = mean + away / 2, variance + (away**2 - variance) / 2
        widths.append(np.clip(np.sqrt(variance), [0.1, 0.2], [np.inf, pi / 3]))
    state = follow(method, path)
    assert state.widths is not None
    np.testing.assert_allclose(np.asarray(state.widths)[:, :2], np.stack([widths[2], widths[4]], axis=1))
    assert widths[2][0] > 0.2
    assert (widths[2][1], widths[4][1]) == (0.2, pi / 3)
    at = np.array([0.2, 2.8])
    scaled = [(at - path[k]) / widths[k] for k in (2, 4)]
    expected = sum(np.exp(-0.5 * (s**2).sum()) for s in scaled)
    assert float(method.bias(state, observe(at)).energy) == pytest.approx(expected, rel=1e-3 if grid else 1e-12)
    roomy = method.reserve(state, 10_000)
    assert roomy.widths is not None
    assert roomy.widths.shape == (2, roomy.hills.shape[1])
