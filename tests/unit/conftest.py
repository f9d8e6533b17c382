"""Assertions in the tests' own helpers say as much as those in the tests."""

import pytest

pytest.register_assert_rewrite("checking")
