"""Simulation engines, one per file; each is imported when it is first used."""

from . import jaxmd, toy
from .base import Bound

__all__ = ["Bound", "jaxmd", "toy"]
