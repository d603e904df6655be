"""Artificial neural network sampling: a network learns minus the bias from a histogram."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ..colvars.base import AbstractCV
from ..grids import Grid
from ..units import as_positive
from ._frequency import energy_residuals, with_sweep
from ._network import SCALE, Network, as_layers, train
from .abf import place_in
from .base import AbstractMethod, Bias, Observation, as_cvs, as_stride, check_grid
from .fitted_force import value_and_gradient

__all__ = ["ANN", "ANNState"]

_N_BLOCKS = 16
_ROOM = 64  # sweeps at first


class ANNState(eqx.Module):
    """A histogram, and the network that biased each sweep.

    Attributes:
        counts: samples in each bin, in consecutive blocks of sweeps.
        block_length: sweeps per block; doubles, and neighbouring blocks merge, whenever all blocks are full.
        networks: in each row the parameters of the network that biased a sweep and, last, the sweep's samples in the grid; the
            rows beyond ``n_sweeps`` are the sweep that has not ended and room for more.
        n_sweeps: sweeps that have ended.
        n_inside: samples in the grid since then.
        decay: logarithm of the weight decay of the last training.
        denominators: expected count of each bin over its probability.
        table: bias at the grid's nodes, one ghost node beyond either end of each axis [energy].
        outside: number of steps at which a CV was outside the grid.
    """

    counts: Float[Array, "bins blocks"]
    block_length: Int[Array, ""]
    networks: Float[Array, "room k_plus_1"]
    n_sweeps: Int[Array, ""]
    n_inside: Int[Array, ""]
    decay: Float[Array, ""]
    denominators: Float[Array, " bins"]
    table: Float[Array, " nodes"]
    outside: Int[Array, ""]


class ANN(AbstractMethod[ANNState]):
    r"""Artificial neural network sampling: the bias is minus a free energy that a network has learned from a histogram.

    The bias stands still during sweeps of ``train_every`` steps, in which the visits to the bins of a grid are counted. Then
    a network $A_\theta(\xi)$ is trained on the free energy that all sweeps together say,

    $$A_b = -kT \ln \frac{N_b}{D_b}, \qquad D_b = \sum_k n_k e^{f_k - V_k(\xi_b) / kT},$$

    with $N_b$ visits to bin b, $n_k$ samples of sweep k under the bias $V_k$, and its constant $f_k$, which follows when
    the sweep ends from what the earlier ones say (one pass of WHAM; the paper adds up reweighted histograms instead). The
    training minimises

    $$\sum_b u_b \left( A_\theta(\xi_b) - A_b \right)^2 + \lambda |\theta - \theta_0|^2$$

    in units of 10 kT, from the last parameters by five steps of Levenberg and Marquardt; the weight decay $\lambda$, towards
    the random first weights, is what the evidence of the data says (Bayesian regularisation). The highest $A_b$ is the zero,
    which bins without visits are taken to have, with a tenth of the weight $u_b$. Periodic CVs go in as cosine and sine.

    The next bias is $V = -A_\theta$, tabulated at the bins' edges and interpolated by cubic convolution: the force is the exact
    gradient of the energy, and what a step costs does not depend on the size of the network. Outside a non-periodic axis the
    bias is that of the nearest point on its boundary, and nothing is counted. Bins of fine grids are joined to at most 1000
    cells for the training.

    Choose it for one to three CVs without momenta, when widths and heights of hills are hard to guess: all there is to choose
    is the length of a sweep, in which the system should cross the region that is flat already. ``analyze`` makes no use of the
    network's shape: it solves WHAM for the histogram and the biases of all sweeps.

    Args:
        cvs: collective variables, one or a list; periodic and non-periodic ones mix.
        grid: the bins.
        layers: number of nodes in each hidden layer, one number or several.
        train_every: steps of a sweep.
        kT: thermal energy [energy]; None to take the engine's.

    Raises:
        InvalidInputError: if the grid does not fit the CVs, or numbers are not positive.

    Example:
        >>> import math
        >>> import pysamp
        >>> from pysamp.colvars import DihedralAngle
        >>> from pysamp.methods import ANN
        >>> grid = pysamp.Grid(-math.pi, math.pi, 50, periodic=True)
        >>> ANN(DihedralAngle([4, 6, 8, 14]), grid=grid, train_every=10_000).layers
        (24,)

    References:
        Sidky & Whitmer, J. Chem. Phys. 148, 104111 (2018), doi 10.1063/1.5018708.
        Regularisation: MacKay, Neural Comput. 4, 415 (1992), doi 10.1162/neco.1992.4.3.415.
        WHAM: Kumar et al., J. Comput. Chem. 13, 1011 (1992), doi 10.1002/jcc.540130812.
    """

    learns: ClassVar[bool] = True

    cvs: tuple[AbstractCV, ...]
    grid: Grid
    layers: tuple[int, ...] = eqx.field(static=True)
    train_every: Int[np.ndarray, ""]
    kT: Float[np.ndarray, ""] | None

    def __init__(
        self, cvs: Any, *, grid: Grid, layers: int | Sequence[int] = 24, train_every: int = 5000, kT: Any = None
    ):
        self.cvs = as_cvs(cvs)
        self.grid = grid
        self.layers = as_layers(layers)
        self.train_every = as_stride(train_every, "train_every")
        self.kT = None if kT is None else as_positive(kT, "kT")

    def __check_init__(self):
        check_grid(self.grid, self)

    def init(self, obs: Observation) -> ANNState:
        """No samples, no bias."""
        dtype, zero = obs.xi.dtype, jnp.zeros_like(obs.step)
        parameters = Network(self.grid, self.layers).initial()
        networks = np.zeros((_ROOM, len(parameters)))
        networks[0, :-1] = parameters[:-1]
        return ANNState(
            counts=jnp.zeros((self.grid.size, _N_BLOCKS), dtype=dtype),
            block_length=zero + 1,
            networks=jnp.asarray(networks, dtype=dtype),
            n_sweeps=zero,
            n_inside=zero,
            decay=jnp.asarray(parameters[-1], dtype=dtype),
            denominators=jnp.zeros(self.grid.size, dtype=dtype),
            table=jnp.zeros(int(np.prod([n + 3 for n in self.grid.shape])), dtype=dtype),
            outside=zero,
        )

    def reserve(self, state: ANNState, n_steps: int) -> ANNState:
        """Room for the sweeps of ``n_steps`` more steps; doubled, so that few shapes occur."""
        needed = int(state.n_sweeps) + n_steps // int(self.train_every) + 2
        room = present = len(state.networks)
        while room < needed:
            room *= 2
        if room == present:
            return state
        return eqx.tree_at(lambda s: s.networks, state, jnp.pad(state.networks, ((0, room - present), (0, 0))))

    def update(self, state: ANNState, obs: Observation) -> ANNState:
        """Count the bin of this step."""
        place, outside = place_in(self.grid, obs.xi)
        start = (place, (state.n_sweeps // state.block_length).astype(place.dtype))
        old = jax.lax.dynamic_slice(state.counts, start, (1, 1))
        counts = jax.lax.dynamic_update_slice(state.counts, old + jnp.where(outside, 0.0, 1.0), start)
        return eqx.tree_at(
            lambda s: (s.counts, s.n_inside, s.outside),
            state,
            (counts, state.n_inside + ~outside, state.outside + outside),
        )

    def bias(self, state: ANNState, obs: Observation) -> Bias:
        """Minus the free energy that the network has learned, and its exact gradient."""
        energy, gradient = value_and_gradient(self.grid, state.table, obs.xi)
        return Bias(energy, -gradient)

    def reduced_bias(self, parameters: Float[Array, " k"]) -> Float[Array, " bins"]:
        """Bias over kT at the bins' centres that a network with these parameters gives."""
        return -SCALE * Network(self.grid, self.layers).at_bins(parameters)

    def truncated(self, state: ANNState, n_steps: int) -> ANNState:
        """The blocks of sweeps that had ended; the table stays, which the analysis does not look at."""
        length = int(state.block_length)
        n_blocks = min(n_steps // int(self.train_every), int(state.n_sweeps)) // length
        counts = np.where(np.arange(_N_BLOCKS)[None, :] < n_blocks, np.asarray(state.counts), 0.0)
        values = counts, np.asarray(n_blocks * length), np.asarray(0)
        return eqx.tree_at(lambda s: (s.counts, s.n_sweeps, s.n_inside), state, values)

    def diagnostics(self, state: ANNState) -> Mapping[str, Float[Array, ""]]:
        """Sweeps that have ended, and steps outside the grid."""
        return {"n_sweeps": state.n_sweeps.astype(float), "outside": state.outside.astype(float)}

    def is_due(self, n_steps: Int[Array, ""]) -> Bool[Array, ""]:
        """At the end of a sweep."""
        return n_steps % self.train_every == 0

    def learn(self, state: ANNState, n_steps: Int[Array, ""], kT: Float[Array, ""]) -> ANNState:
        """Unite the sweep with the earlier ones, and train."""
        network = Network(self.grid, self.layers)
        scale = SCALE * self._kT(kT)
        row = state.n_sweeps.astype(jnp.int32)
        parameters = jax.lax.dynamic_index_in_dim(state.networks, row, keepdims=False)[:-1]
        n_inside = state.n_inside.astype(parameters.dtype)
        counts = jnp.sum(state.counts, axis=1)
        denominators = with_sweep(counts, state.denominators, self.reduced_bias(parameters), n_inside)
        residuals = energy_residuals(network, counts, denominators, SCALE)
        trained = train(residuals, jnp.append(parameters, state.decay), network.initial())
        ends = jnp.append(parameters, n_inside), jnp.append(trained[:-1], 0.0)
        n_sweeps = state.n_sweeps + 1
        full = n_sweeps == _N_BLOCKS * state.block_length
        merged = state.counts[:, 0::2] + state.counts[:, 1::2]
        merged = jnp.concatenate([merged, jnp.zeros_like(merged)], axis=1)
        return ANNState(
            counts=jnp.where(full, merged, state.counts),
            block_length=jnp.where(full, 2 * state.block_length, state.block_length),
            networks=jax.lax.dynamic_update_slice(state.networks, jnp.stack(ends), (row, jnp.zeros_like(row))),
            n_sweeps=n_sweeps,
            n_inside=jnp.zeros_like(state.n_inside),
            decay=trained[-1],
            denominators=denominators,
            table=-scale * network.at_nodes(trained[:-1]),
            outside=state.outside,
        )
