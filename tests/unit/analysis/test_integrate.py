"""Free energies from exact mean forces: accuracy, periodicity, holes."""

import itertools

import numpy as np
import pytest

from pysamp import Grid
from pysamp.analysis import GradientIntegrator


def error(grid, energy, antiderivative_gradient, counts=None):
    """Largest error of F, from gradients that are exact averages over bins."""
    counts = np.full(grid.shape, 100.0) if counts is None else counts
    integrator = GradientIntegrator(grid, counts)
    values = integrator(antiderivative_gradient(grid))
    exact = energy(*np.moveaxis(grid.points, -1, 0))
    inside = integrator.connected
    np.testing.assert_array_equal(np.isfinite(values), inside)
    difference = (values - exact)[inside]
    return np.ptp(difference) / 2


def averages(energy, n_dims):
    """Averages of dF/dxi over bins: differences of F across the bin along the axis, averaged (by quadrature) over the others."""
    nodes, weights = np.polynomial.legendre.leggauss(8)

    def gradient(grid):
        result = np.zeros((*grid.shape, n_dims))
        for d in range(n_dims):
            for which in itertools.product(range(8), repeat=n_dims - 1):
                places, weight = list(which), 1.0
                places.insert(d, -1)
                shift = np.array([0.0 if k < 0 else 0.5 * nodes[k] for k in places]) * grid.widths
                for k in which:
                    weight *= 0.5 * weights[k]
                across = np.zeros(n_dims)
                across[d] = 0.5 * grid.widths[d]
                up, down = grid.points + shift + across, grid.points + shift - across
                rise = energy(*np.moveaxis(up, -1, 0)) - energy(*np.moveaxis(down, -1, 0))
                result[..., d] += weight * rise / grid.widths[d]
        return result

    return gradient


CASES = {
    "well": (lambda x: 4 * (x**2 - 1) ** 2 + x, (-1.6,), (1.6,), (False,)),
    "angle": (lambda x: 3 * np.cos(2 * x) + np.sin(x), (-np.pi,), (np.pi,), (True,)),
    "angles": (lambda x, y: 3 * np.cos(2 * x) + 2 * np.sin(y - x), (-np.pi,) * 2, (np.pi,) * 2, (True, True)),
    "mixed": (lambda x, y: x**3 + 2 * np.sin(y + x), (-1.0, 0.0), (1.5, 2 * np.pi), (False, True)),
}


@pytest.mark.parametrize("name", CASES)
def test_fourth_order(name):
    """Twice as many bins, a sixteenth of the error (at open ends, where two bins are used, an eighth)."""
    energy, lower, upper, periodic = CASES[name]
    errors = [
        error(Grid(lower, upper, (n,) * len(lower), periodic), energy, averages(energy, len(lower))) for n in (24, 48)
    ]
    assert errors[1] < 0.01
    assert errors[0] / errors[1] > (12 if all(periodic) else 5)


def test_three_dimensions_both_solvers(monkeypatch):
    energy = lambda x, y, z: np.cos(x) * np.sin(y) + 0.5 * np.cos(z - x)  # noqa: E731
    grid = Grid((-np.pi,) * 3, (np.pi,) * 3, (16, 14, 12), True)
    direct = error(grid, energy, averages(energy, 3))
    monkeypatch.setattr("pysamp.analysis.integrate._DIRECT", 0)
    assert direct < 0.003
    assert abs(error(grid, energy, averages(energy, 3)) - direct) < 1e-6


def test_holes_and_islands():
    """Bins without samples are left out, and so is what they cut off from the largest part."""
    energy, lower, upper, periodic = CASES["mixed"]
    grid = Grid(lower, upper, (30, 40), periodic)
    counts = np.full(grid.shape, 50.0)
    counts[12:15, 5:9] = 0
    counts[25] = 0  # cuts the last four rows off
    integrator = GradientIntegrator(grid, counts)
    np.testing.assert_array_equal(integrator.connected, (counts > 0) & (np.arange(30)[:, None] < 25))
    assert error(grid, energy, averages(energy, 2), counts) < 0.02


def test_noise_is_weighted_by_samples():
    """A bin with one wild sample does not spoil the surface."""
    energy, lower, upper, periodic = CASES["angles"]
    grid = Grid(lower, upper, (20, 20), periodic)
    counts = np.full(grid.shape, 1000.0)
    counts[3, 4] = 1.0

    def spoiled(grid):
        gradient = averages(energy, 2)(grid)
        gradient[3, 4] += 100.0
        return gradient

    inside = np.ones(grid.shape, dtype=bool)
    inside[3, 4] = False
    values = GradientIntegrator(grid, counts)(spoiled(grid))
    exact = energy(*np.moveaxis(grid.points, -1, 0))
    assert np.ptp((values - exact)[inside]) < 0.25
    assert np.ptp(values - exact) < 20


def test_a_single_bin():
    assert GradientIntegrator(Grid(0.0, 1.0, 1), np.array([5.0]))(np.array([[2.0]])).tolist() == [0.0]
