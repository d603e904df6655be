r"""Puckering of five- and six-membered rings.

Cremer and Pople's description: with the ring atoms $j = 0 \dots N-1$ at $r_j$ from their geometric centre, the vectors

$$R_1 = \sum_j r_j \sin\frac{2\pi j}{N}, \qquad R_2 = \sum_j r_j \cos\frac{2\pi j}{N}$$

span the mean plane with the normal $n = R_1 \times R_2 / |R_1 \times R_2|$, above which the atoms are by $z_j = r_j \cdot n$.
These heights have $N - 3$ independent coordinates: for $N = 5$ an amplitude $q_2$ and a phase $\varphi_2$, for $N = 6$ a third
one, $q_3$:

$$q_2 \cos\varphi_2 = \sqrt{\tfrac{2}{N}} \sum_j z_j \cos\frac{4\pi j}{N}, \quad
q_2 \sin\varphi_2 = -\sqrt{\tfrac{2}{N}} \sum_j z_j \sin\frac{4\pi j}{N}, \quad
q_3 = \sqrt{\tfrac{1}{6}} \sum_j (-1)^j z_j.$$

The sum of their squares is that of the heights: $Q^2 = q_2^2 + q_3^2 = \sum_j z_j^2$.
"""

import math
from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..errors import InvalidInputError
from ..snapshot import Cell
from ._vectors import arctan2, cross, divide, made_whole, norm, torsion
from .base import AbstractCV, as_points, check_number_of_points, type_of_points

__all__ = [
    "PuckeringAmplitude",
    "PuckeringCoordinates",
    "PuckeringPhase",
    "PuckeringTheta",
    "SugarPuckering",
    "SugarPuckeringPhase",
]

_RIGID = frozenset({"translation", "rotation", "image"})


def _check_ring(cv: AbstractCV) -> None:
    if len(cv.atoms) not in (5, 6):
        raise InvalidInputError(
            f"{type(cv).__name__} needs the 5 or 6 atoms of a ring, in the order of its bonds, got {len(cv.atoms)}: "
            f"{list(cv.atoms)}."
        )


def _puckering(x: Float[Array, "k 3"], cell: Cell) -> Float[Array, " n"]:
    """The Cartesian puckering coordinates: (q2 cos, q2 sin), and q3 for six atoms."""
    n = len(x)
    x = made_whole(x, cell)
    x = x - jnp.mean(x, axis=0, keepdims=True)
    turn = 2 * np.pi * np.arange(n) / n

    def project(values: Float[Array, "k _"], shape: np.ndarray) -> Float[Array, " _"]:
        return jnp.sum(jnp.asarray(shape, dtype=x.dtype)[:, None] * values, axis=0)

    normal = cross(project(x, np.sin(turn)), project(x, np.cos(turn)))
    normal = divide(normal, jnp.broadcast_to(norm(normal), (3,)))
    heights = jnp.sum(x * normal[None], axis=1, keepdims=True)
    shapes = [np.sqrt(2 / n) * np.cos(2 * turn), -np.sqrt(2 / n) * np.sin(2 * turn)]
    if n == 6:
        shapes.append(np.sqrt(1 / 6) * np.cos(3 * turn))
    return jnp.concatenate([project(heights, shape) for shape in shapes])


class PuckeringCoordinates(AbstractCV):
    r"""Cremer-Pople puckering coordinates of a five- or six-membered ring [length].

    $$x = q_2 \cos\varphi_2, \qquad y = q_2 \sin\varphi_2, \qquad z = q_3 \text{ (six-membered rings only)}$$

    Two or three components that are smooth everywhere, also at the planar ring: bias them rather than amplitude and phase
    where the ring passes through it. Chairs of a six-membered ring lie on the z axis, boats and twist-boats on the circle
    around it. PLUMED's ``qx`` is y here, and its ``qy`` is x.

    Args:
        atoms: the ring atoms in the order of its bonds; for sugars O5, C1, C2, C3, C4, C5.

    Raises:
        InvalidInputError: unless there are five or six different atoms.

    Example:
        >>> import jax.numpy as jnp
        >>> import numpy as np
        >>> from pysamp import Cell
        >>> from pysamp.colvars import PuckeringCoordinates
        >>> turn = np.arange(6) * np.pi / 3
        >>> chair = jnp.asarray(np.stack([np.cos(turn), -np.sin(turn), 0.25 * (-1.0) ** np.arange(6)], axis=1))
        >>> print(f"{PuckeringCoordinates([0, 1, 2, 3, 4, 5])(chair, Cell())[2]:.4f}")
        0.6124

    References:
        Cremer & Pople, J. Am. Chem. Soc. 97, 1354 (1975), doi 10.1021/ja00839a011.
    """

    atoms: type_of_points = eqx.field(converter=as_points, static=True)
    unit: ClassVar[str] = "length"
    invariances: ClassVar[frozenset[str]] = _RIGID

    def __check_init__(self):
        _check_ring(self)

    def __call__(self, x: Float[Array, "k 3"], cell: Cell) -> Float[Array, " n"]:
        """Two or three projections of the heights above the mean plane."""
        return _puckering(x, cell)

    @property
    def component_names(self) -> tuple[str, ...]:
        """Six-membered rings have a third one."""
        return ("x", "y", "z")[: len(self.atoms) - 3]


