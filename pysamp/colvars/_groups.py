"""What CVs have in common that look at each of one group of points among those of another."""

import abc
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..errors import InvalidInputError
from ..snapshot import Cell
from ._neighbors import Neighborhood, NeighborList
from ._pairs import Pairs
from .base import AbstractCV, as_points, type_of_points
from .switching import AbstractSwitch

type_of_range = tuple[int, int]


class AbstractNeighborCV(AbstractCV):
    """Base class of CVs that sum over the neighbours of each of some points.

    Attributes:
        atoms: first the points that are only looked at, then those that are neighbours as well, then the other neighbours.
        centers: the range of the points that are looked at.
        neighbors: the range of those among which neighbours are sought.
    """

    centers: eqx.AbstractVar[type_of_range]
    neighbors: eqx.AbstractVar[type_of_range]

    @property
    def reach(self) -> float | None:
        """Distance from which on others are no neighbours [length]; None if there is no such distance."""
        raise NotImplementedError

    @property
    def neighborhoods(self) -> tuple[Neighborhood, ...]:
        """The neighbours, if it is worth while to keep a list of them."""
        pairs = self._neighborhood
        return (pairs,) if pairs.has_list else ()

    @property
    def n_centers(self) -> int:
        """Number of points that are looked at."""
        return self.centers[1] - self.centers[0]

    @property
    def invariances(self) -> frozenset[str]:
        """Rigid motion and images; within one group also permutation."""
        common = frozenset({"translation", "rotation", "image"})
        return common | {"permutation"} if self.centers == self.neighbors else common

    def pairs(self, x: Float[Array, "k 3"], cell: Cell, lists: Sequence[NeighborList]) -> Pairs:
        """The pairs of points and their neighbours."""
        return Pairs(self._neighborhood, x, cell, lists)

    @property
    def _neighborhood(self) -> Neighborhood:
        return Neighborhood(self.centers, self.neighbors, self.reach)


class AbstractSwitchedCV(AbstractNeighborCV):
    """Base class of those whose neighbours a switching function of the distance tells.

    Attributes:
        switch: the function.
    """

    switch: eqx.AbstractVar[AbstractSwitch]

    @property
    def reach(self) -> float | None:
        """The end of the switching function."""
        return self.switch.end


class AbstractParticleCV(AbstractNeighborCV):
    """Base class of CVs that are the mean of a value that each particle has on account of its neighbours.

    Attributes:
        above: None, or a switching function of the particles' values. Then the CV is the fraction of particles above it, that
            is the mean of one less the function.
    """

    above: eqx.AbstractVar[AbstractSwitch | None]

    @abc.abstractmethod
    def of_particles(self, x: Float[Array, "k 3"], cell: Cell, lists: Sequence[NeighborList]) -> Float[Array, " n"]:
        """The value of each of the particles that are looked at, in any order."""

    def __call__(self, x: Float[Array, "k 3"], cell: Cell, lists: Sequence[NeighborList] = ()) -> Float[Array, ""]:
        """Mean over particles."""
        values = self.of_particles(x, cell, lists)
        return jnp.mean(values if self.above is None else 1.0 - self.above(jnp.maximum(values, 0.0)))


def arranged(centers: Any, neighbors: Any = None) -> tuple[type_of_points, type_of_range, type_of_range]:
    """Points of both groups, each once, such that each group is a range of them; with None, the neighbours are the centers.

    Raises:
        InvalidInputError: if a group is empty, or there is only one point.
    """
    first = as_points(centers)
    second = first if neighbors is None else as_points(neighbors)
    shared = set(first) & set(second)
    only_first = [point for point in first if point not in shared]
    only_second = [point for point in second if point not in shared]
    points = (*only_first, *(point for point in first if point in shared), *only_second)
    if not first or not second or len(points) < 2:
        raise InvalidInputError(
            f"Pairs need at least two different atoms or groups, got {list(first)[:10]} and {list(second)[:10]}."
        )
    return points, (0, len(first)), (len(only_first), len(points))
