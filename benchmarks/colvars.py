"""What collective variables cost on a CPU, gradient included, alone and beside NumPy with a KD-tree.

    python benchmarks/colvars.py [--sizes 1000,10000,100000] [--seconds 0.5] [--only table|scaling] [--cvs REGEX]
        [--json FILE] [--show] [--cpu] [--rounds 7] [--cache FOLDER [--compile]]

A part at a time: ``--cvs`` says whose names to measure, and ``--json`` adds them to what FILE has from before; ``--show``
prints the tables of FILE and measures nothing. On a machine that is not idle ``--cpu`` counts the processor's time that the
process gets instead of the time that passes; then keep XLA to one thread, by ``XLA_FLAGS=--xla_cpu_multi_thread_eigen=false``.
``--cache`` keeps compiled programs, and ``--compile`` only makes them: what has then to be done on a quiet machine takes seconds.

The table: microseconds per value and gradient in double precision, from a compiled loop in which each evaluation waits for the
one before, as in a run; the median of some rounds. CVs of neighbours have 1000 particles and a list that is kept up in the
loop. The scaling: the coordination number and Q6 of a dense fluid with 16 neighbours per particle, against the same in NumPy
and SciPy, in the same process by turns; and against PLUMED where its Python package is there. Pin it to one core, as in
``taskset -c 1 python benchmarks/colvars.py``, to compare like with like.
"""

import argparse
import json
import math
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.spatial import KDTree
from scipy.special import sph_harm_y

import pysamp
import pysamp.colvars as cvs
from pysamp import Cell
from pysamp.colvars._neighbors import NeighborList, with_room
from pysamp.colvars.base import evaluated
from pysamp.system import System

clock, ROUNDS = time.perf_counter, 7
FEWEST = 20  # evaluations in a call, whose arguments are copied first
RNG = np.random.default_rng(1)
SPACING = 0.35  # of the fluid's particles
SWITCH = cvs.CubicSwitch(0.14, d0=0.4)


