"""MD steps of a path method: how many are left, and when to write down what was done with them."""

import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from .._interrupt import Interrupt
from ..checkpoint import definition, digest
from ..errors import RunInterrupted
from ._folder import Folder, NoFolder
from ._segments import Beginning

__all__ = ["OutOfStepsError", "Progress", "fingerprint_of", "provenance_of"]

_INTERVAL = 60.0  # [s] between two checkpoints where checkpoint_every is not given


class OutOfStepsError(Exception):
    """The MD steps that were granted are spent.

    Args:
        n_steps: how many of them had been done when it was found out, in what was not finished.
    """

    def __init__(self, n_steps: int):
        super().__init__()
        self.n_steps = n_steps


class Progress:
    """Counts MD steps and writes checkpoints.

    Args:
        limit: MD steps granted.
        folder: where checkpoints are written.
        every: MD steps between them; None for one a minute.
        bar: the progress bar.
        interrupt: Ctrl-C.
    """

    def __init__(self, limit: int, folder: NoFolder, every: int | None, bar: Any, interrupt: Interrupt):
        self.limit, self.spent = limit, 0
        self._folder, self._every, self._bar, self._interrupt = folder, every, bar, interrupt
        self._written, self._clock = 0, time.perf_counter()
        self._pending: tuple[str, Callable[[], Mapping[str, np.ndarray]], int] | None = None

    @property
    def left(self) -> int:
        """MD steps left."""
        return max(0, self.limit - self.spent)

    def count(self, n_steps: int) -> None:
        """MD steps were done."""
        self.spent += n_steps
        self._bar.update(n_steps, False)

    def resume(self, spent: int) -> None:
        """Go on with what was done before."""
        self._bar.update(max(0, spent - self.spent), True)
        self.spent = self._written = spent

    def write(self, name: str, arrays: Callable[[], Mapping[str, np.ndarray]]) -> None:
        """Something can be written; it is, if it is time."""
        self._pending = (name, arrays, self.spent)
        due = (
            time.perf_counter() - self._clock > _INTERVAL
            if self._every is None
            else self.spent - self._written >= self._every
        )
        if due:
            self.write_now()

    def write_now(self) -> None:
        """Write what can be written."""
        if self._pending is None:
            return
        name, arrays, spent = self._pending
        self._folder.write(name, {**arrays(), "spent": np.asarray(spent)})
        self._written, self._clock, self._pending = self.spent, time.perf_counter(), None

    def forget(self) -> None:
        """What could be written is part of something else by now."""
        self._pending, self._written, self._clock = None, self.spent, time.perf_counter()

    def check_interrupt(self) -> None:
        """Raise after Ctrl-C.

        Raises:
            RunInterrupted: if there was one.
        """
        if self._interrupt.is_set:
            remedy = (
                "The same call goes on from the checkpoint."
                if isinstance(self._folder, Folder)
                else "Give checkpoint=... to keep what was done."
            )
            raise RunInterrupted(f"Stopped by Ctrl-C after {self.spent} MD steps. {remedy}")


def fingerprint_of(method: Any, beginning: Beginning, n_together: int) -> dict[str, Any]:
    """What must agree between the run that wrote a checkpoint and the one that goes on with it."""
    system = beginning.system
    return {
        "method": definition(method),
        "number of particles": len(system.masses),
        "masses": digest({"": np.asarray(system.masses)}),
        "timestep": float(system.timestep),
        "kT": float(beginning.kT),
        "replicas": n_together,
    }


def provenance_of(beginning: Beginning) -> dict[str, Any]:
    """Versions of everything."""
    from .. import __version__

    return {
        "pysamp": __version__,
        "jax": jax.__version__,
        "python": sys.version.split()[0],
        **beginning.provenance,
    }
