r"""How like those of a crystal the surroundings of particles are, orientation included."""

import math
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..errors import InvalidInputError
from ..snapshot import Cell, _dot
from ..units import as_array, as_float
from ._groups import AbstractParticleCV, arranged, type_of_range
from ._neighbors import NeighborList
from .base import type_of_points
from .coordination import as_switch
from .switching import AbstractSwitch

__all__ = ["EnvironmentSimilarity"]

type_of_environment = tuple[tuple[float, float, float], ...]

_TAIL = 10.0  # widths beyond the longest vector at which the kernel, exp(-25), is cut off


class EnvironmentSimilarity(AbstractParticleCV):
    r"""How like a reference environment the surroundings of each particle are, averaged over particles.

    $$\xi = \frac{1}{N} \sum_i k_i, \qquad k_i = \frac{1}{n} \sum_{j \ne i} \sum_{e=1}^{n} \exp\left(-\frac{|r_{ij} -
    r_e|^2}{4 \sigma^2}\right)$$

    with the vectors $r_{ij}$ to the neighbours of particle i and the n vectors $r_e$ of the reference. It is 1 for a crystal
    of that structure, lattice constant *and orientation*, so grow a crystal along a chosen direction with it. With ``above``,
    the fraction of particles whose $k_i$ is above a threshold, it counts crystalline particles.

    A crystal whose sites have different environments (hcp, diamond, ice) needs all M of them; then

    $$k_i = \frac{1}{\lambda} \ln \left[\frac{1}{M} \sum_{m=1}^{M} e^{\lambda k_i^m}\right]$$

    is about the largest. (PLUMED leaves out the factor 1/M, which adds $\ln M / \lambda$.)

    Args:
        atoms: the particles, indices or Groups.
        neighbors: those among which neighbours are sought; None for the same.
        environments: the vectors to the neighbours of the reference, n rows of three, or a list of such arrays [length].
        sigma: how far a neighbour may be from its place [length].
        lam: sharpness $\lambda$ of the maximum over several environments, such as 100.
        above: a switching function of the particles' values, to count the fraction of those above instead of taking the
            mean.

    Raises:
        InvalidInputError: unless there are two particles and environments of finite vectors, and the numbers are positive.

    Example:
        >>> import jax.numpy as jnp
        >>> from pysamp import Cell
        >>> from pysamp.colvars import EnvironmentSimilarity
        >>> axes = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
        >>> simple_cubic = EnvironmentSimilarity(range(27), environments=axes + [[-a for a in v] for v in axes], sigma=0.1)
        >>> cube = jnp.stack(jnp.meshgrid(*[jnp.arange(3.0)] * 3), axis=-1).reshape(-1, 3)
        >>> print(f"{simple_cubic(cube, Cell.of(3 * jnp.eye(3))):.3f}")
        1.000

    References:
        Piaggi & Parrinello, J. Chem. Phys. 150, 244119 (2019), doi 10.1063/1.5102104.
    """

    atoms: type_of_points = eqx.field(static=True)
    centers: type_of_range = eqx.field(static=True)
    neighbors: type_of_range = eqx.field(static=True)
    environments: tuple[type_of_environment, ...] = eqx.field(static=True)
    sigma: float = eqx.field(static=True)
    lam: float | None = eqx.field(static=True)
    above: AbstractSwitch | None = eqx.field(static=True)

    def __init__(
        self, atoms: Any, neighbors: Any = None, *, environments: Any, sigma: Any, lam: Any = None, above: Any = None
    ):
        self.atoms, self.centers, self.neighbors = arranged(atoms, neighbors)
        self.environments, self.sigma = _as_environments(environments), float(as_float(sigma))
        self.lam = None if lam is None else float(as_float(lam))
        self.above = None if above is None else as_switch(above, "above")
        if len(self.environments) > 1 and self.lam is None:
            raise InvalidInputError(f"{len(self.environments)} environments need lam, such as lam=100; got None.")
        for name, value in (("sigma", self.sigma), ("lam", 1.0 if self.lam is None else self.lam)):
            if not 0 < value < math.inf:
                raise InvalidInputError(f"EnvironmentSimilarity needs a positive, finite {name}, got {value}.")

    @property
    def reach(self) -> float:
        """Where the kernel has vanished for all vectors of the environments."""
        return max(math.hypot(*v) for vectors in self.environments for v in vectors) + _TAIL * self.sigma

    @property
    def invariances(self) -> frozenset[str]:
        """Translation and images; within one group also permutation."""
        return super().invariances - {"rotation"}

    def of_particles(self, x: Float[Array, "k 3"], cell: Cell, lists: Sequence[NeighborList]) -> Float[Array, " n"]:
        """The similarity of each particle."""

        def term(d: Any, own: Any, other: Any) -> Any:
            return tuple(self._similarity(d, vectors) for vectors in self.environments)

        symmetric = all(_is_symmetric(vectors) for vectors in self.environments)
        parity = (1,) * len(self.environments) if symmetric else None
        values = self.pairs(x, cell, lists).sums(term, parity=parity)
        if len(values) == 1:
            return values[0]
        lam = jnp.asarray(self.lam, x.dtype)
        return (jax.nn.logsumexp(lam * jnp.stack(values), axis=0) - math.log(len(values))) / lam

    def _similarity(self, d: Any, vectors: type_of_environment) -> Any:
        places = np.asarray(vectors).T.reshape(3, -1, *(1,) * d[0].ndim)
        apart = [v[None] - jnp.asarray(place, v.dtype) for v, place in zip(d, places, strict=True)]
        return jnp.sum(jnp.exp(-_dot(apart, apart) / (4.0 * self.sigma**2)), axis=0) / len(vectors)


def _as_environments(value: Any) -> tuple[type_of_environment, ...]:
    items = list(value) if isinstance(value, list | tuple) else [value]
    several = items if items and np.ndim(items[0]) == 2 else [value]
    result = []
    for item in several:
        vectors = as_array(item)
        if vectors.ndim != 2 or vectors.shape[1] != 3 or not len(vectors) or not np.isfinite(vectors).all():
            raise InvalidInputError(
                f"environments must be the vectors to the neighbours, an array of shape (n, 3), or a list of such arrays; "
                f"got one of shape {vectors.shape}."
            )
        result.append(tuple((float(x), float(y), float(z)) for x, y, z in vectors))
    return tuple(result)


def _is_symmetric(vectors: type_of_environment) -> bool:
    """Whether each vector has its opposite, so that the similarity is the same for opposite neighbours."""
    return sorted(vectors) == sorted((-x, -y, -z) for x, y, z in vectors)
