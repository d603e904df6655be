"""Free energies of OPES runs by reweighting, from samples drawn under a known bias."""

import numpy as np
import pytest

import pysamp
from pysamp import Grid
from pysamp.colvars import Component
from pysamp.errors import InvalidInputError
from pysamp.methods import OPES, OPESExplore

from .ideal import EXACT, FINE, LEFT, RIGHT, double_well, make_run

X = Component([0], axis=0)
GRID = Grid(-1.6, 1.6, 64)


def ideal(n_samples, seed=0, kind=OPES, kT=1.0):
    """Independent samples under nine tenths of minus the free energy, whose energy is in the log."""
    rng = np.random.default_rng(seed)
    method = kind(X, barrier=6.0, sigma=0.2, stride=10, grid=GRID)
    chances = np.cumsum(np.exp(-0.1 * double_well(FINE) / kT))
    xi = FINE[np.searchsorted(chances / chances[-1], rng.random(n_samples))]
    run = make_run([method], [(None,)], xi[None, :, None], kT=kT)
    log = run.log.assign(method_energy=(("replica", "sample", "method"), -0.9 * double_well(xi)[None, :, None]))
    return type(run)(run.methods, run.states, run.snapshots, log, kT, 1.0)


@pytest.mark.parametrize("kind", [OPES, OPESExplore])
def test_weights_undo_the_bias(kind):
    value, error = pysamp.analyze(ideal(20_000, kind=kind)).difference(LEFT, RIGHT)
    assert 0.01 < error < 0.05
    assert abs(value - EXACT) < 4 * error


def test_errors_cover():
    """60 runs of 2000 independent samples. False alarms: 1 %."""
    results = [pysamp.analyze(ideal(2000, seed)).difference(LEFT, RIGHT) for seed in range(60)]
    assert 0.52 < np.mean([abs(value - EXACT) < error for value, error in results]) < 0.83


def test_the_beginning_is_left_out():
    """A tenth, unless told otherwise: samples there can be anything."""
    run = ideal(20_000)
    run.log["method_energy"][:, :2000] = 50.0
    assert abs(pysamp.analyze(run).difference(LEFT, RIGHT)[0] - EXACT) < 0.15
    kept = pysamp.analyze(run, discard=0.0).difference(LEFT, RIGHT)[0]
    assert abs(kept - EXACT) > 0.3


@pytest.mark.parametrize(
    ("n", "options", "text"),
    [(60, {}, "too few"), (2000, {"discard": 1.5}, "discard"), (2000, {"grid": Grid(50.0, 60.0, 4)}, "covers")],
    ids=str,
)
def test_bad_input(n, options, text):
    with pytest.raises(InvalidInputError, match=text):
        pysamp.analyze(ideal(n), **options)
