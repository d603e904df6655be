"""Lists of near neighbours on the device: built in O(N), kept while no pair can have been missed, never trusted when too short.

A list belongs to the state of a run. A CV is a pure function of positions that does without one; it is faster with one.
"""

import math
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from .._branches import in_place_if
from ..snapshot import Cell, _dot
from ._cells import GROUP, Grid, Lattice, components, take

FEW = 4096  # pairs that are computed all at once
_BLOCK = 500  # rows done together at most, so that what is computed of them stays in the processor's cache
_LINE = 8  # numbers in a line of that cache
_SKIN = 0.2  # how much farther than the cutoff a list reaches, relative to it
_ROOM = 1.5  # room for more neighbours than there are: an overflow costs time, and a resumed run its last digit


class Neighborhood(eqx.Module):
    """The pairs that a CV sums over: one of its points in the range ``rows`` with another one in ``others``.

    Attributes:
        rows: first point and the one after the last.
        others: likewise.
        cutoff: distance from which on pairs do not count [length]; None if all do.
    """

    rows: tuple[int, int] = eqx.field(static=True)
    others: tuple[int, int] = eqx.field(static=True)
    cutoff: float | None = eqx.field(static=True)

    @property
    def are_few(self) -> bool:
        """Whether it is not worth while to look for those that are near."""
        (a, b), (c, d) = self.rows, self.others
        return (b - a) * (d - c) <= FEW

    @property
    def has_list(self) -> bool:
        """Whether a list of near neighbours helps."""
        return self.cutoff is not None and not self.are_few

    @property
    def ranges(self) -> tuple[tuple[int, int], ...]:
        """Both ranges, or the only one."""
        return tuple(dict.fromkeys((self.rows, self.others)))

    @property
    def reach(self) -> float:
        """The cutoff, or infinity."""
        return math.inf if self.cutoff is None else self.cutoff

    def shifted(self, start: int) -> "Neighborhood":
        """The same pairs where the CV's points begin at ``start``."""
        (a, b), (c, d) = self.rows, self.others
        return Neighborhood((a + start, b + start), (c + start, d + start), self.cutoff)


