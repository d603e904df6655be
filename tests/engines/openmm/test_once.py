"""Methods see each MD step once, whatever else asks for forces or energies."""

from collections.abc import Callable

import numpy as np
import pytest
from openmm import (
    AndersenThermostat,
    BrownianIntegrator,
    CompoundIntegrator,
    CustomIntegrator,
    LocalEnergyMinimizer,
    MTSIntegrator,
    MTSLangevinIntegrator,
    NoseHooverIntegrator,
    Platform,
    VerletIntegrator,
    app,
    unit,
)

import pysamp
from pysamp.colvars import Distance
from pysamp.methods import Metadynamics

# kT is given, so that all integrators share one compiled loop
METHOD = Metadynamics(Distance([0, 1]), height=1.0, sigma=0.02, stride=4, bias_factor=5.0, kT=2.5)
DT = 0.002


def velocity_verlet(update: str) -> CustomIntegrator:
    """With updateContextState at the start of a step, in its middle, at its end, in a block, or not at all."""
    result = CustomIntegrator(DT)
    result.addGlobalVariable("always", 1.0)
    if update == "start":
        result.addUpdateContextState()
    if update == "block":
        result.beginIfBlock("always > 0")
        result.addUpdateContextState()
        result.endBlock()
    result.addComputePerDof("v", "v+0.5*dt*f/m")
    if update == "middle":
        result.addUpdateContextState()
    result.addComputePerDof("x", "x+dt*v")
    result.addComputePerDof("v", "v+0.5*dt*f/m")
    if update == "end":
        result.addUpdateContextState()
    return result


def energy_first() -> CustomIntegrator:
    result = CustomIntegrator(DT)
    result.addGlobalVariable("old", 0.0)
    result.addComputeGlobal("old", "energy")
    result.addUpdateContextState()
    result.addComputePerDof("v", "v+dt*f/m")
    result.addComputePerDof("x", "x+dt*v")
    return result


def compound(systems) -> CompoundIntegrator:
    result = CompoundIntegrator()
    result.addIntegrator(systems.langevin())
    result.addIntegrator(VerletIntegrator(DT))
    return result


def without_group_0(systems) -> VerletIntegrator:
    result = VerletIntegrator(DT)
    result.setIntegrationForceGroups({1})
    return result


INTEGRATORS: dict[str, Callable] = {
    "Langevin": lambda s: s.langevin(),
    "Verlet, whose kinetic energy needs forces": lambda _: VerletIntegrator(DT),
    "Verlet without group 0": without_group_0,
    "Brownian": lambda _: BrownianIntegrator(300, 100.0, 1e-4),
    "NoseHoover": lambda _: NoseHooverIntegrator(300, 10.0, DT),
    "MTS, bias outside": lambda _: MTSIntegrator(DT * unit.picosecond, [(0, 1), (1, 2)]),
    "MTS, bias inside": lambda _: MTSIntegrator(DT * unit.picosecond, [(1, 1), (0, 4)]),
    "MTSLangevin without group 0": lambda _: MTSLangevinIntegrator(
        300 * unit.kelvin, 1 / unit.picosecond, DT * unit.picosecond, [(1, 1), (2, 2)]
    ),
    "velocity Verlet": lambda _: velocity_verlet("start"),
    "velocity Verlet, update in the middle": lambda _: velocity_verlet("middle"),
    "velocity Verlet, update at the end": lambda _: velocity_verlet("end"),
    "velocity Verlet, update in a block": lambda _: velocity_verlet("block"),
    "velocity Verlet without update": lambda _: velocity_verlet("never"),
    "energy first": lambda _: energy_first(),
    "Compound": compound,
}


