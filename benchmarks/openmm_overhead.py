"""What a bias costs per step on OpenMM: the plain engine, OpenMM's own metadynamics, PythonForce, and pysamp, in one run.

    python benchmarks/openmm_overhead.py [--cases vacuum,water,...] [--rounds 7] [--seconds 1.0] [--json FILE]

Contenders of a case take turns (A B C A B C ...), so that a drift of the machine's speed meets all of them. Two figures each:
whole steps (its time per step less the plain engine's, paired round by round) and, where it can be measured from inside, the
time that the engine waited for the bias per step ("in place"). Medians over rounds; the spread is half the interquartile range.
"""

import argparse
import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import openmm
import systems
from openmm import app, unit

import pysamp
from pysamp.backends.openmm import PythonForceRoute
from pysamp.colvars import Component, DihedralAngle, custom
from pysamp.methods import ABF, HarmonicBias, Metadynamics, Unbiased

KT = 2.494


def dihedral(x):
    """A torsion angle as a user would write it."""
    b1, b2, b3 = x[1] - x[0], x[2] - x[1], x[3] - x[2]
    n1, n2 = jnp.cross(b1, b2), jnp.cross(b2, b3)
    return jnp.arctan2(jnp.linalg.norm(b2) * jnp.sum(b1 * n2), jnp.sum(n1 * n2))


def torus(*shape: int) -> pysamp.Grid:
    """A grid over angles."""
    return pysamp.Grid([-math.pi] * len(shape), [math.pi] * len(shape), shape, periodic=True)


PHI, PSI = DihedralAngle([4, 6, 8, 14]), DihedralAngle([6, 8, 14, 16])
OMEGA = DihedralAngle([1, 4, 6, 8])


def metadynamics(*, shape=(100, 100), stride=500, cvs=(PHI, PSI), **options) -> Metadynamics:
    """The same well-tempered metadynamics everywhere."""
    grid = torus(*shape) if shape else None
    return Metadynamics(list(cvs), height=1.2, sigma=0.35, stride=stride, bias_factor=10, grid=grid, **options)


@dataclass
class Contender:
    """One way to run a system: ``step(n)`` runs n steps; ``waited()`` is the time inside since the last call, or None."""

    name: str
    step: Callable[[int], object]
    waited: Callable[[], float] | None = None
    whole: list[float] = field(default_factory=list)
    in_place: list[float] = field(default_factory=list)


def plain(simulation) -> Contender:
    """The engine alone."""

    def step(n: int) -> None:
        context = simulation if isinstance(simulation, openmm.Context) else simulation.context
        context.getIntegrator().step(n)

    return Contender("plain", step)


def openmm_metadynamics(simulation, *, stride: int = 500, bins: int = 100, n_cvs: int = 2) -> Contender:
    """OpenMM's own metadynamics; bias files switched off."""
    variables = []
    for atoms in ((4, 6, 8, 14), (6, 8, 14, 16), (1, 4, 6, 8))[:n_cvs]:
        force = openmm.CustomTorsionForce("theta")
        force.addTorsion(*atoms)
        variables.append(app.BiasVariable(force, -math.pi, math.pi, 0.35, True, bins))
    own = app.Metadynamics(
        simulation.system,
        variables,
        300 * unit.kelvin,
        10,
        1.2 * unit.kilojoules_per_mole,
        stride,
        10**9,
        tempfile.mkdtemp(),
    )
    simulation.context.reinitialize(preserveState=True)
    return Contender("OpenMM's own", lambda n: own.step(simulation, n))


def biased(simulation, method, name: str = "pysamp", warm_up: Callable | None = None) -> Contender:
    """Pysamp on either route."""
    bound = pysamp.bind(simulation, method)
    bound.reserve(10**6)
    if warm_up is not None:
        warm_up(bound)
    bound.run(10)
    waited = None
    if not isinstance(simulation, PythonForceRoute):
        bound._hook.seconds()
        waited = bound._hook.seconds
    return Contender(name, bound.run, waited)


def with_hills(n: int) -> Callable:
    """Put ``n`` hills into a metadynamics state."""

    def warm_up(bound) -> None:
        (state,) = bound.states
        before = bound.sampler.reserve(state, 500 * n).methods[0]
        rng = np.random.default_rng(0)
        hills = np.array(before.hills)
        hills[:-1, :n] = rng.uniform(-math.pi, math.pi, (len(hills) - 1, n))
        hills[-1, :n] = 1e-4
        after = eqx.tree_at(lambda s: (s.hills, s.n_hills), before, (hills, np.asarray(n, dtype=np.int64)))
        bound.states = [eqx.tree_at(lambda s: s.methods, state, (after,))]

    return warm_up


def measure(contenders: list[Contender], rounds: int, seconds: float) -> None:
    """Fill in the figures."""
    n_steps = {}
    for contender in contenders:
        contender.step(10)
        start = time.perf_counter()
        contender.step(50)
        n_steps[contender.name] = max(20, int(50 * seconds / (time.perf_counter() - start)))
    for _ in range(rounds):
        for contender in contenders:
            n = n_steps[contender.name]
            if contender.waited is not None:
                contender.waited()
            start = time.perf_counter()
            contender.step(n)
            contender.whole.append(1e6 * (time.perf_counter() - start) / n)
            if contender.waited is not None:
                contender.in_place.append(1e6 * contender.waited() / n)


