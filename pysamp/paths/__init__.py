"""Path methods: rates and mechanisms of rare events, and paths through the space of collective variables."""

from . import _files, flux_run  # noqa: F401 (they register how results are stored, and overloads of run)
from .flux_result import ForwardFluxRun, Interface, Rate, committor
from .forward_flux import ForwardFlux

__all__ = ["ForwardFlux", "ForwardFluxRun", "Interface", "Rate", "committor"]
