"""Figures of runs and free energies; Matplotlib is imported only when one is drawn."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from jaxtyping import Float

from ..errors import InvalidInputError
from ..results import Run
from .sampling import check_logged

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .free_energy import FreeEnergy

__all__ = ["plot_convergence", "plot_free_energy", "plot_overlap", "plot_traces"]

_FEW_WINDOWS = 15  # with which numbers fit into the cells
_FEW_REPLICAS = 10  # as many as there are colours in Matplotlib's cycle


def plot_free_energy(free_energy: "FreeEnergy", ax: "Axes | None" = None) -> "Axes":
    """Draw a free energy in 1-D or 2-D; see :meth:`pysamp.FreeEnergy.plot`.

    Args:
        free_energy: what to draw.
        ax: where to draw; None for a new figure.

    Returns:
        The axes.

    Raises:
        InvalidInputError: for more than two CVs.
        ImportError: without Matplotlib.
    """
    n = free_energy.grid.n_dims
    if n > 2:
        raise InvalidInputError(
            f"A free energy of {n} CVs cannot be drawn; take .marginal([0, 1]).plot() or .marginal(0)."
        )
    ax = _new_axes() if ax is None else ax
    draw = _draw_line if n == 1 else _draw_map
    draw(free_energy, ax)
    return ax


def plot_traces(run: Run, axes: Any = None) -> np.ndarray:
    """Draw the logged CVs against time, one panel for each CV and one colour for each replica.

    Where a periodic CV crosses the boundary the line is broken.

    Args:
        run: the run.
        axes: where to draw, as many as there are CVs; None for a new figure.

    Returns:
        The axes, one for each CV.

    Raises:
        InvalidInputError: if nothing was logged, or the number of axes is not that of the CVs.
        ImportError: without Matplotlib.

    Example:
        >>> pysamp.analysis.plot_traces(run)  # doctest: +SKIP
    """
    log = run.log
    check_logged(run)
    labels = [str(label) for label in log["cv"].values]
    if axes is None:
        _, axes = _pyplot().subplots(
            len(labels), sharex=True, squeeze=False, layout="constrained", figsize=(6.4, 1.2 + 1.8 * len(labels))
        )
    panels = np.atleast_1d(np.asarray(axes, dtype=object)).reshape(-1)
    if len(panels) != len(labels):
        raise InvalidInputError(
            f"There are {len(labels)} CVs, {labels}, so as many axes are needed; got {len(panels)}."
        )
    periods = [period for method in run.methods for period in method.periods]
    times = np.asarray(log["time"].values, dtype=np.float64)
    for i, (panel, label, period) in enumerate(zip(panels, labels, periods, strict=True)):
        for replica in range(run.n_replicas):
            x, y = _broken(times, np.asarray(log["xi"].values[replica, :, i], dtype=np.float64), period)
            panel.plot(x, y, color=f"C{replica % 10}", linewidth=0.8, label=f"replica {replica}")
        panel.set_ylabel(label)
    panels[-1].set_xlabel("time")
    if 1 < run.n_replicas <= _FEW_REPLICAS:
        panels[0].legend(loc="upper right", fontsize="small")
    return panels


def plot_convergence(dataset: xr.Dataset, ax: "Axes | None" = None) -> "Axes":
    """Draw a free-energy difference against the number of steps it came from, in a band of plus or minus its standard error.

    Args:
        dataset: what :func:`~pysamp.analysis.convergence` returned.
        ax: where to draw; None for a new figure.

    Returns:
        The axes.

    Raises:
        InvalidInputError: if the dataset is another one.
        ImportError: without Matplotlib.

    Example:
        >>> found = pysamp.analysis.convergence(run, lambda x: x < 0, lambda x: x > 0)  # doctest: +SKIP
        >>> pysamp.analysis.plot_convergence(found)  # doctest: +SKIP
    """
    missing = {"difference", "stderr", "step"} - set(dataset.variables)
    if missing:
        raise InvalidInputError(
            f"plot_convergence draws what pysamp.analysis.convergence(run, first, second) returns; got a dataset without "
            f"{', '.join(sorted(missing))}."
        )
    ax = _new_axes() if ax is None else ax
    steps, values, stderr = (np.asarray(dataset[name].values) for name in ("step", "difference", "stderr"))
    stderr = np.where(np.isfinite(stderr), stderr, np.nan)
    ax.fill_between(steps, values - stderr, values + stderr, alpha=0.3, linewidth=0, label="standard error")
    ax.plot(steps, values, marker="o", markersize=3, label="difference")
    ax.set_xlabel("MD steps")
    ax.set_ylabel(f"free-energy difference [{dataset['difference'].attrs.get('unit', 'energy')}]")
    return ax


def plot_overlap(matrix: xr.DataArray, ax: "Axes | None" = None) -> "Axes":
    """Draw an overlap matrix as a map, with the numbers in its cells if there are at most 15 windows.

    Args:
        matrix: what :func:`~pysamp.analysis.overlap` returned.
        ax: where to draw; None for a new figure.

    Returns:
        The axes.

    Raises:
        InvalidInputError: if it is not a square matrix.
        ImportError: without Matplotlib.

    Example:
        >>> pysamp.analysis.plot_overlap(pysamp.analysis.overlap(run))  # doctest: +SKIP
    """
    values = np.asarray(matrix.values)
    if values.ndim != 2 or values.shape[0] != values.shape[1]:
        raise InvalidInputError(
            f"plot_overlap draws what pysamp.analysis.overlap(run) returns, a square matrix; got the shape {values.shape}."
        )
    ax = _new_axes() if ax is None else ax
    image = ax.imshow(values, vmin=0.0, vmax=1.0, cmap="viridis")
    if len(values) <= _FEW_WINDOWS:
        ticks = np.arange(len(values))
        ax.set_xticks(ticks)
        ax.set_yticks(ticks)
        for i, j in np.ndindex(*values.shape):
            color = "black" if values[i, j] > 0.5 else "white"
            ax.text(j, i, f"{values[i, j]:.2f}", ha="center", va="center", color=color, fontsize="x-small")
    ax.figure.colorbar(image, ax=ax, label="overlap")
    ax.set_xlabel("window")
    ax.set_ylabel("window")
    return ax


def _pyplot() -> Any:
    """Matplotlib's pyplot, which is optional."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError("Drawing needs Matplotlib: pip install 'pysamp[plot]'.") from error
    return plt


