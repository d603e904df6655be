"""The bias that reaches the engine is the sampler's, energy and forces."""

import jax
import numpy as np
import pytest

import pysamp
from pysamp.colvars import Angle, DihedralAngle, Distance
from pysamp.methods import HarmonicBias, Metadynamics, Unbiased
from pysamp.testing import tolerances

BIAS = HarmonicBias(Distance([0, 1]), kspring=800.0, center=0.25)


def vacuum(systems, platform):
    return systems.alanine(platform), HarmonicBias(
        [DihedralAngle([4, 6, 8, 14]), Angle([4, 6, 8])], kspring=[50.0, 90.0], center=[1.0, 1.6]
    )


def skewed(systems, platform):
    return systems.triclinic(platform), BIAS


def virtual_sites(systems, platform):
    """A CV of two virtual sites: the forces on them belong to the particles that define them."""
    return systems.water(platform), HarmonicBias(Distance([3, 7]), kspring=300.0, center=0.2)


def context_of(simulation):
    return getattr(simulation, "context", simulation)


@pytest.mark.parametrize("platform", ["Reference", "CPU"])
@pytest.mark.parametrize("case", [vacuum, skewed, virtual_sites])
def test_engine_adds_the_samplers_bias(systems, route, platform, case):
    simulation, method = case(systems, platform)
    context = context_of(simulation)
    plain = systems.energy(context), systems.forces(context)
    with pysamp.bind(route(simulation), method) as bound:
        biased = systems.energy(context), systems.forces(context)
        sampler, (state,) = bound.sampler, bound.states
        with jax.enable_x64(True):
            expected = sampler.evaluate(state, sampler.particles(bound.snapshots()[0]))
    full = np.zeros_like(plain[1])
    full[list(sampler.atoms)] = np.asarray(expected.forces)
    if case is virtual_sites:
        full = None  # compared below, by finite differences
    tolerance = 1e-10 if platform == "Reference" else 1e-4
    assert float(expected.energy) > 1.0
    assert biased[0] - plain[0] == pytest.approx(float(expected.energy), rel=tolerance)
    if full is not None:
        np.testing.assert_allclose(biased[1] - plain[1], full, atol=tolerance * np.abs(plain[1]).max())


@pytest.mark.parametrize("case", [vacuum, skewed, virtual_sites])
def test_forces_are_differences_of_the_energy(systems, route, case):
    simulation, method = case(systems, "Reference")
    context = context_of(simulation)
    with pysamp.bind(route(simulation), method) as bound:
        start = systems.positions(context)
        direction = np.zeros_like(start)
        real = [i for i in range(len(start)) if i not in bound.system.massless]
        direction[real] = np.random.default_rng(1).normal(size=(len(real), 3))
        expected = -np.sum(systems.forces(context) * direction)
        energies = []
        for offset in (1e-5, -1e-5):
            context.setPositions(start + offset * direction)
            context.computeVirtualSites()
            energies.append(systems.energy(context))
    assert (energies[0] - energies[1]) / 2e-5 == pytest.approx(expected, rel=1e-6)


def test_observing_changes_no_bit(systems, route):
    plain = systems.alanine()
    plain.step(50)
    phi = DihedralAngle([4, 6, 8, 14])
    for method in (Unbiased(phi), HarmonicBias(phi, kspring=0.0, center=1.0)):
        simulation = systems.alanine()  # now: the Reference platform has one random number generator for all contexts
        with pysamp.bind(route(simulation), method) as bound:
            bound.run(20)
            bound.run(30)
        assert np.array_equal(systems.positions(simulation.context), systems.positions(plain.context))
        assert np.array_equal(systems.velocities(simulation.context), systems.velocities(plain.context))


@pytest.mark.parametrize("platform", ["Reference", "CPU"])
def test_the_routes_agree(systems, platform):
    """The same trajectory and the same hills, to rounding (which grows with time: few steps)."""
    method = Metadynamics(Distance([0, 1]), height=2.0, sigma=0.02, stride=5, bias_factor=5.0)
    ends = []
    for wrap in (lambda simulation: simulation, pysamp.backends.openmm.PythonForceRoute):
        context = systems.dimer(platform=platform)
        with pysamp.bind(wrap(context), method) as bound:
            bound.reserve(40)
            rows = bound.run(40, log_every=1)
            ends.append((rows, systems.positions(context), jax.tree.leaves(bound.states[0].methods)))
    tolerance = tolerances.ROUNDING if platform == "Reference" else 1e-4
    for a, b in zip(jax.tree.leaves(ends[0]), jax.tree.leaves(ends[1]), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def test_the_bias_acts_in_the_first_step(systems, route):
    """From rest, one leapfrog step moves the particles by the whole force at the start."""
    context = systems.dimer(systems.langevin(0.001, friction=0.0), velocities=False)
    start = systems.positions(context)
    with pysamp.bind(route(context), BIAS) as bound:
        force = systems.forces(context)
        bound.run(1)
        np.testing.assert_allclose(
            systems.positions(context) - start, force / np.array([[10.0], [20.0]]) * 1e-6, rtol=1e-9, atol=1e-18
        )
