"""Average forces as they would be if the samples were spread evenly over each bin."""

import numpy as np
from jaxtyping import Float

from ..grids import Grid
from .integrate import COMPARABLE, shifted

__all__: list[str] = []

_N_ITERATIONS = 3


def recentred(grid: Grid, sums: Float[np.ndarray, "units bins m"]) -> Float[np.ndarray, "units bins n_plus_1"]:
    r"""Sums of forces with the samples of each bin moved to its centre.

    A bin's average force $\langle F \rangle_b$ is that at the mean place of its samples, $\xi_b + \delta_b$. While the bias still
    grows they crowd at the bin's lower end, and they spread as the free energy is flattened: the average changes with time, in
    the same way in every run. That makes it a little wrong, and blocks of time differ by more than noise. To second order in
    the bin's width

    $$F(\xi_b) = \langle F \rangle_b - J_b \delta_b, \qquad (J_b)_{ij} = \partial F_i / \partial \xi_j,$$

    with J from differences between neighbouring bins, of all units together and of forces that are themselves corrected. It
    takes the scatter of the places off the noise of the forces too.

    Args:
        grid: the bins.
        sums: of forces and of distances from the bin's centre, and number of samples.

    Returns:
        Sums of corrected forces, and number of samples.
    """
    n, total = grid.n_dims, sums.sum(axis=0)
    counts = total[:, -1:].reshape(*grid.shape, 1)
    mean = np.where(counts > 0, total[:, :-1].reshape(*grid.shape, -1) / np.maximum(counts, 1.0), 0.0)
    measured, offset = mean[..., :n], mean[..., n:]
    slopes = _slopes(grid, measured, counts)
    for _ in range(_N_ITERATIONS - 1):
        slopes = _slopes(grid, measured - np.einsum("...ij,...j->...i", slopes, offset), counts)
    moved = np.einsum("bij,ubj->ubi", slopes.reshape(-1, n, n), sums[..., n:-1])
    return np.concatenate([sums[..., :n] - moved, sums[..., -1:]], axis=-1)


def _slopes(
    grid: Grid, force: Float[np.ndarray, "*shape n"], counts: Float[np.ndarray, "*shape 1"]
) -> Float[np.ndarray, "*shape n n"]:
    """dF_i / dxi_j by central differences, or by one-sided ones where one neighbour has far fewer samples."""
    columns = []
    for axis in range(grid.n_dims):
        near = [shifted(grid, counts, axis, by) for by in (1, -1)]
        usable = [(there > COMPARABLE * counts) & (counts > 0) for there in near]
        rise = np.where(usable[0], shifted(grid, force, axis, 1) - force, 0.0)
        rise += np.where(usable[1], force - shifted(grid, force, axis, -1), 0.0)
        n_used = np.add(*usable, dtype=float)
        columns.append(rise / np.maximum(n_used, 1.0) / float(grid.widths[axis]))
    return np.stack(columns, axis=-1)
