"""Collective variables along trajectories that an engine wrote."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ..colvars.base import AbstractCV, as_parts, as_points
from ..colvars.rmsd import EigenvectorProjection
from ..errors import InvalidInputError
from ..methods.unbiased import Unbiased
from ..sampler import Particles, Sampler
from ..snapshot import Cell
from ..system import System
from ..units import as_array

__all__ = ["cartesian_pca", "evaluate"]


def evaluate(
    cvs: AbstractCV | Sequence[AbstractCV], positions: Any, *, box: Any = None, masses: Any = None
) -> Float[np.ndarray, "frame n"]:
    """Values of CVs along a trajectory.

    Args:
        cvs: one CV or a list of them.
        positions: of all particles [length], shape (frame, particle, 3): ``trajectory.xyz`` of MDTraj, for instance.
        box: box vectors as rows [length], shape (3, 3) or (frame, 3, 3): ``trajectory.unitcell_vectors`` of MDTraj; None where
            nothing is periodic.
        masses: of all particles, for CVs that weight with them; None where all are equal.

    Returns:
        One row for each frame and one column for each component, as in the log of a run.

    Raises:
        InvalidInputError: if shapes do not fit, or a CV refers to a particle that is not there.

    Example:
        >>> import numpy as np
        >>> from pysamp.analysis import evaluate
        >>> from pysamp.colvars import Distance
        >>> positions = np.zeros((3, 2, 3))
        >>> positions[:, 1, 0] = [1.0, 2.0, 3.0]
        >>> print(evaluate(Distance([0, 1]), positions).ravel())
        [1. 2. 3.]
    """
    cvs = as_parts([cvs] if isinstance(cvs, AbstractCV) else cvs, "evaluate")
    x = as_array(positions)
    if x.ndim != 3 or x.shape[-1] != 3:
        raise InvalidInputError(f"positions must be of shape (frame, particle, 3), got {x.shape}.")
    boxes = None if box is None else np.broadcast_to(as_array(box), (len(x), 3, 3))
    masses = np.ones(x.shape[1]) if masses is None else as_array(masses)
    if masses.shape != x.shape[1:2]:
        raise InvalidInputError(f"There are {x.shape[1]} particles, but masses of shape {masses.shape}.")
    # The shape of the box may change from frame to frame, so what is found in one is not kept for the others.
    cell = Cell() if boxes is None else Cell.of(boxes[0])
    right_angles = boxes is not None and not np.any(boxes * (1 - np.eye(3)))
    system = System(masses=masses, timestep=1.0, kT=1.0, periodic=cell.box is not None, orthorhombic=right_angles)
    sampler = Sampler.build(Unbiased(cvs), system)
    with jax.enable_x64(True):
        particles = Particles(jnp.asarray(x[:, list(sampler.atoms)]), None if boxes is None else jnp.asarray(boxes))
        return np.asarray(_along(sampler, particles))


@jax.jit
def _along(sampler: Sampler, particles: Particles) -> Any:
    return jax.lax.map(sampler.xi, particles)


def cartesian_pca(
    atoms: Any, positions: Any, *, n_components: int = 2, weights: Any = None
) -> tuple[EigenvectorProjection, Float[np.ndarray, " m"]]:
    """Principal components of the motion of atoms: a CV fitted to a trajectory.

    The frames are superposed on their average until it no longer changes; the components are the eigenvectors of the covariance
    matrix of the positions, of unit length, the largest variance first.

    Args:
        atoms: the particles that take part.
        positions: of all particles [length], shape (frame, particle, 3), molecules whole.
        n_components: number of components to keep.
        weights: of the frames, if they come from a biased run.

    Returns:
        The CV, and the variance along each of its components [length^2].

    Raises:
        InvalidInputError: if shapes do not fit, or there are fewer components.

    Example:
        >>> import numpy as np
        >>> from pysamp.analysis import cartesian_pca
        >>> rng = np.random.default_rng(0)
        >>> frames = np.array([[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]) * (1 + 0.1 * rng.normal(size=(900, 1, 3)))
        >>> projection, variances = cartesian_pca([0, 1, 2], frames)
        >>> print(variances.round(3), np.abs(projection.vectors[0]).round(1).tolist())
        [0.02  0.006] [[0.7, 0.0, 0.0], [0.7, 0.0, 0.0], [0.0, 0.0, 0.0]]

    References:
        Amadei, Linssen & Berendsen, Proteins 17, 412 (1993), doi 10.1002/prot.340170408.
    """
    points, frames = as_points(atoms), as_array(positions)
    indices = [point for point in points if isinstance(point, int)]
    if len(indices) < len(points):
        raise InvalidInputError("cartesian_pca needs indices of particles, not Groups.")
    if frames.ndim != 3 or frames.shape[-1] != 3 or frames.shape[1] <= max(indices):
        raise InvalidInputError(f"positions must be of shape (frame, particle, 3) with all atoms, got {frames.shape}.")
    x = frames[:, indices]
    share = np.ones(len(x)) if weights is None else as_array(weights)
    if share.shape != (len(x),) or not (share >= 0).all() or not share.any():
        raise InvalidInputError(f"weights must be {len(x)} numbers >= 0, one for each frame.")
    share = share / share.sum()
    x = x - x.mean(axis=1, keepdims=True)
    average = x[0]
    for _ in range(100):
        x = _superposed(x, average)
        change = np.abs(np.tensordot(share, x, 1) - average).max()
        average = np.tensordot(share, x, 1)
        if change < 1e-12 * np.abs(average).max():
            break
    displacements = (x - average).reshape(len(x), -1)
    _, sizes, directions = np.linalg.svd(np.sqrt(share)[:, None] * displacements, full_matrices=False)
    if not 0 < n_components <= len(sizes):
        raise InvalidInputError(f"There are {len(sizes)} components, {n_components} were asked for.")
    vectors = directions[:n_components].reshape(n_components, -1, 3)
    return EigenvectorProjection(atoms, average, vectors), sizes[:n_components] ** 2


def _superposed(
    x: Float[np.ndarray, "frame k 3"], reference: Float[np.ndarray, "k 3"]
) -> Float[np.ndarray, "frame k 3"]:
    """Centred frames, each turned onto the reference as well as it can be (Kabsch)."""
    left, _, right = np.linalg.svd(np.swapaxes(x, 1, 2) @ reference)
    proper = np.sign(np.linalg.det(left @ right))
    left[..., -1] *= proper[:, None]
    return x @ (left @ right)
