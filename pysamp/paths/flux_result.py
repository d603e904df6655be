"""Forward flux sampling: what it leaves behind, and rates and committors from it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import equinox as eqx
import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Int
from scipy import stats

from ..api import analyze
from ..errors import InvalidInputError
from ..snapshot import Snapshot
from ._frames import Frames
from .forward_flux import ForwardFlux

__all__ = ["ForwardFluxRun", "Interface", "Rate", "committor"]

_N_BOOTSTRAP = 2000
_N_BLOCKS = 64  # of the walkers' time, at least
_ALPHA = 0.05  # of upper bounds


class Interface(eqx.Module):
    r"""Where trajectories from the basin first crossed an interface, and the trials begun there.

    Attributes:
        value: of the CV at the interface.
        frames: positions, velocities and boxes of the points at which it was crossed.
        trial: for each point the trial from the interface before that made it; -1 at the first interface.
        root: for each point its ancestor among the points of the first interface.
        walker: for each point of the first interface the walker that made it, else that of its ancestor.
        n_steps: MD steps that led to each point: of the trial, or of the walker, since it began to count.
        parent: for each trial the point from which it began.
        succeeded: whether it reached the next interface.
        trial_steps: MD steps that it took.
        highest: largest $\pm\xi$ on its way.
    """

    value: Float[np.ndarray, ""]
    frames: Frames
    trial: Int[np.ndarray, " p"]
    root: Int[np.ndarray, " p"]
    walker: Int[np.ndarray, " p"]
    n_steps: Int[np.ndarray, " p"]
    parent: Int[np.ndarray, " t"]
    succeeded: Bool[np.ndarray, " t"]
    trial_steps: Int[np.ndarray, " t"]
    highest: Float[np.ndarray, " t"]

    @property
    def n_points(self) -> int:
        """Number of points at the interface."""
        return len(self.trial)

    @property
    def n_trials(self) -> int:
        """Number of trials begun at the interface."""
        return len(self.parent)


@dataclass(frozen=True, eq=False)
class ForwardFluxRun:
    """Result of :func:`~pysamp.run` with :class:`~pysamp.paths.ForwardFlux`: the tree of all trajectories.

    Attributes:
        method: what was asked for.
        interfaces: the interfaces that were reached, each with its points and trials.
        masses: [mass].
        kT: thermal energy [energy].
        timestep: [time].
        walker_steps: MD steps of each walker during which it belonged to the basin.
        message: empty if the last interface was reached; else why not.
        attributes: versions, seed, engine, MD steps: the provenance.
    """

    method: ForwardFlux
    interfaces: Sequence[Interface]
    masses: Float[np.ndarray, " n"]
    kT: float
    timestep: float
    walker_steps: Int[np.ndarray, " w"]
    message: str = ""
    attributes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_complete(self) -> bool:
        """Whether the last interface was reached."""
        return not self.message

    def snapshots(self, interface: int) -> list[Snapshot]:
        """The points at one interface.

        Raises:
            InvalidInputError: if it was not reached.
        """
        found = self._interface(interface)
        return [found.frames.snapshot(i, self.masses) for i in range(found.n_points)]

    def path(self, point: int, interface: int = -1) -> list[Snapshot]:
        """The points through which a trajectory went, from the first interface to one of the points at another.

        Args:
            point: number of the point.
            interface: number of the interface at which it is; -1 for the last one reached.

        Raises:
            InvalidInputError: if there is no such point.
        """
        found = self._interface(interface)
        if not 0 <= point < found.n_points:
            raise InvalidInputError(f"There are {found.n_points} points at this interface, but {point} was asked for.")
        number = interface % len(self.interfaces)
        path = []
        for i in range(number, -1, -1):
            here = self.interfaces[i]
            path.append(here.frames.snapshot(point, self.masses))
            if i:
                point = int(self.interfaces[i - 1].parent[here.trial[point]])
        return path[::-1]

    def _interface(self, number: int) -> Interface:
        if not -len(self.interfaces) <= number < len(self.interfaces):
            raise InvalidInputError(f"{len(self.interfaces)} interfaces were reached, but {number} was asked for.")
        return self.interfaces[number]


@dataclass(frozen=True, eq=False)
class Rate:
    """A rate constant and what it is made of.

    Attributes:
        value: transitions per unit of time spent in the basin [1/time]; 0 if an interface was never reached, nan if the run
            ended before that was decided.
        stderr: its standard error [1/time], nan where the value is 0 or nan.
        upper_bound: below which the rate lies with a confidence of 95 % [1/time].
        flux: crossings of the first interface per unit of time [1/time].
        flux_stderr: its standard error [1/time].
        interfaces: the interfaces.
        probabilities: to get from each interface to the next.
        intervals: of each probability the 68.3 % confidence interval (Wilson's), as if trials were independent.
        n_trials: number of trials from each interface.
        n_roots: how many of the points at the first interface have descendants at each one. With fewer than ten at the last
            the standard error is not to be trusted: ask for more trials.
        message: empty, or which interface was not reached.
    """

    value: float
    stderr: float
    upper_bound: float
    flux: float
    flux_stderr: float
    interfaces: Float[np.ndarray, " m"]
    probabilities: Float[np.ndarray, " k"]
    intervals: Float[np.ndarray, "k 2"]
    n_trials: Int[np.ndarray, " k"]
    n_roots: Int[np.ndarray, " m"]
    message: str = ""


@analyze.dispatch
def _analyze_forward_flux(run: ForwardFluxRun, /) -> Rate:
    r"""The rate constant of a run of forward flux sampling, with its standard error.

    Descendants of one crossing of the first interface are alike. So errors come from the bootstrap over blocks of the
    walkers' time, each with all descendants of its crossings; and from the scatter of the trials' success between points of
    one interface, which counts where few ancestors are left. The larger of the two is the standard error.
    """
    reached = list(run.interfaces)
    tried = [interface for interface in reached if interface.n_trials]
    n_roots = np.array([len(np.unique(interface.root)) for interface in reached], dtype=np.int64)
    values = np.array([float(interface.value) for interface in reached])
    time = float(np.sum(run.walker_steps)) * run.timestep
    shape: dict[str, Any] = {"interfaces": values, "n_roots": n_roots, "message": run.message}
    if not reached or not reached[0].n_points:
        bound = -np.log(_ALPHA) / time if time > 0 else np.inf
        nothing = np.zeros(0)
        return Rate(
            0.0,
            np.nan,
            bound,
            0.0,
            np.nan,
            probabilities=nothing,
            intervals=np.zeros((0, 2)),
            n_trials=nothing.astype(np.int64),
            **shape,
        )
    n_trials = np.array([interface.n_trials for interface in tried], dtype=np.int64)
    n_crossed = np.array([int(interface.succeeded.sum()) for interface in tried], dtype=np.int64)
    probabilities = n_crossed / np.maximum(n_trials, 1)
    intervals = np.array([wilson(int(k), int(n)) for k, n in zip(n_crossed, n_trials, strict=True)]).reshape(-1, 2)
    flux = reached[0].n_points / time
    replicates, flux_replicates = _bootstrap(run, tried)
    flux_stderr = float(np.std(flux_replicates))
    value = float(flux * np.prod(probabilities))
    stderr, bound = np.nan, np.nan
    if run.is_complete:
        relative = [flux_stderr / flux, *(_scatter(interface) for interface in tried)]
        finite = replicates[np.isfinite(replicates)]
        stderr = max(float(np.std(finite)), value * float(np.sqrt(np.sum(np.square(relative)))))
        bound = max(float(np.quantile(finite, 1 - _ALPHA)), value + float(stats.norm.ppf(1 - _ALPHA)) * stderr)
    elif len(tried) and n_crossed[-1] == 0:
        bound = float(flux * np.prod(probabilities[:-1]) * (1 - _ALPHA ** (1 / n_trials[-1])))
    else:
        value, bound = np.nan, float(flux * np.prod(probabilities))
    return Rate(
        value,
        stderr,
        bound,
        flux,
        flux_stderr,
        probabilities=probabilities,
        intervals=intervals,
        n_trials=n_trials,
        **shape,
    )


def wilson(k: int, n: int, confidence: float = 0.683) -> tuple[float, float]:
    """Wilson's confidence interval of a probability, of which k of n trials are known."""
    z = float(stats.norm.ppf(0.5 + confidence / 2))
    center = (k + z**2 / 2) / (n + z**2)
    width = z / (n + z**2) * np.sqrt(k * (n - k) / n + z**2 / 4)
    return max(0.0, float(center - width)), min(1.0, float(center + width))


def _bootstrap(
    run: ForwardFluxRun, tried: Sequence[Interface]
) -> tuple[Float[np.ndarray, " b"], Float[np.ndarray, " b"]]:
    """Rates and fluxes from blocks of the walkers' time drawn with replacement, each with all descendants of its crossings."""
    first = run.interfaces[0]
    n_walkers = len(run.walker_steps)
    per_walker = max(1, _N_BLOCKS // n_walkers)
    length = np.maximum(run.walker_steps / per_walker, 1)[first.walker]
    cluster = first.walker * per_walker + np.minimum((first.n_steps / length).astype(np.int64), per_walker - 1)
    n = n_walkers * per_walker
    time = np.repeat(run.walker_steps / per_walker, per_walker) * run.timestep
    weights = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=_N_BOOTSTRAP).astype(float)

    def total(groups: Int[np.ndarray, " k"], values: Any) -> Float[np.ndarray, " b"]:
        return weights @ np.bincount(groups, weights=np.broadcast_to(values, groups.shape), minlength=n)

    with np.errstate(invalid="ignore", divide="ignore"):
        flux = total(cluster, 1.0) / (weights @ time)
        rate = flux
        for interface in tried:
            groups = cluster[interface.root[interface.parent]]
            rate = rate * total(groups, interface.succeeded.astype(float)) / total(groups, 1.0)
    return rate, flux


def _scatter(interface: Interface) -> float:
    """Relative standard error of a crossing probability, from its scatter between the points of the interface."""
    m = interface.n_points
    n = np.bincount(interface.parent, minlength=m)
    k = np.bincount(interface.parent, weights=interface.succeeded, minlength=m)
    p = k.sum() / n.sum()
    n_used = int(np.sum(n > 0))
    if n_used < 2 or p == 0:
        return float(np.sqrt((1 - p) / max(k.sum(), 1)))
    return float(np.sqrt(n_used / (n_used - 1) * np.sum((k - p * n) ** 2)) / k.sum())


def committor(run: ForwardFluxRun) -> xr.Dataset:
    r"""Probability to reach the last interface before falling back into the basin, at every point that was stored.

    The committor of a point is the average over the trials begun there of that of the points that they led to, 1 at the last
    interface and 0 where they fell back. A point without trials of its own has that of its interface,
    $\prod_{j \ge i} P(\lambda_{j+1} | \lambda_j)$. From few trials of each point it is a rough number; fitted to CVs it tells
    which of them matter.

    Args:
        run: a run of :class:`~pysamp.paths.ForwardFlux` that reached the last interface.

    Returns:
        ``committor``, ``stderr`` (of its trials alone), ``n_trials``, ``interface`` and ``index`` (number at the interface) for
        each point, and ``mean`` for each interface.

    Raises:
        InvalidInputError: if the last interface was not reached.

    References:
        Borrero & Escobedo, J. Chem. Phys. 127, 164101 (2007), doi 10.1063/1.2776270.
    """
    if not run.is_complete:
        raise InvalidInputError(f"Committors need trajectories that reach the last interface. {run.message}")
    last = run.interfaces[-1]
    values = [np.ones(last.n_points)]
    errors = [np.zeros(last.n_points)]
    counts = [np.zeros(last.n_points, dtype=np.int64)]
    means = [1.0]
    for interface, following in zip(run.interfaces[-2::-1], run.interfaces[:0:-1], strict=True):
        outcome = np.zeros(interface.n_trials)
        outcome[following.trial] = values[-1]
        n = np.bincount(interface.parent, minlength=interface.n_points)
        means.append(means[-1] * float(interface.succeeded.mean()))
        mean = np.bincount(interface.parent, weights=outcome, minlength=interface.n_points) / np.maximum(n, 1)
        square = np.bincount(interface.parent, weights=outcome**2, minlength=interface.n_points) / np.maximum(n, 1)
        values.append(np.where(n > 0, mean, means[-1]))
        spread = np.sqrt(np.maximum(square - mean**2, 0.0) / np.maximum(n - 1, 1))
        errors.append(np.where(n > 1, spread, np.nan))
        counts.append(n)
    values, errors, counts, means = values[::-1], errors[::-1], counts[::-1], means[::-1]
    owner = np.concatenate([np.full(len(v), i) for i, v in enumerate(values)])
    return xr.Dataset(
        {
            "committor": ("point", np.concatenate(values)),
            "stderr": ("point", np.concatenate(errors)),
            "n_trials": ("point", np.concatenate(counts)),
            "mean": ("level", np.array(means)),
        },
        {
            "interface": ("point", owner),
            "index": ("point", np.concatenate([np.arange(len(v)) for v in values])),
            "cv": ("level", np.array([float(interface.value) for interface in run.interfaces])),
        },
    )
