"""What a HOOMD-blue simulation tells of itself: box, thermostats, masses, molecules, and whether it can be biased."""

# HOOMD has no types.
# pyright: reportAttributeAccessIssue=false, reportMissingImports=false, reportOptionalMemberAccess=false
# pyright: reportArgumentType=false

import importlib.util
from typing import Any

import hoomd
import hoomd.md
import jax
import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ..errors import InvalidInputError, UnsupportedError
from ..snapshot import Cell
from ..system import System

__all__ = [
    "barostats",
    "box_vectors",
    "describe_simulation",
    "dimensions",
    "lengths_and_tilts",
    "parts_of",
    "temperature",
    "unwrapped",
    "whole",
]


def box_vectors(box: hoomd.Box) -> Float[np.ndarray, "3 3"]:
    """Box vectors as rows; a box of two dimensions gets a third vector of length 1, along which nothing moves."""
    z = box.Lz or 1.0
    return np.array([[box.Lx, 0.0, 0.0], [box.xy * box.Ly, box.Ly, 0.0], [box.xz * z, box.yz * z, z]])


def _check(simulation: hoomd.Simulation) -> None:
    integrator = simulation.operations.integrator
    if simulation.state is None:
        raise InvalidInputError(
            "The hoomd.Simulation has no particles yet. Call simulation.create_state_from_gsd(...) or "
            "create_state_from_snapshot(...) in generate_context, before returning it."
        )
    if not isinstance(integrator, hoomd.md.Integrator | hoomd.md.minimize.FIRE):
        raise InvalidInputError(
            f"The integrator of the hoomd.Simulation is {integrator!r}. Set simulation.operations.integrator = "
            "hoomd.md.Integrator(dt=..., methods=[...], forces=[...]) in generate_context, before returning it."
        )
    if simulation.device.communicator.num_ranks > 1:
        raise UnsupportedError(
            "pysamp does not work on a HOOMD simulation that is spread over several MPI ranks. Give each rank a simulation of "
            "its own: hoomd.communicator.Communicator(ranks_per_partition=1)."
        )
    if isinstance(simulation.device, hoomd.device.GPU):
        _check_gpu(simulation.device)


def _check_gpu(device: hoomd.device.GPU) -> None:
    n_gpus = getattr(device._cpp_exec_conf, "getNumActiveGPUs", lambda: 1)()  # gone where there is but one
    if n_gpus > 1:
        raise UnsupportedError(
            f"pysamp does not work on a HOOMD simulation that is spread over {n_gpus} GPUs. Give it one: "
            "hoomd.device.GPU(gpu_id=0)."
        )
    if importlib.util.find_spec("cupy") is None:
        raise UnsupportedError(
            "pysamp reaches HOOMD's memory on a GPU by CuPy, which is not installed. Type pip install cupy-cuda13x (or "
            "cupy-cuda12x, as HOOMD was built), or use hoomd.device.CPU()."
        )
    try:
        jax.devices("cuda")
    except RuntimeError as error:
        raise UnsupportedError(
            f"HOOMD's simulation is on a GPU, and JAX has none ({error}). Type pip install 'jax[cuda13]', or use "
            "hoomd.device.CPU()."
        ) from error


def parts_of(integrator: Any) -> list[Any]:
    """The integrator's methods, and their thermostats."""
    parts = [part for method in integrator.methods for part in (method, getattr(method, "thermostat", None))]
    return [part for part in parts if part is not None]


def temperature(simulation: hoomd.Simulation) -> Any:
    """Thermal energy of the thermostats, as a function of the time step; None without any.

    Raises:
        InvalidInputError: if they have different ones now.
    """
    found = [part.kT for part in parts_of(simulation.operations.integrator) if getattr(part, "kT", None) is not None]
    now = {variant(simulation.timestep) for variant in found}
    if len(now) > 1:
        raise InvalidInputError(
            f"The integrator's thermostats hold different temperatures, kT = {sorted(now)}. A bias in a free energy has one: "
            "give all of them the same kT."
        )
    return found[0] if found else None


def barostats(integrator: Any) -> list[Any]:
    return [method for method in integrator.methods if isinstance(method, hoomd.md.methods.ConstantPressure)]


