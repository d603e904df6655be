"""What the methods share that train a network on average forces."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ..colvars.base import AbstractCV
from ..grids import Grid
from ..units import as_positive
from ._network import Network, as_layers, soft_targets
from .base import as_cvs, as_stride, check_grid
from .fitted_force import AbstractFittedForce

__all__ = ["AbstractNetworkForce", "slope_residuals"]


class AbstractNetworkForce(AbstractFittedForce):
    """Base class of methods whose free energy is a network trained on forces, at least; FUNN tells what the arguments are."""

    cvs: tuple[AbstractCV, ...]
    grid: Grid
    layers: tuple[int, ...] = eqx.field(static=True)
    train_every: Int[np.ndarray, ""]
    full_samples: Int[np.ndarray, ""]
    kT: Float[np.ndarray, ""] | None

    def __init__(
        self,
        cvs: Any,
        *,
        grid: Grid,
        layers: int | Sequence[int] = 24,
        train_every: int = 5000,
        full_samples: int = 200,
        kT: Any = None,
    ):
        self.cvs = as_cvs(cvs)
        self.grid = grid
        self.layers = as_layers(layers)
        self.train_every = as_stride(train_every, "train_every")
        self.full_samples = as_stride(full_samples, "full_samples")
        self.kT = None if kT is None else as_positive(kT, "kT")

    def __check_init__(self):
        check_grid(self.grid, self)

    @property
    def interval(self) -> Int[Array | np.ndarray, ""]:
        """Steps between trainings."""
        return self.train_every


def slope_residuals(network: Network, total: Float[Array, "bins n_plus_1"], full_samples: Any, scale: Any) -> Any:
    """Residuals of the network's slopes against the average forces, as a function of its parameters."""
    joined = network.joined(total)
    lengths = network.grid.upper - network.grid.lower
    weights, targets = soft_targets(-joined[:, :-1] * (lengths[None] / scale), joined[:, -1:], full_samples)
    points = jnp.asarray(network.points)
    return lambda parameters: (weights * (network.slopes(parameters, points).T - targets)).reshape(-1)
