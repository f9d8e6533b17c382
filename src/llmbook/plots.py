"""One look for every figure: white ground (so that dark mode works), colour-blind-safe, no chart junk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from IPython.display import display
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike


def use_style() -> None:
    """Set the book's style: seaborn's colour-blind palette on a white figure, readable on a phone."""
    sns.set_theme(
        context="notebook",
        style="ticks",
        palette="colorblind",
        rc={
            "figure.facecolor": "white",
            "savefig.facecolor": "white",
            "figure.dpi": 120,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "legend.frameon": False,
            "font.sans-serif": ["DejaVu Sans"],  # ships with matplotlib: the same figure everywhere
        },
    )


def subplots(nrows: int = 1, ncols: int = 1, **kwargs: Any) -> tuple[Figure, Any]:
    """``plt.subplots`` with a constrained layout, so that labels never overlap."""
    return plt.subplots(nrows, ncols, layout="constrained", **kwargs)


def show(figure: Figure) -> None:
    """Display a finished figure once, and free it."""
    display(figure)
    plt.close(figure)


def heatmap(
    matrix: ArrayLike,
    xlabels: Sequence[str] | None = None,
    ylabels: Sequence[str] | None = None,
    *,
    ax: Axes,
    xlabel: str,
    ylabel: str,
    cbar_label: str,
    annotate: bool = False,
    **kwargs: Any,
) -> None:
    """Draw a (rows, columns) matrix with named rows and columns and a labelled colour bar.

    NaN cells stay white (use them for masked entries). Other keywords go to ``seaborn.heatmap``.
    """
    values = np.asarray(matrix, dtype=float)  # (rows, columns)
    if values.ndim != 2:
        raise ValueError(f"matrix must have two dimensions, got shape {values.shape}")
    for name, labels, size in (("ylabels", ylabels, values.shape[0]), ("xlabels", xlabels, values.shape[1])):
        if labels is not None and len(labels) != size:
            raise ValueError(f"{name} must have {size} entries, one per cell, got {len(labels)}")
    options: dict[str, Any] = {"cmap": "viridis", "annot": annotate, "fmt": ".2f", "square": True} | kwargs
    ticks = {
        "xticklabels": "auto" if xlabels is None else xlabels,
        "yticklabels": "auto" if ylabels is None else ylabels,
    }
    sns.heatmap(values, ax=ax, cbar_kws={"label": cbar_label}, **ticks, **options)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.tick_params(axis="y", rotation=0)


def curves(
    series: Mapping[str, tuple[ArrayLike, ...]],
    *,
    ax: Axes,
    xlabel: str,
    ylabel: str,
    floor: float | None = None,
    floor_label: str = "floor",
) -> None:
    """Draw one line per entry of ``series``: (x, y) or (x, y, standard error), and the floor dashed."""
    for label, (x, y, *error) in series.items():
        ax.errorbar(x, y, yerr=error[0] if error else None, label=label, marker="o", markersize=4, capsize=3)
    if floor is not None:
        ax.axhline(floor, color="black", linestyle="--", linewidth=1, label=floor_label)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    if len(series) > 1 or floor is not None:
        ax.legend()
