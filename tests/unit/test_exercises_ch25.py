"""Chapter 25's checker tells a right, a nearly right and a wrong answer apart, in words."""

import numpy as np
import torch
from checking import assert_nearly, assert_not_attempted, assert_right, assert_wrong

from llmbook.exercises.ch25 import check_clipped_sum
from llmbook.privacy import private_gradient


def by_the_library(rows, clip):
    gradients = {"w": torch.tensor(rows)}
    return private_gradient(gradients, clip, 0.0, 1, torch.Generator())["w"]


def test_clipped_sum(capsys):
    assert_not_attempted(check_clipped_sum, capsys)
    assert_right(check_clipped_sum, by_the_library, capsys)
    assert_nearly(check_clipped_sum, lambda rows, clip: np.sum(rows, axis=0), "nothing is clipped", capsys)
    assert_nearly(check_clipped_sum, lambda rows, clip: np.clip(rows, -clip, clip).sum(0), "direction", capsys)
    assert_nearly(
        check_clipped_sum,
        lambda rows, clip: sum(np.asarray(r) * clip / max(np.linalg.norm(r), 1e-12) for r in rows),
        "stretch",
        capsys,
    )
    assert_nearly(
        check_clipped_sum,
        lambda rows, clip: np.sum(rows, 0) * min(1, clip / max(np.linalg.norm(np.sum(rows, 0)), 1e-12)),
        "before you add",
        capsys,
    )
    assert_nearly(check_clipped_sum, lambda rows, clip: by_the_library(rows, clip) / len(rows), "mean", capsys)
    assert_wrong(check_clipped_sum, lambda rows, clip: np.zeros(len(rows[0])), capsys)
