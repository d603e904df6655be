"""Weights of logged samples in the unbiased ensemble, and the free energy of any other logged quantity."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Int
from scipy.special import logsumexp

from ..api import analyze, sample_weights
from ..colvars.energy import PotentialEnergy
from ..errors import InvalidInputError
from ..grids import Grid
from ..methods.base import AbstractMethod, AbstractStaticBias
from ..methods.metadynamics import Metadynamics
from ..methods.opes_expanded import OPESExpanded
from ..methods.umbrella import UmbrellaSampling
from ..results import Run
from ..units import as_positive
from .free_energy import FreeEnergy, weights_of
from .metadynamics import bias_at_hills, default_bias_grid
from .sampling import (
    MIN_UNITS,
    blocks_of_time,
    default_grid,
    locate,
    logged_xi,
    method_of,
    n_discarded,
    place_of,
)
from .static import analysed_method, windows_of
from .umbrella import umbrella_windows
from .windows import Windows

__all__ = ["bias_constant", "reweight", "sample_weights"]


@sample_weights.dispatch
def _weights_of_run(run: Run, /, *, discard: float | None = None, kT: float | None = None) -> xr.Dataset:
    method = analysed_method(run)
    if isinstance(method, OPESExpanded):  # its weights span more orders of magnitude than floating point has
        return sample_weights(method, run, discard=discard, kT=kT)
    found = sample_weights(method, run, discard=discard)
    if kT is None:
        return found
    weights = np.concatenate([found["weight"].values[None], found["replicates"].values])
    with np.errstate(divide="ignore"):
        log_weights = np.log(weights) + energy_shift(run, kT)[None]
    return as_weights(run, np.exp(log_weights - log_weights.max()))


def energy_shift(run: Run, kT: Any) -> Float[np.ndarray, "r s"]:
    """Log of what a sample's weight is multiplied with at another temperature, from the logged potential energy.

    Raises:
        InvalidInputError: if the energy was not logged.
    """
    cvs = [(cv, component) for method in run.methods for cv in method.cvs for component in range(cv.n_components)]
    places = [i for i, (cv, _) in enumerate(cvs) if isinstance(cv, PotentialEnergy)]
    if not places or not run.log.sizes.get("sample", 0):
        raise InvalidInputError(
            "Other temperatures need the potential energy in the log: run [method, "
            "pysamp.methods.Unbiased(pysamp.colvars.PotentialEnergy())]."
        )
    energies = np.asarray(run.log["xi"].values[..., places[0]], dtype=np.float64)
    return (1.0 / run.kT - 1.0 / float(as_positive(kT, "kT"))) * (energies - energies.mean())


@sample_weights.dispatch
def _weights_static(method: AbstractStaticBias, run: Run, /, *, discard: float | None = None) -> xr.Dataset:
    return _of_windows(windows_of([run], [method], discard), run)


@sample_weights.dispatch
def _weights_umbrella(method: UmbrellaSampling, run: Run, /, *, discard: float | None = None) -> xr.Dataset:
    return _of_windows(umbrella_windows(run, method, discard), run)


@sample_weights.dispatch
def _weights_adaptive(method: AbstractMethod, run: Run, /, *, discard: float | None = None) -> xr.Dataset:
    """Probability of the sample's bin over the number of samples in it."""
    fes = analyze(method, run, discard=discard)
    xi = logged_xi(run, method)
    n_replicas, n_samples = xi.shape[:2]
    first = n_discarded(n_samples, discard)
    places = locate(fes.grid, xi)
    places[:, :first] = -1
    m = len(fes.replicates)
    unit = blocks_of_time(places.size, m).reshape(places.shape)
    p = weights_of(np.concatenate([fes.values[None], fes.replicates]).reshape(m + 1, -1), run.kT)
    used = np.stack([places >= 0] + [(places >= 0) & (unit != k) for k in range(m)])
    weights = np.stack([_shared(p_k, places, used_k) for p_k, used_k in zip(p, used, strict=True)])
    return as_weights(run, weights.reshape(m + 1, n_replicas, n_samples))


def _shared(
    p: Float[np.ndarray, " bins"], places: Int[np.ndarray, "r s"], used: Bool[np.ndarray, "r s"]
) -> Float[np.ndarray, "r s"]:
    counts = np.bincount(places[used], minlength=len(p))
    each = np.divide(p, counts, out=np.zeros_like(p), where=counts > 0)
    return np.where(used, each[places], 0.0)


def _of_windows(windows: Windows, run: Run) -> xr.Dataset:
    """Put the windows' weights where their samples are in the log."""
    n_samples, n_windows = run.log.sizes["sample"], len(windows.biases)
    weight, replicates = windows.weights()
    weights = np.concatenate([weight[None], replicates])
    result = np.zeros((len(weights), run.n_replicas, n_samples))
    start = 0
    for window, xi in enumerate(windows.xi):
        n = xi.shape[0] * xi.shape[1]
        part = weights[:, start : start + n].reshape(-1, *xi.shape[:2])
        result[:, window::n_windows, n_samples - xi.shape[1] :] = part
        start += n
    return as_weights(run, result)


