"""The method that holds one image of a string, and measures the mean force on it."""

from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ..colvars.base import AbstractCV
from ..methods.base import AbstractMethod, Bias, Observation, moving_center

__all__ = ["Image", "ImageState"]


class ImageState(eqx.Module):
    """Where the image is held, and what was measured.

    Attributes:
        start: centre of the restraint at the first step.
        center: where it moves to, and stays.
        n_moving: MD steps of its way there.
        strength: factor of the spring constants: 1 to hold, 0 to let go.
        n_skipped: MD steps before the averages begin.
        n_steps: MD steps done.
        n: number of observations in the averages.
        deviation: sum of xi less the centre.
        inverse_mass: sum of the inverse mass matrix.
        last: xi less the centre, at the last step.
    """

    start: Float[Array | np.ndarray, " n"]
    center: Float[Array | np.ndarray, " n"]
    n_moving: Int[Array | np.ndarray, ""]
    strength: Float[Array | np.ndarray, ""]
    n_skipped: Int[Array | np.ndarray, ""]
    n_steps: Int[Array | np.ndarray, ""]
    n: Int[Array | np.ndarray, ""]
    deviation: Float[Array | np.ndarray, " n"]
    inverse_mass: Float[Array | np.ndarray, "n n"]
    last: Float[Array | np.ndarray, " n"]


def image_state(center: Any, *, start: Any = None, n_moving: int = 0, strength: float = 1.0, n_skipped: int = 0) -> Any:
    """The state before a segment, on the host."""
    center = np.asarray(center, dtype=np.float64)
    zero, count = np.zeros_like(center), np.asarray(0, dtype=np.int64)
    return ImageState(
        start=center if start is None else np.asarray(start, dtype=np.float64),
        center=center,
        n_moving=np.asarray(n_moving, dtype=np.int64),
        strength=np.asarray(strength, dtype=np.float64),
        n_skipped=np.asarray(n_skipped, dtype=np.int64),
        n_steps=count,
        n=count,
        deviation=zero,
        inverse_mass=np.zeros((center.size, center.size)),
        last=zero,
    )


class Image(AbstractMethod[ImageState]):
    """A spring to a centre that is part of the state, so that one compiled program serves for all images and iterations.

    Attributes:
        kspring: spring constants [energy / CV unit^2].
    """

    cvs: tuple[AbstractCV, ...]
    kspring: Float[np.ndarray, " n"]
    needs: ClassVar[frozenset[str]] = frozenset(["inverse_mass"])

    def init(self, obs: Observation) -> ImageState:
        """Nothing is held; the state is to be replaced."""
        zero, count = jnp.zeros_like(obs.xi), jnp.zeros((), dtype=jnp.int64)
        matrix = jnp.zeros((obs.xi.size, obs.xi.size), dtype=obs.xi.dtype)
        return ImageState(zero, zero, count, jnp.zeros(()), count, count, count, zero, matrix, zero)

    def update(self, state: ImageState, obs: Observation) -> ImageState:
        """Add to the averages."""
        deviation = self.difference(obs.xi, state.center)
        measured = state.n_steps >= state.n_skipped
        weight = jnp.where(measured, 1.0, 0.0)
        matrix = jnp.eye(obs.xi.size) if obs.inverse_mass is None else obs.inverse_mass
        return ImageState(
            start=state.start,
            center=state.center,
            n_moving=state.n_moving,
            strength=state.strength,
            n_skipped=state.n_skipped,
            n_steps=state.n_steps + 1,
            n=state.n + measured,
            deviation=state.deviation + weight * deviation,
            inverse_mass=state.inverse_mass + weight * matrix,
            last=deviation,
        )

    def bias(self, state: ImageState, obs: Observation) -> Bias:
        """The spring."""
        center = moving_center(state.start, state.center, state.n_steps, state.n_moving, self.periods)
        d = self.difference(obs.xi, center)
        force = -jnp.asarray(state.strength) * self.kspring * d
        return Bias(-0.5 * jnp.sum(force * d), force)
