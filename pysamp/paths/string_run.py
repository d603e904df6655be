"""String methods: the run, iteration by iteration, and the free energy along the string."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.interpolate import CubicSpline

from .._job import as_count
from .._serial import from_arrays, to_arrays
from ..analysis.errors import jackknife_error
from ..api import analyze, run
from ..errors import InvalidInputError
from ..run import Bar, as_checkpoint, as_context_args, as_generator, as_seed
from ..snapshot import Snapshot
from ._folder import Folder, NoFolder
from ._frames import Frames
from ._image import Image, image_state
from ._progress import OutOfStepsError, Progress, fingerprint_of, provenance_of
from ._segments import Beginning, Done, Segment, Segments, seed_of
from .string_method import AbstractString, MeanForceString, SwarmString, arc_length, difference

__all__ = ["PathFreeEnergy", "StringRun"]

_WINDOW = 5  # iterations over which the string is averaged to see whether it drifts
_N_BLOCKS = 10


@dataclass(frozen=True, eq=False)
class StringRun:
    """Result of :func:`~pysamp.run` with a string method.

    Attributes:
        method: what was asked for.
        paths: the string at the beginning of each iteration, and at the end of the last [CV unit].
        gradients: gradient of the free energy at the images in each iteration [energy / CV unit].
        frames: where each image is at the end.
        masses: [mass].
        kT: thermal energy [energy].
        attributes: versions, seed, engine, MD steps: the provenance.
    """

    method: AbstractString
    paths: Float[np.ndarray, "iterations_and_1 m n"]
    gradients: Float[np.ndarray, "iterations m n"]
    frames: Frames
    masses: Float[np.ndarray, " p"]
    kT: float
    attributes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def path(self) -> Float[np.ndarray, "m n"]:
        """The string at the end."""
        return self.paths[-1]

    @property
    def drift(self) -> Float[np.ndarray, " iterations"]:
        """How far the string, averaged over five iterations, is from its average over the five before; nan at first."""
        return np.array([_drift(self.paths[: i + 1], self.method.kspring) for i in range(1, len(self.paths))])

    def snapshots(self) -> list[Snapshot]:
        """Where each image is at the end."""
        return [self.frames.snapshot(i, self.masses) for i in range(len(self.frames))]


@dataclass(frozen=True, eq=False)
class PathFreeEnergy:
    """Free energy along a string.

    Attributes:
        values: at each image, 0 at the first [energy].
        stderr: its standard error, of the difference from the first image [energy].
        path: the images [CV unit].
        arc_length: length of the string up to each image.
        replicates: ``values`` with a block of iterations left out at a time [energy].
        kT: thermal energy [energy].
        labels: label of each CV.
        unit: name of the unit of energy.
    """

    values: Float[np.ndarray, " m"]
    stderr: Float[np.ndarray, " m"]
    path: Float[np.ndarray, "m n"]
    arc_length: Float[np.ndarray, " m"]
    replicates: Float[np.ndarray, "b m"]
    kT: float
    labels: tuple[str, ...]
    unit: str = "energy"

    def difference(self, first: int, second: int) -> tuple[float, float]:
        """F(second) - F(first) of two images, and its standard error [energy].

        Args:
            first: number of an image.
            second: number of the other.
        """
        error = jackknife_error(self.replicates[:, second] - self.replicates[:, first])
        return float(self.values[second] - self.values[first]), float(error)


@analyze.dispatch
def _analyze_string(result: StringRun, /, *, discard: float = 0.5) -> PathFreeEnergy:
    r"""Free energy along the string, $F(s) = \int \nabla F \cdot \mathrm dz$, averaged over iterations.

    Errors come from the jackknife over ten blocks of iterations.

    Args:
        result: a run of a string method.
        discard: part of the iterations to leave out at the beginning, while the string still moved.
    """
    n = len(result.gradients)
    first = int(discard * n)
    if not 0 <= discard < 1 or n - first < 2:
        raise InvalidInputError(
            f"A free energy with an error needs two iterations at least, and {n - first} of {n} are left with "
            f"discard={discard}: run longer."
        )
    weights = result.method.kspring
    profiles = np.array([_profile(result.paths[i], result.gradients[i], weights) for i in range(first, n)])
    blocks = np.array_split(np.arange(len(profiles)), min(_N_BLOCKS, len(profiles)))
    replicates = np.array([np.delete(profiles, block, axis=0).mean(axis=0) for block in blocks])
    path = result.paths[first:n].mean(axis=0)
    return PathFreeEnergy(
        values=profiles.mean(axis=0),
        stderr=jackknife_error(replicates),
        path=path,
        arc_length=arc_length(path, weights),
        replicates=replicates,
        kT=result.kT,
        labels=result.method.labels,
        unit=str(result.attributes.get("energy_unit", "energy")),
    )


def _profile(
    path: Float[np.ndarray, "m n"], gradient: Float[np.ndarray, "m n"], weights: Float[np.ndarray, " n"]
) -> Float[np.ndarray, " m"]:
    """Integral of the gradient along splines through the images."""
    s = arc_length(path, weights)
    tangent = CubicSpline(s, path)(s, 1)
    integral = CubicSpline(s, np.sum(gradient * tangent, axis=1)).antiderivative()
    return integral(s) - integral(s[0])


def _drift(paths: Float[np.ndarray, "k m n"], weights: Float[np.ndarray, " n"]) -> float:
    if len(paths) < 2 * _WINDOW:
        return float("nan")
    moved = paths[-_WINDOW:].mean(axis=0) - paths[-2 * _WINDOW : -_WINDOW].mean(axis=0)
    return float(np.mean(np.linalg.norm(moved * np.sqrt(weights / weights.max()), axis=1)))


@run.dispatch
def _run_string(
    method: AbstractString,
    generate_context: Any = None,
    timesteps: Any = None,
    *,
    context_args: Any = None,
    executor: Any = None,
    replicas: Any = None,
    checkpoint: Any = None,
    checkpoint_every: Any = None,
    progress: bool = True,
    seed: Any = None,
) -> StringRun:
    """A string method; ``context_args`` may be a list with one dictionary for each image, which then begins there."""
    limit = as_count(timesteps, "timesteps")
    n_images = len(method.path)
    several = isinstance(context_args, list | tuple)
    options = as_checkpoint(checkpoint, checkpoint_every)
    segments = Segments(
        Image(cvs=method.cvs, kspring=method.kspring),
        as_generator(generate_context),
        as_context_args(context_args, n_images if several else 1),
        n_together=n_images if replicas is None else as_count(replicas, "replicas"),
        executor=executor,
    )
    folder = Folder(options["checkpoint"]) if options else NoFolder()
    with folder, segments, Bar(limit, progress) as bar:
        beginning = segments.begin()
        fingerprint = fingerprint_of(method, beginning, segments.n_together)
        given = {} if seed is None else {"seed": as_seed(seed)}
        definition = folder.open({**fingerprint, **given}, {} if given else {"seed": as_seed(None)})
        steps = Progress(limit, folder, options.get("checkpoint_every"), bar, segments.interrupt)
        return _Driver(method, segments, beginning, folder, steps, int(definition["seed"])).run()


class _Driver:
    """The iterations of one run."""

    def __init__(
        self,
        method: AbstractString,
        segments: Segments,
        beginning: Beginning,
        folder: NoFolder,
        progress: Progress,
        seed: int,
    ):
        self.method, self.segments, self.beginning = method, segments, beginning
        self.folder, self.progress, self.seed = folder, progress, seed
        self.masses = np.asarray(beginning.system.masses)
        self.paths = [np.asarray(method.path)]
        self.gradients: list[np.ndarray] = []
        self.snapshots: list[Snapshot] = []
        self.clock = time.perf_counter()

    def run(self) -> StringRun:
        """Iterations until the steps are spent, or the string has stopped."""
        stored = self.folder.read("string")
        if stored is not None:
            self._take(stored)
        try:
            if not self.snapshots:
                self._grow()
            while not self._has_stopped():
                self._iterate()
                self.progress.write("string", self._arrays)
        except OutOfStepsError:
            if not self.gradients:
                raise InvalidInputError(
                    f"{self.progress.limit} MD steps do not suffice for the first iteration of {len(self.paths[0])} images: "
                    "grant more timesteps."
                ) from None
        self.progress.write_now()
        return StringRun(
            method=self.method,
            paths=np.array(self.paths),
            gradients=np.array(self.gradients),
            frames=Frames.of(self.snapshots, self.beginning.snapshots[0]),
            masses=self.masses,
            kT=self.beginning.kT,
            attributes={
                **provenance_of(self.beginning),
                "seed": self.seed,
                "timesteps": self.progress.spent,
                "wall_time": time.perf_counter() - self.clock,
            },
        )

    def _has_stopped(self) -> bool:
        tolerance = self.method.tolerance
        return tolerance is not None and _drift(np.array(self.paths), self.method.kspring) < tolerance

    def _grow(self) -> None:
        """Bring each image to its place: along the string from the one nearest to where the simulation begins."""
        path, n = self.paths[0], len(self.paths[0])
        n_steps = self.method.n_equilibration
        starts = self.beginning.snapshots
        if len(starts) == n:
            states = [
                image_state(z, start=xi, n_moving=n_steps // 2) for z, xi in zip(path, self.beginning.xi, strict=True)
            ]
            self.snapshots = [done.snapshot for done in self._do(starts, states, n_steps, (0, 0))]
            return
        scale = np.sqrt(self.method.kspring / self.method.kspring.max())
        away = difference(self.beginning.xi[0][None], path, self.method.periods) * scale
        nearest = int(np.argmin(np.linalg.norm(away, axis=1)))
        first = image_state(path[nearest], start=self.beginning.xi[0], n_moving=n_steps // 2)
        (done,) = self._do(starts[:1], [first], n_steps, (0, 0))
        at = np.full(n, nearest)
        snapshots = [done.snapshot] * n
        number = 1
        while (at != np.arange(n)).any():
            moving = np.flatnonzero(at != np.arange(n))
            following = at[moving] + np.sign(moving - at[moving])
            states = [
                image_state(path[b], start=path[a], n_moving=n_steps // 2)
                for a, b in zip(at[moving], following, strict=True)
            ]
            ends = self._do([snapshots[i] for i in moving], states, n_steps, (0, number))
            for i, end in zip(moving, ends, strict=True):
                snapshots[i] = end.snapshot
            at[moving] = following
            number += 1
        self.snapshots = snapshots

    def _iterate(self) -> None:
        """Hold, measure, move, space equally."""
        method, path = self.method, self.paths[-1]
        number = len(self.gradients) + 1
        if isinstance(method, SwarmString):
            held, moves, snapshots = self._swarm(method, path, number)
        else:
            held = self._held(path, method.n_equilibration + method.n_steps, method.n_equilibration, number)
            snapshots = [done.snapshot for done in held]
            moves = None
        deviation = np.array([done.state.deviation / done.state.n for done in held])
        gradient = -method.kspring * deviation
        if moves is None:
            assert isinstance(method, MeanForceString)
            matrix = np.array([done.state.inverse_mass / done.state.n for done in held])
            mobility = matrix * method.kspring
            largest = max(float(np.max(np.abs(np.linalg.eigvals(m)))) for m in mobility)
            moves = method.step / largest * np.einsum("inm,im->in", mobility, deviation)
        if method.fixed_ends:
            moves[[0, -1]] = 0.0
        moved = path + moves
        if method.smoothing:
            inner = 0.5 * (moved[:-2] + moved[2:])
            moved[1:-1] = (1 - method.smoothing) * moved[1:-1] + method.smoothing * inner
        self.paths.append(method.spaced(moved))
        self.gradients.append(gradient)
        self.snapshots = snapshots

    def _held(self, path: np.ndarray, n_steps: int, n_skipped: int, number: int) -> list[Done]:
        states = [image_state(z, n_skipped=n_skipped) for z in path]
        return self._do(self.snapshots, states, n_steps, (number, 0))

    def _swarm(
        self, method: SwarmString, path: np.ndarray, number: int
    ) -> tuple[list[Done], np.ndarray, list[Snapshot]]:
        """Hold each image for as many parts as there are trajectories in a swarm, and release one at the end of each."""
        n, part = len(path), method.n_steps // method.n_swarm
        before = self._held(path, method.n_equilibration, 0, number)
        current = [done.snapshot for done in before]
        begins: list[Snapshot] = []
        total: list[Done] = []
        states = [image_state(z) for z in path]
        for i in range(method.n_swarm):
            total = self._do(current, states, part, (number, 1 + i))
            states = [done.state for done in total]
            current = [done.snapshot for done in total]
            begins += current
        free = [image_state(z, strength=0.0) for _ in range(method.n_swarm) for z in path]
        # one step more: the last configuration is seen at the step that begins there
        ends = self._do(begins, free, method.n_release + 1, (number, 1 + method.n_swarm))
        last = np.array([done.state.last for done in ends]).reshape(method.n_swarm, n, -1)
        return total, last.mean(axis=0), current

    def _do(
        self, snapshots: Sequence[Snapshot], states: Sequence[Any], n_steps: int, place: tuple[int, int]
    ) -> list[Done]:
        """Segments of equal length.

        Raises:
            OutOfStepsError: if the steps do not suffice.
            RunInterrupted: after Ctrl-C.
        """
        segments = [
            Segment(snapshot, state, seed_of(self.seed, *place, i), n_steps)
            for i, (snapshot, state) in enumerate(zip(snapshots, states, strict=True))
        ]
        done, spent, complete = self.segments.run(segments, self.progress.left)
        self.progress.count(spent)
        if not complete:
            self.progress.write_now()
            self.progress.check_interrupt()
            raise OutOfStepsError(spent)
        return done

    def _arrays(self) -> dict[str, np.ndarray]:
        frames = Frames.of(self.snapshots, self.beginning.snapshots[0])
        return to_arrays(frames, "frames.") | {
            "paths": np.array(self.paths),
            "gradients": np.array(self.gradients),
            "spent": np.asarray(self.progress.spent),
        }

    def _take(self, stored: Mapping[str, np.ndarray]) -> None:
        frames = from_arrays(Frames.of([], self.beginning.snapshots[0]), stored, "frames.")
        self.snapshots = [frames.snapshot(i, self.masses) for i in range(len(frames))]
        self.paths, self.gradients = list(stored["paths"]), list(stored["gradients"])
        self.progress.resume(int(stored["spent"]))
