"""Runs, checkpoints, replicas, trajectories that end where a method says, and errors before the first step."""

# pyright: reportMissingImports=false, reportGeneralTypeIssues=false, reportOptionalMemberAccess=false

import importlib.util

import equinox as eqx
import hoomd
import hoomd.md
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pysamp
from pysamp.colvars import Component, Distance, custom
from pysamp.methods import ABF, HarmonicWalls, Metadynamics, Unbiased
from pysamp.paths import ForwardFlux
from pysamp.paths._crossing import Crossing, crossing_state

pytestmark = pytest.mark.usefixtures("route")

PAIR = Distance([0, 1])
METHODS = [
    Metadynamics(PAIR, height=0.5, sigma=0.1, stride=10, bias_factor=8.0, grid=pysamp.Grid(0.5, 2.5, 40)),
    HarmonicWalls(PAIR, upper=2.0, kspring=50.0),
]


@pytest.fixture
def generate(systems):
    def generate(method="langevin", **options):
        return systems.fluid([getattr(systems, method)()], **options)

    return generate


def test_run_and_analyze(generate):
    run = pysamp.run(METHODS, generate, 2000, log_every=20, seed=1, progress=False)
    assert run.log.step.values.tolist() == [*range(20, 2001, 20)]
    np.testing.assert_allclose(run.log.time, run.log.step * 0.005)
    assert run.attributes["engine"] == "hoomd"
    surface = pysamp.analyze(run)
    assert np.isfinite(surface.values).any()


def test_a_run_that_goes_on_is_the_run_that_was_not_ended(generate):
    """Positions, velocities, accelerations, random numbers, thermostat.

    To rounding: HOOMD adds up pair forces in the order of its neighbour list, which is built anew.
    """

    def unsorted(method):
        simulation = generate(method)
        simulation.operations.tuners.clear()
        return simulation

    for method in ("langevin", "nose_hoover"):
        whole = pysamp.run(METHODS, lambda m=method: unsorted(m), 300, log_every=10, seed=1, progress=False)
        half = pysamp.run(METHODS, lambda m=method: unsorted(m), 150, log_every=10, seed=1, progress=False)
        both = pysamp.run(half, lambda m=method: unsorted(m), 150, progress=False)
        np.testing.assert_array_equal(both.log.step, whole.log.step)
        np.testing.assert_allclose(both.log.xi, whole.log.xi, rtol=1e-9)


def test_a_checkpoint_is_gone_on_from(generate, tmp_path):
    options = {"log_every": 10, "seed": 1, "progress": False, "checkpoint_every": 50}
    whole = pysamp.run(METHODS, generate, 200, checkpoint=tmp_path / "whole", **options)
    pysamp.run(METHODS, generate, 100, checkpoint=tmp_path / "parts", **options)
    parts = pysamp.run(METHODS, generate, 200, checkpoint=tmp_path / "parts", **options)
    np.testing.assert_allclose(parts.log.xi, whole.log.xi, rtol=1e-6)  # particles come back in another order
    assert parts.log.step.values.tolist() == whole.log.step.values.tolist()


def test_replicas_differ_in_their_random_numbers(generate):
    run = pysamp.run(Unbiased(PAIR), generate, 100, replicas=2, log_every=20, seed=1, progress=False)
    assert run.log.xi.shape == (2, 5, 1)
    assert not np.array_equal(run.log.xi[0], run.log.xi[1])


def well(systems, seed=3):
    """Two particles in a double well of their distance (minima at 1 and 2, barrier 5 kT), by a table for HOOMD."""
    r = np.linspace(0.0, 3.0, 3001)
    energy = 5.0 * (((r - 1.5) / 0.5) ** 2 - 1.0) ** 2
    force = -20.0 * (((r - 1.5) / 0.5) ** 2 - 1.0) * (r - 1.5) / 0.25
    table = hoomd.md.bond.Table(width=len(r))
    table.params["bond"] = {"r_min": 0.0, "r_max": 3.0, "U": energy, "F": force}
    snapshot = systems.frame([[0, 0, 0], [1.0, 0, 0]], [20, 20, 20, 0, 0, 0], bonds=[(0, 1)])
    return systems.simulation(snapshot, [systems.langevin()], [table], dt=0.02, seed=seed)


