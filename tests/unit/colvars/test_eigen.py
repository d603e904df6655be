"""Eigenvalues and eigenvectors of small symmetric matrices against LAPACK's, and their derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pysamp.colvars._eigen import eigh


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


def symmetric(n, number=500):
    a = np.random.default_rng(n).normal(size=(number, n, n))
    return a + np.swapaxes(a, 1, 2)


@pytest.mark.parametrize("n", [3, 4])
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_values_and_vectors_are_those_of_lapack(n, scale):
    a = scale * symmetric(n)
    values, vectors = map(np.asarray, eigh(jnp.asarray(a)))
    np.testing.assert_allclose(values, np.linalg.eigvalsh(a)[:, ::-1], rtol=0, atol=1e-14 * np.abs(a).max())
    np.testing.assert_allclose(a @ vectors, vectors * values[:, None], rtol=0, atol=1e-14 * np.abs(a).max())
    np.testing.assert_allclose(np.swapaxes(vectors, 1, 2) @ vectors, np.broadcast_to(np.eye(n), a.shape), atol=1e-14)


@pytest.mark.parametrize("n", [3, 4])
def test_degenerate_matrices(n):
    for a in (np.zeros((n, n)), np.eye(n), np.ones((n, n)), np.diag([2.0, 2.0, 1.0, 1.0][:n])):
        values, vectors = map(np.asarray, eigh(jnp.asarray(a)))
        np.testing.assert_allclose(values, np.linalg.eigvalsh(a)[::-1], atol=1e-14)
        np.testing.assert_allclose(vectors.T @ vectors, np.eye(n), atol=1e-14)
        for part in jax.jacrev(lambda a: eigh(a))(jnp.asarray(a)):
            assert np.isfinite(part).all()


@pytest.mark.parametrize("n", [3, 4])
def test_derivatives_are_those_of_finite_differences(n):
    """Projectors, not vectors: those have no sign."""
    a, change = symmetric(n, 2)

    def observables(a):
        values, vectors = eigh(a)
        return values, vectors[:, None, :] * vectors[None, :, :]

    h = 1e-5
    _, tangents = jax.jvp(observables, (jnp.asarray(a),), (jnp.asarray(change),))
    after, before = observables(jnp.asarray(a + h * change)), observables(jnp.asarray(a - h * change))
    for tangent, plus, minus in zip(tangents, after, before, strict=True):
        np.testing.assert_allclose(tangent, (plus - minus) / (2 * h), atol=1e-8)


def test_second_derivatives():
    """The sum of the exponentials of the eigenvalues is the trace of the matrix exponential."""
    a = symmetric(3, 1)[0]
    ours = jax.hessian(lambda a: jnp.sum(jnp.exp(eigh(0.5 * (a + a.T))[0])))(jnp.asarray(a))
    exact = jax.hessian(lambda a: jnp.trace(jax.scipy.linalg.expm(0.5 * (a + a.T))))(jnp.asarray(a))
    np.testing.assert_allclose(ours, exact, rtol=1e-9, atol=1e-9)
