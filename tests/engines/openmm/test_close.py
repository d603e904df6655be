"""Closing leaves System and Context as they were found."""

import numpy as np
import pytest
from openmm import XmlSerializer

import pysamp
from pysamp.colvars import Distance, custom
from pysamp.methods import HarmonicBias, Unbiased

BIAS = HarmonicBias(Distance([0, 1]), kspring=800.0, center=0.25)


def fingerprint(systems, context):
    system, platform = context.getSystem(), context.getPlatform()
    return {
        "system": XmlSerializer.serialize(system),
        "forces": [int(force.this) for force in system.getForces()],
        "state": XmlSerializer.serialize(
            context.getState(getPositions=True, getVelocities=True, getParameters=True, getIntegratorParameters=True)
        ),
        "integrator": XmlSerializer.serialize(context.getIntegrator()),
        "properties": {name: platform.getPropertyValue(context, name) for name in platform.getPropertyNames()},
        "step": context.getStepCount(),
    }


def integrators(systems):
    custom_integrator = systems.openmm.CustomIntegrator(0.002)
    custom_integrator.addGlobalVariable("kT", 2.5)
    custom_integrator.addGlobalVariable("count", 0.0)
    custom_integrator.addPerDofVariable("old", 0.0)
    custom_integrator.addUpdateContextState()
    custom_integrator.addComputeGlobal("count", "count+1")
    custom_integrator.addComputePerDof("old", "x")
    custom_integrator.addComputePerDof("v", "v+dt*f/m+0.1*gaussian")
    custom_integrator.addComputePerDof("x", "x+dt*v")
    return {
        "langevin": systems.langevin(),
        "nose-hoover": systems.openmm.NoseHooverIntegrator(300, 10.0, 0.002),
        "custom": custom_integrator,
    }


@pytest.mark.parametrize("platform", ["Reference", "CPU"])
def test_nothing_is_left(systems, route, platform):
    force = systems.openmm.CustomExternalForce("scale*0.1*x^2")
    force.addGlobalParameter("scale", 1.0)
    force.addParticle(0, [])
    context = systems.gas(platform=platform, extra=[force])
    context.setParameter("scale", 2.5)
    context.getIntegrator().step(3)
    before = fingerprint(systems, context)
    bound = pysamp.bind(route(context), BIAS)
    assert context.getParameter("scale") == 2.5
    bound.close()
    assert fingerprint(systems, context) == before
    bound.close()  # twice does no harm
    with pysamp.bind(route(context), BIAS, seed=5):
        pass
    assert fingerprint(systems, context) == before


@pytest.mark.parametrize("name", ["langevin", "nose-hoover", "custom"])
def test_the_plain_trajectory_goes_on(systems, route, name):
    """Bit for bit on the Reference platform, random numbers and the integrator's own variables included."""
    ends = []
    for bind in (False, True):
        context = systems.gas(integrators(systems)[name])
        context.getIntegrator().setRandomNumberSeed(3) if name != "nose-hoover" else None
        context.reinitialize()
        context.setPositions(systems.gas_positions())
        context.setVelocitiesToTemperature(300.0, 1)
        context.getIntegrator().step(10)
        if bind:
            with pysamp.bind(route(context), BIAS):
                pass
        context.getIntegrator().step(10)
        ends.append((systems.positions(context), fingerprint(systems, context)["state"]))
    assert np.array_equal(ends[0][0], ends[1][0])
    assert ends[0][1] == ends[1][1]


def test_the_plain_trajectory_goes_on_after_biased_steps(systems, route):
    """Observing leaves velocities and random numbers in step."""
    ends = []
    for bind in (False, True):
        simulation = systems.alanine()
        if bind:
            with pysamp.bind(route(simulation), Unbiased(Distance([0, 1]))) as bound:
                bound.run(8)
        else:
            simulation.step(8)
        simulation.step(8)
        ends.append(systems.positions(simulation.context))
    assert np.array_equal(*ends)


def test_after_an_error(systems, route):
    context = systems.dimer()
    before = fingerprint(systems, context)
    with pytest.raises(KeyError), pysamp.bind(route(context), BIAS):
        raise KeyError
    assert fingerprint(systems, context) == before


def test_when_binding_fails(systems, route):
    """A method whose state cannot be made."""

    class Broken(Unbiased):
        def init(self, obs):
            raise RuntimeError("not today")

    context = systems.dimer()
    before = fingerprint(systems, context)
    with pytest.raises(RuntimeError, match="not today"):
        pysamp.bind(route(context), Broken(Distance([0, 1])))
    assert fingerprint(systems, context) == before


def test_one_after_the_other_and_one_in_the_other(systems, route):
    """Whatever the order of closing: each takes its own force."""
    context = systems.dimer()
    before, plain = fingerprint(systems, context), systems.energy(context)
    first = pysamp.bind(route(context), BIAS)
    one = systems.energy(context) - plain
    second = pysamp.bind(route(context), BIAS)
    assert systems.energy(context) - plain == pytest.approx(2 * one)
    second.run(3)
    assert (int(first.states[0].step), int(second.states[0].step)) == (0, 3)
    first.close()
    with pytest.raises(pysamp.SimulationError, match="closed"):
        first.run(1)
    second.run(3)
    second.close()
    after = fingerprint(systems, context)
    assert (after["system"], after["forces"]) == (before["system"], before["forces"])
    assert systems.openmm.XmlSerializer.serialize(context.getSystem()) == before["system"]


def test_forgetting_to_close_is_told(systems):
    """The force stays, and says what to do, instead of calling what is gone."""
    context = systems.dimer()
    bound = pysamp.bind(context, BIAS)
    del bound
    with pytest.raises(systems.openmm.OpenMMException, match="was not closed"):
        systems.energy(context)


def test_the_user_may_touch_the_context_between_chunks(systems, route):
    """Positions, velocities, parameters, reinitialize: the bias goes on with what is there."""
    context = systems.dimer()
    cv = custom(lambda x: x[0, 0], atoms=[0])
    with pysamp.bind(route(context), HarmonicBias(cv, kspring=1.0, center=0.0)) as bound:
        bound.run(2)
        context.setPositions([[5.0, 0, 0], [5.3, 0, 0]])
        assert bound.run(1, log_every=1)[0, 0, 1] == 5.0
        context.reinitialize(preserveState=True)
        context.setPositions([[7.0, 0, 0], [7.3, 0, 0]])
        assert bound.run(1, log_every=1)[0, 0, 1] == 7.0
        assert int(bound.states[0].step) == 4
