"""What one simulation of a run is to do, and what it did."""

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from .errors import InvalidInputError
from .methods.base import AbstractMethod
from .results import Run
from .sampler import SamplerState
from .snapshot import Snapshot

__all__ = ["Callback", "Job", "Outcome", "as_count"]


def as_count(value: Any, name: str) -> int:
    """``value`` as a positive integer; 1e6 will do.

    Raises:
        InvalidInputError: if it is something else.
    """
    whole = isinstance(value, float | np.floating) and float(value).is_integer()
    number: Any = int(value) if whole else value
    try:
        count = None if isinstance(value, bool) else operator.index(number)
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
            show is valid during the call only. Replicas that run together share one call, others have each their own.
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
        before: the result to go on from, of these replicas, or None for the beginning.
        token: names the run among those of this process.
        shared: whether the replicas share the states of the methods.
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
    before: Run | None = None
    token: str = ""
    shared: bool = False

    @property
    def start(self) -> int:
        """The step at which the run starts."""
        return 0 if self.before is None else int(self.before.states[0].step)


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
