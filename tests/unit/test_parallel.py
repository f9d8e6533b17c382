"""Several processes agree with one, leave nothing behind, and plans add up to the published numbers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmbook.parallel import (
    ParallelMLP,
    Plan,
    bubble,
    device_bytes,
    launch,
    lessons,
    ring_all_reduce,
    sent_bytes,
    state_bytes,
)
from llmbook.transformer import MLP, GPTConfig, activation_numbers, parameter_count

# Processes


@pytest.fixture(scope="module")
def two():
    return launch(list(lessons.LESSONS), 2, seed=3)


@pytest.fixture(scope="module")
def three():
    return launch(["ring", "data_parallel"], 3, seed=3)


def test_the_ring_adds_up_and_sends_the_least_possible(two, three):
    for n, found in ((2, two["ring"]), (3, three["ring"])):
        assert found["error"] < 1e-12
        assert found["least"] == pytest.approx(2 * (n - 1) / n * 1001)
        assert found["sent"] <= found["least"] + 2 * (n - 1)


def test_averaging_by_hand_is_ddp_and_one_process(two, three):
    for n, found in ((2, two["data_parallel"]), (3, three["data_parallel"])):
        assert max(found["hand"], found["whole"]) < 1e-6
        assert found["trained"] < 3e-5
        assert found["without"] > 100 * found["whole"]
        assert found["parameters"] == parameter_count(lessons.CONFIG)
        assert found["sent"] == pytest.approx(2 * (n - 1) / n * found["parameters"], rel=1e-3)


def test_a_shared_mlp_is_the_whole_one(two):
    found = two["tensor_parallel"]
    assert max(found["output"], found["input"], found["weights"]) < 2e-5
    biases = lessons.CONFIG.n_embd
    assert found["held"] == (found["all"] - biases) / 2 + biases


def test_fsdp_trains_as_one_process_and_holds_a_half(two):
    found = two["fully_sharded"]
    assert found["trained"] < 3e-5
    assert found["held"] == pytest.approx(found["all"] / 2, rel=0.02)
    assert found["moments"] == 2 * found["held"]
    assert found["scatters"] == found["units"] == 3


def test_a_failing_process_is_reported_with_its_words():
    with pytest.raises(RuntimeError, match="invalid choice: 'nothing'"):
        launch(["nothing"], 1)
    with pytest.raises(ValueError, match="processes must be at least 1, got 0"):
        launch(["ring"], 0)


def running(marker: str) -> list[str]:
    """The command lines of living processes that hold the marker."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue  # it has just ended
        if marker.encode() in words:
            found.append(" ".join(word.decode() for word in words))
    return found


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("interrupt", [os.kill, os.killpg])  # one process, or all that a terminal would reach
def test_an_interruption_leaves_no_process_behind(interrupt):
    marker = str(os.getpid() + 10**7)  # a seed that nothing else has
    script = f"""
import signal
from llmbook.parallel import launch
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background jobs ignore
launch(['ring'] * 20000, 2, {marker})
"""
    starter = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 300
    while len(running(marker)) < 3 and time.monotonic() < deadline:  # torchrun and two workers
        time.sleep(0.2)
    assert len(running(marker)) >= 3
    interrupt(starter.pid, signal.SIGINT)
    starter.wait(300)
    while running(marker) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert running(marker) == []


def test_one_process_has_nothing_to_send():
    x = torch.arange(5.0)
    assert ring_all_reduce(x) == 0
    assert torch.equal(x, torch.arange(5.0))
    with pytest.raises(ValueError, match=r"x must be contiguous, .* got \(2, 3\)"):
        ring_all_reduce(torch.zeros(3, 2).T)


def test_hidden_features_are_shared_evenly(monkeypatch):
    monkeypatch.setattr("llmbook.parallel.tensor.ranks", lambda: (0, 3))
    with pytest.raises(ValueError, match="3 processes share evenly, got 32"):
        ParallelMLP(MLP(GPTConfig(10, 4, n_embd=8, n_layer=1, n_head=1)))


# Plans

SEVEN = 7.5e9


@pytest.mark.parametrize(("stage", "gigabytes"), [(0, 120.0), (1, 31.4), (2, 16.6), (3, 1.9)])
def test_states_are_those_of_zeros_first_figure(stage, gigabytes):
    kept = state_bytes(SEVEN, Plan(data=64, zero=stage))
    assert round(sum(kept.values()) / 1e9, 1) == gigabytes


counts = st.integers(1, 64)


@settings(max_examples=40)
@given(counts, counts, counts, st.integers(0, 3))
def test_all_devices_together_keep_at_least_the_model(data, tensor, pipeline, stage):
    plan = Plan(data, tensor, pipeline, zero=stage)
    total = plan.devices * sum(state_bytes(SEVEN, plan).values())
    assert total >= 16 * SEVEN * (1 - 1e-9)
    if stage == 3:
        assert total == pytest.approx(16 * SEVEN)
    if stage:
        less = sum(state_bytes(SEVEN, replace(plan, zero=stage - 1)).values())
        assert sum(state_bytes(SEVEN, plan).values()) <= less


CONFIG = GPTConfig(100, 16, n_embd=32, n_layer=4, n_head=4)


def test_what_is_sent():
    P, stream = parameter_count(CONFIG), 2 * 3 * 16 * 32
    alone = sent_bytes(CONFIG, 16, Plan())
    assert set(alone.values()) == {0.0}
    ddp = sent_bytes(CONFIG, 16, Plan(data=4))["data"]
    assert ddp == 2 * 3 / 4 * 2 * P
    assert sent_bytes(CONFIG, 16, Plan(data=4, zero=2))["data"] == ddp
    assert sent_bytes(CONFIG, 16, Plan(data=4, zero=3))["data"] == 1.5 * ddp
    shared = sent_bytes(CONFIG, 16, Plan(tensor=2, micro_batch=3, micro_batches=5))
    assert shared["tensor"] == 5 * 4 * 4 * (2 * 1 / 2) * stream
    piped = sent_bytes(CONFIG, 16, Plan(pipeline=2, micro_batch=3, micro_batches=5))
    assert piped["pipeline"] == 5 * 2 * stream


def test_the_first_stage_keeps_as_many_micro_batches_as_there_are_stages():
    blocks = 2 * activation_numbers(CONFIG, 1, 16)[0]
    for pipeline, micro_batches, factor in ((2, 8, 1.0), (4, 8, 1.0), (4, 2, 0.5)):
        plan = Plan(pipeline=pipeline, micro_batches=micro_batches)
        assert device_bytes(CONFIG, 16, plan)["activations"] == factor * blocks


def test_the_bubble():
    assert bubble(Plan()) == 0
    assert bubble(Plan(pipeline=4, micro_batches=6)) == 3 / 9


def test_a_plan_says_what_is_wrong():
    with pytest.raises(ValueError, match="tensor must be at least 1, got 0"):
        Plan(tensor=0)
    with pytest.raises(ValueError, match="zero must be 0, 1, 2 or 3, got 4"):
        Plan(zero=4)
    assert Plan(2, 3, 4, micro_batch=5, micro_batches=6).devices == 24
    assert Plan(2, 3, 4, micro_batch=5, micro_batches=6).sequences == 60
