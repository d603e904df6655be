"""Simulation cells with the exact minimum image, and snapshots of a whole system."""

import itertools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from .errors import InvalidInputError
from .units import as_array

__all__ = ["Cell", "Snapshot"]

type_of_reduction = tuple[tuple[int, int, int], tuple[int, int, int], tuple[int, int, int]]

_PAIRS = tuple(itertools.combinations(range(4), 2))
# One of each pair of opposite vectors among the 26 to a neighbouring image.
_NEIGHBOURS = np.array([n for n in itertools.product((1, 0, -1), repeat=3) if n > (0, 0, 0)], dtype=np.int32)


class Cell(eqx.Module):
    """A periodic box, or the absence of one.

    The displacement between two points is that of their nearest images. In a box with right angles rounding finds it.
    In any other box rounding alone is wrong for about an eighth of all pairs: there the box vectors are first replaced
    by shorter ones that span the same lattice (an obtuse superbase), and the 27 images around the rounded one are
    compared, which is exact however skewed the box. Derivatives with respect to positions and box are exact: the
    number of the image is a constant.

    :meth:`~pysamp.Cell.of` looks at the box once and makes what it finds static, which is cheap from then on;
    without that the shorter vectors are sought at every evaluation.

    Attributes:
        box: box vectors as rows [length], or None where nothing is periodic.
        orthorhombic: whether the box is known to keep right angles.
        reduction: integer combinations of the box vectors, as rows, that give the shorter ones; None to find them.
            They stay exact while the box keeps its shape or nearly so, as under any barostat.

    Example:
        >>> import jax.numpy as jnp
        >>> from pysamp import Cell
        >>> cell = Cell.of(2.0 * jnp.eye(3))
        >>> cell.orthorhombic
        True
        >>> print(cell.displacement(jnp.zeros(3), jnp.array([1.5, 0.0, 0.0])))
        [-0.5  0.   0. ]

    References:
        Conway & Sloane, Proc. R. Soc. A 436, 55 (1992), doi 10.1098/rspa.1992.0004 (obtuse superbases).
    """

    box: Float[Array | np.ndarray, "3 3"] | None = None
    orthorhombic: bool = eqx.field(static=True, default=False)
    reduction: type_of_reduction | None = eqx.field(static=True, default=None)

    @classmethod
    def of(cls, box: Any) -> "Cell":
        """The cell of a known box, or of none, with its shape made static; call it outside jit.

        Args:
            box: box vectors as rows [length], or None.

        Raises:
            InvalidInputError: if the box is not a finite 3 x 3 matrix with a volume.
        """
        if box is None:
            return cls()
        rows = as_array(box)
        if rows.shape != (3, 3) or not np.isfinite(rows).all() or not abs(np.linalg.det(rows)) > 0:
            raise InvalidInputError(
                f"A box is three box vectors as the rows of a 3 x 3 matrix that span a volume, got {rows.tolist()}. "
                "For right angles give numpy.diag([length_x, length_y, length_z]); where nothing is periodic, None."
            )
        box = box if isinstance(box, jax.Array | np.ndarray) else rows
        if np.array_equal(rows, np.diag(np.diag(rows))):
            return cls(box, orthorhombic=True)
        with jax.enable_x64(True):
            a, b, c = np.asarray(_reduce(rows), dtype=np.int64).tolist()
        return cls(box, reduction=(tuple(a), tuple(b), tuple(c)))

    def with_box(self, box: Float[Array | np.ndarray, "3 3"] | None) -> "Cell":
        """A cell of the same shape with another box, for a box that changes from step to step."""
        return Cell(None if self.box is None else box, self.orthorhombic, self.reduction)

    def displacement(
        self, start: Float[Array | np.ndarray, "*#b 3"], end: Float[Array | np.ndarray, "*#b 3"]
    ) -> Float[Array, "... 3"]:
        """Vector from ``start`` to the nearest image of ``end`` [length]; shapes broadcast."""
        return self.nearest(jnp.asarray(end) - start)

    def nearest(self, vector: Float[Array | np.ndarray, "*b 3"]) -> Float[Array, "*b 3"]:
        """The shortest of the periodic images of ``vector`` [length]."""
        vector = jnp.asarray(vector)
        if self.box is None:
            return vector
        # Components apart, sums written out: XLA makes one loop of it, without calls to a linear algebra library.
        parts, basis = tuple(vector[..., k] for k in range(3)), self.basis
        fixed, lattice = jax.lax.stop_gradient((parts, basis))
        images = (
            [jnp.round(x / lattice[k][k]) for k, x in enumerate(fixed)]
            if self.orthorhombic
            else _images(fixed, lattice)
        )
        # With right angles the zeros too: the derivative with respect to a shear is theirs.
        shift = _combine(images, basis)
        return jnp.stack([x - y for x, y in zip(parts, shift, strict=True)], axis=-1)

    @property
    def basis(self) -> tuple[tuple[Any, ...], ...]:
        """Three short vectors that span the same lattice as the box, each as its three components [length].

        Raises:
            ValueError: if there is no box.
        """
        if self.box is None:
            raise ValueError("without a box there is no lattice")
        box = tuple(tuple(self.box[i, k] for k in range(3)) for i in range(3))
        if self.orthorhombic:
            return box
        reduction = self.reduction
        if reduction is None:
            found = _reduce(jax.lax.stop_gradient(self.box))
            reduction = tuple(tuple(found[i, j] for j in range(3)) for i in range(3))
        return tuple(_combine(coefficients, box) for coefficients in reduction)


