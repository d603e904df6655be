"""String methods: what is to be done."""

from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Float

from .._job import as_count
from ..colvars.base import AbstractCV
from ..errors import InvalidInputError
from ..methods.base import as_cvs, labels_of, per_cv, periodic_difference, periods_of
from ..units import as_array, as_float, as_positive

__all__ = ["AbstractString", "MeanForceString", "SwarmString"]


class AbstractString(eqx.Module):
    """What string methods have in common: images along a path, each held by springs.

    Attributes:
        cvs: the collective variables.
        path: where the images begin [CV unit], without jumps where CVs are periodic.
        kspring: spring constants [energy / CV unit^2], which also weigh the CVs when lengths along the path are measured.
        n_steps: MD steps of each image in an iteration that are measured.
        n_equilibration: MD steps before them, after the image was moved.
        fixed_ends: whether the first and the last image stay.
        smoothing: part of each image that is replaced by the mean of its neighbours in an iteration.
        tolerance: drift of the string at which it ends, or None.
    """

    cvs: eqx.AbstractVar[tuple[AbstractCV, ...]]
    path: eqx.AbstractVar[Float[np.ndarray, "m n"]]
    kspring: eqx.AbstractVar[Float[np.ndarray, " n"]]
    n_steps: eqx.AbstractVar[int]
    n_equilibration: eqx.AbstractVar[int]
    fixed_ends: eqx.AbstractVar[bool]
    smoothing: eqx.AbstractVar[float]
    tolerance: eqx.AbstractVar[float | None]

    @property
    def periods(self) -> tuple[float | None, ...]:
        """Period of each component."""
        return periods_of(self.cvs)

    @property
    def labels(self) -> tuple[str, ...]:
        """Label of each component."""
        return labels_of(self.cvs)

    def spaced(self, path: Float[np.ndarray, "p n"], n_images: int | None = None) -> Float[np.ndarray, "m n"]:
        """Images at equal distances along a path."""
        return equally_spaced(path, self.kspring, len(path) if n_images is None else n_images)


