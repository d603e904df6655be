"""The compiled molecular-dynamics loop: the engine's next force evaluation, the sampler's step, and the log, in one program.

The loop is the same for every engine that can be advanced from inside a compiled program. Each turn hands the engine the
bias forces and gets the particles at its next force evaluation; no Python runs in between.
"""

import abc
import logging
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax._src import xla_bridge
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun
from jax.interpreters import partial_eval
from jaxtyping import Array, Bool, Float, Int

from ._branches import in_place_if
from ._serial import is_key, on_host
from ._walkers import replica_axes, step_walkers
from .sampler import BiasForces, Particles, Sampler, SamplerState

try:
    from jax.experimental.xla_metadata import set_xla_metadata
except ImportError:  # an XLA detail; without it a step is correct, but several times slower on CPU
    set_xla_metadata = None

__all__ = ["AbstractEngine", "Log", "Loop"]

_LOGGER = logging.getLogger("pysamp")

FINISHED, NEW_STEP, SAME_STEP = 0, 1, 2
_SMALL_PRODUCT = 1e5  # multiplications; larger ones, of fits and training, are left to XLA's library
_LEARNING = 2  # in what is due after a turn, beside 1 for a row of the log
MAX_ROWS = 1024  # log rows of one chunk
_NOT_FUSIBLE: set = set()  # structures of samplers that XLA cannot compile as one function


class AbstractEngine(eqx.Module):
    """An engine that a compiled program can advance; a pytree of whatever it carries through the loop.

    At each stop it hands something over that begins with the kind of stop, and from which ``unpack`` makes the particles:
    FINISHED when the engine has done the steps that it was asked for, NEW_STEP at the first force evaluation of an MD step,
    SAME_STEP at any further one (barostat trial, inner step of a multiple-time-step integrator).

    Attributes:
        fuse: whether to compile the sampler's step as one function. For engines whose own step is not JAX code: next to
            other code in the loop it gains little.
    """

    fuse: ClassVar[bool] = False

    @abc.abstractmethod
    def begin(self) -> tuple["AbstractEngine", Any]:
        """Start; returns the engine and what it hands over at its first stop."""

    @abc.abstractmethod
    def advance(self, forces: Any) -> tuple["AbstractEngine", Any]:
        """Give the engine the packed bias forces and let it go on to its next stop."""

    def is_running(self, handed: Any) -> Bool[Array, ""]:
        """Whether the stop is one for forces, not the end."""
        return handed[0] != FINISHED

    def unpack(self, handed: Any) -> tuple[Int[Array, ""], Particles]:
        """Kind of the stop, and the particles; for engines that hand over just these, what was handed over."""
        return handed

    def pack(self, forces: BiasForces) -> Any:
        """Bias forces in the form that ``advance`` takes; the forces as they are, if no other is needed."""
        return forces

    def hold(self, stopped: Bool[Array, " r"]) -> "AbstractEngine":
        """The engine with these of its replicas staying where they are; for engines of several replicas."""
        raise NotImplementedError(f"{type(self).__name__} cannot hold single replicas")


Engine = TypeVar("Engine", bound=AbstractEngine)


class Log(eqx.Module):
    """Rows logged in one chunk: step, CVs, bias energy of each method, diagnostics.

    Attributes:
        rows: room for the rows of a chunk.
        n_rows: how many are filled.
        first_step: number of the first step that the sampler sees. An engine that evaluates forces at the beginning of a step
            shows it the initial configuration, step 0; one that does so at the end shows it what step 1 leads to.
    """

    rows: Float[Array, "*replicas room width"]
    n_rows: Int[Array, ""]
    first_step: int = eqx.field(static=True, default=0)


def log_row(sampler: Sampler, state: SamplerState, first_step: int = 0) -> Float[Array, " width"]:
    """What is logged of a state."""
    diagnostics = [jnp.asarray(value, dtype=state.xi.dtype) for value in sampler.diagnostics(state).values()]
    step = (state.step - 1 + first_step).astype(state.xi.dtype)
    return jnp.concatenate([step[None], state.xi, state.energies, *[value[None] for value in diagnostics]])


def log_columns(sampler: Sampler) -> list[str]:
    """Names of the entries of ``log_row``."""
    energies = [f"bias_energy[{i}]" for i in range(len(sampler.methods))]
    return ["step", *sampler.labels, *energies, *sampler.diagnostic_names]


