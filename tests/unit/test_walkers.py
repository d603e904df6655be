"""Walkers that share one bias, on the toy engine."""

from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pysamp
from pysamp.backends import toy
from pysamp.colvars import Component
from pysamp.methods import ABF, HarmonicBias, HarmonicWalls, Metadynamics, UmbrellaSampling, Unbiased

X = Component([0], axis=0)
GRID = pysamp.Grid(-2.0, 2.0, 80)


def double_well(x):
    return 3.0 * (x[0, 0] ** 2 - 1.0) ** 2 + 0.7 * x[0, 0] + 0.5 * jnp.sum(x[0, 1:] ** 2)


def generate_context(start=-1.0):
    return toy.Simulation(double_well, [[start, 0.0, 0.0]], timestep=0.05, friction=1.0)


def metadynamics(grid=True, stride=20):
    return Metadynamics(X, height=0.2, sigma=0.2, stride=stride, bias_factor=6, grid=GRID if grid else None)


def shared(method, n_steps=400, replicas=3, **options):
    options = {"log_every": 10, "seed": 1, "progress": False, **options}
    return pysamp.run(method, generate_context, n_steps, replicas=replicas, shared=True, **options)


@pytest.mark.parametrize("grid", [True, False])
def test_hills_of_all_walkers_are_one_bias(grid):
    """In the order of the walkers, each tempered by those before it, the same in every state."""
    method = metadynamics(grid)
    run = shared(method, 61, log_every=20)
    states = [state.methods[0] for state in run.states]
    assert [int(s.n_hills) for s in states] == [9, 9, 9]
    assert all(np.array_equal(s.hills, states[0].hills) for s in states)
    centers, heights = states[0].centers[:9, 0], states[0].heights[:9]
    logged = run.log.xi.values[:, 1:, 0].T.reshape(-1)
    np.testing.assert_allclose(centers, logged, rtol=1e-12)
    for i in range(9):
        before = np.sum(heights[:i] * np.exp(-0.5 * ((centers[i] - centers[:i]) / 0.2) ** 2))
        tolerance = 2e-4 if grid else 1e-12
        np.testing.assert_allclose(heights[i], 0.2 * np.exp(-before / 5.0), rtol=tolerance)


def test_a_shared_static_bias_is_like_one_of_ones_own():
    method = [HarmonicBias(X, kspring=2.0, center=0.3), HarmonicWalls(X, upper=1.0, kspring=3.0)]
    own = pysamp.run(method, generate_context, 300, replicas=3, log_every=10, seed=1, progress=False)
    np.testing.assert_allclose(shared(method, 300).log.xi.values, own.log.xi.values, rtol=1e-10)


def test_forces_of_abf_are_those_of_all_walkers():
    """With a bias that never begins, the common sums are the sums over replicas of their own."""
    method = ABF(X, grid=pysamp.Grid(-2.0, 2.0, 20), full_samples=10**9)
    own = pysamp.run(method, generate_context, 3000, replicas=3, seed=1, progress=False)
    common = shared(method, 3000)
    expected = sum(np.asarray(state.methods[0].sums) for state in own.states)
    found = common.states[0].methods[0]
    np.testing.assert_allclose(np.sum(found.sums, axis=1), np.sum(expected, axis=1), atol=0.1)
    assert int(found.n_steps) == 3000
    momenta = [[float(s.methods[0].momentum[0]) for s in run.states] for run in (common, own)]
    np.testing.assert_allclose(*momenta, rtol=1e-3)


@pytest.mark.parametrize("method", [metadynamics(), ABF(X, grid=GRID, full_samples=20)], ids=["hills", "forces"])
def test_resumed_exactly(method, tmp_path):
    whole = shared(method)
    shared(method, 250, checkpoint=tmp_path / "run")
    resumed = shared(method, 400, checkpoint=tmp_path / "run")
    part = shared(method, 250)
    pysamp.save(part, tmp_path / "part.nc")
    went_on = pysamp.run(pysamp.load(tmp_path / "part.nc"), generate_context, 150, progress=False)
    for other in (resumed, went_on):
        assert whole.log.equals(other.log)
        for first, second in zip(whole.states, other.states, strict=True):
            same = jax.tree.map(np.array_equal, *(jax.tree.leaves(s.methods) for s in (first, second)))
            assert all(same)


@pytest.mark.parametrize("kind", ["metadynamics", "hills without a grid", "ABF"])
def test_free_energy_and_its_error(kind):
    """16 walkers: the depth of the double well's other side, within 4 of the errors that are given, which are not large.

    Hills counted once for each walker, or samples put under a bias that came later, are off by 0.3 kT or more.
    """
    method = {
        "metadynamics": metadynamics(stride=50),
        "hills without a grid": metadynamics(grid=False, stride=100),
        "ABF": ABF(X, grid=pysamp.Grid(-1.8, 1.8, 40), full_samples=50),
    }[kind]
    run = shared(method, 12_000, replicas=16)
    difference, stderr = pysamp.analyze(run).difference(lambda x: x < 0, lambda x: x > 0)
    x = np.linspace(-1.8, 1.8, 2001)
    weight = np.exp(-(3.0 * (x**2 - 1.0) ** 2 + 0.7 * x))
    expected = -np.log(weight[x > 0].sum() / weight[x < 0].sum())
    assert stderr < 0.15
    assert abs(difference - expected) < 4.0 * stderr


def test_a_common_bias_is_stored_once(tmp_path):
    """In files and in checkpoints."""
    method = Metadynamics(X, height=0.2, sigma=0.2, stride=20, bias_factor=6, grid=pysamp.Grid(-2.0, 2.0, 20_000))
    sizes = {}
    for n in (2, 8):
        run = shared(method, 50, replicas=n, checkpoint=tmp_path / f"{n}.ckpt")
        pysamp.save(run, tmp_path / f"{n}.nc")
        stored = [tmp_path / f"{n}.nc", *(tmp_path / f"{n}.ckpt").rglob("*.npz")]
        sizes[n] = [file.stat().st_size for file in stored]
    for two, eight in zip(sizes[2], sizes[8], strict=True):
        assert eight < 1.5 * two


def test_what_cannot_be_shared_is_refused_before_step_0():
    with pytest.raises(pysamp.errors.InvalidInputError, match="cannot share OPES"):
        shared(pysamp.methods.OPES(X, barrier=5.0, sigma=0.2, stride=20))
    windows = UmbrellaSampling(X, kspring=10.0, centers=[[-1.0], [0.0], [1.0]])
    with pytest.raises(pysamp.errors.InvalidInputError, match=r"cannot share|Windows"):
        shared(windows)
    with ThreadPoolExecutor() as executor, pytest.raises(pysamp.errors.InvalidInputError, match="in one program"):
        shared(metadynamics(), executor=executor)
    with pytest.raises(pysamp.errors.UnsupportedError, match="in one program"):
        pysamp.run(Unbiased(X), lambda: object(), 10, replicas=2, shared=True, progress=False)


def test_one_walker_cannot_go_on_alone():
    with pytest.raises(pysamp.errors.InvalidInputError, match="only all of them"):
        pysamp.run(shared(metadynamics()).replica(0), generate_context, 10, progress=False)
