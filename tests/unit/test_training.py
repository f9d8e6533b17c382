"""The training loop: against transformers' schedules and the large batch, and through kills, interrupts and forks."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from llmbook.tokenization import Vocabulary
from llmbook.training import (
    NonFiniteLoss,
    TrainingArguments,
    configure_optimizer,
    evaluate_loss,
    fit,
    latest_checkpoint,
    learning_rate,
    load_corpus,
    main,
    pack,
    packed_batches,
    padded_batches,
    row_logprobs,
)
from llmbook.transformer import GPT, GPTConfig

V = 11


class Bigram(nn.Module):
    """The smallest language model with dropout: logits of the next id from the present one."""

    def __init__(self, dropout: float = 0.0, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.table = nn.Parameter(torch.randn(V, V, generator=generator))
        self.bias = nn.Parameter(torch.zeros(V))
        self.dropout = nn.Dropout(dropout)

    def forward(self, input_ids, labels):
        logits = self.dropout(self.table[input_ids]) + self.bias  # (B, T, V)
        loss = nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        return SimpleNamespace(logits=logits, loss=loss)


def tokens(n: int = 400) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(V, size=n))


def arguments(**changes) -> TrainingArguments:
    return TrainingArguments(**{"max_steps": 12, "batch_size": 4, "block_size": 8, "learning_rate": 0.1} | changes)


def train(args: TrainingArguments, model: Bigram | None = None, **options):
    model = model or Bigram(dropout=0.3)
    history = fit(model, packed_batches(tokens(), args), args, **options)
    return model, history


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))


# Schedules


@pytest.mark.parametrize(
    ("kind", "reference"),
    [
        ("constant", transformers.get_constant_schedule_with_warmup),
        ("linear", transformers.get_linear_schedule_with_warmup),
        ("cosine", transformers.get_cosine_schedule_with_warmup),
    ],
)
def test_schedules_equal_transformers(kind, reference):
    args = arguments(max_steps=50, lr_scheduler_type=kind, warmup_steps=5, min_lr_ratio=0.0, learning_rate=1.0)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    options = {} if kind == "constant" else {"num_training_steps": 50}
    scheduler = reference(optimizer, num_warmup_steps=5, **options)
    # Theirs begins the warm-up at zero (a lost step); ours at 1/warmup. Above the warm-up they agree.
    assert [learning_rate(step, args) for step in range(5)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    for step in range(49):
        optimizer.step()
        if step >= 5:
            assert learning_rate(step, args) == pytest.approx(scheduler.get_last_lr()[0], abs=1e-9)
        scheduler.step()


def test_wsd_holds_then_falls_and_step_halves():
    wsd = arguments(max_steps=100, lr_scheduler_type="wsd", decay_fraction=0.2, min_lr_ratio=0.0, learning_rate=1.0)
    assert learning_rate(79, wsd) == 1.0
    assert learning_rate(90, wsd) == pytest.approx(0.5)
    stairs = arguments(max_steps=100, lr_scheduler_type="step", decay_fraction=0.25, learning_rate=1.0)
    assert [learning_rate(s, stairs) for s in (0, 24, 25, 50, 99)] == [1.0, 1.0, 0.5, 0.25, 0.125]


@pytest.mark.parametrize(
    ("kind", "shares"),  # of the peak: at the end of the warm-up, half-way, three quarters of the way, and at the end
    [("constant", (1, 1, 1, 1)), ("linear", (1, 0.6, 0.4, 0.2)), ("wsd", (1, 1, 0.6, 0.2)),
     ("cosine", (1, 0.6, 0.2 + 0.8 * (1 - math.sqrt(0.5)) / 2, 0.2)), ("step", (1, 0.5, 0.5, 0.25))],
)  # fmt: skip
@pytest.mark.parametrize("warmup", [0, 20])
def test_a_schedule_goes_from_the_peak_to_its_lower_end(kind, shares, warmup):
    args = arguments(max_steps=100 + warmup, lr_scheduler_type=kind, warmup_steps=warmup, min_lr_ratio=0.2,
                     decay_fraction=0.5, learning_rate=3.0)  # fmt: skip
    assert [learning_rate(warmup + step, args) / 3.0 for step in (0, 50, 75, 100)] == pytest.approx(shares)
    assert learning_rate(max(0, warmup - 1), args) == 3.0  # the warm-up ends at the peak


@pytest.mark.parametrize("kind", ["wsd", "step"])
def test_nothing_decays_over_no_steps(kind):
    args = arguments(lr_scheduler_type=kind, decay_fraction=0.0, learning_rate=1.0)
    assert {learning_rate(step, args) for step in range(12)} == {1.0}


@pytest.mark.parametrize(
    ("field", "value"),
    [("max_steps", 0), ("gradient_accumulation_steps", 5), ("batch_size", -1), ("learning_rate", float("nan")),
     ("min_lr_ratio", 1.5),
     ("lr_scheduler_type", "sine"), ("precision", "float8"), ("warmup_steps", -1)],
)  # fmt: skip
def test_bad_arguments_are_named(field, value):
    with pytest.raises(ValueError, match=field):
        arguments(**{field: value})


# Data


def test_pack_keeps_every_token():
    packed = pack([[1, 2], [], [3]], eos=0)
    assert packed.tolist() == [1, 2, 0, 0, 3, 0]
    with pytest.raises(ValueError, match="documents"):
        pack([], eos=0)


@settings(max_examples=40, deadline=None)
@given(n=st.integers(10, 300), block=st.integers(1, 9), batch=st.integers(1, 5), seed=st.integers(0, 9))
def test_an_epoch_visits_every_block_once(n, block, batch, seed):
    args = arguments(block_size=block, batch_size=batch, seed=seed)
    get_batch = packed_batches(torch.arange(n), args)
    blocks = (n - 1) // block
    rows = torch.cat([get_batch(i)["input_ids"] for i in range(blocks)])[:blocks]  # the first epoch
    assert len(set(rows[:, 0].tolist())) == blocks
    assert torch.equal(rows, rows[:, :1] + torch.arange(block))
    assert torch.equal(get_batch(3)["input_ids"], packed_batches(torch.arange(n), args)(3)["input_ids"])


def test_each_epoch_has_an_order_and_block_borders_of_its_own():
    get_batch = packed_batches(torch.arange(47), arguments(batch_size=5))  # five blocks of 8, and seven left over
    epochs = [get_batch(epoch)["input_ids"][:, 0] for epoch in range(20)]  # an epoch is one batch here
    shifts, orders = [first % 8 for first in epochs], [tuple((first // 8).tolist()) for first in epochs]
    assert all(len(set(shift.tolist())) == 1 for shift in shifts)
    assert {int(shift[0]) for shift in shifts} == set(range(8))
    assert len(set(orders)) > 10


def test_batches_differ_between_seeds_and_reject_bad_tokens():
    a, b = (packed_batches(tokens(), arguments(seed=s))(0)["input_ids"] for s in (0, 1))
    assert not torch.equal(a, b)
    with pytest.raises(ValueError, match="more than one block"):
        packed_batches(torch.arange(8), arguments())
    with pytest.raises(ValueError, match="int64"):
        packed_batches(torch.zeros(99), arguments())


def documents(n: int, seed: int = 0) -> list[list[int]]:
    """n rows of 2 to 8 ids, each row's first id its own number, so that a row can be recognised."""
    rng = np.random.default_rng(seed)
    return [[i, *rng.integers(1000, size=rng.integers(1, 8))] for i in range(n)]


