"""Control of ToyWorld's stories: what was asked for and what was fulfilled."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from llmbook.applications import generation as G
from llmbook.transformer import GPT, GPTConfig

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


def tiny():
    config = GPTConfig(len(G.world().vocabulary), 128, 16, 1, 2, positions="rotary")
    return GPT(config, generator=torch.Generator().manual_seed(0)).eval()


def test_drafts_end_with_their_end():
    texts = G.draft(tiny(), [["<bos>"]] * 3, generator=torch.Generator().manual_seed(0), longest=20)
    assert len(texts) == 3
    assert all("<eos>" not in text[:-1] and len(text) <= 20 for text in texts)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: G.control_of(["Anna"]), "tokens must be"),
        (lambda: G.draft(tiny(), [["<bos>"], []], generator=torch.Generator()), "prompts must"),
    ],
)
def test_bad_input_is_named(call, says):
    with pytest.raises(ValueError, match=says):
        call()
