r"""Size and shape of a group of points: the gyration tensor and the tensor of inertia.

Notation: the points, made whole across periodic boundaries in the order of the list, are $r_i$ with weights $w_i$ and the
weighted centre $r_c$. The gyration tensor

$$S = \frac{\sum_i w_i (r_i - r_c)(r_i - r_c)^T}{\sum_i w_i}$$

has the eigenvalues (principal moments) $\lambda_1 \ge \lambda_2 \ge \lambda_3 \ge 0$.
"""

from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..errors import InvalidInputError
from ..snapshot import Cell
from ..system import System
from ._eigen import eigh
from ._vectors import divide, made_whole, sqrt, sum_of
from ._weights import as_weights, known, with_masses
from .base import AbstractCV, as_points, type_of_points

__all__ = [
    "Acylindricity",
    "Asphericity",
    "PrincipalMoments",
    "PrincipalMomentsOfInertia",
    "RadiusOfGyration",
    "RelativeShapeAnisotropy",
]


class AbstractShape(AbstractCV):
    """Base class of CVs that depend on the tensor of second moments of weighted points."""

    atoms: eqx.AbstractVar[type_of_points]
    weights: eqx.AbstractVar[Float[np.ndarray, " k"] | None]
    invariances: ClassVar[frozenset[str]] = frozenset({"translation", "rotation", "image"})

    def __check_init__(self):
        if len(self.atoms) < 2:
            raise InvalidInputError(f"{type(self).__name__} needs at least two points, got {list(self.atoms)}.")

    def resolved(self, system: System) -> "AbstractShape":
        """With the masses of the points, unless weights were given."""
        return with_masses(self, system, lambda cv: cv.weights)

    def centred(self, x: Float[Array, "k 3"], cell: Cell) -> tuple[Float[Array, "k 3"], Float[Array, " k"]]:
        """Points relative to their centre, and weights that sum to one."""
        weights = known(self.weights, self, x)
        weights = weights / jnp.sum(weights)
        whole = made_whole(x, cell)
        return whole - jnp.sum(weights[:, None] * whole, axis=0, keepdims=True), weights

    def moments(self, x: Float[Array, "k 3"], cell: Cell) -> Float[Array, "3"]:
        """Principal moments of the gyration tensor, the largest first."""
        return eigh(_second_moments(*self.centred(x, cell)))[0]


def _second_moments(x: Float[Array, "k 3"], weights: Float[Array, " k"]) -> Float[Array, "3 3"]:
    """Sum of weights times x x^T, each of the six different elements once."""
    columns = [x[:, i] for i in range(3)]
    weighted = [weights * column for column in columns]
    element = {(i, j): jnp.sum(weighted[i] * columns[j]) for i in range(3) for j in range(i, 3)}
    return jnp.stack([jnp.stack([element[min(i, j), max(i, j)] for j in range(3)]) for i in range(3)])


def _points_and_weights(atoms: Any, weights: Any) -> tuple[type_of_points, Float[np.ndarray, " k"] | None]:
    points = as_points(atoms)
    return points, as_weights(weights, len(points))


class RadiusOfGyration(AbstractShape):
    r"""Radius of gyration of a group of points [length].

    $$R_g = \sqrt{\frac{\sum_i w_i |r_i - r_c|^2}{\sum_i w_i}} = \sqrt{\lambda_1 + \lambda_2 + \lambda_3}$$

    Mass-weighted unless weights are given. The standard measure of how compact a chain is; it does not tell a rod from a
    disk, for which there are the other CVs of this family. The points must follow one another along the molecule: each
    goes to the image nearest to the one before.

    Args:
        atoms: the points in the order of their bonds; indices or Groups.
        weights: None for the masses (from the engine), 1 for equal weights, or one number for each point.

    Raises:
        InvalidInputError: unless there are at least two different points and as many weights.

    Example:
        >>> import jax.numpy as jnp
        >>> from pysamp import Cell
        >>> from pysamp.colvars import RadiusOfGyration
        >>> print(RadiusOfGyration([0, 1], weights=1)(jnp.array([[0.0, 0.0, 0.0], [0.0, 0.0, 2.0]]), Cell()))
        1.0
    """

    atoms: type_of_points = eqx.field(static=True)
    weights: Float[np.ndarray, " k"] | None
    unit: ClassVar[str] = "length"

    def __init__(self, atoms: Any, weights: Any = None):
        self.atoms, self.weights = _points_and_weights(atoms, weights)

    def __call__(self, x: Float[Array, "k 3"], cell: Cell) -> Float[Array, ""]:
        """Root of the trace of the gyration tensor."""
        x, weights = self.centred(x, cell)
        return sqrt(jnp.sum(weights[:, None] * x * x))


