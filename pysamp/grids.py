"""Regular grids in the space of collective variables."""

import math
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Array, Float

from .errors import InvalidInputError
from .units import as_array

__all__ = ["Grid"]


class Grid(eqx.Module):
    """A regular grid of bins over one or more collective variables.

    Values that a grid carries (free energies, mean forces, histograms) stand at the bins' centres.

    Args:
        lower: lower bound of each axis [unit of the CV].
        upper: upper bound of each axis [unit of the CV]; of a periodic axis, ``upper - lower`` is the period.
        shape: number of bins on each axis.
        periodic: one bool for all axes, or one for each.

    Raises:
        InvalidInputError: for bounds that are swapped or not finite, empty axes, or lengths that differ.

    Example:
        >>> from pysamp import Grid
        >>> grid = Grid((0.0, 0.0), (1.0, 2.0), (10, 4), periodic=(False, True))
        >>> grid.centers[1]
        array([0.25, 0.75, 1.25, 1.75])
    """

    lower: Float[np.ndarray, " n"]
    upper: Float[np.ndarray, " n"]
    shape: tuple[int, ...] = eqx.field(static=True)
    periodic: tuple[bool, ...] = eqx.field(static=True)

    def __init__(self, lower: Any, upper: Any, shape: int | Sequence[int], periodic: bool | Sequence[bool] = False):
        self.lower = np.atleast_1d(as_array(lower))
        self.upper = np.atleast_1d(as_array(upper))
        self.shape = tuple(int(n) for n in np.atleast_1d(np.asarray(shape)))
        if isinstance(periodic, bool | np.bool_):
            self.periodic = (bool(periodic),) * len(self.shape)
        else:
            self.periodic = tuple(bool(p) for p in periodic)

    def __check_init__(self):
        n = len(self.shape)
        if self.lower.shape != (n,) or self.upper.shape != (n,) or len(self.periodic) != n:
            raise InvalidInputError(
                f"Grid needs as many lower bounds ({self.lower.size}), upper bounds ({self.upper.size}) and periodic "
                f"flags ({len(self.periodic)}) as entries in shape ({n})."
            )
        if not (np.all(np.isfinite(self.lower)) and np.all(np.isfinite(self.upper))):
            raise InvalidInputError(f"Grid bounds must be finite, got {self.lower.tolist()} to {self.upper.tolist()}.")
        if np.any(self.lower >= self.upper):
            raise InvalidInputError(
                f"Grid needs lower < upper on every axis, got lower={self.lower.tolist()}, upper={self.upper.tolist()}; "
                "are they swapped?"
            )
        if min(self.shape) < 1:
            raise InvalidInputError(f"Grid needs at least one bin on every axis, got shape={self.shape}.")

    @property
    def n_dims(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of bins."""
        return math.prod(self.shape)

    @property
    def widths(self) -> Float[Array | np.ndarray, " n"]:
        """Width of a bin on each axis."""
        return (self.upper - self.lower) / np.asarray(self.shape)

    @property
    def centers(self) -> tuple[Float[np.ndarray, " m"], ...]:
        """Centres of the bins, axis by axis."""
        return tuple(
            low + width * (np.arange(n) + 0.5)
            for low, width, n in zip(self.lower, self.widths, self.shape, strict=True)
        )

    @property
    def points(self) -> Float[np.ndarray, "*shape n"]:
        """Centres of all bins as an array of shape ``(*shape, n_dims)``."""
        return np.stack(np.meshgrid(*self.centers, indexing="ij"), axis=-1)
