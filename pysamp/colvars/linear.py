"""Linear combinations of other CVs, fitted to samples: principal components and slow components."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..errors import InvalidInputError
from ..snapshot import Cell
from ..units import as_array
from ._neighbors import NeighborList
from .base import AbstractComposite, AbstractCV, as_parts

__all__ = ["LinearProjection", "pca", "tica"]

_SMALLEST = 1e-10  # variance, relative to the largest, below which a direction holds rounding errors only


class LinearProjection(AbstractComposite):
    r"""Linear combinations of features of other CVs [1], one component for each.

    $$p_\alpha = \sum_i v_{\alpha i} (f_i - \bar f_i)$$

    The features $f$ are the values of the CVs, component by component, and for a periodic CV the cosine and the sine of its
    phase, which have no jump. :func:`~pysamp.colvars.pca` and :func:`~pysamp.colvars.tica` fit it to samples.

    Args:
        cvs: the CVs that make up the features.
        vectors: coefficients, shape (m, n) for m components of n features.
        mean: of the features, n numbers.
        eigenvalues: what the fit says of each component: its variance (PCA) or autocorrelation (TICA); for the record.

    Raises:
        InvalidInputError: unless there are as many coefficients as features.

    Example:
        >>> import jax.numpy as jnp
        >>> from pysamp import Cell
        >>> from pysamp.colvars import Distance, LinearProjection
        >>> difference = LinearProjection([Distance([0, 1]), Distance([1, 2])], [[1.0, -1.0]])
        >>> x = jnp.array([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [4.0, 0.0, 0.0]])  # of 0 and 1, of 1 and 2
        >>> print(difference(x, Cell()))
        [-2.]
    """

    cvs: tuple[AbstractCV, ...]
    vectors: Float[np.ndarray, "m n"]
    mean: Float[np.ndarray, " n"]
    eigenvalues: Float[np.ndarray, " m"] | None

    def __init__(self, cvs: Any, vectors: Any, *, mean: Any = 0.0, eigenvalues: Any = None):
        self.cvs = as_parts(cvs, "LinearProjection")
        self.vectors = as_array(vectors)
        n = n_features(self.cvs)
        if self.vectors.ndim != 2 or self.vectors.shape[1] != n or not np.isfinite(self.vectors).all():
            raise InvalidInputError(
                f"vectors must be finite and of shape (m, {n}), one column for each feature of "
                f"{', '.join(label for cv in self.cvs for label in cv.labels)} (periodic ones have two); got "
                f"{self.vectors.shape}."
            )
        mean = as_array(mean)
        if mean.shape not in {(), (n,)}:
            raise InvalidInputError(f"mean must be one number or {n}, got an array of shape {mean.shape}.")
        self.mean = np.array(np.broadcast_to(mean, (n,)))
        self.eigenvalues = None if eigenvalues is None else as_array(eigenvalues)

    def __call__(self, x: Float[Array, "k 3"], cell: Cell, lists: Sequence[NeighborList] = ()) -> Float[Array, " m"]:
        """The combinations."""
        features = features_of(self.cvs, self.parts(x, cell, lists))
        vectors, mean = (jnp.asarray(p, dtype=features.dtype) for p in (self.vectors, self.mean))
        return jnp.sum(vectors * (features - mean)[None], axis=1)

    @property
    def component_names(self) -> tuple[str, ...]:
        """Numbers of the combinations, counted from 0."""
        return tuple(str(i) for i in range(len(self.vectors)))

    @property
    def name(self) -> str:
        """Such as ``LinearProjection(Distance(0, 1), Distance(1, 2))``."""
        return f"LinearProjection({', '.join(cv.name for cv in self.cvs)})"


def n_features(cvs: Sequence[AbstractCV]) -> int:
    """Number of features of the CVs."""
    return sum(cv.n_components * (1 if cv.period is None else 2) for cv in cvs)


def features_of(cvs: Sequence[AbstractCV], values: Sequence[Float[Array, "..."]]) -> Float[Array, " n"]:
    """Features from values of the CVs."""
    parts = [_without_period(jnp.reshape(value, -1), cv, jnp) for value, cv in zip(values, cvs, strict=True)]
    return jnp.concatenate(parts)


def _without_period(values: Any, cv: AbstractCV, xp: Any) -> Any:
    """Values of one CV along the last axis, or cosines and sines; ``xp`` is NumPy or JAX's NumPy."""
    if cv.period is None:
        return values
    phase = values * (2 * np.pi / cv.period)
    return xp.concatenate([xp.cos(phase), xp.sin(phase)], axis=-1)


def _trajectories(cvs: Sequence[AbstractCV], samples: Any) -> list[Float[np.ndarray, "_ n"]]:
    """Features along each trajectory."""
    pieces = [as_array(piece) for piece in samples] if isinstance(samples, list | tuple) else as_array(samples)
    if isinstance(pieces, np.ndarray):
        pieces = [pieces] if pieces.ndim == 2 else list(pieces)
    n = sum(cv.n_components for cv in cvs)
    for piece in pieces:
        if piece.ndim != 2 or piece.shape[1] != n or not np.isfinite(piece).all():
            raise InvalidInputError(
                f"samples must be finite values of the {n} components of the CVs, of shape (sample, {n}) or (replica, sample, "
                f"{n}), such as run.log.xi, or a list of such trajectories; got a piece of shape {piece.shape}."
            )
    ends = np.cumsum([cv.n_components for cv in cvs])
    return [
        np.concatenate(
            [_without_period(piece[:, b - cv.n_components : b], cv, np) for cv, b in zip(cvs, ends, strict=True)], 1
        )
        for piece in pieces
    ]


