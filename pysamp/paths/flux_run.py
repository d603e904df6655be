"""Forward flux sampling: the run, stage by stage."""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from .._job import as_count
from .._serial import from_arrays, to_arrays
from ..api import run
from ..run import Bar, as_checkpoint, as_context_args, as_generator, as_seed
from ..snapshot import Snapshot
from ._basin import Walkers
from ._crossing import CROSSED, Crossing, crossing_state, outcome_of
from ._folder import Folder, NoFolder
from ._frames import Frames
from ._progress import OutOfStepsError, Progress, fingerprint_of, provenance_of
from ._segments import Beginning, Done, Segment, Segments, seed_of
from .flux_result import ForwardFluxRun, Interface
from .forward_flux import ForwardFlux

__all__ = []

_TRIALS, _PILOT, _PARENTS = range(1, 4)  # what seeds are for; 0 are the walkers'
_UNLIMITED = 2**62


@run.dispatch
def _run_forward_flux(
    method: ForwardFlux,
    generate_context: Any = None,
    timesteps: Any = None,
    *,
    context_args: Any = None,
    replicas: Any = 1,
    executor: Any = None,
    checkpoint: Any = None,
    checkpoint_every: Any = None,
    progress: bool = True,
    seed: Any = None,
) -> ForwardFluxRun:
    """Forward flux sampling; ``timesteps`` bounds the MD steps of all trajectories together."""
    limit = as_count(timesteps, "timesteps")
    n_together = as_count(replicas, "replicas")
    options = as_checkpoint(checkpoint, checkpoint_every)
    crossing = Crossing(cvs=(method.cv,), sign=np.asarray(method.sign))
    segments = Segments(
        crossing,
        as_generator(generate_context),
        as_context_args(context_args, 1),
        n_together=n_together,
        executor=executor,
    )
    folder = Folder(options["checkpoint"]) if options else NoFolder()
    with folder, segments, Bar(limit, progress) as bar:
        beginning = segments.begin()
        fingerprint = fingerprint_of(method, beginning, n_together)
        given = {} if seed is None else {"seed": as_seed(seed)}
        definition = folder.open({**fingerprint, **given}, {} if given else {"seed": as_seed(None)})
        steps = Progress(limit, folder, options.get("checkpoint_every"), bar, segments.interrupt)
        driver = _Driver(method, segments, beginning, folder, steps, int(definition["seed"]), n_together)
        return driver.run()


