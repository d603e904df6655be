"""ABF: which force goes to which bin, the ramp, the blocks of time, and bad input."""

from math import pi

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

from pysamp import Grid
from pysamp.colvars import Component, DihedralAngle
from pysamp.errors import InvalidInputError
from pysamp.methods import ABF

from .trajectories import follow, observe

X, PHI = Component([0], axis=0), DihedralAngle([0, 1, 2, 3])
LINE = Grid(0.0, 4.0, 4)


def totals(state):
    """Sum of forces and number of samples in each bin."""
    sums = np.asarray(state.sums).sum(axis=1)
    return sums[:, : sums.shape[1] // 2], sums[:, -1]


def test_a_force_belongs_to_the_bin_before_it():
    """The change of momentum from step k to k + 1 is due to the force at the positions of step k."""
    method = ABF(X, grid=LINE, full_samples=1000)
    state = follow(method, [[0.5], [1.5], [2.5]], momenta=[[0.0], [0.3], [0.1]], timestep=0.1)
    forces, counts = totals(state)
    assert counts.tolist() == [1, 1, 0, 0]
    # the second sample less the bias, which is the ramped average of bin 1: nothing yet
    np.testing.assert_allclose(forces[:, 0], [3.0, -2.0, 0.0, 0.0], atol=1e-12)


def test_the_bias_is_not_part_of_the_force():
    """Samples are of the system's own force: what the bias itself adds to the momentum is taken off."""
    method = ABF(X, grid=LINE, full_samples=1)
    # a constant force of 2; from the second step on the bias of -2 holds against it, and the momentum stays
    state = follow(method, [[0.5]] * 4, momenta=[[0.0], [0.2], [0.2], [0.2]], timestep=0.1)
    forces, counts = totals(state)
    assert counts[0] == 3
    assert forces[0, 0] == pytest.approx(3 * 2.0)
    np.testing.assert_allclose(method.bias(state, observe([0.7])).force, [-2.0])


def test_places_within_the_bins_are_kept():
    """Each sample brings its distance from the centre of the bin that its force goes to; periodic axes wrap."""
    method = ABF([X, PHI], grid=Grid((0.0, -pi), (4.0, pi), (4, 2), periodic=(False, True)))
    state = follow(method, [[0.6, 0.25 * pi], [0.7, 4.75 * pi], [4.5, 0.0], [0.5, 0.0], [2.0, 1.0]])
    offsets = np.asarray(state.sums).sum(axis=1)[:, 2:4]
    np.testing.assert_allclose(offsets[1], [0.1 + 0.2 + 0.0, -0.25 * pi + 0.25 * pi - 0.5 * pi], atol=1e-12)
    assert not np.delete(offsets, 1, axis=0).any()


def test_ramp():
    """With N of N_full samples, the share N / N_full of the average is applied."""
    method = ABF(X, grid=LINE, full_samples=10)
    state = method.init(observe([0.5]))
    for count, share in ((1, 0.1), (5, 0.5), (10, 1.0), (40, 1.0)):
        sums = state.sums.at[1, 2].set(jnp.array([count * 3.0, 0.0, count]))
        biased = eqx.tree_at(lambda s: s.sums, state, sums)
        np.testing.assert_allclose(method.bias(biased, observe([1.5])).force, [-3.0 * share], rtol=1e-14)
        np.testing.assert_array_equal(method.bias(biased, observe([0.5])).force, [0.0])


def test_mixed_periodic_and_not():
    """Periodic axes wrap; beyond the others nothing is sampled, nothing is applied, and the steps are counted."""
    method = ABF([X, PHI], grid=Grid((0.0, -pi), (4.0, pi), (4, 2), periodic=(False, True)), full_samples=1)
    places = [[0.5, 1.0], [3.5, 1.0 - 6 * pi], [4.5, 1.0], [-0.1, -1.0], [2.5, -1.0 + 2 * pi], [0.0, 0.0]]
    state = follow(method, places)
    assert totals(state)[1].reshape(4, 2).tolist() == [[0, 1], [0, 0], [1, 0], [0, 1]]
    assert int(state.outside) == 2
    filled = eqx.tree_at(lambda s: s.sums, state, jnp.ones_like(state.sums))
    np.testing.assert_array_equal(method.bias(filled, observe([4.5, 1.0])).force, [0.0, 0.0])
    np.testing.assert_array_equal(method.bias(filled, observe([3.5, 1.0])).force, [-1.0, -1.0])


def test_blocks_merge_and_lose_nothing():
    """When the 16 blocks are full, neighbours merge and the blocks double in length."""
    method = ABF(X, grid=LINE, full_samples=10**9)
    length = int(method.init(observe([0.5])).block_length)
    n_steps = 16 * length + 5
    state = follow(method, np.full((n_steps, 1), 0.5), momenta=0.1 * np.arange(n_steps)[:, None], timestep=0.1)
    assert int(state.block_length) == 2 * length
    counts = np.asarray(state.sums)[0, :, -1]
    # the first step has no sample: there is no momentum before it
    assert counts.tolist() == [2 * length - 1, *[2 * length] * 7, 5, *[0] * 7]
    np.testing.assert_allclose(totals(state)[0][0], n_steps - 1, rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"full_samples": 0}, "full_samples must be a positive whole number"),
        ({"kT": 0.0}, "kT must be positive"),
        ({"grid": Grid((0, 0), (1, 1), (4, 4))}, "2 axes, but there are 1 CVs"),
        ({"grid": Grid(0.0, 4.0, 4, periodic=True)}, "say periodic=False"),
    ],
    ids=str,
)
def test_bad_input(options, says):
    with pytest.raises(InvalidInputError, match=says):
        ABF(X, **{"grid": LINE, **options})
