"""eABF: the extended variables' dynamics and boundaries, what is sampled where, the bias on them, and bad input."""

from math import pi

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pysamp import Grid
from pysamp.colvars import Component, DihedralAngle
from pysamp.errors import InvalidInputError
from pysamp.methods import ExtendedABF, Metadynamics

from .trajectories import observe

X, Y, PHI = Component([0], axis=0), Component([0], axis=1), DihedralAngle([0, 1, 2, 3])
OTHER = DihedralAngle([1, 2, 3, 4])
LINE = Grid(0.0, 4.0, 8)
OPTIONS = {"grid": LINE, "sigma": 0.5, "tau": 1.0}
HILLS = Metadynamics(X, height=1.0, sigma=0.5, stride=1, grid=LINE)


def method(**changes):
    return ExtendedABF(X, **{**OPTIONS, **changes})


def step(m, state, obs):
    return jax.jit(lambda state, obs: m.update(state, obs))(state, obs)


def test_springs_and_samples():
    """The bias is the spring; xi's bin gets the force on xi, lambda's bin the force and the squared stretch."""
    m = method(full_samples=10**6)
    state = m.init(observe([1.2]))
    state = step(m, eqx.tree_at(lambda s: s.position, state, jnp.array([1.7])), observe([1.2]))
    bias = m.bias(state, observe([1.2]))
    assert float(bias.energy) == pytest.approx(0.5 * 4.0 * 0.25)  # kT / sigma^2 = 4
    assert float(bias.force[0]) == pytest.approx(4.0 * 0.5)
    assert np.asarray(state.at_xi).sum(axis=1)[2].tolist() == pytest.approx([2.0, 1.0])
    assert np.asarray(state.at_position).sum(axis=1)[3].tolist() == pytest.approx([2.0, 0.25, 1.0])
    assert float(state.force[0]) == pytest.approx(-2.0)


def test_the_bias_cancels_the_average_force():
    """With average forces f on xi in lambda's bins, lambda feels the spring plus f; the ramp takes a share of that."""
    m = method(full_samples=10)
    state = m.init(observe([1.7]))
    samples = jnp.array([[4.0 * 3.0, 1.0, 4.0], [40 * 3.0, 1.0, 40.0]])[jnp.arange(8) // 4]
    sums = state.at_position.at[:, 2].set(samples)
    position = jnp.array([[0.7], [3.2]])
    state = eqx.tree_at(lambda s: (s.at_position, s.n_steps), state, (sums, jnp.asarray(1)))
    learned = m.learn(state, jnp.asarray(1024), jnp.asarray(1.0))
    adaptive = [m._average(learned.potential, x) for x in position]
    np.testing.assert_allclose(adaptive, [[0.4 * 3.0], [3.0]], rtol=1e-3)
    moved = step(m, eqx.tree_at(lambda s: s.position, learned, position[0]), observe([1.7], 1))
    spring = -4.0 * (moved.position - 1.7)
    np.testing.assert_allclose(moved.force, spring + m._average(learned.potential, moved.position))


def test_the_extended_variable_feels_the_force_of_the_last_step():
    m = method(friction=1e-12)
    mass = 4.0 / (2 * pi) ** 2
    state = eqx.tree_at(lambda s: (s.n_steps, s.force), m.init(observe([1.7])), (jnp.asarray(1), jnp.array([-0.5])))
    moved = step(m, state, observe([1.7], 1))
    np.testing.assert_allclose(moved.velocity, [0.1 / mass * -0.5], rtol=1e-5)
    np.testing.assert_allclose(moved.position, 1.7 + 0.1 * moved.velocity, rtol=1e-6)


def test_the_bias_drives_nothing_around():
    """Of average forces with a curl, and an integral over the period, only the gradient acts: the potential is periodic."""
    grid = Grid((-pi, -pi), (pi, pi), (16, 16), periodic=True)
    m = ExtendedABF([PHI, OTHER], grid=grid, sigma=0.4, tau=1.0, full_samples=1)
    x, y = np.moveaxis(grid.points.reshape(-1, 2), -1, 0)
    gradient = np.stack([-np.sin(x), np.cos(y)], axis=-1)
    curl = np.stack([-np.sin(y), np.sin(x)], axis=-1)
    state = m.init(observe([0.0, 0.0]))
    sums = state.at_position.at[:, 0, :2].set(gradient + curl + 0.7).at[:, 0, -1].set(1.0)
    state = m.learn(eqx.tree_at(lambda s: s.at_position, state, sums), jnp.asarray(1024), jnp.asarray(1.0))
    force = jax.vmap(lambda xi: m._average(state.potential, xi))(grid.points.reshape(-1, 2))
    np.testing.assert_allclose(force, gradient, atol=0.05)


def test_the_average_force_is_looked_at_more_rarely_as_it_settles():
    m = method()
    steps = np.arange(64, 1 << 18, 64)
    due = steps[jax.vmap(m._is_new)(jnp.asarray(steps))]
    assert np.array_equal(due[:63], np.arange(1024, 1 << 16, 1024))
    assert np.array_equal(np.diff(due[62:]), np.repeat([1024, 2048, 4096], [1, 32, 31]))


def test_free_extended_variable_has_the_springs_period():
    """Without friction, and xi held, lambda comes back after tau: 100 steps of tau / 100."""
    m = method(friction=1e-12, full_samples=10**9)
    state = eqx.tree_at(lambda s: s.position, m.init(observe([2.0])), jnp.array([2.5]))

    def body(state, i):
        state = m.update(state, observe([2.0], i, timestep=0.01))
        return state, state.position[0]

    _, positions = jax.lax.scan(body, state, jnp.arange(101))
    assert float(positions[100]) == pytest.approx(2.5, abs=2e-3)
    assert float(positions[50]) == pytest.approx(1.5, abs=2e-3)


def test_the_extended_variable_is_thermal():
    """Variance of the velocity kT / m, of lambda around xi sigma^2. 200 variables, 300 samples each; false alarms: 1e-4."""
    m = ExtendedABF(X, grid=Grid(-10.0, 10.0, 40), sigma=0.5, tau=1.0, full_samples=10**9)

    def run(key):
        def body(state, i):
            state = m.update(state, observe([0.0], i, timestep=0.05))
            return m.learned(state, i + 1, jnp.asarray(1.0)), (state.position[0], state.velocity[0])

        first = eqx.tree_at(lambda o: o.key, observe([0.0]), key)
        return jax.lax.scan(body, m.init(first), jnp.arange(400))[1]

    positions, velocities = jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(1), 200))
    assert float(jnp.mean(positions[:, 100:] ** 2)) == pytest.approx(0.25, rel=0.06)
    assert float(jnp.mean(velocities[:, 100:] ** 2)) == pytest.approx(pi**2, rel=0.06)  # kT / m


