r"""The radial distribution function, and the entropy that it stands for.

Notation: $N_A$ centres, and neighbours of number density $\rho$; $r_{ij}$ is the distance between nearest images, so nothing
beyond half the box means anything.
"""

import abc
import math
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..errors import InvalidInputError
from ..snapshot import Cell
from ..units import as_float
from ._groups import AbstractNeighborCV, arranged, type_of_range
from ._neighbors import NeighborList
from ._vectors import volume
from .base import type_of_points
from .coordination import length

__all__ = ["PairEntropy", "RadialDistribution"]

_TAIL = 7.0  # widths at which the kernel, exp(-24.5), is cut off


class AbstractRadial(AbstractNeighborCV):
    """Base class of CVs of the distribution of distances; the range is divided into bins."""

    r_max: eqx.AbstractVar[float]
    n_bins: eqx.AbstractVar[int]
    sigma: eqx.AbstractVar[float]
    density: eqx.AbstractVar[float | None]

    @abc.abstractmethod
    def __call__(self, x: Float[Array, "k 3"], cell: Cell, lists: Sequence[NeighborList] = ()) -> Float[Array, "..."]:
        """The value."""

    @property
    def reach(self) -> float:
        """Where the kernel of the farthest bin has vanished."""
        return self.r_max + _TAIL * self.sigma

    def density_of(self, cell: Cell) -> Any:
        """Number density of the neighbours: as given, else from the box [1/length^3].

        Raises:
            InvalidInputError: if it is not given and there is no box.
        """
        if self.density is not None:
            return self.density
        if cell.box is None:
            raise InvalidInputError(
                f"Without a periodic box {type(self).__name__} needs the number density of the neighbours, density=..."
            )
        return (self.neighbors[1] - self.neighbors[0]) / volume(jnp.asarray(cell.box))


class PairEntropy(AbstractRadial):
    r"""Two-body entropy per particle, in units of Boltzmann's constant [1].

    $$S_2 = -2\pi\rho \int_0^{r_\text{max}} [g(r) \ln g(r) - g(r) + 1]\, r^2\, dr, \qquad g(r) = \frac{1}{4\pi r^2 \rho N_A}
    \sum_i \sum_{j \ne i} \frac{e^{-(r - r_{ij})^2 / 2\sigma^2}}{\sqrt{2\pi}\, \sigma}$$

    It is zero for an ideal gas and the more negative the more order there is, whatever its symmetry: a crystal can be grown
    with it, together with the enthalpy, without saying which. The trapezoidal rule integrates.

    The cost is that of the pairs within $r_\text{max} + 7 \sigma$, times the number of bins.

    Args:
        atoms: the particles, indices or Groups.
        others: the neighbours; None for the same.
        r_max: end of the integral [length].
        sigma: width of the kernel [length], a tenth of the width of the first peak or so: narrower is noise.
        n_bins: number of intervals; None for 1.5 per sigma.
        density: number density of the neighbours [1/length^3]; None for their number over the volume of the box.

    Raises:
        InvalidInputError: unless there are two particles and the numbers are positive; at evaluation, without a box and a
            density.

    Example:
        >>> import jax.numpy as jnp
        >>> from pysamp import Cell
        >>> from pysamp.colvars import PairEntropy
        >>> entropy = PairEntropy(range(27), r_max=1.4, sigma=0.1)
        >>> cube = jnp.stack(jnp.meshgrid(*[jnp.arange(3.0)] * 3), axis=-1).reshape(-1, 3)
        >>> print(f"{entropy(cube, Cell.of(3 * jnp.eye(3))):.2f}")
        -1.55

    References:
        Piaggi, Valsson & Parrinello, Phys. Rev. Lett. 119, 015701 (2017), doi 10.1103/PhysRevLett.119.015701.
    """

    atoms: type_of_points = eqx.field(static=True)
    centers: type_of_range = eqx.field(static=True)
    neighbors: type_of_range = eqx.field(static=True)
    r_max: float = eqx.field(static=True)
    n_bins: int = eqx.field(static=True)
    sigma: float = eqx.field(static=True)
    density: float | None = eqx.field(static=True)

    def __init__(
        self, atoms: Any, others: Any = None, *, r_max: Any, sigma: Any, n_bins: Any = None, density: Any = None
    ):
        self.atoms, self.centers, self.neighbors = arranged(atoms, others)
        name = type(self).__name__
        self.r_max, self.sigma = _positive(name, "r_max", r_max), _positive(name, "sigma", sigma)
        self.n_bins = _whole(name, math.ceil(1.5 * self.r_max / self.sigma) if n_bins is None else n_bins)
        self.density = None if density is None else _positive(name, "density", density)

    def __call__(self, x: Float[Array, "k 3"], cell: Cell, lists: Sequence[NeighborList] = ()) -> Float[Array, ""]:
        """The integral; at its start the integrand is zero."""
        r = self.r_max * np.arange(1, self.n_bins + 1) / self.n_bins
        weights = r**2 * np.where(r < r[-1], 1.0, 0.5) * self.r_max / self.n_bins

        def term(d: Any, own: Any, other: Any) -> Any:
            apart = (length(d)[None] - _first_axis(r, d)) / self.sigma
            return jnp.exp(-0.5 * apart * apart)

        sums = self.pairs(x, cell, lists).total(term, parity=1)
        density = self.density_of(cell)
        norm = math.sqrt(2 * math.pi) * self.sigma * 4 * math.pi * self.n_centers * r**2
        g = sums / jnp.asarray(norm, x.dtype) / density
        populated = g > jnp.finfo(x.dtype).tiny
        entropy = jnp.where(populated, g * jnp.log(jnp.where(populated, g, 1.0)), 0.0) - g + 1.0
        return -2 * math.pi * density * jnp.sum(jnp.asarray(weights, x.dtype) * entropy)


