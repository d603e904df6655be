"""Ctrl-C that lets a run end in good order."""

import signal
import threading
from types import TracebackType
from typing import Any, ClassVar

__all__ = ["Interrupt"]


class Interrupt:
    """Ctrl-C as a flag, looked at between chunks, so that a run ends in good order; a second Ctrl-C stops at once.

    A handler that is not Python's own is left alone, and so is everything outside the main thread. There, the flag can be
    set for all simulations of a run by its token.
    """

    _running: ClassVar[dict[str, list["Interrupt"]]] = {}

    def __init__(self, token: str):
        self.is_set = False
        self._token = token
        self._installed = False

    @classmethod
    def set_all(cls, token: str) -> None:
        """Stop the simulations of one run that are in this process."""
        for interrupt in cls._running.get(token, []):
            interrupt.is_set = True

    def _handle(self, number: int, frame: Any) -> None:
        if self.is_set:
            raise KeyboardInterrupt
        self.is_set = True

    def __enter__(self) -> "Interrupt":
        self._running.setdefault(self._token, []).append(self)
        main = threading.current_thread() is threading.main_thread()
        if main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._handle)
            self._installed = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._installed:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        self._running[self._token].remove(self)
