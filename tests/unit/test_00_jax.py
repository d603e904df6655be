"""JAX itself computes right numbers here. Runs before all other tests."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest


@pytest.mark.parametrize(("dtype", "n_rows"), [("float64", 16_384 + 1), ("float32", 32_768 + 1)])
def test_vmapped_matrix_products_are_right(dtype, n_rows):
    """jax issue 39103: 0.10.2 and 0.11.1 compute wrong numbers on CPUs beyond so many rows."""
    generator = np.random.default_rng(0)
    matrix = generator.standard_normal((3, 3)).astype(dtype)
    rows = generator.standard_normal((n_rows, 3)).astype(dtype)
    expected = np.sum((rows.astype("float64") @ matrix.T.astype("float64")) ** 2, axis=1)

    with jax.enable_x64(True):
        m = jnp.asarray(matrix)
        computed = jax.jit(jax.vmap(lambda r: jnp.sum((m @ r) ** 2)))(jnp.asarray(rows))

    assert computed.dtype == dtype
    tolerance = {"float64": 1e-12, "float32": 1e-4}[dtype]
    np.testing.assert_allclose(computed, expected, rtol=tolerance, atol=tolerance)
