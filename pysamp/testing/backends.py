"""The contract of backends."""

from collections.abc import Callable, Sequence
from typing import Any, cast

import jax
import numpy as np

from ..api import bind
from ..backends.base import Bound
from ..colvars.base import AbstractCV
from ..methods.harmonic import HarmonicBias
from ..methods.unbiased import Unbiased
from . import tolerances
from ._numbers import assert_close

__all__ = ["check_backend"]


def check_backend(
    generate_context: Callable[[], Any],
    cvs: AbstractCV | Sequence[AbstractCV],
    *,
    step: Callable[[Any, int], Any] | None = None,
    forces: Callable[[Bound], Any] | None = lambda bound: bound.arrays["forces"],
    n_steps: int = 10,
    tolerance: float = tolerances.ROUNDING,
) -> None:
    """Check that a backend keeps the contract of all backends.

    A bias of zero changes no position, not in the last bit; the force that reaches the engine is that of the sampler; a
    method sees every MD step once, and sees the engine's positions; a restored snapshot repeats the same run; closing
    gives the simulation back, and twice does no harm.

    Args:
        generate_context: returns a new simulation each time, always the same, of an engine that repeats itself.
        cvs: collective variables to bias.
        step: ``step(simulation, n)`` lets the engine itself do n steps, without pysamp, and returns all positions;
            None to leave out the comparison with it.
        forces: returns the forces on all particles in which the engine has included the bias; None where it keeps them
            to itself.
        n_steps: steps of the short runs.
        tolerance: of forces, relative to the largest.

    Raises:
        AssertionError: saying which part of the contract does not hold.
    """
    plain = _trajectory(generate_context(), Unbiased(cvs), n_steps)
    zero = _harmonic(generate_context, cvs, kspring=0.0)
    biased = _trajectory(generate_context(), zero, n_steps)
    assert np.array_equal(plain["positions"], biased["positions"]), "A bias of zero changes the positions."
    if step is not None:
        simulation = generate_context()
        alone = np.asarray(step(simulation, n_steps))
        assert np.array_equal(alone, plain["positions"]), "Observing alone changes the positions."
        simulation = generate_context()
        with _bind(simulation, Unbiased(cvs)):
            pass
        closed = np.asarray(step(simulation, n_steps))
        assert np.array_equal(alone, closed), "A simulation that was bound and closed does not go on as it would have."
    seen = int(plain["state"].step)
    assert seen == n_steps, f"After {n_steps} steps the methods have seen {seen}."
    _check_restore(generate_context, cvs, n_steps)
    if forces is not None:
        _check_forces(generate_context, cvs, forces, tolerance)


def _bind(simulation: Any, method: Any) -> Bound:
    return cast(Bound, bind(simulation, method))


def _harmonic(generate_context: Callable[[], Any], cvs: Any, kspring: float) -> HarmonicBias:
    """A spring that is stretched at the start."""
    with _bind(generate_context(), Unbiased(cvs)) as bound:
        start = np.asarray(bound.initial_states([0])[0].xi)
    return HarmonicBias(cvs, kspring=kspring, center=start - 0.1)


def _trajectory(simulation: Any, method: Any, n_steps: int) -> dict[str, Any]:
    with _bind(simulation, method) as bound:
        bound.states = bound.initial_states([0] * bound.n_replicas)
        bound.reserve(n_steps)
        bound.run(n_steps)
        snapshot, state = bound.snapshots()[0], bound.states[0]
        bound.close()
    return {"positions": np.array(snapshot.positions), "state": state}


def _check_forces(
    generate_context: Callable[[], Any], cvs: Any, forces_of: Callable[[Bound], Any], tolerance: float
) -> None:
    """Forces on the same positions with a spring and without differ by the sampler's forces."""
    forces, expected = [], None
    for kspring in (0.0, 10.0):
        with _bind(generate_context(), _harmonic(generate_context, cvs, kspring)) as bound:
            bound.states = bound.initial_states([0] * bound.n_replicas)
            forces.append(np.array(forces_of(bound)).reshape(-1, 3))
            sampler, snapshot = bound.sampler, bound.snapshots()[0]
            with jax.enable_x64(True):
                expected = sampler.evaluate(bound.states[0], sampler.particles(snapshot))
    assert expected is not None
    applied = forces[1] - forces[0]
    full = np.zeros_like(applied) if expected.slope is None else np.asarray(expected.slope) * forces[0]
    full[np.asarray(sampler.atoms, dtype=np.int64)] += np.asarray(expected.forces)
    scale = float(np.abs(forces[0]).max())
    assert_close(applied, full, tolerance, "The force that reaches the engine is not the sampler's", scale)


def _check_restore(generate_context: Callable[[], Any], cvs: Any, n_steps: int) -> None:
    with _bind(generate_context(), _harmonic(generate_context, cvs, 1.0)) as bound:
        bound.states = bound.initial_states([0] * bound.n_replicas)
        bound.run(n_steps)
        snapshots, states = bound.snapshots(), bound.states
        first = []
        for _ in range(2):
            bound.restore(snapshots)
            with jax.enable_x64(True):  # a state that is run may be donated
                bound.states = [jax.tree.map(lambda leaf: leaf.copy(), state) for state in states]
            bound.run(n_steps)
            first.append(np.array(bound.snapshots()[0].positions))
    assert np.array_equal(first[0], first[1]), "A restored snapshot does not repeat the same run."
