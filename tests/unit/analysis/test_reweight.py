"""WHAM on data without noise, where the answer is known."""

import numpy as np
import pytest

from pysamp.analysis import solve_wham

X = np.linspace(-2, 2, 81)
P = np.exp(-4 * (X**2 - 1) ** 2 - X)
P /= P.sum()


def expected_counts(reduced, n):
    under = P * np.exp(-reduced)
    return (n[:, None] * under / under.sum(axis=1, keepdims=True)).sum(axis=0)


@pytest.mark.parametrize("spring", [5.0, 60.0, 400.0])
def test_exact_counts_give_the_exact_distribution(spring):
    """At the stiffest, neighbouring windows hardly overlap: a plain iteration would take thousands of turns."""
    centers = np.linspace(-1.8, 1.8, 19)
    reduced = 0.5 * spring * (X - centers[:, None]) ** 2
    n = np.linspace(100, 1000, 19)
    p, f = solve_wham(expected_counts(reduced, n), n, reduced)
    np.testing.assert_allclose(np.log(p), np.log(P), atol=1e-5)
    exact = -np.log(np.exp(-reduced) @ P)
    np.testing.assert_allclose(f - f[0], exact - exact[0], atol=1e-5)


def test_one_bias_is_plain_reweighting():
    reduced = 0.3 * X[None] ** 2
    n = np.array([500.0])
    p, _ = solve_wham(expected_counts(reduced, n), n, reduced)
    np.testing.assert_allclose(p, P, rtol=1e-9)


def test_empty_bins_and_unused_biases_are_left_out():
    reduced = np.stack([np.zeros_like(X), 5 * X, -5 * X])
    n = np.array([500.0, 0.0, 300.0])
    counts = expected_counts(reduced, n)
    counts[:10] = 0
    p, _ = solve_wham(counts, np.array([counts.sum() - 300.0, 0.0, 300.0]), reduced)
    assert (p[:10] == 0).all()
    assert p[10:].min() > 0