class PuckeringAmplitude(AbstractCV):
    r"""Cremer-Pople total puckering amplitude $Q$ of a five- or six-membered ring [length].

    The root of the sum of the squared heights of the atoms above the mean plane; zero for a planar ring, where the
    derivative does not exist and the force is taken as zero.

    Args:
        atoms: the ring atoms in the order of its bonds.

    Raises:
        InvalidInputError: unless there are five or six different atoms.

    Example:
        >>> import jax.numpy as jnp
        >>> import numpy as np
        >>> from pysamp import Cell
        >>> from pysamp.colvars import PuckeringAmplitude
        >>> turn = np.arange(6) * np.pi / 3
        >>> chair = jnp.asarray(np.stack([np.cos(turn), -np.sin(turn), 0.25 * (-1.0) ** np.arange(6)], axis=1))
        >>> print(f"{PuckeringAmplitude([0, 1, 2, 3, 4, 5])(chair, Cell()):.4f}")
        0.6124

    References:
        Cremer & Pople, J. Am. Chem. Soc. 97, 1354 (1975), doi 10.1021/ja00839a011.
    """

    atoms: type_of_points = eqx.field(converter=as_points, static=True)
    unit: ClassVar[str] = "length"
    invariances: ClassVar[frozenset[str]] = _RIGID

    def __check_init__(self):
        _check_ring(self)

    def __call__(self, x: Float[Array, "k 3"], cell: Cell) -> Float[Array, ""]:
        """Length of the vector of puckering coordinates."""
        return norm(_puckering(x, cell))


class PuckeringPhase(AbstractCV):
    r"""Cremer-Pople phase $\varphi_2$ of a five- or six-membered ring, in $(-\pi, \pi]$ [rad].

    The place on the circle of pseudorotation: envelopes and twists of a five-membered ring, boats and twist-boats of a
    six-membered one. Where $q_2 = 0$ (planar rings and chairs) it is not defined: 0 with a force of zero is returned there,
    and the force grows without bound towards it.

    Args:
        atoms: the ring atoms in the order of its bonds; the phase counts from the first.

    Raises:
        InvalidInputError: unless there are five or six different atoms.

    Example:
        >>> import jax.numpy as jnp
        >>> import numpy as np
        >>> from pysamp import Cell
        >>> from pysamp.colvars import PuckeringPhase
        >>> turn = np.arange(6) * np.pi / 3
        >>> boat = jnp.asarray(np.stack([np.cos(turn), -np.sin(turn), 0.25 * np.cos(2 * turn)], axis=1))
        >>> print(f"{abs(PuckeringPhase([0, 1, 2, 3, 4, 5])(boat, Cell())):.4f}")
        0.0000

    References:
        Cremer & Pople, J. Am. Chem. Soc. 97, 1354 (1975), doi 10.1021/ja00839a011.
    """

    atoms: type_of_points = eqx.field(converter=as_points, static=True)
    period: ClassVar[float | None] = 2 * math.pi
    unit: ClassVar[str] = "angle"
    invariances: ClassVar[frozenset[str]] = _RIGID

    def __check_init__(self):
        _check_ring(self)

    def __call__(self, x: Float[Array, "k 3"], cell: Cell) -> Float[Array, ""]:
        """Angle of the first two puckering coordinates."""
        coordinates = _puckering(x, cell)
        return arctan2(coordinates[1], coordinates[0])


class PuckeringTheta(AbstractCV):
    r"""Cremer-Pople angle $\theta$ of a six-membered ring, in $[0, \pi]$ [rad].

    $$\theta = \operatorname{atan2}(q_2,\ q_3)$$

    0 and $\pi$ are the two chairs (for a sugar listed from O5: $^4C_1$ and $^1C_4$), $\pi/2$ the boats. At the chairs the
    direction of the force does not exist and the force is taken as zero.

    Args:
        atoms: the six ring atoms in the order of its bonds.

    Raises:
        InvalidInputError: unless there are six different atoms.

    Example:
        >>> import jax.numpy as jnp
        >>> import numpy as np
        >>> from pysamp import Cell
        >>> from pysamp.colvars import PuckeringTheta
        >>> turn = np.arange(6) * np.pi / 3
        >>> boat = jnp.asarray(np.stack([np.cos(turn), -np.sin(turn), 0.25 * np.cos(2 * turn)], axis=1))
        >>> print(f"{PuckeringTheta([0, 1, 2, 3, 4, 5])(boat, Cell()):.4f}")
        1.5708

    References:
        Cremer & Pople, J. Am. Chem. Soc. 97, 1354 (1975), doi 10.1021/ja00839a011.
    """

    atoms: type_of_points = eqx.field(converter=as_points, static=True)
    unit: ClassVar[str] = "angle"
    invariances: ClassVar[frozenset[str]] = _RIGID

    def __check_init__(self):
        check_number_of_points(self, 6, "a ring, in the order of its bonds")

    def __call__(self, x: Float[Array, "6 3"], cell: Cell) -> Float[Array, ""]:
        """Polar angle of the puckering coordinates."""
        coordinates = _puckering(x, cell)
        return arctan2(norm(coordinates[:2]), coordinates[2])


