"""Umbrella sampling in one run: WHAM, umbrella integration, MBAR, and the overlap of windows."""

import math
import warnings
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float, Int
from scipy.sparse.csgraph import connected_components

from ..api import analyze
from ..errors import InvalidInputError, PysampWarning
from ..grids import Grid
from ..methods.base import check_grid, periodic_difference
from ..methods.harmonic import HarmonicBias
from ..methods.umbrella import UmbrellaSampling
from ..results import Run
from .errors import jackknife_error, statistical_inefficiency
from .free_energy import FreeEnergy, weights_of
from .integrate import GradientIntegrator
from .reweight import as_ranges
from .sampling import leave_out_units, logged_xi, method_of, n_discarded
from .static import windows_of
from .windows import Windows

__all__ = ["overlap", "reduced_potentials", "umbrella_integration"]

_LITTLE_OVERLAP = 0.03  # below it the free-energy difference of two windows is not to be trusted (Klimovich et al.)
_UNSAMPLED = np.exp(-2.0)  # expected samples in a bin below which it counts as empty
_SUBDIVISIONS = {1: 4, 2: 2}  # points per bin and axis over which a gradient is averaged


@analyze.dispatch
def _analyze_umbrella(
    method: UmbrellaSampling, run: Run, /, *, grid: Grid | None = None, discard: float | None = None
) -> FreeEnergy:
    """WHAM over the windows; a tenth is left out at the beginning, after the steps in which restraints moved.

    Warns of windows that hardly overlap with the others.
    """
    windows = umbrella_windows(run, method, discard)
    _warn(windows)
    if grid is None:
        grid = windows.default_grid()
    check_grid(grid, method)
    return windows.free_energy(grid)


def umbrella_windows(run: Run, method: UmbrellaSampling, discard: float | None) -> Windows:
    """The samples of a run, window by window."""
    xi = logged_xi(run, method)
    first = int(np.searchsorted(run.log["step"].values, int(method.pull_steps)))
    first += n_discarded(xi.shape[1] - first, discard)
    n = method.n_replicas
    if run.n_replicas % n:
        raise InvalidInputError(
            f"The run has {run.n_replicas} replicas, which are not whole sets of {n} windows; analyse the whole run."
        )
    return Windows([method.window(w) for w in range(n)], [xi[w::n, first:] for w in range(n)], run.kT, run.energy_unit)


def as_windows(runs: Run | list, discard: float | None) -> Windows:
    """The windows of a run of umbrella sampling, or of several runs under static biases."""
    if not isinstance(runs, Run):
        return windows_of(runs, None, discard)
    what = "Windows come from a run of UmbrellaSampling, or from a list of runs, one for each"
    method = method_of(runs, UmbrellaSampling, what)
    return umbrella_windows(runs, method, discard)


def overlap(runs: Run | list, *, discard: float | None = None) -> xr.DataArray:
    r"""Overlap matrix of umbrella windows.

    $$O_{ij} = \sum_s W_{is}\, n_j\, W_{js}, \qquad W_{is} = \frac{e^{f_i - v_{is}}}{\sum_k n_k e^{f_k - v_{ks}}},$$

    the probability that a sample of window i could have come from window j; its rows sum to 1. Neighbours should have 0.03 or
    more.

    Args:
        runs: a run of :class:`~pysamp.methods.UmbrellaSampling`, or a list of runs under static biases.
        discard: fraction left out at the beginning; None for a tenth.

    Returns:
        The matrix, dimensions ``window`` and ``other``.

    Raises:
        InvalidInputError: if there are no windows.
        SimulationError: if some windows share no samples with the others.

    Example:
        >>> pysamp.analysis.overlap(run).plot()  # doctest: +SKIP

    References:
        Klimovich, Shirts & Mobley, J. Comput. Aided Mol. Des. 29, 397 (2015), doi 10.1007/s10822-015-9840-9.
    """
    return xr.DataArray(as_windows(runs, discard).overlap(), dims=("window", "other"), name="overlap")