@settings(max_examples=40, deadline=None)
@given(n=st.integers(5, 400), batch=st.integers(1, 5), seed=st.integers(0, 9))
def test_an_epoch_pads_every_document_once(n, batch, seed):
    rows, args = documents(n), arguments(batch_size=batch, seed=seed)
    get_batch = padded_batches(rows, args)
    seen = []
    for step in range(n // batch):
        ids, labels = get_batch(step)["input_ids"], get_batch(step)["labels"]
        assert ids.shape == labels.shape == (batch, max((labels != -100).sum(1)))
        for i, label in zip(ids, labels, strict=True):
            row = rows[int(i[0])]
            assert label.tolist() == row + [-100] * (len(label) - len(row))
            assert i.tolist() == row + [0] * (len(label) - len(row))
        seen += ids[:, 0].tolist()
    assert len(set(seen)) == len(seen) == n // batch * batch


def test_padded_batches_follow_from_seed_and_step_and_hold_rows_of_like_length():
    rows = documents(640)
    one, other = padded_batches(rows, arguments()), padded_batches(rows, arguments())
    for step in (500, 3, 160):  # in any order, across epochs
        assert torch.equal(one(step)["labels"], other(step)["labels"])
    first = [tuple(one(step)["labels"][:, 0].tolist()) for step in range(160)]
    assert first != [tuple(one(160 + step)["labels"][:, 0].tolist()) for step in range(160)]  # another epoch
    assert not torch.equal(one(0)["labels"][:, 0], padded_batches(rows, arguments(seed=1))(0)["labels"][:, 0])
    padding = np.mean([(one(step)["labels"] == -100).float().mean() for step in range(160)])
    assert padding < 0.08  # batches of random rows waste 0.27
    widths = [one(step)["labels"].shape[1] for step in range(32)]
    assert widths != sorted(widths)  # not the short ones first


def test_padded_batches_reject_rows_that_do_not_fit():
    with pytest.raises(ValueError, match="at least one batch of 4, got 3"):
        padded_batches(documents(3), arguments())
    with pytest.raises(ValueError, match="block_size = 8 tokens, got 1 to 9"):
        padded_batches([*documents(5), [1], list(range(9))], arguments())


# The loop


def test_one_step_is_torchs_adamw_on_the_clipped_gradient():
    args = arguments(max_steps=1, lr_scheduler_type="constant", max_grad_norm=0.01)
    ours, _ = train(args, Bigram())
    theirs = Bigram()
    batch = packed_batches(tokens(), args)(0)
    theirs(**batch).loss.backward()
    nn.utils.clip_grad_norm_(theirs.parameters(), 0.01)
    groups = [{"params": [theirs.table], "weight_decay": 0.1}, {"params": [theirs.bias], "weight_decay": 0.0}]
    torch.optim.AdamW(groups, lr=0.1, betas=(0.9, 0.95)).step()
    torch.testing.assert_close(list(ours.parameters()), list(theirs.parameters()))


def test_matrices_decay_and_vectors_and_gains_do_not():
    model = GPT(GPTConfig(V, 8, 8, 1, 2), generator=torch.Generator().manual_seed(0))
    model.h[0].ln_1.weight.requires_grad_(False)
    for p in model.parameters():
        p.data += 1.0  # biases, too, must have something to lose
    optimizer = configure_optimizer(model, arguments(weight_decay=0.5, adam_beta1=0.7, adam_beta2=0.9))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    left = {name: (p / before[name]).mean().item() for name, p in model.named_parameters()}
    assert left == pytest.approx({name: 0.95 if p.ndim == 2 else 1.0 for name, p in before.items()})
    trained = [p for group in optimizer.param_groups for p in group["params"]]
    assert len(trained) == len({id(p) for p in trained}) == len(before) - 1  # tied weights once, frozen ones never
    assert {group["betas"] for group in optimizer.param_groups} == {(0.7, 0.9)}


def test_zero_switches_clipping_off():
    args = arguments(max_grad_norm=0.0)
    (free, history), (never_clipped, _) = train(args), train(arguments(max_grad_norm=1e9))
    assert history.column("grad_norm").min() > 0
    assert same(free, never_clipped)


def test_dropout_differs_from_step_to_step():
    args = arguments(max_steps=2, learning_rate=1e-12, weight_decay=0.0)  # the weights stay as they were
    batch = packed_batches(tokens(), args)(0)
    history = fit(Bigram(dropout=0.5), lambda step: batch, args)
    first, second = history.column("loss")
    assert abs(first - second) > 1e-3


def test_evaluation_drops_nothing_out_and_training_goes_on_dropping():
    seen = []
    train(arguments(max_steps=4, eval_steps=1), evaluate=lambda m: seen.append(m.training) or 0.0,
          callback=lambda step, m: seen.append(m.dropout.p))  # fmt: skip
    assert seen == [0.3, False] * 4
    (plain, _), (evaluated, _) = train(arguments()), train(arguments(eval_steps=1), evaluate=lambda m: 0.0)
    assert same(plain, evaluated)


def test_the_loss_falls_and_is_recorded():
    _, history = train(arguments(max_steps=60), Bigram(), evaluate=lambda m: 1.5)
    losses = history.column("loss")
    assert losses[-5:].mean() < losses[:5].mean()
    assert history.evaluations == [{"step": 60, "loss": 1.5}]
    assert np.isfinite(history.column("grad_norm")).all()


def test_a_bar_shows_where_somebody_watches(capfd, monkeypatch):
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    train(arguments())
    assert capfd.readouterr().err == ""  # no terminal, nobody watches
    train(arguments(), progress=True)
    bar = capfd.readouterr().err
    assert "12/12" in bar
    assert all(part in bar for part in ("loss=", "tokens_per_s=", "<00:00"))  # the last is the time left
    monkeypatch.setenv("JPY_SESSION_NAME", "05_transformer.ipynb")
    train(arguments())
    assert "12/12" in capfd.readouterr().err
    train(arguments(), progress=False)
    assert capfd.readouterr().err == ""


def test_accumulation_equals_the_large_batch():
    labels_missing = packed_batches(tokens(), arguments())

    def ragged(step):  # micro-batches with unequal numbers of targets: the mean of means would be wrong
        batch = dict(labels_missing(step))
        labels = batch["labels"].clone()
        labels[0, 2:] = -100
        return batch | {"labels": labels}

    one, four = Bigram(), Bigram()
    a = fit(one, ragged, arguments())
    b = fit(four, ragged, arguments(gradient_accumulation_steps=4))
    np.testing.assert_allclose(a.column("loss"), b.column("loss"), rtol=1e-5)
    torch.testing.assert_close(list(one.parameters()), list(four.parameters()), rtol=1e-4, atol=1e-5)


def partly_labelled(rows, size=6):
    """Batches of six rows, of which only these have labels."""
    get_batch = packed_batches(tokens(), arguments(batch_size=size))

    def batch_of(step):
        batch = get_batch(step)
        labels = torch.full_like(batch["labels"], -100)
        labels[rows] = batch["labels"][rows]
        return {"input_ids": batch["input_ids"], "labels": labels}

    return batch_of


class Padded(Bigram):
    """The bigram where -100 is not scored; the mean over nothing is NaN, as torch has it."""

    def forward(self, input_ids, labels):
        logits = self.dropout(self.table[input_ids]) + self.bias
        loss = nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100)
        return SimpleNamespace(logits=logits, loss=loss)


