"""What the tests of methods share: observations, and a run along given values of the CVs."""

import jax
import jax.numpy as jnp

from pysamp.methods import Observation


def observe(xi, step=0, *, kT=1.0, momentum=None, timestep=0.1):
    xi = jnp.atleast_1d(jnp.asarray(xi, dtype=float))
    momentum = jnp.zeros_like(xi) if momentum is None else jnp.atleast_1d(jnp.asarray(momentum, dtype=float))
    return Observation(xi, jnp.asarray(step), jnp.asarray(kT), jax.random.key(0), momentum, jnp.asarray(timestep))


def follow(method, trajectory, *, momenta=None, **options):
    """State after the trajectory, with the room that the run would make."""
    state = method.reserve(method.init(observe(trajectory[0], **options)), len(trajectory))
    update = jax.jit(lambda state, obs: method.update(state, obs))  # a bound method cannot be hashed
    for step, xi in enumerate(trajectory):
        momentum = None if momenta is None else momenta[step]
        state = update(state, observe(xi, step, momentum=momentum, **options))
    return state
