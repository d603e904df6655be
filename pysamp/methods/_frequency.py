"""How often each bin was visited under a bias that changes from sweep to sweep, united in one free energy."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ._network import Network, soft_targets

__all__ = ["energy_residuals", "with_sweep"]

_FULL_COUNT = 10.0  # samples in a cell from which on its frequency counts fully
_N_ITERATIONS = 30
_LEAST_OVERLAP = 0.5  # shared samples; with fewer the constant stays where it is, instead of following rounding errors
_LONGEST_STEP = 5.0


def with_sweep(
    counts: Float[Array, " bins"],
    denominators: Float[Array, " bins"],
    reduced_bias: Float[Array, " bins"],
    n_samples: Float[Array, ""],
) -> Float[Array, " bins"]:
    r"""The denominators of WHAM with one sweep more.

    $$D_s = \sum_b n_b e^{f_b - v_{bs}}, \qquad p_s \propto N_s / D_s.$$

    The constant $f_b$ of the new sweep is the one at which it explains as many samples as it has; those of earlier sweeps stay.

    Args:
        counts: N, samples of all sweeps, the new one included.
        denominators: D of the earlier sweeps.
        reduced_bias: v, bias of the new sweep over kT.
        n_samples: n, samples of the new sweep.
    """
    first = jnp.sum(denominators) == 0.0
    v = reduced_bias - jnp.min(reduced_bias)
    own = n_samples * jnp.exp(-v)

    def step(_: Array, f: Float[Array, ""]) -> Float[Array, ""]:
        # as a logistic function of f, bin by bin: it never overflows
        share = jax.nn.sigmoid(f + jnp.log(jnp.maximum(own, 1e-300)) - jnp.log(jnp.maximum(denominators, 1e-300)))
        excess = jnp.sum(counts * share) - n_samples
        overlap = jnp.maximum(jnp.sum(counts * share * (1.0 - share)), _LEAST_OVERLAP)
        return f - jnp.clip(excess / overlap, -_LONGEST_STEP, _LONGEST_STEP)

    f = jax.lax.fori_loop(0, _N_ITERATIONS, step, jnp.zeros_like(n_samples))
    return denominators + own * jnp.exp(jnp.where(first, 0.0, f))


def energy_residuals(
    network: Network, counts: Float[Array, " bins"], denominators: Float[Array, " bins"], scale: Any
) -> Any:
    """Residuals of the network against the free energy, whose highest known value is 0, as a function of its parameters.

    Args:
        network: for the free energy over ``scale`` times kT.
        counts: samples in each bin.
        denominators: see :func:`with_sweep`.
        scale: what the network's 1 stands for, over kT.
    """
    joined = network.joined(jnp.stack([counts, denominators], axis=1))
    seen = joined[:, 0] > 0
    energies = jnp.log(jnp.maximum(joined[:, 1], 1e-300)) - jnp.log(jnp.maximum(joined[:, 0], 1e-300))
    energies = jnp.where(seen, energies - jnp.max(jnp.where(seen, energies, -jnp.inf)), 0.0) / scale
    weights, targets = soft_targets((energies * joined[:, 0])[:, None], joined[:, :1], _FULL_COUNT)
    points = jnp.asarray(network.points)
    return lambda parameters: (weights * (network.values(parameters, points)[:, None] - targets)).reshape(-1)
