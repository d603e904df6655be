r"""Contacts between given pairs of points: their map, their weighted sum, the distance to a reference map, native contacts.

Notation: $r_k$ is the distance between the nearest images of the points of pair k, and $s_k$ its switching function.
"""

import math
from collections.abc import Iterable
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..errors import InvalidInputError
from ..snapshot import Cell
from ..units import as_array, as_float
from ._vectors import norm
from .base import AbstractCV, Group, as_points, type_of_points
from .coordination import as_switch
from .switching import AbstractSwitch

__all__ = ["AbstractContacts", "ContactMap", "ContactMapDistance", "ContactSum", "NativeContacts"]


class AbstractContacts(AbstractCV):
    """Base class of CVs made of the contacts of given pairs.

    Attributes:
        atoms: the first points of all pairs, then the second ones; a point can be in several.
        switches: one switching function for all pairs, or one for each.
        weights: of the contacts.
    """

    switches: eqx.AbstractVar[tuple[AbstractSwitch, ...]]
    weights: eqx.AbstractVar[Float[np.ndarray, " p"]]

    @property
    def name(self) -> str:
        """Such as ``ContactMap(0-5, 0-8, 2-9, ..., 40 pairs)``."""
        return f"{type(self).__name__}({_names(self.atoms)})"

    def contacts(self, x: Float[Array, "k 3"], cell: Cell) -> Float[Array, " p"]:
        """Each contact without its weight, between 0 and 1."""
        r = distances(x, cell)
        result = self.switches[0](r)
        for switch in dict.fromkeys(self.switches[1:]):
            result = jnp.where(np.array([s == switch for s in self.switches]), switch(r), result)
        return result


class ContactMap(AbstractContacts):
    r"""The weighted contacts $w_k s_k(r_k)$ of given pairs, a CV with one component for each.

    Choose it to feed contacts to a function or a network (``combine``), or to path variables. For their sum take
    :class:`~pysamp.colvars.ContactSum`.

    Args:
        pairs: pairs of points, such as ``[(0, 5), (0, 8)]``; indices or Groups.
        switch: the switching function, or a list with one for each pair.
        weights: one number, or one for each pair.

    Raises:
        InvalidInputError: unless there are pairs of different points, and functions and weights that fit them.

    Example:
        >>> import jax.numpy as jnp
        >>> from pysamp import Cell
        >>> from pysamp.colvars import ContactMap, RationalSwitch
        >>> contacts = ContactMap([(0, 5), (0, 8)], switch=RationalSwitch(0.3))
        >>> x = jnp.array([[0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.3, 0.0, 0.0], [0.0, 0.0, 0.0]])
        >>> print(contacts.labels, contacts(x, Cell()))
        ('ContactMap(0-5, 0-8).0-5', 'ContactMap(0-5, 0-8).0-8') [0.5 1. ]

    References:
        Bonomi, Branduardi, Gervasio & Parrinello, J. Am. Chem. Soc. 130, 13938 (2008), doi 10.1021/ja803652f.
    """

    atoms: type_of_points = eqx.field(static=True)
    switches: tuple[AbstractSwitch, ...] = eqx.field(static=True)
    weights: Float[np.ndarray, " p"]
    invariances: ClassVar[frozenset[str]] = frozenset({"translation", "rotation", "image"})

    def __init__(self, pairs: Any, *, switch: Any, weights: Any = 1.0):
        self.atoms = as_pairs(pairs)
        self.switches = _as_switches(switch, self.atoms)
        self.weights = _per_pair(weights, self.atoms, "weights")

    @property
    def component_names(self) -> tuple[str, ...]:
        """The pairs, such as ``0-5``."""
        return tuple(_pair_names(self.atoms))

    def __call__(self, x: Float[Array, "k 3"], cell: Cell) -> Float[Array, " p"]:
        """Weighted contacts."""
        return jnp.asarray(self.weights, x.dtype) * self.contacts(x, cell)


