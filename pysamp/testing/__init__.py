"""Checks and model systems that a third party's CV, method or backend can use as well."""

from . import tolerances
from .backends import check_backend
from .colvars import check_cv
from .methods import check_method
from .models import AbstractModel, DoubleWell, Harmonic, MuellerBrown, PeriodicPotential

__all__ = [
    "AbstractModel",
    "DoubleWell",
    "Harmonic",
    "MuellerBrown",
    "PeriodicPotential",
    "check_backend",
    "check_cv",
    "check_method",
    "tolerances",
]
