"""Free energy of artificial neural network sampling: WHAM over its sweeps."""

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jaxtyping import Array, Bool, Float, Int

from ..api import analyze
from ..errors import InvalidInputError
from ..grids import Grid
from ..methods.ann import ANN, ANNState
from ..results import Run
from .free_energy import FreeEnergy
from .reweight import solve_wham
from .sampling import blocks_of_time, check_discard, leave_out_units, n_blocks_per_replica, place_of

__all__: list[str] = []

_LEAST_BLOCKS = 4
_FAMILIAR = 0.9  # the transient ends when this part of all samples lies where the run has been before
_LEAST_DISCARD, _MOST_DISCARD = 0.1, 0.5
_MOST_BIASES = 400  # of all replicas together; beyond that, neighbouring sweeps share their average


@analyze.dispatch
def _analyze_ann(method: ANN, run: Run, /, *, grid: Grid | None = None, discard: float | None = None) -> FreeEnergy:
    """The sweeps as simulations under one static bias each, joined by WHAM; every step counts, whatever the log has.

    Errors come from leaving out blocks of sweeps. The beginning is left out until nine tenths of all samples lie in bins
    that have been visited, but at least a tenth and at most half of the run, unless ``discard`` says otherwise.
    """
    check_discard(discard)
    if grid is not None and grid is not method.grid:
        raise InvalidInputError("ANN has counted on its own grid; leave grid=... out.")
    grid, place, n_replicas = method.grid, place_of(run, method), len(run.states)
    histograms, counts, biases = [], [], []
    for state in run.states:
        in_blocks, n_sweeps, block_of = _blocks(state.methods[place])
        first = _transient(in_blocks, discard)
        n_units = min(len(in_blocks) - first, n_blocks_per_replica(n_replicas))
        unit = blocks_of_time(len(in_blocks) - first, n_units)
        kept = block_of >= first
        slices = blocks_of_time(int(kept.sum()), min(int(kept.sum()), max(4, _MOST_BIASES // n_replicas)))
        bias = _reduced_biases(method, state.methods[place], kept)
        n_b, mean = np.zeros((n_units, slices[-1] + 1)), np.zeros((slices[-1] + 1, grid.size))
        np.add.at(n_b, (unit[block_of[kept] - first], slices), n_sweeps[kept])
        np.add.at(mean, slices, bias / np.bincount(slices)[slices][:, None])
        histograms.append(np.stack([in_blocks[first:][unit == k].sum(axis=0) for k in range(n_units)]))
        counts.append(n_b)
        biases.append(mean)
    n_s = np.concatenate(histograms)
    if len(n_s) < _LEAST_BLOCKS or not n_s.any():
        raise InvalidInputError(
            f"{int(n_s.sum())} samples inside the grid, in {len(n_s)} blocks of sweeps, are too few for an error estimate: run "
            f"longer, choose a smaller train_every than {int(method.train_every)}, and check that the grid covers the CVs' range."
        )
    n_b = np.asarray(scipy.linalg.block_diag(*counts))  # each replica has biases of its own
    visited, reduced = n_s.sum(axis=0) > 0, np.concatenate(biases)
    p, f = solve_wham(n_s.sum(axis=0)[visited], n_b.sum(axis=0), reduced[:, visited])
    replicates = [
        solve_wham(s[visited], b, reduced[:, visited], f)[0]
        for s, b in zip(leave_out_units(n_s), leave_out_units(n_b), strict=True)
    ]
    probabilities = np.zeros((len(replicates) + 1, grid.size))
    probabilities[:, visited] = [p, *replicates]
    probabilities = probabilities.reshape(-1, *grid.shape)
    return FreeEnergy.from_probabilities(
        probabilities[0],
        probabilities[1:],
        grid,
        kT=run.kT,
        labels=method.labels,
        unit=run.energy_unit,
    )


def _blocks(
    state: ANNState,
) -> tuple[Float[np.ndarray, "blocks bins"], Float[np.ndarray, " sweeps"], Int[np.ndarray, " sweeps"]]:
    """Histograms of the blocks in use; samples of each sweep, and its block. A short last block joins the one before."""
    length, n_ended = int(state.block_length), int(state.n_sweeps)
    samples = np.append(np.asarray(state.networks)[:n_ended, -1], float(state.n_inside))
    if not samples[-1]:
        samples = samples[:-1]
    n_blocks = -(-len(samples) // length)
    blocks = np.asarray(state.counts).T[:n_blocks].copy()
    if n_blocks > 1 and len(samples) - (n_blocks - 1) * length <= length / 2:
        blocks[-2] += blocks[-1]
        blocks = blocks[:-1]
    return blocks, samples, np.minimum(np.arange(len(samples)) // length, max(len(blocks) - 1, 0))


def _transient(blocks: Float[np.ndarray, "blocks bins"], discard: float | None) -> int:
    """Number of blocks to leave out at the beginning."""
    n = len(blocks)
    if discard is not None or n == 0:
        return int((discard or 0.0) * n)
    found = np.argmax(blocks > 0, axis=0)  # block in which each bin was first visited
    familiar = np.cumsum(np.bincount(found, weights=blocks.sum(axis=0), minlength=n)) >= _FAMILIAR * blocks.sum()
    return int(np.clip(np.argmax(familiar), np.ceil(_LEAST_DISCARD * n) if n > 1 else 0, _MOST_DISCARD * n))


def _reduced_biases(method: ANN, state: ANNState, kept: Bool[np.ndarray, " sweeps"]) -> Float[np.ndarray, "kept bins"]:
    parameters = np.asarray(state.networks)[: len(kept), :-1][kept]
    with jax.enable_x64(True):
        return np.asarray(_biases_of(method, jnp.asarray(parameters)))


@jax.jit
def _biases_of(method: ANN, parameters: Float[Array, "kept k"]) -> Float[Array, "kept bins"]:
    return jax.lax.map(lambda own: method.reduced_bias(own), parameters)
