"""The scalar autograd: torch's derivatives on random expressions, shared values, and graphs of any depth."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmbook.autograd import Value

UNARY = ("exp", "tanh", "relu", "log", "square", "inverse", "negative", "add", "radd", "rsub", "rdiv")
BINARY = ("+", "-", "*", "/")


def expressions():
    """Trees over three variables; a leaf is a variable's number."""
    leaf = st.integers(0, 2)
    grow = lambda inner: st.one_of(  # noqa: E731
        st.tuples(st.sampled_from(UNARY), inner), st.tuples(st.sampled_from(BINARY), inner, inner)
    )
    return st.recursive(leaf, grow, max_leaves=12)


def compute(tree, variables):
    """The tree's value; the same code for our values and for torch's tensors."""
    if isinstance(tree, int):
        return variables[tree]
    name, *operands = tree
    x, *rest = (compute(operand, variables) for operand in operands)
    if rest:
        (y,) = rest
        # A denominator of at least 1, so that no number grows beyond what float64 can compare.
        return {"+": lambda: x + y, "-": lambda: x - y, "*": lambda: x * y, "/": lambda: x / (y * y + 1)}[name]()
    return {
        "exp": lambda: x.tanh().exp(), "tanh": lambda: x.tanh(), "relu": lambda: x.relu(),
        "log": lambda: (x * x + 1).log(), "square": lambda: x**2, "inverse": lambda: (x**2 + 2) ** -0.5,
        "negative": lambda: -x, "add": lambda: x + 3, "radd": lambda: 3 + x, "rsub": lambda: 2 - x,
        "rdiv": lambda: 2 / (x * x + 1),
    }[name]()  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(tree=expressions(), numbers=st.lists(st.floats(-2, 2), min_size=3, max_size=3))
def test_derivatives_are_torchs_on_random_expressions(tree, numbers):
    ours = [Value(x) for x in numbers]
    theirs = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in numbers]
    result, expected = compute(tree, ours), compute(tree, theirs)
    result.backward()
    expected.backward()
    assert result.data == pytest.approx(expected.item(), rel=1e-9, abs=1e-9)
    for mine, its in zip(ours, theirs, strict=True):
        want = 0.0 if its.grad is None else its.grad.item()
        assert mine.grad == pytest.approx(want, rel=1e-9, abs=1e-9)


def test_a_value_used_twice_collects_both_derivatives():
    x = Value(3.0)
    y = x * x + x
    y.backward()
    assert (y.data, x.grad, y.grad) == (12.0, 7.0, 1.0)


def test_gradients_add_up_until_they_are_set_to_zero_as_in_torch():
    x = Value(2.0)
    y = x**3
    y.backward()
    y.backward()
    assert x.grad == 24.0
    (x * 5).backward()
    assert x.grad == 29.0


def test_a_graph_may_be_deeper_than_pythons_recursion():
    x = y = Value(1.0)
    for _ in range(20_000):
        y = y + x
    y.backward()
    assert x.grad == 20_001


def test_the_number_of_paths_does_not_matter():
    x = y = Value(1.0)
    for _ in range(60):
        y = y + y  # 2**60 paths from y to x; one visit for each value
    y.backward()
    assert x.grad == 2.0**60


def test_errors_and_repr():
    with pytest.raises(TypeError, match="exponent"):
        Value(1.0) ** Value(2.0)
    with pytest.raises(ValueError, match=r"math domain error|expected a positive input"):
        Value(-1.0).log()
    assert repr(Value(math.pi)) == "Value(3.14159, grad=0)"
