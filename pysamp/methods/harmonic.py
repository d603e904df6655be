"""Harmonic restraint on collective variables, the bias of an umbrella-sampling window."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..colvars.base import AbstractCV
from ..errors import InvalidInputError
from ..units import as_array
from .base import AbstractStaticBias, as_cvs, per_cv

__all__ = ["HarmonicBias"]


class HarmonicBias(AbstractStaticBias):
    r"""Harmonic restraint $V(\xi) = \frac12 (\xi - c)^T K (\xi - c)$, nearest image for periodic CVs.

    Use it to hold CVs near a point, or for the windows of umbrella sampling.

    Args:
        cvs: collective variables, one or a list.
        kspring: spring constant K [energy / CV unit^2]: one number for all, one per CV, or a symmetric matrix.
        center: c [CV unit], one per CV.

    Raises:
        InvalidInputError: if the shapes do not fit the CVs, or K is not positive semi-definite.

    Example:
        >>> from pysamp.colvars import Distance
        >>> from pysamp.methods import HarmonicBias
        >>> HarmonicBias(Distance([0, 1]), kspring=1000.0, center=0.3).kspring
        array([[1000.]])

    References:
        Torrie & Valleau, J. Comput. Phys. 23, 187 (1977), doi 10.1016/0021-9991(77)90121-8.
    """

    cvs: tuple[AbstractCV, ...]
    kspring: Float[np.ndarray, "n n"]
    center: Float[np.ndarray, " n"]

    def __init__(self, cvs: Any, *, kspring: Any, center: Any):
        self.cvs = as_cvs(cvs)
        n = self.n_cvs
        spring = as_array(kspring)
        if spring.shape not in {(), (n,), (n, n)}:
            raise InvalidInputError(
                f"kspring must be one number, {n} numbers or a {n} x {n} matrix, got the shape {spring.shape}."
            )
        self.kspring = spring if spring.ndim == 2 else np.diag(np.broadcast_to(spring, (n,)))
        self.center = per_cv(center, n, "center")

    def __check_init__(self):
        if not np.isfinite(self.kspring).all() or not np.allclose(self.kspring, self.kspring.T):
            raise InvalidInputError(f"kspring must be finite and symmetric, got {self.kspring.tolist()}.")
        if np.linalg.eigvalsh(self.kspring).min() < -1e-12 * abs(self.kspring).max():
            raise InvalidInputError(
                f"kspring must not be negative: the bias would push away; got {self.kspring.tolist()}."
            )

    def potential(self, xi: Float[Array, " n"]) -> Float[Array, ""]:
        """Bias energy at ``xi`` [energy]."""
        d = self.difference(xi, self.center)
        return 0.5 * jnp.sum(d[:, None] * self.kspring * d[None, :])