def take_step(
    sampler: Sampler, state: SamplerState, kind: Array, particles: Particles, *, batched: bool = False
) -> tuple[SamplerState, BiasForces]:
    """The sampler's step at one force evaluation."""
    is_step = kind == NEW_STEP
    if not batched:
        return sampler.step(state, particles, is_step)
    if sampler.walkers > 1:
        return step_walkers(sampler, state, particles, is_step)
    axes = replica_axes(sampler, state)
    return jax.vmap(sampler.step, in_axes=(axes, 0, None), out_axes=(axes, 0))(state, particles, is_step)


def is_row_due(log: Log, n_steps: Array, kind: Array, log_every: Array) -> Bool[Array, ""]:
    """Whether the step at this force evaluation is to be logged, when ``n_steps`` were done before."""
    return (kind == NEW_STEP) & (log_every > 0) & ((n_steps + log.first_step) % jnp.maximum(log_every, 1) == 0)


def with_row(sampler: Sampler, state: SamplerState, log: Log, due: Bool[Array, ""], *, batched: bool = False) -> Log:
    """The log with a row of the state, if due."""
    row = partial(log_row, first_step=log.first_step)
    if batched:
        row = jax.vmap(row, in_axes=(None, replica_axes(sampler, state)))
    new = row(sampler, state)[..., None, :]
    start = (jnp.zeros_like(log.n_rows),) * (new.ndim - 2) + (log.n_rows, jnp.zeros_like(log.n_rows))
    # not a branch, which would copy all rows
    new = jnp.where(due, new, jax.lax.dynamic_slice(log.rows, start, new.shape))
    return Log(jax.lax.dynamic_update_slice(log.rows, new, start), log.n_rows + due, log.first_step)


def take_turn(
    sampler: Sampler, state: SamplerState, log: Log, kind: Array, particles: Particles, log_every: Array
) -> tuple[SamplerState, Log, BiasForces]:
    """One force evaluation: sampler, then log."""
    due = is_row_due(log, state.step, kind, log_every)
    state, forces = take_step(sampler, state, kind, particles)
    return state, jax.lax.cond(due, lambda: with_row(sampler, state, log, due), lambda: log), forces


def what_is_due(sampler: Sampler, state: SamplerState, kind: Array, particles: Particles) -> tuple[Array, Array]:
    """Whether a method is to learn after a turn, and the thermal energy to learn with; that of the next stop may be void."""
    return (kind == NEW_STEP) & sampler.is_due(state), sampler.temperature(particles)


def learned(sampler: Sampler, state: SamplerState, kT: Array, *, batched: bool = False) -> SamplerState:
    """The state after a turn, when those methods have learned that are due."""
    if not batched:
        return sampler.learned(state, kT)
    axes = replica_axes(sampler, state)
    return jax.vmap(sampler.learned, in_axes=(axes, 0 if kT.ndim else None), out_axes=axes)(state, kT)


def learned_if_due(sampler: Sampler, state: SamplerState, kind: Array, particles: Particles) -> SamplerState:
    """The same, if something is due."""
    due, kT = what_is_due(sampler, state, kind, particles)
    return in_place_if(due, lambda state: learned(sampler, state, kT), state)


def as_one_function(function: Callable, kept: Any, carried: Any, *, largest_product: float = math.inf) -> Any:
    """``function(kept, carried)``, which XLA's CPU compiler then makes one function instead of a list of some fifty kernels.

    XLA (jaxlib 0.10.1) aborts the process if the compiled function does not use one of its arguments, or if calls inside it
    are marked as well. So only the call itself is marked; what ``function`` only passes on, or does not use, goes around it,
    and so does what has no elements. What XLA may still find unused is returned, which is a use and costs nothing.

    Args:
        function: any function of two trees of arrays.
        kept: what is the same after the call.
        carried: what the function returns an updated version of, in place.
        largest_product: multiplications in a matrix product with which it is still made one function.
    """
    mark = set_xla_metadata
    if mark is None:
        return function(kept, carried)
    inputs, structure = jax.tree.flatten((kept, carried))
    n_kept = len(jax.tree.leaves(kept))
    closed, shapes = jax.make_jaxpr(lambda *flat: function(*jax.tree.unflatten(structure, flat)), return_shape=True)(
        *inputs
    )
    place = {id(variable): i for i, variable in enumerate(closed.jaxpr.invars)}
    unchanged = {*range(n_kept), *(place[id(v)] for v in closed.jaxpr.outvars if id(v) in place)}
    outputs: list = [
        inputs[place[id(variable)]]
        if id(variable) in place
        else jnp.zeros(variable.aval.shape, variable.aval.dtype)
        if variable.aval.size == 0
        else None
        for variable in closed.jaxpr.outvars
    ]
    if not _can_be_one_function(closed.jaxpr, largest_product):
        return function(kept, carried)
    pruned, used = partial_eval.dce_jaxpr(closed.jaxpr, [output is None for output in outputs])
    places = [i for i, is_used in enumerate(used) if is_used]
    empty = {i: jnp.zeros(np.shape(inputs[i]), inputs[i].dtype) for i in places if np.size(inputs[i]) == 0}
    passed = [i for i in places if i not in empty]

    def unmarked(*flat: Array) -> tuple[list[Array], list[Array]]:
        with mark(inlineable=None, xla_cpu_small_call=None):
            values = empty | dict(zip(passed, flat, strict=True))
            new = jaxpr_as_fun(ClosedJaxpr(pruned, closed.consts))(*(values[i] for i in places))
            return new, [values[i] for i in passed if i in unchanged]

    with mark(inlineable="false", xla_cpu_small_call="true"):
        new, _ = jax.jit(unmarked)(*(inputs[i] for i in passed))
    rest = iter(new)
    return jax.tree.unflatten(jax.tree.structure(shapes), [next(rest) if o is None else o for o in outputs])


