"""Free energies of metadynamics, on runs whose samples are exact, so that any error is the estimator's."""

import jax.numpy as jnp
import numpy as np
import pytest

import pysamp
from pysamp import Grid
from pysamp.analysis import hills
from pysamp.analysis import metadynamics as estimator
from pysamp.colvars import Component
from pysamp.errors import InvalidInputError
from pysamp.methods import HarmonicWalls, Metadynamics, Unbiased

from .ideal import EXACT, LEFT, RIGHT, covered, double_well, ideal_metadynamics, make_run

pytestmark = pytest.mark.optimized

X, Y = Component([0], axis=0), Component([0], axis=1)
GRID = Grid(-2.0, 2.0, 80)


def method(**changes):
    options = {"height": 0.4, "sigma": 0.15, "stride": 10, "bias_factor": 8.0}
    return Metadynamics(X, **{**options, **changes})


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="tempered", marks=pytest.mark.validation),
        pytest.param({"bias_factor": None, "height": 0.1}, id="standard", marks=pytest.mark.validation),
        pytest.param({"adapt_sigma": 5, "sigma": 0.08}, id="adaptive widths"),
    ],
)
def test_difference_and_its_error(changes):
    """30 ideal runs of 600 hills: no bias, and intervals that cover what they claim. Using only the final bias fails both.

    False alarms: 1e-4 of the bias, 1 % of the coverage.
    """
    runs = [ideal_metadynamics(method(**changes), 600, seed) for seed in range(30)]
    part, scaled = covered(runs, grid=GRID)
    assert abs(scaled.mean()) < 4 / np.sqrt(30)
    assert 0.46 < part < 0.90


def test_shape_of_the_surface():
    """Ten thousand hills fix F to a few hundredths; a kernel too wide or a bias in the wrong place would not."""
    result = pysamp.analyze(ideal_metadynamics(method(), 10_000), grid=GRID)
    exact = double_well(GRID.centers[0])
    low = exact < 4.0
    difference = (result.values - exact)[low]
    assert np.sqrt(np.mean((difference - difference.mean()) ** 2)) < 0.06
    assert 0.02 < np.median(result.stderr[low]) < 0.06


def test_the_log_makes_the_surface_smoother():
    run = ideal_metadynamics(method(), 500, log_per_hill=5)
    with_log = pysamp.analyze(run, grid=GRID)
    without = pysamp.analyze(make_run(run.methods, [s.methods for s in run.states]), grid=GRID)
    assert np.nanmedian(with_log.stderr) < 0.7 * np.nanmedian(without.stderr)
    assert abs(with_log.difference(LEFT, RIGHT)[0] - EXACT) < 4 * with_log.difference(LEFT, RIGHT)[1]


def test_replicas_are_united():
    """Four replicas halve the error of one."""
    parts = [ideal_metadynamics(method(), 600, seed) for seed in range(4)]
    united = make_run(parts[0].methods, [part.states[0].methods for part in parts])
    one = np.mean([pysamp.analyze(part, grid=GRID).difference(LEFT, RIGHT)[1] for part in parts])
    value, stderr = pysamp.analyze(united, grid=GRID).difference(LEFT, RIGHT)
    assert 0.3 < stderr / one < 0.75
    assert abs(value - EXACT) < 4 * stderr
    np.testing.assert_allclose(
        pysamp.analyze(united.replica(2), grid=GRID).values, pysamp.analyze(parts[2], grid=GRID).values
    )


def test_slices_have_the_average_bias():
    """Against the definition, hill by hill."""
    hills = method()
    run = ideal_metadynamics(hills, 40)
    centers, heights = (np.asarray(a) for a in (run.states[0].methods[0].centers, run.states[0].methods[0].heights))
    edges = np.array([4, 9, 10, 40])
    found = estimator._slice_biases(GRID, hills, centers, heights, np.full((40, 1), 0.15), edges)
    gaussians = heights[:, None] * np.exp(-0.5 * ((GRID.centers[0] - centers) / 0.15) ** 2)
    before = np.concatenate([np.zeros((1, 80)), np.cumsum(gaussians, axis=0)])[:40]
    for i in range(3):
        np.testing.assert_allclose(found[i], before[edges[i] : edges[i + 1]].mean(axis=0), atol=1e-12)


