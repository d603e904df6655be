"""FUNN, CFF and ANN: what their networks learn from exact data, what they never do, and bad input."""

from math import pi

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pysamp import Grid
from pysamp.colvars import Component, DihedralAngle
from pysamp.errors import InvalidInputError
from pysamp.methods import ANN, CFF, FUNN
from pysamp.methods._frequency import with_sweep
from pysamp.methods._network import Network, train

from .trajectories import follow, observe

X, PHI = Component([0], axis=0), DihedralAngle([0, 1, 2, 3])
LINE = Grid(-1.5, 1.5, 30)

MIXED = Grid((-1.5, -pi), (1.5, pi), (10, 12), periodic=(False, True))


def wells(x):
    return 5.0 * (x[0] ** 2 - 1.0) ** 2 + x[0]


def surface(x):
    return 2.0 * x[0] ** 2 + 3.0 * jnp.cos(x[1])


def exact_sums(grid, function, count):
    """``count`` force samples in every bin, all equal to the mean force at its centre."""
    points = jnp.asarray(grid.points.reshape(-1, grid.n_dims))
    forces = -np.asarray(jax.jit(jax.vmap(jax.grad(function)))(points))
    return jnp.asarray(np.append(forces * count, np.full((grid.size, 1), float(count)), axis=1)[:, None])


@pytest.mark.parametrize(
    ("cvs", "grid", "function"), [(X, LINE, wells), ([X, PHI], MIXED, surface)], ids=["one", "two"]
)
@pytest.mark.parametrize("kind", [FUNN, CFF])
def test_exact_forces_are_learned(kind, cvs, grid, function):
    """The bias at the nodes is minus the free energy; to 0.15 kT, which the small network and weight decay leave."""
    method = kind(cvs, grid=grid, full_samples=10, layers=16)
    fitted = jax.jit(lambda sums, fit: method.fitted(sums, fit, np.asarray(1.0)))
    fit, table = jax.tree.map(jnp.asarray, method.first_fit()), None
    sums = exact_sums(grid, function, 40)
    if kind is CFF:  # as many visits as there would be without bias
        p = jax.vmap(lambda x: jnp.exp(-function(x)))(jnp.asarray(grid.points.reshape(-1, grid.n_dims)))
        scale = 1e4 * p / p.sum() / sums[:, 0, -1]
        sums = sums * scale[:, None, None]
    for _ in range(6):
        fit, table = fitted(sums, fit)
        if kind is CFF:
            fit = {**fit, "counted": jnp.zeros(grid.size), "denominators": jnp.zeros(grid.size)}
    nodes = [grid.lower[d] + grid.widths[d] * np.arange(n + 1) for d, n in enumerate(grid.shape)]
    nodes = np.stack(np.meshgrid(*nodes, indexing="ij"), axis=-1).reshape(-1, grid.n_dims)
    exact = np.asarray(jax.vmap(function)(jnp.asarray(nodes)))
    found = -np.asarray(table).reshape([n + 3 for n in grid.shape])[(slice(1, -1),) * grid.n_dims].reshape(-1)
    low = exact < exact.min() + 5.0
    assert np.std((found - exact)[low]) < 0.15


def ideal_sweeps(method, n_sweeps, n_samples, energies, seed=0):
    """ANN of infinitely fast dynamics: the samples of a sweep are independent, in the bins of the grid."""
    rng = np.random.default_rng(seed)
    obs = observe(np.zeros(method.n_cvs))
    state = method.reserve(method.init(obs), n_sweeps * int(method.train_every))
    trained = jax.jit(lambda state: method.learn(state, jnp.asarray(0), obs.kT))
    bias = jax.jit(lambda state: method.reduced_bias(state.networks[state.n_sweeps][:-1]))
    for _ in range(n_sweeps):
        p = np.exp(-energies - np.asarray(bias(state)))
        counts = jnp.asarray(rng.multinomial(n_samples, p / p.sum()).astype(float))
        block = int(state.n_sweeps) // int(state.block_length)
        arrays = state.counts.at[:, block].add(counts), jnp.asarray(n_samples)
        state = trained(type(state)(**{**vars(state), "counts": arrays[0], "n_inside": arrays[1]}))
    return state


def test_frequencies_are_learned_over_the_barrier():
    """Sweeps too short to see the barrier of 9 kT at first end with a flat distribution: minus the bias is the free energy."""
    method = ANN(X, grid=LINE, layers=16)
    energies = wells(LINE.centers)
    state = ideal_sweeps(method, 20, 1000, energies)
    found = -np.asarray(method.reduced_bias(state.networks[state.n_sweeps][:-1]))
    low = energies < energies.min() + 8.0
    assert np.std((found - energies)[low]) < 0.15
    assert int(state.block_length) == 2
    np.testing.assert_allclose(np.asarray(state.counts).sum(axis=0)[:10], 2000.0)


