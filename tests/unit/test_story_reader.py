"""The reader: its batches hold the stories' facts, its pointer is a distribution, and it learns."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llmbook.applications import story_reader as rd
from llmbook.applications import understanding as u
from llmbook.toyworld import ToyWorld
from llmbook.training import TrainingArguments, fit

WORLD = ToyWorld("small")
STORIES = WORLD.stories(12, 3)


def test_a_batch_holds_each_storys_facts():
    batch = rd.collate(WORLD, STORIES)
    names = rd.relation_names(WORLD)
    for i, story in enumerate(STORIES):
        subjects = list(u.mentions(story.tokens, u.truth(story).spans))
        about = rd.abouts(story)
        rebuilt = set()
        for j, k in zip(*np.nonzero(batch["asked"][i].numpy()), strict=True):
            places = np.flatnonzero(batch["answers"][i, j, k].numpy())
            words = {about[p - 1] if story.tokens[p - 1] in rd.PRONOUNS else story.tokens[p - 1] for p in places if p}
            if places[0]:
                (value,) = words
                rebuilt.add(rd.as_triple(subjects[j], names[k], value))
            else:
                assert not {story.tokens[p - 1] for p in places if p} & rd.answer_words(names[k])
        sayable = {t for t in u.truth(story).triples if not t[1].startswith("number") or t[2] in story.tokens}
        assert rebuilt == sayable


@given(st.lists(st.floats(-30, 30), min_size=1, max_size=8))
def test_the_last_match_by_hand(odds):
    p = 1 / (1 + np.exp(-np.array(odds)))
    want = [p[t] * np.prod(1 - p[t + 1 :]) for t in range(len(p))]
    want[0] = np.prod(1 - p[1:])
    got = rd.last_match(torch.tensor(odds, dtype=torch.float64)).exp().numpy()
    np.testing.assert_allclose(got, want, atol=1e-12)
    assert got.sum() == pytest.approx(1)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: rd.collate(WORLD, STORIES[:2], [()]), "spans"),
        (lambda: rd.read(None, WORLD, STORIES[:2], [()]), "spans"),
        (lambda: rd.answer_words("loves"), "relation"),
    ],
)
def test_bad_input_is_refused(call, named):
    with pytest.raises(ValueError, match=named):
        call()


def test_every_word_is_about_one_of_the_cast_and_a_name_about_itself():
    for story in STORIES:
        for place, person in rd.abouts(story).items():
            assert person in (*story.state.cast, rd.THEY)
            if story.tokens[place] in story.state.cast:
                assert story.tokens[place] == person


def test_given_names_are_used_in_the_place_of_found_ones():
    model = rd.new_reader(rd.ReaderRecipe(4, n_embd=32, n_layer=1), WORLD)
    true = [u.truth(story).spans for story in STORIES]
    assert [reading.spans for reading in rd.read(model, WORLD, STORIES, true)] == true


def test_the_reader_learns_a_few_stories_by_heart():
    recipe = rd.ReaderRecipe(4, n_embd=32, n_layer=1)
    model = rd.new_reader(recipe, WORLD)
    batch = rd.collate(WORLD, STORIES[:4])
    args = TrainingArguments(max_steps=150, batch_size=4, learning_rate=1e-2, warmup_steps=5)
    before = float(rd.reader_loss(model, batch).detach())
    fit(model, lambda step: batch, args, loss_function=rd.reader_loss, count_targets=lambda b: 4, progress=False)
    assert float(rd.reader_loss(model, batch).detach()) < before / 10
    for reading, story in zip(rd.read(model, WORLD, STORIES[:4]), STORIES, strict=False):
        assert u.set_scores([u.truth(story).spans], [reading.spans]).f1 > 0.9
        assert set(reading.moods) >= set(u.truth(story).moods)


def test_pointers_are_probabilities_and_padding_gets_none():
    model = rd.new_reader(rd.ReaderRecipe(4, n_embd=32, n_layer=1), WORLD)
    batch = rd.collate(WORLD, STORIES)
    states = model.states(batch["input_ids"], batch["attention_mask"])
    pointers = model.pointers(states, model.subjects(states, batch["named"]), batch["attention_mask"]).exp()
    torch.testing.assert_close(pointers.sum(-1), torch.ones(pointers.shape[:-1]))
    assert float((pointers.detach() * (batch["attention_mask"][:, None, None] == 0)).max()) == 0


def test_a_reader_is_kept_and_read_again(tmp_path, monkeypatch):
    monkeypatch.setenv("LLMBOOK_CACHE", str(tmp_path))
    recipe = rd.ReaderRecipe(8, max_steps=2, n_embd=32, n_layer=1)
    first, second = rd.trained_reader(recipe), rd.trained_reader(recipe)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert recipe.code == dataclasses.replace(recipe, seed=1).code
