"""Several walkers under one bias: what they share is kept once, and every walker's step enters it in their order."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from .errors import InvalidInputError
from .methods.base import AbstractMethod
from .sampler import BiasForces, Particles, Sampler, SamplerState

__all__ = ["check_shared", "replica_axes", "step_walkers"]


def check_shared(methods: Sequence[AbstractMethod]) -> None:
    """Check that walkers can share the methods.

    Raises:
        InvalidInputError: naming the first that they cannot.
    """
    for method in methods:
        if method.own is None:
            raise InvalidInputError(
                f"Walkers cannot share {type(method).__name__}. Those that can be shared are Metadynamics, ABF and biases "
                "that do not change; leave shared=True out to give each replica a bias of its own."
            )


def replica_axes(sampler: Sampler, state: SamplerState) -> SamplerState:
    """Where ``vmap`` finds the replicas: on the first axis, except for what they have in common."""
    axes = eqx.tree_at(lambda s: s.step, jax.tree.map(lambda _: 0, state), replace=None)
    if sampler.walkers == 1:
        return axes
    methods = tuple(_axes_of_method(m, s) for m, s in zip(sampler.methods, axes.methods, strict=True))
    return eqx.tree_at(lambda s: s.methods, axes, methods)


def _axes_of_method(method: AbstractMethod, axes: Any) -> Any:
    if axes is None:
        return None
    shared = [field.name for field in dataclasses.fields(axes) if field.name not in (method.own or ())]
    shared = [name for name in shared if getattr(axes, name) is not None]
    return eqx.tree_at(lambda s: [getattr(s, name) for name in shared], axes, replace=[None] * len(shared))


def step_walkers(
    sampler: Sampler, state: SamplerState, particles: Particles, is_step: Bool[Array, ""]
) -> tuple[SamplerState, BiasForces]:
    """One force evaluation of all walkers: the methods see them all, then each gets the bias of that common state.

    Args:
        sampler: the sampler.
        state: with the walkers on the first axis of what is each one's own.
        particles: with the walkers on the first axis.
        is_step: False for one more evaluation within the same step.
    """
    lists = jax.vmap(lambda lists, particles: sampler.renewed(lists, particles))(state.lists, particles)

    def observed(own: tuple[Any, Any], particles: Particles, lists: Any) -> tuple[Any, Any]:
        return sampler.observe(eqx.tree_at(lambda s: (s.key, s.forces), state, own), particles, lists)

    each = state.key, state.forces
    observations = jax.vmap(lambda *args: observed(*args)[0])(each, particles, lists)
    methods = []
    for method, old, obs in zip(sampler.methods, state.methods, observations, strict=True):
        # the time is common to all: methods have branches that depend on it
        obs = eqx.tree_at(lambda o: (o.step, o.kT, o.timestep), obs, (state.step, obs.kT[0], obs.timestep[0]))
        methods.append(jax.lax.cond(is_step, lambda m=method, s=old, o=obs: m.update_shared(s, o), lambda s=old: s))

    def biased(each: Any, particles: Particles, lists: Any, methods: Any) -> tuple[Array, Array, Array, BiasForces]:
        own, pullbacks = observed(each, particles, lists)  # what was computed above; XLA finds that out
        biases = [m.bias(s, o) for m, s, o in zip(sampler.methods, methods, own, strict=True)]
        xi = jnp.concatenate([o.xi for o in own])
        forces = jnp.concatenate([bias.force for bias in biases])
        energies = jnp.stack([bias.energy for bias in biases])
        return xi, forces, energies, sampler.assemble(biases, pullbacks, particles)

    axes = replica_axes(sampler, state).methods
    xi, applied, energies, forces = jax.vmap(biased, in_axes=(0, 0, 0, axes))(each, particles, lists, tuple(methods))
    after = eqx.tree_at(
        lambda s: (s.step, s.methods, s.xi, s.forces, s.energies, s.lists),
        state,
        (
            state.step + jnp.asarray(is_step, dtype=state.step.dtype),
            tuple(methods),
            jnp.where(is_step, xi, state.xi),
            jnp.where(is_step, applied, state.forces),
            jnp.where(is_step, energies, state.energies),
            lists,
        ),
        is_leaf=lambda leaf: leaf is None,
    )
    return after, forces
