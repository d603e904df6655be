"""What a method is: observations in, biases out, all pure functions in CV space."""

import abc
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Generic, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from ..colvars.base import AbstractCV
from ..errors import InvalidInputError, UnsupportedError
from ..grids import Grid
from ..units import as_array

__all__ = ["AbstractMethod", "AbstractStaticBias", "Bias", "Observation"]

State = TypeVar("State")


class Observation(eqx.Module):
    """What a method sees of the simulation at one time step.

    Attributes:
        xi: values of the method's CVs, vector-valued ones flattened.
        step: number of this MD step, counted from 0 over all runs that went on from one another.
        kT: thermal energy [energy].
        key: random key of this step.
        momentum: generalized momentum conjugate to ``xi``, for methods whose ``needs`` has ``"momentum"``, else zeros.
        applied: the method's bias force at the last step [energy / CV unit]; zero at the first.
        timestep: the time [time] over which a constant force changes ``momentum`` between two steps; with a thermostat that
            acts within the step it is a little less than the engine's step.
        inverse_mass: effective inverse mass matrix of ``xi``, J M^-1 J^T with the derivatives J of ``xi`` and the masses M, less
            what constraints take away, for methods whose ``needs`` has ``"inverse_mass"``, else None.
    """

    xi: Float[Array, " n"]
    step: Int[Array, ""]
    kT: Float[Array, ""]
    key: Key[Array, ""]
    momentum: Float[Array, " n"]
    applied: Float[Array, " n"]
    timestep: Float[Array, ""]
    inverse_mass: Float[Array, "n n"] | None = None


class Bias(eqx.Module):
    """Bias potential at one point of CV space, and the force ``-d energy / d xi``."""

    energy: Float[Array, ""]
    force: Float[Array, " n"]


class AbstractMethod(eqx.Module, Generic[State]):
    """Base class of sampling methods: frozen hyperparameters and pure functions.

    A state is any pytree of arrays whose shapes and dtypes never change during a run. Everything is traced in float64.

    Attributes:
        cvs: the collective variables that the method acts on.
        needs: what it wants in the observation beyond the CVs: ``"momentum"``, ``"inverse_mass"``.
        has_energy: whether the bias force is the gradient of the bias energy that it reports.
        stops: whether it can end a run, as :meth:`stopped` says.
        learns: whether it has work for :meth:`learn`.
        kT: thermal energy that the user gave [energy], or None for the engine's.
        own: names of the fields of its state that are each walker's own where several walkers share the others; None where
            walkers cannot share it.
    """

    cvs: eqx.AbstractVar[tuple[AbstractCV, ...]]
    needs: ClassVar[frozenset[str]] = frozenset()
    has_energy: ClassVar[bool] = True
    stops: ClassVar[bool] = False
    learns: ClassVar[bool] = False
    kT: ClassVar[Float[np.ndarray, ""] | None] = None
    own: ClassVar[frozenset[str] | None] = None

    @abc.abstractmethod
    def init(self, obs: Observation) -> State:
        """State before the first step."""

    @abc.abstractmethod
    def update(self, state: State, obs: Observation) -> State:
        """State after seeing one more time step. Runs exactly once per MD step."""

    @abc.abstractmethod
    def bias(self, state: State, obs: Observation) -> Bias:
        """Bias at ``obs.xi``; may be evaluated any number of times at any positions."""

    def is_due(self, n_steps: Int[Array, ""]) -> Bool[Array, ""]:
        """Whether :meth:`learn` is to be called once ``n_steps`` steps have been seen, for methods that say ``learns = True``."""
        del n_steps
        return jnp.zeros((), dtype=bool)

    def learn(self, state: State, n_steps: Int[Array, ""], kT: Float[Array, ""]) -> State:
        """State after what is done now and then and takes longer than a step: fits, training.

        It comes between two steps, when the bias of the first has been applied, and is compiled apart from them: neither does
        it slow them down, nor is there anything that it must not contain.
        """
        del n_steps, kT
        return state

    def learned(self, state: State, n_steps: Int[Array, ""], kT: Float[Array, ""]) -> State:
        """``state``, which has seen ``n_steps`` steps, after :meth:`learn` if that is due."""
        if not self.learns:
            return state
        return jax.lax.cond(self.is_due(n_steps), lambda: self.learn(state, n_steps, kT), lambda: state)

    def _kT(self, kT: Float[Array, ""]) -> Float[Array, ""]:
        """The thermal energy that the method was given, or else the engine's."""
        return kT if self.kT is None else jnp.asarray(self.kT)

    def update_shared(self, state: State, obs: Observation) -> State:
        """State after seeing one more time step of several walkers, that have all but ``own`` of it in common.

        Args:
            state: the common state; the fields in ``own`` have the walkers on their first axis.
            obs: of all walkers, on the first axis of ``xi``, ``key``, ``momentum``, ``applied`` and ``inverse_mass``. What they
                add is added in this order.
        """
        raise UnsupportedError(f"Walkers cannot share {type(self).__name__}.")

    def reserve(self, state: State, n_steps: int) -> State:
        """Room in ``state`` for ``n_steps`` more steps. Called on the host before a run, so shapes may grow here only."""
        del n_steps
        return state

    def for_replica(self, state: State, replica: int) -> State:
        """The first state of one of several replicas, for methods whose replicas differ (windows). Called on the host."""
        del replica
        return state

    def truncated(self, state: State, n_steps: int) -> State:
        """What the analysis would have found in the state after so many steps, for convergence against time.

        Raises:
            UnsupportedError: if the state does not tell.
        """
        del state, n_steps
        raise UnsupportedError(
            f"{type(self).__name__} does not know what it had found at an earlier time. Use pysamp.Converged while it runs, or "
            "compare replicas."
        )

    @property
    def n_replicas(self) -> int:
        """How many replicas belong together: the windows of umbrella sampling, else 1."""
        return 1

    def diagnostics(self, state: State) -> Mapping[str, Float[Array, ""]]:
        """Scalars for the log."""
        del state
        return {}

    def stopped(self, state: State) -> Bool[Array, ""]:
        """Whether the trajectory ends where ``state`` has last seen it, for methods that say ``stops = True``.

        The engine stays at the configuration of that observation, and when it goes on, that is the first to be observed
        again. Where several replicas run together, one that has stopped waits for the others, and sees the same observation
        until they have stopped too: ``update`` must then leave the state as it is.
        """
        del state
        return jnp.zeros((), dtype=bool)

    @property
    def n_cvs(self) -> int:
        """Number of components of ``xi``."""
        return sum(cv.n_components for cv in self.cvs)

    @property
    def periods(self) -> tuple[float | None, ...]:
        """Period of each component of ``xi``."""
        return periods_of(self.cvs)

    @property
    def labels(self) -> tuple[str, ...]:
        """Label of each component of ``xi``."""
        return labels_of(self.cvs)

    def difference(self, xi: Float[Array, "*#b n"], reference: Any) -> Float[Array, "*#b n"]:
        """``xi - reference`` in CV space, the nearest image for periodic components."""
        return periodic_difference(xi, reference, self.periods)


