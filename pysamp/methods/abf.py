"""Adaptive biasing force."""

from collections.abc import Mapping
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ..colvars.base import AbstractCV
from ..grids import Grid
from ..units import as_positive
from .base import AbstractMethod, Bias, Observation, as_cvs, as_stride, check_grid

__all__ = ["ABF", "ABFState"]

N_BLOCKS = 16
FIRST_BLOCK = 64  # samples per block at the start, doubled whenever all blocks are full; a power of two, as N_BLOCKS


class ABFState(eqx.Module):
    """Sums of force samples, bin by bin, in consecutive blocks of time.

    Attributes:
        sums: for each bin and block, the sums of samples of the force on each CV [energy / CV unit] and of each CV's distance
            from the centre of the bin [CV unit], and the number of samples.
        block_length: steps per block; doubles, and neighbouring blocks merge, whenever all blocks are full.
        n_steps: steps seen so far.
        place: bin of the last step, or -1 if it was outside.
        offset: distance of the CVs from the centre of that bin at the last step [CV unit].
        momentum: generalized momentum at the last step.
        outside: number of steps at which a CV was outside the grid.
    """

    sums: Float[Array, "bins blocks m"]
    block_length: Int[Array, ""]
    n_steps: Int[Array, ""]
    place: Int[Array, ""]
    offset: Float[Array, " n"]
    momentum: Float[Array, " n"]
    outside: Int[Array, ""]


