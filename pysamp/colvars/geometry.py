r"""Distances, displacements, angles and torsions between particles or groups.

Notation: $r_0, r_1, \dots$ are the points in the order of ``atoms``, and $r_{ij}$ is the vector from $r_i$ to the
nearest image of $r_j$.
"""

import math
from typing import ClassVar

import equinox as eqx
from jaxtyping import Array, Float

from ..errors import InvalidInputError
from ..snapshot import Cell
from ._vectors import arctan2, cross, dot, norm, torsion
from .base import AbstractCV, as_points, check_number_of_points, type_of_points

__all__ = ["Angle", "Component", "DihedralAngle", "Displacement", "Distance"]


class Distance(AbstractCV):
    r"""Distance between two points [length].

    $$d = |r_{01}|$$

    Where the points coincide the derivative does not exist, and the force is taken as zero.

    Args:
        atoms: the two ends, indices or Groups.

    Raises:
        InvalidInputError: unless there are two different points.

    Example:
        >>> import jax.numpy as jnp
        >>> from pysamp import Cell
        >>> from pysamp.colvars import Distance
        >>> distance = Distance([0, 5])
        >>> print(distance(jnp.array([[0.0, 0.0, 0.0], [3.0, 4.0, 0.0]]), Cell()))
        5.0
    """

    atoms: type_of_points = eqx.field(converter=as_points, static=True)
    unit: ClassVar[str] = "length"
    invariances: ClassVar[frozenset[str]] = frozenset({"translation", "rotation", "image"})

    def __check_init__(self):
        check_number_of_points(self, 2, "the two ends")

    def __call__(self, x: Float[Array, "2 3"], cell: Cell) -> Float[Array, ""]:
        """Length of the vector between the nearest images."""
        return norm(cell.displacement(x[0], x[1]))


class Displacement(AbstractCV):
    r"""Vector from the first point to the nearest image of the second [length], a CV with three components.

    $$\Delta = r_{01}$$

    Use it where the direction matters as well: an ion and a channel, two sheets that slide. For one of its components
    take :class:`~pysamp.colvars.Component`. It jumps where the nearest image changes, so keep it away from half
    the box.

    Args:
        atoms: from, to; indices or Groups.

    Raises:
        InvalidInputError: unless there are two different points.

    Example:
        >>> import jax.numpy as jnp
        >>> from pysamp import Cell
        >>> from pysamp.colvars import Displacement
        >>> print(Displacement([0, 5])(jnp.array([[0.5, 0.0, 0.0], [3.0, 4.0, 0.0]]), Cell()))
        [2.5 4.  0. ]
        >>> Displacement([0, 5]).labels
        ('Displacement(0, 5).x', 'Displacement(0, 5).y', 'Displacement(0, 5).z')
    """

    atoms: type_of_points = eqx.field(converter=as_points, static=True)
    unit: ClassVar[str] = "length"
    invariances: ClassVar[frozenset[str]] = frozenset({"translation", "image"})
    component_names: ClassVar[tuple[str, ...]] = ("x", "y", "z")

    def __check_init__(self):
        check_number_of_points(self, 2, "from, to")

    def __call__(self, x: Float[Array, "2 3"], cell: Cell) -> Float[Array, "3"]:
        """Vector between the nearest images."""
        return cell.displacement(x[0], x[1])


class Component(AbstractCV):
    r"""One Cartesian component of a point's position, or of the vector between two points [length].

    $$c = r_0 \cdot e \quad\text{or}\quad c = r_{01} \cdot e$$

    with $e$ the unit vector of x, y or z. Of one point it is the coordinate as the engine counts it: without a step
    where the point leaves the box, if the engine lets it leave, and not to be used with a barostat that scales
    positions. With a second point as the origin both are right.

    Args:
        atoms: the point, or from and to; indices or Groups.
        axis: 0, 1 or 2 for x, y or z.

    Raises:
        InvalidInputError: unless there are one or two points and the axis exists.

    Example:
        >>> import jax.numpy as jnp
        >>> from pysamp import Cell
        >>> from pysamp.colvars import Component
        >>> height = Component([0, 5], axis=2)
        >>> print(height(jnp.array([[0.0, 0.0, 1.0], [3.0, 4.0, 0.5]]), Cell()))
        -0.5
    """

    atoms: type_of_points = eqx.field(converter=as_points, static=True)
    axis: int = eqx.field(static=True, kw_only=True)
    unit: ClassVar[str] = "length"

    def __check_init__(self):
        if len(self.atoms) not in (1, 2):
            raise InvalidInputError(
                f"Component needs one atom or group, or two for the vector between them, got {len(self.atoms)}: "
                f"{list(self.atoms)}."
            )
        if self.axis not in (0, 1, 2):
            raise InvalidInputError(f"Component needs axis=0, 1 or 2 for x, y or z; got {self.axis!r}.")

    def __call__(self, x: Float[Array, "k 3"], cell: Cell) -> Float[Array, ""]:
        """Coordinate of the point, or of the vector."""
        return x[0, self.axis] if len(self.atoms) == 1 else cell.displacement(x[0], x[1])[self.axis]

    @property
    def invariances(self) -> frozenset[str]:
        """None for a position; translation and images for a vector."""
        return frozenset() if len(self.atoms) == 1 else frozenset({"translation", "image"})

    @property
    def name(self) -> str:
        """Such as ``Component(0, 5).z``."""
        return f"{super().name}.{'xyz'[self.axis]}"


