"""Average forces of samples that crowd on one side of their bins."""

import numpy as np
import pytest

from pysamp import Grid
from pysamp.analysis.recentre import recentred

RNG = np.random.default_rng(0)
MIXED = Grid((-1.0, 0.0), (1.0, 2.0 * np.pi), (12, 40), (False, True))


def sums_at(grid, force, offsets, counts):
    """Sums whose samples all lie at ``offsets`` from the centres; both have units as their first axis."""
    places = grid.points.reshape(-1, grid.n_dims) + offsets
    samples = np.concatenate([force(places), offsets, np.ones((*offsets.shape[:-1], 1))], axis=-1)
    return samples * counts[..., None]


def test_linear_forces_are_those_at_the_centres():
    """To rounding, when all bins have their samples at the same place, however many."""
    grid = Grid((0.0, -1.0), (1.0, 2.0), (8, 6))
    matrix = np.array([[3.0, -1.5], [-1.5, 2.0]])

    def force(x):
        return x @ matrix + 1.0

    even = np.broadcast_to(RNG.uniform(-0.4, 0.4, 2) * grid.widths, (3, grid.size, 2))
    counts = RNG.integers(10, 20, (3, grid.size)).astype(float)
    found = recentred(grid, sums_at(grid, force, even, counts))
    np.testing.assert_allclose(found[..., -1], counts)
    np.testing.assert_allclose(
        found[..., :2] / counts[..., None], np.broadcast_to(force(grid.points.reshape(-1, 2)), (3, grid.size, 2))
    )


def test_second_order():
    """Half the width, a quarter of the error at least; without the correction it would be half."""

    def error(n):
        grid = Grid((-1.0, 0.0), (1.0, 2.0 * np.pi), (n, 2 * n), (False, True))

        def force(x):
            return np.stack([x[..., 0] ** 3 + np.sin(x[..., 1]), x[..., 0] * np.cos(x[..., 1])], axis=-1)

        offsets = np.broadcast_to(0.3 * grid.widths * np.array([1.0, -0.5]), (1, grid.size, 2))
        found = recentred(grid, sums_at(grid, force, offsets, np.ones((1, grid.size))))[0, :, :-1]
        return np.abs(found - force(grid.points.reshape(-1, 2))).max()

    assert error(16) / error(32) == pytest.approx(4.0, rel=0.15)


def test_drift_within_the_bins_is_no_noise():
    """Blocks whose samples crowd at different places of their bins agree once these are seen."""

    def force(x):
        return np.stack([-8.0 * x[..., 0] + np.sin(x[..., 1]), x[..., 0] * np.cos(x[..., 1])], axis=-1)

    shift = np.array([0.4, 0.2, 0.1, 0.05, 0.0])[:, None, None] * MIXED.widths
    sums = sums_at(MIXED, force, np.broadcast_to(shift, (5, MIXED.size, 2)), np.ones((5, MIXED.size)))
    before, after = sums[..., 0], recentred(MIXED, sums)[..., 0]
    assert after.std(axis=0).max() < 0.05 * before.std(axis=0).min()


def test_unsampled_and_poor_neighbours():
    """A neighbour with hardly a sample is not looked at, and one alone keeps its average."""
    grid = Grid(0.0, 1.0, 10)
    counts = np.array([[100.0, 100, 100, 100, 1, 0, 0, 50, 0, 0]])
    sums = sums_at(grid, lambda x: 2.0 * x, np.full((1, 10, 1), 0.02), counts)
    sums[0, 4, 0] = 1e3
    found = recentred(grid, sums)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found[0, :4, 0] / 100, 2.0 * grid.centers[0][:4])
    np.testing.assert_allclose(found[0, 7, 0] / 50, 2.0 * grid.centers[0][7] + 0.04)
    assert not found[0, [5, 6, 8, 9]].any()