def case_vacuum() -> list[Contender]:
    """Metadynamics on phi/psi, 100 x 100, vacuum, Reference."""
    return [
        plain(systems.vacuum()),
        openmm_metadynamics(systems.vacuum()),
        biased(systems.vacuum(), metadynamics()),
        biased(PythonForceRoute(systems.vacuum()), metadynamics(), "pysamp, PythonForce"),
        biased(systems.vacuum(), Unbiased([PHI, PSI]), "pysamp, no bias"),
    ]


def case_water() -> list[Contender]:
    """The same in explicit water, CPU platform."""
    return [
        plain(systems.water()),
        openmm_metadynamics(systems.water()),
        biased(systems.water(), metadynamics()),
        biased(PythonForceRoute(systems.water()), metadynamics(), "pysamp, PythonForce"),
    ]


def case_harmonic() -> list[Contender]:
    """Harmonic bias on two CVs written by the user, vacuum."""
    cvs = [custom(dihedral, atoms=atoms, period=2 * math.pi) for atoms in ([4, 6, 8, 14], [6, 8, 14, 16])]
    method = HarmonicBias(cvs, kspring=10.0, center=[-1.0, 1.0])
    return [
        plain(systems.vacuum()),
        biased(systems.vacuum(), method),
        biased(PythonForceRoute(systems.vacuum()), method, "pysamp, PythonForce"),
    ]


def case_abf() -> list[Contender]:
    """ABF on phi/psi, 50 x 50, with momenta, vacuum."""
    return [plain(systems.vacuum()), biased(systems.vacuum(), ABF([PHI, PSI], grid=torus(50, 50)))]


def case_million() -> list[Contender]:
    """Metadynamics in a system of 10^6 cheap particles."""
    cvs = [Component([0, 1], axis=0), Component([2, 3], axis=1)]
    method = Metadynamics(
        cvs, height=0.1, sigma=0.2, stride=500, bias_factor=10, kT=KT, grid=pysamp.Grid((-5, -5), (5, 5), (100, 100))
    )
    return [plain(systems.cheap()), biased(systems.cheap(), method)]


def case_deposit() -> list[Contender]:
    """A hill at every step on the 100 x 100 grid, less a hill every 10^9 steps."""
    return [
        plain(systems.vacuum()),
        biased(systems.vacuum(), metadynamics(stride=10**9), "pysamp, no hills"),
        biased(systems.vacuum(), metadynamics(stride=1, kT=KT), "pysamp, a hill every step"),
        openmm_metadynamics(systems.vacuum(), stride=10**9),
        openmm_metadynamics(systems.vacuum(), stride=1),
    ]


def case_no_grid() -> list[Contender]:
    """Without grid, 10^4 hills."""
    return [
        plain(systems.vacuum()),
        biased(systems.vacuum(), metadynamics(shape=None), "pysamp, 10^2 hills", with_hills(100)),
        biased(systems.vacuum(), metadynamics(shape=None), "pysamp, 10^3 hills", with_hills(1000)),
        biased(systems.vacuum(), metadynamics(shape=None), "pysamp, 10^4 hills", with_hills(10_000)),
    ]


def case_grid3() -> list[Contender]:
    """A 50 x 50 x 50 grid: no hills, and a hill every step."""
    cvs, shape = (PHI, PSI, OMEGA), (50, 50, 50)
    return [
        plain(systems.vacuum()),
        biased(systems.vacuum(), metadynamics(shape=shape, cvs=cvs, stride=10**9), "pysamp, no hills"),
        biased(systems.vacuum(), metadynamics(shape=shape, cvs=cvs, stride=1), "pysamp, a hill every step"),
        openmm_metadynamics(systems.vacuum(), stride=10**9, bins=50, n_cvs=3),
    ]


CASES = {name.removeprefix("case_"): case for name, case in globals().items() if name.startswith("case_")}


def summary(values: list[float]) -> tuple[float, float]:
    """Median and half the interquartile range."""
    if len(values) < 2:
        return values[0], math.nan
    low, middle, high = statistics.quantiles(values, n=4)
    return middle, 0.5 * (high - low)


def main() -> None:
    """Run the cases and print one table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cases", default=",".join(CASES), help=f"of {', '.join(CASES)}")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.5, help="of each contender per round")
    parser.add_argument("--json", help="write the figures there as well")
    arguments = parser.parse_args()
    results = []
    print(f"OpenMM {openmm.__version__}, Python {sys.version.split()[0]}; microseconds per step", flush=True)
    print("| case | contender | whole step | added to plain | in place |\n|---|---|---|---|---|")
    for name in arguments.cases.split(","):
        contenders = CASES[name]()
        measure(contenders, arguments.rounds, arguments.seconds)
        reference = contenders[0].whole
        for contender in contenders:
            whole, _ = summary(contender.whole)
            added, spread = summary([a - b for a, b in zip(contender.whole, reference, strict=True)])
            place = f"{summary(contender.in_place)[0]:.2f}" if contender.in_place else ""
            print(f"| {name} | {contender.name} | {whole:.2f} | {added:.2f} +- {spread:.2f} | {place} |", flush=True)
            results.append(
                {"case": name, "contender": contender.name, "whole": contender.whole, "in_place": contender.in_place}
            )
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump(results, file)


if __name__ == "__main__":
    main()
