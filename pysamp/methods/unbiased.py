"""No bias: observe collective variables only."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..colvars.base import AbstractCV
from .base import AbstractStaticBias, as_cvs

__all__ = ["Unbiased"]


class Unbiased(AbstractStaticBias):
    """Observe CVs without a bias: for logs, histograms and the plain engine's speed.

    Example:
        >>> from pysamp.colvars import Distance
        >>> from pysamp.methods import Unbiased
        >>> Unbiased([Distance([0, 1])]).n_cvs
        1
    """

    cvs: tuple[AbstractCV, ...] = eqx.field(converter=as_cvs)

    def potential(self, xi: Float[Array, " n"]) -> Float[Array, ""]:
        """Zero."""
        return jnp.zeros_like(xi, shape=())
