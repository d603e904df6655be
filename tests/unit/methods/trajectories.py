"""What the tests of methods share: observations, and a run along given values of the CVs."""

import jax
import jax.numpy as jnp

from pysamp.methods import Observation


def observe(xi, step=0, *, kT=1.0, momentum=None, applied=None, timestep=0.1):
    xi = jnp.atleast_1d(jnp.asarray(xi, dtype=float))
    momentum, applied = (
        jnp.zeros_like(xi) if value is None else jnp.atleast_1d(jnp.asarray(value, dtype=float))
        for value in (momentum, applied)
    )
    key = jax.random.key(0)
    return Observation(xi, jnp.asarray(step), jnp.asarray(kT), key, momentum, applied, jnp.asarray(timestep))


def follow(method, trajectory, *, momenta=None, **options):
    """State after the trajectory, with the room that the run would make."""
    state = method.reserve(method.init(observe(trajectory[0], **options)), len(trajectory))

    @jax.jit
    def after(state, obs):
        state = method.update(state, obs)
        return method.learned(state, obs.step + 1, obs.kT), method.bias(state, obs).force

    applied = None
    for step, xi in enumerate(trajectory):
        momentum = None if momenta is None else momenta[step]
        obs = observe(xi, step, momentum=momentum, applied=applied, **options)
        state, applied = after(state, obs)
    return state
