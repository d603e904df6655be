"""What the methods share that fit a free energy to average forces and apply it as a smooth bias."""

import abc
from collections.abc import Mapping
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ..grids import Grid
from .abf import ABFState, collect, no_samples, until
from .base import AbstractMethod, Bias, Observation
from .metadynamics import interpolate

__all__ = ["AbstractFittedForce", "FittedForceState", "value_and_gradient"]


class FittedForceState(eqx.Module):
    """Samples of the force, what was fitted to them, and the bias potential that follows from it.

    Attributes:
        samples: sums of force samples, as in :class:`~pysamp.methods.ABF`.
        fit: what the last fit found: coefficients of a series, parameters of a network. Flat arrays, as the table is, so that
            their layout in memory is fixed.
        table: bias at the grid's nodes, one ghost node beyond either end of each axis [energy].
        applied: bias force at the last step [energy / CV unit].
    """

    samples: ABFState
    fit: Any
    table: Float[Array, " nodes"]
    applied: Float[Array, " n"]


class AbstractFittedForce(AbstractMethod[FittedForceState]):
    """Base class of methods that collect forces as ABF does and bias with a free energy fitted to them now and then.

    Attributes:
        grid: the bins.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"momentum"})

    grid: eqx.AbstractVar[Grid]

    @property
    @abc.abstractmethod
    def interval(self) -> Int[Array | np.ndarray, ""]:
        """Steps between fits."""

    @abc.abstractmethod
    def first_fit(self) -> Any:
        """What stands for a fit before the first: no bias."""

    @abc.abstractmethod
    def fitted(self, sums: Float[Array, "bins blocks n_plus_1"], fit: Any, obs: Observation) -> tuple[Any, Array]:
        """A new fit, and minus the free energy at the nodes of the table."""

    def init(self, obs: Observation) -> FittedForceState:
        """No samples, no bias."""
        n_nodes = int(np.prod([n + 3 for n in self.grid.shape]))
        return FittedForceState(
            samples=no_samples(self.grid, obs),
            fit=jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype=obs.xi.dtype), self.first_fit()),
            table=jnp.zeros(n_nodes, dtype=obs.xi.dtype),
            applied=jnp.zeros_like(obs.xi),
        )

    def update(self, state: FittedForceState, obs: Observation) -> FittedForceState:
        """Add the force since the last step to the bin of the last step; fit now and then."""
        samples = collect(self.grid, state.samples, obs, lambda sums: state.applied)
        due = (obs.step % self.interval == 0) & (obs.step > 0)
        kept = samples.sums, state.fit, state.table
        # The sums go through the branch, behind a barrier: if they were only read in it, XLA would copy them at every step.
        sums, fit, table = jax.lax.cond(
            due,
            lambda: jax.lax.optimization_barrier((samples.sums, *self.fitted(samples.sums, state.fit, obs))),
            lambda: jax.lax.optimization_barrier(kept),
        )
        samples = eqx.tree_at(lambda s: s.sums, samples, sums)
        _, gradient = value_and_gradient(self.grid, table, obs.xi)
        return FittedForceState(samples, fit, table, -gradient)

    def bias(self, state: FittedForceState, obs: Observation) -> Bias:
        """Minus the fitted free energy, and its exact gradient."""
        energy, gradient = value_and_gradient(self.grid, state.table, obs.xi)
        return Bias(energy, -gradient)

    def truncated(self, state: FittedForceState, n_steps: int) -> FittedForceState:
        """The blocks of time that had ended; the fit stays, which the analysis does not look at."""
        return eqx.tree_at(lambda s: s.samples, state, until(state.samples, n_steps))

    def diagnostics(self, state: FittedForceState) -> Mapping[str, Float[Array, ""]]:
        """Steps outside the grid."""
        return {"outside": state.samples.outside.astype(float)}


def written_over(old: Array, new: Array) -> Array:
    """``new``, in the memory of ``old``.

    If a seldom taken branch returned an array of its own, XLA would copy the old one at every step in the other branch. It
    writes parts of an array in place, but not the whole.
    """
    half = len(old) // 2 if old.ndim else 0
    if not half:
        return new
    first, second = (0,) * old.ndim, (half,) + (0,) * (old.ndim - 1)
    return jax.lax.dynamic_update_slice(jax.lax.dynamic_update_slice(old, new[:half], first), new[half:], second)


def value_and_gradient(
    grid: Grid, table: Float[Array, " nodes"], xi: Float[Array, " n"]
) -> tuple[Float[Array, ""], Float[Array, " n"]]:
    """A table's interpolated value at ``xi`` and the exact gradient of that."""
    table = table.reshape(tuple(n + 3 for n in grid.shape))
    return jax.value_and_grad(lambda x: interpolate(grid, table, x))(xi)
