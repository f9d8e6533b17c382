"""Linear layers by oneDNN: the same numbers as torch's, and hands off where they would not be."""

from __future__ import annotations

import contextlib
import platform
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from llmbook import products, training
from llmbook.products import FastLayers
from llmbook.training import TrainingArguments, fit, packed_batches
from llmbook.transformer import GPT, GPTConfig


def layer_and_input(shape: tuple[int, ...], bias: bool) -> tuple[nn.Linear, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    layer = nn.Linear(96, 160, bias=bias)
    for p in layer.parameters():
        nn.init.normal_(p, generator=generator)
    return layer, torch.randn(*shape, 96, generator=generator, requires_grad=True)


@pytest.fixture
def unrounded():
    """For tests of what oneDNN computes: on a processor where it rounds, we do not use it."""
    if not products._keeps_float32():
        pytest.skip("this processor rounds the factors to bfloat16")


@pytest.mark.usefixtures("unrounded")
@pytest.mark.parametrize("shape", [(50,), (4, 30), (2, 3, 20)])
@pytest.mark.parametrize("bias", [True, False])
def test_values_and_gradients_are_torchs(shape, bias):
    layer, x = layer_and_input(shape, bias)
    wanted = [x, *layer.parameters()]
    with FastLayers():
        y = layer(x)
    assert type(y.grad_fn).__name__ == "_LinearBackward"
    z = layer(x)
    grad = torch.randn(z.shape, generator=torch.Generator().manual_seed(1))
    ours, theirs = (torch.autograd.grad(out, wanted, grad) for out in (y, z))
    torch.testing.assert_close((y, *ours), (z, *theirs), rtol=1e-5, atol=1e-4)  # sums of 96 products or more


@pytest.mark.usefixtures("unrounded")
def test_what_is_frozen_costs_nothing():
    def work(frozen: bool) -> int:
        layer, x = layer_and_input((50,), True)
        layer.weight.requires_grad_(not frozen)
        with FastLayers(), FlopCounterMode(display=False) as counter:
            layer(x).sum().backward()
        return counter.get_total_flops()

    one_product = 2 * 50 * 96 * 160
    assert (work(frozen=False), work(frozen=True)) == (3 * one_product, 2 * one_product)


@pytest.mark.usefixtures("unrounded")
def test_gradients_per_example():
    layer, x = layer_and_input((5, 7), True)

    def loss(weight, rows):
        return F.linear(rows, weight, layer.bias).square().mean()

    batched = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))
    with FastLayers():
        ours = batched(layer.weight, x)
    torch.testing.assert_close(ours, batched(layer.weight, x), rtol=1e-5, atol=1e-5)


def gelus(x: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """GELU of x and its derivative there, ours and torch's."""
    found = []
    for context in (FastLayers(), contextlib.nullcontext()):
        with context:
            y = F.gelu(x, approximate="tanh")
        found.append((y, *torch.autograd.grad(y.sum(), x)))
    return found


def test_gelu_and_its_derivative_are_torchs():
    x = torch.linspace(-30, 30, 20_001).view(3, -1).requires_grad_()
    ours, theirs = gelus(x)
    assert type(ours[0].grad_fn).__name__ == "_GeluBackward"
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=2e-6)
    extremes = torch.tensor([[-1e30, -1e9, -0.0, 0.0, 1e-30, 1e9]], requires_grad=True)
    ours, theirs = gelus(extremes)
    assert torch.equal(ours[0], theirs[0])


def test_gelu_per_example_and_in_forms_that_are_not_ours():
    x = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    slope = torch.func.grad(lambda row: F.gelu(row[None], approximate="tanh").sum())
    with FastLayers():
        ours = torch.func.vmap(slope)(x)
        for others in (x.double(), x[0], x.bfloat16()):
            assert torch.equal(F.gelu(others, approximate="tanh"), torch._C._nn.gelu(others, approximate="tanh"))
        assert torch.equal(F.gelu(x), torch._C._nn.gelu(x))
    torch.testing.assert_close(ours, torch.func.vmap(slope)(x), rtol=1e-5, atol=1e-6)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a rule of glibc's")
def test_kept_memory_is_not_cleared_anew_at_each_step():
    script = """
import resource, sys
import torch
from llmbook.products import keep_memory
torch.set_num_threads(1)
def pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [torch.zeros(300_000) for _ in range(40)]  # 48 MB, freed at the end: more than what imports leave kept
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
if sys.argv[1] == "keep":
    keep_memory()
print(*[pages() for _ in range(16)])
"""
    kept, left = (
        [int(n) for n in subprocess.check_output([sys.executable, "-c", script, word], text=True).split()]
        for word in ("keep", "leave")
    )
    assert max(kept[8:]) < 100  # the first rounds fill the gaps that imports have left
    assert max(left[1:]) > 10_000  # by chance a block at the end may hold on to the rest in later rounds


def test_the_probe_notices_rounded_factors():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not products._keeps_float32.__wrapped__()


def test_a_processor_that_rounds_is_left_to_torch(monkeypatch):
    monkeypatch.setattr(products, "_keeps_float32", lambda: False)
    layer, x = layer_and_input((50,), True)
    with FastLayers():
        assert type(layer(x).grad_fn).__name__ == "AddmmBackward0"


def test_other_precisions_are_left_to_torch():
    layer, x = layer_and_input((50,), True)
    with FastLayers():
        assert type(layer.double()(x.double()).grad_fn).__name__ == "AddmmBackward0"
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = layer.float()(x)
    assert y.dtype == torch.bfloat16
    y.sum().backward()
    assert layer.weight.grad.dtype == torch.float32


def test_the_setting_is_put_back_even_after_an_error():
    layer, _ = layer_and_input((50,), True)
    with FastLayers(), pytest.raises(RuntimeError):
        layer(torch.zeros(5, 95))
    assert torch.get_float32_matmul_precision() == "highest"


def test_fit_trains_as_without(monkeypatch):
    tokens = torch.randint(31, (400,), generator=torch.Generator().manual_seed(0))
    args = TrainingArguments(max_steps=5, batch_size=4, block_size=16)

    def losses():
        model = GPT(GPTConfig(31, 16, 24, 2, 3), generator=torch.Generator().manual_seed(0))
        return fit(model, packed_batches(tokens, args), args).column("loss").tolist()

    fast = losses()
    monkeypatch.setattr(training.loop, "FastLayers", contextlib.nullcontext)
    assert fast == pytest.approx(losses(), abs=1e-5)
