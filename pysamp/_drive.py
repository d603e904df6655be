"""Drives one bound simulation: chunks, log, callbacks, checkpoints and Ctrl-C."""

import logging
import operator
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from ._checks import check_cvs, cv_values
from ._serial import to_arrays
from .api import bind, describe
from .backends.base import Bound
from .checkpoint import Checkpoint, definition, digest
from .errors import CheckpointError, InvalidInputError, SimulationError
from .loop import MAX_ROWS, log_columns
from .methods.base import AbstractMethod, periodic_difference
from .sampler import Sampler, SamplerState, System
from .snapshot import Snapshot

__all__ = ["Callback", "Interrupt", "Job", "Outcome", "as_count", "drive"]

logger = logging.getLogger("pysamp")

_CHUNK = 0.2  # [s] between two looks at Ctrl-C and the progress bar
_CHECKPOINT_INTERVAL = 60.0  # [s] where checkpoint_every is not given


def as_count(value: Any, name: str) -> int:
    """``value`` as a positive integer; 1e6 will do.

    Raises:
        InvalidInputError: if it is something else.
    """
    if isinstance(value, float | np.floating) and float(value).is_integer():
        value = int(value)
    try:
        count = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        count = None
    if count is None or count < 1:
        raise InvalidInputError(f"{name} must be a positive whole number, got {value!r}: write {name}=1000, say.")
    return count


@dataclass(frozen=True)
class Callback:
    """A function of the user's, called every so many steps.

    Args:
        function: called as ``function(bound, step)``, where ``bound`` is the bound simulation, a :class:`~pysamp.backends.Bound`
            (``bound.arrays``, ``bound.snapshots()``, ``bound.states``) and ``step`` the number of steps done. What the arrays
            show is valid during the call only.
        every: steps between calls; None for the stride of the log.

    Example:
        >>> import pysamp
        >>> pysamp.Callback(lambda bound, step: print(step), every=1000).every
        1000

    Raises:
        InvalidInputError: if it cannot be called, or ``every`` is not a positive whole number.
    """

    function: Any
    every: Any = None

    def __post_init__(self):
        if not callable(self.function):
            raise InvalidInputError(
                "callback must be a function of (bound, step), or pysamp.Callback(function, every=...); "
                f"got {self.function!r}."
            )
        if self.every is not None:
            object.__setattr__(self, "every", as_count(self.every, "every"))


@dataclass(frozen=True)
class Job:
    """What one simulation is to do; goes to other processes by cloudpickle.

    Attributes:
        methods: the methods.
        generate_context: the user's function.
        context_args: its arguments, one dictionary for each replica that the simulation holds.
        first_replica: number of the first of them.
        n_replicas: number of all replicas of the run.
        timesteps: steps to do.
        seed: of the whole run.
        reseed: whether the engine's own random numbers are seeded as well.
        log_every: steps between log rows.
        defaults: which of ``seed`` and ``log_every`` the user left open, so that a checkpoint may fill them in.
        callback: the user's function, or None.
        checkpoint: folder, or None.
        checkpoint_every: steps between checkpoints; None to go by the clock.
        states: where the sampler starts, or None for the beginning.
        snapshots: where the simulation starts, or None to leave it where it is.
        token: names the run among those of this process.
    """

    methods: tuple[AbstractMethod, ...]
    generate_context: Callable
    context_args: tuple[Mapping[str, Any], ...]
    first_replica: int
    n_replicas: int
    timesteps: int
    seed: int
    reseed: bool
    log_every: int
    defaults: frozenset[str] = frozenset()
    callback: Callback | None = None
    checkpoint: Path | None = None
    checkpoint_every: int | None = None
    states: Sequence[SamplerState] | None = None
    snapshots: Sequence[Snapshot] | None = None
    token: str = ""

    @property
    def start(self) -> int:
        """The step at which the run starts."""
        return 0 if self.states is None else int(self.states[0].step)


@dataclass
class Outcome:
    """What a simulation did: the parts of a Run for its replicas."""

    states: list[SamplerState]
    snapshots: list[Snapshot]
    rows: Float[np.ndarray, "replica rows width"]
    columns: list[str]
    kT: float
    timestep: float
    step: int
    interrupted: bool
    attributes: dict[str, Any] = field(default_factory=dict)


