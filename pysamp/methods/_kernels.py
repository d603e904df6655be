"""Kernels kept in boxes of neighbours in CV space, so that a sum over those within reach of a point skips all others."""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from .._branches import in_place_if
from .base import periodic_difference

__all__ = ["Kernels"]

_SLOTS = 64  # kernels in a box at most; one that is full is split
# Boxes at first. In less than 64 kB XLA would compile the sums otherwise, and their last digit would change as boxes are added.
_ROOM = 64


class Kernels(eqx.Module):
    """Gaussian kernels in CV space, in boxes of up to ``_SLOTS``.

    A new kernel joins the box that it is in, or nearest to; a full box is split in the middle of its longest axis. Each box knows
    within which bounds its kernels' centres lie, from which follows how near to a point one of them can be at most.

    Attributes:
        values: of each box, centres [CV unit] and widths [CV unit], one row for each CV, and in the last row heights; the
            first slots are filled.
        counts: number of kernels in each box.
        bounds: of each box, centre, half lengths and the kernels' largest widths [CV unit], one row for each CV.
        n_boxes: how many boxes are in use; the others are room for more.
        periods: of the CVs.
    """

    values: Float[Array, "boxes rows slots"]
    counts: Int[Array, " boxes"]
    bounds: Float[Array, "boxes edges"]
    n_boxes: Int[Array, ""]
    periods: tuple[float | None, ...] = eqx.field(static=True)

    @classmethod
    def none(cls, periods: Sequence[float | None], like: Float[Array, "..."], count: Int[Array, ""]) -> "Kernels":
        """No kernels; numbers of the types of ``like`` and ``count``."""
        n, zero = len(periods), jnp.zeros_like(count)
        return cls(*_empty_boxes(n, _ROOM, like.dtype, zero.dtype), zero, tuple(periods))

    @property
    def listed(self) -> Float[np.ndarray, "rows k"]:
        """All kernels."""
        filled = np.arange(_SLOTS)[None, :] < np.asarray(self.counts)[:, None]
        return np.moveaxis(np.asarray(self.values), 1, 0)[:, filled]

    def with_room(self, n_more: int) -> "Kernels":
        """With room for ``n_more`` kernels wherever they come; doubled, so that few shapes occur."""
        half = _SLOTS // 2
        ready = int(np.maximum(np.asarray(self.counts) - half, 0).sum())  # nearer to a split than after one
        needed = int(self.n_boxes) + (ready + n_more) // half + 1
        room = present = len(self.counts)
        while room < needed:
            room *= 2
        if room == present:
            return self
        more = _empty_boxes(len(self.periods), room - present, self.values.dtype, self.counts.dtype)
        own = (self.values, self.counts, self.bounds)
        values, counts, bounds = (jnp.concatenate(both) for both in zip(own, more, strict=True))
        return Kernels(values, counts, bounds, self.n_boxes, self.periods)

    def difference(self, a: Float[Array, "..."], b: Float[Array, "..."]) -> Float[Array, "..."]:
        """``a`` - ``b`` by the nearest image, CVs in rows."""
        return jnp.asarray(periodic_difference(a.T, b.T, self.periods)).T

    def fold(
        self,
        xi: Float[Array, " n"],
        within: Callable[[Float[Array, ""], Any], Bool[Array, ""]],
        visit: Callable[[Any, Int[Array, ""], Float[Array, "rows slots"]], Any],
        start: Any,
        widths: Float[Array, " n"] | None = None,
    ) -> Any:
        """Visit boxes one after the other, where they may have a kernel near enough to ``xi``.

        Args:
            xi: a point.
            within: whether to visit a box: function of the square of the least distance that a kernel in it can have, in
                its own widths or in ``widths`` if those are larger, and of the result so far.
            visit: function of the result so far, place of the box's first kernel, and the box's kernels; returns the new
                result. Slots that are not filled have height 0.
            start: the result without kernels.
            widths: see ``within``.
        """
        n = len(self.periods)

        def look(i: Int[Array, ""], carry: Any) -> Any:
            bounds = self._bounds(i)
            unit = bounds[2 * n :] if widths is None else jnp.maximum(bounds[2 * n :], widths)
            apart = jnp.maximum(jnp.abs(self.difference(xi, bounds[:n])) - bounds[n : 2 * n], 0.0)
            near = within(jnp.sum((apart / unit) ** 2), carry)
            return jax.lax.cond(near, lambda: visit(carry, i * _SLOTS, self._box(i)), lambda: carry)

        return jax.lax.fori_loop(jnp.zeros_like(self.n_boxes), self.n_boxes, look, start)

    def nearest(self, xi: Float[Array, " n"]) -> tuple[Int[Array, ""], Float[Array, ""]]:
        """Place of the kernel nearest to ``xi`` in units of its own widths, and the square of that distance."""
        n = len(self.periods)

        def visit(best: tuple, first: Int[Array, ""], box: Float[Array, "rows slots"]) -> tuple:
            squared = jnp.sum((self.difference(xi[:, None], box[:n]) / box[n : 2 * n]) ** 2, axis=0)
            squared = jnp.where(box[-1] > 0.0, squared, jnp.inf)
            places = first + jnp.arange(_SLOTS, dtype=first.dtype)
            least = jnp.min(squared)
            place = jnp.min(jnp.where(squared == least, places, places[-1]))
            return jax.tree.map(lambda new, old: jnp.where(least < best[0], new, old), (least, place), best)

        start = (jnp.full((), jnp.inf, xi.dtype), jnp.zeros_like(self.n_boxes))
        squared, place = self.fold(xi, lambda least, best: least < best[0], visit, start)
        return place, squared

    def without(self, place: Int[Array, ""]) -> tuple["Kernels", Float[Array, " rows"]]:
        """Without the kernel at ``place``, whose place the last one of its box takes; and that kernel."""
        i = place // _SLOTS
        box, count = self._taken(i)
        last, slots = count - 1, jnp.arange(_SLOTS)
        moved = jnp.where(slots[None] == place % _SLOTS, jax.lax.dynamic_slice_in_dim(box, last, 1, axis=1), box)
        rest = jnp.where(slots[None] == last, _empty(len(self.periods), 1, box.dtype), moved)
        kernel = jax.lax.dynamic_index_in_dim(box, place % _SLOTS, axis=1, keepdims=False)
        return self._with_box(i, rest, last), kernel

    def with_one(self, kernel: Float[Array, " rows"]) -> "Kernels":
        """With one kernel more."""
        n, zero = len(self.periods), jnp.zeros_like(self.n_boxes)
        bounds = self.bounds.T
        center = self.difference(kernel[:n, None], bounds[:n])
        beyond = jnp.maximum(jnp.abs(center) - bounds[n : 2 * n], 0.0) / kernel[n : 2 * n, None]
        squared = jnp.sum(beyond**2, axis=0)
        numbers = jnp.arange(len(squared), dtype=zero.dtype)
        chosen = jnp.min(jnp.where((squared == jnp.min(squared)) & jnp.isfinite(squared), numbers, len(squared)))
        i = jnp.where(chosen == len(squared), zero, chosen)  # there is no kernel yet
        box, count = self._taken(i)
        box = jax.lax.dynamic_update_slice_in_dim(box, kernel[:, None], count, axis=1)
        more = self._with_box(i, box, count + 1)
        more = eqx.tree_at(lambda k: k.n_boxes, more, jnp.maximum(self.n_boxes, 1))
        return in_place_if(count + 1 == _SLOTS, lambda kernels: kernels._split(i), more)

    def _box(self, i: Int[Array, ""]) -> Float[Array, "rows slots"]:
        return jax.lax.dynamic_index_in_dim(self.values, i, keepdims=False)

    def _taken(self, i: Int[Array, ""]) -> tuple[Float[Array, "rows slots"], Int[Array, ""]]:
        """A box that is going to change, and the number of kernels in it.

        By a loop of one turn: else XLA takes parts of the box from the old boxes after it has made the new ones, and copies all
        of them for that.
        """
        n, zero = len(self.periods), jnp.zeros_like(self.n_boxes)

        def take(_: tuple) -> tuple:
            return zero - 1, self._box(i), jax.lax.dynamic_index_in_dim(self.counts, i, keepdims=False)

        start = (i, _empty(n, _SLOTS, self.values.dtype), zero)
        return jax.lax.while_loop(lambda carry: carry[0] >= 0, take, start)[1:]

    def _bounds(self, i: Int[Array, ""]) -> Float[Array, " edges"]:
        return jax.lax.dynamic_index_in_dim(self.bounds, i, keepdims=False)

    def _with_box(self, i: Int[Array, ""], box: Float[Array, "rows slots"], count: Int[Array, ""]) -> "Kernels":
        """With other kernels in a box, and new bounds."""
        n = len(self.periods)
        filled = jnp.arange(_SLOTS)[None] < count
        offsets = self.difference(box[:n], box[:n, :1])
        low = jnp.min(jnp.where(filled, offsets, jnp.inf), axis=1)
        high = jnp.max(jnp.where(filled, offsets, -jnp.inf), axis=1)
        widths = jnp.max(jnp.where(filled, box[n : 2 * n], 0.0), axis=1)
        bounds = jnp.concatenate([box[:n, 0] + 0.5 * (low + high), 0.5 * (high - low), widths])
        bounds = jnp.where(count > 0, bounds, _no_bounds(n, bounds.dtype))
        return Kernels(
            jax.lax.dynamic_update_index_in_dim(self.values, box, i, axis=0),
            jax.lax.dynamic_update_index_in_dim(self.counts, count, i, axis=0),
            jax.lax.dynamic_update_index_in_dim(self.bounds, bounds, i, axis=0),
            self.n_boxes,
            self.periods,
        )

    def _split(self, i: Int[Array, ""]) -> "Kernels":
        """With the upper half of a full box in a new one."""
        n, half = len(self.periods), _SLOTS // 2
        box, _ = self._taken(i)
        bounds = self._bounds(i)
        lengths = bounds[n : 2 * n] / bounds[2 * n :]
        along = jnp.zeros(_SLOTS, dtype=box.dtype)
        for d in reversed(range(n)):
            along = jnp.where(lengths[d] == jnp.max(lengths), self.difference(box[:n], bounds[:n, None])[d], along)
        slots = jnp.arange(_SLOTS)
        before = (along[None, :] < along[:, None]) | (
            (along[None, :] == along[:, None]) & (slots[None, :] < slots[:, None])
        )
        rank = jnp.sum(before, axis=1)
        ordered = jnp.sum(jnp.where((rank[None, :] == slots[:, None])[None], box[:, None, :], 0.0), axis=2)
        rest, count = _empty(n, half, box.dtype), jnp.asarray(half, dtype=self.counts.dtype)
        lower = self._with_box(i, jnp.concatenate([ordered[:, :half], rest], axis=1), count)
        both = lower._with_box(self.n_boxes, jnp.concatenate([ordered[:, half:], rest], axis=1), count)
        return eqx.tree_at(lambda k: k.n_boxes, both, self.n_boxes + 1)


def _empty(n: int, slots: int, dtype: Any) -> Float[Array, "rows slots"]:
    """Kernels of height 0 and width 1."""
    return jnp.concatenate([jnp.zeros((n, slots)), jnp.ones((n, slots)), jnp.zeros((1, slots))]).astype(dtype)


def _no_bounds(n: int, dtype: Any) -> Float[Array, " edges"]:
    """Bounds of a box without kernels: infinitely far from everywhere."""
    return jnp.concatenate([jnp.zeros(n), jnp.full(n, -jnp.inf), jnp.ones(n)]).astype(dtype)


def _empty_boxes(n: int, room: int, dtype: Any, counts: Any) -> tuple[Array, Array, Array]:
    """Values, counts and bounds of boxes without kernels."""
    parts = (_empty(n, _SLOTS, dtype), jnp.zeros((), dtype=counts), _no_bounds(n, dtype))
    return jax.tree.map(lambda part: jnp.tile(part[None], (room,) + (1,) * part.ndim), parts)
