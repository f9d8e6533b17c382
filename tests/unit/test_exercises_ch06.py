"""Chapter 06's checkers tell a right, a nearly right and a wrong answer apart, in words."""

import numpy as np
import pytest
from checking import assert_nearly, assert_not_attempted, assert_right, assert_wrong

from llmbook.exercises.ch06 import check_masking, check_two_sides


@pytest.mark.parametrize("checker", [check_masking, check_two_sides])
def test_a_stub_is_not_attempted(checker, capsys):
    assert_not_attempted(checker, capsys)


# ------------------------------------------------------------------------------------------------ masking


def masking(ids, choice, fate, others, mask_id, rule=lambda fate: np.digitize(fate, [0.8, 0.9])):
    """Token by token, with loops, unlike the checker's own."""
    inputs, labels = list(ids), [-100] * len(ids)
    for t, token in enumerate(ids):
        if token != 0 and choice[t] < 0.15:
            labels[t] = token
            inputs[t] = (mask_id, others[t], token)[rule(fate[t])]
    return np.array(inputs), np.array(labels)


def test_right_masking(capsys):
    assert_right(check_masking, masking, capsys)


def labels_everywhere(ids, *rest):
    return masking(ids, *rest)[0], ids


def labels_spoiled(*args):
    inputs, labels = masking(*args)
    return inputs, np.where(labels == -100, labels, inputs)


def labels_hidden_only(ids, choice, fate, others, mask_id):
    inputs, labels = masking(ids, choice, fate, others, mask_id)
    return inputs, np.where(inputs == mask_id, labels, -100)


def hides_bos(ids, *rest):
    inputs, labels = masking(np.where(ids == 0, 777, ids), *rest)
    return np.where(inputs == 777, 0, inputs), np.where(labels == 777, 0, labels)


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (labels_everywhere, "every token has a label"),
        (labels_hidden_only, "only hidden tokens have labels"),
        (labels_spoiled, "must be what it was"),
        (hides_bos, "Special tokens are never chosen"),
        (lambda *args: masking(*args, rule=lambda fate: 0), "all chosen tokens are hidden"),
        (lambda *args: masking(*args, rule=lambda fate: int(fate >= 0.8)), "no chosen token is kept"),
        (lambda *args: masking(*args, rule=lambda fate: 2 * int(fate >= 0.8)), "no chosen token is exchanged"),
        (lambda *args: masking(*args)[::-1], "wrong order"),
    ],
)
def test_nearly_right_masking(answer, hint, capsys):
    assert_nearly(check_masking, answer, hint, capsys)


def test_wrong_masking(capsys):
    assert "your answer" in assert_wrong(check_masking, lambda ids, *rest: (ids, ids), capsys)


# ---------------------------------------------------------------------------------------------- two sides


def entropies(P, repeats=200):
    """By the chain rule: H(v | u, w) = H(v, w | u) − H(w | u) = 2 H(v | u) − H(two steps on)."""
    pi = np.full(len(P), 1 / len(P))
    for _ in range(repeats):
        pi = pi @ (P + np.eye(len(P))) / 2

    def conditional(matrix):
        return -(pi[:, None] * matrix * np.log(np.where(matrix > 0, matrix, 1))).sum()

    return conditional(P), 2 * conditional(P) - conditional(P @ P)


def test_right_entropies(capsys):
    assert_right(check_two_sides, entropies, capsys)


def unweighted(P):
    """Means over states that all count the same."""
    k = len(P)
    left, both = 0.0, 0.0
    for u in range(k):
        for v in range(k):
            if P[u, v] > 0:
                left -= P[u, v] * np.log(P[u, v]) / k
            for w in range(k):
                if (p := P[u, v] * P[v, w]) > 0:
                    both -= p * np.log(p / (P @ P)[u, w]) / k
    return left, both


def unnormalised(P):
    left, _ = entropies(P)
    return left, 2 * left  # −ln P[u, v] − ln P[v, w], on average


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (lambda P: tuple(h / np.log(2) for h in entropies(P)), "these are bits"),
        (unweighted, "stationary distribution"),
        (unnormalised, "divided by its sum over v"),
        (lambda P: (entropies(P)[0],) * 2, "the right neighbour is not used"),
    ],
)
def test_nearly_right_entropies(answer, hint, capsys):
    assert_nearly(check_two_sides, answer, hint, capsys)


def test_wrong_entropies(capsys):
    assert "your answer" in assert_wrong(check_two_sides, lambda P: (0.0, 0.0), capsys)
