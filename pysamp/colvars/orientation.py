r"""Orientation of a group of points relative to a reference structure.

The rotation that lays the reference on the points as well as it can (as in :class:`~pysamp.colvars.RMSD`) is the unit
quaternion $q = (q_0, \mathbf{q})$ with $q_0 = \cos(\omega/2)$ and $\mathbf{q} = \sin(\omega/2)\, u$ for a rotation by the angle
$\omega$ about the axis $u$.
"""

import math
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..errors import InvalidInputError
from ..snapshot import Cell
from ..system import System
from ._alignment import centred, quaternion
from ._vectors import arctan2, dot, made_whole, norm, sqrt
from ._weights import as_weights, known, with_masses
from .base import AbstractCV, as_points, type_of_points
from .projections import as_direction, type_of_direction
from .rmsd import as_structures

__all__ = ["EulerAngle", "Orientation", "RotationAngle", "SpinAngle", "TiltAngle"]


class AbstractOrientation(AbstractCV):
    """Base class of CVs that depend on the rotation from a reference."""

    atoms: eqx.AbstractVar[type_of_points]
    reference: eqx.AbstractVar[Float[np.ndarray, "k 3"]]
    weights: eqx.AbstractVar[Float[np.ndarray, " k"] | None]
    invariances: ClassVar[frozenset[str]] = frozenset({"translation", "image"})

    def resolved(self, system: System) -> "AbstractOrientation":
        """With the masses of the points, where they are asked for."""
        return with_masses(self, system, lambda cv: cv.weights)

    def quaternion(self, x: Float[Array, "k 3"], cell: Cell) -> Float[Array, "4"]:
        """The rotation from the reference to the points."""
        weights = known(self.weights, self, x)
        weights = weights / jnp.sum(weights)
        reference = centred(jnp.asarray(self.reference, dtype=x.dtype), weights)
        return quaternion(centred(made_whole(x, cell), weights), reference, weights)


def _parts(atoms: Any, reference: Any, weights: Any) -> tuple[type_of_points, np.ndarray, np.ndarray | None]:
    points = as_points(atoms)
    if len(points) < 3:
        raise InvalidInputError(f"An orientation needs at least three points, got {list(points)}.")
    positions = as_structures(reference, len(points), "The reference")
    if positions.ndim != 2:
        raise InvalidInputError(f"An orientation needs one reference, got an array of shape {positions.shape}.")
    return points, positions, as_weights(weights, len(points))


class Orientation(AbstractOrientation):
    r"""Unit quaternion of the rotation from a reference structure [1], four components.

    Of the two quaternions of a rotation it is the one with $q_0 \ge 0$; at a rotation by $\pi$ it jumps from one to the other,
    so choose a reference from which the molecule does not turn that far. Use it to hold a molecule, a domain or a base in
    place with harmonic biases on $q_1, q_2, q_3$; for a single angle take one of the other CVs of this family. Points on a
    line have no orientation: the value is then one of many, with a finite force.

    Args:
        atoms: the points in the order of their bonds (each goes to the periodic image nearest to the one before).
        reference: their positions in the reference orientation [length], shape (k, 3).
        weights: of the superposition: 1 for equal weights, one number for each point, or None for the masses (from the
            engine).

    Raises:
        InvalidInputError: unless there are three points or more, and reference and weights fit.

    Example:
        >>> import jax.numpy as jnp
        >>> import numpy as np
        >>> from pysamp import Cell
        >>> from pysamp.colvars import Orientation
        >>> reference = np.array([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])
        >>> turned = jnp.asarray(reference @ np.array([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]))  # 90 deg about z
        >>> print(Orientation([4, 6, 8], reference)(turned, Cell()).round(4))
        [0.7071 0.     0.     0.7071]

    References:
        Horn, J. Opt. Soc. Am. A 4, 629 (1987), doi 10.1364/JOSAA.4.000629;
        Coutsias, Seok & Dill, J. Comput. Chem. 25, 1849 (2004), doi 10.1002/jcc.20110.
    """

    atoms: type_of_points = eqx.field(static=True)
    reference: Float[np.ndarray, "k 3"]
    weights: Float[np.ndarray, " k"] | None
    component_names: ClassVar[tuple[str, ...]] = ("q0", "q1", "q2", "q3")

    def __init__(self, atoms: Any, reference: Any, *, weights: Any = 1.0):
        self.atoms, self.reference, self.weights = _parts(atoms, reference, weights)

    def __call__(self, x: Float[Array, "k 3"], cell: Cell) -> Float[Array, "4"]:
        """The quaternion."""
        return self.quaternion(x, cell)


