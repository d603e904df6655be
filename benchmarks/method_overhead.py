"""What each method costs per step, beside metadynamics with a grid, on alanine dipeptide in vacuum (OpenMM, Reference).

    python benchmarks/method_overhead.py [--only ABF,Ratchet,...] [--rounds 7] [--seconds 0.5] [--json FILE]

All methods act on phi and psi and take turns (A B C A B C ...), as in openmm_overhead.py, so that a drift of the machine's speed
meets all of them. The table has the microseconds that each adds to the plain engine's step, the time for which the engine
waits for the bias ("in place"), and the ratio of both to those of well-tempered metadynamics on a 100 x 100 grid; medians over
rounds of figures paired round by round, with half the interquartile range. The ratio in place is the one to look at, since the
difference of whole steps has the noise of the engine in it. It should be 1.5 or less; the last line names those above.
"""

import argparse
import json
import math
import sys

import equinox as eqx
import numpy as np
import openmm
import systems
from openmm_overhead import PHI, PSI, Contender, biased, measure, metadynamics, plain, summary, torus

import pysamp
from pysamp.colvars import Path
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
    MultiUmbrella,
    OPESExpanded,
    OPESExplore,
    ParallelBiasMetadynamics,
    Ratchet,
    SpectralABF,
    UmbrellaSampling,
    Unbiased,
)

CVS, GRID = [PHI, PSI], torus(100, 100)
REFERENCE, TARGET = "Metadynamics", 1.5
TRAIN_EVERY = 10**9  # the ordinary step; training is apart from it
SPRINGS = {"sigma": 0.1, "tau": 0.2}
KERNELS = {"barrier": 50.0, "sigma": 0.35, "stride": 500}

PATH = Path(CVS, [[-1.4 + 0.12 * i, 1.2 - 0.1 * i] for i in range(21)])
HILLS_ON_PATH = Metadynamics(
    PATH["s"], height=1.2, sigma=0.7, stride=500, bias_factor=10, grid=pysamp.Grid(-1.0, 23.0, 240)
)

METHODS: dict[str, AbstractMethod] = {
    REFERENCE: metadynamics(),
    "ParallelBiasMetadynamics": ParallelBiasMetadynamics(
        CVS, height=1.2, sigma=0.35, stride=500, bias_factor=10, grid=GRID
    ),
    "ABF": ABF(CVS, grid=GRID),
    "SpectralABF": SpectralABF(CVS, grid=GRID, fit_every=TRAIN_EVERY),
    "ANN": ANN(CVS, grid=GRID, train_every=TRAIN_EVERY),
    "FUNN": FUNN(CVS, grid=GRID, train_every=TRAIN_EVERY),
    "CFF": CFF(CVS, grid=GRID, train_every=TRAIN_EVERY),
    "ExtendedABF": ExtendedABF(CVS, grid=GRID, **SPRINGS),
    "ExtendedABF with hills": ExtendedABF(CVS, grid=GRID, hills=metadynamics(), **SPRINGS),
    "AdaptivePath": AdaptivePath(PATH, HILLS_ON_PATH, stride=500),
    "OPES": OPES(CVS, grid=GRID, **KERNELS),
    "OPES without grid": OPES(CVS, **KERNELS),
    "OPESExplore": OPESExplore(CVS, grid=GRID, **KERNELS),
    "OPESExplore without grid": OPESExplore(CVS, **KERNELS),
    "OPESExpanded": OPESExpanded(
        MultiUmbrella(CVS, centers=[[a, b] for a in range(-3, 4) for b in range(-3, 4)], sigma=0.7, barrier=50.0),
        stride=500,
    ),
    "UmbrellaSampling": UmbrellaSampling(CVS, centers=[[-1.4, 1.2]], kspring=50.0),
    "HarmonicBias": HarmonicBias(CVS, kspring=50.0, center=[-1.4, 1.2]),
    "HarmonicWalls": HarmonicWalls(CVS, lower=[-2.0, 0.0], upper=[-0.5, 2.0], kspring=50.0),
    "MovingRestraint": MovingRestraint(CVS, kspring=50.0, centers=[[-1.4, 1.2], [-1.2, 1.0]], steps=[0, 10**10]),
    "Ratchet": Ratchet(CVS, kspring=5.0, target=[1.0, -1.0]),
    "Unbiased": Unbiased(CVS),
}


def compare(values: list[float], reference: list[float]) -> list[float]:
    """Ratios round by round, without rounds in which the noise of the engine hides the reference."""
    return [a / b for a, b in zip(values, reference, strict=True) if b > 0] or [math.nan]


def show(values: list[float]) -> str:
    """Median and spread, for the table."""
    middle, spread = summary(values)
    return f"{middle:.2f} +- {spread:.2f}"


def late(bound) -> None:
    """Go on as after 2^30 steps, when what methods solve for more rarely as they go on is out of the way."""
    bound.states = [eqx.tree_at(lambda s: s.step, state, np.asarray(2**30)) for state in bound.states]


def contenders(names: list[str]) -> list[Contender]:
    """The plain engine, the reference, and the rest of the names."""
    wanted = [REFERENCE, *(name for name in names if name != REFERENCE)]
    return [plain(systems.vacuum()), *(biased(systems.vacuum(), METHODS[name], name, late) for name in wanted)]


def main() -> None:
    """Measure, and print one table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", default=",".join(METHODS), help=f"of {', '.join(METHODS)}")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.5, help="of each method per round")
    parser.add_argument("--json", help="write the figures there as well")
    arguments = parser.parse_args()
    names = arguments.only.split(",")
    unknown = sorted(set(names) - set(METHODS))
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; choose from {', '.join(METHODS)}")
    measured = contenders(names)
    measure(measured, arguments.rounds, arguments.seconds)
    engine, reference = measured[0].whole, measured[1]
    added = {c.name: [a - b for a, b in zip(c.whole, engine, strict=True)] for c in measured[1:]}
    print(f"OpenMM {openmm.__version__}, Python {sys.version.split()[0]}; plain step {show(engine)} microseconds")
    print("| method | added to plain | in place | ratio, added | ratio, in place |\n|---|---|---|---|---|")
    slow = []
    for contender in measured[1:]:
        in_place = compare(contender.in_place, reference.in_place)
        whole = compare(added[contender.name], added[REFERENCE])
        cells = [show(values) for values in (added[contender.name], contender.in_place, whole, in_place)]
        print(f"| {contender.name} | {' | '.join(cells)} |", flush=True)
        if summary(in_place)[0] > TARGET:
            slow.append(contender.name)
    print(f"\nMore than {TARGET} times {REFERENCE}: {', '.join(slow) or 'none'}")
    if arguments.json:
        results = {c.name: {"whole": c.whole, "in_place": c.in_place} for c in measured}
        with open(arguments.json, "w") as file:
            json.dump(results, file)


if __name__ == "__main__":
    main()
