import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pysamp
from pysamp._compile import jit_in_haste
from pysamp.backends import toy
from pysamp.colvars import (
    AveragedSteinhardtQ,
    CoordinationNumber,
    CubicSwitch,
    GlobalSteinhardtQ,
    LocalSteinhardtQ,
    SteinhardtQ,
    Tetrahedrality,
)
from pysamp.colvars._harmonics import harmonics
from pysamp.colvars._neighbors import NeighborList
from pysamp.errors import InvalidInputError
from pysamp.methods import HarmonicBias
from pysamp.snapshot import Cell

from . import structures

SWITCH = CubicSwitch(0.4, d0=0.8)


def around(shell):
    """A particle at the origin and those around it."""
    return jnp.concatenate([jnp.zeros((1, 3)), jnp.asarray(shell, dtype=float)])


def disordered(n, spacing=0.7):
    """A cubic lattice shaken well, and the edge of its box."""
    m = round(n ** (1 / 3))
    x = spacing * np.array(list(itertools.product(range(m), repeat=3)), dtype=float)
    return x + np.random.default_rng(5).normal(scale=0.15, size=x.shape), m * spacing


def value(cv, x, edge):
    """The value in a cubic box."""
    return float(jit_in_haste(cv)(x, Cell.of(edge * np.eye(3))))


@pytest.mark.parametrize("l", range(1, 13))
def test_harmonics_are_the_real_ones(l):  # noqa: E741
    """Against SciPy: cosine parts are sqrt(2) (-1)^m Re Y_lm, sine parts likewise with Im."""
    d = np.random.default_rng(l).normal(size=(20, 3))
    u = d / np.linalg.norm(d, axis=1)[:, None]
    got = np.array(harmonics(l, tuple(u.T), np.full(20, 2.0)))
    y = 2.0 * np.sqrt(4 * np.pi / (2 * l + 1)) * structures.q_lm(np.arange(20), d, np.ones(20), l, 20)[:, l:]
    sign = np.sqrt(2) * (-1.0) ** np.arange(1, l + 1)
    expected = [y[:, 0].real]
    for m in range(1, l + 1):
        expected += [sign[m - 1] * y[:, m].real, sign[m - 1] * y[:, m].imag]
    np.testing.assert_allclose(got, expected, atol=1e-11)


VALUES = {  # Q4, Q6 with the neighbours of SHELLS
    "fcc": (0.19094, 0.57452),
    "hcp": (0.09722, 0.48476),
    "bcc": (0.03637, 0.51069),
    "sc": (0.76376, 0.35355),
    "icosahedron": (0.0, 0.66332),
}


@pytest.mark.parametrize("structure", VALUES)
def test_values_of_perfect_shells(structure):
    """The numbers that are in every paper; rotated, so that no axis is special."""
    shell = structures.SHELLS[structure] @ np.linalg.qr(np.random.default_rng(2).normal(size=(3, 3)))[0]
    n = len(shell) + 1
    for l, expected in zip((4, 6), VALUES[structure], strict=True):  # noqa: E741
        for kind in (SteinhardtQ, GlobalSteinhardtQ):
            cv = kind([0], range(1, n), l=l, switch=CubicSwitch(0.5, d0=1.2))
            assert float(cv(around(shell), Cell())) == pytest.approx(expected, abs=6e-6)
        bare = SteinhardtQ([0], range(1, n), l=l, switch=CubicSwitch(0.5, d0=1.2), normalized=False)
        factor = np.sqrt((2 * l + 1) / (4 * np.pi))
        assert float(bare(around(shell), Cell())) == pytest.approx(expected * factor, abs=1e-5)


def test_crystals_are_in_step_with_themselves():
    """Averaged and global order of a perfect crystal are those of one particle; neighbours are parallel, or opposite."""
    x, edge = structures.crystal("bcc", 3)
    switch = CubicSwitch(0.1, d0=1.1)
    for cv in (AveragedSteinhardtQ(range(54), l=6, switch=switch), GlobalSteinhardtQ(range(54), l=6, switch=switch)):
        assert value(cv, x, edge) == pytest.approx(VALUES["bcc"][1], abs=6e-6)
    assert value(LocalSteinhardtQ(range(54), l=6, switch=switch), x, edge) == pytest.approx(1.0)
    x, edge = structures.crystal("diamond", 2)
    cv = LocalSteinhardtQ(range(64), l=3, switch=CubicSwitch(0.1, d0=0.5))
    assert value(cv, x, edge) == pytest.approx(-1.0)


