"""A run with a checkpoint, for tests that kill it: ``python killed_run.py ENGINE CHECKPOINT RESULT``.

An engine joins by a function in ENGINES that returns a deterministic simulation of a particle whose CV is ``METHODS``'.
"""

# pyright: reportMissingImports=false, reportOptionalMemberAccess=false

import sys

import jax.numpy as jnp
import numpy as np

import pysamp
from pysamp._serial import to_arrays
from pysamp.colvars import Component
from pysamp.methods import HarmonicWalls, Metadynamics

X = Component([0], axis=0)
METHODS = [
    Metadynamics(X, height=0.3, sigma=0.2, stride=20, bias_factor=8, grid=pysamp.Grid(-2.0, 2.0, 32)),
    HarmonicWalls(X, lower=-1.8, upper=1.8, kspring=100.0),
]


def generate_toy():
    from pysamp.backends import toy

    def potential(x):
        return jnp.sum((x[:, 0] ** 2 - 1.0) ** 2) + 0.5 * jnp.sum(x[:, 1:] ** 2)

    return toy.Simulation(potential, [[1.0, 0.0, 0.0]], timestep=0.01)


def generate_openmm():
    import openmm

    system = openmm.System()
    system.addParticle(1.0)
    potential = openmm.CustomExternalForce("(x^2 - 1)^2 + 0.5 * (y^2 + z^2)")
    potential.addParticle(0)
    system.addForce(potential)
    integrator = openmm.LangevinMiddleIntegrator(120.27, 1.0, 0.01)  # kT = 1
    context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName("Reference"))
    context.setPositions([[1.0, 0.0, 0.0]])
    return context


def generate_python_force():
    from pysamp.backends.openmm import PythonForceRoute

    return PythonForceRoute(generate_openmm())


def generate_hoomd():
    import hoomd
    import hoomd.md

    class Potential(hoomd.md.force.Custom):
        def set_forces(self, timestep):
            with self._state.cpu_local_snapshot as snapshot, self.cpu_local_force_arrays as arrays:
                x, y, z = np.array(snapshot.particles.position)[0]
                arrays.force[0] = [-4 * x * (x**2 - 1), -y, -z]

    snapshot = hoomd.Snapshot()
    snapshot.configuration.box = [20, 20, 20, 0, 0, 0]
    snapshot.particles.types = ["A"]
    snapshot.particles.N = 1
    snapshot.particles.position[:] = [[1.0, 0.0, 0.0]]
    simulation = hoomd.Simulation(device=hoomd.device.CPU(), seed=1)
    simulation.create_state_from_snapshot(snapshot)
    langevin = hoomd.md.methods.Langevin(filter=hoomd.filter.All(), kT=1.0, default_gamma=1.0)
    simulation.operations.integrator = hoomd.md.Integrator(dt=0.01, methods=[langevin], forces=[Potential()])
    return simulation


ENGINES = {
    "hoomd": generate_hoomd,
    "toy": generate_toy,
    "openmm": generate_openmm,
    "PythonForce": generate_python_force,
}


def main(engine: str, checkpoint: str, result: str, timesteps: int = 6000) -> None:
    run = pysamp.run(
        METHODS,
        ENGINES[engine],
        timesteps,
        seed=1,
        log_every=7,
        checkpoint=checkpoint or None,
        checkpoint_every=50 if checkpoint else None,
    )
    arrays = to_arrays([run.states, run.snapshots], "end.")
    arrays |= {name: run.log[name].values for name in ("xi", "step", "method_energy")}
    np.savez(result, allow_pickle=False, **arrays)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3])
