"""What the estimators share: samples from logs, bins, blocks of time."""

import math
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from jaxtyping import Float, Int

from ..errors import InvalidInputError
from ..grids import Grid
from ..methods.base import AbstractMethod
from ..results import Run

__all__ = [
    "blocks_of_time",
    "check_discard",
    "check_logged",
    "default_grid",
    "leave_out_units",
    "locate",
    "logged_xi",
    "method_of",
    "n_blocks_per_replica",
    "n_discarded",
    "place_of",
]

_Method = TypeVar("_Method", bound=AbstractMethod)

MIN_UNITS = 12  # blocks left out in turn: fewer make the error itself uncertain, more make them short
MAX_UNITS = 20
_DISCARD = 0.1  # part of a log that is taken for the transient where nothing else is said
_DEFAULT_BINS = {1: 100, 2: 50, 3: 24}


def locate(grid: Grid, xi: Float[np.ndarray, "*b n"]) -> Int[np.ndarray, "*b"]:
    """Flat index of the bin at each point, -1 outside the grid."""
    shape, periodic = np.asarray(grid.shape), np.asarray(grid.periodic)
    u = np.floor((xi - grid.lower) / grid.widths)
    u = np.where(periodic, u - shape * np.floor(u / shape), u)
    inside = np.all((u >= 0) & (u < shape), axis=-1)
    places = np.clip(u, 0, shape - 1).astype(np.int64)
    return np.where(inside, np.ravel_multi_index(tuple(np.moveaxis(places, -1, 0)), grid.shape), -1)


def n_blocks_per_replica(n_replicas: int) -> int:
    """Blocks of time of each replica that are left out in turn: many enough together, and as long as that allows."""
    return max(1, math.ceil(MIN_UNITS / n_replicas))


def blocks_of_time(n_samples: int, n_blocks: int) -> Int[np.ndarray, " samples"]:
    """Contiguous blocks of nearly equal length."""
    return np.arange(n_samples) * n_blocks // max(n_samples, 1)


def leave_out_units(per_block: Float[np.ndarray, "blocks *rest"]) -> Float[np.ndarray, "units *rest"]:
    """Sums over all blocks but one; with many replicas, over all but several neighbours."""
    n = len(per_block)
    units = blocks_of_time(n, min(n, MAX_UNITS))
    totals = np.stack([per_block[units == unit].sum(axis=0) for unit in range(units[-1] + 1)])
    return per_block.sum(axis=0) - totals


def logged_xi(run: Run, method: AbstractMethod) -> Float[np.ndarray, "replica sample n"]:
    """The logged CVs of one of the run's methods."""
    check_logged(run)
    place = place_of(run, method)
    start = sum(m.n_cvs for m in run.methods[:place])
    return np.asarray(run.log["xi"].values[..., start : start + method.n_cvs], dtype=np.float64)


def check_logged(run: Run) -> None:
    """Raise InvalidInputError if the log is empty."""
    if not run.log.sizes.get("sample", 0):
        raise InvalidInputError(
            "The run logged no CVs, so there is nothing to analyse: run with log_every=..., such as 100."
        )


def method_of(run: Run, kind: type[_Method], what: str) -> _Method:
    """The first of the run's methods that is of a kind.

    Raises:
        InvalidInputError: if there is none; ``what`` says what it is needed for, such as ``only Metadynamics has hills``.
    """
    found = next((method for method in run.methods if isinstance(method, kind)), None)
    if found is None:
        raise InvalidInputError(f"{what}; this run had {[type(m).__name__ for m in run.methods]}.")
    return found


def place_of(run: Run, method: AbstractMethod) -> int:
    """Which of the run's methods this is.

    Raises:
        InvalidInputError: if it is none of them.
    """
    places = [i for i, candidate in enumerate(run.methods) if candidate is method]
    if not places:
        raise InvalidInputError("The method is not one of this run; take it from run.methods.")
    return places[0]


def default_grid(
    xi: Float[np.ndarray, "samples n"], periods: Sequence[float | None], widths: Float[np.ndarray, " n"] | None = None
) -> Grid:
    """A grid that covers samples; of periodic CVs the whole period.

    Args:
        xi: samples [CV unit].
        periods: period of each CV.
        widths: bins not wider than this [CV unit], if there are not too many of them.
    """
    n = xi.shape[-1]
    n_bins = _DEFAULT_BINS.get(n, 10)
    lower, upper, shape = [], [], []
    for d, period in enumerate(periods):
        low, high = float(xi[:, d].min()), float(xi[:, d].max())
        if period is None:
            margin = max(0.02 * (high - low), 1e-6) if widths is None else float(widths[d])
            low, high = low - margin, high + margin
        else:
            low = next((start for start in (-period / 2, 0.0) if start <= low and high <= start + period), low)
            high = low + period
        wanted = n_bins if widths is None else math.ceil((high - low) / float(widths[d]))
        lower.append(low)
        upper.append(high)
        shape.append(min(wanted, 4 * n_bins))
    return Grid(lower, upper, shape, tuple(period is not None for period in periods))


def n_discarded(n_samples: int, discard: float | None) -> int:
    """How many samples to leave out at the beginning; of a log that is a tenth where ``discard`` is None.

    Raises:
        InvalidInputError: if ``discard`` is no fraction.
    """
    check_discard(discard)
    return int((_DISCARD if discard is None else discard) * n_samples)


def check_discard(discard: float | None) -> None:
    """Raise InvalidInputError unless ``discard`` is a fraction or None."""
    if discard is not None and not 0.0 <= discard < 1.0:
        raise InvalidInputError(
            f"discard is the fraction of the run left out at its beginning, from 0 to 1; got {discard}."
        )