@pytest.mark.parametrize("parts", [2, 3, 4, 5, 6])
@pytest.mark.parametrize("rows", [range(6), [0], [5], [1, 4]])
def test_micro_batches_of_unequal_size_or_without_labels_make_the_same_step(parts, rows):
    one, other = Padded(), Padded()
    args = arguments(batch_size=6, max_steps=3)
    a = fit(one, partly_labelled(list(rows)), args)
    b = fit(other, partly_labelled(list(rows)), replace(args, gradient_accumulation_steps=parts))
    np.testing.assert_allclose(a.column("loss"), b.column("loss"), rtol=1e-5)
    torch.testing.assert_close(list(one.parameters()), list(other.parameters()), rtol=1e-4, atol=1e-5)


def test_micro_batches_weigh_by_what_the_caller_counts():
    """Labels that are not shifted: a micro-batch whose only label is its first has one target, not none."""

    def loss(model, batch):
        logits = model.table[batch["input_ids"]]
        return nn.functional.cross_entropy(logits.flatten(0, 1), batch["labels"].flatten(), ignore_index=-100)

    def first_only(step):
        batch = packed_batches(tokens(), arguments())(step)
        labels = torch.full_like(batch["labels"], -100)
        labels[0, 0], labels[2] = 3, batch["labels"][2]
        return {"input_ids": batch["input_ids"], "labels": labels}

    ends = []
    for parts in (1, 4):
        model = Bigram()
        fit(model, first_only, arguments(gradient_accumulation_steps=parts, max_steps=2), loss_function=loss,
            count_targets=lambda batch: int((batch["labels"] != -100).sum()))  # fmt: skip
        ends.append(list(model.parameters()))
    torch.testing.assert_close(*ends)


