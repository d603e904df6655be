"""Checks of collective variables on the user's own snapshot, before step 0."""

import functools
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ._compile import jit_in_haste
from .colvars._vectors import sum_of
from .errors import InvalidInputError, PysampWarning
from .sampler import Particles, Sampler
from .snapshot import Snapshot

__all__ = ["check_cvs", "cv_values"]

# Displacements along a random direction, relative to the spread of the CVs' atoms. A smooth CV passes at one of them: the
# small ones suffer from rounding (a CV computed in float32), the large ones from curvature.
_STEPS = np.array([1e-2, 1e-3, 1e-4, 1e-5, 1e-6])
_WRONG, _SUSPICIOUS = 0.1, 1e-3


@jax.jit
def cv_values(sampler: Sampler, particles: Particles) -> Float[Array, " n"]:
    """All CVs at one configuration."""
    return sampler.xi(particles)


type_of_places = tuple[
    Float[Array | np.ndarray, "... k 3"], Float[Array | np.ndarray, "..."] | None
]  # positions, energy


def _values_and_slopes(
    sampler: Sampler, particles: Particles, places: type_of_places, direction: type_of_places
) -> tuple[Float[Array, "p n"], Float[Array, "p n"]]:
    """CVs and their derivatives along ``direction`` at several places."""

    def at(place: type_of_places) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
        moved = lambda place: replace(particles, positions=place[0], energy=place[1])  # noqa: E731
        xi, pullback = jax.vjp(lambda place: sampler.xi(moved(place)), place)

        def slope(row: Float[Array, " n"]) -> Float[Array, ""]:
            (gradient,) = pullback(row)
            return sum_of(jax.tree.leaves(jax.tree.map(jnp.vdot, gradient, direction)))

        # a loop: written out, the program would grow with the square of the number of CVs
        return xi, jax.lax.map(slope, jnp.eye(xi.size, dtype=xi.dtype))

    return jax.lax.map(at, places)


@functools.cache
def _compiled() -> Callable:
    return jit_in_haste(_values_and_slopes)


def check_cvs(sampler: Sampler, snapshots: Sequence[Snapshot]) -> None:
    """Check that every CV is finite on the snapshots and that its derivative is that of its value.

    The derivative is tried in one random direction, at the snapshot and, for the case that a kink is just there, near it. Where
    CVs see the engine's energy, it changes by itself: how it depends on the positions is not the CVs' matter.

    Raises:
        InvalidInputError: if a CV or its derivative is not finite, or the derivative is grossly wrong.
    """
    if not sampler.atoms and not sampler.needs_energy:
        return
    with jax.enable_x64(True):
        for snapshot in snapshots:
            _check(sampler, sampler.particles(snapshot))


def _check(sampler: Sampler, particles: Particles) -> None:
    x = np.asarray(particles.positions, dtype=np.float64)
    random = np.random.default_rng(20)
    direction = random.normal(size=x.shape)
    spread = (float(np.sqrt(np.mean((x - x.mean(axis=0)) ** 2))) if x.size else 0.0) or 1.0
    nearby = x + 1e-3 * spread * random.normal(size=x.shape)
    offsets = spread * np.concatenate([_STEPS, -_STEPS])
    steps = offsets[:, None, None] * direction
    points, energies, energy_direction = np.concatenate([x[None], x + steps, nearby[None], nearby + steps]), None, None
    if particles.energy is not None:
        energy = float(particles.energy)
        energy_direction = np.asarray((abs(energy) or 1.0) * random.normal() / spread)
        nearby_energy = energy + 1e-3 * spread * energy_direction
        energies = np.concatenate([e + np.append(0.0, offsets) * energy_direction for e in (energy, nearby_energy)])
    places, directions = (points, energies), (direction, energy_direction)
    values, slopes = map(np.asarray, _compiled()(sampler, particles, places, directions))
    values, slopes = values.reshape(2, -1, values.shape[-1]), slopes.reshape(2, -1, slopes.shape[-1])[:, 0]
    periods = [period for method in sampler.methods for period in method.periods]
    for i, (label, period) in enumerate(zip(sampler.labels, periods, strict=True)):
        value = values[0, 0, i]
        if not np.isfinite(value):
            where = "finite" if np.isfinite(x).all() else "not all finite either"
            raise InvalidInputError(
                f"The CV {label} is {value} on the snapshot from which the run starts. The positions of its atoms are {where}: "
                "check its atoms and, if it is your own, its divisions, roots and logarithms."
            )
        if not np.isfinite(slopes[0, i]):
            raise InvalidInputError(
                f"The CV {label} is {value}, but its derivative is {slopes[0, i]} on the snapshot from which the run starts. "
                "Functions such as jnp.sqrt, jnp.linalg.norm and jnp.arccos have none at the ends of their ranges: keep "
                "their arguments away from there with jnp.where."
            )
        errors = [_relative_error(values[k, 1:, i], slopes[k, i], period, spread) for k in range(2)]
        if min(errors) > _WRONG:
            raise InvalidInputError(
                f"The derivative of the CV {label} is not that of its value: along a random direction JAX gives "
                f"{slopes[0, i]:.6g}, and finite differences {_slope(values[0, 1:, i], period, spread)[2]:.6g}. Look for "
                "jax.lax.stop_gradient, jnp.round, casts to integers, or a jax.custom_jvp that is wrong."
            )
        if min(errors) > _SUSPICIOUS:
            warnings.warn(
                f"The derivative of the CV {label} differs from finite differences by {min(errors):.1%}: the bias force will "
                "not be that of the bias energy. Is it computed in float32, or does it have a kink?",
                PysampWarning,
                stacklevel=2,
            )


def _slope(values: Float[np.ndarray, " p"], period: float | None, spread: float) -> Float[np.ndarray, " q"]:
    """Central differences for each displacement."""
    difference = values[: len(_STEPS)] - values[len(_STEPS) :]
    if period is not None:
        difference = difference - period * np.round(difference / period)
    return difference / (2 * spread * _STEPS)


def _relative_error(values: Float[np.ndarray, " p"], slope: float, period: float | None, spread: float) -> float:
    numeric = _slope(values, period, spread)
    numeric = numeric[np.isfinite(numeric)]
    if not numeric.size:  # the CV is defined in this one point only
        return 0.0
    scale = np.maximum(np.maximum(np.abs(numeric), abs(slope)), 1e-8 * (1.0 + np.abs(values[0])) / spread)
    return float(np.min(np.abs(numeric - slope) / scale))
