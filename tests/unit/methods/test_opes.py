"""OPES: kernels against their definition, merging, normalisation, the bias, and bad input."""

import math
from math import pi

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pysamp import Grid
from pysamp.colvars import Component, DihedralAngle
from pysamp.errors import InvalidInputError
from pysamp.methods import OPES, OPESExplore

from .trajectories import follow, observe

X, Y, PHI = Component([0], axis=0), Component([0], axis=1), DihedralAngle([0, 1, 2, 3])
LINE = Grid(-3.0, 3.0, 60)
OPTIONS = {"barrier": 6.0, "sigma": 0.3, "stride": 1}


def kernels(state):
    """Centres, widths and heights."""
    rows = state.kernels.listed
    n = len(rows) // 2
    return rows[:n].T, rows[n : 2 * n].T, rows[-1]


def sampled(method, places):
    """The state with kernels from all places but the first, at which the run begins."""
    return follow(method, places)


def density(state, xi, cutoff):
    """Sum of the truncated and shifted kernels, as written in the paper."""
    centers, widths, heights = kernels(state)
    squared = np.sum(((np.asarray(xi) - centers) / widths) ** 2, axis=-1)
    return np.sum(np.where(squared < cutoff, heights * (np.exp(-0.5 * squared) - np.exp(-0.5 * cutoff)), 0.0))


def test_before_the_first_kernel_the_bias_is_minus_the_barrier():
    bias = OPES(X, **OPTIONS).bias(OPES(X, **OPTIONS).init(observe([0.1])), observe([0.1]))
    assert float(bias.energy) == -6.0
    assert float(bias.force[0]) == 0.0


@pytest.mark.parametrize("kind", [OPES, OPESExplore])
def test_the_bias_is_that_of_the_definition(kind):
    """gamma = 6: factor times ln(P / Z + epsilon), with Z the average of P over the kernels' centres."""
    method = kind(X, **OPTIONS)
    state = sampled(method, np.array([0.0, 0.0, 0.9, 1.9, 1.0])[:, None])
    factor = 5.0 / 6.0 if kind is OPES else 5.0
    cutoff = 12.0 / factor if kind is OPES else 12.0
    z = np.mean([density(state, center, cutoff) for center in kernels(state)[0]])
    for xi in (0.3, 1.4, 2.5, -4.0):
        expected = factor * np.log(density(state, xi, cutoff) / z + np.exp(-6.0 / factor))
        assert float(method.potential(state, observe([xi]))) == pytest.approx(expected, abs=1e-9)


def test_weights_and_widths():
    """The second sample weighs exp(V / kT); widths follow the effective number of samples, heights keep the area."""
    method = OPES(X, **OPTIONS)
    first = sampled(method, [[0.0], [0.0]])
    weight = np.exp(-6.0)
    assert float(first.weight) == pytest.approx(weight)
    # the weight of the first is exp(-barrier / kT): there was no kernel yet
    second = np.exp(float(method.potential(first, observe([1.0]))))
    state = sampled(method, [[0.0], [0.0], [1.0]])
    n_effective = (weight + second) ** 2 / (weight**2 + second**2)
    assert float(method.diagnostics(state)["n_effective"]) == pytest.approx(n_effective)
    width = 0.3 * min((n_effective * 3 / 4) ** -0.2, 1.0)
    _, widths, heights = kernels(state)
    assert widths[1, 0] == pytest.approx(width)
    assert heights[1] == pytest.approx(second * 0.3 / width)


def test_the_bias_of_a_sample_is_without_its_kernel():
    method = OPES(X, **{**OPTIONS, "stride": 3})
    counts = [int(follow(method, np.zeros((n, 1))).n_kernels) for n in (3, 4, 6, 7)]
    assert counts == [0, 1, 1, 1]  # samples at the steps 3 and 6 join after them, and merge
    weights = [float(follow(method, np.zeros((n, 1))).weight) for n in (6, 7)]
    assert weights[1] > weights[0]
    before = follow(method, np.zeros((3, 1)))
    assert float(method.bias(method.update(before, observe([0.0], step=3)), observe([0.0], step=3)).energy) == -6.0


