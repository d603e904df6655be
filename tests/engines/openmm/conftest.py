"""Small systems for the tests of the OpenMM backend."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

openmm = pytest.importorskip("openmm")
from openmm import app, unit  # noqa: E402

KB = 0.00831446261815324  # kJ/mol/K
ALANINE = Path(__file__).parents[3] / "examples" / "alanine_dipeptide.pdb"


@pytest.fixture(params=["native", "python"])
def route(request: pytest.FixtureRequest) -> Callable[[Any], Any]:
    """What to pass to ``bind`` for a simulation."""
    from pysamp.backends.openmm import PythonForceRoute

    return PythonForceRoute if request.param == "python" else lambda simulation: simulation


def langevin(timestep: float = 0.002, *, temperature: float = 300.0, friction: float = 1.0, seed: int = 1) -> Any:
    integrator = openmm.LangevinMiddleIntegrator(temperature, friction, timestep)
    integrator.setRandomNumberSeed(seed)
    return integrator


def context(system: Any, integrator: Any, positions: Any, platform: str = "Reference") -> Any:
    properties = {"Threads": os.environ.get("OPENMM_CPU_THREADS", "1")} if platform == "CPU" else {}
    result = openmm.Context(system, integrator, openmm.Platform.getPlatformByName(platform), properties)
    result.setPositions(positions)
    return result


def dimer_system(*, masses: tuple = (10.0, 20.0), kspring: float = 500.0) -> Any:
    """Two particles and a spring, in vacuum."""
    system = openmm.System()
    for mass in masses:
        system.addParticle(mass)
    bond = openmm.HarmonicBondForce()
    bond.addBond(0, 1, 0.3, kspring)
    system.addForce(bond)
    return system


def dimer(integrator: Any = None, *, platform: str = "Reference", velocities: bool = True, **options: Any) -> Any:
    result = context(dimer_system(**options), integrator or langevin(), [[0, 0, 0], [0.33, 0.01, 0.02]], platform)
    if velocities:
        result.setVelocitiesToTemperature(300.0, 1)
    return result


def gas_system(n: int = 8, *, length: float = 2.0, epsilon: float = 1.0, barostat: int = 0, mass: float = 40.0) -> Any:
    """Argon, or an ideal gas with epsilon=0; with a Monte Carlo barostat every so many steps."""
    system = openmm.System()
    system.setDefaultPeriodicBoxVectors([length, 0, 0], [0, length, 0], [0, 0, length])
    nonbonded = openmm.NonbondedForce()
    nonbonded.setNonbondedMethod(openmm.NonbondedForce.CutoffPeriodic)
    nonbonded.setCutoffDistance(0.8)
    nonbonded.setUseDispersionCorrection(False)
    for _ in range(n):
        system.addParticle(mass)
        nonbonded.addParticle(0.0, 0.34, epsilon)
    system.addForce(nonbonded)
    if barostat:
        force = openmm.MonteCarloBarostat(10.0, 300.0, barostat)
        force.setRandomNumberSeed(3)
        system.addForce(force)
    return system


def gas_positions(n: int = 8, length: float = 2.0) -> np.ndarray:
    side = int(np.ceil(n ** (1 / 3)))
    grid = np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)[:n]
    return (grid + 0.5) * length / side + 0.02 * np.random.default_rng(0).normal(size=(n, 3))


def gas(
    integrator: Any = None,
    *,
    platform: str = "Reference",
    n: int = 8,
    length: float = 2.0,
    extra: Sequence[Any] = (),
    **options: Any,
) -> Any:
    system = gas_system(n, length=length, **options)
    for force in extra:
        system.addForce(force)
    result = context(system, integrator or langevin(), gas_positions(n, length), platform)
    result.setVelocitiesToTemperature(300.0, 1)
    return result


def triclinic(platform: str = "Reference") -> Any:
    """Argon in a skewed box; particles 0 and 1 are neighbours through its faces."""
    box = np.array([[2.0, 0, 0], [0.9, 1.8, 0], [-0.8, 0.7, 1.9]])
    system = gas_system()
    system.setDefaultPeriodicBoxVectors(*box)
    positions = gas_positions() / 2.0 @ box
    positions[1] = positions[0] + [0.35, 0.1, 0.0] - box[1] + box[2]
    result = context(system, langevin(), positions, platform)
    result.setVelocitiesToTemperature(300.0, 1)
    return result


def water(platform: str = "Reference", *, n: int = 4) -> Any:
    """Rigid four-site water, the fourth a virtual site, in a periodic box."""
    model = app.ForceField("tip4pew.xml")
    modeller = app.Modeller(app.Topology(), [] * unit.nanometer)
    modeller.addSolvent(model, model="tip4pew", numAdded=n)
    modeller.topology.setUnitCellDimensions(openmm.Vec3(2.0, 2.0, 2.0))
    system = model.createSystem(
        modeller.topology, nonbondedMethod=app.CutoffPeriodic, nonbondedCutoff=0.8, rigidWater=True
    )
    system.setDefaultPeriodicBoxVectors([2.0, 0, 0], [0, 2.0, 0], [0, 0, 2.0])
    result = context(system, langevin(), modeller.positions, platform)
    result.applyConstraints(1e-8)
    result.computeVirtualSites()
    result.setVelocitiesToTemperature(300.0, 1)
    return result


def alanine(platform: str = "Reference", *, integrator: Any = None) -> Any:
    """Alanine dipeptide in vacuum with constrained bonds to hydrogen, as an ``app.Simulation``."""
    pdb = app.PDBFile(str(ALANINE))
    field = app.ForceField("amber14/protein.ff14SB.xml")
    system = field.createSystem(pdb.topology, nonbondedMethod=app.NoCutoff, constraints=app.HBonds)
    simulation = app.Simulation(
        pdb.topology, system, integrator or langevin(), openmm.Platform.getPlatformByName(platform)
    )
    simulation.context.setPositions(pdb.positions)
    simulation.context.setVelocitiesToTemperature(300.0, 1)
    return simulation


def well(
    integrator: Any, *, n: int = 16, kspring: float = 1.0, platform: str = "Reference", extra: Sequence[Any] = ()
) -> Any:
    """Independent particles of mass 1, each in a harmonic well."""
    system = openmm.System()
    force = openmm.CustomExternalForce("0.5*k*(x^2+y^2+z^2)")
    force.addGlobalParameter("k", kspring)
    for i in range(n):
        system.addParticle(1.0)
        force.addParticle(i, [])
    for added in (force, *extra):
        system.addForce(added)
    result = context(system, integrator, np.random.default_rng(0).normal(size=(n, 3)), platform)
    result.setVelocitiesToTemperature(1.0 / KB, 1)
    return result


def positions(context: Any) -> np.ndarray:
    return context.getState(getPositions=True).getPositions(asNumpy=True).value_in_unit(unit.nanometer)


def velocities(context: Any) -> np.ndarray:
    state = context.getState(getVelocities=True)
    return state.getVelocities(asNumpy=True).value_in_unit(unit.nanometer / unit.picosecond)


def energy(context: Any) -> float:
    return context.getState(getEnergy=True).getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)


def forces(context: Any) -> np.ndarray:
    state = context.getState(getForces=True)
    return state.getForces(asNumpy=True).value_in_unit(unit.kilojoule_per_mole / unit.nanometer)