def as_weights(run: Run, weights: Float[np.ndarray, "m r s"]) -> xr.Dataset:
    """What ``sample_weights`` returns, from the weights and those with one block of data left out."""
    weights = weights / weights.sum(axis=(1, 2), keepdims=True)
    return xr.Dataset(
        {
            "weight": (("replica", "sample"), weights[0]),
            "replicates": (("block", "replica", "sample"), weights[1:]),
        },
        {"replica": run.log["replica"], "step": run.log["step"]} if "replica" in run.log.coords else {},
        {"effective_samples": float(1.0 / np.sum(weights[0] ** 2))},
    )


def reweight(
    run: Run,
    of: Any,
    *,
    grid: Grid | None = None,
    weights: Any = None,
    discard: float | None = None,
    kT: float | None = None,
) -> FreeEnergy:
    r"""Free energy along any logged quantity, from a run that was biased along others.

    $$F(q) = -kT \ln \sum_s w_s\, \delta(q - q_s).$$

    Log more CVs by running an observer beside the method: ``run([Metadynamics(phi, ...), Unbiased(psi)], ...)``.

    Args:
        run: the run.
        of: label of a logged CV or a list of them (``run.log.cv``), a method of the run, or an array of values
            ``(replica, sample)`` or ``(replica, sample, n)``, such as one computed from a trajectory.
        grid: grid of the result; None for one that covers the samples.
        weights: None for :func:`sample_weights`, or weights ``(replica, sample)`` of your own.
        discard: fraction left out at the beginning; None for a tenth.
        kT: thermal energy at which the free energy is wanted [energy]; None for the simulation's. Others need
            :class:`~pysamp.colvars.PotentialEnergy` in the log, and samples at the energies of that temperature.

    Returns:
        The free energy with errors from blocks of data.

    Raises:
        InvalidInputError: if the quantity was not logged, or shapes do not fit.

    Example:
        >>> import jax.numpy as jnp
        >>> import pysamp
        >>> from pysamp.backends import toy
        >>> from pysamp.colvars import Component
        >>> from pysamp.methods import HarmonicBias, Unbiased
        >>> x, y = Component([0], axis=0), Component([0], axis=1)
        >>> def generate_context():
        ...     return toy.Simulation(lambda r: 0.5 * jnp.sum(r**2), [[0.0, 0.0, 0.0]], timestep=0.1)
        >>> methods = [HarmonicBias(x, kspring=1.0, center=0.5), Unbiased(y)]
        >>> run = pysamp.run(methods, generate_context, 20_000, log_every=10, seed=1, progress=False)
        >>> fes = pysamp.analysis.reweight(run, "Component(0).y", grid=pysamp.Grid(-2, 2, 4))
        >>> bool(abs(fes.values[0] - fes.values[1] - 1.0) < 0.3)
        True

    References:
        Torrie & Valleau, J. Comput. Phys. 23, 187 (1977), doi 10.1016/0021-9991(77)90121-8.
    """
    values, periods, labels = _quantity(run, of)
    if weights is None:
        found = sample_weights(run, discard=discard, kT=kT)
    else:
        found = as_weights(run, _own_weights(np.asarray(weights, dtype=np.float64), values, discard))
    return free_energy_of_samples(
        run, values, periods, labels, grid=grid, weights=found, kT=run.kT if kT is None else float(kT)
    )


def free_energy_of_samples(
    run: Run,
    values: Float[np.ndarray, "r s n"],
    periods: Sequence[float | None],
    labels: tuple[str, ...],
    *,
    grid: Grid | None,
    weights: xr.Dataset,
    kT: float,
) -> FreeEnergy:
    """Weighted histogram of samples.

    Raises:
        InvalidInputError: if the grid does not fit.
    """
    all_weights = np.concatenate([weights["weight"].values[None], weights["replicates"].values])
    flat = values.reshape(-1, values.shape[-1])
    if grid is None:
        grid = default_grid(flat[all_weights[0].reshape(-1) > 0], periods)
    if grid.n_dims != values.shape[-1]:
        raise InvalidInputError(
            f"The grid has {grid.n_dims} axes, but there are {values.shape[-1]} quantities: {labels}."
        )
    places = locate(grid, flat)
    inside = places >= 0
    if not all_weights[0].reshape(-1)[inside].any():
        raise InvalidInputError("No sample lies in the grid: choose one that covers the quantity's range.")
    p = np.stack([np.bincount(places[inside], weights=w.reshape(-1)[inside], minlength=grid.size) for w in all_weights])
    p = p.reshape(-1, *grid.shape)
    return FreeEnergy.from_probabilities(p[0], p[1:], grid, kT=kT, labels=labels, unit=run.energy_unit)