def _sugar(x: Float[Array, "5 3"], cell: Cell) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The two pseudorotation coordinates."""
    bonds = cell.displacement(x, jnp.concatenate([x[1:], x[:1]]))
    first, third = (arctan2(*torsion(bonds[i], bonds[j], bonds[k])) for i, j, k in ((1, 2, 3), (3, 4, 0)))
    turn = 4 * math.pi / 5
    return (first + third) / (2 * math.cos(turn)), (first - third) / (2 * math.sin(turn))


class SugarPuckering(AbstractCV):
    r"""Pseudorotation coordinates of a furanose ring from two of its torsions [rad], two components.

    $$Z_x = \frac{\nu_1 + \nu_3}{2 \cos(4\pi/5)}, \qquad Z_y = \frac{\nu_1 - \nu_3}{2 \sin(4\pi/5)}$$

    with the torsions $\nu_1$ about C1'-C2' and $\nu_3$ about C3'-C4'. The description of sugars in nucleic acids by Altona and
    Sundaralingam in a form that is smooth at the planar ring; C3'-endo lies at positive, C2'-endo at negative $Z_x$.

    Args:
        atoms: the ring atoms C4', O4', C1', C2', C3'.

    Raises:
        InvalidInputError: unless there are five different atoms.

    Example:
        >>> from pysamp.colvars import SugarPuckering
        >>> SugarPuckering([3, 4, 5, 8, 11]).labels
        ('SugarPuckering(3, 4, 5, 8, 11).x', 'SugarPuckering(3, 4, 5, 8, 11).y')

    References:
        Altona & Sundaralingam, J. Am. Chem. Soc. 94, 8205 (1972), doi 10.1021/ja00778a043;
        Huang, Giese, Lee & York, J. Chem. Theory Comput. 10, 1538 (2014), doi 10.1021/ct401013s.
    """

    atoms: type_of_points = eqx.field(converter=as_points, static=True)
    unit: ClassVar[str] = "angle"
    invariances: ClassVar[frozenset[str]] = _RIGID
    component_names: ClassVar[tuple[str, ...]] = ("x", "y")

    def __check_init__(self):
        check_number_of_points(self, 5, "C4', O4', C1', C2', C3'")

    def __call__(self, x: Float[Array, "5 3"], cell: Cell) -> Float[Array, "2"]:
        """Sum and difference of the two torsions, scaled."""
        return jnp.stack(_sugar(x, cell))


class SugarPuckeringPhase(AbstractCV):
    r"""Phase of the pseudorotation of a furanose ring, in $(-\pi, \pi]$ [rad].

    $$P = \operatorname{atan2}(Z_y,\ Z_x)$$

    with the coordinates of :class:`~pysamp.colvars.SugarPuckering`: about 0.3 (18 degrees) for C3'-endo, 2.8 (162 degrees) for
    C2'-endo. Where both torsions vanish it is not defined: 0 with a force of zero is returned.

    Args:
        atoms: the ring atoms C4', O4', C1', C2', C3'.

    Raises:
        InvalidInputError: unless there are five different atoms.

    Example:
        >>> from pysamp.colvars import SugarPuckeringPhase
        >>> round(SugarPuckeringPhase([3, 4, 5, 8, 11]).period, 4)
        6.2832

    References:
        Huang, Giese, Lee & York, J. Chem. Theory Comput. 10, 1538 (2014), doi 10.1021/ct401013s.
    """

    atoms: type_of_points = eqx.field(converter=as_points, static=True)
    period: ClassVar[float | None] = 2 * math.pi
    unit: ClassVar[str] = "angle"
    invariances: ClassVar[frozenset[str]] = _RIGID

    def __check_init__(self):
        check_number_of_points(self, 5, "C4', O4', C1', C2', C3'")

    def __call__(self, x: Float[Array, "5 3"], cell: Cell) -> Float[Array, ""]:
        """Angle of the two coordinates."""
        zx, zy = _sugar(x, cell)
        return arctan2(zy, zx)
