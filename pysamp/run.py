"""`run`: replicas, executors, and the result."""

import logging
import math
import operator
import sys
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import xarray as xr

from ._drive import drive
from ._interrupt import Interrupt
from ._job import Callback, Job, Outcome, as_count
from ._walkers import check_shared
from .api import run, stack
from .checkpoint import Checkpoint
from .errors import InvalidInputError, RunInterrupted, UnsupportedError
from .methods.base import AbstractMethod
from .results import Run
from .sampler import as_methods

__all__ = ["Callback", "run"]

logger = logging.getLogger("pysamp")

_FIRST_PART = 20  # part of the steps after which a criterion to stop is asked for the first time
_TOGETHER = (
    "Walkers that share a bias run together in one program, so executor=... must be left out. Engines that can: "
    "pysamp.backends.jaxmd and pysamp.backends.toy, with simulations that differ in positions and velocities only."
)
_NEXT_PART = 1.25  # and by how much more there is each time after that


@run.dispatch
def _run_methods(
    methods: object,
    generate_context: Any = None,
    timesteps: Any = None,
    *,
    context_args: Any = None,
    replicas: Any = 1,
    shared: bool = False,
    executor: Any = None,
    callback: Any = None,
    log_every: Any = None,
    checkpoint: Any = None,
    checkpoint_every: Any = None,
    until: Any = None,
    progress: bool = True,
    seed: Any = None,
) -> Run:
    """Begin a run."""
    methods = as_methods(methods)
    n_replicas = as_count(replicas, "replicas") * _n_windows(methods)
    n_steps = as_count(timesteps, "timesteps")
    defaults = {name for name, value in (("seed", seed), ("log_every", log_every)) if value is None}
    seed = as_seed(seed)
    job = Job(
        methods=methods,
        generate_context=as_generator(generate_context),
        context_args=as_context_args(context_args, n_replicas),
        first_replica=0,
        n_replicas=n_replicas,
        timesteps=n_steps,
        seed=seed,
        reseed="seed" not in defaults or n_replicas > 1,
        log_every=_default_stride(n_steps) if log_every is None else as_count(log_every, "log_every"),
        defaults=frozenset(defaults),
        callback=_as_callback(callback),
        shared=_as_shared(shared, methods, n_replicas, executor),
        **as_checkpoint(checkpoint, checkpoint_every),
    )
    return _execute(job, executor, progress) if until is None else _execute_until(until, job, executor, progress)


@run.dispatch
def _run_on(
    result: Run,
    generate_context: Any = None,
    timesteps: Any = None,
    *,
    context_args: Any = None,
    executor: Any = None,
    callback: Any = None,
    log_every: Any = None,
    checkpoint: Any = None,
    checkpoint_every: Any = None,
    until: Any = None,
    progress: bool = True,
) -> Run:
    """Go on where a run ended."""
    n_replicas = len(result.states)
    n_steps = as_count(timesteps, "timesteps")
    stride = int(result.attributes.get("log_every", _default_stride(n_steps)))
    job = Job(
        methods=result.methods,
        generate_context=as_generator(generate_context),
        context_args=as_context_args(context_args, n_replicas),
        first_replica=0,
        n_replicas=n_replicas,
        timesteps=n_steps,
        seed=int(result.attributes.get("seed", 0)),
        reseed=True,
        log_every=stride if log_every is None else as_count(log_every, "log_every"),
        callback=_as_callback(callback),
        before=result,
        shared=_goes_on_shared(result, executor),
        **as_checkpoint(checkpoint, checkpoint_every),
    )
    return _execute(job, executor, progress) if until is None else _execute_until(until, job, executor, progress)


def _as_shared(shared: Any, methods: Sequence[AbstractMethod], n_replicas: int, executor: Any) -> bool:
    if shared not in (True, False):
        raise InvalidInputError(f"shared must be True or False, got {shared!r}.")
    if not shared or n_replicas == 1:
        return False
    check_shared(methods)
    if _n_windows(methods) > 1:
        raise InvalidInputError("Windows have each a bias of their own; leave shared=True out.")
    if executor is not None:
        raise InvalidInputError(_TOGETHER)
    return True


