"""Reweighting of a CV that was not biased, for each kind of method, against quadrature."""

import jax.numpy as jnp
import numpy as np
import pytest

import pysamp
from pysamp import Grid
from pysamp.analysis import bias_constant, reweight, sample_weights
from pysamp.backends import toy
from pysamp.colvars import Component
from pysamp.errors import InvalidInputError
from pysamp.methods import ABF, HarmonicBias, Metadynamics, UmbrellaSampling, Unbiased

pytestmark = pytest.mark.optimized

X, Y = Component([0], axis=0), Component([0], axis=1)
GRID = Grid(-2.0, 2.0, 40)
LEFT, RIGHT = (lambda y: y < 0), (lambda y: y > 0)


def energy(x, y):
    return 3.0 * (x**2 - 1.0) ** 2 + 0.5 * x + 2.0 * (y - x) ** 2


def simulation():
    def potential(r):
        return jnp.sum(energy(r[:, 0], r[:, 1]) + 0.5 * r[:, 2] ** 2)

    return toy.Simulation(potential, [[-1.0, -1.0, 0.0]], timestep=0.05, friction=2.0)


def exact():
    q = np.linspace(-3.0, 3.0, 1201)
    p = np.exp(-energy(q[:, None], q[None, :])).sum(axis=0)
    return float(np.log(p[q < 0].sum() / p[q > 0].sum()))


METHODS = {
    "metadynamics": Metadynamics(X, height=0.2, sigma=0.15, stride=100, bias_factor=6, grid=GRID),
    "metadynamics without grid": Metadynamics(X, height=0.4, sigma=0.2, stride=400, bias_factor=6),
    "ABF": ABF(X, grid=GRID),
    "umbrella sampling": UmbrellaSampling(X, centers=np.linspace(-1.5, 1.5, 9), kspring=20.0, pull_steps=500),
    "static": HarmonicBias(X, kspring=2.0, center=0.0),
}


@pytest.mark.parametrize(
    "name",
    [
        name if name in ("metadynamics", "static") else pytest.param(name, marks=pytest.mark.validation)
        for name in METHODS
    ],
)
def test_a_cv_that_was_not_biased(name):
    """Twelve replicas (sets of windows), each alone: the mean within 4 of its standard errors, errors right within a factor of 2.

    False alarms: 1e-3 of the mean, 1e-2 of the errors. Catches weights without the bias, a bias counted twice, blocks that do
    not fit the samples.
    """
    method = METHODS[name]
    n_steps = 20_000 if name == "umbrella sampling" else 200_000
    run = pysamp.run([method, Unbiased(Y)], simulation, n_steps, replicas=12, log_every=20, seed=3, progress=False)
    n = method.n_replicas
    found = []
    for first in range(0, run.n_replicas, n):
        part = pysamp.Run(
            run.methods,
            run.states[first : first + n],
            run.snapshots[first : first + n],
            run.log.isel(replica=slice(first, first + n)),
            run.kT,
            run.timestep,
        )
        found.append(reweight(part, Y.labels[0], grid=GRID).difference(LEFT, RIGHT))
    value, error = np.array(found).T
    assert abs(value.mean() - exact()) < 4 * value.std(ddof=1) / np.sqrt(12)
    assert 0.5 < np.sqrt(np.mean(error**2)) / value.std(ddof=1) < 2.2


@pytest.fixture(scope="module")
def run():
    methods = [METHODS["metadynamics"], Unbiased(Y)]
    return pysamp.run(methods, simulation, 50_000, replicas=2, log_every=20, seed=3, progress=False)


def test_what_is_reweighted_may_be_said_in_many_ways(run):
    values = run.log.xi.values[..., 1]
    results = [reweight(run, of, grid=GRID) for of in ("Component(0).y", ["Component(0).y"], run.methods[1], values)]
    for result in results[1:]:
        np.testing.assert_array_equal(result.values, results[0].values)
    two = reweight(run, list(run.log.cv.values), grid=Grid((-2, -2), (2, 2), (40, 40)))
    np.testing.assert_allclose(two.marginal(1).difference(LEFT, RIGHT), results[0].difference(LEFT, RIGHT), atol=0.05)


def test_the_biased_cv_itself_is_what_the_analysis_gives(run):
    own = reweight(run, "Component(0).x", grid=GRID)
    fes = pysamp.analyze(run, grid=GRID)
    both = np.isfinite(own.values) & np.isfinite(fes.values)
    np.testing.assert_allclose((own.values - fes.values)[both], 0.0, atol=1e-8)


def test_weights_are_normalised_and_say_how_many_samples_they_are_worth(run):
    weights = sample_weights(run, discard=0.5)
    assert float(weights.weight.sum()) == pytest.approx(1.0)
    assert not weights.weight[:, :1250].any()
    assert 50 < weights.attrs["effective_samples"] < 2500
    np.testing.assert_allclose(weights.replicates.sum(("replica", "sample")), 1.0)


def test_the_time_dependent_constant(run):
    """With c(t) the weights of Tiwary and Parrinello: the exact difference within 4 errors, and c(t) rises on the whole."""
    c = bias_constant(run)
    assert c.shape == (2, 2500)
    assert (np.diff(c.values[:, [300, 600, 1200, 2499]], axis=1) > 0).all()  # a single hill in a valley may lower it
    relative = run.log.method_energy.isel(method=0) - c
    tiwary = reweight(run, "Component(0).y", grid=GRID, weights=np.exp(relative), discard=0.2)
    value, error = tiwary.difference(LEFT, RIGHT)
    assert abs(value - exact()) < 4 * error
    assert error < 0.5


def test_the_constant_of_one_hill():
    """c after the first hill by quadrature; before it there is none."""
    method = Metadynamics(X, height=0.5, sigma=0.2, stride=10, bias_factor=4, grid=GRID)
    run = pysamp.run(method, simulation, 20, log_every=1, seed=1, progress=False)
    c = bias_constant(run).values[0]
    x = np.linspace(-2, 2, 4001)
    v = 0.5 * np.exp(-0.5 * ((x - run.log.xi.values[0, 10, 0]) / 0.2) ** 2)
    expected = np.log(np.exp(4.0 / 3.0 * v).sum() / np.exp(v / 3.0).sum())
    np.testing.assert_allclose(c[:11], 0.0, atol=1e-12)
    np.testing.assert_allclose(c[11:], expected, rtol=0.01)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"of": "phi"}, "has no CV 'phi'"),
        ({"of": np.zeros((2, 7))}, "shape"),
        ({"of": "Component(0).y", "grid": Grid((0, 0), (1, 1), (2, 2))}, "2 axes"),
        ({"of": "Component(0).y", "grid": Grid(50, 51, 2)}, "No sample"),
        ({"of": "Component(0).y", "weights": np.ones(3)}, "weights must have"),
        ({"of": "Component(0).y", "weights": -np.ones((2, 2500))}, "negative"),
    ],
)
def test_bad_input(run, options, text):
    with pytest.raises(InvalidInputError, match=text):
        reweight(run, **options)


def test_the_constant_is_of_metadynamics():
    run = pysamp.run(Unbiased(X), simulation, 100, progress=False)
    with pytest.raises(InvalidInputError, match=r"c\(t\)"):
        bias_constant(run)
