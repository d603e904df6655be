"""The path moves to where the samples are, the biases act along it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pysamp
from pysamp.backends import toy
from pysamp.colvars import Component, DihedralAngle, Distance, Path, combine
from pysamp.errors import InvalidInputError
from pysamp.methods import ABF, AdaptivePath, HarmonicBias, HarmonicWalls, Metadynamics, Observation

X, Y = Component([0], axis=0), Component([0], axis=1)
STRAIGHT = np.stack([np.linspace(-1.0, 1.0, 11), np.zeros(11)], axis=1)


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


def observations(xi):
    n = len(xi)
    return jax.vmap(Observation)(
        xi=jnp.asarray(xi),
        step=jnp.arange(n),
        kT=jnp.ones(n),
        key=jax.random.split(jax.random.key(0), n),
        momentum=jnp.zeros(xi.shape),
        timestep=jnp.ones(n),
    )


def follow(method, xi):
    obs = observations(xi)
    state = method.reserve(method.init(jax.tree.map(lambda leaf: leaf[0], obs)), len(xi))
    return jax.jit(lambda s, o: jax.lax.scan(lambda s, o: (method.update(s, o), None), s, o)[0])(state, obs)


def channel(n, seed=0):
    """Samples in a curved channel between the ends of the straight path."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1.0, 1.0, n)
    return np.stack([x, 0.6 * (1 - x**2) + 0.1 * rng.normal(size=n)], axis=1)


@pytest.mark.parametrize("half_life", [None, 20_000])
def test_the_path_finds_the_channel(half_life):
    path = Path([X, Y], STRAIGHT)
    method = AdaptivePath(path, HarmonicBias(path["s"], kspring=1.0, center=3.0), stride=500, half_life=half_life)
    nodes = np.asarray(follow(method, channel(60_000)).nodes)
    np.testing.assert_allclose(nodes[:, 1], 0.6 * (1 - nodes[:, 0] ** 2), atol=0.03)
    np.testing.assert_array_equal(nodes[0], STRAIGHT[0])
    np.testing.assert_allclose(nodes[-1], STRAIGHT[-1], atol=1e-12)
    spacing = np.linalg.norm(np.diff(nodes, axis=0), axis=1)
    np.testing.assert_allclose(spacing, spacing.mean(), rtol=0.02)


def test_first_move_is_the_mean_displacement():
    """Three samples: two share an inner node with 3/4 and 1/4 of it, one lies beyond the end, which stays."""
    path = Path([X, Y], [[0.0, 0.0], [1.0, 0.0], [2.0, 0.0]])
    method = AdaptivePath(path, HarmonicBias(path["s"], kspring=1.0, center=1.0), stride=4)
    state = follow(method, np.array([[0.75, 0.4], [1.75, -0.2], [5.0, 1.0]]))
    np.testing.assert_allclose(state.weights, [0.25, 1.0, 1.75])
    np.testing.assert_allclose(state.drifts, [[0.0, 0.1], [0.0, 0.25], [3.0, 0.85]])
    state = follow(method, np.array([[0.75, 0.4], [1.75, -0.2], [5.0, 1.0], [0.0, 0.0]]))
    np.testing.assert_allclose(state.nodes, [[0.0, 0.0], [1.0, 0.25], [2.0, 0.0]], atol=1e-12)
    np.testing.assert_array_equal(state.drifts, np.zeros((3, 2)))


def test_a_path_across_the_period():
    torsions = [DihedralAngle([0, 1, 2, 3]), DihedralAngle([1, 2, 3, 4])]
    path = Path(torsions, [[2.8 + 0.1 * i, 0.0] for i in range(8)])  # up to 3.5, which is -2.78
    method = AdaptivePath(path, HarmonicBias(path["s"], kspring=1.0, center=1.0), stride=100)
    rng = np.random.default_rng(1)
    samples = np.stack([rng.uniform(2.8, 3.5, 4000), 0.3 + 0.01 * rng.normal(size=4000)], axis=1)
    nodes = np.asarray(follow(method, (samples + np.pi) % (2 * np.pi) - np.pi).nodes)
    np.testing.assert_allclose(nodes[2:-2, 1], 0.3, atol=0.02)
    assert (np.diff(nodes[:, 0]) > 0).all()


def test_a_metadynamics_run_along_an_adaptive_path():
    """Double well in a curved channel, barrier 4 kT: the free energy along the path has it."""

    def potential(x):
        return 4.0 * (x[0, 0] ** 2 - 1) ** 2 + 20.0 * (x[0, 1] - 0.6 * (1 - x[0, 0] ** 2)) ** 2 + 0.5 * x[0, 2] ** 2

    def generate_context():
        return toy.Simulation(potential, np.array([[-1.0, 0.0, 0.0]]), kT=1.0, timestep=0.02, friction=5.0)

    path = Path([X, Y], STRAIGHT)
    biases = [
        Metadynamics(path["s"], height=0.3, sigma=0.5, stride=100, bias_factor=6),
        HarmonicWalls(path["z"], upper=0.3, kspring=50.0),
    ]
    result = pysamp.run(
        AdaptivePath(path, biases, stride=2000), generate_context, 150_000, log_every=50, progress=False, seed=1
    )
    nodes = np.asarray(result.states[0].methods[0].nodes)
    np.testing.assert_allclose(nodes[1:-1, 1], 0.6 * (1 - nodes[1:-1, 0] ** 2), atol=0.12)
    fes = pysamp.analyze(result, grid=pysamp.Grid((1.0,), (11.0,), (40,)))
    values, s = np.asarray(fes.values), np.linspace(1.125, 10.875, 40)
    barrier = values[np.abs(s - 6.0) < 0.5].mean() - values[np.isfinite(values)].min()
    assert barrier == pytest.approx(4.0, abs=1.0)


@pytest.mark.parametrize(
    "make",
    [
        lambda path: AdaptivePath(path, HarmonicBias(Distance([0, 1]), kspring=1.0, center=0.0), stride=10),
        lambda path: AdaptivePath(path, HarmonicBias(Path([X, Y], STRAIGHT)["s"], kspring=1.0, center=0.0), stride=10),
        lambda path: AdaptivePath(path, ABF(path["s"], grid=pysamp.Grid((1.0,), (11.0,), (10,))), stride=10),
        lambda path: AdaptivePath(path, [], stride=10),
        lambda path: AdaptivePath(path["s"], HarmonicBias(path["s"], kspring=1.0, center=0.0), stride=10),
        lambda path: AdaptivePath(path, HarmonicBias(path["s"], kspring=1.0, center=0.0), stride=0),
        lambda path: AdaptivePath(path, HarmonicBias(path["s"], kspring=1.0, center=0.0), stride=10, half_life=0.0),
    ],
)
def test_wrong_arguments(make):
    with pytest.raises(InvalidInputError):
        make(Path([X, Y], STRAIGHT))


def test_functions_of_the_components_are_on_the_path_too():
    path = Path([X, Y], STRAIGHT)
    half = combine(lambda s: 0.5 * s, [path["s"]])
    method = AdaptivePath(path, HarmonicBias(half, kspring=2.0, center=0.0), stride=10)
    obs = jax.tree.map(lambda leaf: leaf[0], observations(np.array([[0.2, 0.1]])))
    state = method.init(obs)
    assert method.bias(state, obs).energy == pytest.approx((0.5 * float(state.progress[0])) ** 2)
