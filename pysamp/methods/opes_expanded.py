"""OPES for expanded ensembles: many states (temperatures, umbrellas) sampled in one simulation."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp
from jaxtyping import Array, Bool, Float, Int

from ..colvars.base import AbstractCV
from ..errors import InvalidInputError
from ..units import as_positive
from .base import AbstractMethod, Bias, Observation, as_stride, is_every
from .expansions import AbstractExpansion

__all__ = ["ExpandedState", "OPESExpanded"]


class ExpandedState(eqx.Module):
    """What is known of the states' free energies.

    Attributes:
        counts: number of states of each expansion; 0 before they are known, while there is no bias.
        samples: CVs seen in the steps without bias.
        log_weight: log of the sum of the samples' weights exp(V / kT).
        log_weight_squared: log of the sum of their squares.
        log_sums: log of the sum of the weights times exp(-differences), for each state; -inf for room that is not used.
        xi: CVs at the last step.
    """

    counts: Int[Array, " e"]
    samples: Float[Array, "m n"]
    log_weight: Float[Array, ""]
    log_weight_squared: Float[Array, ""]
    log_sums: Float[Array, " room"]
    xi: Float[Array, " n"]

    @property
    def free_energies(self) -> Float[Array | np.ndarray, " room"]:
        r"""$\Delta f_\lambda = -\ln Z_\lambda / Z_0$ of each state, inf for room that is not used."""
        return self.log_weight - self.log_sums


class OPESExpanded(AbstractMethod[ExpandedState]):
    r"""OPES that samples a whole family of states with equal probability each: temperatures, umbrellas, or both.

    $$V(\xi) = -kT \ln \frac{1}{N} \sum_\lambda e^{-\Delta u_\lambda(\xi) + \Delta f_\lambda}, \qquad
    e^{-\Delta f_\lambda} = \frac{\sum_k e^{V_k / kT} e^{-\Delta u_\lambda(\xi_k)}}{\sum_k e^{V_k / kT}},$$

    where k counts samples taken every ``stride`` steps and $V_k$ is the bias that each was drawn under. The first
    ``n_observations`` of them have no bias: they tell how many temperatures are needed and give first values of $\Delta f$.

    Choose it to know a system at all temperatures of a range from one simulation (:class:`~pysamp.methods.Multithermal`, which
    also crosses barriers as long as they are lower at higher temperatures), to sample a CV uniformly
    (:class:`~pysamp.methods.MultiUmbrella`), or both: several expansions form the product of their states. Unlike
    replica exchange it takes one simulation; unlike metadynamics the bias is known up to a few numbers, which converge fast.

    ``pysamp.analyze`` gives the free energy along the umbrellas' CVs, or else the energy, at the simulation's temperature;
    :func:`~pysamp.analysis.reweight` that of any logged quantity, at other temperatures too (``kT=...``);
    :func:`~pysamp.analysis.expanded_states` the states' own free energies.

    Args:
        expansions: one :class:`~pysamp.methods.Multithermal` or :class:`~pysamp.methods.MultiUmbrella`, or a list of them.
        stride: steps between samples that enter the free energies; about the time in which the CVs forget.
        n_observations: number of samples without bias at the beginning.
        kT: thermal energy of the simulation [energy]; None for the engine's.

    Attributes:
        cvs: the CVs of all expansions, one after the other.

    Raises:
        InvalidInputError: if there is no expansion, or a number is out of range; during a run, if the number of
            temperatures that the steps without bias ask for is above 64.

    Example:
        >>> import jax.numpy as jnp
        >>> import pysamp
        >>> from pysamp.backends import toy
        >>> from pysamp.methods import Multithermal, OPESExpanded
        >>> def generate_context():
        ...     return toy.Simulation(lambda x: 0.5 * jnp.sum(x**2), [[1.0, 0.0, 0.0]], timestep=0.1)
        >>> method = OPESExpanded(Multithermal(kT=(0.5, 2.0)), stride=10)
        >>> run = pysamp.run(method, generate_context, 20_000, log_every=10, seed=1, progress=False)
        >>> bool(abs(run.log.xi.values.mean() - 1.5) > 0.2)  # not the energy at kT = 1, but that of a mixture
        True

    References:
        Invernizzi, Piaggi & Parrinello, Phys. Rev. X 10, 041034 (2020), doi 10.1103/PhysRevX.10.041034.
    """

    learns: ClassVar[bool] = True

    cvs: tuple[AbstractCV, ...]
    expansions: tuple[AbstractExpansion, ...]
    stride: Int[np.ndarray, ""]
    n_observations: int = eqx.field(static=True)
    kT: Float[np.ndarray, ""] | None

    def __init__(self, expansions: Any, *, stride: Any, n_observations: Any = 100, kT: Any = None):
        self.expansions = tuple(expansions) if isinstance(expansions, list | tuple) else (expansions,)
        for expansion in self.expansions:
            if not isinstance(expansion, AbstractExpansion):
                raise InvalidInputError(
                    f"OPESExpanded samples expansions such as Multithermal(kT=(2.49, 4.16)) or MultiUmbrella(cv, ...), got "
                    f"{expansion!r}."
                )
        self.cvs = tuple(cv for expansion in self.expansions for cv in expansion.cvs)
        self.stride = as_stride(stride, "stride")
        self.n_observations = int(as_stride(n_observations, "n_observations"))
        self.kT = None if kT is None else as_positive(kT, "kT")

    def __check_init__(self):
        if not self.expansions:
            raise InvalidInputError("OPESExpanded needs an expansion, got an empty list.")
        if self.n_observations < 10:
            raise InvalidInputError(
                f"n_observations must be 10 or more, got {self.n_observations}: the first bias comes from these samples alone."
            )

    def init(self, obs: Observation) -> ExpandedState:
        """Nothing seen; no bias."""
        dtype = obs.xi.dtype
        return ExpandedState(
            counts=jnp.zeros(len(self.expansions), dtype=jnp.int64),
            samples=jnp.zeros((self.n_observations, self.n_cvs), dtype=dtype),
            log_weight=jnp.full((), -jnp.inf, dtype=dtype),
            log_weight_squared=jnp.full((), -jnp.inf, dtype=dtype),
            log_sums=jnp.full(self._room, -jnp.inf, dtype=dtype),
            xi=jnp.zeros_like(obs.xi),
        )

    def reserve(self, state: ExpandedState, n_steps: int) -> ExpandedState:
        """The state as it is.

        Raises:
            InvalidInputError: if the steps without bias told that more states are needed than there is room for.
        """
        del n_steps
        self.check_room(np.asarray(state.counts))
        return state

    def check_room(self, counts: Int[np.ndarray, " e"]) -> None:
        """Raise if an expansion needs more states than it has room for, which only the first samples tell.

        Raises:
            InvalidInputError: if so.
        """
        for expansion, count in zip(self.expansions, counts, strict=True):
            if count > expansion.room:
                raise InvalidInputError(
                    f"{type(expansion).__name__} needs {count} states for as large fluctuations as the {self.n_observations} "
                    f"samples without bias have, and has room for {expansion.room}. Give a narrower range, or their number: "
                    f"n={count}, or fewer if neighbouring states may share less than half of their samples. If the first "
                    "samples were not in equilibrium yet, equilibrate first."
                )

    def truncated(self, state: ExpandedState, n_steps: int) -> ExpandedState:
        """All that the analysis looks at is in the log."""
        del n_steps
        return state

    def update(self, state: ExpandedState, obs: Observation) -> ExpandedState:
        """Look where the CVs are; samples are taken later."""
        return eqx.tree_at(lambda s: s.xi, state, obs.xi)

    def is_due(self, n_steps: Int[Array, ""]) -> Bool[Array, ""]:
        """Every ``stride`` steps, the first time after ``stride`` steps."""
        return is_every(self.stride, n_steps - 1)

    def learn(self, state: ExpandedState, n_steps: Int[Array, ""], kT: Float[Array, ""]) -> ExpandedState:
        """Take the last step's CVs as a sample.

        It comes after the bias of that step, so that the bias reported for a sample, with which it is reweighted, does not have
        the sample itself in it.
        """
        kT, number = self._kT(kT), (n_steps - 1) // self.stride - 1
        place = jnp.clip(number, 0, self.n_observations - 1)
        kept = jax.lax.dynamic_index_in_dim(state.samples, place, keepdims=False)
        sample = jnp.where(number < self.n_observations, state.xi, kept)
        samples = jax.lax.dynamic_update_index_in_dim(state.samples, sample, place, axis=0)
        state = eqx.tree_at(lambda s: s.samples, state, samples)
        state = jax.lax.cond(number == self.n_observations - 1, lambda: self._begun(state, kT), lambda: state)
        return jax.lax.cond(number >= self.n_observations, lambda: self._added(state, kT), lambda: state)

    def potential(self, state: ExpandedState, xi: Float[Array, " n"], kT: Float[Array, ""]) -> Float[Array, ""]:
        """Bias energy at ``xi`` [energy]; 0 while there is none."""
        has_begun = state.counts[0] > 0
        differences = self.differences(xi, kT, state.counts)
        used = jnp.isfinite(state.log_sums)
        exponents = jnp.where(used, state.free_energies - jnp.where(used, differences, 0.0), -jnp.inf)
        exponents = jnp.where(has_begun, exponents, 0.0)
        n = jnp.prod(state.counts).astype(xi.dtype)
        return jnp.where(has_begun, -kT * (logsumexp(exponents) - jnp.log(jnp.maximum(n, 1.0))), 0.0)

    def bias(self, state: ExpandedState, obs: Observation) -> Bias:
        """The potential at ``obs.xi`` and minus its gradient."""
        energy, gradient = jax.value_and_grad(lambda xi: self.potential(state, xi, self._kT(obs.kT)))(obs.xi)
        return Bias(energy, -gradient)

    def differences(
        self, xi: Float[Array, " n"], kT: Float[Array, ""], counts: Int[Array, " e"]
    ) -> Float[Array, " room"]:
        r"""$\Delta u_\lambda$ of all states, the last expansion running fastest; inf for room that is not used."""
        total, first = jnp.zeros(1, dtype=xi.dtype), 0
        for i, expansion in enumerate(self.expansions):
            last = first + sum(cv.n_components for cv in expansion.cvs)
            more = expansion.differences(xi[first:last], kT, counts[i])
            total = (total[:, None] + more[None, :]).reshape(-1)
            first = last
        return total

    def diagnostics(self, state: ExpandedState) -> Mapping[str, Float[Array, ""]]:
        """Number of states, and the effective number of samples in the simulation's own."""
        return {
            "n_states": jnp.prod(state.counts).astype(float),
            "n_effective": jnp.where(
                state.counts[0] > 0, jnp.exp(2.0 * state.log_weight - state.log_weight_squared), 0.0
            ),
        }

    @property
    def _room(self) -> int:
        return math.prod(expansion.room for expansion in self.expansions)

    def _begun(self, state: ExpandedState, kT: Float[Array, ""]) -> ExpandedState:
        """Number of states and first free energies, from the samples without bias."""
        counts, first = [], 0
        for expansion in self.expansions:
            last = first + sum(cv.n_components for cv in expansion.cvs)
            counts.append(expansion.count(state.samples[:, first:last], kT))
            first = last
        counts = jnp.stack(counts)
        differences = jax.vmap(lambda xi: self.differences(xi, kT, counts))(state.samples)
        log_weight = jnp.full_like(state.log_weight, math.log(self.n_observations))
        free_energies = log_weight - logsumexp(-differences, axis=0)
        shape = [expansion.room for expansion in self.expansions]
        for i, expansion in enumerate(self.expansions):
            front = jnp.moveaxis(free_energies.reshape(shape), i, 0)
            front = expansion.capped(front.reshape(shape[i], -1), kT).reshape(front.shape)
            free_energies = jnp.moveaxis(front, 0, i).reshape(-1)
        return eqx.tree_at(
            lambda s: (s.counts, s.log_weight, s.log_weight_squared, s.log_sums),
            state,
            (counts, log_weight, log_weight, log_weight - free_energies),
        )

    def _added(self, state: ExpandedState, kT: Float[Array, ""]) -> ExpandedState:
        """The last sample in the sums."""
        weight = self.potential(state, state.xi, kT) / kT
        differences = self.differences(state.xi, kT, state.counts)
        return eqx.tree_at(
            lambda s: (s.log_weight, s.log_weight_squared, s.log_sums),
            state,
            (
                jnp.logaddexp(state.log_weight, weight),
                jnp.logaddexp(state.log_weight_squared, 2.0 * weight),
                jnp.logaddexp(state.log_sums, weight - differences),
            ),
        )
