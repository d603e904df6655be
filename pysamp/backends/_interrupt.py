"""Ctrl-C while state is in the hands of compiled code."""

import contextlib
import signal
import threading
from collections.abc import Iterator

__all__ = ["interrupts_deferred"]


@contextlib.contextmanager
def interrupts_deferred() -> Iterator[None]:
    """Ctrl-C is handled at the end of the block, by whatever handled it before.

    Python looks at signals between any two of its own instructions. Between a compiled call that has taken the arrays it was
    given and the assignment of what it returned, an exception would lose them.
    """
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield
        return
    caught: list[tuple] = []
    signal.signal(signal.SIGINT, lambda number, frame: caught.append((number, frame)))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        for number, frame in caught:
            handler(number, frame)