class PrincipalMoments(AbstractShape):
    r"""Principal moments $\lambda_1 \ge \lambda_2 \ge \lambda_3$ of the gyration tensor [length^2], three components.

    They are the mean square extensions along the principal axes: their roots are the half axes of the ellipsoid that the
    points fill, and $\lambda_i + \lambda_j$ is the square of the radius of gyration about the third axis. Where two of
    them coincide their derivatives jump; they stay finite.

    Args:
        atoms: the points in the order of their bonds; indices or Groups.
        weights: None for the masses (from the engine), 1 for equal weights, or one number for each point.

    Raises:
        InvalidInputError: unless there are at least two different points and as many weights.

    Example:
        >>> import jax.numpy as jnp
        >>> from pysamp import Cell
        >>> from pysamp.colvars import PrincipalMoments
        >>> moments = PrincipalMoments([0, 1], weights=1)
        >>> print(moments(jnp.array([[0.0, 0.0, 0.0], [0.0, 0.0, 2.0]]), Cell()))
        [1. 0. 0.]
        >>> moments["1"].name
        'PrincipalMoments(0, 1).1'
    """

    atoms: type_of_points = eqx.field(static=True)
    weights: Float[np.ndarray, " k"] | None
    unit: ClassVar[str] = "length^2"
    component_names: ClassVar[tuple[str, ...]] = ("1", "2", "3")

    def __init__(self, atoms: Any, weights: Any = None):
        self.atoms, self.weights = _points_and_weights(atoms, weights)

    def __call__(self, x: Float[Array, "k 3"], cell: Cell) -> Float[Array, "3"]:
        """Eigenvalues of the gyration tensor."""
        return self.moments(x, cell)


class Asphericity(AbstractShape):
    r"""Asphericity of a group of points [length^2].

    $$b = \lambda_1 - \tfrac{1}{2} (\lambda_2 + \lambda_3)$$

    Zero where the three principal moments agree, as for a sphere or a cube. PLUMED's ``ASPHERICITY`` is the square root
    of this.

    Args:
        atoms: the points in the order of their bonds; indices or Groups.
        weights: None for the masses (from the engine), 1 for equal weights, or one number for each point.

    Raises:
        InvalidInputError: unless there are at least two different points and as many weights.

    Example:
        >>> import jax.numpy as jnp
        >>> from pysamp import Cell
        >>> from pysamp.colvars import Asphericity
        >>> print(Asphericity([0, 1], weights=1)(jnp.array([[0.0, 0.0, 0.0], [0.0, 0.0, 2.0]]), Cell()))
        1.0

    References:
        Theodorou & Suter, Macromolecules 18, 1206 (1985), doi 10.1021/ma00148a028.
    """

    atoms: type_of_points = eqx.field(static=True)
    weights: Float[np.ndarray, " k"] | None
    unit: ClassVar[str] = "length^2"

    def __init__(self, atoms: Any, weights: Any = None):
        self.atoms, self.weights = _points_and_weights(atoms, weights)

    def __call__(self, x: Float[Array, "k 3"], cell: Cell) -> Float[Array, ""]:
        """The largest moment less the mean of the others."""
        first, second, third = self.moments(x, cell)
        return first - 0.5 * (second + third)


class Acylindricity(AbstractShape):
    r"""Acylindricity of a group of points [length^2].

    $$c = \lambda_2 - \lambda_3$$

    Zero where the two smaller principal moments agree, as for a rod of any regular cross-section; there the derivative
    jumps. PLUMED's ``ACYLINDRICITY`` is the square root of this.

    Args:
        atoms: the points in the order of their bonds; indices or Groups.
        weights: None for the masses (from the engine), 1 for equal weights, or one number for each point.

    Raises:
        InvalidInputError: unless there are at least two different points and as many weights.

    Example:
        >>> import jax.numpy as jnp
        >>> from pysamp import Cell
        >>> from pysamp.colvars import Acylindricity
        >>> x = jnp.array([[0.0, 0.0, 3.0], [0.0, 0.0, -3.0], [0.0, 2.0, 0.0], [0.0, -2.0, 0.0]])
        >>> print(Acylindricity([0, 1, 2, 3], weights=1)(x, Cell()))
        2.0

    References:
        Theodorou & Suter, Macromolecules 18, 1206 (1985), doi 10.1021/ma00148a028.
    """

    atoms: type_of_points = eqx.field(static=True)
    weights: Float[np.ndarray, " k"] | None
    unit: ClassVar[str] = "length^2"

    def __init__(self, atoms: Any, weights: Any = None):
        self.atoms, self.weights = _points_and_weights(atoms, weights)

    def __call__(self, x: Float[Array, "k 3"], cell: Cell) -> Float[Array, ""]:
        """The difference of the two smaller moments."""
        _, second, third = self.moments(x, cell)
        return second - third