# What XLA (jaxlib 0.10.1) has no code for within one function; found by trying. Matrix products are missing here: it has code
# for small ones.
_LISTS_OF_KERNELS = frozenset(
    [
        "approx_top_k",
        "cholesky",
        "eig",
        "eigh",
        "ffi_call",
        "fft",
        "geqrf",
        "householder_product",
        "io_callback",
        "lu",
        "pure_callback",
        "qr",
        "schur",
        "select_and_scatter_add",
        "sort",
        "svd",
        "top_k",
        "triangular_solve",
        "tridiagonal_solve",
    ]
)


def _can_be_one_function(jaxpr: Any, largest_product: float) -> bool:
    """Whether there is nothing in it of which XLA is known to have no code within one function, and no larger matrix product."""
    for equation in jaxpr.eqns:
        name, shapes = equation.primitive.name, [variable.aval.shape for variable in equation.invars]
        if name in _LISTS_OF_KERNELS or (name.startswith("scatter") and math.prod(shapes[1][:-1]) > 1):
            return False
        if name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            terms = math.prod(shapes[0][axis] for axis in contracted)
            if math.prod(equation.outvars[0].aval.shape) * terms > largest_product:
                return False
        for value in equation.params.values():
            for item in value if isinstance(value, tuple | list) else (value,):
                inner = getattr(item, "jaxpr", item)
                if hasattr(inner, "eqns") and not _can_be_one_function(inner, largest_product):
                    return False
    return True


@partial(jax.jit, static_argnames=("batched", "fuse"), donate_argnames=("state", "engine", "log"))
def _run_loop(
    sampler: Sampler,
    state: SamplerState,
    engine: AbstractEngine,
    log: Log,
    log_every: Array,
    *,
    batched: bool,
    fuse: bool,
) -> tuple[SamplerState, AbstractEngine, Log]:
    Loop.n_traces += 1

    def turn(kept: tuple[Sampler, Any, Array], state: SamplerState) -> tuple[SamplerState, Any, tuple]:
        sampler, handed, log_every = kept
        kind, particles = engine.unpack(handed)
        row_is_due = is_row_due(log, state.step, kind, log_every)
        state, forces = take_step(sampler, state, kind, particles, batched=batched)
        due = row_is_due.astype(jnp.int32)
        if not sampler.learns:
            return state, engine.pack(forces), (due,)
        learning_is_due, kT = what_is_due(sampler, state, kind, particles)
        return state, engine.pack(forces), (due + _LEARNING * learning_is_due, kT)

    stopped = partial(_stopped, sampler, batched=batched)

    def learn(kept: tuple[Sampler, Array], state: SamplerState) -> SamplerState:
        sampler, kT = kept
        return learned(sampler, state, kT, batched=batched)

    take: Callable = partial(as_one_function, turn) if fuse else turn
    teach: Callable = partial(as_one_function, learn, largest_product=_SMALL_PRODUCT) if fuse else learn

    def body(carry: tuple) -> tuple:
        state, engine, handed, _ = carry
        kept = (sampler, handed, log_every)
        state, forces, due = take(kept, state)
        if sampler.stops and batched:
            engine = engine.hold(stopped(state))
        if sampler.stops and not batched:  # the engine stays where it is, at a force evaluation
            engine, handed = jax.lax.cond(stopped(state), lambda: (engine, handed), lambda: engine.advance(forces))
        else:
            engine, handed = engine.advance(forces)
        return state, engine, handed, due

    def goes_on(carry: tuple) -> Bool[Array, ""]:
        running = engine.is_running(carry[2])
        return running & ~jnp.all(stopped(carry[0])) if sampler.stops else running

    def until_due(carry: tuple) -> tuple:
        """Turns until something is due, then what is: a row of the log, learning. So the turns between pay for neither."""
        log, *rest = carry
        state, *rest, (due, *kT) = jax.lax.while_loop(
            lambda carry: goes_on(carry) & (carry[-1][0] == 0), body, tuple(rest)
        )
        log = with_row(sampler, state, log, due % _LEARNING > 0, batched=batched)
        if sampler.learns:
            state = in_place_if(due >= _LEARNING, lambda state: teach((sampler, kT[0]), state), state)
        return log, state, *rest, (jnp.zeros_like(due), *kT)

    engine, handed = engine.begin()
    nothing_due = (jnp.zeros((), dtype=jnp.int32),)
    if sampler.learns:
        nothing_due += (sampler.temperature(engine.unpack(handed)[1]),)
    carry = (log, state, engine, handed, nothing_due)
    log, state, engine, *_ = jax.lax.while_loop(lambda carry: goes_on(carry[1:]), until_due, carry)
    return state, engine, log


