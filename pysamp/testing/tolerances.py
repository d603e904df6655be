"""The tolerances of all checks, each with its reason; relative to the largest number compared."""

__all__ = ["FINITE_DIFFERENCE", "REFERENCE_GRADIENT", "REFERENCE_VALUE", "ROUNDING", "SINGLE_PRECISION"]

ROUNDING = 1e-11
"""Same formula in another order (jit and eager, vmap, rotated or shifted positions), float64."""

FINITE_DIFFERENCE = 1e-6
"""Derivative against differences of fourth order, float64."""

SINGLE_PRECISION = 1e-3
"""float32 against float64."""

REFERENCE_VALUE = 1e-9
"""Values against independent programs."""

REFERENCE_GRADIENT = 1e-7
"""Gradients and virials against independent programs."""
