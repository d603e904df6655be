"""Umbrella sampling: harmonic windows as the replicas of one run."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ..colvars.base import AbstractCV
from ..errors import InvalidInputError
from ..units import as_array
from .base import AbstractMethod, Bias, Observation, as_cvs, moving_center
from .harmonic import HarmonicBias

__all__ = ["UmbrellaSampling", "UmbrellaState"]


class UmbrellaState(eqx.Module):
    """Which window this replica is.

    Attributes:
        window: number of the window.
        start: CVs before the first step, from where the restraint moves to its centre.
        step: number of the last step.
    """

    window: Int[Array, ""]
    start: Float[Array, " n"]
    step: Int[Array, ""]


class UmbrellaSampling(AbstractMethod[UmbrellaState]):
    r"""Umbrella sampling: one harmonic window for each replica.

    $$V_w(\xi) = \tfrac12 \sum_d k_{wd}\,(\xi_d - c_{wd})^2.$$

    A run has one replica for each window (``replicas=2`` makes two of each), together in one program where the engine can, else
    one after the other or on any ``executor``. Give every window a start near its centre by ``context_args=[...]``, one
    dictionary for each replica; or let ``pull_steps`` carry it there: during these steps the restraint moves from where the CVs
    are to the window's centre, and they are left out of the analysis.

    :func:`pysamp.analyze` joins the windows by WHAM; :func:`~pysamp.analysis.umbrella_integration` and
    :func:`~pysamp.analysis.reduced_potentials` are there too, and :func:`~pysamp.analysis.overlap` says whether the windows meet.

    Choose it when the range of the CVs is known and many short simulations can run side by side. In two dimensions put the
    windows on a grid, ``centers=pysamp.Grid(...).points.reshape(-1, 2)``, or along a path. On a barrier a window stays only if
    its spring is stiffer than the barrier is curved; a softer one falls to either side, and joins what it has not sampled
    without the error knowing.

    Args:
        cvs: collective variables, one or a list.
        centers: c [CV unit], one row for each window (one number each for a single CV).
        kspring: k [energy / CV unit^2]: one number, one per CV, or one row of them for each window. Neighbours overlap well
            with k about kT over the squared distance of their centres.
        pull_steps: steps in which a restraint moves to its centre.

    Raises:
        InvalidInputError: if the shapes do not fit, or a spring constant is negative.

    Example:
        >>> import numpy as np
        >>> from pysamp.colvars import Distance
        >>> from pysamp.methods import UmbrellaSampling
        >>> method = UmbrellaSampling(Distance([0, 1]), centers=np.linspace(0.2, 0.8, 13), kspring=1000.0)
        >>> method.n_replicas, method.window(12).center
        (13, array([0.8]))

    References:
        Torrie & Valleau, J. Comput. Phys. 23, 187 (1977), doi 10.1016/0021-9991(77)90121-8.
    """

    cvs: tuple[AbstractCV, ...]
    centers: Float[np.ndarray, "w n"]
    kspring: Float[np.ndarray, "w n"]
    pull_steps: Int[np.ndarray, ""]

    def __init__(self, cvs: Any, *, centers: Any, kspring: Any, pull_steps: int = 0):
        self.cvs = as_cvs(cvs)
        n = self.n_cvs
        rows = as_array(centers)
        self.centers = rows[:, None] if rows.ndim == 1 and n == 1 else rows
        if self.centers.ndim != 2 or self.centers.shape[1] != n or len(self.centers) == 0:
            raise InvalidInputError(
                f"centers needs one row of {n} numbers for each window, got the shape {rows.shape}; of a pysamp.Grid take "
                f"grid.points.reshape(-1, {n})."
            )
        springs = as_array(kspring)
        if springs.shape not in {(), (n,), self.centers.shape}:
            raise InvalidInputError(
                f"kspring must be one number, {n} numbers, or an array of shape {self.centers.shape}, one row for each window; "
                f"got the shape {springs.shape}."
            )
        self.kspring = np.array(np.broadcast_to(springs, self.centers.shape))
        if isinstance(pull_steps, bool) or int(pull_steps) != pull_steps or pull_steps < 0:
            raise InvalidInputError(f"pull_steps must be a whole number of steps from 0 up, got {pull_steps!r}.")
        self.pull_steps = np.asarray(int(pull_steps), dtype=np.int64)

    def __check_init__(self):
        if not (np.isfinite(self.kspring).all() and (self.kspring >= 0).all()):
            raise InvalidInputError(f"kspring must be finite and not negative, got {self.kspring.tolist()}.")
        if not np.isfinite(self.centers).all():
            raise InvalidInputError(f"centers must be finite, got {self.centers.tolist()}.")

    @property
    def n_replicas(self) -> int:
        """Number of windows."""
        return len(self.centers)

    def window(self, index: int) -> HarmonicBias:
        """The restraint of one window, as a method of its own."""
        return HarmonicBias(list(self.cvs), kspring=self.kspring[index], center=self.centers[index])

    def init(self, obs: Observation) -> UmbrellaState:
        """The first window."""
        return UmbrellaState(jnp.zeros_like(obs.step), obs.xi, obs.step)

    def for_replica(self, state: UmbrellaState, replica: int) -> UmbrellaState:
        """The window of this replica; with more replicas than windows it begins again at the first."""
        return eqx.tree_at(lambda s: s.window, state, jnp.full_like(state.window, replica % self.n_replicas))

    def truncated(self, state: UmbrellaState, n_steps: int) -> UmbrellaState:
        """All is in the log."""
        del n_steps
        return state

    def update(self, state: UmbrellaState, obs: Observation) -> UmbrellaState:
        """The restraint moves with the steps."""
        return UmbrellaState(state.window, state.start, obs.step)

    def bias(self, state: UmbrellaState, obs: Observation) -> Bias:
        """The restraint where it is at this step."""
        energy, gradient = jax.value_and_grad(self.potential)(obs.xi, state)
        return Bias(energy, -gradient)

    def potential(self, xi: Float[Array, " n"], state: UmbrellaState) -> Float[Array, ""]:
        """Bias energy at ``xi`` [energy]."""
        center = jax.lax.dynamic_index_in_dim(jnp.asarray(self.centers), state.window, keepdims=False)
        kspring = jax.lax.dynamic_index_in_dim(jnp.asarray(self.kspring), state.window, keepdims=False)
        center = moving_center(state.start, center, state.step, self.pull_steps, self.periods)
        return 0.5 * jnp.sum(kspring * self.difference(xi, center) ** 2)
