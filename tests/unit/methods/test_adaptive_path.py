"""The path moves to where the samples are, the biases act along it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pysamp
from pysamp.backends import toy
from pysamp.colvars import Component, DihedralAngle, Distance, Path, combine
from pysamp.errors import InvalidInputError
from pysamp.methods import (
    ABF,
    OPES,
    AdaptivePath,
    HarmonicBias,
    HarmonicWalls,
    Metadynamics,
    UmbrellaSampling,
    Unbiased,
)

from .trajectories import observe

X, Y = Component([0], axis=0), Component([0], axis=1)
STIFFNESS, HEIGHT = 80.0, 4.0
ENDS = np.array([[-np.sin(1.0), np.cos(1.0)], [np.sin(1.0), np.cos(1.0)]])  # at the angles -1 and 1 of the unit circle
CHORD = ENDS[0] + (ENDS[1] - ENDS[0]) * np.linspace(0.0, 1.0, 11)[:, None]


def follow(method, xi):
    """State after a trajectory, in one program."""
    state = method.reserve(method.init(observe(xi[0])), len(xi))

    def body(state, step_and_xi):
        step, values = step_and_xi
        obs = observe(values, step)
        return method.learned(method.update(state, obs), step + 1, obs.kT), None

    return jax.jit(lambda s: jax.lax.scan(body, s, (jnp.arange(len(xi)), jnp.asarray(xi)))[0])(state)


def arc(n, seed=0):
    """Samples of a valley along the unit circle, at angles between -1.2 and 1.2."""
    rng = np.random.default_rng(seed)
    angle, radius = rng.uniform(-1.2, 1.2, n), 1.0 + rng.normal(size=n) / np.sqrt(STIFFNESS)
    return np.stack([radius * np.sin(angle), radius * np.cos(angle)], axis=1)


@pytest.mark.parametrize("half_life", [None, 20_000])
def test_the_path_finds_the_valley(half_life):
    """Every node within 0.03 of the circle, from which the chord is up to 0.46 away; equal distances; ends stay."""
    path = Path([X, Y], CHORD)
    method = AdaptivePath(path, HarmonicBias(path["s"], kspring=1.0, center=3.0), stride=500, half_life=half_life)
    nodes = np.asarray(follow(method, arc(40_000)).nodes)
    np.testing.assert_allclose(np.linalg.norm(nodes, axis=1), 1.0, atol=0.03)
    np.testing.assert_allclose(nodes[[0, -1]], ENDS, atol=1e-12)
    spacing = np.linalg.norm(np.diff(nodes, axis=0), axis=1)
    np.testing.assert_allclose(spacing, spacing.mean(), rtol=0.02)


def test_first_move_is_the_mean_displacement():
    """Three samples: two share an inner node with 3/4 and 1/4 of it, one lies beyond the end, which stays."""
    path = Path([X, Y], [[0.0, 0.0], [1.0, 0.0], [2.0, 0.0]])
    method = AdaptivePath(path, HarmonicBias(path["s"], kspring=1.0, center=1.0), stride=4, smoothing=0.0)
    samples = np.array([[0.75, 0.4], [1.75, -0.2], [5.0, 1.0], [0.0, 0.0]])
    np.testing.assert_array_equal(follow(method, samples[:3]).nodes, path.nodes)
    state = follow(method, samples)
    np.testing.assert_allclose(state.nodes, [[0.0, 0.0], [1.0, 0.25], [2.0, 0.0]], atol=1e-12)
    np.testing.assert_allclose(state.weights, [1.25, 1.0, 1.75])
    # all of its samples are new, so smoothing takes its whole part, here half of the way to the middle of the ends
    smooth = AdaptivePath(path, HarmonicBias(path["s"], kspring=1.0, center=1.0), stride=4, smoothing=0.5)
    np.testing.assert_allclose(follow(smooth, samples).nodes[1], [1.0, 0.125], atol=1e-12)


@pytest.mark.parametrize(("stride", "n_looks"), [(8, 8), (60, 30), (132, 44)])
def test_older_samples_count_less(stride, n_looks):
    """A look every (stride / 50) steps, rounded up; each counts half as much as the one two looks later."""
    path = Path([X, Y], [[0.0, 0.0], [1.0, 0.0], [2.0, 0.0]])
    every = -(-stride // 50)
    bias = HarmonicBias(path["s"], kspring=1.0, center=1.0)
    method = AdaptivePath(path, bias, stride=stride, half_life=2.0 * every, smoothing=0.0)
    xi = np.full((2 * stride, 2), [1.0, 0.3])
    state = follow(method, xi)
    np.testing.assert_allclose(state.nodes[1], xi[0], rtol=1e-12)
    assert float(state.weights[1]) == pytest.approx(1.0 / (1.0 - np.sqrt(0.5)), rel=0.01)
    counted = AdaptivePath(path, bias, stride=stride, smoothing=0.0)
    assert float(follow(counted, xi).weights[1]) == 2 * n_looks


def test_nodes_beyond_those_that_stay():
    """They continue the path straight on, at its distances."""
    line = np.stack([np.linspace(-2.0, 2.0, 9), np.zeros(9)], axis=1)
    path = Path([X, Y], line)
    method = AdaptivePath(
        path, HarmonicBias(path["s"], kspring=1.0, center=3.0), stride=500, fixed=(2, -3), smoothing=0.0
    )
    rng = np.random.default_rng(2)
    x = rng.uniform(-2.0, 2.0, 20_000)
    nodes = np.asarray(follow(method, np.stack([x, 0.3 * np.cos(0.5 * np.pi * x)], axis=1)).nodes)
    np.testing.assert_allclose(nodes[[2, 6]], line[[2, 6]], atol=1e-12)
    # the mean over samples half a side away and nearer is a little less than 0.3
    assert nodes[4, 1] == pytest.approx(0.28, abs=0.05)
    sides = np.diff(nodes, axis=0)
    np.testing.assert_allclose(np.linalg.norm(sides, axis=1), np.linalg.norm(sides[3]), rtol=0.01)
    np.testing.assert_allclose(sides[:2], np.broadcast_to(sides[2], (2, 2)), atol=1e-12)
    np.testing.assert_allclose(sides[6:], np.broadcast_to(sides[5], (2, 2)), atol=1e-12)
    assert sides[0, 1] > 0.05


def test_a_path_across_the_period():
    """A valley at 0.3 along a torsion that passes pi; the path begins at 0.2, its ends in the valley."""
    torsions = [DihedralAngle([0, 1, 2, 3]), DihedralAngle([1, 2, 3, 4])]
    start = np.stack([2.4 + 0.2 * np.arange(8), [0.3, *[0.0] * 6, 0.3]], axis=1)  # up to 3.8, which is -2.48
    path = Path(torsions, start)
    method = AdaptivePath(path, HarmonicBias(path["s"], kspring=1.0, center=1.0), stride=100)
    rng = np.random.default_rng(1)
    samples = np.stack([rng.uniform(2.3, 3.9, 8000), 0.3 + 0.05 * rng.normal(size=8000)], axis=1)
    nodes = np.asarray(follow(method, (samples + np.pi) % (2 * np.pi) - np.pi).nodes)
    np.testing.assert_allclose(nodes[:, 1], 0.3, atol=0.03)
    np.testing.assert_allclose(nodes[:, 0], start[:, 0], atol=0.05)


def potential(x):
    radius = jnp.sqrt(x[0, 0] ** 2 + x[0, 1] ** 2)
    angle = jnp.arctan2(x[0, 0], x[0, 1])
    return HEIGHT * (angle**2 - 1) ** 2 + 0.5 * STIFFNESS * (radius - 1) ** 2 + 0.5 * x[0, 2] ** 2


def simulation():
    return toy.Simulation(potential, np.array([[*ENDS[0], 0.0]]), kT=1.0, timestep=0.02, friction=5.0)


def hills(path):
    return Metadynamics(path["s"], height=0.3, sigma=0.5, stride=100, bias_factor=6, grid=pysamp.Grid(-1.0, 13.0, 140))


def kernels(path):
    return OPES(path["s"], barrier=6.0, sigma=0.5, stride=100, grid=pysamp.Grid(-1.0, 13.0, 140))


@pytest.mark.parametrize("bias", [hills, pytest.param(kernels, marks=pytest.mark.validation)])
def test_a_run_finds_path_and_barrier(bias):
    """The circle is the path of minimum free energy: the potential has no slope across it. 8 replicas.

    Nodes within 0.05 of it, averages over replicas within 0.02 (the mean radius of samples is 1 + 1 / 80, smoothing takes some
    0.01 off). The free energy of the saddle against a well is that of the angle by quadrature, as the arc length is s; within
    four standard errors, some 0.15 kT each.
    """
    path = Path([X, Y], CHORD)
    method = AdaptivePath(path, [bias(path), HarmonicWalls(path["z"], upper=0.3, kspring=50.0)], stride=500)
    options = {"log_every": 50, "replicas": 8, "seed": 1, "progress": False}
    run = pysamp.run([method, Unbiased(X)], simulation, 100_000, **options)
    nodes = np.stack([np.asarray(state.methods[0].nodes) for state in run.states])
    radii = np.linalg.norm(nodes, axis=-1)
    assert np.abs(radii - 1.0).max() < 0.05
    assert np.abs(radii.mean(axis=0) - 1.0).max() < 0.02
    fes = pysamp.analyze(run, grid=pysamp.Grid(1.0, 11.0, 40), discard=0.3)
    found, error = fes.difference(lambda s: (s > 2.5) & (s < 4.0), lambda s: np.abs(s - 6.0) < 0.75)
    angle = np.linspace(-1.0, 1.0, 20_001)
    p = np.exp(-HEIGHT * (angle**2 - 1) ** 2)
    s = 6.0 + 5.0 * angle
    expected = -np.log(p[np.abs(s - 6.0) < 0.75].sum() / p[(s > 2.5) & (s < 4.0)].sum())
    assert expected > 2.0
    assert error < 0.3
    assert abs(found - expected) < 4 * error + 0.1  # the path is not exactly the circle
    weights = pysamp.analysis.sample_weights(run, discard=0.3).weight.values
    left = float((weights * (run.log.xi.values[..., 0] < 0)).sum())
    assert left == pytest.approx(0.5, abs=0.25)
    again = method.found(run.states[0].methods[0])
    np.testing.assert_array_equal(again.nodes, nodes[0])


def test_a_run_that_goes_on_is_the_uninterrupted_one(tmp_path):
    path = Path([X, Y], CHORD)
    method = AdaptivePath(path, hills(path), stride=50)
    options = {"log_every": 10, "seed": 1, "progress": False}
    whole = pysamp.run(method, simulation, 400, **options)
    pysamp.run(method, simulation, 230, checkpoint=tmp_path / "c", **options)
    resumed = pysamp.run(method, simulation, 400, checkpoint=tmp_path / "c", **options)
    np.testing.assert_array_equal(whole.states[0].methods[0].nodes, resumed.states[0].methods[0].nodes)
    assert np.abs(np.asarray(whole.states[0].methods[0].nodes) - CHORD).max() > 1e-3
    pysamp.save(whole, tmp_path / "run.nc")
    loaded = pysamp.load(tmp_path / "run.nc")
    np.testing.assert_array_equal(loaded.states[0].methods[0].nodes, whole.states[0].methods[0].nodes)
    assert "Ensing" in pysamp.citation(loaded)
    assert "Branduardi" in pysamp.citation(loaded)


BAD = {
    "must act on path": lambda path: AdaptivePath(
        path, HarmonicBias(Distance([0, 1]), kspring=1.0, center=0.0), stride=10
    ),
    "that very path": lambda path: AdaptivePath(
        path, HarmonicBias(Path([X, Y], CHORD)["s"], kspring=1.0, center=0.0), stride=10
    ),
    "ABF cannot act": lambda path: AdaptivePath(path, ABF(path["s"], grid=pysamp.Grid(1.0, 11.0, 10)), stride=10),
    "UmbrellaSampling cannot act": lambda path: AdaptivePath(
        path, UmbrellaSampling(path["s"], centers=[1.0, 2.0], kspring=1.0), stride=10
    ),
    "or a list of them": lambda path: AdaptivePath(path, [], stride=10),
    r"needs a pysamp\.colvars\.Path": lambda path: AdaptivePath(path["s"], [], stride=10),
    "stride": lambda path: AdaptivePath(path, HarmonicBias(path["s"], kspring=1.0, center=0.0), stride=0),
    "half_life": lambda path: AdaptivePath(
        path, HarmonicBias(path["s"], kspring=1.0, center=0.0), stride=10, half_life=0.0
    ),
    "two of the path's 11 nodes": lambda path: AdaptivePath(
        path, HarmonicBias(path["s"], kspring=1.0, center=0.0), stride=10, fixed=(4, 5)
    ),
    "must be the numbers of two": lambda path: AdaptivePath(
        path, HarmonicBias(path["s"], kspring=1.0, center=0.0), stride=10, fixed=(0, 11)
    ),
    "smoothing": lambda path: AdaptivePath(
        path, HarmonicBias(path["s"], kspring=1.0, center=0.0), stride=10, smoothing=1.5
    ),
}


@pytest.mark.parametrize("text", BAD)
def test_bad_input_is_named(text):
    with pytest.raises(InvalidInputError, match=text):
        BAD[text](Path([X, Y], CHORD))


def test_functions_of_the_components_are_on_the_path_too():
    path = Path([X, Y], CHORD)
    half = combine(lambda s: 0.5 * s, [path["s"]])
    method = AdaptivePath(path, HarmonicBias(half, kspring=2.0, center=0.0), stride=10)
    obs = observe([0.2, 0.1])
    state = method.init(obs)
    assert float(method.bias(state, obs).energy) == pytest.approx((0.5 * float(state.progress[0])) ** 2)
