import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pysamp.analysis import cartesian_pca, evaluate
from pysamp.colvars import DihedralAngle, Displacement, Distance, Group, RadiusOfGyration
from pysamp.errors import InvalidInputError
from pysamp.snapshot import Cell

rng = np.random.default_rng(0)
X = rng.normal(size=(6, 5, 3))


def test_values_along_a_trajectory():
    values = evaluate([Distance([0, 4]), Displacement([1, 2])], X)
    assert values.shape == (6, 4)
    np.testing.assert_allclose(values[:, 0], np.linalg.norm(X[:, 4] - X[:, 0], axis=1))
    np.testing.assert_allclose(values[:, 1:], X[:, 2] - X[:, 1])


def test_every_frame_has_its_own_box():
    boxes = np.array([[1.0, 0, 0], [0.4, 1.1, 0], [-0.3, 0.5, 0.9]]) * rng.uniform(0.8, 1.5, size=(6, 1, 1))
    boxes[3:] = boxes[3:, ::-1]  # another order of the vectors
    values = evaluate(DihedralAngle([0, 1, 3, 4]), X, box=boxes)
    with jax.enable_x64(True):
        for x, box, value in zip(X, boxes, values, strict=True):
            assert DihedralAngle([0, 1, 2, 3])(jnp.asarray(x[[0, 1, 3, 4]]), Cell.of(box)) == pytest.approx(value[0])
    one = evaluate(DihedralAngle([0, 1, 3, 4]), X[:1], box=boxes[0])
    np.testing.assert_allclose(one, values[:1])


def test_masses():
    masses = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    expected = evaluate(RadiusOfGyration(range(5), weights=masses), X)
    np.testing.assert_allclose(evaluate(RadiusOfGyration(range(5)), X, masses=masses), expected)
    assert not np.allclose(evaluate(RadiusOfGyration(range(5)), X), expected)


def test_cartesian_pca_finds_the_motion_that_was_put_in():
    """Two orthogonal displacements of different size, and frames that turn and move: their subspace comes back."""
    average = rng.normal(size=(6, 3))
    average -= average.mean(axis=0)
    rigid = [np.tile(np.eye(3)[k], 6) for k in range(3)] + [np.cross(np.eye(3)[k], average).ravel() for k in range(3)]
    basis, _ = np.linalg.qr(np.column_stack([*rigid, *rng.normal(size=(2, 18))]))
    modes = basis[:, 6:].T  # orthogonal to translations and rotations
    amplitudes = rng.normal(size=(4000, 2)) * [0.03, 0.01]
    frames = average + (amplitudes @ modes).reshape(-1, 6, 3)
    turns, _ = np.linalg.qr(rng.normal(size=(4000, 3, 3)))
    turns *= np.linalg.det(turns)[:, None, None]
    frames = frames @ turns + rng.normal(size=(4000, 1, 3))
    cv, variances = cartesian_pca(range(6), frames)
    np.testing.assert_allclose(variances, amplitudes.var(axis=0), rtol=0.02)
    values = evaluate(cv, frames)
    np.testing.assert_allclose(values.var(axis=0), variances, rtol=1e-6)
    for k in range(2):
        assert abs(np.corrcoef(values[:, k], amplitudes[:, k])[0, 1]) > 0.99


@pytest.mark.parametrize(
    "make",
    [
        lambda: evaluate(Distance([0, 1]), X[0]),
        lambda: evaluate(Distance([0, 7]), X),
        lambda: evaluate(Distance([0, 1]), X, masses=np.ones(4)),
        lambda: evaluate([], X),
        lambda: cartesian_pca([0, 7], X),
        lambda: cartesian_pca([0, Group([1, 2])], X),
        lambda: cartesian_pca([0, 1, 2], X, n_components=10),
        lambda: cartesian_pca([0, 1, 2], X, weights=np.zeros(6)),
    ],
)
def test_wrong_arguments(make):
    with pytest.raises(InvalidInputError):
        make()
