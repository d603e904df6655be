"""Deviations from reference structures."""

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..errors import InvalidInputError
from ..snapshot import Cell
from ..system import System
from ..units import as_array
from ._alignment import centred, deviation, inverse, least_deviation, quaternion, rotate
from ._vectors import made_whole, norm, sqrt
from ._weights import as_weights, known, with_masses
from .base import AbstractCV, as_points, type_of_points

__all__ = ["RMSD", "DistanceRMSD", "EigenvectorProjection"]


def as_structures(value: Any, n_points: int, what: str) -> Float[np.ndarray, "*m k 3"]:
    """One structure of ``n_points`` points, or several.

    Raises:
        InvalidInputError: if the shape does not fit, or a number is not finite.
    """
    array = as_array(value)
    if array.ndim not in (2, 3) or array.shape[-2:] != (n_points, 3) or not array.size:
        raise InvalidInputError(
            f"{what} must have the shape ({n_points}, 3), or (m, {n_points}, 3) for m structures, with the points in the "
            f"order of atoms; got {array.shape}."
        )
    if not np.isfinite(array).all():
        raise InvalidInputError(f"{what} must be finite, got {array.tolist()}.")
    return array


class AbstractSuperposed(AbstractCV):
    """Base class of CVs that superpose points on reference structures.

    Attributes:
        weights: of the deviations; None for the masses.
        fit_weights: of the superposition; None for the masses.
        together: whether the two are the same, so that the superposition makes the deviation as small as it can be.
        align: whether to superpose at all.
    """

    weights: eqx.AbstractVar[Float[np.ndarray, " k"] | None]
    fit_weights: eqx.AbstractVar[Float[np.ndarray, " k"] | None]
    together: eqx.AbstractVar[bool]
    align: eqx.AbstractVar[bool]
    invariances: ClassVar[frozenset[str]] = frozenset({"translation", "rotation", "image"})

    def resolved(self, system: System) -> "AbstractSuperposed":
        """With the masses of the points, where they are asked for."""
        return with_masses(self, system, lambda cv: cv.weights, lambda cv: cv.fit_weights)

    def mean_square_deviations(
        self, x: Float[Array, "k 3"], cell: Cell, references: Float[Array | np.ndarray, "m k 3"]
    ) -> Float[Array, " m"]:
        """From several structures [length^2]."""
        weights, fit_weights = (w / jnp.sum(w) for w in (known(w, self, x) for w in (self.weights, self.fit_weights)))
        x = centred(made_whole(x, cell), fit_weights)
        references = centred(jnp.asarray(references, dtype=x.dtype), fit_weights)

        def from_one(reference: Float[Array, "k 3"]) -> Float[Array, ""]:
            if not self.align:
                return deviation(jnp.array([1.0, 0.0, 0.0, 0.0], dtype=x.dtype), x, reference, weights)
            if self.together:
                return least_deviation(x, reference, weights)
            return deviation(quaternion(x, reference, fit_weights), x, reference, weights)

        return jax.vmap(from_one)(references)


def as_both_weights(
    weights: Any, fit_weights: Any, n_points: int
) -> tuple[Float[np.ndarray, " k"] | None, Float[np.ndarray, " k"] | None, bool]:
    """Weights of deviations and superposition, and whether they are the same."""
    own = as_weights(weights, n_points)
    if isinstance(fit_weights, str) and fit_weights == "same":
        return own, own, True
    return own, as_weights(fit_weights, n_points, "fit_weights"), False


