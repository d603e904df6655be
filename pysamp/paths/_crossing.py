"""The method that ends a trajectory where it crosses an interface."""

from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ..colvars.base import AbstractCV
from ..methods.base import AbstractMethod, Bias, Observation

__all__ = ["CROSSED", "OUT_OF_TIME", "REACHED_TARGET", "RETURNED", "RUNNING", "Crossing", "CrossingState"]

RUNNING, CROSSED, RETURNED, REACHED_TARGET, OUT_OF_TIME = range(5)


class CrossingState(eqx.Module):
    """What to wait for, and what has happened.

    Attributes:
        basin: below it, a trajectory is in the basin.
        interface: the interface to cross.
        target: beyond it a trajectory of the basin has gone over; it then belongs to the basin no more.
        in_basin: whether it has been in the basin since its last crossing, so that the next one counts; always so for trials.
        is_trial: whether it is a trial, which ends where it falls back into the basin.
        outcome: RUNNING, CROSSED, RETURNED, REACHED_TARGET or OUT_OF_TIME.
        n_steps: MD steps done.
        limit: MD steps after which it ends in any case.
        highest: largest value of the order parameter.
    """

    basin: Float[Array | np.ndarray, ""]
    interface: Float[Array | np.ndarray, ""]
    target: Float[Array | np.ndarray, ""]
    in_basin: Bool[Array | np.ndarray, ""]
    is_trial: Bool[Array | np.ndarray, ""]
    outcome: Int[Array | np.ndarray, ""]
    n_steps: Int[Array | np.ndarray, ""]
    limit: Int[Array | np.ndarray, ""]
    highest: Float[Array | np.ndarray, ""]


def crossing_state(
    *, basin: float, interface: float, target: float, is_trial: bool, in_basin: bool, limit: int
) -> CrossingState:
    """The state before a trajectory, on the host."""
    numbers = [np.asarray(value, dtype=np.float64) for value in (basin, interface, target)]
    return CrossingState(
        *numbers,
        in_basin=np.asarray(in_basin),
        is_trial=np.asarray(is_trial),
        outcome=np.asarray(RUNNING, dtype=np.int64),
        n_steps=np.asarray(0, dtype=np.int64),
        limit=np.asarray(limit, dtype=np.int64),
        highest=np.asarray(-np.inf),
    )


class Crossing(AbstractMethod[CrossingState]):
    r"""Follows the order parameter $\lambda = \pm\xi$ without a bias and stops where something has been decided.

    All that differs from trajectory to trajectory is in the state, so that one compiled program serves for all interfaces.

    Attributes:
        sign: 1 if the order parameter is the CV, -1 if it is minus the CV.
    """

    cvs: tuple[AbstractCV, ...]
    sign: Float[np.ndarray, ""]
    stops: ClassVar[bool] = True

    def init(self, obs: Observation) -> CrossingState:
        """Nothing to cross; the state is to be replaced."""
        del obs
        number, flag, count = jnp.zeros(()), jnp.zeros((), dtype=bool), jnp.zeros((), dtype=jnp.int64)
        return CrossingState(number, number, number, flag, flag, count, count, count, number)

    def update(self, state: CrossingState, obs: Observation) -> CrossingState:
        """See whether something has been decided; what was decided stays."""
        value = self.sign * obs.xi[0]
        below = value < state.basin
        in_basin = state.in_basin | below
        outcome = jnp.where(
            in_basin & (value >= state.interface),
            CROSSED,
            jnp.where(
                state.is_trial & below,
                RETURNED,
                jnp.where(
                    ~in_basin & (value >= state.target),
                    REACHED_TARGET,
                    jnp.where(state.n_steps >= state.limit, OUT_OF_TIME, RUNNING),
                ),
            ),
        )
        running = state.outcome == RUNNING
        return CrossingState(
            basin=state.basin,
            interface=state.interface,
            target=state.target,
            in_basin=jnp.where(running, in_basin & (outcome != CROSSED), state.in_basin),
            is_trial=state.is_trial,
            outcome=jnp.where(running, outcome, state.outcome).astype(state.outcome.dtype),
            n_steps=state.n_steps + (running & (outcome == RUNNING)),
            limit=state.limit,
            highest=jnp.where(running, jnp.maximum(state.highest, value), state.highest),
        )

    def bias(self, state: CrossingState, obs: Observation) -> Bias:
        """None."""
        del state
        return Bias(jnp.zeros_like(obs.xi, shape=()), jnp.zeros_like(obs.xi))

    def stopped(self, state: CrossingState) -> Bool[Array, ""]:
        """Whether something has been decided."""
        return state.outcome != RUNNING


def outcome_of(state: Any) -> tuple[int, int, float]:
    """Outcome, steps and highest value of a trajectory that has ended, as plain numbers."""
    return int(state.outcome), int(state.n_steps), float(state.highest)