def test_a_step_with_nothing_to_predict_and_one_with_too_few_rows_say_so():
    args = arguments(batch_size=6, gradient_accumulation_steps=3)
    with pytest.raises(ValueError, match="no target at step 0"):
        fit(Padded(), partly_labelled([]), args)
    with pytest.raises(ValueError, match=r"= 3 micro-batches, got 2 at step 0"):
        fit(Padded(), partly_labelled([0], size=2), args)


def test_training_leaves_the_global_generator_alone():
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    train(arguments())
    assert torch.equal(torch.rand(3), expected)


def test_a_loss_that_is_not_finite_names_step_and_batch():
    model = Bigram()

    def spoil(step, m):
        if step == 3:
            m.table.data[:] = math.nan

    with pytest.raises(NonFiniteLoss, match=r"nan at step 4.*input_ids begin \["):
        train(arguments(), model, callback=spoil)


def test_a_gradient_that_is_not_finite_is_told_at_its_own_step():
    def loss(model, batch):  # finite, with a slope that is not
        return model(**batch).loss + (model.bias.abs().sum().sqrt() if batch["input_ids"][0, 0] >= 0 else 0.0)

    with pytest.raises(NonFiniteLoss, match=r"gradient's norm is nan at step 0, whose input_ids begin \["):
        train(arguments(), Bigram(), loss_function=loss)


