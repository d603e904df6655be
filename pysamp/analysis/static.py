"""Free energy of runs under biases that do not change: histograms, and umbrella windows that are runs of their own."""

from collections.abc import Sequence
from typing import Any

from ..api import analyze
from ..errors import InvalidInputError, UnsupportedError
from ..grids import Grid
from ..methods.base import AbstractMethod, AbstractStaticBias, check_grid
from ..results import Run
from .free_energy import FreeEnergy
from .sampling import check_discard, logged_xi, n_discarded
from .windows import Windows

__all__: list[str] = []


@analyze.dispatch
def _analyze_run(run: Run, /, *, grid: Grid | None = None, discard: float | None = None) -> FreeEnergy:
    """The first method that adapts is analysed, or else the first; the others' biases count as part of the system."""
    return analyze(analysed_method(run), run, grid=grid, discard=discard)


def analysed_method(run: Run) -> AbstractMethod:
    """The method of a run that its analysis is about."""
    adaptive = [method for method in run.methods if not isinstance(method, AbstractStaticBias)]
    return (adaptive or run.methods)[0]


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
    return _free_energy(windows_of([run], [method], discard), grid)


@analyze.dispatch
def _analyze_windows(runs: list, /, *, grid: Grid | None = None, discard: float | None = None) -> FreeEnergy:
    """Umbrella sampling: WHAM over runs whose first methods are static biases on the same CVs.

    Errors: the same block of time is left out of all windows at once.
    """
    if len(runs) == 1 and isinstance(runs[0], Run):
        return analyze(runs[0], grid=grid, discard=discard)
    return _free_energy(windows_of(runs, None, discard), grid)


def windows_of(runs: Any, methods: Sequence[AbstractStaticBias] | None, discard: float | None) -> Windows:
    """The samples of runs under biases that do not change, one window each.

    Args:
        runs: the runs.
        methods: the bias of each; None for each run's first method.
        discard: fraction of each run to leave out at its beginning; None for a tenth.

    Raises:
        InvalidInputError: if these are not runs, or they do not fit together.
        UnsupportedError: if a method is no static bias.
    """
    check_discard(discard)
    if not runs or not all(isinstance(run, Run) for run in runs):
        raise InvalidInputError(f"analyze takes a run or a list of runs, got {[type(run).__name__ for run in runs]}.")
    biases: Sequence[Any] = [run.methods[0] for run in runs] if methods is None else methods
    first = biases[0]
    for method, run in zip(biases, runs, strict=True):
        if not isinstance(method, AbstractStaticBias):
            raise UnsupportedError(
                f"Only runs with biases that do not change can be analysed together, and {type(method).__name__} changes. "
                "Put HarmonicBias or another static bias first, or use several replicas of one run."
            )
        if method.labels != first.labels:
            raise InvalidInputError(
                f"The runs are on different CVs, {first.labels} and {method.labels}; analyse them one by one."
            )
        if abs(run.kT - runs[0].kT) > 1e-6 * run.kT:
            raise InvalidInputError(f"The runs are at different temperatures: kT = {runs[0].kT} and {run.kT}.")
    samples = [logged_xi(run, method) for run, method in zip(runs, biases, strict=True)]
    kept = [xi[:, n_discarded(xi.shape[1], discard) :] for xi in samples]
    return Windows(biases, kept, runs[0].kT, runs[0].energy_unit)


def _free_energy(windows: Windows, grid: Grid | None) -> FreeEnergy:
    if grid is None:
        grid = windows.default_grid()
    check_grid(grid, windows.biases[0])
    return windows.free_energy(grid)
