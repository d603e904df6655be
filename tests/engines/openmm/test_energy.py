"""The potential energy as a CV in OpenMM: bias on all particles, from a second Context."""

import copy

import numpy as np
import openmm
import pytest
from scipy.special import logsumexp

import pysamp
from pysamp import UnsupportedError
from pysamp.analysis import jackknife_error
from pysamp.colvars import DihedralAngle, Distance, PotentialEnergy
from pysamp.methods import HarmonicBias, Metadynamics, Multithermal, OPESExpanded, Unbiased

U = PotentialEnergy()


def context_of(simulation):
    return getattr(simulation, "context", simulation)


def vacuum(systems, platform):
    return systems.alanine(platform), [U, DihedralAngle([4, 6, 8, 14])]


def skewed(systems, platform):
    return systems.triclinic(platform), [U * Distance([0, 1])]


def virtual_sites(systems, platform):
    return systems.water(platform), [U, Distance([3, 7])]


@pytest.mark.parametrize("platform", ["Reference", "CPU"])
@pytest.mark.parametrize("case", [vacuum, skewed, virtual_sites])
def test_forces_are_differences_of_the_energy(systems, platform, case):
    """Along a random direction; the bias changes the derivative by far more than the tolerance. Close gives all back."""
    simulation, cvs = case(systems, platform)
    context = context_of(simulation)
    system = context.getSystem()
    massless = [i for i in range(system.getNumParticles()) if system.isVirtualSite(i)]
    before, n_forces = (systems.energy(context), systems.forces(context)), system.getNumForces()
    x = systems.positions(context)
    direction = np.random.default_rng(0).normal(size=x.shape)
    direction[massless] = 0.0
    method = HarmonicBias(cvs, kspring=[0.02, 30.0][: len(cvs)], center=[before[0] - 15.0, 0.3][: len(cvs)])

    def energy_at(t):
        context.setPositions(x + t * direction)
        context.computeVirtualSites()
        return systems.energy(context)

    with pysamp.bind(simulation, method) as bound:
        assert bound.route == "PythonForce"
        assert float(bound.snapshots()[0].energy) == pytest.approx(before[0], rel=1e-5)
        forces = systems.forces(context)
        step = 2e-6 if platform == "Reference" else 1e-4  # single precision on the CPU
        slope = (energy_at(step) - energy_at(-step)) / (2 * step)
        context.setPositions(x)
        context.computeVirtualSites()
        bias = systems.energy(context) - before[0]
    size = np.abs(np.vdot(before[1], direction))
    assert -slope == pytest.approx(np.vdot(forces, direction), rel=1e-5 if platform == "Reference" else 0.03)
    assert abs(np.vdot(forces - before[1], direction)) > 0.01 * size
    assert bias > 0.1
    assert system.getNumForces() == n_forces
    assert systems.energy(context) == pytest.approx(before[0], rel=1e-5)


def test_as_custom_cv_force(systems):
    """OpenMM's own bias on the sum of copies of all forces: energy and forces, to rounding."""
    simulation = systems.alanine("Reference")
    context = simulation.context
    center, k = systems.energy(context) + 30.0, 0.02
    x = systems.positions(context)
    same = copy.deepcopy(context.getSystem())
    own = [f for f in same.getForces() if not isinstance(f, openmm.CMMotionRemover)]
    names = [f"u{i}" for i in range(len(own))]
    bias = openmm.CustomCVForce(f"0.5*{k}*({'+'.join(names)}-({center}))^2")
    for name, force in zip(names, own, strict=True):
        bias.addCollectiveVariable(name, copy.deepcopy(force))
    same.addForce(bias)
    expected = systems.context(same, systems.langevin(), x)
    with pysamp.bind(simulation, HarmonicBias(U, kspring=k, center=center)):
        assert systems.energy(context) == pytest.approx(systems.energy(expected), rel=1e-9)
        np.testing.assert_allclose(systems.forces(context), systems.forces(expected), rtol=1e-6, atol=1e-5)