class RMSD(AbstractSuperposed):
    r"""Root mean square deviation from a reference structure after the best superposition [length].

    $$\mathrm{RMSD} = \sqrt{\sum_i w_i \left|r_i - r_c - R (r_i^\mathrm{ref} - r_c^\mathrm{ref})\right|^2},
    \qquad \sum_i w_i = 1$$

    $R$ is the proper rotation that makes $\sum_i u_i |\dots|^2$ smallest, and both centres $r_c$ are taken with the same
    weights $u_i$ (``fit_weights``). The standard distance from a known structure; with several references it returns one
    value for each. Give ``fit_weights`` where one part is to be laid on the reference and the displacement of another is
    of interest, such as a ligand in the frame of its pocket. At zero deviation the derivative does not exist, and the
    force is taken as zero.

    Args:
        atoms: the points in the order of their bonds (each goes to the periodic image nearest to the one before).
        reference: positions in the same order [length]; shape (k, 3), or (m, k, 3) for m references.
        weights: of the deviations: 1 for equal weights, one number for each point, or None for the masses (from the
            engine).
        fit_weights: of the superposition, likewise; ``"same"`` for those of the deviations.
        align: False to compare as it lies, after moving the centres together.

    Raises:
        InvalidInputError: if the reference or the weights do not fit the atoms.

    Example:
        >>> import jax.numpy as jnp
        >>> import numpy as np
        >>> from pysamp import Cell
        >>> from pysamp.colvars import RMSD
        >>> reference = np.array([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [1.0, 1.0, 0.0], [1.0, 1.0, 1.0]])
        >>> turned = jnp.asarray(reference[:, [1, 2, 0]] + 5.0)
        >>> print(f"{RMSD([4, 6, 8, 14], reference)(turned, Cell()):.5f}")
        0.00000

    References:
        Kabsch, Acta Crystallogr. A 32, 922 (1976), doi 10.1107/S0567739476001873;
        Coutsias, Seok & Dill, J. Comput. Chem. 25, 1849 (2004), doi 10.1002/jcc.20110 (quaternions and derivatives).
    """

    atoms: type_of_points = eqx.field(static=True)
    reference: Float[np.ndarray, "*m k 3"]
    weights: Float[np.ndarray, " k"] | None
    fit_weights: Float[np.ndarray, " k"] | None
    together: bool = eqx.field(static=True)
    align: bool = eqx.field(static=True)
    unit: ClassVar[str] = "length"

    def __init__(
        self, atoms: Any, reference: Any, *, weights: Any = 1.0, fit_weights: Any = "same", align: bool = True
    ):
        self.atoms = as_points(atoms)
        self.reference = as_structures(reference, len(self.atoms), "The reference")
        self.weights, self.fit_weights, self.together = as_both_weights(weights, fit_weights, len(self.atoms))
        self.align = bool(align)

    def __call__(self, x: Float[Array, "k 3"], cell: Cell) -> Float[Array, "..."]:
        """One deviation, or one for each reference."""
        references = self.reference.reshape(-1, *self.reference.shape[-2:])
        deviations = sqrt(self.mean_square_deviations(x, cell, references))
        return deviations if self.component_names else deviations[0]

    @property
    def component_names(self) -> tuple[str, ...]:
        """Numbers of the references, counted from 0, if several were given."""
        return () if self.reference.ndim == 2 else tuple(str(i) for i in range(len(self.reference)))

    @property
    def invariances(self) -> frozenset[str]:
        """Without superposition it is not invariant to rotation."""
        return frozenset({"translation", "image"} | ({"rotation"} if self.align else set()))


class DistanceRMSD(AbstractCV):
    r"""Root mean square deviation of the distances between points from those in a reference (dRMSD) [length].

    $$\mathrm{dRMSD} = \sqrt{\frac{1}{n} \sum_{i<j} \left(|r_{ij}| - |r_{ij}^\mathrm{ref}|\right)^2}$$

    over the $n$ pairs whose distance in the reference is between ``lower`` and ``upper``. It needs no superposition, so that
    flexible parts do not disturb the rest; it does not tell a structure from its mirror image. Every distance is that of the
    nearest images.

    Args:
        atoms: the points, indices or Groups.
        reference: positions in the same order [length], shape (k, 3), whole.
        lower: shortest distance that counts, in the reference [length].
        upper: longest distance that counts, in the reference [length].

    Raises:
        InvalidInputError: if the reference does not fit the atoms, or no pair is left.

    Example:
        >>> import jax.numpy as jnp
        >>> from pysamp import Cell
        >>> from pysamp.colvars import DistanceRMSD
        >>> drmsd = DistanceRMSD([0, 1], [[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
        >>> print(drmsd(jnp.array([[0.0, 0.0, 0.0], [0.0, 0.0, 3.0]]), Cell()))
        2.0
    """

    atoms: type_of_points = eqx.field(static=True)
    distances: Float[np.ndarray, "k k"]
    pair_weights: Float[np.ndarray, "k k"]
    unit: ClassVar[str] = "length"
    invariances: ClassVar[frozenset[str]] = frozenset({"translation", "rotation", "image"})

    def __init__(self, atoms: Any, reference: Any, *, lower: Any = 0.0, upper: Any = np.inf):
        self.atoms = as_points(atoms)
        positions = as_structures(reference, len(self.atoms), "The reference")
        if positions.ndim != 2:
            raise InvalidInputError(f"DistanceRMSD needs one reference, got an array of shape {positions.shape}.")
        self.distances = np.linalg.norm(positions[:, None] - positions[None], axis=-1)
        inside = (self.distances >= as_array(lower)) & (self.distances <= as_array(upper))
        counted = np.triu(inside, k=1)
        if not counted.any():
            raise InvalidInputError(f"No pair of the reference has a distance between {lower} and {upper}.")
        self.pair_weights = counted / counted.sum()

    def __call__(self, x: Float[Array, "k 3"], cell: Cell) -> Float[Array, ""]:
        """Over all pairs of points, of which those that do not count have no weight."""
        distances, weights = (jnp.asarray(p, dtype=x.dtype) for p in (self.distances, self.pair_weights))
        difference = norm(cell.displacement(x[:, None], x[None])) - distances
        return sqrt(jnp.sum(weights * difference * difference))


