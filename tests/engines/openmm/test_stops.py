"""Trajectories that end where a method says, and forward flux sampling on them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pysamp
from pysamp.colvars import Distance
from pysamp.methods import Unbiased
from pysamp.paths import ForwardFlux
from pysamp.paths._crossing import CROSSED, OUT_OF_TIME, Crossing, crossing_state

R = Distance([0, 1])


def well(systems, platform="Reference", friction=1.0):
    """Two particles in a double well of their distance, with minima at 0.4 and 0.6 nm and a barrier of 3 kT between them."""
    system = systems.openmm.System()
    bond = systems.openmm.CustomBondForce("h * (((r - 0.5) / 0.1)^2 - 1)^2")
    bond.addGlobalParameter("h", 3 * systems.KB * 300)
    bond.addBond(0, 1, [])
    for _ in range(2):
        system.addParticle(10.0)
    system.addForce(bond)
    context = systems.context(system, systems.langevin(0.004, friction=friction), [[0, 0, 0], [0.4, 0, 0]], platform)
    context.setVelocitiesToTemperature(300.0, 1)
    return context


def watch(bound, interface, limit=10**6):
    state = crossing_state(basin=0.0, interface=interface, target=np.inf, is_trial=True, in_basin=True, limit=limit)
    (before,) = bound.states
    with jax.enable_x64(True):
        bound.states = [
            pysamp.SamplerState(
                before.step,
                before.key,
                (jax.tree.map(jnp.asarray, state),),
                before.xi,
                before.forces,
                before.energies,
                before.lists,
            )
        ]


@pytest.mark.parametrize("platform", ["Reference", "CPU"])
def test_the_engine_stays_where_the_interface_was_crossed(systems, route, platform):
    """Positions, velocities and step are those after as many steps of the engine itself, and it goes on as it would have."""
    context = well(systems, platform)
    with pysamp.bind(route(context), Unbiased(R)) as bound:
        r = bound.run(1000, log_every=1)[0, :, 1]
    n = int(np.argmax(r[:900]))
    interface = 0.5 * (r[n] + r[:n].max())
    assert n > 20
    plain = well(systems, platform)
    plain.getIntegrator().step(n)  # all of it now: on Reference all Contexts draw from the same random numbers
    there = systems.positions(plain), systems.velocities(plain)
    plain.getIntegrator().step(7)
    later = systems.positions(plain)
    context = well(systems, platform)
    with pysamp.bind(route(context), Crossing(cvs=(R,), sign=np.asarray(1.0))) as bound:
        watch(bound, interface)
        bound.run(10)
        bound.run(1000)
        (state,) = bound.states_on_host
        assert int(state.methods[0].outcome) == CROSSED
        assert int(state.methods[0].n_steps) == n
        assert bound.stopped.tolist() == [True]
        assert context.getStepCount() == n
        np.testing.assert_allclose(systems.positions(context), there[0], rtol=1e-6)
        np.testing.assert_allclose(systems.velocities(context), there[1], rtol=1e-3, atol=1e-5)
        bound.run(5)  # it has stopped
        assert context.getStepCount() == n
        watch(bound, 9.9, limit=7)
        bound.run(100)
        assert context.getStepCount() == n + 7
        assert int(bound.states_on_host[0].methods[0].outcome) == OUT_OF_TIME
    np.testing.assert_allclose(systems.positions(context), later, rtol=1e-5)
    context.getIntegrator().step(10)  # the user's simulation is alive


def test_reseeding(systems, route):
    """The same seed the same noise, whatever was before; another seed another noise."""
    context = well(systems)
    with pysamp.bind(route(context), Unbiased(R)) as bound:
        (snapshot,) = bound.snapshots()
        start = [type(snapshot)(snapshot.positions, snapshot.velocities, snapshot.masses)]
        ends = []
        for seed, n in ((5, 3), (6, 20), (5, 20), (5, 20)):
            bound.reseed([seed])
            bound.restore(start)
            bound.run(n)
            ends.append(systems.positions(context))
    assert np.array_equal(ends[2], ends[3])
    assert not np.array_equal(ends[1], ends[2])


def test_forward_flux_gives_the_rate_of_brute_force(systems):
    """Within 3 standard errors of the two together."""
    from rates import count_transitions

    method = ForwardFlux(R, interfaces=[0.42, 0.45, 0.49, 0.57], n_initial=80, n_trials=100, n_equilibration=500)
    run = pysamp.run(method, lambda: well(systems, friction=5.0), 10**6, seed=1, progress=False)
    rate = pysamp.analyze(run)
    assert run.is_complete
    with pysamp.bind(well(systems, friction=5.0), Unbiased(R), seed=3) as bound:
        r = np.concatenate([bound.run(1000, log_every=1)[0, :, 1] for _ in range(400)])
    exact, error = count_transitions(r.reshape(20, -1), 0.42, 0.57, 0.004)
    assert error < 0.2 * exact
    assert rate.stderr < 0.6 * rate.value
    assert abs(rate.value - exact) < 3 * np.hypot(error, rate.stderr)
    assert run.snapshots(1)[0].positions.shape == (2, 3)


METHOD = ForwardFlux(R, interfaces=[0.42, 0.43, 0.57], n_initial=4, n_trials=16, n_equilibration=50)


def paths(generate_context, executor=None):
    run = pysamp.run(METHOD, generate_context, 10**5, seed=2, replicas=2, executor=executor, progress=False)
    return [interface.frames.positions for interface in run.interfaces]


def assert_same(ones, others):
    assert len(ones) == len(others) > 1
    for one, other in zip(ones, others, strict=True):
        np.testing.assert_array_equal(one, other)


def test_routes_agree(systems):
    from pysamp.backends.openmm import PythonForceRoute

    assert_same(paths(lambda: well(systems)), paths(lambda: PythonForceRoute(well(systems))))


def test_executors_agree(systems):
    """Not on the Reference platform, whose random numbers are those of the whole process."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(2) as executor:
        assert_same(paths(lambda: well(systems, "CPU"), executor), paths(lambda: well(systems, "CPU")))