class ContactSum(AbstractContacts):
    r"""Weighted number of contacts among given pairs.

    $$C = \sum_k w_k s_k(r_k)$$

    Choose it for contacts that are known: the hydrogen bonds of a helix, the pairs of an interface. Where any atom can meet
    any other take :class:`~pysamp.colvars.CoordinationNumber`, for native contacts of a protein
    :class:`~pysamp.colvars.NativeContacts`.

    Args:
        pairs: pairs of points, such as ``[(0, 5), (0, 8)]``; indices or Groups.
        switch: the switching function, or a list with one for each pair.
        weights: one number, or one for each pair.

    Raises:
        InvalidInputError: unless there are pairs of different points, and functions and weights that fit them.

    Example:
        >>> import jax.numpy as jnp
        >>> from pysamp import Cell
        >>> from pysamp.colvars import ContactSum, RationalSwitch
        >>> contacts = ContactSum([(0, 5), (0, 8)], switch=RationalSwitch(0.3), weights=[1.0, 0.5])
        >>> print(contacts(jnp.array([[0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.3, 0.0, 0.0], [0.0, 0.0, 0.0]]), Cell()))
        1.0
    """

    atoms: type_of_points = eqx.field(static=True)
    switches: tuple[AbstractSwitch, ...] = eqx.field(static=True)
    weights: Float[np.ndarray, " p"]
    invariances: ClassVar[frozenset[str]] = frozenset({"translation", "rotation", "image"})

    def __init__(self, pairs: Any, *, switch: Any, weights: Any = 1.0):
        self.atoms = as_pairs(pairs)
        self.switches = _as_switches(switch, self.atoms)
        self.weights = _per_pair(weights, self.atoms, "weights")

    def __call__(self, x: Float[Array, "k 3"], cell: Cell) -> Float[Array, ""]:
        """Sum of the weighted contacts."""
        return jnp.sum(jnp.asarray(self.weights, x.dtype) * self.contacts(x, cell))


class ContactMapDistance(AbstractContacts):
    r"""Squared distance of the contact map from a reference map.

    $$D = \sum_k \left[w_k s_k(r_k) - w_k s_k^\text{ref}\right]^2$$

    This is the distance by which contact maps are compared in path variables, and PLUMED's ``CMDIST``: weights enter
    squared, and there is no root.

    Args:
        pairs: pairs of points, such as ``[(0, 5), (0, 8)]``; indices or Groups.
        switch: the switching function, or a list with one for each pair.
        reference: the contacts in the reference, one number for each pair, without weights.
        weights: one number, or one for each pair.

    Raises:
        InvalidInputError: unless there are pairs of different points, and functions, references and weights that fit them.

    Example:
        >>> import jax.numpy as jnp
        >>> from pysamp import Cell
        >>> from pysamp.colvars import ContactMapDistance, RationalSwitch
        >>> folded = ContactMapDistance([(0, 5), (0, 8)], switch=RationalSwitch(0.3), reference=[1.0, 1.0])
        >>> print(folded(jnp.array([[0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.3, 0.0, 0.0], [0.0, 0.0, 0.0]]), Cell()))
        0.25

    References:
        Bonomi, Branduardi, Gervasio & Parrinello, J. Am. Chem. Soc. 130, 13938 (2008), doi 10.1021/ja803652f.
    """

    atoms: type_of_points = eqx.field(static=True)
    switches: tuple[AbstractSwitch, ...] = eqx.field(static=True)
    weights: Float[np.ndarray, " p"]
    reference: Float[np.ndarray, " p"]
    invariances: ClassVar[frozenset[str]] = frozenset({"translation", "rotation", "image"})

    def __init__(self, pairs: Any, *, switch: Any, reference: Any, weights: Any = 1.0):
        self.atoms = as_pairs(pairs)
        self.switches = _as_switches(switch, self.atoms)
        self.weights = _per_pair(weights, self.atoms, "weights")
        self.reference = _per_pair(reference, self.atoms, "reference")

    def __call__(self, x: Float[Array, "k 3"], cell: Cell) -> Float[Array, ""]:
        """Sum of the squared differences."""
        weights, reference = (jnp.asarray(v, x.dtype) for v in (self.weights, self.reference))
        return jnp.sum((weights * (self.contacts(x, cell) - reference)) ** 2)


