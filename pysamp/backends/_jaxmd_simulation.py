"""A JAX MD simulation in the parts from which a biased step is made, and what they tell of it."""

import inspect
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ..errors import InvalidInputError
from ._jaxmd_engine import rows_of_box

__all__ = ["Simulation", "is_fractional", "momentum_timestep", "name_of", "velocity_scale"]


class Simulation:
    r"""A JAX MD simulation, in the parts from which its step is made.

    JAX MD evaluates the force in the middle of a step, at the new positions, so that the bias must be there, in the function
    that the integrator calls; adding it to the forces between steps gives half of it. Therefore this class takes the energy
    function and the integrator's constructor, and makes the step itself. All else is an ordinary JAX MD script.

    The bias is computed in double precision; energy, integrator and state keep the precision in which they were made. With a
    neighbour list, that is renewed where the force is evaluated; if it is too short, the loop stops before that evaluation,
    the list is made anew with more room, and the run goes on from there. Integrators with a box of their own
    (``npt_nose_hoover``) get the bias energy's derivative with respect to the volume.

    Args:
        energy_fn: JAX MD's energy (or force) function, ``energy_fn(R, **kwargs)``.
        state: what the integrator's own ``init_fn`` returned for it, without a bias.
        shift_fn: JAX MD's function that moves particles, from ``jax_md.space``.
        integrator: ``functools.partial(jax_md.simulate.nvt_langevin, dt=..., kT=..., ...)``, or any function of (energy_fn,
            shift_fn) that returns ``init_fn, apply_fn``; then give ``timestep`` and ``kT`` as well.
        box: as for ``jax_md.space``: a side, sides, or a matrix with the box vectors as columns [length]; None for free
            space, or where the state has its own.
        neighbor_fn: ``jax_md.partition.neighbor_list(...)`` or the like; ``energy_fn`` gets the list as ``neighbor=``.
        neighbors: the list that ``neighbor_fn`` made for ``state``; None to make one. Where JAX traces the making of the
            simulation, as under ``jax.jit``, it must be given.
        timestep: [time]; None for the integrator's ``dt``.
        kT: thermal energy [energy]; None for the integrator's, if it has one.

    Attributes:
        state: the state; after a run, the last one, with the force of the energy function alone.
        neighbors: the neighbour list, or None.

    Raises:
        InvalidInputError: if a part does not fit the others.

    Example:
        >>> from functools import partial
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import pysamp
        >>> from jax_md import simulate, space
        >>> from pysamp.backends import jaxmd
        >>> from pysamp.colvars import Component
        >>> from pysamp.methods import HarmonicBias
        >>> displacement, shift = space.free()
        >>> def energy(R, **kwargs):
        ...     return 0.5 * jnp.sum(R**2)
        >>> integrator = partial(simulate.nvt_langevin, dt=0.1, kT=1.0, gamma=1.0)
        >>> init_fn, _ = integrator(energy, shift)
        >>> def generate_context():
        ...     state = init_fn(jax.random.PRNGKey(0), jnp.zeros((4, 3)))
        ...     return jaxmd.Simulation(energy, state, shift_fn=shift, integrator=integrator)
        >>> bias = HarmonicBias(Component([0], axis=0), kspring=1.0, center=0.0)
        >>> run = pysamp.run(bias, generate_context, 100, log_every=10, seed=1, progress=False)
        >>> run.log.sizes["sample"]
        10
    """

    def __init__(
        self,
        energy_fn: Callable,
        state: Any,
        *,
        shift_fn: Callable,
        integrator: Callable,
        box: Any = None,
        neighbor_fn: Any = None,
        neighbors: Any = None,
        timestep: Any = None,
        kT: Any = None,
    ):
        for name, value in (("energy_fn", energy_fn), ("shift_fn", shift_fn), ("integrator", integrator)):
            if not callable(value):
                raise InvalidInputError(f"{name} must be a function, got {value!r}.")
        shape = np.shape(getattr(state, "position", ()))
        if len(shape) != 2 or shape[1] not in (2, 3):
            raise InvalidInputError(
                "state must be what the integrator's init_fn returned, with positions of the shape (n, 3) or (n, 2); got "
                f"{type(state).__name__} with positions of the shape {shape}."
            )
        self.energy_fn, self.state, self.shift_fn, self.integrator = energy_fn, state, shift_fn, integrator
        self.box = None if box is None else np.asarray(box)
        self.neighbor_fn = neighbor_fn
        self.neighbors = neighbors
        given = _options(integrator)
        self.timestep = _number(given.get("dt") if timestep is None else timestep, "timestep", "dt")
        kT = given.get("kT") if kT is None else kT
        self.kT = None if kT is None else _number(kT, "kT", "kT")
        self.friction: Any = given.get("gamma")
        self.step = 0
        self.x64: bool = bool(
            jax.config.read("jax_enable_x64")
        )  # the precision in which the user's functions are traced
        if self.has_own_box and box is not None:
            raise InvalidInputError("This integrator's state has a box of its own; leave box=... out.")

    @property
    def has_own_box(self) -> bool:
        """Whether the integrator moves the box."""
        return hasattr(self.state, "reference_box")

    @property
    def masses(self) -> Float[np.ndarray, " n"]:
        """Masses of all particles."""
        n = len(self.state.position)
        return np.array(np.broadcast_to(np.asarray(self.state.mass, dtype=np.float64).reshape(-1), (n,)))

    @property
    def box_rows(self) -> Float[np.ndarray, "3 3"] | None:
        """The present box, with its vectors as rows, or None."""
        box = self.state.box if self.has_own_box else self.box
        if box is None:
            return None
        with jax.enable_x64(True), jax.ensure_compile_time_eval():  # also where a simulation is made under jit
            return np.asarray(rows_of_box(jnp.asarray(np.asarray(box), dtype=jnp.float64)))


