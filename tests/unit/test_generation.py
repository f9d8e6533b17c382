"""Control of ToyWorld's stories: what was asked for, what was fulfilled, and what a mask forbids."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from llmbook.applications import generation as G
from llmbook.transformer import GPT, EncoderDecoder, GPTConfig

STORIES = G.world().stories(40, 0)


def test_a_story_fulfils_the_wishes_that_are_read_off_it():
    for story in STORIES:
        control = G.control_of(story.tokens, np.random.default_rng(0))
        assert all(G.fulfils(story.tokens, control).values())
        assert all(token in G.world().token_to_id for token in control.tokens)
        assert not G.fulfils(story.tokens, dataclasses.replace(control, short=not control.short))["short"]


def test_a_text_without_its_end_has_no_tone_and_no_length():
    control = G.control_of(STORIES[0].tokens)
    found = G.fulfils(STORIES[0].tokens[:-1], control)
    assert not found["tone"]
    assert not found["short"]


def test_a_plan_forbids_the_end_and_other_things():
    ids = G.world().token_to_id
    mask = G.PlanMask(["key"], prompt_length=1)
    texts = torch.tensor([[0, ids["key"]], [0, ids["Anna"]]])
    scores = mask(texts, torch.zeros(2, len(ids)))
    assert scores[0, ids["that"]] == 0
    assert scores[1, ids["that"]] == -math.inf
    assert scores[0, ids["key"]] == 0
    assert scores[0, ids["ball"]] == -math.inf


def tiny(kind):
    config = GPTConfig(len(G.world().vocabulary), 128, 16, 1, 2, positions="rotary")
    return kind(config, generator=torch.Generator().manual_seed(0)).eval()


def test_drafts_end_with_their_end():
    texts = G.draft(tiny(GPT), [["<bos>"]] * 3, generator=torch.Generator().manual_seed(0), longest=20)
    assert len(texts) == 3
    assert all("<eos>" not in text[:-1] and len(text) <= 20 for text in texts)


def test_the_summariser_learns_and_a_summary_does_not_depend_on_its_neighbours():
    recipe = G.SummarizerRecipe(n_embd=16, n_layer=1, n_head=2, max_steps=2, batch_size=4)
    batch = G._pairs(STORIES, recipe)(0)
    assert batch["input_ids"].shape == batch["attention_mask"].shape
    assert len(batch["labels"]) == 4
    model = tiny(EncoderDecoder)
    together = G.summarize(model, STORIES[:3])
    assert together == [G.summarize(model, [story])[0] for story in STORIES[:3]]
    cooled = G.summarize(model, STORIES[:3], 1e-3, torch.Generator().manual_seed(0))
    assert len(cooled) == 3


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: G.control_of(["Anna"]), "tokens must be"),
        (lambda: G.PlanMask(["dragon"], 1), "planned must be"),
        (lambda: G.summarize(tiny(EncoderDecoder), []), "told must hold"),
        (lambda: G.summarize(tiny(EncoderDecoder), STORIES[:1], 1.0), "temperature must be"),
        (lambda: G.draft(tiny(GPT), [["<bos>"], []], generator=torch.Generator()), "prompts must"),
    ],
)
def test_bad_input_is_named(call, says):
    with pytest.raises(ValueError, match=says):
        call()
