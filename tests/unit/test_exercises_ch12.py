"""Chapter 12's checkers tell a right, a nearly right and a wrong answer apart, in words."""

import math

import numpy as np
import pytest
from checking import assert_nearly, assert_not_attempted, assert_right, assert_wrong

from llmbook.exercises.ch12 import check_best_size, check_bill


@pytest.mark.parametrize("checker", [check_bill, check_best_size])
def test_a_stub_is_not_attempted(checker, capsys):
    assert_not_attempted(checker, capsys)


def bill(n, tokens, peak, utilisation, watts, pue, price, carbon):
    seconds = 6 * n * tokens / (utilisation * peak)
    kilowatts = watts * pue / 1000
    hours = seconds / 3600
    return hours, hours * kilowatts, hours * price, hours * kilowatts * carbon


def test_right_bill(capsys):
    assert_right(check_bill, bill, capsys)


def changed(**at):
    """The bill with some arguments replaced: functions of all of them, by name."""
    names = ("n", "tokens", "peak", "utilisation", "watts", "pue", "price", "carbon")

    def answer(*args):
        given = dict(zip(names, args, strict=True))
        return bill(**given | {name: change(given) for name, change in at.items()})

    return answer


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (changed(n=lambda g: g["n"] / 3), "backward pass"),
        (changed(tokens=lambda g: 3600 * g["tokens"]), "seconds"),
        (changed(watts=lambda g: 1000 * g["watts"]), "watt-hours"),
        (changed(utilisation=lambda g: 1 / g["utilisation"]), "divided by it"),
        (changed(utilisation=lambda g: 1.0), "utilisation is missing"),
        (changed(pue=lambda g: 1.0), "PUE is missing"),
        (lambda *a: (bill(*a)[0], bill(*a)[1], bill(*a)[1] * a[6], bill(*a)[3]), "price is that of an hour"),
        (lambda *a: (*bill(*a)[:3], bill(*a)[0] * a[7]), "kg per kWh"),
    ],
)
def test_nearly_right_bill(answer, hint, capsys):
    assert_nearly(check_bill, answer, hint, capsys)


def test_wrong_bill(capsys):
    assert_wrong(check_bill, lambda *a: (1.0, 2.0, 3.0, 4.0), capsys)


def best_size(sizes, losses):
    _, b, a = np.polynomial.polynomial.polyfit(np.log(sizes), losses, 2)
    vertex = math.exp(-b / (2 * a))
    return vertex if a > 0 and sizes[0] <= vertex <= sizes[-1] else math.nan


def test_right_best_size(capsys):
    assert_right(check_best_size, best_size, capsys)


def unguarded(sizes, losses, opens_up=True, within=True):
    _, b, a = np.polynomial.polynomial.polyfit(np.log(sizes), losses, 2)
    vertex = math.exp(-b / (2 * a))
    if (opens_up and a <= 0) or (within and not sizes[0] <= vertex <= sizes[-1]):
        return math.nan
    return vertex


def over_n(sizes, losses):
    _, b, a = np.polynomial.polynomial.polyfit(sizes, losses, 2)
    vertex = -b / (2 * a)
    return vertex if a > 0 and sizes[0] <= vertex <= sizes[-1] else math.nan


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (lambda n, x: math.log(best_size(n, x)), "that is ln N"),
        (lambda n, x: n[int(np.argmin(x))], "best of the sizes"),
        (over_n, "not over N"),
        (lambda n, x: unguarded(n, x, opens_up=False), "opens downwards"),
        (lambda n, x: unguarded(n, x, within=False), "not been seen"),
        (lambda n, x: 1 / best_size(n, x), "mind the sign"),
    ],
)
def test_nearly_right_best_size(answer, hint, capsys):
    assert_nearly(check_best_size, answer, hint, capsys)


def test_wrong_best_size(capsys):
    assert_wrong(check_best_size, lambda n, x: n[0] * 2.0, capsys)