def _goes_on_shared(result: Run, executor: Any) -> bool:
    if not result.walkers:
        return False
    if result.n_replicas != result.walkers:
        raise InvalidInputError(
            f"This is {result.n_replicas} of {result.walkers} walkers that share a bias; only all of them can go on together."
        )
    if executor is not None:
        raise InvalidInputError(_TOGETHER)
    return True


def _n_windows(methods: Sequence[AbstractMethod]) -> int:
    """Replicas that belong together."""
    numbers = {method.n_replicas for method in methods} - {1}
    if len(numbers) > 1:
        raise InvalidInputError(f"All methods with windows need the same number of them, got {sorted(numbers)}.")
    return numbers.pop() if numbers else 1


def _execute_until(until: Any, job: Job, executor: Any, progress: bool) -> Run:
    """Run in parts, each a quarter of what was done before, until the user's criterion holds or all steps are done."""
    if not callable(until):
        raise InvalidInputError(
            f"until must be pysamp.Converged(...) or a function of the run so far that returns a bool, got {until!r}."
        )
    done = 0 if job.checkpoint is None else max(_checkpoint_steps(job), default=job.start) - job.start
    part = math.ceil(max(job.timesteps / _FIRST_PART, job.log_every))
    result = job.before
    while True:
        part = max(part, min(done, job.timesteps))
        if job.checkpoint is not None:  # which the same job, only longer, goes on from
            result = _execute(replace(job, timesteps=part), executor, progress)
        else:
            result = _execute(replace(job, timesteps=part - done, before=result), executor, progress)
        done = part
        converged = bool(until(result))
        if converged or done >= job.timesteps:
            if not converged:
                logger.warning("All %d steps are done, and the criterion given as until=... does not hold.", done)
            return replace(result, attributes={**result.attributes, "until": "reached" if converged else "not reached"})
        part = min(job.timesteps, math.ceil(done * _NEXT_PART))


def _checkpoint_steps(job: Job) -> list[int]:
    """The steps of the replicas' checkpoints that are there."""
    steps = []
    for replica in range(job.n_replicas):
        with Checkpoint(job.checkpoint, replica) as checkpoint:  # pyright: ignore[reportArgumentType]
            if checkpoint.step is not None:
                steps.append(checkpoint.step)
    return steps


def _execute(job: Job, executor: Any, progress: bool) -> Run:
    """Run all replicas and put the result together."""
    job = replace(job, token=uuid.uuid4().hex)
    outcomes = _run_here(job, progress) if executor is None else _run_elsewhere(job, executor, progress)
    steps = {outcome.step for outcome in outcomes}
    complete = len(steps) == 1 and sum(len(outcome.states) for outcome in outcomes) == job.n_replicas
    result = _assemble(job.methods, outcomes, job.before) if complete else None
    if result is None or any(outcome.interrupted for outcome in outcomes):
        at = f"at step {max(steps)} of {job.start + job.timesteps}" if steps else "before the first step"
        if job.checkpoint is not None:
            remedy = f"The same call goes on from the checkpoint {str(job.checkpoint)!r}."
        elif result is not None:
            remedy = "The result so far is in this error's attribute `run`."
        else:
            remedy = (
                "Replicas did not get equally far, so there is no result; give checkpoint=... to keep what was done."
            )
        raise RunInterrupted(f"Stopped by Ctrl-C {at}. {remedy}", result)
    return result


def _split(job: Job) -> list[Job]:
    """One job for each replica."""
    return [
        replace(
            job,
            context_args=(job.context_args[r],),
            first_replica=r,
            before=None if job.before is None else replace(job.before.replica(r), log=xr.Dataset()),
        )
        for r in range(job.n_replicas)
    ]


def _run_here(job: Job, progress: bool) -> list[Outcome]:
    """Replicas in this process: together where the engine can, else one after the other."""
    generate, arguments = job.generate_context, job.context_args
    if job.checkpoint is not None:
        Checkpoint(job.checkpoint, 0).close()  # finds out what is wrong with it before a simulation is built
    simulation = generate(**arguments[0])
    with Bar(job.timesteps * job.n_replicas, progress) as bar:
        if job.n_replicas == 1:
            return [drive(job, simulation, bar.update)]
        others = []
        if stack(simulation, []) is not None:
            others = [generate(**a) for a in arguments[1:]]
            together = stack(simulation, others)
            if together is not None:
                return [drive(job, together, lambda n, before: bar.update(n * job.n_replicas, before))]
        if job.shared:
            raise UnsupportedError(f"{_TOGETHER} Here generate_context returned {simulation!r}.")
        outcomes = []
        for part in _split(job):
            if part.first_replica > 0:
                simulation = others[part.first_replica - 1] if others else generate(**part.context_args[0])
            outcomes.append(drive(part, simulation, bar.update))
            simulation = None  # its memory, before the next one is made
            if outcomes[-1].interrupted:
                break
        return outcomes


