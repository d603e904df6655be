"""Vector algebra whose derivatives are finite everywhere."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def dot(a: Float[Array, "*#b 3"], b: Float[Array, "*#b 3"]) -> Float[Array, "*#b"]:
    """Scalar product along the last axis."""
    return jnp.sum(a * b, axis=-1)


def cross(a: Float[Array, "*b 3"], b: Float[Array, "*b 3"]) -> Float[Array, "*b 3"]:
    """Vector product along the last axis."""
    x, y, z = a[..., 0], a[..., 1], a[..., 2]
    u, v, w = b[..., 0], b[..., 1], b[..., 2]
    return jnp.stack([y * w - z * v, z * u - x * w, x * v - y * u], axis=-1)


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
