"""Model systems with known free energies, for tests and teaching with the toy backend."""

import abc
import math
from collections.abc import Sequence
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.special import logsumexp

from ..colvars.base import AbstractCV, custom
from ..colvars.geometry import Component
from ..errors import InvalidInputError
from ..grids import Grid

__all__ = ["AbstractModel", "DoubleWell", "Harmonic", "MuellerBrown", "PeriodicPotential"]

_N_POINTS = 1001  # of the quadrature, on each axis


class AbstractModel(eqx.Module):
    """A potential in the first ``n_dims`` coordinates of a particle; the others are held by harmonic springs.

    Called with all positions ``(n, 3)`` it returns the energy, summed over particles, as the toy backend wants it. Free
    energies are those of one particle along x, or along x and y, by quadrature: exact to seven digits or more.

    Attributes:
        n_dims: 1 or 2.
        periodic: whether the potential is periodic with these limits.
    """

    n_dims: eqx.AbstractClassVar[int]
    periodic: ClassVar[bool] = False

    @property
    @abc.abstractmethod
    def bounds(self) -> tuple[tuple[float, float], ...]:
        """Limits on each axis beyond which nothing of weight lies [length]."""

    @abc.abstractmethod
    def energy(self, q: Float[Array, "*b d"]) -> Float[Array, "*b"]:
        """Potential at points of ``n_dims`` coordinates [energy]."""

    def __call__(self, x: Float[Array, "n 3"]) -> Float[Array, ""]:
        """Energy of all particles; springs of constant 1 hold the remaining coordinates at zero."""
        return jnp.sum(self.energy(x[:, : self.n_dims])) + 0.5 * jnp.sum(x[:, self.n_dims :] ** 2)

    @property
    def cvs(self) -> list[AbstractCV]:
        """The coordinates of particle 0 that matter, as CVs."""
        if not self.periodic:
            return [Component([0], axis=d) for d in range(self.n_dims)]
        low, high = self.bounds[0]
        return [
            custom(lambda x, d=d: _wrap(x[0, d], low, high), atoms=[0], period=high - low) for d in range(self.n_dims)
        ]

    def free_energy(self, grid: Grid, kT: float = 1.0) -> Float[np.ndarray, "*shape"]:
        """Exact free energy at the centres of a grid over the first axes, its minimum at zero [energy].

        Raises:
            InvalidInputError: if the grid has more axes than the model.
        """
        if grid.n_dims > self.n_dims:
            raise InvalidInputError(
                f"{type(self).__name__} has {self.n_dims} coordinates, the grid {grid.n_dims} axes."
            )
        values = self._marginal(grid.centers, kT)
        return values - values.min()

    def free_energy_difference(self, first: tuple[float, float], second: tuple[float, float], kT: float = 1.0) -> float:
        """Exact F(second) - F(first) of two intervals of x [energy]."""
        values = []
        for interval in (first, second):
            low, high = np.clip(interval, *self.bounds[0])
            x, weights = _trapezoids(low, high, 2 * _N_POINTS)
            values.append(-kT * float(np.asarray(logsumexp(-self._marginal([x], kT) / kT, b=weights))))
        return values[1] - values[0]

    def _marginal(self, axes: Sequence[Float[np.ndarray, " m"]], kT: float) -> Float[np.ndarray, "..."]:
        """Free energy on the product of the first axes, up to a constant."""
        rest = [_trapezoids(*self.bounds[d], _N_POINTS) for d in range(len(axes), self.n_dims)]
        points = np.meshgrid(*axes, *[x for x, _ in rest], indexing="ij")
        with jax.enable_x64(True):
            energies = np.asarray(self.energy(jnp.asarray(np.stack(points, axis=-1))))
        for _, weights in rest:  # at most one, the last
            energies = -kT * np.asarray(logsumexp(-energies / kT, axis=-1, b=weights))
        return energies


