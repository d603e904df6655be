"""Standard errors from leave-one-out estimates."""

import numpy as np
import pytest
from scipy import stats

from pysamp.analysis import autocorrelation_time, jackknife_error, statistical_inefficiency
from pysamp.errors import InvalidInputError


def test_error_of_a_mean():
    """For a mean the jackknife is the standard error itself, times Student's factor."""
    x = np.random.default_rng(1).normal(size=7)
    left_out = (x.sum() - x) / 6
    expected = x.std(ddof=1) / np.sqrt(7) * stats.t.ppf(stats.norm.cdf(1), 6)
    np.testing.assert_allclose(jackknife_error(left_out), expected, rtol=1e-12)


def test_few_blocks_cover_what_they_claim():
    """68.27 % for any number of blocks. Without Student's factor four blocks cover 61 %. False alarms: 1e-4."""
    x = np.random.default_rng(2).normal(size=(4, 20_000))
    error = jackknife_error((x.sum(axis=0) - x) / 3)
    assert abs(np.mean(np.abs(x.mean(axis=0)) < error) - 0.6827) < 4 * np.sqrt(0.68 * 0.32 / 20_000)


def test_a_missing_replicate_is_an_infinite_error():
    assert jackknife_error(np.array([[1.0, 1.0], [np.nan, 1.1], [2.0, 0.9]])).tolist()[0] == np.inf


def test_autocorrelation_time_of_an_autoregressive_series():
    """tau = (1 + a) / (1 - a) / 2 of x' = a x + noise: 9.5 for a = 0.9; the estimate's own error is about 4 %."""
    a, rng = 0.9, np.random.default_rng(3)
    x = np.zeros((4, 50_000))
    noise = rng.normal(size=x.shape)
    for t in range(1, x.shape[1]):
        x[:, t] = a * x[:, t - 1] + noise[:, t]
    assert autocorrelation_time(x) == pytest.approx(9.5, rel=0.15)
    assert statistical_inefficiency(x[0]) == pytest.approx(19.0, rel=0.3)
    assert autocorrelation_time(noise) == pytest.approx(0.5, abs=0.05)
    assert autocorrelation_time(np.ones(50)) == 0.5


def test_replicas_that_stay_apart_are_correlated():
    """Two replicas, each in its own state: nothing is sampled independently."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 1000)) + np.array([[-5.0], [5.0]])
    assert autocorrelation_time(x) > 100


@pytest.mark.parametrize("values", [[1.0], [1.0, np.nan], np.zeros((2, 2, 2))])
def test_autocorrelation_needs_a_series(values):
    with pytest.raises(InvalidInputError, match="two or more"):
        autocorrelation_time(values)