def test_a_sweep_joins_the_others_where_they_overlap():
    """Exact counts under two biases give the exact free energy, and the constant of the second its exact value."""
    energies, bias = np.array([0.0, 1.0, 2.0, 3.0]), np.array([0.0, -1.0, -2.0, -4.0])
    p = np.exp(-energies)
    q = np.exp(-energies - bias)
    n = np.array([1000.0, 3000.0])
    first = n[0] * p / p.sum()
    both = first + n[1] * q / q.sum()
    d = with_sweep(jnp.asarray(first), jnp.zeros(4), jnp.zeros(4), jnp.asarray(n[0]))
    d = with_sweep(jnp.asarray(both), d, jnp.asarray(bias), jnp.asarray(n[1]))
    np.testing.assert_allclose(both / d / (both / d)[0], p, rtol=1e-9)
    np.testing.assert_allclose(np.sum(both / d * np.exp(-bias)), np.sum(p / p.sum()) * q.sum() / p.sum(), rtol=1e-9)


def test_without_overlap_nothing_is_made_of_rounding_errors():
    """A sweep in bins of its own: the constant stays, whatever the last digits are."""
    counts = np.array([500.0, 500.0, 0.0, 0.0])
    d = with_sweep(jnp.asarray(counts), jnp.zeros(4), jnp.zeros(4), jnp.asarray(1000.0))
    bias = jnp.array([60.0, 60.0, 0.0, 0.0])
    ends = [
        with_sweep(jnp.asarray(counts[::-1] + counts) * (1.0 + eps), d, bias, jnp.asarray(1000.0)) for eps in (0, 1e-15)
    ]
    np.testing.assert_allclose(ends[0], ends[1], rtol=1e-9)


def test_a_network_that_has_learned_nothing_can_still_learn():
    """Many trainings on zeros, then on a slope: weights that had decayed to zero could not come back."""
    network = Network(LINE, (6,))
    first, points = network.initial(), jnp.asarray(network.points)
    fit = jax.jit(lambda parameters, slope: train(lambda t: network.slopes(t, points)[0] - slope, parameters, first))
    parameters = jnp.asarray(first)
    for slope in [0.0] * 20 + [1.0] * 4:
        parameters = fit(parameters, slope)
    np.testing.assert_allclose(network.slopes(parameters[:-1], points), 1.0, atol=0.1)


def test_periods_are_those_of_the_grid():
    network = Network(MIXED, (5, 4))
    parameters = jnp.asarray(np.random.default_rng(0).normal(size=network.n_parameters))
    u = jnp.array([[0.3, 0.1]])
    here, around, across = (network.values(parameters, u + jnp.array([shift])) for shift in ([0, 0], [0, 1], [1, 0]))
    np.testing.assert_allclose(here, around, rtol=1e-12)
    assert abs(float(here[0] - across[0])) > 1e-3


def test_fine_grids_are_joined_to_cells():
    """50 x 50 bins on 31 x 31 cells: nothing is lost, and the cells' centres are the means of their bins' centres."""
    network = Network(Grid((0, 0), (1, 1), (50, 50)), (4,))
    assert network.points.shape == (31 * 31, 2)
    values = np.random.default_rng(0).random((2500, 1))
    np.testing.assert_allclose(network.joined(jnp.asarray(values)).sum(), values.sum())
    bins = np.ones((2500, 1))
    centers = np.stack(np.meshgrid(*[(np.arange(50) + 0.5) / 50] * 2, indexing="ij"), axis=-1).reshape(-1, 2)
    np.testing.assert_allclose(network.joined(jnp.asarray(centers)) / network.joined(jnp.asarray(bins)), network.points)


def test_visits_and_outside_steps_are_counted():
    """The step that ends a sweep belongs to it; outside nothing is counted, and the bias is that of the boundary."""
    method = ANN(X, grid=LINE, layers=4, train_every=3)
    state = follow(method, np.array([[0.05], [0.05], [9.0], [-1.2], [0.05], [0.05], [0.05]]))
    assert np.asarray(state.networks)[:2, -1].tolist() == [2.0, 3.0]
    assert (int(state.n_inside), int(state.outside), int(state.n_sweeps)) == (1, 1, 2)
    assert np.asarray(state.counts).sum(axis=0)[:4].tolist() == [2.0, 3.0, 1.0, 0.0]
    edge, beyond = (method.bias(state, observe([at])) for at in (1.5, 2.0))
    assert float(edge.energy) == float(beyond.energy)
    assert float(beyond.force[0]) == 0.0


def test_earlier_times_of_ann():
    """Blocks of sweeps that had ended."""
    method = ANN(X, grid=LINE, layers=4, train_every=100)
    state = ideal_sweeps(method, 6, 100, wells(LINE.centers))
    cut = method.truncated(state, 350)
    assert (int(cut.n_sweeps), float(np.sum(cut.counts))) == (3, 300.0)


@pytest.mark.parametrize("kind", [ANN, CFF, FUNN])
@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"train_every": 0}, "train_every must be a positive whole number"),
        ({"layers": (8, 0)}, "layers must be a positive whole number"),
        ({"layers": ()}, "numbers of nodes of the hidden layers"),
        ({"grid": Grid(-1.0, 1.0, 8, periodic=True)}, "is not: say periodic=False"),
        ({"grid": Grid((0, 0), (1, 1), (4, 4))}, "2 axes, but there are 1 CVs"),
    ],
    ids=str,
)
def test_bad_input(kind, options, says):
    with pytest.raises(InvalidInputError, match=says):
        kind(X, **{"grid": LINE, **options})
