"""The HOOMD backend keeps the contract of backends; memory, order of particles, exactly once."""

# pyright: reportMissingImports=false, reportGeneralTypeIssues=false, reportOptionalMemberAccess=false

import hoomd
import hoomd.md
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pysamp
from pysamp.colvars import DihedralAngle, Distance, Group
from pysamp.methods import ABF, HarmonicBias, Metadynamics, Unbiased
from pysamp.testing import check_backend

pytestmark = pytest.mark.usefixtures("route")

PAIR = Distance([0, 13])
METHOD = Metadynamics(PAIR, height=0.5, sigma=0.1, stride=4, bias_factor=5.0)
METHOD_ON_GRID = Metadynamics(PAIR, height=0.5, sigma=0.1, stride=4, bias_factor=5.0, grid=pysamp.Grid(0.5, 4.0, 50))


def net_forces(bound):
    bound.run(0)
    forces, places = np.asarray(bound.arrays["forces"]), np.asarray(bound.arrays["rtag"])
    return forces[places].copy()


@pytest.mark.parametrize("method", ["nose_hoover", "langevin"])
@pytest.mark.parametrize("tilts", [(0.0, 0.0, 0.0), (0.3, -0.2, 0.1)])
def test_contract(systems, method, tilts):
    def generate_context():
        return systems.fluid([getattr(systems, method)()], tilts=tilts)

    def run_alone(simulation, n):
        simulation.run(n)
        return systems.positions(simulation)

    cvs = [Distance([0, Group([13, 14])]), DihedralAngle([0, 1, 2, 5])]
    check_backend(generate_context, cvs, step=run_alone, forces=net_forces)


def test_arrays_are_the_memory_of_the_engine(systems):
    simulation = systems.fluid()
    with pysamp.bind(simulation, Unbiased(PAIR)) as bound:
        bound.run(3)
        arrays = bound.arrays
        with simulation.state.cpu_local_snapshot as snapshot:
            particles = snapshot.particles
            for name, local in {
                "positions": particles.position,
                "velocities": particles.velocity,
                "masses": particles.mass,
                "images": particles.image,
                "forces": particles.net_force,
                "rtag": particles.rtag,
            }.items():
                memory = local._coerce_to_ndarray()
                assert arrays[name].address == memory.ctypes.data, name
                np.testing.assert_array_equal(np.asarray(arrays[name]), memory)
                with jax.enable_x64(True):
                    np.testing.assert_array_equal(np.asarray(jax.jit(lambda view: view.array)(arrays[name])), memory)
        before = np.asarray(arrays["positions"]).copy()
        bound.run(2)
        assert not np.array_equal(np.asarray(bound.arrays["positions"]), before)


def test_the_sorter_may_reorder(systems):
    """The bias acts on the particles of its tags wherever they are in memory, and the log is that of their positions."""
    spring = HarmonicBias([Distance([0, 63]), Distance([5, 40])], kspring=5.0, center=1.0)
    logs, places = [], []
    for sort in (False, True):
        simulation = systems.fluid([systems.nose_hoover()])
        simulation.operations.tuners.clear()
        if sort:
            simulation.operations.tuners.append(hoomd.tune.ParticleSorter(trigger=hoomd.trigger.Periodic(3), grid=8))
        with pysamp.bind(simulation, spring) as bound:
            logs.append(bound.run(40, log_every=1)[0])
            places.append(np.asarray(bound.arrays["rtag"]).copy())
    assert np.array_equal(places[0], np.arange(64))
    assert not np.array_equal(places[1], np.arange(64)), "the sorter has not reordered anything"
    np.testing.assert_allclose(logs[1], logs[0], rtol=1e-8, atol=1e-10)  # sums in another order


