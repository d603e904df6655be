"""Snapshots and what goes on from them."""

import jax
import numpy as np
import pytest

import pysamp
from pysamp.colvars import Distance
from pysamp.methods import Metadynamics

METHOD = Metadynamics(Distance([0, 1]), height=1.0, sigma=0.02, stride=4, bias_factor=5.0)


def test_a_run_goes_on_bit_for_bit_in_a_new_context(systems, route):
    context = systems.gas()
    with pysamp.bind(route(context), METHOD) as bound:
        bound.reserve(40)
        bound.run(15)
        snapshots, states = bound.snapshots(), bound.states
        bound.run(17)
        expected = systems.positions(context), jax.tree.leaves(bound.states)
    other = systems.gas(systems.langevin(seed=77))
    with pysamp.bind(route(other), METHOD) as bound:
        bound.restore(snapshots)
        bound.states = states
        assert other.getStepCount() == 15
        assert other.getTime()._value == pytest.approx(0.03)
        bound.run(17)
        assert np.array_equal(systems.positions(other), expected[0])
        for a, b in zip(jax.tree.leaves(bound.states), expected[1], strict=True):
            assert np.array_equal(a, b)
        assert other.getStepCount() == 32


def test_snapshots_go_from_route_to_route(systems):
    from pysamp.backends.openmm import PythonForceRoute

    context = systems.gas()
    with pysamp.bind(context, METHOD) as bound:
        snapshots = bound.snapshots()
        bound.run(10)
        expected = systems.positions(context)
    other = systems.gas(systems.langevin(seed=77))
    with pysamp.bind(PythonForceRoute(other), METHOD) as bound:
        bound.restore(snapshots)
        bound.run(10)
    np.testing.assert_allclose(systems.positions(other), expected, rtol=1e-10)


def test_from_another_platform_the_arrays_serve(systems, route):
    with pysamp.bind(route(systems.gas()), METHOD) as bound:
        bound.run(7)
        snapshots = bound.snapshots()
    context = systems.gas(platform="CPU")
    context.setPeriodicBoxVectors([3, 0, 0], [0, 3, 0], [0, 0, 3])
    with pysamp.bind(route(context), METHOD) as bound:
        with pytest.warns(pysamp.PysampWarning, match="going on from positions and velocities"):
            bound.restore(snapshots)
        assert context.getStepCount() == 7
        assert context.getTime()._value == pytest.approx(0.014)
        np.testing.assert_allclose(systems.positions(context), snapshots[0].positions, rtol=1e-12)
        np.testing.assert_allclose(systems.velocities(context), snapshots[0].velocities, rtol=1e-12)
        np.testing.assert_allclose(bound.snapshots()[0].box, snapshots[0].box)
        bound.run(3)


@pytest.mark.parametrize(
    "parts", [{"engine": None}, {"engine": None, "velocities": None}, {"engine": np.zeros(9, np.uint8)}]
)
def test_snapshots_without_the_engines_checkpoint(systems, parts):
    import dataclasses

    context = systems.gas()
    with pysamp.bind(context, METHOD) as bound:
        snapshot = dataclasses.replace(bound.snapshots()[0], **parts)
        bound.run(4)
        if parts["engine"] is not None:
            with pytest.warns(pysamp.PysampWarning, match="cannot load"):
                bound.restore([snapshot])
        else:
            bound.restore([snapshot])
        np.testing.assert_allclose(systems.positions(context), snapshot.positions)
        assert context.getStepCount() == 0


def test_seeds(systems, route):
    """The same seed the same run, another seed another run; None leaves the engine's random numbers alone."""
    ends = []
    for seed in (1, 1, 2):
        context = systems.gas()
        with pysamp.bind(route(context), METHOD, seed=seed) as bound:
            bound.run(10)
        ends.append(systems.positions(context))
        assert context.getIntegrator().getRandomNumberSeed() == 1
    assert np.array_equal(ends[0], ends[1])
    assert not np.array_equal(ends[0], ends[2])


def test_seeds_reach_the_parts_of_a_compound_integrator(systems):
    ends = []
    for seed in (1, 2):
        integrator = systems.openmm.CompoundIntegrator()
        integrator.addIntegrator(systems.langevin())
        context = systems.gas(integrator)
        with pysamp.bind(context, METHOD, seed=seed) as bound:
            bound.run(10)
        ends.append(systems.positions(context))
    assert not np.array_equal(*ends)
