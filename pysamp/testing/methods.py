"""The contract of sampling methods."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from .._compile import jit_in_haste
from ..methods.base import AbstractMethod, Bias, Observation
from . import tolerances
from ._numbers import assert_close, displaced, from_differences

__all__ = ["check_method"]


def check_method(
    method: AbstractMethod,
    trajectory: Any = None,
    *,
    n_steps: int = 64,
    kT: float = 1.0,
    eager: bool = True,
    seed: int = 0,
) -> None:
    """Check that a method keeps the contract of all methods, along a trajectory in CV space.

    In float64: the state keeps its structure, shapes and dtypes; ``bias`` is the gradient of its energy where the
    method says so, and periodic where the CVs are; jit equals eager; vmap equals one by one; other parameter values
    need no new trace; room reserved changes nothing; a run stopped and resumed from arrays equals the uninterrupted
    one bit for bit.

    Args:
        method: the method.
        trajectory: values of the CVs, ``(n_steps, n_cvs)``; a random walk around zero with steps of 0.1 if None.
            Choose one that makes the method act (deposit hills, meet walls).
        n_steps: length of the random walk.
        kT: thermal energy [energy].
        eager: False leaves out the steps outside of jit, for which JAX compiles every operation by itself.
        seed: for the random walk, and for momenta if the method needs them.

    Raises:
        AssertionError: saying which part of the contract does not hold.

    Example:
        >>> from pysamp.colvars import Distance
        >>> from pysamp.methods import HarmonicBias
        >>> from pysamp.testing import check_method
        >>> check_method(HarmonicBias(Distance([0, 1]), kspring=10.0, center=0.3))
    """
    rng = np.random.default_rng(seed)
    n = method.n_cvs
    xi = np.cumsum(0.1 * rng.normal(size=(n_steps, n)), axis=0) if trajectory is None else np.asarray(trajectory, float)
    if xi.ndim != 2 or xi.shape[1] != n:
        raise AssertionError(f"trajectory must have the shape (n_steps, {n}), got {xi.shape}.")
    with jax.enable_x64(True):
        momenta = rng.normal(size=xi.shape) if "momentum" in method.needs else np.zeros(xi.shape)
        _Check(method, xi, momenta, kT).run(eager)


class _Check:
    def __init__(
        self, method: AbstractMethod, xi: Float[np.ndarray, "m n"], momenta: Float[np.ndarray, "m n"], kT: float
    ):
        self.method, self.xi, self.momenta, self.kT = method, xi, momenta, kT
        self.name = type(method).__name__
        self.n_traces = 0

    def observations(self, shift: Any = 0.0) -> Observation:
        """All observations, stacked; most of them on the host, as JAX compiles what is done to an array of its own."""
        m = len(self.xi)
        parts: dict[str, Any] = {
            "xi": self.xi + shift,
            "step": np.arange(m, dtype=np.int64),
            "kT": np.full(m, self.kT),
            "key": jax.random.split(jax.random.key(0), m),
            "momentum": self.momenta,
            "applied": self.momenta[::-1],
            "timestep": np.full(m, 0.1),
        }
        return jax.vmap(Observation)(**parts)

    def start(self, observations: Observation) -> Any:
        """State before the first step, with room for the trajectory."""
        return self.method.reserve(self.method.init(_one(observations, 0)), len(self.xi))

    def trace(
        self, method: AbstractMethod, state: Any, observations: Observation, start: Any, end: Any
    ) -> tuple[Any, Bias]:
        """State after, and bias at, some of the steps; the bias of the others is zero."""
        self.n_traces += 1

        def body(i: Any, carry: tuple[Any, Bias]) -> tuple[Any, Bias]:
            state, biases = carry
            obs = jax.tree.map(lambda leaf: leaf[i], observations)
            state = method.update(state, obs)
            biases = jax.tree.map(lambda all, one: all.at[i].set(one), biases, method.bias(state, obs))
            return method.learned(state, obs.step + 1, obs.kT), biases

        nothing = jax.vmap(Bias)(jnp.zeros(len(observations.step)), jnp.zeros_like(observations.xi))
        return jax.lax.fori_loop(start, end, body, (state, nothing))

    def run(self, eager: bool) -> None:
        """All parts of the contract."""
        observations = self.observations()
        state = self.start(observations)
        self.stable(state, observations)
        trace, m = jit_in_haste(self.trace), len(self.xi)
        after, biases = trace(self.method, state, observations, 0, m)
        for what, value in (("energies", biases.energy), ("forces", biases.force)):
            assert np.isfinite(value).all(), f"{self.name}: {what} are not finite along the trajectory."
        self.other_parameters(trace, state, observations)
        if eager:
            self.eager(state, observations, biases)
        self.resumed(trace, state, observations, after, biases)
        self.batched(state, observations, biases)
        if self.method.has_energy:
            self.gradient(after, observations)
        self.periodic(after, observations)
        for name, value in self.method.diagnostics(after).items():
            assert jnp.shape(value) == (), f"{self.name}: diagnostic {name} is not a scalar."

    def stable(self, state: Any, observations: Observation) -> None:
        obs = _one(observations, 0)
        describe = lambda tree: jax.tree.map(lambda leaf: (jnp.shape(leaf), jnp.result_type(leaf)), tree)  # noqa: E731
        learn = lambda state: self.method.learned(state, obs.step + 1, obs.kT)  # noqa: E731
        for what, change in (("update", lambda state: self.method.update(state, obs)), ("learn", learn)):
            before, after = describe(state), describe(jax.eval_shape(change, state))
            assert before == after, f"{self.name}: {what} changes the shape of the state from\n{before}\nto\n{after}"
        other = describe(self.method.for_replica(state, self.method.n_replicas - 1))
        assert before == other, f"{self.name}: for_replica changes the shape of the state from\n{before}\nto\n{other}"
        bias = jax.eval_shape(self.method.bias, state, obs)
        n = self.method.n_cvs
        shapes = (bias.energy.shape, bias.force.shape)
        assert shapes == ((), (n,)), (
            f"{self.name}: the shapes of bias energy and force are {shapes}, not () and ({n},)."
        )
        assert len(self.method.labels) == len(self.method.periods) == n, f"{self.name} has not one label for each CV."

    def eager(self, state: Any, observations: Observation, biases: Bias) -> None:
        for i in range(min(len(self.xi), 6)):
            obs = _one(observations, i)
            state = self.method.update(state, obs)
            bias = self.method.bias(state, obs)
            if self.method.learns and self.method.is_due(obs.step + 1):
                state = self.method.learn(state, obs.step + 1, obs.kT)
            for what, got, expected in (("energy", bias.energy, biases.energy), ("force", bias.force, biases.force)):
                expected = np.asarray(expected)[i]
                assert_close(got, expected, tolerances.ROUNDING, f"{self.name}: jit changes the {what}", 1e-6)

    def resumed(self, trace: Any, state: Any, observations: Observation, after: Any, biases: Bias) -> None:
        half, end = len(self.xi) // 2, len(self.xi)
        middle, _ = trace(self.method, state, observations, 0, half)
        saved = jax.tree.map(np.asarray, middle)  # what a checkpoint keeps
        resumed, later = trace(self.method, jax.tree.map(jax.device_put, saved), observations, half, end)
        for got, expected in zip(jax.tree.leaves(resumed), jax.tree.leaves(after), strict=True):
            assert np.array_equal(got, expected, equal_nan=True), f"{self.name}: a resumed run ends in another state."
        biases, later = jax.tree.map(lambda leaf: np.asarray(leaf)[half:], (biases, later))
        assert np.array_equal(later.energy, biases.energy), f"{self.name}: a resumed run has other energies."
        assert np.array_equal(later.force, biases.force), f"{self.name}: a resumed run has other forces."
        roomy = self.method.reserve(middle, 100 * end)
        _, later = trace(self.method, roomy, observations, half, end)
        energies = np.asarray(later.energy)[half:]
        assert_close(energies, biases.energy, 0.0, f"{self.name}: room reserved changes the energy")

    def batched(self, state: Any, observations: Observation, biases: Bias) -> None:
        def trace(state: Any, observations: Observation) -> Bias:
            states = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), state)
            both = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf[::-1]]), observations)
            both = eqx.tree_at(lambda o: o.step, both, jnp.stack([observations.step] * 2))
            trace = jax.vmap(self.trace, in_axes=(None, 0, 0, None, None))
            _, biases = trace(self.method, states, both, 0, len(self.xi))
            return jax.tree.map(lambda leaf: leaf[0], biases)

        together, what = jit_in_haste(trace)(state, observations), f"{self.name}: vmap changes"
        assert_close(together.energy, biases.energy, tolerances.ROUNDING, f"{what} energies", 1e-6)
        assert_close(together.force, biases.force, tolerances.ROUNDING, f"{what} forces", 1e-6)

    def other_parameters(self, trace: Any, state: Any, observations: Observation) -> None:
        for factor in (1.01, 0.99):
            other = jax.tree.map(
                lambda leaf, f=factor: leaf * f if jnp.issubdtype(jnp.result_type(leaf), jnp.floating) else leaf,
                self.method,
            )
            trace.trace(other, state, observations, 0, len(self.xi))
        assert self.n_traces == 1, (
            f"{self.name} was traced {self.n_traces} times for three sets of parameters; make them array leaves."
        )

    def gradient(self, state: Any, observations: Observation) -> None:
        """Force against differences of the energy, at some points of the trajectory."""
        step = 1e-5
        obs = jax.tree.map(lambda leaf: leaf[:: max(1, len(self.xi) // 8)], observations)
        points = np.stack([np.concatenate([xi[None], displaced(xi, step)]) for xi in obs.xi])

        def bias(xi: Any, obs: Observation) -> Bias:
            return self.method.bias(state, eqx.tree_at(lambda o: o.xi, obs, xi))

        biases = jit_in_haste(jax.vmap(jax.vmap(bias, in_axes=(0, None))))(points, obs)
        energies = np.asarray(biases.energy)[:, 1:, None]
        numerical = [-from_differences(energy, (self.xi.shape[1],), step)[0] for energy in energies]
        what = f"{self.name}: force against differences of the energy"
        assert_close(np.asarray(biases.force)[:, 0], np.stack(numerical), tolerances.FINITE_DIFFERENCE, what, 1e-3)

    def periodic(self, state: Any, observations: Observation) -> None:
        shift = np.array([0.0 if period is None else period for period in self.method.periods])
        if not shift.any():
            return
        energy = jit_in_haste(jax.vmap(lambda obs: self.method.bias(state, obs).energy))
        got, what = energy(self.observations(shift)), f"{self.name}: energy one period on"
        assert_close(got, energy(observations), 1e3 * tolerances.ROUNDING, what, 1e-3)


def _one(observations: Observation, i: int) -> Observation:
    return jax.tree.map(lambda leaf: jax.device_put(leaf[i]), observations)
