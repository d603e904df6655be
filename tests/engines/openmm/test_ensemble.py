"""A harmonic well k = 1 with a bias k = 1 at kT = 1: the variance is 1/2, for every integrator."""

import numpy as np
import pytest
from openmm import AndersenThermostat, CustomIntegrator, LangevinIntegrator, NoseHooverIntegrator, VerletIntegrator

import pysamp
from pysamp.backends.openmm_host import NativeBound
from pysamp.colvars import Component
from pysamp.methods import HarmonicBias

N = 16
DT = 0.05
BIAS = HarmonicBias([Component([i], axis=0) for i in range(N)], kspring=1.0, center=0.0)


def langevin_integrator(systems):
    integrator = LangevinIntegrator(1 / systems.KB, 1.0, DT)
    integrator.setRandomNumberSeed(1)
    return integrator, []


def middle(systems):
    return systems.langevin(DT, temperature=1 / systems.KB), []


def verlet(systems):
    thermostat = AndersenThermostat(1 / systems.KB, 1.0)
    thermostat.setRandomNumberSeed(1)
    return VerletIntegrator(DT), [thermostat]


def nose_hoover(systems):
    """A chain for every particle: one chain for independent wells would not mix them."""
    integrator = NoseHooverIntegrator(DT)
    for i in range(N):
        integrator.addSubsystemThermostat([i], [], 1 / systems.KB, 1.0, 1 / systems.KB, 1.0, 4)
    return integrator, []


def custom(systems):
    """BAOAB, velocity Verlet with friction, whose kT pysamp finds by its name."""
    integrator = CustomIntegrator(DT)
    integrator.addGlobalVariable("kT", 1.0)
    integrator.addGlobalVariable("a", np.exp(-DT))
    integrator.addGlobalVariable("b", np.sqrt(1 - np.exp(-2 * DT)))
    integrator.addUpdateContextState()
    integrator.addComputePerDof("v", "v+0.5*dt*f/m")
    integrator.addComputePerDof("x", "x+0.5*dt*v")
    integrator.addComputePerDof("v", "a*v+b*sqrt(kT/m)*gaussian")
    integrator.addComputePerDof("x", "x+0.5*dt*v")
    integrator.addComputePerDof("v", "v+0.5*dt*f/m")
    integrator.setRandomNumberSeed(1)
    return integrator, []


@pytest.mark.parametrize("case", [middle, langevin_integrator, verlet, nose_hoover, custom])
def test_variance(systems, route, case):
    """16 wells, 1000 time units with a correlation time near 1: 0.500 to 0.006, tested to 5 sigma (1 in 2 million).

    Half or stale bias, a mistake made in the wild, gives 0.67 to 0.71; no bias 1.
    """
    integrator, extra = case(systems)
    context = systems.well(integrator, n=N, extra=extra)
    with pysamp.bind(route(context), BIAS) as bound:
        assert float(bound.sampler.kT) == pytest.approx(1.0)
        bound.run(200)
        n_steps = 20_000 if isinstance(bound, NativeBound) else 5000
        xi = bound.run(n_steps, log_every=20)[0, :, 1 : N + 1]
    sigma = 0.006 * np.sqrt(20_000 / n_steps)
    assert np.var(xi) == pytest.approx(0.5, abs=5 * sigma)
