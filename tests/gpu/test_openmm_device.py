"""OpenMM with its particles on a device: on CUDA with ``./run-tests -m gpu``, the same code on OpenCL, on CPUs too.

For OpenCL: an OpenCL runtime, ``cmake -S native -B build -DPYSAMP_OPENCL_TEST=ON``, ``cmake --build build``, and
PYSAMP_OPENCL_TEST=build in the environment.
"""

import os
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

openmm = pytest.importorskip("openmm")

from openmm import unit  # noqa: E402

from pysamp import Grid, bind, describe  # noqa: E402
from pysamp.backends.openmm import PythonForceRoute  # noqa: E402
from pysamp.backends.openmm_cuda import CudaBound, DeviceBound  # noqa: E402
from pysamp.colvars import Component, DihedralAngle, Distance, custom  # noqa: E402
from pysamp.errors import SimulationError  # noqa: E402
from pysamp.loop import Loop  # noqa: E402
from pysamp.methods import ABF, HarmonicBias, Metadynamics, Unbiased  # noqa: E402
from pysamp.sampler import Sampler  # noqa: E402

pytestmark = pytest.mark.openmm

KT = 2.494
OPENCL = os.environ.get("PYSAMP_OPENCL_TEST")
PRECISIONS = ["double", "mixed", "single"]
ABSOLUTE = {"double": 1e-9, "mixed": 1e-6, "single": 1e-5}  # of positions [nm]


class OpenCLBound(DeviceBound):
    module = "_openmm_opencl"
    target = "pysamp_openmm_opencl_advance"
    ffi_platform = "cpu"

    @property
    def arrays(self):
        return {}


BOUNDS = {"CUDA": CudaBound, "OpenCL": OpenCLBound}


@pytest.fixture(
    params=[
        pytest.param("CUDA", marks=pytest.mark.gpu),
        pytest.param("OpenCL", marks=pytest.mark.skipif(OPENCL is None, reason="PYSAMP_OPENCL_TEST is not set")),
    ]
)
def platform(request):
    names = [openmm.Platform.getPlatform(i).getName() for i in range(openmm.Platform.getNumPlatforms())]
    if request.param not in names:
        pytest.skip(f"OpenMM has no {request.param} platform here: {openmm.Platform.getPluginLoadFailures()}")
    if request.param == "OpenCL" and OPENCL not in sys.path:
        sys.path.insert(0, OPENCL)
    try:
        make_context(free_particles(1), request.param)
    except openmm.OpenMMException as error:
        pytest.skip(f"no device for {request.param}: {error}")
    return request.param


def free_particles(n, mass=12.0, box=None):
    system = openmm.System()
    for _ in range(n):
        system.addParticle(mass)
    if box is not None:
        system.setDefaultPeriodicBoxVectors(*np.diag([box] * 3))
    return system


def make_context(system, platform, precision="double", positions=None, integrator=None):
    integrator = integrator or langevin(friction=0.0)  # without noise, but with a temperature
    properties = {} if platform == "Reference" else {"Precision": precision}
    context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName(platform), properties)
    if positions is not None:
        context.setPositions(positions)
    return context


def langevin(seed=7, temperature=300.0, friction=1.0, timestep=0.002):
    integrator = openmm.LangevinMiddleIntegrator(temperature, friction, timestep)
    integrator.setRandomNumberSeed(seed)
    return integrator


def chain(platform, precision="double", integrator=None):
    """Five bonded atoms, a torsion among them, in no box."""
    system = free_particles(5)
    bonds, angles = openmm.HarmonicBondForce(), openmm.HarmonicAngleForce()
    for i in range(4):
        bonds.addBond(i, i + 1, 0.15, 50_000.0)
    for i in range(3):
        angles.addAngle(i, i + 1, i + 2, 1.9, 300.0)
    system.addForce(bonds)
    system.addForce(angles)
    positions = np.array([[0, 0, 0], [0.15, 0, 0], [0.2, 0.14, 0], [0.34, 0.16, 0.05], [0.4, 0.3, 0.07]])
    return make_context(system, platform, precision, positions, integrator)


