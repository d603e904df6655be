"""Metadynamics and OPES on x of the Mueller-Brown surface: the spread of 25 runs, beside the published one at the same cost.

    python benchmarks/mueller_brown_on_x.py [--only OPES,...] [--steps 1000000,10000000]

x is a bad CV here (docs/accuracy.md), so that runs are far from converged and differ much: what is compared is how far off they
are after so many steps. Invernizzi & Parrinello, J. Chem. Theory Comput. 18, 3988 (2022), doi 10.1021/acs.jctc.2c00152, ran each
method 25 times for 2e8 steps (time 1e6); their inputs, and the averages at earlier times given here, are in the data that go with
the paper (plumID:22.003). The setting is theirs: kT = 1, Langevin dynamics with friction 10, time step 0.005, a kernel every
500 steps, bias factor and barrier 20, and sigma the fluctuation of x in the deeper minimum. So is the estimator: all samples,
each with the weight exp(V / kT), for metadynamics exp((V - c) / kT).
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from accuracy import MUELLER_BROWN
from jaxtyping import Float
from scipy.special import logsumexp

import pysamp
from pysamp.methods import OPES, AbstractMethod, Metadynamics, OPESExplore

SYSTEM = replace(MUELLER_BROWN, timestep=0.005, friction=10.0)
N_RUNS = 25
X = SYSTEM.model.cvs[:1]
GRID = pysamp.Grid(-1.6, 1.3, 145)

METHODS: dict[str, AbstractMethod] = {
    "metadynamics": Metadynamics(X, height=1.0, sigma=0.1, stride=500, bias_factor=20, grid=GRID),
    "OPES": OPES(X, barrier=20.0, sigma=0.098, stride=500, grid=GRID),
    "OPES explore": OPESExplore(X, barrier=20.0, sigma=0.098, stride=500, grid=GRID),
}
# mean and standard deviation of 25 runs, by the number of steps
PUBLISHED: dict[str, dict[int, tuple[float, float]]] = {
    "metadynamics": {
        1_000_000: (2.436, 0.516),
        2_000_000: (1.438, 0.382),
        10_000_000: (2.245, 0.384),
        40_000_000: (2.606, 0.377),
        200_000_000: (3.175, 0.397),
    },
    "OPES": {
        1_000_000: (16.566, 6.818),
        2_000_000: (12.858, 7.294),
        10_000_000: (4.293, 4.932),
        40_000_000: (3.683, 1.769),
        200_000_000: (5.093, 1.611),
    },
    "OPES explore": {
        1_000_000: (7.970, 1.322),
        2_000_000: (7.377, 1.013),
        10_000_000: (7.440, 0.863),
        40_000_000: (7.369, 0.698),
        200_000_000: (7.031, 0.591),
    },
}


def estimates(name: str, steps: Sequence[int], n_runs: int = N_RUNS, seed: int = 61) -> Float[np.ndarray, "runs times"]:
    """Free-energy difference of x > 0 and x < 0 in each run, after each of these numbers of steps [kT]."""
    run = pysamp.run(
        METHODS[name], SYSTEM.simulation, max(steps), replicas=n_runs, seed=seed, log_every=500, progress=False
    )
    exponents = np.asarray(run.log["method_energy"].values, dtype=np.float64)[..., 0]
    if name == "metadynamics":
        exponents = exponents - pysamp.analysis.bias_constant(run).values
    right = np.asarray(run.log["xi"].values)[..., 0] > 0
    found = []
    for n in steps:
        known = np.asarray(run.log["step"].values) <= n
        weights, side = exponents[:, known], right[:, known]
        parts = [logsumexp(np.where(there, weights, -np.inf), axis=1) for there in (side, ~side)]
        found.append(parts[1] - parts[0])
    return np.stack(found, axis=1)


def main() -> None:
    """Run the methods and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", default=",".join(METHODS))
    parser.add_argument("--steps", default="1000000")
    arguments = parser.parse_args()
    steps = [int(float(n)) for n in arguments.steps.split(",")]
    print(
        f"exact: {SYSTEM.exact():.3f}\n| method | steps | mean | spread | published | its spread |\n|---|---|---|---|---|---|"
    )
    for name in arguments.only.split(","):
        start = time.perf_counter()
        for n, values in zip(steps, estimates(name, steps).T, strict=True):
            finite = values[np.isfinite(values)]
            known = PUBLISHED[name].get(n, (np.nan, np.nan))
            cells = f"{finite.mean():.2f} | {finite.std(ddof=1):.2f} | {known[0]:.2f} | {known[1]:.2f}"
            rest = "" if len(finite) == len(values) else f" ({len(values) - len(finite)} runs never saw one side)"
            print(f"| {name} | {n:,} | {cells} |{rest}", flush=True)
        print(f"{name}: {time.perf_counter() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
