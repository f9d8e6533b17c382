"""Settings of all unit tests."""

import os

# Before torch loads. Several test processes share the cores, and what many threads add up may differ in the last
# digit on a busy machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import settings

# Assertions in the tests' own helpers say as much as those in the tests.
pytest.register_assert_rewrite("checking")

# hypothesis fails an example that takes longer than 200 ms; on a busy machine any may.
settings.register_profile("book", deadline=None)
settings.load_profile("book")