def _dot(a: Any, b: Any) -> Any:
    """Sum of products; terms that are known to vanish are left out, which XLA may not do with floats."""
    terms = [x * y for x, y in zip(a, b, strict=True) if not (isinstance(x, int) and x == 0)]
    return sum(terms[1:], terms[0])


def _cross(a: Any, b: Any) -> tuple[Any, Any, Any]:
    return (a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0])


def _combine(coefficients: Any, vectors: Any) -> tuple[Any, Any, Any]:
    """Sum of three vectors, given and returned as three components each, times coefficients."""
    x, y, z = (_dot(coefficients, [vector[k] for vector in vectors]) for k in range(3))
    return x, y, z


@jax.jit
def _images(vector: Any, basis: Any) -> list[Any]:
    """How many of each basis vector to subtract from ``vector``, so that it becomes as short as it can be.

    The Voronoi cell of a lattice with an obtuse superbase extends to 1.1 at most in its coordinates (found by trying,
    in tests/unit/test_snapshot.py), so the answer is among the 27 images around the rounded one up to where a changing
    box has stretched that to 1.5.
    """
    a, b, c = basis
    normals = (_cross(b, c), _cross(c, a), _cross(a, b))
    volume = _dot(a, normals[0])
    images = [jnp.round(_dot(vector, normal) / volume) for normal in normals]
    rest = [x - y for x, y in zip(vector, _combine(images, basis), strict=True)]
    neighbours = [sum(_NEIGHBOURS[:, i] * basis[i][k] for i in range(3)) for k in range(3)]
    shape = (*rest[0].shape, len(_NEIGHBOURS))
    projection = sum(x[..., None] * jnp.broadcast_to(y, shape) for x, y in zip(rest, neighbours, strict=True))
    gain = 2 * jnp.abs(projection) - jnp.broadcast_to(_dot(neighbours, neighbours), shape)  # what |rest|^2 loses
    best = jnp.argmax(gain, axis=-1)
    chosen = (jax.lax.broadcasted_iota(best.dtype, shape, len(shape) - 1) == best[..., None]) & (gain > 0)
    step = jnp.where(chosen, jnp.sign(projection), 0.0)
    return [n + jnp.sum(step * jnp.broadcast_to(_NEIGHBOURS[:, i], shape), axis=-1) for i, n in enumerate(images)]


@jax.jit
def _reduce(box: Float[Array | np.ndarray, "3 3"]) -> Float[Array, "3 3"]:
    """Integers that combine the rows of ``box`` to the shortest three vectors of an obtuse superbase.

    Selling's algorithm: four vectors with sum zero, three of them a basis; while two of them enclose an acute angle,
    one of the two is turned round and added to the others, which shortens them all together.
    """
    box = jnp.asarray(box)
    tolerance = 1e3 * jnp.finfo(box.dtype).eps * jnp.sum(box * box)

    def superbase(integers):
        return jnp.sum(integers[:, :, None] * box[None], axis=1)

    def scores(integers):
        v = superbase(integers)
        return jnp.stack([jnp.sum(v[i] * v[j]) for i, j in _PAIRS])

    def shorten(integers):
        i, j = jnp.asarray(_PAIRS)[jnp.argmax(scores(integers))]
        turned = integers[i]
        others = integers + turned[None]
        return others.at[i].set(-turned).at[j].set(integers[j])

    start = jnp.concatenate([jnp.eye(3, dtype=box.dtype), -jnp.ones((1, 3), dtype=box.dtype)])
    integers = jax.lax.while_loop(lambda integers: jnp.max(scores(integers)) > tolerance, shorten, start)
    order = jnp.argsort(jnp.sum(superbase(integers) ** 2, axis=-1))
    return integers[order[:3]]


class Snapshot(eqx.Module):
    """The state of a whole simulation at one step.

    Attributes:
        positions: [length].
        velocities: [length/time], or None where the engine has none.
        masses: [mass].
        box: box vectors as rows [length], or None.
        step: the engine's step count.
        engine: the engine's own checkpoint as bytes, from which a run goes on exactly, or None.
        energy: potential energy without the bias [energy], where a CV asks for it, else None.
    """

    positions: Float[Array | np.ndarray, "n 3"]
    velocities: Float[Array | np.ndarray, "n 3"] | None
    masses: Float[Array | np.ndarray, " n"]
    box: Float[Array | np.ndarray, "3 3"] | None = None
    step: int | Int[Array | np.ndarray, ""] = 0
    engine: Array | np.ndarray | None = None
    energy: Float[Array | np.ndarray, ""] | None = None

    @property
    def cell(self) -> Cell:
        """The box of this snapshot."""
        return Cell.of(self.box)
