"""What nbval masks before it compares: a measured number, and nothing beside it."""

from __future__ import annotations

import configparser
import re
from pathlib import Path

import pytest

RULES = Path(__file__).resolve().parents[2] / "tools" / "nbval_sanitize.cfg"


def masked(text: str) -> str:
    """The text as nbval compares it."""
    rules = configparser.RawConfigParser()
    rules.read(RULES, encoding="utf-8")
    for rule in rules.sections():
        text = re.sub(rules[rule]["regex"], rules[rule]["replace"], text)
    return text


@pytest.mark.parametrize(
    ("one", "other"),
    [("a ≈0.999, b", "a ≈1, b"), ("≈1,234.5 words.", "≈987 words."), ("≈-2e-05", "≈ −inf"), ("x  ≈1", "x ≈10")],
)
def test_measured_numbers_are_equal_whatever_their_digits(one, other):
    assert masked(one) == masked(other)


@pytest.mark.parametrize(("one", "other"), [("≈1, b", "≈1 b"), ("3", "4"), ("≈1 a", "≈1 b")])
def test_what_stands_beside_them_is_compared(one, other):
    assert masked(one) != masked(other)
