r"""Coordination numbers, numbers of hydrogen bonds and smooth minimum distances: sums over pairs of two groups.

Notation: $r_{ij}$ is the distance between the nearest images of two points, and $s$ a switching function.
"""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..errors import InvalidInputError
from ..snapshot import Cell
from ..units import as_float
from ._groups import AbstractNeighborCV, AbstractSwitchedCV, arranged, type_of_range
from ._neighbors import NeighborList
from ._vectors import arctan2, norm, sqrt
from .base import AbstractCV, as_points, type_of_points
from .switching import AbstractSwitch, FermiSwitch

__all__ = ["CoordinationNumber", "HydrogenBonds", "MinimumDistance"]


class CoordinationNumber(AbstractSwitchedCV):
    r"""Number of pairs that are in contact, within one group or between two.

    $$C = \sum_{i < j} s(r_{ij}) \qquad\text{or}\qquad C = \sum_{i \in A} \sum_{j \in B,\, j \ne i} s(r_{ij})$$

    Choose it for solvation shells, binding, association and nucleation. Divide by the number of points for the coordination
    number of each (twice that within one group). A point that is in both groups is no neighbour of itself, and a pair that
    occurs in both orders counts twice, as in PLUMED, where ``GROUPA`` alone is one group, and the same atoms as ``GROUPA``
    and ``GROUPB`` give twice its value.

    With a switching function that has an end, and more than a few thousand pairs, the cost is that of the pairs nearer than
    1.2 times that end, from a neighbour list that a run keeps. Any number of points will do.

    Args:
        atoms: the group, or A; indices or Groups.
        others: B, or None for pairs within one group.
        switch: the switching function.

    Raises:
        InvalidInputError: unless there are two different points, and the switching function is one.

    Example:
        >>> import jax.numpy as jnp
        >>> from pysamp import Cell
        >>> from pysamp.colvars import CoordinationNumber, RationalSwitch
        >>> shell = CoordinationNumber([0], range(1, 100), switch=RationalSwitch(0.3, cutoff=0.8))
        >>> x = jnp.zeros((100, 3)).at[1:, 0].set(0.3 * jnp.arange(1, 100))
        >>> print(f"{shell(x, Cell()):.3f}")
        0.511

    References:
        Sprik, Faraday Discuss. 110, 437 (1998), doi 10.1039/a801517a.
    """

    atoms: type_of_points = eqx.field(static=True)
    centers: type_of_range = eqx.field(static=True)
    neighbors: type_of_range = eqx.field(static=True)
    switch: AbstractSwitch = eqx.field(static=True)
    one_group: bool = eqx.field(static=True)

    def __init__(self, atoms: Any, others: Any = None, *, switch: Any):
        self.atoms, self.centers, self.neighbors = arranged(atoms, others)
        self.switch = as_switch(switch, "switch")
        self.one_group = others is None

    def __call__(self, x: Float[Array, "k 3"], cell: Cell, lists: Sequence[NeighborList] = ()) -> Float[Array, ""]:
        """Sum of the switching function."""
        total = self.pairs(x, cell, lists).total_of_lengths(self.switch)
        return 0.5 * total if self.one_group else total


