"""Reverse-mode differentiation of numbers: what torch does with tensors, small enough to read in a minute.

A :class:`Value` remembers the values it was computed from and the derivative with respect to each of them.
:meth:`Value.backward` walks that graph once, from the result back, and multiplies along the way: the chain
rule. (Torch's autograd, and Karpathy's micrograd, work in the same way.)
"""

from __future__ import annotations

import math


class Value:
    """A number, the values it came from, and (after ``backward``) the derivative of the result by it."""

    def __init__(self, data: float, sources: tuple[tuple[Value, float], ...] = ()) -> None:
        self.data, self.grad = float(data), 0.0
        self.sources = sources  # (value, local derivative) for each value that this one was computed from

    def __add__(self, other: Value | float) -> Value:
        other = _value(other)
        return Value(self.data + other.data, ((self, 1.0), (other, 1.0)))

    def __mul__(self, other: Value | float) -> Value:
        other = _value(other)
        return Value(self.data * other.data, ((self, other.data), (other, self.data)))

    def __pow__(self, exponent: float) -> Value:
        if isinstance(exponent, Value):
            raise TypeError("exponent must be a plain number, got a Value")
        return Value(self.data**exponent, ((self, exponent * self.data ** (exponent - 1)),))

    def exp(self) -> Value:
        y = math.exp(self.data)
        return Value(y, ((self, y),))

    def log(self) -> Value:
        return Value(math.log(self.data), ((self, 1 / self.data),))

    def tanh(self) -> Value:
        y = math.tanh(self.data)
        return Value(y, ((self, 1 - y * y),))

    def relu(self) -> Value:
        return Value(max(self.data, 0.0), ((self, float(self.data > 0)),))

    def backward(self) -> None:
        """Add d(self)/d(v) to the ``grad`` of every value v that this one depends on, itself included."""
        order = self.graph()
        slopes = dict.fromkeys(order, 0.0) | {self: 1.0}
        for value in reversed(order):  # when a value's turn comes, all that depends on it has had its own
            value.grad += slopes[value]
            for source, local in value.sources:
                slopes[source] += local * slopes[value]

    def graph(self) -> list[Value]:
        """All values in the graph, each after its sources. (A stack, since Python's recursion is limited.)"""
        order: list[Value] = []
        stack, seen = [(self, False)], set()
        while stack:
            value, sources_done = stack.pop()
            if sources_done:
                order.append(value)
            elif value not in seen:
                seen.add(value)
                stack.append((value, True))
                stack.extend((source, False) for source, _ in value.sources)
        return order

    def __neg__(self) -> Value:
        return self * -1.0

    def __sub__(self, other: Value | float) -> Value:
        return self + -_value(other)

    def __rsub__(self, other: float) -> Value:
        return _value(other) - self

    def __truediv__(self, other: Value | float) -> Value:
        return self * _value(other) ** -1.0

    def __rtruediv__(self, other: float) -> Value:
        return _value(other) / self

    __radd__, __rmul__ = __add__, __mul__

    def __repr__(self) -> str:
        return f"Value({self.data:.6g}, grad={self.grad:.6g})"


def _value(x: Value | float) -> Value:
    return x if isinstance(x, Value) else Value(x)
