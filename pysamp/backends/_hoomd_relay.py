"""HOOMD-blue resumed from inside the compiled loop, by the extension of native/relay.cpp."""

import importlib
import logging
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ..callback_loop import Places
from ..loop import AbstractEngine
from ..sampler import BiasForces, Particles

__all__ = ["RelayedEngine", "load_relay"]

_LOGGER = logging.getLogger("pysamp")


class RelayedEngine(AbstractEngine):
    """HOOMD, resumed by an XLA FFI call up to its next evaluation of forces."""

    fuse: ClassVar[bool] = True

    address: Int[Array, ""]
    places: Places = eqx.field(static=True)

    def begin(self) -> tuple["RelayedEngine", Float[Array, " m"]]:
        """Start the run that the relay was given."""
        n_atoms = (self.places.positions.stop - self.places.positions.start) // 3
        return self.advance(jnp.zeros(1 + 3 * n_atoms + 6))

    def advance(self, forces: Float[Array, " f"]) -> tuple["RelayedEngine", Float[Array, " m"]]:
        """Hand the forces over and let HOOMD go on to its next force evaluation."""
        call = jax.ffi.ffi_call(
            "pysamp_relay_advance", jax.ShapeDtypeStruct((self.places.size,), jnp.float64), has_side_effect=True
        )
        return self, call(self.address, forces)

    def unpack(self, handed: Float[Array, " m"]) -> tuple[Int[Array, ""], Particles]:
        """Kind and particles."""
        return handed[0].astype(jnp.int32), self.places.particles(handed)

    def pack(self, forces: BiasForces) -> Float[Array, " f"]:
        """Energy, forces, virial."""
        return forces.packed


def load_relay() -> Any:
    """The compiled extension, or None where there is none."""
    try:
        relay = importlib.import_module("pysamp.backends._relay")
    except ImportError as error:
        _LOGGER.info(
            "HOOMD calls the bias from Python, which is slower, because the compiled extension is not there (%s)", error
        )
        return None
    if not _REGISTERED:
        jax.ffi.register_ffi_target("pysamp_relay_advance", relay.advance_target(), platform="cpu")
        _REGISTERED.append(True)
    return relay


_REGISTERED: list[bool] = []
