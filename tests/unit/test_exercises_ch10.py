"""Chapter 10's checkers tell a right, a nearly right and a wrong answer apart, in words."""

import pytest
import torch
from checking import assert_nearly, assert_not_attempted, assert_right, assert_wrong
from torch.nn import functional as F

from llmbook.exercises.ch10 import check_best_epoch, check_next_token_loss


@pytest.mark.parametrize("checker", [check_next_token_loss, check_best_epoch])
def test_a_stub_is_not_attempted(checker, capsys):
    assert_not_attempted(checker, capsys)


# ------------------------------------------------------------ the loss of a padded batch


def by_labels(logits, ids, mask):
    """Padding as −100, as the library does it."""
    labels = ids.masked_fill(mask == 0, -100)
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())


def picked(logits, ids, mask):
    """Token by token."""
    logprobs = logits.log_softmax(-1)
    found = [-logprobs[b, t - 1, ids[b, t]] for b in range(len(ids)) for t in range(1, ids.shape[1]) if mask[b, t]]
    return torch.stack(found).mean()


@pytest.mark.parametrize("answer", [by_labels, picked])
def test_right_losses(answer, capsys):
    assert_right(check_next_token_loss, answer, capsys)


def flat(logits, targets, counted=None):
    losses = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
    return losses.mean() if counted is None else losses[counted.flatten().bool()].mean()


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (lambda logits, ids, mask: flat(logits, ids, mask), "which it has read"),
        (lambda logits, ids, mask: flat(logits, ids), "nor is padding"),
        (lambda logits, ids, mask: flat(logits[:, 1:], ids[:, :-1], mask[:, :-1]), "wrong way"),
        (lambda logits, ids, mask: flat(logits[:, :-1], ids[:, 1:]), "padding is counted"),
        (lambda logits, ids, mask: flat(logits[:, :-1], ids[:, 1:], mask[:, :-1]), "go with the target"),
        (
            lambda logits, ids, mask: by_labels(logits, ids, mask) * mask[:, 1:].sum() / mask[:, 1:].numel(),
            "all positions",
        ),
        (
            lambda logits, ids, mask: torch.stack(
                [
                    flat(x[None, :-1], i[None, 1:], m[None, 1:])
                    for x, i, m in zip(logits, ids, mask, strict=True)
                    if m.sum() > 1
                ]
            ).mean(),
            "rows' means",
        ),
        (lambda logits, ids, mask: by_labels(logits, ids, mask) * mask[:, 1:].sum(), "divide by the number"),
    ],
)
def test_nearly_right_losses(answer, hint, capsys):
    assert_nearly(check_next_token_loss, answer, hint, capsys)


def test_wrong_losses(capsys):
    assert_wrong(check_next_token_loss, lambda *args: -by_labels(*args), capsys)


# ------------------------------------------------------------ early stopping


def best_epoch(losses, patience):
    best, since = 0, 0
    for i, loss in enumerate(losses):
        best, since = (i, 0) if loss < losses[best] or i == 0 else (best, since + 1)
        if since >= patience:
            break
    return best + 1


def test_right_epochs(capsys):
    assert_right(check_best_epoch, best_epoch, capsys)


def stopped_at(losses, patience):
    return min(best_epoch(losses, patience) + patience, len(losses))


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (stopped_at, "when training stops"),
        (lambda losses, patience: best_epoch(losses, patience) - 1, "from 1"),
        (lambda losses, patience: min(range(len(losses)), key=losses.__getitem__) + 1, "never seen"),
        (lambda losses, patience: len(losses), "last epoch"),
        (lambda losses, patience: best_epoch(losses, 1), "patience"),
    ],
)
def test_nearly_right_epochs(answer, hint, capsys):
    assert_nearly(check_best_epoch, answer, hint, capsys)


def test_wrong_epochs(capsys):
    assert_wrong(check_best_epoch, lambda losses, patience: 1, capsys)