class EigenvectorProjection(AbstractCV):
    r"""Projection of the displacement from a reference structure on directions of motion, after superposition [length].

    $$p_\alpha = \sum_i v_{\alpha i} \cdot \left[R^T (r_i - r_c) - (r_i^\mathrm{ref} - r_c^\mathrm{ref})\right]$$

    with the rotation $R$ and the centres of :class:`~pysamp.colvars.RMSD`. The directions $v_\alpha$ are used as they are
    given: eigenvectors of a covariance matrix of positions (of unit length) make it the Cartesian principal components, and
    normal modes or the difference of two structures do as well.

    Args:
        atoms: the points in the order of their bonds (each goes to the periodic image nearest to the one before).
        reference: positions of the average structure [length], shape (k, 3).
        vectors: directions, shape (k, 3), or (m, k, 3) for m of them and as many components.
        fit_weights: of the superposition: 1 for equal weights, one number for each point, or None for the masses (from the
            engine).

    Raises:
        InvalidInputError: if the reference, vectors or weights do not fit the atoms.

    Example:
        >>> import jax.numpy as jnp
        >>> import numpy as np
        >>> from pysamp import Cell
        >>> from pysamp.colvars import EigenvectorProjection
        >>> average = np.array([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
        >>> breathing = EigenvectorProjection([0, 1, 2, 3], average, 0.1 * (average - average.mean(axis=0)))
        >>> print(f"{breathing(jnp.asarray(2.0 * average), Cell()):.3f}")
        0.225

    References:
        Amadei, Linssen & Berendsen, Proteins 17, 412 (1993), doi 10.1002/prot.340170408.
    """

    atoms: type_of_points = eqx.field(static=True)
    reference: Float[np.ndarray, "k 3"]
    vectors: Float[np.ndarray, "*m k 3"]
    fit_weights: Float[np.ndarray, " k"] | None
    unit: ClassVar[str] = "length"
    invariances: ClassVar[frozenset[str]] = frozenset({"translation", "rotation", "image"})

    def __init__(self, atoms: Any, reference: Any, vectors: Any, *, fit_weights: Any = 1.0):
        self.atoms = as_points(atoms)
        self.reference = as_structures(reference, len(self.atoms), "The reference")
        if self.reference.ndim != 2:
            raise InvalidInputError(f"EigenvectorProjection needs one reference, got shape {self.reference.shape}.")
        self.vectors = as_structures(vectors, len(self.atoms), "vectors")
        self.fit_weights = as_weights(fit_weights, len(self.atoms), "fit_weights")

    def __call__(self, x: Float[Array, "k 3"], cell: Cell) -> Float[Array, "..."]:
        """One projection, or one on each vector."""
        weights = known(self.fit_weights, self, x)
        weights = weights / jnp.sum(weights)
        x = centred(made_whole(x, cell), weights)
        reference = centred(jnp.asarray(self.reference, dtype=x.dtype), weights)
        displacement = rotate(inverse(quaternion(x, reference, weights)), x) - reference
        vectors = jnp.asarray(self.vectors, dtype=x.dtype)
        displacement = displacement if self.vectors.ndim == 2 else displacement[None]
        return jnp.sum(vectors * displacement, axis=(-2, -1))

    def resolved(self, system: System) -> "EigenvectorProjection":
        """With the masses of the points, where they are asked for."""
        return with_masses(self, system, lambda cv: cv.fit_weights)

    @property
    def component_names(self) -> tuple[str, ...]:
        """Numbers of the vectors, counted from 0, if several were given."""
        return () if self.vectors.ndim == 2 else tuple(str(i) for i in range(len(self.vectors)))