class ABF(AbstractMethod[ABFState]):
    r"""Adaptive biasing force: cancels the running average of the force on the CVs.

    The force on the CVs is the rate of change of their generalized momentum less the bias,

    $$F_k = \frac{p_{k+1} - p_k}{\Delta t} - \lambda_k, \qquad p = Z^{-1} \dot\xi, \qquad
      Z = \nabla\xi\, M^{-1} \nabla\xi^T,$$

    whose average at fixed $\xi$ is $-\partial A / \partial \xi$ with $A = -kT \ln P(\xi)$. Constraints of the engine that
    touch the CVs' atoms reduce Z (see the sampler). The samples are averaged in the bins of a grid and the bias is
    $\lambda = -\langle F \rangle \min(1, N / N_\mathrm{full})$; outside the grid there is no bias and nothing is sampled.
    The sums are kept in 16 blocks of time, from which error bars come. Where in its bin a sample was is added up too, so that
    the analysis can tell the force at the bin's centre from that where the samples happen to crowd.

    Choose it for one to three CVs when the mean force is wanted or barriers are smooth. For several CVs the bias is not the
    gradient of a potential, so it reports no energy; use another method with a Monte Carlo barostat.

    Args:
        cvs: collective variables, one or a list; periodic and non-periodic ones mix.
        grid: the bins.
        full_samples: samples in a bin from which on the whole average is applied.
        kT: thermal energy [energy], only needed if the engine's integrator has none.

    Raises:
        InvalidInputError: if the grid does not fit the CVs, or full_samples is not positive.

    Example:
        >>> import pysamp
        >>> from pysamp.colvars import Distance
        >>> from pysamp.methods import ABF
        >>> ABF(Distance([0, 1]), grid=pysamp.Grid(0.2, 1.2, 50)).full_samples
        array(200)

    References:
        Darve & Pohorille, J. Chem. Phys. 115, 9169 (2001), doi 10.1063/1.1410978.
        Darve, Rodriguez-Gomez & Pohorille, J. Chem. Phys. 128, 144120 (2008), doi 10.1063/1.2829861.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"momentum"})
    has_energy: ClassVar[bool] = False
    own: ClassVar[frozenset[str] | None] = frozenset({"place", "offset", "momentum"})

    cvs: tuple[AbstractCV, ...]
    grid: Grid
    full_samples: Int[np.ndarray, ""]
    kT: Float[np.ndarray, ""] | None

    def __init__(self, cvs: Any, *, grid: Grid, full_samples: int = 200, kT: Any = None):
        self.cvs = as_cvs(cvs)
        self.grid = grid
        self.full_samples = as_stride(full_samples, "full_samples")
        self.kT = None if kT is None else as_positive(kT, "kT")

    def __check_init__(self):
        check_grid(self.grid, self)

    def init(self, obs: Observation) -> ABFState:
        """No samples."""
        return no_samples(self.grid, obs)

    def update(self, state: ABFState, obs: Observation) -> ABFState:
        """Add the force since the last step to the bin of the last step."""
        return collect(self.grid, state, obs)

    def update_shared(self, state: ABFState, obs: Observation) -> ABFState:
        """Add the forces of all walkers since the last step to the bins where they were."""
        sums, block_length = with_free_block(state.sums, state.block_length, obs.step)
        force = (obs.momentum - state.momentum) / obs.timestep - obs.applied
        samples = jnp.concatenate([force, state.offset, jnp.ones_like(force[:, :1])], axis=1)
        samples = jnp.where(state.place[:, None] >= 0, samples, 0.0)
        block = state.n_steps // block_length

        def add(sums: Float[Array, "bins blocks m"], walker: tuple) -> tuple[Float[Array, "bins blocks m"], None]:
            return added(sums, walker[0], block, walker[1]), None

        sums, _ = jax.lax.scan(add, sums, (state.place, samples))
        place, outside = jax.vmap(lambda xi: place_in(self.grid, xi))(obs.xi)
        place = jnp.where(outside, -1, place).astype(state.place.dtype)
        outside = state.outside + jnp.sum(outside)
        offset = jax.vmap(lambda xi: offset_in(self.grid, xi))(obs.xi)
        return eqx.tree_at(
            lambda s: (s.sums, s.block_length, s.n_steps, s.place, s.offset, s.momentum, s.outside),
            state,
            (sums, block_length, state.n_steps + 1, place, offset, obs.momentum, outside),
        )

    def bias(self, state: ABFState, obs: Observation) -> Bias:
        """Minus the average force in the bin of ``obs.xi``, ramped; its energy is not defined and reported as 0."""
        place, outside = place_in(self.grid, obs.xi)
        total = jnp.sum(jax.lax.dynamic_index_in_dim(state.sums, place, keepdims=False), axis=0)
        # -(force / count) * min(1, count / full) without a division by zero
        force = -total[: self.n_cvs] / jnp.maximum(total[-1], self.full_samples)
        return Bias(jnp.zeros_like(obs.xi[0]), jnp.where(outside, 0.0, force))

    def truncated(self, state: ABFState, n_steps: int) -> ABFState:
        """The blocks of time that had ended."""
        return until(state, n_steps)

    def diagnostics(self, state: ABFState) -> Mapping[str, Float[Array, ""]]:
        """Steps outside the grid."""
        return {"outside": state.outside.astype(float)}


def no_samples(grid: Grid, obs: Observation) -> ABFState:
    """The state before the first sample."""
    zero = jnp.zeros_like(obs.step)
    return ABFState(
        sums=jnp.zeros((grid.size, N_BLOCKS, 2 * grid.n_dims + 1), dtype=obs.xi.dtype),
        block_length=zero + FIRST_BLOCK,
        n_steps=zero,
        place=zero - 1,
        offset=jnp.zeros_like(obs.xi),
        momentum=jnp.zeros_like(obs.xi),
        outside=zero,
    )


def until(state: ABFState, n_steps: int) -> ABFState:
    """The blocks of time that had ended after so many steps."""
    n_blocks = min(n_steps, int(state.n_steps)) // int(state.block_length)
    sums = np.where(np.arange(N_BLOCKS)[None, :, None] < n_blocks, np.asarray(state.sums), 0.0)
    kept = np.asarray(n_blocks * int(state.block_length))
    return eqx.tree_at(lambda s: (s.sums, s.n_steps), state, (sums, kept))


def collect(grid: Grid, state: ABFState, obs: Observation) -> ABFState:
    """Add the force since the last step, less the bias, to the bin of the last step."""
    sums, block_length = with_free_block(state.sums, state.block_length, obs.step)
    force = (obs.momentum - state.momentum) / obs.timestep - obs.applied
    sample = jnp.concatenate([force, state.offset, jnp.ones_like(force[:1])])
    sample = jnp.where(state.place >= 0, sample, 0.0)
    place, outside = place_in(grid, obs.xi)
    return ABFState(
        sums=added(sums, state.place, state.n_steps // block_length, sample),
        block_length=block_length,
        n_steps=state.n_steps + 1,
        place=jnp.where(outside, -1, place).astype(state.place.dtype),
        offset=offset_in(grid, obs.xi),
        momentum=obs.momentum,
        outside=state.outside + outside,
    )


def with_free_block(
    sums: Float[Array, "bins blocks m"], block_length: Int[Array, ""], step: Int[Array, ""]
) -> tuple[Float[Array, "bins blocks m"], Int[Array, ""]]:
    """Merge the blocks in pairs, and double their length, when all are full."""
    # That is at 1024, 2048, 4096 ... steps. Said in terms of the step, which replicas have in common, it stays a branch when
    # they are batched; a select would copy all sums at every step.
    full = (step >= N_BLOCKS * FIRST_BLOCK) & (step & (step - 1) == 0)
    block_length = jnp.where(full, 2 * block_length, block_length)
    return jax.lax.cond(full, lambda: _merge_blocks(sums), lambda: sums), block_length


def added(
    sums: Float[Array, "bins blocks m"], place: Int[Array, ""], block: Int[Array, ""], sample: Float[Array, " m"]
) -> Float[Array, "bins blocks m"]:
    """``sample`` added in one bin and block; it must be zero where ``place`` is -1."""
    start = (jnp.maximum(place, 0), block.astype(place.dtype), jnp.zeros_like(place))
    old = jax.lax.dynamic_slice(sums, start, (1, 1, sums.shape[2]))
    return jax.lax.dynamic_update_slice(sums, old + sample.reshape(old.shape), start)


def place_in(grid: Grid, xi: Float[Array, " n"]) -> tuple[Int[Array, ""], Bool[Array, ""]]:
    """Flat index of the bin at ``xi``, and whether ``xi`` is outside the grid."""
    shape = np.asarray(grid.shape)
    u = jnp.floor((xi - grid.lower) / (grid.upper - grid.lower) * shape)
    u = jnp.where(np.asarray(grid.periodic), u - shape * jnp.floor(u / shape), u)
    outside = jnp.any(~((u >= 0) & (u < shape)))
    strides = np.append(np.cumprod(shape[:0:-1])[::-1], 1)
    return jnp.sum(jnp.clip(u, 0, shape - 1).astype(jnp.int64) * strides), outside


def offset_in(grid: Grid, xi: Float[Array, " n"]) -> Float[Array, " n"]:
    """Distance of ``xi`` from the centre of its bin [CV unit]."""
    u = (xi - grid.lower) / (grid.upper - grid.lower) * np.asarray(grid.shape)
    return (u - jnp.floor(u) - 0.5) * grid.widths


def _merge_blocks(sums: Float[Array, "bins blocks m"]) -> Float[Array, "bins blocks m"]:
    """Neighbouring blocks added in pairs; the second half is empty again."""
    merged = sums[:, 0::2] + sums[:, 1::2]
    return jnp.concatenate([merged, jnp.zeros_like(merged)], axis=1)
