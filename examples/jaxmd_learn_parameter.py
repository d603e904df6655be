"""Learn a parameter of a force field from a target value of a CV, by derivatives through biased simulations with JAX MD.

Two particles are tied by a spring whose length is not known; umbrella-like, a bias holds them near 2. The length is found with
which the average distance under the bias is the target.

python examples/jaxmd_learn_parameter.py [--iterations 30] [--steps 400]
"""

import argparse
from functools import partial

import jax
import jax.numpy as jnp
from jax_md import simulate as md
from jax_md import space

from pysamp.backends import jaxmd
from pysamp.colvars import Distance
from pysamp.differentiable import simulate
from pysamp.methods import HarmonicBias

jax.config.update("jax_enable_x64", True)  # the bias is in double precision, and so must its derivatives be

TARGET, WALKERS = 1.7, 8
_, SHIFT = space.free()
INTEGRATOR = partial(md.nvt_langevin, dt=0.02, kT=0.1, gamma=1.0)
BIAS = HarmonicBias(Distance([0, 1]), kspring=5.0, center=2.0)


def potential(length):
    """A spring of some length."""
    return lambda x, **unused: 0.5 * 10.0 * (jnp.linalg.norm(x[0] - x[1]) - length) ** 2


INIT, _ = INTEGRATOR(potential(1.0), SHIFT)
START = INIT(jax.random.PRNGKey(0), jnp.array([[0.0, 0.0, 0.0], [1.5, 0.0, 0.0]]))


def average(length, key, n_steps):
    """Distance in the second half of one short biased run."""
    simulation = jaxmd.Simulation(potential(length), START.set(rng=key), shift_fn=SHIFT, integrator=INTEGRATOR)
    return simulate(BIAS, simulation, n_steps=n_steps).xi[n_steps // 2 :].mean()


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--iterations", type=int, default=30)
    parser.add_argument("--steps", type=int, default=400)
    options = parser.parse_args(arguments)

    def loss(length, keys):
        found = jax.vmap(lambda key: average(length, key, options.steps))(keys)
        return (found.mean() - TARGET) ** 2

    step = jax.jit(jax.value_and_grad(loss))
    length = jnp.asarray(1.0)
    for i in range(options.iterations):
        value, slope = step(length, jax.random.split(jax.random.PRNGKey(i), WALKERS))
        length = length - 0.5 * slope
        print(f"{i:3d}  length {float(length):.3f}  (average - target)^2 {float(value):.5f}")
    return float(length)


if __name__ == "__main__":
    main()
