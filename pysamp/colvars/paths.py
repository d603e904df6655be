r"""Progress along a path of reference points, and distance from it.

With the squared distances $d_k$ from the nodes $k = 1 \dots M$ of the path,

$$s = \frac{\sum_k v_k\, e^{-\lambda d_k}}{\sum_k e^{-\lambda d_k}}, \qquad z = -\frac{1}{\lambda} \ln \sum_k e^{-\lambda d_k}.$$

The progress $s$ is a mean of the values $v_k$ of the nodes near by, their numbers $1 \dots M$ unless others are given; $z$ is
about the squared distance from the path, and may be negative between nodes.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..errors import InvalidInputError
from ..snapshot import Cell
from ..units import as_array, as_positive
from ._neighbors import NeighborList
from .base import AbstractComposite, AbstractCV, as_parts, as_points, difference, features, type_of_points
from .rmsd import AbstractSuperposed, as_both_weights, as_structures

__all__ = ["Path", "RMSDPath"]

_OVERLAP = 2.3  # lambda times the mean squared distance of neighbours: each then has a tenth of its neighbour's weight


def progress(
    squares: Float[Array, " m"], values: Float[Array | np.ndarray, " m"], lam: Float[Array | np.ndarray, ""]
) -> Float[Array, "2"]:
    """The pair (s, z), of the squared distances from the nodes."""
    along, lam = (jnp.asarray(p, dtype=squares.dtype) for p in (values, lam))
    least = jax.lax.stop_gradient(jnp.min(squares))
    weights = jnp.exp(-lam * (squares - least))  # once for both
    total = jnp.sum(weights)
    return jnp.stack([jnp.sum(along * weights) / total, least - jnp.log(total) / lam])


def _values(values: Any, n_nodes: int) -> Float[np.ndarray, " m"]:
    if n_nodes < 2:
        raise InvalidInputError(f"A path needs two nodes or more, got {n_nodes}.")
    array = np.arange(1.0, n_nodes + 1) if values is None else as_array(values)
    if array.shape != (n_nodes,) or not np.isfinite(array).all():
        raise InvalidInputError(f"values must be {n_nodes} finite numbers, one for each node; got {values!r}.")
    return array


def _lam(lam: Any, squares_of_neighbours: Float[np.ndarray, " _"]) -> Float[np.ndarray, ""]:
    if lam is not None:
        return as_positive(lam, "lam")
    mean = squares_of_neighbours.mean()
    if not mean > 0:
        raise InvalidInputError("All nodes of the path are the same.")
    return np.asarray(_OVERLAP / mean)


class Path(AbstractComposite):
    r"""Progress $s$ along a path in the space of other CVs, and distance $z$ from it; two components.

    $$d_k = \sum_i \left(\frac{\xi_i - \xi_i^{(k)}}{\sigma_i}\right)^2$$

    with the nearest image for periodic CVs. Use it for a transition that a few CVs
    describe together and a path (from a string calculation, a steered run, or a guess) is known for: bias ``path["s"]`` and
    restrain ``path["z"]``. The nodes should be about equally spaced.

    Args:
        cvs: the CVs that span the space.
        nodes: positions of the nodes, in the order of the path; shape (M, n) for n components in all.
        lam: $\lambda$; None for 2.3 over the mean squared distance of neighbours.
        scales: $\sigma_i$, one for each component or one for all, where the CVs have different units or ranges.
        values: $v_k$, one for each node; None for 1 ... M.

    Raises:
        InvalidInputError: unless there are two nodes or more with one number for each component, and the rest fits.

    Example:
        >>> import jax.numpy as jnp
        >>> from pysamp import Cell
        >>> from pysamp.colvars import Distance, Path
        >>> path = Path([Distance([0, 1]), Distance([1, 2])], [[1.0, 3.0], [1.0, 2.0], [2.0, 1.0], [3.0, 1.0]])
        >>> x = jnp.array([[0.0, 0.0, 0.0], [1.5, 0.0, 0.0], [1.5, 0.0, 0.0], [3.0, 0.0, 0.0]])  # of 0 and 1, of 1 and 2
        >>> print(f"{path['s'](x, Cell()):.2f}")
        2.50

    References:
        Branduardi, Gervasio & Parrinello, J. Chem. Phys. 126, 054103 (2007), doi 10.1063/1.2432340.
    """

    cvs: tuple[AbstractCV, ...]
    nodes: Float[np.ndarray, "m n"]
    lam: Float[np.ndarray, ""]
    scales: Float[np.ndarray, " n"]
    values: Float[np.ndarray, " m"]
    component_names: ClassVar[tuple[str, ...]] = ("s", "z")

    def __init__(self, cvs: Any, nodes: Any, *, lam: Any = None, scales: Any = 1.0, values: Any = None):
        self.cvs = as_parts(cvs, "Path")
        self.nodes = as_array(nodes)
        n = sum(cv.n_components for cv in self.cvs)
        if self.nodes.ndim != 2 or self.nodes.shape[1] != n or not np.isfinite(self.nodes).all():
            raise InvalidInputError(
                f"The nodes must be finite and of shape (M, {n}), one row for each node and one column for each component of "
                f"{', '.join(label for cv in self.cvs for label in cv.labels)}; got {self.nodes.shape}."
            )
        scales = as_array(scales)
        if scales.shape not in {(), (n,)} or not (scales > 0).all():
            raise InvalidInputError(f"scales must be one positive number or {n}, got {scales.tolist()}.")
        self.scales = np.array(np.broadcast_to(scales, (n,)))
        self.values = _values(values, len(self.nodes))
        with jax.enable_x64(True):
            self.lam = _lam(lam, np.asarray(jax.jit(lambda nodes: self.squares_of_neighbours(nodes))(self.nodes)))

    def __call__(self, x: Float[Array, "k 3"], cell: Cell, lists: Sequence[NeighborList] = ()) -> Float[Array, "2"]:
        """Progress and distance."""
        xi = features(self.parts(x, cell, lists))
        squares = self.squares(xi[None], jnp.asarray(self.nodes, dtype=xi.dtype))
        return progress(squares, self.values, self.lam)

    def squares(self, xi: Float[Array, "#m n"], nodes: Float[Array, "m n"]) -> Float[Array, " m"]:
        """Squared distances between points of the space of the CVs."""
        scales = jnp.asarray(self.scales, dtype=nodes.dtype)
        return jnp.sum((difference(xi, nodes, self.cvs) / scales[None]) ** 2, axis=-1)

    def squares_of_neighbours(self, nodes: Float[Array, "m n"]) -> Float[Array, " _"]:
        """Squared distances between successive nodes."""
        return self.squares(nodes[1:], nodes[:-1])

    @property
    def name(self) -> str:
        """Such as ``Path(Distance(0, 1), Distance(1, 2))``."""
        return f"Path({', '.join(cv.name for cv in self.cvs)})"


class RMSDPath(AbstractSuperposed):
    r"""Progress $s$ along a path of structures, and distance $z$ from it [length^2], by their mean square deviations.

    $$d_k = \mathrm{RMSD}^2\left(r, r^{(k)}\right)$$

    after the best superposition on every structure. Use it for a conformational change
    of which structures along the way are known. The structures should be about equally far from one another. Bias
    ``path["s"]`` and restrain ``path["z"]``. With other ``values`` than the numbers of the structures it is a property map: the
    value that the structures near by have.

    Args:
        atoms: the points in the order of their bonds (each goes to the periodic image nearest to the one before).
        structures: their positions along the path [length], shape (M, k, 3).
        lam: $\lambda$ [1/length^2]; None for 2.3 over the mean square deviation of neighbours.
        values: $v_k$, one for each structure; None for 1 ... M.
        weights: of the deviations: 1 for equal weights, one number for each point, or None for the masses (from the
            engine; ``lam`` must then be given).
        fit_weights: of the superposition, likewise; ``"same"`` for those of the deviations.

    Raises:
        InvalidInputError: unless there are two structures or more, and the rest fits.

    Example:
        >>> import jax.numpy as jnp
        >>> import numpy as np
        >>> from pysamp import Cell
        >>> from pysamp.colvars import RMSDPath
        >>> bent, straight = [[1.0, 0.5, 0.0], [0.0, 0.0, 0.0], [-1.0, 0.5, 0.0]], [[1.1, 0, 0], [0, 0, 0], [-1.1, 0, 0]]
        >>> path = RMSDPath([0, 1, 2], [bent, straight])
        >>> print(f"{path['s'](jnp.asarray(np.add(bent, straight) / 2), Cell()):.1f}")
        1.5

    References:
        Branduardi, Gervasio & Parrinello, J. Chem. Phys. 126, 054103 (2007), doi 10.1063/1.2432340;
        Spiwok & Kralova, J. Chem. Phys. 135, 224504 (2011), doi 10.1063/1.3660208 (property map).
    """

    atoms: type_of_points = eqx.field(static=True)
    structures: Float[np.ndarray, "m k 3"]
    lam: Float[np.ndarray, ""]
    values: Float[np.ndarray, " m"]
    weights: Float[np.ndarray, " k"] | None
    fit_weights: Float[np.ndarray, " k"] | None
    together: bool = eqx.field(static=True)
    align: ClassVar[bool] = True
    component_names: ClassVar[tuple[str, ...]] = ("s", "z")

    def __init__(
        self,
        atoms: Any,
        structures: Any,
        *,
        lam: Any = None,
        values: Any = None,
        weights: Any = 1.0,
        fit_weights: Any = "same",
    ):
        self.atoms = as_points(atoms)
        self.structures = as_structures(structures, len(self.atoms), "structures")
        if self.structures.ndim != 3:
            raise InvalidInputError(f"RMSDPath needs several structures, got one of shape {self.structures.shape}.")
        self.values = _values(values, len(self.structures))
        self.weights, self.fit_weights, self.together = as_both_weights(weights, fit_weights, len(self.atoms))
        if lam is None and (self.weights is None or self.fit_weights is None):
            raise InvalidInputError(
                "RMSDPath needs lam=... where the weights are the masses, which only the engine knows."
            )
        self.lam = _lam(lam, np.ones(1) if lam is not None else self._squares_of_neighbours())

    def __call__(self, x: Float[Array, "k 3"], cell: Cell) -> Float[Array, "2"]:
        """Progress and distance."""
        return progress(self.mean_square_deviations(x, cell, self.structures), self.values, self.lam)

    def _squares_of_neighbours(self) -> Float[np.ndarray, " _"]:
        """In NumPy, as compiling the superposition for it takes seconds."""
        own, fit = (weights / weights.sum() for weights in (self.weights, self.fit_weights) if weights is not None)
        x = self.structures - np.einsum("k,mki->mi", fit, self.structures)[:, None]
        u, _, v = np.linalg.svd(np.einsum("k,mki,mkj->mij", fit, x[1:], x[:-1]))
        u[..., -1] *= np.linalg.det(u @ v)[:, None]  # no reflection
        return np.einsum("k,mki->m", own, (x[1:] - x[:-1] @ np.swapaxes(u @ v, 1, 2)) ** 2)
