"""The compiled loop for engines on a GPU: so many turns, whatever the engine hands over, and no branches.

On a GPU a ``while`` whose condition is computed makes the host wait for it at every turn, and so does a branch. So the turns
are counted, in blocks of a fixed number that XLA knows, and both sides of each branch are computed and one is selected. Methods
that learn, which takes too long for that, are waited for.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np
from jaxtyping import Array

from .loop import AbstractEngine, Engine, Log, Loop, learned_if_due, take_turn
from .sampler import Sampler, SamplerState

__all__ = ["run_counted", "without_branches"]

_BLOCK = 32  # turns of one compiled call; what is left over is done in calls of one


def run_counted(loop: Loop, engine: Engine, *, n_steps: int, log_every: int, turns_left: Callable[[], int]) -> Engine:
    """Run an engine until it has finished, and return it; its arrays are donated.

    A turn after the engine has finished does no harm: the engine hands over FINISHED, which changes nothing.

    Args:
        loop: holds the sampler, its state and the log.
        engine: the engine.
        n_steps: steps that it was asked for; it needs at least as many turns.
        log_every: steps between log rows; 0 for none.
        turns_left: how many more turns the engine needs at least; asked when none is under way.
    """
    with jax.enable_x64(True):
        engine, handed = _begin(engine)
        every = jax.device_put(np.int64(log_every))
        n_turns = n_steps
        while n_turns > 0:
            while n_turns > 0:
                block = _BLOCK if n_turns >= _BLOCK else 1
                loop.state, engine, handed, loop.log = _run_turns(
                    loop.sampler, loop.state, engine, handed, loop.log, every, n_turns=block
                )
                n_turns -= block
            jax.block_until_ready(loop.log.n_rows)
            n_turns = turns_left()
    loop.make_room()
    return engine


@partial(jax.jit, donate_argnames=("engine",))
def _begin(engine: AbstractEngine) -> tuple[AbstractEngine, Any]:
    return engine.begin()


@partial(jax.jit, static_argnames=("n_turns",), donate_argnames=("state", "engine", "handed", "log"))
def _run_turns(
    sampler: Sampler,
    state: SamplerState,
    engine: AbstractEngine,
    handed: Any,
    log: Log,
    log_every: Array,
    *,
    n_turns: int,
) -> tuple[SamplerState, AbstractEngine, Any, Log]:
    Loop.n_traces += 1

    def turn(carry: tuple, _: None) -> tuple[tuple, None]:
        state, engine, handed, log = carry
        kind, particles = engine.unpack(handed)
        state, log, forces = without_branches(
            lambda *args: take_turn(sampler, args[0], args[1], args[2], args[3], log_every), state, log, kind, particles
        )
        if sampler.learns:
            state = learned_if_due(sampler, state, kind, particles)
        engine, handed = engine.advance(engine.pack(forces))
        return (state, engine, handed, log), None

    carry, _ = jax.lax.scan(turn, (state, engine, handed, log), length=n_turns)
    return carry


def without_branches(function: Callable, *args: Any) -> Any:
    """Call a function with each ``lax.cond`` in it replaced by a selection, which is what becomes of it under ``vmap``."""
    batch = jax.tree.map(lambda leaf: leaf[None], args)
    return jax.tree.map(lambda leaf: leaf[0], jax.vmap(function)(*batch))
