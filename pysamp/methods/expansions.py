"""Families of states that OPESExpanded samples all at once: temperatures, umbrellas."""

import abc
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ..colvars.base import AbstractCV
from ..colvars.energy import PotentialEnergy
from ..errors import InvalidInputError
from ..units import as_array, as_positive
from .base import as_cvs, as_stride, per_cv, periodic_difference, periods_of

__all__ = ["AbstractExpansion", "MultiUmbrella", "Multithermal"]

_ROOM = 64  # temperatures, where their number is found during the run
_MANY = 10**9  # more than that is the same


class AbstractExpansion(eqx.Module):
    r"""Base class of families of states with the energies $u_\lambda = u_0 + \Delta u_\lambda(\xi)$, in units of kT.

    Attributes:
        cvs: the CVs that the differences depend on.
    """

    cvs: eqx.AbstractVar[tuple[AbstractCV, ...]]

    @property
    @abc.abstractmethod
    def room(self) -> int:
        """Number of states at most; it fixes the shape of arrays."""

    @abc.abstractmethod
    def differences(self, xi: Float[Array, " n"], kT: Float[Array, ""], count: Int[Array, ""]) -> Float[Array, " room"]:
        r"""$\Delta u_\lambda$ of each of ``count`` states at ``xi``, and inf for the room that is left."""

    def count(self, samples: Float[Array, "m n"], kT: Float[Array, ""]) -> Int[Array, ""]:
        """Number of states, from CVs sampled without bias; more than ``room`` if that many are needed."""
        del kT
        return jnp.full((), self.room, dtype=jnp.int64)

    def capped(self, free_energies: Float[Array, "room rest"], kT: Float[Array, ""]) -> Float[Array, "room rest"]:
        """First guesses of free energies [kT], those beyond belief made lower."""
        del kT
        return free_energies

    @property
    @abc.abstractmethod
    def labels(self) -> tuple[str, ...]:
        """Names of what tells the states apart, such as ``kT``."""

    @abc.abstractmethod
    def parameters(self, count: int) -> Float[np.ndarray, "count labels"]:
        """What tells the states apart, of each."""


class Multithermal(AbstractExpansion):
    r"""Temperatures from the lowest to the highest, in equal ratios: $\Delta u_i = (1/kT_i - 1/kT)\, U$.

    The simulation's own temperature may lie anywhere, best within the range: the thermostat keeps it, the bias does the rest.

    Args:
        kT: lowest and highest thermal energy [energy]; in OpenMM's unit 0.00831446 kJ/mol times the temperature in K.
        n: number of temperatures; None to have it found from the fluctuations of the energy in the steps without bias, so
            that at neighbouring temperatures half of the samples count; the run stops with an error if that takes more than 64.

    Raises:
        InvalidInputError: if the range is not one, or ``n`` is below 2.

    Example:
        >>> from pysamp.methods import Multithermal
        >>> Multithermal(kT=(1.0, 2.25), n=3).parameters(3).ravel().tolist()
        [1.0, 1.5, 2.25]
    """

    cvs: tuple[AbstractCV, ...]
    limits: Float[np.ndarray, "2"]
    n: int | None = eqx.field(static=True)

    def __init__(self, *, kT: Any, n: Any = None):
        self.cvs = (PotentialEnergy(),)
        self.limits = as_array(kT)
        self.n = None if n is None else int(as_stride(n, "n"))

    def __check_init__(self):
        if self.limits.shape != (2,) or not (np.isfinite(self.limits).all() and 0 < self.limits[0] < self.limits[1]):
            raise InvalidInputError(
                f"kT must be the lowest and the highest thermal energy, such as (2.49, 4.16), got {self.limits.tolist()}."
            )
        if self.n is not None and self.n < 2:
            raise InvalidInputError(f"Multithermal needs 2 temperatures or more, got n={self.n}.")

    @property
    def room(self) -> int:
        """``n``, or 64."""
        return _ROOM if self.n is None else self.n

    def count(self, samples: Float[Array, "m n"], kT: Float[Array, ""]) -> Int[Array, ""]:
        r"""Effective number of samples of half at the next temperature, for Gaussian energies: a ratio of $e^{\sqrt{\ln 2 / C}}$.

        C is the heat capacity, the variance of U over $(kT)^2$.
        """
        if self.n is not None:
            return jnp.full((), self.n, dtype=jnp.int64)
        capacity = jnp.var(samples[:, 0]) / kT**2
        low, high = (jnp.asarray(value) for value in self.limits)
        steps = jnp.ceil(jnp.log(high / low) * jnp.sqrt(capacity / jnp.log(2.0)))
        return jnp.clip(steps + 1, 2, _MANY).astype(jnp.int64)

    def differences(self, xi: Float[Array, " n"], kT: Float[Array, ""], count: Int[Array, ""]) -> Float[Array, " room"]:
        """(1/kT_i - 1/kT) U."""
        places = jnp.arange(self.room)
        low, high = (jnp.asarray(value) for value in self.limits)
        share = jnp.minimum(places / jnp.maximum(count - 1, 1), 1.0)
        beta = jnp.exp(-share * jnp.log(high / low)) / low
        return jnp.where(places < count, (beta - 1.0 / kT) * xi[0], jnp.inf)

    @property
    def labels(self) -> tuple[str, ...]:
        """``kT``."""
        return ("kT",)

    def parameters(self, count: int) -> Float[np.ndarray, "count labels"]:
        """The thermal energies."""
        return np.geomspace(self.limits[0], self.limits[1], count)[:, None]


