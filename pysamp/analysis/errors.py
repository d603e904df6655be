"""Standard errors from leave-one-out estimates, and how far apart samples are independent."""

from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import stats

from ..errors import InvalidInputError

__all__ = ["autocorrelation_time", "jackknife_error", "statistical_inefficiency"]

_WINDOW = 5.0  # autocorrelation times after which their sum is cut (Sokal)
_ONE_SIGMA = float(stats.norm.cdf(1.0))


def jackknife_error(replicates: Float[np.ndarray, "m *shape"]) -> Float[Any, "*shape"]:
    r"""Half-width of the 68.3 % interval of an estimate, from its delete-one jackknife.

    $t \sqrt{\frac{m - 1}{m} \sum_k (\theta_{(k)} - \bar\theta)^2}$, where $\theta_{(k)}$ leaves the k-th of m blocks out and t
    is Student's for m - 1 degrees of freedom, so that plus or minus one standard error covers what one sigma of a normal
    distribution does, however few blocks there are. The blocks must be longer than the correlation time.

    Args:
        replicates: the estimates, block by block.

    Returns:
        The error; inf where a replicate is not finite, that is, where one block holds all the data there are.

    Example:
        >>> import numpy as np
        >>> from pysamp.analysis import jackknife_error
        >>> x = np.random.default_rng(0).normal(size=1000)
        >>> round(float(jackknife_error((x.sum() - x) / 999) * 1000**0.5), 1)  # of a mean: sigma / sqrt(n)
        1.0

    References:
        Efron & Stein, Ann. Stat. 9, 586 (1981), doi 10.1214/aos/1176345462.
    """
    m = len(replicates)
    finite = np.isfinite(replicates).all(axis=0)
    values = np.where(finite, replicates, 0.0)
    spread = np.sqrt((m - 1) / m * np.sum((values - values.mean(axis=0)) ** 2, axis=0))
    return np.where(finite, stats.t.ppf(_ONE_SIGMA, m - 1) * spread, np.inf)[()]


def autocorrelation_time(values: Any) -> float:
    r"""Integrated autocorrelation time of a series, in units of its spacing.

    $$\tau = \tfrac12 + \sum_{t=1}^{T} \rho(t), \qquad T = \min \{ T : T \ge 5\, \tau(T) \},$$

    where $\rho$ is the normalised autocorrelation, averaged over replicas (each against the mean of all).

    Args:
        values: the series, ``(samples,)``, or one for each replica, ``(replicas, samples)``.

    Returns:
        The time; 1/2 for independent samples.

    Raises:
        InvalidInputError: for fewer than two samples, or values that are not finite.

    Example:
        >>> import numpy as np
        >>> from pysamp.analysis import autocorrelation_time
        >>> noise = np.random.default_rng(0).normal(size=10_000)
        >>> round(autocorrelation_time(noise), 1), round(autocorrelation_time(noise.repeat(10)))
        (0.5, 5)

    References:
        Sokal, in Functional Integration, NATO ASI B 361, 131 (1997), doi 10.1007/978-1-4899-0319-8_6.
    """
    series = np.atleast_2d(np.asarray(values, dtype=np.float64))
    if series.ndim != 2 or series.shape[1] < 2 or not np.isfinite(series).all():
        raise InvalidInputError(
            f"An autocorrelation needs two or more finite samples, (samples,) or (replicas, samples); got the shape "
            f"{np.shape(values)}."
        )
    n = series.shape[1]
    centred = series - series.mean()
    if not centred.any():
        return 0.5
    size = 1 << (2 * n - 1).bit_length()
    power = np.abs(np.fft.rfft(centred, size, axis=1)) ** 2
    correlation = np.fft.irfft(power, size, axis=1)[:, :n].mean(axis=0) / np.arange(n, 0, -1)
    times = np.cumsum(correlation / correlation[0]) - 0.5
    done = np.arange(n) >= _WINDOW * times
    return float(max(0.5, times[np.argmax(done)] if done.any() else times[-1]))


def statistical_inefficiency(values: Any) -> float:
    r"""How many samples of a series count as one independent one: $g = 2 \tau$, at least 1.

    Args:
        values: the series; see :func:`autocorrelation_time`.

    Returns:
        g; the effective number of samples is their number over g.

    Example:
        >>> import numpy as np
        >>> from pysamp.analysis import statistical_inefficiency
        >>> round(statistical_inefficiency(np.random.default_rng(0).normal(size=10_000).repeat(10)))
        10
    """
    return max(1.0, 2.0 * autocorrelation_time(values))