def test_bfloat16_trains_near_float32():
    _, full = train(arguments(max_steps=40), Bigram())
    _, half = train(arguments(max_steps=40, precision="bfloat16"), Bigram())
    assert half.column("loss")[-1] == pytest.approx(full.column("loss")[-1], abs=0.02)


def test_float16_clips_the_gradient_itself_and_not_its_scaled_image():
    _, full = train(arguments(), Bigram())
    _, half = train(arguments(precision="float16"), Bigram())
    np.testing.assert_allclose(half.column("grad_norm"), full.column("grad_norm"), rtol=0.05)


# Checkpoints


def test_a_resumed_run_has_the_loss_scale_that_it_had(tmp_path):
    args = arguments(max_steps=3, precision="float16", save_steps=1)
    get_batch = packed_batches(tokens(), args)

    def overflow_at_first(model, batch):  # which halves the scale
        return model(batch["input_ids"], batch["labels"]).loss * (1e35 if batch["step"][0] == 0 else 1.0)

    def run(folder, **options):
        fit(Bigram(), lambda step: get_batch(step) | {"step": torch.full((4,), step)}, args,
            loss_function=overflow_at_first, checkpoint_dir=folder, **options)  # fmt: skip
        return json.loads((latest_checkpoint(folder) / "state.json").read_text())["scaler"]

    def stop(step, model):
        if step == 1:
            raise RuntimeError("killed")

    whole = run(tmp_path / "whole")
    with pytest.raises(RuntimeError, match="killed"):
        run(tmp_path / "cut", callback=stop)
    assert run(tmp_path / "cut", resume=True) == whole
    assert whole["scale"] == 2.0**15


def test_a_resumed_run_is_bit_identical(tmp_path):
    whole, history = train(arguments())

    def stop(step, model):
        if step == 6:
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        train(arguments(save_steps=2), checkpoint_dir=tmp_path, callback=stop)
    resumed, again = train(arguments(), Bigram(dropout=0.3, seed=9), checkpoint_dir=tmp_path, resume=True)
    assert same(whole, resumed)
    assert history == again
    assert not list(tmp_path.glob(".writing-*"))


def test_a_checkpoint_is_neither_overwritten_nor_mistaken(tmp_path):
    train(arguments(), checkpoint_dir=tmp_path)
    with pytest.raises(FileExistsError, match="resume=True"):
        train(arguments(), checkpoint_dir=tmp_path)
    with pytest.raises(ValueError, match=r"learning_rate: 0.1 there, 0.2 here"):
        train(arguments(learning_rate=0.2), checkpoint_dir=tmp_path, resume=True)
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        train(arguments(), checkpoint_dir=tmp_path / "empty", resume=True)
    assert latest_checkpoint(tmp_path).name == "step-00000012"


