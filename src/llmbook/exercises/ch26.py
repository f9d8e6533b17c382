"""Checker of chapter 26: cutting a picture into patches."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from llmbook.exercises import Case, Mistake, check

Picture = NDArray[np.int64]


def check_patches(function: Callable[[Picture, int], Picture]) -> bool:
    """Check ``function(picture, size)``: grey (H, W) to (number of patches, size²), row by row."""
    shapes = {"four patches of a square": (4, 4, 2), "a wide picture": (4, 6, 2), "a tall one": (6, 3, 3)}
    cases = [
        Case(name, (_picture(height, width), size), _patches(_picture(height, width), size))
        for name, (height, width, size) in shapes.items()
    ]
    cases.append(Case("patches of one pixel", (_picture(2, 3), 1), _picture(2, 3).reshape(6, 1)))
    return check(function, cases, _MISTAKES)


def _picture(height: int, width: int) -> Picture:
    return np.arange(height * width).reshape(height, width)


def _patches(picture: Picture, size: int) -> Picture:
    rows, columns = picture.shape[0] // size, picture.shape[1] // size
    return picture.reshape(rows, size, columns, size).transpose(0, 2, 1, 3).reshape(-1, size * size)


def _by_columns(picture: Picture, size: int) -> Picture:
    return _turned_inside(picture.T, size)


def _turned_inside(picture: Picture, size: int) -> Picture:
    """The right patches, each read column by column."""
    return _patches(picture, size).reshape(-1, size, size).transpose(0, 2, 1).reshape(-1, size * size)


def _reshaped(picture: Picture, size: int) -> Picture:
    return picture.reshape(-1, size * size)


def _strided(picture: Picture, size: int) -> Picture:
    """Every size-th pixel: a patch that is a coarse copy of the whole."""
    rows, columns = picture.shape[0] // size, picture.shape[1] // size
    return picture.reshape(rows, size, columns, size).transpose(1, 3, 0, 2).reshape(-1, rows * columns)


_MISTAKES = [
    Mistake("`reshape` alone cuts the rows of pixels into runs; a patch has pixels of several rows.", _reshaped),
    Mistake("the patches go row by row; yours go down the first column of patches first.", _by_columns),
    Mistake("within a patch, too, the pixels go row by row; yours go column by column.", _turned_inside),
    Mistake("a patch is a square of neighbours; yours takes every size-th pixel of the whole picture.", _strided),
]