class NativeContacts(AbstractCV):
    r"""Fraction of native contacts, Q: 1 in the native structure, towards 0 where it is lost.

    $$Q = \frac{1}{P} \sum_k \frac{1}{1 + \exp[\beta (r_k - \lambda\, r_k^0)]}$$

    The natural CV of protein folding. The definition takes as pairs all heavy atoms of residues at least four apart that are
    nearer than 0.45 nm in the native structure, $\beta = 50$/nm, and $\lambda = 1.8$ for all-atom models or 1.2 for
    coarse-grained ones; :meth:`of_structure` finds the pairs.

    Args:
        pairs: pairs of points that are in contact in the native structure; indices or Groups.
        reference: their distances there [length].
        beta: softness [1/length].
        tolerance: lambda, by how much a contact may stretch before it counts as broken.

    Raises:
        InvalidInputError: unless there are pairs of different points with positive distances and parameters.

    Example:
        >>> import jax.numpy as jnp
        >>> from pysamp import Cell
        >>> from pysamp.colvars import NativeContacts
        >>> q = NativeContacts([(0, 5), (0, 8)], reference=[0.4, 0.4], beta=50)
        >>> print(f"{q(jnp.zeros((4, 3)).at[2, 0].set(0.72).at[3, 0].set(2.0), Cell()):.3f}")
        0.250

    References:
        Best, Hummer & Eaton, Proc. Natl. Acad. Sci. 110, 17874 (2013), doi 10.1073/pnas.1311599110.
    """

    atoms: type_of_points = eqx.field(static=True)
    reference: Float[np.ndarray, " p"]
    beta: Float[np.ndarray, ""]
    tolerance: Float[np.ndarray, ""]
    invariances: ClassVar[frozenset[str]] = frozenset({"translation", "rotation", "image"})

    def __init__(self, pairs: Any, *, reference: Any, beta: Any, tolerance: Any = 1.8):
        self.atoms = as_pairs(pairs)
        self.reference = _per_pair(reference, self.atoms, "reference")
        self.beta, self.tolerance = as_float(beta), as_float(tolerance)

    def __check_init__(self):
        if not (self.reference > 0).all():
            raise InvalidInputError(f"reference must be positive distances, got {self.reference.tolist()}.")
        for name, value in (("beta", self.beta), ("tolerance", self.tolerance)):
            if not 0 < value < math.inf:
                raise InvalidInputError(f"NativeContacts needs a positive, finite {name}, got {value}.")

    @classmethod
    def of_structure(
        cls,
        positions: Any,
        atoms: Any,
        *,
        residues: Any,
        cutoff: Any,
        beta: Any,
        tolerance: Any = 1.8,
        separation: int = 4,
    ) -> "NativeContacts":
        """Q for the contacts of a native structure.

        Args:
            positions: of all particles, in one piece [length].
            atoms: indices of the atoms that count, usually the heavy atoms of the protein.
            residues: number of the residue of each particle.
            cutoff: distance below which two atoms are in contact [length]; 0.45 nm by definition.
            beta: softness [1/length]; 50/nm by definition.
            tolerance: lambda.
            separation: least difference of residue numbers.

        Raises:
            InvalidInputError: if there are no contacts.

        Example:
            >>> from pysamp.colvars import NativeContacts
            >>> line = [[0.1 * i, 0.0, 0.0] for i in range(10)]
            >>> NativeContacts.of_structure(line, range(10), residues=range(10), cutoff=0.45, beta=50).name
            'NativeContacts(0-4, 1-5, 2-6, 3-7, 4-8, 5-9)'
        """
        x, numbers = as_array(positions), np.asarray(residues)
        points = np.asarray([point for point in as_points(atoms) if isinstance(point, int)])
        first, second = (points[k] for k in np.triu_indices(len(points), 1))
        r = np.linalg.norm(x[first] - x[second], axis=1)
        native = (r < float(as_float(cutoff))) & (np.abs(numbers[first] - numbers[second]) >= separation)
        if not native.any():
            raise InvalidInputError(
                f"No two of the {len(points)} atoms, at least {separation} residues apart, are nearer than {cutoff}: check "
                "atoms, residues and the unit of the cutoff."
            )
        pairs = list(zip(first[native].tolist(), second[native].tolist(), strict=True))
        return cls(pairs, reference=r[native], beta=beta, tolerance=tolerance)

    @property
    def name(self) -> str:
        """Such as ``NativeContacts(0-5, 0-8, 2-9, ..., 40 pairs)``."""
        return f"NativeContacts({_names(self.atoms)})"

    def __call__(self, x: Float[Array, "k 3"], cell: Cell) -> Float[Array, ""]:
        """Mean over the native contacts."""
        beta, tolerance, reference = (jnp.asarray(v, x.dtype) for v in (self.beta, self.tolerance, self.reference))
        return jnp.mean(jax.nn.sigmoid(beta * (tolerance * reference - distances(x, cell))))


