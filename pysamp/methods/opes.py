"""On-the-fly probability enhanced sampling: a bias from a compressed kernel density estimate."""

import abc
from collections.abc import Mapping
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
from ._kernels import Kernels
from .base import AbstractMethod, Bias, Observation, as_cvs, as_stride, check_grid, is_every, per_cv
from .metadynamics import interpolate, is_outside

__all__ = ["OPES", "OPESExplore", "OPESState"]


class OPESState(eqx.Module):
    """Kernels so far, and what their normalisation needs.

    Attributes:
        kernels: all of them, compressed.
        n_kernels: how many there are.
        overlap: sum of all kernels over the centres of all kernels.
        weight: sum of the weights of all samples.
        weight_squared: sum of their squares.
        table: sum of the kernels at the grid's nodes, one ghost node beyond either end of each axis, or None.
        outside: number of steps at which a CV was outside the grid.
        xi: CVs at the last step.
    """

    kernels: Kernels
    n_kernels: Int[Array, ""]
    overlap: Float[Array, ""]
    weight: Float[Array, ""]
    weight_squared: Float[Array, ""]
    table: Float[Array, "..."] | None
    outside: Int[Array, ""]
    xi: Float[Array, " n"]

    @property
    def n_effective(self) -> Float[Array, ""]:
        """Effective number of samples, the square of the sum of weights over the sum of their squares."""
        return self.weight**2 / jnp.maximum(self.weight_squared, jnp.finfo(self.weight.dtype).tiny)


