"""What goes from the engine to the sampler and back, and what the sampler keeps."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt32

from .colvars._neighbors import NeighborList

type_of_lists = tuple[tuple[tuple[NeighborList, ...], ...], ...]


class Particles(eqx.Module):
    """What an engine hands over at a force evaluation: the sampler's atoms, in the order of ``Sampler.atoms``, and the box.

    Attributes:
        positions: [length].
        box: box vectors as rows [length], or None.
        velocities: velocities half a step before the positions [length/time], or None where no method asks for them.
        energy: potential energy of the engine without the bias [energy], or None where no CV asks for it.
        kT: thermal energy at this step, where a thermostat changes it during a run [energy]; None for the sampler's.
    """

    positions: Float[Array | np.ndarray, "... k 3"]
    box: Float[Array | np.ndarray, "... 3 3"] | None = None
    velocities: Float[Array | np.ndarray, "... k 3"] | None = None
    energy: Float[Array | np.ndarray, "..."] | None = None
    kT: Float[Array | np.ndarray, "..."] | None = None

    @property
    def points(self) -> Float[Array | np.ndarray, "m 3"]:
        """The positions of one replica and, where the energy was handed over, one more row: (energy, 0, 0)."""
        if self.energy is None:
            return self.positions
        row = jnp.zeros((1, 3), dtype=jnp.result_type(self.positions)).at[0, 0].set(self.energy)
        return jnp.concatenate([jnp.asarray(self.positions), row])


class BiasForces(eqx.Module):
    """What goes back to the engine.

    Attributes:
        energy: bias energy, summed over methods [energy].
        forces: force on each of the sampler's atoms [energy/length].
        virial: minus the derivative of the energy with respect to a strain of positions and box together [energy], where
            the engine wants it.
        slope: derivative of the bias energy with respect to the engine's potential energy, or None where no CV asks for that
            energy. The engine must add ``slope`` times its own forces (and virial), on all particles.
    """

    energy: Float[Array, ""]
    forces: Float[Array, "k 3"]
    virial: Float[Array, "3 3"] | None = None
    slope: Float[Array, ""] | None = None

    @property
    def packed(self) -> Float[Array, " m"]:
        """One array: energy, forces, of the virial what is above and on the diagonal (xx, xy, xz, yy, yz, zz), slope."""
        parts = [self.energy[None], self.forces.reshape(-1)]
        if self.virial is not None:
            parts.append(self.virial[np.triu_indices(3)])
        if self.slope is not None:
            parts.append(self.slope[None])
        return jnp.concatenate(parts)


class SamplerState(eqx.Module):
    """Everything that changes from step to step.

    Attributes:
        step: number of MD steps that the methods have seen.
        key: data of the run's random key; a typed key would make every call of a compiled function ten times slower.
        methods: one state per method.
        xi: CVs at the last step, methods one after the other.
        forces: bias forces on them at the last step [energy / CV unit].
        energies: bias energy of each method at the last step [energy].
        lists: neighbour lists of each method's CVs, of those that want some. They save time only: whatever they hold, the
            bias is the same to rounding.
    """

    step: Int[Array, ""]
    key: UInt32[Array, " w"]
    methods: tuple[Any, ...]
    xi: Float[Array, " n"]
    forces: Float[Array, " n"]
    energies: Float[Array, " m"]
    lists: type_of_lists = ()
