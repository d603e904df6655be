"""Branches for what is seldom to be done, in forms that compiled loops do not pay for."""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jaxtyping import Array, Bool

__all__ = ["in_place_if", "rarely"]

Value = TypeVar("Value")


def in_place_if(condition: Bool[Array, ""], function: Callable[[Value], Value], value: Value) -> Value:
    """``function(value)`` if the condition holds, else ``value``.

    ``lax.cond`` would copy what stays; a loop of at most one turn keeps it in its place. Not differentiable in reverse.
    """

    def body(carry: tuple[Array, Value]) -> tuple[Array, Value]:
        return jnp.zeros_like(condition), function(carry[1])

    return jax.lax.while_loop(lambda carry: carry[0], body, (condition, value))[1]


def rarely(condition: Bool[Array, ""], function: Callable, otherwise: Callable, *operands: Any) -> Any:
    """``lax.cond`` that stays a branch under ``vmap``: taken if any of the batch wants it, for those alone that do.

    Not differentiable in reverse. The functions must not close over arrays that are batched.
    """

    @custom_vmap
    def choose(condition: Any, operands: Any) -> Any:
        return jax.lax.cond(condition, lambda: function(*operands), lambda: otherwise(*operands))

    @choose.def_vmap
    def _batched(axis_size: int, in_batched: Any, condition: Any, operands: Any) -> Any:
        condition_batched, operands_batched = in_batched
        axes = jax.tree.map(lambda batched: 0 if batched else None, operands_batched)
        each = [jax.vmap(f, in_axes=axes, axis_size=axis_size) for f in (function, otherwise)]
        if not condition_batched:  # as in a Jacobian
            out = rarely(condition, *each, *operands)
            return out, jax.tree.map(lambda _: True, out)

        def some(condition: Any, *operands: Any) -> Any:
            chosen, rest = (f(*operands) for f in each)
            pick = lambda a, b: jnp.where(condition.reshape(-1, *(1,) * (a.ndim - 1)), a, b)  # noqa: E731
            return jax.tree.map(pick, chosen, rest)

        out = rarely(jnp.any(condition), some, lambda _, *operands: each[1](*operands), condition, *operands)
        return out, jax.tree.map(lambda _: True, out)

    return choose(condition, operands)