def _run_elsewhere(job: Job, executor: Any, progress: bool) -> list[Outcome]:
    """Replicas through an executor."""
    if not callable(getattr(executor, "submit", None)):
        raise InvalidInputError(
            "executor must be a concurrent.futures.Executor, such as ProcessPoolExecutor(mp_context="
            f"multiprocessing.get_context('spawn')), got {executor!r}."
        )
    import cloudpickle

    with Bar(job.timesteps * job.n_replicas, progress) as bar:
        futures: list[Future] = []
        try:
            for part in _split(job):
                futures.append(executor.submit(run_replica, cloudpickle.dumps(part)))
                futures[-1].add_done_callback(lambda future: bar.update(job.timesteps, False))
            return [_load(future.result()) for future in futures]
        except BaseException as error:
            Interrupt.set_all(job.token)
            for future in futures:
                future.cancel()
            wait(futures)
            if not isinstance(error, KeyboardInterrupt):
                raise
            return [_load(f.result()) for f in futures if not f.cancelled() and f.exception() is None]


def run_replica(payload: bytes) -> bytes:
    """What an executor runs: one replica, pickled in and out. For executors only."""
    import cloudpickle

    job = _load(payload)
    simulation = job.generate_context(**job.context_args[0])
    return cloudpickle.dumps(drive(job, simulation, lambda n_steps, before: None))


def _load(payload: bytes) -> Any:
    import cloudpickle

    with jax.enable_x64(True):  # JAX arrays would come out of their pickles in single precision
        return cloudpickle.loads(payload)


def _assemble(methods: tuple[AbstractMethod, ...], outcomes: Sequence[Outcome], before: Run | None) -> Run:
    from . import __version__

    first = outcomes[0]
    log = _as_dataset(methods, first.columns, np.concatenate([o.rows for o in outcomes]), first.timestep)
    attributes = {
        "pysamp": __version__,
        "jax": jax.__version__,
        "python": sys.version.split()[0],
        **first.attributes,
        "wall_time": sum(o.attributes["wall_time"] for o in outcomes),
    }
    if before is not None:
        log = xr.concat([before.log, log], dim="sample", coords="minimal", compat="override", join="override")
        attributes["wall_time"] += before.attributes.get("wall_time", 0.0)
    return Run(
        methods=methods,
        states=[state for o in outcomes for state in o.states],
        snapshots=[snapshot for o in outcomes for snapshot in o.snapshots],
        log=log,
        kT=first.kT,
        timestep=first.timestep,
        attributes=attributes,
    )


def _as_dataset(
    methods: tuple[AbstractMethod, ...], columns: Sequence[str], rows: np.ndarray, timestep: float
) -> xr.Dataset:
    """Log rows with names: columns are the step, the CVs, one bias energy for each method, and the diagnostics."""
    labels = [label for method in methods for label in method.labels]
    owners = [i for i, method in enumerate(methods) for _ in method.labels]
    classes = [type(method).__name__ for method in methods]
    names = [name if classes.count(name) == 1 else f"{name}[{i}]" for i, name in enumerate(classes)]
    unique = [
        label if labels.index(label) == i else f"{label} [{names[owner]}]"
        for i, (label, owner) in enumerate(zip(labels, owners, strict=True))
    ]
    n_cvs, n_methods = len(labels), len(methods)
    xi, energies = rows[:, :, 1 : 1 + n_cvs], rows[:, :, 1 + n_cvs : 1 + n_cvs + n_methods]
    step = rows[0, :, 0].astype(np.int64)
    periods = [math.nan if period is None else period for method in methods for period in method.periods]
    units = [cv.unit for method in methods for cv in method.cvs for _ in range(cv.n_components)]
    data: dict[str, Any] = {
        "xi": (("replica", "sample", "cv"), xi, {"long_name": "collective variables"}),
        "bias_energy": (("replica", "sample"), energies.sum(axis=-1), {"long_name": "bias energy", "unit": "energy"}),
        "method_energy": (
            ("replica", "sample", "method"),
            energies,
            {"long_name": "bias energy of each method", "unit": "energy"},
        ),
    }
    for i, name in enumerate(columns[1 + n_cvs + n_methods :], start=1 + n_cvs + n_methods):
        data[name] = (("replica", "sample"), rows[:, :, i], {"long_name": name})
    coordinates = {
        "replica": np.arange(len(rows)),
        "cv": unique,
        "method": names,
        "step": ("sample", step, {"long_name": "MD steps before the sample"}),
        "time": ("sample", step * timestep, {"long_name": "time", "unit": "time"}),
        "cv_unit": ("cv", units),
        "cv_period": ("cv", np.array(periods)),
        "cv_method": ("cv", np.array(owners)),
    }
    return xr.Dataset(data, coordinates)


