"""What the tests of the exercises' checkers share: three kinds of answers, and what the checker says of each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


def stub(*args):
    """Your code here."""


def said(checker: Callable[..., bool], answer: Callable[..., Any], capsys: pytest.CaptureFixture[str]):
    """Whether the checker takes the answer for right, and its words."""
    right = checker(answer)
    return right, capsys.readouterr().out


def assert_not_attempted(checker, capsys):
    right, words = said(checker, stub, capsys)
    assert right is False
    assert "Not attempted" in words


def assert_right(checker, answer, capsys):
    right, words = said(checker, answer, capsys)
    assert right is True
    assert "All right" in words


def assert_nearly(checker, answer, hint, capsys):
    right, words = said(checker, answer, capsys)
    assert right is False
    assert "Nearly: " in words, words
    assert hint in words, words


def assert_wrong(checker, answer, capsys):
    """Wrong, and like none of the known mistakes; returns the words."""
    right, words = said(checker, answer, capsys)
    assert right is False
    assert "Nearly" not in words
    return words