def plain(kind, x, edge, l):  # noqa: E741
    """The definitions in NumPy."""
    i, j, d = structures.neighbor_pairs(x, edge, SWITCH.end)
    s, n = np.asarray(SWITCH(jnp.asarray(np.linalg.norm(d, axis=1)))), len(x)
    sums, count = structures.q_lm(i, d, s, l, n), np.bincount(i, s, n)
    q, factor = sums / count[:, None], np.sqrt(4 * np.pi / (2 * l + 1))

    def over_neighbors(values):
        result = np.zeros_like(values)
        np.add.at(result, i, s[:, None] * values[j])
        return result

    if kind is SteinhardtQ:
        return factor * np.linalg.norm(q, axis=1).mean()
    if kind is GlobalSteinhardtQ:
        return factor * np.linalg.norm(sums.sum(axis=0)) / count.sum()
    if kind is AveragedSteinhardtQ:
        return factor * np.linalg.norm((q + over_neighbors(q)) / (1 + count)[:, None], axis=1).mean()
    e = q / np.linalg.norm(q, axis=1)[:, None]
    return ((e.conj() * over_neighbors(e)).sum(axis=1).real / count).mean()


@pytest.mark.parametrize("kind", [SteinhardtQ, GlobalSteinhardtQ, AveragedSteinhardtQ, LocalSteinhardtQ])
def test_definitions(kind):
    x, edge = disordered(64)
    assert value(kind(range(64), l=4, switch=SWITCH), x, edge) == pytest.approx(plain(kind, x, edge, 4), rel=1e-12)


def test_lists_of_a_run():
    """More points than are computed at once: a list made where the points were before, and the cells that stand in for it."""
    x, edge = disordered(216)
    cell, cv = Cell.of(edge * np.eye(3)), AveragedSteinhardtQ(range(216), l=3, switch=SWITCH)
    (pairs,) = cv.neighborhoods
    earlier = x + np.random.default_rng(1).uniform(-0.03, 0.03, x.shape)
    empty = NeighborList.empty(pairs, x.dtype, (48,))
    fresh = jit_in_haste(lambda neighbors, x: neighbors.renewed(pairs, x, cell))(empty, earlier)
    assert bool(fresh.is_usable)
    evaluate = jit_in_haste(jax.value_and_grad(lambda x, neighbors: cv(x, cell, (neighbors,))))
    by_list, by_cells = evaluate(x, fresh), evaluate(x, empty)
    assert float(by_list[0]) == pytest.approx(plain(AveragedSteinhardtQ, x, edge, 3), rel=1e-12)
    np.testing.assert_allclose(by_list[0], by_cells[0], rtol=1e-12)
    np.testing.assert_allclose(by_list[1], by_cells[1], atol=1e-13)
    step = 1e-5 * np.random.default_rng(2).normal(size=x.shape)
    difference = evaluate(x + step, fresh)[0] - evaluate(x - step, fresh)[0]
    assert float(difference) == pytest.approx(2 * float(np.sum(step * np.asarray(by_list[1]))), rel=1e-5)


@pytest.mark.validation  # takes a minute to compile
def test_a_run_with_a_list_goes_on_from_its_checkpoint(tmp_path):
    """Bit for bit, with particles that move far enough for a new list before and after; the list is that of its reference."""
    x, edge = disordered(216)
    cv = CoordinationNumber(range(216), switch=SWITCH)
    method = HarmonicBias(cv, kspring=1e-4, center=0.0)

    def simulation():
        springs = lambda y: 0.5 * jnp.sum((y - x) ** 2)  # noqa: E731
        return toy.Simulation(springs, x, box=edge * np.eye(3), timestep=0.02, friction=1.0)

    options = {"seed": 1, "log_every": 5, "progress": False}
    whole = pysamp.run(method, simulation, 60, **options)
    half = pysamp.run(method, simulation, 35, checkpoint=tmp_path / "c", **options)
    resumed = pysamp.run(method, simulation, 60, checkpoint=tmp_path / "c", **options)
    lists = [run.states[0].lists[0][0][0] for run in (half, resumed, whole)]
    assert all(bool(neighbors.is_usable) for neighbors in lists)
    assert np.abs(np.asarray(lists[0].sides[0].reference) - np.asarray(lists[1].sides[0].reference)).max() > 0
    jax.tree.map(np.testing.assert_array_equal, resumed.states[0], whole.states[0])
    np.testing.assert_array_equal(resumed.log.xi.values, whole.log.xi.values)


