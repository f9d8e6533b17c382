"""The summariser: a mixture of writing and copying that sums to one, trained to copy, alone or among others."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from llmbook.applications import summarizer as Z
from llmbook.transformer import IGNORE

RECIPE = Z.SummarizerRecipe(n_embd=16, n_layer=1, n_head=2, max_steps=2, batch_size=4)
STORIES = Z.world().stories(40, 0)


@pytest.mark.parametrize("copies", [True, False])
def test_probabilities_sum_to_one_and_the_loss_is_their_mean(copies):
    model = Z.blank(dataclasses.replace(RECIPE, copies=copies))
    batch = Z.pairs(STORIES, RECIPE)(0)
    output = model(**batch)
    assert output.logits.exp().sum(-1).detach().numpy() == pytest.approx(1, abs=1e-4)
    scored = batch["labels"] != IGNORE
    at = output.logits.gather(-1, batch["labels"].clamp(min=0)[..., None])[..., 0]
    assert output.loss.item() == pytest.approx(-at[scored].mean().item(), rel=1e-4)


def test_without_copying_it_is_the_encoder_decoder():
    model = Z.blank(dataclasses.replace(RECIPE, copies=False)).eval()
    batch = Z.pairs(STORIES, RECIPE)(0)
    assert model(**batch).loss.item() == pytest.approx(model.base(**batch).loss.item(), rel=1e-4)


def test_what_is_copied_stands_in_the_source():
    model = Z.blank(RECIPE).eval()
    torch.nn.init.constant_(model.gate.bias, 50.0)  # copies always
    batch = Z.pairs(STORIES, RECIPE)(0)
    p = model(**batch).logits.exp()
    for row, source, mask in zip(p, batch["input_ids"], batch["attention_mask"], strict=True):
        inside = torch.zeros(p.shape[-1], dtype=torch.bool)
        inside[source[mask.bool()]] = True
        assert row[:, ~inside].max() < 1e-6
        assert row[:, inside].sum(-1).detach().numpy() == pytest.approx(1, abs=1e-4)


def test_it_learns():
    model = Z.blank(RECIPE)
    batch = Z.pairs(STORIES, RECIPE)(0)
    first = model(**batch).loss
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    for _ in range(10):
        optimizer.zero_grad()
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
    assert loss < first - 0.5


def test_a_batch_has_each_story_once():
    seen = [batch["labels"].shape[0] for batch in map(Z.pairs(STORIES, RECIPE), range(10))]
    assert seen == [4] * 10
    rows = {tuple(row.tolist()) for k in range(10) for row in Z.pairs(STORIES, RECIPE)(k)["input_ids"]}
    assert len(rows) == 40


def test_a_summary_does_not_depend_on_its_neighbours():
    model = Z.blank(RECIPE).eval()
    together = Z.summarize(model, STORIES[:3])
    assert together == [Z.summarize(model, [story])[0] for story in STORIES[:3]]
    assert len(Z.summarize(model, STORIES[:3], 1e-3, torch.Generator().manual_seed(0))) == 3


@pytest.mark.parametrize(
    ("told", "temperature", "says"), [([], 0.0, "told must hold"), (STORIES[:1], 1.0, "temperature must be"),
                                      (STORIES[:1], -1.0, "temperature must be")]
)  # fmt: skip
def test_bad_input_is_named(told, temperature, says):
    with pytest.raises(ValueError, match=says):
        Z.summarize(Z.blank(RECIPE), told, temperature)
