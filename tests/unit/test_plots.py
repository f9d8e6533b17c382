"""Plots: every axis named, labels that match the matrix, and no figure left open."""

from __future__ import annotations

import matplotlib
import numpy as np
import pytest

matplotlib.use("Agg")

import matplotlib.pyplot as plt

from llmbook import plots


@pytest.fixture(autouse=True)
def _clean_style():
    with matplotlib.rc_context():
        yield
    plt.close("all")


def draw(matrix, **kwargs):
    _, ax = plots.subplots()
    plots.heatmap(matrix, ax=ax, xlabel="key", ylabel="query", cbar_label="weight", **kwargs)
    return ax


def test_style_is_white_and_ships_its_font():
    plots.use_style()
    assert matplotlib.rcParams["figure.facecolor"] == "white"
    assert matplotlib.rcParams["font.sans-serif"] == ["DejaVu Sans"]
    assert not matplotlib.rcParams["axes.spines.top"]


def test_heatmap_names_axes_cells_and_bar():
    ax = draw([[0.1, 0.9], [0.5, 0.5], [1, 0]], xlabels=["a", "b"], ylabels=["x", "y", "z"])
    assert [t.get_text() for t in ax.get_xticklabels()] == ["a", "b"]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["x", "y", "z"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("key", "query")
    assert ax.collections[0].colorbar.ax.get_ylabel() == "weight"


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"xlabels": ["a"]}, "xlabels must have 2 entries, one per cell, got 1"),
        ({"ylabels": ["a", "b"]}, "ylabels must have 3 entries, one per cell, got 2"),
        ({"xlabels": []}, "xlabels must have 2 entries, one per cell, got 0"),
    ],
)
def test_heatmap_refuses_labels_that_do_not_fit(labels, message):
    with pytest.raises(ValueError, match=message):
        draw(np.ones((3, 2)), **labels)


@pytest.mark.parametrize("shape", [(3,), (2, 2, 2), ()])
def test_heatmap_wants_a_matrix(shape):
    with pytest.raises(ValueError, match="matrix must have two dimensions"):
        draw(np.ones(shape))


def test_heatmap_annotates_and_leaves_nan_white():
    ax = draw([[0.125, np.nan]], annotate=True)
    assert [t.get_text() for t in ax.texts] == ["0.12"]
    assert ax.collections[0].get_array().mask.tolist() == [[False, True]]


def test_curves_draw_each_series_and_the_floor():
    _, ax = plots.subplots()
    series = {"add-k": ([1, 2, 3], [3.0, 2.0, 1.5]), "Kneser–Ney": ([1, 2, 3], [2.0, 1.5, 1.0], [0.1, 0.1, 0.1])}
    plots.curves(series, ax=ax, xlabel="context (tokens)", ylabel="loss (nats/token)", floor=0.7)
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["floor", "add-k", "Kneser–Ney"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("context (tokens)", "loss (nats/token)")
    floor = [line for line in ax.lines if line.get_linestyle() == "--"]
    assert [set(line.get_ydata()) for line in floor] == [{0.7}]


def test_one_curve_without_a_floor_needs_no_legend():
    _, ax = plots.subplots()
    plots.curves({"loss": ([1, 2], [3, 4])}, ax=ax, xlabel="step", ylabel="loss (nats)")
    assert ax.get_legend() is None


def test_show_displays_once_and_closes(monkeypatch):
    shown = []
    monkeypatch.setattr(plots, "display", shown.append)
    figure, _ = plots.subplots(1, 2)
    plots.show(figure)
    assert shown == [figure]
    assert plt.get_fignums() == []