def _options(integrator: Any) -> dict[str, Any]:
    """Keyword arguments that a ``functools.partial`` gives an integrator, and the defaults of the others."""
    if not isinstance(integrator, partial):
        return {}
    parameters = inspect.signature(integrator).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}


def name_of(integrator: Any) -> str:
    return getattr(integrator.func if isinstance(integrator, partial) else integrator, "__name__", "unknown")


def _number(value: Any, name: str, option: str) -> float:
    try:
        number = math.nan if value is None else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not number > 0:
        raise InvalidInputError(
            f"{name} must be a positive number, got {value!r}: give {name}=..., or the integrator as functools.partial("
            f"jax_md.simulate.nvt_langevin, {option}=..., ...), from which it is taken."
        )
    return number


def _has_momenta_half_a_step_before(simulation: Simulation) -> bool:
    func = simulation.integrator.func if isinstance(simulation.integrator, partial) else None
    known = ("nve", "nvt_langevin", "nvt_nose_hoover")
    return getattr(func, "__module__", "").startswith("jax_md.") and name_of(simulation.integrator) in known


def velocity_scale(simulation: Simulation, n_shifts: int) -> float | None:
    """What turns the last displacement of a step into a velocity: they are all of equal length in time."""
    if not _has_momenta_half_a_step_before(simulation) or n_shifts == 0 or is_fractional(simulation):
        return None
    return n_shifts / simulation.timestep


def momentum_timestep(simulation: Simulation) -> float | None:
    if not _has_momenta_half_a_step_before(simulation) or is_fractional(simulation):
        return None
    if name_of(simulation.integrator) != "nvt_langevin":
        return simulation.timestep
    if np.ndim(simulation.friction) != 0:
        return None
    # the thermostat acts between two kicks, and takes half of its share of each: see docs/momenta
    return simulation.timestep * 0.5 * (1.0 + math.exp(-float(simulation.friction) * simulation.timestep))


def is_fractional(simulation: Simulation) -> bool:
    """Whether positions are kept in units of the box: then a displacement moves them by as much less."""
    rows = simulation.box_rows
    if rows is None:
        return False
    position = simulation.state.position
    dimension = np.shape(position)[1]
    side = float(np.abs(np.diag(rows)[:dimension]).min())
    with jax.enable_x64(simulation.x64), jax.ensure_compile_time_eval():  # also where a simulation is made under jit
        x = jnp.full((1, dimension), 0.25, dtype=position.dtype)
        moved = simulation.shift_fn(x, jnp.full_like(x, 0.01 * side)) - simulation.shift_fn(x, jnp.zeros_like(x))
    return not np.allclose(np.asarray(moved), 0.01 * side, rtol=1e-2)