def test_near_kernels_merge():
    """Height, mean and variance of two are kept, across the boundary of a periodic CV too; far ones stay apart."""
    method = OPESExplore(PHI, barrier=6.0, sigma=0.3, stride=1)
    state = sampled(method, [[0.0], [pi - 0.05], [0.0], [-pi + 0.05]])
    centers, widths, heights = kernels(state)
    assert len(centers) == 2
    place = int(np.argmax(heights))
    # the second and third sample, at pi -+ 0.05; the first but one lies at 0
    first, second = (0.3 * min((n * 3 / 4) ** -0.2, 1.0) for n in (1, 3))
    tall = 0.3 / np.array([first, second])
    share = tall[1] / tall.sum()
    assert heights[place] == pytest.approx(tall.sum())
    assert centers[place, 0] == pytest.approx(pi - 0.05 + 0.1 * share)
    variance = (1 - share) * first**2 + share * second**2 + share * (1 - share) * 0.1**2
    assert widths[place, 0] == pytest.approx(np.sqrt(variance))


def test_merged_exactly():
    method = OPES(X, **OPTIONS)
    merged = method._merged(jnp.array([0.0, 0.3, 1.0]), jnp.array([0.2, 0.1, 3.0]))
    variance = 0.25 * 0.09 + 0.75 * 0.01 + 0.25 * 0.75 * 0.04
    np.testing.assert_allclose(merged, [0.15, np.sqrt(variance), 4.0])


@pytest.mark.parametrize("grid", [None, Grid((-3, -3), (3, 3), (50, 60))], ids=["sum", "grid"])
def test_running_sums_are_those_of_the_kernels_left(grid):
    """After 120 samples with many merges: Z's sum, and the table, against all kernels. No kernel is lost: heights add up."""
    rng = np.random.default_rng(1)
    method = OPESExplore([X, Y], barrier=6.0, sigma=0.4, stride=1, grid=grid, threshold=1.2)
    places = 0.7 * rng.normal(size=(121, 2))
    state = sampled(method, places)
    centers, widths, heights = kernels(state)
    assert 5 < len(centers) < 80
    assert float(state.overlap) == pytest.approx(sum(density(state, center, 12.0) for center in centers))
    n = np.arange(1, 121)
    shrunk = np.maximum(0.4 * n ** (-1 / 6), 0.0 if grid is None else method.sigma_min[:, None])
    assert heights.sum() == pytest.approx(np.prod(np.broadcast_to(0.4 / shrunk, (2, 120)), axis=0).sum())
    if grid is not None and state.table is not None:
        node = np.asarray(grid.lower) + 25 * np.asarray(grid.widths)
        assert float(state.table[26, 26]) == pytest.approx(density(state, node, 12.0), abs=1e-9)
    assert widths.min() > 0


def test_on_a_grid_the_bias_is_nearly_the_same():
    """Narrowed to the width of a bin at most, and interpolated; the force is that of the energy (the contract)."""
    rng = np.random.default_rng(0)
    places = rng.normal(size=(60, 1))
    exact, gridded = (
        OPESExplore(X, sigma_min=0.1, **{**OPTIONS, "sigma": 0.5}),
        OPESExplore(X, grid=LINE, **{**OPTIONS, "sigma": 0.5}),
    )
    first, second = sampled(exact, places), sampled(gridded, places)
    for xi in (-1.0, 0.2, 0.77):
        assert float(gridded.potential(second, observe([xi]))) == pytest.approx(
            float(exact.potential(first, observe([xi]))), abs=0.02
        )
    outside = follow(gridded, [[4.0]])
    assert float(gridded.diagnostics(outside)["outside"]) == 1


def test_room_grows_and_is_never_exceeded():
    method = OPESExplore(X, barrier=6.0, sigma=0.01, stride=1)
    state = method.reserve(method.init(observe([0.0])), 3000)
    at = lambda i: eqx.tree_at(lambda o: (o.xi, o.step), observe([0.0]), (0.1 * i[None], i))  # noqa: E731
    step = lambda s, i: (method.learned(method.update(s, at(i)), i + 1, jnp.ones(())), None)  # noqa: E731
    scan = jax.jit(lambda s: jax.lax.scan(step, s, jnp.arange(1000)))
    state, _ = scan(state)
    assert int(state.n_kernels) == state.kernels.listed.shape[1] == 999
    np.testing.assert_allclose(np.sort(kernels(state)[0][:, 0]), 0.1 * np.arange(1, 1000))
    assert 128 == len(state.kernels.counts) > int(state.kernels.n_boxes) > 999 / 64
    assert method.reserve(state, 10).kernels.values.shape == state.kernels.values.shape


