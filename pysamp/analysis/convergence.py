"""Is it converged? A rule to stop at, the free-energy difference against time, and whether replicas agree."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import equinox as eqx
import numpy as np
import xarray as xr

from ..api import analyze
from ..errors import InvalidInputError, PysampError, SimulationError
from ..grids import Grid
from ..methods.base import AbstractMethod
from ..methods.metadynamics import Metadynamics
from ..results import Run
from ..sampler import SamplerState
from ..units import as_positive
from .free_energy import FreeEnergy, type_of_region
from .sampling import check_logged, place_of
from .static import analysed_method

__all__ = ["Converged", "convergence", "r_hat"]

_BELOW = 10.0  # [kT]


@dataclass(frozen=True)
class Converged:
    """A rule for ``run(..., until=...)``: stop when the free energy's standard error is small enough.

    Without regions it asks for the error of every bin whose free energy is below ``below``; with two regions, for the error of
    the difference between them. Errors are those of :func:`pysamp.analyze`, which know nothing of places never visited; and a
    run that stops when its error happens to be small states it a little too small.

    Args:
        stderr: the standard error to reach [energy].
        between: two regions, as :meth:`~pysamp.FreeEnergy.difference` takes them; the criterion holds only once both
            were visited.
        below: free energy up to which bins count [energy]; None for 10 kT.
        grid: grid for the analysis; None for its default.

    Raises:
        InvalidInputError: if stderr is not positive, or between is not a pair.

    Example:
        >>> import pysamp
        >>> rule = pysamp.Converged(stderr=0.5, between=(lambda phi: phi < 0, lambda phi: phi > 0))
        >>> pysamp.run(method, generate_context, 10_000_000, until=rule)  # doctest: +SKIP
    """

    stderr: Any
    between: Any = None
    below: Any = None
    grid: Grid | None = None

    def __post_init__(self):
        object.__setattr__(self, "stderr", float(as_positive(self.stderr, "stderr")))
        if self.below is not None:
            object.__setattr__(self, "below", float(as_positive(self.below, "below")))
        if self.between is not None and (not isinstance(self.between, list | tuple) or len(self.between) != 2):
            raise InvalidInputError(
                f"between must be two regions, such as (lambda x: x < 0, lambda x: x > 0), got {self.between!r}."
            )

    def __call__(self, run: Run) -> bool:
        """Whether the run so far is good enough."""
        try:
            return self.error(analyze(run, grid=self.grid)) <= self.stderr
        except PysampError:  # too little data for an estimate, or windows that do not meet yet
            return False

    def error(self, free_energy: FreeEnergy) -> float:
        """The error that the rule looks at."""
        if self.between is not None:
            return free_energy.difference(*self.between)[1]
        below = _BELOW * free_energy.kT if self.below is None else self.below
        errors = free_energy.stderr[np.isfinite(free_energy.values) & (free_energy.values <= below)]
        return float(errors.max())


def convergence(
    run: Run,
    first: type_of_region,
    second: type_of_region,
    *,
    n_points: int = 20,
    grid: Grid | None = None,
    analysis: Callable[..., FreeEnergy] = analyze,
) -> xr.Dataset:
    """Free-energy difference from growing parts of a run: whether it has settled.

    Each part is analysed as if the run had ended there. ABF can be cut at the ends of its blocks of time only, so points may
    repeat.

    Args:
        run: the run.
        first: region from which the difference counts, as for :meth:`~pysamp.FreeEnergy.difference`.
        second: the other region.
        n_points: number of parts.
        grid: grid for the analysis.
        analysis: what makes a free energy of a run, called with ``grid=...``.

    Returns:
        ``difference`` and ``stderr`` [energy] over ``step``; nan where the part is too short.

    Raises:
        InvalidInputError: if nothing was logged.
        UnsupportedError: if the method cannot say what it had found at an earlier time.

    Example:
        >>> pysamp.analysis.convergence(run, lambda x: x < 0, lambda x: x > 0).difference.plot()  # doctest: +SKIP
    """
    check_logged(run)
    method = analysed_method(run)
    place = place_of(run, method)
    steps = np.asarray(run.log["step"].values)
    spacing = int(steps[1] - steps[0]) if len(steps) > 1 else 1
    found, ends = [], []
    for end in np.linspace(0, len(steps), n_points + 1).astype(int)[1:]:
        n_steps = int(steps[end - 1]) + spacing
        if run.walkers and isinstance(method, Metadynamics):  # whose state counts hills, not steps
            n_steps *= run.walkers
        part = replace(
            run,
            log=run.log.isel(sample=slice(0, end)),
            states=[_truncated(method, state, place, n_steps) for state in run.states],
        )
        try:
            found.append(analysis(part, grid=grid).difference(first, second))
        except (InvalidInputError, SimulationError):  # too short
            found.append((np.nan, np.nan))
        ends.append(n_steps)
    value, error = np.array(found).T
    return xr.Dataset(
        {"difference": ("step", value, {"unit": run.energy_unit}), "stderr": ("step", error)}, {"step": ends}
    )


def _truncated(method: AbstractMethod, state: SamplerState, place: int, n_steps: int) -> SamplerState:
    methods = list(state.methods)
    methods[place] = method.truncated(methods[place], n_steps)
    return eqx.tree_at(lambda s: s.methods, state, tuple(methods))


def r_hat(values: Any) -> float:
    r"""Potential scale reduction of replicas, split in halves: 1 where all sample the same.

    $$\hat R = \sqrt{\frac{n - 1}{n} + \frac{B}{W}},$$

    where W is the variance within the 2m half chains of n samples and B that of their means. Above 1.01 or so the replicas have
    not forgotten where they began.

    Args:
        values: ``(replicas, samples)``: a logged CV, say; for a biased run take something that the method is to equilibrate.

    Returns:
        The ratio.

    Raises:
        InvalidInputError: for fewer than four samples, or values that are not finite.

    Example:
        >>> import numpy as np
        >>> from pysamp.analysis import r_hat
        >>> round(r_hat(np.random.default_rng(0).normal(size=(4, 1000))), 2)
        1.0

    References:
        Gelman & Rubin, Stat. Sci. 7, 457 (1992), doi 10.1214/ss/1177011136.
        Vehtari et al., Bayesian Anal. 16, 667 (2021), doi 10.1214/20-BA1221 (halves).
    """
    chains = np.atleast_2d(np.asarray(values, dtype=np.float64))
    if chains.ndim != 2 or chains.shape[1] < 4 or not np.isfinite(chains).all():
        raise InvalidInputError(
            f"r_hat needs finite samples (replicas, samples), four or more of each; got the shape {np.shape(values)}."
        )
    n = chains.shape[1] // 2
    halves = np.concatenate([chains[:, :n], chains[:, -n:]])
    within = halves.var(axis=1, ddof=1).mean()
    between = halves.mean(axis=1).var(ddof=1)
    return float(np.sqrt((n - 1) / n + between / within)) if within > 0 else 1.0 if between == 0 else np.inf
