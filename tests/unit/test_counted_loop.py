import re
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array, Bool, Float, Int

from pysamp import Grid
from pysamp.backends.openmm_cuda import DeviceEngine, FixedPointView, SortedView
from pysamp.colvars import Component, DihedralAngle, Distance
from pysamp.counted_loop import _run_turns, run_counted
from pysamp.loop import FINISHED, NEW_STEP, SAME_STEP, AbstractEngine, Loop
from pysamp.methods import ABF, HarmonicBias, HarmonicWalls, Metadynamics
from pysamp.sampler import BiasForces, Particles, Sampler
from pysamp.system import System

N_ATOMS = 4


class Wells(AbstractEngine):
    """Leapfrog in harmonic wells, with one more evaluation in every third step, as of a barostat."""

    x: Float[Array, "n 3"]
    v: Float[Array, "n 3"]
    step: Int[Array, ""]
    remaining: Int[Array, ""]
    again: Bool[Array, ""]

    def begin(self) -> tuple["Wells", tuple[Array, Particles]]:
        return self, self._hand_over()

    def advance(self, forces: BiasForces) -> tuple["Wells", tuple[Array, Particles]]:
        again = ~self.again & (self.step % 3 == 2) & (self.remaining > 0)
        moves = ~again & (self.remaining > 0)
        v = jnp.where(moves, self.v + 0.1 * (forces.forces - self.x), self.v)
        x = jnp.where(moves, self.x + 0.1 * v, self.x)
        engine = Wells(x, v, self.step + moves, self.remaining - moves, again)
        return engine, engine._hand_over()

    def _hand_over(self) -> tuple[Int[Array, ""], Particles]:
        kind = jnp.where(self.again, SAME_STEP, NEW_STEP)
        return jnp.where(self.remaining > 0, kind, FINISHED).astype(jnp.int32), Particles(self.x, None, self.v)


def system() -> System:
    return System(
        masses=np.full(N_ATOMS, 2.0),
        timestep=0.1,
        kT=1.0,
        momentum_timestep=0.1,
        periodic=False,
        orthorhombic=False,
    )


def methods() -> tuple:
    angle = DihedralAngle([0, 1, 2, 3])
    grid = Grid((-np.pi, -3.0), (np.pi, 3.0), (42, 60), periodic=(True, False))
    return (
        Metadynamics(
            [angle, Component([0], axis=0)], height=0.3, sigma=[0.3, 0.2], stride=4, grid=grid, bias_factor=5.0
        ),
        ABF([Component([1], axis=1)], grid=Grid((-3.0,), (3.0,), (20,)), full_samples=5),
        HarmonicWalls([Distance([0, 2])], upper=1.0, kspring=5.0),
        HarmonicBias([Distance([0, 3])], kspring=2.0, center=1.0),
    )


def loop_and_engine(n_steps: int) -> tuple[Loop, Wells, Sampler]:
    sampler = Sampler.build(methods(), system())
    rng = np.random.default_rng(4)
    with jax.enable_x64(True):
        x, v = jnp.asarray(rng.normal(size=(2, N_ATOMS, 3)))
        engine = Wells(x, v, jnp.asarray(0), jnp.asarray(n_steps), jnp.asarray(False))
        loop = Loop(sampler)
        loop.states = [sampler.init(Particles(x, None, v))]
    return loop, engine, sampler


