"""Free energies from work and rates from infrequent metadynamics, against exact answers."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest

import pysamp
from pysamp.analysis import crooks, escape_rate, jarzynski, work
from pysamp.backends import toy
from pysamp.colvars import Component
from pysamp.errors import InvalidInputError
from pysamp.methods import HarmonicBias, Metadynamics, MovingRestraint

pytestmark = pytest.mark.optimized

X = Component([0], axis=0)
WELL, SPRING, END = 4.0, 20.0, 1.0


def well(x):
    return 0.5 * WELL * jnp.sum(x**2)


def pull(centers, seed, replicas=200, n_steps=600):
    """A particle in the well k x^2 / 2: 200 steps to come to equilibrium, then the pull."""

    def generate():
        start = SPRING * centers[0] / (WELL + SPRING)
        return toy.Simulation(well, [[start, 0.0, 0.0]], timestep=0.05, friction=1.0)

    method = MovingRestraint(X, kspring=SPRING, centers=centers, steps=[200, n_steps - 1])
    return pysamp.run(method, generate, n_steps, replicas=replicas, seed=seed, log_every=1, progress=False)


# F(c) of a restraint at c in the well: k_eff c^2 / 2 with the springs in series
EXACT = 0.5 * WELL * SPRING / (WELL + SPRING) * END**2


@pytest.fixture(scope="module")
def pulls():
    return pull([0.0, END], 1), pull([END, 0.0], 3)


def test_jarzynski_and_crooks(pulls):
    """Within four standard errors: one false alarm in 16 000. Catches work at the wrong time or with the wrong sign."""
    there, back = pulls
    forward, reverse = work(there)[:, -1], work(back)[:, -1]
    assert np.ptp(forward) > 1.0, "dissipation, else this tests nothing"
    for value, stderr in (
        jarzynski(forward, there.kT),
        crooks(forward, reverse, there.kT),
    ):
        assert stderr < 0.15
        assert abs(value - EXACT) < 4 * stderr


def test_free_energy_along_the_pull(pulls):
    """The well itself, with the restraint taken out."""
    grid = pysamp.Grid(-0.5, 1.2, 34)
    fes = pysamp.analyze(pulls[0], grid=grid)
    exact = 0.5 * WELL * grid.centers[0] ** 2
    deviation = (fes.values - exact) - np.mean(fes.values - exact)
    assert np.sqrt(np.mean(deviation**2)) < 0.15
    assert np.nanmedian(fes.stderr) < 0.3


def test_samples_before_the_schedule_do_not_count(pulls):
    """A pull that began far from its first centre, and had come to equilibrium there when the schedule began."""
    grid, run = pysamp.Grid(-0.5, 3.0, 70), pulls[0]
    log = run.log.copy(deep=True)
    log["xi"].values[:, :150] = 2.5
    found = pysamp.analyze(replace(run, log=log), grid=grid)
    np.testing.assert_array_equal(found.values, pysamp.analyze(run, grid=grid).values)
    with pytest.raises(InvalidInputError, match="begins at step 200"):
        pysamp.analyze(replace(run, log=run.log.isel(sample=slice(0, 100))), grid=grid)


@pytest.mark.parametrize("function", [lambda: jarzynski([1.0], 1.0), lambda: crooks([1.0, 2.0], [np.nan, 1.0], 1.0)])
def test_too_few_pulls(function):
    with pytest.raises(InvalidInputError, match="at least two"):
        function()


def test_few_replicas_have_no_error(pulls):
    with pytest.raises(InvalidInputError, match="replicas="):
        pysamp.analyze(pulls[0].replica(0))


def test_work_of_a_run_without_a_moving_restraint():
    run = pysamp.run(
        HarmonicBias(X, kspring=1.0, center=0.0), lambda: toy.Simulation(lambda x: jnp.sum(x**2), [[0.0, 0, 0]]), 10
    )
    with pytest.raises(InvalidInputError, match="MovingRestraint"):
        work(run)


# ------------------------------------------------------------------------------------------------------------- rates


def double_well(x):
    return jnp.sum(6.0 * (x[:, 0] ** 2 - 1.0) ** 2) + 0.5 * jnp.sum(x[:, 1:] ** 2)


def leave(method, n_steps, seed):
    def generate():
        return toy.Simulation(double_well, [[-1.0, 0.0, 0.0]], timestep=0.05, friction=2.0)

    return pysamp.run(method, generate, n_steps, replicas=60, seed=seed, log_every=20, progress=False)


def escaped(xi):
    return xi[..., 0] > 0.7


@pytest.mark.validation
def test_infrequent_metadynamics_gives_the_rate_of_the_free_system():
    """Against unbiased escapes; within four standard errors of both. A boost counted wrongly is off by the acceleration."""
    slow = escape_rate(leave(pysamp.methods.Unbiased(X), 150_000, 1), escaped)
    hills = Metadynamics(X, height=0.5, sigma=0.2, stride=500, bias_factor=6)
    fast = escape_rate(leave(hills, 60_000, 2), escaped)
    assert slow.acceleration == pytest.approx(1.0)
    assert fast.acceleration > 2.0
    assert abs(fast.rate - slow.rate) < 4 * np.hypot(fast.stderr, slow.stderr)
    assert min(slow.p_value, fast.p_value) > 1e-3


def test_hills_on_the_barrier_are_noticed():
    """Hills every 20 steps: nothing waits, so the times are not those of a rare event."""
    often = Metadynamics(X, height=1.0, sigma=0.2, stride=20)
    assert escape_rate(leave(often, 20_000, 3), escaped).p_value < 0.01


def test_bad_regions():
    run = leave(pysamp.methods.Unbiased(X), 200, 4)
    with pytest.raises(InvalidInputError, match="a bool for each"):
        escape_rate(run, lambda xi: xi[..., 0])
    with pytest.raises(InvalidInputError, match="begins beyond"):
        escape_rate(run, lambda xi: xi[..., 0] < 0)
    with pytest.raises(InvalidInputError, match="of 60 replicas escaped, too few"):
        escape_rate(run, escaped)
