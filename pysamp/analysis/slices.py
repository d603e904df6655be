"""A run under a growing bias as a sequence of slices of nearly constant bias: weights of its samples by MBAR."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int

from ..errors import InvalidInputError
from .metadynamics import slice_edges, transient
from .reweight import solve_wham
from .sampling import MIN_UNITS, blocks_of_time, leave_out_units, n_blocks_per_replica

__all__ = ["sliced_weights"]

_MOST_BIASES = 60  # slices of all replicas together
_MOST_SAMPLES = 10_000  # of a log with more, every second, third ... is used

Energies = Callable[[int, Int[np.ndarray, " edges"], Float[np.ndarray, "points n"]], Float[np.ndarray, "slices points"]]


def sliced_weights(
    xi: Float[np.ndarray, "r s n"],
    n_before: Int[np.ndarray, " s"],
    heights: Float[np.ndarray, "r hills"],
    reduced_bias: Energies,
    sigma: Float[np.ndarray, " n"],
    discard: float | None,
) -> Float[np.ndarray, "m_plus_1 r s"]:
    """Weights of logged samples in the unbiased ensemble, and with each block of data left out in turn.

    Args:
        xi: the samples.
        n_before: hills before each sample.
        heights: how much the bias grew with each hill, in any unit.
        reduced_bias: from a replica, the numbers of hills at the edges of its slices, and points: average bias over kT of
            each slice at the points.
        sigma: distance below which samples are in the same place.
        discard: fraction to leave out at the beginning; None for what every CV takes to come to known places.
    """
    n_replicas, n_samples = xi.shape[:2]
    stride = -(-n_replicas * n_samples // _MOST_SAMPLES)
    first = [max(transient(own[:, [d]], sigma[[d]], discard) for d in range(xi.shape[2])) for own in xi]
    used = [np.arange(start, n_samples, stride) for start in first]
    if min(map(len, used)) < MIN_UNITS or sum(map(len, used)) < 10 * MIN_UNITS:
        raise InvalidInputError(
            f"{sum(map(len, used))} logged samples are too few for an error estimate: run longer, or log more often "
            "(log_every=...)."
        )
    points = np.concatenate([own[k] for own, k in zip(xi, used, strict=True)])
    n_blocks, n_slices = n_blocks_per_replica(n_replicas), max(4, _MOST_BIASES // n_replicas)
    counts = np.zeros((n_replicas * n_blocks, n_replicas * n_slices))
    units, biases = [], []
    for replica, k in enumerate(used):
        edges = slice_edges(heights[replica], int(n_before[k[0]]), n_slices)
        place = np.clip(np.searchsorted(edges, n_before[k], side="right") - 1, 0, n_slices - 1)
        units.append(replica * n_blocks + blocks_of_time(len(k), n_blocks))
        np.add.at(counts, (units[-1], replica * n_slices + place), 1.0)
        biases.append(reduced_bias(replica, edges, points))
    reduced, unit = np.concatenate(biases), np.concatenate(units)
    samples = np.zeros((len(counts), len(points)))
    samples[unit, np.arange(len(points))] = 1.0
    p, f = solve_wham(np.ones(len(points)), counts.sum(axis=0), reduced)
    left_out = zip(leave_out_units(samples), leave_out_units(counts), strict=True)
    all_p = [p, *(solve_wham(s, b, reduced, f)[0] for s, b in left_out)]
    weights = np.zeros((len(all_p), n_replicas, n_samples))
    start = 0
    for replica, k in enumerate(used):
        weights[:, replica, k] = np.stack([q[start : start + len(k)] for q in all_p])
        start += len(k)
    return weights
