"""Free energies of exact models, and whether the stated error bars are true.

Each test runs many seeded replicas, analyses every one alone, and counts how often the 68 % interval covers the exact value.
Of n honest intervals a part of 0.68 +- sqrt(0.68 * 0.32 / n) covers; the bounds of 58 to 78 % are 2.1 standard deviations for
n = 100. The seeds are fixed, so a test that passes once passes always.
"""

import numpy as np
import pytest

import pysamp
from pysamp.backends import toy
from pysamp.methods import ABF, HarmonicBias, Metadynamics
from pysamp.testing import DoubleWell

N_REPLICAS = 100
MODEL = DoubleWell(height=5.0, tilt=0.5)
GRID = pysamp.Grid(-2.0, 2.0, 80)
EXACT = MODEL.free_energy_difference((-4.0, 0.0), (0.0, 4.0))


def generate_context():
    return toy.Simulation(MODEL, [[-1.0, 0.0, 0.0]], timestep=0.05, friction=2.0)


def differences(run) -> np.ndarray:
    """Value and stated error of F(x > 0) - F(x < 0), replica by replica."""
    found = [pysamp.analyze(run.replica(r)).difference(lambda x: x < 0, lambda x: x > 0) for r in range(run.n_replicas)]
    return np.array(found)


def check(found: np.ndarray) -> None:
    """No bias beyond 4 standard errors of the mean, and error bars that cover as often as they claim."""
    value, error = found.T
    deviation = (value.mean() - EXACT) / (value.std(ddof=1) / np.sqrt(len(value)))
    coverage = np.mean(np.abs(value - EXACT) < error)
    print(
        f"exact {EXACT:.3f}, mean {value.mean():.3f}, spread {value.std():.3f}, stated {error.mean():.3f}, {coverage:.2f}"
    )
    assert np.abs(deviation) < 4, "biased: one false alarm in 16 000"
    assert 0.58 <= coverage <= 0.78


@pytest.mark.validation
@pytest.mark.parametrize("grid", [GRID, None], ids=["grid", "no grid"])
def test_metadynamics_on_a_double_well(grid):
    """Catches an error bar from correlated samples, a hill height or tempering that is wrong, a transient kept."""
    method = Metadynamics(MODEL.cvs, height=0.3, sigma=0.15, stride=100, bias_factor=8, grid=grid)
    check(differences(pysamp.run(method, generate_context, 200_000, replicas=N_REPLICAS, seed=11, progress=False)))


@pytest.mark.validation
def test_abf_on_a_double_well():
    """Catches a wrong momentum, a bias counted twice, an integration constant lost."""
    method = ABF(MODEL.cvs, grid=GRID)
    check(differences(pysamp.run(method, generate_context, 200_000, replicas=N_REPLICAS, seed=12, progress=False)))


@pytest.mark.validation
def test_harmonic_windows_on_a_double_well():
    """Catches a bias energy off by a factor of two, and windows whose errors are added wrongly."""
    centers = np.linspace(-1.5, 1.5, 11)
    windows = []
    for i, center in enumerate(centers):
        method = HarmonicBias(MODEL.cvs, kspring=25.0, center=center)

        def generate(center=center):
            return toy.Simulation(MODEL, [[center, 0.0, 0.0]], timestep=0.05, friction=2.0)

        windows.append(
            pysamp.run(method, generate, 20_000, replicas=N_REPLICAS, seed=100 + i, log_every=20, progress=False)
        )
    found = [
        pysamp.analyze([w.replica(r) for w in windows], grid=GRID).difference(lambda x: x < 0, lambda x: x > 0)
        for r in range(N_REPLICAS)
    ]
    check(np.array(found))