def umbrella_integration(runs: Run | list, *, grid: Grid | None = None, discard: float | None = None) -> FreeEnergy:
    r"""Umbrella integration: the mean force of each window as if its samples were Gaussian, joined and integrated.

    $$\nabla A(\xi) = \sum_i p_i(\xi) \left[ kT\, C_i^{-1} (\xi - \bar\xi_i) - K_i (\xi - c_i) \right], \qquad
      p_i = \frac{n_i g_i(\xi)}{\sum_j n_j g_j(\xi)},$$

    where $g_i$ is the normal distribution with the mean and covariance of window i. It needs no iteration and no overlap of
    histograms beyond neighbouring windows, and is smooth; where windows are so soft that their samples are not Gaussian, it is
    biased, and WHAM (:func:`pysamp.analyze`) is not.

    Args:
        runs: a run of :class:`~pysamp.methods.UmbrellaSampling`, or a list of runs with ``HarmonicBias``.
        grid: where to integrate; None for one that covers the samples.
        discard: fraction left out at the beginning; None for a tenth.

    Returns:
        The free energy, with mean force; errors by leaving out blocks of time.

    Raises:
        InvalidInputError: if a bias is not harmonic.

    Example:
        >>> pysamp.analysis.umbrella_integration(run).plot()  # doctest: +SKIP

    References:
        Kästner & Thiel, J. Chem. Phys. 123, 144104 (2005), doi 10.1063/1.2052648.
    """
    windows = as_windows(runs, discard)
    for bias in windows.biases:
        if not isinstance(bias, HarmonicBias):
            raise InvalidInputError(f"Umbrella integration is for harmonic windows, not {type(bias).__name__}.")
    first = windows.biases[0]
    if grid is None:
        grid = windows.default_grid()
    check_grid(grid, first)
    moments = _moments(windows)
    gradient, counts = _gradient(windows, grid, moments.sum(axis=0))
    counts = np.where(counts > _UNSAMPLED, counts, 0.0)
    if not counts.any():
        raise InvalidInputError("No sample lies in the grid: choose one that covers the CVs' range.")
    gradients_k = np.stack([_gradient(windows, grid, left_out)[0] for left_out in leave_out_units(moments)])
    integrator = GradientIntegrator(grid, counts)
    seen = integrator.connected
    error = jackknife_error(gradients_k)
    return FreeEnergy.from_probabilities(
        weights_of(integrator(gradient), windows.kT),
        np.stack([weights_of(integrator(g), windows.kT) for g in gradients_k]),
        grid,
        kT=windows.kT,
        labels=first.labels,
        unit=windows.unit,
        mean_force=np.where(seen[..., None], -gradient, np.nan),
        mean_force_stderr=np.where(seen[..., None], error, np.nan),
    )


def reduced_potentials(
    runs: Run | list, *, discard: float | None = None
) -> tuple[Float[np.ndarray, "windows samples"], Int[np.ndarray, " windows"]]:
    """Every window's bias over kT at every sample: what MBAR programs take.

    WHAM as :func:`pysamp.analyze` does it has cells so small that it is MBAR. This is for pymbar's own estimators and
    expectations, whose errors ask for independent samples; so of each window's samples only every g-th is taken, where g is the
    statistical inefficiency of its slowest CV.

    Args:
        runs: a run of :class:`~pysamp.methods.UmbrellaSampling`, or a list of runs under static biases.
        discard: fraction left out at the beginning; None for a tenth.

    Returns:
        ``u_kn`` and ``N_k``, samples of the first window first.

    Raises:
        InvalidInputError: if there are no windows.

    Example:
        >>> u_kn, N_k = pysamp.analysis.reduced_potentials(run)  # doctest: +SKIP
        >>> pymbar.MBAR(u_kn, N_k).compute_free_energy_differences()["Delta_f"][0]  # doctest: +SKIP

    References:
        Shirts & Chodera, J. Chem. Phys. 129, 124105 (2008), doi 10.1063/1.2978177.
        Chodera et al., J. Chem. Theory Comput. 3, 26 (2007), doi 10.1021/ct0502864 (subsampling).
    """
    windows = as_windows(runs, discard)
    periods = windows.biases[0].periods
    kept, counts = [], []
    for xi in windows.xi:
        centred = np.asarray(periodic_difference(xi, xi[:1, :1], periods), dtype=float)
        g = max(statistical_inefficiency(centred[..., d]) for d in range(centred.shape[-1]))
        independent = xi[:, :: math.ceil(g)].reshape(-1, xi.shape[-1])
        kept.append(independent)
        counts.append(len(independent))
    return windows.reduced_biases(np.concatenate(kept)), np.array(counts)


