"""Free energy of OPES runs, by reweighting: their bias is nearly static after a while."""

import numpy as np
from jaxtyping import Float

from ..api import analyze
from ..errors import InvalidInputError
from ..grids import Grid
from ..methods.base import check_grid
from ..methods.opes import OPES, OPESExplore
from ..results import Run
from .free_energy import FreeEnergy
from .sampling import (
    MIN_UNITS,
    blocks_of_time,
    check_discard,
    default_grid,
    leave_out_units,
    locate,
    logged_xi,
    n_blocks_per_replica,
    place_of,
)

__all__: list[str] = []

_DISCARD = 0.1
_LEAST_SAMPLES = 10 * MIN_UNITS


@analyze.dispatch
def _analyze_opes(
    method: OPES | OPESExplore, run: Run, /, *, grid: Grid | None = None, discard: float | None = None
) -> FreeEnergy:
    """Histogram of the logged CVs, each sample weighted with exp(V / kT) of the bias that it felt.

    The first tenth is left out unless ``discard`` says otherwise.
    """
    check_discard(discard)
    return _reweighted(method, run, grid, _DISCARD if discard is None else discard)


def _reweighted(method: OPES | OPESExplore, run: Run, grid: Grid | None, discard: float) -> FreeEnergy:
    """The histogram of a method's logged CVs weighted with its logged bias energy; errors from blocks of time."""
    xi = logged_xi(run, method)
    energies = np.asarray(run.log["method_energy"].values, dtype=np.float64)[..., place_of(run, method)]
    first = int(discard * xi.shape[1])
    xi, energies = xi[:, first:], energies[:, first:]
    if grid is None:
        grid = method.grid or default_grid(xi.reshape(-1, method.n_cvs), method.periods)
    check_grid(grid, method)
    n_replicas, n_samples = energies.shape
    n_blocks = n_blocks_per_replica(n_replicas)
    weights = np.exp((energies - energies.max()) / run.kT)
    places, blocks = locate(grid, xi), blocks_of_time(n_samples, n_blocks)
    if (places >= 0).sum() < _LEAST_SAMPLES:
        raise InvalidInputError(
            f"{int((places >= 0).sum())} logged samples inside the grid are too few: run longer, log more often "
            "(log_every=...), or check that the grid covers the CVs' range."
        )
    histograms = np.stack(
        [
            _histogram(places[r][blocks == b], weights[r][blocks == b], grid)
            for r in range(n_replicas)
            for b in range(n_blocks)
        ]
    )
    return FreeEnergy.from_probabilities(
        histograms.sum(axis=0).reshape(grid.shape),
        leave_out_units(histograms).reshape(-1, *grid.shape),
        grid,
        kT=run.kT,
        labels=method.labels,
        unit=run.energy_unit,
    )


def _histogram(places: np.ndarray, weights: Float[np.ndarray, " s"], grid: Grid) -> Float[np.ndarray, " bins"]:
    inside = places >= 0
    return np.bincount(places[inside], weights=weights[inside], minlength=grid.size)
