import jax.numpy as jnp
import numpy as np
import pytest

from pysamp.colvars import AlphaBetaSimilarity, DihedralAngle, DihedralCorrelation
from pysamp.errors import InvalidInputError
from pysamp.methods import Unbiased
from pysamp.sampler import Particles, Sampler
from pysamp.snapshot import Cell
from pysamp.system import System

TORSIONS = [[0, 1, 2, 3], [1, 2, 3, 4], [2, 3, 4, 5], [3, 4, 5, 6]]
X = np.random.default_rng(5).normal(size=(7, 3))
ANGLES = np.array([float(DihedralAngle(t)(jnp.asarray(X[t]), Cell())) for t in TORSIONS])


def value(cv):
    sampler = Sampler.build(Unbiased([cv]), System(masses=np.ones(7), timestep=1.0, kT=1.0))
    return float(sampler.xi(Particles(jnp.asarray(X[list(sampler.atoms)])))[0])


def test_alpha_beta_similarity_is_the_sum_over_its_torsions():
    reference, coefficients = np.array([0.1, -2.0, 3.0, 1.0]), np.array([1.0, 2.0, 0.5, -1.0])
    expected = 0.5 * np.sum(coefficients * (1 + np.cos(ANGLES - reference)))
    cv = AlphaBetaSimilarity(TORSIONS, reference=reference, coefficients=coefficients)
    assert value(cv) == pytest.approx(expected, rel=1e-6)
    assert value(AlphaBetaSimilarity(TORSIONS, reference=ANGLES)) == pytest.approx(4.0, rel=1e-6)


def test_dihedral_correlation_is_the_sum_over_its_pairs():
    cv = DihedralCorrelation([(TORSIONS[0], TORSIONS[1]), (TORSIONS[2], TORSIONS[3])])
    assert value(cv) == pytest.approx(0.5 * np.sum(1 + np.cos(ANGLES[::2] - ANGLES[1::2])), rel=1e-6)


def test_torsions_that_are_not_defined_count_one_half():
    x = jnp.arange(4.0)[:, None] * jnp.ones((1, 3))
    assert AlphaBetaSimilarity([[0, 1, 2, 3]], reference=1.0)(x, Cell()) == 0.5


@pytest.mark.parametrize(
    "make",
    [
        lambda: AlphaBetaSimilarity([0, 1, 2, 3], reference=0.0),
        lambda: AlphaBetaSimilarity([[0, 1, 2]], reference=0.0),
        lambda: AlphaBetaSimilarity([], reference=0.0),
        lambda: AlphaBetaSimilarity([[0, 1, 2, 3]], reference=[0.0, 1.0]),
        lambda: AlphaBetaSimilarity([[0, 1, 2, 3]], reference=np.nan),
        lambda: DihedralCorrelation([[0, 1, 2, 3]]),
        lambda: DihedralCorrelation([([0, 1, 2, 3],)]),
        lambda: DihedralCorrelation(3),
    ],
)
def test_wrong_arguments(make):
    with pytest.raises(InvalidInputError):
        make()