def test_a_finished_run_survives_an_evaluation_that_fails(tmp_path):
    def fails(model):
        raise ValueError("too little text")

    args = arguments(eval_steps=6, save_steps=6)
    for done in (6, 12):
        with pytest.raises(ValueError, match="too little text"):
            train(args, checkpoint_dir=tmp_path, evaluate=fails, resume=done > 6)
        assert latest_checkpoint(tmp_path).name == "step-00000006"  # the evaluation comes first, and fails again
    whole, history = train(args, evaluate=lambda m: 1.5)
    resumed, again = train(args, checkpoint_dir=tmp_path, evaluate=lambda m: 1.5, resume=True)
    assert same(whole, resumed)
    assert history == again
    state = json.loads((latest_checkpoint(tmp_path) / "state.json").read_text())
    assert [row["step"] for row in state["history"]["evaluations"]] == [6, 12]


OTHERS = {  # what differs: changes to the configuration, to the tokens, to what the caller says
    "n_head: 2 there, 4 here": {"n_head": 4},
    "attn_pdrop: 0.0 there, 0.1 here": {"attn_pdrop": 0.1},
    "activation_function: 'gelu_new' there, 'relu' here": {"activation_function": "relu"},
    "layer_norm_epsilon: 1e-05 there, 0.001 here": {"layer_norm_epsilon": 1e-3},
    "batches:": {"tokens": 3},
    "vocabulary: 'abc' there, 'abd' here": {"about": {"vocabulary": "abd"}},
}


@pytest.mark.parametrize(("message", "change"), OTHERS.items())
def test_a_run_is_not_resumed_with_another_model_or_other_data(tmp_path, message, change):
    def run(tokens=2, about=None, **changes):
        config = GPTConfig(**{"vocab_size": V, "n_positions": 8, "n_embd": 8, "n_layer": 1, "n_head": 2} | changes)
        model = GPT(config, generator=torch.Generator().manual_seed(0))
        row = torch.from_numpy(np.random.default_rng(tokens).integers(V, size=400))
        args = arguments(max_steps=2)
        fit(model, packed_batches(row, args), args, checkpoint_dir=tmp_path, resume=bool(list(tmp_path.iterdir())),
            about=about or {"vocabulary": "abc"})  # fmt: skip

    run()
    run()
    with pytest.raises(ValueError, match=message):
        run(**change)


def test_a_model_without_a_configuration_is_known_by_its_layers(tmp_path):
    train(arguments(), Bigram(dropout=0.3), checkpoint_dir=tmp_path)
    with pytest.raises(ValueError, match=r"p=0\.3.*p=0\.2"):
        train(arguments(), Bigram(dropout=0.2), checkpoint_dir=tmp_path, resume=True)


def break_state(folder):
    (folder / "state.json").write_text("")


def break_weights(folder):
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-1] ^= 1  # one bit, which safetensors reads without a word
    (folder / "model.safetensors").write_bytes(bytes(data))


def break_moments(folder):
    (folder / "optimizer.safetensors").unlink()


@pytest.mark.parametrize("damage", [break_state, break_weights, break_moments])
def test_a_damaged_newest_checkpoint_is_passed_over(tmp_path, damage):
    whole, history = train(arguments())
    train(arguments(save_steps=4), checkpoint_dir=tmp_path)
    assert sorted(p.name for p in tmp_path.glob("step-*")) == ["step-00000008", "step-00000012"]  # the last two
    damage(tmp_path / "step-00000012")
    with pytest.warns(RuntimeWarning, match="step-00000012 is damaged and passed over"):
        resumed, again = train(arguments(), checkpoint_dir=tmp_path, resume=True)
    assert same(whole, resumed)
    assert history == again
    for folder in tmp_path.glob("step-*"):
        damage(folder)
    with pytest.warns(RuntimeWarning), pytest.raises(ValueError, match="all are damaged"):
        train(arguments(), checkpoint_dir=tmp_path, resume=True)