def fluid(n: int) -> tuple[np.ndarray, float]:
    """A cubic lattice, shaken, with n places or a few more left empty; and the edge of its box."""
    m = math.ceil(n ** (1 / 3) - 1e-9)
    lattice = np.stack(np.meshgrid(*[np.arange(m)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)[:n]
    return SPACING * lattice + RNG.normal(scale=0.05, size=(n, 3)), m * SPACING


def chain(n: int) -> np.ndarray:
    """Points of a random walk with bonds of 0.15, as in a molecule."""
    steps = RNG.normal(size=(n, 3))
    return np.cumsum(0.15 * steps / np.linalg.norm(steps, axis=1)[:, None], axis=0)


class Loop:
    """A compiled loop of evaluations of one CV, each with its gradient."""

    def __init__(self, cv: Any, x: np.ndarray, cell: Cell):
        self.x = jnp.asarray(x)
        pairs = cv.neighborhoods
        renew = jax.jit(lambda lists, x: tuple(n.renewed(p, x, cell) for n, p in zip(lists, pairs, strict=True)))
        empty = tuple(NeighborList.empty(p, self.x.dtype) for p in pairs)
        lists = renew(empty, self.x)  # the first one says how much room is needed
        self.empty = tuple(with_room(n, p) for n, p in zip(lists, pairs, strict=True))
        self.renew, self.lists = renew, renew(self.empty, self.x)
        assert all(bool(n.is_usable) for n in self.lists)

        def evaluate(x: Any, lists: Any) -> Any:
            value, pull = jax.vjp(lambda x: evaluated(cv, x, cell, lists), x)
            return value, pull(jnp.ones_like(value))[0]

        def once(_: Any, carry: Any) -> Any:
            x, lists = carry
            lists = tuple(n.renewed(p, x, cell) for n, p in zip(lists, pairs, strict=True))
            value, gradient = evaluate(x, lists)
            return x - 1e-12 * (
                gradient + 0.0 * jnp.sum(value)
            ), lists  # XLA would leave out a value that nothing needs

        def loop(n: Any, x: Any, lists: Any) -> Any:
            return jax.lax.fori_loop(0, n, once, (x, lists))[0]

        self.evaluate = jax.jit(evaluate)
        start = clock()
        self.compiled = jax.jit(loop).lower(1, self.x, self.lists).compile()
        self.compile_time = clock() - start

    def run(self, n: int) -> float:
        """Seconds for n evaluations."""
        return timed(self.compiled, n, self.x, self.lists, rounds=1)

    def seconds_per_evaluation(self, seconds: float) -> float:
        """The median of some rounds that together last about so long."""
        n = 1
        while (took := self.run(n)) < 0.1 * seconds / ROUNDS:
            n *= 4
        n = max(FEWEST, math.ceil(n * seconds / ROUNDS / took))
        return float(np.median([self.run(n) for _ in range(ROUNDS)])) / n


def timed(function: Callable, *arguments: Any, rounds: int = 3) -> float:
    """Seconds for a call, the smallest of some rounds."""
    times = []
    for _ in range(rounds):
        start = clock()
        jax.block_until_ready(function(*arguments))
        times.append(clock() - start)
    return min(times)


def catalogue() -> list[tuple[str, Any, int]]:
    """Name, CV and number of particles of every public kind, in usual sizes."""
    shape, reference = range(20), chain(20)
    path = np.stack([reference + RNG.normal(scale=0.05, size=(20, 3)) for _ in range(10)])
    residues = [list(range(5 * i, 5 * i + 5)) for i in range(12)]
    contacts = [(i, i + 10) for i in range(40)]
    many, near = range(1000), {"switch": SWITCH}
    shell = 0.35 * np.concatenate([np.eye(3), -np.eye(3)])
    two = [cvs.DihedralAngle([0, 1, 2, 3]), cvs.DihedralAngle([1, 2, 3, 4])]
    # fmt: off
    small = [
        cvs.Distance([0, 5]), cvs.Displacement([0, 5]), cvs.Component([0], axis=0),
        cvs.ProjectedDistance([0, 5], axes=(0, 1)), cvs.Angle([0, 1, 2]), cvs.VectorAngle([0, 1, 2, 3]),
        cvs.DihedralAngle([0, 1, 2, 3]), cvs.PositionOnAxis([0, 4, 7]), cvs.DistanceFromLine([0, 4, 7]),
        cvs.DistanceFromPlane([0, 4, 7, 9]), cvs.PolarAngle([0, 5]), cvs.AzimuthalAngle([0, 5]),
        cvs.AlphaBetaSimilarity([[i, i + 1, i + 2, i + 3] for i in range(10)], reference=1.0),
        cvs.DihedralCorrelation([([i, i + 1, i + 2, i + 3], [i + 4, i + 5, i + 6, i + 7]) for i in range(10)]),
        cvs.RadiusOfGyration(shape), cvs.PrincipalMoments(shape), cvs.PrincipalMomentsOfInertia(shape),
        cvs.Asphericity(shape), cvs.Acylindricity(shape), cvs.RelativeShapeAnisotropy(shape),
        cvs.RMSD(shape, reference), cvs.DistanceRMSD(shape, reference),
        cvs.EigenvectorProjection(shape, reference, path[0] - reference),
        cvs.ERMSD([[3 * i, 3 * i + 1, 3 * i + 2] for i in range(6)], reference[:18]),
        cvs.Orientation(shape, reference), cvs.RotationAngle(shape, reference),
        cvs.TiltAngle(shape, reference, axis=(0, 0, 1)), cvs.SpinAngle(shape, reference, axis=(0, 0, 1)),
        cvs.EulerAngle(shape, reference, angle="yaw"), cvs.PuckeringAmplitude(range(6)),
        cvs.PuckeringCoordinates(range(6)), cvs.PuckeringPhase(range(6)), cvs.PuckeringTheta(range(6)),
        cvs.SugarPuckering(range(5)), cvs.SugarPuckeringPhase(range(5)), cvs.AlphaRMSD(residues),
        cvs.AntiparallelBetaRMSD([residues[:6], residues[6:]]), cvs.ParallelBetaRMSD([residues[:6], residues[6:]]),
        cvs.Path(two, [[-1.0, 1.0], [0.0, 0.5], [1.0, 0.0]]), cvs.RMSDPath(shape, path),
        cvs.LinearProjection(two, [[0.6, 0.8, 0.0, 0.0]]),
        cvs.Learned(two, lambda f: jnp.tanh(f @ jnp.ones((4, 8))) @ jnp.ones(8)),
        cvs.custom(lambda x: jnp.sum((x[0] - x[1]) ** 2), atoms=[0, 5]), two[0] + two[1],
        cvs.MinimumDistance(range(10), range(10, 20), beta=5.0), cvs.ContactMap(contacts, **near),
        cvs.ContactSum(contacts, **near), cvs.ContactMapDistance(contacts, reference=np.ones(40), **near),
        cvs.NativeContacts(contacts, reference=np.ones(40), beta=50.0),
        cvs.Dipole(shape, RNG.normal(size=20)), cvs.DipoleMoment(shape, RNG.normal(size=20)),
    ]
    # fmt: on
    large = [
        cvs.CoordinationNumber(many, **near),
        cvs.HydrogenBonds([(i, i + 1) for i in range(0, 999, 3)], range(0, 999, 3), distance=SWITCH),
        *(cvs.SteinhardtQ(many, l=l, **near) for l in (3, 4, 6)),  # noqa: E741
        cvs.AveragedSteinhardtQ(many, l=6, **near),
        cvs.LocalSteinhardtQ(many, l=6, **near),
        cvs.GlobalSteinhardtQ(many, l=6, **near),
        cvs.Tetrahedrality(many, **near),
        *(kind(many, **near) for kind in (cvs.SimpleCubicOrder, cvs.FCCOrder, cvs.TetrahedralOrder)),
        cvs.EnvironmentSimilarity(many, environments=shell, sigma=0.03),
        cvs.PairEntropy(many, r_max=0.7, sigma=0.02),
        cvs.RadialDistribution(many, r_max=0.7, n_bins=20),
    ]
    degree = lambda cv: f"(l={cv.l})" if hasattr(cv, "l") else ""  # noqa: E731
    return [(type(cv).__name__ + degree(cv), cv, n) for kind, n in ((small, 60), (large, 1000)) for cv in kind]


def table(seconds: float, names: re.Pattern, *, compile_only: bool) -> list[dict]:
    """Measure every CV of such a name and print a line for each."""
    print("compiling" if compile_only else TABLE)
    rows = []
    for name, cv, n in catalogue():
        if not names.search(name):
            continue
        x, edge = (chain(n), 4.0) if n < 100 else fluid(n)
        x, cell = x[list(cv.atoms)], Cell.of(edge * np.eye(3))
        cv = cv.resolved(System(masses=np.ones(n), timestep=1.0, kT=1.0))
        loop = Loop(cv, x, cell)
        row = {"cv": name, "points": len(x), "s": loop.compile_time}
        if compile_only:
            print(f"{name}: {loop.compile_time:.1f} s", flush=True)
        else:
            row["us"] = 1e6 * loop.seconds_per_evaluation(seconds)
            print(table_row(row), flush=True)
        rows.append(row)
    return rows


TABLE = "| CV | points | us | compiling, s |\n|---|---|---|---|"


def table_row(row: dict) -> str:
    """A line of the table."""
    return f"| `{row['cv']}` | {row['points']} | {row['us']:.3g} | {row['s']:.1f} |"


def numpy_pairs(x: np.ndarray, edge: float) -> tuple[np.ndarray, ...]:
    """Numbers, vectors, distances, switching function and slope of all pairs, once."""
    i, j = KDTree(np.mod(x, edge), boxsize=edge).query_pairs(SWITCH.end, output_type="ndarray").T
    d = x[j] - x[i]
    d -= edge * np.round(d / edge)
    r = np.sqrt(np.einsum("ik,ik->i", d, d))
    y = np.maximum(r - SWITCH.d0, 0.0) / SWITCH.r0
    return i, j, d, r, (1 - y) ** 2 * (1 + 2 * y), -6 * y * (1 - y) / SWITCH.r0


def summed(i: np.ndarray, j: np.ndarray, values: np.ndarray, n: int, sign: float) -> np.ndarray:
    """What the pairs add to their first points, and with a sign to their second ones."""
    columns = values.reshape(len(i), -1).T
    return np.stack([np.bincount(i, c, n) + sign * np.bincount(j, c, n) for c in columns], axis=-1)


def numpy_coordination(x: np.ndarray, edge: float) -> tuple[float, np.ndarray]:
    """Coordination number and gradient."""
    i, j, d, r, s, slope = numpy_pairs(x, edge)
    return s.sum(), summed(i, j, -(slope / r)[:, None] * d, len(x), -1.0)


def numpy_q6(x: np.ndarray, edge: float) -> tuple[float, np.ndarray]:
    """Mean Q6 of the particles and gradient; harmonics of an even degree are the same for both ends of a pair."""
    i, j, d, r, s, slope = numpy_pairs(x, edge)
    n, m = len(x), np.arange(7)
    theta, phi = np.arccos(d[:, 2] / r), np.arctan2(d[:, 1], d[:, 0])
    y, dy = sph_harm_y(6, m[None], theta[:, None], phi[:, None], diff_n=1)
    weights = np.where(m > 0, 2.0, 1.0)  # negative m are the conjugates
    count = summed(i, j, s, n, 1.0)
    q = (summed(i, j, s[:, None] * y.real, n, 1.0) + 1j * summed(i, j, s[:, None] * y.imag, n, 1.0)) / count
    factor = math.sqrt(4 * math.pi / 13)
    size = np.sqrt((weights * np.abs(q) ** 2).sum(axis=1, keepdims=True))
    pull = factor / n * weights * q / (size * count)  # of the sums of s y, conjugated
    pull_count = -factor / n * size / count
    both = (pull[i] + pull[j]).conj()
    along = slope * ((both * y).real.sum(axis=1) + (pull_count[i] + pull_count[j])[:, 0])
    by_theta, by_phi = (s * (both * dy[..., k]).real.sum(axis=1) for k in range(2))
    u, rho = d / r[:, None], np.hypot(d[:, 0], d[:, 1])
    e_phi = np.stack([-d[:, 1], d[:, 0], 0 * rho], axis=1) / rho[:, None]
    e_theta = np.cross(e_phi, u)
    pairs = along[:, None] * u + (by_theta / r)[:, None] * e_theta + (by_phi / rho)[:, None] * e_phi
    return factor * size.mean(), summed(i, j, -pairs, n, -1.0)


def plumed_seconds(line: str, x: np.ndarray, edge: float) -> float:
    """Seconds per step of PLUMED with a restraint on a CV."""
    import plumed  # pyright: ignore[reportMissingImports]

    p, n = plumed.Plumed(), len(x)
    settings = {"setMDEngine": "benchmark", "setTimestep": 0.001, "setNatoms": n, "setLogFile": "/dev/null"}
    for command, value in settings.items():
        p.cmd(command, value)
    p.cmd("init")
    for text in (line, "RESTRAINT ARG=cv AT=0 KAPPA=1e-6"):
        p.cmd("readInputLine", text)
    arrays = {"setMasses": np.ones(n), "setPositions": x, "setForces": np.zeros((n, 3)), "setBox": edge * np.eye(3),
              "setVirial": np.zeros((3, 3))}  # fmt: skip

    def step(k: int) -> None:
        p.cmd("setStep", k)
        for command, array in arrays.items():
            p.cmd(command, array)
        p.cmd("calc")

    return min(timed(step, k, rounds=1) for k in range(5))


PLUMED_SWITCH = "SWITCH={{CUBIC D_0=0.4 D_MAX=0.54}}"
KINDS = {
    "coordination number": (lambda n: cvs.CoordinationNumber(range(n), switch=SWITCH), numpy_coordination,
                            "cv: COORDINATION GROUPA=1-{n} NLIST NL_CUTOFF=0.65 NL_STRIDE=10 " + PLUMED_SWITCH),
    "Q6": (lambda n: cvs.SteinhardtQ(range(n), l=6, switch=SWITCH), numpy_q6,
           "cv: Q6 SPECIES=1-{n} MEAN " + PLUMED_SWITCH),
}  # fmt: skip


SCALING = (
    "| CV | particles | pysamp, ms | making a list, ms | NumPy, ms | NumPy / pysamp | temporary memory, MB |\n"
    "|---|---|---|---|---|---|---|"
)


def scaling_row(row: dict) -> str:
    """A line of the table."""
    ratio = row["numpy_ms"] / row["ms"]
    return (f"| {row['cv']} | {row['n']} | {row['ms']:.3g} | {row['list_ms']:.3g} | {row['numpy_ms']:.3g} | "
            f"{ratio:.1f} | {row['mb']:.1f} |")  # fmt: skip


def scaling(sizes: list[int], seconds: float, names: re.Pattern, *, compile_only: bool) -> list[dict]:
    """Measure both CVs at all sizes, beside NumPy, and print a table."""
    print("compiling" if compile_only else SCALING)
    rows = []
    for name, (make, in_numpy, line) in KINDS.items():
        for n in sizes if names.search(name) else []:
            x, edge = fluid(n)
            loop = Loop(make(n), x, Cell.of(edge * np.eye(3)))
            value, gradient = loop.evaluate(loop.x, loop.lists)
            if compile_only:
                print(f"{name}, {n} particles: {loop.compile_time:.1f} s", flush=True)
                continue
            expected, expected_gradient = in_numpy(x, edge)
            assert abs(float(value) / expected - 1) < 1e-10
            assert np.abs(gradient - expected_gradient).max() < 1e-8 * np.abs(expected_gradient).max()
            ours, theirs = loop.seconds_per_evaluation(seconds), timed(in_numpy, x, edge)
            build = timed(loop.renew, loop.empty, loop.x)
            analysis = loop.compiled.memory_analysis()
            memory = analysis.temp_size_in_bytes / 1e6 if analysis else math.nan
            row = {"cv": name, "n": n, "ms": 1e3 * ours, "list_ms": 1e3 * build, "numpy_ms": 1e3 * theirs, "mb": memory}
            try:
                row["plumed_ms"] = 1e3 * plumed_seconds(line.format(n=n), x, edge)
            except (ImportError, RuntimeError) as error:
                row["plumed"] = f"skipped: {error}"
            print(scaling_row(row), flush=True)
            rows.append(row)
    for reason in {row["plumed"] for row in rows if "plumed" in row}:
        print(f"PLUMED {reason}")
    return rows


def merged(old: list[dict], new: list[dict]) -> list[dict]:
    """The old rows, with what is new of the same CV and size, and new ones after them."""
    key = lambda row: (row["cv"], row.get("n"))  # noqa: E731
    rows = {key(row): row for row in old}
    for row in new:
        before = rows.get(key(row), {})
        rows[key(row)] = before | row
        if "s" in before and before["s"] > row["s"]:  # this time it came from the cache
            rows[key(row)]["s"] = before["s"]
    return list(rows.values())


def show(result: dict) -> None:
    """Print the tables, in the order of this file."""
    kinds, names = list(KINDS), [name for name, *_ in catalogue()]
    print(SCALING)
    for row in sorted(result.get("scaling", []), key=lambda row: (kinds.index(row["cv"]), row["n"])):
        print(scaling_row(row))
    print("\n" + TABLE)
    for row in sorted((row for row in result.get("table", []) if "us" in row), key=lambda row: names.index(row["cv"])):
        print(table_row(row))


def main() -> None:
    """Measure and print."""
    global clock, ROUNDS
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default="1000,10000,100000")
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--only", choices=["table", "scaling"])
    parser.add_argument("--cvs", type=re.compile, default=re.compile(""))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--show", action="store_true")
    parser.add_argument("--cpu", action="store_true")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--compile", action="store_true")
    options = parser.parse_args()
    ROUNDS = options.rounds
    if options.cpu:
        clock = time.process_time
    jax.config.update("jax_enable_x64", True)
    if options.cache:
        jax.config.update("jax_compilation_cache_dir", str(options.cache))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
    result = json.loads(options.json.read_text()) if options.json and options.json.exists() else {}
    if options.show:
        show(result)
        return
    result |= {"jax": jax.__version__, "pysamp": pysamp.__version__}
    if options.only != "table":
        sizes = [int(n) for n in options.sizes.split(",")]
        result["scaling"] = merged(
            result.get("scaling", []), scaling(sizes, options.seconds, options.cvs, compile_only=options.compile)
        )
    if options.only != "scaling":
        result["table"] = merged(
            result.get("table", []), table(options.seconds, options.cvs, compile_only=options.compile)
        )
    if options.json:
        options.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
