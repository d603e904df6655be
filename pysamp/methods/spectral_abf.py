"""Adaptive biasing force with a mean force that is a series: a smooth bias that is the gradient of a potential."""

import functools
import math
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jaxtyping import Array, Float, Int

from ..colvars.base import AbstractCV
from ..errors import InvalidInputError
from ..grids import Grid
from ..units import as_positive
from .base import as_cvs, as_stride, check_grid
from .fitted_force import AbstractFittedForce

__all__ = ["SpectralABF"]

_CONFIDENCE = 0.9  # in the last fit, where there are no samples yet
_MOST_MODES = 24
_LEAST_BINS = 4


class SpectralABF(AbstractFittedForce):
    r"""Adaptive biasing force whose mean force is a Fourier or Chebyshev series, fitted during the run.

    The free energy is written as a series in one to three CVs,

    $$A(\xi) = \sum_{j_1 \ldots j_n} c_{j_1 \ldots j_n} \prod_d \phi_{j_d}(\xi_d),$$

    with Fourier modes $\phi_j$ on periodic axes and Chebyshev polynomials on the others. Force samples are collected in the
    bins of a grid as in :class:`ABF`. Every ``fit_every`` steps the coefficients are fitted, by least squares, so that
    $-\partial A / \partial \xi$ meets the average force $\langle F \rangle_b$ in every bin b,

    $$\min_c \sum_b \sum_d L_d^2 \left( \langle F_d \rangle_b + \frac{\partial A}{\partial \xi_d}(\xi_b) \right)^2,$$

    where $L_d$ is the length of an axis. In a bin with $N_b < N_\mathrm{full}$ samples the share $1 - N_b / N_\mathrm{full}$
    of the average is missing; nine tenths of what the last fit says stand in for it. So the fit extends a little beyond the
    places visited, and no single sample moves it much. The bias potential is $V = -A$, tabulated at the bins' edges and
    interpolated by cubic convolution: bias energy and force are continuous, the force is the exact gradient of the energy, and
    what a step costs does not depend on the number of modes. Outside a non-periodic axis the bias is that of the nearest point
    on its boundary, and nothing is sampled.

    Choose it instead of :class:`ABF` when a smooth bias or a bias energy is wanted (Monte Carlo barostats), or when samples are
    so dear that a neighbour's should count; its bias is good where ABF still averages noise bin by bin. The free energy
    that ``analyze`` gives is that of the samples in the bins, which no truncation of the series can falsify.

    Args:
        cvs: collective variables, one or a list of up to three; periodic and non-periodic ones mix.
        grid: the bins, at least four on an axis.
        fit_every: steps between fits.
        n_modes: highest frequency or degree, one number or one per CV; at most half the bins less one. None for a quarter of
            the bins on a periodic axis and twice their square root on others (more would follow the noise at the ends),
            and at most 24.
        full_samples: samples in a bin from which on its average counts fully.
        kT: thermal energy [energy], only needed if the engine's integrator has none.

    Raises:
        InvalidInputError: if the grid does not fit the CVs, there are more than three, or numbers are out of their range.

    Example:
        >>> import math
        >>> import pysamp
        >>> from pysamp.colvars import DihedralAngle
        >>> from pysamp.methods import SpectralABF
        >>> grid = pysamp.Grid(-math.pi, math.pi, 50, periodic=True)
        >>> SpectralABF(DihedralAngle([4, 6, 8, 14]), grid=grid).n_modes
        (12,)

    References:
        Zubieta Rico & de Pablo, arXiv:2202.01876 (2022), doi 10.48550/arXiv.2202.01876.
        Darve, Rodriguez-Gomez & Pohorille, J. Chem. Phys. 128, 144120 (2008), doi 10.1063/1.2829861.
    """

    cvs: tuple[AbstractCV, ...]
    grid: Grid
    fit_every: Int[np.ndarray, ""]
    n_modes: tuple[int, ...] = eqx.field(static=True)
    full_samples: Int[np.ndarray, ""]
    kT: Float[np.ndarray, ""] | None

    def __init__(
        self,
        cvs: Any,
        *,
        grid: Grid,
        fit_every: int = 500,
        n_modes: int | Sequence[int] | None = None,
        full_samples: int = 200,
        kT: Any = None,
    ):
        self.cvs = as_cvs(cvs)
        self.grid = grid
        self.fit_every = as_stride(fit_every, "fit_every")
        self.full_samples = as_stride(full_samples, "full_samples")
        self.kT = None if kT is None else as_positive(kT, "kT")
        check_grid(grid, self)
        if n_modes is None:
            self.n_modes = tuple(_default_modes(n, p) for n, p in zip(grid.shape, grid.periodic, strict=True))
        else:
            numbers = np.atleast_1d(np.asarray(n_modes))
            if numbers.shape not in {(1,), (grid.n_dims,)}:
                raise InvalidInputError(f"n_modes must be one number or {grid.n_dims}, one per CV; got {n_modes!r}.")
            self.n_modes = tuple(int(as_stride(n, "n_modes")) for n in np.broadcast_to(numbers, (grid.n_dims,)))

    def __check_init__(self):
        if self.n_cvs > 3:
            raise InvalidInputError(
                f"SpectralABF takes one to three CVs, got {self.n_cvs}: the number of modes grows too fast. Take fewer."
            )
        for n_bins, n_modes, label in zip(self.grid.shape, self.n_modes, self.labels, strict=True):
            if n_bins < _LEAST_BINS:
                raise InvalidInputError(f"SpectralABF needs at least {_LEAST_BINS} bins for {label}, got {n_bins}.")
            if n_modes > max((n_bins - 1) // 2, 1):
                raise InvalidInputError(
                    f"{n_modes} modes for {label} are too many for {n_bins} bins: at most {max((n_bins - 1) // 2, 1)}."
                )

    @property
    def interval(self) -> Int[Array | np.ndarray, ""]:
        """Steps between fits."""
        return self.fit_every

    def first_fit(self) -> Float[np.ndarray, " modes"]:
        """Coefficients of zero."""
        return np.zeros(math.prod(len(basis.stiffness) for basis in self._bases()))

    def _bases(self) -> tuple["_Basis", ...]:
        grid = self.grid
        return tuple(_basis(*axis) for axis in zip(grid.shape, self.n_modes, grid.periodic, strict=True))

    def fitted(
        self, sums: Float[Array, "bins blocks n_plus_1"], fit: Float[Array, " modes"], kT: Float[Array | np.ndarray, ""]
    ) -> tuple[Float[Array, " modes"], Float[Array, " nodes"]]:
        """Coefficients one fit further, and the bias at the nodes.

        Axes are measured in units of their length. In the bases that :func:`_basis` makes, the matrix of the normal equations
        is diagonal. To fill in what is missing from the last fit is an iteration towards the weighted fit.
        """
        del kT
        grid, bases = self.grid, self._bases()
        total = jnp.sum(sums, axis=1).reshape(*grid.shape, -1)
        counts = total[..., -1]
        missing = _CONFIDENCE * jnp.maximum(0.0, 1.0 - counts / self.full_samples)
        fitted = fit.reshape([len(basis.stiffness) for basis in bases])
        right = jnp.zeros_like(fitted)
        for d in range(grid.n_dims):
            factors = [basis.slopes if e == d else basis.means for e, basis in enumerate(bases)]
            length = grid.upper[d] - grid.lower[d]
            measured = -length * total[..., d] / jnp.maximum(counts, self.full_samples)
            target = measured + missing * _product(fitted, factors)
            right = right + _product(target, [factor.T for factor in factors])
        stiffness = functools.reduce(np.add.outer, [basis.stiffness for basis in bases])
        stiffness[(0,) * grid.n_dims] = np.inf  # the constant
        fitted = right / stiffness
        return fitted.reshape(-1), -_product(fitted, [basis.nodes for basis in bases]).reshape(-1)


class _Basis:
    """Orthonormal functions of one axis of unit length, whose slopes are orthogonal too.

    Attributes:
        means: average of each function over each bin.
        slopes: average of its derivative.
        stiffness: sum of squares of the slopes; 0 for the first function, which is constant.
        nodes: its values at the nodes of the table.
    """

    def __init__(self, n_bins: int, n_modes: int, periodic: bool):
        edges = np.arange(n_bins + 1) / n_bins
        # Gauss-Legendre within the bins
        points, weights = np.polynomial.legendre.leggauss(5)
        inner = (np.arange(n_bins)[:, None] + 0.5 * (points + 1.0)) / n_bins
        means = np.tensordot(_functions(inner, n_modes, periodic), 0.5 * weights, axes=(1, 0))
        slopes = np.diff(_functions(edges, n_modes, periodic), axis=0) * n_bins
        self.stiffness, vectors = scipy.linalg.eigh(slopes.T @ slopes, means.T @ means)
        self.stiffness[0] = 0.0
        self.means, self.slopes = means @ vectors, slopes @ vectors
        self.slopes[:, 0] = 0.0
        at_edges = _functions(edges, n_modes, periodic) @ vectors
        if periodic:
            before, after = at_edges[-2], at_edges[1]
        else:  # polynomials grow fast beyond their interval
            before, after = (3.0 * (a - b) + c for a, b, c in (at_edges[:3], at_edges[:-4:-1]))
        self.nodes = np.concatenate([before[None], at_edges, after[None]])


_basis = functools.lru_cache(maxsize=64)(_Basis)


def _functions(t: Float[np.ndarray, "*b"], n_modes: int, periodic: bool) -> Float[np.ndarray, "*b m"]:
    """Fourier modes or Chebyshev polynomials on [0, 1], the constant first; the last axis of ``t`` comes before them."""
    if not periodic:
        values = np.polynomial.chebyshev.chebvander(2.0 * t - 1.0, n_modes)
    else:
        angles = 2.0 * np.pi * t[..., None] * np.arange(1, n_modes + 1)
        values = np.concatenate([np.ones((*t.shape, 1)), np.cos(angles), np.sin(angles)], axis=-1)
    return values


def _default_modes(n_bins: int, periodic: bool) -> int:
    most = max((n_bins - 1) // 2, 1)
    return max(1, min(n_bins // 4 if periodic else int(2.0 * np.sqrt(n_bins)), most, _MOST_MODES))


def _product(array: Float[Array, "..."], factors: Sequence[Float[np.ndarray, "_ _"]]) -> Float[Array, "..."]:
    """Each axis of an array multiplied by a matrix of its own."""
    for d, factor in enumerate(factors):
        array = jnp.moveaxis(jnp.tensordot(factor, array, axes=(1, d)), 0, d)
    return array
