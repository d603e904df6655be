"""Rates by forward flux sampling against brute force, and whether the stated error bars are true.

Each case of benchmarks/rates.py makes 50 seeded runs and counts how often the 68 % interval covers the rate of brute force. Of 50
honest intervals a part of 0.68 +- 0.066 covers; the bounds of 58 to 78 % are 1.5 standard deviations. The seeds are fixed, so a
case that passes once passes always.
"""

import numpy as np
import pytest
from rates import CASES, evaluate


@pytest.mark.validation
@pytest.mark.parametrize("name", CASES)
def test_rates_and_their_errors_are_true(name):
    """No bias beyond 4 standard errors of the mean, and error bars that cover as often as they claim.

    Catches crossings counted at the wrong time (a number of them instead of a time), trials that share their noise, errors that
    take trials for independent, and interfaces placed by the trials that are then counted.
    """
    outcome = evaluate(name)
    assert np.abs(outcome.deviation) < 4, "biased: one false alarm in 16 000"
    assert 0.58 <= outcome.coverage <= 0.78