@pytest.mark.parametrize("n_steps", [31, 100])
def test_same_as_the_loop_with_branches(n_steps: int):
    expected, engine, _ = loop_and_engine(n_steps)
    last = expected.run(engine, 3)
    found, engine, _ = loop_and_engine(n_steps)
    asked = iter([n_steps // 3 + 5, 0])  # more than are needed
    engine = run_counted(found, engine, n_steps=n_steps, log_every=3, turns_left=lambda: next(asked))
    assert int(engine.remaining) == 0
    np.testing.assert_allclose(engine.x, last.x, rtol=1e-12)
    np.testing.assert_allclose(found.take_rows(), expected.take_rows(), rtol=1e-10, atol=1e-12)
    for a, b in zip(jax.tree.leaves(found.states), jax.tree.leaves(expected.states), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)
    assert int(found.states[0].step) == n_steps


def lowered(n_turns: int) -> str:
    """What XLA is given for CUDA; that needs no GPU."""
    sampler = Sampler.build(methods(), system())
    with jax.enable_x64(True):
        particles = Particles(jnp.ones((N_ATOMS, 3)), None, jnp.ones((N_ATOMS, 3)))
        engine = DeviceEngine(jnp.asarray(True), "pysamp_test", 3, N_ATOMS, False, True)
        loop = Loop(sampler)
        arguments: Any = (
            sampler,
            sampler.init(particles),
            engine,
            jnp.zeros(10 + 6 * N_ATOMS),
            loop.log,
            jnp.asarray(0),
        )
        run_turns: Any = _run_turns
        traced = run_turns.trace(*arguments, n_turns=n_turns)
        return traced.lower(lowering_platforms=("cuda",)).as_text()


def test_nothing_makes_the_host_wait():
    """No branch, and no loop but one whose number of turns is written in it."""
    text = lowered(32)
    assert "stablehlo.case" not in text
    assert "stablehlo.if" not in text
    loops = re.findall(r"stablehlo\.while.*?do \{", text, flags=re.DOTALL)
    for condition in loops:
        assert re.search(r"compare +LT, %\w+, %\w+", condition), condition
        assert "stablehlo.constant dense<" in condition
    assert "dense<32>" in loops[0]
    assert text.count("@pysamp_test(") == 1
    assert "slot = 3" in text


def test_views_bring_particles_into_the_system_s_order():
    atom_of_row = np.array([2, 0, 1, 3])  # the last row is padding
    positions = np.random.default_rng(0).normal(size=(3, 3))
    rows = np.zeros((4, 4), dtype=np.float32)
    rows[:3, :3] = positions[atom_of_row[:3]]
    rest = np.zeros((4, 4), dtype=np.float32)
    rest[:3, :3] = positions[atom_of_row[:3]] - rows[:3, :3]
    fixed = np.zeros((3, 4), dtype=np.int64)
    fixed[:, :3] = np.round(positions[atom_of_row[:3]].T * 2**32)
    with jax.enable_x64(True):
        row_of_atom = jnp.argsort(atom_of_row[:3])
        view: Any = SortedView(jnp.asarray(rows), jnp.asarray(rest), row_of_atom)
        np.testing.assert_allclose(view.array, positions, atol=1e-14)
        np.testing.assert_allclose(jnp.sum(view, axis=0), positions.sum(axis=0), atol=1e-13)
        np.testing.assert_array_equal(
            SortedView(jnp.asarray(rows), None, row_of_atom).array, positions.astype(np.float32)
        )
        np.testing.assert_allclose(FixedPointView(jnp.asarray(fixed), row_of_atom).array, positions, atol=2**-32)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -(2.0**31)])
def test_forces_that_openmm_cannot_hold_end_the_sampling(bad: float, monkeypatch: pytest.MonkeyPatch):
    handed_over = []

    def ffi_call(target: str, shape: Any, has_side_effect: bool) -> Any:
        def call(forces: Array, slot: Any) -> Array:
            handed_over.append(np.asarray(forces))
            return jnp.ones(shape.shape)

        return call

    monkeypatch.setattr(jax.ffi, "ffi_call", ffi_call)
    with jax.enable_x64(True):
        engine = DeviceEngine(jnp.asarray(True), "pysamp_test", 0, 1, False, False)
        engine, handed = engine.advance(jnp.array([1.0, 2.0, 3.0, 4.0]))
        assert engine.ok
        assert engine.unpack(handed)[0] == NEW_STEP
        for forces in (jnp.array([1.0, 2.0, bad, 4.0]), jnp.ones(4)):
            engine, handed = engine.advance(forces)
            assert not engine.ok
            assert engine.unpack(handed)[0] == FINISHED
            np.testing.assert_array_equal(handed_over[-1], np.zeros(4))
    assert eqx.tree_equal(engine, eqx.tree_at(lambda e: e.ok, engine, jnp.asarray(False)))
