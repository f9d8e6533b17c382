"""Claims: bounds hold or raise, NaN never passes, and what could not fail is refused."""

from __future__ import annotations

import json
import math
import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llmbook import claims
from llmbook.claims import ClaimFailed, claim, measured, written

FINITE = st.floats(-1e6, 1e6)


@pytest.fixture
def shown(monkeypatch):
    """What claims display: a list of (line, metadata)."""
    calls = []

    def display(data, *, raw, metadata):
        assert raw
        calls.append((data["text/plain"], metadata["claim"]))

    monkeypatch.setattr(claims, "display", display)
    return calls


@pytest.mark.parametrize(
    ("value", "bounds", "line"),
    [
        (0.4123, {"at_least": 0.3}, "✓ It holds: ≈0.412 (claimed ≥ 0.3)"),
        (0.3, {"at_least": 0.3}, "✓ It holds: ≈0.3 (claimed ≥ 0.3)"),
        (1e-7, {"at_most": 1e-5}, "✓ It holds: ≈1e-07 (claimed ≤ 1e-05)"),
        (0.25, {"at_least": 0.2, "at_most": 0.3}, "✓ It holds: ≈0.25 (claimed 0.2 to 0.3)"),
        (1.0000001, {"equals": 1.0, "tol": 1e-6}, "✓ It holds: ≈1 (claimed = 1 ± 1e-06)"),
        (12, {"equals": 12}, "✓ It holds: 12 (claimed = 12)"),
        (True, {"equals": True}, "✓ It holds: yes (claimed = yes)"),
        ("cat", {"equals": "cat"}, "✓ It holds: cat (claimed = cat)"),
        (np.float32(0.5), {"at_least": 0.3}, "✓ It holds: ≈0.5 (claimed ≥ 0.3)"),
        (torch.tensor(0.5), {"at_least": 0.3}, "✓ It holds: ≈0.5 (claimed ≥ 0.3)"),
        (np.bool_(True), {"equals": True}, "✓ It holds: yes (claimed = yes)"),
        (np.int64(3), {"equals": 3}, "✓ It holds: 3 (claimed = 3)"),
    ],
)
def test_claim_that_holds(shown, value, bounds, line):
    claim("It holds", value, **bounds)
    assert shown[0][0] == line


@pytest.mark.parametrize(
    ("value", "bounds", "message"),
    [
        (0.29, {"at_least": 0.3}, "✗ It holds: ≈0.29 (claimed ≥ 0.3)"),
        (1e-4, {"at_most": 1e-5}, "✗ It holds: ≈0.0001 (claimed ≤ 1e-05)"),
        (0.1, {"at_least": 0.2, "at_most": 0.3}, "✗ It holds: ≈0.1 (claimed 0.2 to 0.3)"),
        (0.4, {"at_least": 0.2, "at_most": 0.3}, "✗ It holds: ≈0.4 (claimed 0.2 to 0.3)"),
        (1.1, {"equals": 1.0, "tol": 0.01}, "✗ It holds: ≈1.1 (claimed = 1 ± 0.01)"),
        (False, {"equals": True}, "✗ It holds: no (claimed = yes)"),
        (11, {"equals": 12}, "✗ It holds: 11 (claimed = 12)"),
        (math.nan, {"at_least": 0.0}, "✗ It holds: NaN (claimed ≥ 0)"),
        (math.nan, {"at_most": 0.0}, "✗ It holds: NaN (claimed ≤ 0)"),
        (math.nan, {"equals": 0.0, "tol": 1.0}, "✗ It holds: NaN (claimed = 0 ± 1)"),
        (math.nan, {"equals": 0.0}, "✗ It holds: nan (claimed = 0)"),
        (math.inf, {"at_least": 0.0}, "✗ It holds: ≈inf (claimed ≥ 0)"),
        (-math.inf, {"at_most": 0.0}, "✗ It holds: ≈-inf (claimed ≤ 0)"),
    ],
)
def test_claim_that_fails_says_what_was_found_and_claimed(shown, value, bounds, message):
    with pytest.raises(ClaimFailed) as failure:
        claim("It holds", value, **bounds)
    assert str(failure.value) == message
    assert shown == []


@pytest.mark.parametrize(
    ("text", "bounds", "error", "match"),
    [
        ("A", {}, ValueError, "either equals or"),
        ("A", {"equals": 1, "at_least": 0}, ValueError, "either equals or"),
        ("A", {"at_least": 2, "at_most": 1}, ValueError, "must not exceed"),
        ("A", {"at_least": -math.inf}, ValueError, "must be able to fail"),
        ("A", {"at_most": math.nan}, ValueError, "at_most must be finite, got nan"),
        ("A", {"equals": 1.0, "tol": math.inf}, ValueError, "tol must be finite"),
        ("A", {"equals": 1.0, "tol": 0.0}, ValueError, "tol must be positive"),
        ("A", {"at_least": 0, "tol": 0.1}, ValueError, "goes with equals"),
        ("A.", {"at_least": 0}, ValueError, "full stop"),
        ("", {"at_least": 0}, ValueError, "full stop"),
        (" A", {"at_least": 0}, ValueError, "full stop"),
    ],
)
def test_claim_that_could_not_fail_is_refused(text, bounds, error, match):
    with pytest.raises(error, match=match):
        claim(text, 1.0, **bounds)


@pytest.mark.parametrize("value", ["0.5", True, None, [0.5], np.array([0.5, 0.6])])
def test_bounds_want_a_number(value):
    with pytest.raises((TypeError, ValueError), match=r"number|size 1"):
        claim("A", value, at_least=0)


def test_record_is_plain_json_with_the_bound(shown):
    claim("It holds", np.float32(0.5), at_least=0.25)
    assert json.loads(json.dumps(shown[0][1])) == {
        "text": "It holds", "value": 0.5, "at_least": 0.25, "at_most": None, "equals": None, "tol": None,
        "bound": "≥ 0.25",
    }  # fmt: skip


@given(value=FINITE, bound=FINITE)
def test_at_least_is_greater_or_equal(value, bound):
    def holds(**bounds: float) -> bool:
        try:
            claim("A", value, **bounds)
        except ClaimFailed:
            return False
        return True

    assert holds(at_least=bound) == (value >= bound)
    assert holds(at_most=bound) == (value <= bound)


@pytest.mark.parametrize(
    ("value", "spec", "text"),
    [(0.41234, ".3g", "≈0.412"), (-3, ".3g", "≈-3"), (0.971, ".1%", "≈97.1%"), (12345.0, ",.0f", "≈12,345")],
)
def test_measured(value, spec, text):
    assert measured(value, spec) == text


def test_measured_refuses_nan():
    with pytest.raises(ValueError, match="NaN"):
        measured(math.nan)


@given(st.text())
def test_what_a_model_wrote_is_masked_whole_whatever_it_wrote(text):
    shown = f"before {written(text)} after"
    assert re.sub("≈ “[^”]*”", "≈ text", shown) == "before ≈ text after"
    assert text.replace("”", '"') in shown