class Bar:
    """The progress bar; where nobody looks at one, nothing is written."""

    def __init__(self, total: int, wanted: bool):
        self._bar: Any = None
        if wanted and (sys.stderr.isatty() or "ipykernel" in sys.modules):
            from tqdm.auto import tqdm

            self._bar = tqdm(total=total, unit="step", unit_scale=True, dynamic_ncols=True)

    def update(self, n_steps: int, were_done_before: bool) -> None:
        """Move on; steps from a checkpoint do not count for the speed."""
        if self._bar is None:
            return
        if were_done_before:
            self._bar.initial += n_steps
        self._bar.update(n_steps)

    def __enter__(self) -> "Bar":
        return self

    def __exit__(self, *error: Any) -> None:
        if self._bar is not None:
            self._bar.close()


def _default_stride(n_steps: int) -> int:
    """1, 2 or 5 times a power of ten that gives between 2000 and 5000 samples, or all steps of a short run."""
    target = max(1.0, n_steps / 2000)
    decade = 10 ** math.floor(math.log10(target))
    return max(m * decade for m in (1, 2, 5) if m * decade <= target)


def as_seed(value: Any) -> int:
    if value is None:
        return int(np.random.SeedSequence().generate_state(1)[0])
    try:
        seed = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        seed = None
    if seed is None or seed < 0:
        raise InvalidInputError(
            f"seed must be a whole number from 0 up, or None for a new one each time; got {value!r}."
        )
    return seed


def as_generator(value: Any) -> Any:
    if not callable(value):
        raise InvalidInputError(
            f"generate_context must be a function that returns a simulation, got {value!r}. Wrap the part of your script that "
            "builds the simulation: def generate_context(): ...; return simulation. Then pass generate_context itself, "
            "without calling it."
        )
    return value


def as_context_args(value: Any, n_replicas: int) -> tuple[dict[str, Any], ...]:
    several = list(value) if isinstance(value, list | tuple) else [{} if value is None else value] * n_replicas
    if len(several) != n_replicas:
        raise InvalidInputError(
            f"context_args has {len(several)} entries for {n_replicas} replicas: give one dictionary for all of them, or one "
            f"for each; or say replicas={len(several)}."
        )
    for arguments in several:
        if not isinstance(arguments, Mapping) or not all(isinstance(key, str) for key in arguments):
            raise InvalidInputError(
                "context_args must be a dictionary of keyword arguments for generate_context, such as {'temperature': 300}, "
                f"or a list with one for each replica; got {arguments!r}."
            )
    return tuple(dict(arguments) for arguments in several)


def _as_callback(value: Any) -> Callback | None:
    return value if value is None or isinstance(value, Callback) else Callback(value)


def as_checkpoint(path: Any, every: Any) -> dict[str, Any]:
    if path is None:
        if every is not None:
            raise InvalidInputError(
                f"checkpoint_every={every!r} needs to know where: give checkpoint='run.ckpt' as well."
            )
        return {}
    try:
        folder = Path(path).absolute()
    except TypeError as error:
        raise InvalidInputError(f"checkpoint must be the name of a folder, got {path!r}.") from error
    return {
        "checkpoint": folder,
        "checkpoint_every": None if every is None else as_count(every, "checkpoint_every"),
    }
