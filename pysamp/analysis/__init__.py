"""From runs to free energies and their errors."""

from . import (  # noqa: F401 (they register their overloads of analyze)
    abf,
    adaptive_path,
    ann,
    extended_abf,
    opes,
    parallel_bias,
    static,
)
from .convergence import Converged, convergence, r_hat
from .errors import autocorrelation_time, jackknife_error, statistical_inefficiency
from .free_energy import FreeEnergy
from .integrate import GradientIntegrator
from .metadynamics import hills
from .nonequilibrium import crooks, jarzynski, work
from .opes_expanded import expanded_states
from .plots import plot_convergence, plot_overlap, plot_traces
from .plumed import read_colvar, read_hills, write_colvar, write_hills
from .rates import EscapeRate, escape_rate
from .reweight import solve_wham
from .trajectory import cartesian_pca, evaluate
from .umbrella import overlap, reduced_potentials, umbrella_integration
from .weights import bias_constant, reweight, sample_weights

__all__ = [
    "Converged",
    "EscapeRate",
    "FreeEnergy",
    "GradientIntegrator",
    "autocorrelation_time",
    "bias_constant",
    "cartesian_pca",
    "convergence",
    "crooks",
    "escape_rate",
    "evaluate",
    "expanded_states",
    "hills",
    "jackknife_error",
    "jarzynski",
    "overlap",
    "plot_convergence",
    "plot_overlap",
    "plot_traces",
    "r_hat",
    "read_colvar",
    "read_hills",
    "reduced_potentials",
    "reweight",
    "sample_weights",
    "solve_wham",
    "statistical_inefficiency",
    "umbrella_integration",
    "work",
    "write_colvar",
    "write_hills",
]
