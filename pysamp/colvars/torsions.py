r"""Similarity of many torsion angles to reference values, or to each other."""

from collections.abc import Iterable
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..errors import InvalidInputError
from ..snapshot import Cell
from ..units import as_array
from ._vectors import divide, sqrt, torsion
from .base import AbstractCV, as_points, type_of_points

__all__ = ["AlphaBetaSimilarity", "DihedralCorrelation"]

type_of_torsions = tuple[type_of_points, ...]


def _as_torsions(value: Any) -> type_of_torsions:
    items = list(value) if isinstance(value, Iterable) and not isinstance(value, str) else []
    if not items or not all(isinstance(item, Iterable) for item in items):
        raise InvalidInputError(
            f"Torsions are lists of four points, such as [[4, 6, 8, 14], [6, 8, 14, 16]]; got {value!r}."
        )
    torsions = tuple(as_points(item) for item in items)
    wrong = [list(torsion) for torsion in torsions if len(torsion) != 4]
    if wrong:
        raise InvalidInputError(f"A torsion needs 4 atoms or groups in bond order, got {len(wrong[0])}: {wrong[0]}.")
    return torsions


def _as_torsion_pairs(value: Any) -> tuple[type_of_torsions, ...]:
    pairs = tuple(_as_torsions(item) for item in value) if isinstance(value, Iterable) else ()
    if not pairs or any(len(pair) != 2 for pair in pairs):
        raise InvalidInputError(
            f"DihedralCorrelation needs pairs of torsions, such as [([4, 6, 8, 14], [6, 8, 14, 16])]; got {value!r}."
        )
    return pairs


def _per_torsion(value: Any, n: int, what: str) -> Float[np.ndarray, " n"]:
    array = as_array(value)
    if array.shape not in {(), (n,)} or not np.isfinite(array).all():
        raise InvalidInputError(f"{what} must be one finite number or {n}, one for each torsion; got {array.tolist()}.")
    return np.array(np.broadcast_to(array, (n,)))


def _sines_and_cosines(x: Float[Array, "k 3"], cell: Cell) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
    """Of the torsion of every four points; both zero where it is not defined."""
    quadruples = x.reshape(-1, 4, 3)
    bonds = cell.displacement(quadruples[:, :-1], quadruples[:, 1:])
    sine, cosine = torsion(bonds[:, 0], bonds[:, 1], bonds[:, 2])
    length = sqrt(sine * sine + cosine * cosine)
    return divide(sine, length), divide(cosine, length)


class AlphaBetaSimilarity(AbstractCV):
    r"""Number of torsion angles that are near reference values [1].

    $$s = \frac{1}{2} \sum_k c_k \left[1 + \cos(\phi_k - \phi_k^\mathrm{ref})\right]$$

    It counts a torsion at its reference fully and one at the opposite side not at all. With the backbone torsions of a
    helix or a strand as references it tells how much of a protein is folded that way; it is smooth and needs no
    superposition. A torsion that is not defined, with three points on a line, counts one half.

    Args:
        torsions: lists of four points in bond order, indices or Groups.
        reference: reference angles, one for each torsion or one for all [rad].
        coefficients: weights $c_k$, one for each torsion or one for all.

    Raises:
        InvalidInputError: unless every torsion has four different points, and as many references and coefficients.

    Example:
        >>> import jax.numpy as jnp
        >>> from pysamp import Cell
        >>> from pysamp.colvars import AlphaBetaSimilarity
        >>> helicity = AlphaBetaSimilarity([[4, 6, 8, 14], [6, 8, 14, 16]], reference=[-1.05, -0.79])
        >>> x = jnp.array([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 1.0]])
        >>> print(AlphaBetaSimilarity([[0, 1, 2, 3]], reference=0.0)(x, Cell()))
        1.0
    """

    torsions: type_of_torsions = eqx.field(static=True)
    reference: Float[np.ndarray, " n"]
    coefficients: Float[np.ndarray, " n"]
    invariances: ClassVar[frozenset[str]] = frozenset({"translation", "rotation", "image"})

    def __init__(self, torsions: Any, *, reference: Any, coefficients: Any = 1.0):
        self.torsions = _as_torsions(torsions)
        self.reference = _per_torsion(reference, len(self.torsions), "reference")
        self.coefficients = _per_torsion(coefficients, len(self.torsions), "coefficients")

    @property
    def atoms(self) -> type_of_points:
        """The points of all torsions, one torsion after the other."""
        return tuple(point for torsion in self.torsions for point in torsion)

    def __call__(self, x: Float[Array, "k 3"], cell: Cell) -> Float[Array, ""]:
        """Sum over the torsions."""
        sine, cosine = _sines_and_cosines(x, cell)
        reference, coefficients = (jnp.asarray(p, dtype=x.dtype) for p in (self.reference, self.coefficients))
        return 0.5 * jnp.sum(coefficients * (1 + cosine * jnp.cos(reference) + sine * jnp.sin(reference)))


class DihedralCorrelation(AbstractCV):
    r"""Number of pairs of torsion angles that agree [1].

    $$s = \frac{1}{2} \sum_k \left[1 + \cos(\phi_k - \psi_k)\right]$$

    Use it where not the values of the torsions are known, but that they change together: successive residues of a helix,
    a symmetric ring. A pair with a torsion that is not defined counts one half.

    Args:
        pairs: pairs of torsions, each a list of four points in bond order, indices or Groups.

    Raises:
        InvalidInputError: unless there are pairs, and every torsion has four different points.

    Example:
        >>> from pysamp.colvars import DihedralCorrelation
        >>> cv = DihedralCorrelation([([4, 6, 8, 14], [14, 16, 18, 24]), ([6, 8, 14, 16], [16, 18, 24, 26])])
        >>> len(cv.atoms)
        16
    """

    pairs: tuple[type_of_torsions, ...] = eqx.field(static=True)
    invariances: ClassVar[frozenset[str]] = frozenset({"translation", "rotation", "image"})

    def __init__(self, pairs: Any):
        self.pairs = _as_torsion_pairs(pairs)

    @property
    def atoms(self) -> type_of_points:
        """The points of all torsions, one torsion after the other."""
        return tuple(point for pair in self.pairs for torsion in pair for point in torsion)

    def __call__(self, x: Float[Array, "k 3"], cell: Cell) -> Float[Array, ""]:
        """Sum over the pairs."""
        sine, cosine = _sines_and_cosines(x, cell)
        return 0.5 * jnp.sum(1 + cosine[::2] * cosine[1::2] + sine[::2] * sine[1::2])