def distances(x: Float[Array, "k 3"], cell: Cell) -> Float[Array, " p"]:
    """Distances of the pairs whose first points are the first half of ``x`` [length]."""
    n = x.shape[0] // 2
    return norm(cell.displacement(x[:n], x[n:]))


def as_pairs(pairs: Any) -> type_of_points:
    """The first points of all pairs, then the second ones.

    Raises:
        InvalidInputError: if there is no pair, or something is not a pair of two different points.
    """
    if isinstance(pairs, str | bytes) or not isinstance(pairs, Iterable):
        raise InvalidInputError(f"pairs must be a list of pairs of points, such as [(0, 5), (0, 8)], got {pairs!r}.")
    points = [as_points(pair) for pair in pairs]
    wrong = [pair for pair in points if len(pair) != 2]
    if wrong or not points:
        raise InvalidInputError(
            f"pairs must be a list of pairs of points, such as [(0, 5), (0, 8)], got {list(wrong[0]) if wrong else []}."
        )
    return (*(a for a, _ in points), *(b for _, b in points))


def _as_switches(switch: Any, atoms: type_of_points) -> tuple[AbstractSwitch, ...]:
    if not isinstance(switch, list | tuple):
        return (as_switch(switch, "switch"),)
    if len(switch) != len(atoms) // 2:
        raise InvalidInputError(f"switch must be one switching function or {len(atoms) // 2}, got {len(switch)}.")
    return tuple(as_switch(s, "switch") for s in switch)


def _per_pair(value: Any, atoms: type_of_points, what: str) -> Float[np.ndarray, " p"]:
    array, n = as_array(value), len(atoms) // 2
    if array.shape not in {(), (n,)} or not np.isfinite(array).all():
        raise InvalidInputError(f"{what} must be one finite number or {n}, one for each pair; got {value!r}.")
    return np.array(np.broadcast_to(array, (n,)))


def _pair_names(atoms: type_of_points) -> list[str]:
    names = [point.name if isinstance(point, Group) else str(point) for point in atoms]
    n = len(names) // 2
    return [f"{a}-{b}" for a, b in zip(names[:n], names[n:], strict=True)]


def _names(atoms: type_of_points) -> str:
    names = _pair_names(atoms)
    if len(names) > 6:
        names = [*names[:3], "...", f"{len(names)} pairs"]
    return ", ".join(names)