class AbstractStaticBias(AbstractMethod[None]):
    """Base class of biases that never change: a potential in CV space, whose exact gradient is the force."""

    own: ClassVar[frozenset[str] | None] = frozenset()

    @abc.abstractmethod
    def potential(self, xi: Float[Array, " n"]) -> Float[Array, ""]:
        """Bias energy at ``xi`` [energy]."""

    def init(self, obs: Observation) -> None:
        """There is nothing to remember."""
        del obs

    def update(self, state: None, obs: Observation) -> None:
        """Nothing changes."""
        del state, obs

    def update_shared(self, state: None, obs: Observation) -> None:
        """Nothing changes."""
        del state, obs

    def truncated(self, state: None, n_steps: int) -> None:
        """There is nothing to remember."""
        del state, n_steps

    def bias(self, state: None, obs: Observation) -> Bias:
        """The potential at ``obs.xi`` and minus its gradient."""
        del state
        energy, gradient = jax.value_and_grad(self.potential)(obs.xi)
        return Bias(energy, -gradient)


def periodic_difference(xi: Any, reference: Any, periods: Sequence[float | None]) -> Any:
    """``xi - reference`` along the last axis, the nearest image where the component has a period."""
    xi, reference = jnp.asarray(xi), jnp.asarray(reference)
    shape = np.broadcast_shapes(xi.shape, reference.shape)
    difference = jnp.broadcast_to(xi, shape) - jnp.broadcast_to(reference, shape)
    if all(period is None for period in periods):
        return difference
    period = np.broadcast_to([1.0 if p is None else p for p in periods], shape)
    periodic = np.broadcast_to([0.0 if p is None else p for p in periods], shape)
    return difference - periodic * jnp.round(difference / period)


