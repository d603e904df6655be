"""Eigenvalues and eigenvectors of symmetric 3 x 3 and 4 x 4 matrices, with derivatives that are finite everywhere.

Jacobi's rotations, written out in scalars: XLA makes them part of the one function that a compiled step is, where a call
to LAPACK would break it up.
"""

import itertools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_MAX_SWEEPS = 10  # quadratic convergence: 4 to 6 are enough for any matrix of this size


@jax.custom_jvp
@jax.jit
def eigh(matrix: Float[Array, "*b n n"]) -> tuple[Float[Array, "*b n"], Float[Array, "*b n n"]]:
    """Eigenvalues of a symmetric matrix in descending order, and the eigenvectors as columns.

    The derivatives are those of perturbation theory. Where eigenvalues coincide, those of the single eigenvectors do not
    exist; they are then taken without the part that turns degenerate vectors into each other.
    """
    n = matrix.shape[-1]
    pairs = list(itertools.combinations(range(n), 2))
    one, zero = jnp.ones_like(matrix[..., 0, 0]), jnp.zeros_like(matrix[..., 0, 0])
    values = {(i, j): matrix[..., i, j] for i in range(n) for j in range(i, n)}
    vectors = [[one if i == j else zero for j in range(n)] for i in range(n)]  # one column each

    def off_diagonal(values):
        return sum(values[pair] ** 2 for pair in pairs)

    threshold = (jnp.finfo(matrix.dtype).eps ** 2 / 16) * (
        2 * off_diagonal(values) + sum(values[i, i] ** 2 for i in range(n))
    )

    def unfinished(carry):
        sweep, values, _ = carry
        return (sweep < _MAX_SWEEPS) & jnp.any(off_diagonal(values) > threshold)

    def rotate_all(carry):
        sweep, values, vectors = carry
        values, vectors = dict(values), list(vectors)
        for p, q in pairs:
            gap, coupling = values[q, q] - values[p, p], 2 * values[p, q]
            size = jnp.abs(gap) + jnp.sqrt(gap * gap + coupling * coupling)
            t = jnp.where(gap < 0, -coupling, coupling) / jnp.where(size > 0, size, 1.0)
            c = jax.lax.rsqrt(1 + t * t)
            s = c * t
            values[p, p], values[q, q] = values[p, p] - t * values[p, q], values[q, q] + t * values[p, q]
            values[p, q] = zero
            for k in range(n):
                if k not in (p, q):
                    kp, kq = (min(k, p), max(k, p)), (min(k, q), max(k, q))
                    values[kp], values[kq] = c * values[kp] - s * values[kq], s * values[kp] + c * values[kq]
            vectors[p], vectors[q] = (
                [c * a - s * b for a, b in zip(vectors[p], vectors[q], strict=True)],
                [s * a + c * b for a, b in zip(vectors[p], vectors[q], strict=True)],
            )
        return sweep + 1, values, vectors

    _, values, vectors = jax.lax.while_loop(unfinished, rotate_all, (0, values, vectors))
    columns = [[values[i, i], *vectors[i]] for i in range(n)]
    for i, j in pairs:
        swap = columns[i][0] < columns[j][0]
        columns[i], columns[j] = (
            [jnp.where(swap, b, a) for a, b in zip(columns[i], columns[j], strict=True)],
            [jnp.where(swap, a, b) for a, b in zip(columns[i], columns[j], strict=True)],
        )
    return (
        jnp.stack([column[0] for column in columns], axis=-1),
        jnp.stack([jnp.stack(column[1:], axis=-1) for column in columns], axis=-1),
    )


@eigh.defjvp
def _eigh_jvp(primals, tangents):
    (matrix,), (change,) = primals, tangents
    values, vectors = eigh(matrix)
    n = values.shape[-1]
    change = 0.5 * (change + jnp.swapaxes(change, -1, -2))
    coupling = jnp.sum(
        vectors[..., :, None, :, None] * change[..., :, :, None, None] * vectors[..., None, :, None, :], axis=(-4, -3)
    )
    gap = values[..., None, :] - values[..., :, None]
    smallest = jnp.finfo(values.dtype).eps * jnp.sum(jnp.abs(values), axis=-1)[..., None, None]
    square = gap * gap + smallest * smallest
    turn = coupling * gap / jnp.where(square > 0, square, 1.0)
    change_of_vectors = jnp.sum(vectors[..., :, :, None] * turn[..., None, :, :], axis=-2)
    return (values, vectors), (jnp.stack([coupling[..., i, i] for i in range(n)], axis=-1), change_of_vectors)
