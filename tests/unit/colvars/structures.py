"""Perfect crystals, and sums over neighbours in plain NumPy and SciPy."""

import itertools

import numpy as np
from scipy.spatial import KDTree
from scipy.special import sph_harm_y

TETRAHEDRON = np.array([[1.0, 1.0, 1.0], [1.0, -1.0, -1.0], [-1.0, 1.0, -1.0], [-1.0, -1.0, 1.0]])


def _signs(vectors):
    return np.unique([np.multiply(s, v) for v in vectors for s in itertools.product((1, -1), repeat=3)], axis=0)


def _hcp():
    angles = np.pi / 3 * np.arange(6)
    plane = np.stack([np.cos(angles), np.sin(angles), 0 * angles], axis=1)
    angles = np.pi / 6 + 2 * np.pi / 3 * np.arange(3)
    above = np.stack([np.cos(angles) / np.sqrt(3), np.sin(angles) / np.sqrt(3), np.sqrt(2 / 3) + 0 * angles], axis=1)
    return np.concatenate([plane, above, above * [1, 1, -1]])


GOLDEN = (1 + np.sqrt(5)) / 2
SHELLS = {
    "fcc": _signs([(1, 1, 0), (1, 0, 1), (0, 1, 1)]) / np.sqrt(2),
    "hcp": _hcp(),
    "bcc": np.concatenate([_signs([(1, 1, 1)]), _signs([(2, 0, 0), (0, 2, 0), (0, 0, 2)])]) / np.sqrt(3),
    "sc": _signs([(1, 0, 0), (0, 1, 0), (0, 0, 1)]),
    "icosahedron": _signs([(1, GOLDEN, 0), (0, 1, GOLDEN), (GOLDEN, 0, 1)]) / np.sqrt(1 + GOLDEN**2),
}

CELLS = {
    "fcc": np.array([[0, 0, 0], [0, 1, 1], [1, 0, 1], [1, 1, 0]]) / 2,
    "bcc": np.array([[0, 0, 0], [1, 1, 1]]) / 2,
    "diamond": np.array([[0, 0, 0], [0, 2, 2], [2, 0, 2], [2, 2, 0], [1, 1, 1], [1, 3, 3], [3, 1, 3], [3, 3, 1]]) / 4,
}


def crystal(kind, n_cells):
    """Positions and edge of a cube of so many cubic cells of edge 1 along each axis."""
    origins = np.array(list(itertools.product(range(n_cells), repeat=3)), dtype=float)
    return (origins[:, None] + CELLS[kind]).reshape(-1, 3), float(n_cells)


def neighbor_pairs(x, edge, cutoff):
    """Both orders of all pairs within the cutoff in a cube: numbers i and j, vectors from i to j, in the order of i."""
    pairs = KDTree(np.mod(x, edge), boxsize=edge).query_pairs(cutoff, output_type="ndarray")
    i, j = np.concatenate([pairs, pairs[:, ::-1]]).T
    order = np.lexsort((j, i))
    i, j = i[order], j[order]
    d = x[j] - x[i]
    return i, j, d - edge * np.round(d / edge)


def q_lm(i, d, weights, l, n):  # noqa: E741
    """Sums of weights times complex spherical harmonics, the n particles first; not divided by anything."""
    r = np.linalg.norm(d, axis=1)
    theta, phi = np.arccos(d[:, 2] / r), np.arctan2(d[:, 1], d[:, 0])
    y = sph_harm_y(l, np.arange(-l, l + 1)[None], theta[:, None], phi[:, None])
    result = np.zeros((n, 2 * l + 1), complex)
    np.add.at(result, i, weights[:, None] * y)
    return result