def fluid(platform, precision="double", n_side=6, spacing=0.4, integrator=None, barostat=None):
    """Argon in a periodic box: OpenMM sorts its atoms and moves them between cells."""
    n, box = n_side**3, n_side * spacing
    system = free_particles(n, 39.9, box)
    force = openmm.NonbondedForce()
    force.setNonbondedMethod(openmm.NonbondedForce.CutoffPeriodic)
    force.setCutoffDistance(0.9)
    for _ in range(n):
        force.addParticle(0.0, 0.34, 1.0)
    system.addForce(force)
    if barostat is not None:
        system.addForce(barostat)
    grid = np.stack(np.meshgrid(*[np.arange(n_side)] * 3, indexing="ij"), -1).reshape(-1, 3)
    positions = (grid + 0.5) * spacing + np.random.default_rng(1).normal(scale=0.01, size=(n, 3))
    context = make_context(system, platform, precision, positions, integrator or langevin(temperature=300.0))
    context.setVelocitiesToTemperature(300.0, 3)
    return context


def tie(context, methods, platform):
    return BOUNDS[platform](context, Sampler.build(methods, describe(context)), None)


def positions_of(context):
    return context.getState(getPositions=True).getPositions(asNumpy=True)._value


def velocities_of(context):
    return context.getState(getVelocities=True).getVelocities(asNumpy=True)._value


def forces_of(context):
    return context.getState(getForces=True).getForces(asNumpy=True)._value


def energy_of(context):
    return context.getState(getEnergy=True).getPotentialEnergy()._value


def hills():
    grid = Grid((-np.pi,), (np.pi,), (50,), periodic=True)
    return Metadynamics(
        [DihedralAngle([0, 1, 2, 3])], height=2.0, sigma=0.3, stride=5, grid=grid, bias_factor=8.0, kT=KT
    )


@pytest.mark.parametrize("precision", PRECISIONS)
def test_forces_and_energy_are_those_of_the_reference_platform(platform, precision):
    """What the bias adds to OpenMM's own forces, which are the same twice to the last bit in double precision only."""
    bias = HarmonicBias([DihedralAngle([4, 3, 2, 1]), Distance([0, 3])], kspring=[80.0, 900.0], center=[0.5, 0.2])
    added = []
    for context in (chain("Reference"), chain(platform, precision)):
        forces, energy = forces_of(context), energy_of(context)
        with bind(PythonForceRoute(context), bias) if not added else tie(context, bias, platform):
            added.append((forces_of(context) - forces, energy_of(context) - energy))
    assert np.abs(added[0][0]).max() > 50
    tolerance = {"double": 1e-8, "mixed": 1e-3, "single": 1e-3}[precision]
    np.testing.assert_allclose(added[1][0], added[0][0], atol=tolerance)
    assert added[1][1] == pytest.approx(added[0][1], abs=1e-9 if precision == "double" else 2e-3)


def test_forces_are_the_derivatives_of_the_energy(platform):
    bias = HarmonicBias([Distance([0, 3])], kspring=900.0, center=0.2)
    context = make_context(free_particles(4), platform, positions=np.random.default_rng(2).normal(size=(4, 3)))
    with tie(context, bias, platform):
        x, forces, h = positions_of(context), forces_of(context), 1e-5
        for index in np.ndindex(x.shape):
            energies = []
            for sign in (1, -1):
                moved = x.copy()
                moved[index] += sign * h
                context.setPositions(moved)
                energies.append(energy_of(context))
            assert forces[index] == pytest.approx(-(energies[0] - energies[1]) / (2 * h), abs=1e-4)