class Interrupt:
    """Ctrl-C as a flag, looked at between chunks, so that a run ends in good order; a second Ctrl-C stops at once.

    A handler that is not Python's own is left alone, and so is everything outside the main thread. There, the flag can be
    set for all simulations of a run by its token.
    """

    _running: dict[str, list["Interrupt"]] = {}

    def __init__(self, token: str):
        self.is_set = False
        self._token = token
        self._installed = False

    @classmethod
    def set_all(cls, token: str) -> None:
        """Stop the simulations of one run that are in this process."""
        for interrupt in cls._running.get(token, []):
            interrupt.is_set = True

    def _handle(self, number: int, frame: Any) -> None:
        if self.is_set:
            raise KeyboardInterrupt
        self.is_set = True

    def __enter__(self) -> "Interrupt":
        self._running.setdefault(self._token, []).append(self)
        main = threading.current_thread() is threading.main_thread()
        if main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._handle)
            self._installed = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._installed:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        self._running[self._token].remove(self)


class _Pace:
    """Length of chunks, from the speed measured."""

    def __init__(self):
        self.limit = 1
        self.seconds, self.steps, self._n_chunks = 0.0, 0, 0

    def note(self, n_steps: int, seconds: float) -> None:
        self._n_chunks += 1
        if self._n_chunks == 2:  # the first compiles: it counts only if it stays the only one
            self.seconds, self.steps = 0.0, 0
        self.seconds += seconds
        self.steps += n_steps
        if seconds > 2 * _CHUNK:
            self.limit = max(1, int(n_steps * _CHUNK / seconds))
        elif n_steps >= self.limit and seconds < 0.5 * _CHUNK:
            self.limit = int(n_steps * min(8.0, _CHUNK / max(seconds, 1e-6)))


def drive(job: Job, simulation: Any, progress: Callable[[int, bool], None]) -> Outcome:
    """Do what a job says.

    Args:
        job: the job.
        simulation: what the user's function returned.
        progress: called as ``progress(n_steps, were_done_before)``.

    Raises:
        InvalidInputError: if methods and simulation do not fit.
        CheckpointError: if the checkpoint belongs to another run, or cannot be written.
        SimulationError: if the simulation failed.
    """
    if job.checkpoint is None:
        return _drive(job, simulation, progress, None)
    with Checkpoint(job.checkpoint, job.first_replica) as checkpoint:
        return _drive(job, simulation, progress, checkpoint)


def _drive(
    job: Job, simulation: Any, progress: Callable[[int, bool], None], checkpoint: Checkpoint | None
) -> Outcome:
    clock = time.perf_counter()
    system = describe(simulation)
    sampler = Sampler.build(job.methods, system)
    fingerprint = _fingerprint(job, system)
    resumes = checkpoint is not None and checkpoint.step is not None
    header: Mapping[str, Any] = {}
    if checkpoint is not None and resumes:
        checkpoint.check({key: value for key, value in fingerprint.items() if key not in job.defaults})
        header, fingerprint = checkpoint.header, checkpoint.header["fingerprint"]
        if checkpoint.step > job.start + job.timesteps:
            raise CheckpointError(
                f"The checkpoint {str(job.checkpoint)!r} is at step {checkpoint.step}, beyond the {job.timesteps} steps that "
                "were asked for. Ask for more, or give another checkpoint=..."
            )
    seeds = _seeds(fingerprint["seed"], job)
    with bind(simulation, sampler, seed=seeds[0][0] if job.reseed else None) as bound:
        rows = []
        if checkpoint is not None and resumes:
            bound.states, snapshots, logged = checkpoint.read(bound.states[0], bound.snapshots()[0])
            _check_probe(sampler, snapshots, header["probe"], job)
            bound.restore(snapshots)
            rows.append(logged)
            logger.info("Going on from the checkpoint %s at step %d.", job.checkpoint, checkpoint.step)
        elif job.states is not None and job.snapshots is not None:
            _check_start(job, system)
            bound.states = job.states
            bound.restore(job.snapshots)
        else:
            check_cvs(sampler, bound.snapshots())
            bound.states = bound.initial_states([seed for _, seed in seeds])
        driver = _Driver(job, bound, checkpoint, fingerprint, rows, progress, header.get("wall_time", 0.0), clock)
        with Interrupt(job.token) as interrupt:
            driver.run(interrupt)
        return driver.outcome(interrupt.is_set)


