"""Many short trajectories from given snapshots: together, one after the other, or through an executor.

Each segment begins from the positions and velocities of a snapshot with random numbers of its own, so that what becomes of it
does not depend on the segments before it, nor on the process that runs it.
"""

import threading
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import wait
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from .._checks import check_cvs
from .._interrupt import Interrupt
from ..api import bind, describe, stack
from ..backends.base import Bound
from ..errors import InvalidInputError
from ..methods.base import AbstractMethod
from ..sampler import Sampler, SamplerState
from ..snapshot import Snapshot
from ..system import System

__all__ = ["Beginning", "Done", "Segment", "Segments", "seed_of"]

_CHUNK = 2048  # steps between two looks at Ctrl-C and at the steps left


@dataclass(frozen=True)
class Segment:
    """One trajectory to do.

    Attributes:
        snapshot: where it begins; without the engine's checkpoint, which has random numbers of its own.
        state: state of the method.
        seed: of the engine's random numbers.
        n_steps: how long it may become.
    """

    snapshot: Snapshot
    state: Any
    seed: int
    n_steps: int


@dataclass(frozen=True)
class Done:
    """One trajectory done.

    Attributes:
        snapshot: where it ended; the engine's own random numbers are not part of it.
        state: state of the method there.
        xi: the CVs that the method saw last.
    """

    snapshot: Snapshot
    state: Any
    xi: np.ndarray


@dataclass(frozen=True)
class Beginning:
    """What is known before the first segment.

    Attributes:
        snapshots: of the simulations as the user built them, one for each entry of ``context_args``.
        xi: the CVs there.
        system: masses, time step, temperature.
        kT: thermal energy [energy].
        provenance: engine, version, platform.
    """

    snapshots: list[Snapshot]
    xi: list[np.ndarray]
    system: System
    kT: float
    provenance: dict[str, str]


@dataclass(frozen=True)
class _Setup:
    """How to build a bound simulation; goes to other processes by cloudpickle."""

    method: AbstractMethod
    generate_context: Callable
    context_args: tuple[dict[str, Any], ...]
    token: str


