"""What a backend is: a simulation tied to a sampler."""

import abc
import importlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, cast

import jax
import numpy as np
from jaxtyping import Bool, Float

from .._serial import on_host
from ..api import bind, describe, stack
from ..errors import UnsupportedError
from ..loop import Loop
from ..methods.base import AbstractMethod
from ..sampler import Sampler, SamplerState, first_state
from ..snapshot import Snapshot
from ..system import System

__all__ = ["Bound"]

_BACKENDS = {"openmm": ".openmm", "simtk": ".openmm", "hoomd": ".hoomd"}


class Bound(abc.ABC):
    """A simulation tied to a sampler; a context manager that leaves the simulation as it was found.

    Most engines simulate one replica; a backend that simulates several in one program has ``n_replicas`` of them.

    Attributes:
        sampler: the sampler.
        system: what the sampler was built for.
        n_replicas: simulations that run together.
    """

    sampler: Sampler
    system: System
    n_replicas: int = 1

    @abc.abstractmethod
    def run(self, n_steps: int, *, log_every: int = 0) -> Float[np.ndarray, "replica rows width"]:
        """Run ``n_steps`` steps and return the rows logged, one at every multiple of ``log_every`` (0: none).

        Not more than ``loop.MAX_ROWS`` rows fit in one call. If the sampler stops (``sampler.stopped``), the run ends before
        the step that would follow, with the engine at the configuration that the sampler saw last; the states tell.

        Raises:
            SimulationError: if the engine failed or a bias was not finite.
        """

    @property
    @abc.abstractmethod
    def arrays(self) -> Mapping[str, Any]:
        """All particles' ``positions``, ``velocities``, ``masses``, ``forces`` as JAX arrays on the engine's own memory.

        Valid until ``run`` or ``close`` is called next; look at them, do not keep them.
        """

    @property
    @abc.abstractmethod
    def states(self) -> list[SamplerState]:
        """State of the sampler, one per replica."""

    @states.setter
    @abc.abstractmethod
    def states(self, states: Sequence[SamplerState]) -> None: ...

    @property
    def states_on_host(self) -> list[SamplerState]:
        """Copies of the states in NumPy arrays."""
        return [on_host(state) for state in self.states]

    @property
    def stopped(self) -> Bool[np.ndarray, " r"]:
        """Whether the sampler has ended the run, for each replica."""
        with jax.enable_x64(True):
            return np.array([bool(self.sampler.stopped(state)) for state in self.states])

    @abc.abstractmethod
    def snapshots(self) -> list[Snapshot]:
        """The whole system, one snapshot per replica."""

    @abc.abstractmethod
    def restore(self, snapshots: Sequence[Snapshot]) -> None:
        """Set the engine to earlier snapshots; exactly, where they carry the engine's own checkpoint."""

    def reseed(self, seeds: Sequence[int]) -> None:
        """Begin new random numbers of the engine, with one seed per replica.

        Raises:
            UnsupportedError: if the engine has none that can be seeded.
        """
        raise UnsupportedError(f"{type(self).__name__} cannot begin new random numbers during a run.")

    @abc.abstractmethod
    def close(self) -> None:
        """Give the simulation back as it was found; harmless when called twice."""

    @property
    def provenance(self) -> Mapping[str, str]:
        """What to note in a result: version of the engine, platform, route; ``engine``, where it is not the module's name."""
        return {}

    def initial_states(self, seeds: Sequence[int], first_replica: int = 0) -> list[SamplerState]:
        """States before the first step, one per replica; ``first_replica`` is the number of the first in the whole run."""
        sampler = self.sampler
        with jax.enable_x64(True):
            states = [
                first_state(sampler, sampler.particles(snapshot), seed)
                for snapshot, seed in zip(self.snapshots(), seeds, strict=True)
            ]
            return [sampler.for_replica(state, first_replica + i) for i, state in enumerate(states)]

    def reserve(self, n_steps: int) -> None:
        """Make room in the states for ``n_steps`` more steps."""
        with jax.enable_x64(True):
            self.states = [self.sampler.reserve(state, n_steps) for state in self.states]

    def steps_until_report(self, limit: int) -> int:
        """Steps until something of the user's own (a reporter) wants to run, at most ``limit``."""
        return limit

    def report(self) -> None:  # noqa: B027 - most engines have no reporters
        """Let the user's own reporters run if they are due."""

    def __enter__(self) -> "Bound":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class LoopBound(Bound):
    """A bound whose sampler states are in a compiled loop."""

    _loop: Loop

    @property
    def states(self) -> list[SamplerState]:
        """State of the sampler, one per replica."""
        return self._loop.states

    @states.setter
    def states(self, states: Sequence[SamplerState]) -> None:
        self._loop.states = states

    @property
    def states_on_host(self) -> list[SamplerState]:
        """Copies of the states in NumPy arrays."""
        return self._loop.states_on_host

    @property
    def stopped(self) -> Bool[np.ndarray, " r"]:
        """Whether the sampler has ended the run, for each replica."""
        return self._loop.stopped


@describe.dispatch
def _describe_unknown(simulation: object, /) -> System:
    with _backend_imported(simulation):
        return describe(simulation)


@bind.dispatch
def _bind_unknown(simulation: object, sampler: Sampler, /, *, seed: int | None = None) -> Bound:
    with _backend_imported(simulation):
        return bind(simulation, sampler, seed=seed)


@bind.dispatch
def _bind_methods(simulation: object, methods: AbstractMethod | tuple, /, *, seed: int | None = None) -> Bound:
    return bind(simulation, Sampler.build(methods, describe(simulation)), seed=seed)


@stack.dispatch
def _stack_unknown(first: object, others: list, /) -> None:
    del first, others


@contextmanager
def _backend_imported(simulation: Any) -> Iterator[None]:
    """Import the backend of the package that ``simulation`` comes from, to ask it once more. Several threads may do so at once.

    Raises:
        UnsupportedError: if there is none, or it was imported and does not know this type.
    """
    kind = type(simulation)
    module = _BACKENDS.get(kind.__module__.partition(".")[0])
    if module is None or getattr(_ASKING, "kind", None) is kind:
        raise UnsupportedError(
            f"generate_context returned {simulation!r}, a {kind.__module__}.{kind.__qualname__}. It must return an "
            "openmm.app.Simulation, an openmm.Context, a hoomd.Simulation, or a Simulation of "
            "pysamp.backends.jaxmd or pysamp.backends.toy: end the "
            "function with 'return simulation'."
        )
    with _IMPORTING:
        importlib.import_module(f"{__package__}{module}")
        for function in (describe, bind, stack):
            _ = cast(Any, function).methods  # what the module registered takes effect here, in one thread
    _ASKING.kind = kind
    try:
        yield
    finally:
        _ASKING.kind = None


_IMPORTING = threading.Lock()
_ASKING = threading.local()  # which type of simulation a thread asks the backends about, having imported them