def test_distribution_under_a_bias_on_the_energy(systems):
    """Mean of U for 12 harmonic degrees of freedom, p(U) ~ U^5 exp(-U / kT - V(U)), by eight blocks of one run.

    Five standard errors, and never more than 0.15 (without bias the mean is 6 kJ/mol, with it 8.3): a right code fails once in
    some 2000 seeds.
    """
    kspring, center = 0.5, 9.0
    u = np.linspace(1e-6, 40.0, 20001)
    log_p = 5 * np.log(u) - u - 0.5 * kspring * (u - center) ** 2
    mean = np.exp(log_p - logsumexp(log_p)) @ u

    def generate():
        integrator = openmm.LangevinMiddleIntegrator(1.0 / systems.KB, 2.0, 0.1)
        return systems.well(integrator, n=4)

    method = HarmonicBias(U, kspring=kspring, center=center)
    run = pysamp.run(method, generate, 12_000, log_every=10, seed=2, progress=False)
    blocks = run.log.xi.values[0, 40:, 0].reshape(8, -1).mean(axis=1)
    error = blocks.std(ddof=1) / np.sqrt(8)
    assert error < 0.05
    assert abs(blocks.mean() - mean) < min(5 * error + 0.02, 0.15), (blocks.mean(), mean, error)


def test_parameters_of_the_context_are_followed(systems):
    context = systems.well(systems.langevin(), n=2)
    with pysamp.bind(context, HarmonicBias(U, kspring=1.0, center=0.0)) as bound:
        plain = float(bound.snapshots()[0].energy)
        context.setParameter("k", 3.0)
        assert float(bound.snapshots()[0].energy) == pytest.approx(3.0 * plain)
        assert systems.energy(context) == pytest.approx(3.0 * plain + 0.5 * (3.0 * plain) ** 2)


def test_barostat_moves_are_the_same_step(systems):
    """The energy is evaluated in the trial box, and the method sees each step once; hills on the energy repeat exactly."""
    ends = []
    for _ in range(2):
        context = systems.gas(n=27, length=1.8, barostat=2)
        method = Metadynamics(U, height=0.2, sigma=1.0, stride=5)
        with pysamp.bind(context, method, seed=3) as bound:
            bound.states = bound.initial_states([0])
            bound.reserve(40)
            before = context.getState().getPeriodicBoxVolume()
            bound.run(40)
            assert int(bound.states[0].step) == 40
            assert context.getState().getPeriodicBoxVolume() != before
            (snapshot,) = bound.snapshots()
            total = systems.energy(context)
            ends.append(float(snapshot.energy))
        assert ends[-1] != pytest.approx(total)  # with the bias and without
        assert systems.energy(context) == pytest.approx(ends[-1], rel=1e-9)
    assert ends[0] == ends[1]


def test_a_force_that_cannot_be_copied_is_named(systems):
    def local(state):
        return 0.0, np.zeros((2, 3))

    force = openmm.PythonForce(local)
    force.setName("mine")
    system = systems.dimer_system()
    system.addForce(force)
    context = systems.context(system, systems.langevin(), [[0, 0, 0], [0.33, 0.01, 0.02]])
    with pytest.raises(UnsupportedError, match="cannot copy mine"):
        pysamp.bind(context, HarmonicBias(U, kspring=1.0, center=0.0))
    assert system.getNumForces() == 2


def test_multithermal_run_of_alanine_dipeptide(systems):
    """The mean energy at 400 K from one run at 300 K, against a run at 400 K: within 5 standard errors of both.

    Without the bias's weights, or without the energy's factor, it is off by 10 kJ/mol or more; the errors are about 2.
    """
    boltzmann = systems.KB

    def generate(temperature=300.0):
        return systems.alanine("Reference", integrator=systems.langevin(temperature=temperature, friction=10.0))

    method = OPESExpanded(Multithermal(kT=(300.0 * boltzmann, 450.0 * boltzmann)), stride=50, n_observations=20)
    run = pysamp.run(method, generate, 12_000, log_every=10, seed=1, progress=False)
    hot = {"temperature": 400.0}
    plain = pysamp.run(Unbiased(U), generate, 8_000, context_args=hot, log_every=10, seed=2, progress=False)
    assert 3 <= int(run.log["OPESExpanded.n_states"][0, -1]) <= 12
    weights = pysamp.analysis.sample_weights(run, kT=400.0 * boltzmann)
    values = run.log.xi.values[..., 0]
    mean = float((weights.weight.values * values).sum())
    error = float(jackknife_error((weights.replicates.values * values[None]).sum(axis=(1, 2))))
    blocks = plain.log.xi.values[0, 80:, 0].reshape(8, -1).mean(axis=1)
    own = blocks.std(ddof=1) / np.sqrt(8)
    biased = values[0, 200:].mean()
    assert np.hypot(error, own) < 4.0
    assert abs(mean - blocks.mean()) < 5 * np.hypot(error, own), (mean, error, blocks.mean(), own, biased)