@pytest.mark.parametrize("name", INTEGRATORS)
def test_each_step_is_seen_once(systems, route, name):
    context = systems.gas(INTEGRATORS[name](systems), barostat=3)
    for force in context.getSystem().getForces():
        force.setForceGroup(1)
    context.reinitialize(preserveState=True)
    with pysamp.bind(route(context), METHOD) as bound:
        bound.reserve(40)
        rows = [bound.run(7, log_every=1)]
        context.getState(getForces=True, getEnergy=True)
        rows.append(bound.run(13, log_every=1))
        LocalEnergyMinimizer.minimize(context, maxIterations=3)
        rows.append(bound.run(1, log_every=1))
        snapshots, states = bound.snapshots(), bound.states
        rows.append(bound.run(3, log_every=1))
        bound.restore(snapshots)  # the step count goes back
        bound.states = states
        rows.append(bound.run(3, log_every=1))
        (state,) = bound.states
    steps = np.concatenate(rows, axis=1)[0, :, 0]
    assert steps.tolist() == [*range(24), 21, 22, 23]
    assert int(state.step) == 24
    assert int(state.methods[0].n_hills) == 23 // 4  # none at step 0


def test_reporters_that_ask_for_energy_and_forces_are_no_steps(systems, route):
    """Between the steps of a run, under a barostat: hills at the same steps as without them."""

    class Curious:
        def describeNextReport(self, simulation):  # noqa: N802 - OpenMM's name
            return {"steps": 1, "include": ["positions", "forces", "energy"]}

        def report(self, simulation, state):
            LocalEnergyMinimizer.minimize(simulation.context, maxIterations=1)
            energies.append(state.getPotentialEnergy())

    energies = []
    platform = Platform.getPlatformByName("Reference")
    simulation = app.Simulation(app.Topology(), systems.gas_system(barostat=3), systems.langevin(), platform)
    simulation.context.setPositions(systems.gas_positions())
    simulation.context.setVelocitiesToTemperature(300.0, 1)
    simulation.reporters.append(Curious())
    run = pysamp.run(METHOD, lambda: route(simulation), 21, log_every=1, progress=False)
    assert len(energies) == 21
    assert run.log.step.values.tolist() == [*range(21)]
    assert int(run.states[0].step) == 21
    assert int(run.states[0].methods[0].n_hills) == 20 // 4


def test_the_barostat_asks_for_more_evaluations_than_there_are_steps(systems):
    """So that the tests above are not empty."""
    context = systems.gas(barostat=2)
    with pysamp.bind(context, METHOD) as bound:
        bound.reserve(40)
        bound.run(40)
        n_steps, n_evaluations = bound._hook.counts
    assert (n_steps, n_evaluations) == (40, 40 + 2 * 20)


def test_an_integrator_that_ignores_the_bias_is_told(systems, route):
    """Forces in every second step only."""
    integrator = CustomIntegrator(DT)
    integrator.addGlobalVariable("odd", 0.0)
    integrator.addUpdateContextState()
    integrator.addComputeGlobal("odd", "1-odd")
    integrator.beginIfBlock("odd > 0")
    integrator.addComputePerDof("v", "v+2*dt*f/m")
    integrator.endBlock()
    integrator.addComputePerDof("x", "x+dt*v")
    with pysamp.bind(route(systems.gas(integrator)), METHOD) as bound:
        bound.reserve(10)
        with pytest.raises(pysamp.SimulationError, match="10 steps, but asked for the forces of the bias in 5"):
            bound.run(10)


def test_thermostat_collisions_and_drift_removal_go_on(systems, route):
    """Forces that act through updateContextState do so once per step, in the same order, under the bias."""
    trajectories = []
    for wrap in (None, route):
        thermostat = AndersenThermostat(300.0, 50.0)
        thermostat.setRandomNumberSeed(5)
        context = systems.gas(VerletIntegrator(DT), extra=[thermostat, systems.openmm.CMMotionRemover(2)])
        if wrap is None:
            context.getIntegrator().step(12)
        else:
            with pysamp.bind(wrap(context), pysamp.methods.Unbiased(Distance([0, 1]))) as bound:
                bound.run(5)
                bound.run(7)
        trajectories.append(systems.positions(context))
    assert np.array_equal(*trajectories)
