"""Points sorted into the cells of a grid, so that those near a given place are found without looking at the others.

Vectors are tuples of their three components here, each an array over points: XLA makes straight loops of that.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ..snapshot import _NEIGHBOURS, _combine, _cross, _dot, _images

GROUP = 4  # candidates looked at together
_TILE = 4  # cells along each side of what is numbered together
_MARGIN = 1.001  # cells are a little wider than the radius, so that rounding cannot put a neighbour two cells away


class Lattice(eqx.Module):
    """Short vectors that span the periodic images, or an edge around all points where nothing is periodic.

    Attributes:
        basis: three vectors [length].
        reciprocal: three vectors; a point's fractional coordinates are its products with them.
        origin: the corner of the unit cell.
        periodic: whether there is a box.
    """

    basis: Any
    reciprocal: Any
    origin: Any
    periodic: bool = eqx.field(static=True)

    @classmethod
    def spanned_by(cls, basis: Any, origin: Any = (0.0, 0.0, 0.0), *, periodic: bool = True) -> "Lattice":
        """The lattice of three vectors."""
        a, b, c = basis
        normals = (_cross(b, c), _cross(c, a), _cross(a, b))
        volume = _dot(a, normals[0])
        reciprocal = tuple(tuple(x / volume for x in normal) for normal in normals)
        return cls(tuple(basis), reciprocal, tuple(origin), periodic)

    @classmethod
    def around(cls, points: Any, margin: float) -> "Lattice":
        """One for points without a box, in which no image comes as near to a point as ``margin``."""
        origin = [jnp.min(x) for x in points]
        edges = [1.01 * (jnp.max(x) - low + margin) for x, low in zip(points, origin, strict=True)]
        zero = jnp.zeros_like(edges[0])
        basis = [tuple(edges[i] if i == k else zero for k in range(3)) for i in range(3)]
        return cls.spanned_by(basis, origin, periodic=False)

    @property
    def heights(self) -> list[Float[Array, ""]]:
        """Distances between opposite faces of the unit cell [length]."""
        return [1.0 / jnp.sqrt(_dot(g, g)) for g in self.reciprocal]

    @property
    def shortest(self) -> Float[Array, ""]:
        """Length of the shortest lattice vector [length]."""
        vectors = [sum(_NEIGHBOURS[:, i] * self.basis[i][k] for i in range(3)) for k in range(3)]
        return jnp.sqrt(jnp.min(_dot(vectors, vectors)))

    def has_room_for(self, radius: Any) -> Bool[Array, ""]:
        """Whether each point has at most one image of another within ``radius``, and none beyond the next unit cell."""
        wide = jnp.min(jnp.stack(self.heights)) >= radius
        return wide & (self.shortest >= 2 * radius) if self.periodic else wide

    def fractions(self, x: Any) -> list[Float[Array, " n"]]:
        """Fractional coordinates."""
        return [_dot([a - b for a, b in zip(x, self.origin, strict=True)], g) for g in self.reciprocal]

    def wrapped(self, x: Any) -> Any:
        """The images in the unit cell of points ``x`` [length]."""
        if not self.periodic:
            return x
        shift = self.shift([jnp.floor(f) for f in self.fractions(x)])
        return tuple(a - b for a, b in zip(x, shift, strict=True))

    def shift(self, images: Any) -> Any:
        """Sum of that many of each basis vector [length]."""
        return _combine(images, self.basis)


class Grid(eqx.Module):
    """Points in the order of their cells.

    Attributes:
        x: positions in the unit cell, sorted [length].
        names: numbers that the points are called by, sorted; a point is no neighbour of one of the same name.
        order: number in the caller's order, sorted.
        starts: where each cell begins.
        dims: number of cells along each axis.
        fits: whether the cells around a point hold all that is near it, each image once; if not, all points are
            candidates, and nearest images are sought. A Python bool where it is known beforehand.
        lattice: the lattice.
    """

    x: Any
    names: Int[Array, " n"]
    order: Int[Array, " n"]
    starts: Int[Array, " m"]
    dims: Int[Array, "3"]
    fits: Any
    lattice: Lattice

    @classmethod
    def of(cls, lattice: Lattice, x: Any, names: Int[Array, " n"], radius: Any, fits: Any) -> "Grid":
        """Sort points ``x``, which lie in the unit cell, into cells that are at least ``radius`` wide."""
        if fits is False:
            order = jnp.arange(names.shape[0], dtype=jnp.int32)
            return cls(x, names, order, jnp.zeros(2, jnp.int32), jnp.ones(3, jnp.int32), fits, lattice)
        most = 2 * names.shape[0] + 27
        ratios = jnp.stack(lattice.heights) / (_MARGIN * radius)
        dims = jnp.where(ratios >= 1, jnp.minimum(ratios, 1000), 1).astype(jnp.int32)  # 1 for a NaN as well
        dims = jax.lax.while_loop(  # few points in a large box get wider cells
            lambda dims: jnp.prod(dims.astype(jnp.float32)) > most,
            lambda dims: jnp.where(jnp.arange(3) == jnp.argmax(dims), dims // 2, dims),
            dims,
        )
        grid = cls(x, names, names, names, dims, fits, lattice)
        cells = grid.number(grid.cells(x))
        order = jnp.argsort(cells).astype(jnp.int32)
        starts = jnp.searchsorted(cells[order], jnp.arange(most + 1, dtype=jnp.int32)).astype(jnp.int32)
        return cls(tuple(take(v, order) for v in x), take(names, order), order, starts, dims, fits, lattice)

    def cells(self, x: Any) -> list[Int[Array, " n"]]:
        """The cells that points of the unit cell are in, as their three numbers along the axes."""
        fractions = self.lattice.fractions(x)
        return [jnp.clip((f * d).astype(jnp.int32), 0, d - 1) for f, d in zip(fractions, self.dims, strict=True)]

    def number(self, cell: Any) -> Int[Array, " n"]:
        """One number for a cell.

        The cells are numbered by square columns along the last axis, and in those layer by layer, so that points with
        successive numbers fill a compact part of space, and their neighbours too stay in a core's own cache, however
        large the system is. (Row by row, the neighbours would be spread over three slabs of it.)
        """
        (i, j, k), (n_i, n_j, n_k) = cell, self.dims
        first_i, first_j = i // _TILE * _TILE, j // _TILE * _TILE
        width_i, width_j = jnp.minimum(n_i - first_i, _TILE), jnp.minimum(n_j - first_j, _TILE)
        before = n_k * (first_i * n_j + width_i * first_j)
        return before + (k * width_i + i - first_i) * width_j + j - first_j

    def visit(self, x: Any, names: Int[Array, " b"], body: Callable, carry: Any) -> Any:
        """Visit all candidates for neighbours of the points ``x`` of the unit cell, some of them at a time.

        Args:
            x: the points.
            names: what they are called.
            body: ``body(j, d, images, allowed, carry)`` gets numbers of candidates in sorted order, the vectors to them,
                how many of each lattice vector are in those (None without a box), and which of the candidates exist; it
                returns the new ``carry``.
            carry: what it is called with first.
        """
        home = self.cells(x)
        n = self.names.shape[0]
        slots = jnp.arange(GROUP, dtype=jnp.int32)[:, None]

        def cell(k: Int[Array, ""], carry: Any) -> Any:
            moved = [c + o for c, o in zip(home, (k // 9 - 1, k // 3 % 3 - 1, k % 3 - 1), strict=True)]
            wraps = [jnp.floor_divide(c, d) for c, d in zip(moved, self.dims, strict=True)]
            number = self.number([c - w * d for c, w, d in zip(moved, wraps, self.dims, strict=True)])
            start = jnp.where(self.fits, take(self.starts, number), 0)
            count = jnp.where(self.fits, take(self.starts, number + 1) - start, n)
            if not self.lattice.periodic:
                count = jnp.where((wraps[0] == 0) & (wraps[1] == 0) & (wraps[2] == 0), count, 0)

            def some(g: Int[Array, ""], carry: Any) -> Any:
                slot = g * GROUP + slots
                at = jnp.minimum(start[None] + slot, n - 1)
                d = tuple(take(v, at) - w[None] for v, w in zip(self.x, x, strict=True))
                allowed = (slot < count[None]) & (take(self.names, at) != names[None])
                images = None
                if self.lattice.periodic:
                    images = self._images(wraps, d)
                    d = tuple(a + b for a, b in zip(d, self.lattice.shift(images), strict=True))
                return body(at, d, images, allowed, carry)

            return jax.lax.fori_loop(0, (jnp.max(count) + GROUP - 1) // GROUP, some, carry)

        return jax.lax.fori_loop(0, jnp.where(self.fits, 27, 1), cell, carry)

    def _images(self, wraps: Any, d: Any) -> Any:
        known = tuple(jnp.broadcast_to(w.astype(d[0].dtype), d[0].shape) for w in wraps)
        if self.fits is True:
            return known
        sought = lambda: tuple(-image for image in _images(d, self.lattice.basis))  # noqa: E731
        return sought() if self.fits is False else jax.lax.cond(self.fits, lambda: known, sought)


def take(values: Any, at: Int[Array, "*b"]) -> Any:
    """``values[..., at]``, known to be in bounds."""
    return values.at[..., at].get(mode="promise_in_bounds")


def components(x: Float[Array | np.ndarray, "n 3"]) -> Any:
    """Positions as a tuple of three arrays."""
    x = jnp.asarray(x)
    return tuple(x[:, k] for k in range(3))
