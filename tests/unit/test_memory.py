"""What a step keeps is what the closed form says, and what is recomputed is the same."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd.graph import saved_tensors_hooks

from llmbook.profiling import memory_timeline, peak_memory
from llmbook.training import recompute_blocks
from llmbook.transformer import GPT, GPTConfig, activation_numbers


def build(config: GPTConfig) -> GPT:
    return GPT(config, generator=torch.Generator().manual_seed(0))


def kept_numbers(model: GPT, ids: torch.Tensor) -> int:
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept = {}

    def note(tensor):
        if tensor.is_floating_point() and tensor.ndim:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with saved_tensors_hooks(note, lambda tensor: tensor):
        output = model(ids, ids)
    assert output.loss.isfinite()
    return sum(t.untyped_storage().nbytes() // 4 for at, t in kept.items() if at not in own)


@settings(max_examples=15)
@given(st.integers(1, 3), st.integers(2, 9), st.sampled_from([1, 2, 4]), st.integers(1, 3), st.integers(20, 90))
def test_activations_are_those_that_torch_saves(batch, length, heads, layers, vocabulary):
    config = GPTConfig(vocabulary, 16, n_embd=16, n_layer=layers, n_head=heads)
    ids = torch.ones(batch, length, dtype=torch.long)
    assert kept_numbers(build(config), ids) == sum(activation_numbers(config, batch, length))


def test_activations_grow_with_the_batch_alone():
    config = GPTConfig(50, 16, n_embd=16, n_layer=2, n_head=2)
    one, three = activation_numbers(config, 1, 8), activation_numbers(config, 3, 8)
    assert three == (3 * one[0], 3 * one[1])
    for arguments in ((0, 8), (1, 0)):
        with pytest.raises(ValueError, match="batch and length must be at least 1, got"):
            activation_numbers(config, *arguments)


def test_recomputed_blocks_have_the_same_gradients_and_need_less():
    config = GPTConfig(50, 32, n_embd=32, n_layer=6, n_head=2, resid_pdrop=0.1)
    ids = torch.randint(50, (4, 32), generator=torch.Generator().manual_seed(1))
    plain, frugal = build(config), recompute_blocks(build(config))

    def step(model):
        torch.manual_seed(5)  # of the dropout, which must drop the same twice
        model(ids, ids).loss.backward()

    need = [peak_memory(lambda m=m: step(m)) for m in (plain, frugal)]
    assert need[1] < 0.7 * need[0]
    for a, b in zip(plain.parameters(), frugal.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def test_a_timeline_rises_and_falls():
    def chain():
        x = torch.zeros(1000)
        y = x + 1
        del x
        return y + 1

    line = memory_timeline(chain)
    assert max(line) == peak_memory(chain) == 8000
    assert line[0] == 4000