class _Driver:
    """The loop over chunks."""

    def __init__(
        self,
        job: Job,
        bound: Bound,
        checkpoint: Checkpoint | None,
        fingerprint: Mapping[str, Any],
        rows: list[Float[np.ndarray, "replica _ width"]],
        progress: Callable[[int, bool], None],
        wall_time: float,
        clock: float,
    ):
        self.job, self.bound, self.checkpoint, self.fingerprint = job, bound, checkpoint, fingerprint
        self.rows, self.n_stored = rows, len(rows)
        self.progress = progress
        self.pace = _Pace()
        self.columns = log_columns(bound.sampler)
        self.log_every: int = fingerprint["log_every"]
        self.step = int(bound.states[0].step)
        self.wall_time, self.clock = wall_time, clock
        self.last_write, self.write_time = clock, 0.0

    def run(self, interrupt: Interrupt) -> None:
        """Run to the end, or to an interrupt."""
        job, bound = self.job, self.bound
        end = job.start + job.timesteps
        self.progress(self.step - job.start, True)
        if self.step < end:
            bound.reserve(end - self.step)
            if self.checkpoint is not None and self.checkpoint.step is None:
                self.write()
        while self.step < end and not interrupt.is_set:
            n_steps = self._chunk(end)
            before = time.perf_counter()
            try:
                rows = bound.run(n_steps, log_every=self.log_every)
            except SimulationError as error:
                raise SimulationError(f"{error} {self._remedy()}") from error
            self.pace.note(n_steps, time.perf_counter() - before)
            self.step += n_steps
            if rows.shape[1]:
                self.rows.append(rows)
            bound.report()
            if job.callback is not None and self.step % self._callback_stride == 0:
                job.callback.function(bound, self.step)
            if self._checkpoint_is_due():
                self.write()
            self.progress(n_steps, False)
        if self.checkpoint is not None and self.checkpoint.step != self.step:
            self.write()

    def write(self) -> None:
        """Write the checkpoint."""
        if self.checkpoint is None:
            return
        before = time.perf_counter()
        snapshots = self.bound.snapshots()
        header = {
            "fingerprint": self.fingerprint,
            "width": len(self.columns),
            "probe": _probe(self.bound.sampler, snapshots),
            "wall_time": self.wall_time + before - self.clock,
        }
        self.checkpoint.write(self.bound.states, snapshots, self.rows[self.n_stored :], header)
        self.n_stored = len(self.rows)
        self.last_write = time.perf_counter()
        self.write_time = self.last_write - before

    def outcome(self, interrupted: bool) -> Outcome:
        """What was done."""
        seconds = time.perf_counter() - self.clock
        bound, n_replicas = self.bound, self.bound.n_replicas
        rows = self.rows or [np.zeros((n_replicas, 0, len(self.columns)))]
        attributes = {
            "engine": type(bound).__module__.rpartition(".")[2],
            **bound.provenance,
            "seed": self.fingerprint["seed"],
            "log_every": self.log_every,
            "timesteps": self.step,
            "wall_time": self.wall_time + seconds,
        }
        if self.pace.steps:
            attributes["seconds_per_step"] = self.pace.seconds / self.pace.steps
        return Outcome(
            states=bound.states,
            snapshots=bound.snapshots(),
            rows=np.concatenate(rows, axis=1),
            columns=self.columns,
            kT=float(bound.sampler.kT),
            timestep=float(bound.sampler.timestep),
            step=self.step,
            interrupted=interrupted and self.step < self.job.start + self.job.timesteps,
            attributes=attributes,
        )

    @property
    def _callback_stride(self) -> int:
        callback = self.job.callback
        return self.log_every if callback is None or callback.every is None else callback.every

    def _chunk(self, end: int) -> int:
        """Steps to do at once: nothing that must happen between chunks may fall within one."""
        step = self.step
        first_row = -(-step // self.log_every) * self.log_every
        stops = [end, step + self.pace.limit, first_row + MAX_ROWS * self.log_every]
        if self.job.callback is not None:
            stops.append(_next_multiple(step, self._callback_stride))
        if self.checkpoint is not None and self.job.checkpoint_every is not None:
            stops.append(_next_multiple(step, self.job.checkpoint_every))
        return self.bound.steps_until_report(min(stops) - step)

    def _checkpoint_is_due(self) -> bool:
        if self.checkpoint is None:
            return False
        if self.job.checkpoint_every is not None:
            return self.step % self.job.checkpoint_every == 0
        return time.perf_counter() - self.last_write > max(_CHECKPOINT_INTERVAL, 50 * self.write_time)

    def _remedy(self) -> str:
        if self.checkpoint is None:
            return (
                "Nothing was kept: give checkpoint=... to have something to go back to. Smaller time steps, a relaxed start, "
                "or hills and springs less stiff are the usual cures."
            )
        return (
            f"The last good checkpoint is {str(self.job.checkpoint)!r} at step {self.checkpoint.step}; the same call goes on "
            "from there."
        )


def _next_multiple(step: int, stride: int) -> int:
    return (step // stride + 1) * stride


def _seeds(seed: int, job: Job) -> list[tuple[int, int]]:
    """Seeds of the engine and of the sampler for each replica; they do not depend on how many replicas there are."""
    replicas = range(job.first_replica, job.first_replica + len(job.context_args))
    words = [np.random.SeedSequence(seed, spawn_key=(r,)).generate_state(2) for r in replicas]
    return [(int(engine) & 0x7FFFFFFF or 1, int(sampler)) for engine, sampler in words]


def _fingerprint(job: Job, system: System) -> dict[str, Any]:
    """What must agree between the run that wrote a checkpoint and the one that goes on with it."""
    result = {
        "methods": definition(job.methods),
        "number of particles": len(system.masses),
        "masses": digest({"": np.asarray(system.masses)}),
        "timestep": float(system.timestep),
        "kT": None if system.kT is None else float(system.kT),
        "replicas": job.n_replicas,
        "replicas run together": len(job.context_args),
        "seed": job.seed,
        "log_every": job.log_every,
        "first step": job.start,
    }
    if job.states is not None:
        result["start"] = digest(to_arrays([job.states, job.snapshots]))
    return result


def _probe(sampler: Sampler, snapshots: Sequence[Snapshot]) -> list[list[float]]:
    """The CVs at the snapshots: they tell whether those who read a checkpoint still compute the same."""
    with jax.enable_x64(True):
        return [np.asarray(cv_values(sampler, sampler.particles(snapshot))).tolist() for snapshot in snapshots]


def _check_probe(sampler: Sampler, snapshots: Sequence[Snapshot], expected: list[list[float]], job: Job) -> None:
    periods = [period for method in sampler.methods for period in method.periods]
    found = _probe(sampler, snapshots)
    with jax.enable_x64(True):
        error = np.abs(periodic_difference(np.asarray(found), np.asarray(expected), periods))
    wrong = error > 1e-5 * (1.0 + np.abs(expected))
    if wrong.any():
        r, i = np.argwhere(wrong)[0]
        raise CheckpointError(
            f"The checkpoint {str(job.checkpoint)!r} belongs to another run: the CV {sampler.labels[i]} was {expected[r][i]} "
            f"there and is {found[r][i]} now, at the same positions. Has its function changed? For a new run, give another "
            "checkpoint=... or delete that folder."
        )


def _check_start(job: Job, system: System) -> None:
    for snapshot in job.snapshots or []:
        if not np.array_equal(np.asarray(snapshot.masses, dtype=np.float64), np.asarray(system.masses, dtype=np.float64)):
            raise InvalidInputError(
                f"generate_context returned a system of {len(system.masses)} particles that is not the one of the result to go "
                f"on from, of {len(snapshot.masses)} particles: their masses differ. Give the function that began the run."
            )

