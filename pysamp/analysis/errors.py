"""Standard errors from leave-one-out estimates."""

from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import stats

__all__ = ["jackknife_error"]

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
