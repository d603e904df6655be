"""Extended-system adaptive biasing force: fictitious particles on springs, biased in place of the collective variables."""

from collections.abc import Mapping
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, UInt32

from ..colvars.base import AbstractCV
from ..errors import InvalidInputError
from ..grids import Grid
from ..units import as_positive
from ._projection import nearest_potential
from .abf import FIRST_BLOCK, N_BLOCKS, added, place_in, with_free_block
from .base import AbstractMethod, Bias, Observation, as_cvs, as_stride, check_grid, per_cv
from .metadynamics import Metadynamics, MetadynamicsState, interpolate

__all__ = ["ExtendedABF", "ExtendedABFState"]

_NOISE_BLOCK = 64  # steps for which random numbers are made at once, which takes less time
_FIRST_INTERVAL, _PARTS = 1024, 32  # steps before the average force is looked at again: at first, and as a part of all


class ExtendedABFState(eqx.Module):
    """The extended variables, and what was measured at them and at the CVs.

    Attributes:
        position: lambda, the extended variables [CV unit].
        velocity: their velocities [CV unit / time].
        force: on the extended variables at the last step [energy / CV unit].
        at_xi: for each bin of xi and block of time, sums of the spring force on xi [energy / CV unit], and number of samples.
        at_position: for each bin of lambda and block, the same, and between them sums of the products of the differences
            lambda - xi (upper triangle).
        potential: whose gradient is the adaptive biasing force on the extended variables, at the grid's nodes with one ghost node
            beyond either end of each axis [energy].
        block_length: steps per block, as in :class:`~pysamp.methods.ABF`.
        n_steps: steps seen so far.
        hills: state of the metadynamics of the extended variables, or None.
        outside: number of steps at which a CV was outside the grid.
        key: data of the random key.
        noise: random numbers for the present and the next steps.
    """

    position: Float[Array, " n"]
    velocity: Float[Array, " n"]
    force: Float[Array, " n"]
    at_xi: Float[Array, "bins blocks n_plus_1"]
    at_position: Float[Array, "bins blocks m"]
    potential: Float[Array, "..."]
    block_length: Int[Array, ""]
    n_steps: Int[Array, ""]
    hills: MetadynamicsState | None
    outside: Int[Array, ""]
    key: UInt32[Array, " w"]
    noise: Float[Array, "block n"]


