import math

import jax.numpy as jnp
import numpy as np
import pytest

from pysamp.colvars import RMSD, DihedralAngle, Distance, Path, PrincipalMoments, RMSDPath
from pysamp.errors import InvalidInputError
from pysamp.snapshot import Cell

CVS = [Distance([0, 1]), Distance([2, 3])]
NODES = np.array([[1.0, 3.0], [1.0, 2.0], [2.0, 1.0], [3.0, 1.0]])


def at(a, b):
    """Positions at which the two distances are a and b."""
    return jnp.array([[0.0, 0, 0], [a, 0, 0], [5.0, 0, 0], [5.0, b, 0]])


def formula(squares, values, lam):
    weights = np.exp(-lam * np.asarray(squares))
    return np.sum(values * weights) / np.sum(weights), -math.log(np.sum(weights)) / lam


def test_progress_and_distance_are_the_formula():
    cv = Path(CVS, NODES, lam=1.3, scales=[1.0, 2.0], values=[0.0, 1.0, 5.0, 6.0])
    squares = np.sum(((np.array([1.4, 1.7]) - NODES) / [1.0, 2.0]) ** 2, axis=1)
    expected = formula(squares, [0.0, 1.0, 5.0, 6.0], 1.3)
    np.testing.assert_allclose(cv(at(1.4, 1.7), Cell()), expected)
    assert cv["s"](at(1.4, 1.7), Cell()) == pytest.approx(expected[0])
    assert cv.labels == ("Path(Distance(0, 1), Distance(2, 3)).s", "Path(Distance(0, 1), Distance(2, 3)).z")


def test_lambda_follows_from_the_spacing_of_the_nodes():
    assert Path(CVS, NODES).lam == pytest.approx(2.3 / np.mean([1.0, 2.0, 1.0]))
    structures = np.random.default_rng(0).normal(size=(3, 5, 3))
    squares = [float(RMSD(range(5), structures[i + 1])(jnp.asarray(structures[i]), Cell())) ** 2 for i in range(2)]
    assert RMSDPath(range(5), structures).lam == pytest.approx(2.3 / np.mean(squares))


def test_far_from_all_nodes():
    """Would catch exponentials that underflow to 0/0."""
    s, z = Path(CVS, NODES, lam=100.0)(at(50.0, 1.0), Cell())
    assert s == pytest.approx(4.0)
    assert z == pytest.approx(47.0**2)


def test_periodic_cvs_take_the_short_way():
    torsion = DihedralAngle([0, 1, 2, 3])
    cv = Path([torsion], [[3.0], [-3.0], [-2.5]], lam=50.0)
    x = jnp.array([[1.0, 0, 0], [0, 0, 0], [0, 0, 1.0], [math.cos(-3.1), math.sin(-3.1), 1.0]])
    d = np.array([2 * math.pi - 6.1, 0.1, 0.6]) ** 2
    np.testing.assert_allclose(cv(x, Cell()), formula(d, [1.0, 2.0, 3.0], 50.0))


def test_vectors_among_the_cvs():
    x = np.random.default_rng(3).normal(size=(8, 3))
    moments = PrincipalMoments(range(6), weights=1)
    nodes = np.random.default_rng(4).uniform(size=(3, 4))
    value = np.append(moments(jnp.asarray(x[:6]), Cell()), Distance([0, 1])(jnp.asarray(x[6:]), Cell()))
    expected = formula(np.sum((value - nodes) ** 2, axis=1), [1.0, 2.0, 3.0], 0.7)
    np.testing.assert_allclose(Path([moments, Distance([0, 1])], nodes, lam=0.7)(jnp.asarray(x), Cell()), expected)


def test_path_of_structures():
    structures = np.random.default_rng(0).normal(size=(4, 5, 3))
    x = jnp.asarray(np.random.default_rng(1).normal(size=(5, 3)))
    squares = np.asarray(RMSD(range(5), structures, weights=[1, 2, 3, 4, 5])(x, Cell())) ** 2
    cv = RMSDPath(range(5), structures, lam=2.0, weights=[1, 2, 3, 4, 5])
    np.testing.assert_allclose(cv(x, Cell()), formula(squares, [1.0, 2.0, 3.0, 4.0], 2.0))
    assert RMSDPath(range(5), structures, lam=1e5)["s"](jnp.asarray(structures[2]), Cell()) == pytest.approx(3.0)


@pytest.mark.parametrize(
    "weights", [{}, {"weights": [1, 2, 3, 4, 5]}, {"weights": [1, 2, 3, 4, 5], "fit_weights": [1, 1, 1, 1, 0]}]
)
def test_lambda_of_structures(weights):
    """By the mean square deviation of neighbours; a mirror image is not superposed."""
    structures = np.random.default_rng(2).normal(size=(4, 5, 3))
    structures[1] = -structures[0]
    squares = [
        float(RMSD(range(5), a, **weights)(jnp.asarray(b), Cell())) ** 2
        for a, b in zip(structures[:-1], structures[1:], strict=True)
    ]
    assert squares[0] > 0.1
    assert RMSDPath(range(5), structures, **weights).lam == pytest.approx(2.3 / np.mean(squares))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Path(CVS, NODES[:, :1]),
        lambda: Path(CVS, NODES[:1]),
        lambda: Path(CVS, NODES, lam=0.0),
        lambda: Path(CVS, NODES, scales=[1.0, 0.0]),
        lambda: Path(CVS, NODES, values=[1.0, 2.0]),
        lambda: Path(CVS, np.ones((3, 2))),
        lambda: Path(CVS[0], NODES),
        lambda: Path(CVS, NODES)(jnp.zeros((3, 3)), Cell()),
        lambda: RMSDPath(range(5), np.ones((5, 3))),
        lambda: RMSDPath(range(5), np.random.default_rng(0).normal(size=(3, 5, 3)), weights=None),
    ],
)
def test_wrong_arguments(make):
    with pytest.raises(InvalidInputError):
        make()