def test_each_step_is_seen_once(systems):
    """Also when forces are evaluated again at the start of a run, by a run of no steps, and outside of runs."""
    simulation = systems.fluid()
    with pysamp.bind(simulation, METHOD) as bound:
        bound.reserve(60)
        rows = [bound.run(7, log_every=1)]
        simulation.run(0)
        bound.run(0)
        rows.append(bound.run(13, log_every=1))
        simulation.always_compute_pressure = True  # flags have changed: HOOMD evaluates once more
        rows.append(bound.run(1, log_every=1))
        (before,) = bound.states
        simulation.run(5)  # the user's own steps: under the bias as it is
        assert int(bound.states[0].step) == int(before.step) == 21
        rows.append(bound.run(3, log_every=1))
        (state,) = bound.states
    assert np.concatenate(rows, axis=1)[0, :, 0].tolist() == [*range(1, 25)]
    assert int(state.step) == 24
    assert int(state.methods[0].n_hills) == 23 // 4


def test_a_minimiser_of_hoomd_is_an_integrator_like_others(systems):
    simulation = systems.fluid()
    forces = [systems.lennard_jones(1.6)]
    fire = hoomd.md.minimize.FIRE(dt=0.002, force_tol=1e-3, angmom_tol=1e-3, energy_tol=1e-6, forces=forces)
    fire.methods.append(systems.newton())
    simulation.operations.integrator = fire
    method = Metadynamics(PAIR, height=0.5, sigma=0.1, stride=50, kT=1.0)
    with pysamp.bind(simulation, method) as bound:
        bound.reserve(200)
        rows = bound.run(200, log_every=1)[0]
        (state,) = bound.states
    assert rows[:, 0].tolist() == [*range(1, 201)]
    assert int(state.step) == 200
    assert int(state.methods[0].n_hills) == 199 // 50


def test_log_and_positions_agree(systems):
    """Row n is the configuration after n steps of HOOMD, as its own writers see it."""
    box = systems.fluid().state.box
    with pysamp.bind(systems.fluid(), Unbiased(PAIR)) as bound:
        rows = bound.run(10, log_every=5)[0]
    alone = systems.fluid()
    for row in rows:
        alone.run(5)
        assert alone.timestep == row[0]
        x = systems.positions(alone)
        d = x[13] - x[0]
        d -= np.round(d / box.Lx) * box.Lx
        np.testing.assert_allclose(row[1], np.linalg.norm(d), rtol=1e-12)


def test_closing_gives_the_simulation_back(systems):
    simulation = systems.fluid()
    forces = list(simulation.operations.integrator.forces)
    with pysamp.bind(simulation, METHOD, seed=5) as bound:
        bound.reserve(10)
        bound.run(10)
    bound.close()
    assert list(simulation.operations.integrator.forces) == forces
    assert simulation.seed == 3
    assert len(simulation.operations.writers) == 0
    simulation.run(10)
    with pytest.raises(pysamp.SimulationError, match="was closed"):
        bound.run(1)


def test_nothing_is_compiled_again(systems):
    from pysamp.loop import Loop

    with pysamp.bind(systems.fluid(), METHOD) as bound:
        bound.reserve(400)
        bound.run(10, log_every=2)
        before = Loop.n_traces
        bound.run(300, log_every=5)
        assert Loop.n_traces == before


def test_forces_are_those_of_the_energy(systems):
    """ABF's forces too reach HOOMD: net force with and without the bias."""
    method = ABF(PAIR, grid=pysamp.Grid(0.5, 4.0, 20), full_samples=1)
    simulation = systems.fluid()
    with pysamp.bind(simulation, method) as bound:
        bound.run(200)
        with_bias = net_forces(bound)
        (state,) = bound.states
        (snapshot,) = bound.snapshots()
        with jax.enable_x64(True):
            expected = bound.sampler.evaluate(jax.tree.map(jnp.asarray, state), bound.sampler.particles(snapshot))
    simulation.operations.integrator.forces[0].nlist.buffer = 0.31  # forces are evaluated anew
    simulation.run(0)
    without = systems.tag_order(simulation, "net_force")
    applied = with_bias - without
    assert np.abs(expected.forces).max() > 0.1
    np.testing.assert_allclose(applied[list(bound.sampler.atoms)], expected.forces, atol=1e-9)


