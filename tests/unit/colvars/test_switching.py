import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pysamp.colvars import (
    CosineSwitch,
    CubicSwitch,
    ExponentialSwitch,
    FermiSwitch,
    GaussianSwitch,
    RationalSwitch,
    SmapSwitch,
    TanhSwitch,
)
from pysamp.errors import InvalidInputError

# Each with its textbook formula of y; none of these is what is computed.
FORMULAS = [
    (RationalSwitch(0.3, d0=0.1), lambda y: (1 - y**6) / (1 - y**12)),
    (RationalSwitch(0.3, n=4, m=9), lambda y: (1 - y**4) / (1 - y**9)),
    (RationalSwitch(0.3, n=7, m=14, d0=0.05), lambda y: (1 - y**7) / (1 - y**14)),
    (ExponentialSwitch(0.2, d0=0.15), lambda y: np.exp(-y)),
    (GaussianSwitch(0.25, d0=0.1), lambda y: np.exp(-(y**2) / 2)),
    (TanhSwitch(0.3), lambda y: 1 - np.tanh(y)),
    (SmapSwitch(0.4, a=3, b=2), lambda y: (1 + (2 ** (3 / 2) - 1) * y**3) ** (-2 / 3)),
    (CosineSwitch(0.5, d0=0.2), lambda y: np.where(y <= 1, (1 + np.cos(np.pi * y)) / 2, 0)),
    (CubicSwitch(0.5, d0=0.2), lambda y: np.where(y <= 1, (y - 1) ** 2 * (1 + 2 * y), 0)),
    (FermiSwitch(0.5, beta=40), lambda y: 1 / (1 + np.exp(40 * 0.5 * (y - 1)))),
]
R = np.linspace(0.0, 1.5, 333)  # hits none of the ends


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize(("switch", "formula"), FORMULAS, ids=lambda v: type(v).__name__)
def test_formula(switch, formula):
    y = np.maximum(R - switch.d0, 0) / switch.r0
    np.testing.assert_allclose(switch(jnp.asarray(R)), formula(y), rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("stretch", [True, False])
@pytest.mark.parametrize(("switch", "formula"), FORMULAS, ids=lambda v: type(v).__name__)
def test_cutoff(switch, formula, stretch):
    parameters = {name: getattr(switch, name) for name in ("n", "m", "a", "b", "beta") if hasattr(switch, name)}
    cut = type(switch)(switch.r0, d0=switch.d0, cutoff=0.45, stretch=stretch, **parameters)
    y = np.maximum(R - switch.d0, 0) / switch.r0
    first, last = (formula(np.float64(v)) for v in (0.0, (0.45 - switch.d0) / switch.r0))
    expected = (formula(y) - last) / (first - last) if stretch else formula(y)
    np.testing.assert_allclose(cut(jnp.asarray(R)), np.where(R < 0.45, expected, 0), rtol=1e-10, atol=1e-14)
    assert cut.end == 0.45


@pytest.mark.parametrize("cutoff", [None, 0.9])
@pytest.mark.parametrize("switch", [switch for switch, _ in FORMULAS], ids=lambda v: type(v).__name__)
def test_derivative(switch, cutoff):
    parameters = {name: getattr(switch, name) for name in ("n", "m", "a", "b", "beta") if hasattr(switch, name)}
    switch = type(switch)(switch.r0, d0=switch.d0, cutoff=cutoff, **parameters)
    h = 1e-4
    at = {k: np.asarray(switch(jnp.asarray(R + k * h))) for k in (-2, -1, 1, 2)}
    central = (-at[2] + 8 * at[1] - 8 * at[-1] + at[-2]) / (12 * h)
    smooth = np.all([np.abs(R - e) > 3 * h for e in (switch.d0, switch.d0 + switch.r0, 0.0, 0.9)], axis=0)
    slope = jax.vmap(jax.grad(switch))(jnp.asarray(R))
    np.testing.assert_allclose(slope[smooth], central[smooth], rtol=1e-6, atol=1e-8)
    assert np.isfinite(slope).all()


@pytest.mark.parametrize(("n", "m"), [(6, 12), (4, 9), (1, 2), (12, 13)])
def test_rational_is_nothing_special_at_r0(n, m):
    """Would catch the quotient 0/0 of the textbook formula, and digits lost next to it."""
    switch = RationalSwitch(0.3, n=n, m=m)
    assert switch(jnp.asarray(0.3)) == pytest.approx(n / m, rel=1e-14)
    assert jax.grad(switch)(0.3) == pytest.approx(n * (n - m) / (2 * m) / 0.3, rel=1e-12)
    near = np.float64(0.3) * (1 + 1e-9)
    assert switch(jnp.asarray(near)) == pytest.approx(n / m * (1 + (n - m) / 2 * 1e-9), rel=1e-13)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("switch", [switch for switch, _ in FORMULAS], ids=lambda v: type(v).__name__)
def test_finite_wherever_a_particle_may_be(switch, dtype):
    r = np.array([0.0, 1e-30, 1e-3, 1e3, 1e6, 1e30], dtype=dtype)
    value, slope = jax.vmap(jax.value_and_grad(switch))(r)
    assert value.dtype == dtype
    assert np.isfinite(value).all()
    assert np.isfinite(slope).all()


def test_ends_of_the_compact_ones():
    assert CosineSwitch(0.5, d0=0.2).end == CubicSwitch(0.5, d0=0.2).end == 0.7
    assert CubicSwitch(0.5, d0=0.2, cutoff=0.6).end == 0.6
    assert RationalSwitch(0.5).end is None


def test_are_values():
    """They are static parts of CVs, so equal ones must not make JAX compile again."""
    assert RationalSwitch(0.3, cutoff=1) == RationalSwitch(0.3, cutoff=1.0)
    assert hash(RationalSwitch(0.3, cutoff=1)) == hash(RationalSwitch(0.3, cutoff=1.0))
    assert RationalSwitch(0.3) != RationalSwitch(0.3, d0=0.1)


@pytest.mark.parametrize(
    "make",
    [
        lambda: RationalSwitch(0.0),
        lambda: RationalSwitch(math.inf),
        lambda: RationalSwitch(0.3, d0=-0.1),
        lambda: RationalSwitch(0.3, n=12, m=6),
        lambda: RationalSwitch(0.3, n=6.5),
        lambda: RationalSwitch(0.3, n=True),
        lambda: RationalSwitch(0.3, d0=0.2, cutoff=0.2),
        lambda: GaussianSwitch(0.3, cutoff=math.inf),
        lambda: SmapSwitch(0.3, a=0, b=2),
        lambda: FermiSwitch(0.3, beta=0),
        lambda: TanhSwitch("wide"),
    ],
)
def test_bad_parameters_are_refused(make):
    with pytest.raises(InvalidInputError):
        make()
