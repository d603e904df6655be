"""HOOMD-blue: the bias is a ``hoomd.md.force.Custom``, which HOOMD calls at each evaluation of forces.

``generate_context`` returns a ``hoomd.Simulation`` with its state and an ``hoomd.md.Integrator``. HOOMD evaluates forces at the
end of a step, so a method sees first what the first step leads to, and rows of the log carry HOOMD's time steps.
"""

# HOOMD has no types.
# pyright: reportAttributeAccessIssue=false, reportMissingImports=false, reportOptionalMemberAccess=false
# pyright: reportArgumentType=false

import importlib
import io
import logging
import math
import os
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import equinox as eqx
import hoomd
import hoomd.md
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Shaped
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ..api import bind, describe
from ..callback_loop import CallbackLoop, Places
from ..errors import InvalidInputError, SimulationError, UnsupportedError
from ..loop import (
    MAX_ROWS,
    NEW_STEP,
    SAME_STEP,
    AbstractEngine,
    Loop,
    prefer_synchronous_dispatch,
)
from ..sampler import BiasForces, Particles, Sampler
from ..snapshot import Cell, Snapshot
from ..system import System
from ._interrupt import interrupts_deferred
from .base import LoopBound
from .view import View

__all__ = []

_LOGGER = logging.getLogger("pysamp")

_THERMOSTAT_STATE = (
    "translational_dof",
    "rotational_dof",
    "barostat_dof",
)  # degrees of freedom of MTTK and of a barostat
_EXACT = ("position", "image", "velocity", "orientation", "angmom")  # of each particle


# -------------------------------------------------------------------------------------------------- what HOOMD knows


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
        raise UnsupportedError(
            "pysamp does not work on HOOMD's GPU device yet. Use hoomd.device.CPU(), or OpenMM, whose CUDA platform it does."
        )


def _parts(integrator: Any) -> list[Any]:
    """The integrator's methods, and their thermostats."""
    parts = [part for method in integrator.methods for part in (method, getattr(method, "thermostat", None))]
    return [part for part in parts if part is not None]


def _temperature(simulation: hoomd.Simulation) -> Any:
    """Thermal energy of the thermostats, as a function of the time step; None without any.

    Raises:
        InvalidInputError: if they have different ones now.
    """
    found = [part.kT for part in _parts(simulation.operations.integrator) if getattr(part, "kT", None) is not None]
    now = {variant(simulation.timestep) for variant in found}
    if len(now) > 1:
        raise InvalidInputError(
            f"The integrator's thermostats hold different temperatures, kT = {sorted(now)}. A bias in a free energy has one: "
            "give all of them the same kT."
        )
    return found[0] if found else None


def _barostats(integrator: Any) -> list[Any]:
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
    shears = any(any(barostat.box_dof[3:]) for barostat in _barostats(operations.integrator))
    cell = Cell.of(box)
    if len(operations.updaters) or (shears and cell.orthorhombic):
        return Cell(box)
    return cell


def _describe(simulation: hoomd.Simulation) -> System:
    _check(simulation)
    integrator = simulation.operations.integrator
    snapshot = simulation.state.get_snapshot()
    particles = snapshot.particles
    box = box_vectors(simulation.state.box)
    cell = _cell(simulation, box)
    masses = np.array(particles.mass, dtype=np.float64)
    kT = _temperature(simulation)
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
        molecules=_molecules(snapshot, _unwrapped(particles, simulation.state.box), Cell.of(box)),
        wants_virial=True,
    )


def _unpacked(data: Any) -> dict[str, Shaped[np.ndarray, "..."]]:
    with np.load(io.BytesIO(np.asarray(data).tobytes()), allow_pickle=False) as file:
        return dict(file)


def _lengths_and_tilts(rows: Float[np.ndarray, "3 3"], is_flat: bool) -> list[float]:
    """What HOOMD calls a box; the inverse of :func:`box_vectors`."""
    (x, _, _), (xy, y, _), (xz, yz, z) = rows.tolist()
    return [x, y, 0.0 if is_flat else z, xy / y, xz / z, yz / z]


def _unwrapped(particles: Any, box: hoomd.Box) -> Float[np.ndarray, "n 3"]:
    """Positions that do not jump at the borders of the box."""
    images = np.asarray(particles.image)[:, : _dimensions(box)]
    return _whole(np.asarray(particles.position, dtype=np.float64), images, box_vectors(box))


