"""Time of one evaluation of OPES's bias without a grid, against the number of kernels.

    python benchmarks/opes_kernels.py

Kernels of width 0.1 all over a torus of two angles, those within 6.5 widths count; inside a compiled loop, as one function, the
best of seven.
"""

import math
import time

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from pysamp.colvars import DihedralAngle
from pysamp.loop import as_one_function
from pysamp.methods import OPES
from pysamp.methods.base import Observation

N_EVALUATIONS, ROUNDS, WIDTH = 20_000, 7, 0.1


def at(xi):
    """An observation at the first step."""
    zeros = jnp.zeros_like(xi)
    return Observation(
        xi, jnp.zeros((), dtype=jnp.int64), jnp.asarray(2.494), jax.random.key(0), zeros, zeros, jnp.ones(())
    )


def filled(method, n: int):
    """A state with ``n`` kernels."""
    places = np.random.default_rng(0).uniform(-math.pi, math.pi, (n, 2))
    kernels = jnp.asarray(np.concatenate([places, np.full((n, 2), WIDTH), np.ones((n, 1))], axis=1))
    state = method.reserve(method.init(at(jnp.zeros(2))), n * int(method.stride))
    fill = jax.jit(lambda start: jax.lax.scan(lambda some, one: (some.with_one(one), None), start, kernels)[0])
    n_kernels, overlap = jnp.asarray(n, dtype=jnp.int64), jnp.asarray(float(n))
    return eqx.tree_at(lambda s: (s.kernels, s.n_kernels, s.overlap), state, (fill(state.kernels), n_kernels, overlap))


def microseconds(method, state) -> float:
    """Of one evaluation."""

    def turn(state, carry):
        xi, energy = carry
        bias = method.bias(state, at(xi))
        return xi + 1e-9 * bias.force, energy + bias.energy

    loop = jax.jit(
        lambda state, xi: jax.lax.fori_loop(
            0, N_EVALUATIONS, lambda _, carry: as_one_function(turn, state, carry), (xi, jnp.zeros(()))
        )
    )
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        jax.block_until_ready(loop(state, jnp.array([0.3, 0.2])))
        times.append(time.perf_counter() - start)
    return 1e6 * min(times[1:]) / N_EVALUATIONS


def main() -> None:
    """Print the table."""
    angles = [DihedralAngle([0, 1, 2, 3]), DihedralAngle([1, 2, 3, 4])]
    method = OPES(angles, barrier=50.0, sigma=0.25, stride=500, kT=2.494)
    print("| kernels | us | ratio |\n|---|---|---|")
    first = None
    with jax.enable_x64(True):
        for n in (64, 256, 1024, 4096):
            now = microseconds(method, filled(method, n))
            first = first or now
            print(f"| {n} | {now:.2f} | {now / first:.1f} |", flush=True)


if __name__ == "__main__":
    main()
