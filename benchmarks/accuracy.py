"""Free-energy differences of exact models, many replicas each, and how often the stated error bars cover the exact value.

    python benchmarks/accuracy.py [--cases "double well, ABF;..."] [--replicas 100] [--alanine] [--json FILE]

Prints the table of docs/accuracy.md. With ``--alanine`` also metadynamics against ABF on alanine dipeptide in vacuum (OpenMM).
tests/validation runs the same cases and asserts what the table shows.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.special import logsumexp

import pysamp
from pysamp.backends import toy
from pysamp.colvars import AbstractCV
from pysamp.colvars import Path as CVPath
from pysamp.methods import (
    ABF,
    ANN,
    CFF,
    FUNN,
    OPES,
    AbstractMethod,
    AdaptivePath,
    ExtendedABF,
    HarmonicBias,
    HarmonicWalls,
    Metadynamics,
    MovingRestraint,
    Multithermal,
    MultiUmbrella,
    OPESExpanded,
    OPESExplore,
    ParallelBiasMetadynamics,
    SpectralABF,
    Unbiased,
)
from pysamp.testing import DoubleWell, MuellerBrown, PeriodicPotential
from pysamp.testing.models import AbstractModel

PI = math.pi


@dataclass(frozen=True)
class System:
    """A model, the dynamics on it, and the two regions whose free energies are compared.

    Attributes:
        model: the potential; kT is 1.
        start: first coordinates of the particle.
        timestep: [time].
        friction: [1/time].
        first: the region from which the difference counts, a function of ``cvs`` or of the model's coordinates.
        second: the other region.
    """

    model: AbstractModel
    start: tuple[float, float]
    timestep: float
    friction: float
    first: Callable
    second: Callable

    def simulation(self, start: Sequence[float] | None = None) -> toy.Simulation:
        """One particle."""
        x, y = self.start if start is None else start
        return toy.Simulation(self.model, [[x, y, 0.0]], timestep=self.timestep, friction=self.friction)

    def exact(self, n_points: int = 2000, kT: float = 1.0) -> float:
        """Free-energy difference of the regions by the midpoint rule."""
        axes = [low + (high - low) * (np.arange(n_points) + 0.5) / n_points for low, high in self.model.bounds]
        q = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
        with jax.enable_x64(True):
            energies = np.asarray(self.model.energy(jnp.asarray(q)))
        coordinates = np.moveaxis(q, -1, 0)
        first, second = (-kT * logsumexp(-energies[region(*coordinates)] / kT) for region in (self.first, self.second))
        return float(second - first)


class Arc(AbstractModel):
    r"""Two wells at the angles -1 and 1 of a valley along the unit circle, $h (\theta^2 - 1)^2 + t \theta + k (r - 1)^2 / 2$.

    Attributes:
        height: h, of the barrier.
        tilt: t.
        kspring: k, across the valley.
    """

    height: float = eqx.field(static=True, default=4.0)
    tilt: float = eqx.field(static=True, default=0.5)
    kspring: float = eqx.field(static=True, default=80.0)
    n_dims: ClassVar[int] = 2

    @property
    def bounds(self) -> tuple[tuple[float, float], ...]:
        """Twice the circle."""
        return ((-2.0, 2.0),) * 2

    def energy(self, q: Float[Array, "*b d"]) -> Float[Array, "*b"]:
        """Potential at x, y [energy]."""
        radius, angle = jnp.hypot(q[..., 0], q[..., 1]), jnp.arctan2(q[..., 0], q[..., 1])
        return self.height * (angle**2 - 1) ** 2 + self.tilt * angle + 0.5 * self.kspring * (radius - 1) ** 2

    def chord(self, n_nodes: int, beyond: int) -> Float[np.ndarray, "m 2"]:
        """Nodes on the straight line from one well to the other, and more beyond each."""
        x = np.sin(1.0) * np.linspace(-1.0, 1.0, n_nodes)
        further = x[-1] + (x[1] - x[0]) * np.arange(1, beyond + 1)
        x = np.concatenate([-further[::-1], x, further])
        return np.stack([x, np.full(len(x), np.cos(1.0))], axis=1)


DOUBLE_WELL = System(DoubleWell(height=5.0, tilt=0.5), (-1.0, 0.0), 0.05, 2.0, lambda x, *_: x < 0, lambda x, *_: x > 0)
MUELLER_BROWN = System(
    MuellerBrown(scale=0.15, wall=1000.0), (-0.56, 1.44), 0.01, 1.0, lambda x, y: x < 0, lambda x, y: x > 0
)
# The same on x - y, which tells the three minima and both saddle points apart; x alone does not (docs/accuracy.md).
MUELLER_BROWN_DIAGONAL = System(
    MuellerBrown(scale=0.15, wall=1000.0),
    (-0.56, 1.44),
    0.01,
    1.0,
    lambda x, y=0.0: x - y < 0,
    lambda x, y=0.0: x - y > 0,
)
PERIODIC = System(
    PeriodicPotential(), (0.0, 0.0), 0.05, 2.0, lambda x, y: np.abs(x) < PI / 2, lambda x, y: np.abs(x) > PI / 2
)

ARC = System(
    Arc(),
    (-math.sin(1.0), math.cos(1.0)),
    0.02,
    2.0,
    lambda x, y: np.arctan2(x, y) < 0,
    lambda x, y: np.arctan2(x, y) > 0,
)

GRID_1 = pysamp.Grid(-2.0, 2.0, 80)
GRID_MB = pysamp.Grid((-1.6, -0.6), (1.3, 2.4), (58, 60))
GRID_DIAGONAL = pysamp.Grid(-2.8, 1.2, 80)
GRID_TORUS = pysamp.Grid((-PI, -PI), (PI, PI), (40, 40), periodic=True)


@dataclass(frozen=True)
class Case:
    """One method on one system.

    Attributes:
        system: what is simulated.
        text: method and CVs, for the table.
        n_steps: of each replica, summed over windows.
        estimate: runs ``n`` replicas and returns value and stated error of each.
        exact: what it estimates, if not the difference between the system's regions at kT = 1.
    """

    system: System
    text: str
    n_steps: int
    estimate: Callable[[int], Float[np.ndarray, "replicas 2"]]
    exact: float | None = None


def _differences(
    system: System,
    runs: Sequence[pysamp.Run],
    estimator: Callable[..., pysamp.analysis.FreeEnergy] = pysamp.analyze,
    **options,
) -> Float[np.ndarray, "replicas 2"]:
    """Replica by replica, each analysed alone."""
    found = []
    for replica in range(runs[0].n_replicas):
        parts = [run.replica(replica) for run in runs]
        fes = estimator(parts[0] if len(parts) == 1 else parts, **options)
        found.append(fes.difference(system.first, system.second))
    return np.array(found)


def adaptive(
    system: System,
    text: str,
    method: AbstractMethod,
    n_steps: int,
    seed: int,
    estimate_of: Callable[[pysamp.Run], tuple[float, float]] | None = None,
) -> Case:
    """A method that finds its own bias; ``estimate_of`` is asked of each replica, if given."""

    def estimate(n: int) -> Float[np.ndarray, "replicas 2"]:
        run = pysamp.run(method, system.simulation, n_steps, replicas=n, seed=seed, progress=False)
        if estimate_of is None:
            return _differences(system, [run])
        return np.array([estimate_of(run.replica(replica)) for replica in range(n)])

    return Case(system, text, n_steps, estimate)


def multithermal(text: str, estimate_of: Callable[[pysamp.Run], tuple[float, float]], exact: float, seed: int) -> Case:
    """All temperatures between 1 and 3 at once, on the double well; ``estimate_of`` is asked of each replica."""
    system = DOUBLE_WELL
    method = OPESExpanded(Multithermal(kT=(1.0, 3.0)), stride=50)

    def estimate(n: int) -> Float[np.ndarray, "replicas 2"]:
        run = pysamp.run(
            [method, Unbiased(system.model.cvs)],
            system.simulation,
            200_000,
            replicas=n,
            seed=seed,
            log_every=20,
            progress=False,
        )
        return np.array([estimate_of(run.replica(replica)) for replica in range(n)])

    return Case(system, text, 200_000, estimate, exact)


def _difference_at(kT: float) -> Callable[[pysamp.Run], tuple[float, float]]:
    """Free-energy difference of the double well's regions from a multithermal run."""
    label = DOUBLE_WELL.model.cvs[0].name

    def estimate_of(run: pysamp.Run) -> tuple[float, float]:
        fes = pysamp.analysis.reweight(run, label, grid=GRID_1, kT=kT)
        return fes.difference(DOUBLE_WELL.first, DOUBLE_WELL.second)

    return estimate_of


