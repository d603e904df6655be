"""Free energies of ANN runs by WHAM over sweeps, from samples drawn under the bias of each network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pysamp
from pysamp import Grid
from pysamp.colvars import Component
from pysamp.errors import InvalidInputError
from pysamp.methods import ANN
from pysamp.methods.ann import ANNState

from .ideal import double_well, make_run

X = Component([0], axis=0)
GRID = Grid(-1.6, 1.6, 32)
LEFT, RIGHT = (lambda x: x < 0), (lambda x: x > 0)
METHOD = ANN(X, grid=GRID, layers=3, train_every=50)
ENERGIES = double_well(GRID.centers[0])
_P = np.exp(-ENERGIES)
EXACT = -float(np.log(_P[16:].sum() / _P[:16].sum()))


def ideal(n_sweeps, n_samples=200, seed=0, block_length=1, broken=0):
    """Independent samples in sweeps under networks whose parameters are random: as good a bias as any.

    The first ``broken`` sweeps have all their samples in one well, as before the first crossing.
    """
    rng = np.random.default_rng(seed)
    networks = np.zeros((64, 11))
    networks[:n_sweeps, :10] = 0.4 * rng.normal(size=(n_sweeps, 10))
    networks[:n_sweeps, 10] = n_samples
    counts = np.zeros((GRID.size, 16))
    biases = np.asarray(jax.vmap(METHOD.reduced_bias)(jnp.asarray(networks[:n_sweeps, :10])))
    for sweep in range(n_sweeps):
        p = np.exp(-ENERGIES - biases[sweep])
        if sweep < broken:
            p[16:] = 0.0
        counts[:, sweep // block_length] += rng.multinomial(n_samples, p / p.sum())
    zero = jnp.asarray(0)
    state = ANNState(
        counts=jnp.asarray(counts),
        block_length=jnp.asarray(block_length),
        networks=jnp.asarray(networks),
        n_sweeps=jnp.asarray(n_sweeps),
        n_inside=zero,
        decay=jnp.asarray(0.0),
        denominators=jnp.zeros(GRID.size),
        table=jnp.zeros(35),
        outside=zero,
    )
    return make_run([METHOD], [(state,)])


def test_many_samples_give_the_exact_surface():
    result = pysamp.analyze(ideal(12, 10**7))
    low = ENERGIES.min() + 8 > ENERGIES
    np.testing.assert_allclose(result.values[low], (ENERGIES - ENERGIES.min())[low], atol=0.03)
    assert abs(result.difference(LEFT, RIGHT)[0] - EXACT) < 2e-3


def test_errors_cover():
    """60 runs of 14 sweeps of 300 independent samples. False alarms: 1 %."""
    results = [pysamp.analyze(ideal(14, 300, seed)).difference(LEFT, RIGHT) for seed in range(60)]
    assert 0.52 < np.mean([abs(value - EXACT) < error for value, error in results]) < 0.83


def test_the_transient_is_left_out():
    """Six sweeps of sixteen before the first crossing would say that there is one well only."""
    run = ideal(16, 1000, broken=6)
    value, error = pysamp.analyze(run).difference(LEFT, RIGHT)
    assert abs(value - EXACT) < 4 * error
    assert pysamp.analyze(run, discard=0.0).difference(LEFT, RIGHT)[0] - EXACT > 0.3


@pytest.mark.parametrize(("n_sweeps", "block_length", "n_units"), [(8, 1, 7), (15, 1, 12), (19, 2, 8), (20, 2, 9)])
def test_blocks_of_sweeps(n_sweeps, block_length, n_units):
    """A block that is half full or less joins the one before; the first tenth is left out."""
    assert len(pysamp.analyze(ideal(n_sweeps, block_length=block_length)).replicates) == n_units


def test_replicas_are_united():
    runs = [ideal(16, seed=seed) for seed in range(4)]
    united = make_run([METHOD], [run.states[0].methods for run in runs])
    errors = [pysamp.analyze(run).difference(LEFT, RIGHT)[1] for run in runs]
    result = pysamp.analyze(united)
    assert len(result.replicates) == 12
    assert 0.3 < result.difference(LEFT, RIGHT)[1] / np.mean(errors) < 0.75


@pytest.mark.parametrize(
    ("arguments", "options", "text"),
    [
        ((3,), {}, "too few"),
        ((16, 0), {}, "too few"),
        ((16,), {"grid": Grid(0.0, 1.0, 4)}, "own grid"),
        ((16,), {"discard": 1.0}, "discard"),
    ],
    ids=["short", "outside", "grid", "discard"],
)
def test_bad_input(arguments, options, text):
    with pytest.raises(InvalidInputError, match=text):
        pysamp.analyze(ideal(*arguments), **options)
