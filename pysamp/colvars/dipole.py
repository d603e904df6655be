"""The electric dipole moment of a group of charges."""

from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..errors import InvalidInputError
from ..snapshot import Cell
from ..units import as_array
from ._vectors import made_whole, norm
from .base import AbstractCV, as_points, type_of_points

__all__ = ["Dipole", "DipoleMoment"]


class Dipole(AbstractCV):
    r"""Dipole vector of charged points [charge length].

    $$\mu = \sum_i \left(q_i - \frac{1}{n} \sum_j q_j\right) r_i,$$

    with the points made whole along their list. Of a neutral group it is the dipole moment itself; of a charged one, that with
    respect to the centre of geometry, which does not depend on where the group is. Its components are ``x``, ``y`` and ``z``;
    :class:`DipoleMoment` is its length.

    Args:
        atoms: the points in the order of their bonds; indices or Groups.
        charges: $q_i$ [charge], one for each point; for OpenMM those of its ``NonbondedForce``.

    Raises:
        InvalidInputError: unless there are at least two points and as many charges.

    Example:
        >>> import jax.numpy as jnp
        >>> from pysamp import Cell
        >>> from pysamp.colvars import Dipole
        >>> print(Dipole([0, 1], [-1.0, 1.0])(jnp.array([[0.0, 0.0, 0.0], [0.0, 0.0, 2.0]]), Cell()))
        [0. 0. 2.]
    """

    atoms: type_of_points = eqx.field(converter=as_points, static=True)
    charges: Float[np.ndarray, " k"] = eqx.field(converter=as_array)
    unit: ClassVar[str] = "charge length"
    component_names: ClassVar[tuple[str, ...]] = ("x", "y", "z")
    invariances: ClassVar[frozenset[str]] = frozenset({"translation", "image"})

    def __check_init__(self):
        _check(self, self.charges)

    def __call__(self, x: Float[Array, "k 3"], cell: Cell) -> Float[Array, "3"]:
        """Sum of charges times positions."""
        return _dipole(self.charges, x, cell)


class DipoleMoment(AbstractCV):
    r"""Magnitude of the dipole moment of charged points, $|\mu|$ [charge length]; see :class:`Dipole`.

    Args:
        atoms: the points in the order of their bonds; indices or Groups.
        charges: [charge], one for each point.

    Raises:
        InvalidInputError: unless there are at least two points and as many charges.

    Example:
        >>> import jax.numpy as jnp
        >>> from pysamp import Cell
        >>> from pysamp.colvars import DipoleMoment
        >>> print(DipoleMoment([0, 1], [-1.0, 1.0])(jnp.array([[0.0, 0.0, 0.0], [0.0, 3.0, 4.0]]), Cell()))
        5.0
    """

    atoms: type_of_points = eqx.field(converter=as_points, static=True)
    charges: Float[np.ndarray, " k"] = eqx.field(converter=as_array)
    unit: ClassVar[str] = "charge length"
    invariances: ClassVar[frozenset[str]] = frozenset({"translation", "rotation", "image"})

    def __check_init__(self):
        _check(self, self.charges)

    def __call__(self, x: Float[Array, "k 3"], cell: Cell) -> Float[Array, ""]:
        """Length of the sum of charges times positions; its derivative is zero where the dipole vanishes."""
        return norm(_dipole(self.charges, x, cell))


def _dipole(charges: Float[np.ndarray, " k"], x: Float[Array, "k 3"], cell: Cell) -> Float[Array, "3"]:
    q = jnp.asarray(charges - charges.mean(), dtype=x.dtype)
    return jnp.sum(q[:, None] * made_whole(x - x[:1], cell), axis=0)


def _check(cv: AbstractCV, charges: Any) -> None:
    n = len(cv.atoms)
    if n < 2 or charges.shape != (n,) or not np.isfinite(charges).all():
        raise InvalidInputError(
            f"{type(cv).__name__} needs two or more points and one finite charge for each; got {n} points and charges of the "
            f"shape {charges.shape}."
        )