def _own_weights(
    weights: Float[np.ndarray, "..."], values: Float[np.ndarray, "r s n"], discard: float | None
) -> Float[np.ndarray, "m r s"]:
    """The weights, and with blocks of data left out in turn."""
    if weights.shape != values.shape[:2]:
        raise InvalidInputError(f"weights must have the shape {values.shape[:2]}, got {weights.shape}.")
    if not (np.isfinite(weights).all() and (weights >= 0).all()):
        raise InvalidInputError("weights must be finite and not negative.")
    weights = weights.copy()
    weights[:, : n_discarded(weights.shape[1], discard)] = 0.0
    unit = blocks_of_time(weights.size, MIN_UNITS).reshape(weights.shape)
    return np.stack([weights] + [np.where(unit == k, 0.0, weights) for k in range(MIN_UNITS)])


def _quantity(run: Run, of: Any) -> tuple[Float[np.ndarray, "r s n"], Sequence[float | None], tuple[str, ...]]:
    """Values of a quantity, its periods and labels."""
    if isinstance(of, AbstractMethod):
        return logged_xi(run, of), of.periods, of.labels
    if isinstance(of, str):
        of = [of]
    if isinstance(of, list | tuple) and all(isinstance(label, str) for label in of):
        known = [str(label) for label in run.log["cv"].values]
        missing = [label for label in of if label not in known]
        if missing or not of:
            raise InvalidInputError(
                f"The log has no CV {missing[0] if missing else of!r}; it has {known}. Log it by running "
                "[method, pysamp.methods.Unbiased(cv)], or give its values as an array (replica, sample)."
            )
        places = [known.index(label) for label in of]
        all_periods = [period for method in run.methods for period in method.periods]
        values = np.asarray(run.log["xi"].values[..., places], dtype=np.float64)
        return values, [all_periods[place] for place in places], tuple(of)
    values = np.asarray(of, dtype=np.float64)
    shape = (run.n_replicas, run.log.sizes.get("sample", 0))
    if values.ndim == 2:
        values = values[..., None]
    if values.shape[:2] != shape or values.ndim != 3:
        raise InvalidInputError(f"Values must have the shape {shape} or {(*shape, 'n')}, got {np.shape(of)}.")
    n = values.shape[-1]
    return values, [None] * n, tuple(f"q{i}" for i in range(n)) if n > 1 else ("q",)


def bias_constant(run: Run, *, grid: Grid | None = None) -> xr.DataArray:
    r"""The time-dependent constant c(t) of metadynamics: how high the bias has risen everywhere.

    $$c(t) = kT \ln \frac{\int e^{\gamma V(\xi, t) / ((\gamma - 1) kT)} d\xi}{\int e^{V(\xi, t) / ((\gamma - 1) kT)} d\xi},$$

    with $\gamma \to \infty$ for standard metadynamics. $V - c$ is the relative bias, and ``np.exp((V - c) / kT)`` with V the
    logged energy of the method weighs the samples as Tiwary and Parrinello do. :func:`sample_weights` uses all of the run's
    data and knows of the noise; this is for comparison, and for convergence: c(t) grows ever more slowly.

    Args:
        run: a run with :class:`~pysamp.methods.Metadynamics`.
        grid: where to integrate; None for the method's own, or one that covers the hills.

    Returns:
        c [energy], dimensions ``replica`` and ``sample``, at the steps of the log.

    Raises:
        InvalidInputError: if the run has no metadynamics.

    Example:
        >>> c = pysamp.analysis.bias_constant(run)  # doctest: +SKIP
        >>> w = np.exp((run.log.method_energy.isel(method=0) - c) / run.kT)  # doctest: +SKIP

    References:
        Tiwary & Parrinello, J. Phys. Chem. B 119, 736 (2015), doi 10.1021/jp504920s.
    """
    method = method_of(run, Metadynamics, "c(t) is of Metadynamics")
    if grid is None:
        grid = default_bias_grid(run, method)
    steps = np.asarray(run.log["step"].values)
    inverse = 0.0 if method.bias_factor is None else 1.0 / (float(method.bias_factor) - 1.0)
    place = place_of(run, method)
    result = np.zeros((run.n_replicas, len(steps)))
    # the hill of step k * stride acts from the next step on
    n_before = max(1, run.walkers) * np.maximum(-(-steps // int(method.stride)) - 1, 0)
    for replica, state in enumerate(run.states):
        for first, bias in bias_at_hills(grid, method, state.methods[place], np.unique(n_before)):
            v = bias / run.kT
            value = run.kT * (np.asarray(logsumexp((1.0 + inverse) * v)) - np.asarray(logsumexp(inverse * v)))
            result[replica, n_before == first] = value
    return xr.DataArray(result, {"step": ("sample", steps)}, ("replica", "sample"), "c", {"unit": run.energy_unit})