class RotationAngle(AbstractOrientation):
    r"""Angle of the rotation from a reference structure, whatever its axis, in $[0, \pi]$ [rad].

    $$\omega = 2 \operatorname{atan2}(|\mathbf{q}|,\ q_0)$$

    At 0, where the axis does not exist, the force is taken as zero.

    Args:
        atoms: the points in the order of their bonds (each goes to the periodic image nearest to the one before).
        reference: their positions in the reference orientation [length], shape (k, 3).
        weights: of the superposition: 1 for equal weights, one number for each point, or None for the masses (from the
            engine).

    Raises:
        InvalidInputError: unless there are three points or more, and reference and weights fit.

    Example:
        >>> import jax.numpy as jnp
        >>> import numpy as np
        >>> from pysamp import Cell
        >>> from pysamp.colvars import RotationAngle
        >>> reference = np.array([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])
        >>> turned = jnp.asarray(reference[:, [1, 2, 0]])  # 120 degrees about the diagonal of the cube
        >>> print(f"{RotationAngle([4, 6, 8], reference)(turned, Cell()):.4f}")
        2.0944
    """

    atoms: type_of_points = eqx.field(static=True)
    reference: Float[np.ndarray, "k 3"]
    weights: Float[np.ndarray, " k"] | None
    unit: ClassVar[str] = "angle"

    def __init__(self, atoms: Any, reference: Any, *, weights: Any = 1.0):
        self.atoms, self.reference, self.weights = _parts(atoms, reference, weights)

    def __call__(self, x: Float[Array, "k 3"], cell: Cell) -> Float[Array, ""]:
        """Twice the polar angle of the quaternion."""
        q = self.quaternion(x, cell)
        return 2 * arctan2(norm(q[1:]), q[0])


class TiltAngle(AbstractOrientation):
    r"""Angle by which the rotation from a reference structure tilts an axis, in $[0, \pi]$ [rad].

    $$t = 2 \operatorname{atan2}\left(|\mathbf{q} - e\,(e \cdot \mathbf{q})|,\ \sqrt{q_0^2 + (e \cdot \mathbf{q})^2}\right)$$

    It is the angle between the axis $e$, which is fixed in space, and where the rotation takes it. With the rotation about
    the axis, :class:`~pysamp.colvars.SpinAngle`, it makes up the whole rotation but for the direction of the tilt. Colvars'
    ``tilt`` is its cosine. At 0 and $\pi$ the direction of the force does not exist and the force is taken as zero.

    Args:
        atoms: the points in the order of their bonds (each goes to the periodic image nearest to the one before).
        reference: their positions in the reference orientation [length], shape (k, 3).
        axis: components of $e$, of any length.
        weights: of the superposition: 1 for equal weights, one number for each point, or None for the masses (from the
            engine).

    Raises:
        InvalidInputError: unless there are three points or more, and reference, axis and weights fit.

    Example:
        >>> import jax.numpy as jnp
        >>> import numpy as np
        >>> from pysamp import Cell
        >>> from pysamp.colvars import TiltAngle
        >>> reference = np.array([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])
        >>> turned = jnp.asarray(reference[:, [1, 2, 0]])  # takes z to y
        >>> print(f"{TiltAngle([4, 6, 8], reference, axis=(0, 0, 1))(turned, Cell()):.4f}")
        1.5708

    References:
        Fiorin, Klein & Henin, Mol. Phys. 111, 3345 (2013), doi 10.1080/00268976.2013.813594.
    """

    atoms: type_of_points = eqx.field(static=True)
    reference: Float[np.ndarray, "k 3"]
    weights: Float[np.ndarray, " k"] | None
    axis: type_of_direction = eqx.field(static=True)
    unit: ClassVar[str] = "angle"

    def __init__(self, atoms: Any, reference: Any, *, axis: Any = (0.0, 0.0, 1.0), weights: Any = 1.0):
        self.atoms, self.reference, self.weights = _parts(atoms, reference, weights)
        self.axis = as_direction(axis)

    def __call__(self, x: Float[Array, "k 3"], cell: Cell) -> Float[Array, ""]:
        """Twice the angle of the part of the rotation that is not about the axis."""
        q, axis = self.quaternion(x, cell), jnp.asarray(self.axis, dtype=x.dtype)
        along = dot(q[1:], axis)
        return 2 * arctan2(norm(q[1:] - along * axis), sqrt(q[0] * q[0] + along * along))


