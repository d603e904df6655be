"""Parallel-bias metadynamics: many one-dimensional biases at once."""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ..colvars.base import AbstractCV
from ..errors import InvalidInputError
from ..grids import Grid
from ..units import as_positive
from .base import AbstractMethod, Bias, Observation, as_cvs, as_stride, check_grid, is_every, per_cv
from .metadynamics import along_axis, is_outside

__all__ = ["ParallelBiasMetadynamics", "ParallelBiasState"]

_ROOM = 1024


class ParallelBiasState(eqx.Module):
    """Hills so far, and their sums on the axes of the grid.

    Attributes:
        hills: centres [CV unit], one row for each CV, and below them the heights as deposited [energy], likewise; the columns
            beyond ``n_hills`` are room for more.
        n_hills: number of hills on each axis.
        tables: biases at the nodes of the axes, one after the other, with one ghost node beyond either end of each [energy].
        outside: number of steps at which a CV was outside the grid.
    """

    hills: Float[Array, "two_n room"]
    n_hills: Int[Array, ""]
    tables: Float[Array, " nodes"]
    outside: Int[Array, ""]


class ParallelBiasMetadynamics(AbstractMethod[ParallelBiasState]):
    r"""Parallel-bias metadynamics: a one-dimensional well-tempered bias for each of many CVs.

    $$V(\xi) = -kT \ln \frac{1}{n} \sum_{d=1}^{n} e^{-V_d(\xi_d) / kT},$$

    so that at any time the CV with the lowest bias feels the most of it. Every ``stride`` steps each $V_d$ gets a Gaussian at
    the current $\xi_d$, whose height is the CV's share of the bias,

    $$h_d = h\, \frac{e^{-V_d(\xi_d) / kT}}{\sum_c e^{-V_c(\xi_c) / kT}}\, e^{-V_d(\xi_d) / (kT (\gamma - 1))},$$

    with which $V_d$ converges to $-(1 - 1/\gamma) F_d(\xi_d)$. The cost grows in proportion to the number of CVs, where that of a
    grid in all of them would grow with a power of it. (The 1/n only makes the energy 0 before the first hill.)

    Each axis of ``grid`` has a table of its own, interpolated by cubic convolution; the force is the exact gradient of the
    energy. Outside a non-periodic axis a bias is that of the nearest point on its boundary; such steps are counted in the log.

    Choose it for four or more CVs, none of which matters alone. Correlations between them are not flattened: for up to
    three CVs :class:`Metadynamics` explores more evenly. ``pysamp.analysis.reweight(run, label)`` gives the free
    energy of any one CV, ``analyze`` that of all of them together for up to three.

    Args:
        cvs: collective variables, one or a list.
        height: h, height of the first hills together [energy]; kT / 2 times the number of CVs is a good start.
        sigma: widths [CV unit], one number or one per CV; about the CV's fluctuation in a minimum.
        stride: steps between hills.
        bias_factor: gamma > 1.
        grid: one axis for each CV, with bins not wider than sigma; no table in several dimensions is made of it.
        kT: thermal energy [energy]; None to take the engine's.

    Raises:
        InvalidInputError: for parameters that are not positive, a bias factor of 1 or less, or a grid that does not fit the CVs
            or is too coarse.

    Example:
        >>> import math
        >>> import pysamp
        >>> from pysamp.colvars import DihedralAngle
        >>> from pysamp.methods import ParallelBiasMetadynamics
        >>> torsions = [DihedralAngle([i, i + 1, i + 2, i + 3]) for i in range(6)]
        >>> grid = pysamp.Grid([-math.pi] * 6, [math.pi] * 6, [64] * 6, periodic=True)
        >>> method = ParallelBiasMetadynamics(torsions, height=3.0, sigma=0.35, stride=500, bias_factor=10, grid=grid)
        >>> method.n_cvs
        6

    References:
        Pfaendtner & Bonomi, J. Chem. Theory Comput. 11, 5062 (2015), doi 10.1021/acs.jctc.5b00846.
    """

    cvs: tuple[AbstractCV, ...]
    height: Float[np.ndarray, ""]
    sigma: Float[np.ndarray, " n"]
    stride: Int[np.ndarray, ""]
    bias_factor: Float[np.ndarray, ""]
    grid: Grid
    kT: Float[np.ndarray, ""] | None

    def __init__(self, cvs: Any, *, height: Any, sigma: Any, stride: Any, bias_factor: Any, grid: Grid, kT: Any = None):
        self.cvs = as_cvs(cvs)
        self.height = as_positive(height, "height")
        self.sigma = per_cv(sigma, self.n_cvs, "sigma")
        self.stride = as_stride(stride, "stride")
        self.bias_factor = as_positive(bias_factor, "bias_factor")
        self.grid = grid
        self.kT = None if kT is None else as_positive(kT, "kT")

    def __check_init__(self):
        if not (np.isfinite(self.sigma).all() and (self.sigma > 0).all()):
            raise InvalidInputError(f"sigma must be positive, got {self.sigma.tolist()}.")
        if not self.bias_factor > 1:
            raise InvalidInputError(f"bias_factor must be greater than 1, got {self.bias_factor}.")
        check_grid(self.grid, self)
        for sigma, period, width, label in zip(self.sigma, self.periods, self.grid.widths, self.labels, strict=True):
            if period is not None and sigma > period / 6:
                raise InvalidInputError(
                    f"sigma={sigma} is too wide for {label} with the period {period:.6g}: a hill would meet its own image. "
                    f"Use at most {period / 6:.3g}."
                )
            if width > sigma:
                raise InvalidInputError(
                    f"The bins of {label}, {width:.4g}, are wider than sigma={sigma:.4g}; hills would fall between the nodes. "
                    "Use a finer grid."
                )

    def biases(self, tables: Float[Array, " nodes"], xi: Float[Array, " n"]) -> Float[Array, " n"]:
        """The bias of each CV [energy]."""
        values = []
        for d, first in enumerate(self._firsts()):
            start, weights = along_axis(self.grid, d, xi[d])
            values.append(jnp.sum(jax.lax.dynamic_slice(tables, (start + first,), (4,)) * weights))
        return jnp.stack(values)

    def potential(self, tables: Float[Array, " nodes"], xi: Float[Array, " n"], kT: Any) -> Float[Array, ""]:
        """Bias energy at ``xi`` [energy]."""
        return -kT * (jax.nn.logsumexp(-self.biases(tables, xi) / kT) - np.log(self.n_cvs))

    def init(self, obs: Observation) -> ParallelBiasState:
        """No hills."""
        return ParallelBiasState(
            hills=jnp.zeros((2 * self.n_cvs, _ROOM), dtype=obs.xi.dtype),
            n_hills=jnp.zeros_like(obs.step),
            tables=jnp.zeros(sum(n + 3 for n in self.grid.shape), dtype=obs.xi.dtype),
            outside=jnp.zeros_like(obs.step),
        )

    def reserve(self, state: ParallelBiasState, n_steps: int) -> ParallelBiasState:
        """Room for the hills of ``n_steps`` more steps; doubled, so that few shapes occur."""
        needed = int(state.n_hills) + n_steps // int(self.stride) + 1
        room = present = state.hills.shape[1]
        while room < needed:
            room *= 2
        if room == present:
            return state
        return eqx.tree_at(lambda s: s.hills, state, jnp.pad(state.hills, ((0, 0), (0, room - present))))

    def update(self, state: ParallelBiasState, obs: Observation) -> ParallelBiasState:
        """Add hills every ``stride`` steps, the first after ``stride`` steps."""
        outside = state.outside + is_outside(self.grid, obs.xi).astype(state.outside.dtype)
        state = eqx.tree_at(lambda s: s.outside, state, outside)
        due = is_every(self.stride, obs.step)
        return jax.lax.cond(due, lambda: self._deposit(state, obs), lambda: state)

    def bias(self, state: ParallelBiasState, obs: Observation) -> Bias:
        """Soft minimum of the biases of all CVs, and its exact gradient."""
        energy, gradient = jax.value_and_grad(lambda xi: self.potential(state.tables, xi, self._kT(obs.kT)))(obs.xi)
        return Bias(energy, -gradient)

    def truncated(self, state: ParallelBiasState, n_steps: int) -> ParallelBiasState:
        """Without the later hills; the tables stay, which the analysis does not look at."""
        return eqx.tree_at(lambda s: s.n_hills, state, np.minimum(state.n_hills, n_steps // int(self.stride)))

    def diagnostics(self, state: ParallelBiasState) -> Mapping[str, Float[Array, ""]]:
        """Number of hills, sum of the heights of the last ones, and steps outside the grid."""
        last = jnp.maximum(state.n_hills - 1, 0)
        return {
            "n_hills": state.n_hills.astype(float),
            "height": jnp.sum(state.hills[self.n_cvs :, last]),
            "outside": state.outside.astype(float),
        }

    def on_nodes(self, xi: Float[Array, " n"], heights: Float[Array, " n"]) -> Float[Array, " nodes"]:
        """A hill on each axis, at the nodes of the tables."""
        tables = []
        for d, period in enumerate(self.periods):
            nodes = self.grid.lower[d] + self.grid.widths[d] * (np.arange(self.grid.shape[d] + 3) - 1.0)
            distance = nodes - xi[d]
            if period is not None:
                distance = distance - period * jnp.round(distance / period)
            tables.append(heights[d] * jnp.exp(-0.5 * (distance / self.sigma[d]) ** 2))
        return jnp.concatenate(tables)

    def _deposit(self, state: ParallelBiasState, obs: Observation) -> ParallelBiasState:
        kT = self._kT(obs.kT)
        values = self.biases(state.tables, obs.xi)
        heights = (
            jnp.asarray(self.height) * jax.nn.softmax(-values / kT) * jnp.exp(-values / (kT * (self.bias_factor - 1.0)))
        )
        place = state.n_hills.astype(jnp.int32)
        hill = jnp.concatenate([obs.xi, heights])[:, None]
        return ParallelBiasState(
            hills=jax.lax.dynamic_update_slice(state.hills, hill, (jnp.zeros_like(place), place)),
            n_hills=state.n_hills + 1,
            tables=state.tables + self.on_nodes(obs.xi, heights),
            outside=state.outside,
        )

    def _firsts(self) -> tuple[int, ...]:
        """Where the table of each axis begins."""
        return tuple(np.cumsum([0, *(n + 3 for n in self.grid.shape[:-1])]).tolist())
