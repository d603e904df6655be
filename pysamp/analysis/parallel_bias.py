"""Weights of the samples of parallel-bias metadynamics, and free energies from them."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Float, Int

from ..api import analyze, sample_weights
from ..errors import InvalidInputError, UnsupportedError
from ..grids import Grid
from ..methods.base import check_grid
from ..methods.parallel_bias import ParallelBiasMetadynamics
from ..results import Run
from .free_energy import FreeEnergy
from .sampling import check_discard, logged_xi, place_of
from .slices import sliced_weights
from .weights import as_weights, reweight

__all__: list[str] = []

_MOST_CVS = 3
_CHUNK = 64


@sample_weights.dispatch
def _weights_parallel(method: ParallelBiasMetadynamics, run: Run, /, *, discard: float | None = None) -> xr.Dataset:
    """MBAR over slices of the run in which the bias changes little; samples of a long log are thinned."""
    check_discard(discard)
    xi, place = logged_xi(run, method), place_of(run, method)
    states = [state.methods[place] for state in run.states]
    n_hills = min(int(state.n_hills) for state in states)
    if n_hills < 4:
        raise InvalidInputError(
            f"{n_hills} hills are too few: run longer, or choose a smaller stride than {int(method.stride)}."
        )
    hills = np.stack([np.asarray(state.hills)[:, :n_hills] for state in states])
    # the hill of step k * stride acts from the next step on
    n_before = np.maximum(-(-np.asarray(run.log["step"].values, dtype=np.int64) // int(method.stride)) - 1, 0)
    known = n_before <= n_hills

    def reduced_bias(
        replica: int, edges: Int[np.ndarray, " edges"], points: Float[np.ndarray, "points n"]
    ) -> Float[np.ndarray, "slices points"]:
        with jax.enable_x64(True):
            tables = _tables(method, jnp.asarray(hills[replica]), edges)
            return np.asarray(_energies(method, tables, jnp.asarray(points), jnp.asarray(run.kT))) / run.kT

    heights = hills[:, method.n_cvs :].sum(axis=1)
    weights = sliced_weights(xi[:, known], n_before[known], heights, reduced_bias, method.sigma, discard)
    result = np.zeros((len(weights), *xi.shape[:2]))
    result[:, :, known] = weights
    return as_weights(run, result)


def _tables(
    method: ParallelBiasMetadynamics, hills: Float[Array, "two_n hills"], edges: Int[np.ndarray, " edges"]
) -> Float[Array, "slices nodes"]:
    """Average tables of each slice."""
    tables, bias = [], _summed(method, hills[:, : edges[0]], np.ones((1, edges[0])))[0]
    for start, end in itertools.pairwise(edges):
        # before hill j of the slice there were its first j - 1
        share = (end - 1 - np.arange(start, end)) / max(end - start, 1)
        average, all_of_it = _summed(method, hills[:, start:end], np.stack([share, np.ones(end - start)]))
        tables.append(bias + average)
        bias = bias + all_of_it
    return jnp.stack(tables)


def _summed(
    method: ParallelBiasMetadynamics, hills: Float[Array, "two_n hills"], weights: Float[np.ndarray, "k hills"]
) -> Float[Array, "k nodes"]:
    """Weighted sums of hills on the nodes."""
    nodes, n = sum(m + 3 for m in method.grid.shape), method.n_cvs
    total = jnp.zeros((len(weights), nodes))
    for first in range(0, hills.shape[1], _CHUNK):
        own = np.zeros((2 * n, _CHUNK))
        part = hills[:, first : first + _CHUNK]
        own[:, : part.shape[1]] = part
        share = np.zeros((len(weights), _CHUNK))
        share[:, : part.shape[1]] = weights[:, first : first + _CHUNK]
        total = total + jnp.asarray(share) @ _on_nodes(method, jnp.asarray(own[:n].T), jnp.asarray(own[n:].T))
    return total


@jax.jit
def _on_nodes(
    method: ParallelBiasMetadynamics, xi: Float[Array, "hills n"], heights: Float[Array, "hills n"]
) -> Float[Array, "hills nodes"]:
    return jax.vmap(lambda at, height: method.on_nodes(at, height))(xi, heights)


@jax.jit
def _energies(
    method: ParallelBiasMetadynamics,
    tables: Float[Array, "slices nodes"],
    points: Float[Array, "points n"],
    kT: Float[Array, ""],
) -> Float[Array, "slices points"]:
    return jax.lax.map(lambda own: jax.vmap(lambda xi: method.potential(own, xi, kT))(points), tables)


@analyze.dispatch
def _analyze_parallel(
    method: ParallelBiasMetadynamics, run: Run, /, *, grid: Grid | None = None, discard: float | None = None
) -> FreeEnergy:
    """All CVs together, by reweighting the log."""
    if method.n_cvs > _MOST_CVS:
        raise UnsupportedError(
            f"A free energy in {method.n_cvs} CVs at once has no use: take one or two of them, such as "
            f"pysamp.analysis.reweight(run, {method.labels[0]!r})."
        )
    check_grid(method.grid if grid is None else grid, method)
    return reweight(run, method, grid=method.grid if grid is None else grid, discard=discard)
