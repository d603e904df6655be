"""Reweighting: one distribution from samples under many biases (WHAM)."""

import numpy as np
from jaxtyping import Float, Int

from ..errors import SimulationError

__all__ = ["solve_wham"]

_MAX_ITERATIONS = 1000


def solve_wham(
    samples: Float[np.ndarray, " bins"],
    counts: Float[np.ndarray, " biases"],
    reduced_bias: Float[np.ndarray, "biases bins"],
    start: Float[np.ndarray, " biases"] | None = None,
    tolerance: float = 1e-8,
) -> tuple[Float[np.ndarray, " bins"], Float[np.ndarray, " biases"]]:
    r"""Weighted histogram analysis: the unbiased distribution that samples under several biases agree on best.

    $$p_s \propto \frac{N_s}{\sum_b n_b e^{f_b - v_{bs}}}, \qquad e^{-f_b} = \sum_s p_s e^{-v_{bs}},$$

    solved by Newton's method on the convex function whose gradient these equations are. With one sample per "bin" it is
    MBAR.

    Args:
        samples: $N_s$, number (or weight) of samples in each bin, under whatever bias.
        counts: $n_b$, number of samples under each bias; the sums of both are equal.
        reduced_bias: $v_{bs}$, bias energy over kT in each bin.
        start: first guess of $f_b$, such as the solution without one block less.
        tolerance: on the equations, relative to the number of samples.

    Returns:
        $p_s$, normalised, and $f_b$.

    Raises:
        SimulationError: if some biases share no samples with the others, or the equations cannot be solved.

    References:
        Kumar et al., J. Comput. Chem. 13, 1011 (1992), doi 10.1002/jcc.540130812.
        Shirts & Chodera, J. Chem. Phys. 129, 124105 (2008), doi 10.1063/1.2978177.
    """
    used, seen = counts > 0, samples > 0
    n, v, weights = counts[used], reduced_bias[np.ix_(used, seen)], samples[seen]
    shift = v.min(axis=1)  # keeps the exponentials at most 1
    boltzmann = np.exp(shift[:, None] - v)
    f = np.zeros(len(n)) if start is None else start[used] - shift
    total = n.sum()

    def objective(f: Float[np.ndarray, " b"]) -> float:
        return float(weights @ np.log((n * np.exp(f)) @ boltzmann) - n @ f)

    for iteration in range(_MAX_ITERATIONS):
        f = f - f.max()
        factors = n * np.exp(f)
        denominator = factors @ boltzmann
        ratio = weights / denominator
        expected = factors * (boltzmann @ ratio)
        if np.abs(expected - n).max() < tolerance * total:
            if start is None:
                _check_overlap(factors[:, None] * boltzmann * (np.sqrt(weights) / denominator), n, np.flatnonzero(used))
            p, solution = np.zeros(len(samples)), np.zeros(len(counts))
            p[seen], solution[used] = ratio, f + shift
            return p / p.sum(), solution
        if iteration == 0 and start is None:
            f = -np.log(boltzmann @ ratio)
            continue
        responsibility = factors[:, None] * boltzmann * (np.sqrt(weights) / denominator)
        hessian = np.diag(expected) - responsibility @ responsibility.T
        hessian += np.outer(n, n) / total  # the sum of n f is free: fixed at what it is
        hessian[np.diag_indices_from(hessian)] += 1e-12 * total
        step = np.linalg.solve(hessian, n - expected)
        step *= min(1.0, 10.0 / np.abs(step).max())
        before = objective(f)
        while objective(f + step) > before + 1e-12 * total and np.abs(step).max() > 1e-12:
            step *= 0.5
        f = f + step
    raise SimulationError(f"Some of the biases share no samples with the others{_REMEDY}")


_REMEDY = ", so their free energies cannot be joined: put windows closer together, make them softer, or run longer."


def as_ranges(numbers: Int[np.ndarray, " n"]) -> str:
    """Whole numbers as text, runs of them as ranges."""
    runs = np.split(numbers, np.flatnonzero(np.diff(numbers) > 1) + 1)
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs)


def _check_overlap(
    responsibility: Float[np.ndarray, "b s"], n: Float[np.ndarray, " b"], places: Int[np.ndarray, " b"]
) -> None:
    """Raise unless at least about one sample links any two parts of the biases: the second eigenvalue of their Laplacian."""
    if len(n) == 1:
        return
    values, vectors = np.linalg.eigh(responsibility @ responsibility.T / np.sqrt(np.outer(n, n)))
    if (1.0 - values[-2]) * n.sum() < 1.0:
        # within a part, the two leading eigenvectors are in proportion: their ratio tells the parts apart
        side = vectors[:, -2] / np.sqrt(n) > np.median(np.sort(vectors[:, -2] / np.sqrt(n))[[0, -1]])
        first, second = (as_ranges(places[part]) for part in (side == side[0], side != side[0]))
        raise SimulationError(f"The biases (windows) {first} share no samples with {second}{_REMEDY}")
