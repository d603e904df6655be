"""The errors and warnings that pysamp raises; each is also a builtin, so that ordinary handlers catch it."""

from typing import Any

__all__ = [
    "CheckpointError",
    "InvalidInputError",
    "PysampError",
    "PysampWarning",
    "RunInterrupted",
    "SimulationError",
    "UnsupportedError",
]


class PysampError(Exception):
    """Base class of every error of this package."""


class InvalidInputError(PysampError, ValueError):
    """An argument cannot be right, whatever the simulation does: found before step 0."""


class UnsupportedError(PysampError, TypeError):
    """The engine, integrator or platform cannot do what was asked."""


class SimulationError(PysampError, RuntimeError):
    """The simulation failed while running: not-a-number, or an error of the engine."""


class CheckpointError(PysampError, OSError):
    """A result or checkpoint file could not be written, read or matched to this run."""


class PysampWarning(UserWarning):
    """Something that works, but that the user should know."""


class RunInterrupted(KeyboardInterrupt):
    """A run was stopped by Ctrl-C. Like any ``KeyboardInterrupt``, ``except Exception`` lets it pass.

    Attributes:
        run: what was sampled so far as a :class:`~pysamp.Run`, from which ``pysamp.run`` goes on; None where replicas run one
            after the other, or elsewhere, and did not get equally far.
    """

    def __init__(self, message: str, run: Any = None):
        super().__init__(message)
        self.run = run
