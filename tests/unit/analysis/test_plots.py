"""Figures, by what is on their artists; nothing is rendered."""

import sys

import numpy as np
import pytest
import xarray as xr

from pysamp.analysis import plot_convergence, plot_overlap, plot_traces
from pysamp.colvars import Component, DihedralAngle
from pysamp.errors import InvalidInputError
from pysamp.methods import HarmonicWalls, Unbiased

from .ideal import make_run

pytest.importorskip("matplotlib").use("Agg")

PHI, X = DihedralAngle([0, 1, 2, 3]), Component([0], axis=0)
TRACE = np.array([[[3.0, 0.0], [-3.0, 4.0], [-2.5, -4.0]], [[0.0, 1.0], [1.0, 1.0], [-1.0, 2.0]]])


def panels(n):
    from matplotlib.figure import Figure

    return Figure().subplots(n, squeeze=False)[:, 0]


def run_of(xi=TRACE):
    methods = [Unbiased(PHI), HarmonicWalls(X, upper=9.0, kspring=1.0)]
    run = make_run(methods, [(None, None)] * len(xi), xi, np.array([0, 10, 20]))
    log = run.log.assign_coords(cv=["phi", "x"], time=("sample", [0.0, 1.0, 2.0]))
    object.__setattr__(run, "log", log)
    return run


def drawn(line):
    return np.asarray(line.get_xdata(), dtype=float), np.asarray(line.get_ydata(), dtype=float)


def test_traces_have_a_panel_for_each_cv_and_a_line_for_each_replica():
    """Of the angle from 3 to -3 no line goes through 0; the same jump of a length is drawn."""
    axes = panels(2)
    found = plot_traces(run_of(), axes)
    assert list(found) == list(axes)
    assert [ax.get_ylabel() for ax in axes] == ["phi", "x"]
    assert axes[1].get_xlabel() == "time"
    first, second = axes[0].lines
    np.testing.assert_array_equal(drawn(first), [[0.0, np.nan, 1.0, 2.0], [3.0, np.nan, -3.0, -2.5]])
    np.testing.assert_array_equal(drawn(second), [[0.0, 1.0, 2.0], TRACE[1, :, 0]])
    np.testing.assert_array_equal(drawn(axes[1].lines[0]), [[0.0, 1.0, 2.0], TRACE[0, :, 1]])
    assert first.get_color() != second.get_color()
    assert [line.get_color() for line in axes[1].lines] == [first.get_color(), second.get_color()]
    assert [text.get_text() for text in axes[0].get_legend().get_texts()] == ["replica 0", "replica 1"]


def test_traces_of_one_replica_in_a_figure_of_their_own():
    import matplotlib.pyplot as plt

    axes = plot_traces(run_of(TRACE[:1]))
    assert axes.shape == (2,)
    assert axes[0].get_legend() is None
    plt.close(axes[0].figure)


def test_convergence_has_a_band():
    dataset = xr.Dataset(
        {
            "difference": ("step", [np.nan, 1.0, 2.0, 2.5], {"unit": "kJ/mol"}),
            "stderr": ("step", [np.nan, 0.5, 0.2, np.inf]),
        },
        {"step": [10, 20, 30, 40]},
    )
    (ax,) = panels(1)
    assert plot_convergence(dataset, ax) is ax
    np.testing.assert_array_equal(drawn(ax.lines[0]), [[10, 20, 30, 40], [np.nan, 1.0, 2.0, 2.5]])
    corners = ax.collections[0].get_paths()[0].vertices
    assert corners[:, 1].min() == 0.5
    assert corners[:, 1].max() == 2.2
    assert set(corners[:, 0]) == {20, 30}
    assert ax.get_ylabel() == "free-energy difference [kJ/mol]"


def test_overlap_of_few_windows_has_numbers():
    matrix = xr.DataArray([[0.9, 0.1, 0.0], [0.1, 0.7, 0.2], [0.0, 0.3, 0.7]], dims=("window", "other"))
    (ax,) = panels(1)
    assert plot_overlap(matrix, ax) is ax
    np.testing.assert_array_equal(ax.images[0].get_array(), matrix)
    texts = {text.get_position(): text.get_text() for text in ax.texts}
    assert len(texts) == 9
    assert texts[(2, 1)] == "0.20"  # x is the other window
    assert texts[(0, 0)] == "0.90"


def test_overlap_of_many_windows_has_none():
    (ax,) = panels(1)
    plot_overlap(xr.DataArray(np.eye(16), dims=("window", "other")), ax)
    assert not ax.texts


def test_bad_input():
    with pytest.raises(InvalidInputError, match="2 CVs, .'phi', 'x'., so as many axes are needed; got 3"):
        plot_traces(run_of(), panels(3))
    with pytest.raises(InvalidInputError, match="log_every"):
        plot_traces(make_run([Unbiased(X)], [(None,)]))
    with pytest.raises(InvalidInputError, match="without difference, stderr"):
        plot_convergence(xr.Dataset({}, {"step": [1]}))
    with pytest.raises(InvalidInputError, match="square"):
        plot_overlap(xr.DataArray(np.ones((2, 3)), dims=("window", "other")))


def test_without_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    for draw in (
        lambda: plot_traces(run_of()),
        lambda: plot_convergence(xr.Dataset({"difference": ("step", [1.0]), "stderr": ("step", [1.0])}, {"step": [1]})),
        lambda: plot_overlap(xr.DataArray(np.eye(2), dims=("window", "other"))),
    ):
        with pytest.raises(ImportError, match=r"pysamp\[plot\]"):
            draw()
