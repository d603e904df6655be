"""The box as a collective variable: volume, lengths, angles, density. For simulations at constant pressure."""

from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..errors import InvalidInputError
from ..snapshot import Cell
from ..system import System
from ..units import as_array
from ._vectors import cross, dot, norm, volume
from .base import AbstractCV, type_of_points

__all__ = ["CellAngle", "CellLength", "Density", "Volume"]

_LENGTHS = ("a", "b", "c")
_ANGLES = {"alpha": (1, 2), "beta": (0, 2), "gamma": (0, 1)}


class AbstractBoxCV(AbstractCV):
    """Base class of CVs of the box alone. A CV has a particle, here the first one, which feels no force."""

    atoms: eqx.AbstractVar[type_of_points]
    invariances: ClassVar[frozenset[str]] = frozenset({"translation", "rotation", "image", "permutation"})

    @property
    def name(self) -> str:
        """The class's."""
        return type(self).__name__

    def resolved(self, system: System) -> "AbstractBoxCV":
        """Itself.

        Raises:
            InvalidInputError: if the simulation has no box.
        """
        if not system.periodic:
            raise InvalidInputError(f"{self.name} needs a periodic box, and this simulation has none.")
        return self


class Volume(AbstractBoxCV):
    r"""Volume of the box [length^3]: $|a \cdot (b \times c)|$.

    Only a barostat moves it. Bias it to sample densities far apart, or observe it.

    Example:
        >>> import jax.numpy as jnp
        >>> from pysamp import Cell
        >>> from pysamp.colvars import Volume
        >>> print(Volume()(jnp.zeros((1, 3)), Cell.of(jnp.diag(jnp.array([2.0, 3.0, 4.0])))))
        24.0
    """

    atoms: type_of_points = eqx.field(static=True, default=(0,), init=False)
    unit: ClassVar[str] = "length^3"

    def __call__(self, x: Float[Array, "1 3"], cell: Cell) -> Float[Array, ""]:
        """The determinant of the box."""
        return volume(_box(cell, x))


class Density(AbstractBoxCV):
    r"""Mass density [mass/length^3]: all masses of the system over the volume of the box.

    With OpenMM's units (amu, nm), 1 amu/nm^3 is 1.66054 kg/m^3.

    Args:
        mass: total mass [mass]; None for that of all particles of the engine's system.

    Raises:
        InvalidInputError: if the mass is not positive.

    Example:
        >>> import jax.numpy as jnp
        >>> from pysamp import Cell
        >>> from pysamp.colvars import Density
        >>> print(Density(mass=48.0)(jnp.zeros((1, 3)), Cell.of(jnp.diag(jnp.array([2.0, 3.0, 4.0])))))
        2.0
    """

    atoms: type_of_points = eqx.field(static=True, default=(0,), init=False)
    mass: Float[np.ndarray, ""] | None
    unit: ClassVar[str] = "mass/length^3"

    def __init__(self, mass: Any = None):
        self.atoms = (0,)
        self.mass = None if mass is None else as_array(mass)

    def __check_init__(self):
        if self.mass is not None and not (self.mass.shape == () and np.isfinite(self.mass) and self.mass > 0):
            raise InvalidInputError(f"mass must be one positive number, got {self.mass.tolist()}.")

    def resolved(self, system: System) -> "Density":
        """With the mass of the whole system."""
        AbstractBoxCV.resolved(self, system)
        return self if self.mass is not None else Density(np.asarray(system.masses).sum())

    def __call__(self, x: Float[Array, "1 3"], cell: Cell) -> Float[Array, ""]:
        """Mass over volume."""
        if self.mass is None:
            raise InvalidInputError("Density takes its mass from the engine; to evaluate it without one give mass=....")
        return jnp.asarray(self.mass, dtype=x.dtype) / volume(_box(cell, x))


class CellLength(AbstractBoxCV):
    """Length of a box vector [length].

    Args:
        vector: ``"a"``, ``"b"`` or ``"c"``, the first, second or third.

    Raises:
        InvalidInputError: for another name.

    Example:
        >>> import jax.numpy as jnp
        >>> from pysamp import Cell
        >>> from pysamp.colvars import CellLength
        >>> print(CellLength("b")(jnp.zeros((1, 3)), Cell.of(jnp.diag(jnp.array([2.0, 3.0, 4.0])))))
        3.0
    """

    atoms: type_of_points = eqx.field(static=True, default=(0,), init=False)
    vector: str = eqx.field(static=True)
    unit: ClassVar[str] = "length"

    def __check_init__(self):
        if self.vector not in _LENGTHS:
            raise InvalidInputError(f"vector must be 'a', 'b' or 'c', got {self.vector!r}.")

    def __call__(self, x: Float[Array, "1 3"], cell: Cell) -> Float[Array, ""]:
        """Norm of the vector."""
        return norm(_box(cell, x)[_LENGTHS.index(self.vector)])

    @property
    def name(self) -> str:
        """Such as ``CellLength(a)``."""
        return f"CellLength({self.vector})"


class CellAngle(AbstractBoxCV):
    """Angle between two box vectors, in (0, pi) [rad].

    Args:
        angle: ``"alpha"`` (between b and c), ``"beta"`` (a and c) or ``"gamma"`` (a and b).

    Raises:
        InvalidInputError: for another name.

    Example:
        >>> import jax.numpy as jnp
        >>> from pysamp import Cell
        >>> from pysamp.colvars import CellAngle
        >>> box = jnp.array([[2.0, 0.0, 0.0], [2.0, 2.0, 0.0], [0.0, 0.0, 2.0]])
        >>> print(CellAngle("gamma")(jnp.zeros((1, 3)), Cell.of(box)))
        0.7853982
    """

    atoms: type_of_points = eqx.field(static=True, default=(0,), init=False)
    angle: str = eqx.field(static=True)
    unit: ClassVar[str] = "angle"

    def __check_init__(self):
        if self.angle not in _ANGLES:
            raise InvalidInputError(f"angle must be 'alpha', 'beta' or 'gamma', got {self.angle!r}.")

    def __call__(self, x: Float[Array, "1 3"], cell: Cell) -> Float[Array, ""]:
        """Arc tangent of sine over cosine, exact near a right angle."""
        box = _box(cell, x)
        first, second = (box[i] for i in _ANGLES[self.angle])
        return jnp.arctan2(norm(cross(first, second)), dot(first, second))

    @property
    def name(self) -> str:
        """Such as ``CellAngle(gamma)``."""
        return f"CellAngle({self.angle})"


def _box(cell: Cell, x: Float[Array, "1 3"]) -> Float[Array, "3 3"]:
    if cell.box is None:
        raise InvalidInputError("A CV of the box needs a periodic box, and there is none.")
    return jnp.asarray(cell.box, dtype=x.dtype)