class Angle(AbstractCV):
    r"""Angle at the second of three points, in $[0, \pi]$ [rad].

    $$\theta = \operatorname{atan2}(|r_{10} \times r_{12}|,\ r_{10} \cdot r_{12})$$

    This form keeps its digits near 0 and $\pi$, where the arc cosine loses half of them. There the direction of the
    force does not exist and the force is taken as zero; where two of the points coincide the angle is not defined, and
    0 with a force of zero is returned.

    Args:
        atoms: end, vertex, end; indices or Groups.

    Raises:
        InvalidInputError: unless there are three different points.

    Example:
        >>> import jax.numpy as jnp
        >>> from pysamp import Cell
        >>> from pysamp.colvars import Angle
        >>> x = jnp.array([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 2.0, 0.0]])
        >>> print(f"{Angle([0, 1, 2])(x, Cell()):.4f}")
        1.5708
    """

    atoms: type_of_points = eqx.field(converter=as_points, static=True)
    unit: ClassVar[str] = "angle"
    invariances: ClassVar[frozenset[str]] = frozenset({"translation", "rotation", "image"})

    def __check_init__(self):
        check_number_of_points(self, 3, "end, vertex, end")

    def __call__(self, x: Float[Array, "3 3"], cell: Cell) -> Float[Array, ""]:
        """Angle between the two arms."""
        a, b = cell.displacement(x[1:2], x[::2])
        return arctan2(norm(cross(a, b)), dot(a, b))


class DihedralAngle(AbstractCV):
    r"""Torsion angle of four points, in $(-\pi, \pi]$ [rad], with the IUPAC sign.

    $$\phi = \operatorname{atan2}(|b_2|\, b_1 \cdot n_2,\ n_1 \cdot n_2), \qquad n_1 = b_1 \times b_2,\ n_2 = b_2
    \times b_3$$

    with the bonds $b_1 = r_{01}$, $b_2 = r_{12}$, $b_3 = r_{23}$: zero where the ends eclipse each other, positive
    where, looking along $b_2$, the far end is turned clockwise. Where three successive points lie on a line it is not
    defined: 0 with a force of zero is returned on the line itself, and the force grows without bound towards it.

    Args:
        atoms: four points in bond order; indices or Groups.

    Raises:
        InvalidInputError: unless there are four different points.

    Example:
        >>> import jax.numpy as jnp
        >>> from pysamp import Cell
        >>> from pysamp.colvars import DihedralAngle
        >>> x = jnp.array([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 1.0, 1.0]])
        >>> print(f"{DihedralAngle([4, 6, 8, 14])(x, Cell()):.4f}")
        1.5708

    References:
        IUPAC, Pure Appl. Chem. 68, 2193 (1996), doi 10.1351/pac199668122193 (torsion angle);
        Blondel & Karplus, J. Comput. Chem. 17, 1132 (1996),
        doi 10.1002/(SICI)1096-987X(19960715)17:9<1132::AID-JCC5>3.0.CO;2-T.
    """

    atoms: type_of_points = eqx.field(converter=as_points, static=True)
    period: ClassVar[float | None] = 2 * math.pi
    unit: ClassVar[str] = "angle"
    invariances: ClassVar[frozenset[str]] = frozenset({"translation", "rotation", "image"})

    def __check_init__(self):
        check_number_of_points(self, 4, "in bond order")

    def __call__(self, x: Float[Array, "4 3"], cell: Cell) -> Float[Array, ""]:
        """Torsion about the middle bond."""
        b1, b2, b3 = cell.displacement(x[:-1], x[1:])
        return arctan2(*torsion(b1, b2, b3))