@jax.jit
def _evaluate(sampler: Sampler, state: SamplerState, particles: Particles) -> Float[Array, " m"]:
    return sampler.evaluate(state, particles).packed


@partial(jax.jit, static_argnames="batched")
def _stopped(sampler: Sampler, state: SamplerState, *, batched: bool) -> Bool[Array, "*r"]:
    return (
        jax.vmap(sampler.stopped, in_axes=(replica_axes(sampler, state),))(state) if batched else sampler.stopped(state)
    )


def _is_none(leaf: Any) -> bool:
    return leaf is None


def _stacked(leaves: Sequence[Any]) -> Array:
    """Leaves of several replicas as one array; on the host, since JAX takes 20 us for each of its arrays."""
    if any(is_key(leaf) for leaf in leaves):
        return jnp.stack(leaves)
    return jnp.asarray(np.stack([np.asarray(leaf) for leaf in leaves]))


def prefer_synchronous_dispatch() -> None:
    """Have JAX run compiled functions on the calling thread, if it has not yet been used in this process.

    Handing each call to another thread is what a call per step spends most of its time on. JAX reads the setting when it
    first runs something; later it has no effect, so then nothing is done and the log says so.
    """
    if jax.config.read("jax_cpu_enable_async_dispatch"):
        if xla_bridge.backends_are_initialized():
            _LOGGER.info(
                "JAX was used before the run. A bias that is called from Python costs several times less per step after "
                "jax.config.update('jax_cpu_enable_async_dispatch', False) at the top of the script."
            )
        else:
            jax.config.update("jax_cpu_enable_async_dispatch", False)
            _LOGGER.info("set jax_cpu_enable_async_dispatch=False: compiled functions run on the calling thread")


