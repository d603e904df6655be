import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pysamp.errors import InvalidInputError
from pysamp.snapshot import Cell, Snapshot, _reduce

BOXES = {
    "orthorhombic": np.diag([1.0, 2.0, 3.0]),
    "reduced": np.array([[2.516415, 0.0, 0.0], [1.107591, 2.323963, 0.0], [-1.084953, 1.035637, 2.268539]]),
    "truncated octahedron": np.array([[3.0, 0.0, 0.0], [1.0, 8**0.5, 0.0], [-1.0, 2**0.5, 6**0.5]]),
    "OpenMM allows it, yet a + 2b is shortest": np.array([[10.0, 0.0, 0.0], [5.0, 1.0, 0.0], [0.0, 0.0, 10.0]]),
    "strongly skewed": np.array([[2.0, 0.0, 0.0], [5.0, 1.5, 0.0], [-3.3, 4.1, 2.0]]),
    "turned": np.array([[0.3, -1.2, 0.5], [1.1, 0.2, -0.4], [-0.6, 0.9, 1.7]]),
    "left-handed": np.array([[0.0, 2.0, 0.3], [2.0, 0.0, 0.0], [0.4, 0.0, 2.0]]),
}
MANY = np.array(list(itertools.product(range(-12, 13), repeat=3)), dtype=float)


def shortest(box, vectors):
    """Lengths of the shortest images, by trying 25^3 of them."""
    rounded = vectors - np.round(vectors @ np.linalg.inv(box)) @ box
    return np.array([np.sqrt(((v - MANY @ box) ** 2).sum(axis=1).min()) for v in rounded])


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("name", BOXES)
@pytest.mark.parametrize("known", [True, False])
def test_nearest_image_is_the_shortest_of_many(name, known):
    box = BOXES[name]
    vectors = 6.0 * np.random.default_rng(1).normal(size=(64, 3))
    cell = Cell.of(box) if known else Cell(box)
    nearest = np.asarray(jax.jit(lambda v: cell.nearest(v))(vectors))
    np.testing.assert_allclose(np.linalg.norm(nearest, axis=1), shortest(box, vectors), rtol=1e-12)
    images = (vectors - nearest) @ np.linalg.inv(box)
    np.testing.assert_allclose(images, np.round(images), atol=1e-11)


def test_rounding_alone_would_be_wrong():
    """Guards the test above: in a skewed box it has something to find."""
    box = BOXES["reduced"]
    vectors = 6.0 * np.random.default_rng(1).normal(size=(64, 3))
    rounded = vectors - np.round(vectors @ np.linalg.inv(box)) @ box
    assert (np.linalg.norm(rounded, axis=1) > shortest(box, vectors) + 1e-9).mean() > 0.1


def test_voronoi_cells_of_reduced_boxes_reach_less_far_than_assumed():
    """27 images suffice while fractional coordinates in the Voronoi cell stay below 1.5; they do with a margin.

    Would catch a wrong reduction, or a choice of three of its four vectors that is worse than thought.
    """
    rng = np.random.default_rng(2)
    images = np.array(list(itertools.product(range(-3, 4), repeat=3)), dtype=float)
    boxes = [rng.normal(size=(3, 3)) for _ in range(40)]
    boxes += [np.eye(3) + np.tril(rng.integers(-3, 4, (3, 3)), -1) + 1e-3 * rng.normal(size=(3, 3)) for _ in range(40)]
    boxes += [np.diag([1.0, 1.0, z]) + 0.01 * rng.normal(size=(3, 3)) for z in np.geomspace(0.05, 20.0, 20)]
    reach = 0.0
    for box in boxes:
        integers = np.asarray(_reduce(box))
        assert abs(abs(np.linalg.det(integers)) - 1.0) < 1e-9
        basis = integers @ box
        fractions = rng.uniform(-0.5, 0.5, (300, 3))
        candidates = fractions[:, None] - images
        best = np.argmin(((candidates @ basis) ** 2).sum(axis=-1), axis=1)
        reach = max(reach, np.abs(candidates[np.arange(300), best]).max())
    assert reach < 1.2


def test_changing_box_keeps_its_reduction_exact():
    box = BOXES["strongly skewed"]
    cell = Cell.of(box)
    vectors = 6.0 * np.random.default_rng(3).normal(size=(32, 3))
    for seed in range(5):
        strain = np.eye(3) + 0.08 * np.random.default_rng(seed).normal(size=(3, 3))
        changed = box @ strain
        lengths = np.linalg.norm(cell.with_box(changed).nearest(vectors), axis=1)
        np.testing.assert_allclose(lengths, shortest(changed, vectors), rtol=1e-12)


@pytest.mark.parametrize("name", BOXES)
def test_derivatives_keep_the_image_fixed(name):
    """d(v - n h) / dv = 1 and / dh = -n, in every kind of cell."""
    box, cell = jnp.asarray(BOXES[name]), Cell.of(BOXES[name])
    vector = 6.0 * np.random.default_rng(4).normal(size=3)
    by_vector, by_box = jax.jacrev(lambda v, b: cell.with_box(b).nearest(v), argnums=(0, 1))(vector, box)
    images = np.round((vector - cell.nearest(vector)) @ np.linalg.inv(BOXES[name]))
    np.testing.assert_allclose(by_vector, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(by_box, -np.einsum("ij,k->ikj", np.eye(3), images), atol=1e-9)


def test_displacement_points_from_start_to_end_and_broadcasts():
    cell = Cell.of(np.diag([2.0, 2.0, 2.0]))
    np.testing.assert_allclose(cell.displacement(np.zeros(3), np.array([1.5, 0.25, 0.0])), [-0.5, 0.25, 0.0])
    assert cell.displacement(np.zeros((1, 3)), np.zeros((5, 3))).shape == (5, 3)
    np.testing.assert_allclose(Cell().displacement(np.zeros(3), np.array([1.5, 9.0, 0.0])), [1.5, 9.0, 0.0])


def test_single_precision_stays_single():
    with jax.enable_x64(False):
        for box in BOXES.values():
            cell = Cell.of(box.astype(np.float32))
            assert cell.nearest(jnp.ones((4, 3), dtype=np.float32)).dtype == np.float32


@pytest.mark.parametrize("known", [True, False])
def test_step_has_no_library_calls(known):
    """Would catch an inverse or determinant of jax.numpy, which break the one compiled function of a step."""
    box = BOXES["reduced"]
    cell = Cell.of(box) if known else Cell(box)
    compiled = jax.jit(lambda v, b: cell.with_box(b).nearest(v)).lower(np.ones((3, 3)), box).compile().as_text() or ""
    assert "custom-call" not in compiled
    if known:
        assert not any(word in compiled for word in (" gather(", " scatter(", " sort(", " while("))


@pytest.mark.parametrize("box", [[1.0, 2.0, 3.0], np.zeros((3, 3)), np.full((3, 3), np.nan), np.eye(2), "cube"])
def test_impossible_box_is_refused(box):
    with pytest.raises(InvalidInputError):
        Cell.of(box)


def test_snapshot_knows_its_cell():
    snapshot = Snapshot(np.zeros((2, 3)), None, np.ones(2), np.diag([1.0, 2.0, 3.0]))
    assert snapshot.cell.orthorhombic
    assert Snapshot(np.zeros((2, 3)), None, np.ones(2)).cell.box is None
    assert not Snapshot(np.zeros((2, 3)), None, np.ones(2), BOXES["reduced"]).cell.orthorhombic
