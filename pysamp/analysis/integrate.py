"""From a mean force on a grid to the free energy: a Poisson problem."""

from collections.abc import Callable

import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool, Float
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import cg, splu

from ..errors import SimulationError
from ..grids import Grid

__all__ = ["GradientIntegrator"]

_DIRECT = 20_000  # unknowns in 3-D up to which factorising is quick
COMPARABLE = 0.1  # a neighbour with fewer samples than this part is not worth its noise


class GradientIntegrator:
    r"""Finds the free energy whose differences between neighbouring bins fit measured gradients best.

    Weighted least squares over all pairs of neighbouring bins: each asks for
    $F_b - F_a = \int_a^b \partial F$, the integral from the gradients in four bins along the axis (two, where only two were
    sampled), with as weight the harmonic mean of the two bins' numbers of samples. Gradients are understood as averages over
    bins, values as those at bin centres; the error is of fourth order in the bins' width (second where two were used).

    The matrix depends on the numbers of samples only; it is factorised once and serves for any number of gradients.

    Args:
        grid: the grid.
        counts: number of samples in each bin. Bins that are not connected with the largest connected part are left out.

    Attributes:
        connected: the bins for which there is a free energy.
    """

    def __init__(self, grid: Grid, counts: Float[np.ndarray, "*shape"]):
        self.grid = grid
        self._counts = counts
        self._pairs = [self._neighbours(axis) for axis in range(grid.n_dims)]
        first = np.concatenate([pairs[0] for pairs in self._pairs])
        second = np.concatenate([pairs[1] for pairs in self._pairs])
        n = counts.reshape(-1)
        links = sp.coo_array((np.ones(len(first)), (first, second)), shape=(grid.size, grid.size))
        _, labels = connected_components(links, directed=False)
        sizes = np.bincount(labels[n > 0], weights=n[n > 0])
        self._inside = (labels == np.argmax(sizes)) & (n > 0)
        self.connected: Bool[np.ndarray, "*shape"] = self._inside.reshape(grid.shape)
        self._kept = self._inside[first]
        number = np.cumsum(self._inside) - 1
        a, b = number[first[self._kept]], number[second[self._kept]]
        rows = np.arange(len(a))
        values = np.ones(len(a))
        size = int(self._inside.sum())
        difference = sp.csr_array(
            (np.concatenate([-values, values]), (np.tile(rows, 2), np.concatenate([a, b]))), (len(a), size)
        )
        weights = 1.0 / (1.0 / n[first[self._kept]] + 1.0 / n[second[self._kept]])
        weights /= weights.max(initial=1.0)
        self._right = (difference * weights[:, None]).T.tocsr()
        self._solve = _solver((self._right @ difference).tocsc(), grid.n_dims)

    def __call__(self, gradient: Float[np.ndarray, "*shape n"]) -> Float[np.ndarray, "*shape"]:
        """Free energy up to a constant; nan where it is not connected.

        Args:
            gradient: dF/dxi averaged over each bin; anything where there are no samples.
        """
        gradient = np.where(self._counts[..., None] > 0, gradient, 0.0)
        steps = [self._differences(self._centred(gradient[..., d], d), d) for d in range(self.grid.n_dims)]
        values = np.full(self.grid.size, np.nan)
        values[self._inside] = self._solve(self._right @ np.concatenate(steps)[self._kept])
        return values.reshape(self.grid.shape)

    def _shift(self, array: np.ndarray, axis: int, by: int) -> np.ndarray:
        return shifted(self.grid, array, axis, by)

    def _neighbours(self, axis: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Flat indices of the sampled pairs along an axis, and whether their other neighbours may be used."""
        places = np.arange(self.grid.size).reshape(self.grid.shape) + 1
        after = self._shift(places, axis, 1)
        n = self._counts
        both = (n > 0) & (after > 0) & (self._shift(n, axis, 1) > 0) & (self.grid.shape[axis] > 1)
        least = COMPARABLE * np.minimum(n, self._shift(n, axis, 1))
        wide = (
            both & (self._shift(n, axis, -1) > least) & (self._shift(n, axis, 2) > least) & (self.grid.shape[axis] > 3)
        )
        return places[both] - 1, after[both] - 1, wide[both]

    def _centred(self, component: Float[np.ndarray, "*shape"], own: int) -> Float[np.ndarray, "*shape"]:
        """Along the other axes, the value in the middle of a bin from averages over bins."""
        result = component.copy()
        for axis in range(self.grid.n_dims):
            if axis == own or self.grid.shape[axis] < 3:
                continue
            n = self._counts
            before, after = self._shift(component, axis, -1), self._shift(component, axis, 1)
            enough = (np.minimum(self._shift(n, axis, -1), self._shift(n, axis, 1)) > COMPARABLE * n) & (n > 0)
            result -= np.where(enough, (before - 2 * component + after) / 24.0, 0.0)
        return result

    def _differences(self, component: Float[np.ndarray, "*shape"], axis: int) -> Float[np.ndarray, " pairs"]:
        """Change of F from each bin's centre to the next one's along an axis."""
        first, second, wide = self._pairs[axis]
        flat = component.reshape(-1)
        near = flat[first] + flat[second]
        far = self._shift(component, axis, -1).reshape(-1)[first] + self._shift(component, axis, 2).reshape(-1)[first]
        return float(self.grid.widths[axis]) * np.where(wide, (9.0 * near - far) / 16.0, near / 2.0)


def shifted(grid: Grid, array: np.ndarray, axis: int, by: int) -> np.ndarray:
    """The entries ``by`` bins further along an axis; zero beyond the end of a non-periodic one."""
    moved = np.roll(array, -by, axis)
    if not grid.periodic[axis]:
        n = grid.shape[axis]
        beyond = np.arange(max(n - by, 0), n) if by > 0 else np.arange(min(-by, n))
        moved[(slice(None),) * axis + (beyond,)] = 0
    return moved


def _solver(matrix: sp.csc_array, n_dims: int) -> Callable[[np.ndarray], np.ndarray]:
    """Solves with the Laplacian of a connected graph, the first value pinned to zero."""
    reduced = matrix[1:, 1:].tocsc()
    if reduced.shape[0] == 0:
        return lambda right: np.zeros(1)
    if n_dims < 3 or reduced.shape[0] <= _DIRECT:
        solve = splu(reduced, permc_spec="MMD_AT_PLUS_A", options={"SymmetricMode": True}).solve
    else:
        preconditioner = sp.diags_array(1.0 / reduced.diagonal())

        def solve(right: np.ndarray) -> np.ndarray:
            solution, n_iterations = cg(reduced, right, rtol=1e-8, M=preconditioner, maxiter=20_000)
            if n_iterations:
                raise SimulationError(
                    "The mean force could not be integrated: some bins have far too few samples. Run longer."
                )
            return solution

    return lambda right: np.concatenate([[0.0], solve(right[1:])])
