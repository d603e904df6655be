"""Steered dynamics: restraints whose centre moves, and a ratchet that only lets the CVs approach a target."""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ..colvars.base import AbstractCV
from ..errors import InvalidInputError
from ..units import as_array
from .base import AbstractMethod, Bias, Observation, as_cvs, per_cv

__all__ = ["MovingRestraint", "MovingRestraintState", "Ratchet"]


class MovingRestraintState(eqx.Module):
    """Where the CVs were at the last step, and the work so far.

    Attributes:
        xi: CVs at the last step.
        step: number of that step; the restraint is where it was then, whatever else is evaluated.
        work: done on the system by moving the restraint [energy].
    """

    xi: Float[Array, " n"]
    step: Int[Array, ""]
    work: Float[Array, ""]


class MovingRestraint(AbstractMethod[MovingRestraintState]):
    r"""Steered molecular dynamics: a harmonic restraint that moves along a schedule.

    $$V(\xi, t) = \tfrac12 \sum_d k_d(t)\,(\xi_d - c_d(t))^2,$$

    with centre and spring constant linear in time between the given steps, and constant before the first and after the last.
    The work done by moving it,

    $$W_t = \sum_{s \le t} \left[ V(\xi_{s-1}, s) - V(\xi_{s-1}, s - 1) \right],$$

    is in the log as ``MovingRestraint.work``. Many pulls, each begun from equilibrium at the first centre, give a free energy by
    Jarzynski's equality: :func:`~pysamp.analysis.jarzynski` and :func:`~pysamp.analysis.crooks` for the difference between the
    ends, and :func:`~pysamp.analyze` along the CVs. Use it also just to carry a system from one place to another.

    Args:
        cvs: collective variables, one or a list.
        kspring: spring constants k [energy / CV unit^2]: one number, one per CV, or one row of them for each of ``steps``.
        centers: c [CV unit], one row for each of ``steps`` (one number each for a single CV). Periodic CVs move by what the
            numbers say, also across the boundary: from 3.0 to 3.5 is a short way.
        steps: increasing step numbers at which the centres are reached.

    Raises:
        InvalidInputError: if the shapes do not fit, steps do not increase, or a spring constant is negative.

    Example:
        >>> from pysamp.colvars import Distance
        >>> from pysamp.methods import MovingRestraint
        >>> method = MovingRestraint(Distance([0, 1]), kspring=1000.0, centers=[0.3, 0.8], steps=[0, 50_000])
        >>> round(float(method.center(25_000)[0]), 3)
        0.55

    References:
        Jarzynski, Phys. Rev. Lett. 78, 2690 (1997), doi 10.1103/PhysRevLett.78.2690.
        Grubmüller, Heymann & Tavan, Science 271, 997 (1996), doi 10.1126/science.271.5251.997.
    """

    cvs: tuple[AbstractCV, ...]
    kspring: Float[np.ndarray, "m n"]
    centers: Float[np.ndarray, "m n"]
    steps: Float[np.ndarray, " m"]

    def __init__(self, cvs: Any, *, kspring: Any, centers: Any, steps: Any):
        self.cvs = as_cvs(cvs)
        n = self.n_cvs
        self.steps = as_array(steps)
        rows = as_array(centers)
        self.centers = rows[:, None] if rows.ndim == 1 and n == 1 else rows
        if self.steps.ndim != 1 or len(self.steps) < 2 or not (np.diff(self.steps) > 0).all():
            raise InvalidInputError(f"steps must be two or more increasing step numbers, got {steps!r}.")
        if self.centers.shape != (len(self.steps), n):
            raise InvalidInputError(
                f"centers needs one row of {n} numbers for each of the {len(self.steps)} steps, got the shape "
                f"{np.shape(rows)}."
            )
        springs = as_array(kspring)
        if springs.shape not in {(), (n,), (len(self.steps), n)}:
            raise InvalidInputError(
                f"kspring must be one number, {n} numbers, or a row of {n} for each step; got the shape {springs.shape}."
            )
        self.kspring = np.array(np.broadcast_to(springs, self.centers.shape))

    def __check_init__(self):
        if not (np.isfinite(self.kspring).all() and (self.kspring >= 0).all()):
            raise InvalidInputError(f"kspring must be finite and not negative, got {self.kspring.tolist()}.")
        if not np.isfinite(self.centers).all():
            raise InvalidInputError(f"centers must be finite, got {self.centers.tolist()}.")

    def center(self, step: Any) -> Float[Array, " n"]:
        """Centre of the restraint at a step [CV unit]."""
        return self._at(step, self.centers)

    def potential(self, xi: Float[Array, " n"], step: Any) -> Float[Array, ""]:
        """Energy of the restraint at a step [energy]."""
        d = self.difference(xi, self.center(step))
        return 0.5 * jnp.sum(self._at(step, self.kspring) * d**2)

    def init(self, obs: Observation) -> MovingRestraintState:
        """No work yet."""
        return MovingRestraintState(obs.xi, obs.step, jnp.zeros_like(obs.kT))

    def update(self, state: MovingRestraintState, obs: Observation) -> MovingRestraintState:
        """Add the work of the restraint's last move, which was done before the particles moved."""
        work = self.potential(state.xi, obs.step) - self.potential(state.xi, state.step)
        return MovingRestraintState(obs.xi, obs.step, state.work + work)

    def bias(self, state: MovingRestraintState, obs: Observation) -> Bias:
        """The restraint where it is at this step."""
        energy, gradient = jax.value_and_grad(self.potential)(obs.xi, state.step)
        return Bias(energy, -gradient)

    def diagnostics(self, state: MovingRestraintState) -> Mapping[str, Float[Array, ""]]:
        """The work so far."""
        return {"work": state.work}

    def _at(self, step: Any, rows: Float[Array | np.ndarray, "m n"]) -> Float[Array, " n"]:
        # a sum over the intervals, each with the part of it that is over: straight-line code
        parts = jnp.clip((jnp.asarray(step) - self.steps[:-1]) / (self.steps[1:] - self.steps[:-1]), 0.0, 1.0)
        return rows[0] + jnp.sum(parts[:, None] * (rows[1:] - rows[:-1]), axis=0)


