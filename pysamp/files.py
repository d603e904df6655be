"""Runs in files: netCDF groups of plain arrays and a definition in JSON. Opening a file from a stranger runs no code."""

import io
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Float

from . import colvars, methods
from ._serial import each_from_arrays, each_to_arrays, on_host, to_arrays
from .checkpoint import replace_file
from .colvars.base import AbstractCV, Energy, Group, type_of_points
from .errors import CheckpointError, InvalidInputError
from .grids import Grid
from .methods.base import AbstractMethod, Observation
from .results import Run
from .sampler import SamplerState, as_methods, no_lists
from .snapshot import Cell, Snapshot

__all__ = ["load", "save"]

_FORMAT = 1


def save(run: Any, path: str | os.PathLike) -> None:
    """Write a run, or the result of a path method, to a netCDF file, as a whole or not at all.

    The file has the groups ``log`` (as in ``run.log``), ``states/<replica>`` and ``snapshots/<replica>``, and attributes in
    JSON. Methods and CVs of pysamp are stored with all their parameters. A user's own function cannot be; ``load`` puts in
    its place a CV that knows its labels, atoms and period, which is all that :func:`~pysamp.analyze` needs.

    Args:
        run: what :func:`~pysamp.run` returned.
        path: of the file; an existing one is replaced.

    Raises:
        InvalidInputError: if ``run`` is not a run.
        CheckpointError: if the file cannot be written; an existing file is then intact.

    Example:
        >>> import jax.numpy as jnp
        >>> import pysamp
        >>> from pysamp.backends import toy
        >>> from pysamp.colvars import Component
        >>> from pysamp.methods import Unbiased
        >>> def generate_context():
        ...     return toy.Simulation(lambda x: 0.5 * jnp.sum(x**2), [[0.0, 0.0, 0.0]])
        >>> run = pysamp.run(Unbiased(Component([0], axis=0)), generate_context, 100, progress=False)
        >>> pysamp.save(run, "example.nc")
        >>> pysamp.load("example.nc").methods[0].labels
        ('Component(0).x',)
    """
    path = Path(path)
    groups = _groups_of(run)
    buffer = io.BytesIO()  # HDF5 can crash the process on a disk that is full
    xr.DataTree.from_dict(groups).to_netcdf(buffer, engine="h5netcdf")
    try:
        replace_file(path, lambda file: file.write(buffer.getbuffer()))
    except OSError as error:
        raise CheckpointError(
            f"{str(path)!r} could not be written: {error}. A file of that name that was there before is intact. Make room on "
            "the disk, or give another path, and call save again."
        ) from error


def _groups_of(run: Any) -> dict[str, xr.Dataset]:
    for name, kind in _KINDS.items():
        if type(run) is kind.cls:
            groups = kind.to_groups(run)
            groups["/"] = groups["/"].assign_attrs(pysamp_format=_FORMAT, pysamp_kind=name)
            return groups
    if not isinstance(run, Run):
        raise InvalidInputError(f"save needs a run, as pysamp.run(...) returns it; got {run!r}.")
    definition, arrays = _encode_methods(run.methods)
    attributes = {
        "pysamp_format": _FORMAT,
        "methods": json.dumps(definition),
        "attributes": json.dumps(dict(run.attributes), default=str),
        "kT": float(run.kT),
        "timestep": float(run.timestep),
        "n_replicas": len(run.states),
    }
    groups = {"/": xr.Dataset(attrs=attributes), "/definition": dataset(arrays), "/log": run.log}
    for r, (state, snapshot) in enumerate(zip(each_to_arrays(run.states), run.snapshots, strict=True)):
        groups[f"/states/{r}"] = dataset(state)
        groups[f"/snapshots/{r}"] = dataset(to_arrays(snapshot))
    return groups