class _Driver:
    """The stages of one run.

    Attributes:
        interfaces: those reached so far.
        walker_steps: MD steps of each walker that belong to the basin.
    """

    def __init__(
        self,
        method: ForwardFlux,
        segments: Segments,
        beginning: Beginning,
        folder: NoFolder,
        progress: Progress,
        seed: int,
        n_walkers: int,
    ):
        self.method, self.segments, self.beginning = method, segments, beginning
        self.folder, self.progress, self.seed, self.n_walkers = folder, progress, seed, n_walkers
        self.masses = np.asarray(beginning.system.masses)
        self.levels = method.sign * method.interfaces  # in terms of the order parameter, which rises
        self.interfaces: list[Interface] = []
        self.walker_steps = np.zeros(n_walkers, dtype=np.int64)
        self.clock = time.perf_counter()

    def run(self) -> ForwardFluxRun:
        """All stages, or as far as they go."""
        message = ""
        try:
            self._basin()
            while self.interfaces[-1].value != self.method.interfaces[-1]:
                if not self._trials():
                    first, n = self.interfaces[-1], len(self.interfaces)
                    message = (
                        f"None of the {first.n_trials} trials from interface {n - 1}, at {first.value:.6g}, reached the next, at "
                        f"{self._next:.6g}: place one between the two (or target=0.3), or begin more trials."
                    )
                    break
        except OutOfStepsError:
            reached = [interface for interface in self.interfaces if interface.n_points]
            at = f"interface {len(reached) - 1} was reached" if reached else "no walker crossed the first interface"
            message = (
                f"The {self.progress.limit} MD steps that were granted were spent when {at}: grant more timesteps."
            )
        return ForwardFluxRun(
            method=self.method,
            interfaces=tuple(self.interfaces),
            masses=self.masses,
            kT=self.beginning.kT,
            timestep=float(self.beginning.system.timestep),
            walker_steps=self.walker_steps,
            message=message,
            attributes={
                **provenance_of(self.beginning),
                "seed": self.seed,
                "replicas": self.n_walkers,
                "timesteps": self.progress.spent,
                "wall_time": time.perf_counter() - self.clock,
            },
        )

    # ------------------------------------------------------------------------------------------------- the basin

    def _basin(self) -> None:
        """Crossings of the first interface by walkers in the basin."""
        stored = self.folder.read("stage-000")
        if stored is not None:
            self._take(stored)
            return
        walkers = Walkers(self.method, self.beginning, self.do, self.seed, self.n_walkers)
        partial = self.folder.read("partial-000")
        if partial is not None:
            walkers.take(partial)
            self.progress.resume(int(partial["spent"]))
        try:
            while walkers.turn():
                self.progress.write("partial-000", walkers.arrays)
        finally:
            self.walker_steps = walkers.clock
        self._finish(
            _interface(
                self.method.interfaces[0],
                Frames.of(walkers.points, self.beginning.snapshots[0]),
                trial=np.full(len(walkers.points), -1),
                root=np.arange(len(walkers.points)),
                walker=np.array(walkers.owners, dtype=np.int64),
                n_steps=np.array(walkers.times, dtype=np.int64),
            )
        )

    # ------------------------------------------------------------------------------------------------- the trials

    def _trials(self) -> bool:
        """Trials from the last interface reached; whether one of them reached the next."""
        number = len(self.interfaces)
        stored = self.folder.read(f"stage-{number:03d}")
        if stored is not None:
            return self._take(stored)
        here = self.interfaces[-1]
        partial = self.folder.read(f"partial-{number:03d}")
        records = _Records.begin(self, partial)
        if records.next is None:
            records.next = self._place_next(number)
        level = records.next
        self._next = float(self.method.sign * level)
        parents = self._parents(number, self.method.n_trials, _PARENTS)
        while len(records.outcomes) < len(parents):
            start = len(records.outcomes)
            batch = range(start, min(start + self.n_walkers, len(parents)))
            for done in self._do_trials([int(parents[t]) for t in batch], level, _TRIALS, number, start):
                records.add(done)
            self.progress.write(f"partial-{number:03d}", records.arrays)
        succeeded = np.array([outcome == CROSSED for outcome, _, _ in records.outcomes])
        trial = np.flatnonzero(succeeded)
        tried = _replace(
            here,
            parent=parents,
            succeeded=succeeded,
            trial_steps=np.array([n for _, n, _ in records.outcomes]),
            highest=np.array([highest for _, _, highest in records.outcomes]),
        )
        root = here.root[parents[trial]]
        reached = _interface(
            self.method.sign * level,
            Frames.of(records.snapshots, self.beginning.snapshots[0]),
            trial=trial,
            root=root,
            walker=here.walker[parents[trial]],
            n_steps=tried.trial_steps[trial],
        )
        return self._finish(reached, tried)

    def _parents(self, number: int, n: int, purpose: int) -> np.ndarray:
        """Points to begin from: all of them equally often, as nearly as can be, in an order that is drawn."""
        rng = np.random.default_rng(seed_of(self.seed, purpose, number))
        order = rng.permutation(self.interfaces[-1].n_points)
        return order[np.arange(n) % len(order)].astype(np.int64)

    def _do_trials(self, parents: Sequence[int], level: float, purpose: int, number: int, start: int) -> list[Done]:
        here = self.interfaces[-1]
        state = crossing_state(
            basin=self._basin_level, interface=level, target=np.inf, is_trial=True, in_basin=True, limit=_UNLIMITED
        )
        return self.do(
            [
                Segment(
                    here.frames.snapshot(parent, self.masses),
                    state,
                    seed_of(self.seed, purpose, number, start + i),
                    _UNLIMITED,
                )
                for i, parent in enumerate(parents)
            ]
        )

    def _place_next(self, number: int) -> float:
        """The order parameter at the next interface: given, or where the wanted part of pilot trials gets to."""
        here = float(self.method.sign * self.interfaces[-1].value)
        given = float(self.levels[self.levels > here + 1e-12 * max(1.0, abs(here))][0])
        if self.method.target is None:
            return given
        parents = self._parents(number, self.method.n_pilot, _PILOT)
        highest = []
        for start in range(0, len(parents), self.n_walkers):
            part = [int(p) for p in parents[start : start + self.n_walkers]]
            highest += [outcome_of(done.state)[2] for done in self._do_trials(part, given, _PILOT, number, start)]
        rank = int(np.ceil(self.method.target * len(highest)))
        least = here + 1e-3 * (self.levels[-1] - self.levels[0])
        return min(given, max(float(np.sort(highest)[::-1][rank - 1]), least))

    # ------------------------------------------------------------------------------------------------- both

    @property
    def _basin_level(self) -> float:
        return self.method.sign * float(self.method.basin)

    def do(self, segments: Sequence[Segment]) -> list[Done]:
        """Segments to their ends.

        Raises:
            OutOfStepsError: if the steps do not suffice.
            RunInterrupted: after Ctrl-C.
        """
        done, n_steps, complete = self.segments.run(segments, self.progress.left)
        self.progress.count(n_steps)
        if not complete:
            self.progress.write_now()
            self.progress.check_interrupt()
            raise OutOfStepsError(n_steps)
        return done

    def _finish(self, reached: Interface, tried: Interface | None = None) -> bool:
        """Note a stage that is done."""
        number = len(self.interfaces)
        arrays = to_arrays(reached, "reached.") | {
            "spent": np.asarray(self.progress.spent),
            "walker_steps": self.walker_steps,
        }
        if tried is not None:
            names = ("parent", "succeeded", "trial_steps", "highest")
            arrays |= {f"tried.{name}": getattr(tried, name) for name in names}
        self.folder.write(f"stage-{number:03d}", arrays)
        self.folder.remove(f"partial-{number:03d}")
        self.progress.forget()
        return self._take(arrays)

    def _take(self, stored: dict[str, np.ndarray]) -> bool:
        """Take over a stage that is done."""
        like = self.beginning.snapshots[0]
        reached = from_arrays(_interface(0.0, Frames.of([], like)), stored, "reached.")
        self.progress.resume(int(stored["spent"]))
        self.walker_steps = stored["walker_steps"]
        if self.interfaces:
            names = ("parent", "succeeded", "trial_steps", "highest")
            self.interfaces[-1] = _replace(self.interfaces[-1], **{name: stored[f"tried.{name}"] for name in names})
        self._next = float(reached.value)
        if not reached.n_points:
            return False
        self.interfaces.append(reached)
        return True


