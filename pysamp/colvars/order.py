r"""How the neighbours of particles are arranged: bond-orientational order and tetrahedrality.

Notation: $u_{ij}$ is the unit vector from particle i to the nearest image of particle j, at the distance $r_{ij}$; $s$ is a
switching function, and $N_i = \sum_{j \ne i} s(r_{ij})$ the number of neighbours of i. Particles without neighbours have
the value zero. Where a particle's last neighbour leaves, its value jumps, so let the switching function reach far enough for
several neighbours at all times.

For crystals, let it fall off between the first and the second shell of neighbours, or behind the second for bcc.
"""

import functools
import math
import operator
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..errors import InvalidInputError
from ..snapshot import Cell, _dot
from ._directions import direction
from ._groups import AbstractParticleCV, AbstractSwitchedCV, arranged, type_of_range
from ._harmonics import as_degree, harmonics
from ._neighbors import NeighborList
from ._pairs import Pairs
from ._vectors import divide, sqrt
from .base import type_of_points
from .coordination import as_switch
from .switching import AbstractSwitch

__all__ = ["AveragedSteinhardtQ", "GlobalSteinhardtQ", "LocalSteinhardtQ", "SteinhardtQ", "Tetrahedrality"]


class SteinhardtQ(AbstractSwitchedCV, AbstractParticleCV):
    r"""Bond-orientational order of the neighbours of each particle, averaged over particles.

    $$Q_l = \frac{1}{N} \sum_i \sqrt{\frac{4\pi}{2l+1} \sum_m |q_{lm}(i)|^2}, \qquad q_{lm}(i) = \frac{1}{N_i} \sum_j
    s(r_{ij})\, Y_{lm}(u_{ij})$$

    It tells how regular the surroundings are, whatever their orientation, and differs least between a liquid and a crystal of
    all orders here: see :class:`~pysamp.colvars.AveragedSteinhardtQ` and :class:`~pysamp.colvars.LocalSteinhardtQ` for
    nucleation. With one shell of neighbours $Q_6$ and $Q_4$ are 0.575 and 0.191 in fcc, 0.485 and 0.097 in hcp, 0.354
    and 0.764 in simple cubic crystals, 0.511 and 0.036 in bcc with two.

    The cost is that of the pairs within reach of the switching function, for any number of particles.

    Args:
        atoms: the particles, indices or Groups.
        neighbors: those among which neighbours are sought; None for the same.
        l: degree of the spherical harmonics, 1 to 12.
        switch: switching function of the distance.
        normalized: False leaves out the factor $4\pi/(2l+1)$, as PLUMED does.
        above: a switching function of the particles' values, to count the fraction of those above instead of taking the
            mean: $\frac{1}{N} \sum_i [1 - s(Q_l(i))]$.

    Raises:
        InvalidInputError: unless there are two particles, and degree and functions are such.

    Example:
        >>> import jax.numpy as jnp
        >>> from pysamp import Cell
        >>> from pysamp.colvars import CubicSwitch, SteinhardtQ
        >>> order = SteinhardtQ([0], range(1, 7), l=4, switch=CubicSwitch(0.1, d0=1.1))
        >>> octahedron = jnp.concatenate([jnp.zeros((1, 3)), jnp.eye(3), -jnp.eye(3)])
        >>> print(f"{order(octahedron, Cell()):.3f}")
        0.764

    References:
        Steinhardt, Nelson & Ronchetti, Phys. Rev. B 28, 784 (1983), doi 10.1103/PhysRevB.28.784.
    """

    atoms: type_of_points = eqx.field(static=True)
    centers: type_of_range = eqx.field(static=True)
    neighbors: type_of_range = eqx.field(static=True)
    l: int = eqx.field(static=True)  # noqa: E741 (the field's symbol)
    switch: AbstractSwitch = eqx.field(static=True)
    normalized: bool = eqx.field(static=True)
    above: AbstractSwitch | None = eqx.field(static=True)

    def __init__(
        self,
        atoms: Any,
        neighbors: Any = None,
        *,
        l: Any,  # noqa: E741
        switch: Any,
        normalized: bool = True,
        above: Any = None,
    ):
        self.atoms, self.centers, self.neighbors = arranged(atoms, neighbors)
        self.l, self.switch, self.normalized = as_degree(l), as_switch(switch, "switch"), bool(normalized)
        self.above = None if above is None else as_switch(above, "above")

    def of_particles(self, x: Float[Array, "k 3"], cell: Cell, lists: Sequence[NeighborList]) -> Float[Array, " n"]:
        """The order of each particle."""
        q, count = _bond_sums(self.pairs(x, cell, lists), self.l, self.switch)
        return _factor(self) * divide(_length(q), count)


