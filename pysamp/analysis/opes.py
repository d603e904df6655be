"""Free energy of OPES runs, by reweighting: their bias is nearly static after a while."""

import numpy as np

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
    default_grid,
    leave_out_units,
    locate,
    logged_xi,
    n_blocks_per_replica,
    n_discarded,
    place_of,
)

__all__: list[str] = []

_LEAST_SAMPLES = 10 * MIN_UNITS


@analyze.dispatch
def _analyze_opes(
    method: OPES | OPESExplore, run: Run, /, *, grid: Grid | None = None, discard: float | None = None
) -> FreeEnergy:
    """Histogram of the logged CVs, each sample weighted with exp(V / kT) of the bias that it felt.

    The first tenth is left out unless ``discard`` says otherwise.
    """
    xi = logged_xi(run, method)
    energies = np.asarray(run.log["method_energy"].values, dtype=np.float64)[..., place_of(run, method)]
    first = n_discarded(xi.shape[1], discard)
    xi, energies = xi[:, first:], energies[:, first:]
    if grid is None:
        grid = method.grid or default_grid(xi.reshape(-1, method.n_cvs), method.periods)
    check_grid(grid, method)
    n_replicas, n_samples = energies.shape
    n_blocks = n_blocks_per_replica(n_replicas)
    weights = np.exp((energies - energies.max()) / run.kT)
    places, blocks = locate(grid, xi), blocks_of_time(n_samples, n_blocks)
    inside = places >= 0
    if inside.sum() < _LEAST_SAMPLES:
        raise InvalidInputError(
            f"{int(inside.sum())} logged samples inside the grid are too few: run longer, log more often "
            "(log_every=...), or check that the grid covers the CVs' range."
        )
    units = blocks + n_blocks * np.arange(n_replicas)[:, None]
    histograms = np.zeros((n_replicas * n_blocks, grid.size))
    np.add.at(histograms, (units[inside], places[inside]), weights[inside])
    return FreeEnergy.from_probabilities(
        histograms.sum(axis=0).reshape(grid.shape),
        leave_out_units(histograms).reshape(-1, *grid.shape),
        grid,
        kT=run.kT,
        labels=method.labels,
        unit=run.energy_unit,
    )
