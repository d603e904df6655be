r"""Order of particles along the axes of a cubic crystal: functions of the directions of neighbours that know x, y and z.

Each particle has the mean of a function f of the unit vectors $u_{ij} = (x, y, z)$ to its neighbours, weighted with a
switching function s of the distance $r_{ij}$,

$$\xi = \frac{1}{N} \sum_i \frac{\sum_j s(r_{ij})\, f(u_{ij})}{\sum_j s(r_{ij})}.$$

All are largest for crystals whose axes are those of the coordinates, so they grow a crystal in that orientation, and cost less
than bond-orientational order, which does not mind the orientation. A particle without neighbours has the value zero; where the
last neighbour leaves, its value jumps, so let the switching function reach far enough for several neighbours at all times.
"""

import abc
import math
from collections.abc import Sequence
from typing import Any, ClassVar

import equinox as eqx
from jaxtyping import Array, Float

from ..errors import InvalidInputError
from ..snapshot import Cell
from ..units import as_float
from ._directions import direction
from ._groups import AbstractParticleCV, AbstractSwitchedCV, arranged, type_of_range
from ._neighbors import NeighborList
from ._vectors import divide
from .base import type_of_points
from .coordination import as_switch
from .switching import AbstractSwitch

__all__ = ["FCCOrder", "SimpleCubicOrder", "TetrahedralOrder"]


class _AbstractCubicOrder(AbstractSwitchedCV, AbstractParticleCV):
    """The mean over neighbours of a function of their directions, whose parity the class gives."""

    parity: ClassVar[int] = 1

    @abc.abstractmethod
    def along(self, x: Any, y: Any, z: Any) -> Any:
        """The function of the components of unit vectors."""

    @property
    def invariances(self) -> frozenset[str]:
        """Translation and images; within one group also permutation."""
        return super().invariances - {"rotation"}

    def of_particles(self, x: Float[Array, "k 3"], cell: Cell, lists: Sequence[NeighborList]) -> Float[Array, " n"]:
        """The order of each particle."""

        def term(d: Any, own: Any, other: Any) -> Any:
            u, _, counts = direction(d, self.switch)
            return counts * self.along(*u), counts

        total, count = self.pairs(x, cell, lists).sums(term, parity=(self.parity, 1))
        return divide(total, count)


