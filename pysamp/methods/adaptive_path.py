"""A path in CV space that finds its place while the system is biased along it."""

from collections.abc import Mapping
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ..colvars.base import AbstractCV, Combination, difference
from ..colvars.paths import Path, progress
from ..errors import InvalidInputError
from ..units import as_array, as_float, as_positive
from .base import AbstractMethod, Bias, Observation, as_stride

__all__ = ["AdaptivePath"]

_LOOKS = 50  # samples between two moves of the path, at most; more would hardly be independent


class AdaptivePathState(eqx.Module):
    """Where the path is, what has been seen since it last moved, and the states of the biases along it.

    Attributes:
        nodes: of the path now.
        lam: lambda for their present distance.
        weights: how many samples each node has had until the path last moved, older ones counting less.
        samples: where the system has been since then.
        progress: s and z at the last step.
        time: number of the last step, and its kT [energy].
        methods: states of the biases.
    """

    nodes: Float[Array, "m n"]
    lam: Float[Array, ""]
    weights: Float[Array, " m"]
    samples: Float[Array, "looks n"]
    progress: Float[Array, "2"]
    time: tuple[Int[Array, ""], Float[Array, ""]]
    methods: tuple[Any, ...]


class AdaptivePath(AbstractMethod[AdaptivePathState]):
    r"""Biases along a path that moves to where the transition goes: path metadynamics with an adaptive path.

    The bias acts on the progress $s$ (and distance $z$) of a :class:`~pysamp.colvars.Path` between two known end points. While
    the system goes to and fro, every inner node moves by the mean displacement of the samples near it,

    $$u_j \leftarrow u_j + \frac{\sum_t w_j(t)\,[\xi(t) - p(t)]}{\sum_t w_j(t)},$$

    where $p(t)$ is the point of the path nearest to $\xi(t)$ and $w_j$ is the share of node $j$ in it, between 0 and 1, times
    $2^{-a/\tau}$ for a sample of age $a$. The sum above is over the samples since the last move, the one below over all. The
    nodes are also drawn towards the middle of their neighbours a little, and put at equal distances along the path. It converges
    to the average path of the transition, which is that of minimum free energy where the valley is straight across the path; so
    one dimension is sampled however many CVs describe the transition. Add a :class:`~pysamp.methods.HarmonicWalls` on
    ``path["z"]`` to keep samples near the path (a "tube").

    Two nodes stay where they are, in the minima. Beyond its last node a path tells no places apart, so give it some more there,
    until where the system hardly comes, and say by ``fixed`` which two stay; those beyond continue the path straight on.

    Equation to code: $u$ ``nodes``, $\sum w$ ``weights``, $\xi$ ``samples``, half-life $\tau$ ``half_life``.

    The log has the CVs of the path, and $s$ and $z$ on the path as it was at the time as diagnostics. ``pysamp.analyze`` takes
    these: it gives the free energy along the path by the estimator of the first adaptive bias. For a result that does not
    remember how the path came about, bias ``method.found(state)`` in a further run.

    Args:
        path: where it starts: a straight line through the two minima and beyond them will do.
        methods: one bias or several that act on ``path["s"]``, ``path["z"]`` or ``path``.
        stride: steps between moves of the path; it looks at fifty configurations from one move to the next.
        fixed: numbers of the two nodes that stay, counted from 0 or, if negative, from the end.
        half_life: steps after which a sample counts half; None to average over all, which converges but remembers a bad start.
        smoothing: how strongly nodes are drawn to the middle of their neighbours, in units of how strongly samples draw them;
            0 for not at all. It cuts corners of a path of curvature radius R with nodes h apart by some smoothing h^2 / (2 R).

    Raises:
        InvalidInputError: if a bias acts on something else, needs momenta, has windows or ends its trajectories, or if the
            nodes that are to stay are no two nodes in their order with one between them.

    Example:
        >>> from pysamp.colvars import DihedralAngle, Path
        >>> from pysamp.methods import AdaptivePath, Metadynamics
        >>> phi, psi = DihedralAngle([4, 6, 8, 14]), DihedralAngle([6, 8, 14, 16])
        >>> path = Path([phi, psi], [[-1.4 + 0.12 * i, 1.2 - 0.1 * i] for i in range(-5, 26)])
        >>> hills = Metadynamics(path["s"], height=1.0, sigma=1.0, stride=500)
        >>> method = AdaptivePath(path, hills, stride=1000, fixed=(5, 25))
        >>> method.n_cvs
        2

    References:
        Diaz Leines & Ensing, Phys. Rev. Lett. 109, 020601 (2012), doi 10.1103/PhysRevLett.109.020601;
        Perez de Alba Ortiz et al., J. Chem. Phys. 149, 072320 (2018), doi 10.1063/1.5027392.
    """

    learns: ClassVar[bool] = True

    path: Path
    methods: tuple[AbstractMethod, ...]
    stride: Int[np.ndarray, ""]
    half_life: Float[np.ndarray, ""]
    smoothing: Float[np.ndarray, ""]
    fixed: tuple[int, int] = eqx.field(static=True)

    def __init__(
        self,
        path: Any,
        methods: Any,
        *,
        stride: Any,
        fixed: tuple[int, int] = (0, -1),
        half_life: Any = None,
        smoothing: Any = 0.5,
    ):
        if not isinstance(path, Path):
            raise InvalidInputError(f"AdaptivePath needs a pysamp.colvars.Path, got {path!r}.")
        self.path = path
        self.methods = tuple(methods) if isinstance(methods, list | tuple) else (methods,)
        self.stride = as_stride(stride, "stride")
        self.half_life = np.asarray(np.inf) if half_life is None else as_positive(half_life, "half_life")
        self.smoothing = as_float(smoothing)
        if not 0 <= self.smoothing < 1:
            raise InvalidInputError(f"smoothing must be from 0 to 1, got {smoothing!r}.")
        self.fixed = _two_nodes(fixed, len(path.nodes))
        if not self.methods or not all(isinstance(method, AbstractMethod) for method in self.methods):
            raise InvalidInputError(f"AdaptivePath needs one bias on the path, or a list of them, got {methods!r}.")
        for method in self.methods:
            if method.needs or method.stops or method.n_replicas > 1:
                raise InvalidInputError(
                    f"{type(method).__name__} cannot act along a path that moves: it needs momenta, has windows, or ends its "
                    "trajectories. Use Metadynamics, OPES or ExtendedABF on path['s']."
                )
            wrong = [cv for cv in method.cvs if not _is_of(cv, path)]
            if wrong:
                raise InvalidInputError(
                    f"A bias of AdaptivePath must act on path['s'], path['z'] or path, and that very path; got {wrong[0].name}."
                )

    @property
    def cvs(self) -> tuple[AbstractCV, ...]:
        """The CVs that span the space of the path."""
        return self.path.cvs

    @property
    def has_energy(self) -> bool:
        """Whether all biases have one."""
        return all(method.has_energy for method in self.methods)

    @property
    def kT(self) -> Float[np.ndarray, ""] | None:
        """What a bias was given."""
        return next((method.kT for method in self.methods if method.kT is not None), None)

    def init(self, obs: Observation) -> AdaptivePathState:
        """The path as it was given."""
        nodes = jnp.asarray(self.path.nodes, dtype=obs.xi.dtype)
        lam = jnp.asarray(self.path.lam)
        along = self._progress(obs.xi, nodes, lam)
        states = tuple(m.init(self._seen(i, obs, self._values(m, along))) for i, m in enumerate(self.methods))
        samples = jnp.zeros((_LOOKS, len(obs.xi)), obs.xi.dtype)
        return AdaptivePathState(nodes, lam, jnp.zeros_like(nodes[:, 0]), samples, along, (obs.step, obs.kT), states)

    def update(self, state: AdaptivePathState, obs: Observation) -> AdaptivePathState:
        """The biases see where the system is on the path; of each few steps the last place is kept, for the path."""
        along = self._progress(obs.xi, state.nodes, state.lam)
        seen = [self._seen(i, obs, self._values(m, along)) for i, m in enumerate(self.methods)]
        states = tuple(m.update(s, o) for m, s, o in zip(self.methods, state.methods, seen, strict=True))
        place = obs.step % jnp.asarray(self.stride) // self._every
        samples = jax.lax.dynamic_update_slice_in_dim(state.samples, obs.xi[None], place, axis=0)
        return eqx.tree_at(
            lambda s: (s.samples, s.progress, s.time, s.methods), state, (samples, along, (obs.step, obs.kT), states)
        )

    def is_due(self, n_steps: Int[Array, ""]) -> Bool[Array, ""]:
        """When the path is to move, or a bias learns."""
        return self._is_move(n_steps) | jnp.any(jnp.stack([method.is_due(n_steps) for method in self.methods]))

    def learn(self, state: AdaptivePathState, n_steps: Int[Array, ""], kT: Float[Array, ""]) -> AdaptivePathState:
        """Move the path, and let the biases learn."""
        state = jax.lax.cond(self._is_move(n_steps), lambda: self._moved(state), lambda: state)
        methods = tuple(m.learned(s, n_steps, kT) for m, s in zip(self.methods, state.methods, strict=True))
        return eqx.tree_at(lambda s: s.methods, state, methods)

    @property
    def _every(self) -> Int[Array, ""]:
        """Steps from one look at the system to the next."""
        return (jnp.asarray(self.stride) + _LOOKS - 1) // _LOOKS

    def _is_move(self, n_steps: Int[Array, ""]) -> Bool[Array, ""]:
        return n_steps % jnp.asarray(self.stride) == 0

    def bias(self, state: AdaptivePathState, obs: Observation) -> Bias:
        """Sum of the biases, their forces taken back to the CVs."""
        along, to_cvs = jax.vjp(lambda xi: self._progress(xi, state.nodes, state.lam), obs.xi)
        energy, force = jnp.zeros(()), jnp.zeros_like(along)
        for i, (method, inner) in enumerate(zip(self.methods, state.methods, strict=True)):
            values, to_path = jax.vjp(lambda along, m=method: self._values(m, along), along)
            bias = method.bias(inner, self._seen(i, obs, values))
            energy, force = energy + bias.energy, force + to_path(bias.force)[0]
        return Bias(energy, to_cvs(force)[0])

    def reserve(self, state: AdaptivePathState, n_steps: int) -> AdaptivePathState:
        """Room for the biases."""
        states = tuple(m.reserve(s, n_steps) for m, s in zip(self.methods, state.methods, strict=True))
        return eqx.tree_at(lambda s: s.methods, state, states)

    def diagnostics(self, state: AdaptivePathState) -> Mapping[str, Float[Array, ""]]:
        """Progress along the path as it was, and distance from it; and those of the biases."""
        result = {"s": state.progress[0], "z": state.progress[1]}
        zeros = jnp.zeros_like(state.progress)
        obs = Observation(state.progress, *state.time, jax.random.key(0), zeros, zeros, jnp.ones(()))
        for i, (method, inner) in enumerate(zip(self.methods, state.methods, strict=True)):
            seen = self._seen(i, obs, self._values(method, state.progress))
            result[f"{i}.energy"] = method.bias(inner, seen).energy
            result |= {f"{i}.{name}": value for name, value in method.diagnostics(inner).items()}
        return result

    def found(self, state: AdaptivePathState) -> Path:
        """The path as it is, to be biased or looked at: ``method.found(run.states[0].methods[0])``."""
        nodes = np.asarray(state.nodes)
        return Path(self.path.cvs, nodes, scales=self.path.scales, values=self.path.values)

    def _progress(self, xi: Float[Array, " n"], nodes: Float[Array, "m n"], lam: Float[Array, ""]) -> Float[Array, "2"]:
        """The pair (s, z)."""
        return progress(self.path.squares(xi[None], nodes), self.path.values, lam)

    @staticmethod
    def _values(method: AbstractMethod, along: Float[Array, "2"]) -> Float[Array, " k"]:
        """The CVs of one of the biases."""
        return jnp.concatenate([jnp.reshape(on_path(cv, along), -1) for cv in method.cvs])

    @staticmethod
    def _seen(i: int, obs: Observation, values: Float[Array, " k"]) -> Observation:
        """What a bias sees."""
        key = jax.random.fold_in(obs.key, i)
        zeros = jnp.zeros_like(values)
        return Observation(values, obs.step, obs.kT, key, zeros, zeros, obs.timestep)

    def _projection(
        self, xi: Float[Array, " n"], nodes: Float[Array, "m n"]
    ) -> tuple[Float[Array, " m"], Float[Array, " n"]]:
        """Share of each node in the nearest point of the path, and the displacement of ``xi`` from that point."""
        scales = jnp.asarray(self.path.scales, dtype=xi.dtype)[None]
        sides = difference(nodes[1:], nodes[:-1], self.cvs) / scales
        arms = difference(xi[None], nodes[:-1], self.cvs) / scales
        squares = jnp.sum(sides * sides, axis=1)
        along = jnp.clip(jnp.sum(sides * arms, axis=1) / jnp.where(squares > 0, squares, 1.0), 0.0, 1.0)
        displacements = arms - along[:, None] * sides
        nearest = jnp.argmin(jnp.sum(displacements**2, axis=1))
        chosen = (jnp.arange(len(sides)) == nearest).astype(xi.dtype)
        zero = jnp.zeros(1, dtype=xi.dtype)
        share = jnp.concatenate([chosen * (1 - along), zero]) + jnp.concatenate([zero, chosen * along])
        return share, jnp.sum(chosen[:, None] * displacements, axis=0) * scales[0]

    def _moved(self, state: AdaptivePathState) -> AdaptivePathState:
        """Nodes moved by the mean displacement near them, then all at equal distances; lambda for those."""
        nodes, (first, last) = state.nodes, self.fixed
        stride, half_life = jnp.asarray(self.stride), jnp.asarray(self.half_life)
        shares, displacements = jax.vmap(lambda xi: self._projection(xi, nodes))(state.samples)
        starts = jnp.arange(_LOOKS) * self._every  # steps of this turn at which the wait for each sample began
        ages = stride - jnp.minimum(starts + self._every, stride)
        shares = shares * jnp.where(starts < stride, 0.5 ** (ages / half_life), 0.0)[:, None]
        weights = state.weights * 0.5 ** (stride / half_life) + jnp.sum(shares, axis=0)

        inner = (jnp.arange(len(nodes)) > first) & (jnp.arange(len(nodes)) < last)
        parts = jnp.where(inner & (weights > 0), 1.0 / jnp.where(weights > 0, weights, 1.0), 0.0)[:, None]
        nodes = nodes + parts * (shares.T @ displacements)
        between = 0.5 * (jnp.roll(nodes, 1, axis=0) + jnp.roll(nodes, -1, axis=0))
        nodes = nodes + jnp.asarray(self.smoothing) * parts * jnp.sum(shares, axis=0)[:, None] * (between - nodes)
        nodes = self._continued(self._spaced(nodes[first : last + 1]))
        given = jnp.asarray(self.path.nodes, dtype=nodes.dtype)
        before, after = (jnp.sum(self.path.squares_of_neighbours(path)) for path in (given, nodes))
        lam = jnp.asarray(self.path.lam) * before / after
        return eqx.tree_at(lambda s: (s.nodes, s.lam, s.weights), state, (nodes, lam, weights))

    def _spaced(self, nodes: Float[Array, "m n"]) -> Float[Array, "m n"]:
        """As many nodes at equal distances on the lines between ``nodes``."""
        sides = difference(nodes[1:], nodes[:-1], self.cvs)
        lengths = jnp.sqrt(self.path.squares_of_neighbours(nodes))
        ends = jnp.cumsum(lengths)
        wanted = ends[-1] * jnp.arange(len(nodes)) / (len(nodes) - 1)
        passed = jnp.clip(
            (wanted[:, None] - (ends - lengths)[None]) / jnp.where(lengths > 0, lengths, 1.0)[None], 0.0, 1.0
        )
        return nodes[:1] + jnp.sum(passed[:, :, None] * sides[None], axis=1)

    def _continued(self, nodes: Float[Array, "k n"]) -> Float[Array, "m n"]:
        """The path through ``nodes``, which go from the first to the last one that stays, straight on beyond these."""
        first, last = self.fixed
        before = jnp.arange(first, 0, -1, dtype=nodes.dtype)[:, None]
        after = jnp.arange(1, len(self.path.nodes) - last, dtype=nodes.dtype)[:, None]
        ahead, behind = difference(nodes[-1:], nodes[-2:-1], self.cvs), difference(nodes[:1], nodes[1:2], self.cvs)
        return jnp.concatenate([nodes[:1] + before * behind, nodes, nodes[-1:] + after * ahead])


def _two_nodes(fixed: Any, n_nodes: int) -> tuple[int, int]:
    """Numbers of the nodes that stay, counted from 0."""
    numbers = as_array(fixed)
    if numbers.shape == (2,) and (numbers % 1 == 0).all() and (abs(numbers + 0.5) < n_nodes).all():
        first, last = (int(number) % n_nodes for number in numbers)
        if last - first >= 2:
            return first, last
    raise InvalidInputError(
        f"fixed must be the numbers of two of the path's {n_nodes} nodes with one or more between them, such as (0, -1) for "
        f"its ends; got {fixed!r}."
    )


def _is_of(cv: AbstractCV, path: Path) -> bool:
    return cv is path or (isinstance(cv, Combination) and len(cv.cvs) == 1 and _is_of(cv.cvs[0], path))


def on_path(cv: AbstractCV, along: Float[Array, "2"]) -> Float[Array, "..."]:
    """Value of a path, of one of its components, or of a function of those, from s and z."""
    if isinstance(cv, Combination):
        return cv.function(on_path(cv.cvs[0], along))
    return along
