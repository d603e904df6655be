r"""Points against axes, lines and planes; directions.

Notation: $r_0, r_1, \dots$ are the points in the order of ``atoms``, and $r_{ij}$ is the vector from $r_i$ to the
nearest image of $r_j$.
"""

import math
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..errors import InvalidInputError
from ..snapshot import Cell
from ..units import as_array
from ._vectors import arctan2, cross, divide, dot, norm
from .base import AbstractCV, as_points, check_number_of_points, type_of_points

__all__ = [
    "AzimuthalAngle",
    "DistanceFromLine",
    "DistanceFromPlane",
    "PolarAngle",
    "PositionOnAxis",
    "ProjectedDistance",
    "VectorAngle",
]

type_of_direction = tuple[float, float, float]

_RIGID = frozenset({"translation", "rotation", "image"})
_SHIFTED = frozenset({"translation", "image"})


def _as_direction(value: Any) -> type_of_direction | None:
    if value is None:
        return None
    vector = as_array(value)
    if vector.shape != (3,) or not np.isfinite(vector).all() or not vector.any():
        raise InvalidInputError(
            f"A direction is three numbers that are not all zero, such as (0, 0, 1); got {value!r}."
        )
    x, y, z = (vector / np.linalg.norm(vector)).tolist()
    return x, y, z


def _check_axis(cv: AbstractCV, direction: type_of_direction | None) -> None:
    if direction is None:
        check_number_of_points(cv, 3, "start of the axis, end of the axis, point; or origin, point and direction=...")
    else:
        check_number_of_points(cv, 2, "a point on the axis, whose direction is given; point")


def _axis_and_arm(
    x: Float[Array, "k 3"], cell: Cell, direction: type_of_direction | None
) -> tuple[Float[Array, "3"], Float[Array, "3"]]:
    """Direction of the axis (of any length), and the vector from its first point to the last point."""
    axis = cell.displacement(x[0], x[1]) if direction is None else jnp.asarray(direction, dtype=x.dtype)
    return axis, cell.displacement(x[0], x[-1])


class PositionOnAxis(AbstractCV):
    r"""Position of a point along an axis through two other points, or of given direction [length].

    $$p = \frac{r_{01} \cdot r_{02}}{|r_{01}|} \quad\text{or}\quad p = e \cdot r_{01}$$

    Zero at the start of the axis, and positive towards its end. Use it for a ligand that leaves a pocket, or a molecule
    that passes a channel, together with a wall on :class:`~pysamp.colvars.DistanceFromLine`. With the normal of a plane
    as ``direction`` it is the signed distance from that plane. Where start and end coincide it is zero.

    Args:
        atoms: start and end of the axis, and the point; with ``direction`` only the origin and the point. Indices or
            Groups.
        direction: components of $e$, of any length; None for the axis through the first two points.

    Raises:
        InvalidInputError: unless there are three different points, or two and a direction that is not zero.

    Example:
        >>> import jax.numpy as jnp
        >>> from pysamp import Cell
        >>> from pysamp.colvars import PositionOnAxis
        >>> x = jnp.array([[0.0, 0.0, 0.0], [0.0, 0.0, 2.0], [3.0, 0.0, 5.0]])
        >>> print(PositionOnAxis([0, 1, 2])(x, Cell()))
        5.0
        >>> print(PositionOnAxis([0, 2], direction=(1, 0, 0))(x[::2], Cell()))
        3.0
    """

    atoms: type_of_points = eqx.field(converter=as_points, static=True)
    direction: type_of_direction | None = eqx.field(converter=_as_direction, static=True, default=None, kw_only=True)
    unit: ClassVar[str] = "length"

    def __check_init__(self):
        _check_axis(self, self.direction)

    def __call__(self, x: Float[Array, "k 3"], cell: Cell) -> Float[Array, ""]:
        """Projection of the point on the axis."""
        axis, arm = _axis_and_arm(x, cell, self.direction)
        return divide(dot(axis, arm), norm(axis))

    @property
    def invariances(self) -> frozenset[str]:
        """A given direction does not turn with the points."""
        return _RIGID if self.direction is None else _SHIFTED


