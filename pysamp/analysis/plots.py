"""Figures of free energies; Matplotlib is imported only when one is drawn."""

from typing import TYPE_CHECKING

import numpy as np

from ..errors import InvalidInputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .free_energy import FreeEnergy

__all__ = ["plot_free_energy"]


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
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError("Drawing needs Matplotlib: pip install 'pysamp[plot]'.") from error
    if ax is None:
        _, ax = plt.subplots(layout="constrained")
    draw = _draw_line if n == 1 else _draw_map
    draw(free_energy, ax)
    return ax


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
