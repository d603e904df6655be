"""Free energies of eABF runs whose samples are drawn from the exact joint distribution of xi and lambda."""

import jax.numpy as jnp
import numpy as np
import pytest

import pysamp
from pysamp import Grid
from pysamp.analysis import extended_abf  # noqa: F401
from pysamp.colvars import Component
from pysamp.errors import InvalidInputError
from pysamp.methods import ExtendedABF
from pysamp.methods.abf import N_BLOCKS
from pysamp.methods.extended_abf import ExtendedABFState

from .ideal import EXACT, LEFT, RIGHT, double_well, make_run

X = Component([0], axis=0)
GRID = Grid(-1.8, 1.8, 72)
NO_NOISE = jnp.zeros(2, dtype=jnp.uint32), jnp.zeros((1, 1))
METHOD = ExtendedABF(X, grid=GRID, sigma=0.12, tau=1.0)


def ideal(n_samples, seed=0, bias=0.7, n_blocks=N_BLOCKS):
    """Independent samples of xi and lambda, with ``bias`` times the free energy taken off lambda's."""
    rng = np.random.default_rng(seed)
    xi = np.arange(-1.995, 2.0, 0.01)  # none on the edge of a bin
    position = xi[np.abs(xi) < 1.8]
    k = 1.0 / float(METHOD.sigma[0]) ** 2
    p = np.exp(-double_well(xi)[:, None] - 0.5 * k * (xi[:, None] - position) ** 2)
    chances = np.cumsum(p / p.sum(axis=0) ** bias)
    drawn = np.searchsorted(chances / chances[-1], rng.random(n_samples))
    return run_of(xi[drawn // len(position)], position[drawn % len(position)], k, n_blocks)


def run_of(xi, position, k, n_blocks):
    stretch = position - xi
    block = np.arange(len(xi)) * n_blocks // len(xi)
    at_xi, at_position = np.zeros((72, N_BLOCKS, 2)), np.zeros((72, N_BLOCKS, 3))
    place, own = (np.floor((values + 1.8) / 0.05).astype(int) for values in (xi, position))
    known = (place >= 0) & (place < 72)
    np.add.at(at_xi, (place[known], block[known]), np.stack([k * stretch, np.ones(len(xi))], axis=-1)[known])
    np.add.at(at_position, (own, block), np.stack([k * stretch, stretch**2, np.ones(len(xi))], axis=-1))
    zero, length = jnp.zeros(1), len(xi) // n_blocks
    counters = (jnp.asarray(length), jnp.asarray(length * n_blocks))
    sums = (jnp.asarray(at_xi), jnp.asarray(at_position))
    potential = jnp.zeros(GRID.shape[0] + 3)
    state = ExtendedABFState(zero, zero, zero, *sums, potential, *counters, None, jnp.asarray(0), *NO_NOISE)
    return make_run([METHOD], [(state,)])


@pytest.mark.parametrize("estimator", ["czar", "ui"])
def test_the_surface(estimator):
    """Half a million independent samples fix F to about a tenth of kT where it is low, over a bias that is nine tenths of it."""
    run = ideal(500_000, bias=0.9)
    result = pysamp.analyze(METHOD, run, estimator=estimator)
    exact = double_well(GRID.centers[0])
    low = exact < 5.0
    difference = (result.values - exact)[low]
    assert np.abs(difference - difference.mean()).max() < 0.12
    value, error = result.difference(LEFT, RIGHT)
    assert error < 0.06
    assert abs(value - EXACT) < 4 * error


def test_errors_cover():
    """40 runs: intervals of CZAR cover what they claim. False alarms: 1 %."""
    results = [pysamp.analyze(ideal(4000, seed)).difference(LEFT, RIGHT) for seed in range(40)]
    assert 0.48 < np.mean([abs(value - EXACT) < error for value, error in results]) < 0.87


@pytest.mark.parametrize(
    ("n_blocks", "options", "text"),
    [
        (3, {}, "too few"),
        (16, {"grid": Grid(0.0, 1.0, 4)}, "own grid"),
        (16, {"estimator": "wham"}, "'czar' or 'ui'"),
        (16, {"discard": 2.0}, "discard"),
    ],
)
def test_bad_input(n_blocks, options, text):
    with pytest.raises(InvalidInputError, match=text):
        pysamp.analyze(METHOD, ideal(1600, n_blocks=n_blocks), **options)
