"""What the methods share that fit a free energy to average forces and apply it as a smooth bias."""

import abc
from collections.abc import Mapping
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ..grids import Grid
from .abf import ABFState, collect, no_samples, until
from .base import AbstractMethod, Bias, Observation
from .metadynamics import interpolate

__all__ = ["AbstractFittedForce", "FittedForceState", "value_and_gradient"]


class FittedForceState(eqx.Module):
    """Samples of the force, what was fitted to them, and the bias potential that follows from it.

    Attributes:
        samples: sums of force samples, as in :class:`~pysamp.methods.ABF`.
        fit: what the last fit found: coefficients of a series, parameters of a network.
        table: bias at the grid's nodes, one ghost node beyond either end of each axis [energy].
    """

    samples: ABFState
    fit: Any
    table: Float[Array, " nodes"]


class AbstractFittedForce(AbstractMethod[FittedForceState]):
    """Base class of methods that collect forces as ABF does and bias with a free energy fitted to them now and then.

    Attributes:
        grid: the bins.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"momentum"})
    learns: ClassVar[bool] = True

    grid: eqx.AbstractVar[Grid]

    @property
    @abc.abstractmethod
    def interval(self) -> Int[Array | np.ndarray, ""]:
        """Steps between fits."""

    @abc.abstractmethod
    def first_fit(self) -> Any:
        """What stands for a fit before the first: no bias."""

    @abc.abstractmethod
    def fitted(
        self, sums: Float[Array, "bins blocks n_plus_1"], fit: Any, kT: Float[Array | np.ndarray, ""]
    ) -> tuple[Any, Array]:
        """A new fit, and minus the free energy at the nodes of the table."""

    def init(self, obs: Observation) -> FittedForceState:
        """No samples, no bias."""
        n_nodes = int(np.prod([n + 3 for n in self.grid.shape]))
        return FittedForceState(
            samples=no_samples(self.grid, obs),
            fit=jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype=obs.xi.dtype), self.first_fit()),
            table=jnp.zeros(n_nodes, dtype=obs.xi.dtype),
        )

    def update(self, state: FittedForceState, obs: Observation) -> FittedForceState:
        """Add the force since the last step to the bin of the last step."""
        return FittedForceState(collect(self.grid, state.samples, obs), state.fit, state.table)

    def is_due(self, n_steps: Int[Array, ""]) -> Bool[Array, ""]:
        """At the end of each interval."""
        return n_steps % self.interval == 0

    def learn(self, state: FittedForceState, n_steps: Int[Array, ""], kT: Float[Array, ""]) -> FittedForceState:
        """Fit to all samples, wherever in their bins they are."""
        sums, n = state.samples.sums, self.grid.n_dims
        sums = jnp.concatenate([sums[..., :n], sums[..., -1:]], axis=-1)
        fit, table = self.fitted(sums, state.fit, self._kT(kT))
        return FittedForceState(state.samples, fit, table)

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


def value_and_gradient(
    grid: Grid, table: Float[Array, " nodes"], xi: Float[Array, " n"]
) -> tuple[Float[Array, ""], Float[Array, " n"]]:
    """A table's interpolated value at ``xi`` and the exact gradient of that."""
    table = table.reshape(tuple(n + 3 for n in grid.shape))
    return jax.value_and_grad(lambda x: interpolate(grid, table, x))(xi)
