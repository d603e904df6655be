"""Free-energy surface of alanine dipeptide in vacuum: well-tempered metadynamics in phi and psi, with OpenMM on the CPU.

    python examples/alanine_dipeptide.py [--steps 2000000] [--platform Reference] [--output results]

Writes the result (netCDF), the surface as a figure, and prints the free-energy difference between the basins phi < 0 and
phi > 0 with its standard error, and what the bias costs per step.
"""

import argparse
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import openmm
from openmm import app, unit

import pysamp
from pysamp.colvars import DihedralAngle
from pysamp.methods import Metadynamics

PDB = Path(__file__).with_name("alanine_dipeptide.pdb")


def generate_context(platform: str = "Reference") -> app.Simulation:
    """An ordinary OpenMM script: Amber ff14SB, no cutoff, bonds to hydrogen constrained, 300 K, 2 fs."""
    pdb = app.PDBFile(str(PDB))
    force_field = app.ForceField("amber14/protein.ff14SB.xml")
    system = force_field.createSystem(pdb.topology, nonbondedMethod=app.NoCutoff, constraints=app.HBonds)
    integrator = openmm.LangevinMiddleIntegrator(300 * unit.kelvin, 1 / unit.picosecond, 2 * unit.femtoseconds)
    simulation = app.Simulation(pdb.topology, system, integrator, openmm.Platform.getPlatformByName(platform))
    simulation.context.setPositions(pdb.positions)
    simulation.context.setVelocitiesToTemperature(300 * unit.kelvin, 1)
    return simulation


def metadynamics() -> Metadynamics:
    """Well-tempered metadynamics in the two backbone torsions."""
    phi, psi = DihedralAngle([4, 6, 8, 14]), DihedralAngle([6, 8, 14, 16])
    return Metadynamics(
        [phi, psi],
        height=1.2,  # kJ/mol
        sigma=0.35,  # rad
        stride=250,
        bias_factor=10,
        grid=pysamp.Grid((-math.pi, -math.pi), (math.pi, math.pi), (100, 100), periodic=True),
    )


def microseconds_per_step(step: Callable[[int], Any], n_steps: int) -> float:
    """Wall time of one step, over ``n_steps``."""
    start = time.perf_counter()
    step(n_steps)
    return 1e6 * (time.perf_counter() - start) / n_steps


def overhead(platform: str, n_steps: int = 20_000, repeats: int = 5) -> tuple[float, float]:
    """Microseconds per step of the plain engine and of the biased one, in turn; the median of each."""
    plain = generate_context(platform)
    plain.step(1000)
    times = []
    with pysamp.bind(generate_context(platform), metadynamics()) as bound:
        bound.reserve(n_steps * (repeats + 1))
        bound.run(1000)
        for _ in range(repeats):
            times.append((microseconds_per_step(plain.step, n_steps), microseconds_per_step(bound.run, n_steps)))
    return tuple(sorted(column)[repeats // 2] for column in zip(*times, strict=True))


def main() -> None:
    """Run the example."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--steps", type=int, default=2_000_000, help="MD steps of 2 fs (default 2000000)")
    parser.add_argument(
        "--platform", default="Reference", help="OpenMM platform; small systems are fastest on Reference"
    )
    parser.add_argument("--output", type=Path, default=Path("results"), help="folder for the result and the figure")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    mpl.use("Agg")

    result = pysamp.run(
        metadynamics(),
        generate_context,
        arguments.steps,
        context_args={"platform": arguments.platform},
        seed=arguments.seed,
    )
    pysamp.save(result, arguments.output / "alanine_dipeptide.nc")

    fes = pysamp.analyze(result)
    ax = fes.plot()
    ax.set(xlabel="phi [rad]", ylabel="psi [rad]", title="Alanine dipeptide, ff14SB, vacuum, 300 K")
    ax.figure.savefig(arguments.output / "alanine_dipeptide.png", dpi=150, bbox_inches="tight")

    try:
        difference, error = fes.difference(lambda phi, psi: phi < 0, lambda phi, psi: (phi > 0) & (phi < 2.2))
        print(f"F(0 < phi < 2.2) - F(phi < 0) = {difference:.2f} +- {error:.2f} kJ/mol")
    except pysamp.InvalidInputError as reason:  # a short run
        print(f"No free-energy difference between phi < 0 and phi > 0: {reason}")
    plain, biased = overhead(arguments.platform)
    print(f"plain OpenMM {plain:.1f} us per step, with metadynamics {biased:.1f}: {biased - plain:+.1f} us")
    print(f"written: {arguments.output / 'alanine_dipeptide.nc'}, {arguments.output / 'alanine_dipeptide.png'}")


if __name__ == "__main__":
    main()
