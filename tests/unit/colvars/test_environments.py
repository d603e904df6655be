import jax.numpy as jnp
import numpy as np
import pytest

from pysamp._compile import jit_in_haste
from pysamp.colvars import CubicSwitch, EnvironmentSimilarity
from pysamp.errors import InvalidInputError
from pysamp.snapshot import Cell

from . import structures

BCC = 0.5 * np.sqrt(3) * structures.SHELLS["bcc"]  # of edge 1
DIAMOND = 0.25 * structures.TETRAHEDRON


def value(cv, x, edge):
    """The value in a cubic box."""
    return float(jit_in_haste(cv)(x, Cell.of(edge * np.eye(3))))


def plain(x, edge, environment, sigma):
    """The kernel of each particle, in NumPy."""
    i, _, d = structures.neighbor_pairs(x, edge, 0.499 * edge)
    kernels = np.exp(-np.sum((d[:, None] - environment) ** 2, axis=-1) / (4 * sigma**2)).mean(axis=1)
    return np.bincount(i, kernels, len(x))


def test_a_crystal_is_like_itself_and_not_like_others():
    """And not like itself turned by 45 degrees."""
    x, edge = structures.crystal("bcc", 3)
    cv = EnvironmentSimilarity(range(54), environments=BCC, sigma=0.05)
    assert value(cv, x, edge) == pytest.approx(1.0)
    c = np.sqrt(0.5)
    turned = EnvironmentSimilarity(range(54), environments=BCC @ [[c, c, 0], [-c, c, 0], [0, 0, 1]], sigma=0.05)
    assert value(turned, x, edge) == pytest.approx(2 / 14, abs=1e-3)  # the two neighbours on the axis
    counted = EnvironmentSimilarity(range(54), environments=BCC, sigma=0.05, above=CubicSwitch(0.5, d0=0.3))
    assert value(counted, x, edge) == pytest.approx(1.0)


def test_definition():
    x, edge = structures.crystal("bcc", 3)
    x = x + np.random.default_rng(3).normal(scale=0.08, size=x.shape)
    expected = plain(x, edge, BCC, 0.06)
    got = value(EnvironmentSimilarity(range(54), environments=BCC, sigma=0.06), x, edge)
    assert got == pytest.approx(expected.mean(), rel=1e-9)
    above = CubicSwitch(0.8)
    got = value(EnvironmentSimilarity(range(54), environments=BCC, sigma=0.06, above=above), x, edge)
    assert got == pytest.approx(1 - np.asarray(above(jnp.asarray(expected))).mean(), rel=1e-9)


def test_several_environments():
    """Half of the sites of diamond have one tetrahedron, half the opposite one; the soft maximum of 1 and 0 is 1 - ln 2 / lam."""
    x, edge = structures.crystal("diamond", 2)
    half = EnvironmentSimilarity(range(64), environments=DIAMOND, sigma=0.03)
    assert value(half, x, edge) == pytest.approx(0.5, abs=1e-4)
    both = EnvironmentSimilarity(range(64), environments=[DIAMOND, -DIAMOND], sigma=0.03, lam=50)
    assert value(both, x, edge) == pytest.approx(1 - np.log(2) / 50, abs=1e-4)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"environments": [1.0, 2.0, 3.0], "sigma": 0.1}, r"shape \(n, 3\)"),
        ({"environments": [], "sigma": 0.1}, r"shape \(n, 3\)"),
        ({"environments": [DIAMOND, -DIAMOND], "sigma": 0.1}, "need lam"),
        ({"environments": DIAMOND, "sigma": -0.1}, "positive, finite sigma"),
        ({"environments": DIAMOND, "sigma": 0.1, "lam": 0.0}, "positive, finite lam"),
    ],
)
def test_mistakes(options, match):
    with pytest.raises(InvalidInputError, match=match):
        EnvironmentSimilarity(range(4), **options)
