import functools
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pysamp.colvars import Combination, Component, DihedralAngle, Displacement, Distance, Group, combine, custom
from pysamp.errors import InvalidInputError
from pysamp.snapshot import Cell

phi, psi = DihedralAngle([4, 6, 8, 14]), DihedralAngle([6, 8, 14, 16])
near, far = Distance([0, 1]), Distance([2, Group([3, 4, 5])])
arrow = Displacement([0, 1])


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


def value(cv, seed=0):
    x = np.random.default_rng(seed).normal(size=(len(cv.atoms), 3))
    return np.asarray(jax.jit(lambda cv, x: cv(x, Cell()))(cv, jnp.asarray(x)))


def parts(*cvs, seed=0):
    x = np.random.default_rng(seed).normal(size=(sum(len(cv.atoms) for cv in cvs), 3))
    values = []
    for cv in cvs:
        values.append(np.asarray(cv(jnp.asarray(x[: len(cv.atoms)]), Cell())))
        x = x[len(cv.atoms) :]
    return values


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("cv", "members", "expected"),
    [
        (near + far, [near, far], lambda a, b: a + b),
        (near - far, [near, far], lambda a, b: a - b),
        (near * far, [near, far], lambda a, b: a * b),
        (near / far, [near, far], lambda a, b: a / b),
        (2.0 * near, [near], lambda a: 2 * a),
        (np.float64(2.0) * near, [near], lambda a: 2 * a),
        (near / 4, [near], lambda a: a / 4),
        (-near, [near], lambda a: -a),
        (1 - near, [near], lambda a: 1 - a),
        (near - 1, [near], lambda a: a - 1),
        (3 / near, [near], lambda a: 3 / a),
        (arrow * 2, [arrow], lambda a: a * 2),
        (arrow + np.array([1.0, 2.0, 3.0]), [arrow], lambda a: a + np.array([1.0, 2.0, 3.0])),
        (np.array([1.0, 2.0, 3.0]) - arrow, [arrow], lambda a: np.array([1.0, 2.0, 3.0]) - a),
        (arrow * near, [arrow, near], lambda a, b: a * b),
        ((near + far) * (near - far), [near, far, near, far], lambda a, b, c, d: (a + b) * (c - d)),
        (combine(lambda a, b: a @ b, [arrow, arrow]), [arrow, arrow], lambda a, b: a @ b),
        (combine(jnp.hypot, [near, far]), [near, far], np.hypot),
    ],
)
def test_arithmetic(cv, members, expected, seed):
    np.testing.assert_allclose(value(cv, seed), expected(*parts(*members, seed=seed)), rtol=1e-13)
    assert np.shape(value(cv)) == ((cv.n_components,) if cv.component_names else ())


@pytest.mark.parametrize("seed", range(5))
def test_sum_of_periodic_cvs_is_wrapped(seed):
    total, (a, b) = phi + psi, parts(phi, psi, seed=seed)
    assert total.period == pytest.approx(2 * math.pi)
    assert value(total, seed) == pytest.approx((a + b + math.pi) % (2 * math.pi) - math.pi)
    assert (2 * phi).period == pytest.approx(4 * math.pi)
    assert (phi - 3.0).period == pytest.approx(2 * math.pi)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: phi + near, r"sum of DihedralAngle\(4, 6, 8, 14\) \(period .*use combine\(function, cvs, period="),
        (lambda: phi + 2 * psi, r"\(period 12\.5.*use combine"),
        (lambda: phi * psi, r"has the period 6\.28.*a product.*such as a cosine"),
        (lambda: near / phi, r"has the period 6\.28.*quotient"),
        (lambda: 1 / phi, r"has the period 6\.28.*quotient"),
        (lambda: 0 * near, r"any finite number except zero, got 0\.0"),
        (lambda: near / 0, r"any finite number except zero, got inf"),
        (lambda: near * float("inf"), r"any finite number except zero, got inf"),
        (lambda: near + "a", r"Expected a number or an array of numbers, got 'a'"),
        (lambda: near * [1.0, 2.0], r"Expected one number, got an array of shape \(2,\)"),
        (lambda: near + np.array([1.0, 2.0]), r"cannot be shifted by an array of shape \(2,\); give one number"),
        (
            lambda: arrow + custom(lambda x: x[0, :2], atoms=[0], components=["a", "b"]),
            r"have different components; use combine\(function, cvs, components=",
        ),
        (lambda: combine(3, [near]), "needs a function of the values of CVs, got 3"),
        (lambda: combine(jnp.cos, near), r"needs a list of CVs, got .*for a single one write \[cv\]"),
        (lambda: combine(jnp.cos, [1]), r"needs CVs such as \[Distance.*got 1"),
        (lambda: combine(jnp.cos, []), r"needs CVs such as \[Distance.*got \[\]"),
    ],
)
def test_meaningless_arithmetic_is_refused(make, text):
    with pytest.raises(InvalidInputError, match=text):
        make()