def _hottest(run: pysamp.Run) -> tuple[float, float]:
    """-ln Z(kT = 3) / Z(kT = 1)."""
    states = pysamp.analysis.expanded_states(run)
    return float(states.free_energy[-1]), float(states.stderr[-1])


def _double_well() -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Places and energies for a quadrature."""
    x = np.linspace(-4.0, 4.0, 4001)
    return x, 5.0 * (x**2 - 1.0) ** 2 + 0.5 * x


def _hottest_exact() -> float:
    """The same by quadrature; the two springs that hold the other coordinates give ln 3 / 2 each."""
    _, energies = _double_well()
    return float(logsumexp(-energies) - logsumexp(-energies / 3.0) - math.log(3.0))


def _umbrella_integration_of_extended(run: pysamp.Run) -> tuple[float, float]:
    fes = pysamp.analyze(run.methods[0], run, estimator="ui")
    return fes.difference(DOUBLE_WELL.first, DOUBLE_WELL.second)


_PULLS = 24  # of each estimate from work
_SPRING = 50.0


def pulls(
    text: str,
    estimate_of: Callable[[list[pysamp.Run]], tuple[float, float]],
    exact: float,
    seed: int,
    begins: tuple[float, ...] = (-1.0,),
) -> Case:
    """Pulls over the barrier of the double well, from each of ``begins`` to the other side; an estimate takes 24 of each."""
    hold, last = 500, 4500
    system = replace(DOUBLE_WELL, timestep=0.02)  # stiffer than without the spring

    def estimate(n: int) -> Float[np.ndarray, "replicas 2"]:
        runs = [
            pysamp.run(
                MovingRestraint(system.model.cvs, kspring=_SPRING, centers=[begin, -begin], steps=[hold, last]),
                lambda begin=begin: system.simulation((begin, 0.0)),
                last,
                replicas=n * _PULLS,
                seed=seed + i,
                log_every=10,
                progress=False,
            )
            for i, begin in enumerate(begins)
        ]
        found = []
        for first in range(0, n * _PULLS, _PULLS):
            taken = slice(first, first + _PULLS)
            found.append(
                estimate_of([replace(run, states=run.states[taken], log=run.log.isel(replica=taken)) for run in runs])
            )
        return np.array(found)

    return Case(system, text, len(begins) * _PULLS * last, estimate, exact)


def _restrained_exact() -> float:
    """Free-energy difference between the double well under the spring at 1 and at -1, by quadrature."""
    x, energies = _double_well()
    there, here = (logsumexp(-energies - 0.5 * _SPRING * (x - end) ** 2) for end in (1.0, -1.0))
    return float(here - there)


def _jarzynski(runs: list[pysamp.Run]) -> tuple[float, float]:
    return pysamp.analysis.jarzynski(pysamp.analysis.work(runs[0])[:, -1], kT=1.0)


def _crooks(runs: list[pysamp.Run]) -> tuple[float, float]:
    there, back = (pysamp.analysis.work(run)[:, -1] for run in runs)
    return pysamp.analysis.crooks(there, back, kT=1.0)


def _along_pulls(runs: list[pysamp.Run]) -> tuple[float, float]:
    return pysamp.analyze(runs[0], grid=GRID_1).difference(DOUBLE_WELL.first, DOUBLE_WELL.second)


def along_a_path(text: str, n_steps: int, seed: int) -> Case:
    """Metadynamics on a path through the wells of the arc, which begins as a straight line, beside the valley."""
    beyond = 4
    path = CVPath(ARC.model.cvs, ARC.model.chord(11, beyond))
    grid = pysamp.Grid(0.0, 20.0, 100)
    hills = Metadynamics(path["s"], height=0.3, sigma=0.75, stride=100, bias_factor=8, grid=grid)
    walls = HarmonicWalls(path["z"], upper=0.3, kspring=50.0)
    method = AdaptivePath(path, [hills, walls], stride=500, fixed=(beyond, -1 - beyond))
    system = replace(ARC, first=lambda s: s < 10.0, second=lambda s: s > 10.0)
    return replace(adaptive(system, text, method, n_steps, seed), exact=ARC.exact())


def windows(
    system: System,
    text: str,
    cvs: Sequence[AbstractCV],
    grid: pysamp.Grid,
    *,
    centers: Sequence[tuple[float, ...]],
    starts: Sequence[tuple[float, float]],
    kspring: float,
    n_steps: int,
    log_every: int,
    seed: int,
    estimator: Callable[..., pysamp.analysis.FreeEnergy] = pysamp.analyze,
) -> Case:
    """Harmonic windows, each begun at its own place."""

    def estimate(n: int) -> Float[np.ndarray, "replicas 2"]:
        runs = [
            pysamp.run(
                HarmonicBias(cvs, kspring=kspring, center=center),
                lambda start=start: system.simulation(start),
                n_steps,
                replicas=n,
                seed=seed + i,
                log_every=log_every,
                progress=False,
            )
            for i, (center, start) in enumerate(zip(centers, starts, strict=True))
        ]
        return _differences(system, runs, estimator, grid=grid)

    return Case(system, text, n_steps * len(centers), estimate)


def _cases() -> dict[str, Case]:
    hills = {"height": 0.3, "sigma": 0.15, "stride": 100, "bias_factor": 8}
    x = DOUBLE_WELL.model.cvs
    line = np.linspace(-1.5, 1.5, 11)
    fine_line = np.linspace(-1.5, 1.5, 21)
    mb = MUELLER_BROWN.model.cvs
    mb_hills = {"height": 0.5, "sigma": 0.1, "stride": 100, "bias_factor": 10}
    # straight lines through the minima and the saddle points between them
    knots = np.array(
        [[-0.7, 1.9], [-0.558, 1.442], [-0.822, 0.624], [-0.05, 0.467], [0.212, 0.293], [0.624, 0.028], [0.9, -0.1]]
    )
    places = np.arange(-2.5, 1.01, 0.1)
    starts = np.stack([np.interp(places, knots[:, 0] - knots[:, 1], column) for column in knots.T], axis=-1)
    torus = PERIODIC.model.cvs
    turn = {"height": 0.3, "sigma": 0.35, "stride": 100, "bias_factor": 6}
    around = [(a, b) for a in np.arange(-PI, PI, PI / 4) for b in np.arange(-PI, PI, PI / 3)]
    return {
        "double well, metadynamics": adaptive(
            DOUBLE_WELL, "metadynamics on x", Metadynamics(x, grid=GRID_1, **hills), 400_000, 11
        ),
        "double well, metadynamics without grid": adaptive(
            DOUBLE_WELL,
            "metadynamics on x, without grid",
            Metadynamics(x, **{**hills, "stride": 400, "height": 0.6}),
            400_000,
            13,
        ),
        "double well, ABF": adaptive(DOUBLE_WELL, "ABF on x", ABF(x, grid=GRID_1), 200_000, 12),
        "double well, spectral ABF": adaptive(
            DOUBLE_WELL, "spectral ABF on x", SpectralABF(x, grid=GRID_1), 200_000, 14
        ),
        "double well, metadynamics with widths that adapt": adaptive(
            DOUBLE_WELL,
            "metadynamics on x, widths that adapt",
            Metadynamics(x, grid=GRID_1, **{**hills, "sigma": 0.08}, adapt_sigma=100),
            400_000,
            51,
        ),
        "double well, FUNN": adaptive(DOUBLE_WELL, "FUNN on x", FUNN(x, grid=GRID_1, train_every=5000), 200_000, 52),
        # it flattens all that its grid covers, also the walls, for which a time step of 0.05 is too long
        "double well, ANN": adaptive(
            replace(DOUBLE_WELL, timestep=0.02), "ANN on x", ANN(x, grid=pysamp.Grid(-1.6, 1.6, 64)), 200_000, 61
        ),
        "double well, CFF": adaptive(DOUBLE_WELL, "CFF on x", CFF(x, grid=GRID_1, train_every=5000), 200_000, 53),
        "double well, eABF": adaptive(
            DOUBLE_WELL, "eABF on x, CZAR", ExtendedABF(x, grid=GRID_1, sigma=0.1, tau=2.0), 200_000, 15
        ),
        "double well, eABF, umbrella integration": adaptive(
            DOUBLE_WELL,
            "eABF on x, umbrella integration",
            ExtendedABF(x, grid=GRID_1, sigma=0.1, tau=2.0),
            200_000,
            63,
            _umbrella_integration_of_extended,
        ),
        "double well, meta-eABF": adaptive(
            DOUBLE_WELL,
            "meta-eABF on x, CZAR",
            ExtendedABF(x, grid=GRID_1, sigma=0.1, tau=2.0, hills=Metadynamics(x, grid=GRID_1, **hills)),
            200_000,
            16,
        ),
        "double well, OPES": adaptive(
            DOUBLE_WELL, "OPES on x", OPES(x, grid=GRID_1, barrier=6.0, sigma=0.15, stride=100), 200_000, 17
        ),
        "double well, OPES explore": adaptive(
            DOUBLE_WELL,
            "OPES explore on x",
            OPESExplore(x, grid=GRID_1, barrier=6.0, sigma=0.15, stride=100),
            400_000,
            18,
        ),
        "double well, multithermal": multithermal(
            "multithermal OPES, at kT = 1", _difference_at(1.0), DOUBLE_WELL.exact(), 41
        ),
        "double well, multithermal, kT 2": multithermal(
            "multithermal OPES, at kT = 2", _difference_at(2.0), DOUBLE_WELL.exact(kT=2.0), 42
        ),
        "double well, multithermal, states": multithermal(
            "multithermal OPES, -ln Z(kT = 3) / Z(kT = 1)", _hottest, _hottest_exact(), 43
        ),
        "double well, multi-umbrella": adaptive(
            DOUBLE_WELL,
            "multi-umbrella OPES on x",
            OPESExpanded(MultiUmbrella(x, centers=np.linspace(-1.4, 1.4, 15), sigma=0.2, barrier=7.0), stride=50),
            200_000,
            44,
        ),
        "double well, windows": windows(
            DOUBLE_WELL,
            "11 harmonic windows on x",
            x,
            GRID_1,
            centers=[(c,) for c in line],
            starts=[(c, 0.0) for c in line],
            kspring=25.0,
            n_steps=20_000,
            log_every=20,
            seed=100,
        ),
        "double well, windows, umbrella integration": windows(
            DOUBLE_WELL,
            "21 harmonic windows on x, umbrella integration",
            x,
            GRID_1,
            centers=[(c,) for c in fine_line],
            starts=[(c, 0.0) for c in fine_line],
            kspring=100.0,
            n_steps=10_000,
            log_every=20,
            seed=120,
            estimator=pysamp.analysis.umbrella_integration,
        ),
        "double well, Jarzynski": pulls("24 pulls, Jarzynski", _jarzynski, _restrained_exact(), 65),
        "double well, Crooks": pulls(
            "24 pulls there and 24 back, Crooks", _crooks, _restrained_exact(), 66, (-1.0, 1.0)
        ),
        "double well, Hummer-Szabo": pulls("24 pulls, Hummer and Szabo", _along_pulls, DOUBLE_WELL.exact(), 68),
        "Mueller-Brown, metadynamics": adaptive(
            MUELLER_BROWN, "metadynamics on x, y", Metadynamics(mb, grid=GRID_MB, **mb_hills), 400_000, 21
        ),
        "Mueller-Brown, ABF": adaptive(
            MUELLER_BROWN, "ABF on x, y", ABF(mb, grid=pysamp.Grid((-1.6, -0.6), (1.3, 2.4), (29, 30))), 400_000, 22
        ),
        "Mueller-Brown, spectral ABF": adaptive(
            MUELLER_BROWN,
            "spectral ABF on x, y",
            SpectralABF(mb, grid=GRID_MB),
            400_000,
            23,
        ),
        "Mueller-Brown, windows": windows(
            MUELLER_BROWN_DIAGONAL,
            f"{len(places)} harmonic windows on x - y",
            [mb[0] - mb[1]],
            GRID_DIAGONAL,
            centers=[(s,) for s in places],
            starts=[tuple(start) for start in starts],
            kspring=100.0,
            n_steps=40_000,
            log_every=20,
            seed=200,
        ),
        "arc, adaptive path": along_a_path("metadynamics along an adaptive path in x, y", 400_000, 64),
        "periodic, metadynamics": adaptive(
            PERIODIC, "metadynamics on x, y", Metadynamics(torus, grid=GRID_TORUS, **turn), 200_000, 31
        ),
        "periodic, parallel bias": adaptive(
            PERIODIC,
            "parallel-bias metadynamics on x, y",
            ParallelBiasMetadynamics(torus, grid=GRID_TORUS, **turn),
            200_000,
            55,
        ),
        "periodic, ABF": adaptive(PERIODIC, "ABF on x, y", ABF(torus, grid=GRID_TORUS), 400_000, 32),
        "periodic, spectral ABF": adaptive(
            PERIODIC, "spectral ABF on x, y", SpectralABF(torus, grid=GRID_TORUS), 400_000, 33
        ),
        "periodic, meta-eABF": adaptive(
            PERIODIC,
            "meta-eABF on x, y, CZAR",
            ExtendedABF(torus, grid=GRID_TORUS, sigma=0.2, tau=2.0, hills=Metadynamics(torus, grid=GRID_TORUS, **turn)),
            400_000,
            34,
        ),
        "periodic, OPES": adaptive(
            PERIODIC,
            "OPES on x, y",
            OPES(torus, grid=GRID_TORUS, barrier=6.0, sigma=0.35, stride=100),
            200_000,
            35,
        ),
        "periodic, windows": windows(
            PERIODIC,
            f"{len(around)} harmonic windows on x, y",
            torus,
            GRID_TORUS,
            centers=around,
            starts=around,
            kspring=5.0,
            n_steps=10_000,
            log_every=20,
            seed=300,
        ),
    }


CASES = _cases()


@dataclass(frozen=True)
class Outcome:
    """Estimates against the exact value.

    Attributes:
        exact: by quadrature [kT].
        value: of each replica [kT].
        error: stated standard error of each replica [kT].
    """

    exact: float
    value: Float[np.ndarray, " replicas"]
    error: Float[np.ndarray, " replicas"]

    @property
    def coverage(self) -> float:
        """Part of the replicas whose 68 % interval contains the exact value."""
        return float(np.mean(np.abs(self.value - self.exact) < self.error))

    @property
    def deviation(self) -> float:
        """Deviation of the mean, in its standard errors."""
        return float((self.value.mean() - self.exact) / (self.value.std(ddof=1) / math.sqrt(len(self.value))))


# More where 100 left open whether the coverage is one between 58 and 78 %, fewer where analysis or training takes long.
N_REPLICAS = {
    "double well, OPES": 300,
    "double well, metadynamics with widths that adapt": 300,
    "periodic, ABF": 300,
    "periodic, meta-eABF": 300,
    "double well, ANN": 60,
    "double well, eABF, umbrella integration": 60,
    "double well, windows, umbrella integration": 60,
}


def evaluate(name: str, n_replicas: int | None = None) -> Outcome:
    """Run a case, with 100 replicas (some with more or fewer) if not told otherwise."""
    case = CASES[name]
    value, error = case.estimate(n_replicas or N_REPLICAS.get(name, 100)).T
    return Outcome(case.system.exact() if case.exact is None else case.exact, value, error)


def main() -> None:
    """Run the cases and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cases", default=";".join(CASES), help="separated by semicolons")
    parser.add_argument("--replicas", type=int, help="instead of 100, or what some have of their own")
    parser.add_argument("--json", type=Path, help="write the figures there as well")
    arguments = parser.parse_args()
    results = {}
    print("| model | method | steps | exact | mean | spread | stated | covered |\n|---|---|---|---|---|---|---|---|")
    for name in arguments.cases.split(";"):
        start = time.perf_counter()
        outcome, case = evaluate(name, arguments.replicas), CASES[name]
        print(
            f"| {name.partition(',')[0]} | {case.text} | {case.n_steps:,} | {outcome.exact:.3f} "
            f"| {outcome.value.mean():.3f} | {outcome.value.std(ddof=1):.3f} "
            f"| {np.sqrt(np.mean(outcome.error**2)):.3f} | {100 * outcome.coverage:.0f} % |",
            flush=True,
        )
        print(f"{name}: {time.perf_counter() - start:.0f} s", file=sys.stderr)
        results[name] = {"exact": outcome.exact, "value": outcome.value.tolist(), "error": outcome.error.tolist()}
    if arguments.json:
        arguments.json.write_text(json.dumps(results))


if __name__ == "__main__":
    main()
