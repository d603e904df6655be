"""Half-harmonic walls on collective variables."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..colvars.base import AbstractCV
from ..errors import InvalidInputError
from .base import AbstractStaticBias, as_cvs, per_cv

__all__ = ["HarmonicWalls"]


class HarmonicWalls(AbstractStaticBias):
    r"""Walls that push back with $\frac12 k d^2$ at a distance d beyond a bound, and do nothing within.

    They act everywhere and always, with or without another method's grid. For a periodic CV the allowed stretch runs from
    ``lower`` upwards to ``upper`` and may cross the periodic boundary.

    Args:
        cvs: collective variables, one or a list.
        lower: lower bound(s) [CV unit]; None or -inf for no wall.
        upper: upper bound(s) [CV unit]; None or inf for no wall.
        kspring: k [energy / CV unit^2], one number or one per CV.

    Raises:
        InvalidInputError: for no wall at all, swapped bounds, a periodic CV with one wall only, or a negative k.

    Example:
        >>> from pysamp.colvars import Distance
        >>> from pysamp.methods import HarmonicWalls
        >>> HarmonicWalls(Distance([0, 1]), upper=1.5, kspring=500.0).upper
        array([1.5])
    """

    cvs: tuple[AbstractCV, ...]
    lower: Float[np.ndarray, " n"]
    upper: Float[np.ndarray, " n"]
    kspring: Float[np.ndarray, " n"]

    def __init__(self, cvs: Any, *, lower: Any = None, upper: Any = None, kspring: Any):
        self.cvs = as_cvs(cvs)
        n = self.n_cvs
        self.lower = per_cv(-np.inf if lower is None else lower, n, "lower")
        self.upper = per_cv(np.inf if upper is None else upper, n, "upper")
        self.kspring = per_cv(kspring, n, "kspring")

    def __check_init__(self):
        if np.isinf(self.lower).all() and np.isinf(self.upper).all():
            raise InvalidInputError("HarmonicWalls needs lower=..., upper=... or both.")
        if (self.kspring < 0).any() or not np.isfinite(self.kspring).all():
            raise InvalidInputError(f"kspring must be positive and finite, got {self.kspring.tolist()}.")
        for low, high, period, label in zip(self.lower, self.upper, self.periods, self.labels, strict=True):
            if period is None:
                if not low < high:
                    raise InvalidInputError(f"HarmonicWalls needs lower < upper; {label} has {low} and {high}.")
            elif np.isinf(low) != np.isinf(high):
                raise InvalidInputError(f"{label} is periodic, so it needs both walls or none; got {low} and {high}.")

    def beyond(self, xi: Float[Array, " n"]) -> Float[Array, " n"]:
        """Signed distance beyond the nearer wall [CV unit]; zero between the walls."""
        excess = []
        for i, period in enumerate(self.periods):
            x, low, high = xi[i], self.lower[i], self.upper[i]
            if period is None:
                excess.append(jnp.maximum(x - high, 0.0) + jnp.minimum(x - low, 0.0))
            else:
                half_width = 0.5 * jnp.where(jnp.isfinite(high - low), jnp.mod(high - low, period), period)
                d = x - jnp.where(jnp.isfinite(low), low, 0.0) - half_width
                d = d - period * jnp.round(d / period)
                excess.append(jnp.sign(d) * jnp.maximum(jnp.abs(d) - half_width, 0.0))
        return jnp.stack(excess)

    def potential(self, xi: Float[Array, " n"]) -> Float[Array, ""]:
        """Energy of the walls at ``xi`` [energy]."""
        return 0.5 * jnp.sum(self.kspring * self.beyond(xi) ** 2)
