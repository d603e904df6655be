"""Expanded ensembles: weights at any of their states, free energies of the states and along CVs."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Float, Int
from scipy.special import logsumexp as scipy_logsumexp

from ..api import analyze, sample_weights
from ..errors import InvalidInputError
from ..grids import Grid
from ..methods.expansions import MultiUmbrella
from ..methods.opes_expanded import OPESExpanded
from ..results import Run
from .errors import jackknife_error
from .free_energy import FreeEnergy
from .sampling import (
    MAX_UNITS,
    MIN_UNITS,
    blocks_of_time,
    logged_xi,
    method_of,
    n_blocks_per_replica,
    n_discarded,
    place_of,
)
from .weights import as_weights, energy_shift, free_energy_of_samples

__all__ = ["expanded_states"]


def logsumexp(values: Float[np.ndarray, "samples *states"]) -> Float[Any, "*states"]:
    """Log of the sum of exponentials along the first axis."""
    return np.asarray(scipy_logsumexp(values, axis=0))


def _log_weights(
    method: OPESExpanded, run: Run, discard: float | None
) -> tuple[Float[np.ndarray, "r s"], Int[np.ndarray, "r s"]]:
    """Log of the weight of each sample, -inf for those left out, and the block of data that it belongs to.

    The steps without bias are left out too.
    """
    states = [state.methods[place_of(run, method)] for state in run.states]
    if any(np.asarray(state.counts).min() == 0 for state in states):
        n_steps = int(method.stride) * method.n_observations
        raise InvalidInputError(
            f"The run has no bias yet, which begins after {n_steps} steps: {method.n_observations} samples (n_observations) "
            f"every {int(method.stride)} steps (stride). Run longer: pysamp.run(result, generate_context, ...)."
        )
    for state in states:
        method.check_room(np.asarray(state.counts))
    logged_xi(run, method)
    energies = np.asarray(run.log["method_energy"].values, dtype=np.float64)[..., place_of(run, method)]
    n_replicas, n_samples = energies.shape
    steps = np.asarray(run.log["step"].values)
    first = max(
        n_discarded(n_samples, discard),
        int(np.searchsorted(steps, int(method.stride) * method.n_observations, "right")),
    )
    if n_replicas * (n_samples - first) < 10 * MIN_UNITS:
        raise InvalidInputError(
            f"{n_replicas * max(n_samples - first, 0)} logged samples with a bias are too few: run longer, or log more often "
            "(log_every=...)."
        )
    result = np.full(energies.shape, -np.inf)
    result[:, first:] = energies[:, first:] / (run.kT if method.kT is None else float(method.kT))
    n_blocks = n_blocks_per_replica(n_replicas)
    units = np.zeros(energies.shape, dtype=np.int64)
    units[:, first:] = blocks_of_time(n_samples - first, n_blocks) + n_blocks * np.arange(n_replicas)[:, None]
    n_units = n_blocks * n_replicas
    return result, units * min(n_units, MAX_UNITS) // n_units


@sample_weights.dispatch
def _weights_expanded(
    method: OPESExpanded, run: Run, /, *, discard: float | None = None, kT: float | None = None
) -> xr.Dataset:
    """exp(V / kT) of the bias that the sample was drawn under, and at another temperature the factor of the energy."""
    log_weights, units = _log_weights(method, run, discard)
    if kT is not None:
        log_weights = log_weights + energy_shift(run, kT)
    weights = np.exp(log_weights - log_weights.max())
    return as_weights(run, np.stack([weights] + [np.where(units == k, 0.0, weights) for k in range(units.max() + 1)]))


@analyze.dispatch
def _analyze_expanded(
    method: OPESExpanded, run: Run, /, *, grid: Grid | None = None, discard: float | None = None
) -> FreeEnergy:
    """Free energy along the CVs of the umbrellas, or the energy if there are none, at the simulation's own temperature."""
    columns, first = [], 0
    for expansion in method.expansions:
        n = sum(cv.n_components for cv in expansion.cvs)
        columns.append((isinstance(expansion, MultiUmbrella), range(first, first + n)))
        first += n
    umbrellas = [i for is_umbrella, places in columns for i in places if is_umbrella]
    places = umbrellas or list(range(method.n_cvs))
    return free_energy_of_samples(
        run,
        logged_xi(run, method)[..., places],
        [method.periods[i] for i in places],
        tuple(method.labels[i] for i in places),
        grid=grid,
        weights=sample_weights(method, run, discard=discard),
        kT=run.kT,
    )


