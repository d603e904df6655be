"""Metadynamics, standard and well-tempered, on a grid or as a sum of hills."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ..colvars.base import AbstractCV
from ..errors import InvalidInputError
from ..grids import Grid
from ..units import as_positive
from .base import AbstractMethod, Bias, Observation, as_cvs, as_stride, check_grid, is_every, per_cv

__all__ = ["Metadynamics", "MetadynamicsState"]

_BLOCK = 512  # hills summed at a time; the sum over blocks has the same order whatever room is reserved
_ROOM = 2 * _BLOCK  # at first; with one block XLA would compile the sum otherwise, and its last digit would change


class MetadynamicsState(eqx.Module):
    """Hills so far, and their sum on the grid if there is one.

    Attributes:
        hills: centres [CV unit], one row for each CV, and in the last row heights as deposited [energy]; the columns beyond
            ``n_hills`` are room for more.
        n_hills: number of hills.
        table: bias at the grid's nodes, one ghost node beyond either end of each axis [energy], or None.
        outside: number of steps at which a CV was outside the grid.
        widths: of each hill [CV unit], one row for each CV, where they adapt, else None.
        spread: running mean and variance of each CV, where the widths adapt, else None.
    """

    hills: Float[Array, "n_plus_1 room"]
    n_hills: Int[Array, ""]
    table: Float[Array, "..."] | None
    outside: Int[Array, ""]
    widths: Float[Array, "n room"] | None = None
    spread: Float[Array, "2 n"] | None = None

    @property
    def centers(self) -> Float[Array | np.ndarray, "room n"]:
        """Centres of the hills [CV unit], one in each row."""
        return self.hills[:-1].T

    @property
    def heights(self) -> Float[Array | np.ndarray, " room"]:
        """Heights of the hills [energy]."""
        return self.hills[-1]


class Metadynamics(AbstractMethod[MetadynamicsState]):
    r"""Metadynamics: a bias that fills the visited places with Gaussians.

    Every ``stride`` steps a hill is added at the current CVs,

    $$V(\xi) = \sum_i h_i \prod_d \exp\left(-\frac{(\xi_d - \xi_{i,d})^2}{2 \sigma_d^2}\right).$$

    In the well-tempered form (``bias_factor`` given) the heights shrink as $h_i = h \exp(-V(\xi_i) / (kT (\gamma - 1)))$,
    and V converges to $-(1 - 1/\gamma) F$. Gaussians are neither truncated nor shifted.

    With ``grid`` the sum is kept on the edges of the grid's bins and interpolated by cubic convolution, so that the cost of a
    step does not depend on the number of hills, and the force is the exact gradient of the interpolated energy. Outside a
    non-periodic axis of the grid the bias is that of the nearest point on its boundary, without a force along that axis;
    such steps are counted in the log. Without ``grid`` the hills are summed; their number has no limit.

    With ``adapt_sigma`` hills are as wide as the CVs have lately fluctuated: with running averages over that number of steps,

    $$\bar\xi \leftarrow \bar\xi + \frac{\xi - \bar\xi}{\tau}, \qquad
      \sigma^2 \leftarrow \sigma^2 + \frac{(\xi - \bar\xi)^2 - \sigma^2}{\tau},$$

    CV by CV (the paper has the covariances too), at least ``sigma``, and at most a sixth of a period. Hills of different widths
    do not sum to the free energy, not even in the long run; ``analyze`` does not need them to.

    Choose it when barriers are not known beforehand and the CVs are one to three. Well-tempered with a grid is the default
    choice.

    Args:
        cvs: collective variables, one or a list.
        height: h, height of the first hill [energy]; about kT / 2 is common.
        sigma: widths [CV unit], one number or one per CV; about the CV's fluctuation in a minimum. With ``adapt_sigma`` the
            least widths.
        stride: steps between hills.
        bias_factor: gamma > 1; None for standard metadynamics.
        grid: grid that covers the CVs' range, with bins not wider than sigma.
        kT: thermal energy [energy]; None to take the engine's.
        adapt_sigma: steps over which the CVs' fluctuation is averaged for the widths of hills, about the time that the CVs take
            to move through a minimum; None for hills as wide as sigma.

    Raises:
        InvalidInputError: for parameters that are not positive, a bias factor of 1 or less, or a grid that does not fit the
            CVs or is too coarse.

    Example:
        >>> import math
        >>> import pysamp
        >>> from pysamp.colvars import DihedralAngle
        >>> from pysamp.methods import Metadynamics
        >>> grid = pysamp.Grid(-math.pi, math.pi, 64, periodic=True)
        >>> phi = DihedralAngle([4, 6, 8, 14])
        >>> method = Metadynamics([phi], height=1.2, sigma=0.35, stride=500, bias_factor=10, grid=grid)
        >>> method.n_cvs
        1

    References:
        Laio & Parrinello, Proc. Natl. Acad. Sci. 99, 12562 (2002), doi 10.1073/pnas.202427399.
        Well-tempered: Barducci, Bussi & Parrinello, Phys. Rev. Lett. 100, 020603 (2008),
        doi 10.1103/PhysRevLett.100.020603.
        Adaptive widths: Branduardi, Bussi & Parrinello, J. Chem. Theory Comput. 8, 2247 (2012), doi 10.1021/ct3002464.
        Cubic convolution: Keys, IEEE Trans. Acoust. 29, 1153 (1981), doi 10.1109/TASSP.1981.1163711.
    """

    own: ClassVar[frozenset[str] | None] = frozenset()

    cvs: tuple[AbstractCV, ...]
    height: Float[np.ndarray, ""]
    sigma: Float[np.ndarray, " n"]
    stride: Int[np.ndarray, ""]
    bias_factor: Float[np.ndarray, ""] | None
    grid: Grid | None
    kT: Float[np.ndarray, ""] | None
    adapt_sigma: Int[np.ndarray, ""] | None

    def __init__(
        self,
        cvs: Any,
        *,
        height: Any,
        sigma: Any,
        stride: Any,
        bias_factor: Any = None,
        grid: Grid | None = None,
        kT: Any = None,
        adapt_sigma: int | None = None,
    ):
        self.cvs = as_cvs(cvs)
        self.height = as_positive(height, "height")
        self.sigma = per_cv(sigma, self.n_cvs, "sigma")
        self.stride = as_stride(stride, "stride")
        self.bias_factor = None if bias_factor is None else as_positive(bias_factor, "bias_factor")
        self.grid = grid
        self.kT = None if kT is None else as_positive(kT, "kT")
        self.adapt_sigma = None if adapt_sigma is None else as_stride(adapt_sigma, "adapt_sigma")

    def __check_init__(self):
        if not (np.isfinite(self.sigma).all() and (self.sigma > 0).all()):
            raise InvalidInputError(f"sigma must be positive, got {self.sigma.tolist()}.")
        if self.bias_factor is not None and not self.bias_factor > 1:
            raise InvalidInputError(
                f"bias_factor must be greater than 1, got {self.bias_factor}; leave it out for standard metadynamics."
            )
        for sigma, period, label in zip(self.sigma, self.periods, self.labels, strict=True):
            if period is not None and sigma > period / 6:
                raise InvalidInputError(
                    f"sigma={sigma} is too wide for {label} with the period {period:.6g}: a hill would meet its own image. "
                    f"Use at most {period / 6:.3g}."
                )
        if self.grid is not None:
            check_grid(self.grid, self)
            if (self.grid.widths > self.sigma).any():
                needed = np.ceil((self.grid.upper - self.grid.lower) / self.sigma * 2).astype(int)
                raise InvalidInputError(
                    f"The grid's bins {self.grid.widths.tolist()} are wider than sigma {self.sigma.tolist()}; hills would "
                    f"fall between its nodes. Use shape={tuple(needed.tolist())} or finer."
                )

    def potential(self, state: MetadynamicsState, xi: Float[Array, " n"]) -> Float[Array, ""]:
        """Bias energy at ``xi`` [energy]."""
        return self._value_and_gradient(state, xi)[0]

    def init(self, obs: Observation) -> MetadynamicsState:
        """No hills."""
        table = None
        if self.grid is not None:
            table = jnp.zeros(tuple(n + 3 for n in self.grid.shape), dtype=obs.xi.dtype)
        adapts = self.adapt_sigma is not None
        return MetadynamicsState(
            hills=jnp.zeros((self.n_cvs + 1, _ROOM), dtype=obs.xi.dtype),
            n_hills=jnp.zeros_like(obs.step),
            table=table,
            outside=jnp.zeros_like(obs.step),
            widths=jnp.ones((self.n_cvs, _ROOM), dtype=obs.xi.dtype) if adapts else None,
            spread=jnp.stack([obs.xi, jnp.zeros_like(obs.xi)]) if adapts else None,
        )

    def reserve(self, state: MetadynamicsState, n_steps: int) -> MetadynamicsState:
        """Room for the hills of ``n_steps`` more steps; doubled, so that few shapes occur."""
        needed = int(state.n_hills) + n_steps // int(self.stride) + 1
        room = present = state.hills.shape[1]
        while room < needed:
            room *= 2
        if room == present:
            return state
        more = ((0, 0), (0, room - present))
        if state.widths is not None:
            widths = jnp.pad(state.widths, more, constant_values=1.0)  # of hills without height
            state = eqx.tree_at(lambda s: s.widths, state, widths)
        return eqx.tree_at(lambda s: s.hills, state, jnp.pad(state.hills, more))

    def update(self, state: MetadynamicsState, obs: Observation) -> MetadynamicsState:
        """Add a hill every ``stride`` steps, the first after ``stride`` steps."""
        state = self.watched(state, obs)
        return jax.lax.cond(self.has_hill(obs.step), lambda: self.deposited(state, obs), lambda: state)

    def watched(self, state: MetadynamicsState, obs: Observation) -> MetadynamicsState:
        """State after seeing one more time step, without a hill."""
        if self.grid is not None:
            outside = state.outside + is_outside(self.grid, obs.xi).astype(state.outside.dtype)
            state = eqx.tree_at(lambda s: s.outside, state, outside)
        if self.adapt_sigma is not None and state.spread is not None:
            mean, variance = state.spread
            away = self.difference(obs.xi, mean)
            spread = jnp.stack([mean + away / self.adapt_sigma, variance + (away**2 - variance) / self.adapt_sigma])
            state = eqx.tree_at(lambda s: s.spread, state, spread)
        return state

    def has_hill(self, step: Int[Array, ""]) -> Bool[Array, ""]:
        """Whether a hill is added at this step."""
        return is_every(self.stride, step)

    def update_shared(self, state: MetadynamicsState, obs: Observation) -> MetadynamicsState:
        """Add a hill for each walker every ``stride`` steps; each is tempered by those of the walkers before it."""
        grid = self.grid
        if grid is not None:
            outside = jnp.sum(jax.vmap(lambda xi: is_outside(grid, xi))(obs.xi).astype(state.outside.dtype))
            state = eqx.tree_at(lambda s: s.outside, state, state.outside + outside)

        def deposit(state: MetadynamicsState, xi: Float[Array, " n"]) -> tuple[MetadynamicsState, None]:
            return self.deposited(state, eqx.tree_at(lambda o: o.xi, obs, xi)), None

        return jax.lax.cond(self.has_hill(obs.step), lambda: jax.lax.scan(deposit, state, obs.xi)[0], lambda: state)

    def bias(self, state: MetadynamicsState, obs: Observation) -> Bias:
        """Sum of the hills at ``obs.xi``."""
        energy, gradient = self._value_and_gradient(state, obs.xi)
        return Bias(energy, -gradient)

    def truncated(self, state: MetadynamicsState, n_steps: int) -> MetadynamicsState:
        """Without the later hills; the grid's table stays, which the analysis does not look at."""
        n_hills = np.minimum(state.n_hills, n_steps // int(self.stride))
        return eqx.tree_at(lambda s: s.n_hills, state, n_hills)

    def diagnostics(self, state: MetadynamicsState) -> Mapping[str, Float[Array, ""]]:
        """Number of hills, height of the last one, and steps outside the grid."""
        last = jnp.maximum(state.n_hills - 1, 0)
        return {
            "n_hills": state.n_hills.astype(float),
            "height": state.heights[last],
            "outside": state.outside.astype(float),
        }

    def deposited(self, state: MetadynamicsState, obs: Observation) -> MetadynamicsState:
        """State with one more hill, at ``obs.xi``."""
        height = jnp.asarray(self.height)
        if self.bias_factor is not None:
            kT = self._kT(obs.kT)
            height = height * jnp.exp(-self.potential(state, obs.xi) / (kT * (self.bias_factor - 1.0)))
        table, sigma, widths = state.table, jnp.asarray(self.sigma), state.widths
        place = state.n_hills.astype(jnp.int32)
        if state.spread is not None and widths is not None:
            widest = np.array([np.inf if period is None else period / 6.0 for period in self.periods])
            sigma = jnp.clip(jnp.sqrt(state.spread[1]), sigma, widest)
            widths = jax.lax.dynamic_update_slice(widths, sigma[:, None], (jnp.zeros_like(place), place))
        if self.grid is not None and table is not None:
            table = table + height * self._gaussian_on_nodes(self.grid, obs.xi, sigma)
        return MetadynamicsState(
            hills=jax.lax.dynamic_update_slice(
                state.hills, jnp.append(obs.xi, height)[:, None], (jnp.zeros_like(place), place)
            ),
            n_hills=state.n_hills + 1,
            table=table,
            outside=state.outside,
            widths=widths,
            spread=state.spread,
        )

    def _gaussian_on_nodes(self, grid: Grid, xi: Float[Array, " n"], sigma: Float[Array, " n"]) -> Float[Array, "..."]:
        """Gaussian of height 1 at ``xi``, on the nodes of the table: a product of one factor per axis."""
        factors = []
        for d, period in enumerate(self.periods):
            nodes = grid.lower[d] + grid.widths[d] * (np.arange(grid.shape[d] + 3) - 1.0)
            distance = nodes - xi[d]
            if period is not None:
                distance = distance - period * jnp.round(distance / period)
            factor = jnp.exp(-0.5 * (distance / sigma[d]) ** 2)
            factors.append(factor.reshape((1,) * d + (-1,) + (1,) * (grid.n_dims - d - 1)))
        factors = list(jax.lax.optimization_barrier(factors))  # else XLA computes the exponentials again for every node
        product = factors[0]
        for factor in factors[1:]:
            product = product * factor
        return product

    def _value_and_gradient(
        self, state: MetadynamicsState, xi: Float[Array, " n"]
    ) -> tuple[Float[Array, ""], Float[Array, " n"]]:
        grid, table = self.grid, state.table
        if grid is not None and table is not None:
            return jax.value_and_grad(lambda x: interpolate(grid, table, x))(xi)

        widths = state.widths

        def add(i: Int[Array, ""], total: Float[Array, " n_plus_1"]) -> Float[Array, " n_plus_1"]:
            hills = jax.lax.dynamic_slice_in_dim(state.hills, i * _BLOCK, _BLOCK, axis=1)
            sigma = same if widths is None else jax.lax.dynamic_slice_in_dim(widths, i * _BLOCK, _BLOCK, axis=1)
            scaled = self.difference(xi, hills[:-1].T).T / sigma
            weights = hills[-1] * jnp.exp(-0.5 * jnp.sum(scaled**2, axis=0))
            slopes = -scaled if widths is None else -scaled / sigma
            # without the barrier the exponentials are computed again for each sum
            factors, weights = jax.lax.optimization_barrier((jnp.append(slopes, ones, axis=0), weights[None]))
            return total + jnp.sum(factors * weights, axis=1)

        same, ones = self.sigma[:, None], np.ones((1, _BLOCK))
        n_blocks = (state.n_hills + _BLOCK - 1) // _BLOCK
        total = jax.lax.fori_loop(jnp.zeros_like(n_blocks), n_blocks, add, jnp.zeros(self.n_cvs + 1, xi.dtype))
        return total[-1], total[:-1] / self.sigma if widths is None else total[:-1]


def is_outside(grid: Grid, xi: Float[Array, " n"]) -> Array:
    """Whether ``xi`` is beyond a non-periodic axis of the grid."""
    beyond = (xi < grid.lower) | (xi > grid.upper)
    return jnp.any(beyond & ~np.asarray(grid.periodic))


def interpolate(
    grid: Grid, table: Float[Array, "..."], xi: Float[Array, " n"], function: Callable | None = None
) -> Float[Array, ""]:
    """Cubic convolution of a table at the bins' edges (or a function of it), with one ghost node beyond either end of each axis.

    Continuous with continuous first derivatives; exact for quadratic functions, in error by the third power of the width
    else. Beyond a non-periodic axis, the value on its boundary.
    """
    starts, weights = zip(*[along_axis(grid, d, xi[d]) for d in range(grid.n_dims)], strict=True)
    values = jax.lax.dynamic_slice(table, starts, (4,) * grid.n_dims)
    if function is not None:
        values = function(values)
    for weight in reversed(weights):
        values = jnp.sum(values * jnp.broadcast_to(weight, values.shape), axis=-1)
    return values


def along_axis(grid: Grid, d: int, x: Float[Array, ""]) -> tuple[Int[Array, ""], Float[Array, "4"]]:
    """First of the four nodes of one axis between which a value is interpolated, and their weights."""
    n = grid.shape[d]
    u = (x - grid.lower[d]) * (n / (grid.upper[d] - grid.lower[d]))
    u = u - n * jnp.floor(u / n) if grid.periodic[d] else jnp.clip(u, 0.0, float(n))
    start = jnp.clip(jax.lax.stop_gradient(jnp.floor(u)), 0.0, n - 1.0)
    t = u - start
    weights = [
        ((-0.5 * t + 1.0) * t - 0.5) * t,
        (1.5 * t - 2.5) * t * t + 1.0,
        ((-1.5 * t + 2.0) * t + 0.5) * t,
        (0.5 * t - 0.5) * t * t,
    ]
    return start.astype(jnp.int32), jnp.stack(weights)