def moving_center(start: Any, end: Any, step: Any, n_steps: Any, periods: Sequence[float | None]) -> Float[Array, " n"]:
    """Where a restraint is that moves from ``start`` to ``end`` in ``n_steps`` steps, the short way round; 0 is at once."""
    left = jnp.where(n_steps > 0, jnp.clip(1.0 - step / jnp.maximum(n_steps, 1), 0.0, 1.0), 0.0)
    return jnp.asarray(end) - left * periodic_difference(end, start, periods)


def periods_of(cvs: Sequence[AbstractCV]) -> tuple[float | None, ...]:
    """Period of each component of some CVs."""
    return tuple(cv.period for cv in cvs for _ in range(cv.n_components))


def labels_of(cvs: Sequence[AbstractCV]) -> tuple[str, ...]:
    """Label of each component of some CVs."""
    return tuple(label for cv in cvs for label in cv.labels)


def per_cv(value: Any, n: int, name: str) -> Float[np.ndarray, " n"]:
    """One number for each CV component, from one number or a sequence of ``n``.

    Raises:
        InvalidInputError: if the length does not fit or something is not a number.
    """
    array = as_array(value)
    if array.shape not in {(), (n,)}:
        raise InvalidInputError(f"{name} must be one number or {n} numbers, one per CV; got the shape {array.shape}.")
    if np.isnan(array).any():
        raise InvalidInputError(f"{name} must not be NaN, got {array.tolist()}.")
    return np.array(np.broadcast_to(array, (n,)))


def as_stride(value: Any, name: str) -> Int[np.ndarray, ""]:
    """``value`` as a positive integer.

    Raises:
        InvalidInputError: if it is something else.
    """
    if isinstance(value, bool) or np.ndim(value) != 0 or int(value) != value or value < 1:
        raise InvalidInputError(f"{name} must be a positive whole number, got {value!r}.")
    return np.asarray(value, dtype=np.int64)


def is_every(stride: Int[Array | np.ndarray, ""], step: Int[Array, ""]) -> Bool[Array, ""]:
    """Whether ``step`` is one of ``stride``, 2 ``stride``, ..."""
    return (step % stride == 0) & (step > 0)


def check_grid(grid: Grid, method: AbstractMethod) -> None:
    """Check that a grid fits the CVs of a method.

    Raises:
        InvalidInputError: if the number of axes differs, or the periodicity of an axis is not that of its CV.
    """
    if not isinstance(grid, Grid):
        raise InvalidInputError(f"grid must be a pysamp.Grid(lower, upper, shape, periodic=...), got {grid!r}.")
    if grid.n_dims != method.n_cvs:
        raise InvalidInputError(f"The grid has {grid.n_dims} axes, but there are {method.n_cvs} CVs: {method.labels}.")
    for d, (period, label) in enumerate(zip(method.periods, method.labels, strict=True)):
        extent = grid.upper[d] - grid.lower[d]
        if period is None and grid.periodic[d]:
            raise InvalidInputError(f"The grid's axis {d} is periodic, but {label} is not: say periodic=False for it.")
        if period is not None and not grid.periodic[d]:
            raise InvalidInputError(
                f"{label} has the period {period:.6g}, but the grid's axis {d} is not periodic: say periodic=True for it and "
                f"let it span one period, such as {-period / 2:.6g} to {period / 2:.6g}. Walls restrict it to a part."
            )
        if period is not None and not np.isclose(extent, period, rtol=1e-6):
            raise InvalidInputError(
                f"The grid's axis {d} runs from {grid.lower[d]:.6g} to {grid.upper[d]:.6g}, but the period of {label} is "
                f"{period:.6g}: let upper - lower be the period, such as {-period / 2:.6g} to {period / 2:.6g}."
            )


def as_cvs(cvs: Any) -> tuple[AbstractCV, ...]:
    """The CVs of a method as a tuple; a single CV is taken as a list of one.

    Raises:
        InvalidInputError: if there is none, or something is not a CV.
    """
    if isinstance(cvs, AbstractCV):
        return (cvs,)
    result = tuple(cvs) if isinstance(cvs, list | tuple) else (cvs,)
    for cv in result:
        if not isinstance(cv, AbstractCV):
            raise InvalidInputError(
                f"A method acts on collective variables such as pysamp.colvars.Distance([0, 1]), got {cv!r}. "
                "Wrap a function of positions with pysamp.colvars.custom(function, atoms=[...])."
            )
    if not result:
        raise InvalidInputError("A method needs at least one collective variable, got none.")
    return result
