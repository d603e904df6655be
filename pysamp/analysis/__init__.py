"""From runs to free energies and their errors."""

from . import abf, extended_abf, opes, static  # noqa: F401 (they register their overloads of analyze)
from .errors import jackknife_error
from .free_energy import FreeEnergy
from .integrate import GradientIntegrator
from .metadynamics import hills
from .nonequilibrium import crooks, jarzynski, work
from .rates import EscapeRate, escape_rate
from .reweight import solve_wham
from .trajectory import cartesian_pca, evaluate

__all__ = [
    "EscapeRate",
    "FreeEnergy",
    "GradientIntegrator",
    "cartesian_pca",
    "crooks",
    "escape_rate",
    "evaluate",
    "hills",
    "jackknife_error",
    "jarzynski",
    "solve_wham",
    "work",
]