def test_parameters_of_combinations_need_no_new_trace():
    traced = []

    @jax.jit
    def evaluate(cv, x):
        traced.append(None)
        return cv(x, Cell())

    for factor in (1.5, 2.5):
        cv = Combination((factor * near).function, [near], label="the label is static")
        evaluate(cv, jnp.ones((2, 3)))
    assert len(traced) == 1


def test_labels():
    assert near.name == "Distance(0, 1)"
    assert far.name == "Distance(2, Group(3, 4, 5))"
    assert Distance([0, Group(range(1, 60))]).name == "Distance(0, Group(1..59, 59 particles))"
    assert arrow.labels == ("Displacement(0, 1).x", "Displacement(0, 1).y", "Displacement(0, 1).z")
    assert (near - far).name == "(Distance(0, 1) - Distance(2, Group(3, 4, 5)))"
    assert (2 * arrow).labels[0] == "2*Displacement(0, 1).x"
    assert combine(jnp.cos, [phi]).name == "cos(DihedralAngle(4, 6, 8, 14))"
    assert len({custom(lambda x: x[0, 0], atoms=[i]).name for i in range(3)}) == 3
    assert Component([0], axis=1).name != Component([0], axis=2).name


class TestCustom:
    def test_with_and_without_cell(self):
        x = jnp.arange(6.0).reshape(2, 3)
        cell = Cell.of(4.0 * np.eye(3))
        assert custom(lambda x: x[1, 0], atoms=[0, 1])(x, cell) == 3.0
        assert custom(lambda x, cell: cell.displacement(x[0], x[1])[0], atoms=[0, 1])(x, cell) == -1.0
        assert custom(lambda x, cell=cell: jnp.trace(jnp.asarray(cell.box)), atoms=[0])(x[:1], cell) == 12.0
        assert custom(lambda x, power=2: x[0, 1] ** power, atoms=[0])(x[:1], cell) == 1.0
        assert custom(functools.partial(lambda k, x: k * x[0, 1], 5.0), atoms=[0])(x[:1], cell) == 5.0
        assert custom(jnp.max, atoms=[0, 1])(x, cell) == 5.0

    def test_named_after_its_function(self):
        def end_to_end(x):
            return x[0, 0]

        assert custom(end_to_end, atoms=[0, 9]).name == "end_to_end(0, 9)"

    def test_neural_network_is_a_pytree_of_its_weights(self):
        """Would catch weights that are static: unhashable, and compiled in as constants."""

        class Network(eqx.Module):
            mlp: eqx.nn.MLP

            def __call__(self, x):
                return self.mlp(x.reshape(-1))

        cv = custom(Network(eqx.nn.MLP(6, "scalar", 8, 2, key=jax.random.key(0))), atoms=[0, 1])
        assert len(jax.tree.leaves(cv)) == 6
        assert value(cv).shape == ()
        assert cv.name == "Network(0, 1)"
        hash(jax.tree.structure(cv))

    @pytest.mark.parametrize(
        ("make", "text"),
        [
            (lambda: custom(3, atoms=[0]), "needs a function of positions, got 3"),
            (lambda: custom(lambda: 1.0, atoms=[0]), r"function of \(x\) or \(x, cell\), got one of \(\)"),
            (lambda: custom(lambda x, cell, more: 1.0, atoms=[0]), r"got one of \(x, cell, more\).*functools\.partial"),
            (lambda: custom(lambda x, *, k: 1.0, atoms=[0]), r"got one of \(x, k\).*functools\.partial"),
            (lambda: custom(lambda x: 1.0, atoms=[]), "needs the atoms .*got an empty list"),
            (lambda: custom(lambda x: 1.0, atoms=[0, 0]), r"the same particle or group twice: \[0, 0\]"),
            (lambda: custom(lambda x: 1.0, atoms=[0], period=0.0), "must be positive and finite, got 0.0.*period=None"),
            (lambda: custom(lambda x: 1.0, atoms=[0], period=float("inf")), "positive and finite, got inf"),
            (
                lambda: custom(lambda x: 1.0, atoms=[0], components="xyz"),
                r"a list of names, got 'xyz'; write \['xyz'\]",
            ),
        ],
    )
    def test_misuse_is_refused(self, make, text):
        with pytest.raises(InvalidInputError, match=text):
            make()