class Loop:
    """The compiled loop for one sampler, with the state that it carries from chunk to chunk.

    Args:
        sampler: the sampler.
        n_replicas: None for one simulation, else the number of replicas on the leading axis of everything.
        device: where to run; None for where JAX runs by default.
        first_step: number of the first step that the engine shows the sampler; see :class:`Log`.

    Attributes:
        n_traces: how often a loop was traced in this process, for tests.
        device: where to run.
        sampler: the sampler, its arrays on the device.
        state: the sampler's state on the device; donated at the next step.
        log: rows logged and not yet taken; likewise.
    """

    n_traces: ClassVar[int] = 0
    state: SamplerState

    def __init__(self, sampler: Sampler, n_replicas: int | None = None, device: Any = None, first_step: int = 0):
        prefer_synchronous_dispatch()
        self._n_replicas = n_replicas
        self._first_step = first_step
        self.device = device
        with jax.enable_x64(True):
            self.sampler = jax.device_put(sampler, device)
            self._fuse = jax.tree.structure(self.sampler) not in _NOT_FUSIBLE
            self.log = jax.device_put(self._empty_log(), device)

    def run(self, engine: Engine, log_every: int) -> Engine:
        """Run an engine until it has finished, and return it; its arrays are donated.

        Args:
            engine: the engine.
            log_every: steps between log rows; 0 for none.
        """
        with jax.enable_x64(True):
            batched = self._n_replicas is not None
            args = (self.sampler, self.state, engine, self.log, np.int64(log_every))
            self.state, engine, self.log = self.compile_as_one_function(
                lambda fuse: _run_loop(*args, batched=batched, fuse=engine.fuse and fuse), self.log.n_rows
            )
            jax.block_until_ready(self.log.n_rows)  # JAX may run the loop in the background
        self.make_room()
        return engine

    def make_room(self) -> None:
        """Lengthen neighbour lists that were too short; what they lack was found in another way, which takes longer."""
        with jax.enable_x64(True):
            state = self.sampler.with_room(self.state)
            self.state = state if self.device is None else jax.device_put(state, self.device)

    def compile_as_one_function(self, call: Callable[[bool], Any], donated: Array) -> Any:
        """``call(True)``, or ``call(False)`` if XLA cannot compile the sampler's step as one function.

        It cannot for CVs with sorting, scattering, linear algebra, Fourier transforms and the like; then the step is a list of
        kernels, a few microseconds slower.

        Args:
            call: compiles and runs the step, as one function or not.
            donated: one of the arrays that it donates, which tells whether the failure was before anything ran.
        """
        if self._fuse:
            try:
                return call(True)
            except jax.errors.JaxRuntimeError as error:
                if donated.is_deleted():
                    raise
                _LOGGER.info("The step cannot be compiled as one function (%s)", str(error).partition("\n")[0])
                self._fuse = False
                _NOT_FUSIBLE.add(jax.tree.structure(self.sampler))
        return call(False)

    def evaluate(self, particles: Particles) -> Float[np.ndarray, " m"]:
        """The present bias at other positions, packed."""
        with jax.enable_x64(True):
            return np.array(_evaluate(self.sampler, self.state, particles))

    @property
    def stopped(self) -> Bool[np.ndarray, " r"]:
        """Whether the sampler has ended the run, for each replica."""
        with jax.enable_x64(True):
            return np.atleast_1d(_stopped(self.sampler, self.state, batched=self._n_replicas is not None))

    @property
    def has_stopped(self) -> bool:
        """Whether the sampler has ended the run, of all replicas."""
        return self.sampler.stops and bool(self.stopped.all())

    def take_rows(self) -> Float[np.ndarray, "replica rows width"]:
        """The rows logged since the log was last emptied, on the host; empties the log."""
        n_rows = int(self.log.n_rows)
        rows = np.array(np.asarray(self.log.rows)[..., :n_rows, :])
        if n_rows:
            with jax.enable_x64(True):
                self.log = Log(self.log.rows, jnp.zeros((), dtype=jnp.int32), self._first_step)
        return rows if self._n_replicas is not None else rows[None]

    @property
    def states(self) -> list[SamplerState]:
        """Copies of the state, one per replica."""
        with jax.enable_x64(True):
            if self._n_replicas is None:
                return [jax.tree.map(jnp.copy, self.state)]
            return self._replicas(self.state, jnp.copy, lambda leaf, r: leaf[r])

    @states.setter
    def states(self, states: Sequence[SamplerState]) -> None:
        with jax.enable_x64(True):
            if self._n_replicas is None:
                state = jax.tree.map(jnp.array, states[0])
            else:
                axes = replica_axes(self.sampler, states[0])
                state = jax.tree.map(
                    lambda axis, first, *rest: (
                        jax.tree.map(jnp.array, first) if axis is None else _stacked([first, *rest])
                    ),
                    axes,
                    states[0],
                    *states[1:],
                    is_leaf=_is_none,
                )
            self.state = state
        self.make_room()

    @property
    def states_on_host(self) -> list[SamplerState]:
        """The same in NumPy arrays, which takes a hundredth of the time where there are many replicas."""
        host = on_host(self.state)
        if self._n_replicas is None:
            return [jax.tree.map(np.array, host)]
        return self._replicas(host, np.array, lambda leaf, r: leaf[r] if is_key(leaf) else np.array(leaf[r]))

    def _replicas(self, state: SamplerState, copy: Callable, take: Callable) -> list[SamplerState]:
        """One state for each replica; what they have in common is the same array in each."""
        axes, structure = jax.tree.flatten(replica_axes(self.sampler, state), is_leaf=_is_none)
        parts = [
            jax.tree.map(copy, part) if axis is None else part
            for axis, part in zip(axes, structure.flatten_up_to(state), strict=True)
        ]
        return [
            structure.unflatten(part if axis is None else take(part, r) for axis, part in zip(axes, parts, strict=True))
            for r in range(self._n_replicas or 1)
        ]

    def _empty_log(self) -> Log:
        width = len(log_columns(self.sampler))
        replicas = () if self._n_replicas is None else (self._n_replicas,)
        return Log(jnp.zeros((*replicas, MAX_ROWS, width)), jnp.zeros((), dtype=jnp.int32), self._first_step)
