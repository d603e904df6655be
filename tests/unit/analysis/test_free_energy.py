"""Free energies on grids: differences, projections, figures."""

import sys

import numpy as np
import pytest

import pysamp
from pysamp import FreeEnergy, Grid
from pysamp.errors import InvalidInputError

GRID = Grid((0.0, -1.0), (1.0, 1.0), (4, 6), (True, False))
P = np.random.default_rng(0).random((4, 6)) + 0.1
REPLICATES = P * np.random.default_rng(1).uniform(0.9, 1.1, size=(8, 4, 6))


def surface(p=P, replicates=REPLICATES, kT=2.0):
    return FreeEnergy.from_probabilities(p, replicates, GRID, kT=kT, labels=["phi", "psi"])


def test_values_begin_at_zero_and_errors_are_of_the_normalised_distribution():
    result = surface()
    np.testing.assert_allclose(result.values, -2.0 * np.log(P / P.max()), atol=1e-12)
    shares = REPLICATES / REPLICATES.sum(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(result.replicates, -2.0 * np.log(shares), atol=1e-12)
    scaled = surface(REPLICATES[0] * 3.0, REPLICATES * np.arange(1, 9)[:, None, None])
    np.testing.assert_allclose(scaled.stderr, result.stderr)  # a factor common to all bins is no error


@pytest.mark.parametrize("as_function", [True, False])
def test_difference_of_two_regions(as_function):
    x, y = np.moveaxis(GRID.points, -1, 0)
    regions = (lambda phi, psi: psi < 0, lambda phi, psi: (psi > 0) & (phi < 0.5))
    masks = (y < 0, (y > 0) & (x < 0.5))
    value, stderr = surface().difference(*(regions if as_function else masks))
    np.testing.assert_allclose(value, -2.0 * np.log(P[masks[1]].sum() / P[masks[0]].sum()))
    assert 0 < stderr < 0.3


def test_difference_counts_unsampled_bins_as_empty():
    p, replicates = P.copy(), REPLICATES.copy()
    p[0, 0] = replicates[:, 0, 0] = 0
    result = surface(p, replicates)
    assert np.isnan(result.values[0, 0])
    assert np.isnan(result.stderr[0, 0])
    y = GRID.points[..., 1]
    value, _ = result.difference(y < 0, y > 0)
    np.testing.assert_allclose(value, -2.0 * np.log(p[y > 0].sum() / p[y < 0].sum()))


@pytest.mark.parametrize(
    ("region", "text"),
    [
        (np.ones((4, 5), dtype=bool), "shape"),
        (lambda phi, psi: psi, "boolean"),
        (lambda phi, psi: psi > 9, "no sampled bin"),
    ],
)
def test_regions_that_cannot_be(region, text):
    with pytest.raises(InvalidInputError, match=text):
        surface().difference(region, lambda phi, psi: psi > 0)


def test_marginal_integrates_the_others_out():
    for axes, expected in ((0, P.sum(axis=1)), (1, P.sum(axis=0)), ((1, 0), P.T)):
        marginal = surface().marginal(axes)
        np.testing.assert_allclose(marginal.values, -2.0 * np.log(expected / expected.max()), atol=1e-12)
    assert marginal.labels == ("psi", "phi")
    assert marginal.grid.periodic == (False, True)
    value, stderr = surface().difference(lambda x, y: y < 0, lambda x, y: y > 0)
    np.testing.assert_allclose(surface().marginal(1).difference(lambda y: y < 0, lambda y: y > 0), (value, stderr))


@pytest.mark.parametrize("axes", [2, (0, 0), -1, []])
def test_marginal_of_axes_that_are_not_there(axes):
    with pytest.raises(InvalidInputError, match="axes"):
        surface().marginal(axes)


def test_to_xarray_has_names_and_centres():
    dataset = surface().to_xarray()
    assert dataset.free_energy.dims == ("phi", "psi")
    np.testing.assert_array_equal(dataset.psi, GRID.centers[1])
    assert dataset.replicates.sizes["block"] == 8
    same = FreeEnergy.from_probabilities(P, REPLICATES, GRID, kT=1.0, labels=["x", "x"]).to_xarray()
    assert same.free_energy.dims == ("x[0]", "x[1]")


def test_plot_draws_on_the_axes_given():
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    ax = Figure().add_subplot()
    assert surface().plot(ax) is ax
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("phi", "psi")
    line = Figure().add_subplot()
    surface().marginal(0).plot(line)
    np.testing.assert_allclose(line.lines[0].get_ydata(), surface().marginal(0).values)  # pyright: ignore[reportCallIssue, reportArgumentType]
    assert line.collections  # the band


def test_plot_of_three_cvs_and_without_matplotlib(monkeypatch):
    grid = Grid((0.0,) * 3, (1.0,) * 3, (2, 2, 2))
    p = np.ones((2, 2, 2))
    with pytest.raises(InvalidInputError, match="marginal"):
        FreeEnergy.from_probabilities(p, np.stack([p] * 3), grid, kT=1.0, labels="xyz").plot()
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match="pysamp\\[plot\\]"):
        surface().plot()


def test_importing_pysamp_does_not_import_matplotlib():
    import subprocess

    code = "import sys, pysamp; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert pysamp.FreeEnergy is FreeEnergy
