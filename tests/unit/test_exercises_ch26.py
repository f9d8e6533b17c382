"""Chapter 26's checker tells a right, a nearly right and a wrong answer apart, in words."""

import numpy as np
import torch
from checking import assert_nearly, assert_not_attempted, assert_right, assert_wrong

from llmbook import multimodal
from llmbook.exercises.ch26 import check_patches


def blocks(picture, size):
    """As a reader would write it: two loops."""
    height, width = picture.shape
    return np.array(
        [picture[y : y + size, x : x + size].flatten() for y in range(0, height, size) for x in range(0, width, size)]
    )


def library(picture, size):
    return multimodal.patches(torch.tensor(picture)[None, None], size)[0]


def test_patches(capsys):
    assert_not_attempted(check_patches, capsys)
    assert_right(check_patches, blocks, capsys)
    assert_right(check_patches, library, capsys)
    assert_nearly(check_patches, lambda p, size: p.reshape(-1, size * size), "several rows", capsys)
    assert_nearly(
        check_patches,
        lambda p, s: np.array([b.reshape(s, s).T.flatten() for b in blocks(p, s)]),
        "column by column",
        capsys,
    )
    assert_nearly(
        check_patches,
        lambda p, s: np.array(
            [p[y : y + s, x : x + s].flatten() for x in range(0, p.shape[1], s) for y in range(0, p.shape[0], s)]
        ),
        "first column of patches",
        capsys,
    )
    assert_nearly(
        check_patches,
        lambda p, s: np.array([p[y::s, x::s].flatten() for y in range(s) for x in range(s)]),
        "every size-th pixel",
        capsys,
    )
    assert_wrong(check_patches, lambda p, size: np.zeros((1, 1)), capsys)
