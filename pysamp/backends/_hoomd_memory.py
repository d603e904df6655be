"""HOOMD-blue's arrays in host memory, as NumPy sees them."""

# HOOMD has no types.
# pyright: reportAttributeAccessIssue=false, reportMissingImports=false, reportOptionalMemberAccess=false
# pyright: reportArgumentType=false

from typing import Any

import hoomd
import hoomd.md
import numpy as np
from jaxtyping import Shaped

from ._hoomd_system import dimensions

__all__ = ["PARTICLES", "Memory"]

# What of all particles is offered as ``bound.arrays``, and what HOOMD calls it.
PARTICLES = {
    "positions": "position",
    "velocities": "velocity",
    "masses": "mass",
    "images": "image",
    "forces": "net_force",
    "rtag": "rtag",
}


class Memory:
    """HOOMD's arrays in host memory. They stay in place while the number of particles does; sorting permutes their rows."""

    def __init__(self, state: hoomd.State, force: hoomd.md.force.Custom | None):
        with state.cpu_local_snapshot as snapshot:
            particles = snapshot.particles
            self.position, self.velocity, self.mass = map(
                _array, (particles.position, particles.velocity, particles.mass)
            )
            self.image = _array(particles.image)[:, : dimensions(state.box)]
            self.rtag = _array(particles.rtag)
            self.net_force = _array(particles.net_force)
        if force is not None:
            with force.cpu_local_force_arrays as arrays:
                self.force, self.energy, self.virial = map(
                    _array, (arrays.force, arrays.potential_energy, arrays.virial)
                )

    @property
    def addresses(self) -> tuple[int, ...]:
        """Where the arrays begin."""
        return tuple(array.ctypes.data for array in vars(self).values())


def _array(local: Any) -> Shaped[np.ndarray, "..."]:
    return local._coerce_to_ndarray()