class AveragedSteinhardtQ(AbstractSwitchedCV, AbstractParticleCV):
    r"""Bond-orientational order of particles whose harmonics are averaged over their neighbours first, after Lechner and Dellago.

    $$\bar Q_l = \frac{1}{N} \sum_i \sqrt{\frac{4\pi}{2l+1} \sum_m |\bar q_{lm}(i)|^2}, \qquad \bar q_{lm}(i) =
    \frac{q_{lm}(i) + \sum_j s(r_{ij})\, q_{lm}(j)}{1 + N_i}$$

    with the $q_{lm}$ of :class:`~pysamp.colvars.SteinhardtQ`. The second shell of neighbours has a say, which sets crystals
    apart from liquids, and crystals from each other. Costs about twice as much.

    Args:
        atoms: the particles, indices or Groups; all are neighbours of each other.
        l: degree of the spherical harmonics, 1 to 12.
        switch: switching function of the distance.
        normalized: False leaves out the factor $4\pi/(2l+1)$, as PLUMED does.
        above: a switching function of the particles' values, to count the fraction of those above instead of taking the
            mean.

    Raises:
        InvalidInputError: unless there are two particles, and degree and functions are such.

    Example:
        >>> import jax.numpy as jnp
        >>> from pysamp import Cell
        >>> from pysamp.colvars import AveragedSteinhardtQ, CubicSwitch
        >>> order = AveragedSteinhardtQ(range(27), l=4, switch=CubicSwitch(0.1, d0=1.1))
        >>> cube = jnp.stack(jnp.meshgrid(*[jnp.arange(3.0)] * 3), axis=-1).reshape(-1, 3)
        >>> print(f"{order(cube, Cell.of(3 * jnp.eye(3))):.3f}")
        0.764

    References:
        Lechner & Dellago, J. Chem. Phys. 129, 114707 (2008), doi 10.1063/1.2977970.
    """

    atoms: type_of_points = eqx.field(static=True)
    centers: type_of_range = eqx.field(static=True)
    neighbors: type_of_range = eqx.field(static=True)
    l: int = eqx.field(static=True)  # noqa: E741
    switch: AbstractSwitch = eqx.field(static=True)
    normalized: bool = eqx.field(static=True)
    above: AbstractSwitch | None = eqx.field(static=True)

    def __init__(self, atoms: Any, *, l: Any, switch: Any, normalized: bool = True, above: Any = None):  # noqa: E741
        self.atoms, self.centers, self.neighbors = arranged(atoms)
        self.l, self.switch, self.normalized = as_degree(l), as_switch(switch, "switch"), bool(normalized)
        self.above = None if above is None else as_switch(above, "above")

    def of_particles(self, x: Float[Array, "k 3"], cell: Cell, lists: Sequence[NeighborList]) -> Float[Array, " n"]:
        """The order of each particle."""
        pairs = self.pairs(x, cell, lists)
        q, count = _bond_sums(pairs, self.l, self.switch)
        own = tuple(divide(part, count) for part in q)
        others = _over_neighbors(pairs, own, self.switch)
        return _factor(self) * _length([a + b for a, b in zip(own, others, strict=True)]) / (1.0 + count)


class LocalSteinhardtQ(AbstractSwitchedCV, AbstractParticleCV):
    r"""How parallel the bond-orientational order of each particle is to that of its neighbours, after ten Wolde and others.

    $$S_l = \frac{1}{N} \sum_i \frac{1}{N_i} \sum_j s(r_{ij}) \operatorname{Re} \sum_m e_{lm}^*(i)\, e_{lm}(j), \qquad
    e_{lm}(i) = \frac{q_{lm}(i)}{\sqrt{\sum_m |q_{lm}(i)|^2}}$$

    with the $q_{lm}$ of :class:`~pysamp.colvars.SteinhardtQ`: 1 in any perfect crystal of one orientation, small in a liquid
    (l = 6), or in the diamond lattice -1 (l = 3). Choose it for nucleation; with ``above``, it is the fraction of solid-like
    particles.

    Args:
        atoms: the particles, indices or Groups; all are neighbours of each other.
        l: degree of the spherical harmonics, 1 to 12.
        switch: switching function of the distance.
        above: a switching function of the particles' values, to count the fraction of those above instead of taking the
            mean; negative values count as zero there.

    Raises:
        InvalidInputError: unless there are two particles, and degree and functions are such.

    Example:
        >>> import jax.numpy as jnp
        >>> from pysamp import Cell
        >>> from pysamp.colvars import CubicSwitch, LocalSteinhardtQ
        >>> order = LocalSteinhardtQ(range(27), l=4, switch=CubicSwitch(0.1, d0=1.1))
        >>> cube = jnp.stack(jnp.meshgrid(*[jnp.arange(3.0)] * 3), axis=-1).reshape(-1, 3)
        >>> print(f"{order(cube, Cell.of(3 * jnp.eye(3))):.3f}")
        1.000

    References:
        ten Wolde, Ruiz-Montero & Frenkel, J. Chem. Phys. 104, 9932 (1996), doi 10.1063/1.471721.
    """

    atoms: type_of_points = eqx.field(static=True)
    centers: type_of_range = eqx.field(static=True)
    neighbors: type_of_range = eqx.field(static=True)
    l: int = eqx.field(static=True)  # noqa: E741
    switch: AbstractSwitch = eqx.field(static=True)
    above: AbstractSwitch | None = eqx.field(static=True)

    def __init__(self, atoms: Any, *, l: Any, switch: Any, above: Any = None):  # noqa: E741
        self.atoms, self.centers, self.neighbors = arranged(atoms)
        self.l, self.switch = as_degree(l), as_switch(switch, "switch")
        self.above = None if above is None else as_switch(above, "above")

    def of_particles(self, x: Float[Array, "k 3"], cell: Cell, lists: Sequence[NeighborList]) -> Float[Array, " n"]:
        """The order of each particle."""
        pairs = self.pairs(x, cell, lists)
        q, count = _bond_sums(pairs, self.l, self.switch)
        size = _length(q)
        own = tuple(divide(part, size) for part in q)
        return divide(_dot(own, _over_neighbors(pairs, own, self.switch)), count)


