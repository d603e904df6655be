"""Drives one bound simulation: chunks, log, callbacks, checkpoints and Ctrl-C."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from ._checks import check_cvs, cv_values
from ._interrupt import Interrupt
from ._job import Job, Outcome
from ._serial import on_host, to_arrays
from .api import bind, describe
from .backends.base import Bound
from .checkpoint import Checkpoint, definition, digest
from .errors import CheckpointError, InvalidInputError, SimulationError
from .loop import MAX_ROWS, log_columns
from .methods.base import periodic_difference
from .results import Run
from .sampler import Sampler
from .snapshot import Snapshot
from .system import System

__all__ = ["drive"]

logger = logging.getLogger("pysamp")

_CHUNK = 0.2  # [s] between two looks at Ctrl-C and the progress bar
_CHECKPOINT_INTERVAL = 60.0  # [s] where checkpoint_every is not given
_WORK_PER_WRITE = 50.0  # and no sooner than this many times what writing the last one took


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


def _drive(job: Job, simulation: Any, progress: Callable[[int, bool], None], checkpoint: Checkpoint | None) -> Outcome:
    clock = time.perf_counter()
    system = describe(simulation)
    sampler = Sampler.build(job.methods, system, walkers=job.n_replicas if job.shared else 1)
    for method in sampler.methods:
        if method.stops:
            raise InvalidInputError(
                f"{type(method).__name__} ends its trajectories by itself, so it cannot be run for a number of steps."
            )
    fingerprint = _fingerprint(job, system)
    header: Mapping[str, Any] = {}
    if checkpoint is not None and checkpoint.step is not None:
        checkpoint.check({key: value for key, value in fingerprint.items() if key not in job.defaults})
        header, fingerprint = checkpoint.header, checkpoint.header["fingerprint"]
        if checkpoint.step > job.start + job.timesteps:
            raise CheckpointError(
                f"The checkpoint {str(job.checkpoint)!r} is at step {checkpoint.step}, beyond the {job.timesteps} steps that "
                "were asked for. Ask for more, or give another checkpoint=..."
            )
    seeds = _seeds(fingerprint["seed"], job)
    of_engine = [engine for engine, _ in seeds]
    seed = of_engine[0] if len(seeds) == 1 else of_engine
    with bind(simulation, sampler, seed=seed if job.reseed else None) as bound:
        rows = []
        if checkpoint is not None and checkpoint.step is not None:
            bound.states, snapshots, logged = checkpoint.read(bound.states[0], bound.snapshots()[0])
            _check_probe(sampler, snapshots, header["probe"], job)
            bound.restore(snapshots)
            rows.append(logged)
            logger.info("Going on from the checkpoint %s at step %d.", job.checkpoint, checkpoint.step)
        elif job.before is not None:
            _check_start(job.before, sampler, system)
            bound.states = job.before.states
            bound.restore(job.before.snapshots)
        else:
            check_cvs(sampler, bound.snapshots())
            bound.states = bound.initial_states([seed for _, seed in seeds], job.first_replica)
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
        if self.job.shared:
            attributes["walkers"] = self.job.n_replicas
        if self.pace.steps:
            attributes["seconds_per_step"] = self.pace.seconds / self.pace.steps
        return Outcome(
            states=[on_host(state) for state in bound.states],
            snapshots=bound.snapshots(),
            rows=np.concatenate(rows, axis=1),
            columns=self.columns,
            kT=float(bound.sampler.kT),
            timestep=float(bound.sampler.timestep),
            step=self.step,
            interrupted=interrupted,
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
        stops = [end, step + self.pace.limit, first_row + (MAX_ROWS - 1) * self.log_every]
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
        return time.perf_counter() - self.last_write > max(_CHECKPOINT_INTERVAL, _WORK_PER_WRITE * self.write_time)

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
    """Seeds of the engine and of the sampler for each replica; they do not depend on how many replicas there are.

    A run that goes on has others, for the case that the engine cannot restore its random numbers.
    """
    replicas = range(job.first_replica, job.first_replica + len(job.context_args))
    words = [np.random.SeedSequence(seed, spawn_key=(r, job.start)).generate_state(2) for r in replicas]
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
    if job.shared:
        result["shared"] = True
    if job.before is not None:
        result["start"] = digest(to_arrays([job.before.states, job.before.snapshots]))
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


def _check_start(before: Run, sampler: Sampler, system: System) -> None:
    for snapshot in before.snapshots:
        if not np.array_equal(np.asarray(snapshot.masses), np.asarray(system.masses)):
            raise InvalidInputError(
                f"generate_context returned a system of {len(system.masses)} particles that is not the one of the result to go "
                f"on from, of {len(snapshot.masses)} particles: their masses differ. Give the function that began the run."
            )
    for name, there, here in (
        ("time step", before.timestep, sampler.timestep),
        ("thermal energy kT", before.kT, sampler.kT),
    ):
        if not np.isclose(there, here, rtol=1e-6, atol=0.0):
            raise InvalidInputError(
                f"The {name} was {there} in the result to go on from and is {float(here)} in the simulation that "
                "generate_context returned. Make them equal, or begin a new run."
            )
