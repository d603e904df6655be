"""Free-energy surface of alanine dipeptide in vacuum (phi, psi) by different methods, against each other.

    python benchmarks/alanine_methods.py [--methods metadynamics,ABF] [--replicas 8] [--steps 2000000] [--figure FILE]

Prints the free-energy difference between the basins by each method, how often phi has turned forwards more than back in each
replica and when it first crossed its barrier, and the root-mean-square difference of the surfaces where they lie below
30 kJ/mol; tests/validation asserts that they agree. The windows of umbrella sampling share the same number of steps, and begin
at configurations of a short run of metadynamics.
"""

import argparse
import itertools
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import systems
from matplotlib.figure import Figure

import pysamp
from pysamp.analysis import evaluate
from pysamp.colvars import DihedralAngle
from pysamp.methods import ABF, OPES, ExtendedABF, Metadynamics, SpectralABF, UmbrellaSampling

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
    "eABF": ExtendedABF([PHI, PSI], grid=SURFACE, sigma=0.15, tau=0.2),
    "meta-eABF": ExtendedABF([PHI, PSI], grid=SURFACE, sigma=0.15, tau=0.2, hills=HILLS),
    "OPES": OPES([PHI, PSI], barrier=50.0, sigma=0.25, stride=500, grid=torus(100)),
    "umbrella sampling": UmbrellaSampling(
        [PHI, PSI], centers=torus(18).points.reshape(-1, 2), kspring=100.0, pull_steps=2000
    ),
}
VARIANTS = {  # what the docs say of the ramp: --methods "ABF,ABF 50,eABF,eABF 200"
    "ABF 50": ABF([PHI, PSI], grid=SURFACE, full_samples=50),
    "eABF 200": ExtendedABF([PHI, PSI], grid=SURFACE, sigma=0.15, tau=0.2, full_samples=200),
}


@dataclass(frozen=True)
class Surface:
    """What one method finds.

    Attributes:
        fes: from all replicas together.
        difference: F(0 < phi < 2.2) - F(phi < 0), and its standard error [kJ/mol].
        of_replicas: the same of each replica alone; for windows, which make one result together, only that.
        turns: of phi in each replica, those backwards taken off: few, unless a bias drives the molecule in circles.
        crossed: when phi first came to lie between 0.3 and 2 [ns]; infinite if not at all.
    """

    fes: pysamp.FreeEnergy
    difference: tuple[float, float]
    of_replicas: list[tuple[float, float]]
    turns: np.ndarray
    crossed: np.ndarray


def left(phi, psi):
    """The basins with phi < 0, C7eq among them."""
    return phi < 0


def right(phi, psi):
    """C7ax."""
    return (phi > 0) & (phi < 2.2)


def starts(method: UmbrellaSampling) -> list[dict[str, np.ndarray]]:
    """A configuration near the centre of each window, from a run of metadynamics.

    Restraints that all begin in one basin pull the molecule over the barrier while its peptide planes stay behind, for longer
    than a window lasts; then the other basin seems higher by 2.5 kJ/mol.
    """
    frames: list[np.ndarray] = []
    pysamp.run(
        HILLS,
        systems.vacuum,
        500_000,
        seed=0,
        progress=False,
        callback=pysamp.Callback(lambda bound, _: frames.append(bound.snapshots()[0].positions), every=100),
    )
    xi = evaluate([PHI, PSI], np.stack(frames))
    away = (xi[None] - method.centers[:, None] + math.pi) % (2 * math.pi) - math.pi
    return [{"positions": frames[i]} for i in np.argmin((away**2).sum(axis=-1), axis=1)]