class _Simulation:
    """A bound simulation that does segments."""

    def __init__(self, setup: _Setup, n_together: int):
        generate, arguments = setup.generate_context, setup.context_args
        simulation = generate(**arguments[0])
        self.system = describe(simulation)
        if n_together > 1 and stack(simulation, []) is not None:
            simulation = stack(simulation, [generate(**arguments[0]) for _ in range(n_together - 1)])
        sampler = Sampler.build(setup.method, self.system)
        self.bound: Bound = bind(simulation, sampler, seed=1)
        template = self.bound.states_on_host[0]
        leaves, self._structure = jax.tree.flatten(template)  # to put states together without checking them one by one
        first = len(jax.tree.leaves((template.step, template.key)))
        self._before = leaves[:first]
        self._after = leaves[first + len(jax.tree.leaves(template.methods)) :]
        self._token = setup.token

    def begin(self) -> Beginning:
        bound = self.bound
        snapshot = without_engine(bound.snapshots()[0])
        check_cvs(bound.sampler, [snapshot])
        provenance = {"engine": type(bound).__module__.rpartition(".")[2], **bound.provenance}
        return Beginning([snapshot], [self.xi(snapshot)], self.system, float(bound.sampler.kT), provenance)

    def xi(self, snapshot: Snapshot) -> np.ndarray:
        with jax.enable_x64(True):
            return np.asarray(self.bound.sampler.xi(self.bound.sampler.particles(snapshot)))

    def run(self, segments: Sequence[Segment], budget: int, interrupt: Interrupt) -> tuple[list[Done], int, bool]:
        """Do segments until all have ended, ``budget`` is spent, or Ctrl-C.

        Returns:
            What was done, the MD steps that it took, and whether all segments have ended.
        """
        done, spent = [], 0
        n = self.bound.n_replicas
        for start in range(0, len(segments), n):
            batch = segments[start : start + n]
            ended, steps, complete = self._batch(batch, budget - spent, interrupt)
            spent += steps
            if not complete:
                return done, spent, False
            done += ended
        return done, spent, True

    def _batch(self, batch: Sequence[Segment], budget: int, interrupt: Interrupt) -> tuple[list[Done], int, bool]:
        bound, n = self.bound, self.bound.n_replicas
        padded = [*batch, *[batch[-1]] * (n - len(batch))]  # copies of the last do what it does
        bound.reseed([segment.seed for segment in padded])
        bound.restore([segment.snapshot for segment in padded])
        bound.states = [self._state(segment) for segment in padded]
        limit = padded[0].n_steps
        if any(segment.n_steps != limit for segment in padded):
            raise ValueError("segments that run together are equally long")
        can_stop = bound.sampler.stops
        left, spent = limit, 0
        ended = np.zeros(len(batch), dtype=bool)
        while left and not ended.all():
            running = int(np.sum(~ended))
            n_steps = min(left, _CHUNK, (budget - spent) // running)
            if n_steps < 1 or interrupt.is_set:
                return [], spent, False
            bound.run(n_steps)
            left -= n_steps
            if can_stop:
                ended = bound.stopped[: len(batch)]
                states = bound.states_on_host[: len(batch)]
                spent = sum(int(state.methods[0].n_steps) for state in states)
            else:
                spent += n_steps * len(batch)
        states, snapshots = bound.states_on_host[: len(batch)], bound.snapshots()
        done = [
            Done(without_engine(snapshot), state.methods[0], np.asarray(state.xi))
            for state, snapshot in zip(states, snapshots, strict=False)
        ]
        return done, spent, True

    def _state(self, segment: Segment) -> SamplerState:
        return self._structure.unflatten([*self._before, *jax.tree.leaves(segment.state), *self._after])


def without_engine(snapshot: Snapshot) -> Snapshot:
    """Positions, velocities and box alone, on the host, counted from step 0."""
    velocities, box = (None if part is None else np.array(part) for part in (snapshot.velocities, snapshot.box))
    return Snapshot(np.array(snapshot.positions), velocities, np.asarray(snapshot.masses), box)


class Segments:
    """Does segments; a context manager that gives the simulations back.

    Args:
        method: the method that watches the segments.
        generate_context: the user's function.
        context_args: its arguments, one dictionary for each beginning.
        n_together: how many segments run at the same time: in one program where the engine can, else on the executor.
        executor: any ``concurrent.futures.Executor``, or None.
    """

    def __init__(
        self,
        method: AbstractMethod,
        generate_context: Callable,
        context_args: tuple[dict[str, Any], ...],
        *,
        n_together: int,
        executor: Any = None,
    ):
        if executor is not None and not callable(getattr(executor, "submit", None)):
            raise InvalidInputError(
                "executor must be a concurrent.futures.Executor, such as ProcessPoolExecutor(mp_context="
                f"multiprocessing.get_context('spawn')), got {executor!r}."
            )
        self.setup = _Setup(method, generate_context, context_args, uuid.uuid4().hex)
        self.n_together = n_together
        self._executor = executor
        self._simulation: _Simulation | None = None
        self.interrupt = Interrupt(self.setup.token)

    def begin(self) -> Beginning:
        """The snapshots that the user's function gives, and what is known of the system."""
        parts = []
        for arguments in self.setup.context_args[1:]:
            with _closing(_Simulation(replace(self.setup, context_args=(arguments,)), 1)) as simulation:
                parts.append(simulation.begin())
        if self._executor is None:
            first = self._here().begin()
        else:
            first = self._load(self._executor.submit(work, self._dump(None, 0)).result())
        for part in parts:
            if not np.array_equal(part.system.masses, first.system.masses):
                raise InvalidInputError("context_args must give the same system for all images: the masses differ.")
        return replace(
            first,
            snapshots=[*first.snapshots, *(s for part in parts for s in part.snapshots)],
            xi=[*first.xi, *(xi for part in parts for xi in part.xi)],
        )

    def run(self, segments: Sequence[Segment], budget: int) -> tuple[list[Done], int, bool]:
        """Do segments; what was done of them, the MD steps that it took, and whether all have ended."""
        if self._executor is None:
            return self._here().run(segments, budget, self.interrupt)
        n = min(self.n_together, len(segments))
        shares = [segments[i * len(segments) // n : (i + 1) * len(segments) // n] for i in range(n)]
        futures = [self._executor.submit(work, self._dump(share, budget // n)) for share in shares]
        try:
            parts = [self._load(future.result()) for future in futures]
        except BaseException:
            Interrupt.set_all(self.setup.token)
            for future in futures:
                future.cancel()
            wait(futures)
            raise
        complete = all(part[2] for part in parts)
        return [d for part in parts for d in part[0]] if complete else [], sum(part[1] for part in parts), complete

    def _here(self) -> _Simulation:
        if self._simulation is None:
            self._simulation = _Simulation(self.setup, self.n_together)
        return self._simulation

    def _dump(self, segments: Sequence[Segment] | None, budget: int) -> bytes:
        import cloudpickle

        return cloudpickle.dumps((self.setup, segments, budget))

    @staticmethod
    def _load(payload: bytes) -> Any:
        import cloudpickle

        with jax.enable_x64(True):
            return cloudpickle.loads(payload)

    def __enter__(self) -> "Segments":
        self.interrupt.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.interrupt.__exit__(*error)
        if self._simulation is not None:
            self._simulation.bound.close()


class _closing:  # noqa: N801 (like contextlib's)
    def __init__(self, simulation: _Simulation):
        self._simulation = simulation

    def __enter__(self) -> _Simulation:
        return self._simulation

    def __exit__(self, *error: Any) -> None:
        self._simulation.bound.close()


class _Kept(threading.local):
    """The simulation that a thread of an executor keeps for the next segments of the same run."""

    token: str = ""
    simulation: _Simulation | None = None


_KEPT = _Kept()


def work(payload: bytes) -> bytes:
    """What an executor runs: segments, pickled in and out. For executors only."""
    import cloudpickle

    with jax.enable_x64(True):
        setup, segments, budget = cloudpickle.loads(payload)
    if _KEPT.token != setup.token or _KEPT.simulation is None:
        if _KEPT.simulation is not None:
            _KEPT.simulation.bound.close()
        _KEPT.simulation, _KEPT.token = _Simulation(setup, 1), setup.token
    if segments is None:
        return cloudpickle.dumps(_KEPT.simulation.begin())
    with Interrupt(setup.token) as interrupt:
        return cloudpickle.dumps(_KEPT.simulation.run(segments, budget, interrupt))


def seed_of(seed: int, *place: int) -> int:
    """Seed of one segment, from that of the run and the segment's place in it."""
    return int(np.random.SeedSequence(seed, spawn_key=place).generate_state(1)[0]) & 0x7FFFFFFF or 1
