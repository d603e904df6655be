"""What a bias costs per step of HOOMD-blue: metadynamics on the distance between two groups in a Lennard-Jones fluid.

Well-tempered, on a grid of 100 bins, a hill every 500 steps, two groups of ten particles.

    python benchmarks/hoomd_overhead.py [--sizes 216,10000,100000] [--rounds 9] [--seconds 1.0] [--json FILE]

HOOMD must be there (conda install -c conda-forge hoomd, or built from source). Contenders take turns (A B C A B C ...):

- the plain engine;
- ``empty``: a ``hoomd.md.force.Custom`` that does nothing, HOOMD's own price for calling Python;
- ``round trip``: one that opens the local snapshot and the force arrays in each step, reads two positions and writes two
  forces, as HOOMD's documentation shows it;
- ``pysamp, relayed``: the compiled loop resumes HOOMD, which runs in a thread of its own;
- ``pysamp, called``: HOOMD calls the compiled bias, which is the way without the native extension.

``added`` is what a step takes longer than the plain engine's, paired round by round; ``in place`` is the time within the
hook, from the first line of what HOOMD calls to its last, without the first evaluation of a run, in which Python looks up where
HOOMD has its arrays. HOOMD itself sets the arrays of each custom force to zero and adds them up, for all N particles; that is in
``added`` of all. A second table tells the parts of the relayed hook, and how long that first evaluation takes.
"""

# pyright: reportMissingImports=false, reportOptionalMemberAccess=false

import argparse
import json
import os
import time
from collections.abc import Callable
from typing import Any, cast

import hoomd
import hoomd.md
import numpy as np
from openmm_overhead import Contender, measure, summary

import pysamp
from pysamp.colvars import Distance, Group
from pysamp.methods import Metadynamics

FIRST, SECOND = range(10), range(10, 20)
METHOD = Metadynamics(
    Distance([Group(FIRST), Group(SECOND)]),
    height=0.5,
    sigma=0.1,
    stride=500,
    bias_factor=10,
    grid=pysamp.Grid(0.0, 5.0, 100),
)


def fluid(n: int) -> hoomd.Simulation:
    """A Lennard-Jones fluid at density 0.7 and temperature 1.2, Langevin dynamics."""
    side = int(np.ceil(n ** (1 / 3)))
    spacing = 0.7 ** (-1 / 3)
    length = side * spacing
    grid = np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)[:n]
    snapshot = hoomd.Snapshot()
    snapshot.configuration.box = [length, length, length, 0, 0, 0]
    snapshot.particles.types = ["A"]
    snapshot.particles.N = n
    snapshot.particles.position[:] = (grid + 0.5) * spacing - length / 2
    snapshot.particles.velocity[:] = np.random.default_rng(1).normal(size=(n, 3)) * np.sqrt(1.2)
    simulation = hoomd.Simulation(device=hoomd.device.CPU(), seed=1)
    simulation.create_state_from_snapshot(snapshot)
    pair = hoomd.md.pair.LJ(nlist=hoomd.md.nlist.Cell(buffer=0.4), default_r_cut=2.5)
    pair.params[("A", "A")] = {"epsilon": 1.0, "sigma": 1.0}
    langevin = hoomd.md.methods.Langevin(filter=hoomd.filter.All(), kT=1.2, default_gamma=1.0)
    simulation.operations.integrator = hoomd.md.Integrator(dt=0.004, methods=[langevin], forces=[pair])
    simulation.run(0)
    return simulation


class Empty(hoomd.md.force.Custom):
    """Does nothing."""

    def set_forces(self, timestep: int) -> None:
        """Nothing."""


class RoundTrip(hoomd.md.force.Custom):
    """A spring between two particles, as HOOMD's documentation has it."""

    def set_forces(self, timestep: int) -> None:
        """Read, compute, write."""
        with self._state.cpu_local_snapshot as snapshot, self.cpu_local_force_arrays as arrays:
            a, b = snapshot.particles.rtag[[0, 10]]
            force = np.array(snapshot.particles.position[b]) - np.array(snapshot.particles.position[a])
            arrays.force[a], arrays.force[b] = force, -force


