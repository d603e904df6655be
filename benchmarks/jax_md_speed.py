"""JAX MD: cost of the bias, gain of replicas in one program. Prints the table of docs/jax_md.md."""

import sys
import time
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax_md import energy, simulate, space

import pysamp
from pysamp.backends import jaxmd
from pysamp.colvars import Distance
from pysamp.methods import Metadynamics

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))

DISPLACEMENT, SHIFT = space.periodic(6.0, wrapped=False)
INTEGRATOR = partial(simulate.nvt_langevin, dt=0.005, kT=1.0, gamma=1.0)
METHOD = Metadynamics(
    Distance([0, 1]), height=0.1, sigma=0.1, stride=100, bias_factor=8, grid=pysamp.Grid(0.5, 5.5, 100)
)


def system(n):
    """Lennard-Jones particles, every pair, single precision."""
    energy_fn = energy.lennard_jones_pair(DISPLACEMENT)
    init, apply = INTEGRATOR(energy_fn, SHIFT)
    side = round(n ** (1 / 3) + 0.499)
    lattice = np.stack(np.meshgrid(*[np.arange(side)] * 3), axis=-1).reshape(-1, 3)[:n] * 6.0 / side
    state = init(jax.random.PRNGKey(0), jnp.asarray(lattice, dtype=jnp.float32))

    def generate_context():
        return jaxmd.Simulation(energy_fn, state, shift_fn=SHIFT, integrator=INTEGRATOR, box=6.0)

    return generate_context, apply, state


def plain(apply, state, n_steps):
    """Seconds per step of JAX MD alone, in one compiled loop."""
    run = jax.jit(lambda state: jax.lax.fori_loop(0, n_steps, lambda i, s: apply(s), state))
    jax.block_until_ready(run(state))
    start = time.perf_counter()
    jax.block_until_ready(run(state))
    return (time.perf_counter() - start) / n_steps


def biased(generate_context, n_steps, replicas, shared=False):
    """Seconds per step of all replicas."""
    run = pysamp.run(
        METHOD, generate_context, n_steps, replicas=replicas, shared=shared, log_every=100, seed=1, progress=False
    )
    return run.attributes["seconds_per_step"]


def main():
    print(jax.devices()[0].device_kind)
    for n, n_steps in ((8, 20_000), (64, 5_000)):
        generate_context, apply, state = system(n)
        alone = plain(apply, state, n_steps)
        one = biased(generate_context, n_steps, 1)
        print(f"| {n} | {alone * 1e6:.1f} | {one * 1e6:.1f} |", end="", flush=True)
        for replicas in (16, 64):
            both = [
                biased(generate_context, max(n_steps // replicas, 500), replicas, shared) for shared in (False, True)
            ]
            print("".join(f" {t / replicas * 1e6:.2f} ({one * replicas / t:.1f}x) |" for t in both), end="", flush=True)
        print()


if __name__ == "__main__":
    main()