def _whole(
    positions: Float[np.ndarray, "k 3"], images: Int[np.ndarray, "k d"], box: Float[np.ndarray, "3 3"]
) -> Float[np.ndarray, "k 3"]:
    return positions + images @ box[: images.shape[1]]


def _dimensions(box: hoomd.Box) -> int:
    """In a box of two dimensions HOOMD counts images along the third as well, which mean nothing."""
    return 2 if box.is2D else 3


# --------------------------------------------------------------------------------------------------------- the bound


class _StoppedError(Exception):
    """Ends a run of HOOMD after a step."""


class _RelayedEngine(AbstractEngine):
    """HOOMD, resumed by an XLA FFI call up to its next evaluation of forces."""

    fuse: ClassVar[bool] = True

    address: Int[Array, ""]
    places: Places = eqx.field(static=True)

    def begin(self) -> tuple["_RelayedEngine", Float[Array, " m"]]:
        """Start the run that the relay was given."""
        n_atoms = (self.places.positions.stop - self.places.positions.start) // 3
        return self.advance(jnp.zeros(1 + 3 * n_atoms + 6))

    def advance(self, forces: Float[Array, " f"]) -> tuple["_RelayedEngine", Float[Array, " m"]]:
        """Hand the forces over and let HOOMD go on to its next force evaluation."""
        call = jax.ffi.ffi_call(
            "pysamp_relay_advance", jax.ShapeDtypeStruct((self.places.size,), jnp.float64), has_side_effect=True
        )
        return self, call(self.address, forces)

    def unpack(self, handed: Float[Array, " m"]) -> tuple[Int[Array, ""], Particles]:
        """Kind and particles."""
        return handed[0].astype(jnp.int32), self.places.particles(handed)

    def pack(self, forces: BiasForces) -> Float[Array, " f"]:
        """Energy, forces, virial."""
        return forces.packed


def _load_relay() -> Any:
    """The compiled extension, or None where there is none."""
    try:
        relay = importlib.import_module("pysamp.backends._relay")
    except ImportError as error:
        _LOGGER.info(
            "HOOMD calls the bias from Python, which is slower, because the compiled extension is not there (%s)", error
        )
        return None
    if not _REGISTERED:
        jax.ffi.register_ffi_target("pysamp_relay_advance", relay.advance_target(), platform="cpu")
        _REGISTERED.append(True)
    return relay


_REGISTERED: list[bool] = []