@pytest.mark.parametrize(
    ("at", "expected", "sign"), [(-0.3, 0.3, -1), (4.4, 3.6, -1), (3.9, 3.9, 1), (-7.7, 0.3, 1)], ids=str
)
def test_reflected(at, expected, sign):
    position, velocity = method()._bounded(jnp.array([at]), jnp.array([2.0]))
    np.testing.assert_allclose(position, [expected])
    np.testing.assert_allclose(velocity, [2.0 * sign])


def test_wrapped():
    grid = Grid(-pi, pi, 30, periodic=True)
    m = ExtendedABF(PHI, grid=grid, sigma=0.2, tau=1.0)
    position, velocity = m._bounded(jnp.array([pi + 0.1]), jnp.array([2.0]))
    np.testing.assert_allclose(position, [-pi + 0.1])
    np.testing.assert_allclose(velocity, [2.0])
    state = eqx.tree_at(lambda s: s.position, m.init(observe([3.1])), position)
    assert float(m.bias(state, observe([pi - 0.1])).force[0]) == pytest.approx(0.2 / 0.04)  # the short way round


def test_hills_stand_where_the_extended_variables_are():
    m = method(hills=HILLS, full_samples=10**9)
    state = m.reserve(m.init(observe([1.0])), 4)
    state = eqx.tree_at(lambda s: s.position, state, jnp.array([1.7]))
    state = m.learn(step(m, state, observe([1.0], 1)), jnp.asarray(2), jnp.asarray(1.0))
    assert state.hills is not None
    np.testing.assert_allclose(state.hills.centers[0], [1.7])
    state = step(m, eqx.tree_at(lambda s: s.velocity, state, jnp.array([3.0])), observe([1.0], 2))
    spring, hill = -4.0 * (state.position - 1.0), HILLS.bias(state.hills, observe(state.position)).force
    assert float(abs(hill[0])) > 0.1
    np.testing.assert_allclose(state.force, spring + hill)
    roomy = m.reserve(state, 10_000).hills
    assert roomy is not None
    assert roomy.hills.shape[1] > 10_000


def test_no_hill_is_added_when_only_random_numbers_are():
    m = method(hills=Metadynamics(X, height=1.0, sigma=0.5, stride=40, grid=LINE))
    state = m.reserve(m.init(observe([1.0])), 4)
    assert np.flatnonzero(jax.vmap(m.is_due)(jnp.arange(130))[1:]).tolist() == [40, 63, 80, 120, 127]
    for n_steps, expected in ((64, 0), (81, 1)):
        hills = m.learn(state, jnp.asarray(n_steps), jnp.asarray(1.0)).hills
        assert hills is not None
        assert int(hills.n_hills) == expected


def test_outside_the_grid():
    """Extended variables stay inside; a CV outside is not sampled but counted."""
    m = method()
    state = step(m, m.init(observe([5.0])), observe([5.0]))
    assert float(state.position[0]) == 4.0
    assert float(state.at_xi.sum()) == 0.0
    assert float(m.diagnostics(state)["outside"]) == 1


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"sigma": -0.5}, "sigma must be positive"),
        ({"sigma": 0.2}, "less than half the width of a bin"),
        ({"tau": 0.0}, "tau must be positive"),
        ({"hills": Metadynamics(X, height=1.0, sigma=0.5, stride=1)}, "with grid="),
        ({"hills": Metadynamics(Y, height=1.0, sigma=0.5, stride=1, grid=LINE)}, "hills is on the CVs"),
        ({"grid": Grid(0.0, 4.0, 8, periodic=True)}, "say periodic=False"),
    ],
    ids=str,
)
def test_bad_input(changes, says):
    with pytest.raises(InvalidInputError, match=says):
        method(**changes)


def test_a_spring_must_not_reach_round():
    with pytest.raises(InvalidInputError, match="too wide"):
        ExtendedABF(PHI, grid=Grid(-pi, pi, 8, periodic=True), sigma=0.8, tau=1.0)
