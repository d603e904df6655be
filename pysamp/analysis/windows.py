"""Samples under biases that do not change, of one or of many windows, and WHAM over them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from ..errors import InvalidInputError
from ..grids import Grid
from ..methods.base import AbstractStaticBias, periodic_difference
from .free_energy import FreeEnergy
from .reweight import solve_wham
from .sampling import MIN_UNITS, blocks_of_time, default_grid, leave_out_units, locate, n_blocks_per_replica

__all__ = ["Windows"]

_LEAST_SAMPLES = 10 * MIN_UNITS
_REFINEMENT = {1: 16, 2: 8}  # cells per bin and axis on which the biases are evaluated
_CHUNK = 1 << 22  # numbers of one chunk of biases at samples


class _Samples(NamedTuple):
    """All samples, window after window and replica after replica."""

    xi: Float[np.ndarray, "samples n"]
    window: Int[np.ndarray, " samples"]
    unit: Int[np.ndarray, " samples"]


class _Solution(NamedTuple):
    """WHAM on cells so small that a bias is constant in each, and what it was solved for."""

    points: Float[np.ndarray, "cells n"]
    reduced: Float[np.ndarray, "windows cells"]
    n_s: Float[np.ndarray, "units cells"]
    n_b: Float[np.ndarray, "units windows"]
    p: Float[np.ndarray, " cells"]
    f: Float[np.ndarray, " windows"]

    @property
    def counts(self) -> Float[np.ndarray, " windows"]:
        """Samples of each window."""
        return self.n_b.sum(axis=0)

    def left_out(
        self,
    ) -> tuple[
        Float[np.ndarray, "units cells"], Float[np.ndarray, "units windows"], Float[np.ndarray, "units windows"]
    ]:
        """p, f and counts with each unit left out in turn."""
        counts = leave_out_units(self.n_b)
        pairs = zip(leave_out_units(self.n_s), counts, strict=True)
        p, f = zip(*(solve_wham(cells, windows, self.reduced, self.f) for cells, windows in pairs), strict=True)
        return np.stack(p), np.stack(f), counts


@dataclass(frozen=True)
class Windows:
    """Samples of the same CVs under one or more biases that do not change.

    The units that are left out in turn for the errors are blocks of time (of one replica), the same for all windows at once.

    Attributes:
        biases: the bias of each window.
        xi: the samples in each window, without the transient.
        kT: thermal energy [energy].
        unit: name of the unit of energy.
    """

    biases: Sequence[AbstractStaticBias]
    xi: Sequence[Float[np.ndarray, "replica sample n"]]
    kT: float
    unit: str

    @property
    def n_units(self) -> int:
        """Number of blocks that are left out in turn."""
        return self._n_replicas * n_blocks_per_replica(self._n_replicas)

    @property
    def _n_replicas(self) -> int:
        return min(len(xi) for xi in self.xi)

    @property
    def samples(self) -> _Samples:
        """All samples in one row."""
        n_replicas, n_blocks = self._n_replicas, n_blocks_per_replica(self._n_replicas)
        windows, units = [], []
        for window, xi in enumerate(self.xi):
            for replica, values in enumerate(xi):
                windows.append(np.full(len(values), window))
                units.append(blocks_of_time(len(values), n_blocks) + (replica % n_replicas) * n_blocks)
        flat = [xi.reshape(-1, xi.shape[-1]) for xi in self.xi]
        return _Samples(np.concatenate(flat), np.concatenate(windows), np.concatenate(units))

    def default_grid(self) -> Grid:
        """A grid that covers the samples."""
        return default_grid(self.samples.xi, self.biases[0].periods)

    def free_energy(self, grid: Grid) -> FreeEnergy:
        """Free energy on the bins of a grid."""
        solution = self._solve(grid)
        places = locate(grid, solution.points)

        def on_grid(p: Float[np.ndarray, " cells"]) -> Float[np.ndarray, "*shape"]:
            return np.bincount(places, weights=p, minlength=grid.size).reshape(grid.shape)

        return FreeEnergy.from_probabilities(
            on_grid(solution.p),
            np.stack([on_grid(p) for p in solution.left_out()[0]]),
            grid,
            kT=self.kT,
            labels=self.biases[0].labels,
            unit=self.unit,
        )

    def weights(self) -> tuple[Float[np.ndarray, " samples"], Float[np.ndarray, "units samples"]]:
        """Weight of each sample in the unbiased ensemble, normalised, and the same with each unit left out in turn."""
        solution, samples = self._solve(self.default_grid()), self.samples
        left_out = leave_out_units(np.eye(self.n_units))[:, samples.unit]
        _, f_k, counts_k = solution.left_out()
        n = np.concatenate([solution.counts[None], counts_k])
        f = np.concatenate([solution.f[None], f_k])
        weights = 1.0 / self._denominators(samples.xi, n, f)
        weights[1:] *= left_out
        weights /= weights.sum(axis=1, keepdims=True)
        return weights[0], weights[1:]

    def reduced_biases(self, points: Float[np.ndarray, "p n"]) -> Float[np.ndarray, "windows p"]:
        """Every window's bias over kT at points."""
        return np.stack([_potential(bias, points) for bias in self.biases]) / self.kT

    def overlap(self) -> Float[np.ndarray, "windows windows"]:
        """Probability that a sample of one window is taken for one of another, by what WHAM knows."""
        solution, samples = self._solve(self.default_grid()), self.samples
        n, f = solution.counts, solution.f
        result = np.zeros((len(n), len(n)))
        size = max(1, _CHUNK // len(n))
        for start in range(0, len(samples.xi), size):
            v = self.reduced_biases(samples.xi[start : start + size])
            terms = np.exp(f[:, None] - v - (f[:, None] - v).max(axis=0))
            w = terms / (n @ terms)
            result += (w @ w.T) * n
        return result

    def _denominators(
        self, xi: Float[np.ndarray, "s n"], n: Float[np.ndarray, "m windows"], f: Float[np.ndarray, "m windows"]
    ) -> Float[np.ndarray, "m s"]:
        """Sums over windows of n exp(f - v) at each sample, up to a factor for each of the m."""
        size = max(1, _CHUNK // n.shape[1])
        factors = n * np.exp(f - f.max(axis=1, keepdims=True))
        parts = []
        for start in range(0, len(xi), size):
            v = self.reduced_biases(xi[start : start + size])
            parts.append(factors @ np.exp(-v))
        return np.concatenate(parts, axis=1)

    def _solve(self, grid: Grid) -> _Solution:
        samples = self.samples
        fine = _refined(grid)
        inside = locate(grid, samples.xi) >= 0
        cell, point = locate(fine, samples.xi)[inside], samples.xi[inside]
        window, unit = samples.window[inside], samples.unit[inside]
        if len(cell) < _LEAST_SAMPLES:
            raise InvalidInputError(
                f"{len(cell)} logged samples inside the grid are too few: run longer, log more often (log_every=...), or check "
                "that the grid covers the CVs' range."
            )
        _, chosen, inverse, n_in_cell = np.unique(cell, return_index=True, return_inverse=True, return_counts=True)
        # the cell's average sample; of periodic CVs relative to one of them
        periods = self.biases[0].periods
        shifts = np.asarray(periodic_difference(point, point[chosen][inverse], periods), dtype=np.float64)
        points = point[chosen] + _sums(inverse, shifts, len(chosen)) / n_in_cell[:, None]

        n_s = np.zeros((self.n_units, len(chosen)))
        n_b = np.zeros((self.n_units, len(self.biases)))
        np.add.at(n_s, (unit, inverse), 1.0)
        np.add.at(n_b, (unit, window), 1.0)
        reduced = self.reduced_biases(points)
        p, f = solve_wham(n_s.sum(axis=0), n_b.sum(axis=0), reduced)
        return _Solution(points, reduced, n_s, n_b, p, f)


def _refined(grid: Grid) -> Grid:
    factor = _REFINEMENT.get(grid.n_dims, 4)
    return Grid(grid.lower, grid.upper, tuple(n * factor for n in grid.shape), grid.periodic)


def _sums(
    places: Int[np.ndarray, " samples"], values: Float[np.ndarray, "samples n"], n_places: int
) -> Float[np.ndarray, "places n"]:
    return np.stack([np.bincount(places, weights=column, minlength=n_places) for column in values.T], axis=-1)


@eqx.filter_jit
def _potentials(method: AbstractStaticBias, points: Float[jax.Array | np.ndarray, "p n"]) -> Float[jax.Array, " p"]:
    return jax.vmap(method.potential)(jnp.asarray(points))


def _potential(method: AbstractStaticBias, points: Float[jax.Array | np.ndarray, "p n"]) -> Float[np.ndarray, " p"]:
    with jax.enable_x64(True):
        return np.asarray(_potentials(method, points))