class RelativeShapeAnisotropy(AbstractShape):
    r"""Relative shape anisotropy of a group of points, in $[0, 1]$ [1].

    $$\kappa^2 = 1 - 3\, \frac{\lambda_1 \lambda_2 + \lambda_2 \lambda_3 + \lambda_3 \lambda_1}
    {(\lambda_1 + \lambda_2 + \lambda_3)^2}$$

    0 for points of high symmetry (tetrahedral or more), 1/4 for a regular planar arrangement, 1 for points on a line: a
    shape whatever the size. It needs no eigenvalues and is smooth everywhere except where all points coincide; there it
    is taken as 1.

    Args:
        atoms: the points in the order of their bonds; indices or Groups.
        weights: None for the masses (from the engine), 1 for equal weights, or one number for each point.

    Raises:
        InvalidInputError: unless there are at least two different points and as many weights.

    Example:
        >>> import jax.numpy as jnp
        >>> from pysamp import Cell
        >>> from pysamp.colvars import RelativeShapeAnisotropy
        >>> print(RelativeShapeAnisotropy([0, 1], weights=1)(jnp.array([[0.0, 0.0, 0.0], [0.0, 0.0, 2.0]]), Cell()))
        1.0

    References:
        Theodorou & Suter, Macromolecules 18, 1206 (1985), doi 10.1021/ma00148a028.
    """

    atoms: type_of_points = eqx.field(static=True)
    weights: Float[np.ndarray, " k"] | None

    def __init__(self, atoms: Any, weights: Any = None):
        self.atoms, self.weights = _points_and_weights(atoms, weights)

    def __call__(self, x: Float[Array, "k 3"], cell: Cell) -> Float[Array, ""]:
        """From two invariants of the gyration tensor: trace and sum of the principal minors."""
        s = _second_moments(*self.centred(x, cell))
        trace = s[0, 0] + s[1, 1] + s[2, 2]
        minors = sum_of(s[i, i] * s[j, j] - s[i, j] ** 2 for i, j in ((0, 1), (1, 2), (2, 0)))
        return 1 - 3 * divide(minors, trace * trace)


class PrincipalMomentsOfInertia(AbstractShape):
    r"""Principal moments of inertia $I_1 \ge I_2 \ge I_3$ [mass length^2], three components.

    Eigenvalues of

    $$I = \sum_i m_i \left(|r_i - r_c|^2 \mathbf{1} - (r_i - r_c)(r_i - r_c)^T\right)$$

    with $r_c$ the centre of mass. The last belongs to the longest axis of the molecule. Where two of them coincide their
    derivatives jump; they stay finite.

    Args:
        atoms: the points in the order of their bonds; indices or Groups.
        weights: None for the masses (from the engine), or one mass for each point.

    Raises:
        InvalidInputError: unless there are at least two different points and as many weights.

    Example:
        >>> import jax.numpy as jnp
        >>> from pysamp import Cell
        >>> from pysamp.colvars import PrincipalMomentsOfInertia
        >>> inertia = PrincipalMomentsOfInertia([0, 1], weights=[2.0, 2.0])
        >>> print(inertia(jnp.array([[0.0, 0.0, 0.0], [0.0, 0.0, 2.0]]), Cell()))
        [4. 4. 0.]
    """

    atoms: type_of_points = eqx.field(static=True)
    weights: Float[np.ndarray, " k"] | None
    unit: ClassVar[str] = "mass length^2"
    component_names: ClassVar[tuple[str, ...]] = ("1", "2", "3")

    def __init__(self, atoms: Any, weights: Any = None):
        self.atoms, self.weights = _points_and_weights(atoms, weights)

    def __call__(self, x: Float[Array, "k 3"], cell: Cell) -> Float[Array, "3"]:
        """Total mass times the sum of the other two moments of the gyration tensor."""
        first, second, third = self.moments(x, cell)
        return jnp.sum(known(self.weights, self, x)) * jnp.stack([first + second, first + third, second + third])
