"""Runs that need no simulation: every sample is drawn from the exact distribution under the bias of its time."""

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

import pysamp
from pysamp.methods.abf import N_BLOCKS, ABFState
from pysamp.methods.metadynamics import MetadynamicsState
from pysamp.results import Run
from pysamp.sampler import SamplerState
from pysamp.snapshot import Snapshot


def double_well(x):
    return 4.0 * (x**2 - 1.0) ** 2 + x


FINE = np.linspace(-2.0, 2.0, 4001)
LEFT, RIGHT = (lambda x: x < 0), (lambda x: x > 0)
_WEIGHTS = np.exp(-double_well(FINE))
EXACT = -float(np.log(_WEIGHTS[FINE > 0].sum() / _WEIGHTS[FINE < 0].sum()))


def draw(rng, energies, points=FINE):
    p = np.exp(-(energies - energies.min()))
    return points[np.searchsorted(np.cumsum(p) / p.sum(), rng.random())]


def make_run(methods, states, xi=None, steps=None, kT=1.0):
    labels = [label for method in methods for label in method.labels]
    n = len(states)
    xi = np.zeros((n, 0, len(labels))) if xi is None else xi
    steps = np.arange(xi.shape[1]) if steps is None else steps
    log = xr.Dataset({"xi": (("replica", "sample", "cv"), xi)}, {"step": ("sample", steps)})
    zeros = jnp.zeros(len(labels))
    key = jax.random.key_data(jax.random.key(0))
    sampler_states = [
        SamplerState(jnp.asarray(0), key, state, zeros, zeros, jnp.zeros(len(methods))) for state in states
    ]
    snapshot = Snapshot(np.zeros((1, 3)), None, np.ones(1))
    return Run(tuple(methods), sampler_states, [snapshot] * n, log, kT, 1.0)


def ideal_metadynamics(method, n_hills, seed=0, log_per_hill=0):
    """Metadynamics of infinitely fast dynamics in the double well: samples and hills are independent, given the bias.

    Where widths adapt, each hill has a random one.
    """
    rng = np.random.default_rng(seed)
    bias, stride = np.zeros_like(FINE), int(method.stride)
    centers, heights, widths, logged, steps = [], [], [], [], []
    for hill in range(n_hills):
        for k in range(log_per_hill):
            logged.append(draw(rng, double_well(FINE) + bias))
            steps.append(hill * stride + 1 + k * (stride - 1) // max(log_per_hill, 1))
        center = draw(rng, double_well(FINE) + bias)
        height = float(method.height)
        if method.bias_factor is not None:
            height *= np.exp(-np.interp(center, FINE, bias) / (method.bias_factor - 1.0))
        width = method.sigma[0] * (1.0 if method.adapt_sigma is None else 1.0 + 2.0 * rng.random())
        bias = bias + height * np.exp(-0.5 * ((FINE - center) / width) ** 2)
        centers.append(center)
        heights.append(height)
        widths.append(width)
    hills = jnp.asarray(np.array([centers, heights]))
    own = None if method.adapt_sigma is None else jnp.asarray([widths])
    state = MetadynamicsState(hills, jnp.asarray(n_hills), None, jnp.asarray(0), own)
    if not log_per_hill:
        return make_run([method], [(state,)])
    return make_run([method], [(state,)], np.array(logged)[None, :, None], np.array(steps))


def ideal_abf(method, forces, counts, noise=0.0, seed=0, n_blocks=N_BLOCKS, block_length=64):
    """Adaptive biasing force whose samples are ``forces`` with white noise; ``counts`` samples per bin and block, at centres."""
    rng = np.random.default_rng(seed)
    n = method.n_cvs
    counts = np.broadcast_to(np.asarray(counts, dtype=float), (n_blocks, *method.grid.shape)).reshape(n_blocks, -1)
    sums = np.zeros((method.grid.size, N_BLOCKS, 2 * n + 1))
    sums[:, :n_blocks, -1] = counts.T
    mean = np.asarray(forces).reshape(-1, 1, n) + np.zeros((1, n_blocks, n))
    sums[:, :n_blocks, :n] = mean * counts.T[..., None]
    sums[:, :n_blocks, :n] += noise * np.sqrt(counts.T)[..., None] * rng.normal(size=mean.shape)
    integers = [jnp.asarray(value) for value in (block_length, n_blocks * block_length, 0)]
    state = ABFState(jnp.asarray(sums), *integers, jnp.zeros(n), jnp.zeros(n), jnp.asarray(0))  # pyright: ignore[reportCallIssue]
    return make_run([method], [(state,)])


def covered(runs, exact=EXACT, regions=(LEFT, RIGHT), **options):
    """Part of the runs whose interval covers the exact difference, and the errors over the stated ones."""
    results = [pysamp.analyze(run, **options).difference(*regions) for run in runs]
    scaled = np.array([(value - exact) / stderr for value, stderr in results])
    return float(np.mean(np.abs(scaled) < 1)), scaled
