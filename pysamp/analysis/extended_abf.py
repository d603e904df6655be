"""Free energy of extended-system adaptive biasing force runs: CZAR, and umbrella integration."""

import numpy as np
from jaxtyping import Float

from ..api import analyze
from ..errors import InvalidInputError
from ..grids import Grid
from ..methods.base import periodic_difference
from ..methods.extended_abf import ExtendedABF
from ..results import Run
from .abf import LEAST_BLOCKS, blocks_of_sums
from .free_energy import FreeEnergy, weights_of
from .integrate import GradientIntegrator
from .sampling import check_discard, leave_out_units, place_of

__all__: list[str] = []

_CHUNK = 256
_FAR = 40.0  # squared distance in units of the covariance beyond which a window says nothing
_LEAST_IN_WINDOW = 10


@analyze.dispatch
def _analyze_extended_abf(
    method: ExtendedABF,
    run: Run,
    /,
    *,
    grid: Grid | None = None,
    discard: float | None = None,
    estimator: str = "czar",
) -> FreeEnergy:
    """CZAR, or umbrella integration over the bins of the extended variables; errors from blocks of time.

    CZAR is exact for any bias on the extended variables. Umbrella integration takes the CVs to be normally distributed around
    each value of the extended variables, which makes it smoother where samples are few.
    """
    check_discard(discard)
    if grid is not None and grid is not method.grid:
        raise InvalidInputError("ExtendedABF has measured on its own grid; leave grid=... out.")
    if estimator not in {"czar", "ui"}:
        raise InvalidInputError(f"estimator must be 'czar' or 'ui', got {estimator!r}.")
    place = place_of(run, method)
    states = [state.methods[place] for state in run.states]
    n_replicas, discard = len(states), discard or 0.0
    kept = [s.at_xi if estimator == "czar" else s.at_position for s in states]
    sums = np.concatenate(
        [blocks_of_sums(s, state, discard, n_replicas) for s, state in zip(kept, states, strict=True)]
    )
    total = sums.sum(axis=0)
    if len(sums) < LEAST_BLOCKS or not total[:, -1].any():
        raise InvalidInputError(
            f"{int(total[:, -1].sum())} samples inside the grid, in {len(sums)} blocks of time, are too few for an error "
            "estimate: run longer, and check that the grid covers the CVs' range."
        )
    left_out = leave_out_units(sums)
    if estimator == "czar":
        integrator = GradientIntegrator(method.grid, total[:, -1].reshape(method.grid.shape))
        energies = [_czar(integrator, s, run.kT) for s in (total, *left_out)]
    else:
        kT = run.kT if method.kT is None else float(method.kT)
        gradients = [_windows(method, s, kT) for s in (total, *left_out)]
        integrator = GradientIntegrator(method.grid, gradients[0][1])
        first = gradients[0][0]
        # where the others have no window, what they would say is not known
        known = [np.isfinite(gradient) for gradient, _ in gradients]
        energies = [
            np.where(there.all(axis=-1), integrator(np.where(there, gradient, first)), np.nan)
            for there, (gradient, _) in zip(known, gradients, strict=True)
        ]
    return FreeEnergy.from_probabilities(
        weights_of(energies[0], run.kT),
        np.stack([weights_of(energy, run.kT) for energy in energies[1:]]),
        method.grid,
        kT=run.kT,
        labels=method.labels,
        unit=run.energy_unit,
    )


def _czar(integrator: GradientIntegrator, sums: Float[np.ndarray, "bins m"], kT: float) -> Float[np.ndarray, "*shape"]:
    """The spring's mean force on xi, integrated, less kT ln of the biased histogram; nan where there is no sample."""
    counts = sums[:, -1].reshape(integrator.grid.shape)
    sampled = counts > 0
    gradient = sums[:, :-1].reshape(*integrator.grid.shape, -1) / np.maximum(counts, 1.0)[..., None]
    return integrator(gradient) - kT * np.log(np.where(sampled, counts, np.nan))


def _windows(
    method: ExtendedABF, sums: Float[np.ndarray, "bins m"], kT: float
) -> tuple[Float[np.ndarray, "*shape n"], Float[np.ndarray, "*shape"]]:
    """Gradient of the free energy in each bin of xi from all windows, the bins of lambda, and the windows' weight there."""
    grid, n = method.grid, method.n_cvs
    kspring = kT / np.asarray(method.sigma) ** 2
    counts = sums[:, -1]
    used = counts >= _LEAST_IN_WINDOW
    centers = grid.points.reshape(-1, n)
    mean = sums[used, :n] / counts[used, None] / kspring  # of lambda - xi
    covariance = np.zeros((int(used.sum()), n, n))
    rows, columns = np.triu_indices(n)
    products = sums[used, n:-1] / counts[used, None] - mean[:, rows] * mean[:, columns]
    covariance[:, rows, columns] = covariance[:, columns, rows] = products
    stiffness = np.linalg.inv(covariance)
    scale = counts[used] * np.sqrt(np.linalg.det(stiffness))
    weight, weighted = np.zeros(grid.size), np.zeros((grid.size, n))
    for start in range(0, len(mean), _CHUNK):
        chunk = slice(start, start + _CHUNK)
        stretch = np.asarray(periodic_difference(centers[:, None], centers[used][chunk], method.periods))  # xi - lambda
        away = stretch + mean[chunk]
        pull = np.einsum("wij,bwj->bwi", stiffness[chunk], away)
        squared = np.sum(pull * away, axis=-1)
        share = np.where(squared < _FAR, scale[chunk] * np.exp(-0.5 * squared), 0.0)
        weight += share.sum(axis=1)
        weighted += np.sum(share[..., None] * (kT * pull - kspring * stretch), axis=1)
    # less than one sample's worth is not knowledge
    enough = weight * np.prod(grid.widths) / (2.0 * np.pi) ** (n / 2.0) > 1.0
    gradient = np.where(enough[:, None], weighted / np.where(enough, weight, 1.0)[:, None], np.nan)
    return gradient.reshape(*grid.shape, n), np.where(enough, weight, 0.0).reshape(grid.shape)