def test_the_route_is_the_one_that_was_asked_for(systems, route):
    with pysamp.bind(systems.fluid(), METHOD) as bound:
        expected = {"relayed": "relayed", "spinning": "relayed", "called": "called"}.get(route, "called, on the GPU")
        assert (bound._relay is None) == (expected != "relayed")
        assert bound.provenance["route"] == expected


def test_the_step_on_a_gpu_makes_nobody_wait(systems):
    """What XLA is given for CUDA has neither branches nor loops, at which it would ask the GPU for numbers."""
    simulation = systems.fluid()
    sampler = pysamp.sampler.Sampler.build((METHOD_ON_GRID,), pysamp.describe(simulation))
    bound = systems.AsOnGpu(simulation, sampler, None)
    callback, arguments = bound._callback, []

    def noted(*given):
        arguments.append(jax.tree.map(jnp.array, given))
        return step(*given)

    with jax.enable_x64(True):
        callback.start(2)
        step, callback._step = callback._step, noted
        simulation.run(1)
        callback.finish()
        text = step.trace(*arguments[-1]).lower(lowering_platforms=("cuda",)).as_text()
    bound.close()
    assert "stablehlo.gather" in text
    for word in ("case", "if", "while"):
        assert f"stablehlo.{word}" not in text


def test_a_step_that_is_not_one_function(systems):
    """XLA runs several functions in several threads."""

    def sorted_largest(x, cell):
        return jnp.sort(jnp.sum(cell.displacement(x[:1], x[1:]) ** 2, axis=-1))[-1]

    largest = pysamp.colvars.custom(sorted_largest, atoms=range(8))
    with pysamp.bind(systems.fluid(), HarmonicBias(largest, kspring=0.1, center=1.0)) as bound:
        rows = bound.run(20, log_every=1)[0]
        assert int(bound.states[0].step) == 20
    assert rows[:, 0].tolist() == [*range(1, 21)]


def test_what_the_users_own_python_raises_is_told(systems):
    class Broken(hoomd.md.force.Custom):
        def set_forces(self, timestep):
            if timestep == 5:
                raise KeyError("of the user")

    simulation = systems.fluid()
    simulation.operations.integrator.forces.append(Broken())
    with pysamp.bind(simulation, Unbiased(PAIR)) as bound, pytest.raises(pysamp.SimulationError, match="of the user"):
        bound.run(10)


def test_the_users_own_python_goes_on(systems):
    """A writer of the user's own runs at its steps, and sees what it would see without a bias."""

    class Note(hoomd.custom.Action):
        def __init__(self):
            self.steps = []

        def act(self, timestep):
            with self._state.cpu_local_snapshot as snapshot:
                self.steps.append((timestep, float(np.array(snapshot.particles.position)[0, 0])))

    seen = []
    for is_biased in (False, True):
        simulation, note = systems.fluid(), Note()
        simulation.operations.writers.append(hoomd.write.CustomWriter(action=note, trigger=hoomd.trigger.Periodic(3)))
        if is_biased:
            with pysamp.bind(simulation, Unbiased(PAIR)) as bound:
                bound.run(4)
                bound.run(6)
        else:
            simulation.run(4)
            simulation.run(6)
        seen.append(note.steps)
    assert [step for step, _ in seen[0]] == [3, 6, 9]
    assert seen[0] == seen[1]


def test_simulations_in_threads(systems):
    """Each in a thread of its own, at the same time: the same as one after the other."""
    from concurrent.futures import ThreadPoolExecutor

    def run(seed):
        return pysamp.run(METHOD, systems.fluid, 200, log_every=10, seed=seed, progress=False).log.xi.values

    alone = [run(seed) for seed in (1, 2)]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(run, (1, 2)))
    np.testing.assert_array_equal(alone, together)
