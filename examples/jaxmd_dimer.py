"""A dimer in a Lennard-Jones solvent with JAX MD: 64 walkers build one metadynamics bias together, in one program.

python examples/jaxmd_dimer.py [--steps 20000] [--walkers 64]
"""

import argparse
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax_md import energy, simulate, space

import pysamp
from pysamp.backends import jaxmd
from pysamp.colvars import Distance
from pysamp.methods import HarmonicWalls, Metadynamics

SIDE, KT = 4.5, 1.0
DISPLACEMENT, SHIFT = space.periodic(SIDE, wrapped=False)
INTEGRATOR = partial(simulate.nvt_langevin, dt=0.005, kT=KT, gamma=1.0)
EVERY_PAIR = np.ones((64, 64))
EVERY_PAIR[0, 1] = EVERY_PAIR[1, 0] = 0.0  # the dimer has a bond of its own
SOLVENT = energy.soft_sphere_pair(DISPLACEMENT, sigma=1.0, epsilon=jnp.asarray(20.0 * EVERY_PAIR), alpha=2.0)


def potential(x, **unused):
    """Soft spheres, and a bond that is short or long, with 5 kT between."""
    bond = jnp.linalg.norm(DISPLACEMENT(x[0], x[1]))
    return SOLVENT(x) + 5.0 * (1.0 - ((bond - 1.4) / 0.3) ** 2) ** 2


INIT, _ = INTEGRATOR(potential, SHIFT)


def generate_context():
    """An ordinary JAX MD script; what is compiled is made once, above."""
    lattice = np.stack(np.meshgrid(*[np.arange(4.0)] * 3), axis=-1).reshape(-1, 3)[:, ::-1]
    state = INIT(jax.random.PRNGKey(0), jnp.asarray(lattice * SIDE / 4.0, dtype=jnp.float32))
    return jaxmd.Simulation(potential, state, shift_fn=SHIFT, integrator=INTEGRATOR, box=SIDE)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--walkers", type=int, default=64)
    options = parser.parse_args(arguments)
    bond = Distance([0, 1])
    method = Metadynamics(bond, height=0.2, sigma=0.05, stride=200, bias_factor=8, grid=pysamp.Grid(0.7, 2.2, 90))
    walls = HarmonicWalls(bond, lower=0.9, upper=2.0, kspring=500.0)
    run = pysamp.run(
        [method, walls], generate_context, options.steps, replicas=options.walkers, shared=True, log_every=50, seed=1
    )
    free_energy = pysamp.analyze(run)
    difference, stderr = free_energy.difference(lambda r: r < 1.4, lambda r: r > 1.4)
    print(f"{options.walkers} walkers, {run.attributes['seconds_per_step'] * 1e6:.0f} us per step of all of them")
    print(f"long minus short bond: {difference:.2f} +- {stderr:.2f} kT")
    return run, free_energy


if __name__ == "__main__":
    main()