class RadialDistribution(AbstractRadial):
    r"""Radial distribution function g(r) in bins with soft edges, a CV with one component for each.

    $$g_k = \frac{3}{4\pi (b_k^3 - a_k^3)\, \rho N_A} \sum_i \sum_{j \ne i} \int_{a_k}^{b_k} \frac{e^{-(r - r_{ij})^2 /
    2\sigma^2}}{\sqrt{2\pi}\, \sigma}\, dr$$

    Each pair counts as one, spread over the bins $[a_k, b_k]$ near its distance; for narrow $\sigma$ it is the usual
    histogram. Choose it to bias towards a measured g(r), or as what a function or network looks at.

    Args:
        atoms: the centres, indices or Groups.
        others: the neighbours; None for the same.
        r_max: end of the last bin [length]; the first begins at 0.
        n_bins: number of bins.
        sigma: softness of their edges [length]; None for half the width of a bin.
        density: number density of the neighbours [1/length^3]; None for their number over the volume of the box.

    Raises:
        InvalidInputError: unless there are two particles and the numbers are positive; at evaluation, without a box and a
            density.

    Example:
        >>> import jax.numpy as jnp
        >>> from pysamp import Cell
        >>> from pysamp.colvars import RadialDistribution
        >>> distribution = RadialDistribution(range(27), r_max=1.5, n_bins=5, sigma=0.01)
        >>> cube = jnp.stack(jnp.meshgrid(*[jnp.arange(3.0)] * 3), axis=-1).reshape(-1, 3)
        >>> print(distribution(cube, Cell.of(3 * jnp.eye(3))).round(2))
        [0.   0.   0.   1.43 1.74]
        >>> distribution.component_names
        ('0.15', '0.45', '0.75', '1.05', '1.35')
    """

    atoms: type_of_points = eqx.field(static=True)
    centers: type_of_range = eqx.field(static=True)
    neighbors: type_of_range = eqx.field(static=True)
    r_max: float = eqx.field(static=True)
    n_bins: int = eqx.field(static=True)
    sigma: float = eqx.field(static=True)
    density: float | None = eqx.field(static=True)

    def __init__(
        self, atoms: Any, others: Any = None, *, r_max: Any, n_bins: Any, sigma: Any = None, density: Any = None
    ):
        self.atoms, self.centers, self.neighbors = arranged(atoms, others)
        name = type(self).__name__
        self.r_max, self.n_bins = _positive(name, "r_max", r_max), _whole(name, n_bins)
        self.sigma = 0.5 * self.r_max / self.n_bins if sigma is None else _positive(name, "sigma", sigma)
        self.density = None if density is None else _positive(name, "density", density)

    @property
    def edges(self) -> Float[np.ndarray, " m"]:
        """Edges of the bins [length]."""
        return np.linspace(0.0, self.r_max, self.n_bins + 1)

    @property
    def component_names(self) -> tuple[str, ...]:
        """The middles of the bins."""
        return tuple(f"{r:.6g}" for r in 0.5 * (self.edges[1:] + self.edges[:-1]))

    def __call__(self, x: Float[Array, "k 3"], cell: Cell, lists: Sequence[NeighborList] = ()) -> Float[Array, " m"]:
        """The bins, from the numbers of pairs below each edge."""
        edges = self.edges

        def term(d: Any, own: Any, other: Any) -> Any:
            return 0.5 * jax.lax.erfc((length(d)[None] - _first_axis(edges, d)) / (math.sqrt(2) * self.sigma))

        below = self.pairs(x, cell, lists).total(term, parity=1)
        volumes = 4 * math.pi / 3 * np.diff(edges**3)
        expected = jnp.asarray(volumes * self.n_centers, x.dtype) * self.density_of(cell)
        return (below[1:] - below[:-1]) / expected


def _positive(name: str, what: str, value: Any) -> float:
    number = float(as_float(value))
    if not 0 < number < math.inf:
        raise InvalidInputError(f"{name} needs a positive, finite {what}, got {number}.")
    return number


def _whole(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise InvalidInputError(f"{name} needs a positive whole number of n_bins, got {value!r}.")
    return int(value)


def _first_axis(values: Float[np.ndarray, " m"], d: Any) -> Any:
    return jnp.asarray(values.reshape(-1, *(1,) * d[0].ndim), d[0].dtype)
