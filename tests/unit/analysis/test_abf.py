"""Free energies of adaptive biasing force runs, from sums with known content."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

import pysamp
from pysamp import Grid
from pysamp.colvars import Component
from pysamp.errors import InvalidInputError
from pysamp.methods import ABF

from .ideal import double_well, ideal_abf, make_run

X, Y = Component([0], axis=0), Component([0], axis=1)
GRID = Grid(-1.6, 1.6, 64)
LEFT, RIGHT = (lambda x: x < 0), (lambda x: x > 0)
EDGES = np.linspace(-1.6, 1.6, 65)
FORCES = -np.diff(double_well(EDGES)) / GRID.widths[0]
_P = np.exp(-double_well(GRID.centers[0]))
EXACT = -float(np.log(_P[32:].sum() / _P[:32].sum()))


def test_exact_forces_give_the_exact_surface():
    result = pysamp.analyze(ideal_abf(ABF(X, grid=GRID), FORCES, 100))
    exact = double_well(GRID.centers[0])
    np.testing.assert_allclose(result.values, exact - exact.min(), atol=3e-3)
    np.testing.assert_allclose(result.mean_force[:, 0], FORCES)
    np.testing.assert_allclose(result.stderr, 0.0, atol=1e-9)


def test_samples_that_crowd_in_their_bins():
    """At first a tenth of a bin off its centre and more, later less: the surface is exact, and no error is stated for that."""
    run = ideal_abf(ABF(X, grid=GRID), FORCES, 100)
    state = run.states[0].methods[0]
    off = GRID.widths[0] * 0.4 * 0.8 ** np.arange(16)
    slope = np.gradient(FORCES, GRID.widths[0])[:, None]
    sums = state.sums.at[..., 0].add(100 * slope * off).at[..., 1].set(100 * off)
    crowded = make_run(run.methods, [(eqx.tree_at(lambda s: s.sums, state, sums),)])
    result = pysamp.analyze(crowded)
    inner = np.abs(GRID.centers[0]) < 1.4
    np.testing.assert_allclose(result.mean_force[inner, 0], FORCES[inner], atol=0.02)
    assert abs(result.difference(LEFT, RIGHT)[0] - EXACT) < 5e-3
    assert result.difference(LEFT, RIGHT)[1] < 5e-3


def test_noise_is_stated():
    """60 runs with white noise: coverage of the difference, and of the mean force. False alarms: 1 %."""
    runs = [ideal_abf(ABF(X, grid=GRID), FORCES, 40, noise=10.0, seed=seed) for seed in range(60)]
    results = [pysamp.analyze(run) for run in runs]
    hits = [abs(value - EXACT) < error for value, error in (r.difference(LEFT, RIGHT) for r in results)]
    assert 0.52 < np.mean(hits) < 0.83
    forces = [np.abs(r.mean_force[:, 0] - FORCES) < r.mean_force_stderr[:, 0] for r in results]
    assert abs(np.mean(forces) - 0.683) < 0.03


@pytest.mark.parametrize(("n_blocks", "n_units"), [(16, 8), (9, 9), (11, 6), (10, 10)])
def test_only_blocks_in_use_count(n_blocks, n_units):
    result = pysamp.analyze(ideal_abf(ABF(X, grid=GRID), FORCES, 10, noise=1.0, n_blocks=n_blocks))
    assert len(result.replicates) == n_units


def test_a_short_last_block_joins_the_one_before():
    run = ideal_abf(ABF(X, grid=GRID), FORCES, 10, noise=1.0, n_blocks=9)
    state = run.states[0].methods[0]
    shorter = eqx.tree_at(lambda s: s.n_steps, state, jnp.asarray(8 * 64 + 20))
    result = pysamp.analyze(make_run(run.methods, [(shorter,)]))
    assert len(result.replicates) == 8
    np.testing.assert_allclose(result.values, pysamp.analyze(run).values)  # nothing is lost


def test_replicas_are_united_and_early_blocks_can_go():
    parts = [ideal_abf(ABF(X, grid=GRID), FORCES, 40, noise=10.0, seed=seed) for seed in range(4)]
    united = make_run(parts[0].methods, [part.states[0].methods for part in parts])
    one = np.mean([pysamp.analyze(part).difference(LEFT, RIGHT)[1] for part in parts])
    result = pysamp.analyze(united)
    assert len(result.replicates) == 12
    assert 0.3 < result.difference(LEFT, RIGHT)[1] / one < 0.75
    half = pysamp.analyze(united, discard=0.5).difference(LEFT, RIGHT)[1]
    assert half > result.difference(LEFT, RIGHT)[1]


def test_unsampled_and_cut_off_bins():
    """No samples, no value; a bin that one block alone has seen has a value and no error."""
    counts = np.full((16, 64), 20.0)
    counts[:, 50] = 0
    counts[1:, 10] = 0
    result = pysamp.analyze(ideal_abf(ABF(X, grid=GRID), FORCES, counts, noise=1.0))
    assert np.isnan(result.values[50:]).all()
    assert np.isfinite(result.values[:50]).all()
    assert np.isinf(result.stderr[10])
    assert np.isfinite(np.delete(result.stderr[:50], 10)).all()


def test_two_dimensions():
    grid = Grid((-1.6, -2.0), (1.6, 2.0), (32, 24))
    x, y = np.moveaxis(grid.points, -1, 0)
    edges = np.linspace(-1.6, 1.6, 33)
    forces = np.stack([np.repeat((-np.diff(double_well(edges)) / 0.1)[:, None], 24, axis=1), -2 * y], axis=-1)
    result = pysamp.analyze(ideal_abf(ABF([X, Y], grid=grid), forces, 400, noise=5.0))
    exact = double_well(x) + y**2
    low = exact < 5
    assert np.std((result.values - exact)[low]) < 0.05
    value, error = result.difference(lambda x, y: x < 0, lambda x, y: x > 0)
    p = np.exp(-exact)
    assert abs(value + np.log(p[x > 0].sum() / p[x < 0].sum())) < 4 * error


@pytest.mark.parametrize(
    ("counts", "n_blocks", "options", "text"),
    [
        (10, 3, {}, "run longer"),
        (0, 16, {}, "covers"),
        (10, 16, {"grid": Grid(0.0, 1.0, 4)}, "own grid"),
        (10, 16, {"discard": -0.1}, "discard"),
    ],
)
def test_bad_input(counts, n_blocks, options, text):
    with pytest.raises(InvalidInputError, match=text):
        pysamp.analyze(ideal_abf(ABF(X, grid=GRID), FORCES, counts, n_blocks=n_blocks), **options)
