"""Claims: sentences of the book that a machine re-checks each time a chapter runs.

A chapter prints two kinds of number. An *exact* one (a derivation, a count) is printed plainly and
compared as it stands. A *measured* one (anything trained, sampled or timed) stands behind ``≈``,
which the comparison masks: there the bound given to :func:`claim` does the checking.
"""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

from IPython.display import display


class ClaimFailed(AssertionError):
    """A statement of the book does not hold in this run."""


def measured(value: float, spec: str = ".3g") -> str:
    """The number behind the sign for *measured*: ``measured(0.4123)`` is ``'≈0.412'``.

    ``spec`` is a format specification. Raises ``ValueError`` for NaN, which no reader could use.
    """
    if math.isnan(value):
        raise ValueError("value must be a number, got NaN")
    return f"≈{value:{spec}}"


def written(text: str) -> str:
    """A text that a trained model wrote, behind the sign for *measured*: ``written("the cat")`` is ``'≈ “the cat”'``.

    Another processor may round a near tie the other way and the text then goes on otherwise: the comparison of
    outputs masks it, and claims bound what matters about it. Closing quotation marks within it are straightened.
    """
    return f"≈ “{text.replace('”', chr(34))}”"


def claim(
    text: str,
    value: Any,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    equals: Any = None,
    tol: float | None = None,
) -> None:
    """Check ``value`` against its bound, print one line, and record both for the ledger.

    Give ``at_least``, ``at_most`` or both; or ``equals``, exactly or (for a number) within ``tol``.
    Raises :class:`ClaimFailed` if the bound does not hold (NaN and infinity never do), ``ValueError`` for a
    claim that could not fail.
    """
    value = _plain(value)
    _check_arguments(text, value, at_least, at_most, equals, tol)
    bound = _describe(at_least, at_most, equals, tol)
    exact = at_least is None and at_most is None and tol is None
    shown = _show(value) if exact else _measured_or_nan(value)
    if not _holds(value, at_least, at_most, equals, tol):
        raise ClaimFailed(f"✗ {text}: {shown} (claimed {bound})")
    record = {"text": text, "value": value, "bound": bound}
    record |= {"at_least": at_least, "at_most": at_most, "equals": equals, "tol": tol}
    line = f"✓ {text}: {shown} (claimed {bound})"
    display({"text/plain": line}, raw=True, metadata={"claim": record})


def _measured_or_nan(value: float) -> str:
    """As :func:`measured`, but shows NaN, so that a failing claim can name it."""
    return "NaN" if math.isnan(value) else measured(value)


def _plain(value: Any) -> Any:
    """A Python scalar or string from a NumPy or torch one, which JSON can hold."""
    return value.item() if hasattr(value, "item") else value


def _check_arguments(
    text: str, value: Any, at_least: float | None, at_most: float | None, equals: Any, tol: float | None
) -> None:
    if not text or text != text.strip() or text.endswith("."):
        raise ValueError(f"text must be a statement without a closing full stop, got {text!r}")
    if (equals is None) == (at_least is None and at_most is None):
        raise ValueError(f"claim {text!r} wants either equals or at_least/at_most")
    if at_least is not None and at_most is not None and at_least > at_most:
        raise ValueError(f"at_least ({at_least}) must not exceed at_most ({at_most})")
    for name, bound in {"at_least": at_least, "at_most": at_most, "tol": tol}.items():
        if bound is not None and not math.isfinite(bound):
            raise ValueError(f"{name} must be finite, got {bound}: a claim must be able to fail")
    if tol is not None and (equals is None or tol <= 0):
        raise ValueError(f"tol must be positive and goes with equals, got tol={tol}, equals={equals!r}")
    needs_number = tol is not None or equals is None
    if needs_number and (isinstance(value, bool) or not isinstance(value, Real)):
        raise TypeError(f"value must be a number for claim {text!r}, got {value!r}")


def _holds(value: Any, at_least: float | None, at_most: float | None, equals: Any, tol: float | None) -> bool:
    if tol is not None:
        return abs(value - equals) <= tol  # False for NaN
    if equals is not None:
        return value == equals
    if not math.isfinite(value):  # an overflow is no evidence of "at least"
        return False
    return (at_least is None or value >= at_least) and (at_most is None or value <= at_most)


def _describe(at_least: float | None, at_most: float | None, equals: Any, tol: float | None) -> str:
    if equals is not None:
        return f"= {_show(equals)}" + (f" ± {tol:g}" if tol is not None else "")
    if at_least is not None and at_most is not None:
        return f"{at_least:g} to {at_most:g}"
    return f"≥ {at_least:g}" if at_least is not None else f"≤ {at_most:g}"


def _show(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)