class DistanceFromLine(AbstractCV):
    r"""Distance of a point from the line through two other points, or of given direction [length].

    $$d = \frac{|r_{01} \times r_{02}|}{|r_{01}|} \quad\text{or}\quad d = |e \times r_{01}|$$

    On the line itself the derivative does not exist, and the force is taken as zero. Use it to keep a point near the
    axis of :class:`~pysamp.colvars.PositionOnAxis`: the same points name the same axis.

    Args:
        atoms: two points of the line, and the point; with ``direction`` only one of the line. Indices or Groups.
        direction: components of $e$, of any length; None for the line through the first two points.

    Raises:
        InvalidInputError: unless there are three different points, or two and a direction that is not zero.

    Example:
        >>> import jax.numpy as jnp
        >>> from pysamp import Cell
        >>> from pysamp.colvars import DistanceFromLine
        >>> x = jnp.array([[0.0, 0.0, 0.0], [0.0, 0.0, 2.0], [3.0, 4.0, 5.0]])
        >>> print(DistanceFromLine([0, 1, 2])(x, Cell()))
        5.0
    """

    atoms: type_of_points = eqx.field(converter=as_points, static=True)
    direction: type_of_direction | None = eqx.field(converter=_as_direction, static=True, default=None, kw_only=True)
    unit: ClassVar[str] = "length"

    def __check_init__(self):
        _check_axis(self, self.direction)

    def __call__(self, x: Float[Array, "k 3"], cell: Cell) -> Float[Array, ""]:
        """Length of the part of the arm that is normal to the line."""
        axis, arm = _axis_and_arm(x, cell, self.direction)
        return divide(norm(cross(axis, arm)), norm(axis))

    @property
    def invariances(self) -> frozenset[str]:
        """A given direction does not turn with the points."""
        return _RIGID if self.direction is None else _SHIFTED


class DistanceFromPlane(AbstractCV):
    r"""Signed distance of a point from the plane through three others [length].

    $$d = \frac{n \cdot r_{13}}{|n|}, \qquad n = r_{10} \times r_{12}$$

    Positive on the side from which the three points are seen to turn clockwise. Where they lie on a line there is no
    plane: zero with a force of zero is returned on the line itself, and the force grows without bound towards it. For a
    plane of given normal take :class:`~pysamp.colvars.PositionOnAxis` with that ``direction``.

    Args:
        atoms: three points of the plane, and the point; indices or Groups.

    Raises:
        InvalidInputError: unless there are four different points.

    Example:
        >>> import jax.numpy as jnp
        >>> from pysamp import Cell
        >>> from pysamp.colvars import DistanceFromPlane
        >>> x = jnp.array([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 1.0, 0.0], [4.0, 5.0, 2.0]])
        >>> print(DistanceFromPlane([0, 1, 2, 3])(x, Cell()))
        2.0
    """

    atoms: type_of_points = eqx.field(converter=as_points, static=True)
    unit: ClassVar[str] = "length"
    invariances: ClassVar[frozenset[str]] = _RIGID

    def __check_init__(self):
        check_number_of_points(self, 4, "three points of the plane, point")

    def __call__(self, x: Float[Array, "4 3"], cell: Cell) -> Float[Array, ""]:
        """Projection of the arm on the normal."""
        a, b, arm = cell.displacement(x[1:2], jnp.stack([x[0], x[2], x[3]]))
        normal = cross(a, b)
        return divide(dot(normal, arm), norm(normal))


class ProjectedDistance(AbstractCV):
    r"""Distance of two points within a coordinate plane, or along one axis without its sign [length].

    $$d = \sqrt{\sum_{k \in \text{axes}} (r_{01} \cdot e_k)^2}$$

    Use it for a lateral distance in a membrane or on a surface. Where the projections coincide the derivative does not
    exist, and the force is taken as zero.

    Args:
        atoms: the two ends, indices or Groups.
        axes: which of 0, 1, 2 (x, y, z) count: ``(0, 1)`` for the xy plane.

    Raises:
        InvalidInputError: unless there are two different points, and one or two different axes.

    Example:
        >>> import jax.numpy as jnp
        >>> from pysamp import Cell
        >>> from pysamp.colvars import ProjectedDistance
        >>> lateral = ProjectedDistance([0, 5], axes=(0, 1))
        >>> print(lateral(jnp.array([[0.0, 0.0, 0.0], [3.0, 4.0, 9.0]]), Cell()))
        5.0
    """

    atoms: type_of_points = eqx.field(converter=as_points, static=True)
    axes: tuple[int, ...] = eqx.field(converter=tuple, static=True, kw_only=True)
    unit: ClassVar[str] = "length"
    invariances: ClassVar[frozenset[str]] = _SHIFTED

    def __check_init__(self):
        check_number_of_points(self, 2, "the two ends")
        if len(self.axes) not in (1, 2) or len(set(self.axes)) != len(self.axes) or not set(self.axes) <= {0, 1, 2}:
            raise InvalidInputError(
                f"ProjectedDistance needs one or two different axes of 0, 1, 2 for x, y, z; got {self.axes}. For all three "
                "take Distance."
            )

    def __call__(self, x: Float[Array, "2 3"], cell: Cell) -> Float[Array, ""]:
        """Length of the projected vector."""
        vector = cell.displacement(x[0], x[1])
        return norm(jnp.stack([vector[axis] for axis in self.axes]))

    @property
    def name(self) -> str:
        """Such as ``ProjectedDistance(0, 5).xy``."""
        return f"{super().name}.{''.join('xyz'[axis] for axis in self.axes)}"


