"""A string method with a checkpoint, for tests that kill it: ``python killed_string.py ENGINE CHECKPOINT RESULT``."""

import sys

import numpy as np
from killed_flux import generate_openmm, generate_toy

import pysamp
from pysamp.colvars import Component
from pysamp.paths import MeanForceString

METHOD = MeanForceString(
    Component([0], axis=0), path=[-1.0, 1.0], n_images=6, kspring=100.0, n_steps=40, n_equilibration=10
)


def main(engine: str, checkpoint: str, result: str) -> None:
    generate = {"toy": generate_toy, "openmm": generate_openmm}[engine]
    options = {"checkpoint": checkpoint, "checkpoint_every": 1} if checkpoint else {}
    run = pysamp.run(METHOD, generate, 60 * 6 * 50, seed=1, progress=False, **options)
    np.savez(result, allow_pickle=False, paths=run.paths, gradients=run.gradients, positions=run.frames.positions)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3])
