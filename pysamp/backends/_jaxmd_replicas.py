"""JAX MD simulations that may run in one program: those that differ in their states only."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ._jaxmd_simulation import Simulation

__all__ = ["Replicas", "are_alike"]


class Replicas:
    """Several simulations that differ in their states only."""

    def __init__(self, simulations: Sequence[Simulation]):
        self.simulations = list(simulations)


def are_alike(first: Simulation, second: Simulation) -> bool:
    """Whether two simulations differ in their states at most."""
    if (first.timestep, first.kT, first.step, first.x64) != (second.timestep, second.kT, second.step, second.x64):
        return False
    if not np.array_equal(first.masses, second.masses) or (first.box is None) != (second.box is None):
        return False
    if first.box is not None and second.box is not None and not np.array_equal(first.box, second.box):
        return False
    shapes = [jax.tree.map(lambda leaf: (np.shape(leaf), jnp.result_type(leaf)), s.state) for s in (first, second)]
    if jax.tree.structure(shapes[0]) != jax.tree.structure(shapes[1]) or shapes[0] != shapes[1]:
        return False
    if first.neighbor_fn is not second.neighbor_fn:
        return False
    same = first.energy_fn is second.energy_fn and first.shift_fn is second.shift_fn
    if same and _is_same_integrator(first.integrator, second.integrator):
        return True
    return first.neighbor_fn is None and _program(first) == _program(second)


def _is_same_integrator(first: Any, second: Any) -> bool:
    if first is second:
        return True
    if not (isinstance(first, partial) and isinstance(second, partial)) or first.func is not second.func:
        return False
    given = [(f.args, f.keywords) for f in (first, second)]
    return repr(given[0]) == repr(given[1])


def _program(simulation: Simulation) -> tuple[str, list[bytes]]:
    """What a step computes, as text, with the arrays that its functions hold."""
    with jax.enable_x64(simulation.x64):
        _, apply = simulation.integrator(simulation.energy_fn, simulation.shift_fn)
        closed = jax.make_jaxpr(apply)(simulation.state)
    return str(closed.jaxpr), [np.asarray(value).tobytes() for value in closed.consts]
