"""HOOMD-blue: the bias is a ``hoomd.md.force.Custom``, which HOOMD calls at each evaluation of forces; here on the CPU.

``generate_context`` returns a ``hoomd.Simulation`` with its state and an ``hoomd.md.Integrator``. HOOMD evaluates forces at the
end of a step, so a method sees first what the first step leads to, and rows of the log carry HOOMD's time steps.
"""

# HOOMD has no types.
# pyright: reportAttributeAccessIssue=false, reportMissingImports=false, reportOptionalMemberAccess=false
# pyright: reportArgumentType=false

import io
import math
import os
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import hoomd
import hoomd.md
import jax
import numpy as np
from jaxtyping import Float, Shaped

from ..api import bind, describe
from ..callback_loop import CallbackLoop, PackedLoop, Places
from ..errors import InvalidInputError, SimulationError
from ..loop import MAX_ROWS, NEW_STEP, SAME_STEP, Loop, prefer_synchronous_dispatch
from ..sampler import Particles, Sampler
from ..snapshot import Snapshot
from ..system import System
from ._hoomd_memory import PARTICLES, Memory
from ._hoomd_relay import RelayedEngine, load_relay
from ._hoomd_system import (
    barostats,
    box_vectors,
    describe_simulation,
    dimensions,
    lengths_and_tilts,
    parts_of,
    temperature,
    unwrapped,
    whole,
)
from ._interrupt import interrupts_deferred
from .base import LoopBound
from .view import View

__all__ = []

_THERMOSTAT_STATE = (
    "translational_dof",
    "rotational_dof",
    "barostat_dof",
)  # degrees of freedom of MTTK and of a barostat
_EXACT = ("position", "image", "velocity", "orientation", "angmom")  # of each particle


def _unpacked(data: Any) -> dict[str, Shaped[np.ndarray, "..."]]:
    with np.load(io.BytesIO(np.asarray(data).tobytes()), allow_pickle=False) as file:
        return dict(file)


def _is_set(name: str) -> bool:
    return os.environ.get(name, "0") not in ("", "0")


class _StoppedError(Exception):
    """Ends a run of HOOMD after a step."""


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

    def __init__(self, callback: PackedLoop):
        super().__init__()
        self._callback = callback

    def act(self, timestep: int) -> None:
        """Called by HOOMD at the end of each step."""
        if self._callback.has_stopped:
            raise _StoppedError


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
        self._loop = Loop(sampler, device=self._jax_device(), first_step=1)
        kT = temperature(simulation)
        self._kT = None if isinstance(kT, hoomd.variant.Constant) else kT
        self._places = Places.of(
            len(self._tags),
            periodic=True,
            velocities=self._velocities,
            image_axes=dimensions(simulation.state.box),
            ramped=self._kT is not None,
        )
        self._callback = self._make_callback()
        self._relay = self._make_relay()
        self._relayed = False
        self._seen, self._box_moves = -1, True
        self._seed = simulation.seed
        self._views: dict[str, View] = {}
        self._memory: Memory | None = None
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
        self._check_open()
        if n_steps < 0 or log_every < 0:
            raise InvalidInputError(f"Steps must not be negative, got {n_steps} with a row every {log_every}.")
        if log_every and n_steps // log_every > MAX_ROWS - 1:
            raise InvalidInputError(f"{n_steps} steps with a row every {log_every} are more than {MAX_ROWS - 1} rows.")
        operations = self._simulation.operations
        self._box_moves = len(operations.updaters) > 0 or len(barostats(operations.integrator)) > 0
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
        if memory is not None and memory.addresses != Memory(self._simulation.state, self._force).addresses:
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
            engine = RelayedEngine(address=address, places=self._places)
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

    def _jax_device(self) -> Any:
        """Where JAX runs the bias; None for where it runs by default."""
        return None if jax.default_backend() == "cpu" else jax.local_devices(backend="cpu")[0]

    def _make_callback(self) -> Any:
        return CallbackLoop(self._loop, self._places)

    def _make_relay(self) -> Any:
        """What resumes HOOMD from inside the compiled loop; None where HOOMD calls the bias instead."""
        if self.sampler.stops or _is_set("PYSAMP_HOOMD_CALLBACK"):
            return None
        relay = load_relay()
        if relay is None:
            return None
        n_forces = 1 + 3 * len(self._tags) + 6
        return relay.Relay(
            n_handed=self._places.size,
            n_forces=n_forces,
            tags=self._tags.tolist(),
            evaluate=_weakly(self),
            spins=_is_set("PYSAMP_HOOMD_SPIN"),
        )

    def _connect_relay(self, memory: "Memory") -> None:
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
                x = whole(positions, images, self._box)
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

    def _looked_up(self) -> "Memory":
        """HOOMD's memory and box, at the first evaluation of forces in a run."""
        self._memory = memory = Memory(self._simulation.state, self._force)
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
        self._check_open()
        memory = Memory(self._simulation.state, None)
        for name, local in PARTICLES.items():
            array = getattr(memory, local)
            if name not in self._views or self._views[name].address != array.ctypes.data:
                self._views[name] = View.of_rows(array)
        return dict(self._views)

    @property
    def provenance(self) -> Mapping[str, str]:
        """HOOMD, its version and device, and the route."""
        return {
            "engine": "hoomd",
            "engine_version": hoomd.version.version,
            "platform": type(self._simulation.device).__name__,
            "route": "called" if self._relay is None else "relayed",
        }

    def _check_open(self) -> None:
        if self._closed:
            raise SimulationError("The simulation was closed; bind it again.")

    def snapshots(self) -> list[Snapshot]:
        """Positions across the borders of the box, velocities, and what more it takes to go on exactly."""
        snapshot = self._simulation.state.get_snapshot()
        particles, box = snapshot.particles, self._simulation.state.box
        exact = {name: np.asarray(getattr(particles, name)) for name in (*_EXACT, "acceleration")}
        exact |= {"box": np.asarray(snapshot.configuration.box), "seed": np.asarray(self._simulation.seed or 0)}
        for i, part in enumerate(parts_of(self._simulation.operations.integrator)):
            for name in _THERMOSTAT_STATE:
                if hasattr(part, name):
                    exact[f"{name}_{i}"] = np.asarray(getattr(part, name))
        file = io.BytesIO()
        np.savez(file, allow_pickle=False, **exact)
        return [
            Snapshot(
                positions=unwrapped(particles, box),
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
            current.configuration.box = lengths_and_tilts(box, bool(simulation.state.box.is2D))
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
            for i, part in enumerate(parts_of(simulation.operations.integrator)):
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


def route_of(simulation: hoomd.Simulation) -> type[HoomdBound]:
    """The way for the simulation's device."""
    if not isinstance(simulation.device, hoomd.device.GPU):
        return HoomdBound
    from ._hoomd_device import HoomdDeviceBound  # which builds on this module

    return HoomdDeviceBound


@describe.dispatch
def _describe_hoomd(simulation: hoomd.Simulation, /) -> System:
    return describe_simulation(simulation)


@bind.dispatch
def _bind_hoomd(simulation: hoomd.Simulation, sampler: Sampler, /, *, seed: int | None = None) -> HoomdBound:
    return route_of(simulation)(simulation, sampler, seed)