def test_boxes_hide_no_kernel():
    """Sums, nearest kernels and overlaps through boxes against all kernels at once, on a torus, as kernels come and go."""
    psi = DihedralAngle([1, 2, 3, 4])
    method = OPESExplore([PHI, psi], barrier=6.0, sigma=0.1, stride=1)
    rng, n = np.random.default_rng(3), 600
    new = np.concatenate([rng.uniform(-pi, pi, (2, n)), rng.uniform(0.02, 0.3, (2, n)), rng.uniform(0.5, 2.0, (1, n))])
    new[0, 200:400] = rng.normal(pi, 0.1, 200)  # dense, across the boundary
    empty = method.reserve(method.init(observe([0.0, 0.0])), n).kernels
    filled = jax.jit(lambda k: jax.lax.scan(lambda k, one: (k.with_one(one), None), k, jnp.asarray(new.T))[0])(empty)
    without = jax.jit(lambda k, i: k.without(i))
    kept, _ = without(filled, filled.nearest(jnp.zeros(2))[0])
    nearest = jax.jit(lambda kernels, xi: kernels.nearest(xi))
    from_boxes = jax.jit(lambda *args: method._density(*args)[0])
    overlap = jax.jit(lambda *args: method._overlap(*args))
    assert filled.listed.shape[1] == n
    assert kept.listed.shape[1] == n - 1
    for some in (filled, kept):
        values = some.listed
        state = eqx.tree_at(lambda s: s.kernels, method.init(observe([0.0, 0.0])), some)
        for xi in rng.uniform(-pi, pi, (20, 2)):
            apart = (xi[:, None] - values[:2] + pi) % (2 * pi) - pi
            squared = np.sum((apart / values[2:4]) ** 2, axis=0)
            place, least = nearest(some, xi)
            assert float(least) == pytest.approx(squared.min(), rel=1e-9)
            np.testing.assert_array_equal(without(some, place)[1], values[:, np.argmin(squared)])
            total = np.where(squared < 12.0, values[-1] * (np.exp(-0.5 * squared) - np.exp(-6.0)), 0.0).sum()
            assert float(from_boxes(state, xi, 12.0)) == pytest.approx(total, rel=1e-9)
            own = np.sum((apart / 0.25) ** 2, axis=0)
            total += np.where(own < 12.0, 3.0 * (np.exp(-0.5 * own) - np.exp(-6.0)), 0.0).sum()
            kernel = jnp.asarray([*xi, 0.25, 0.25, 3.0])
            assert float(overlap(some, kernel, 12.0)) == pytest.approx(total, rel=1e-9)


def test_adding_a_kernel_copies_no_other():
    """With room for ten million steps, one more kernel costs what it costs with little room."""
    method = OPES(X, barrier=6.0, sigma=0.1, stride=1000)
    with jax.enable_x64(True):
        state = method.reserve(method.init(observe([0.0])), 10_000_000)
        boxes = state.kernels.values.shape
        learn = lambda _, state: method.learn(state, jnp.asarray(1001), jnp.ones(()))  # noqa: E731
        program = jax.jit(lambda state, n: jax.lax.fori_loop(0, n, learn, state), donate_argnums=0).lower(state, 9)
        lines = (program.compile().as_text() or "").splitlines()
    shape = f"f64[{','.join(map(str, boxes))}]"
    assert math.prod(boxes) > 50_000
    assert any(shape in line and "dynamic-update-slice" in line for line in lines)
    assert not [line for line in lines if shape in line and " copy(" in line]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"barrier": 0.0}, "barrier must be positive"),
        ({"barrier": 1.0, "kT": 2.0}, "below kT"),
        ({"sigma": -1.0}, "sigma must be positive"),
        ({"bias_factor": 1.0}, "greater than 1"),
        ({"grid": Grid(-3.0, 3.0, 6)}, "take a finer grid"),
        ({"grid": Grid((0, 0), (1, 1), (40, 40))}, "2 axes, but there are 1 CVs"),
    ],
    ids=str,
)
def test_bad_input(changes, says):
    with pytest.raises(InvalidInputError, match=says):
        OPES(X, **{**OPTIONS, **changes})


def test_too_wide_for_the_period():
    with pytest.raises(InvalidInputError, match="own image"):
        OPES(PHI, barrier=6.0, sigma=1.5, stride=1)
