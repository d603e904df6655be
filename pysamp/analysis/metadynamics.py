"""Free energy of metadynamics, from all hills."""

import itertools
from collections.abc import Callable, Iterator

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Int

from ..api import analyze
from ..errors import InvalidInputError
from ..grids import Grid
from ..methods.base import check_grid
from ..methods.metadynamics import Metadynamics, MetadynamicsState
from ..results import Run
from .free_energy import FreeEnergy
from .reweight import solve_wham
from .sampling import (
    MIN_UNITS,
    blocks_of_time,
    check_discard,
    default_grid,
    leave_out_units,
    locate,
    logged_xi,
    method_of,
    n_blocks_per_replica,
    place_of,
)

__all__ = ["hills"]

_KERNEL = 0.5  # width of the smoothing kernel over sigma
_N_SLICES = 200
_FAMILIAR = 0.9  # the transient ends when this part of all samples lies where the run has been before
_LEAST_DISCARD, _MOST_DISCARD = 0.1, 0.5
_UNSAMPLED = np.exp(-2.0)  # what one sample at a distance of two kernel widths contributes
_CHUNK = 1024


def hills(run: Run) -> xr.Dataset:
    """Hills of a metadynamics run: ``center`` and ``sigma`` (replica, hill, cv), ``height`` and ``step``.

    Args:
        run: a run whose methods include :class:`~pysamp.methods.Metadynamics`.

    Raises:
        InvalidInputError: if they do not.
    """
    method = method_of(run, Metadynamics, "Only Metadynamics has hills")
    centers, heights, widths = _hills(run, method)
    steps = int(method.stride) * (1 + np.arange(centers.shape[1]) // max(1, run.walkers))
    return xr.Dataset(
        {
            "center": (("replica", "hill", "cv"), centers),
            "sigma": (("replica", "hill", "cv"), widths),
            "height": (("replica", "hill"), heights),
        },
        {"step": ("hill", steps), "cv": list(method.labels)},
    )


@analyze.dispatch
def _analyze_metadynamics(
    method: Metadynamics, run: Run, /, *, grid: Grid | None = None, discard: float | None = None
) -> FreeEnergy:
    r"""Metadynamics as a sequence of short simulations, each under a nearly constant bias.

    The run is cut into slices in which the bias changes little. In each, the CVs (at the hills, or in the log where that has
    more of them) are samples under the slice's average bias; WHAM unites the slices, as it does the windows of umbrella
    sampling. Unlike the final bias, which remembers about the last 1/gamma of a run, this uses all of it. The histogram
    is smoothed with Gaussians of sigma / 2 on the biased distribution, which is nearly flat.

    The beginning is left out until nine tenths of all samples lie in places that have been visited, but at least a
    tenth and at most half of the run, unless ``discard`` says otherwise.
    """
    check_discard(discard)
    centers, heights, widths = _hills(run, method)
    n_biases, n_hills = heights.shape
    if n_hills < 4 * MIN_UNITS:
        raise InvalidInputError(
            f"{n_hills} hills are too few for an error estimate, which needs {4 * MIN_UNITS}: run longer, or choose a "
            f"smaller stride than {int(method.stride)}."
        )
    if grid is None:
        grid = default_bias_grid(run, method)
    check_grid(grid, method)
    samples, n_before = _samples(run, method, centers)
    n_replicas = len(samples)
    n_blocks = n_blocks_per_replica(n_replicas)

    if run.walkers:  # what one has visited is familiar to all
        pooled = samples.swapaxes(0, 1).reshape(-1, method.n_cvs)
        kept = [transient(pooled, method.sigma, discard) // n_replicas] * n_replicas
    else:
        kept = [transient(xi, method.sigma, discard) for xi in samples]
    histograms = []
    for xi, first in zip(samples, kept, strict=True):
        blocks = blocks_of_time(len(xi) - first, n_blocks)
        histograms += [_histogram(grid, method, xi[first:][blocks == block]) for block in range(n_blocks)]
    scale = np.prod(np.sqrt(2 * np.pi) * _KERNEL * method.sigma / grid.widths)
    visited = np.sum(histograms, axis=0) * scale > _UNSAMPLED
    if not visited.any():
        raise InvalidInputError("No hill lies in the grid: choose one that covers the CVs' range.")

    n_slices = max(4, min(_N_SLICES, 400 // n_biases))
    biases, all_edges = [], []
    for b, first in zip(range(n_biases), kept, strict=False):
        all_edges.append(slice_edges(heights[b], int(n_before[first]), n_slices))
        biases.append(_slice_biases(grid, method, centers[b], heights[b], widths[b], all_edges[b])[:, visited])
    counts = np.zeros((n_replicas, n_blocks, n_biases, n_slices))
    for replica, (xi, first) in enumerate(zip(samples, kept, strict=True)):
        b = 0 if run.walkers else replica
        edges = all_edges[b]
        inside = locate(grid, xi[first:]) >= 0
        blocks = blocks_of_time(len(xi) - first, n_blocks)[inside]
        slices = np.searchsorted(edges, n_before[first:][inside], side="right") - 1
        np.add.at(counts[replica, :, b], (blocks, np.minimum(slices, n_slices - 1)), 1.0)
    n_b = counts.reshape(n_replicas * n_blocks, n_biases * n_slices)
    n_s = np.stack(histograms)
    reduced = np.concatenate(biases) / run.kT

    def weights(n_s: Float[np.ndarray, " bins"], n_b: Float[np.ndarray, " b"]) -> Float[np.ndarray, " visited"]:
        sharp = _sharpened(grid, method, n_s)[visited]
        return sharp * (n_b.sum() / sharp.sum())

    total_b = n_b.sum(axis=0)
    p, f = solve_wham(weights(n_s.sum(axis=0), total_b), total_b, reduced)
    left_out = zip(leave_out_units(n_s), leave_out_units(n_b), strict=True)
    replicates = [solve_wham(weights(s, b), b, reduced, f)[0] for s, b in left_out]
    return FreeEnergy.from_probabilities(
        _on_grid(p, visited, grid),
        np.stack([_on_grid(q, visited, grid) for q in replicates]),
        grid,
        kT=run.kT,
        labels=method.labels,
        unit=run.energy_unit,
    )


def default_bias_grid(run: Run, method: Metadynamics) -> Grid:
    """The method's grid, or one that covers the hills and is fine enough for them."""
    centers, _, _ = _hills(run, method)
    return method.grid or default_grid(centers.reshape(-1, method.n_cvs), method.periods, method.sigma / 2)


def bias_at_hills(
    grid: Grid, method: Metadynamics, state: MetadynamicsState, numbers: Int[np.ndarray, " m"]
) -> Iterator[tuple[int, Float[np.ndarray, " bins"]]]:
    """The bias at the bins' centres when there were so many hills, for each of some increasing numbers."""
    bias, done = np.zeros(grid.size), 0
    centers, heights, widths = np.asarray(state.centers), np.asarray(state.heights), _widths(method, state)
    for number in numbers:
        new = slice(done, min(int(number), int(state.n_hills)))
        bias = bias + _sum_on_grid(_bias_factors, grid, method, centers[new], heights[None, new], widths[new])[0]
        done = new.stop
        yield int(number), bias


def _hills(
    run: Run, method: Metadynamics
) -> tuple[Float[np.ndarray, "r hills n"], Float[np.ndarray, "r hills"], Float[np.ndarray, "r hills n"]]:
    """Centres, heights and widths of the hills of all replicas; walkers that share them are one."""
    place = place_of(run, method)
    states = [state.methods[place] for state in run.states]
    if run.walkers:  # all the same
        states = states[:1]
    n = min(int(state.n_hills) for state in states)
    centers = np.stack([np.asarray(state.centers)[:n] for state in states])
    heights = np.stack([np.asarray(state.heights)[:n] for state in states])
    return centers, heights, np.stack([_widths(method, state)[:n] for state in states])


def _widths(method: Metadynamics, state: MetadynamicsState) -> Float[np.ndarray, "room n"]:
    if state.widths is None:
        return np.broadcast_to(method.sigma, state.centers.shape)
    return np.asarray(state.widths).T


def _samples(
    run: Run, method: Metadynamics, centers: Float[np.ndarray, "b hills n"]
) -> tuple[Float[np.ndarray, "r samples n"], Int[np.ndarray, " samples"]]:
    """Samples of the CVs, and how many hills there were before each: from the log if it has more than there are hills."""
    n_hills, each = centers.shape[1], max(1, run.walkers)  # hills of one time step
    if "xi" in run.log and run.log.sizes["sample"] > n_hills // each:
        steps = np.asarray(run.log["step"].values, dtype=np.int64)
        # the hill of step k * stride acts from the next step on
        n_before = each * np.maximum(-(-steps // int(method.stride)) - 1, 0)
        known = n_before <= n_hills
        return logged_xi(run, method)[:, known], n_before[known]
    if run.walkers != run.n_replicas:  # each with hills of its own
        return centers, np.arange(n_hills)
    of_walkers = centers.reshape(-1, each, method.n_cvs).swapaxes(0, 1)
    return of_walkers, each * np.arange(of_walkers.shape[1])


def transient(xi: Float[np.ndarray, "samples n"], sigma: Float[np.ndarray, " n"], discard: float | None) -> int:
    """Number of samples to leave out at the beginning."""
    n = len(xi)
    if discard is not None:
        return int(discard * n)
    _, first_visits, counts = np.unique(np.floor(xi / (2.0 * sigma)), axis=0, return_index=True, return_counts=True)
    order = np.argsort(first_visits)
    familiar = np.cumsum(counts[order]) >= _FAMILIAR * n
    first = int(first_visits[order][np.argmax(familiar)])
    return int(np.clip(first, _LEAST_DISCARD * n, _MOST_DISCARD * n))


def slice_edges(heights: Float[np.ndarray, " hills"], first: int, n_slices: int) -> Int[np.ndarray, " slices_plus_1"]:
    """Edges of slices of hills with nearly the same sum of heights."""
    total = np.concatenate([[0.0], np.cumsum(heights[first:])])
    edges = first + np.searchsorted(total, np.linspace(0.0, total[-1], n_slices + 1), side="left")
    edges[0], edges[-1] = first, len(heights)
    return edges


def _slice_biases(
    grid: Grid,
    method: Metadynamics,
    centers: Float[np.ndarray, "hills n"],
    heights: Float[np.ndarray, " hills"],
    widths: Float[np.ndarray, "hills n"],
    edges: Int[np.ndarray, " slices_plus_1"],
) -> Float[np.ndarray, "slices bins"]:
    """Average bias at the bins' centres during each slice [energy]."""
    result = np.zeros((len(edges) - 1, grid.size))
    first = slice(0, edges[0])
    bias = _sum_on_grid(_bias_factors, grid, method, centers[first], heights[None, first], widths[first])[0]
    for i, (start, end) in enumerate(itertools.pairwise(edges)):
        own = np.arange(start, end)
        # before hill j of the slice there were its first j - 1
        share = (end - 1 - own) / max(end - start, 1)
        weights = heights[own] * np.stack([share, np.ones(len(own))])
        average, all_of_it = _sum_on_grid(_bias_factors, grid, method, centers[own], weights, widths[own])
        result[i] = bias + average
        bias = bias + all_of_it
    return result


def _histogram(grid: Grid, method: Metadynamics, xi: Float[np.ndarray, "samples n"]) -> Float[np.ndarray, " bins"]:
    """Smoothed histogram of the samples inside the grid, each of weight 1."""
    xi = xi[locate(grid, xi) >= 0]
    widths = np.broadcast_to(_KERNEL * method.sigma, xi.shape)
    return _sum_on_grid(_kernel_factors, grid, method, xi, np.ones((1, len(xi))), widths)[0]


def _sharpened(grid: Grid, method: Metadynamics, smooth: Float[np.ndarray, " bins"]) -> Float[np.ndarray, " bins"]:
    """A smoothed histogram times its ratio to itself smoothed once more, which undoes most of what smoothing changed.

    Without that the ripples of the bias, as narrow as a hill, would be smoothed in the histogram but not in the bias, and
    stay in the free energy for the whole run.
    """
    twice = smooth.reshape(grid.shape)
    for d in range(grid.n_dims):
        x = grid.centers[d]
        kernel = _kernel_factors(grid, method, d, x, np.full(len(x), _KERNEL * method.sigma[d]))
        twice = np.moveaxis(np.tensordot(twice, kernel, axes=(d, 0)), -1, d)
    return smooth * smooth / np.maximum(twice.reshape(-1), 1e-300)


def _sum_on_grid(
    factors_of: Callable,
    grid: Grid,
    method: Metadynamics,
    points: Float[np.ndarray, "points n"],
    weights: Float[np.ndarray, "k points"],
    widths: Float[np.ndarray, "points n"],
) -> Float[np.ndarray, "k bins"]:
    """Weighted sums, over points, of products of one function per axis."""
    total = np.zeros((len(weights), grid.size))
    for start in range(0, len(points), _CHUNK):
        chunk = slice(start, start + _CHUNK)
        first, *others = [factors_of(grid, method, d, points[chunk, d], widths[chunk, d]) for d in range(grid.n_dims)]
        rest = np.ones((len(first), 1))
        for factor in others:
            rest = (rest[:, :, None] * factor[:, None, :]).reshape(len(first), -1)
        for k, weight in enumerate(weights[:, chunk]):
            total[k] += ((weight[:, None] * first).T @ rest).reshape(-1)
    return total


def _bias_factors(
    grid: Grid, method: Metadynamics, d: int, x: Float[np.ndarray, " h"], sigma: Float[np.ndarray, " h"]
) -> Float[np.ndarray, "h m"]:
    """Factor of each hill at the bins' centres of one axis: interpolated as the method does, or the Gaussian itself."""
    if method.grid is None or not _same(grid, method.grid):
        return _gaussians(grid.centers[d], x, sigma, method.periods[d])
    nodes = grid.lower[d] + grid.widths[d] * (np.arange(grid.shape[d] + 3) - 1.0)
    at_nodes = _gaussians(nodes, x, sigma, method.periods[d])
    n = grid.shape[d]
    middle = 9.0 * (at_nodes[:, 1 : n + 1] + at_nodes[:, 2 : n + 2]) - (at_nodes[:, :n] + at_nodes[:, 3 : n + 3])
    return middle / 16.0


def _kernel_factors(
    grid: Grid, method: Metadynamics, d: int, x: Float[np.ndarray, " h"], sigma: Float[np.ndarray, " h"]
) -> Float[np.ndarray, "h m"]:
    """Smoothing kernel of each sample over the bins of one axis, normalised to 1 within the grid."""
    kernel = _gaussians(grid.centers[d], x, sigma, method.periods[d])
    return kernel / kernel.sum(axis=1, keepdims=True)


def _gaussians(
    at: Float[np.ndarray, " m"],
    centers: Float[np.ndarray, " h"],
    sigma: Float[np.ndarray, " h"],
    period: float | None,
) -> Float[np.ndarray, "h m"]:
    distance = at - centers[:, None]
    if period is not None:
        distance -= period * np.round(distance / period)
    return np.exp(-0.5 * (distance / sigma[:, None]) ** 2)


def _on_grid(
    p: Float[np.ndarray, " visited"], visited: Bool[np.ndarray, " bins"], grid: Grid
) -> Float[np.ndarray, "..."]:
    full = np.zeros(grid.size)
    full[visited] = p
    return full.reshape(grid.shape)


def _same(first: Grid, second: Grid) -> bool:
    bounds = np.array_equal(first.lower, second.lower) and np.array_equal(first.upper, second.upper)
    return bounds and first.shape == second.shape