def load(path: str | os.PathLike, method: Any = None) -> Any:
    """Read a run, or the result of a path method, that :func:`save` wrote.

    Args:
        path: of the file.
        method: the method or methods of the run, needed to go on with CVs made of functions, or with methods of one's own.

    Raises:
        CheckpointError: if there is no such file, it is damaged, of another format, or needs ``method``.
    """
    try:
        with xr.open_datatree(
            path, engine="h5netcdf", decode_times=False, decode_timedelta=False, mask_and_scale=False
        ) as tree:
            tree = tree.load()
    except (OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{str(path)!r} cannot be read as a run of pysamp: {error}.") from error
    if tree.attrs.get("pysamp_format") != _FORMAT:
        raise CheckpointError(
            f"{str(path)!r} has the format {tree.attrs.get('pysamp_format')!r}, and this version of pysamp reads {_FORMAT}."
        )
    if "pysamp_kind" in tree.attrs:
        return _load_kind(path, tree, method)
    n_replicas = int(tree.attrs["n_replicas"])
    stored = _decode(json.loads(tree.attrs["methods"]), arrays_of(tree["definition"]))
    if method is None:
        for item in stored:
            if isinstance(item, _Unknown):
                raise CheckpointError(
                    f"{str(path)!r} was written with the method {item.name}, which is not one of pysamp's: give "
                    "load(path, method=...) with the same parameters."
                )
        run_methods = tuple(stored)
    else:
        run_methods = as_methods(method)
    template = _state_template(run_methods)
    states = [arrays_of(tree[f"states/{r}"]) for r in range(n_replicas)]
    return Run(
        methods=run_methods,
        states=[on_host(state) for state in each_from_arrays(template, states)],
        snapshots=[_snapshot(arrays_of(tree[f"snapshots/{r}"])) for r in range(n_replicas)],
        log=tree.children["log"].to_dataset(inherit=False),
        kT=float(tree.attrs["kT"]),
        timestep=float(tree.attrs["timestep"]),
        attributes=json.loads(tree.attrs["attributes"]),
    )


def _load_kind(path: str | os.PathLike, tree: xr.DataTree, method: Any) -> Any:
    kind = _KINDS.get(tree.attrs["pysamp_kind"])
    if kind is None:
        raise CheckpointError(
            f"{str(path)!r} holds a {tree.attrs['pysamp_kind']!r}, which this version of pysamp does not have."
        )
    (stored,) = _decode(json.loads(tree.attrs["methods"]), arrays_of(tree["definition"]))
    return kind.from_tree(tree, stored if method is None else method)


@dataclass(frozen=True)
class Kind:
    """How results of one class that is not Run are stored.

    Attributes:
        cls: the class.
        to_groups: makes datasets of a result, one for each group; ``definition_of`` helps.
        from_tree: makes the result from what was read, and the method.
        classes: what such files may name besides CVs and methods.
    """

    cls: type
    to_groups: Callable[[Any], dict[str, xr.Dataset]]
    from_tree: Callable[[xr.DataTree, Any], Any]
    classes: Sequence[type] = ()


_KINDS: dict[str, Kind] = {}


def register_kind(kind: Kind) -> None:
    """Let ``save`` and ``load`` know one more class of results."""
    _KINDS[kind.cls.__name__] = kind
    _CLASSES.update({cls.__name__: cls for cls in kind.classes})


def definition_of(method: Any) -> tuple[dict[str, str], xr.Dataset]:
    """Attribute and group that hold the definition of a method."""
    arrays: dict[str, np.ndarray] = {}
    return {"methods": json.dumps([_encode(method, arrays)])}, dataset(arrays)


class StoredCV(AbstractCV):
    """In the place of a CV whose function is not in the file: all about it, but not its values."""

    atoms: type_of_points = eqx.field(static=True)
    period: float | None = eqx.field(static=True)  # type: ignore[misc]
    stored_name: str = eqx.field(static=True)
    component_names: tuple[str, ...] = eqx.field(static=True)  # type: ignore[misc]

    def __call__(self, x: Float[Array, "k 3"], cell: Cell) -> Float[Array, ""]:
        """Raise: the function is not known.

        Raises:
            CheckpointError: always.
        """
        raise CheckpointError(
            f"The function of the CV {self.name} is not in the file that the run was loaded from. Give it back: "
            "pysamp.load(path, method=...), with the method as it was."
        )

    @property
    def name(self) -> str:
        """As it was."""
        return self.stored_name


class _Unknown:
    """In the place of a method that is not one of pysamp's."""

    def __init__(self, name: str):
        self.name = name


_CLASSES: dict[str, type] = {
    **{name: getattr(colvars, name) for name in colvars.__all__ if isinstance(getattr(colvars, name), type)},
    **{name: getattr(methods, name) for name in methods.__all__ if isinstance(getattr(methods, name), type)},
    "Energy": Energy,
    "Grid": Grid,
    "Group": Group,
    "StoredCV": StoredCV,
}


class _CannotStoreError(Exception):
    """Something is not made of numbers, text and pysamp's own classes."""


def _encode_methods(run_methods: Sequence[AbstractMethod]) -> tuple[list, dict[str, np.ndarray]]:
    arrays: dict[str, np.ndarray] = {}
    definition = []
    for item in run_methods:
        try:
            definition.append(_encode(item, arrays))
        except _CannotStoreError:
            definition.append({"unknown": type(item).__name__})
    return definition, arrays


def _encode(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        name = f"array_{len(arrays)}"
        arrays[name] = np.asarray(value)
        return {"array": name}
    if isinstance(value, tuple | list):
        return {"tuple": [_encode(item, arrays) for item in value]}
    if _CLASSES.get(type(value).__name__) is type(value):
        before = dict(arrays)
        try:
            parts = {field.name: _encode(getattr(value, field.name), arrays) for field in fields(value)}
        except _CannotStoreError:
            arrays.clear()
            arrays.update(before)
        else:
            return {"class": type(value).__name__, "fields": parts}
    if isinstance(value, AbstractCV):
        stored = StoredCV(
            atoms=value.atoms, period=value.period, stored_name=value.name, component_names=value.component_names
        )
        return _encode(stored, arrays)
    raise _CannotStoreError


def _decode(value: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    if isinstance(value, list):
        return [_decode(item, arrays) for item in value]
    if not isinstance(value, dict):
        return value
    if "array" in value:
        return arrays[value["array"]]
    if "tuple" in value:
        return tuple(_decode(item, arrays) for item in value["tuple"])
    if "unknown" in value:
        return _Unknown(value["unknown"])
    kind = _CLASSES.get(value["class"])
    if kind is None:
        raise CheckpointError(
            f"The file names the class {value['class']!r}, which this version of pysamp does not have."
        )
    result = object.__new__(kind)  # the parameters were checked when the object was made
    for field in fields(kind):
        if field.name not in value["fields"]:
            raise CheckpointError(
                f"The file's {kind.__name__} has no {field.name}: it is of another version of pysamp."
            )
        object.__setattr__(result, field.name, _decode(value["fields"][field.name], arrays))
    return result


def dataset(arrays: Mapping[str, np.ndarray]) -> xr.Dataset:
    """Arrays as variables whose dimensions are their own."""
    return xr.Dataset(
        {name: (tuple(f"{name}_{i}" for i in range(array.ndim)), array) for name, array in arrays.items()}
    )


def arrays_of(node: Any) -> dict[str, np.ndarray]:
    return {
        str(name): np.asarray(variable.values) for name, variable in node.to_dataset(inherit=False).variables.items()
    }


def _state_template(run_methods: Sequence[AbstractMethod]) -> SamplerState:
    """A state of the right structure; shapes are those in the file."""

    def make() -> SamplerState:
        step, key, one = jnp.zeros((), dtype=jnp.int64), jax.random.key(0), jnp.ones(())
        states = []
        for item in run_methods:
            xi = jnp.zeros(item.n_cvs)
            states.append(item.init(Observation(xi, step, one, key, xi, xi, one)))
        xi, energies = jnp.zeros(sum(item.n_cvs for item in run_methods)), jnp.zeros(len(run_methods))
        return SamplerState(
            step, jax.random.key_data(key), tuple(states), xi, jnp.zeros_like(xi), energies, no_lists(run_methods)
        )

    with jax.enable_x64(True):
        return jax.eval_shape(make)


def _snapshot(arrays: Mapping[str, np.ndarray]) -> Snapshot:
    parts = {field.name: arrays.get(field.name) for field in fields(Snapshot)}
    return Snapshot(**{**parts, "step": int(arrays["step"])})
