"""The potential whose gradient comes nearest to a force that was measured bin by bin."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..grids import Grid

__all__ = ["nearest_potential"]

_UNKNOWN = 1e-3  # weight of a bin without samples, where the potential is to be flat
_PRECISION = 1e-3  # of the solution, relative
_MOST_TURNS = 50  # the next solution begins where this one ends


def nearest_potential(
    grid: Grid, force: Float[Array, "bins n"], weight: Float[Array, " bins"], guess: Float[Array, "*nodes_plus_2"]
) -> Float[Array, "*nodes_plus_2"]:
    r"""The table of $\phi$ that minimises $\sum_b w_b \int_b |\nabla\phi - f_b|^2$.

    A force that was averaged in bins is the gradient of no potential: noise and friction give it a curl, and on a periodic axis
    an integral over the period. The minimum obeys $\nabla \cdot (w \nabla \phi) = \nabla \cdot (w f)$, which is solved by
    conjugate gradients, preconditioned by the diagonal, from a guess that is near when little has changed.

    Args:
        grid: the bins.
        force: $f_b$ [energy / CV unit].
        weight: $w_b$, from 0 to 1.
        guess: a table; as the result on the bins' edges, with one node beyond either end of each axis.
    """
    axes = range(grid.n_dims)
    f, w = force.reshape(*grid.shape, -1), weight.reshape(grid.shape) + _UNKNOWN
    weights, right = [], jnp.zeros(())
    for d in axes:
        # all edges between two nodes along one axis: with each bin that meets there
        around = w / grid.widths[d] ** 2, w * f[..., d] / grid.widths[d]
        for other in axes:
            if other != d:
                around = [_meeting(grid, values, other) for values in around]
        weights.append(around[0])
        right = right + _falls(grid, around[1], d)

    def left(phi: Float[Array, "*nodes"]) -> Float[Array, "*nodes"]:
        total = jnp.zeros_like(phi)
        for d in axes:
            total = total + _falls(grid, weights[d] * _rises(grid, phi, d), d)
        return total

    diagonal = jnp.sum(jnp.stack([_falls(grid, weights[d], d, sign=1.0) for d in axes]), axis=0)
    start = guess[
        tuple(slice(1, n + (1 if periodic else 2)) for n, periodic in zip(grid.shape, grid.periodic, strict=True))
    ]
    return _with_ghosts(grid, _solution(left, diagonal, right, start))


def _solution(
    left: Callable[[Array], Array], diagonal: Float[Array, "*m"], right: Float[Array, "*m"], start: Float[Array, "*m"]
) -> Float[Array, "*m"]:
    """Conjugate gradients."""
    enough = _PRECISION**2 * jnp.sum(right**2 / diagonal)

    def going(carry: tuple) -> Array:
        _, _, _, squared, turn = carry
        return (squared > enough) & (turn < _MOST_TURNS)

    def turned(carry: tuple) -> tuple:
        phi, rest, direction, squared, turn = carry
        image = left(direction)
        length = squared / jnp.sum(direction * image)
        phi, rest = phi + length * direction, rest - length * image
        new = jnp.sum(rest**2 / diagonal)
        return phi, rest, rest / diagonal + new / squared * direction, new, turn + 1

    rest = right - left(start)
    first = rest / diagonal
    return jax.lax.while_loop(going, turned, (start, rest, first, jnp.sum(rest * first), 0))[0]


def _rises(grid: Grid, phi: Float[Array, "*nodes"], axis: int) -> Float[Array, "*edges"]:
    """From each node to the next."""
    return jnp.roll(phi, -1, axis) - phi if grid.periodic[axis] else jnp.diff(phi, axis=axis)


def _falls(grid: Grid, edges: Float[Array, "*edges"], axis: int, sign: float = -1.0) -> Float[Array, "*nodes"]:
    """The transpose of the above: at each node what the edge before it has, less what the one after has; or their sum."""
    if grid.periodic[axis]:
        return jnp.roll(edges, 1, axis) + sign * edges
    beside = [((0, 0),) * axis + (ends,) + ((0, 0),) * (edges.ndim - axis - 1) for ends in ((1, 0), (0, 1))]
    return jnp.pad(edges, beside[0]) + sign * jnp.pad(edges, beside[1])


def _meeting(grid: Grid, values: Float[Array, "..."], axis: int) -> Float[Array, "..."]:
    """Along one axis, sums of the two bins that meet at each node."""
    return _falls(grid, values, axis, sign=1.0)


def _with_ghosts(grid: Grid, phi: Float[Array, "*nodes"]) -> Float[Array, "*nodes_plus_2"]:
    """One more node beyond either end: the other end's on a periodic axis, else in a straight line."""
    for d, periodic in enumerate(grid.periodic):
        if periodic:
            phi = jnp.pad(phi, [(1, 2) if axis == d else (0, 0) for axis in range(phi.ndim)], mode="wrap")
            continue
        ends = [jax.lax.slice_in_dim(phi, start, start + 2, axis=d) for start in (0, phi.shape[d] - 2)]
        first, last = (jax.lax.slice_in_dim(pair, i, i + 1, axis=d) for pair, i in zip(ends, (0, 1), strict=True))
        inner = (jax.lax.slice_in_dim(pair, i, i + 1, axis=d) for pair, i in zip(ends, (1, 0), strict=True))
        before, after = (2.0 * end - next_to for end, next_to in zip((first, last), inner, strict=True))
        phi = jnp.concatenate([before, phi, after], axis=d)
    return phi