class SimpleCubicOrder(_AbstractCubicOrder):
    r"""How much the neighbours of particles lie along the axes, as in a simple cubic crystal.

    $$f = x^4 + y^4 + z^4$$

    is 1 along an axis, 1/2 along the diagonal of a face, 1/3 along that of the cube, and 3/5 on average over all directions.

    Args:
        atoms: the particles, indices or Groups.
        neighbors: those among which neighbours are sought; None for the same.
        switch: switching function of the distance.
        above: a switching function of the particles' values, to count the fraction of those above instead of taking the
            mean.

    Raises:
        InvalidInputError: unless there are two particles and a switching function.

    Example:
        >>> import jax.numpy as jnp
        >>> from pysamp import Cell
        >>> from pysamp.colvars import CubicSwitch, SimpleCubicOrder
        >>> order = SimpleCubicOrder(range(27), switch=CubicSwitch(0.1, d0=1.1))
        >>> cube = jnp.stack(jnp.meshgrid(*[jnp.arange(3.0)] * 3), axis=-1).reshape(-1, 3)
        >>> print(f"{order(cube, Cell.of(3 * jnp.eye(3))):.3f}")
        1.000

    References:
        Tribello, Bonomi, Branduardi, Camilloni & Bussi, Comput. Phys. Commun. 185, 604 (2014),
        doi 10.1016/j.cpc.2013.09.018 (PLUMED, where it is ``SIMPLECUBIC``).
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

    def along(self, x: Any, y: Any, z: Any) -> Any:
        """F."""
        a, b, c = x * x, y * y, z * z
        return a * a + b * b + c * c


class FCCOrder(_AbstractCubicOrder):
    r"""How much the neighbours of particles lie along the diagonals of the faces, as in a face-centred cubic crystal.

    $$f = a\, [x^4 y^4 + y^4 z^4 + z^4 x^4 - \alpha\, x^4 y^4 z^4] + b$$

    with $a = 80080 / (2717 + 16 \alpha)$ and $b = 16\, (\alpha - 143) / (2717 + 16 \alpha)$, so that f is 1 along the diagonals
    of the faces and 0 on average over all directions: 1 in the crystal, near 0 in its melt. Choose it to freeze a melt onto a
    crystal of known orientation.

    Args:
        atoms: the particles, indices or Groups.
        neighbors: those among which neighbours are sought; None for the same.
        switch: switching function of the distance.
        alpha: how much neighbours along the diagonals of the cube count against it.
        above: a switching function of the particles' values, to count the fraction of those above instead of taking the
            mean; negative values count as zero there.

    Raises:
        InvalidInputError: unless there are two particles, a switching function, and a finite ``alpha`` above -169.8.

    Example:
        >>> import jax.numpy as jnp
        >>> from pysamp import Cell
        >>> from pysamp.colvars import CubicSwitch, FCCOrder
        >>> order = FCCOrder([0], range(1, 4), switch=CubicSwitch(0.5, d0=1.5))
        >>> x = jnp.array([[0.0, 0.0, 0.0], [1.0, 1.0, 0.0], [0.0, 1.0, -1.0], [-1.0, 0.0, 1.0]])
        >>> print(f"{order(x, Cell()):.3f}")
        1.000

    References:
        Angioletti-Uberti, Ceriotti, Lee & Finnis, Phys. Rev. B 81, 125416 (2010), doi 10.1103/PhysRevB.81.125416.
    """

    atoms: type_of_points = eqx.field(static=True)
    centers: type_of_range = eqx.field(static=True)
    neighbors: type_of_range = eqx.field(static=True)
    switch: AbstractSwitch = eqx.field(static=True)
    alpha: float = eqx.field(static=True)
    above: AbstractSwitch | None = eqx.field(static=True)

    def __init__(self, atoms: Any, neighbors: Any = None, *, switch: Any, alpha: Any = 3.0, above: Any = None):
        self.atoms, self.centers, self.neighbors = arranged(atoms, neighbors)
        self.switch, self.alpha = as_switch(switch, "switch"), float(as_float(alpha))
        self.above = None if above is None else as_switch(above, "above")
        if not -2717 / 16 < self.alpha < math.inf:
            raise InvalidInputError(f"FCCOrder needs a finite alpha above -169.8, such as 3 or 27; got {self.alpha}.")

    def along(self, x: Any, y: Any, z: Any) -> Any:
        """F."""
        norm = 2717 + 16 * self.alpha
        a, b = 80080 / norm, 16 * (self.alpha - 143) / norm
        x, y, z = (v * v * v * v for v in (x, y, z))
        return a * (x * y + y * z + z * x - self.alpha * (x * y * z)) + b


class TetrahedralOrder(_AbstractCubicOrder):
    r"""How much the neighbours of particles lie along every other diagonal of the cube, as in diamond and zinc blende.

    $$f = \frac{\sqrt{3}}{8} \left[(x+y+z)^3 + (x-y-z)^3 + (-x+y-z)^3 + (-x-y+z)^3\right] = 3 \sqrt{3}\, x y z$$

    is 1 along (1, 1, 1), (1, -1, -1), (-1, 1, -1) and (-1, -1, 1), -1 along their opposites, and 0 on average over all
    directions. In diamond half of the particles have the value 1 and half -1: take one of the two lattices as ``atoms`` and the
    other one as ``neighbors``. Whatever the orientation, and for both at once, there is
    :class:`~pysamp.colvars.Tetrahedrality`.

    Args:
        atoms: the particles, indices or Groups.
        neighbors: those among which neighbours are sought; None for the same.
        switch: switching function of the distance.
        normalized: False leaves out the factor $\sqrt{3}/8$, as PLUMED does.
        above: a switching function of the particles' values, to count the fraction of those above instead of taking the
            mean; negative values count as zero there.

    Raises:
        InvalidInputError: unless there are two particles and a switching function.

    Example:
        >>> import jax.numpy as jnp
        >>> from pysamp import Cell
        >>> from pysamp.colvars import CubicSwitch, TetrahedralOrder
        >>> order = TetrahedralOrder([0], range(1, 5), switch=CubicSwitch(0.5, d0=2.0))
        >>> corners = [[0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [1.0, -1.0, -1.0], [-1.0, 1.0, -1.0], [-1.0, -1.0, 1.0]]
        >>> print(f"{order(jnp.array(corners), Cell()):.3f}")
        1.000

    References:
        Tribello, Bonomi, Branduardi, Camilloni & Bussi, Comput. Phys. Commun. 185, 604 (2014),
        doi 10.1016/j.cpc.2013.09.018 (PLUMED, where it is ``TETRAHEDRAL``).
    """

    parity: ClassVar[int] = -1

    atoms: type_of_points = eqx.field(static=True)
    centers: type_of_range = eqx.field(static=True)
    neighbors: type_of_range = eqx.field(static=True)
    switch: AbstractSwitch = eqx.field(static=True)
    normalized: bool = eqx.field(static=True)
    above: AbstractSwitch | None = eqx.field(static=True)

    def __init__(self, atoms: Any, neighbors: Any = None, *, switch: Any, normalized: bool = True, above: Any = None):
        self.atoms, self.centers, self.neighbors = arranged(atoms, neighbors)
        self.switch, self.normalized = as_switch(switch, "switch"), bool(normalized)
        self.above = None if above is None else as_switch(above, "above")

    def along(self, x: Any, y: Any, z: Any) -> Any:
        """F."""
        return (3.0 * math.sqrt(3.0) if self.normalized else 24.0) * x * y * z
