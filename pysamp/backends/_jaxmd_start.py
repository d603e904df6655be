"""The engine of a JAX MD simulation at the beginning, and the compiled functions by which it is left and seen between runs."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .._cut import Cut, Traced
from ..loop import replica_axes
from ..sampler import BiasForces, Particles, Sampler, SamplerState
from ._jaxmd_engine import Engine, biased, noting, renewed, trace_step, trace_update
from ._jaxmd_simulation import Simulation, is_fractional, velocity_scale

__all__ = ["begun", "completed", "copied", "evaluated", "forces", "forces_of_all", "renewed_lists", "traced_functions"]


def begun(
    first: Simulation,
    sampler: Sampler,
    md: Any,
    template: Any,
    neighbors: list[Array],
    n_steps: int,
    traced: tuple[Cut, Traced | None] | None = None,
) -> Engine:
    """An engine that stands at the positions of JAX MD's states, with no step under way.

    Args:
        first: one of the simulations.
        sampler: what the engine hands particles to.
        md: JAX MD's states, one for each replica on the first axis.
        template: a neighbour list, or None.
        neighbors: its leaves for each of the replicas.
        n_steps: steps done before.
        traced: step and renewal of the neighbour list for these shapes; None to trace them.
    """
    with jax.enable_x64(first.x64):
        x = md.position
        box = jax.vmap(lambda state: state.box)(md) if first.has_own_box else None
    step, update = traced or traced_functions(first, md, x, box, template)
    scale = velocity_scale(first, step.n_notes)
    rows = None if box is not None else first.box_rows
    with jax.enable_x64(True):
        nothing = [jnp.zeros(len(x), x.dtype), jnp.zeros_like(x), jnp.zeros(len(x), x.dtype)]
        _, _, carried = _before(step, (md, neighbors), nothing)
        v = None
        if scale is not None:
            v = jax.vmap(lambda s: s.velocity - 0.5 * first.timestep * s.force / s.mass)(md).astype(x.dtype)
        return Engine(
            step=step,
            update=update,
            md=md,
            carried=carried,
            x=x,
            box=box,
            v=v,
            neighbors=neighbors,
            fresh=jnp.asarray(step.n_notes > 0),
            overflow=jnp.zeros((), dtype=bool),
            remaining=jnp.asarray(np.int64(0)),
            n_steps=jnp.asarray(np.int64(n_steps)),
            box_rows=None if rows is None else jnp.asarray(rows),
            fractional=is_fractional(first),
            velocity_scale=scale,
            atoms=sampler.atoms,
            velocities_too=sampler.needs_velocities,
            held=jnp.zeros(len(x), dtype=bool) if sampler.stops else None,
        )


@jax.jit
def _before(step: Cut, inputs: Any, answer: list[Array]) -> Any:
    return jax.vmap(step.before)(inputs, answer)


renewed_lists = jax.jit(renewed)


@jax.jit
def evaluated(sampler: Sampler, state: SamplerState, particles: Particles) -> BiasForces:
    return jax.vmap(sampler.evaluate, in_axes=(replica_axes(sampler, state), 0))(state, particles)


@jax.jit
def completed(engine: Engine, bias: BiasForces) -> Any:
    """JAX MD's states with the bias in the momenta, and without it in the forces."""
    answer = engine.answer(bias)
    md = engine.completed(answer)
    fields = {"force": answer[1], "dUdV": answer[2], "potential_energy": answer[0]}
    return md.set(**{name: getattr(md, name) - term for name, term in fields.items() if hasattr(md, name)})


@partial(jax.jit, static_argnums=(0, 1))
def forces_of_all(energy_fn: Callable, structure: Any, x: Array, box: Array | None, leaves: list[Array]) -> Array:
    return jax.vmap(lambda x, box, leaves: forces(energy_fn, x, box, leaves, structure))(x, box, leaves)


def forces(energy_fn: Callable, x: Array, box: Array | None, leaves: list[Array], structure: Any) -> Array:
    """Forces of the energy function alone, for one replica; ``structure`` is that of its neighbour list."""
    options: dict[str, Any] = {} if box is None else {"box": box}
    if leaves:
        options["neighbor"] = structure.unflatten(leaves)
    value = energy_fn(x, **options)
    if jnp.shape(value) != ():
        return value
    return -jax.grad(lambda x: energy_fn(x, **options))(x)


def traced_functions(
    first: Simulation, md: Any, x: Array, box: Array | None, template: Any
) -> tuple[Cut, Traced | None]:
    """Step and renewal of the neighbour list for the present shapes."""
    one_md, one_x, one_box = jax.tree.map(lambda leaf: leaf[0], (md, x, box))
    with jax.enable_x64(first.x64):
        _, apply = first.integrator(biased(first.energy_fn), noting(first.shift_fn))
        return trace_step(apply, one_md, template), trace_update(template, one_x, one_box)


def copied(engine: Engine) -> Engine:
    """The same in arrays of its own, which the loop may overwrite: some are the user's, or two are one."""
    return jax.tree.map(lambda leaf: leaf.copy() if isinstance(leaf, jax.Array) else jnp.asarray(leaf), engine)
