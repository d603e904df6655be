"""Free energy of runs under biases that do not change: histograms, and umbrella sampling."""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from ..api import analyze
from ..errors import InvalidInputError, UnsupportedError
from ..grids import Grid
from ..methods.base import AbstractMethod, AbstractStaticBias, check_grid, periodic_difference
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
    n_blocks_per_replica,
)

__all__: list[str] = []

_DISCARD = 0.1
_LEAST_SAMPLES = 10 * MIN_UNITS
_REFINEMENT = {1: 16, 2: 8}  # cells per bin and axis on which the biases are evaluated


@analyze.dispatch
def _analyze_run(run: Run, /, *, grid: Grid | None = None, discard: float | None = None) -> FreeEnergy:
    """The first method that adapts is analysed, or else the first; the others' biases count as part of the system."""
    adaptive = [method for method in run.methods if not isinstance(method, AbstractStaticBias)]
    return analyze((adaptive or run.methods)[0], run, grid=grid, discard=discard)


@analyze.dispatch
def _analyze_unknown(
    method: AbstractMethod, run: Run, /, *, grid: Grid | None = None, discard: float | None = None
) -> FreeEnergy:
    raise UnsupportedError(
        f"There is no estimator for {type(method).__name__}. Write one: a function decorated with "
        f"@pysamp.analyze.dispatch that takes (method: {type(method).__name__}, run: pysamp.Run, /, *, grid=None, "
        "discard=None) and returns FreeEnergy.from_probabilities(...)."
    )


@analyze.dispatch
def _analyze_static(
    method: AbstractStaticBias, run: Run, /, *, grid: Grid | None = None, discard: float | None = None
) -> FreeEnergy:
    """Histogram of the logged CVs, each sample weighted with exp(bias / kT)."""
    return _unite([method], [run], grid, discard)


@analyze.dispatch
def _analyze_windows(runs: list, /, *, grid: Grid | None = None, discard: float | None = None) -> FreeEnergy:
    """Umbrella sampling: WHAM over runs whose first methods are static biases on the same CVs.

    Errors: the same block of time is left out of all windows at once.
    """
    if not runs or not all(isinstance(run, Run) for run in runs):
        raise InvalidInputError(f"analyze takes a run or a list of runs, got {[type(run).__name__ for run in runs]}.")
    if len(runs) == 1:
        return analyze(runs[0], grid=grid, discard=discard)
    methods = [run.methods[0] for run in runs]
    for method, run in zip(methods, runs, strict=True):
        if not isinstance(method, AbstractStaticBias):
            raise UnsupportedError(
                f"Only runs with biases that do not change can be analysed together, and {type(method).__name__} changes. "
                "Put HarmonicBias or another static bias first, or use several replicas of one run."
            )
        if method.labels != methods[0].labels:
            raise InvalidInputError(
                f"The runs are on different CVs, {methods[0].labels} and {method.labels}; analyse them one by one."
            )
        if not np.isclose(run.kT, runs[0].kT, rtol=1e-6):
            raise InvalidInputError(f"The runs are at different temperatures: kT = {runs[0].kT} and {run.kT}.")
    return _unite(methods, runs, grid, discard)


def _unite(
    methods: Sequence[AbstractStaticBias], runs: Sequence[Run], grid: Grid | None, discard: float | None
) -> FreeEnergy:
    """WHAM over windows; one alone is plain reweighting."""
    check_discard(discard)
    discard = _DISCARD if discard is None else discard
    first_run, first = runs[0], methods[0]
    samples = [_kept(run, method, discard) for run, method in zip(runs, methods, strict=True)]
    if grid is None:
        grid = default_grid(np.concatenate([xi.reshape(-1, first.n_cvs) for xi in samples]), first.periods)
    check_grid(grid, first)

    n_replicas = min(len(xi) for xi in samples)
    n_blocks = n_blocks_per_replica(n_replicas)
    fine = _refined(grid)
    cells, windows, units, points = [], [], [], []
    for window, xi in enumerate(samples):
        for replica, values in enumerate(xi):
            inside = locate(grid, values) >= 0
            blocks = blocks_of_time(len(values), n_blocks) + (replica % n_replicas) * n_blocks
            cells.append(locate(fine, values)[inside])
            points.append(values[inside])
            windows.append(np.full(inside.sum(), window))
            units.append(blocks[inside])
    cell, window, unit, point = map(np.concatenate, (cells, windows, units, points))
    if len(cell) < _LEAST_SAMPLES:
        raise InvalidInputError(
            f"{len(cell)} logged samples inside the grid are too few: run longer, log more often (log_every=...), or check "
            "that the grid covers the CVs' range."
        )
    _, inverse = np.unique(cell, return_inverse=True)
    _, chosen, n_in_cell = np.unique(inverse, return_index=True, return_counts=True)
    # the cell's average sample; of periodic CVs relative to one of them
    shifts = np.asarray(periodic_difference(point, point[chosen][inverse], first.periods), dtype=np.float64)
    means = point[chosen] + _sums(inverse, shifts, len(chosen)) / n_in_cell[:, None]

    n_units = n_replicas * n_blocks
    n_s = np.zeros((n_units, len(chosen)))
    n_b = np.zeros((n_units, len(runs)))
    np.add.at(n_s, (unit, inverse), 1.0)
    np.add.at(n_b, (unit, window), 1.0)
    reduced = np.stack([_potential(method, means) for method in methods]) / first_run.kT
    p, f = solve_wham(n_s.sum(axis=0), n_b.sum(axis=0), reduced)
    left_out = zip(leave_out_units(n_s), leave_out_units(n_b), strict=True)
    replicates = [solve_wham(cells_k, windows_k, reduced, f)[0] for cells_k, windows_k in left_out]

    places = locate(grid, means)
    return FreeEnergy.from_probabilities(
        np.bincount(places, weights=p, minlength=grid.size).reshape(grid.shape),
        np.stack([np.bincount(places, weights=q, minlength=grid.size).reshape(grid.shape) for q in replicates]),
        grid,
        kT=first_run.kT,
        labels=first.labels,
        unit=first_run.energy_unit,
    )


def _kept(run: Run, method: AbstractStaticBias, discard: float) -> Float[np.ndarray, "replica sample n"]:
    """Logged CVs without the beginning."""
    xi = logged_xi(run, method)
    return xi[:, int(discard * xi.shape[1]) :]


def _refined(grid: Grid) -> Grid:
    factor = _REFINEMENT.get(grid.n_dims, 4)
    return Grid(grid.lower, grid.upper, tuple(n * factor for n in grid.shape), grid.periodic)


def _sums(
    places: Int[np.ndarray, " samples"], values: Float[np.ndarray, "samples n"], n_places: int
) -> Float[np.ndarray, "places n"]:
    return np.stack([np.bincount(places, weights=column, minlength=n_places) for column in values.T], axis=-1)


@eqx.filter_jit
def _potentials(method: AbstractStaticBias, points: Float[jax.Array | np.ndarray, "p n"]) -> Float[jax.Array, " p"]:
    return jax.vmap(method.potential)(jnp.asarray(points))


def _potential(method: AbstractStaticBias, points: Float[jax.Array | np.ndarray, "p n"]) -> Float[np.ndarray, " p"]:
    with jax.enable_x64(True):
        return np.asarray(_potentials(method, points))
