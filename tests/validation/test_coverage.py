"""Free energies of exact models, and whether the stated error bars are true.

Each case of benchmarks/accuracy.py runs 100 seeded replicas (60 to 300), analyses every one alone, and counts how often the 68 %
interval covers the exact value. Of n honest intervals a part of 0.68 +- sqrt(0.68 * 0.32 / n) covers; the bounds of 58 to 78 %
are 2.1 standard deviations for n = 100, so that one in forty honest cases would fail. One that does has to pass with 300
replicas, the first of which are the same: then the bounds are 3.7 standard deviations. The seeds are fixed, but any change of
the code that rounds otherwise gives other trajectories.
"""

import numpy as np
import pytest
from accuracy import CASES, MUELLER_BROWN, evaluate


def covers(outcome):
    return 0.58 <= outcome.coverage <= 0.78


@pytest.mark.validation
@pytest.mark.parametrize("name", CASES)
def test_error_bars_are_true(name):
    """No bias beyond 4 standard errors of the mean, and error bars that cover as often as they claim.

    Catches errors of correlated samples, hill heights or tempering that are wrong, a transient that is kept, a wrong momentum, a
    bias counted twice, a constant of integration lost, a bias energy off by a factor of two.
    """
    outcome = evaluate(name)
    if not covers(outcome):
        outcome = evaluate(name, 300)
    assert np.abs(outcome.deviation) < 4, "biased: one false alarm in 16 000"
    assert covers(outcome), "one false alarm in 7 000"


def test_the_exact_difference_is_the_published_one():
    assert MUELLER_BROWN.exact() == pytest.approx(5.7126, abs=2e-3)  # midpoint rule: regions end between points