def expanded_states(run: Run, *, discard: float | None = None) -> xr.Dataset:
    r"""Free energies of the states of an expanded ensemble, $-\ln (Z_\lambda / Z_0)$, in units of kT.

    For temperatures Z is the configuration integral $\int e^{-U / kT_\lambda} dx$, for umbrellas $\int e^{-u_0 - \Delta
    u_\lambda} dx$; 0 is the simulation without bias.

    Args:
        run: a run with :class:`~pysamp.methods.OPESExpanded`.
        discard: fraction left out at the beginning; None for a tenth.

    Returns:
        ``free_energy``, ``stderr``, ``replicates`` with one block of data left out in turn (take differences of these for the
        error of a difference), and ``effective_samples`` by ``state``, with the temperature or the centre of each.

    Raises:
        InvalidInputError: if the run has no such method, or is too short.

    Example:
        >>> states = pysamp.analysis.expanded_states(run)  # doctest: +SKIP
        >>> states.free_energy.values, states.stderr.values, states.kT.values  # doctest: +SKIP

    References:
        Invernizzi, Piaggi & Parrinello, Phys. Rev. X 10, 041034 (2020), doi 10.1103/PhysRevX.10.041034.
    """
    method = method_of(run, OPESExpanded, "only OPESExpanded has states")
    log_weights, units = _log_weights(method, run, discard)
    used = np.isfinite(log_weights)
    w, units = log_weights[used], units[used]
    kT = run.kT if method.kT is None else float(method.kT)
    counts = np.max([np.asarray(state.methods[place_of(run, method)].counts) for state in run.states], axis=0)
    with jax.enable_x64(True):
        differences = jax.vmap(lambda xi: method.differences(xi, jnp.asarray(kT), jnp.asarray(counts)))
        u = np.asarray(jax.jit(differences)(logged_xi(run, method)[used]))
    u = u[:, np.isfinite(u[0])]
    n_units = units.max() + 1
    sums = np.stack([logsumexp(w[units == k][:, None] - u[units == k]) for k in range(n_units)])
    totals = np.array([logsumexp(w[units == k]) for k in range(n_units)])

    def free_energies(chosen: Int[np.ndarray, " m"]) -> Float[np.ndarray, " states"]:
        return logsumexp(totals[chosen]) - logsumexp(sums[chosen])

    everything = np.arange(n_units)
    replicates = np.stack([free_energies(np.delete(everything, k)) for k in everything])
    log_states = w[:, None] - u
    effective = np.exp(2.0 * logsumexp(log_states) - logsumexp(2.0 * log_states))
    parameters = [e.parameters(int(n)) for e, n in zip(method.expansions, counts, strict=True)]
    index = np.indices([len(p) for p in parameters]).reshape(len(parameters), -1)
    coordinates = {
        label: ("state", p[i, d])
        for e, p, i in zip(method.expansions, parameters, index, strict=True)
        for d, label in enumerate(e.labels)
    }
    return xr.Dataset(
        {
            "free_energy": ("state", free_energies(everything), {"units": "kT"}),
            "stderr": ("state", jackknife_error(replicates), {"units": "kT"}),
            "replicates": (("block", "state"), replicates, {"units": "kT"}),
            "effective_samples": ("state", effective),
        },
        coordinates,
    )