def _momentum_timestep(integrator: Any, masses: Float[np.ndarray, " n"], particles: Any) -> float | None:
    """Time over which a constant force changes the momentum from one force evaluation to the next, None if not known.

    The velocities found at a force evaluation are those of half a step before. A Langevin thermostat adds its friction to the
    force of a step: v' = (1 - g) v + F dt / m + noise with g = gamma dt / m. By time reversal v' and v have opposite averages
    at given positions, so that the average of v' - v is F dt / m / (1 - g / 2) (docs/momenta).
    """
    drags = np.zeros(len(masses))
    for method in integrator.methods:
        if isinstance(method, hoomd.md.methods.Brownian | hoomd.md.methods.OverdampedViscous):
            return None
        if type(method).__module__.endswith("rattle"):
            return None
        if isinstance(method, hoomd.md.methods.Langevin):
            gamma = np.array([method.gamma[name] for name in particles.types])
            drags = np.maximum(drags, gamma[np.asarray(particles.typeid)] / masses)
    if isinstance(integrator, hoomd.md.minimize.FIRE):
        return None
    mean = float(np.average(drags, weights=masses))
    return integrator.dt / (1.0 - 0.5 * mean * integrator.dt)


def _molecules(snapshot: hoomd.Snapshot, positions: Float[np.ndarray, "n 3"], cell: Cell) -> Int[np.ndarray, " n"]:
    """Number of the molecule of each particle; -1 without bonds, and where the images do not make the molecule whole."""
    n = snapshot.particles.N
    pairs = np.concatenate([np.asarray(snapshot.bonds.group), np.asarray(snapshot.constraints.group)]).astype(np.int64)
    if not len(pairs):
        return np.full(n, -1)
    first, second = pairs.T
    _, label = connected_components(coo_array((np.ones(len(pairs)), (first, second)), shape=(n, n)), directed=False)
    vectors = positions[second] - positions[first]
    with jax.enable_x64(True):
        nearest = np.asarray(cell.nearest(vectors))
    size = np.linalg.norm(np.asarray(cell.box)[0])
    jumps = np.abs(vectors - nearest).max(axis=1) > 1e-4 * size
    unsafe = np.isin(label, label[first[jumps]]) | ~np.isin(np.arange(n), pairs)
    return np.where(unsafe, -1, label)


def _cell(simulation: hoomd.Simulation, box: Float[np.ndarray, "3 3"]) -> Cell:
    """The present box; its shape is taken to last only where nothing can change it."""
    operations = simulation.operations
    shears = any(any(barostat.box_dof[3:]) for barostat in barostats(operations.integrator))
    cell = Cell.of(box)
    if len(operations.updaters) or (shears and cell.orthorhombic):
        return Cell(box)
    return cell


def describe_simulation(simulation: hoomd.Simulation) -> System:
    _check(simulation)
    integrator = simulation.operations.integrator
    snapshot = simulation.state.get_snapshot()
    particles = snapshot.particles
    box = box_vectors(simulation.state.box)
    cell = _cell(simulation, box)
    masses = np.array(particles.mass, dtype=np.float64)
    kT = temperature(simulation)
    body = np.asarray(particles.body).astype(np.int64)
    followers = np.flatnonzero((body >= 0) & (body < len(masses)) & (body != np.arange(len(masses))))
    distances = any(isinstance(c, hoomd.md.constrain.Distance) for c in getattr(integrator, "constraints", []))
    rigid = getattr(integrator, "rigid", None) is not None
    return System(
        masses=masses,
        timestep=float(integrator.dt),
        kT=None if kT is None else float(kT(simulation.timestep)),
        momentum_timestep=_momentum_timestep(integrator, masses, particles),
        periodic=True,
        orthorhombic=cell.orthorhombic,
        reduction=cell.reduction,
        constraints=np.array(snapshot.constraints.group if distances else [], dtype=np.int64).reshape(-1, 2),
        massless=frozenset(followers.tolist()) if rigid else frozenset(),
        molecules=_molecules(snapshot, unwrapped(particles, simulation.state.box), Cell.of(box)),
        wants_virial=True,
    )


def lengths_and_tilts(rows: Float[np.ndarray, "3 3"], is_flat: bool) -> list[float]:
    """What HOOMD calls a box; the inverse of :func:`box_vectors`."""
    (x, _, _), (xy, y, _), (xz, yz, z) = rows.tolist()
    return [x, y, 0.0 if is_flat else z, xy / y, xz / z, yz / z]


def unwrapped(particles: Any, box: hoomd.Box) -> Float[np.ndarray, "n 3"]:
    """Positions that do not jump at the borders of the box."""
    images = np.asarray(particles.image)[:, : dimensions(box)]
    return whole(np.asarray(particles.position, dtype=np.float64), images, box_vectors(box))


def whole(
    positions: Float[np.ndarray, "k 3"], images: Int[np.ndarray, "k d"], box: Float[np.ndarray, "3 3"]
) -> Float[np.ndarray, "k 3"]:
    return positions + images @ box[: images.shape[1]]


def dimensions(box: hoomd.Box) -> int:
    """In a box of two dimensions HOOMD counts images along the third as well, which mean nothing."""
    return 2 if box.is2D else 3
