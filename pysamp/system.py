"""What is known of a simulated system before its first step."""

import equinox as eqx
import numpy as np
from jaxtyping import Float, Int

from .snapshot import type_of_reduction

__all__ = ["System"]


class System(eqx.Module):
    """What the sampler and the CVs must know of the simulated system before the first step.

    Attributes:
        masses: [mass]; 0 for a particle that does not move.
        kT: thermal energy of the integrator [energy], or None if it has none.
        timestep: [time].
        momentum_timestep: time over which a constant force changes the momentum from one step to the next [time]; None if
            the engine has no velocities, or hands them over at other times than half a step before the positions.
        periodic: whether there is a box.
        orthorhombic: whether the box keeps right angles during the run.
        reduction: ``Cell.of(box).reduction`` of a box without right angles, which makes its minimum image cheap; or None.
        constraints: pairs of particles whose distance is constrained.
        massless: particles that follow others (virtual sites), on which no momentum can be defined.
        molecules: number of the molecule of each particle, -1 where it has none; where the engine's positions do not jump at the
            borders of the box, so that a group within one molecule is whole. None if nothing is known.
        wants_virial: whether the engine needs the virial of the bias.
    """

    masses: Float[np.ndarray, " n"]
    timestep: float
    kT: float | None = None
    momentum_timestep: float | None = None
    periodic: bool = False
    orthorhombic: bool = False
    reduction: type_of_reduction | None = None
    constraints: Int[np.ndarray, "m 2"] = eqx.field(default_factory=lambda: np.zeros((0, 2), dtype=np.int64))
    massless: frozenset[int] = frozenset()
    molecules: Int[np.ndarray, " n"] | None = None
    wants_virial: bool = False