class ExtendedABF(AbstractMethod[ExtendedABFState]):
    r"""Extended-system adaptive biasing force (eABF), alone or with metadynamics (meta-eABF).

    Every CV is tied by a spring to a variable $\lambda$ with a mass m of its own, which moves by Langevin dynamics at the
    temperature of the system:

    $$U(x, \lambda) = U(x) + \sum_d \frac{k_d}{2} \left(\xi_d(x) - \lambda_d\right)^2, \qquad
      k_d = \frac{kT}{\sigma_d^2}, \qquad m_d = k_d \left(\frac{\tau}{2 \pi}\right)^2.$$

    Adaptive biasing force acts on $\lambda$, whose force is that of the spring, known exactly; of its average over a bin only
    the part that is the gradient of a potential (Alrachid & Lelièvre), found anew whenever a part of 1/32 has been added to what
    was sampled. The rest is noise and friction: applied, it would drive $\lambda$ in circles, round a period too, and what does
    not follow at once would then lag behind in the same direction for ever. The system feels nothing but the springs, whose
    energy is the bias energy. The free energy of $\xi$ itself follows without approximation from CZAR,

    $$\frac{\partial A}{\partial \xi_d} = -kT \frac{\partial \ln \tilde\rho}{\partial \xi_d}
      + k_d \left(\langle \lambda_d \rangle_\xi - \xi_d\right),$$

    where $\tilde\rho$ is the biased distribution of $\xi$, or by umbrella integration over the bins of $\lambda$.

    With ``hills``, a :class:`Metadynamics` on a grid, hills are added at $\lambda$ too (meta-eABF; well-tempered
    hills make it WTM-eABF). They drive $\lambda$ out of places whose mean force is not known yet, and the estimators stay
    what they are.

    Choose it where ABF cannot be used: CVs on virtual sites, without second derivatives or momenta, several CVs that are not
    independent, engines that give no velocities. Meta-eABF is the better explorer and a good first choice.

    Args:
        cvs: collective variables, one or a list.
        grid: bins for both $\xi$ and $\lambda$; the latter is reflected at the ends of a non-periodic axis.
        sigma: $\sigma$, the fluctuation that a spring allows [CV unit], one number or one per CV; one to three bins' widths.
        tau: $\tau$, period of a spring with its mass m [time]; some 50 to 200 time steps of the engine.
        friction: of the extended variables [1/time]; None for $1 / \tau$.
        full_samples: samples in a bin from which on the whole average is applied; few do, as the potential smooths their noise.
        hills: metadynamics of the extended variables, on the same CVs and with a grid; None for plain eABF.
        kT: thermal energy [energy]; None to take the engine's.

    Raises:
        InvalidInputError: for numbers that are not positive, a grid that does not fit the CVs, a sigma narrower than half a
            bin, or hills on other CVs.

    Example:
        >>> import pysamp
        >>> from pysamp.colvars import Distance
        >>> from pysamp.methods import ExtendedABF, Metadynamics
        >>> r, grid = Distance([0, 1]), pysamp.Grid(0.2, 1.2, 100)
        >>> hills = Metadynamics(r, height=0.3, sigma=0.04, stride=500, bias_factor=10, grid=grid)
        >>> ExtendedABF(r, grid=grid, sigma=0.02, tau=0.2, hills=hills).n_cvs
        1

    References:
        Lesage, Lelièvre, Stoltz & Hénin, J. Phys. Chem. B 121, 3676 (2017), doi 10.1021/acs.jpcb.6b10055.
        Gradient part: Alrachid & Lelièvre, SMAI J. Comput. Math. 1, 55 (2015), doi 10.5802/smai-jcm.4.
        Meta-eABF: Fu, Zhang, Chen, Shao, Chipot & Cai, J. Phys. Chem. Lett. 9, 4738 (2018), doi 10.1021/acs.jpclett.8b01994.
        Umbrella integration: Kästner & Thiel, J. Chem. Phys. 123, 144104 (2005), doi 10.1063/1.2052648.
    """

    learns: ClassVar[bool] = True

    cvs: tuple[AbstractCV, ...]
    grid: Grid
    sigma: Float[np.ndarray, " n"]
    tau: Float[np.ndarray, ""]
    friction: Float[np.ndarray, ""]
    full_samples: Int[np.ndarray, ""]
    hills: Metadynamics | None
    kT: Float[np.ndarray, ""] | None

    def __init__(
        self,
        cvs: Any,
        *,
        grid: Grid,
        sigma: Any,
        tau: Any,
        friction: Any = None,
        full_samples: int = 20,
        hills: Metadynamics | None = None,
        kT: Any = None,
    ):
        self.cvs = as_cvs(cvs)
        self.grid = grid
        self.sigma = per_cv(sigma, self.n_cvs, "sigma")
        self.tau = as_positive(tau, "tau")
        self.friction = np.asarray(1.0 / self.tau) if friction is None else as_positive(friction, "friction")
        self.full_samples = as_stride(full_samples, "full_samples")
        self.hills = hills
        self.kT = None if kT is None else as_positive(kT, "kT")

    def __check_init__(self):
        check_grid(self.grid, self)
        if not (np.isfinite(self.sigma).all() and (self.sigma > 0).all()):
            raise InvalidInputError(f"sigma must be positive, got {self.sigma.tolist()}.")
        if (self.sigma < 0.5 * self.grid.widths).any():
            raise InvalidInputError(
                f"sigma {self.sigma.tolist()} is less than half the width of a bin {self.grid.widths.tolist()}, so that the "
                "bins would not resolve what the springs do: take one to three widths, or a finer grid."
            )
        for sigma, period, label in zip(self.sigma, self.periods, self.labels, strict=True):
            if period is not None and sigma > period / 12:
                raise InvalidInputError(
                    f"sigma={sigma} is too wide for {label} with the period {period:.6g}: a spring would reach halfway round. "
                    f"Use at most {period / 12:.3g}."
                )
        if self.hills is not None:
            if not isinstance(self.hills, Metadynamics) or self.hills.grid is None:
                raise InvalidInputError(
                    f"hills must be a Metadynamics(...) with grid=..., on the same CVs, or None; got {self.hills!r}."
                )
            if self.hills.labels != self.labels:
                raise InvalidInputError(
                    f"hills is on the CVs {self.hills.labels}, but the extended variables are those of {self.labels}."
                )

    def init(self, obs: Observation) -> ExtendedABFState:
        """Extended variables at rest where the CVs are, or at the nearest place in the grid; no samples."""
        zero, n, dtype = jnp.zeros_like(obs.step), self.n_cvs, obs.xi.dtype
        inside = jnp.clip(obs.xi, self.grid.lower, self.grid.upper)
        position = jnp.where(np.asarray(self.grid.periodic), obs.xi, inside)
        hills = None if self.hills is None else self.hills.init(self._at(position, obs))
        return ExtendedABFState(
            position=position,
            velocity=jnp.zeros_like(obs.xi),
            force=jnp.zeros_like(obs.xi),
            at_xi=jnp.zeros((self.grid.size, N_BLOCKS, n + 1), dtype=dtype),
            at_position=jnp.zeros((self.grid.size, N_BLOCKS, n + n * (n + 1) // 2 + 1), dtype=dtype),
            potential=jnp.zeros(tuple(m + 3 for m in self.grid.shape), dtype=dtype),
            block_length=zero + FIRST_BLOCK,
            n_steps=zero,
            hills=hills,
            outside=zero,
            key=jax.random.key_data(obs.key),
            noise=self._noise(obs.key, zero),
        )

    def reserve(self, state: ExtendedABFState, n_steps: int) -> ExtendedABFState:
        """Room for hills."""
        if self.hills is None or state.hills is None:
            return state
        return eqx.tree_at(lambda s: s.hills, state, self.hills.reserve(state.hills, n_steps))

    def update(self, state: ExtendedABFState, obs: Observation) -> ExtendedABFState:
        """Move the extended variables by one step, from forces at the last one; then sample."""
        at_xi, block_length = with_free_block(state.at_xi, state.block_length, obs.step)
        at_position, _ = with_free_block(state.at_position, state.block_length, obs.step)
        position, velocity = self._moved(state, obs)
        block = state.n_steps // block_length
        stretch = self.difference(position, obs.xi)
        force = self._kspring(obs) * stretch  # on xi; on lambda it is minus that
        products = [stretch[i] * stretch[j] for i in range(self.n_cvs) for j in range(i, self.n_cvs)]
        place, outside = place_in(self.grid, obs.xi)
        sample = jnp.where(outside, 0.0, jnp.append(force, 1.0))
        own_place, _ = place_in(self.grid, position)
        own_sample = jnp.concatenate([force, jnp.stack(products), jnp.ones_like(force[:1])])
        hills, own_force = state.hills, self._average(state.potential, position) - force
        if self.hills is not None and hills is not None:
            hills = self.hills.watched(hills, self._at(position, obs))
            own_force = own_force + self.hills.bias(hills, self._at(position, obs)).force
        return ExtendedABFState(
            position=position,
            velocity=velocity,
            force=own_force,
            at_xi=added(at_xi, jnp.where(outside, -1, place), block, sample),
            at_position=added(at_position, own_place, block, own_sample),
            potential=state.potential,
            block_length=block_length,
            n_steps=state.n_steps + 1,
            hills=hills,
            outside=state.outside + outside,
            key=state.key,
            noise=state.noise,
        )

    def is_due(self, n_steps: Int[Array, ""]) -> Bool[Array, ""]:
        """When the random numbers are used up, or a hill is to be added."""
        if self.hills is None:
            return self._is_noise_used(n_steps)
        return self._is_noise_used(n_steps) | self.hills.has_hill(n_steps - 1)

    def learn(self, state: ExtendedABFState, n_steps: Int[Array, ""], kT: Float[Array, ""]) -> ExtendedABFState:
        """New random numbers; the potential of the average force; a hill where the extended variables are.

        A hill is added here, apart from the step that reads the hills: one that wrote to their table too would copy it.
        """
        noise = jax.lax.cond(
            self._is_noise_used(n_steps),
            lambda: self._noise(jax.random.wrap_key_data(state.key), n_steps),
            lambda: state.noise,
        )
        potential = jax.lax.cond(self._is_new(n_steps), lambda: self._projected(state), lambda: state.potential)
        state = eqx.tree_at(lambda s: (s.noise, s.potential), state, (noise, potential))
        method, hills = self.hills, state.hills
        if method is None or hills is None:
            return state
        zeros, key = jnp.zeros_like(state.position), jax.random.wrap_key_data(state.key)
        obs = Observation(state.position, n_steps - 1, kT, key, zeros, zeros, jnp.ones(()))
        more = jax.lax.cond(method.has_hill(obs.step), lambda: method.deposited(hills, obs), lambda: hills)
        return eqx.tree_at(lambda s: s.hills, state, more)

    def bias(self, state: ExtendedABFState, obs: Observation) -> Bias:
        """Energy of the springs, and their force on the CVs."""
        stretch = self.difference(state.position, obs.xi)
        force = self._kspring(obs) * stretch
        return Bias(0.5 * jnp.sum(force * stretch), force)

    def diagnostics(self, state: ExtendedABFState) -> Mapping[str, Float[Array, ""]]:
        """The extended variables, and steps at which the CVs were outside the grid."""
        positions = {f"extended[{i}]": value for i, value in enumerate(state.position)}
        return {**positions, "outside": state.outside.astype(float)}

    def _is_new(self, n_steps: Int[Array, ""]) -> Bool[Array, ""]:
        """Whether so much was sampled since the potential was made that it is worth another."""
        parts = jnp.maximum(n_steps // _PARTS, 1)
        interval = jnp.left_shift(jnp.ones_like(parts), 63 - jax.lax.clz(parts))  # the largest power of two within
        return n_steps % jnp.maximum(interval, _FIRST_INTERVAL) == 0

    def _projected(self, state: ExtendedABFState) -> Float[Array, "..."]:
        """Potential of the average force on xi, ramped, in the bins of the extended variables."""
        total = jnp.sum(state.at_position, axis=1)
        force = total[:, : self.n_cvs] / jnp.maximum(total[:, -1:], self.full_samples)
        known = jnp.minimum(total[:, -1] / self.full_samples, 1.0)
        return nearest_potential(self.grid, force, known, state.potential)

    def _average(self, potential: Float[Array, "..."], position: Float[Array, " n"]) -> Float[Array, " n"]:
        """What the adaptive bias adds to the force on the extended variables."""
        return jax.grad(lambda x: interpolate(self.grid, potential, x))(position)

    def _is_noise_used(self, n_steps: Int[Array, ""]) -> Bool[Array, ""]:
        return n_steps % _NOISE_BLOCK == 0

    def _noise(self, key: Key[Array, ""], step: Int[Array, ""]) -> Float[Array, "block n"]:
        """Normal random numbers for a block of steps that begins with ``step``."""
        return jax.random.normal(jax.random.fold_in(key, step // _NOISE_BLOCK), (_NOISE_BLOCK, self.n_cvs))

    def _kspring(self, obs: Observation) -> Float[Array, " n"]:
        """Spring constants [energy / CV unit^2]."""
        return self._kT(obs.kT) / jnp.asarray(self.sigma) ** 2

    def _at(self, position: Float[Array, " n"], obs: Observation) -> Observation:
        """What the extended variables' own bias sees."""
        return eqx.tree_at(lambda o: o.xi, obs, position)

    def _moved(self, state: ExtendedABFState, obs: Observation) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
        """One step of Langevin dynamics ("middle" scheme) under the forces of the last step; then the boundaries."""
        kT = self._kT(obs.kT)
        masses = self._kspring(obs) * (self.tau / (2.0 * np.pi)) ** 2
        keep = jnp.exp(-self.friction * obs.timestep)
        noise = jax.lax.dynamic_index_in_dim(state.noise, obs.step % _NOISE_BLOCK, keepdims=False)
        v = state.velocity + obs.timestep * state.force / masses
        x = state.position + 0.5 * obs.timestep * v
        v = keep * v + jnp.sqrt(kT * (1.0 - keep**2) / masses) * noise
        x = x + 0.5 * obs.timestep * v
        first = state.n_steps == 0  # there is no last step
        x, v = jnp.where(first, state.position, x), jnp.where(first, state.velocity, v)
        return self._bounded(x, v)

    def _bounded(self, x: Float[Array, " n"], v: Float[Array, " n"]) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
        """Wrapped on periodic axes, reflected at the ends of others."""
        lower, length = self.grid.lower, self.grid.upper - self.grid.lower
        periodic = np.asarray(self.grid.periodic)
        u = (x - lower) / length
        wrapped = u - jnp.floor(u)
        twice = u - 2.0 * jnp.floor(0.5 * u)  # in [0, 2), where the second half is the way back
        reflected = 1.0 - jnp.abs(1.0 - twice)
        inside = (u >= 0.0) & (u <= 1.0)
        position = jnp.where(inside, x, lower + length * jnp.where(periodic, wrapped, reflected))
        return position, jnp.where(periodic | (twice <= 1.0), v, -v)
