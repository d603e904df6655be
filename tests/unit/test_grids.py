"""Grid: its geometry, and what it refuses."""

import numpy as np
import pytest

from pysamp import Grid
from pysamp.errors import InvalidInputError


def test_geometry():
    grid = Grid((0.0, -1.0), (1.0, 1.0), (10, 4), periodic=(False, True))
    assert grid.n_dims == 2
    assert grid.size == 40
    np.testing.assert_allclose(grid.widths, [0.1, 0.5])
    np.testing.assert_allclose(grid.centers[1], [-0.75, -0.25, 0.25, 0.75])
    assert grid.points.shape == (10, 4, 2)
    np.testing.assert_allclose(grid.points[3, 1], [0.35, -0.25])


def test_one_dimension_from_numbers():
    grid = Grid(0, 2, 4, periodic=True)
    assert grid.shape == (4,)
    assert grid.periodic == (True,)


def test_one_flag_for_all_axes():
    assert Grid((0, 0), (1, 1), (2, 2), periodic=True).periodic == (True, True)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((1.0, 0.0, 10), "are they swapped?"),
        ((0.0, 0.0, 10), "lower < upper on every axis"),
        ((0.0, np.inf, 10), "must be finite"),
        (((0.0, 0.0), 1.0, (10, 10)), r"as many lower bounds \(2\), upper bounds \(1\)"),
        (((0.0, 0.0), (1.0, 1.0), 10), r"as entries in shape \(1\)"),
        (((0.0, 0.0), (1.0, 1.0), (10, 10), (True,)), r"periodic flags \(1\)"),
        ((0.0, 1.0, 0), "at least one bin"),
        (("a", 1.0, 10), "Expected a number"),
    ],
    ids=str,
)
def test_bad_input(arguments, says):
    with pytest.raises(InvalidInputError, match=says):
        Grid(*arguments)
