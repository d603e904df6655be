"""How near an adaptive path comes to a valley along a unit circle, by smoothing and half-life: the table of its page in the docs.

    python benchmarks/adaptive_path.py [--replicas 16] [--steps 150000]

Springs of 80 kT across the valley and a barrier of 4 kT along it. The path begins on the chord, which is up to 0.46 away, with
eleven nodes between the wells and two beyond each, and is filled with metadynamics.
"""

import argparse
from dataclasses import replace

import numpy as np
from accuracy import ARC, Arc
from jaxtyping import Float

import pysamp
from pysamp.colvars import Path
from pysamp.methods import AdaptivePath, HarmonicWalls, Metadynamics

SYSTEM, BEYOND = replace(ARC, model=Arc(tilt=0.0), friction=5.0), 2


def distances(smoothing: float, half_life: float | None, n_replicas: int, n_steps: int) -> Float[np.ndarray, "r m"]:
    """Of the nodes that may move from the circle, outwards."""
    path = Path(SYSTEM.model.cvs, SYSTEM.model.chord(11, BEYOND))
    grid = pysamp.Grid(0.0, 1.0 + len(path.nodes), 150)
    biases = [
        Metadynamics(path["s"], height=0.3, sigma=0.5, stride=100, bias_factor=6, grid=grid),
        HarmonicWalls(path["z"], upper=0.3, kspring=50.0),
    ]
    fixed = (BEYOND, -1 - BEYOND)
    method = AdaptivePath(path, biases, stride=500, fixed=fixed, smoothing=smoothing, half_life=half_life)
    run = pysamp.run(method, SYSTEM.simulation, n_steps, replicas=n_replicas, seed=1, log_every=n_steps, progress=False)
    nodes = np.stack([np.asarray(state.methods[0].nodes) for state in run.states])
    return np.linalg.norm(nodes[:, fixed[0] + 1 : fixed[1]], axis=-1) - 1.0


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--replicas", type=int, default=16)
    parser.add_argument("--steps", type=int, default=150_000)
    arguments = parser.parse_args()
    print("| smoothing | half-life | root mean square | worst | mean |\n|---|---|---|---|---|")
    for half_life in (None, 20_000.0):
        for smoothing in (0.0, 0.3, 0.5, 0.9):
            d = distances(smoothing, half_life, arguments.replicas, arguments.steps)
            kept = "none" if half_life is None else f"{half_life:.0f} steps"
            print(
                f"| {smoothing} | {kept} | {np.sqrt(np.mean(d**2)):.3f} | {np.abs(d).max():.2f} | {d.mean():.3f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