class MeanForceString(AbstractString):
    r"""The path of minimum free energy between two states, by the mean force on images of a string.

    Choose it for the mechanism of a transition, and the free energy along it, in many CVs at once: its cost grows with the length
    of the path, not with the number of CVs. In each iteration every image z is held by springs k; the mean force and the metric
    $M_{ij} = \langle \nabla\xi_i\, m^{-1} \nabla\xi_j \rangle$ are measured, and the images move downhill,

    $$\nabla F(z) = k (z - \langle\xi\rangle), \qquad \Delta z = -\tau M(z) \nabla F(z);$$

    then they are spaced equally along the string again. Where the string no longer moves but for noise, it follows the path of
    minimum free energy.

    Give it to :func:`~pysamp.run` in place of a method; ``timesteps`` is then the number of MD steps, of all images together,
    that must not be exceeded. That returns a :class:`~pysamp.paths.StringRun`, from which :func:`~pysamp.analyze` makes a
    :class:`~pysamp.paths.PathFreeEnergy`.

    Args:
        cvs: collective variables, one or a list.
        path: points that the string is first drawn through, at least two [CV unit].
        n_images: number of images.
        kspring: spring constant, one or one for each CV [energy / CV unit^2]. Stiffer than the free energy is curved.
        n_steps: MD steps of each image in an iteration that are measured.
        n_equilibration: MD steps before them.
        step: how far images move: with 1 to where the average was, in the direction in which the springs are most effective.
            So $\tau$ is ``step`` over the largest eigenvalue of $M k$. Springs that are much stiffer than the free energy is
            curved allow more than 1, and the string then arrives sooner.
        fixed_ends: whether the first and the last image stay; otherwise they go down to the nearest minima.
        smoothing: part of each image that is replaced by the mean of its neighbours, such as 0.1; 0 for none.
        tolerance: end when the string, averaged over five iterations, has moved no further than this, on average over
            images, from its average over the five before, in CV units weighed as lengths along the path are; None to go on
            until ``timesteps``.

    Raises:
        InvalidInputError: if shapes do not fit, or numbers make no sense.

    Example:
        >>> import pysamp
        >>> from pysamp.backends import toy
        >>> from pysamp.paths import MeanForceString
        >>> from pysamp.testing import MuellerBrown
        >>> model = MuellerBrown(scale=0.05)
        >>> def generate_context():
        ...     return toy.Simulation(model, [[-0.56, 1.44, 0.0]], kT=0.05, timestep=0.02, friction=5.0)
        >>> method = MeanForceString(
        ...     model.cvs, path=[[-0.56, 1.44], [0.62, 0.03]], n_images=8, kspring=500.0, n_steps=50, n_equilibration=50
        ... )
        >>> result = pysamp.run(method, generate_context, 8 * 100 * 6, seed=1, progress=False)
        >>> pysamp.analyze(result).values.shape
        (8,)

    References:
        Maragliano, Fischer, Vanden-Eijnden & Ciccotti, J. Chem. Phys. 125, 024106 (2006), doi 10.1063/1.2212942.
    """

    cvs: tuple[AbstractCV, ...]
    path: Float[np.ndarray, "m n"]
    kspring: Float[np.ndarray, " n"]
    n_steps: int
    n_equilibration: int
    step: float
    fixed_ends: bool
    smoothing: float
    tolerance: float | None

    def __init__(
        self,
        cvs: Any,
        *,
        path: Any,
        n_images: Any,
        kspring: Any,
        n_steps: Any = 500,
        n_equilibration: Any = 200,
        step: Any = 0.5,
        fixed_ends: bool = False,
        smoothing: Any = 0.0,
        tolerance: Any = None,
    ):
        self.cvs = as_cvs(cvs)
        self.kspring = _springs(kspring, self.periods)
        self.path = _first_path(path, n_images, self.periods, self.kspring)
        self.n_steps = as_count(n_steps, "n_steps")
        self.n_equilibration = as_count(n_equilibration, "n_equilibration")
        self.step = float(as_positive(step, "step"))
        self.fixed_ends = bool(fixed_ends)
        self.smoothing = 0.0 if smoothing == 0 else _between_0_and_1(smoothing, "smoothing")
        self.tolerance = None if tolerance is None else float(as_positive(tolerance, "tolerance"))


class SwarmString(AbstractString):
    r"""The path that short unbiased trajectories follow on average, by swarms of them begun at images of a string.

    Like :class:`~pysamp.paths.MeanForceString`, but each image moves with the mean drift of a swarm of trajectories released
    from where it was held, $\Delta z = \langle \xi(\tau) - z \rangle$. No metric and no step length have to be chosen; the
    noise is larger. The mean force is measured while the images are held, and gives the free energy along the string.

    Args:
        cvs: collective variables, one or a list.
        path: points that the string is first drawn through, at least two [CV unit].
        n_images: number of images.
        kspring: spring constant while an image is held, one or one for each CV [energy / CV unit^2].
        n_swarm: trajectories of each swarm.
        n_release: MD steps of each: long enough to drift, short enough not to go far.
        n_steps: MD steps for which each image is held and measured; the swarm begins at equal distances along them.
        n_equilibration: MD steps before them.
        fixed_ends: whether the first and the last image stay.
        smoothing: part of each image that is replaced by the mean of its neighbours.
        tolerance: see :class:`~pysamp.paths.MeanForceString`.

    Raises:
        InvalidInputError: if shapes do not fit, or numbers make no sense.

    References:
        Pan, Sezer & Roux, J. Phys. Chem. B 112, 3432 (2008), doi 10.1021/jp0777059.
    """

    cvs: tuple[AbstractCV, ...]
    path: Float[np.ndarray, "m n"]
    kspring: Float[np.ndarray, " n"]
    n_swarm: int
    n_release: int
    n_steps: int
    n_equilibration: int
    fixed_ends: bool
    smoothing: float
    tolerance: float | None

    def __init__(
        self,
        cvs: Any,
        *,
        path: Any,
        n_images: Any,
        kspring: Any,
        n_swarm: Any = 20,
        n_release: Any = 50,
        n_steps: Any = 500,
        n_equilibration: Any = 200,
        fixed_ends: bool = False,
        smoothing: Any = 0.0,
        tolerance: Any = None,
    ):
        self.cvs = as_cvs(cvs)
        self.kspring = _springs(kspring, self.periods)
        self.path = _first_path(path, n_images, self.periods, self.kspring)
        self.n_swarm, self.n_release = as_count(n_swarm, "n_swarm"), as_count(n_release, "n_release")
        self.n_steps = as_count(n_steps, "n_steps")
        self.n_equilibration = as_count(n_equilibration, "n_equilibration")
        self.fixed_ends = bool(fixed_ends)
        self.smoothing = 0.0 if smoothing == 0 else _between_0_and_1(smoothing, "smoothing")
        self.tolerance = None if tolerance is None else float(as_positive(tolerance, "tolerance"))

    def __check_init__(self):
        if self.n_steps < self.n_swarm:
            raise InvalidInputError(
                f"A swarm of {self.n_swarm} cannot begin along {self.n_steps} steps: let n_steps be {self.n_swarm} at least."
            )


