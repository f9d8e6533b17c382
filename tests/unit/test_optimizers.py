"""Muon equals torch's step by step; several optimisers together are saved, resumed and scheduled as one."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from llmbook import optimizers
from llmbook.optimizers import (
    Combined,
    Muon,
    adjusted_lr,
    block_matrices,
    muon_and_adamw,
    newton_schulz_flops,
    orthogonalize,
)
from llmbook.training import TrainingArguments, fit
from llmbook.transformer import GPT, GPTConfig

CONFIG = GPTConfig(vocab_size=11, n_positions=8, n_embd=8, n_layer=2, n_head=2)


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def small_gpt(**changes):
    return GPT(GPTConfig(**(CONFIG.__dict__ | changes)), generator=torch.Generator().manual_seed(0))


# Muon


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"nesterov": False},
        {"momentum": 0.0},
        {"weight_decay": 0.0, "lr": 0.05},
        {"ns_steps": 2},
        {"ns_coefficients": (2.0, -1.5, 0.5), "ns_steps": 9},
        {"eps": 1e3},
        {"adjust_lr_fn": "original"},
        {"adjust_lr_fn": "match_rms_adamw"},
    ],
    ids=str,
)
@pytest.mark.parametrize("shape", [(6, 6), (4, 12), (12, 4)], ids=str)
def test_muon_is_torchs_step_by_step(settings, shape):
    ours, theirs = (nn.Parameter(drawn(*shape)) for _ in range(2))
    one, two = Muon([ours], **settings), torch.optim.Muon([theirs], **settings)
    for step in range(12):
        if step == 6:  # as a schedule does
            one.param_groups[0]["lr"] = two.param_groups[0]["lr"] = 0.01
        ours.grad, theirs.grad = (drawn(*shape, seed=step + 1) for _ in range(2))
        one.step()
        two.step()
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_newton_schulz_in_the_precision_that_was_asked_for(monkeypatch):
    seen = []
    monkeypatch.setattr(optimizers, "orthogonalize", lambda g, *how: seen.append(how[-1]) or g)
    model = small_gpt()
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    muon_and_adamw(model, ns_dtype=torch.float32).step()
    muon_and_adamw(model).step()
    assert seen == [torch.float32] * 8 + [torch.bfloat16] * 8


def test_defaults_are_torchs():
    parameter = nn.Parameter(drawn(2, 2))
    assert Muon([parameter]).defaults == torch.optim.Muon([parameter]).defaults


def test_a_matrix_without_gradient_stays():
    one, two = nn.Parameter(drawn(3, 3)), nn.Parameter(drawn(3, 3))
    one.grad = torch.ones(3, 3)
    Muon([one, two], lr=0.1).step()
    assert torch.equal(two, drawn(3, 3))
    assert not torch.equal(one, drawn(3, 3))


def test_newton_schulz_keeps_the_singular_vectors_and_evens_the_values():
    left, _, right = torch.linalg.svd(drawn(5, 8).double(), full_matrices=False)
    matrix = left @ torch.diag(torch.tensor([3.0, 2.0, 1.0, 0.5, 0.2]).double()) @ right
    found = orthogonalize(matrix, dtype=torch.double)
    inside = left.mT @ found @ right.mT
    torch.testing.assert_close(inside, torch.diag(inside.diagonal()), rtol=0, atol=1e-9)
    assert 0.6 < inside.diagonal().min() < inside.diagonal().max() < 1.3
    exact = orthogonalize(matrix, (1.875, -1.25, 0.375), ns_steps=20, dtype=torch.double)  # these converge to 1
    torch.testing.assert_close(exact, left @ right, rtol=0, atol=1e-9)


def test_a_zero_matrix_stays_zero():
    assert torch.equal(orthogonalize(torch.zeros(3, 4)).float(), torch.zeros(3, 4))


@pytest.mark.parametrize(
    ("kind", "shape", "factor"),
    [("original", (12, 3), 2.0), ("original", (3, 12), 1.0), (None, (12, 3), 2.0), ("match_rms_adamw", (4, 25), 1.0)],
)
def test_the_rate_by_shape(kind, shape, factor):
    assert adjusted_lr(0.1, kind, shape) == pytest.approx(0.1 * factor)


def test_matching_means_that_an_entry_moves_by_a_fifth_of_the_rate():
    parameter = nn.Parameter(torch.zeros(24, 16))
    parameter.grad = drawn(24, 16)
    Muon([parameter], lr=0.01, adjust_lr_fn="match_rms_adamw").step()
    assert float(parameter.detach().square().mean().sqrt()) == pytest.approx(0.002, rel=0.2)


@pytest.mark.parametrize(
    "settings", [{"lr": -1.0}, {"weight_decay": -1.0}, {"momentum": -0.1}, {"ns_steps": -1}, {"adjust_lr_fn": "mine"}]
)
def test_bad_settings_are_named(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        Muon([nn.Parameter(drawn(2, 2))], **settings)


def test_what_is_no_matrix_is_refused():
    with pytest.raises(ValueError, match=r"params must be matrices, got one of shape \(3,\)"):
        Muon([nn.Parameter(drawn(3))])
    with pytest.raises(ValueError, match="matrix must have two dimensions"):
        orthogonalize(drawn(3))


# Together with AdamW


def test_muon_takes_the_blocks_matrices_and_adamw_the_rest():
    model = small_gpt(tie_word_embeddings=False)
    optimizer = muon_and_adamw(model)
    muon, adamw = optimizer.parts
    taken = [p for group in muon.param_groups for p in group["params"]]
    names = {p: name for name, p in model.named_parameters()}
    assert {names[p] for p in taken} == {
        f"h.{i}.{name}.weight" for i in (0, 1) for name in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    }
    everything = [p for group in optimizer.param_groups for p in group["params"]]
    assert len(everything) == len(set(everything)) == len(names)
    decays = {names[p]: group["weight_decay"] for group in adamw.param_groups for p in group["params"]}
    assert decays["wte.weight"] == decays["lm_head.weight"] == 0.1
    assert decays["ln_f.weight"] == decays["h.0.mlp.c_fc.bias"] == 0.0


def test_a_wrapped_model_has_the_same_matrices():
    model = small_gpt()
    assert len(block_matrices(nn.ModuleDict({"model": model}))) == len(block_matrices(model)) == 8


def test_the_combination_is_its_parts_step_by_step():
    one, two = small_gpt(), small_gpt()
    together = muon_and_adamw(one, lr=0.01, weight_decay=0.3, betas=(0.8, 0.9))
    matrices = block_matrices(two)
    rest = [p for p in two.parameters() if all(p is not m for m in matrices)]
    apart = [
        torch.optim.Muon(matrices, lr=0.01, weight_decay=0.3, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW([p for p in rest if p.ndim == 2], 0.01, (0.8, 0.9), weight_decay=0.3, fused=True),
        torch.optim.AdamW([p for p in rest if p.ndim == 1], 0.01, (0.8, 0.9), weight_decay=0.0, fused=True),
    ]
    ids = torch.randint(11, (4, 8), generator=torch.Generator().manual_seed(1))
    for _ in range(5):
        for model in (one, two):
            model.zero_grad()
            model(ids, labels=ids).loss.backward()
        together.step()
        for optimizer in apart:
            optimizer.step()
    for p, q in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(p, q)


def get_batch(step):
    ids = torch.randint(11, (4, 8), generator=torch.Generator().manual_seed(step))
    return {"input_ids": ids, "labels": ids}


def test_a_schedule_reaches_every_part():
    model = small_gpt()
    optimizer = muon_and_adamw(model)
    args = TrainingArguments(max_steps=3, lr_scheduler_type="linear", min_lr_ratio=0.0)
    history = fit(model, get_batch, args, optimizer=optimizer, progress=False)
    last = history.steps[-1]["lr"]
    assert {group["lr"] for part in optimizer.parts for group in part.param_groups} == {last}


def test_a_run_that_was_stopped_ends_in_the_same_bits(tmp_path):
    args = TrainingArguments(max_steps=6, batch_size=4, learning_rate=0.01)
    whole, broken = small_gpt(), small_gpt()
    fit(whole, get_batch, args, optimizer=muon_and_adamw(whole), progress=False)

    def stop(step, model):
        if step == 2:
            raise ZeroDivisionError

    kept = TrainingArguments(**(args.__dict__ | {"save_steps": 2}))
    with pytest.raises(ZeroDivisionError):
        fit(broken, get_batch, kept, optimizer=muon_and_adamw(broken), callback=stop, checkpoint_dir=tmp_path,
            progress=False)  # fmt: skip
    other = small_gpt()
    with torch.no_grad():
        for p in other.parameters():
            p.zero_()
    optimizer = muon_and_adamw(other)
    history = fit(other, get_batch, kept, optimizer=optimizer, checkpoint_dir=tmp_path, resume=True, progress=False)
    assert len(history.steps) == 6
    for p, q in zip(whole.parameters(), other.parameters(), strict=True):
        assert torch.equal(p, q)
    assert all(part.state is optimizer.state for part in optimizer.parts)


def test_a_copy_of_the_state_is_the_state():
    model = small_gpt()
    optimizer = muon_and_adamw(model)
    model(**get_batch(0)).loss.backward()
    optimizer.step()
    state = copy.deepcopy(optimizer.state_dict())
    other = muon_and_adamw(small_gpt())
    other.load_state_dict(state)
    assert len(other.state) == len(list(model.parameters()))
    assert {"momentum_buffer"} == set(other.state[other.parts[0].param_groups[0]["params"][0]])


def test_a_closure_is_called_once():
    model, calls = small_gpt(), []

    def closure():
        calls.append(1)
        model.zero_grad()
        loss = model(**get_batch(0)).loss
        loss.backward()
        return loss.item()

    assert muon_and_adamw(model).step(closure) > 0
    assert len(calls) == 1
    weight = nn.Parameter(drawn(2, 2))
    assert Muon([weight]).step(lambda: 3.0) == 3.0


def test_nothing_to_combine_is_refused():
    with pytest.raises(ValueError, match="parts must hold at least one"):
        Combined()
    with pytest.raises(ValueError, match="model must have matrices in blocks"):
        muon_and_adamw(nn.Linear(2, 2))


def test_newton_schulz_is_counted_by_its_products():
    assert newton_schulz_flops((4, 6), ns_steps=1) == 2 * 4 * 6 * 4 + 2 * 4**3 + 2 * 4 * 4 * 6
    assert newton_schulz_flops((6, 4)) == 5 * newton_schulz_flops((4, 6), ns_steps=1)
