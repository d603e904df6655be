"""The engine's potential energy as a collective variable."""

from typing import ClassVar

import equinox as eqx
from jaxtyping import Array, Float

from ..snapshot import Cell
from .base import AbstractCV, Energy, type_of_points

__all__ = ["PotentialEnergy"]


class PotentialEnergy(AbstractCV):
    r"""Potential energy U of the whole simulated system, without the bias [energy].

    A bias V(U) multiplies the engine's own forces: $F = -(1 + V'(U)) \nabla U$. With it one samples energies that are rare at the
    simulation's temperature (:class:`~pysamp.methods.OPES` on U: the well-tempered ensemble; multithermal sampling); observed
    beside other CVs it reweights a run to other temperatures.

    The engine must compute its energy at each step and let pysamp scale all of its forces: pysamp.backends.toy and OpenMM do.
    In OpenMM that takes a second evaluation of the forces at each step, see docs/colvars. With other engines there is an error
    before the first step. A method that needs momenta (ABF) cannot act on the energy.

    Like any CV it enters combinations: ``PotentialEnergy() / 300``, ``combine(jnp.tanh, [PotentialEnergy()])``.

    Example:
        >>> import jax.numpy as jnp
        >>> import pysamp
        >>> from pysamp.backends import toy
        >>> from pysamp.colvars import PotentialEnergy
        >>> from pysamp.methods import HarmonicBias
        >>> def generate_context():
        ...     return toy.Simulation(lambda x: 0.5 * jnp.sum(x**2), [[1.0, 0.0, 0.0]], timestep=0.1)
        >>> method = HarmonicBias(PotentialEnergy(), kspring=10.0, center=4.0)
        >>> run = pysamp.run(method, generate_context, 1000, log_every=10, seed=1, progress=False)
        >>> bool(abs(run.log.xi.values[0, 20:].mean() - 4.0) < 0.4)
        True

    References:
        Bonomi & Parrinello, Phys. Rev. Lett. 104, 190601 (2010), doi 10.1103/PhysRevLett.104.190601.
    """

    atoms: type_of_points = eqx.field(static=True, default=(Energy(),), init=False)
    unit: ClassVar[str] = "energy"

    def __call__(self, x: Float[Array, "1 3"], cell: Cell) -> Float[Array, ""]:
        """The energy, which is the first coordinate of the point that stands for it."""
        del cell
        return x[0, 0]

    @property
    def name(self) -> str:
        """``PotentialEnergy``."""
        return "PotentialEnergy"