def equally_spaced(
    path: Float[np.ndarray, "p n"], weights: Float[np.ndarray, " n"], n_images: int
) -> Float[np.ndarray, "m n"]:
    """Images at equal distances along straight lines through the points of a path."""
    s = arc_length(path, weights)
    places = np.linspace(0.0, s[-1], n_images)
    return np.stack([np.interp(places, s, column) for column in path.T], axis=-1)


def difference(
    xi: Float[np.ndarray, "*b n"], reference: Float[np.ndarray, "*c n"], periods: tuple[float | None, ...]
) -> Float[np.ndarray, "*d n"]:
    """``xi - reference`` on the host, the nearest image where the component has a period."""
    with jax.enable_x64(True):
        return np.asarray(periodic_difference(xi, reference, periods))


def arc_length(path: Float[np.ndarray, "p n"], weights: Float[np.ndarray, " n"]) -> Float[np.ndarray, " p"]:
    """Length along a path at each of its points; CVs count with the square roots of their weights over the largest."""
    scale = np.sqrt(weights / np.max(weights))
    return np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(path, axis=0) * scale, axis=1))])


def _springs(kspring: Any, periods: tuple[float | None, ...]) -> Float[np.ndarray, " n"]:
    springs = per_cv(kspring, len(periods), "kspring")
    if not (np.isfinite(springs).all() and (springs > 0).all()):
        raise InvalidInputError(f"kspring must be positive, got {springs.tolist()}.")
    return springs


def _first_path(
    path: Any, n_images: Any, periods: tuple[float | None, ...], weights: Float[np.ndarray, " n"]
) -> Float[np.ndarray, "m n"]:
    points = as_array(path)
    n = len(periods)
    if points.ndim == 1 and n == 1:
        points = points[:, None]
    if points.ndim != 2 or points.shape[1] != n or len(points) < 2 or not np.isfinite(points).all():
        raise InvalidInputError(
            f"path must be at least two points of {n} CVs each, of the shape (points, {n}), got the shape {points.shape}."
        )
    steps = difference(points[1:], points[:-1], periods)
    points = points[0] + np.concatenate([np.zeros((1, n)), np.cumsum(steps, axis=0)])
    if not arc_length(points, weights)[-1] > 0:
        raise InvalidInputError("path must lead from one point to another, but all of its points are the same.")
    count = as_count(n_images, "n_images")
    if count < 3:
        raise InvalidInputError(f"A string needs three images at least, got n_images={count}.")
    return equally_spaced(points, weights, count)


def _between_0_and_1(value: Any, name: str) -> float:
    number = float(as_float(value))
    if not 0 < number <= 1:
        raise InvalidInputError(f"{name} must lie between 0 and 1, got {value!r}.")
    return number