class _Records:
    """Trials of a stage so far."""

    def __init__(self, driver: _Driver):
        self._driver = driver
        self.next: float | None = None
        self.outcomes: list[tuple[int, int, float]] = []
        self.snapshots: list[Snapshot] = []

    @classmethod
    def begin(cls, driver: _Driver, stored: dict[str, np.ndarray] | None) -> "_Records":
        records = cls(driver)
        if stored is not None:
            columns = (stored["outcome"].tolist(), stored["n_steps"].tolist(), stored["highest"].tolist())
            records.outcomes = list(zip(*columns, strict=True))
            records.next = float(stored["next"])
            frames = from_arrays(Frames.of([], driver.beginning.snapshots[0]), stored, "frames.")
            records.snapshots = [frames.snapshot(i, driver.masses) for i in range(len(frames))]
            driver.progress.resume(int(stored["spent"]))
        return records

    def add(self, done: Done) -> None:
        self.outcomes.append(outcome_of(done.state))
        if self.outcomes[-1][0] == CROSSED:
            self.snapshots.append(done.snapshot)

    def arrays(self) -> dict[str, np.ndarray]:
        outcome, n_steps, highest = zip(*self.outcomes, strict=True)
        frames = Frames.of(self.snapshots, self._driver.beginning.snapshots[0])
        return to_arrays(frames, "frames.") | {
            "outcome": np.array(outcome),
            "n_steps": np.array(n_steps),
            "highest": np.array(highest),
            "next": np.asarray(self.next),
            "spent": np.asarray(self._driver.progress.spent),
        }


def _interface(value: Any, frames: Frames, **arrays: Any) -> Interface:
    none = np.zeros(0, dtype=np.int64)
    parts: dict[str, Any] = dict.fromkeys(("trial", "root", "walker", "n_steps", "parent", "trial_steps"), none)
    parts |= {"succeeded": np.zeros(0, dtype=bool), "highest": np.zeros(0)}
    return Interface(value=np.asarray(value, dtype=np.float64), frames=frames, **{**parts, **arrays})


def _replace(interface: Interface, **changes: Any) -> Interface:
    parts = {name: getattr(interface, name) for name in Interface.__dataclass_fields__}
    return Interface(**{**parts, **changes})
