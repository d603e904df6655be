r"""Content of secondary structure: how many pieces of a protein are like an ideal helix or an ideal pair of strands.

Each piece of six residues (backbone atoms N, CA, CB, C, O) is compared with the ideal one, and the deviations $d_k$ are
counted with a switching function,

$$s = \sum_k \frac{1 - (d_k/r_0)^n}{1 - (d_k/r_0)^m}.$$

The deviation is the dRMSD over the pairs of atoms that are farther apart than 0.17 nm in the ideal piece, or the RMSD after the
best superposition.
"""

import abc
import functools
import itertools
import math
import operator
from collections.abc import Sequence
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from ..errors import InvalidInputError
from ..snapshot import Cell
from ..units import as_positive
from ._alignment import centred, least_deviation
from ._ideal import ALPHA_HELIX, ANTIPARALLEL_STRANDS, PARALLEL_STRANDS
from ._vectors import made_whole, norm, sqrt, sum_of
from .base import AbstractCV, Group, as_points, type_of_points

__all__ = ["AlphaRMSD", "AntiparallelBetaRMSD", "ParallelBetaRMSD"]

type_of_chains = tuple[tuple[type_of_points, ...], ...]

_BONDED = 0.17  # [nm] pairs of atoms that are nearer in the ideal piece do not enter the dRMSD


def _as_chains(value: Any) -> type_of_chains:
    """Chains of residues of five points each; one chain may be given without a list around it."""
    try:
        one_chain = all(isinstance(point, Group) or not np.iterable(point) for residue in value for point in residue)
        chains = tuple(tuple(as_points(residue) for residue in chain) for chain in ([value] if one_chain else value))
    except TypeError:
        chains = ()
    if not chains or any(len(residue) != 5 for chain in chains for residue in chain):
        raise InvalidInputError(
            "Residues are lists of their atoms N, CA, CB, C, O in the order of the sequence, [[0, 4, 8, 6, 7], [12, 14, ...], "
            f"...], or a list of such lists for several chains; got {value!r}. pysamp.colvars.backbone(topology) makes them."
        )
    return chains


class _Ideal:
    """Mean square deviations of pieces from one ideal structure, of all pieces together.

    A piece consists of one run of six successive residues, or of two runs of three (the strands). The dRMSD is summed from
    pairs of residues that many pieces share.
    """

    def __init__(self, ideal: Float[np.ndarray, "30 3"], nm: float):
        distances = np.linalg.norm(ideal[:, None] - ideal[None], axis=-1)
        counted = np.triu(distances > _BONDED, k=1)

        def blocks(matrix: np.ndarray) -> np.ndarray:
            return np.asarray(matrix, dtype=np.float64).reshape(6, 5, 6, 5).swapaxes(1, 2)

        self.distances, self.counted = blocks(nm * distances), blocks(counted / counted.sum())
        self.positions = nm * ideal

    def block(self, a: int, b: int, distances: Float[Array, "*w 5 5"]) -> Float[Array, "*w"]:
        """The part of the mean square deviation that residues ``a`` and ``b`` of the piece have between them."""
        shape = (1,) * (distances.ndim - 2) + (5, 5)
        ideal, weights = (
            jnp.asarray(m[a, b], dtype=distances.dtype).reshape(shape) for m in (self.distances, self.counted)
        )
        return jnp.sum(weights * (distances - ideal) ** 2, axis=(-2, -1))

    def runs(self, near: Sequence[Float[Array, "_ 5 5"]], first: int, length: int) -> Float[Array, " w"]:
        """Of all runs of ``length`` residues, which are residues ``first``, ``first + 1``, ... of the piece.

        Args:
            near: for s = 0, 1, ..., distances between the atoms of each residue and of the one that follows after s.
            first: place of the run in the piece.
            length: its number of residues.
        """
        n = len(near[0]) - length + 1
        pairs = itertools.combinations_with_replacement(range(length), 2)
        return sum_of(self.block(first + a, first + b, near[b - a][a : a + n]) for a, b in pairs)

    def strands(self, near: Sequence[Float[Array, "_ 5 5"]], all_pairs: Float[Array, "n n 5 5"]) -> Float[Array, "w w"]:
        """Of all pairs of runs of three residues, in the order first strand, second strand."""
        n = len(all_pairs) - 2
        between = sum_of(
            self.block(a, 3 + b, all_pairs[a : a + n, b : b + n]) for a, b in itertools.product(range(3), repeat=2)
        )
        return self.runs(near, 0, 3)[:, None] + self.runs(near, 3, 3)[None] + between

    def superposition(self, pieces: Float[Array, "w 30 3"], cell: Cell) -> Float[Array, " w"]:
        """After the best superposition of every piece."""
        weights = jnp.full(30, 1 / 30, dtype=pieces.dtype)
        ideal = centred(jnp.asarray(self.positions, dtype=pieces.dtype), weights)
        return jax.vmap(lambda x: least_deviation(centred(made_whole(x, cell), weights), ideal, weights))(pieces)