def _moments(windows: Windows) -> Float[np.ndarray, "units windows moments"]:
    """Of each unit and window: number, sum and sum of products of the samples, relative to the window's centre."""
    samples, n = windows.samples, windows.biases[0].n_cvs
    centers = np.stack([_harmonic(bias).center for bias in windows.biases])
    d = np.asarray(periodic_difference(samples.xi, centers[samples.window], windows.biases[0].periods), dtype=float)
    each = np.concatenate([np.ones((len(d), 1)), d, (d[:, :, None] * d[:, None, :]).reshape(len(d), -1)], axis=1)
    result = np.zeros((windows.n_units, len(windows.biases), 1 + n + n * n))
    np.add.at(result, (samples.unit, samples.window), each)
    return result


def _gradient(
    windows: Windows, grid: Grid, moments: Float[np.ndarray, "windows moments"]
) -> tuple[Float[np.ndarray, "*shape n"], Float[np.ndarray, "*shape"]]:
    """Gradient of the free energy, averaged over each bin, and the number of samples that speak for it."""
    n = grid.n_dims
    factor = _SUBDIVISIONS.get(n, 1)
    fine = Grid(grid.lower, grid.upper, tuple(m * factor for m in grid.shape), grid.periodic)
    points = fine.points.reshape(-1, n)
    above, below = np.zeros((len(points), n)), np.zeros(len(points))
    periods = windows.biases[0].periods
    for bias, row in zip(windows.biases, moments, strict=True):
        number, mean = row[0], row[1 : n + 1] / row[0]
        covariance = row[n + 1 :].reshape(n, n) / row[0] - np.outer(mean, mean)
        precision = np.linalg.inv(covariance)
        center = _harmonic(bias).center
        d = np.asarray(periodic_difference(points, center + mean, periods), dtype=float)
        exponent = -0.5 * np.sum((d @ precision) * d, axis=1)
        weight = number * np.exp(exponent) * np.sqrt(np.linalg.det(precision / (2 * np.pi)))
        above += weight[:, None] * (windows.kT * d @ precision - (d + mean) @ _harmonic(bias).kspring)
        below += weight
    gradient = np.divide(above, below[:, None], out=np.zeros_like(above), where=below[:, None] > 0)
    counts = _averaged(below[:, None], grid, factor)[..., 0] * np.prod(grid.widths)
    return _averaged(gradient, grid, factor), counts


def _averaged(values: Float[np.ndarray, "points m"], grid: Grid, factor: int) -> Float[np.ndarray, "*shape m"]:
    """Averages over the bins of what was computed on a finer grid."""
    split = [size for n in grid.shape for size in (n, factor)]
    return values.reshape(*split, -1).mean(axis=tuple(range(1, 2 * grid.n_dims, 2)))


def _harmonic(bias: Any) -> HarmonicBias:
    return bias


def _warn(windows: Windows) -> None:
    """Name the windows that are hardly connected with the others."""
    matrix = windows.overlap()
    _, part = connected_components(np.minimum(matrix, matrix.T) > _LITTLE_OVERLAP, directed=False)
    parts = [np.flatnonzero(part == k) for k in np.unique(part)]
    if len(parts) > 1:
        names = "; ".join(as_ranges(numbers) for numbers in sorted(parts, key=lambda numbers: numbers[0]))
        warnings.warn(
            f"The windows fall into parts that hardly overlap (less than {_LITTLE_OVERLAP}): {names}. The free energy between "
            "the parts is uncertain, perhaps more so than its error says. Put windows between them, make them softer, or run "
            "longer.",
            PysampWarning,
            stacklevel=5,
        )
