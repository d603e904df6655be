"""A small neural network for a free energy: inputs that respect periods, values on a grid's nodes, and its training."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..errors import InvalidInputError
from ..grids import Grid
from .base import as_stride

__all__ = ["SCALE", "Network", "as_layers", "soft_targets", "train"]

SCALE = 10.0  # free energy over kT where a network says 1: free energies are of this order, and weights of order one
_MOST_POINTS = 1000  # to train on: finer grids are joined to cells, which a network of this size can follow
_N_ITERATIONS = 5
_PRIOR = 0.1  # weight of "nothing" where there are no samples
_FIRST_DECAY = 0.01
_DAMPINGS = 10.0 ** np.arange(-1.0, 6.0)  # smaller ones let rounding errors grow from step to step
_WEAKEST, _STRONGEST = 1e-3, 10.0  # weight decay


class Network:
    r"""Values of a network with tanh layers, as a function of one flat array of parameters.

    Coordinates u run from 0 to 1 over each axis of a grid. Periodic axes go in as $\cos 2 \pi u$ and $\sin 2 \pi u$, the
    others as $2 u - 1$.

    Args:
        grid: the axes.
        layers: number of nodes in each hidden layer.

    Attributes:
        shapes: of the matrices, with the offsets as last row.
        cells: for each axis, which bins make a cell: a matrix of zeros and ones, cells times bins.
        points: centres of the cells, one in each row.
    """

    def __init__(self, grid: Grid, layers: Sequence[int]):
        self.grid = grid
        widths = [sum(2 if periodic else 1 for periodic in grid.periodic), *layers, 1]
        self.shapes = [(n_in + 1, n_out) for n_in, n_out in itertools.pairwise(widths)]
        most = max(4, int(_MOST_POINTS ** (1.0 / grid.n_dims)))
        self.cells = tuple(_cells(n, min(n, most)) for n in grid.shape)
        axes = [
            (cell @ ((np.arange(n) + 0.5) / n)) / cell.sum(axis=1)
            for cell, n in zip(self.cells, grid.shape, strict=True)
        ]
        self.points = _product(axes)

    @property
    def n_parameters(self) -> int:
        """How many numbers the network has."""
        return sum(math.prod(shape) for shape in self.shapes)

    def initial(self) -> Float[np.ndarray, " k_plus_1"]:
        """What :func:`train` begins with: random weights, always the same, and a last layer of zeros: no bias at first."""
        rng = np.random.default_rng(0)
        parts = []
        for n_in, n_out in self.shapes[:-1]:
            # Nguyen and Widrow: the slopes of the nodes lie side by side over the range of the inputs
            matrix, reach = rng.normal(size=(n_in, n_out)), 0.7 * n_out ** (1.0 / (n_in - 1))
            matrix *= reach / np.linalg.norm(matrix[:-1], axis=0)
            matrix[-1] = reach * rng.uniform(-1.0, 1.0, n_out)
            parts.append(matrix.reshape(-1))
        return np.concatenate([*parts, np.zeros(math.prod(self.shapes[-1])), [math.log(_FIRST_DECAY)]])

    def values(self, parameters: Float[Array, " k"], u: Float[Array, "p n"]) -> Float[Array, " p"]:
        """The network at some points."""
        columns = []
        for d, periodic in enumerate(self.grid.periodic):
            angle = 2.0 * np.pi * u[:, d]
            columns += [jnp.cos(angle), jnp.sin(angle)] if periodic else [2.0 * u[:, d] - 1.0]
        x = jnp.stack(columns, axis=1)
        start = 0
        for i, shape in enumerate(self.shapes):
            matrix = parameters[start : start + math.prod(shape)].reshape(shape)
            start += math.prod(shape)
            x = x @ matrix[:-1] + jnp.broadcast_to(matrix[-1:], (len(u), shape[1]))
            x = jnp.tanh(x) if i + 1 < len(self.shapes) else x
        return x[:, 0]

    def slopes(self, parameters: Float[Array, " k"], u: Float[Array, "p n"]) -> Float[Array, "n p"]:
        """Derivatives by u at some points, axis by axis."""
        along = np.eye(self.grid.n_dims)
        return jnp.stack(
            [
                jax.jvp(lambda v: self.values(parameters, v), (u,), (jnp.broadcast_to(unit, u.shape),))[1]
                for unit in along[:, None]
            ]
        )

    def at_nodes(self, parameters: Float[Array, " k"]) -> Float[Array, " nodes"]:
        """The network at the nodes of a table, one ghost node beyond either end of each axis; flat."""
        return self.values(parameters, jnp.asarray(_product([(np.arange(n + 3) - 1.0) / n for n in self.grid.shape])))

    def at_bins(self, parameters: Float[Array, " k"]) -> Float[Array, " bins"]:
        """The network at the centres of the bins; flat."""
        return self.values(parameters, jnp.asarray(_product([(np.arange(n) + 0.5) / n for n in self.grid.shape])))

    def joined(self, values: Float[Array, "bins m"]) -> Float[Array, "cells m"]:
        """Sums over the bins of each cell."""
        result = values.reshape(*self.grid.shape, -1)
        for d, cell in enumerate(self.cells):
            result = jnp.moveaxis(jnp.tensordot(cell, result, axes=(1, d)), 0, d)
        return result.reshape(-1, values.shape[1])


def soft_targets(
    sums: Float[Array, "cells m"], counts: Float[Array, "cells 1"], full: Any
) -> tuple[Float[Array, "cells 1"], Float[Array, "cells m"]]:
    """Roots of weights, and targets, where samples that are missing count a little, as zero.

    Args:
        sums: over the samples of a cell.
        counts: their number.
        full: so many are enough.
    """
    share = jnp.minimum(1.0, counts / full)
    weights = share + _PRIOR * (1.0 - share)
    return jnp.sqrt(weights), sums / (jnp.maximum(counts, full) * weights)


def train(
    residuals: Callable[[Float[Array, " k"]], Float[Array, " m"]],
    parameters: Float[Array, " k_plus_1"],
    first: Float[np.ndarray, " k_plus_1"],
) -> Float[Array, " k_plus_1"]:
    r"""Some steps of Levenberg and Marquardt towards the minimum of $\sum_i r_i^2 + \lambda |\theta - \theta_0|^2$.

    The weight decay $\lambda$ is what the evidence of the data says (MacKay), with the number of parameters that they determine,
    $\gamma = k - \lambda\, \mathrm{tr} (J^T J + \lambda)^{-1}$:

    $$\lambda = \frac{\gamma}{m - \gamma} \frac{\sum_i r_i^2}{|\theta - \theta_0|^2}.$$

    Decay towards the first, random weights instead of zero leaves the network as smooth, but it never loses its nodes: with all
    weights at zero there would be no way back.

    Args:
        residuals: as a function of the parameters, without the last.
        parameters: where to start: $\theta$ and, last, $\ln\lambda$.
        first: what :meth:`Network.initial` gives.

    Returns:
        The parameters after five steps, each with that damping of seven which lowers the sum most.

    References:
        MacKay, Neural Comput. 4, 415 (1992), doi 10.1162/neco.1992.4.3.415.
    """
    slopes_of, center = jax.jacfwd(residuals), jnp.asarray(first[:-1])

    def sums(theta: Float[Array, " k"]) -> Float[Array, "2"]:
        r, away = residuals(theta), theta - center
        return jnp.stack([jnp.sum(r * r), jnp.sum(away * away)])

    def step(_: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        theta, decay = carry
        r, slopes = residuals(theta), slopes_of(theta)
        values, vectors = jnp.linalg.eigh(slopes.T @ slopes)
        values = jnp.maximum(values, 0.0)
        uphill = vectors.T @ (slopes.T @ r + decay * (theta - center))
        steps = uphill[None, :] / (values[None, :] + decay + _DAMPINGS[:, None])
        tried = jnp.concatenate([theta[None, :], theta[None, :] - steps @ vectors.T])
        both = jax.vmap(sums)(tried)
        best = jnp.argmin(both[:, 0] + decay * both[:, 1])
        square, weight = both[best]
        n_good = jnp.sum(values / (values + decay))
        evidence = n_good / jnp.maximum(len(r) - n_good, 1.0) * square / jnp.maximum(weight, 1e-12)
        return tried[best], jnp.clip(evidence, _WEAKEST, _STRONGEST)

    theta, decay = jax.lax.fori_loop(0, _N_ITERATIONS, step, (parameters[:-1], jnp.exp(parameters[-1])))
    return jnp.append(theta, jnp.log(decay))


def as_layers(layers: int | Sequence[int]) -> tuple[int, ...]:
    """Numbers of nodes of the hidden layers.

    Raises:
        InvalidInputError: unless they are positive whole numbers.
    """
    numbers = np.atleast_1d(np.asarray(layers))
    if numbers.ndim != 1 or not numbers.size:
        raise InvalidInputError(
            f"layers must be the numbers of nodes of the hidden layers, such as (12, 8); got {layers!r}."
        )
    return tuple(int(as_stride(n, "layers")) for n in numbers.tolist())


def _cells(n_bins: int, n_cells: int) -> Float[np.ndarray, "cells bins"]:
    place = np.arange(n_bins) * n_cells // n_bins
    return (place == np.arange(n_cells)[:, None]).astype(float)


def _product(axes: Sequence[Float[np.ndarray, " _"]]) -> Float[np.ndarray, "points n"]:
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(axes))