def _number_of_components(n_components: int, possible: int) -> int:
    if not 0 < n_components <= possible:
        raise InvalidInputError(
            f"There are {possible} independent components in the samples, {n_components} were asked for."
        )
    return n_components


def _signed(vectors: Float[np.ndarray, "m n"]) -> Float[np.ndarray, "m n"]:
    """With the largest coefficient of each positive, so that a fit can be repeated."""
    largest = np.take_along_axis(vectors, np.abs(vectors).argmax(axis=1, keepdims=True), axis=1)
    return vectors * np.sign(largest)


def pca(cvs: Any, samples: Any, *, n_components: int = 2, weights: Any = None) -> LinearProjection:
    r"""Principal components of CVs: the directions along which samples of them vary most.

    The components are eigenvectors of the covariance matrix of the features, of unit length, the largest variance first. Where
    CVs of different units or ranges are mixed, scale them first (``cv / spread``). For the motion of atoms give a
    trajectory's principal components to :class:`~pysamp.colvars.EigenvectorProjection`.

    Args:
        cvs: the CVs that were sampled.
        samples: their values, shape (sample, n) or (replica, sample, n), such as ``run.log.xi`` of a run with them, or a list of
            trajectories. :func:`~pysamp.analysis.evaluate` computes them along a trajectory of an engine.
        n_components: number of components to keep.
        weights: of the samples, if they come from a biased run; one number for each, all trajectories one after the other.

    Raises:
        InvalidInputError: if the samples do not fit the CVs, or have fewer independent components.

    Example:
        >>> import numpy as np
        >>> from pysamp.colvars import Distance, pca
        >>> t = np.linspace(0.0, 1.0, 50)
        >>> projection = pca([Distance([0, 1]), Distance([1, 2])], np.stack([t, 2.0 - 2.0 * t], axis=1), n_components=1)
        >>> print(projection.vectors.round(3))
        [[-0.447  0.894]]

    References:
        Altis, Nguyen, Hegger & Stock, J. Chem. Phys. 126, 244111 (2007), doi 10.1063/1.2746330 (cosines and sines of torsions).
    """
    cvs = as_parts(cvs, "pca")
    features = np.concatenate(_trajectories(cvs, samples))
    weights = np.ones(len(features)) if weights is None else as_array(weights).reshape(-1)
    if len(weights) != len(features) or not (weights >= 0).all() or not weights.any():
        raise InvalidInputError(
            f"weights must be {len(features)} numbers >= 0, one for each sample; got {len(weights)}."
        )
    weights = weights / weights.sum()
    mean = weights @ features
    values, vectors = np.linalg.eigh((weights[:, None] * (features - mean)).T @ (features - mean))
    m = _number_of_components(n_components, int((values > _SMALLEST * values[-1]).sum()))
    return LinearProjection(cvs, _signed(vectors.T[::-1][:m]), mean=mean, eigenvalues=values[::-1][:m])


def tica(cvs: Any, samples: Any, *, lag: int, n_components: int = 2) -> LinearProjection:
    r"""Time-lagged independent components of CVs: the combinations of them that change most slowly.

    They solve $C_\tau v = \lambda C_0 v$ with the covariance matrices of the features at once and a lag $\tau$ apart, made
    symmetric as for a reversible process. Their variance is one and $\lambda$ is their autocorrelation, so that the relaxation
    time is $-\tau / \ln\lambda$. The samples must come from an unbiased run, in equal steps of time.

    Args:
        cvs: the CVs that were sampled.
        samples: their values, shape (sample, n) or (replica, sample, n), such as ``run.log.xi`` of a run with them, or a list of
            trajectories. :func:`~pysamp.analysis.evaluate` computes them along a trajectory of an engine.
        lag: $\tau$ in samples.
        n_components: number of components to keep.

    Raises:
        InvalidInputError: if the samples do not fit the CVs, are not longer than the lag, or have fewer independent components.

    Example:
        >>> import numpy as np
        >>> from pysamp.colvars import Distance, tica
        >>> rng = np.random.default_rng(0)
        >>> slow = np.repeat(rng.choice([0.0, 1.0], size=40), 50)
        >>> samples = np.stack([slow, rng.normal(size=2000)], axis=1)
        >>> projection = tica([Distance([0, 1]), Distance([1, 2])], samples, lag=5, n_components=1)
        >>> print(np.abs(projection.vectors).round(1), projection.eigenvalues.round(1))
        [[2. 0.]] [0.9]

    References:
        Perez-Hernandez et al., J. Chem. Phys. 139, 015102 (2013), doi 10.1063/1.4811489;
        Schwantes & Pande, J. Chem. Theory Comput. 9, 2000 (2013), doi 10.1021/ct300878a.
    """
    cvs = as_parts(cvs, "tica")
    trajectories = _trajectories(cvs, samples)
    if lag < 1 or min(len(features) for features in trajectories) <= lag:
        raise InvalidInputError(f"lag must be at least 1 and shorter than every trajectory, got {lag}.")
    before = np.concatenate([features[:-lag] for features in trajectories])
    after = np.concatenate([features[lag:] for features in trajectories])
    mean = 0.5 * (before.mean(axis=0) + after.mean(axis=0))
    before, after = before - mean, after - mean
    instantaneous = (before.T @ before + after.T @ after) / (2 * len(before))
    lagged = (before.T @ after + after.T @ before) / (2 * len(before))
    variances, directions = np.linalg.eigh(instantaneous)
    kept = variances > _SMALLEST * variances[-1]
    whitening = directions[:, kept] / np.sqrt(variances[kept])
    values, vectors = np.linalg.eigh(whitening.T @ lagged @ whitening)
    m = _number_of_components(n_components, int(kept.sum()))
    return LinearProjection(cvs, _signed((whitening @ vectors).T[::-1][:m]), mean=mean, eigenvalues=values[::-1][:m])
