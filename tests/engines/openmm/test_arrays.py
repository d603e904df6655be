"""Arrays on the engine's own memory."""

import ctypes
import mmap

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pysamp
from pysamp.backends.openmm import PythonForceRoute
from pysamp.backends.openmm_host import load_native
from pysamp.backends.view import View
from pysamp.colvars import Distance
from pysamp.methods import HarmonicBias

BIAS = HarmonicBias(Distance([0, 1]), kspring=800.0, center=0.25)
PAGE = mmap.PAGESIZE


@pytest.fixture
def native():
    module, reason = load_native()
    assert module is not None, reason
    return module


@pytest.mark.parametrize("offset", range(0, 64, 8))
def test_address_at_every_alignment(native, offset):
    buffer = np.zeros(64)
    start = -buffer.ctypes.data % 64 // 8 + offset // 8
    rows = buffer[start : start + 30]
    rows[:] = np.arange(30)
    assert rows.ctypes.data % 64 == offset
    view = View.of(*native.view(rows.ctypes.data, 30, buffer), 10)  # pyright: ignore[reportCallIssue]
    assert view.address == rows.ctypes.data
    total = jax.jit(jnp.sum)
    with jax.enable_x64(True):
        assert float(total(view)) == 435.0
        rows[:] = 1.0  # no frozen copy
        assert float(total(view)) == 30.0
    assert np.asarray(view).ctypes.data == rows.ctypes.data
    assert np.asarray(view).shape == view.array.shape == (10, 3)


def test_the_padding_stays_in_the_page(native):
    """Nothing but the rows is read: the page before them cannot be."""
    memory = mmap.mmap(-1, 2 * PAGE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(PAGE), 0) == 0
    try:
        for offset in range(0, 64, 8):
            rows = (ctypes.c_double * 30).from_address(address + PAGE + offset)
            rows[:] = range(30)
            view = View.of(*native.view(address + PAGE + offset, 30, memory), 10)  # pyright: ignore[reportCallIssue]
            assert view.address == address + PAGE + offset
            assert view.flat.unsafe_buffer_pointer() >= address + PAGE
            with jax.enable_x64(True):
                assert float(jax.jit(jnp.sum)(view)) == 435.0
            assert np.asarray(view).sum() == 435.0
    finally:
        libc.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(PAGE), 3)


@pytest.mark.parametrize("platform", ["Reference", "CPU"])
def test_views_follow_the_engine(systems, platform):
    context = systems.gas(platform=platform)
    with pysamp.bind(context, BIAS) as bound:
        first = bound.arrays
        for _ in range(3):
            bound.run(5)
            arrays = bound.arrays
            np.testing.assert_array_equal(arrays["positions"].array, systems.positions(context))
            np.testing.assert_array_equal(arrays["velocities"].array, systems.velocities(context))
            assert arrays["positions"].array.dtype == np.float64
            assert arrays["positions"].address == first["positions"].address
            np.testing.assert_array_equal(first["positions"].array, systems.positions(context))
        expected = systems.forces(context)
        np.testing.assert_array_equal(bound.arrays["forces"].array, expected)
        assert np.asarray(bound.arrays["masses"]).tolist() == [40.0] * 8
        assert isinstance(bound.arrays["masses"], jax.Array)
        assert bound.arrays["masses"].dtype == np.float64
        context.setPositions(systems.positions(context) + 1.0)
        np.testing.assert_array_equal(first["positions"].array, systems.positions(context))


def test_a_view_is_the_engines_own_address(systems):
    """Writing through the address moves OpenMM's particles."""
    context = systems.dimer()
    with pysamp.bind(context, BIAS) as bound:
        rows = (ctypes.c_double * 6).from_address(bound.arrays["positions"].address)
        assert np.array_equal(np.reshape(rows, (2, 3)), systems.positions(context))
        rows[0] = 0.125
        assert systems.positions(context)[0, 0] == 0.125


def test_no_copy_inside_jit(native):
    """A few atoms of many: the compiled function has no temporary of the whole array."""
    n = 100_000
    buffer = np.zeros(3 * n + 8)
    view = View.of(*native.view(buffer[1:].ctypes.data, 3 * n, buffer), n)  # pyright: ignore[reportCallIssue]
    atoms = np.array([5, 70_000, 99_999])
    with jax.enable_x64(True):
        compiled = jax.jit(lambda x: jnp.asarray(x)[atoms] * 2.0).lower(view).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 1000  # pyright: ignore[reportOptionalMemberAccess]
    assert "copy(" not in compiled.as_text()


def test_views_end_with_the_binding(systems):
    context = systems.dimer()
    bound = pysamp.bind(context, BIAS)
    positions = bound.arrays["positions"]
    bound.close()
    with pytest.raises(RuntimeError, match="deleted"):
        jax.block_until_ready(positions.array)
    with pytest.raises(RuntimeError, match="deleted"):
        np.asarray(positions)
    with pytest.raises(pysamp.SimulationError, match="closed"):
        _ = bound.arrays


def test_views_outlive_the_simulation(systems):
    """A forgotten binding keeps the engine's memory alive."""
    bound = pysamp.bind(systems.dimer(), BIAS)
    positions = bound.arrays["positions"]
    del bound
    assert np.isfinite(np.asarray(positions)).all()


def test_python_route_has_none(systems):
    with (
        pysamp.bind(PythonForceRoute(systems.dimer()), BIAS) as bound,
        pytest.raises(pysamp.UnsupportedError, match="native route"),
    ):
        _ = bound.arrays
