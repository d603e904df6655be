"""Forward flux sampling with a checkpoint, for tests that kill it: ``python killed_flux.py ENGINE CHECKPOINT RESULT``."""

import sys

import numpy as np

import pysamp
from pysamp._serial import to_arrays
from pysamp.colvars import Component
from pysamp.paths import ForwardFlux
from pysamp.testing import DoubleWell

METHOD = ForwardFlux(Component([0], axis=0), interfaces=[-0.8, -0.6, -0.4, 0.0, 0.7], n_initial=30, n_trials=36)


def generate_toy():
    from pysamp.backends import toy

    return toy.Simulation(DoubleWell(height=4.0), [[-1.0, 0.0, 0.0]], timestep=0.05)


def generate_openmm():
    import openmm

    system = openmm.System()
    system.addParticle(1.0)
    potential = openmm.CustomExternalForce("4 * (x^2 - 1)^2 + 0.5 * (y^2 + z^2)")
    potential.addParticle(0)
    system.addForce(potential)
    integrator = openmm.LangevinMiddleIntegrator(120.27, 1.0, 0.05)  # kT = 1
    context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName("Reference"))
    context.setPositions([[-1.0, 0.0, 0.0]])
    context.setVelocities([[0.1, 0.2, 0.3]])
    return context


def main(engine: str, checkpoint: str, result: str) -> None:
    generate, replicas = {"toy": (generate_toy, 6), "openmm": (generate_openmm, 1)}[engine]
    options = {"checkpoint": checkpoint, "checkpoint_every": 1} if checkpoint else {}
    run = pysamp.run(METHOD, generate, 10**7, replicas=replicas, seed=1, progress=False, **options)
    arrays = {}
    for i, interface in enumerate(run.interfaces):
        arrays |= to_arrays(interface, f"{i}.")
    np.savez(result, allow_pickle=False, walker_steps=run.walker_steps, **arrays)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3])
