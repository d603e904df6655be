"""A biased simulation as one differentiable function of everything that it is made of."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ._job import as_count
from .api import describe
from .backends._jaxmd_start import begun, forces
from .backends.jaxmd import Simulation
from .errors import InvalidInputError, UnsupportedError
from .loop import replica_axes
from .methods.base import AbstractMethod
from .sampler import BiasForces, Particles, Sampler, SamplerState, as_methods

__all__ = ["Trajectory", "simulate"]


class Trajectory(eqx.Module):
    """What a differentiable simulation returns; all of it may be differentiated.

    Attributes:
        state: JAX MD's state after the last step, with the bias in its forces and momenta.
        sampler_state: states of the methods.
        xi: CVs before each step [CV unit].
        bias_energy: bias energy of each method before each step [energy].
    """

    state: Any
    sampler_state: SamplerState
    xi: Float[Array, "n_steps n"]
    bias_energy: Float[Array, "n_steps m"]


def simulate(
    methods: AbstractMethod | Sequence[AbstractMethod],
    simulation: Simulation,
    *,
    n_steps: int,
    segment: int | None = None,
    seed: int = 0,
) -> Trajectory:
    r"""Run a biased JAX MD simulation as a pure function, for ``jax.grad`` and ``jax.jit``.

    Make methods and simulation inside the function that is differentiated, from its parameters: an energy function that holds
    one, or a method in which ``equinox.tree_at`` has put one. The steps are those of :func:`~pysamp.run`. The force of
    ``simulation.state`` is computed anew, so that the state itself can be made beforehand.

    Reverse-mode derivatives need what was computed on the way. The run is cut into segments; kept are the states at their
    ends. When the derivatives of a segment are due, it is computed again and the states of its steps are kept, and from each of
    these what the step computed on the way from it, such as the distances of all pairs. With segments of $\sqrt{n}$ steps of n
    the memory is that of $2\sqrt{n}$ states and of one step, for the price of two more runs. Derivatives of chaotic
    trajectories grow exponentially with time: average over many short runs.

    The bias is in double precision, and so must derivatives of it be: switch ``jax_enable_x64`` on before differentiating.

    Args:
        methods: biases that add up; also biases that adapt, with all that they remember. Not those whose work has no fixed
            length: OPES, metadynamics without a grid, and networks.
        simulation: with one replica.
        n_steps: MD steps.
        segment: steps of a segment; None for the square root of ``n_steps``.
        seed: of the methods' random numbers; those of JAX MD are in its state.

    Returns:
        A :class:`Trajectory`. If a neighbour list was too short, all numbers in it are NaN: make it with more room.

    Raises:
        InvalidInputError: if methods and simulation do not fit.
        UnsupportedError: if a method cannot be differentiated.

    Example:
        >>> import jax  # doctest: +SKIP
        >>> def final(k):  # doctest: +SKIP
        ...     simulation = jaxmd.Simulation(lambda R: 0.5 * k * jnp.sum(R**2), state, shift_fn=shift, integrator=integrator)
        ...     return simulate(method, simulation, n_steps=100).xi.mean()
        >>> jax.grad(final)(1.0)  # doctest: +SKIP
    """
    methods = as_methods(methods)
    if not isinstance(simulation, Simulation):
        raise InvalidInputError(f"Only a pysamp.backends.jaxmd.Simulation can be differentiated, got {simulation!r}.")
    n_steps = as_count(n_steps, "n_steps")
    segment = math.isqrt(n_steps - 1) + 1 if segment is None else min(as_count(segment, "segment"), n_steps)
    sampler = Sampler.build(methods, describe(simulation))
    neighbors = simulation.neighbors
    if neighbors is None and simulation.neighbor_fn is not None:
        neighbors = simulation.neighbor_fn.allocate(simulation.state.position)
    with jax.enable_x64(simulation.x64):
        leaves = jax.tree.leaves(neighbors)
        md = simulation.state
        if hasattr(md, "force"):
            box = md.box if simulation.has_own_box else None
            md = md.set(force=forces(simulation.energy_fn, md.position, box, leaves, jax.tree.structure(neighbors)))
        md = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], md)
    with jax.enable_x64(True):
        start = begun(simulation, sampler, md, neighbors, [leaf[None] for leaf in leaves], 0)
        start = eqx.tree_at(lambda e: e.remaining, start, start.remaining + n_steps)
        with jax.ensure_compile_time_eval():  # how much room there must be is known when this is traced
            first = sampler.init(jax.tree.map(lambda leaf: leaf[0], start.particles()), seed)
            first = sampler.reserve(first, n_steps)
        _check_differentiable(sampler, first, jax.tree.map(lambda leaf: leaf[0], start.particles()))
        state = eqx.tree_at(lambda s: s.step, jax.tree.map(lambda leaf: leaf[None], first), first.step)
        axes = replica_axes(sampler, state)
        step = jax.vmap(partial(_step, sampler), in_axes=(axes, 0), out_axes=(axes, 0))

        def parts(engine: Any) -> tuple:
            return engine.moving, engine.fresh, engine.overflow, engine.remaining, engine.n_steps

        def whole(values: tuple) -> Any:  # constants stay out of what is carried from step to step
            (md, carried, x, box, v, lists), *flags = values
            return eqx.tree_at(
                lambda e: (e.md, e.carried, e.x, e.box, e.v, e.neighbors, e.fresh, e.overflow, e.remaining, e.n_steps),
                start,
                (md, carried, x, box, v, lists, *flags),
                is_leaf=lambda leaf: leaf is None,
            )

        def turn(carry: tuple, _: None) -> tuple[tuple, tuple[Array, Array]]:
            state, values, failed = carry
            engine = whole(values)
            state, bias = step(state, engine.particles())
            engine, _ = engine.advance(bias)
            return (state, parts(engine), failed | engine.overflow), (state.xi[0], state.energies[0])

        def run(carry: tuple, length: int) -> tuple[tuple, tuple[Array, Array]]:
            return jax.lax.scan(jax.checkpoint(turn, prevent_cse=False), carry, length=length)

        carry = (state, parts(start), start.overflow)
        n_segments, rest = divmod(n_steps, segment)
        carry, rows = jax.lax.scan(
            lambda carry, _: jax.checkpoint(lambda carry: run(carry, segment), prevent_cse=False)(carry),
            carry,
            length=n_segments,
        )
        rows = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), rows)
        if rest:
            carry, last = jax.checkpoint(lambda carry: run(carry, rest))(carry)
            rows = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), rows, last)
        state, values, failed = carry
        engine = whole(values)
        bias = jax.vmap(sampler.evaluate, in_axes=(axes, 0))(state, engine.particles())
        # where a step begins with the force, the state is whole already, and completing it would move it
        final = engine.completed(engine.answer(bias)) if engine.step.n_notes else engine.md
        result = Trajectory(
            jax.tree.map(lambda leaf: leaf[0], final),
            eqx.tree_at(
                lambda s: s.step,
                jax.tree.map(lambda leaf: leaf[:1].reshape(leaf.shape[1:]) if leaf.ndim else leaf, state),
                state.step,
            ),
            *rows,
        )
        return jax.tree.map(lambda leaf: _poisoned(leaf, failed), result)


def _step(sampler: Sampler, state: SamplerState, particles: Particles) -> tuple[SamplerState, BiasForces]:
    state, bias = sampler.step(state, particles)
    return sampler.learned(state, sampler.temperature(particles)), bias


def _check_differentiable(sampler: Sampler, state: SamplerState, particles: Particles) -> None:
    """Trace the derivative of one step, since JAX says only later, and not of which method, that there is none."""

    def total(values: tuple[SamplerState, Particles]) -> Array:
        leaves = jax.tree.leaves(_step(sampler, *values))
        return sum((leaf.sum() for leaf in leaves if eqx.is_inexact_array(leaf)), jnp.zeros(()))

    try:
        eqx.filter_eval_shape(eqx.filter_grad(total), (state, particles))
    except ValueError as error:
        names = ", ".join(type(method).__name__ for method in sampler.methods)
        raise UnsupportedError(
            f"A step of {names} has no reverse-mode derivative, because it has a loop of unknown length. "
            "Metadynamics has one with grid=...; so have ABF, eABF, restraints and walls."
        ) from error


def _poisoned(leaf: Array, failed: Array) -> Array:
    return jnp.where(failed, jnp.nan, leaf) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf
