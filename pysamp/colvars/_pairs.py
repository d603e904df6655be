"""Sums over pairs of points: straight-line code for few pairs, neighbour lists or cells for many, with exact derivatives.

The derivative of a sum over a list is a sum over the same list: each point gathers what its neighbours do to it, and
nothing is scattered.
"""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Shaped

from .._branches import rarely
from ..snapshot import Cell, _combine, _dot
from ._cells import GROUP, Grid, Lattice, components, take
from ._neighbors import Neighborhood, NeighborList, block_size
from ._vectors import sqrt

_GUESS = (64, 64)  # room of a list that is made for one evaluation


class Pairs:
    """The pairs of a CV's points at one configuration.

    Rows and others come in an order of their own; ``of_rows`` and ``of_others`` put what is known of each point into it.

    Args:
        pairs: which pairs.
        x: positions of the CV's points [length].
        cell: the box.
        lists: the list that the run keeps for these pairs, if any.
    """

    def __init__(self, pairs: Neighborhood, x: Float[Array, "k 3"], cell: Cell, lists: Sequence[NeighborList] = ()):
        self._pairs, self._list = pairs, None
        if pairs.are_few:
            start, end = x[slice(*pairs.rows)], x[slice(*pairs.others)]
            d = cell.displacement(start[None], end[:, None])
            self._d = tuple(d[..., k] for k in range(3))
            return
        if pairs.has_list:
            new = NeighborList.empty(pairs, x.dtype, _GUESS)
            self._list = lists[0] if lists else new.renewed(pairs, x, cell)
        self._basis = None if cell.box is None else cell.basis
        self._sides = []
        for i, points in enumerate(pairs.ranges):
            inside = components(self._sorted(x[slice(*points)].T, i).T)
            if self._list is not None and cell.box is not None:
                inside = _inside(inside, cell, self._list.sides[i].reference, self._list.is_usable)
            names = self._sorted(jnp.arange(*points, dtype=jnp.int32), i)
            self._sides.append(_Side(inside, names))

    def of_rows(self, values: Float[Array, "*b n"]) -> Float[Array, "*b n"]:
        """Values of the rows, along the last axis, in the order of the rows."""
        return self._sorted(values, 0)

    def of_others(self, values: Float[Array, "*b n"]) -> Float[Array, "*b n"]:
        """Values of the others, along the last axis, in the order of the others."""
        return self._sorted(values, -1)

    def _sorted(self, values: Any, side: int) -> Any:
        if self._list is None:
            return values
        return _permuted(values, self._list.sides[side].order, self._list.sides[side].ranks)

    def sums(self, term: Callable, own: Any = (), other: Any = (), *, parity: Any = None) -> Any:
        """Sum over the others for each row.

        Args:
            term: ``term(d, own, other)``, of the three components of the vectors from rows to others [length] and what is
                known of each; all arrays of the same shape, maybe with further axes in front. Returns a tree of such
                arrays. It must be finite for all vectors.
            own: a tree of arrays with the rows along the last axis.
            other: likewise with the others.
            parity: a tree like that returned, of 1 where the term is the same for the opposite vector and -1 where its
                sign changes. The derivative costs half as much if that is known; for terms of the vector alone.

        Returns:
            The tree of sums, with the rows along the last axis.
        """
        return self._sum(_Task(term, False, parity, self._pairs), own, other)

    def total(self, term: Callable, own: Any = (), other: Any = (), *, parity: Any = None) -> Any:
        """Sum over all rows of what ``sums`` returns."""
        return self._sum(_Task(term, True, parity, self._pairs), own, other)

    def total_of_lengths(self, function: Callable) -> Any:
        """Sum over all rows and others of a function of the distance, which is one number."""

        def term(d: Any, own: Any, other: Any) -> Any:
            return function(sqrt(_dot(d, d)))

        return self._sum(_Task(term, True, 1, self._pairs, function), (), ())

    def _sum(self, task: "_Task", own: Any, other: Any) -> Any:
        if self._pairs.are_few:
            return self._sum_at_once(task, own, other)

        @jax.custom_vjp
        def evaluate(points: Any, features: Any, fixed: Any) -> Any:
            return _forward(task, points, features, fixed)

        if task.is_number:  # value and derivative from one walk over the pairs
            evaluate.defvjp(
                lambda *arguments: _with_slopes(task, *arguments),
                lambda slopes, cotangent: (*jax.tree.map(lambda slope: cotangent * slope, slopes), None),
            )
        else:
            evaluate.defvjp(
                lambda *arguments: (evaluate(*arguments), arguments),
                lambda arguments, cotangent: (*_backward(task, *arguments, cotangent)[0], None),  # pyright: ignore[reportCallIssue]
            )
        xs, names = tuple(side.x for side in self._sides), tuple(side.names for side in self._sides)
        return evaluate((xs, self._basis), (own, other), (names, self._list))

    def _sum_at_once(self, task: "_Task", own: Any, other: Any) -> Any:
        shape = self._d[0].shape
        own = jax.tree.map(lambda v: jnp.broadcast_to(v[..., None, :], v.shape[:-1] + shape), own)
        other = jax.tree.map(lambda v: jnp.broadcast_to(v[..., None], v.shape[:-1] + shape), other)
        pairs, d = self._pairs, self._d
        others, rows = (jax.lax.broadcasted_iota(jnp.int32, shape, axis) for axis in (0, 1))
        allowed = others + pairs.others[0] != rows + pairs.rows[0]
        if pairs.cutoff is not None:
            allowed = allowed & (_dot(d, d) < pairs.cutoff**2)
        d = _harmless(d, allowed, pairs.cutoff)
        values = jax.tree.map(lambda v: _where(allowed, v), task.term(d, own, other))
        return jax.tree.map(lambda v: jnp.sum(v, axis=(-2, -1) if task.total else -2), values)


@jax.custom_vjp
def _permuted(values: Shaped[Array, "*b n"], order: Int[Array, " n"], ranks: Int[Array, " n"]) -> Any:
    """``values[..., order]``; its transpose gathers as well."""
    return take(values, order)


_permuted.defvjp(
    lambda values, order, ranks: (take(values, order), ranks),
    lambda ranks, cotangent: (take(cotangent, ranks), None, None),
)


class _Side(eqx.Module):
    """Points, what they are called, and what is known of them."""

    x: Any
    names: Int[Array, " n"]
    known: Any = ()


class _Task(eqx.Module):
    """What is to be summed."""

    term: Callable = eqx.field(static=True)
    total: bool = eqx.field(static=True)
    parity: Any = eqx.field(static=True)
    pairs: Neighborhood = eqx.field(static=True)
    of_length: Callable | None = eqx.field(static=True, default=None)

    @property
    def is_number(self) -> bool:
        """Whether it is known to be one number in all, and of the vectors alone."""
        if not self.total or self.parity not in (1, -1):
            return False
        one = jax.ShapeDtypeStruct((), jnp.float32)
        return jax.eval_shape(self.term, (one, one, one), (), ()).shape == ()


def _inside(x: Any, cell: Cell, reference: Any, is_tracked: Any) -> Any:
    """Points less as many boxes as they are from where they were, or from the unit cell if that is not known."""
    if cell.box is None:
        return x
    lattice = Lattice.spanned_by(cell.basis)
    fractions = jax.lax.stop_gradient(lattice.fractions(x))
    images = [jnp.where(is_tracked, jnp.round(f - r), jnp.floor(f)) for f, r in zip(fractions, reference, strict=True)]
    return tuple(a - b for a, b in zip(x, lattice.shift(images), strict=True))


def _forward(task: _Task, points: Any, features: Any, fixed: Any) -> Any:
    (xs, basis), (own, other), (names, neighbors) = points, features, fixed
    rows, others = _Side(xs[0], names[0], own), _Side(xs[-1], names[-1], other)

    def term(d: Any, images: Any, own: Any, other: Any, _: Any) -> Any:
        values = task.term(d, own, other)
        return ((), values) if task.total else (values, ())

    per_row, totals = _walk(task, term, rows, others, basis, neighbors, 0, ())
    return totals if task.total else per_row


def _with_slopes(task: _Task, points: Any, features: Any, fixed: Any) -> Any:
    """A sum that is one number, and its derivatives."""
    one = jnp.ones((), points[0][0][0].dtype)
    slopes, value = _backward(task, points, features, fixed, one)
    return value, slopes


