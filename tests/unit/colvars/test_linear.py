import math

import jax.numpy as jnp
import numpy as np
import pytest

from pysamp.colvars import DihedralAngle, Distance, LinearProjection, pca, tica
from pysamp.errors import InvalidInputError
from pysamp.snapshot import Cell

CVS = [Distance([0, 1]), Distance([2, 3]), Distance([4, 5])]


def eigenvalues(cv):
    assert cv.eigenvalues is not None
    return cv.eigenvalues


def oscillators(n, times, seed=0):
    """Ornstein-Uhlenbeck processes of variance 1 with these relaxation times."""
    rng, decay = np.random.default_rng(seed), np.exp(-1 / np.asarray(times))
    x = np.zeros((n, len(times)))
    x[0] = rng.normal(size=len(times))
    noise = rng.normal(size=x.shape) * np.sqrt(1 - decay**2)
    for i in range(1, n):
        x[i] = decay * x[i - 1] + noise[i]
    return x


def test_pca_is_the_eigenvalues_of_the_covariance_matrix():
    samples = (
        np.random.default_rng(0).normal(size=(500, 3)) @ np.array([[2.0, 0.5, 0.0], [0.0, 1.0, -0.3], [0.0, 0.0, 0.2]])
        + 4
    )
    cv = pca(CVS, samples, n_components=3)
    np.testing.assert_allclose(eigenvalues(cv), np.linalg.eigvalsh(np.cov(samples.T, bias=True))[::-1])
    projections = (samples - cv.mean) @ cv.vectors.T
    np.testing.assert_allclose(np.cov(projections.T, bias=True), np.diag(eigenvalues(cv)), atol=1e-12)
    np.testing.assert_allclose(cv.vectors @ cv.vectors.T, np.eye(3), atol=1e-12)
    assert (cv.vectors[np.arange(3), np.abs(cv.vectors).argmax(axis=1)] > 0).all()


def test_weights_of_samples_are_repetitions():
    samples = np.random.default_rng(0).normal(size=(50, 3))
    repeated = np.repeat(samples, np.arange(50) % 4, axis=0)
    weighted, plain = pca(CVS, samples, weights=np.arange(50) % 4), pca(CVS, repeated)
    np.testing.assert_allclose(weighted.vectors, plain.vectors, atol=1e-12)
    np.testing.assert_allclose(weighted.mean, plain.mean)


def test_tica_unmixes_slow_processes():
    """Relaxation times 100, 10 and 1, mixed; statistical errors of the autocorrelations are about 1 %."""
    sources = oscillators(100_000, [100.0, 10.0, 1.0])
    mixing = np.array([[1.0, 2.0, 0.5], [0.3, -1.0, 5.0], [0.2, 0.4, -3.0]])
    cv = tica(CVS, sources @ mixing, lag=5, n_components=3)
    np.testing.assert_allclose(-5 / np.log(eigenvalues(cv)[:2]), [100.0, 10.0], rtol=0.1)
    found = (sources @ mixing - cv.mean) @ cv.vectors.T
    for i in range(3):
        assert abs(np.corrcoef(found[:, i], sources[:, i])[0, 1]) > 0.995
    np.testing.assert_allclose(found.var(axis=0), 1.0, rtol=1e-3)


def test_trajectories_are_not_joined():
    """Would catch a lag across the seam: the value of each trajectory is constant, so nothing decays."""
    trajectories = np.repeat(np.random.default_rng(1).normal(size=(20, 1, 3)), 30, axis=1)
    np.testing.assert_allclose(eigenvalues(tica(CVS, trajectories, lag=3, n_components=3)), 1.0)
    np.testing.assert_allclose(eigenvalues(tica(CVS, list(trajectories), lag=3, n_components=3)), 1.0)


def test_features_that_depend_on_each_other_do_not_disturb():
    samples = oscillators(5000, [20.0, 2.0])
    samples = np.column_stack([samples, samples.sum(axis=1)])
    assert tica(CVS, samples, lag=2).vectors.shape == (2, 3)
    with pytest.raises(InvalidInputError, match="2 independent"):
        tica(CVS, samples, lag=2, n_components=3)
    with pytest.raises(InvalidInputError, match="2 independent"):
        pca(CVS, samples, n_components=3)


def test_torsions_enter_without_their_jump():
    torsion = DihedralAngle([0, 1, 2, 3])
    angles = np.random.default_rng(0).normal(3.1, 0.2, size=(300, 1))
    wrapped = (angles + np.pi) % (2 * np.pi) - np.pi
    cv = pca([torsion], wrapped, n_components=1)
    x = jnp.array([[1.0, 0, 0], [0, 0, 0], [0, 0, 1.0], [math.cos(2.9), math.sin(2.9), 1.0]])
    features = np.array([math.cos(2.9), math.sin(2.9)]) - [np.cos(angles).mean(), np.sin(angles).mean()]
    np.testing.assert_allclose(cv(x, Cell()), cv.vectors @ features)
    assert abs(cv.vectors[0, 1]) > 0.99  # near pi the sine varies


def test_projection_in_the_order_of_its_cvs():
    cv = LinearProjection(CVS, [[1.0, 10.0, 100.0]], mean=[1.0, 0.0, 0.0])
    x = jnp.array([[0.0, 0, 0], [3.0, 0, 0], [0, 0, 0], [4.0, 0, 0], [0, 0, 0], [5.0, 0, 0]])
    np.testing.assert_allclose(cv(x, Cell()), [542.0])
    assert cv.labels == (f"{cv.name}.0",)


@pytest.mark.parametrize(
    "make",
    [
        lambda: LinearProjection(CVS, [1.0, 2.0, 3.0]),
        lambda: LinearProjection(CVS, [[1.0, 2.0]]),
        lambda: LinearProjection(CVS, [[1.0, 2.0, 3.0]], mean=[1.0, 2.0]),
        lambda: pca(CVS, np.ones((10, 2))),
        lambda: pca(CVS, np.full((10, 3), np.nan)),
        lambda: pca(CVS, np.random.default_rng(0).normal(size=(10, 3)), weights=np.ones(4)),
        lambda: pca(CVS, np.random.default_rng(0).normal(size=(10, 3)), n_components=0),
        lambda: tica(CVS, np.random.default_rng(0).normal(size=(10, 3)), lag=10),
        lambda: tica(CVS, np.random.default_rng(0).normal(size=(10, 3)), lag=0),
    ],
)
def test_wrong_arguments(make):
    with pytest.raises(InvalidInputError):
        make()