class GlobalSteinhardtQ(AbstractSwitchedCV):
    r"""Bond-orientational order of all bonds together.

    $$Q_l = \sqrt{\frac{4\pi}{2l+1} \sum_m |Q_{lm}|^2}, \qquad Q_{lm} = \frac{\sum_{i,\, j \ne i} s(r_{ij})\,
    Y_{lm}(u_{ij})}{\sum_{i,\, j \ne i} s(r_{ij})}$$

    In a perfect crystal it is the order of each particle, in a liquid it vanishes as the number of particles grows, and so it
    does in a crystal of many grains. Choose it for small systems that crystallise as a whole.

    Args:
        atoms: the particles, indices or Groups.
        neighbors: those among which neighbours are sought; None for the same.
        l: degree of the spherical harmonics, 1 to 12; even if there is one group, whose bonds go to and fro.
        switch: switching function of the distance.
        normalized: False leaves out the factor $4\pi/(2l+1)$.

    Raises:
        InvalidInputError: unless there are two particles, and degree and functions are such.

    Example:
        >>> import jax.numpy as jnp
        >>> from pysamp import Cell
        >>> from pysamp.colvars import CubicSwitch, GlobalSteinhardtQ
        >>> order = GlobalSteinhardtQ(range(27), l=6, switch=CubicSwitch(0.1, d0=1.1))
        >>> cube = jnp.stack(jnp.meshgrid(*[jnp.arange(3.0)] * 3), axis=-1).reshape(-1, 3)
        >>> print(f"{order(cube, Cell.of(3 * jnp.eye(3))):.4f}")
        0.3536

    References:
        Steinhardt, Nelson & Ronchetti, Phys. Rev. B 28, 784 (1983), doi 10.1103/PhysRevB.28.784.
    """

    atoms: type_of_points = eqx.field(static=True)
    centers: type_of_range = eqx.field(static=True)
    neighbors: type_of_range = eqx.field(static=True)
    l: int = eqx.field(static=True)  # noqa: E741
    switch: AbstractSwitch = eqx.field(static=True)
    normalized: bool = eqx.field(static=True)

    def __init__(self, atoms: Any, neighbors: Any = None, *, l: Any, switch: Any, normalized: bool = True):  # noqa: E741
        self.atoms, self.centers, self.neighbors = arranged(atoms, neighbors)
        self.l, self.switch, self.normalized = as_degree(l), as_switch(switch, "switch"), bool(normalized)
        if neighbors is None and self.l % 2:
            raise InvalidInputError(
                f"Within one group every bond counts in both directions, so that GlobalSteinhardtQ vanishes for odd l={l}; "
                "take an even l, or SteinhardtQ."
            )

    def __call__(self, x: Float[Array, "k 3"], cell: Cell, lists: Sequence[NeighborList] = ()) -> Float[Array, ""]:
        """The order."""
        q, count = _bond_sums(self.pairs(x, cell, lists), self.l, self.switch, total=True)
        return _factor(self) * divide(_length(q), count)