def test_a_run_is_that_of_the_reference_platform(platform):
    """Would find a force that is a step late, lost, or added twice; more turns than a block, and some left over."""
    x = positions_of(chain("Reference"))
    v = np.random.default_rng(3).normal(size=x.shape)
    reference, context = (make_context(free_particles(5), name, positions=x) for name in ("Reference", platform))
    reference.setVelocities(v)
    context.setVelocities(v)
    with bind(PythonForceRoute(reference), hills()) as expected, tie(context, hills(), platform) as bound:
        for n in (1, 75, 32):
            rows, found = expected.run(n, log_every=1), bound.run(n, log_every=1)
            np.testing.assert_allclose(found, rows, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(positions_of(context), positions_of(reference), atol=1e-10)
        assert int(bound.states[0].step) == 108
        assert context.getStepCount() == 108
        assert np.abs(rows[0, -1, 2]) > 1.0  # the bias energy


def test_method_state_advances_once_per_step(platform):
    barostat = openmm.MonteCarloBarostat(1.0, 300.0, 3)
    context = fluid(platform, barostat=barostat)
    bias = Metadynamics([Distance([0, 40])], height=1.0, sigma=0.1, stride=4, kT=KT)
    with tie(context, bias, platform) as bound:
        for _ in range(5):
            bound.run(20)
            forces_of(context)
            energy_of(context)
        openmm.LocalEnergyMinimizer.minimize(context, 10.0, 3)
        n_steps, n_evaluations = bound._hook.counts
        assert int(bound.states[0].step) == n_steps == 100
        assert int(bound.states[0].methods[0].n_hills) == 24
        assert n_evaluations > 160


@pytest.mark.parametrize("precision", PRECISIONS)
def test_atoms_are_found_after_openmm_has_sorted_them(platform, precision):
    context = fluid(platform, precision)
    atoms = [0, 17, 100, 215]
    cvs = [Component([i], axis=axis) for i in atoms for axis in range(3)]
    with tie(context, Unbiased(cvs), platform) as bound:
        for n in (3, 246, 1, 1, 1, 248, 1, 1, 1, 1):
            bound.run(n - 1)
            before = positions_of(context)[atoms]
            bound.run(1)
            np.testing.assert_allclose(bound.states[0].xi.reshape(-1, 3), before, atol=ABSOLUTE[precision])
        if platform == "OpenCL":
            assert bound._hook.atom_of_row[:216] != list(range(216))
        else:
            assert not np.array_equal(bound.arrays["positions"].row_of_atom, np.arange(216))


def test_bias_acts_on_the_same_atoms_after_sorting(platform):
    """The bias drags atom 100 through the fluid; on another atom it would not."""
    context = fluid(platform, "mixed")
    target = positions_of(context)[100] + np.array([0.3, 0.0, 0.2])
    bias = HarmonicBias([Component([100], axis=k) for k in range(3)], kspring=1e4, center=target)
    with tie(context, bias, platform) as bound:
        bound.run(700)
        assert np.abs(positions_of(context)[100] - target).max() < 0.1


def test_positions_are_continuous_across_the_box(platform):
    """An atom that flies round the box several times; OpenMM moves it back each time it sorts."""
    context = fluid(platform, "mixed", integrator=langevin(friction=0.0))
    velocities = velocities_of(context) + np.array([6.0, 0.0, -3.0])
    context.setVelocities(velocities)
    cvs = [Component([5], axis=0), Component([5], axis=2)]
    with tie(context, Unbiased(cvs), platform) as bound:
        rows = np.concatenate([bound.run(300, log_every=1)[0] for _ in range(3)])
        jumps = np.abs(np.diff(rows[:, 1:3], axis=0)).max()
        assert jumps < 0.05
        assert np.abs(rows[-1, 1] - rows[0, 1]) > 2.4  # the box
        if platform == "OpenCL":
            assert bound._hook.n_moved > 0


@pytest.mark.parametrize("precision", PRECISIONS)
def test_momenta_are_the_engine_s(platform, precision):
    context = fluid(platform, precision)
    grid = Grid((-10.0, -10.0), (10.0, 10.0), (20, 20))
    with tie(context, ABF([Component([0], axis=0), Component([99], axis=2)], grid=grid), platform) as bound:
        for _ in range(3):
            bound.run(130)
            before = velocities_of(context)
            bound.run(1)
            momentum = np.asarray(bound.states[0].methods[0].momentum)
            np.testing.assert_allclose(momentum, 39.9 * before[[0, 99], [0, 2]], rtol=1e-5)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_biased_harmonic_well(platform, precision):
    """k = 1 and a bias of k = 1 at kT = 1: variance 1/2. A bias that is half or late gives 0.67 to 0.71."""
    system = free_particles(1, mass=1.0)
    well = openmm.CustomExternalForce("0.5*(x^2+y^2+z^2)")
    well.addParticle(0, [])
    system.addForce(well)
    integrator = langevin(temperature=1 / 0.00831446261815324, friction=1.0, timestep=0.2)
    context = make_context(system, platform, precision, np.zeros((1, 3)), integrator)
    bias = HarmonicBias([Component([0], axis=k) for k in range(3)], kspring=1.0, center=0.0)
    n_chunks = 20 if platform == "CUDA" else 8
    with tie(context, bias, platform) as bound:
        bound.run(200)
        x = np.concatenate([bound.run(1000, log_every=1)[0, :, 1:4] for _ in range(n_chunks)])
    means = (x**2).reshape(n_chunks * 5, -1).mean(axis=1)  # 200 steps: many correlation times
    stderr = means.std(ddof=1) / np.sqrt(len(means))
    assert stderr < 0.025
    assert abs(means.mean() - 0.5) < 4 * stderr


def test_a_barostat_accepts_with_the_bias_energy(platform):
    """With equal random numbers, the same volumes as through PythonForce; the bias alone decides on some of them."""
    volumes = []
    for route in (PythonForceRoute, None):
        barostat = openmm.MonteCarloBarostat(50.0, 300.0, 2)
        barostat.setRandomNumberSeed(11)
        context = fluid(platform, barostat=barostat, integrator=langevin(friction=0.0, timestep=0.001))
        bias = HarmonicBias([Distance([0, 100])], kspring=5000.0, center=1.0)
        with bind(route(context), bias) if route else tie(context, bias, platform) as bound:
            for _ in range(10):
                bound.run(10)
                volumes.append(context.getState().getPeriodicBoxVolume()._value)
    assert len(set(volumes[:10])) > 3
    np.testing.assert_allclose(volumes[10:], volumes[:10], rtol=1e-7)


def test_a_bias_that_is_not_finite_stops_the_run(platform):
    context = make_context(free_particles(1), platform, positions=np.zeros((1, 3)))
    context.setVelocities([[1.0, 0.0, 0.0]])
    cv = custom(lambda x: jnp.where(x[0, 0] > 0.1, jnp.nan, x[0, 0]), atoms=[0])  # from the 51st step on
    bias = HarmonicBias([cv], kspring=0.0, center=0.0)
    with tie(context, bias, platform) as bound, pytest.raises(SimulationError, match=r"step 5[01].* nan"):
        bound.run(100)


def test_several_simulations_at_once_and_one_compilation(platform):
    first, second = chain(platform), chain(platform)
    with tie(first, hills(), platform) as a, tie(second, hills(), platform) as b:
        assert a._hook.slot != b._hook.slot
        a.run(40)
        b.run(40)
        np.testing.assert_array_equal(positions_of(first), positions_of(second))
    n_traces = Loop.n_traces
    third = chain(platform)
    with tie(third, hills(), platform) as c:
        c.run(40)
    assert Loop.n_traces == n_traces
    np.testing.assert_array_equal(positions_of(third), positions_of(first))


def test_closing_restores(platform):
    context = chain(platform)
    n_forces, forces, energy = context.getSystem().getNumForces(), forces_of(context), energy_of(context)
    bound = tie(context, hills(), platform)
    x = positions_of(context)
    bound.close()
    bound.close()
    assert context.getSystem().getNumForces() == n_forces
    np.testing.assert_array_equal(positions_of(context), x)
    np.testing.assert_allclose(forces_of(context), forces, rtol=1e-12)
    assert energy_of(context) == pytest.approx(energy, rel=1e-12)


def test_an_error_of_the_engine_is_told(platform):
    """Here from a user's own Python, which OpenMM calls in the middle of the compiled loop."""

    def compute(state):
        if state.getStepCount() == 40:
            raise ValueError("forty")
        return 0.0, np.zeros((5, 3))

    context = chain(platform)
    context.getSystem().addForce(openmm.PythonForce(compute))
    context.reinitialize(preserveState=True)
    with tie(context, hills(), platform) as bound:
        bound.run(33)
        with pytest.raises(SimulationError, match=r"step 39: .*forty"):
            bound.run(100)
        context.setStepCount(50)
        bound.run(5)  # and nothing is broken


def test_time_units_are_openmm_s(platform):
    context = chain(platform, integrator=langevin())
    with tie(context, hills(), platform) as bound:
        bound.run(50)
        assert context.getTime().value_in_unit(unit.picosecond) == pytest.approx(0.1)
        assert jax.tree.leaves(bound.states[0].xi)[0].dtype == np.float64
