"""Compiling for checks, whose programs run a few times only: what counts is that they compile in no time."""

import functools
from collections.abc import Callable
from typing import Any

import jax

_IN_HASTE = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
    "xla_cpu_use_fusion_emitters": False,
}


def jit_in_haste(function: Callable) -> Callable:
    """``jax.jit`` with few optimisations."""
    return jax.jit(function, compiler_options=_known_options())


@functools.cache
def _known_options() -> dict[str, Any]:
    """Those of the options that this version of JAX has."""
    known = {}
    for name, value in _IN_HASTE.items():
        try:
            jax.jit(lambda x: x, compiler_options={name: value})(0.0)
        except jax.errors.JaxRuntimeError:
            continue
        known[name] = value
    return known