class HydrogenBonds(AbstractNeighborCV):
    r"""Number of hydrogen bonds, by distance and angle.

    $$N = \sum_\text{D-H} \sum_{\text{A} \ne \text{D}} s_r(r_\text{DA})\, s_\theta(\theta), \qquad \theta = \angle\,
    \text{H-D-A}$$

    The angle is 0 in a linear bond. The usual criteria, $r_\text{DA}$ below 0.35 nm and $\theta$ below 30 degrees, are
    softened by switching functions that are a half there. An atom can be donor and acceptor. With a distance function that
    has an end, the cost is that of the pairs within reach, as for :class:`~pysamp.colvars.CoordinationNumber`.

    Args:
        donors: pairs (donor, hydrogen), such as ``[(0, 1), (0, 2)]`` for a water molecule.
        acceptors: the acceptor atoms.
        distance: switching function of the distance from donor to acceptor.
        angle: switching function of the angle [rad]; None counts by distance alone.

    Raises:
        InvalidInputError: unless there are donors, hydrogens and acceptors, and the functions are switching functions.

    Example:
        >>> import jax.numpy as jnp
        >>> from pysamp import Cell
        >>> from pysamp.colvars import HydrogenBonds, RationalSwitch
        >>> bonds = HydrogenBonds([(0, 1)], [2], distance=RationalSwitch(0.1, d0=0.3, cutoff=0.6))
        >>> x = jnp.array([[0.0, 0.0, 0.0], [0.1, 0.0, 0.0], [0.28, 0.02, 0.0]])
        >>> print(f"{bonds(x, Cell()):.3f}")
        1.000

    References:
        Luzar & Chandler, Phys. Rev. Lett. 76, 928 (1996), doi 10.1103/PhysRevLett.76.928 (the geometric criteria).
    """

    atoms: type_of_points = eqx.field(static=True)
    centers: type_of_range = eqx.field(static=True)
    neighbors: type_of_range = eqx.field(static=True)
    bonded: tuple[tuple[bool, ...], ...] = eqx.field(static=True)
    distance: AbstractSwitch = eqx.field(static=True)
    angle: AbstractSwitch | None = eqx.field(static=True)

    def __init__(
        self,
        donors: Any,
        acceptors: Any,
        *,
        distance: Any,
        angle: Any = FermiSwitch(math.pi / 6, beta=20.0),  # noqa: B008 (frozen)
    ):
        hydrogens = _hydrogens(donors)
        points, self.centers, self.neighbors = arranged(list(hydrogens), acceptors)
        most = max(len(own) for own in hydrogens.values())
        of_centers = [hydrogens[point] for point in points[: self.centers[1]]]
        padded = [[*own, *own[:1] * (most - len(own))] for own in of_centers]
        # After the points come the first hydrogen of each donor, then the second of each, with the first once more where
        # there is none, which does not count.
        self.atoms = (*points, *(own[k] for k in range(most) for own in padded))
        self.bonded = tuple(tuple(k < len(own) for own in of_centers) for k in range(most))
        self.distance = as_switch(distance, "distance")
        self.angle = None if angle is None else as_switch(angle, "angle")

    @property
    def reach(self) -> float | None:
        """The end of the function of the distance."""
        return self.distance.end

    @property
    def invariances(self) -> frozenset[str]:
        """Rigid motion and images: the points are donors, acceptors and hydrogens, which do not change places."""
        return super().invariances - {"permutation"}

    def __call__(self, x: Float[Array, "k 3"], cell: Cell, lists: Sequence[NeighborList] = ()) -> Float[Array, ""]:
        """Sum over donors' hydrogens and acceptors."""
        pairs = self.pairs(x, cell, lists)
        n, n_points = self.n_centers, max(self.centers[1], self.neighbors[1])
        arms = []
        for k, exists in enumerate(self.bonded):
            arm = cell.displacement(x[:n], x[n_points + k * n : n_points + (k + 1) * n])
            arms.append(
                (tuple(pairs.of_rows(arm[:, i]) for i in range(3)), pairs.of_rows(jnp.asarray(exists, x.dtype)))
            )

        def term(d: Any, arms: Any, _: Any) -> Any:
            counts = [exists if self.angle is None else exists * self.angle(_angle(arm, d)) for arm, exists in arms]
            return self.distance(length(d)) * sum(counts)

        return pairs.total(term, arms)