def test_what_an_earlier_run_left_half_written_is_cleared(tmp_path):
    (tmp_path / ".writing-abc").mkdir()
    (tmp_path / ".writing-abc" / "model.safetensors").write_bytes(b"half")
    train(arguments(), checkpoint_dir=tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".held-by", "step-00000012"]


def test_every_file_is_flushed_before_the_checkpoint_has_its_name(tmp_path, monkeypatch):
    flushed = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: flushed.append(os.readlink(f"/proc/self/fd/{descriptor}")))
    monkeypatch.setattr(os, "rename", lambda *names, rename=os.rename: (flushed.append("renamed"), rename(*names)))
    train(arguments(), checkpoint_dir=tmp_path)
    names = [os.path.basename(path).split("-")[0] for path in flushed]
    assert set(names[:3]) == {"model.safetensors", "optimizer.safetensors", "state.json"}
    assert names[3:5] == [".writing", "renamed"]
    assert flushed[5:] == [str(tmp_path)]


def test_two_processes_do_not_train_in_one_folder(tmp_path):
    process = start(tmp_path)
    assert [process.stdout.readline() for _ in range(2)] == ["0\n", "1\n"]  # it has saved a first checkpoint
    with pytest.raises(BlockingIOError, match=f"in use by process {process.pid} on "):
        train(arguments(max_steps=40, save_steps=1), checkpoint_dir=tmp_path, resume=True)
    process.kill()
    process.communicate(timeout=1800)
    train(arguments(max_steps=40, save_steps=1), checkpoint_dir=tmp_path, resume=True)  # the dead hold nothing


SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
from test_training import Bigram, arguments, packed_batches, tokens
from llmbook.training import fit
import time, torch
torch.set_num_threads(1)
args = arguments(max_steps=40, save_steps=1)
fit(Bigram(dropout=0.3), packed_batches(tokens(), args), args, checkpoint_dir=sys.argv[1],
    resume=len(sys.argv) > 2, callback=lambda step, model: (print(step, flush=True), time.sleep(0.01)))
"""


def start(tmp_path, *more: str) -> subprocess.Popen[str]:
    script = textwrap.dedent(SCRIPT).format(tests=os.path.dirname(__file__))
    command = [sys.executable, "-c", script, str(tmp_path), *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_or_interrupted_process_resumes_to_the_same_bits(tmp_path, sent):
    whole, _ = train(arguments(max_steps=40, save_steps=1))
    process = start(tmp_path)
    stop_at = int(np.random.default_rng().integers(2, 30))  # any step must do
    for line in process.stdout:
        if int(line) == stop_at:
            process.send_signal(sent)
            break
    _, errors = process.communicate(timeout=1800)
    assert process.returncode != 0
    if sent == signal.SIGINT:
        assert "KeyboardInterrupt" in errors
        assert "resume=True goes on from there" in errors
    again = start(tmp_path, "resume")
    _, errors = again.communicate(timeout=1800)
    assert again.returncode == 0, errors
    resumed, _ = train(arguments(max_steps=40, save_steps=1), checkpoint_dir=tmp_path, resume=True)
    assert same(whole, resumed)


# The shell


SMALL = "--n-layer 1 --n-head 2 --n-embd 16 --max-steps 6 --batch-size 4 --block-size 16 --device cpu"
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m")


def shell(*words: str, launcher=(sys.executable, "-m")) -> str:
    command = [*launcher, "llmbook.training", *words, *SMALL.split()]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800, env=env)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def text_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("corpus") / "text.txt"
    path.write_text("the cat sat on the mat and the dog sat on the log . " * 20, encoding="utf-8")
    return str(path)


def losses(folder) -> list[float]:
    state = json.loads((latest_checkpoint(folder / "checkpoints") / "state.json").read_text())
    return [row["loss"] for row in state["history"]["steps"]]


@pytest.fixture(scope="module")
def one_process(tmp_path_factory, text_file):
    folder = tmp_path_factory.mktemp("one")
    return folder, shell("--corpus", text_file, "--output", str(folder))


def test_two_processes_have_the_losses_of_one(tmp_path, text_file, one_process):
    shell("--corpus", text_file, "--output", str(tmp_path), "--gradient-accumulation-steps", "2", launcher=TORCHRUN)
    np.testing.assert_allclose(losses(tmp_path), losses(one_process[0]), atol=1e-5)


def test_two_processes_train_on_where_one_has_nothing_to_score(tmp_path):
    script = """
