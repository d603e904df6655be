"""Vector algebra whose derivatives are finite everywhere, and points brought together across periodic boundaries."""

import functools
import operator
from collections.abc import Iterable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..snapshot import Cell


def dot(a: Float[Array, "*#b 3"], b: Float[Array, "*#b 3"]) -> Float[Array, "*#b"]:
    """Scalar product along the last axis."""
    return jnp.sum(a * b, axis=-1)


def cross(a: Float[Array, "*b 3"], b: Float[Array, "*b 3"]) -> Float[Array, "*b 3"]:
    """Vector product along the last axis."""
    x, y, z = a[..., 0], a[..., 1], a[..., 2]
    u, v, w = b[..., 0], b[..., 1], b[..., 2]
    return jnp.stack([y * w - z * v, z * u - x * w, x * v - y * u], axis=-1)


def sum_of(terms: Iterable[Array]) -> Array:
    """Sum of one array or more."""
    return functools.reduce(operator.add, terms)


def norm(a: Float[Array, "*b n"]) -> Float[Array, "*b"]:
    """Length along the last axis. The derivative at zero, where there is none, is zero."""
    return sqrt(jnp.sum(a * a, axis=-1))


def sqrt(a: Float[Array, "*b"]) -> Float[Array, "*b"]:
    """Square root of what is positive, else zero with derivative zero; not a number stays so."""
    positive = ~(a <= 0)
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, a, 1.0)), 0.0)


def arctan2(y: Float[Array, "*b"], x: Float[Array, "*b"]) -> Float[Array, "*b"]:
    """Angle of the point (x, y) from the x axis. At the origin, where it is not defined, zero with derivative zero."""
    defined = ~(x * x + y * y < jnp.finfo(x.dtype).tiny)
    return jnp.where(defined, jnp.arctan2(y, jnp.where(defined, x, 1.0)), 0.0)


def divide(a: Float[Array, "*b"], b: Float[Array, "*b"]) -> Float[Array, "*b"]:
    """Quotient; zero with derivative zero where the denominator is zero."""
    defined = b != 0
    return jnp.where(defined, a / jnp.where(defined, b, 1.0), 0.0)


def volume(box: Float[Array, "3 3"]) -> Float[Array, ""]:
    """Volume that three vectors span, the rows of a matrix."""
    return jnp.abs(dot(box[0], cross(box[1], box[2])))


def torsion(b1: Float[Array, "*b 3"], b2: Float[Array, "*b 3"], b3: Float[Array, "*b 3"]) -> tuple[Array, Array]:
    """Sine and cosine of the torsion angle of three successive bonds, both times the same positive factor."""
    n1, n2 = cross(b1, b2), cross(b2, b3)
    return norm(b2) * dot(b1, n2), dot(n1, n2)


def made_whole(x: Float[Array, "k 3"], cell: Cell) -> Float[Array, "k 3"]:
    """Every point replaced by its image nearest to the point before it in the list; the first one stays."""
    if cell.box is None:
        return x
    steps = jax.lax.stop_gradient(x[1:] - x[:-1])  # how many box vectors are added does not depend on the positions
    return jnp.concatenate([x[:1], x[1:] - jnp.cumsum(steps - cell.nearest(steps), axis=0)])
