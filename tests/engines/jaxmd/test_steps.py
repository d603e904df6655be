"""The bias enters the step where JAX MD evaluates the force, once, for every integrator."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pysamp
from pysamp import bind
from pysamp.colvars import Component, Distance
from pysamp.methods import HarmonicBias, Metadynamics, Unbiased
from pysamp.testing import check_backend

NAMES = ["nve", "nvt_langevin", "nvt_nose_hoover", "brownian"]


@pytest.mark.parametrize("name", ["nvt_langevin", "brownian"])
def test_contract(systems, name):
    """Zero bias and observation change no bit, the force arrives, steps are seen once, snapshots repeat, close restores.

    The last digit of a Brownian step depends on what else XLA compiles with it, so only the other is compared with JAX MD alone.
    """
    step = systems.stepped if name == "nvt_langevin" else None
    check_backend(lambda: systems.simulation(name), [Distance([0, 1])], step=step)


@pytest.mark.parametrize("name", NAMES)
def test_a_bias_is_the_same_as_a_term_of_the_energy(systems, name):
    """Half a bias, a bias of the step before, or one that the thermostat does not see, would differ in the third digit."""

    def with_spring(x, **unused):
        return systems.stirred(x) + 0.5 * 3.0 * (jnp.linalg.norm(x[0] - x[1]) - 1.0) ** 2

    expected = systems.stepped(systems.simulation(name, with_spring), 50)
    bias = HarmonicBias(Distance([0, 1]), kspring=3.0, center=1.0)
    with bind(systems.simulation(name), bias) as bound:
        bound.run(20)
        bound.run(30)
        found = bound.snapshots()[0].positions
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("name", "dt"),
    [
        ("nvt_langevin", 0.2),
        pytest.param("nvt_nose_hoover", 0.1, marks=pytest.mark.validation),
        ("brownian", 0.01),
    ],
)
def test_variance_of_a_biased_well_is_one_half(systems, name, dt):
    """A well k = 1 with a bias k = 1 at kT = 1; half of the bias, or a stale one, gives 0.67 to 0.71.

    4 sigma of the averages over 16 walkers x 8 particles (their spread gives sigma), and the error of the time step; less
    than one false alarm in 1000.
    """
    cvs = [Component([i], axis=0) for i in range(8)]
    n_steps = {"brownian": 8000}.get(name, 4000)
    run = pysamp.run(
        HarmonicBias(cvs, kspring=1.0, center=0.0),
        lambda: systems.simulation(name, n=8, dt=dt),
        n_steps,
        replicas=16,
        log_every=10,
        seed=1,
        progress=False,
    )
    squares = (run.log.xi.values[:, 40:] ** 2).mean(axis=(1, 2))
    error = squares.std(ddof=1) / 4.0
    assert error < 0.02
    assert abs(squares.mean() - 0.5) < 4.0 * error + 0.01


def test_hills_are_deposited_once_each_and_the_first_step_is_seen(systems):
    method = Metadynamics(Distance([0, 1]), height=0.1, sigma=0.2, stride=5)
    simulation = systems.simulation("nvt_langevin")
    start = np.asarray(simulation.state.position)
    run = pysamp.run(method, lambda: simulation, 100, log_every=1, seed=1, progress=False)
    assert int(run.states[0].methods[0].n_hills) == 19
    assert run.log.step.values.tolist() == list(range(100))
    np.testing.assert_allclose(run.log.xi.values[0, 0, 0], np.linalg.norm(start[1] - start[0]), rtol=1e-12)


def test_velocities_are_those_of_the_way_to_the_positions(systems):
    """What ABF is given: half a step older than the positions, without the kick that is to come."""
    with bind(systems.simulation("nve"), Unbiased(Distance([0, 1]))) as bound:
        bound.run(5)
        before = bound.snapshots()[0]
        bound.run(1)
        after = bound.snapshots()[0]
    np.testing.assert_allclose(after.velocities, (after.positions - before.positions) / 0.05, rtol=1e-9)


@pytest.mark.parametrize("name", ["nve", "nvt_langevin"])
def test_mean_force(systems, name):
    """ABF in a harmonic well finds its slope, -1; with the wrong time step for momenta it is 10 % off (friction 1, dt 0.2)."""
    from pysamp.methods import ABF

    def well(x, **unused):
        return 0.5 * jnp.sum(x**2)

    grid = pysamp.Grid(-1.5, 1.5, 6)
    run = pysamp.run(
        ABF(Component([0], axis=0), grid=grid, full_samples=10**9),
        lambda: systems.simulation(name, well, n=1, dt=0.2),
        20_000 if name == "nvt_langevin" else 2000,
        replicas=8,
        seed=2,
        progress=False,
    )
    sums = np.sum([np.asarray(state.methods[0].sums).sum(axis=1) for state in run.states], axis=0)
    force = sums[:, 0] / sums[:, -1]
    slope = np.polyfit(grid.centers[0], force, 1, w=np.sqrt(sums[:, -1]))[0]
    assert abs(slope + 1.0) < 0.04


def test_single_precision_stays_single_and_the_bias_double(systems):
    with jax.enable_x64(False):
        simulation = systems.simulation("nvt_langevin", dtype=jnp.float32)
    with bind(simulation, HarmonicBias(Distance([0, 1]), kspring=3.0, center=1.0)) as bound:
        bound.run(3)
        assert bound.arrays["positions"].dtype == np.float32
        assert bound.states[0].xi.dtype == np.float64
    assert simulation.state.position.dtype == np.float32


def test_one_trace_for_all_chunks(systems):
    from pysamp.loop import Loop

    with bind(systems.simulation("nvt_langevin"), Unbiased(Distance([0, 1]))) as bound:
        bound.run(3)
        n = Loop.n_traces
        bound.run(7)
        assert Loop.n_traces == n