class SpinAngle(AbstractOrientation):
    r"""Angle of the rotation from a reference structure about an axis, in $(-\pi, \pi]$ [rad].

    $$s = 2 \operatorname{atan2}(e \cdot \mathbf{q},\ q_0)$$

    It is the rotation about $e$ that is left when the axis has been brought back the shortest way: the rotor of a motor, a
    helix that turns. Where :class:`~pysamp.colvars.TiltAngle` is $\pi$ it is not defined: 0 with a force of zero is returned.

    Args:
        atoms: the points in the order of their bonds (each goes to the periodic image nearest to the one before).
        reference: their positions in the reference orientation [length], shape (k, 3).
        axis: components of $e$, of any length; the sign is that of a right-handed screw.
        weights: of the superposition: 1 for equal weights, one number for each point, or None for the masses (from the
            engine).

    Raises:
        InvalidInputError: unless there are three points or more, and reference, axis and weights fit.

    Example:
        >>> import jax.numpy as jnp
        >>> import numpy as np
        >>> from pysamp import Cell
        >>> from pysamp.colvars import SpinAngle
        >>> reference = np.array([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])
        >>> turned = jnp.asarray(reference[:, [1, 2, 0]])  # 120 degrees about the diagonal of the cube, backwards
        >>> print(f"{SpinAngle([4, 6, 8], reference, axis=(1, 1, 1))(turned, Cell()):.4f}")
        -2.0944

    References:
        Fiorin, Klein & Henin, Mol. Phys. 111, 3345 (2013), doi 10.1080/00268976.2013.813594.
    """

    atoms: type_of_points = eqx.field(static=True)
    reference: Float[np.ndarray, "k 3"]
    weights: Float[np.ndarray, " k"] | None
    axis: type_of_direction = eqx.field(static=True)
    period: ClassVar[float | None] = 2 * math.pi
    unit: ClassVar[str] = "angle"

    def __init__(self, atoms: Any, reference: Any, *, axis: Any = (0.0, 0.0, 1.0), weights: Any = 1.0):
        self.atoms, self.reference, self.weights = _parts(atoms, reference, weights)
        self.axis = as_direction(axis)

    def __call__(self, x: Float[Array, "k 3"], cell: Cell) -> Float[Array, ""]:
        """Twice the angle of the quaternion's component along the axis; the first component is not negative."""
        q = self.quaternion(x, cell)
        return 2 * arctan2(dot(q[1:], jnp.asarray(self.axis, dtype=x.dtype)), q[0])


class EulerAngle(AbstractOrientation):
    r"""One of the Euler angles (roll, pitch, yaw) of the rotation from a reference structure [rad].

    The rotation is made of three about the axes of space: first by the roll $\varphi$ about x, then by the pitch $\theta$ about
    y, then by the yaw $\psi$ about z,

    $$\varphi = \operatorname{atan2}(2(q_0 q_1 + q_2 q_3),\ 1 - 2(q_1^2 + q_2^2)), \quad
    \theta = \arcsin(2(q_0 q_2 - q_3 q_1)), \quad
    \psi = \operatorname{atan2}(2(q_0 q_3 + q_1 q_2),\ 1 - 2(q_2^2 + q_3^2)).$$

    Roll and yaw have the period $2\pi$, the pitch is in $[-\pi/2, \pi/2]$. At a pitch of $\pm\pi/2$ roll and yaw are not
    defined (0 with a force of zero is returned) and the pitch has a kink: turn the reference so that the molecule stays away
    from there, or take :class:`~pysamp.colvars.TiltAngle` and :class:`~pysamp.colvars.SpinAngle`.

    Args:
        atoms: the points in the order of their bonds (each goes to the periodic image nearest to the one before).
        reference: their positions in the reference orientation [length], shape (k, 3).
        angle: ``"roll"``, ``"pitch"`` or ``"yaw"``.
        weights: of the superposition: 1 for equal weights, one number for each point, or None for the masses (from the
            engine).

    Raises:
        InvalidInputError: unless there are three points or more, reference and weights fit, and there is such an angle.

    Example:
        >>> import jax.numpy as jnp
        >>> import numpy as np
        >>> from pysamp import Cell
        >>> from pysamp.colvars import EulerAngle
        >>> reference = np.array([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])
        >>> turned = jnp.asarray(reference @ np.array([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]))  # 90 deg about z
        >>> print(f"{EulerAngle([4, 6, 8], reference, angle='yaw')(turned, Cell()):.4f}")
        1.5708
    """

    atoms: type_of_points = eqx.field(static=True)
    reference: Float[np.ndarray, "k 3"]
    weights: Float[np.ndarray, " k"] | None
    angle: str = eqx.field(static=True)
    unit: ClassVar[str] = "angle"

    def __init__(self, atoms: Any, reference: Any, *, angle: str, weights: Any = 1.0):
        self.atoms, self.reference, self.weights = _parts(atoms, reference, weights)
        if angle not in ("roll", "pitch", "yaw"):
            raise InvalidInputError(f'EulerAngle needs angle="roll", "pitch" or "yaw"; got {angle!r}.')
        self.angle = angle

    def __call__(self, x: Float[Array, "k 3"], cell: Cell) -> Float[Array, ""]:
        """From the quaternion."""
        a, b, c, d = self.quaternion(x, cell)
        roll = (2 * (a * b + c * d), a * a - b * b - c * c + d * d)
        yaw = (2 * (a * d + b * c), a * a + b * b - c * c - d * d)
        if self.angle == "pitch":
            return arctan2(2 * (a * c - d * b), norm(jnp.stack(yaw)))
        return arctan2(*(roll if self.angle == "roll" else yaw))

    @property
    def period(self) -> float | None:
        """The pitch has none."""
        return None if self.angle == "pitch" else 2 * math.pi

    @property
    def name(self) -> str:
        """Such as ``EulerAngle(4, 6, 8).yaw``."""
        return f"{super().name}.{self.angle}"
