"""Free energy of adaptive biasing force runs: the mean force, integrated."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from ..api import analyze
from ..errors import InvalidInputError
from ..grids import Grid
from ..methods.abf import ABF, ABFState
from ..methods.fitted_force import AbstractFittedForce
from ..results import Run
from .errors import jackknife_error
from .free_energy import FreeEnergy, weights_of
from .integrate import GradientIntegrator
from .recentre import recentred
from .sampling import blocks_of_time, check_discard, leave_out_units, n_blocks_per_replica, place_of

__all__: list[str] = []

LEAST_BLOCKS, _MOST_BLOCKS = 4, 10  # of time; more than that are joined in pairs, which lowers their correlation


@analyze.dispatch
def _analyze_abf(method: ABF, run: Run, /, *, grid: Grid | None = None, discard: float | None = None) -> FreeEnergy:
    """The average force in each bin, moved to the bin's centre and integrated; errors from blocks of time.

    Force samples are right from the first step on, whatever the bias was, so nothing is left out unless ``discard`` says
    so. The bins are those of the method.
    """
    place = place_of(run, method)
    return _integrated(method, run, [state.methods[place] for state in run.states], grid, discard)


@analyze.dispatch
def _analyze_fitted_force(
    method: AbstractFittedForce, run: Run, /, *, grid: Grid | None = None, discard: float | None = None
) -> FreeEnergy:
    """The average force in each bin, integrated, as for ABF: free of what a truncated series or a small network leaves out."""
    place = place_of(run, method)
    return _integrated(method, run, [state.methods[place].samples for state in run.states], grid, discard)


def _integrated(
    method: ABF | AbstractFittedForce, run: Run, states: Sequence[ABFState], grid: Grid | None, discard: float | None
) -> FreeEnergy:
    check_discard(discard)
    if run.walkers:  # all the same
        states = states[:1]
    if grid is not None and grid is not method.grid:
        raise InvalidInputError(f"{type(method).__name__} has measured on its own grid; leave grid=... out.")
    grid = method.grid
    sums = np.concatenate([blocks_of_sums(s.sums, s, discard or 0.0, len(states)) for s in states])
    sums = recentred(grid, sums)
    total = sums.sum(axis=0)
    if len(sums) < LEAST_BLOCKS or not total[:, -1].any():
        raise InvalidInputError(
            f"{int(total[:, -1].sum())} force samples inside the grid, in {len(sums)} blocks of time, are too few for an error "
            "estimate: run longer, and check that the grid covers the CVs' range."
        )
    integrator = GradientIntegrator(grid, total[:, -1].reshape(grid.shape))
    left_out = leave_out_units(sums)
    forces = np.stack([_mean(s, grid) for s in left_out])
    mean_force = _mean(total, grid)
    # a bin that one block alone has seen: what the others would say about it is not known
    replicates = [np.where(np.isfinite(f), f, mean_force) for f in forces]
    energies = np.stack([integrator(-force) for force in replicates])
    energies = np.where(np.isfinite(forces).all(axis=-1), energies, np.nan)
    return FreeEnergy.from_probabilities(
        weights_of(integrator(-mean_force), run.kT),
        np.stack([weights_of(f, run.kT) for f in energies]),
        grid,
        kT=run.kT,
        labels=method.labels,
        unit=run.energy_unit,
        mean_force=mean_force,
        mean_force_stderr=np.where(np.isfinite(mean_force), jackknife_error(forces), np.nan),
    )


def blocks_of_sums(
    sums: Float[Any, "bins blocks m"], counter: Any, discard: float, n_replicas: int
) -> Float[np.ndarray, "units bins m"]:
    """Sums of one replica in blocks of time; an incomplete last block joins the one before.

    Args:
        sums: as the run left them.
        counter: has ``block_length`` and ``n_steps``.
        discard: part of the blocks to leave out at the beginning.
        n_replicas: in the run.
    """
    sums = np.moveaxis(np.asarray(sums, dtype=np.float64), 1, 0)
    length, n_steps = int(counter.block_length), int(counter.n_steps)
    n_full, rest = divmod(n_steps, length)
    n_used = n_full + (rest > 0)
    sums = sums[:n_used].copy()
    if n_full and 0 < rest < length / 2:
        sums[-2] += sums[-1]
        sums = sums[:-1]
    sums = sums[int(discard * len(sums)) :]
    n_units = len(sums) if len(sums) <= _MOST_BLOCKS else (len(sums) + 1) // 2
    n_units = min(n_units, n_blocks_per_replica(n_replicas))
    units = blocks_of_time(len(sums), n_units)
    return np.stack([sums[units == unit].sum(axis=0) for unit in range(n_units)]) if n_units else sums


def _mean(sums: Float[np.ndarray, "bins m"], grid: Grid) -> Float[np.ndarray, "..."]:
    """Average force in each bin; nan where there is no sample."""
    with np.errstate(invalid="ignore"):
        return (sums[:, :-1] / sums[:, -1:]).reshape(*grid.shape, -1)
