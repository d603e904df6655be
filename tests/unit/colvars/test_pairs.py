import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pysamp._compile import jit_in_haste
from pysamp.colvars import CoordinationNumber, CubicSwitch
from pysamp.colvars._cells import Grid, Lattice
from pysamp.colvars._neighbors import block_size
from pysamp.snapshot import Cell

from . import structures

SWITCH = CubicSwitch(0.4, d0=0.5)


@pytest.mark.parametrize("n", [1, 20, 255, 256, 257, 264, 300, 512, 1000, 1001, 1024, 2048, 4096, 10_000, 100_000])
def test_blocks_of_rows(n):
    """They fill the rows with little overlap, and no two of their arrays lie a power of two apart."""
    size = block_size(n)
    assert 1 <= size <= min(n, 1016)
    assert -(-n // size) * size < 1.07 * n
    assert n <= 256 or size % 16 == 8


@pytest.mark.parametrize("dims", [(1, 1, 1), (3, 3, 3), (4, 4, 4), (5, 9, 2), (11, 6, 13)])
def test_cells_are_numbered_in_compact_tiles(dims):
    """Each cell has a number of its own, without gaps, and cells with successive numbers are near each other."""
    cells = np.stack(np.meshgrid(*map(np.arange, dims), indexing="ij"), axis=-1).reshape(-1, 3)
    lattice = Lattice.around([jnp.arange(2.0)] * 3, 0.1)
    grid = Grid.of(lattice, [jnp.arange(2.0)] * 3, jnp.arange(2, dtype=jnp.int32), 0.1, False)
    grid = eqx.tree_at(lambda grid: grid.dims, grid, jnp.array(dims, jnp.int32))
    numbers = np.asarray(grid.number(list(jnp.asarray(cells.T, jnp.int32))))
    np.testing.assert_array_equal(np.sort(numbers), np.arange(len(cells)))
    in_order = cells[np.argsort(numbers)]
    widths = [np.ptp(in_order[start : start + 16], axis=0).max() for start in range(len(cells))]
    assert np.median(widths) <= 4  # more only where one column ends and the next begins


@pytest.mark.parametrize("others", [None, range(200, 520)])
def test_value_and_slopes_of_one_walk(others):
    """More pairs than are computed at once, in several blocks that overlap: value, gradient and virial against NumPy."""
    edge = 4.5
    x = edge * np.random.default_rng(3).uniform(0, 1, (520, 3))
    x[::4, 2] = 0.8 * edge + 0.1 * x[::4, 2]  # so that the second block has points with more neighbours
    cv = CoordinationNumber(range(520) if others is None else range(300), others, switch=SWITCH)
    x = x[list(cv.atoms)]
    assert cv.neighborhoods

    def strained(strain, x):
        stretch = jnp.eye(3) + strain
        return cv(x @ stretch, Cell(edge * stretch))

    i, j, d = structures.neighbor_pairs(x, edge, SWITCH.end)
    is_row = np.array([others is None or atom < 300 for atom in cv.atoms])
    is_other = np.array([others is None or atom >= 200 for atom in cv.atoms])
    counted = is_row[i] & is_other[j]
    i, j, d = i[counted], j[counted], d[counted]
    r, factor = np.linalg.norm(d, axis=1), 0.5 if others is None else 1.0
    slope = np.asarray(jax.vmap(jax.grad(SWITCH))(jnp.asarray(r)))
    force = factor * (slope / r)[:, None] * d
    gradient = np.zeros_like(x)
    np.add.at(gradient, j, force)
    np.add.at(gradient, i, -force)
    expected = factor * np.asarray(SWITCH(jnp.asarray(r))).sum()

    evaluate = jit_in_haste(jax.value_and_grad(strained, argnums=(0, 1)))
    value, (virial, ours) = evaluate(np.zeros((3, 3)), x)
    assert float(value) == pytest.approx(expected, rel=1e-12)
    assert float(jit_in_haste(strained)(np.zeros((3, 3)), x)) == pytest.approx(expected, rel=1e-12)
    np.testing.assert_allclose(ours, gradient, atol=1e-11)
    np.testing.assert_allclose(virial, d.T @ force, atol=1e-9)
