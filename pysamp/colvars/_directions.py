"""Directions of neighbours."""

from typing import Any

import jax.numpy as jnp

from ..snapshot import _dot
from .switching import AbstractSwitch


def direction(d: Any, switch: AbstractSwitch) -> Any:
    """Unit vector, distance, and the switching function; all of them zero where points coincide.

    Args:
        d: the three components of vectors [length].
        switch: the function of their lengths.
    """
    square = _dot(d, d)
    apart = square > jnp.finfo(square.dtype).tiny ** 0.5
    r = jnp.sqrt(jnp.where(apart, square, 1.0))
    inverse = 1.0 / r
    return tuple(v * inverse for v in d), r, jnp.where(apart, switch(r), 0.0)
