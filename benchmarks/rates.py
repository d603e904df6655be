"""Rates by forward flux sampling against brute force, and how often the stated error bars cover it.

    python benchmarks/rates.py [--cases "double well;..."] [--runs 50] [--json FILE]

Prints the table of docs/methods/forward_flux.md. Brute force counts transitions in long unbiased runs of many replicas, logged at
every step; it shares no code with forward flux sampling but the dynamics.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import equinox as eqx
import numpy as np
from jaxtyping import Array, Float

import pysamp
from pysamp.backends import toy
from pysamp.methods import Unbiased
from pysamp.paths import ForwardFlux
from pysamp.testing import DoubleWell
from pysamp.testing.models import AbstractModel


class Channel(AbstractModel):
    r"""Two wells along a diagonal, $V = h ((x^2 - 1)^2 + (y - x)^2)$: x alone is a poor order parameter.

    Attributes:
        height: h [energy].
    """

    height: float = eqx.field(static=True, default=5.0)
    n_dims: ClassVar[int] = 2

    @property
    def bounds(self) -> tuple[tuple[float, float], ...]:
        """Where nothing of weight lies beyond."""
        return ((-3.0, 3.0), (-4.0, 4.0))

    def energy(self, q: Float[Array, "*b d"]) -> Float[Array, "*b"]:
        """Potential at (x, y) [energy]."""
        x, y = q[..., 0], q[..., 1]
        return self.height * ((x**2 - 1) ** 2 + (y - x) ** 2)


@dataclass(frozen=True)
class Case:
    """A model, its dynamics, and how its rate is found.

    Attributes:
        model: the potential; kT is 1.
        friction: [1/time].
        interfaces: of x.
        options: of ForwardFlux.
        brute: replicas and steps of the brute-force run.
        limit: MD steps of one run of forward flux sampling at most.
    """

    model: AbstractModel
    friction: float
    interfaces: Sequence[float]
    options: dict[str, Any] = field(default_factory=dict)
    brute: tuple[int, int] = (400, 20_000)
    limit: int = 20_000_000
    timestep: float = 0.05

    def simulation(self) -> toy.Simulation:
        """One particle in the left well."""
        start = [[-1.0, -1.0 if self.model.n_dims > 1 else 0.0, 0.0]]
        return toy.Simulation(self.model, start, timestep=self.timestep, friction=self.friction)

    def flux(self, seed: int, replicas: int = 100) -> Any:
        """Rate of one run."""
        cv = self.model.cvs[0]
        method = ForwardFlux(cv, interfaces=self.interfaces, **self.options)
        run = pysamp.run(method, self.simulation, self.limit, replicas=replicas, seed=seed, progress=False)
        return pysamp.analyze(run)

    def exact(self, seed: int = 1) -> tuple[float, float]:
        """Rate and standard error by brute force."""
        n, n_steps = self.brute
        cv = self.model.cvs[0]
        run = pysamp.run(Unbiased(cv), self.simulation, n_steps, replicas=n, seed=seed, log_every=1, progress=False)
        return count_transitions(run.log["xi"].values[..., 0], self.interfaces[0], self.interfaces[-1], self.timestep)


def count_transitions(x: Float[np.ndarray, "r t"], low: float, high: float, timestep: float) -> tuple[float, float]:
    """Transitions from x < low to x >= high per unit of time since x < low came after x >= high, with a standard error.

    The error is the jackknife over replicas.
    """
    state = np.where(x < low, 1, np.where(x >= high, 2, 0))
    last = np.maximum.accumulate(np.where(state > 0, np.arange(x.shape[1]), 0), axis=1)
    state = np.take_along_axis(state, last, axis=1)  # the basin visited last
    n = np.sum((state[:, :-1] == 1) & (state[:, 1:] == 2), axis=1)
    t = np.sum(state == 1, axis=1) * timestep
    rate = n.sum() / t.sum()
    without = (n.sum() - n) / (t.sum() - t)
    return float(rate), float(np.sqrt((len(n) - 1) / len(n) * np.sum((without - without.mean()) ** 2)))


CASES = {
    "double well": Case(
        DoubleWell(height=5.0), 1.0, [-0.8, -0.6, -0.45, -0.3, -0.15, 0.0, 0.7], {"n_initial": 200, "n_trials": 400}
    ),
    "double well, overdamped": Case(
        DoubleWell(height=5.0),
        20.0,
        [-0.8, -0.6, -0.45, -0.3, -0.15, 0.0, 0.7],
        {"n_initial": 200, "n_trials": 400, "basin": -0.9},
        brute=(400, 100_000),
    ),
    "double well, interfaces placed": Case(
        DoubleWell(height=5.0), 1.0, [-0.8, 0.7], {"n_initial": 200, "n_trials": 400, "target": 0.3}
    ),
    "channel": Case(Channel(), 1.0, [-0.8, -0.6, -0.4, -0.2, 0.0, 0.2, 0.7], {"n_initial": 200, "n_trials": 400}),
}


@dataclass(frozen=True)
class Outcome:
    """Rates against brute force.

    Attributes:
        exact: by brute force, with its standard error.
        value: of each run.
        error: stated standard error of each run.
    """

    exact: tuple[float, float]
    value: Float[np.ndarray, " runs"]
    error: Float[np.ndarray, " runs"]

    @property
    def coverage(self) -> float:
        """Part of the runs whose 68 % interval contains the brute-force rate."""
        return float(np.mean(np.abs(self.value - self.exact[0]) < self.error))

    @property
    def deviation(self) -> float:
        """Deviation of the mean, in standard errors of it and of brute force together."""
        error = math.hypot(self.value.std(ddof=1) / math.sqrt(len(self.value)), self.exact[1])
        return float((self.value.mean() - self.exact[0]) / error)


def evaluate(name: str, n_runs: int = 50) -> Outcome:
    """Run a case."""
    case = CASES[name]
    rates = [case.flux(seed) for seed in range(n_runs)]
    value, error = (np.array([getattr(rate, part) for rate in rates]) for part in ("value", "stderr"))
    return Outcome(case.exact(), value, error)


def main() -> None:
    """Run the cases and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cases", default=";".join(CASES), help="separated by semicolons")
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--json", type=Path, help="write the figures there as well")
    arguments = parser.parse_args()
    results = {}
    print("| model | brute force | mean | spread | stated | covered |\n|---|---|---|---|---|---|")
    for name in arguments.cases.split(";"):
        start = time.perf_counter()
        outcome = evaluate(name, arguments.runs)
        print(
            f"| {name} | {outcome.exact[0]:.3g} ± {outcome.exact[1]:.1g} | {outcome.value.mean():.3g} "
            f"| {outcome.value.std(ddof=1):.2g} | {np.sqrt(np.mean(outcome.error**2)):.2g} "
            f"| {100 * outcome.coverage:.0f} % |",
            flush=True,
        )
        print(f"{name}: {outcome.deviation:.1f} standard errors, {time.perf_counter() - start:.0f} s", file=sys.stderr)
        results[name] = {"exact": outcome.exact, "value": outcome.value.tolist(), "error": outcome.error.tolist()}
    if arguments.json:
        arguments.json.write_text(json.dumps(results))


if __name__ == "__main__":
    main()
