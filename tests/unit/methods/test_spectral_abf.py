"""Spectral ABF: the fit finds what is in its span, bins without samples, which force is sampled, and bad input."""

from math import pi

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pysamp import Grid
from pysamp.colvars import Component, DihedralAngle
from pysamp.errors import InvalidInputError
from pysamp.methods import SpectralABF

from .trajectories import follow, observe

X, Y, PHI = Component([0], axis=0), Component([0], axis=1), DihedralAngle([0, 1, 2, 3])
LINE = Grid(0.0, 4.0, 16)
MIXED = Grid((0.0, -pi), (4.0, pi), (12, 20), periodic=(False, True))


def filled(method, forces, counts):
    """The state after a fit to ``counts`` samples in each bin with the averages ``forces``."""
    state = method.init(observe(np.zeros(method.n_cvs)))
    counts = np.broadcast_to(np.asarray(counts, dtype=float), method.grid.shape).reshape(-1, 1)
    forces = np.asarray(forces).reshape(-1, method.n_cvs)
    sums = jnp.asarray(np.append(forces * counts, counts, axis=1))[:, None]
    fit = jax.jit(lambda coefficients: method.fitted(sums, coefficients, np.asarray(1.0)))
    coefficients, table = fit(state.fit)
    for _ in range(40):
        coefficients, table = fit(coefficients)
    return eqx.tree_at(lambda s: (s.fit, s.table), state, (coefficients, table))


def bin_averages(function, grid):
    """Average of minus the gradient of ``function`` over each bin, by Gauss-Legendre."""
    points, weights = np.polynomial.legendre.leggauss(6)
    offsets = np.stack(np.meshgrid(*[points / 2] * grid.n_dims, indexing="ij"), axis=-1).reshape(-1, grid.n_dims)
    weight = np.prod(np.stack(np.meshgrid(*[weights / 2] * grid.n_dims, indexing="ij")), axis=0).reshape(-1)
    places = grid.points.reshape(-1, 1, grid.n_dims) + offsets * grid.widths
    gradient = jax.jit(jax.vmap(jax.vmap(jax.grad(function))))(jnp.asarray(places))
    return -np.einsum("bpd,p->bd", np.asarray(gradient), weight)


@pytest.mark.parametrize(
    ("cvs", "grid", "function"),
    [
        (X, LINE, lambda x: x[0] * (x[0] - 2.0) ** 2),
        ([X, PHI], MIXED, lambda x: x[0] ** 2 * jnp.cos(x[1]) + jnp.sin(2 * x[1])),
        (
            [X, Y, PHI],
            Grid((0, 0, -pi), (2, 2, pi), (8, 8, 12), (False, False, True)),
            lambda x: x[0] * x[1] + jnp.cos(x[2]),
        ),
    ],
    ids=["one", "two", "three"],
)
def test_a_surface_in_the_span_is_found(cvs, grid, function):
    """The bias is minus the surface, at the nodes to rounding: one fit from full bins."""
    method = SpectralABF(cvs, grid=grid, n_modes=4 if grid.n_dims == 1 else 3, full_samples=10)
    state = filled(method, bin_averages(function, grid), 10)
    nodes = grid.lower + np.array([[2.0], [5.0]]) * grid.widths
    energies = [float(method.bias(state, observe(node)).energy) for node in nodes]
    exact = [float(function(jnp.asarray(node))) for node in nodes]
    assert energies[1] - energies[0] == pytest.approx(exact[0] - exact[1], abs=1e-9)


def test_missing_bins_follow_their_neighbours():
    """A constant force known in half of the bins: the other half is fitted too, if a little less steep."""
    method = SpectralABF(X, grid=LINE, n_modes=1, full_samples=10)
    state = filled(method, np.full(16, 2.0), np.repeat([10, 0], 8))
    # 8 bins ask for 2, 8 for nine tenths of the slope itself: 2 * 8 / (8 + 0.8)
    np.testing.assert_allclose(method.bias(state, observe([3.0])).force, [-2.0 / 1.1], rtol=1e-6)


def test_the_bias_of_the_last_step_is_taken_off():
    """A fit in between changes the bias from the next step on, not that of the sample."""
    method = SpectralABF(X, grid=LINE, n_modes=1, full_samples=1, fit_every=2)
    # a constant force of 2 and the bias against it, as an integrator would apply it
    state = method.init(observe([0.6]))
    update = jax.jit(lambda state, obs: method.update(state, obs))
    learned = jax.jit(lambda state, obs: method.learned(state, obs.step + 1, obs.kT))
    momentum, applied = 0.0, 0.0
    for step in range(9):
        obs = observe([0.6], step, momentum=[momentum], applied=[applied])
        state = update(state, obs)
        applied = float(method.bias(state, obs).force[0])
        momentum += 0.1 * (2.0 + applied)
        state = learned(state, obs)
    totals = np.asarray(state.samples.sums).sum(axis=1)
    assert totals[2, [0, -1]].tolist() == pytest.approx([8 * 2.0, 8])
    assert applied < -0.3


def test_outside_the_grid_the_bias_is_that_of_the_boundary():
    method = SpectralABF([X, PHI], grid=MIXED, n_modes=3, full_samples=10)
    surface = lambda x: x[0] ** 2 * jnp.cos(x[1])  # noqa: E731
    state = filled(method, bin_averages(surface, MIXED), 10)
    edge, beyond = (method.bias(state, observe(at)) for at in ([4.0, 1.0], [5.0, 1.0 + 2 * pi]))
    assert float(beyond.energy) == pytest.approx(float(edge.energy))
    assert float(beyond.force[0]) == 0.0
    assert float(beyond.force[1]) == pytest.approx(float(edge.force[1]))
    assert float(method.diagnostics(follow(method, [[5.0, 0.0]]))["outside"]) == 1


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"fit_every": 0}, "fit_every must be a positive whole number"),
        ({"n_modes": 8}, "too many for 16 bins: at most 7"),
        ({"n_modes": (3, 3)}, "one number or 1"),
        ({"grid": Grid(0.0, 4.0, 3)}, "at least 4 bins"),
        ({"grid": Grid((0, 0), (1, 1), (4, 4))}, "2 axes, but there are 1 CVs"),
        ({"cvs": [X] * 4, "grid": Grid([0] * 4, [1] * 4, [4] * 4)}, "one to three CVs, got 4"),
    ],
    ids=str,
)
def test_bad_input(options, says):
    options = {"cvs": X, "grid": LINE, **options}
    with pytest.raises(InvalidInputError, match=says):
        SpectralABF(options.pop("cvs"), **options)