class _BiasForce(hoomd.md.force.Custom):
    """HOOMD's force hook."""

    def __init__(self, call: Callable[[int], None]):
        super().__init__()
        self._call = call

    @property
    def set_forces(self) -> Callable[[int], None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Called by HOOMD with the time step at each evaluation of forces, which it has set to zero."""
        return self._call  # itself, so that there is no Python code to run if it is compiled


def _weakly(bound: "HoomdBound") -> Callable[[int], None]:
    """Its ``set_forces``, by a function that does not keep it alive."""
    reference = weakref.ref(bound)

    def set_forces(timestep: int) -> None:
        bound = reference()
        if bound is not None:
            bound.set_forces(timestep)

    return set_forces


class _Stop(hoomd.custom.Action):
    """Ends a run at the end of the step in which the sampler stopped."""

    def __init__(self, callback: CallbackLoop):
        super().__init__()
        self._callback = callback

    def act(self, timestep: int) -> None:
        """Called by HOOMD at the end of each step."""
        if self._callback.has_stopped:
            raise _StoppedError


class _Memory:
    """HOOMD's arrays in host memory. They stay in place while the number of particles does; sorting permutes their rows."""

    def __init__(self, state: hoomd.State, force: _BiasForce | None):
        with state.cpu_local_snapshot as snapshot:
            particles = snapshot.particles
            self.position, self.velocity, self.mass = map(
                _array, (particles.position, particles.velocity, particles.mass)
            )
            self.image = _array(particles.image)[:, : _dimensions(state.box)]
            self.rtag = _array(particles.rtag)
            self.net_force = _array(particles.net_force)
        if force is not None:
            with force.cpu_local_force_arrays as arrays:
                self.force, self.energy, self.virial = map(
                    _array, (arrays.force, arrays.potential_energy, arrays.virial)
                )

    @property
    def addresses(self) -> tuple[int, ...]:
        """Where the arrays begin."""
        return tuple(array.ctypes.data for array in vars(self).values())


def _array(local: Any) -> Shaped[np.ndarray, "..."]:
    return local._coerce_to_ndarray()


class HoomdBound(LoopBound):
    """A HOOMD simulation on the CPU with the bias as one of its forces."""

    def __init__(self, simulation: hoomd.Simulation, sampler: Sampler, seed: int | None):
        self.sampler = sampler
        self.system = describe(simulation)
        self._simulation = simulation
        self._closed = False
        self._tags = np.asarray(sampler.atoms)
        self._velocities = sampler.needs_velocities
        prefer_synchronous_dispatch()  # before JAX is asked anything
        device = None if jax.default_backend() == "cpu" else jax.local_devices(backend="cpu")[0]
        self._loop = Loop(sampler, device=device, first_step=1)
        kT = _temperature(simulation)
        self._kT = None if isinstance(kT, hoomd.variant.Constant) else kT
        self._places = Places.of(
            len(self._tags),
            periodic=True,
            velocities=self._velocities,
            image_axes=_dimensions(simulation.state.box),
            ramped=self._kT is not None,
        )
        self._callback = CallbackLoop(self._loop, self._places)
        self._relay = self._make_relay()
        self._relayed = False
        self._seen, self._box_moves = -1, True
        self._seed = simulation.seed
        self._views: dict[str, View] = {}
        self._memory: _Memory | None = None
        self._stop = None
        if seed is not None:
            self.reseed([seed])
        self._force = _BiasForce(_weakly(self) if self._relay is None else self._relay.set_forces)
        simulation.operations.integrator.forces.append(self._force)
        if sampler.stops:
            self._stop = hoomd.write.CustomWriter(action=_Stop(self._callback), trigger=hoomd.trigger.Periodic(1))
            simulation.operations.writers.append(self._stop)
        self.states = self.initial_states([0])

    def run(self, n_steps: int, *, log_every: int = 0) -> Float[np.ndarray, "replica rows width"]:
        """Run ``n_steps`` steps. Ctrl-C is honoured after them."""
        if self._closed:
            raise SimulationError("The simulation was closed; bind it again.")
        if n_steps < 0 or log_every < 0:
            raise InvalidInputError(f"Steps must not be negative, got {n_steps} with a row every {log_every}.")
        if log_every and n_steps // log_every > MAX_ROWS - 1:
            raise InvalidInputError(f"{n_steps} steps with a row every {log_every} are more than {MAX_ROWS - 1} rows.")
        operations = self._simulation.operations
        self._box_moves = len(operations.updaters) > 0 or len(_barostats(operations.integrator)) > 0
        self._seen = self._simulation.timestep  # what was seen at the end of the last run is not a new step
        self._memory = None
        before = int(self._loop.state.step)
        with interrupts_deferred():
            failure = (
                self._run_called(n_steps, log_every) if self._relay is None else self._run_relayed(n_steps, log_every)
            )
        rows = self._loop.take_rows()
        state = self._loop.state
        if isinstance(failure, FloatingPointError):
            raise SimulationError(
                f"The simulation stopped at step {int(state.step)}: {self.sampler.blame(self.states[0])}."
            ) from failure
        if failure is not None:
            raise SimulationError(f"HOOMD stopped at step {int(state.step)}: {failure}") from failure
        memory, self._memory = self._memory, None
        if memory is not None and memory.addresses != _Memory(self._simulation.state, self._force).addresses:
            raise SimulationError(
                "HOOMD moved its particles to other memory during the run, as it does when their number changes, so the bias "
                "did not act as it should. Remove what changes the number of particles."
            )
        if int(state.step) - before != n_steps and not self._loop.has_stopped:
            raise SimulationError(
                f"HOOMD did {n_steps} steps, but asked for the forces of the bias in {int(state.step) - before} of them."
            )
        return rows

    def _run_called(self, n_steps: int, log_every: int) -> Exception | None:
        """HOOMD runs and calls the compiled bias at each evaluation of forces; returns what went wrong."""
        self._callback.start(log_every)
        try:
            self._simulation.run(n_steps)
        except _StoppedError:
            pass
        except Exception as error:
            return error
        finally:
            self._callback.finish()
        return None

    def _run_relayed(self, n_steps: int, log_every: int) -> Exception | None:
        """The compiled loop runs and resumes HOOMD, up to each evaluation of forces; returns what went wrong."""
        failure = None
        with jax.enable_x64(True):
            address = jax.device_put(np.int64(self._relay.address), self._loop.device)
            engine = _RelayedEngine(address=address, places=self._places)
        self._relay.start(lambda: self._simulation.run(n_steps))
        self._relayed = True
        try:
            self._loop.run(engine, log_every)
        except Exception as error:
            failure = error
        finally:
            self._relayed = False
            try:
                self._relay.finish()
            except Exception as error:
                failure = error
        return failure

    def _make_relay(self) -> Any:
        """What resumes HOOMD from inside the compiled loop; None where HOOMD calls the bias instead."""
        if self.sampler.stops or os.environ.get("PYSAMP_HOOMD_CALLBACK", "0") not in ("", "0"):
            return None
        relay = _load_relay()
        if relay is None:
            return None
        n_forces = 1 + 3 * len(self._tags) + 6
        return relay.Relay(
            n_handed=self._places.size, n_forces=n_forces, tags=self._tags.tolist(), evaluate=_weakly(self)
        )

    def _connect_relay(self, memory: "_Memory") -> None:
        places, relay = self._places, self._relay
        relay.set_places(memory.rtag)
        relay.add_source(memory.position, places.positions.start)
        if places.velocities is not None:
            relay.add_source(memory.velocity, places.velocities.start)
        relay.add_source(memory.image, places.images.start)
        relay.add_target(memory.force, 1)
        relay.add_total(memory.energy, 0)
        relay.add_total(memory.virial, 1 + 3 * len(self._tags))

    def set_forces(self, timestep: int) -> None:
        """Have the bias evaluated, and written into the arrays of the force."""
        memory = self._memory or self._looked_up()
        if self._box_moves:
            self._box = box_vectors(self._simulation.state.box)
        kT = None if self._kT is None else self._kT(timestep)
        kind = SAME_STEP if timestep == self._seen else NEW_STEP
        if self._relayed:
            self._seen = timestep
            is_finite = self._relay_forces(kind, kT)
        else:
            index = memory.rtag[self._tags]
            positions, images = memory.position[index], memory.image[index]
            velocities = memory.velocity[index] if self._velocities else None
            if self._callback.is_running:
                self._seen = timestep
                packed = self._callback(kind, positions, self._box, velocities, images=images, kT=kT)
            else:
                self._memory = None  # nobody looks after it outside a run
                x = _whole(positions, images, self._box)
                ramped = None if kT is None else np.asarray(kT)
                packed = self._loop.evaluate(Particles(x, self._box, velocities, kT=ramped))
            is_finite = math.isfinite(packed.sum())
            memory.force[index] = packed[1:-6].reshape(-1, 3)
            first = index[0] if len(index) else 0  # HOOMD has both for each particle; it is their sums that count
            memory.energy[first] = packed[0]
            memory.virial[first] = packed[-6:]
        if not is_finite:
            raise FloatingPointError("a bias energy or force is not finite")
        if self._relayed and not self._box_moves and kT is None:
            self._relay.repeat_since(timestep)

    def _looked_up(self) -> "_Memory":
        """HOOMD's memory and box, at the first evaluation of forces in a run."""
        self._memory = memory = _Memory(self._simulation.state, self._force)
        self._box = box_vectors(self._simulation.state.box)
        if self._relayed:
            self._connect_relay(memory)
        return memory

    def _relay_forces(self, kind: int, kT: float | None) -> bool:
        """Hand over to the compiled loop, and take its forces; False if they are not finite."""
        handed = self._relay.handed
        handed[self._places.box] = self._box.reshape(-1)
        if kT is not None:
            handed[self._places.kT] = kT
        return self._relay.exchange(kind)

    @property
    def arrays(self) -> Mapping[str, View]:
        """Positions, velocities, masses, images and net forces in HOOMD's memory, in its order; ``rtag`` has the places."""
        if self._closed:
            raise SimulationError("The simulation was closed; bind it again.")
        memory = _Memory(self._simulation.state, None)
        arrays = {
            "positions": memory.position,
            "velocities": memory.velocity,
            "masses": memory.mass,
            "images": memory.image,
            "forces": memory.net_force,
            "rtag": memory.rtag,
        }
        for name, array in arrays.items():
            if name not in self._views or self._views[name].address != array.ctypes.data:
                self._views[name] = View.of_rows(array)
        return dict(self._views)

    @property
    def provenance(self) -> Mapping[str, str]:
        """HOOMD's version and device, and the route."""
        return {
            "engine_version": hoomd.version.version,
            "platform": type(self._simulation.device).__name__,
            "route": "called" if self._relay is None else "relayed",
        }

    def snapshots(self) -> list[Snapshot]:
        """Positions across the borders of the box, velocities, and what more it takes to go on exactly."""
        snapshot = self._simulation.state.get_snapshot()
        particles, box = snapshot.particles, self._simulation.state.box
        exact = {name: np.asarray(getattr(particles, name)) for name in (*_EXACT, "acceleration")}
        exact |= {"box": np.asarray(snapshot.configuration.box), "seed": np.asarray(self._simulation.seed or 0)}
        for i, part in enumerate(_parts(self._simulation.operations.integrator)):
            for name in _THERMOSTAT_STATE:
                if hasattr(part, name):
                    exact[f"{name}_{i}"] = np.asarray(getattr(part, name))
        file = io.BytesIO()
        np.savez(file, allow_pickle=False, **exact)
        return [
            Snapshot(
                positions=_unwrapped(particles, box),
                velocities=np.array(particles.velocity, dtype=np.float64),
                masses=self.system.masses,
                box=box_vectors(box),
                step=self._simulation.timestep,
                engine=np.frombuffer(file.getvalue(), dtype=np.uint8),
            )
        ]

    def restore(self, snapshots: Sequence[Snapshot]) -> None:
        """Exactly, up to the order of particles in memory; a snapshot of another engine lacks what HOOMD needs besides."""
        (snapshot,) = snapshots
        simulation = self._simulation
        self._set_timestep(int(snapshot.step))
        current = simulation.state.get_snapshot()
        particles = current.particles
        exact = {} if snapshot.engine is None else _unpacked(snapshot.engine)
        if exact:
            current.configuration.box = exact["box"]
            for name in _EXACT:
                getattr(particles, name)[:] = exact[name]
        else:
            box = np.asarray(snapshot.box)
            current.configuration.box = _lengths_and_tilts(box, bool(simulation.state.box.is2D))
            fractions = np.asarray(snapshot.positions) @ np.linalg.inv(box)
            images = np.floor(fractions + 0.5)
            particles.position[:] = (fractions - images) @ box
            particles.image[:] = images.astype(np.int32)
            particles.velocity[:] = np.asarray(snapshot.velocities)
        simulation.state.set_snapshot(current)
        simulation.run(0)  # accelerations from the forces; what is restored below lasts only after that
        if exact:
            simulation.seed = int(exact["seed"])
            with simulation.state.cpu_local_snapshot as local:
                places = np.array(local.particles.rtag)
                local.particles.acceleration[places] = exact["acceleration"]  # with the random forces of the last step
            for i, part in enumerate(_parts(simulation.operations.integrator)):
                for name in _THERMOSTAT_STATE:
                    if f"{name}_{i}" in exact:
                        setattr(part, name, tuple(exact[f"{name}_{i}"].tolist()))

    def _set_timestep(self, step: int) -> None:
        """HOOMD's random numbers are a function of the time step, which it lets one set only for a new system."""
        simulation = self._simulation
        if simulation.timestep != step:
            simulation.operations._unschedule()
            simulation._init_system(step)

    def reseed(self, seeds: Sequence[int]) -> None:
        """Another seed, of which HOOMD takes 16 bits."""
        (seed,) = seeds
        self._simulation.seed = int(np.random.SeedSequence(seed).generate_state(1)[0]) & 0xFFFF

    def close(self) -> None:
        """Take the force out of the integrator."""
        while self._views:
            self._views.popitem()[1].flat.delete()
        if not self._closed:
            self._closed = True
            self._memory = None
            forces = self._simulation.operations.integrator.forces
            if self._force in forces:
                forces.remove(self._force)
            if self._stop is not None and self._stop in self._simulation.operations.writers:
                self._simulation.operations.writers.remove(self._stop)
            if self._seed is not None:
                self._simulation.seed = self._seed


# -------------------------------------------------------------------------------------------------------- dispatch


@describe.dispatch
def _describe_hoomd(simulation: hoomd.Simulation, /) -> System:
    return _describe(simulation)


@bind.dispatch
def _bind_hoomd(simulation: hoomd.Simulation, sampler: Sampler, /, *, seed: int | None = None) -> HoomdBound:
    return HoomdBound(simulation, sampler, seed)
