"""Optimal superposition of points on a reference: the rotation as a quaternion, and the deviation that is left.

Both functions take centred points. A quaternion $q$ stands for the rotation that takes the reference to the points.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ._eigen import eigh


def centred(x: Float[Array, "*b k 3"], weights: Float[Array, " k"]) -> Float[Array, "*b k 3"]:
    """Points relative to their weighted centre; the weights sum to one."""
    weights = jnp.reshape(weights, (1,) * (x.ndim - 2) + (-1, 1))
    return x - jnp.sum(weights * x, axis=-2, keepdims=True)


def quaternion(
    x: Float[Array, "k 3"], reference: Float[Array, "k 3"], weights: Float[Array, " k"]
) -> Float[Array, "4"]:
    """Rotation that takes the reference as near to the points as it can: a unit quaternion with first component >= 0.

    It is the eigenvector with the largest eigenvalue of a symmetric matrix made of the correlations of the two sets of
    points. Proper always: mirror images are not superposed.
    """
    right = [x[:, i] for i in range(3)]
    left = [weights * reference[:, i] for i in range(3)]
    s = [[jnp.sum(left[i] * right[j]) for j in range(3)] for i in range(3)]
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = s
    matrix = [
        [xx + yy + zz, yz - zy, zx - xz, xy - yx],
        [yz - zy, xx - yy - zz, xy + yx, zx + xz],
        [zx - xz, xy + yx, yy - xx - zz, yz + zy],
        [xy - yx, zx + xz, yz + zy, zz - xx - yy],
    ]
    q = eigh(jnp.stack([jnp.stack(row) for row in matrix]))[1][:, 0]
    return jnp.where(q[0] < 0, -q, q)


def rotate(q: Float[Array, "4"], x: Float[Array, "k 3"]) -> Float[Array, "k 3"]:
    """The points turned by the rotation of a unit quaternion."""
    a, b, c, d = (q[i] for i in range(4))
    matrix = [
        [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
        [2 * (b * c + a * d), a * a - b * b + c * c - d * d, 2 * (c * d - a * b)],
        [2 * (b * d - a * c), 2 * (c * d + a * b), a * a - b * b - c * c + d * d],
    ]
    return jnp.stack([sum(row[j] * x[:, j] for j in range(3)) for row in matrix], axis=-1)


def inverse(q: Float[Array, "4"]) -> Float[Array, "4"]:
    """The rotation back."""
    return jnp.concatenate([q[:1], -q[1:]])


def deviation(
    q: Float[Array, "4"], x: Float[Array, "k 3"], reference: Float[Array, "k 3"], weights: Float[Array, " k"]
) -> Float[Array, ""]:
    """Weighted mean square deviation of the points from the turned reference."""
    difference = x - rotate(q, reference)
    return jnp.sum(weights[:, None] * difference * difference)


@jax.custom_jvp
def least_deviation(
    x: Float[Array, "k 3"], reference: Float[Array, "k 3"], weights: Float[Array, " k"]
) -> Float[Array, ""]:
    """The deviation after the superposition that makes it smallest.

    At a minimum with respect to the rotation the derivative of the rotation does not count, so that the gradient exists
    where the rotation itself is not determined, as for points on a line.
    """
    return deviation(quaternion(x, reference, weights), x, reference, weights)


@least_deviation.defjvp
def _least_deviation_jvp(primals, tangents):
    return jax.jvp(partial(deviation, quaternion(*primals)), primals, tangents)