class Tetrahedrality(AbstractSwitchedCV, AbstractParticleCV):
    r"""How tetrahedral the surroundings of each particle are, averaged over particles.

    $$q = \frac{1}{N} \sum_i \left[1 - \frac{9}{4}\, \frac{\sum_{j \ne k} s(r_{ij})\, s(r_{ik}) \left(u_{ij} \cdot u_{ik} +
    \tfrac{1}{3}\right)^2}{\sum_{j \ne k} s(r_{ij})\, s(r_{ik})}\right]$$

    With four neighbours that count fully this is Errington and Debenedetti's parameter of their six angles; they take the four
    nearest ones, which jumps when another comes nearer, and here the switching function says who is a neighbour. It is 1 in
    diamond and ice, and 0 on average for angles at random. A particle with fewer than two neighbours has the value zero.

    Choose it for water and other network liquids, with the oxygens as particles and a switching function that ends between
    their first and second shell. The cost is that of the pairs, not of the triples, within its reach.

    Args:
        atoms: the particles, indices or Groups.
        neighbors: those among which neighbours are sought; None for the same.
        switch: switching function of the distance.
        above: a switching function of the particles' values, to count the fraction of those above instead of taking the
            mean; negative values count as zero there.

    Raises:
        InvalidInputError: unless there are two particles and a switching function.

    Example:
        >>> import jax.numpy as jnp
        >>> from pysamp import Cell
        >>> from pysamp.colvars import CubicSwitch, Tetrahedrality
        >>> order = Tetrahedrality([0], range(1, 5), switch=CubicSwitch(0.5, d0=2.0))
        >>> corners = [[0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [1.0, -1.0, -1.0], [-1.0, 1.0, -1.0], [-1.0, -1.0, 1.0]]
        >>> print(f"{order(jnp.array(corners), Cell()):.3f}")
        1.000

    References:
        Errington & Debenedetti, Nature 409, 318 (2001), doi 10.1038/35053024.
    """

    atoms: type_of_points = eqx.field(static=True)
    centers: type_of_range = eqx.field(static=True)
    neighbors: type_of_range = eqx.field(static=True)
    switch: AbstractSwitch = eqx.field(static=True)
    above: AbstractSwitch | None = eqx.field(static=True)

    def __init__(self, atoms: Any, neighbors: Any = None, *, switch: Any, above: Any = None):
        self.atoms, self.centers, self.neighbors = arranged(atoms, neighbors)
        self.switch = as_switch(switch, "switch")
        self.above = None if above is None else as_switch(above, "above")

    def of_particles(self, x: Float[Array, "k 3"], cell: Cell, lists: Sequence[NeighborList]) -> Float[Array, " n"]:
        r"""The sums over pairs of neighbours, from sums over neighbours.

        $\sum_{jk} s_j s_k (u_j \cdot u_k)^2$ is the squared length of the matrix $\sum_j s_j u_j u_j^T$, and likewise for the
        other powers; what $j = k$ contributes is subtracted.
        """

        def term(d: Any, own: Any, other: Any) -> Any:
            (a, b, c), r, counts = direction(d, self.switch)
            del r
            sa, sb, sc = a * counts, b * counts, c * counts
            squares = (sa * a, sb * b, sc * c)
            products = (sa * b, sb * c, sc * a)
            return counts, counts * counts, (sa, sb, sc), squares, products

        pairs = self.pairs(x, cell, lists)
        parity = (1, 1, (-1,) * 3, (1,) * 3, (1,) * 3)
        count, square, vector, squares, products = pairs.sums(term, parity=parity)
        all_pairs = _dot(squares, squares) + 2.0 * _dot(products, products)
        deviation = all_pairs + (2.0 / 3.0) * _dot(vector, vector) + count * count / 9.0 - (16.0 / 9.0) * square
        weight = count * count - square
        defined = weight > 1e3 * jnp.finfo(x.dtype).eps * square  # one neighbour alone leaves rounding errors
        return jnp.where(defined, 1.0 - 2.25 * deviation / jnp.where(defined, weight, 1.0), 0.0)


def _bond_sums(pairs: Pairs, degree: int, switch: AbstractSwitch, *, total: bool = False) -> Any:
    """Sums of the harmonics of the neighbours of each particle, or of all, and the numbers of neighbours."""

    def term(d: Any, own: Any, other: Any) -> Any:
        u, _, counts = direction(d, switch)
        return harmonics(degree, u, counts), counts

    parity = (((-1) ** degree,) * (2 * degree + 1), 1)
    return pairs.total(term, parity=parity) if total else pairs.sums(term, parity=parity)


def _over_neighbors(pairs: Pairs, values: Any, switch: AbstractSwitch) -> Any:
    """Sum of the values of the neighbours of each particle."""

    def term(d: Any, own: Any, other: Any) -> Any:
        _, _, counts = direction(d, switch)
        return tuple(counts * value for value in other)

    return pairs.sums(term, other=values)


def _length(q: Any) -> Any:
    return sqrt(functools.reduce(operator.add, [part * part for part in q]))


def _factor(cv: Any) -> float:
    """The harmonics here have the factor."""
    return 1.0 if cv.normalized else math.sqrt((2 * cv.l + 1) / (4.0 * math.pi))
