"""OpenMM systems for the benchmarks."""

from pathlib import Path

import numpy as np
import openmm
from openmm import app, unit

PDB = Path(__file__).parent.parent / "examples" / "alanine_dipeptide.pdb"


def _simulation(topology, system, positions, platform: str) -> app.Simulation:
    integrator = openmm.LangevinMiddleIntegrator(300 * unit.kelvin, 1 / unit.picosecond, 2 * unit.femtoseconds)
    simulation = app.Simulation(topology, system, integrator, openmm.Platform.getPlatformByName(platform))
    simulation.context.setPositions(positions)
    simulation.context.setVelocitiesToTemperature(300 * unit.kelvin, 1)
    return simulation


def vacuum(platform: str = "Reference", positions: np.ndarray | None = None) -> app.Simulation:
    """Alanine dipeptide in vacuum, ff14SB; at its minimum, or at these positions [nm]."""
    pdb = app.PDBFile(str(PDB))
    force_field = app.ForceField("amber14/protein.ff14SB.xml")
    system = force_field.createSystem(pdb.topology, nonbondedMethod=app.NoCutoff, constraints=app.HBonds)
    return _simulation(pdb.topology, system, pdb.positions if positions is None else positions, platform)


def water(platform: str = "CPU") -> app.Simulation:
    """Alanine dipeptide in about 750 TIP3P waters, PME."""
    pdb = app.PDBFile(str(PDB))
    force_field = app.ForceField("amber14/protein.ff14SB.xml", "amber14/tip3p.xml")
    modeller = app.Modeller(pdb.topology, pdb.positions)
    modeller.addSolvent(force_field, model="tip3p", numAdded=749)
    system = force_field.createSystem(
        modeller.topology, nonbondedMethod=app.PME, nonbondedCutoff=0.9 * unit.nanometer, constraints=app.HBonds
    )
    simulation = _simulation(modeller.topology, system, modeller.positions, platform)
    simulation.minimizeEnergy(maxIterations=100)
    simulation.context.setVelocitiesToTemperature(300 * unit.kelvin, 1)
    return simulation


def cheap(n_particles: int = 1_000_000, platform: str = "CPU") -> openmm.Context:
    """Many particles without forces: whatever grows with the size of the system shows."""
    system = openmm.System()
    for _ in range(n_particles):
        system.addParticle(12.0)
    positions = np.random.default_rng(0).normal(size=(n_particles, 3))
    integrator = openmm.VerletIntegrator(0.002)
    context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName(platform))
    context.setPositions(positions)
    context.setVelocities(0.01 * positions)
    return context
