"""Free-energy surface of alanine dipeptide in vacuum (phi, psi) by different methods, against each other.

    python benchmarks/alanine_methods.py [--methods metadynamics,ABF] [--replicas 8] [--steps 2000000]

Prints the free-energy difference between the basins by each method, and the root-mean-square difference of the surfaces where
they lie below 30 kJ/mol; tests/validation asserts that they agree.
"""

import argparse
import itertools
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import systems

import pysamp
from pysamp.colvars import DihedralAngle
from pysamp.methods import ABF, OPES, ExtendedABF, Metadynamics, SpectralABF

LIMIT = 30.0  # kJ/mol
PHI, PSI = DihedralAngle([4, 6, 8, 14]), DihedralAngle([6, 8, 14, 16])


def torus(n: int) -> pysamp.Grid:
    """``n`` bins in both angles."""
    return pysamp.Grid((-math.pi, -math.pi), (math.pi, math.pi), (n, n), periodic=True)


SURFACE = torus(60)  # of all results
HILLS = Metadynamics([PHI, PSI], height=1.2, sigma=0.25, stride=250, bias_factor=10, grid=SURFACE)
METHODS = {
    "metadynamics": HILLS,
    "ABF": ABF([PHI, PSI], grid=SURFACE),
    "spectral ABF": SpectralABF([PHI, PSI], grid=SURFACE),
    "meta-eABF": ExtendedABF([PHI, PSI], grid=SURFACE, sigma=0.15, tau=0.2, hills=HILLS),
    "OPES": OPES([PHI, PSI], barrier=50.0, sigma=0.25, stride=500, grid=torus(100)),
}


@dataclass(frozen=True)
class Surface:
    """What one method finds.

    Attributes:
        fes: from all replicas together.
        difference: F(0 < phi < 2.2) - F(phi < 0), and its standard error [kJ/mol].
        of_replicas: the same of each replica alone.
    """

    fes: pysamp.FreeEnergy
    difference: tuple[float, float]
    of_replicas: list[tuple[float, float]]


def left(phi, psi):
    """The basins with phi < 0, C7eq among them."""
    return phi < 0


def right(phi, psi):
    """C7ax."""
    return (phi > 0) & (phi < 2.2)


def sample(name: str, *, replicas: int, steps: int, seed: int = 1) -> Surface:
    """Run one method on several replicas, two at a time."""
    with ThreadPoolExecutor(2) as executor:
        run = pysamp.run(
            METHODS[name],
            systems.vacuum,
            steps,
            replicas=replicas,
            seed=seed,
            executor=executor,
            progress=False,
            log_every=100,
        )
    fes = pysamp.analyze(run, grid=SURFACE)
    alone = [pysamp.analyze(run.replica(r), grid=SURFACE).difference(left, right) for r in range(replicas)]
    return Surface(fes, fes.difference(left, right), alone)


def rms_difference(one: pysamp.FreeEnergy, other: pysamp.FreeEnergy) -> float:
    """Root-mean-square difference where both are below the limit, less its mean [kJ/mol]."""
    low = (one.values < LIMIT) & (other.values < LIMIT)
    return float(np.std((one.values - other.values)[low]))


def compare(names: Sequence[str], *, replicas: int, steps: int) -> dict[str, Surface]:
    """Sample by each of the methods and print the table."""
    surfaces = {}
    print("| method | F(C7ax) - F(phi < 0) | mean of replicas | their spread | stated |\n|---|---|---|---|---|")
    for name in names:
        surfaces[name] = surface = sample(name, replicas=replicas, steps=steps)
        value, error = surface.difference
        values, errors = np.array(surface.of_replicas).T
        print(
            f"| {name} | {value:.2f} +- {error:.2f} | {values.mean():.2f} | {values.std(ddof=1):.2f} "
            f"| {np.sqrt(np.mean(errors**2)):.2f} |",
            flush=True,
        )
    for one, other in itertools.combinations(names, 2):
        print(f"{one} and {other}: rms {rms_difference(surfaces[one].fes, surfaces[other].fes):.2f} kJ/mol")
    return surfaces


def main() -> None:
    """Compare the methods."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--replicas", type=int, default=8)
    parser.add_argument("--steps", type=int, default=2_000_000, help="of each replica, 2 fs")
    arguments = parser.parse_args()
    compare(arguments.methods.split(","), replicas=arguments.replicas, steps=arguments.steps)


if __name__ == "__main__":
    main()
