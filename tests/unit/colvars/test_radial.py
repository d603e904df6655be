import jax
import numpy as np
import pytest
from scipy.integrate import trapezoid
from scipy.special import erf, xlogy

from pysamp._compile import jit_in_haste
from pysamp.colvars import PairEntropy, RadialDistribution
from pysamp.errors import InvalidInputError
from pysamp.snapshot import Cell

from . import structures


def value(cv, x, edge):
    """The value in a cubic box."""
    return np.asarray(jit_in_haste(cv)(x, Cell.of(edge * np.eye(3))))


def liquid(n=60, edge=3.0):
    """Points at random, and the distances of all pairs in both orders."""
    x = np.random.default_rng(4).uniform(0, edge, (n, 3))
    _, _, d = structures.neighbor_pairs(x, edge, 0.499 * edge)
    return x, edge, np.linalg.norm(d, axis=1)


def test_pair_entropy_is_its_definition():
    x, edge, distances = liquid()
    density, sigma, r_max = 60 / edge**3, 0.08, 0.9
    r = np.linspace(0, r_max, 31)[1:]
    g = np.exp(-((r[:, None] - distances) ** 2) / (2 * sigma**2)).sum(axis=1)
    g /= np.sqrt(2 * np.pi) * sigma * 4 * np.pi * r**2 * density * 60
    integrand = np.append(0.0, (xlogy(g, g) - g + 1) * r**2)
    expected = -2 * np.pi * density * trapezoid(integrand, np.append(0.0, r))
    got = value(PairEntropy(range(60), r_max=r_max, sigma=sigma, n_bins=30), x, edge)
    assert float(got) == pytest.approx(expected, rel=1e-9)
    # the density enters twice
    given = value(PairEntropy(range(60), r_max=r_max, sigma=sigma, n_bins=30, density=density), x, edge)
    assert float(given) == pytest.approx(expected, rel=1e-9)


def test_pair_entropy_of_an_ideal_crystal_and_of_two_groups():
    """Order lowers it; centres that are half of the particles see the same g(r), if the other half is like them."""
    x, edge = structures.crystal("bcc", 3)
    crystal = value(PairEntropy(range(54), r_max=1.2, sigma=0.06), x, edge)
    shaken = x + np.random.default_rng(1).normal(scale=0.15, size=x.shape)
    assert float(crystal) < float(value(PairEntropy(range(54), r_max=1.2, sigma=0.06), shaken, edge)) < 0
    half = value(PairEntropy(range(0, 54, 2), range(54), r_max=1.2, sigma=0.06), x[np.r_[1:54:2, 0:54:2]], edge)
    assert float(half) == pytest.approx(float(crystal))


def test_empty_bins_have_finite_gradients():
    """Where no pair is near, g ln g is zero, and its derivative too."""
    x = 0.9 * structures.crystal("bcc", 1)[0]
    evaluate = jit_in_haste(
        jax.value_and_grad(lambda x: PairEntropy([0, 1], r_max=2.0, sigma=0.01, density=1.0)(x, Cell()))
    )
    result, gradient = evaluate(x)
    assert np.isfinite(result)
    assert np.isfinite(gradient).all()


def test_radial_distribution_is_a_soft_histogram():
    x, edge, distances = liquid()
    edges = np.linspace(0, 1.0, 6)
    volumes = 4 * np.pi / 3 * np.diff(edges**3) * 60 * 60 / edge**3
    cv = RadialDistribution(range(60), r_max=1.0, n_bins=5, sigma=0.04)
    below = 0.5 * (1 + erf((edges[:, None] - distances) / (np.sqrt(2) * 0.04))).sum(axis=1)
    np.testing.assert_allclose(value(cv, x, edge), np.diff(below) / volumes, rtol=1e-9)
    hard = RadialDistribution(range(60), r_max=1.0, n_bins=5, sigma=1e-6)
    np.testing.assert_allclose(value(hard, x, edge), np.histogram(distances, edges)[0] / volumes, rtol=1e-6)
    assert cv.component_names == ("0.1", "0.3", "0.5", "0.7", "0.9")


def test_radial_distribution_counts_neighbors():
    """4 pi rho r^2 g summed up to between the shells of bcc: 8 neighbours, 14, 26."""
    x, edge = structures.crystal("bcc", 3)
    cv = RadialDistribution(range(54), r_max=1.45, n_bins=29, sigma=0.001)
    shells = 4 * np.pi / 3 * np.diff(cv.edges**3) * 54 / edge**3
    total = np.cumsum(value(cv, x, edge) * shells)
    assert [float(total[cv.edges[1:] > r][0]) for r in (0.9, 1.1, 1.42)] == pytest.approx([8, 14, 26])


@pytest.mark.parametrize(
    ("kind", "options", "match"),
    [
        (PairEntropy, {"r_max": 1.0, "sigma": 0.0}, "positive, finite sigma"),
        (PairEntropy, {"r_max": -1.0, "sigma": 0.1}, "positive, finite r_max"),
        (PairEntropy, {"r_max": 1.0, "sigma": 0.1, "n_bins": 2.5}, "whole number of n_bins"),
        (RadialDistribution, {"r_max": 1.0, "n_bins": 0}, "whole number of n_bins"),
        (RadialDistribution, {"r_max": 1.0, "n_bins": 5, "density": 0.0}, "positive, finite density"),
    ],
)
def test_mistakes(kind, options, match):
    with pytest.raises(InvalidInputError, match=match):
        kind(range(4), **options)


def test_without_a_box_there_is_no_density():
    with pytest.raises(InvalidInputError, match="density="):
        jit_in_haste(PairEntropy(range(4), r_max=1.0, sigma=0.1))(np.eye(4)[:, :3], Cell())
