"""From runs to free energies and their errors."""

from . import abf, adaptive_path, static  # noqa: F401 (they register their overloads of analyze)
from .errors import jackknife_error
from .free_energy import FreeEnergy
from .integrate import GradientIntegrator
from .metadynamics import hills
from .reweight import solve_wham
from .trajectory import cartesian_pca, evaluate

__all__ = [
    "FreeEnergy",
    "GradientIntegrator",
    "cartesian_pca",
    "evaluate",
    "hills",
    "jackknife_error",
    "solve_wham",
]