class Side(eqx.Module):
    """One half of a list: points in an order in which neighbours in space are near in memory, and their neighbours.

    Attributes:
        order: numbers of the points within their range.
        ranks: where in that order each point is.
        reference: where they were when the list was made, as fractions of the lattice vectors; without a box, positions
            [length].
        neighbors: for each point the numbers of its neighbours in the order of the other side, and their images in the six
            lowest bits; -1 in what is left of the room.
        most: for each block of points that are done together the most neighbours that one of them has.
    """

    order: Int[Array, " n"]
    ranks: Int[Array, " n"]
    reference: Float[Array, "3 n"]
    neighbors: Int[Array, "room n"]
    most: Int[Array, " blocks"]

    @classmethod
    def empty(cls, points: tuple[int, int], room: int, dtype: Any) -> "Side":
        """Without neighbours, and with a reference that nothing is near to."""
        n = points[1] - points[0]
        order = jnp.arange(n, dtype=jnp.int32)
        reference, neighbors = jnp.full((3, n), jnp.nan, dtype), jnp.full((room, n), -1, jnp.int32)
        return cls(order, order, reference, neighbors, jnp.zeros(-(-n // block_size(n)), jnp.int32))

    def images(self, x: Any, lattice: Lattice) -> Any:
        """How many of each lattice vector the points ``x`` are away from where they were."""
        return tuple(jnp.round(f - g) for f, g in zip(lattice.fractions(x), self.reference, strict=True))


class NeighborList(eqx.Module):
    """Neighbours of all points of a CV; made by :meth:`empty`, kept up by :meth:`renewed`.

    Attributes:
        sides: the rows' side and the others', or a single one where they are the same.
        basis: the lattice vectors when the list was made, as rows [length]; without a box not used.
        radius: distance up to which it has all pairs [length].
        n_most: the most neighbours that a point of each side has had since room was made.
        is_usable: whether it has all pairs at the positions for which it was last renewed.
    """

    sides: tuple[Side, ...]
    basis: Float[Array, "3 3"]
    radius: Float[Array, ""]
    n_most: Int[Array, " sides"]
    is_usable: Bool[Array, ""]

    @classmethod
    def empty(cls, pairs: Neighborhood, dtype: Any, rooms: Sequence[int] = (GROUP, GROUP)) -> "NeighborList":
        """A list that has still to be built, with room for so many neighbours of each point."""
        sides = tuple(Side.empty(points, room, dtype) for points, room in zip(pairs.ranges, rooms, strict=False))
        zero = jnp.zeros((), dtype)
        return cls(sides, jnp.zeros((3, 3), dtype), zero, jnp.zeros(len(sides), jnp.int32), jnp.zeros((), bool))

    @property
    def rooms(self) -> tuple[int, ...]:
        """Room for neighbours on each side."""
        return tuple(side.neighbors.shape[-2] for side in self.sides)

    def renewed(self, pairs: Neighborhood, x: Float[Array, "k 3"], cell: Cell) -> "NeighborList":
        """This list if it has all pairs of the points ``x`` that count, else a new one, unless the box is too small."""
        x, cell = jax.lax.stop_gradient((x, cell))
        stale = ~self._holds(pairs, x, cell)
        return in_place_if(stale, lambda old: _built(pairs, old, x, cell), self)

    def _holds(self, pairs: Neighborhood, x: Float[Array, "k 3"], cell: Cell) -> Bool[Array, ""]:
        r"""Whether no pair can be missing.

        Pairs farther apart than R when the list was made are now farther apart than $R (1 - |F - 1|) - 2 \max_i
        |\Delta x_i|$, with the deformation F of the box and displacements $\Delta x$ from positions that follow the box.
        """
        radius, lattice = self.radius, None
        if cell.box is not None:
            lattice = Lattice.spanned_by(cell.basis)
            before = Lattice.spanned_by(tuple(tuple(self.basis[i, k] for k in range(3)) for i in range(3)))
            strain = [
                sum(g[k] * a[m] for g, a in zip(before.reciprocal, lattice.basis, strict=True)) - float(k == m)
                for k in range(3)
                for m in range(3)
            ]
            radius = radius * (1.0 - jnp.sqrt(_dot(strain, strain)))
        farthest = jnp.zeros_like(radius)
        for side, points in zip(self.sides, pairs.ranges, strict=True):
            now, then = components(take(x[slice(*points)].T, side.order).T), tuple(side.reference)
            if lattice is not None:
                images = side.images(now, lattice)
                then = lattice.shift([f + n for f, n in zip(then, images, strict=True)])
            moves = [a - b for a, b in zip(now, then, strict=True)]
            farthest = jnp.maximum(farthest, jnp.sqrt(jnp.max(_dot(moves, moves))))
        return 2 * farthest <= radius - pairs.reach


def with_room(neighbors: NeighborList, pairs: Neighborhood) -> NeighborList:
    """A list with room for as many neighbours as were found, to be built again; the same if it has that. On the host."""
    n_most = np.asarray(neighbors.n_most).reshape(-1, len(neighbors.sides)).max(axis=0)  # over replicas
    if (n_most <= neighbors.rooms).all():
        return neighbors
    rooms = [
        max(room, GROUP * int(np.ceil(_ROOM * n / GROUP))) for room, n in zip(neighbors.rooms, n_most, strict=True)
    ]
    new = NeighborList.empty(pairs, neighbors.radius.dtype, rooms)
    return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, neighbors.radius.shape + leaf.shape), new)


def _built(pairs: Neighborhood, old: NeighborList, x: Float[Array, "k 3"], cell: Cell) -> NeighborList:
    """A new list for the points ``x``; the old one, marked, where a box is too small for one image to be all that counts."""
    reach = (1.0 + _SKIN) * pairs.reach
    sides = [components(x[slice(*points)]) for points in pairs.ranges]
    radius = jnp.asarray(reach, x.dtype)
    if cell.box is None:
        lattice = Lattice.around([jnp.concatenate(parts) for parts in zip(*sides, strict=True)], reach)
    else:
        lattice = Lattice.spanned_by(cell.basis)
        radius = jnp.minimum(radius, 0.5 * lattice.shortest)
    fits = lattice.has_room_for(radius) & (radius > (1.0 + 0.1 * _SKIN) * pairs.reach)

    def build() -> NeighborList:
        grids = [
            Grid.of(lattice, lattice.wrapped(side), jnp.arange(*points, dtype=jnp.int32), radius, True)
            for side, points in zip(sides, pairs.ranges, strict=True)
        ]
        found = [_search(grids[i], grids[-1 - i], radius, room) for i, room in enumerate(old.rooms)]
        sides_ = tuple(
            Side(
                grid.order,
                jnp.zeros_like(grid.order).at[grid.order].set(jnp.arange(grid.order.size, dtype=jnp.int32)),
                jnp.stack(lattice.fractions(grid.x) if lattice.periodic else grid.x),
                neighbors,
                most,
            )
            for grid, (neighbors, most) in zip(grids, found, strict=True)
        )
        n_most = jnp.stack([jnp.max(most) for _, most in found])
        fits_in = jnp.all(n_most <= jnp.array(old.rooms))
        basis = jnp.stack([jnp.stack(vector) for vector in lattice.basis])
        return NeighborList(sides_, basis, radius, jnp.maximum(n_most, old.n_most), fits_in)

    return jax.lax.cond(fits, build, lambda: eqx.tree_at(lambda n: n.is_usable, old, jnp.zeros((), bool)))


def block_size(n: int) -> int:
    """How many of n rows are done together.

    An odd number of lines of the cache: with a power of two, as of 1024 rows, whatever belongs to a row competes for the same
    few places in it, which makes everything three times slower.
    """
    if n < 32 * _LINE:
        return n
    for n_blocks in range(-(-n // _BLOCK), n):
        n_lines = -(-n // (n_blocks * _LINE))
        size = (n_lines + (n_lines + 1) % 2) * _LINE
        if size <= n:
            return size
    return n


def _search(
    rows: Grid, others: Grid, radius: Float[Array, ""], room: int
) -> tuple[Int[Array, "room n"], Int[Array, " blocks"]]:
    """For each of the rows its neighbours among the others, and the most that there are in each block of rows."""
    n = rows.names.shape[0]
    size = block_size(n)
    lanes = jnp.arange(size, dtype=jnp.int32)[None]

    def append(j: Any, d: Any, images: Any, allowed: Any, carry: Any) -> Any:
        neighbors, count = carry
        near = (allowed & (_dot(d, d) < radius * radius)).astype(jnp.int32)
        rank = jnp.where(near > 0, count[None] + jnp.cumsum(near, axis=0) - near, room)
        code = j * 64 + (0 if images is None else sum((n.astype(jnp.int32) + 1) << 2 * k for k, n in enumerate(images)))
        neighbors = neighbors.at[rank, lanes].set(code, mode="drop")
        return neighbors, count + jnp.sum(near, axis=0, dtype=jnp.int32)

    def block(b: Int[Array, ""], out: Any) -> Any:
        start = jnp.minimum(b * size, n - size)
        x = tuple(jax.lax.dynamic_slice(v, (start,), (size,)) for v in rows.x)
        names = jax.lax.dynamic_slice(rows.names, (start,), (size,))
        empty = (jnp.full((room, size), -1, jnp.int32), jnp.zeros(size, jnp.int32))
        neighbors, count = others.visit(x, names, append, empty)
        return jax.lax.dynamic_update_slice(out[0], neighbors, (0, start)), out[1].at[b].set(jnp.max(count))

    n_blocks = -(-n // size)
    out = (jnp.full((room, n), -1, jnp.int32), jnp.zeros(n_blocks, jnp.int32))
    return jax.lax.fori_loop(0, n_blocks, block, out)
