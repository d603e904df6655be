"""COLVAR and HILLS: what is written is what was run, and what is read is what the runs that wrote it make together."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

import pysamp
from pysamp.analysis import hills, plumed, read_colvar, read_hills, write_colvar, write_hills
from pysamp.backends import toy
from pysamp.colvars import Component, custom
from pysamp.errors import InvalidInputError, PysampWarning
from pysamp.methods import HarmonicWalls, Metadynamics, Unbiased

X = Component([0], axis=0)
ANGLE = custom(lambda x: jnp.arctan2(x[0, 1], x[0, 0]), atoms=[0], period=2 * math.pi)
NAMES = ["Component_0.x", "custom_0"]


def simulation():
    return toy.Simulation(lambda x: 0.5 * jnp.sum(x**2), [[0.5, 0.2, 0.0]], kT=1.0, timestep=0.05)


def metadynamics(**options):
    return Metadynamics([X, ANGLE], height=0.3, sigma=[0.2, 0.4], stride=10, **options)


@pytest.fixture(scope="module")
def run():
    methods = [HarmonicWalls(X, upper=2.0, kspring=5.0), metadynamics(bias_factor=5.0)]
    return pysamp.run(methods, simulation, 400, replicas=2, seed=1, log_every=20, progress=False)


def test_colvar_has_the_log(run, tmp_path):
    write_colvar(run, tmp_path / "COLVAR", replica=1)
    found, log = read_colvar(tmp_path / "COLVAR"), run.log.isel(replica=1)
    names = ["Component_0.x", "Component_0.x_Metadynamics", "custom_0"]
    assert list(found.data_vars)[:5] == [*names, "bias", "HarmonicWalls.bias"]
    xi = np.stack([found[name].values for name in names], axis=1)
    np.testing.assert_array_equal(xi, log.xi)
    np.testing.assert_array_equal(found.time, log.time)
    np.testing.assert_array_equal(found.bias, log.bias_energy)
    np.testing.assert_array_equal(found["Metadynamics.bias"], log.method_energy.sel({"method": "Metadynamics"}))
    np.testing.assert_array_equal(found["Metadynamics.n_hills"], log["Metadynamics.n_hills"])
    assert found["custom_0"].attrs == {"lower": -math.pi, "upper": math.pi, "period": 2 * math.pi}
    assert found["Component_0.x"].attrs == {}
    header = (tmp_path / "COLVAR").read_text().splitlines()[:3]
    assert header[1:] == ["#! SET min_custom_0 -pi", "#! SET max_custom_0 pi"]


@pytest.mark.parametrize("gamma", [5.0, None])
def test_hills_keep_their_heights(gamma, tmp_path):
    """In the file well-tempered heights are gamma / (gamma - 1) times as high; read again they are as deposited."""
    run = pysamp.run(metadynamics(bias_factor=gamma), simulation, 400, seed=1, progress=False)
    write_hills(run, tmp_path / "HILLS")
    lines = (tmp_path / "HILLS").read_text().splitlines()
    sigmas = [f"sigma_{name}" for name in NAMES]
    assert lines[0].split() == ["#!", "FIELDS", "time", *NAMES, *sigmas, "height", "biasf"]
    assert lines[1:3] == ["#! SET multivariate false", "#! SET kerneltype gaussian"]
    first = [float(word) for word in lines[5].split()]
    assert first[0] == pytest.approx(0.5)
    assert first[-2:] == [pytest.approx(0.375), 5.0] if gamma else [0.3, 1.0]
    found, exact = read_hills(tmp_path / "HILLS"), hills(run).isel(replica=0)
    np.testing.assert_array_equal(found.center, exact.center)
    np.testing.assert_allclose(found.height, exact.height, rtol=1e-15)
    np.testing.assert_array_equal(found.sigma[0], [0.2, 0.4])
    np.testing.assert_array_equal(found.cv_upper, [math.nan, math.pi])
    assert found.cv.values.tolist() == NAMES


def test_hills_have_the_names_of_the_colvar_file(run, tmp_path):
    write_hills(run, tmp_path / "HILLS")
    write_colvar(run, tmp_path / "COLVAR")
    assert set(read_hills(tmp_path / "HILLS").cv.values) < set(read_colvar(tmp_path / "COLVAR").data_vars)


def test_words_are_unique():
    labels = ["Angle(1, 2)", "Angle(1,2)", "time", "height", "((", "a b.x"]
    assert plumed._as_words(labels) == ["Angle_1_2", "Angle_1_2_2", "time_2", "height_2", "cv", "a_b.x"]


HEADER = "#! FIELDS time phi metad.bias\n#! SET min_phi -pi\n#! SET max_phi pi\n"


def read_text(tmp_path, text, read=read_colvar):
    (tmp_path / "FILE").write_text(text)
    return read(tmp_path / "FILE")


def test_restarts_replace_what_came_after_them(tmp_path):
    """The second run began at 2, from a checkpoint; the rows of the first from there on never happened."""
    text = f"{HEADER}0 0.0 0\n1 0.1 0\n\n2 0.2 0 # seen\n3 0.3 0\n# by hand\n{HEADER}2 -0.2 NaN\n3 nan 1e-3\n3 0.33 1\n"
    found = read_text(tmp_path, text)
    assert found.time.values.tolist() == [0, 1, 2, 3]
    assert found.phi.values.tolist() == [0.0, 0.1, -0.2, 0.33]
    np.testing.assert_array_equal(found["metad.bias"], [0.0, 0.0, math.nan, 1.0])


def test_time_that_goes_back_is_a_restart_also_without_header(tmp_path):
    found = read_text(tmp_path, HEADER + "0 0 0\n1 1 0\n2 2 0\n3 3 0\n1 -1 0\n2 -2 0\n")
    assert found.phi.values.tolist() == [0, -1, -2]


@pytest.mark.parametrize("restart", ["#! FIELDS time r sigma_r height biasf\n", "3 0.7 0.02 1 5\n"])
def test_walkers_that_share_a_file_keep_their_hills(tmp_path, restart):
    """Rows of the same time stay, but not those from before a restart, which a header or an earlier time tells."""
    header = "#! FIELDS time r sigma_r height biasf\n"
    rows = "1 0.1 0.02 1.25 5\n1 0.2 0.02 1.25 5\n2 0.3 0.02 1 5\n2 0.4 0.02 1 5\n"
    again = "2 0.5 0.02 1 5\n2 0.6 0.02 1 5\n"
    found = read_text(tmp_path, header + rows + restart + again, read_hills)
    assert found.center.values[:, 0].tolist() == [0.1, 0.2, 0.5, 0.6]
    np.testing.assert_allclose(found.height, [1.0, 1.0, 0.8, 0.8])


@pytest.mark.parametrize(
    ("text", "value"), [("2*pi", 2 * math.pi), ("+pi/2", math.pi / 2), ("0.5*pi", math.pi / 2), ("1.5", 1.5)]
)
def test_bounds_may_be_multiples_of_pi(tmp_path, text, value):
    found = read_text(tmp_path, f"#! FIELDS time phi\n#! SET min_phi 0\n#! SET max_phi {text}\n#! SET other abc\n0 1\n")
    assert (found.phi.period, found.attrs) == (value, {"other": "abc"})


def test_a_range_from_zero_is_seen(tmp_path):
    turn = custom(lambda x: jnp.arctan2(x[0, 1], x[0, 0]) % (2 * math.pi), atoms=[0], period=2 * math.pi)
    run = pysamp.run(Unbiased(turn), simulation, 400, seed=1, log_every=5, progress=False)
    assert run.log.xi.max() > math.pi
    write_colvar(run, tmp_path / "COLVAR")
    assert read_colvar(tmp_path / "COLVAR")["custom_0"].attrs["lower"] == 0.0


def test_a_last_line_that_was_cut_is_left_out(tmp_path):
    with pytest.warns(PysampWarning, match="line 5"):
        found = read_text(tmp_path, HEADER + "0 0 0\n1 0.5")
    assert found.sizes["sample"] == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 2 3\n", "FILE, line 1: numbers come before"),
        ("", "FILE: no header"),
        (HEADER + "0 0 0\n1 0\n2 0 0\n", "FILE, line 5: expected 3 numbers"),
        (HEADER + "0 zero 0\n", "FILE, line 4: phi must be a number, got 'zero'"),
        (HEADER + "nan 0 0\n", "FILE, line 4: the time"),
        (HEADER + "0 0 0\n#! FIELDS time psi\n", "FILE, line 5: the columns change"),
        ("#! FIELDS phi psi\n", "FILE, line 1: the columns must"),
        ("#! FIELDS time phi phi\n", "FILE, line 1: the columns must"),
        ("#! FIELDS time phi\n#! GET it\n", "FILE, line 2: expected '#! FIELDS"),
        ("#! FIELDS time phi\n#! SET min_phi low\n#! SET max_phi pi\n0 1\n", "the bound of phi must be a number"),
    ],
)
def test_files_that_are_not_of_this_format(tmp_path, text, message):
    with pytest.raises(InvalidInputError, match=message):
        read_text(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEADER, "FILE, line 1: the columns of a HILLS file"),
        ("#! FIELDS time r sigma_r height\n", "FILE, line 1: the columns of a HILLS file"),
        ("#! FIELDS time r sigma_r height biasf\n#! SET multivariate true\n", "FILE, line 1: the hills are tilted"),
    ],
)
def test_hills_that_cannot_be_read(tmp_path, text, message):
    with pytest.raises(InvalidInputError, match=message):
        read_text(tmp_path, text, read_hills)


def test_nothing_to_write(run, tmp_path):
    short = pysamp.run(metadynamics(), simulation, 5, progress=False)
    with pytest.raises(InvalidInputError, match="no hills yet"):
        write_hills(short, tmp_path / "HILLS")
    with pytest.raises(InvalidInputError, match="replicas 0 to 1"):
        write_colvar(run, tmp_path / "COLVAR", replica=2)
