"""Free energies from parallel-bias metadynamics, by MBAR over slices, from samples drawn under the bias of their time."""

import jax.numpy as jnp
import numpy as np
import pytest

import pysamp
from pysamp import Grid
from pysamp.analysis import reweight, sample_weights
from pysamp.colvars import Component
from pysamp.errors import InvalidInputError, UnsupportedError
from pysamp.methods import ParallelBiasMetadynamics
from pysamp.methods.parallel_bias import ParallelBiasState

from .ideal import LEFT, RIGHT, double_well, make_run

X, Y, Z = (Component([0], axis=axis) for axis in range(3))
GRID = Grid((-1.6, -1.6), (1.6, 1.6), (32, 32))
METHOD = ParallelBiasMetadynamics([X, Y], height=0.8, sigma=0.15, stride=10, bias_factor=6, grid=GRID)
POINTS = GRID.points
ENERGIES = double_well(POINTS[..., 0]) + 2.0 * (POINTS[..., 1] - 0.7 * POINTS[..., 0]) ** 2
_P = np.exp(-ENERGIES)
EXACT = -float(np.log(_P[16:].sum() / _P[:16].sum()))


def ideal(n_hills, seed=0, log_per_hill=5):
    """Infinitely fast dynamics on the bins' centres: hills and samples are independent, given the bias."""
    rng = np.random.default_rng(seed)
    v, axes = np.zeros((2, 32)), GRID.centers
    hills, logged, steps = [], [], []
    for hill in range(n_hills):
        bias = -np.log(0.5 * np.exp(-v[0])[:, None] + 0.5 * np.exp(-v[1])[None, :])
        p = np.cumsum(np.exp(-ENERGIES - bias).reshape(-1))
        places = np.searchsorted(p / p[-1], rng.random(log_per_hill + 1))
        *samples, center = POINTS.reshape(-1, 2)[places]
        logged += samples
        steps += [hill * 10 + 1 + k for k in range(log_per_hill)]
        at = np.array([v[d][np.argmin(np.abs(axes[d] - center[d]))] for d in range(2)])
        heights = 0.8 * np.exp(-at) / np.exp(-at).sum() * np.exp(-at / 5.0)
        for d in range(2):
            v[d] += heights[d] * np.exp(-0.5 * ((axes[d] - center[d]) / 0.15) ** 2)
        hills.append([*center, *heights])
    zero = jnp.asarray(0)
    state = ParallelBiasState(jnp.asarray(np.array(hills).T), jnp.asarray(n_hills), jnp.zeros(70), zero)
    return make_run([METHOD], [(state,)], np.array(logged)[None], np.array(steps))


@pytest.mark.validation
def test_errors_cover():
    """40 runs of 300 hills and 1500 samples; false alarms: 1 %. Catches weights of another time's bias."""
    results = [
        pysamp.analyze(ideal(300, seed)).difference(lambda x, y: x < 0, lambda x, y: x > 0) for seed in range(40)
    ]
    assert 0.49 < np.mean([abs(value - EXACT) < error for value, error in results]) < 0.86
    values = np.array(results)[:, 0]
    assert abs(values.mean() - EXACT) < 4 * values.std() / 40**0.5


def test_one_cv_alone():
    run = ideal(300)
    one = reweight(run, run.log["xi"].values[..., 0], grid=Grid(-1.6, 1.6, 32))
    value, error = one.difference(LEFT, RIGHT)
    assert 0.0 < error < 0.6
    assert abs(value - EXACT) < 4 * error
    weights = sample_weights(run)
    assert float(weights.weight.sum()) == pytest.approx(1.0)
    assert not weights.weight[0, :150].any()  # a tenth at least


def test_bad_input():
    with pytest.raises(InvalidInputError, match="too few"):
        pysamp.analyze(ideal(3))
    with pytest.raises(InvalidInputError, match="too few"):
        pysamp.analyze(ideal(100, log_per_hill=1))
    with pytest.raises(InvalidInputError, match="discard"):
        pysamp.analyze(ideal(100), discard=2.0)
    grid = Grid([-2.0] * 4, [2.0] * 4, [40] * 4)
    many = ParallelBiasMetadynamics([X, Y, Z, X - Y], height=1.0, sigma=0.2, stride=5, bias_factor=5, grid=grid)
    with pytest.raises(UnsupportedError, match="reweight"):
        pysamp.analyze(make_run([many], [(None,)], np.zeros((1, 200, 4))))