class Ratchet(AbstractMethod[Array]):
    r"""Adiabatic bias: lets the CVs approach a target, and holds them back when they move away again.

    $$V = \begin{cases} \tfrac12 k\,(\rho - \rho_\mathrm{min})^2 & \rho > \rho_\mathrm{min} \\ 0 & \text{else}
    \end{cases}, \qquad \rho = \sum_d (\xi_d - c_d)^2,$$

    where $\rho_\mathrm{min}$ is the smallest value so far. The system moves by its own fluctuations, nothing pulls it. It finds
    paths to a known target; there is no free energy in it.

    Args:
        cvs: collective variables, one or a list; give them comparable units.
        kspring: k [energy / CV unit^4].
        target: c [CV unit], one per CV.

    Raises:
        InvalidInputError: if k is not positive or the target does not fit the CVs.

    Example:
        >>> from pysamp.colvars import Distance
        >>> from pysamp.methods import Ratchet
        >>> Ratchet(Distance([0, 1]), kspring=500.0, target=1.2).target
        array([1.2])

    References:
        Marchi & Ballone, J. Chem. Phys. 110, 3697 (1999), doi 10.1063/1.478259.
    """

    cvs: tuple[AbstractCV, ...]
    kspring: Float[np.ndarray, ""]
    target: Float[np.ndarray, " n"]

    def __init__(self, cvs: Any, *, kspring: Any, target: Any):
        self.cvs = as_cvs(cvs)
        self.kspring = as_array(kspring)
        self.target = per_cv(target, self.n_cvs, "target")

    def __check_init__(self):
        if self.kspring.shape != () or not (np.isfinite(self.kspring) and self.kspring > 0):
            raise InvalidInputError(f"kspring must be one positive number, got {self.kspring.tolist()}.")
        if not np.isfinite(self.target).all():
            raise InvalidInputError(f"target must be finite, got {self.target.tolist()}.")

    def distance(self, xi: Float[Array, " n"]) -> Float[Array, ""]:
        """Squared distance from the target."""
        return jnp.sum(self.difference(xi, self.target) ** 2)

    def init(self, obs: Observation) -> Float[Array, ""]:
        """Smallest squared distance from the target so far."""
        return self.distance(obs.xi)

    def update(self, state: Float[Array, ""], obs: Observation) -> Float[Array, ""]:
        """The ratchet follows."""
        return jnp.minimum(state, self.distance(obs.xi))

    def bias(self, state: Float[Array, ""], obs: Observation) -> Bias:
        """Zero at the nearest point so far and closer."""

        def potential(xi: Float[Array, " n"]) -> Any:
            return 0.5 * self.kspring * jnp.maximum(self.distance(xi) - state, 0.0) ** 2

        energy, gradient = jax.value_and_grad(potential)(obs.xi)
        return Bias(energy, -gradient)

    def diagnostics(self, state: Float[Array, ""]) -> Mapping[str, Float[Array, ""]]:
        """Distance of the nearest approach."""
        return {"nearest": jnp.sqrt(state)}
