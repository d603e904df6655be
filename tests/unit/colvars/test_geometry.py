import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pysamp.colvars import Angle, Component, DihedralAngle, Displacement, Distance, Group
from pysamp.errors import InvalidInputError
from pysamp.methods import Unbiased
from pysamp.sampler import Particles, Sampler
from pysamp.snapshot import Cell
from pysamp.system import System


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


def chain(angle):
    """Four points whose torsion is ``angle``: looking along the middle bond, clockwise is positive."""
    return jnp.array([[1.0, 0.0, -0.3], [0.0, 0.0, 0.0], [0.0, 0.0, 1.0], [math.cos(angle), math.sin(angle), 1.4]])


@pytest.mark.parametrize("angle", [-3.1, -math.pi / 2, -1e-9, 0.0, 1e-9, 0.7, 2.0, math.pi])
def test_dihedral_has_the_iupac_sign(angle):
    assert DihedralAngle([0, 1, 2, 3])(chain(angle), Cell()) == pytest.approx(angle, abs=1e-15, rel=1e-12)


def test_cis_and_trans():
    value = DihedralAngle([0, 1, 2, 3])
    assert value(chain(0.0), Cell()) == 0.0
    assert abs(value(chain(math.pi), Cell())) == pytest.approx(math.pi)


@pytest.mark.parametrize("angle", [0.0, 1e-9, 0.3, math.pi / 2, 3.0, math.pi - 1e-9])
def test_angle_keeps_its_digits(angle):
    x = jnp.array([[2.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.5 * math.cos(angle), 0.5 * math.sin(angle), 0.0]])
    assert Angle([0, 1, 2])(x, Cell()) == pytest.approx(angle, rel=1e-12)


def test_distance_and_displacement_of_the_nearest_images():
    x = jnp.array([[0.1, 0.0, 0.2], [1.9, 1.0, 0.2]])
    cell = Cell.of(np.diag([2.0, 4.0, 4.0]))
    np.testing.assert_allclose(Displacement([3, 4])(x, cell), [-0.2, 1.0, 0.0], atol=1e-15)
    assert Distance([3, 4])(x, cell) == pytest.approx(math.hypot(0.2, 1.0))
    assert Component([3, 4], axis=0)(x, cell) == pytest.approx(-0.2)
    assert Component([3], axis=2)(x[:1], cell) == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("cv", "x"),
    [
        (Distance([0, 1]), jnp.zeros((2, 3))),
        (Angle([0, 1, 2]), jnp.zeros((3, 3))),
        (Angle([0, 1, 2]), jnp.array([[1.0, 0, 0], [0, 0, 0], [2.0, 0, 0]])),
        (Angle([0, 1, 2]), jnp.array([[1.0, 0, 0], [0, 0, 0], [-2.0, 0, 0]])),
        (DihedralAngle([0, 1, 2, 3]), jnp.zeros((4, 3))),
        (DihedralAngle([0, 1, 2, 3]), jnp.arange(4.0)[:, None] * jnp.ones((1, 3))),
    ],
)
def test_force_is_zero_where_it_is_not_defined(cv, x):
    np.testing.assert_array_equal(jax.grad(cv)(x, Cell()), np.zeros_like(x))


@pytest.mark.parametrize("tiny", [1e-3, 1e-30, 1e-100, 1e-160, 1e-300])
def test_force_is_finite_near_where_it_is_not_defined(tiny):
    """Would catch squares that underflow to zero under a division."""
    x = tiny * jax.random.normal(jax.random.key(0), (4, 3))
    for cv in (Distance([0, 1]), Angle([0, 1, 2]), DihedralAngle([0, 1, 2, 3])):
        assert np.isfinite(jax.grad(cv)(x[: len(cv.atoms)], Cell())).all(), cv.name


@pytest.mark.parametrize("angle", [0.0, math.pi])
def test_dihedral_force_at_the_planar_forms_turns_the_ends(angle):
    """Would catch a gradient lost to the square root at the branch points of the arctangent."""
    gradient = jax.grad(DihedralAngle([0, 1, 2, 3]))(chain(angle), Cell())
    assert gradient[3, 1] == pytest.approx(math.cos(angle))  # 1 / (distance from the axis), along the tangent