def _new_axes() -> "Axes":
    """One panel in a figure of its own."""
    return _pyplot().subplots(layout="constrained")[1]


def _broken(
    x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"], period: float | None
) -> tuple[Float[np.ndarray, " m"], Float[np.ndarray, " m"]]:
    """A line with gaps where a periodic quantity jumps by more than half its period."""
    if period is None:
        return x, y
    jumps = np.flatnonzero(np.abs(np.diff(y)) > 0.5 * period) + 1
    return np.insert(x, jumps, math.nan), np.insert(y, jumps, math.nan)


def _draw_line(free_energy: "FreeEnergy", ax: "Axes") -> None:
    (x,) = free_energy.grid.centers
    values, stderr = free_energy.values, np.where(np.isfinite(free_energy.stderr), free_energy.stderr, np.nan)
    ax.fill_between(x, values - stderr, values + stderr, alpha=0.3, linewidth=0, label="standard error")
    ax.plot(x, values, label="F")
    ax.set_xlabel(free_energy.labels[0])
    ax.set_ylabel(f"free energy [{free_energy.unit}]")


def _draw_map(free_energy: "FreeEnergy", ax: "Axes") -> None:
    x, y = free_energy.grid.centers
    values = np.ma.masked_invalid(free_energy.values).T
    mesh = ax.pcolormesh(x, y, values, shading="nearest", cmap="viridis")
    if min(values.shape) > 1 and values.count() > 4:
        ax.contour(x, y, values, levels=12, colors="white", linewidths=0.5, alpha=0.7)
    ax.figure.colorbar(mesh, ax=ax, label=f"free energy [{free_energy.unit}]")
    ax.set_xlabel(free_energy.labels[0])
    ax.set_ylabel(free_energy.labels[1])