def _backward(task: _Task, points: Any, features: Any, fixed: Any, cotangent: Any) -> Any:
    """Cotangents of points and features, and the value of what is one number.

    A pair acts on its row (with the row's own cotangent) and on the other point. The second is found from the other
    side: among the neighbours of that point is the row.
    """
    (xs, basis), (own, other), (names, neighbors) = points, features, fixed
    own_cotangent, shared = ((), cotangent) if task.total else (cotangent, ())

    def as_row(d: Any, images: Any, mine: Any, theirs: Any, shared: Any) -> Any:
        value, pulled, mine_, _ = _pull(task, d, mine[0], theirs[1], shared if task.total else mine[2])
        box = () if images is None else tuple(tuple(n * g for g in pulled) for n in images)
        return (tuple(-g for g in pulled), mine_), (box, value)

    def as_other(d: Any, images: Any, mine: Any, theirs: Any, shared: Any) -> Any:
        back = tuple(-v for v in d)
        _, pulled, _, mine_ = _pull(task, back, theirs[0], mine[1], shared if task.total else theirs[2])
        return (pulled, mine_), ((), ())

    def as_both(*arguments: Any) -> Any:
        (first, own_), totals = as_row(*arguments)
        (second, other_), _ = as_other(*arguments)
        return (tuple(a + b for a, b in zip(first, second, strict=True)), own_, other_), totals

    def as_both_at_once(d: Any, images: Any, mine: Any, theirs: Any, shared: Any) -> Any:
        first, second = (shared, shared) if task.total else (mine[2], theirs[2])
        value, pulled, *_ = _pull(task, d, (), (), jax.tree.map(lambda a, b, p: a + p * b, first, second, task.parity))
        box = () if images is None else tuple(tuple(0.5 * n * g for g in pulled) for n in images)
        return (tuple(-g for g in pulled), (), ()), (box, value)

    if len(task.pairs.ranges) == 1:
        side = _Side(xs[0], names[0], (own, other, own_cotangent))
        term = as_both if task.parity is None else as_both_at_once
        (x, own_, other_), (box, value) = _walk(task, term, side, side, basis, neighbors, 0, shared)
        return (((x,), None if basis is None else box), (own_, other_)), value
    rows = _Side(xs[0], names[0], (own, (), own_cotangent))
    others = _Side(xs[1], names[1], ((), other, ()))
    (x, own_), (box, value) = _walk(task, as_row, rows, others, basis, neighbors, 0, shared)
    (y, other_), _ = _walk(task, as_other, others, rows, basis, neighbors, 1, shared)
    return (((x, y), None if basis is None else box), (own_, other_)), value


def _pull(task: _Task, d: Any, own: Any, other: Any, cotangent: Any) -> Any:
    """What is one number, and cotangents of the vectors and of what is known of each."""
    if task.of_length is not None:  # one slope for the three components of the vector
        function = task.of_length
        value, pull = jax.vjp(lambda square: function(sqrt(square)), _dot(d, d))
        slope = 2.0 * pull(jnp.broadcast_to(cotangent, value.shape).astype(value.dtype))[0]
        return value, tuple(slope * v for v in d), (), ()
    values, pull = jax.vjp(task.term, d, own, other)
    pulled = pull(jax.tree.map(lambda c, v: jnp.broadcast_to(c, v.shape).astype(v.dtype), cotangent, values))
    return values if task.is_number else (), *pulled


def _walk(
    task: _Task,
    term: Callable,
    rows: _Side,
    others: _Side,
    basis: Any,
    neighbors: NeighborList | None,
    side: int,
    shared: Any,
) -> Any:
    """Sums of ``term`` over the list of one side, or over cells where the list cannot be used."""

    def by_cells(rows: _Side, others: _Side, basis: Any, shared: Any, *_: Any) -> Any:
        return _by_cells(task.pairs.cutoff, term, rows, others, basis, shared)

    def by_list(*operands: Any) -> Any:
        return _by_list(task.pairs.cutoff, term, *operands)  # pyright: ignore[reportArgumentType]

    operands = (rows, others, basis, shared)
    if neighbors is None:
        return by_cells(*operands)
    listed = neighbors.sides[side].neighbors, neighbors.sides[side].most
    return rarely(~neighbors.is_usable, by_cells, by_list, *operands, *listed)


def _by_cells(cutoff: float | None, term: Callable, rows: _Side, others: _Side, basis: Any, shared: Any) -> Any:
    margin = 0.0 if cutoff is None else cutoff
    if basis is None:
        lattice = Lattice.around([jnp.concatenate(parts) for parts in zip(rows.x, others.x, strict=True)], margin)
    else:
        lattice = Lattice.spanned_by(basis)
    grid = Grid.of(lattice, others.x, others.names, margin, cutoff is not None and lattice.has_room_for(cutoff))
    known = jax.tree.map(lambda v: take(v, grid.order), others.known)

    def visit(b: Any, start: Any, x: Any, names: Any, body: Callable, carry: Any) -> Any:
        return grid.visit(x, names, body, carry)

    return _by_blocks(cutoff, term, visit, rows, known, shared, periodic=basis is not None)