def test_dihedral_is_computed_without_gathers_or_library_calls():
    """The step is to compile to one function; would catch jnp.linalg, indexing by arrays and the like."""
    cv = DihedralAngle([0, 1, 2, 3])
    for cell in (Cell(), Cell.of(3.0 * np.eye(3))):
        text = jax.jit(jax.value_and_grad(cv)).lower(chain(1.0), cell).compile().as_text() or ""
        assert not any(word in text for word in (" gather(", " scatter(", " sort(", " while(", "custom-call"))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Distance([0]), r"needs 2 atoms or groups \(.*\), got 1"),
        (lambda: Distance([0, 0]), r"the same particle or group twice: \[0, 0\]"),
        (lambda: Distance([0, -1]), "count from 0 upwards; got -1"),
        (lambda: Distance([0, 1.5]), r"an integer counted from 0; got 1\.5"),
        (lambda: Distance([0, True]), "an integer counted from 0; got True"),
        (lambda: Distance("01"), "a list of indices or Groups, got '01'"),
        (lambda: Distance([[0, 1], [2]]), r"A centre of several particles is Group\(\[\.\.\.\]\)"),
        (lambda: Angle([0, 1]), "needs 3 atoms"),
        (lambda: DihedralAngle([0, 1, 2]), "needs 4 atoms"),
        (lambda: Component([0], axis=3), "axis=0, 1 or 2 for x, y or z; got 3"),
        (lambda: Component([0, 1, 2], axis=0), "one atom or group, or two"),
        (lambda: Group([]), "at least one particle"),
        (lambda: Group([1, 1]), r"lists a particle twice: \[1, 1\]"),
        (lambda: Group([0, 1], weights=[1.0]), "as many weights, got 1"),
        (lambda: Group([0, 1], weights=[1.0, -1.0]), "finite with a positive sum"),
        (lambda: Group([0, 1], weights=[1.0, float("nan")]), "finite with a positive sum"),
    ],
)
def test_bad_atoms_are_refused(make, says):
    with pytest.raises(InvalidInputError, match=says):
        make()


def test_indices_may_be_of_any_integer_type():
    assert Distance(np.array([0, 5])).atoms == (0, 5)
    assert Distance(jnp.array([0, 5])).atoms == (0, 5)
    assert Distance(range(2)).atoms == (0, 1)


def evaluate(cv, x, *, box=None, masses=None):
    """The CV as the sampler sees it."""
    x = np.asarray(x, dtype=float)
    cell = Cell.of(box)
    masses = np.ones(len(x)) if masses is None else np.asarray(masses, dtype=float)
    system = System(
        masses, timestep=1.0, kT=1.0, periodic=box is not None, orthorhombic=cell.orthorhombic, reduction=cell.reduction
    )
    sampler = Sampler.build(Unbiased([cv]), system)
    return np.asarray(sampler.xi(Particles(jnp.asarray(x[list(sampler.atoms)]), box)))


class TestGroups:
    x = np.array([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 3.0, 0.0], [5.0, 5.0, 5.0]])

    def test_centre_of_mass(self):
        value = evaluate(Displacement([3, Group([0, 1, 2])]), self.x, masses=[1.0, 2.0, 1.0, 9.0])
        np.testing.assert_allclose(value, [0.5 - 5, 0.75 - 5, -5.0])

    def test_centre_of_geometry(self):
        value = evaluate(Displacement([3, Group([0, 1, 2], weights=1)]), self.x, masses=[1.0, 2.0, 1.0, 9.0])
        np.testing.assert_allclose(value, [1 / 3 - 5, 1 - 5, -5.0])

    def test_own_weights_need_not_be_normalised(self):
        value = evaluate(Displacement([3, Group([0, 1, 2], weights=[2.0, 2.0, 4.0])]), self.x)
        np.testing.assert_allclose(value, [0.25 - 5, 1.5 - 5, -5.0])

    @pytest.mark.parametrize("seed", range(3))
    @pytest.mark.parametrize(
        "box", [np.diag([4.0, 5.0, 6.0]), np.array([[4.0, 0, 0], [2.0, 4.0, 0], [-2.0, 1.9, 4.0]])]
    )
    def test_is_made_whole_along_its_list(self, box, seed):
        """A chain longer than half the box, whose atoms an engine put back into the box one by one."""
        rng = np.random.default_rng(seed)
        whole = np.cumsum(rng.normal(size=(12, 3)) * 0.5, axis=0)
        broken = whole + rng.integers(-2, 3, whole.shape) @ box
        weights = rng.uniform(1.0, 2.0, 12)
        cv = Component([Group(range(12), weights=weights)], axis=0)
        first = broken[0] - whole[0]
        expected = (weights @ (whole + first) / weights.sum())[0]
        assert evaluate(cv, broken, box=box) == pytest.approx(expected, abs=1e-12)

    def test_without_mass_is_refused(self):
        with pytest.raises(InvalidInputError, match="weights=1"):
            evaluate(Distance([3, Group([0, 1])]), self.x, masses=[0.0, 0.0, 1.0, 1.0])