class MinimumDistance(AbstractCV):
    r"""Smooth minimum of the distances between two groups [length].

    $$d = \frac{\beta}{\ln \sum_{i \in A,\, j \in B} e^{\beta / r_{ij}}}$$

    It is below the true minimum, from above which it is approached as $\beta$ grows; ten times the distances of interest is
    a good start. All pairs are computed, so keep the groups small.

    Args:
        atoms: A; indices or Groups.
        others: B, none of which may be in A.
        beta: sharpness [length].

    Raises:
        InvalidInputError: if a point is in both groups, one is empty, or ``beta`` is not positive.

    Example:
        >>> import jax.numpy as jnp
        >>> from pysamp import Cell
        >>> from pysamp.colvars import MinimumDistance
        >>> x = jnp.array([[0.0, 0.0, 0.0], [0.5, 0.0, 0.0], [1.0, 0.0, 0.0]])
        >>> print(f"{MinimumDistance([0], [1, 2], beta=10)(x, Cell()):.4f}")
        0.5000

    References:
        The PLUMED consortium, Nat. Methods 16, 670 (2019), doi 10.1038/s41592-019-0506-8 (``DISTANCES MIN``).
    """

    atoms: type_of_points = eqx.field(static=True)
    n_first: int = eqx.field(static=True)
    beta: Float[np.ndarray, ""]
    unit: ClassVar[str] = "length"
    invariances: ClassVar[frozenset[str]] = frozenset({"translation", "rotation", "image"})

    def __init__(self, atoms: Any, others: Any, *, beta: Any):
        first, second = as_points(atoms), as_points(others)
        shared = set(first) & set(second)
        if shared or not first or not second:
            what = f"{shared.pop()!r} is in both" if shared else "one is empty"
            raise InvalidInputError(f"MinimumDistance needs two groups without common points; {what}.")
        self.atoms, self.n_first = (*first, *second), len(first)
        self.beta = as_float(beta)
        if not 0 < self.beta < math.inf:
            raise InvalidInputError(f"MinimumDistance needs a positive, finite beta, got {beta!r}.")

    def __call__(self, x: Float[Array, "k 3"], cell: Cell) -> Float[Array, ""]:
        """The mean that tends to the minimum, computed relative to the minimum so that nothing overflows."""
        r = norm(cell.displacement(x[: self.n_first, None], x[None, self.n_first :]))
        r = jnp.maximum(r, jnp.finfo(x.dtype).tiny ** 0.25)
        beta = jnp.asarray(self.beta, x.dtype)
        least = jax.lax.stop_gradient(jnp.min(r))
        return least / (1.0 + least / beta * jnp.log(jnp.sum(jnp.exp(beta / r - beta / least))))


def as_switch(value: Any, name: str) -> AbstractSwitch:
    """``value``, if it is a switching function.

    Raises:
        InvalidInputError: if it is something else.
    """
    if not isinstance(value, AbstractSwitch):
        raise InvalidInputError(
            f"{name} must be a switching function, such as pysamp.colvars.RationalSwitch(0.3, cutoff=0.8), got {value!r}."
        )
    return value


def length(d: Any) -> Any:
    """Length of a vector given as its three components, with derivative zero at zero."""
    return sqrt(d[0] * d[0] + d[1] * d[1] + d[2] * d[2])


def _angle(a: Any, b: Any) -> Any:
    normal = (a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0])
    return arctan2(length(normal), a[0] * b[0] + a[1] * b[1] + a[2] * b[2])


def _hydrogens(donors: Any) -> dict[Any, list[Any]]:
    """The hydrogens of each donor."""
    if not isinstance(donors, Sequence | np.ndarray) or not len(donors):
        raise InvalidInputError(f"donors must be a list of pairs (donor, hydrogen), got {donors!r}.")
    result: dict[Any, list[Any]] = {}
    for pair in donors:
        points = as_points(pair)
        if len(points) != 2:
            raise InvalidInputError(f"donors must be pairs (donor, hydrogen), got {pair!r} among them.")
        result.setdefault(points[0], []).append(points[1])
    for donor, own in result.items():
        if len(set(own)) != len(own):
            raise InvalidInputError(f"donors lists a hydrogen of {donor} twice: {own}.")
    return result
