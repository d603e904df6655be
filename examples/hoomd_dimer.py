"""A dimer in a solvent, with HOOMD-blue: free energy of its bond by well-tempered metadynamics, against an unbiased run.

    python examples/hoomd_dimer.py [--steps 400000] [--unbiased 2000000] [--output results]

HOOMD-blue comes from conda-forge (``conda install -c conda-forge hoomd``) or is built from source. Two of 216 particles with
purely repulsive (WCA) interactions are bound by a double well, short at 1.12 sigma and long at 1.62 sigma, so the solvent takes
part in which is preferred. With ``--unbiased N`` the same system also runs N steps without a bias, often enough over its
barrier of some 4 kT to give the same free energy by counting.
"""

# pyright: reportMissingImports=false, reportOptionalMemberAccess=false

import argparse
from pathlib import Path

import hoomd
import hoomd.md
import numpy as np

import pysamp
from pysamp.colvars import Distance
from pysamp.methods import HarmonicWalls, Metadynamics, Unbiased

SHORT = 2 ** (1 / 6)  # sigma
LONG = SHORT + 0.5
N_SIDE, DENSITY = 6, 0.7
BARRIER = 4.0  # epsilon; kT is 1


def generate_context(seed: int = 1) -> hoomd.Simulation:
    """An ordinary HOOMD script: 216 WCA particles, two of them bound, Langevin dynamics at kT = 1."""
    n = N_SIDE**3
    spacing = DENSITY ** (-1 / 3)
    length = N_SIDE * spacing
    grid = np.stack(np.meshgrid(*[np.arange(N_SIDE)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)

    snapshot = hoomd.Snapshot()
    snapshot.configuration.box = [length, length, length, 0, 0, 0]
    snapshot.particles.types = ["A"]
    snapshot.particles.N = n
    snapshot.particles.position[:] = (grid + 0.5) * spacing - length / 2
    snapshot.bonds.types = ["dimer"]
    snapshot.bonds.N = 1
    snapshot.bonds.group[:] = [[0, 1]]

    simulation = hoomd.Simulation(device=hoomd.device.CPU(), seed=seed)
    simulation.create_state_from_snapshot(snapshot)
    simulation.state.thermalize_particle_momenta(filter=hoomd.filter.All(), kT=1.0)

    wca = hoomd.md.pair.LJ(nlist=hoomd.md.nlist.Cell(buffer=0.4), default_r_cut=2 ** (1 / 6), mode="shift")
    wca.params[("A", "A")] = {"epsilon": 1.0, "sigma": 1.0}
    r = np.linspace(0.5, 3.0, 2501)
    middle, width = 0.5 * (SHORT + LONG), 0.5 * (LONG - SHORT)
    u = (r - middle) / width
    double_well = hoomd.md.bond.Table(width=len(r))
    double_well.params["dimer"] = {
        "r_min": r[0],
        "r_max": r[-1],
        "U": BARRIER * (u**2 - 1) ** 2,
        "F": -4 * BARRIER * u * (u**2 - 1) / width,
    }

    langevin = hoomd.md.methods.Langevin(filter=hoomd.filter.All(), kT=1.0, default_gamma=1.0)
    simulation.operations.integrator = hoomd.md.Integrator(dt=0.005, methods=[langevin], forces=[wca, double_well])
    return simulation


def metadynamics() -> list:
    """Hills in the length of the bond, and a wall that ends it."""
    distance = Distance([0, 1])
    return [
        Metadynamics(
            distance, height=0.3, sigma=0.05, stride=200, bias_factor=6, grid=pysamp.Grid(0.8, 2.2, 140, periodic=False)
        ),
        HarmonicWalls(distance, lower=0.85, upper=2.0, kspring=1000.0),
    ]


def short(r):
    """The short bond."""
    return r < 0.5 * (SHORT + LONG)


def long(r):
    """The long bond."""
    return (r > 0.5 * (SHORT + LONG)) & (r < 2.0)


def counted(run: pysamp.Run, n_blocks: int = 10) -> tuple[float, float]:
    """Free-energy difference long - short [kT] of an unbiased run by counting, and its standard error from blocks of time."""
    r = run.log.xi.values[0, :, 0]
    blocks = np.array([(long(block).sum(), short(block).sum()) for block in np.array_split(r, n_blocks)], dtype=float)
    without = blocks.sum(axis=0) - blocks
    leave_out = -np.log(without[:, 0] / without[:, 1])
    difference = -np.log(blocks[:, 0].sum() / blocks[:, 1].sum())
    return difference, float(np.sqrt((n_blocks - 1) * leave_out.var()))


def main() -> None:
    """Run the example."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--steps", type=int, default=400_000)
    parser.add_argument("--unbiased", type=int, default=0, help="steps without a bias, to compare with")
    parser.add_argument("--output", type=Path, default=Path("results"), help="folder for the result")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)

    result = pysamp.run(metadynamics(), generate_context, arguments.steps, seed=1)
    pysamp.save(result, arguments.output / "hoomd_dimer.nc")
    free_energy = pysamp.analyze(result)
    difference, error = free_energy.difference(short, long)
    print(f"F(long) - F(short) = {difference:.2f} +- {error:.2f} kT, metadynamics of {arguments.steps} steps")
    if arguments.unbiased:
        plain = pysamp.run(Unbiased(Distance([0, 1])), generate_context, arguments.unbiased, seed=2, log_every=50)
        difference, error = counted(plain)
        print(
            f"F(long) - F(short) = {difference:.2f} +- {error:.2f} kT, counted in {arguments.unbiased} unbiased steps"
        )


if __name__ == "__main__":
    main()