def test_tetrahedrality_of_shells():
    """A tetrahedron has 1; a square has four angles of 90 degrees and two of 180, so 1 - 3/8 (4/9 + 2 * 4/9)."""
    near = CubicSwitch(0.5, d0=2.0)
    cv = Tetrahedrality([0], range(1, 5), switch=near)
    assert float(cv(around(structures.TETRAHEDRON), Cell())) == pytest.approx(1.0)
    square = np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0]])
    assert float(cv(around(square), Cell())) == pytest.approx(0.5)
    x, edge = structures.crystal("diamond", 2)
    crystal = Tetrahedrality(range(64), switch=CubicSwitch(0.1, d0=0.5))
    assert value(crystal, x, edge) == pytest.approx(1.0)
    # with fewer than two neighbours there is no angle
    assert float(Tetrahedrality([0], [1], switch=near)(around(square[:1]), Cell())) == 0.0
    assert float(Tetrahedrality([0], [1], switch=near)(around(square[:1] * 9), Cell())) == 0.0


def test_tetrahedrality_is_its_definition():
    """The sums over pairs of neighbours written out."""
    x, edge = disordered(64)
    i, _, d = structures.neighbor_pairs(x, edge, SWITCH.end)
    u, s = d / np.linalg.norm(d, axis=1)[:, None], np.asarray(SWITCH(jnp.asarray(np.linalg.norm(d, axis=1))))
    expected = []
    for k in range(64):
        own = u[i == k]
        weights = np.outer(s[i == k], s[i == k]) * (1 - np.eye(len(own)))
        expected.append(1 - 9 / 4 * np.sum(weights * (own @ own.T + 1 / 3) ** 2) / weights.sum())
    assert value(Tetrahedrality(range(64), switch=SWITCH), x, edge) == pytest.approx(np.mean(expected), rel=1e-12)
    above = CubicSwitch(0.5)
    fraction = value(Tetrahedrality(range(64), switch=SWITCH, above=above), x, edge)
    counts = 1 - np.asarray(above(jnp.maximum(jnp.asarray(expected), 0.0)))
    assert fraction == pytest.approx(counts.mean(), rel=1e-12)


def test_tetrahedrality_of_random_directions_is_zero_on_average():
    """The factor 9/4: 20 000 sets of four directions; the mean is within 4 standard errors, false alarms 6e-5."""
    d = np.random.default_rng(11).normal(size=(20_000, 4, 3))
    d /= np.linalg.norm(d, axis=2)[..., None]
    cv = Tetrahedrality([0], range(1, 5), switch=CubicSwitch(0.5, d0=2.0))
    values = np.asarray(jax.vmap(lambda shell: cv(jnp.concatenate([jnp.zeros((1, 3)), shell]), Cell()))(d))
    assert abs(values.mean()) < 4 * values.std() / np.sqrt(len(values))


@pytest.mark.parametrize(
    "kind", [SteinhardtQ, GlobalSteinhardtQ, AveragedSteinhardtQ, LocalSteinhardtQ, Tetrahedrality]
)
def test_nothing_is_infinite(kind):
    """No neighbour at all, and all points in one place: zero, with a gradient of zero."""
    options = {} if kind is Tetrahedrality else {"l": 2}
    cv = kind(range(4), switch=SWITCH, **options)
    for x in (10.0 * jnp.arange(12.0).reshape(4, 3), jnp.ones((4, 3))):
        result, gradient = jit_in_haste(jax.value_and_grad(lambda x: cv(x, Cell())))(x)
        assert float(result) == 0.0
        assert not np.asarray(gradient).any()


@pytest.mark.parametrize("l", [0, 13, 4.0, True, "6"])
def test_wrong_degrees(l):  # noqa: E741
    with pytest.raises(InvalidInputError, match="l must be a whole number from 1 to 12"):
        SteinhardtQ(range(4), l=l, switch=SWITCH)


def test_other_mistakes():
    with pytest.raises(InvalidInputError, match="even l"):
        GlobalSteinhardtQ(range(4), l=3, switch=SWITCH)
    with pytest.raises(InvalidInputError, match="above must be a switching function"):
        LocalSteinhardtQ(range(4), l=6, switch=SWITCH, above=0.5)
    with pytest.raises(InvalidInputError, match="at least two"):
        Tetrahedrality([3], switch=SWITCH)