@pytest.mark.parametrize(("shape", "periodic"), [((30, 20), (False, True)), ((12, 9), (False, True))])
def test_bias_on_the_methods_grid_is_what_the_engine_felt(shape, periodic):
    """Interpolated as in the run, and not the sum of Gaussians, from which it differs where bins are wide."""
    angle = pysamp.colvars.custom(lambda x: x[0, 1], atoms=[0], period=2.0)
    grid = Grid((-2.0, -1.0), (2.0, 1.0), shape, periodic)
    gridded = Metadynamics([X, angle], height=1.0, sigma=(0.4, 0.25), stride=10, grid=grid)
    points = np.random.default_rng(0).uniform((-1.9, -1.0), (1.9, 1.0), size=(25, 2))
    widths = np.tile([0.4, 0.25], (25, 1))
    found = estimator._slice_biases(grid, gridded, points, np.ones(25), widths, np.array([0, 25]))
    last = estimator._slice_biases(grid, gridded, points, np.ones(25), widths, np.array([25, 25]))
    sigma = jnp.asarray(gridded.sigma)
    table = sum(gridded._gaussian_on_nodes(grid, jnp.asarray(point), sigma) for point in points)
    felt = [estimator_interpolate(grid, table, point) for point in grid.points.reshape(-1, 2)]
    np.testing.assert_allclose(last[0], felt, atol=1e-10)
    assert found.shape == last.shape


def estimator_interpolate(grid, table, point):
    from pysamp.methods.metadynamics import interpolate

    return float(interpolate(grid, table, jnp.asarray(point)))


def test_places_never_visited_have_no_value():
    result = pysamp.analyze(ideal_metadynamics(method(), 300), grid=Grid(-6.0, 6.0, 240))
    x = result.grid.centers[0]
    assert np.isnan(result.values[np.abs(x) > 3]).all()
    assert np.isfinite(result.values[np.abs(x) < 1.5]).all()


def test_default_grid_covers_the_hills():
    run = ideal_metadynamics(method(), 300)
    grid = pysamp.analyze(run).grid
    assert grid.lower[0] < hills(run).center.min()
    assert grid.upper[0] > hills(run).center.max()
    assert grid.widths[0] <= 0.075


def test_hills_have_steps_and_names():
    dataset = hills(ideal_metadynamics(method(), 60))
    assert dict(dataset.sizes) == {"replica": 1, "hill": 60, "cv": 1}
    assert dataset.step.values[:2].tolist() == [10, 20]
    assert dataset.height[0, 0] == 0.4
    with pytest.raises(InvalidInputError, match="Only Metadynamics"):
        hills(make_run([Unbiased(X)], [(None,)]))


def test_other_methods_count_as_part_of_the_system():
    run = ideal_metadynamics(method(), 300)
    walls = HarmonicWalls(Y, upper=1.0, kspring=1.0)
    composed = make_run([walls, *run.methods], [(None, run.states[0].methods[0])])
    np.testing.assert_array_equal(pysamp.analyze(composed, grid=GRID).values, pysamp.analyze(run, grid=GRID).values)


@pytest.mark.parametrize(
    ("n_hills", "options", "text"),
    [
        (20, {}, "run longer"),
        (100, {"discard": 1.5}, "discard"),
        (100, {"grid": Grid(50.0, 60.0, 100)}, "covers"),
        (100, {"grid": Grid((0.0, 0.0), (1.0, 1.0), (5, 5))}, "2 axes"),
    ],
)
def test_bad_input(n_hills, options, text):
    with pytest.raises(InvalidInputError, match=text):
        pysamp.analyze(ideal_metadynamics(method(), n_hills), **options)
