"""Simulation engines, one per file; each is imported when it is first used."""

from . import toy
from .base import Bound

__all__ = ["Bound", "toy"]
