"""Weights of the points of a CV: given by the user, or the masses that the engine has."""

from collections.abc import Callable
from typing import Any, TypeVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..errors import InvalidInputError
from ..system import System
from ..units import as_array
from .base import AbstractCV, Energy, Group

_CV = TypeVar("_CV", bound=AbstractCV)


def as_weights(value: Any, n_points: int, what: str = "weights") -> Float[np.ndarray, " n"] | None:
    """One weight for each point; None, for the masses of the engine, stays None.

    Raises:
        InvalidInputError: if there are not as many as points, or one is negative, or all are zero.
    """
    if value is None:
        return None
    weights = as_array(value)
    if weights.shape not in {(), (n_points,)}:
        raise InvalidInputError(
            f"{what} must be None for the masses, 1 for equal weights, or {n_points} numbers, one for each point; got an "
            f"array of shape {weights.shape}."
        )
    if not np.isfinite(weights).all() or not (weights >= 0).all() or not weights.any():
        raise InvalidInputError(f"{what} must be finite, not negative and not all zero; got {weights.tolist()}.")
    return np.array(np.broadcast_to(weights, (n_points,)))


def with_masses(cv: _CV, system: System, *where: Callable[[_CV], Any]) -> _CV:
    """``cv`` with the masses of its points at those places, such as ``lambda cv: cv.weights``, that hold None.

    A group counts with the mass of all its particles, whatever weights make its centre.

    Raises:
        InvalidInputError: if the points have no mass.
    """
    for place in where:
        if place(cv) is None:
            masses = np.array(
                [
                    system.masses[list(p.indices) if isinstance(p, Group) else p].sum()
                    for p in cv.atoms
                    if not isinstance(p, Energy)
                ],
                dtype=np.float64,
            )
            if not masses.any():
                raise InvalidInputError(f"The points of {cv.name} have no mass; give weights=1 for equal weights.")
            cv = eqx.tree_at(place, cv, masses, is_leaf=lambda leaf: leaf is None)
    return cv


def known(weights: Any, cv: AbstractCV, x: Float[Array, "k 3"]) -> Float[Array, " k"]:
    """The weights in the precision of ``x``.

    Raises:
        InvalidInputError: if they are still to come from the engine.
    """
    if weights is None:
        raise InvalidInputError(
            f"{cv.name} takes its weights from the engine. To evaluate it without one give weights=1, or the masses as "
            "weights=[...]; or call cv.resolved(pysamp.System(masses=..., timestep=...)) first."
        )
    return jnp.asarray(weights, dtype=x.dtype)