def test_forward_flux_sampling(systems):
    """Trajectories are begun at stored configurations with new random numbers, and end where they cross."""
    method = ForwardFlux(
        PAIR, basin=1.2, interfaces=[1.3, 1.45, 1.6, 1.8], n_initial=20, n_trials=20, n_equilibration=100
    )
    run = pysamp.run(method, lambda: well(systems), 400_000, seed=2, progress=False)
    rate = pysamp.analyze(run)
    assert 0 < rate.value < 1.0
    assert rate.stderr > 0


def test_a_stopped_run_is_at_a_whole_step(systems):
    """Positions and velocities are those of as many steps of HOOMD alone."""
    with pysamp.bind(well(systems), Unbiased(PAIR)) as bound:
        r = bound.run(500, log_every=1)[0, :, 1]
    n = int(np.argmax(r[:400])) + 1  # row 0 is step 1
    interface = 0.5 * (r[n - 1] + r[: n - 1].max())
    alone = well(systems)
    alone.run(n)
    simulation = well(systems)
    with pysamp.bind(simulation, Crossing(cvs=(PAIR,), sign=np.asarray(1.0))) as bound:
        state = crossing_state(basin=0.0, interface=interface, target=np.inf, is_trial=True, in_basin=True, limit=10**6)
        (before,) = bound.states
        with jax.enable_x64(True):
            bound.states = [eqx.tree_at(lambda s: s.methods, before, (jax.tree.map(jnp.asarray, state),))]
        bound.run(500)
        assert bound.stopped.all()
        assert simulation.timestep == n
        np.testing.assert_array_equal(systems.positions(simulation), systems.positions(alone))
        np.testing.assert_array_equal(systems.tag_order(simulation, "velocity"), systems.tag_order(alone, "velocity"))


def no_state(systems):
    return hoomd.Simulation(device=hoomd.device.CPU(), seed=1)


def no_integrator(systems):
    simulation = systems.fluid()
    simulation.operations.integrator = None
    return simulation


@pytest.mark.parametrize(
    ("broken", "message"), [(no_state, "has no particles yet"), (no_integrator, "hoomd.md.Integrator")]
)
def test_an_unfinished_simulation_is_named(systems, broken, message):
    with pytest.raises(pysamp.InvalidInputError, match=message):
        pysamp.run(Unbiased(PAIR), lambda: broken(systems), 10, progress=False)


def test_thermostats_of_different_temperatures(systems):
    first = hoomd.md.methods.Langevin(filter=hoomd.filter.Tags([0, 1]), kT=1.0)
    second = hoomd.md.methods.Langevin(filter=hoomd.filter.Tags([2, 3]), kT=1.5)
    with pytest.raises(pysamp.InvalidInputError, match=r"different temperatures, kT = \[1.0, 1.5\]"):
        pysamp.run(Unbiased(PAIR), lambda: systems.fluid([first, second]), 10, progress=False)


def test_momenta_where_there_are_none(systems):
    simulation = systems.wells(hoomd.md.methods.Brownian(filter=systems.movers(), kT=1.0))
    with pytest.raises(pysamp.InvalidInputError, match="needs the momenta"):
        pysamp.run(
            ABF(Component([0], axis=0), grid=pysamp.Grid(-30.0, 0.0, 10)), lambda: simulation, 10, progress=False
        )


def test_what_a_gpu_needs_is_named(systems, monkeypatch):
    simulation = systems.fluid()
    monkeypatch.setattr(hoomd.device, "GPU", type(simulation.device))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(pysamp.errors.UnsupportedError, match="pip install cupy-cuda13x"):
        pysamp.describe(simulation)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(jax, "devices", broken_devices)
    with pytest.raises(pysamp.errors.UnsupportedError, match=r"pip install 'jax\[cuda13\]'"):
        pysamp.describe(simulation)


def broken_devices(platform):
    raise RuntimeError(f"Unknown backend {platform}")


def test_a_bias_that_is_not_finite_stops_the_run(systems):
    def broken(x, cell):
        r = jnp.linalg.norm(cell.displacement(x[0], x[1]))
        return jnp.where(r > 0.9, r, jnp.nan)

    method = Metadynamics(custom(broken, atoms=[0, 1]), height=5.0, sigma=0.2, stride=1)
    snapshot = systems.frame([[0, 0, 0], [1.5, 0, 0]], [9, 9, 9, 0, 0, 0], bonds=[(0, 1)], velocities=0.0)

    def generate():
        return systems.simulation(snapshot, [systems.langevin()], [systems.springs(5.0)])

    with pytest.raises(pysamp.SimulationError, match="stopped at step .*: the CV"):
        pysamp.run(method, generate, 2000, progress=False)