class MultiUmbrella(AbstractExpansion):
    r"""Harmonic umbrellas along CVs: $\Delta u_i = \sum_d (\xi_d - c_{id})^2 / (2 \sigma_d^2)$.

    All umbrellas together, each as likely as any other, sample the CVs about uniformly between the first centre and the last,
    as the windows of umbrella sampling do, in one simulation.

    Args:
        cvs: the CVs.
        centers: of each umbrella [CV unit], ``(m,)`` for one CV or ``(m, n)``; not further apart than about ``sigma``.
        sigma: width of the umbrellas [CV unit], one for all CVs or one for each: how finely the free energy is resolved.
        barrier: guess of the highest free energy to overcome, rather too high [energy]. Without it the first bias, which knows
            only the steps without bias, may push hard where nothing was seen.

    Raises:
        InvalidInputError: if shapes or signs are wrong.

    Example:
        >>> import numpy as np
        >>> from pysamp.colvars import Distance
        >>> from pysamp.methods import MultiUmbrella
        >>> MultiUmbrella(Distance([0, 1]), centers=np.linspace(0.3, 1.2, 19), sigma=0.05).room
        19
    """

    cvs: tuple[AbstractCV, ...]
    centers: Float[np.ndarray, "m n"]
    sigma: Float[np.ndarray, " n"]
    barrier: Float[np.ndarray, ""] | None

    def __init__(self, cvs: Any, *, centers: Any, sigma: Any, barrier: Any = None):
        self.cvs = as_cvs(cvs)
        n = len(periods_of(self.cvs))
        values = as_array(centers)
        self.centers = values[:, None] if values.ndim == 1 and n == 1 else values
        self.sigma = per_cv(sigma, n, "sigma")
        self.barrier = None if barrier is None else as_positive(barrier, "barrier")

    def __check_init__(self):
        n = len(self.sigma)
        if self.centers.ndim != 2 or self.centers.shape[1] != n or len(self.centers) < 2:
            raise InvalidInputError(
                f"centers must be one place for each umbrella, two or more, of shape (m, {n}); got {self.centers.shape}."
            )
        if not np.isfinite(self.centers).all():
            raise InvalidInputError("centers must be finite.")
        if not (np.isfinite(self.sigma).all() and (self.sigma > 0).all()):
            raise InvalidInputError(f"sigma must be positive, got {self.sigma.tolist()}.")

    @property
    def room(self) -> int:
        """Number of umbrellas."""
        return len(self.centers)

    def differences(self, xi: Float[Array, " n"], kT: Float[Array, ""], count: Int[Array, ""]) -> Float[Array, " room"]:
        """Half the squared distance in widths."""
        del kT, count
        away = periodic_difference(xi[None], self.centers, periods_of(self.cvs))
        return 0.5 * jnp.sum((away / jnp.asarray(self.sigma)[None]) ** 2, axis=1)

    def capped(self, free_energies: Float[Array, "room rest"], kT: Float[Array, ""]) -> Float[Array, "room rest"]:
        """None more than the barrier above the lowest."""
        if self.barrier is None:
            return free_energies
        return jnp.minimum(free_energies, jnp.min(free_energies, axis=0, keepdims=True) + self.barrier / kT)

    @property
    def labels(self) -> tuple[str, ...]:
        """The CVs'."""
        return tuple(label for cv in self.cvs for label in cv.labels)

    def parameters(self, count: int) -> Float[np.ndarray, "count labels"]:
        """The centres."""
        del count
        return self.centers
