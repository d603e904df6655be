"""What a bias costs per step on OpenMM's CUDA platform: the plain engine, PythonForce, and pysamp on the same GPU, by turns.

    python benchmarks/gpu.py [--cases vacuum,small,large] [--precision mixed] [--rounds 7] [--seconds 2.0] [--platform CUDA]

Microseconds per step, medians over rounds; "added" is paired with the plain engine round by round. The ratio is the speed left.
"""

import argparse
import statistics
from collections.abc import Callable

import openmm
import openmm_overhead
import systems
from openmm import app, unit

import pysamp
from pysamp.backends.openmm import PythonForceRoute
from pysamp.methods import Unbiased


def large(platform: str) -> app.Simulation:
    """Alanine dipeptide in a box of 6.2 nm, some 24 000 atoms, PME: the size of the usual benchmark protein."""
    pdb = app.PDBFile(str(systems.PDB))
    force_field = app.ForceField("amber14/protein.ff14SB.xml", "amber14/tip3p.xml")
    modeller = app.Modeller(pdb.topology, pdb.positions)
    modeller.addSolvent(force_field, model="tip3p", boxSize=openmm.Vec3(6.2, 6.2, 6.2) * unit.nanometer)
    system = force_field.createSystem(
        modeller.topology, nonbondedMethod=app.PME, nonbondedCutoff=0.9 * unit.nanometer, constraints=app.HBonds
    )
    integrator = openmm.LangevinMiddleIntegrator(300 * unit.kelvin, 1 / unit.picosecond, 2 * unit.femtoseconds)
    simulation = app.Simulation(modeller.topology, system, integrator, openmm.Platform.getPlatformByName(platform))
    simulation.context.setPositions(modeller.positions)
    simulation.minimizeEnergy(maxIterations=100)
    simulation.context.setVelocitiesToTemperature(300 * unit.kelvin, 1)
    return simulation


CASES = {"vacuum": systems.vacuum, "small": systems.water, "large": large}


def finishing(context: openmm.Context, step: Callable[[int], object]) -> Callable[[int], None]:
    """``step``, and wait until the GPU has done it."""

    def run(n: int) -> None:
        step(n)
        context.getState(getPositions=True)

    return run


def contenders(build: Callable[[str], app.Simulation], platform: str) -> list[openmm_overhead.Contender]:
    """The plain engine first."""
    result = []
    for name, method, wrap in (
        ("plain", None, None),
        ("pysamp, no bias", Unbiased([openmm_overhead.PHI, openmm_overhead.PSI]), lambda simulation: simulation),
        ("pysamp, metadynamics", openmm_overhead.metadynamics(), lambda simulation: simulation),
        ("PythonForce, metadynamics", openmm_overhead.metadynamics(), PythonForceRoute),
    ):
        simulation = build(platform)
        context = simulation.context
        if method is None or wrap is None:
            result.append(openmm_overhead.Contender(name, finishing(context, context.getIntegrator().step)))
        else:
            bound = pysamp.bind(wrap(simulation), method)
            bound.reserve(10**6)
            bound.run(100)
            name = f"{name} ({type(bound).__name__})"
            result.append(openmm_overhead.Contender(name, finishing(context, bound.run)))
    return result


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", default="vacuum,small,large")
    parser.add_argument("--precision", default="mixed")
    parser.add_argument("--platform", default="CUDA")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=2.0)
    arguments = parser.parse_args()
    platform = openmm.Platform.getPlatformByName(arguments.platform)
    if "Precision" in platform.getPropertyNames():
        platform.setPropertyDefaultValue("Precision", arguments.precision)
    print("| case | contender | us/step | added | ratio |\n|---|---|---|---|---|")
    for case in arguments.cases.split(","):
        measured = contenders(CASES[case], arguments.platform)
        openmm_overhead.measure(measured, arguments.rounds, arguments.seconds)
        plain = measured[0].whole
        for contender in measured:
            whole = statistics.median(contender.whole)
            added = statistics.median([a - b for a, b in zip(contender.whole, plain, strict=True)])
            print(f"| {case} | {contender.name} | {whole:.1f} | {added:.1f} | {statistics.median(plain) / whole:.3f} |")


if __name__ == "__main__":
    main()
