"""Trees of arrays as flat dictionaries of plain NumPy arrays and back, leaf by leaf, without pickle."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .errors import CheckpointError

__all__ = ["each_from_arrays", "each_to_arrays", "from_arrays", "is_key", "on_host", "to_arrays"]


def to_arrays(tree: Any, prefix: str = "") -> dict[str, np.ndarray]:
    """Leaves of a tree, named by their paths such as ``methods.0.heights``; leaves that are None are left out.

    Args:
        tree: any pytree of arrays, numbers and random keys.
        prefix: what every name begins with.
    """
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {_name(path, prefix): _to_numpy(leaf) for path, leaf in leaves}


def from_arrays(template: Any, arrays: Mapping[str, np.ndarray], prefix: str = "") -> Any:
    """A tree built like ``template`` with the leaves of ``arrays``, in the dtypes and shapes that those have.

    Args:
        template: a tree with the same structure; of its leaves only the kind matters (JAX array, NumPy array, random key,
            number), and for keys their implementation. ``jax.ShapeDtypeStruct`` leaves become JAX arrays.
        arrays: what ``to_arrays`` returned.
        prefix: what was given to ``to_arrays``.

    Raises:
        CheckpointError: if a leaf is missing, or is of another rank or kind of number than the template's.
    """
    leaves, structure = jax.tree_util.tree_flatten_with_path(template)
    with jax.enable_x64(True):
        return jax.tree_util.tree_unflatten(
            structure, [_from_numpy(leaf, arrays, _name(path, prefix)) for path, leaf in leaves]
        )


def each_to_arrays(trees: Sequence[Any]) -> list[dict[str, np.ndarray]]:
    """``to_arrays`` of several trees, which may have arrays in common: those are in the first dictionary only."""
    first, *others = map(to_arrays, trees)
    return [first, *({name: a for name, a in own.items() if not _is_same(a, first[name])} for own in others)]


def _is_same(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether both are the same memory, which two views of a JAX array are."""
    return a.shape == b.shape and a.__array_interface__ == b.__array_interface__


def each_from_arrays(template: Any, arrays: Sequence[Mapping[str, np.ndarray]]) -> list[Any]:
    """The trees that ``each_to_arrays`` was given."""
    return [from_arrays(template, {**arrays[0], **own}) for own in arrays]


def on_host(tree: Any) -> Any:
    """The same tree with NumPy arrays: JAX arrays of 64 bits complain when used outside ``enable_x64``. Keys stay keys."""
    return jax.tree.map(lambda leaf: leaf if is_key(leaf) else np.asarray(leaf), tree)


def _name(path: Any, prefix: str) -> str:
    return prefix + (jax.tree_util.keystr(path, simple=True, separator=".").replace("/", "|") or "value")


def is_key(leaf: Any) -> bool:
    """Whether a leaf is a typed random key."""
    return jnp.issubdtype(getattr(leaf, "dtype", np.float64), jax.dtypes.prng_key)


def _to_numpy(leaf: Any) -> np.ndarray:
    return np.asarray(jax.random.key_data(leaf) if is_key(leaf) else leaf)


def _from_numpy(leaf: Any, arrays: Mapping[str, np.ndarray], name: str) -> Any:
    if name not in arrays:
        raise CheckpointError(
            f"The file has no {name!r}: it was written for other methods, or by another version of pysamp. Start afresh, "
            "or read it with the methods that wrote it."
        )
    array = np.asarray(arrays[name])
    if is_key(leaf):
        return jax.random.wrap_key_data(jnp.asarray(array), impl=_implementation(leaf))
    if array.ndim != np.ndim(leaf) or array.dtype.kind != np.dtype(getattr(leaf, "dtype", type(leaf))).kind:
        raise CheckpointError(
            f"{name!r} in the file is {array.dtype}{list(array.shape)}, which does not fit: the file was written for other "
            "methods or CVs."
        )
    if isinstance(leaf, bool | int | float | complex):
        return type(leaf)(array.item())
    return np.array(array) if isinstance(leaf, np.ndarray | np.generic) else jnp.asarray(array)


def _implementation(leaf: Any) -> Any:
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return str(jax.random.key_impl(jnp.empty((), dtype=leaf.dtype)))
    return jax.random.key_impl(leaf)
