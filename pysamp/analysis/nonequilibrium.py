"""Free energies from work: Jarzynski, Crooks, and Hummer and Szabo."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from scipy.optimize import brentq
from scipy.special import expit, logsumexp

from ..api import analyze
from ..errors import InvalidInputError
from ..grids import Grid
from ..methods.base import check_grid
from ..methods.steered import MovingRestraint
from ..results import Run
from .errors import jackknife_error
from .free_energy import FreeEnergy
from .sampling import (
    MAX_UNITS,
    MIN_UNITS,
    blocks_of_time,
    check_discard,
    default_grid,
    leave_out_units,
    locate,
    logged_xi,
    method_of,
    place_of,
)

__all__ = ["crooks", "jarzynski", "work"]


def work(run: Run, method: MovingRestraint | None = None) -> Float[np.ndarray, "replica sample"]:
    """Work done by a moving restraint up to each logged step [energy].

    Args:
        run: a run with :class:`~pysamp.methods.MovingRestraint`.
        method: which one, if there are several; else the first.

    Raises:
        InvalidInputError: if there is none in this run.
    """
    if method is None:
        method = method_of(run, MovingRestraint, "Only MovingRestraint does work")
    place = place_of(run, method)
    alone = sum(isinstance(m, MovingRestraint) for m in run.methods) == 1
    return np.asarray(run.log["MovingRestraint.work" if alone else f"MovingRestraint[{place}].work"].values)


def jarzynski(values: Any, kT: float) -> tuple[float, float]:
    r"""Free-energy difference between the ends of a protocol, from the work of many pulls.

    $$\Delta F = -kT \ln \left\langle e^{-W / kT} \right\rangle$$

    The average is governed by the smallest work, so the estimate is biased upwards where the spread of the work is several kT;
    there pull more slowly, or both ways and use :func:`crooks`.

    Args:
        values: work of each pull [energy], all begun from equilibrium at the first end.
        kT: thermal energy [energy].

    Returns:
        Estimate and standard error (jackknife over pulls) [energy].

    Raises:
        InvalidInputError: for fewer than two pulls.

    Example:
        >>> import numpy as np
        >>> from pysamp.analysis import jarzynski
        >>> rng = np.random.default_rng(1)
        >>> value, stderr = jarzynski(rng.normal(2.5, 1.0, size=4000), kT=1.0)  # Gaussian work: mean - variance / 2 kT
        >>> abs(value - 2.0) < 3 * stderr
        True

    References:
        Jarzynski, Phys. Rev. Lett. 78, 2690 (1997), doi 10.1103/PhysRevLett.78.2690.
    """
    w = _as_work(values, "pull") / kT
    boltzmann = np.exp(w.min() - w)
    left_out = leave_out_units(boltzmann) / leave_out_units(np.ones_like(w))
    estimate = w.min() - np.log(boltzmann.mean())
    return float(kT * estimate), float(kT * jackknife_error(-np.log(left_out)))


def crooks(forward: Any, reverse: Any, kT: float) -> tuple[float, float]:
    r"""Free-energy difference from the work of pulls both ways, by Bennett's acceptance ratio.

    $$\sum_i \frac{1}{1 + \frac{n_F}{n_R} e^{(W^F_i - \Delta F) / kT}} = \sum_j \frac{1}{1 + \frac{n_R}{n_F} e^{(W^R_j + \Delta
    F) / kT}},$$

    the maximum-likelihood estimate under Crooks' theorem. It needs far fewer pulls than one direction alone.

    Args:
        forward: work of each pull from the first end to the second [energy].
        reverse: work of each pull back, by the reversed schedule [energy].
        kT: thermal energy [energy].

    Returns:
        F(second) - F(first) and its standard error (jackknife over pulls of both kinds) [energy].

    Raises:
        InvalidInputError: for fewer than two pulls in either direction.

    Example:
        >>> import numpy as np
        >>> from pysamp.analysis import crooks
        >>> rng = np.random.default_rng(1)
        >>> value, stderr = crooks(rng.normal(4.0, 2.0, size=500), rng.normal(0.0, 2.0, size=500), kT=1.0)
        >>> abs(value - 2.0) < 3 * stderr
        True

    References:
        Crooks, Phys. Rev. E 60, 2721 (1999), doi 10.1103/PhysRevE.60.2721.
        Bennett, J. Comput. Phys. 22, 245 (1976), doi 10.1016/0021-9991(76)90078-4.
        Shirts et al., Phys. Rev. Lett. 91, 140601 (2003), doi 10.1103/PhysRevLett.91.140601.
    """
    there, back = _as_work(forward, "forward pull") / kT, _as_work(reverse, "reverse pull") / kT

    def solve(there: Float[np.ndarray, " n"], back: Float[np.ndarray, " m"]) -> float:
        ratio = np.log(len(there) / len(back))

        def imbalance(f: float) -> float:
            return float(expit(f - there - ratio).sum() - expit(-back - f + ratio).sum())

        edge = 50.0 + abs(ratio) + max(np.abs(there).max(), np.abs(back).max())
        return float(brentq(imbalance, -edge, edge))  # pyright: ignore[reportArgumentType]

    n_units = min(len(there), len(back), MAX_UNITS)
    units = [blocks_of_time(len(w), n_units) for w in (there, back)]
    left_out = np.array([solve(there[units[0] != k], back[units[1] != k]) for k in range(n_units)])
    return kT * solve(there, back), float(kT * jackknife_error(left_out))


def _as_work(values: Any, what: str) -> Float[np.ndarray, " n"]:
    w = np.asarray(values, dtype=np.float64).reshape(-1)
    if len(w) < 2 or not np.isfinite(w).all():
        raise InvalidInputError(f"The work of at least two {what}s is needed, all finite; got {w.tolist()[:5]}.")
    return w


@analyze.dispatch
def _analyze_moving(
    method: MovingRestraint, run: Run, /, *, grid: Grid | None = None, discard: float | None = None
) -> FreeEnergy:
    r"""Free energy along the CVs from many pulls, by the estimator of Hummer and Szabo.

    Every logged sample counts with $e^{-W_t / kT}$, and the moving restraint is taken out as in the weighted histogram
    method:

    $$F(\xi) = -kT \ln \frac{\sum_t \langle \delta(\xi - \xi_t)\, e^{-W_t / kT} \rangle / \langle e^{-W_t / kT} \rangle}{\sum_t
    e^{-V(\xi, t) / kT} / \langle e^{-W_t / kT} \rangle}.$$

    The replicas are the pulls; errors are the jackknife over them. What was logged before the schedule begins is left out: there
    the pull comes to equilibrium at its first centre. Proc. Natl. Acad. Sci. 98, 3658 (2001), doi
    10.1073/pnas.071034098.
    """
    check_discard(discard)
    if discard:
        raise InvalidInputError("A pull counts from its first step, so discard has no meaning here; leave it out.")
    n_replicas = run.n_replicas
    if n_replicas < MIN_UNITS:
        raise InvalidInputError(
            f"{n_replicas} pulls are too few for an error estimate, which needs {MIN_UNITS}: run with replicas=...."
        )
    xi, steps = logged_xi(run, method), np.asarray(run.log["step"].values)
    # before it the CVs may be far from the centre, where a sample would outweigh all others
    begun = steps >= method.steps[0]
    if not begun.any():
        raise InvalidInputError(
            f"The pull begins at step {method.steps[0]:.0f}, and the run has no sample from then on: run longer."
        )
    xi, w, steps = xi[:, begun], work(run, method)[:, begun] / run.kT, steps[begun]
    if grid is None:
        grid = default_grid(xi.reshape(-1, method.n_cvs), method.periods)
    check_grid(grid, method)
    with jax.enable_x64(True):
        bias = np.asarray(_bias(method, steps, grid.points.reshape(grid.size, -1)))
    places = locate(grid, xi)

    def probabilities(kept: Float[np.ndarray, " replicas"]) -> Float[np.ndarray, "*shape"]:
        with np.errstate(divide="ignore"):
            log_kept = np.log(kept)[:, None] - w
        average = np.asarray(logsumexp(log_kept, axis=0))  # ln of the sum over pulls of exp(-W), at each time
        weights = np.exp(log_kept - average)
        inside = places >= 0
        above = np.bincount(places[inside], weights=weights[inside], minlength=grid.size)
        below = np.exp(-bias / run.kT - (average - np.log(kept.sum()))[:, None]).sum(axis=0)
        return (above / below).reshape(grid.shape)

    return FreeEnergy.from_probabilities(
        probabilities(np.ones(n_replicas)),
        np.stack([probabilities(kept) for kept in leave_out_units(np.eye(n_replicas))]),
        grid,
        kT=run.kT,
        labels=method.labels,
        unit=run.energy_unit,
    )


@eqx.filter_jit
def _bias(
    method: MovingRestraint, steps: Int[Array | np.ndarray, " t"], points: Float[Array | np.ndarray, "p n"]
) -> Float[Array, "t p"]:
    """Energy of the restraint at each step and point."""
    at_points = jax.vmap(method.potential, in_axes=(0, None))
    return jax.vmap(lambda step: at_points(jnp.asarray(points), step))(jnp.asarray(steps))