class AbstractOPES(AbstractMethod[OPESState]):
    """What the two variants share: kernels, their compression, and the bias as a function of their sum."""

    learns: ClassVar[bool] = True

    cvs: tuple[AbstractCV, ...]
    barrier: Float[np.ndarray, ""]
    sigma: Float[np.ndarray, " n"]
    stride: Int[np.ndarray, ""]
    bias_factor: Float[np.ndarray, ""] | None
    sigma_min: Float[np.ndarray, " n"]
    threshold: Float[np.ndarray, ""]
    grid: Grid | None
    kT: Float[np.ndarray, ""] | None

    def __init__(
        self,
        cvs: Any,
        *,
        barrier: Any,
        sigma: Any,
        stride: Any,
        bias_factor: Any = None,
        sigma_min: Any = None,
        threshold: Any = 1.0,
        grid: Grid | None = None,
        kT: Any = None,
    ):
        self.cvs = as_cvs(cvs)
        self.barrier = as_positive(barrier, "barrier")
        self.sigma = per_cv(sigma, self.n_cvs, "sigma")
        self.stride = as_stride(stride, "stride")
        self.bias_factor = None if bias_factor is None else as_positive(bias_factor, "bias_factor")
        self.threshold = as_positive(threshold, "threshold")
        self.grid = grid
        self.kT = None if kT is None else as_positive(kT, "kT")
        least = np.zeros(self.n_cvs) if sigma_min is None else per_cv(sigma_min, self.n_cvs, "sigma_min")
        if grid is not None:
            check_grid(grid, self)
            least = np.maximum(least, np.asarray(grid.widths))
        self.sigma_min = least

    def __check_init__(self):
        name = type(self).__name__
        if not (np.isfinite(self.sigma).all() and (self.sigma > 0).all()):
            raise InvalidInputError(f"sigma must be positive, got {self.sigma.tolist()}.")
        if self.bias_factor is not None and not self.bias_factor > 1:
            raise InvalidInputError(f"bias_factor must be greater than 1, got {self.bias_factor}.")
        if self.kT is not None and self.bias_factor is None and not self.barrier > self.kT:
            raise InvalidInputError(
                f"barrier={self.barrier} is below kT={self.kT}: {name} has nothing to do there. Give the height of the "
                "highest barrier that is to be crossed, in the engine's unit of energy."
            )
        if (self.sigma_min > self.sigma).any():
            raise InvalidInputError(
                f"Kernels of width sigma {self.sigma.tolist()} would be narrower than sigma_min or the grid's bins "
                f"{self.sigma_min.tolist()}: take a finer grid, three to ten bins within sigma."
            )
        for sigma, period, label in zip(self.sigma, self.periods, self.labels, strict=True):
            if period is not None and sigma > period / 6:
                raise InvalidInputError(
                    f"sigma={sigma} is too wide for {label} with the period {period:.6g}: a kernel would meet its own "
                    f"image. Use at most {period / 6:.3g}."
                )

    @abc.abstractmethod
    def _prefactor(self, kT: Float[Array, ""]) -> Float[Array, ""]:
        """Factor of the logarithm in the bias, over kT."""

    @abc.abstractmethod
    def _weight(self, energy: Float[Array, ""], kT: Float[Array, ""]) -> Float[Array, ""]:
        """Weight of a sample at which the bias is ``energy``."""

    @abc.abstractmethod
    def _cutoff_squared(self, kT: Float[Array, ""]) -> Float[Array, ""]:
        """Square of the distance, in widths, at which a kernel ends."""

    def potential(self, state: OPESState, obs: Observation) -> Float[Array, ""]:
        """Bias energy at ``obs.xi`` [energy]."""
        return self._value_and_gradient(state, obs.xi, self._kT(obs.kT))[0]

    def init(self, obs: Observation) -> OPESState:
        """No kernels; the bias is minus the barrier everywhere."""
        zero, dtype = jnp.zeros_like(obs.xi[0]), obs.xi.dtype
        table = None
        if self.grid is not None:
            table = jnp.zeros(tuple(m + 3 for m in self.grid.shape), dtype=dtype)
        return OPESState(
            kernels=Kernels.none(self.periods, obs.xi, obs.step),
            n_kernels=jnp.zeros_like(obs.step),
            overlap=zero,
            weight=zero,
            weight_squared=zero,
            table=table,
            outside=jnp.zeros_like(obs.step),
            xi=jnp.zeros_like(obs.xi),
        )

    def reserve(self, state: OPESState, n_steps: int) -> OPESState:
        """Room for the kernels of ``n_steps`` more steps, were none of them merged."""
        kernels = state.kernels.with_room(n_steps // int(self.stride) + 1)
        return eqx.tree_at(lambda s: s.kernels, state, kernels)

    def truncated(self, state: OPESState, n_steps: int) -> OPESState:
        """All that the analysis looks at is in the log."""
        del n_steps
        return state

    def update(self, state: OPESState, obs: Observation) -> OPESState:
        """Look where the CVs are; kernels come later."""
        if self.grid is not None:
            outside = state.outside + is_outside(self.grid, obs.xi).astype(state.outside.dtype)
            state = eqx.tree_at(lambda s: s.outside, state, outside)
        return eqx.tree_at(lambda s: s.xi, state, obs.xi)

    def is_due(self, n_steps: Int[Array, ""]) -> Bool[Array, ""]:
        """Every ``stride`` steps, the first time after ``stride`` steps."""
        return is_every(self.stride, n_steps - 1)

    def learn(self, state: OPESState, n_steps: Int[Array, ""], kT: Float[Array, ""]) -> OPESState:
        """Add a kernel at the last step's CVs.

        It comes after the bias of that step, so that the bias reported for a sample, with which it is reweighted, does not have
        the sample's own kernel in it.
        """
        del n_steps
        return self._with_sample(state, self._kT(kT))

    def bias(self, state: OPESState, obs: Observation) -> Bias:
        """The bias at ``obs.xi`` and minus its gradient."""
        energy, gradient = self._value_and_gradient(state, obs.xi, self._kT(obs.kT))
        return Bias(energy, -gradient)

    def diagnostics(self, state: OPESState) -> Mapping[str, Float[Array, ""]]:
        """Number of kernels, effective number of samples, and steps outside the grid."""
        return {
            "n_kernels": state.n_kernels.astype(float),
            "n_effective": state.n_effective,
            "outside": state.outside.astype(float),
        }

    def _gamma(self, kT: Float[Array, ""]) -> Float[Array, ""]:
        return jnp.asarray(self.barrier / kT if self.bias_factor is None else self.bias_factor)

    def _value_and_gradient(
        self, state: OPESState, xi: Float[Array, " n"], kT: Float[Array, ""]
    ) -> tuple[Float[Array, ""], Float[Array, " n"]]:
        factor = self._prefactor(kT) * kT
        # log(P / Z + epsilon) is log(1 + P / (Z epsilon)) less the barrier, which is then exactly constant without kernels
        overlap = jnp.maximum(state.overlap, jnp.finfo(state.overlap.dtype).tiny)
        scale = state.n_kernels / overlap * jnp.exp(self.barrier / factor)

        def above(density: Float[Array, "*b"]) -> Float[Array, "*b"]:
            return factor * jnp.log(1.0 + jnp.maximum(density, 0.0) * scale)

        grid, table = self.grid, state.table
        if grid is not None and table is not None:
            value, gradient = jax.value_and_grad(lambda x: interpolate(grid, table, x, above))(xi)
            return value - self.barrier, gradient
        density, slope = self._density(state, xi, self._cutoff_squared(kT))
        return above(density) - self.barrier, slope * (factor * scale / (density * scale + 1.0))

    def _density(
        self, state: OPESState, xi: Float[Array, " n"], cutoff: Float[Array, ""]
    ) -> tuple[Float[Array, ""], Float[Array, " n"]]:
        """Sum of the kernels at ``xi``, and its gradient."""
        n, last, kernels = self.n_cvs, jnp.exp(-0.5 * cutoff), state.kernels

        def add(
            total: Float[Array, " n_plus_1"], first: Int[Array, ""], box: Float[Array, "rows slots"]
        ) -> Float[Array, " n_plus_1"]:
            del first
            scaled = kernels.difference(xi[:, None], box[:n]) / box[n : 2 * n]
            squared = jnp.sum(scaled**2, axis=0)
            near = jnp.where(squared < cutoff, box[-1], 0.0)
            gaussian = near * jnp.exp(-0.5 * squared)
            slopes = jnp.sum(-scaled / box[n : 2 * n] * gaussian[None], axis=1)
            return total + jnp.append(slopes, jnp.sum(gaussian - near * last))

        total = kernels.fold(xi, lambda least, _: least < cutoff, add, jnp.zeros(n + 1, xi.dtype))
        return total[-1], total[:-1]

    def _with_sample(self, state: OPESState, kT: Float[Array, ""]) -> OPESState:
        """The state with a kernel from ``state.xi``."""
        n, cutoff = self.n_cvs, self._cutoff_squared(kT)
        weight = self._weight(self._value_and_gradient(state, state.xi, kT)[0], kT)
        state = eqx.tree_at(
            lambda s: (s.weight, s.weight_squared), state, (state.weight + weight, state.weight_squared + weight**2)
        )
        shrunk = jnp.minimum((state.n_effective * (n + 2) / 4) ** (-1 / (n + 4)), 1.0)
        widths = jnp.maximum(self.sigma * shrunk, self.sigma_min)
        height = weight * jnp.prod(self.sigma / widths)
        kernel = jnp.concatenate([state.xi, widths, height[None]])

        def merge(carry: tuple) -> tuple:
            state, kernel, nearest, _ = carry
            state, other = self._removed(state, nearest, cutoff)
            kernel = self._merged(other, kernel)
            return state, kernel, *state.kernels.nearest(kernel[:n])

        start = (state, kernel, *state.kernels.nearest(kernel[:n]))
        state, kernel, *_ = jax.lax.while_loop(lambda carry: carry[3] < self.threshold**2, merge, start)
        return self._appended(state, kernel, cutoff)

    def _merged(self, first: Float[Array, " m"], second: Float[Array, " m"]) -> Float[Array, " m"]:
        """One kernel with the height, mean and variance of two."""
        n = self.n_cvs
        height = first[-1] + second[-1]
        share = second[-1] / height
        apart = self.difference(second[:n], first[:n])
        variance = (
            (1.0 - share) * first[n : 2 * n] ** 2 + share * second[n : 2 * n] ** 2 + share * (1.0 - share) * apart**2
        )
        return jnp.concatenate([first[:n] + share * apart, jnp.sqrt(variance), height[None]])

    def _removed(
        self, state: OPESState, place: Int[Array, ""], cutoff: Float[Array, ""]
    ) -> tuple[OPESState, Float[Array, " m"]]:
        """Without the kernel at ``place``; and that kernel."""
        kernels, kernel = state.kernels.without(place)
        without = eqx.tree_at(lambda s: (s.kernels, s.n_kernels), state, (kernels, state.n_kernels - 1))
        own = kernel[-1] * (1.0 - jnp.exp(-0.5 * cutoff))
        overlap = jnp.maximum(state.overlap - self._overlap(kernels, kernel, cutoff) - own, 0.0)
        overlap = jnp.where(without.n_kernels > 0, overlap, 0.0)
        table = None if state.table is None else state.table - self._on_nodes(kernel, cutoff)
        return eqx.tree_at(
            lambda s: (s.overlap, s.table), without, (overlap, table), is_leaf=lambda x: x is None
        ), kernel

    def _appended(self, state: OPESState, kernel: Float[Array, " m"], cutoff: Float[Array, ""]) -> OPESState:
        kernels = state.kernels.with_one(kernel)
        own = kernel[-1] * (1.0 - jnp.exp(-0.5 * cutoff))
        # with the kernel among them: if the kernels were read before they change, XLA would copy all of them
        overlap = state.overlap + self._overlap(kernels, kernel, cutoff) - own
        table = None if state.table is None else state.table + self._on_nodes(kernel, cutoff)
        return eqx.tree_at(
            lambda s: (s.kernels, s.n_kernels, s.overlap, s.table),
            state,
            (kernels, state.n_kernels + 1, overlap, table),
            is_leaf=lambda x: x is None,
        )

    def _overlap(self, kernels: Kernels, kernel: Float[Array, " m"], cutoff: Float[Array, ""]) -> Float[Array, ""]:
        """The kernels at the centre of ``kernel``, and it at theirs; twice itself at its own, if it is one of them."""
        n, last = self.n_cvs, jnp.exp(-0.5 * cutoff)
        here, widths, height = kernel[:n], kernel[n : 2 * n], kernel[-1]

        def add(total: Float[Array, ""], first: Int[Array, ""], box: Float[Array, "rows slots"]) -> Float[Array, ""]:
            del first
            apart = kernels.difference(here[:, None], box[:n])
            theirs = jnp.sum((apart / box[n : 2 * n]) ** 2, axis=0)
            mine = jnp.sum((apart / widths[:, None]) ** 2, axis=0)
            values = jnp.where(theirs < cutoff, box[-1] * (jnp.exp(-0.5 * theirs) - last), 0.0)
            values = values + jnp.where((mine < cutoff) & (box[-1] > 0.0), height * (jnp.exp(-0.5 * mine) - last), 0.0)
            return total + jnp.sum(values)

        near = lambda least, _: least < cutoff  # noqa: E731
        return kernels.fold(here, near, add, jnp.zeros_like(height), widths)

    def _on_nodes(self, kernel: Float[Array, " m"], cutoff: Float[Array, ""]) -> Float[Array, "..."]:
        """A kernel on the nodes of the table."""
        grid, n = self.grid, self.n_cvs
        assert grid is not None
        product = jnp.ones((1,) * n, dtype=kernel.dtype)
        for d, period in enumerate(self.periods):
            nodes = grid.lower[d] + grid.widths[d] * (np.arange(grid.shape[d] + 3) - 1.0)
            distance = nodes - kernel[d]
            if period is not None:
                distance = distance - period * jnp.round(distance / period)
            factor = jnp.exp(-0.5 * (distance / kernel[n + d]) ** 2)
            product = product * factor.reshape((1,) * d + (-1,) + (1,) * (n - d - 1))
        return kernel[-1] * jnp.maximum(product - jnp.exp(-0.5 * cutoff), 0.0)


class OPES(AbstractOPES):
    r"""On-the-fly probability enhanced sampling (OPES): a bias from an estimate of the unbiased distribution.

    Every ``stride`` steps a Gaussian kernel of weight $w_k = e^{V(\xi_k) / kT}$ joins an estimate P of the unbiased
    distribution of the CVs, and the bias is

    $$V(\xi) = \left(1 - \frac{1}{\gamma}\right) kT \ln\left(\frac{P(\xi)}{Z} + \epsilon\right), \qquad
      \epsilon = e^{-\Delta E / (kT (1 - 1/\gamma))}.$$

    Z is the average of P over the region visited so far, taken over the kernels' centres; it makes the bias in known places
    shrink as new ones are found. $\epsilon$ bounds the bias: V lies within $\Delta E$ below its value where P = Z, so
    that places behind higher barriers are not pushed into. The sampled distribution tends to $P^{1/\gamma}$.

    Kernels narrow as $\sigma_k = \sigma\,(N_\mathrm{eff} (n + 2) / 4)^{-1/(n + 4)}$ for n CVs, where
    $N_\mathrm{eff} = (\sum w)^2 / \sum w^2$. A new kernel within ``threshold`` widths of another is merged with it, keeping
    height, mean and variance, and so again until none is near; so their number is that of the places visited, not that of
    samples. They are cut off where they fall below $\epsilon$, and shifted to be continuous there. None is ever dropped.

    With ``grid`` the sum of the kernels is kept on the bins' edges, and the bias there interpolated by cubic convolution: a
    step then costs the same for any number of kernels, and kernels do not get narrower than a bin. Outside a non-periodic axis
    the bias is that of the nearest point on its boundary; such steps are counted. Without grid the kernels are summed, those only
    that are within reach: they are kept in boxes of neighbours.

    Choose it when the barrier is known roughly and a quickly converging, nearly static bias is wanted: reweighting is
    then simple. Where the CVs are poor or nothing is known, :class:`OPESExplore` finds its way faster.

    Args:
        cvs: collective variables, one or a list.
        barrier: $\Delta E$, the highest barrier to be crossed [energy].
        sigma: $\sigma$, widths of the first kernels [CV unit], one number or one per CV; the CV's fluctuation in a minimum.
        stride: steps between kernels; 500 is common.
        bias_factor: $\gamma$ > 1; None for $\Delta E / kT$.
        sigma_min: least widths [CV unit]; None for the width of the grid's bins, or none.
        threshold: distance within which kernels are merged, in widths.
        grid: grid that covers the CVs' range, for up to three CVs.
        kT: thermal energy [energy]; None to take the engine's.

    Raises:
        InvalidInputError: for parameters that are not positive, a bias factor of 1 or less, a barrier below kT, or a grid
            that does not fit the CVs or is coarser than sigma.

    Example:
        >>> import math
        >>> import pysamp
        >>> from pysamp.colvars import DihedralAngle
        >>> from pysamp.methods import OPES
        >>> grid = pysamp.Grid(-math.pi, math.pi, 100, periodic=True)
        >>> OPES(DihedralAngle([4, 6, 8, 14]), barrier=50.0, sigma=0.35, stride=500, grid=grid).n_cvs
        1

    References:
        Invernizzi & Parrinello, J. Phys. Chem. Lett. 11, 2731 (2020), doi 10.1021/acs.jpclett.0c00497.
    """

    __init__ = AbstractOPES.__init__

    def _prefactor(self, kT: Float[Array, ""]) -> Float[Array, ""]:
        return 1.0 - 1.0 / self._gamma(kT)

    def _weight(self, energy: Float[Array, ""], kT: Float[Array, ""]) -> Float[Array, ""]:
        return jnp.exp(energy / kT)

    def _cutoff_squared(self, kT: Float[Array, ""]) -> Float[Array, ""]:
        return jnp.asarray(2.0 * self.barrier / (kT * self._prefactor(kT)))


class OPESExplore(AbstractOPES):
    r"""OPES for exploration: a bias from an estimate of the distribution that is being sampled.

    The estimate is of the sampled, well-tempered distribution $p^{WT}$, whose kernels all weigh the same, and the bias

    $$V(\xi) = (\gamma - 1)\, kT \ln\left(\frac{p^{WT}(\xi)}{Z} + \epsilon\right), \qquad
      \epsilon = e^{-\Delta E / (kT (\gamma - 1))}.$$

    Everything else is as in :class:`OPES`. The estimate knows little at first and is broad, so the bias changes more
    and for longer, and drives the system out of known places: it explores sooner and converges later.

    Choose it when the CVs are poor, when it is not known where the minima are, or when the barrier is uncertain.

    Args:
        cvs: collective variables, one or a list.
        barrier: $\Delta E$, the highest barrier to be crossed [energy].
        sigma: widths of the first kernels [CV unit]; the fluctuation in a minimum, or $\sqrt\gamma$ times it.
        stride: steps between kernels.
        bias_factor: $\gamma$ > 1; None for $\Delta E / kT$.
        sigma_min: least widths [CV unit]; None for the width of the grid's bins, or none.
        threshold: distance within which kernels are merged, in widths.
        grid: grid that covers the CVs' range, for up to three CVs.
        kT: thermal energy [energy]; None to take the engine's.

    Raises:
        InvalidInputError: as for :class:`OPES`.

    Example:
        >>> from pysamp.colvars import Distance
        >>> from pysamp.methods import OPESExplore
        >>> float(OPESExplore(Distance([0, 1]), barrier=40.0, sigma=0.02, stride=500).barrier)
        40.0

    References:
        Invernizzi & Parrinello, J. Chem. Theory Comput. 18, 3988 (2022), doi 10.1021/acs.jctc.2c00152.
    """

    __init__ = AbstractOPES.__init__

    def _prefactor(self, kT: Float[Array, ""]) -> Float[Array, ""]:
        return self._gamma(kT) - 1.0

    def _weight(self, energy: Float[Array, ""], kT: Float[Array, ""]) -> Float[Array, ""]:
        return jnp.ones_like(energy)

    def _cutoff_squared(self, kT: Float[Array, ""]) -> Float[Array, ""]:
        return jnp.asarray(
            2.0 * self.barrier / kT
        )  # the prefactor is large here, and would cut kernels off within their width