def _by_list(
    cutoff: float, term: Callable, rows: _Side, others: _Side, basis: Any, shared: Any, neighbors: Any, most: Any
) -> Any:
    def visit(b: Any, start: Any, x: Any, names: Any, body: Callable, carry: Any) -> Any:
        def some(g: Any, carry: Any) -> Any:
            code = jax.lax.dynamic_slice(neighbors, (g * GROUP, jnp.asarray(start, g.dtype)), (GROUP, names.shape[0]))
            j = jnp.maximum(code, 0) >> 6
            d, images = tuple(take(v, j) - w[None] for v, w in zip(others.x, x, strict=True)), None
            if basis is not None:
                images = tuple((((code >> 2 * k) & 3) - 1).astype(d[0].dtype) for k in range(3))
                d = tuple(a + b for a, b in zip(d, _combine(images, basis), strict=True))
            return body(j, d, images, code >= 0, carry)

        return jax.lax.fori_loop(0, (most[b] + GROUP - 1) // GROUP, some, carry)

    return _by_blocks(cutoff, term, visit, rows, others.known, shared, periodic=basis is not None)


def _by_blocks(
    cutoff: float | None, term: Callable, visit: Callable, rows: _Side, known: Any, shared: Any, *, periodic: bool
) -> Any:
    """Sums of a term over what ``visit`` visits: for each row, and over all rows."""
    n = rows.names.shape[0]
    size = block_size(n)

    def values(j: Any, d: Any, images: Any, mine: Any) -> Any:
        shape = d[0].shape
        mine = jax.tree.map(lambda v: jnp.broadcast_to(v[..., None, :], v.shape[:-1] + shape), mine)
        common = jax.tree.map(lambda v: jnp.broadcast_to(v[..., None, None], v.shape + shape), shared)
        return term(d, images, mine, jax.tree.map(lambda v: take(v, j), known), common)

    def cut(start: Any) -> _Side:
        return jax.tree.map(lambda v: jax.lax.dynamic_slice_in_dim(v, start, size, axis=-1), rows)

    vector = (jax.ShapeDtypeStruct((GROUP, size), rows.x[0].dtype),) * 3
    numbers = jax.ShapeDtypeStruct((GROUP, size), jnp.int32)
    shapes = jax.eval_shape(values, numbers, vector, vector if periodic else None, jax.eval_shape(cut, 0).known)

    def block(b: Any, out: Any) -> Any:
        start = jnp.minimum(b * size, n - size)
        mine = cut(start)

        def body(j: Any, d: Any, images: Any, allowed: Any, carry: Any) -> Any:
            if cutoff is not None:
                allowed = allowed & (_dot(d, d) < cutoff**2)
            new = values(j, d, images, mine.known)
            return jax.tree.map(lambda c, v: c + jnp.sum(_where(allowed, v), axis=-2), carry, new)

        zeros = jax.tree.map(lambda v: jnp.zeros((*v.shape[:-2], size), v.dtype), shapes)
        per_row, totals = visit(b, start, mine.x, mine.names, body, zeros)
        fresh = start + jnp.arange(size) >= b * size  # the last block begins within the one before
        return (
            jax.tree.map(lambda o, v: jax.lax.dynamic_update_slice_in_dim(o, v, start, axis=-1), out[0], per_row),
            jax.tree.map(lambda o, v: o + jnp.sum(_where(fresh, v), axis=-1), out[1], totals),
        )

    zeros = (
        jax.tree.map(lambda v: jnp.zeros((*v.shape[:-2], n), v.dtype), shapes[0]),
        jax.tree.map(lambda v: jnp.zeros(v.shape[:-2], v.dtype), shapes[1]),
    )
    return jax.lax.fori_loop(0, -(-n // size), block, zeros)


def _where(allowed: Any, value: Any) -> Any:
    return jnp.where(jnp.broadcast_to(allowed, value.shape), value, 0)


def _harmless(d: Any, allowed: Any, cutoff: float | None) -> Any:
    """Vectors between pairs that do not count replaced by one for which every term is finite."""
    length = 1.0 if cutoff is None else 0.5 * cutoff
    return tuple(jnp.where(allowed, v, length if k == 0 else 0.0) for k, v in enumerate(d))