class VectorAngle(AbstractCV):
    r"""Angle between two vectors, each from one point to another, in $[0, \pi]$ [rad].

    $$\theta = \operatorname{atan2}(|r_{01} \times r_{23}|,\ r_{01} \cdot r_{23})$$

    Use it for the mutual orientation of two helices, bonds or dipoles; where both start at one point
    :class:`~pysamp.colvars.Angle` says the same. At 0 and $\pi$ the direction of the force does not exist and the force is
    taken as zero.

    Args:
        atoms: from and to of the first vector, from and to of the second; indices or Groups.

    Raises:
        InvalidInputError: unless there are two vectors, each between two different points.

    Example:
        >>> import jax.numpy as jnp
        >>> from pysamp import Cell
        >>> from pysamp.colvars import VectorAngle
        >>> x = jnp.array([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [5.0, 5.0, 0.0], [5.0, 7.0, 0.0]])
        >>> print(f"{VectorAngle([0, 1, 2, 3])(x, Cell()):.4f}")
        1.5708
    """

    atoms: type_of_points = eqx.field(converter=as_points, static=True)
    unit: ClassVar[str] = "angle"
    invariances: ClassVar[frozenset[str]] = _RIGID

    def __check_init__(self):
        check_number_of_points(self, 4, "from and to of one vector, from and to of the other")

    def __call__(self, x: Float[Array, "4 3"], cell: Cell) -> Float[Array, ""]:
        """Angle between the two vectors."""
        a, b = cell.displacement(x[::2], x[1::2])
        return arctan2(norm(cross(a, b)), dot(a, b))


def _check_polar(cv: AbstractCV, axis: int) -> None:
    check_number_of_points(cv, 2, "origin, point")
    if axis not in (0, 1, 2):
        raise InvalidInputError(
            f"{type(cv).__name__} needs axis=0, 1 or 2 for a polar axis along x, y or z; got {axis!r}."
        )


class PolarAngle(AbstractCV):
    r"""Angle of the vector between two points with a coordinate axis, in $[0, \pi]$ [rad].

    $$\theta = \operatorname{atan2}\left(\sqrt{r_x^2 + r_y^2},\ r_z\right), \qquad r = r_{01}$$

    for the z axis: the first of the two angles of spherical coordinates, the tilt of a molecule against the normal of a
    membrane or a field. At 0 and $\pi$ the direction of the force does not exist and the force is taken as zero.

    Args:
        atoms: origin, point; indices or Groups.
        axis: 0, 1 or 2 for a polar axis along x, y or z.

    Raises:
        InvalidInputError: unless there are two different points and the axis exists.

    Example:
        >>> import jax.numpy as jnp
        >>> from pysamp import Cell
        >>> from pysamp.colvars import PolarAngle
        >>> print(f"{PolarAngle([0, 5])(jnp.array([[0.0, 0.0, 0.0], [0.0, 3.0, 3.0]]), Cell()):.4f}")
        0.7854
    """

    atoms: type_of_points = eqx.field(converter=as_points, static=True)
    axis: int = eqx.field(static=True, default=2, kw_only=True)
    unit: ClassVar[str] = "angle"
    invariances: ClassVar[frozenset[str]] = _SHIFTED

    def __check_init__(self):
        _check_polar(self, self.axis)

    def __call__(self, x: Float[Array, "2 3"], cell: Cell) -> Float[Array, ""]:
        """Angle with the polar axis."""
        r = cell.displacement(x[0], x[1])
        return arctan2(norm(jnp.stack([r[self.axis - 2], r[self.axis - 1]])), r[self.axis])


class AzimuthalAngle(AbstractCV):
    r"""Angle of the vector between two points about a coordinate axis, in $(-\pi, \pi]$ [rad].

    $$\varphi = \operatorname{atan2}(r_y, r_x), \qquad r = r_{01}$$

    for the z axis: the second angle of spherical coordinates, counted from x towards y; about x from y towards z, about y
    from z towards x. On the polar axis it is not defined: 0 with a force of zero is returned on the axis itself, and the
    force grows without bound towards it.

    Args:
        atoms: origin, point; indices or Groups.
        axis: 0, 1 or 2 for a polar axis along x, y or z.

    Raises:
        InvalidInputError: unless there are two different points and the axis exists.

    Example:
        >>> import jax.numpy as jnp
        >>> from pysamp import Cell
        >>> from pysamp.colvars import AzimuthalAngle
        >>> print(f"{AzimuthalAngle([0, 5])(jnp.array([[0.0, 0.0, 0.0], [0.0, 3.0, 3.0]]), Cell()):.4f}")
        1.5708
    """

    atoms: type_of_points = eqx.field(converter=as_points, static=True)
    axis: int = eqx.field(static=True, default=2, kw_only=True)
    period: ClassVar[float | None] = 2 * math.pi
    unit: ClassVar[str] = "angle"
    invariances: ClassVar[frozenset[str]] = _SHIFTED

    def __check_init__(self):
        _check_polar(self, self.axis)

    def __call__(self, x: Float[Array, "2 3"], cell: Cell) -> Float[Array, ""]:
        """Angle about the polar axis."""
        r = cell.displacement(x[0], x[1])
        return arctan2(r[self.axis - 1], r[self.axis - 2])
