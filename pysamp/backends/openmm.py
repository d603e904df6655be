"""OpenMM: stepped from inside the compiled loop on the platforms in host memory, through ``PythonForce`` elsewhere.

``generate_context`` returns an ``openmm.app.Simulation`` or an ``openmm.Context`` with positions set. The route is chosen for the
platform; return ``PythonForceRoute(simulation)`` to insist on the one that needs no compiled extension.
"""

# OpenMM has no types, and what is inferred from its sources is often wrong.
# pyright: reportAttributeAccessIssue=false, reportOperatorIssue=false, reportArgumentType=false, reportReturnType=false

import logging
import warnings

import openmm
import openmm.app

from ..api import bind, describe
from ..errors import PysampWarning
from ..loop import prefer_synchronous_dispatch
from ..sampler import Sampler
from ..system import System
from .base import Bound
from .openmm_bound import OpenMMBound
from .openmm_host import NativeBound, load_native
from .openmm_python_force import PythonForceBound
from .openmm_system import PythonForceRoute, context_of, system_of

__all__ = ["PythonForceRoute"]

_LOGGER = logging.getLogger("pysamp")


def _route(context: openmm.Context, sampler: Sampler) -> type[OpenMMBound]:
    prefer_synchronous_dispatch()
    platform = context.getPlatform().getName()
    if sampler.needs_energy:
        _LOGGER.info("OpenMM %s platform: bias through PythonForce, energy from a second Context", platform)
        return PythonForceBound
    if platform in ("Reference", "CPU"):
        native, reason = load_native()
        if native is not None:
            _LOGGER.info("OpenMM %s platform: stepped from the compiled loop", platform)
            return NativeBound
        _warn_once(f"pysamp adds its bias through openmm.PythonForce, which is slower, because {reason}.")
    if platform == "CUDA" and not sampler.stops:  # a loop of counted turns does not end early
        from .openmm_cuda import CudaBound

        reason = CudaBound.unsupported(context)
        if not reason:
            _LOGGER.info("OpenMM CUDA platform: stepped from the compiled loop, on the same GPU")
            return CudaBound
        _LOGGER.info("the route on the GPU cannot be used: %s", reason)
    _LOGGER.info("OpenMM %s platform: bias through PythonForce", platform)
    return PythonForceBound


def _warn_once(text: str) -> None:
    if text not in _WARNED:
        _WARNED.add(text)
        warnings.warn(text, PysampWarning, stacklevel=5)


_WARNED: set[str] = set()


@describe.dispatch
def _describe_openmm(simulation: openmm.app.Simulation | openmm.Context | PythonForceRoute, /) -> System:
    return system_of(simulation)


@bind.dispatch
def _bind_openmm(
    simulation: openmm.app.Simulation | openmm.Context, sampler: Sampler, /, *, seed: int | None = None
) -> Bound:
    return _route(context_of(simulation), sampler)(simulation, sampler, seed)


@bind.dispatch
def _bind_python_force(simulation: PythonForceRoute, sampler: Sampler, /, *, seed: int | None = None) -> Bound:
    return PythonForceBound(simulation, sampler, seed)