import sys, torch
sys.path.insert(0, {tests!r})
from test_training import Padded, arguments, fit, partly_labelled
torch.distributed.init_process_group("gloo")
history = fit(Padded(), partly_labelled([0]), arguments(batch_size=6, max_steps=3))
if torch.distributed.get_rank() == 0:
    print(history.column("loss").tolist())
torch.distributed.destroy_process_group()
"""
    (tmp_path / "script.py").write_text(script.format(tests=os.path.dirname(__file__)))
    command = [*TORCHRUN[:-1], str(tmp_path / "script.py")]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=1800, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    alone = fit(Padded(), partly_labelled([0]), arguments(batch_size=6, max_steps=3))
    np.testing.assert_allclose(json.loads(done.stdout), alone.column("loss"), rtol=1e-5)


def test_the_shell_checks_what_the_evaluation_needs_before_it_trains(tmp_path):
    (tmp_path / "short.txt").write_text("the cat sat on the mat. " * 30)
    with pytest.raises(ValueError, match=r"validation part of corpus .* must hold at least one block of 128, got 73"):
        main(["--corpus", str(tmp_path / "short.txt"), "--block-size", "128", "--output", str(tmp_path / "o")])
    assert not (tmp_path / "o").exists()


def test_the_shell_leaves_a_model_that_transformers_reads(one_process):
    folder, printed = one_process
    assert json.loads(printed)["steps"] == 6
    model = transformers.GPT2LMHeadModel.from_pretrained(folder)
    assert model.config.n_embd == 16
    assert len(Vocabulary.load(folder / "vocabulary.json")) == model.config.vocab_size


@pytest.mark.parametrize("name", ["toyworld", "wikipedia"])
def test_corpora_are_packed_for_training_and_validation(name):
    vocabulary, train, valid = load_corpus(name, stories=20, seed=0)
    assert len(train) > 5 * len(valid) > 0
    assert int(torch.cat([train, valid]).max()) < len(vocabulary)
    assert (train == vocabulary.token_to_id("<eos>")).any()


def test_evaluate_loss_is_the_mean_over_blocks():
    model, row = Bigram(), tokens(40)
    blocks = row.view(5, 8)
    expected = np.mean([model(b[None], b[None]).loss.item() for b in blocks])
    assert evaluate_loss(model, row, 8, batch_size=2) == pytest.approx(expected, rel=1e-6)
    with pytest.raises(ValueError, match="at least one block of 64"):
        evaluate_loss(model, row, 64)


def test_row_logprobs_reads_each_row_by_itself_and_keeps_the_order():
    config = GPTConfig(vocab_size=50, n_positions=8, n_embd=8, n_layer=2, n_head=2, initializer_range=0.5)
    model = GPT(config, generator=torch.Generator().manual_seed(0)).eval()
    rng = np.random.default_rng(0)
    rows = [rng.integers(50, size=n) for n in (5, 2, 8, 3, 7)]
    found = row_logprobs(model, rows, batch_size=2)
    one_by_one = []
    with torch.no_grad():
        for row in rows:
            ids = torch.from_numpy(row)[None]
            logprobs = model(ids).logits.log_softmax(-1)[0, :-1]  # (T − 1, V)
            one_by_one.append(logprobs.gather(1, ids[0, 1:, None])[:, 0].double().numpy())
    np.testing.assert_allclose(found, np.concatenate(one_by_one), atol=1e-5)
    with pytest.raises(ValueError, match="at least 2 tokens"):
        row_logprobs(model, [[1, 2], [3]])


def test_row_logprobs_drops_nothing_out():
    model = Bigram(dropout=0.5)
    rows = [[1, 2, 3], [4, 5, 6, 7]]
    assert np.array_equal(row_logprobs(_Logits(model), rows), row_logprobs(_Logits(model), rows))


class _Logits(nn.Module):
    """The bigram without its loss."""

    def __init__(self, model: Bigram) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids):
        return self.model(input_ids, input_ids)
