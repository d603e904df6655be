"""Histograms and umbrella windows of biases that do not change, from exact samples."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

import pysamp
from pysamp import Grid
from pysamp.colvars import Component, custom
from pysamp.errors import InvalidInputError, SimulationError, UnsupportedError
from pysamp.methods import AbstractMethod, Bias, HarmonicBias, HarmonicWalls, Metadynamics, Unbiased
from pysamp.methods.base import as_cvs

from .ideal import EXACT, FINE, LEFT, RIGHT, covered, double_well, make_run

X, Y = Component([0], axis=0), Component([0], axis=1)
GRID = Grid(-2.0, 2.0, 80)


def window(method, n, seed=0, n_replicas=1, points=FINE, energy=double_well):
    rng = np.random.default_rng(seed)
    bias = np.array(eqx.filter_jit(eqx.filter_vmap(method.potential))(jnp.asarray(points)[:, None]))
    p = np.exp(-(energy(points) + bias))
    xi = points[np.searchsorted(np.cumsum(p) / p.sum(), rng.random((n_replicas, n)))]
    return make_run([method], [(None,)] * n_replicas, xi[..., None])


def windows(seed, n=200, kspring=30.0, n_windows=13, **options):
    centers = np.linspace(-1.6, 1.6, n_windows)
    methods = [HarmonicBias(X, kspring=kspring, center=center) for center in centers]
    return [window(method, n, 100 * seed + i, **options) for i, method in enumerate(methods)]


@pytest.mark.parametrize(
    ("kspring", "n_windows"),
    [pytest.param(30.0, 13, id="soft"), pytest.param(300.0, 33, id="stiff", marks=pytest.mark.validation)],
)
def test_umbrella_windows(kspring, n_windows):
    """Bias-free and honest, soft or stiff (where a bias taken at bin centres would be off by tenths of kT).

    40 sets of windows. False alarms: 1e-4 of the bias, 2 % of the coverage.
    """
    sets = [windows(seed, kspring=kspring, n_windows=n_windows) for seed in range(40)]
    part, scaled = covered(sets, grid=GRID)
    assert abs(scaled.mean()) < 4 / np.sqrt(40)
    assert 0.5 < part < 0.86


def test_windows_without_overlap_say_so():
    with pytest.raises(SimulationError, match="share no samples"):
        pysamp.analyze(windows(0, kspring=3000.0, n_windows=7), grid=GRID)


def test_shape_from_umbrella_windows():
    result = pysamp.analyze(windows(0, n=20_000), grid=GRID)
    exact = -np.log(np.exp(-double_well(FINE))[:-1].reshape(80, -1).sum(axis=1))
    low = exact - exact.min() < 6
    difference = (result.values - exact)[low]
    assert np.std(difference) < 0.03


@pytest.mark.parametrize(
    "method", [Unbiased(X), HarmonicBias(X, kspring=1.0, center=0.4), HarmonicWalls(X, upper=0.5, kspring=9.0)]
)
def test_one_run_is_reweighted(method):
    """60 runs each. False alarms: 1e-4 of the bias, 1 % of the coverage."""
    part, scaled = covered([window(method, 4000, seed) for seed in range(60)], grid=GRID)
    assert abs(scaled.mean()) < 4 / np.sqrt(60)
    assert 0.52 < part < 0.83


def test_a_single_window_in_a_list_and_replicas():
    method = HarmonicBias(X, kspring=1.0, center=0.0)
    run = window(method, 4000, n_replicas=3)
    value, error = pysamp.analyze([run], grid=GRID).difference(LEFT, RIGHT)
    assert (value, error) == pysamp.analyze(run, grid=GRID).difference(LEFT, RIGHT)
    assert abs(value - EXACT) < 4 * error


def test_a_periodic_cv_across_its_boundary():
    """Windows on both sides of the boundary, bins that contain it."""
    angle = custom(lambda x: jnp.arctan2(x[0, 1], x[0, 0]), atoms=[0], period=2 * np.pi)
    points = np.linspace(-np.pi, np.pi, 4001)[:-1]
    energy = lambda x: 2.0 * np.cos(2 * x) + np.sin(x)  # noqa: E731
    runs = [
        window(HarmonicBias(angle, kspring=5.0, center=c), 3000, i, points=points, energy=energy)
        for i, c in enumerate(np.linspace(-np.pi, np.pi, 10, endpoint=False))
    ]
    result = pysamp.analyze(runs, grid=Grid(-3.5, 2 * np.pi - 3.5, 60, periodic=True))
    difference = result.values - energy(result.grid.centers[0])
    assert np.std(difference) < 0.12
    assert pysamp.analyze(runs).grid.periodic == (True,)


def test_the_first_samples_are_left_out():
    run = window(Unbiased(X), 2000)
    run.log.xi.values[:, :150] = 1.9
    assert np.isnan(pysamp.analyze(run, grid=GRID).values[-2])
    assert np.isfinite(pysamp.analyze(run, grid=GRID, discard=0.0).values[-2])


class Unknown(AbstractMethod):
    cvs: tuple = eqx.field(converter=as_cvs)

    def init(self, obs):
        return None

    def update(self, state, obs):
        return None

    def bias(self, state, obs):
        return Bias(jnp.zeros(()), jnp.zeros(1))


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: make_run([Unbiased(X)], [(None,)]), InvalidInputError, "log_every"),
        (lambda: [], InvalidInputError, "list of runs"),
        (lambda: [1, 2], InvalidInputError, "int"),
        (lambda: [window(Unbiased(X), 500), window(Unbiased(Y), 500)], InvalidInputError, "different CVs"),
        (lambda: make_run([Unknown(X)], [(None,)]), UnsupportedError, "analyze.dispatch"),
        (
            lambda: [make_run([Metadynamics(X, height=1.0, sigma=1.0, stride=1)], [(None,)])] * 2,
            UnsupportedError,
            "changes",
        ),
    ],
)
def test_bad_input(make, error, text):
    with pytest.raises(error, match=text):
        pysamp.analyze(make())
