"""CVs that are functions with trained parameters, such as neural networks, and files of parameters that run no code."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._serial import from_arrays, to_arrays
from ..errors import CheckpointError, InvalidInputError, UnsupportedError
from ..snapshot import Cell
from ..units import as_array
from .base import AbstractComposite, AbstractCV, _as_function, _Function, as_parts
from .linear import features_of, n_features

__all__ = ["Learned", "load_weights", "save_weights"]

_Network = TypeVar("_Network")


class Learned(AbstractComposite):
    r"""A function of features of other CVs with trained parameters: a neural network [1].

    $$\xi = F\left(\frac{f - \bar f}{\sigma}\right)$$

    The features $f$ are the values of the CVs, component by component, and for a periodic CV the cosine and the sine of its
    phase, which have no jump. The function gets them as one vector, in the precision of the positions.

    Args:
        cvs: the CVs that make up the features.
        function: JAX function of one vector: an Equinox module, ``jax.tree_util.Partial(module.apply, variables)`` of a Flax
            module, or any other. Arrays in it are parameters and may be changed (``eqx.tree_at``) without a new compilation.
        components: names of the components, if it returns a vector.
        mean: $\bar f$, of every feature or of all.
        scale: $\sigma$, of every feature or of all.

    Raises:
        InvalidInputError: if the function cannot be called, or mean and scale do not fit the features.

    Example:
        >>> import equinox as eqx
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from pysamp import Cell
        >>> from pysamp.colvars import DihedralAngle, Distance, Learned
        >>> network = eqx.nn.MLP(3, "scalar", width_size=16, depth=2, activation=jnp.tanh, key=jax.random.key(0))
        >>> cv = Learned([DihedralAngle([0, 1, 2, 3]), Distance([0, 3])], network)
        >>> cv.name
        'MLP(DihedralAngle(0, 1, 2, 3), Distance(0, 3))'
        >>> cv(jax.random.normal(jax.random.key(1), (6, 3)), Cell()).shape
        ()
    """

    cvs: tuple[AbstractCV, ...]
    function: _Function
    component_names: tuple[str, ...] = eqx.field(static=True)
    mean: Float[np.ndarray, " n"]
    scale: Float[np.ndarray, " n"]

    def __init__(self, cvs: Any, function: Any, *, components: Sequence[str] = (), mean: Any = 0.0, scale: Any = 1.0):
        if not callable(function):
            raise InvalidInputError(f"Learned needs a function of a vector of features, got {function!r}.")
        if isinstance(components, str):
            raise InvalidInputError(f"components must be a list of names, got {components!r}; write [{components!r}].")
        self.cvs = as_parts(cvs, "Learned")
        self.function = _as_function(function)
        self.component_names = tuple(components)
        n = n_features(self.cvs)
        given = {"mean": as_array(mean), "scale": as_array(scale)}
        for name, value in given.items():
            if value.shape not in {(), (n,)} or not np.isfinite(value).all() or (name == "scale" and not value.all()):
                raise InvalidInputError(
                    f"{name} must be one finite number or {n}, one for each feature; got {value.tolist()}."
                )
        self.mean, self.scale = (np.array(np.broadcast_to(value, (n,))) for value in given.values())

    def __call__(self, x: Float[Array, "k 3"], cell: Cell) -> Float[Array, "..."]:
        """The function of the features."""
        features = features_of(self.cvs, self.parts(x, cell))
        mean, scale = (jnp.asarray(p, dtype=features.dtype) for p in (self.mean, self.scale))
        return self.function((features - mean) / scale)

    @property
    def name(self) -> str:
        """Name of the function, and its CVs."""
        return f"{self.function.name}({', '.join(cv.name for cv in self.cvs)})"


def save_weights(network: Any, path: str | Path) -> None:
    """Write the arrays in a network to a file, named after their places in it.

    Args:
        network: an Equinox module, the variables of a Flax module, or any other tree of arrays.
        path: ``.npz`` (NumPy) or ``.safetensors`` (needs that package).

    Raises:
        InvalidInputError: if the name of the file has another ending.
        UnsupportedError: if the package is not there.

    Example:
        >>> import equinox as eqx
        >>> import jax
        >>> import numpy as np
        >>> from pysamp.colvars import load_weights, save_weights
        >>> network = eqx.nn.Linear(2, 1, key=jax.random.key(0))
        >>> save_weights(network, "network.npz")
        >>> sorted(np.load("network.npz"))
        ['bias', 'weight']
        >>> same = load_weights(eqx.nn.Linear(2, 1, key=jax.random.key(1)), "network.npz")
        >>> bool((same.weight == network.weight).all())
        True
    """
    arrays = to_arrays(eqx.filter(network, eqx.is_array))
    if _kind(path) == "npz":
        np.savez(path, allow_pickle=False, **arrays)
    else:
        _safetensors().save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, path)


def load_weights(network: _Network, path: str | Path) -> _Network:
    """A network with the arrays of a file in place of its own.

    Reading runs no code, whoever wrote the file: pickled files (``.pt``, ``.pkl``) are not read. Save PyTorch's ``state_dict()``
    with ``safetensors.torch.save_file``; in the file the arrays must be named after their places in ``network``, such as
    ``layers.0.weight``.

    Args:
        network: a network of the same structure, with any parameters.
        path: ``.npz`` or ``.safetensors``.

    Raises:
        CheckpointError: if the file cannot be read, or its arrays do not fit.
        InvalidInputError: if the name of the file has another ending.
        UnsupportedError: if the package is not there.

    Example:
        >>> import equinox as eqx
        >>> import jax
        >>> from pysamp.colvars import load_weights, save_weights
        >>> network = eqx.nn.MLP(2, 1, width_size=8, depth=1, key=jax.random.key(0))
        >>> save_weights(network, "mlp.npz")
        >>> load_weights(network, "mlp.npz").layers[0].weight.shape
        (8, 2)
    """
    arrays = _read(path)
    own, rest = eqx.partition(network, eqx.is_array)
    unused = set(arrays) - set(to_arrays(own))
    if unused:
        raise CheckpointError(
            f"{str(path)!r} has arrays that have no place in the network: {', '.join(sorted(unused))}."
        )
    loaded = from_arrays(own, arrays)
    for name, array in to_arrays(own).items():
        if arrays[name].shape != array.shape:
            raise CheckpointError(
                f"{name} is of shape {arrays[name].shape} in {str(path)!r}, and {array.shape} in the network."
            )
    return eqx.combine(loaded, rest)


def _read(path: str | Path) -> Mapping[str, np.ndarray]:
    try:
        if _kind(path) == "npz":
            with np.load(path, allow_pickle=False) as file:
                return dict(file)
        return _safetensors().load_file(path)
    except (OSError, ValueError) as error:
        if isinstance(error, InvalidInputError):
            raise
        raise CheckpointError(f"{str(path)!r} cannot be read: {error}") from error


def _kind(path: str | Path) -> str:
    ending = Path(path).suffix
    if ending not in (".npz", ".safetensors"):
        raise InvalidInputError(f"Weights are kept in files that end with .npz or .safetensors, got {str(path)!r}.")
    return ending[1:]


def _safetensors() -> Any:
    try:
        import safetensors.numpy  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise UnsupportedError(
            "Files of this kind need the package safetensors: pip install pysamp[learned]."
        ) from error
    return safetensors.numpy