def sample(name: str, *, replicas: int, steps: int, seed: int = 1) -> Surface:
    """Run one method on several replicas, two at a time."""
    method = (METHODS | VARIANTS)[name]
    windows = method.n_replicas
    context_args = None
    if isinstance(method, UmbrellaSampling):
        replicas, steps, context_args = 1, replicas * steps // windows, starts(method)
    with ThreadPoolExecutor(2) as executor:
        run = pysamp.run(
            method,
            systems.vacuum,
            steps,
            replicas=replicas,
            context_args=context_args,
            seed=seed,
            executor=executor,
            progress=False,
            log_every=50,
        )
    fes = pysamp.analyze(run, grid=SURFACE)
    difference = fes.difference(left, right)
    if windows > 1:
        return Surface(fes, difference, [difference], np.zeros(0), np.zeros(0))
    phi = run.log.xi.values[..., 0]
    beyond = (phi > 0.3) & (phi < 2.0)
    crossed = np.where(beyond.any(axis=1), 2e-6 * run.log.step.values[beyond.argmax(axis=1)], np.inf)
    phi = np.unwrap(phi, axis=1)
    turns = (phi[:, -1] - phi[:, 0]) / (2 * math.pi)
    alone = [pysamp.analyze(run.replica(r), grid=SURFACE).difference(left, right) for r in range(replicas)]
    return Surface(fes, difference, alone, turns, crossed)


def rms_difference(one: pysamp.FreeEnergy, other: pysamp.FreeEnergy) -> float:
    """Root-mean-square difference where both are below the limit, less its mean [kJ/mol]."""
    low = (one.values < LIMIT) & (other.values < LIMIT)
    return float(np.std((one.values - other.values)[low]))


def compare(names: Sequence[str], *, replicas: int, steps: int) -> dict[str, Surface]:
    """Sample by each of the methods and print the table."""
    surfaces = {}
    print(
        "| method | F(C7ax) - F(phi < 0) | mean of replicas | their spread | stated | turns of phi | first crossing, ns |\n"
        "|---|---|---|---|---|---|---|"
    )
    for name in names:
        surfaces[name] = surface = sample(name, replicas=replicas, steps=steps)
        value, error = surface.difference
        values, errors = np.array(surface.of_replicas).T
        alone = " | | | | "
        if len(values) > 1:
            alone = f"{values.mean():.2f} | {values.std(ddof=1):.2f} | {np.sqrt(np.mean(errors**2)):.2f} | "
            alone += ", ".join(f"{turns:.0f}" for turns in surface.turns)
            alone += f" | {surface.crossed.min():.2f} to {surface.crossed.max():.2f}"
        print(f"| {name} | {value:.2f} +- {error:.2f} | {alone} |", flush=True)
    for one, other in itertools.combinations(names, 2):
        print(f"{one} and {other}: rms {rms_difference(surfaces[one].fes, surfaces[other].fes):.2f} kJ/mol")
    return surfaces


def draw(surfaces: dict[str, Surface], path: str) -> None:
    """The surfaces side by side."""
    columns, rows = 3, -(-len(surfaces) // 3)
    figure = Figure(figsize=(3.4 * columns, 3 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    phi, psi = SURFACE.points[..., 0], SURFACE.points[..., 1]
    filled = None
    for ax, (name, surface) in zip(axes.flat, surfaces.items(), strict=False):
        filled = ax.contourf(phi, psi, surface.fes.values, levels=np.arange(0, 61, 5), cmap="viridis")
        ax.contour(phi, psi, surface.fes.values, levels=[LIMIT], colors="white", linewidths=0.8)
        ax.set_title(f"{name}: {surface.difference[0]:.2f} ± {surface.difference[1]:.2f}", fontsize=9)
    for ax in axes[-1]:
        ax.set_xlabel("phi, rad")
    for ax in axes[:, 0]:
        ax.set_ylabel("psi, rad")
    if filled is not None:
        figure.colorbar(filled, ax=axes, label="F, kJ/mol")
    figure.savefig(path, dpi=110)


def main() -> None:
    """Compare the methods."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--replicas", type=int, default=8)
    parser.add_argument("--steps", type=int, default=2_000_000, help="of each replica, 2 fs")
    parser.add_argument("--figure", help="file for a picture of the surfaces")
    arguments = parser.parse_args()
    surfaces = compare(arguments.methods.split(","), replicas=arguments.replicas, steps=arguments.steps)
    if arguments.figure:
        draw(surfaces, arguments.figure)


if __name__ == "__main__":
    main()
