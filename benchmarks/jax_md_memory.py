"""JAX MD: memory and time of a derivative through a biased simulation, with and without checkpoints of the run.

    python benchmarks/jax_md_memory.py [--steps 100,400,1600] [--particles 64]

The derivative of the average distance of two of the particles, under a harmonic bias, with respect to the strength of all
Lennard-Jones pairs; double precision, every pair. *Checkpointed* is what ``pysamp.differentiable.simulate`` does, *all kept* the
same with ``jax.checkpoint`` doing nothing. Two figures of memory: what XLA's compiled program needs beside arguments and results,
and by how much the resident memory of the process rose while the program ran (Linux's own high-water mark).
"""

import argparse
import ctypes
import time
from functools import partial
from unittest.mock import patch

import jax
import jax.numpy as jnp
import numpy as np
from jax_md import simulate, space

from pysamp.backends import jaxmd
from pysamp.colvars import Distance
from pysamp.differentiable import simulate as differentiable
from pysamp.methods import HarmonicBias

DISPLACEMENT, SHIFT = space.periodic(6.0, wrapped=False)
INTEGRATOR = partial(simulate.nvt_langevin, dt=0.005, kT=1.0, gamma=1.0)
BIAS = HarmonicBias(Distance([0, 1]), kspring=1.0, center=1.5)


def lennard_jones(epsilon):
    """Every pair, at the nearest image. JAX MD's own has no finite second derivative where a particle meets itself."""

    def energy_fn(x, **unused):
        squared = jnp.sum(space.map_product(DISPLACEMENT)(x, x) ** 2, axis=-1)
        inverse = jnp.where(jnp.eye(len(x), dtype=bool), 1.0, squared) ** -3  # itself at the distance 1, of no energy
        return 2.0 * epsilon * jnp.sum(inverse**2 - inverse)

    return energy_fn


def derivative(n, n_steps):
    """The derivative with respect to the strength of the pairs, as a function to compile."""
    side = round(n ** (1 / 3) + 0.499)
    lattice = np.stack(np.meshgrid(*[np.arange(side)] * 3), axis=-1).reshape(-1, 3)[:n] * 6.0 / side
    init, _ = INTEGRATOR(lennard_jones(1.0), SHIFT)
    state = init(jax.random.PRNGKey(0), jnp.asarray(lattice))

    def average(epsilon):
        simulation = jaxmd.Simulation(lennard_jones(epsilon), state, shift_fn=SHIFT, integrator=INTEGRATOR, box=6.0)
        return differentiable(BIAS, simulation, n_steps=n_steps).xi.mean()

    return jax.grad(average)


def resident(name):
    """One of the process's figures of memory, in MiB."""
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) / 1024 for line in file if line.startswith(name))


def measured(function):
    """MiB of the compiled program, MiB by which the resident memory rose, seconds of the second run."""
    program = jax.jit(function).lower(jnp.asarray(1.0)).compile()
    analysis = program.memory_analysis()
    assert analysis is not None
    before = resident("VmRSS")
    with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
        file.write("5")  # the high-water mark begins anew
    first = float(program(jnp.asarray(1.0)))
    rise = resident("VmHWM") - before
    start = time.perf_counter()
    assert float(program(jnp.asarray(1.0))) == first
    assert np.isfinite(first)
    return analysis.temp_size_in_bytes / 2**20, rise, time.perf_counter() - start


def main():
    """Print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--steps", default="100,400,1600")
    parser.add_argument("--particles", type=int, default=64)
    arguments = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    ctypes.CDLL(None).mallopt(-3, 1 << 17)  # M_MMAP_THRESHOLD: freed memory goes back to the system
    print(
        "| steps | checkpointed: program | process | s | all kept: program | process | s |\n|---|---|---|---|---|---|---|"
    )
    for n_steps in map(int, arguments.steps.split(",")):
        found = measured(derivative(arguments.particles, n_steps))
        with patch.object(jax, "checkpoint", lambda function, **_: function):
            kept = measured(derivative(arguments.particles, n_steps))
        print(
            f"| {n_steps} | " + " | ".join("{:.1f} | {:.1f} | {:.2f}".format(*row) for row in (found, kept)) + " |",
            flush=True,
        )


if __name__ == "__main__":
    main()
