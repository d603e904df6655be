import pickle

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pysamp.colvars import DihedralAngle, Distance, Learned, load_weights, save_weights
from pysamp.errors import CheckpointError, InvalidInputError
from pysamp.snapshot import Cell

CVS = [DihedralAngle([0, 1, 2, 3]), Distance([0, 3])]
X = jax.random.normal(jax.random.key(0), (6, 3))


def network(seed=0):
    return eqx.nn.MLP(3, 2, width_size=8, depth=2, activation=jnp.tanh, key=jax.random.key(seed))


def test_the_function_gets_scaled_features():
    angle, distance = CVS[0](X[:4], Cell()), CVS[1](X[4:], Cell())
    cv = Learned(CVS, lambda f: f, components=["a", "b", "c"], mean=[0.1, 0.2, 0.3], scale=[1.0, 1.0, 2.0])
    expected = [jnp.cos(angle) - 0.1, jnp.sin(angle) - 0.2, (distance - 0.3) / 2]
    np.testing.assert_allclose(cv(X, Cell()), expected, rtol=1e-12)


def test_new_parameters_need_no_new_compilation():
    n_traces = 0

    @jax.jit
    def value(cv, x):
        nonlocal n_traces
        n_traces += 1
        return cv(x, Cell())

    cvs = [Learned(CVS, network(seed), components=["a", "b"]) for seed in range(3)]
    values = [np.asarray(value(cv, X)) for cv in cvs]
    trained = eqx.tree_at(lambda cv: cv.function.arrays, cvs[0], cvs[1].function.arrays)
    np.testing.assert_array_equal(value(trained, X), values[1])
    assert not np.allclose(values[0], values[1])
    assert n_traces <= 3  # one for each activation object that equinox makes, none for the change of parameters


@pytest.mark.parametrize("ending", ["npz", "safetensors"])
def test_weights_come_back(ending, tmp_path):
    if ending == "safetensors":
        pytest.importorskip("safetensors")
    path = tmp_path / f"network.{ending}"
    save_weights(network(0), path)
    loaded = load_weights(network(1), path)
    f = jnp.arange(3.0)
    np.testing.assert_array_equal(loaded(f), network(0)(f))


def test_files_run_no_code(tmp_path):
    """A pickle in the place of an array: what torch.load and np.load(allow_pickle=True) execute."""

    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("code of the file was run",))

    path = tmp_path / "network.npz"
    np.savez(path, weight=np.array([Bomb()], dtype=object), allow_pickle=True)
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_weights(eqx.nn.Linear(2, 1, key=jax.random.key(0)), path)
    path.write_bytes(pickle.dumps({"weight": 1}))
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_weights(eqx.nn.Linear(2, 1, key=jax.random.key(0)), path)
    with pytest.raises(InvalidInputError, match="npz or"):
        load_weights(network(), tmp_path / "network.pt")


def test_weights_that_do_not_fit(tmp_path):
    save_weights(network(), tmp_path / "a.npz")
    wider = eqx.nn.MLP(3, 2, width_size=9, depth=2, key=jax.random.key(0))
    with pytest.raises(CheckpointError, match="of shape"):
        load_weights(wider, tmp_path / "a.npz")
    shallower = eqx.nn.MLP(3, 2, width_size=8, depth=1, key=jax.random.key(0))
    with pytest.raises(CheckpointError, match="no place"):
        load_weights(shallower, tmp_path / "a.npz")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_weights(network(), tmp_path / "absent.npz")


def test_flax_modules():
    linen = pytest.importorskip("flax.linen")
    module = linen.Sequential([linen.Dense(8), jnp.tanh, linen.Dense(1)])
    variables = module.init(jax.random.key(0), jnp.zeros(3))
    cv = Learned(CVS, jax.tree_util.Partial(lambda v, f: module.apply(v, f)[0], variables))
    assert np.isfinite(jax.grad(cv)(X, Cell())).all()


@pytest.mark.parametrize(
    "make",
    [
        lambda: Learned(CVS, 3.0),
        lambda: Learned(CVS, network(), components="ab"),
        lambda: Learned(CVS, network(), mean=[0.0, 0.0]),
        lambda: Learned(CVS, network(), scale=0.0),
        lambda: Learned([], network()),
    ],
)
def test_wrong_arguments(make):
    with pytest.raises(InvalidInputError):
        make()