class Clock:
    """Adds up the time spent within a function, but for its first call in a run."""

    def __init__(self, function: Callable):
        self.function, self.spent, self.n_calls = function, 0.0, 0

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Call the function."""
        start = time.perf_counter()
        try:
            return self.function(*args, **options)
        finally:
            if self.n_calls > 0:
                self.spent += time.perf_counter() - start
            self.n_calls += 1

    def take(self) -> float:
        """The time since it was last taken, the first call as if it had taken as long as the others."""
        spent, n = self.spent, self.n_calls
        self.spent, self.n_calls = 0.0, 0
        return spent * n / max(n - 1, 1)


class Parts:
    """The parts of the relayed hook: gathering, the switch to the loop, its step, the switch back, writing.

    Attributes:
        each: seconds in each part, one row for each run, an evaluation.
        first: seconds of the first evaluation in each run, in which Python looks up what HOOMD has where.
    """

    def __init__(self, relay: Any):
        self.relay = relay
        self.each: list[np.ndarray] = []
        self.first: list[float] = []
        self.relay.seconds()

    def __call__(self) -> float:
        """The time since the last call, the first evaluation as if it had taken as long as the others."""
        *parts, first, n = self.relay.seconds()
        if n == 0:
            return 0.0
        self.each.append(np.asarray(parts) / n)
        self.first.append(first)
        return float(self.each[-1].sum()) * (n + 1)


def custom(n: int, name: str, force: hoomd.md.force.Custom) -> Contender:
    """HOOMD with a custom force of its own."""
    simulation = fluid(n)
    clock = Clock(force.set_forces)
    force.set_forces = clock
    simulation.operations.integrator.forces.append(force)
    return Contender(name, simulation.run, clock.take)


def biased(n: int, *, route: str) -> Contender:
    """HOOMD with pysamp."""
    os.environ["PYSAMP_HOOMD_CALLBACK"] = "1" if route == "called" else "0"
    bound = cast(Any, pysamp.bind(fluid(n), METHOD))
    bound.reserve(10_000_000)
    bound.run(20)  # compiled
    if route == "relayed":
        waited = Parts(bound._relay)
    else:
        bound.set_forces = Clock(bound.set_forces)
        waited = bound.set_forces.take
    return Contender(f"pysamp, {bound.provenance['route']}", bound.run, waited)


def main() -> None:
    """Measure, and print one table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sizes", default="216,10000,100000")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each contender per round")
    parser.add_argument("--json", help="write the figures there as well")
    arguments = parser.parse_args()
    print(f"HOOMD-blue {hoomd.version.version}, pysamp {pysamp.__version__}; microseconds per step")
    print("| N | contender | whole step | added to plain | in place |\n|---|---|---|---|---|")
    figures, parts = {}, []
    for n in map(int, arguments.sizes.split(",")):
        plain = Contender("plain", fluid(n).run)
        forces = [custom(n, "empty", Empty()), custom(n, "round trip", RoundTrip())]
        contenders = [plain, *forces, biased(n, route="relayed"), biased(n, route="called")]
        measure(contenders, arguments.rounds, arguments.seconds)
        for contender in contenders:
            added = summary([a - b for a, b in zip(contender.whole, plain.whole, strict=True)])
            whole = summary(contender.whole)
            place = summary(contender.in_place) if contender.in_place else None
            figures[f"{n} {contender.name}"] = {"whole": whole, "added": added, "in_place": place}
            shown = "" if place is None else f"{place[0]:.1f} +- {place[1]:.1f}"
            print(
                f"| {n} | {contender.name} | {whole[0]:.1f} | {added[0]:.1f} +- {added[1]:.1f} | {shown} |", flush=True
            )
            if isinstance(contender.waited, Parts):
                each = 1e6 * np.median(contender.waited.each, axis=0)
                first = 1e6 * np.median(contender.waited.first)
                parts.append(f"| {n} | " + " | ".join(f"{part:.1f}" for part in each) + f" | {first:.0f} |")
    print("\n| N | gather | switch to the loop | step | switch back | write | first of a run |")
    print("|---|---|---|---|---|---|---|")
    print("\n".join(parts))
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump(figures, file, indent=1)


if __name__ == "__main__":
    main()
