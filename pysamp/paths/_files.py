"""Results of path methods in files."""

import json
from typing import Any

import numpy as np
import xarray as xr

from .._serial import from_arrays, to_arrays
from ..files import Kind, arrays_of, dataset, definition_of, register_kind
from ..snapshot import Snapshot
from ._frames import Frames
from .flux_result import ForwardFluxRun, Interface
from .forward_flux import ForwardFlux
from .string_method import MeanForceString, SwarmString
from .string_run import StringRun

__all__ = []


def _flux_groups(run: ForwardFluxRun) -> dict[str, xr.Dataset]:
    definition, arrays = definition_of(run.method)
    attributes = definition | {
        "attributes": json.dumps(dict(run.attributes), default=str),
        "kT": float(run.kT),
        "timestep": float(run.timestep),
        "message": run.message,
        "n_interfaces": len(run.interfaces),
    }
    groups = {"/": xr.Dataset(attrs=attributes), "/definition": arrays}
    groups["/system"] = dataset({"masses": np.asarray(run.masses), "walker_steps": run.walker_steps})
    for i, interface in enumerate(run.interfaces):
        groups[f"/interfaces/{i}"] = dataset(to_arrays(interface))
    return groups


def _flux_run(tree: xr.DataTree, method: Any) -> ForwardFluxRun:
    system = arrays_of(tree["system"])
    stored = [arrays_of(tree[f"interfaces/{i}"]) for i in range(int(tree.attrs["n_interfaces"]))]
    return ForwardFluxRun(
        method=method,
        interfaces=tuple(_interface(arrays) for arrays in stored),
        masses=system["masses"],
        kT=float(tree.attrs["kT"]),
        timestep=float(tree.attrs["timestep"]),
        walker_steps=system["walker_steps"],
        message=str(tree.attrs["message"]),
        attributes=json.loads(tree.attrs["attributes"]),
    )


def _interface(arrays: dict[str, np.ndarray]) -> Interface:
    names = Interface.__dataclass_fields__
    parts: dict[str, Any] = {name: arrays[name] for name in names if name != "frames"}
    return Interface(frames=frames_from(arrays, "frames."), **{**parts, "succeeded": parts["succeeded"].astype(bool)})


def frames_from(arrays: dict[str, np.ndarray], prefix: str) -> Frames:
    """Frames among named arrays; what is not there is None."""
    zero = np.zeros((1, 3))
    like = Snapshot(
        zero,
        zero if f"{prefix}velocities" in arrays else None,
        np.ones(1),
        np.eye(3) if f"{prefix}boxes" in arrays else None,
    )
    return from_arrays(Frames.of([], like), arrays, prefix)


def _string_groups(run: StringRun) -> dict[str, xr.Dataset]:
    definition, arrays = definition_of(run.method)
    attributes = definition | {"attributes": json.dumps(dict(run.attributes), default=str), "kT": float(run.kT)}
    return {
        "/": xr.Dataset(attrs=attributes),
        "/definition": arrays,
        "/string": dataset({"paths": run.paths, "gradients": run.gradients, "masses": np.asarray(run.masses)}),
        "/frames": dataset(to_arrays(run.frames)),
    }


def _string_run(tree: xr.DataTree, method: Any) -> StringRun:
    return StringRun(
        method=method,
        frames=frames_from(arrays_of(tree["frames"]), ""),
        kT=float(tree.attrs["kT"]),
        attributes=json.loads(tree.attrs["attributes"]),
        **arrays_of(tree["string"]),
    )


register_kind(Kind(StringRun, _string_groups, _string_run, (MeanForceString, SwarmString)))
register_kind(Kind(ForwardFluxRun, _flux_groups, _flux_run, (ForwardFlux,)))
