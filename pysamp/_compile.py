"""Compiling what runs only once or a few times: what counts is that it compiles in no time."""

import functools
from collections.abc import Callable
from typing import Any

import jax

_IN_HASTE = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
    "xla_cpu_use_fusion_emitters": False,
    "xla_cpu_parallel_codegen_split_count": 1,  # parts that are compiled in parallel; each takes its time
}


def jit_in_haste(function: Callable) -> Callable:
    """``jax.jit`` with few optimisations. Not for calls inside of another compiled function."""
    return jax.jit(function, compiler_options=options_in_haste())


@functools.cache
def options_in_haste() -> dict[str, Any]:
    """Options of XLA for it; those that this version of JAX has."""
    if _are_known(_IN_HASTE):
        return _IN_HASTE
    return {name: value for name, value in _IN_HASTE.items() if _are_known({name: value})}


def _are_known(options: dict[str, Any]) -> bool:
    try:
        jax.jit(lambda x: x, compiler_options=options)(0.0)
    except jax.errors.JaxRuntimeError:
        return False
    return True