def _trapezoids(low: float, high: float, n: int) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Points and weights of the trapezoidal rule, very accurate over a period or where nothing lies at the ends."""
    weights = np.full(n, (high - low) / (n - 1))
    weights[[0, -1]] *= 0.5
    return np.linspace(low, high, n), weights


class Harmonic(AbstractModel):
    r"""One-dimensional spring, $V = \frac12 k (x - x_0)^2$.

    Free-energy differences between springs k1 and k2 are $\frac12 kT \ln(k_2 / k_1)$.

    Attributes:
        kspring: k [energy/length^2].
        center: $x_0$ [length].
    """

    kspring: float = eqx.field(static=True, default=1.0)
    center: float = eqx.field(static=True, default=0.0)
    n_dims: ClassVar[int] = 1

    @property
    def bounds(self) -> tuple[tuple[float, float], ...]:
        """Where the energy reaches 200."""
        width = math.sqrt(400.0 / self.kspring)
        return ((self.center - width, self.center + width),)

    def energy(self, q: Float[Array, "*b d"]) -> Float[Array, "*b"]:
        """Potential at x [energy]."""
        return 0.5 * self.kspring * (q[..., 0] - self.center) ** 2


class DoubleWell(AbstractModel):
    r"""Two wells at $\pm w$, $V = h\,((x/w)^2 - 1)^2 + t\,x$.

    Attributes:
        height: h, of the barrier between the wells [energy].
        width: w [length].
        tilt: t [energy/length].
    """

    height: float = eqx.field(static=True, default=5.0)
    width: float = eqx.field(static=True, default=1.0)
    tilt: float = eqx.field(static=True, default=0.0)
    n_dims: ClassVar[int] = 1

    @property
    def bounds(self) -> tuple[tuple[float, float], ...]:
        """Four times the wells' distance from the middle."""
        return ((-4 * self.width, 4 * self.width),)

    def energy(self, q: Float[Array, "*b d"]) -> Float[Array, "*b"]:
        """Potential at x [energy]."""
        x = q[..., 0]
        return self.height * ((x / self.width) ** 2 - 1) ** 2 + self.tilt * x


class MuellerBrown(AbstractModel):
    r"""The surface of Müller and Brown.

    $$V = s \sum_{i=1}^4 A_i e^{a_i (x - x_i)^2 + b_i (x - x_i)(y - y_i) + c_i (y -
    y_i)^2}$.

    Attributes:
        scale: s [energy].
        wall: $k_w$ of the walls $k_w d^2$ beyond x = -1.3 and x = 1.0 [energy/length^2], 0 for none.

    References:
        Müller & Brown, Theor. Chim. Acta 53, 75 (1979), doi 10.1007/BF00547608.
    """

    scale: float = eqx.field(static=True, default=1.0)
    wall: float = eqx.field(static=True, default=0.0)
    n_dims: ClassVar[int] = 2

    @property
    def bounds(self) -> tuple[tuple[float, float], ...]:
        """All that lies below 300 when the scale is 1."""
        return ((-2.0, 1.6), (-1.0, 2.5))

    def energy(self, q: Float[Array, "*b d"]) -> Float[Array, "*b"]:
        """Potential at (x, y) [energy]."""
        x, y = q[..., 0], q[..., 1]
        terms = (
            (-200.0, -1.0, 0.0, -10.0, 1.0, 0.0),
            (-100.0, -1.0, 0.0, -10.0, 0.0, 0.5),
            (-170.0, -6.5, 11.0, -6.5, -0.5, 1.5),
            (15.0, 0.7, 0.6, 0.7, -1.0, 1.0),
        )
        value = sum(
            height * jnp.exp(a * (x - x0) ** 2 + b * (x - x0) * (y - y0) + c * (y - y0) ** 2)
            for height, a, b, c, x0, y0 in terms
        )
        beyond = jnp.maximum(-1.3 - x, 0.0) + jnp.maximum(x - 1.0, 0.0)
        return self.scale * value + self.wall * beyond**2


class PeriodicPotential(AbstractModel):
    r"""Two coupled angles, $V = h\,(1 - \cos 2x)/2 + h\,(1 - \cos y)/2 + c\,\cos(x - y)$, of period $2\pi$.

    Attributes:
        height: h [energy].
        coupling: c [energy].
    """

    height: float = eqx.field(static=True, default=4.0)
    coupling: float = eqx.field(static=True, default=1.0)
    n_dims: ClassVar[int] = 2
    periodic: ClassVar[bool] = True

    @property
    def bounds(self) -> tuple[tuple[float, float], ...]:
        """One period."""
        return ((-math.pi, math.pi),) * 2

    def energy(self, q: Float[Array, "*b d"]) -> Float[Array, "*b"]:
        """Potential at (x, y) [energy]."""
        x, y = q[..., 0], q[..., 1]
        return 0.5 * self.height * (2 - jnp.cos(2 * x) - jnp.cos(y)) + self.coupling * jnp.cos(x - y)


def _wrap(value: Float[Array, ""], low: float, high: float) -> Float[Array, ""]:
    period = high - low
    return value - period * jnp.floor((jax.lax.stop_gradient(value) - low) / period)
