"""The primitives, for numbers, arrays, and the kind of framework that does not convert a literal."""

import sys
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest

from polyak.ops import fma, one_minus, sign, where


def test_numbers():
    assert fma(Fraction(1, 3), 2, 5) == Fraction(17, 3)
    assert one_minus(Fraction(1, 3)) == Fraction(2, 3)
    assert [where(True, 1, 2), where(False, 1, 2)] == [1, 2]
    assert [sign(x) for x in (Fraction(-1, 3), Fraction(0), 2.5)] == [-1, 0, 1]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_arrays_keep_their_dtype(dtype):
    x = np.array([-2.0, -0.0, 0.0, 3.0, np.nan], dtype)
    for result in (sign(x), where(x > 0, 1, x), where(x > 0, x, x), one_minus(x), fma(x, x, x)):
        assert result.dtype == dtype
    np.testing.assert_array_equal(sign(x), [-1, -0.0, 0, 1, np.nan])
    np.testing.assert_array_equal(np.signbit(sign(x))[:4], [True, True, False, False])
    np.testing.assert_array_equal(where(x > 0, 1, x), [-2, 0, 0, 1, np.nan])
    assert sign(dtype(-3)) == -1  # an array without dimensions


class Tensor:
    """Of a framework that takes a literal for an integer tensor, as TensorFlow does in a graph."""

    __module__ = "strict.tensors"

    def __init__(self, value):
        self.value = value

    def __mul__(self, number):
        return Tensor(self.value * number)


def test_a_literal_becomes_a_tensor(monkeypatch):
    def strict_where(condition, a, b):
        return Tensor(a.value if condition.value else b.value)

    monkeypatch.setitem(sys.modules, "strict", SimpleNamespace(where=strict_where, ones_like=lambda _: Tensor(1.0)))
    assert where(Tensor(True), 7, Tensor(2.0)).value == 7
    assert where(Tensor(False), 7, Tensor(2.0)).value == 2.0
    assert where(Tensor(True), Tensor(3.0), Tensor(2.0)).value == 3.0
