"""Rates of rare events from metadynamics whose hills come seldom."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy import stats

from ..errors import InvalidInputError
from ..results import Run

__all__ = ["EscapeRate", "escape_rate"]

_N_BOOTSTRAP = 2000
_LEAST = 5


@dataclass(frozen=True)
class EscapeRate:
    """A rate and whether it can be trusted.

    Attributes:
        rate: escapes per unit of physical time [1/time].
        stderr: its standard error [1/time].
        times: physical times of the escapes that were seen [time], in order.
        acceleration: average ratio of physical to simulated time.
        n_censored: replicas that did not escape; what they waited counts.
        p_value: of the Kolmogorov-Smirnov test that the times are exponentially distributed, with the rate estimated from them.
            Below 0.05 the hills came too often or in the way of the barrier: use a longer stride or lower hills.
    """

    rate: float
    stderr: float
    times: Float[np.ndarray, " escapes"]
    acceleration: float
    n_censored: int
    p_value: float


def escape_rate(
    run: Run, escaped: Callable[[Float[np.ndarray, "replica sample n"]], Bool[np.ndarray, "replica sample"]]
) -> EscapeRate:
    r"""Rate of leaving a state, from replicas of infrequent metadynamics begun in it.

    As long as no hill falls on the barrier, the bias hastens the escape without changing how it goes, and each replica has waited

    $$t^* = \sum_i \Delta t\, e^{V(\xi_i, t_i) / kT},$$

    summed over the log until the first sample beyond the barrier. The times of a rare event are exponentially distributed; the
    rate is the number of escapes over the sum of all waiting times, those of replicas that did not escape included. Log often:
    the sum is over logged samples, and an escape is noticed at one.

    Args:
        run: replicas with :class:`~pysamp.methods.Metadynamics` (with a long stride), all begun in the state, with a log.
        escaped: tells of the logged CVs (replica, sample, cv) whether they are beyond the barrier.

    Returns:
        The rate with its error and the test.

    Raises:
        InvalidInputError: if fewer than 5 replicas escaped, or ``escaped`` does not return one bool for each sample.

    Example:
        >>> import pysamp
        >>> from pysamp.analysis import escape_rate
        >>> run = pysamp.run(method, generate_context, 10**6, replicas=20, log_every=10)  # doctest: +SKIP
        >>> escape_rate(run, lambda xi: xi[..., 0] > 0.5)  # doctest: +SKIP

    References:
        Tiwary & Parrinello, Phys. Rev. Lett. 111, 230602 (2013), doi 10.1103/PhysRevLett.111.230602.
        Salvalaglio, Tiwary & Parrinello, J. Chem. Theory Comput. 10, 1420 (2014), doi 10.1021/ct500040r.
    """
    if run.log.sizes.get("sample", 0) < 2:
        raise InvalidInputError(
            "The run logged too little to tell when it escaped: run with log_every=..., such as 10."
        )
    xi = np.asarray(run.log["xi"].values)
    beyond = np.asarray(escaped(xi))
    if beyond.shape != xi.shape[:2] or beyond.dtype != bool:
        raise InvalidInputError(
            f"escaped must return a bool for each replica and sample, {xi.shape[:2]}, got {beyond.dtype} of shape "
            f"{beyond.shape}. Write for example lambda xi: xi[..., 0] > 0.5."
        )
    if beyond[:, 0].any():
        raise InvalidInputError(
            f"Replica {int(np.argmax(beyond[:, 0]))} begins beyond the barrier; all must begin in the state that they leave."
        )
    intervals = np.diff(np.asarray(run.log["time"].values))
    boosts = np.exp(np.asarray(run.log["bias_energy"].values)[:, :-1] / run.kT)
    waited = np.cumsum(boosts * intervals, axis=1)
    has_escaped = beyond.any(axis=1)
    last = np.where(has_escaped, np.argmax(beyond, axis=1), xi.shape[1] - 1)  # no sample beyond comes before this one
    times = waited[np.arange(len(xi)), last - 1]
    n = int(has_escaped.sum())
    if n < _LEAST:
        raise InvalidInputError(
            f"{n} of {len(xi)} replicas escaped, too few for a rate: run longer, or more replicas, at least {_LEAST} must."
        )
    simulated = np.cumsum(intervals)[last - 1]
    escapes = np.sort(times[has_escaped])
    return EscapeRate(
        rate=n / times.sum(),
        stderr=np.sqrt(n) / times.sum(),
        times=escapes,
        acceleration=float(times.sum() / simulated.sum()),
        n_censored=len(xi) - n,
        p_value=_exponential_p_value(escapes),
    )


def _exponential_p_value(times: Float[np.ndarray, " n"]) -> float:
    """Kolmogorov-Smirnov against the exponential of the same mean; by simulation, since the mean comes from the data."""

    def distance(sample: Float[np.ndarray, " n"]) -> float:
        return float(stats.kstest(sample / sample.mean(), "expon").statistic)

    rng = np.random.default_rng(0)
    simulated = [distance(rng.exponential(size=len(times))) for _ in range(_N_BOOTSTRAP)]
    return float(np.mean(np.array(simulated) >= distance(times)))