def _distances(x: Float[Array, "*#n 5 3"], y: Float[Array, "*#n 5 3"], cell: Cell) -> Float[Array, "*n 5 5"]:
    """Between all atoms of residues ``x`` and all atoms of residues ``y``."""
    return norm(cell.displacement(x[..., :, None, :], y[..., None, :, :]))


def _runs(x: Float[Array, "n 5 3"], length: int) -> Float[Array, "w k 3"]:
    """Atoms of all runs of successive residues."""
    n = len(x) - length + 1
    return jnp.concatenate([x[a : a + n] for a in range(length)], axis=1)


def _in_one_chain(chains: type_of_chains, length: int) -> tuple[Bool[np.ndarray, " w"], np.ndarray]:
    """For every run of residues, whether it lies in one chain; and the number of its chain."""
    chain = np.repeat(np.arange(len(chains)), [len(residues) for residues in chains])
    n = len(chain) - length + 1
    if n < 1:
        return np.zeros(0, dtype=bool), np.zeros(0, dtype=int)
    return chain[:n] == chain[length - 1 :], chain[:n]


def _rational(y: Float[Array, "*b"], n: int, m: int) -> Float[Array, "*b"]:
    """(1 - y^n)/(1 - y^m) as a quotient of two sums of powers, which is smooth at y = 1."""
    step = math.gcd(n, m)
    powers = [y ** (step * k) for k in range(m // step)]
    return sum_of(powers[: n // step]) / sum_of(powers)


class AbstractSecondaryStructure(AbstractCV):
    """Base class of the three kinds of content."""

    residues: eqx.AbstractVar[type_of_chains]
    r0: eqx.AbstractVar[Float[np.ndarray, ""]]
    n: eqx.AbstractVar[int]
    m: eqx.AbstractVar[int]
    metric: eqx.AbstractVar[str]
    nm: eqx.AbstractVar[float]
    structures: eqx.AbstractClassVar[tuple[Float[np.ndarray, "30 3"], ...]]
    invariances: ClassVar[frozenset[str]] = frozenset({"translation", "rotation", "image"})

    def __check_init__(self):
        if not 0 < self.n < self.m:
            raise InvalidInputError(f"The exponents must be whole numbers, 0 < n < m; got n={self.n} and m={self.m}.")
        if self.metric not in ("drmsd", "rmsd"):
            raise InvalidInputError(f'metric must be "drmsd" or "rmsd", got {self.metric!r}.')
        if not self.pieces.any():
            raise InvalidInputError(f"{type(self).__name__} finds nothing to count: the chains are too short.")

    @property
    def atoms(self) -> type_of_points:
        """Five points of every residue, one residue after the other."""
        return tuple(point for chain in self.residues for residue in chain for point in residue)

    @property
    @abc.abstractmethod
    def pieces(self) -> Bool[np.ndarray, "*w"]:
        """Which runs of residues, or pairs of runs, count."""

    @abc.abstractmethod
    def mean_squares(
        self, x: Float[Array, "n 5 3"], cell: Cell, ideals: Sequence["_Ideal"]
    ) -> list[Float[Array, "*w"]]:
        """Mean square deviations from every ideal structure: of all pieces, or with superposition of those that count."""

    def __call__(self, x: Float[Array, "k 3"], cell: Cell) -> Float[Array, ""]:
        """Sum of the switching function over the pieces; the more similar ideal structure counts, where there are two."""
        ideals = [_Ideal(structure, self.nm) for structure in self.structures]
        squares = functools.reduce(jnp.minimum, self.mean_squares(x.reshape(-1, 5, 3), cell, ideals))
        counts = _rational(sqrt(squares) / jnp.asarray(self.r0, dtype=x.dtype), self.n, self.m)
        return jnp.sum(counts if self.metric == "rmsd" else jnp.where(jnp.asarray(self.pieces), counts, 0.0))


class AlphaRMSD(AbstractSecondaryStructure):
    r"""Number of six-residue pieces of a protein that are like an alpha helix [1].

    It goes from 0 to the number of runs of six successive residues, and is half of it long before the helix is perfect: with
    $r_0$ = 0.08 nm a piece at a dRMSD of 0.08 nm counts 2/3. Use it to fold and unfold helices without saying where they begin.

    Args:
        residues: their atoms N, CA, CB, C, O (for glycine its second HA instead of CB) in the order of the sequence; a list of
            such lists for several chains. :func:`~pysamp.colvars.backbone` makes it of a topology.
        r0: deviation that counts $n/m$ [length].
        n: exponent of the switching function's numerator.
        m: exponent of its denominator.
        metric: ``"drmsd"``, or ``"rmsd"`` after superposition (slower).
        nm: one nanometre in the engine's unit of length; 10 where that is the Angstrom.

    Raises:
        InvalidInputError: unless residues have five atoms each, and there are six in a row somewhere.

    Example:
        >>> from pysamp.colvars import AlphaRMSD
        >>> residues = [[10 * i, 10 * i + 2, 10 * i + 4, 10 * i + 8, 10 * i + 9] for i in range(8)]
        >>> len(AlphaRMSD(residues).atoms)
        40

    References:
        Pietrucci & Laio, J. Chem. Theory Comput. 5, 2197 (2009), doi 10.1021/ct900202f.
    """

    residues: type_of_chains = eqx.field(static=True)
    r0: Float[np.ndarray, ""]
    n: int = eqx.field(static=True)
    m: int = eqx.field(static=True)
    metric: str = eqx.field(static=True)
    nm: float = eqx.field(static=True)
    structures: ClassVar[tuple[Float[np.ndarray, "30 3"], ...]] = (ALPHA_HELIX,)

    def __init__(self, residues: Any, *, r0: Any = 0.08, n: int = 8, m: int = 12, metric: str = "drmsd", nm: Any = 1.0):
        self.residues = _as_chains(residues)
        self.r0, self.nm = as_positive(r0, "r0"), float(as_positive(nm, "nm"))
        self.n, self.m, self.metric = operator.index(n), operator.index(m), metric

    @property
    def pieces(self) -> Bool[np.ndarray, " w"]:
        """Runs of six residues within one chain."""
        return _in_one_chain(self.residues, 6)[0]

    def mean_squares(self, x: Float[Array, "n 5 3"], cell: Cell, ideals: Sequence[_Ideal]) -> list[Float[Array, " w"]]:
        """Of runs of six residues."""
        if self.metric == "rmsd":
            return [ideal.superposition(_runs(x, 6)[self.pieces], cell) for ideal in ideals]
        near = [_distances(x[: len(x) - s], x[s:], cell) for s in range(6)]
        return [ideal.runs(near, 0, 6) for ideal in ideals]


class AbstractStrands(AbstractSecondaryStructure):
    """Base class of contents that count pairs of strands, which lie at least ``separation`` residues apart along a chain."""

    separation: eqx.AbstractClassVar[int]

    @property
    def pieces(self) -> Bool[np.ndarray, "w w"]:
        """Pairs of runs of three residues: far enough along one chain, or in different chains (the later chain first)."""
        valid, chain = _in_one_chain(self.residues, 3)
        start = np.arange(len(chain))
        within = (chain[:, None] == chain[None]) & (start[None] - start[:, None] >= self.separation)
        return valid[:, None] & valid[None] & (within | (chain[:, None] > chain[None]))

    def mean_squares(self, x: Float[Array, "n 5 3"], cell: Cell, ideals: Sequence[_Ideal]) -> list[Float[Array, "..."]]:
        """Of pairs of runs of three residues."""
        if self.metric == "rmsd":
            first, second = np.nonzero(self.pieces)
            runs = _runs(x, 3)
            pieces = jnp.concatenate([runs[first], runs[second]], axis=1)
            return [ideal.superposition(pieces, cell) for ideal in ideals]
        near = [_distances(x[: len(x) - s], x[s:], cell) for s in range(3)]
        all_pairs = _distances(x[:, None], x[None], cell)
        return [ideal.strands(near, all_pairs) for ideal in ideals]


class AntiparallelBetaRMSD(AbstractStrands):
    r"""Number of pairs of three-residue strands that are like an antiparallel beta sheet [1].

    All pairs of runs of three successive residues count that are in different chains, or leave two residues or more for a turn
    between them. The cost grows with the square of the number of residues.

    Args:
        residues: their atoms N, CA, CB, C, O (for glycine its second HA instead of CB) in the order of the sequence; a list of
            such lists for several chains. :func:`~pysamp.colvars.backbone` makes it of a topology.
        r0: deviation that counts $n/m$ [length].
        n: exponent of the switching function's numerator.
        m: exponent of its denominator.
        metric: ``"drmsd"``, or ``"rmsd"`` after superposition (slower).
        nm: one nanometre in the engine's unit of length; 10 where that is the Angstrom.

    Raises:
        InvalidInputError: unless residues have five atoms each, and there is a pair to count.

    Example:
        >>> from pysamp.colvars import AntiparallelBetaRMSD
        >>> residues = [[10 * i, 10 * i + 2, 10 * i + 4, 10 * i + 8, 10 * i + 9] for i in range(12)]
        >>> int(AntiparallelBetaRMSD(residues).pieces.sum())
        15

    References:
        Pietrucci & Laio, J. Chem. Theory Comput. 5, 2197 (2009), doi 10.1021/ct900202f.
    """

    residues: type_of_chains = eqx.field(static=True)
    r0: Float[np.ndarray, ""]
    n: int = eqx.field(static=True)
    m: int = eqx.field(static=True)
    metric: str = eqx.field(static=True)
    nm: float = eqx.field(static=True)
    structures: ClassVar[tuple[Float[np.ndarray, "30 3"], ...]] = (ANTIPARALLEL_STRANDS,)
    separation: ClassVar[int] = 5

    def __init__(self, residues: Any, *, r0: Any = 0.08, n: int = 8, m: int = 12, metric: str = "drmsd", nm: Any = 1.0):
        self.residues = _as_chains(residues)
        self.r0, self.nm = as_positive(r0, "r0"), float(as_positive(nm, "nm"))
        self.n, self.m, self.metric = operator.index(n), operator.index(m), metric


class ParallelBetaRMSD(AbstractStrands):
    r"""Number of pairs of three-residue strands that are like a parallel beta sheet [1].

    All pairs of runs of three successive residues count that are in different chains, or leave three residues or more between
    them. There are two ideal pairs, and the more similar one counts. The cost grows with the square of the number of residues.

    Args:
        residues: their atoms N, CA, CB, C, O (for glycine its second HA instead of CB) in the order of the sequence; a list of
            such lists for several chains. :func:`~pysamp.colvars.backbone` makes it of a topology.
        r0: deviation that counts $n/m$ [length].
        n: exponent of the switching function's numerator.
        m: exponent of its denominator.
        metric: ``"drmsd"``, or ``"rmsd"`` after superposition (slower).
        nm: one nanometre in the engine's unit of length; 10 where that is the Angstrom.

    Raises:
        InvalidInputError: unless residues have five atoms each, and there is a pair to count.

    Example:
        >>> from pysamp.colvars import ParallelBetaRMSD
        >>> residues = [[10 * i, 10 * i + 2, 10 * i + 4, 10 * i + 8, 10 * i + 9] for i in range(12)]
        >>> int(ParallelBetaRMSD(residues).pieces.sum())
        10

    References:
        Pietrucci & Laio, J. Chem. Theory Comput. 5, 2197 (2009), doi 10.1021/ct900202f.
    """

    residues: type_of_chains = eqx.field(static=True)
    r0: Float[np.ndarray, ""]
    n: int = eqx.field(static=True)
    m: int = eqx.field(static=True)
    metric: str = eqx.field(static=True)
    nm: float = eqx.field(static=True)
    structures: ClassVar[tuple[Float[np.ndarray, "30 3"], ...]] = PARALLEL_STRANDS
    separation: ClassVar[int] = 6

    def __init__(self, residues: Any, *, r0: Any = 0.08, n: int = 8, m: int = 12, metric: str = "drmsd", nm: Any = 1.0):
        self.residues = _as_chains(residues)
        self.r0, self.nm = as_positive(r0, "r0"), float(as_positive(nm, "nm"))
        self.n, self.m, self.metric = operator.index(n), operator.index(m), metric
