"""Spans, scores, the reader and its graph: by hand, by properties, and against the field's libraries."""

import dataclasses

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nervaluate import Evaluator

from llmbook.applications import understanding as u
from llmbook.toyworld import ToyWorld
from llmbook.training import TrainingArguments, fit

WORLD = ToyWorld("small")
STORIES = WORLD.stories(12, 3)
TAGGED = st.lists(st.sampled_from(["O", "B-PERSON", "I-PERSON", "B-TOWN", "I-TOWN"]), min_size=1, max_size=12)


@given(TAGGED)
def test_tags_and_spans_are_two_ways_to_write_one_thing(tags):
    spans = u.from_bio(tags)
    assert u.from_bio(u.to_bio(len(tags), spans)) == spans
    assert all(tag == "O" or any(a <= i < b for a, b, _ in spans) for i, tag in enumerate(tags))


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.text[:20])
def test_a_storys_entities_survive_the_tags(story):
    spans = u.truth(story).spans
    assert set(u.from_bio(u.to_bio(len(story.tokens), spans))) == spans


@given(st.lists(st.tuples(TAGGED, TAGGED), min_size=1, max_size=4))
def test_span_f1_is_nervaluates(pairs):
    true, found = zip(*((a, (b * len(a))[: len(a)]) for a, b in pairs), strict=True)
    true, found = ([u.to_bio(len(t), u.from_bio(t)) for t in side] for side in (true, found))
    ours = u.set_scores([u.from_bio(t) for t in true], [u.from_bio(t) for t in found])
    overall = Evaluator(list(true), list(found), tags=["PERSON", "TOWN"], loader="list").evaluate()["overall"]
    theirs = overall["strict"]
    assert ours == pytest.approx((theirs.precision, theirs.recall, theirs.f1))


def test_scores_of_nothing_and_of_everything():
    assert u.set_scores([{1}], [set()]) == (0, 0, 0)
    assert u.set_scores([{1, 2}, {3}], [{1, 2}, {3}]) == (1, 1, 1)
    low, high = u.f1_interval([{1}, {2}] * 20, [{1}, {3}] * 20, rng=np.random.default_rng(0))
    assert 0.2 < low < 0.5 < high < 0.8


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: u.to_bio(2, [(0, 3, "TOWN")]), "spans"),
        (lambda: u.to_bio(3, [(0, 2, "TOWN"), (1, 3, "TOWN")]), "overlap"),
        (lambda: u.from_bio(["X"]), "tags"),
        (lambda: u.from_bio(["B"]), "tags"),
        (lambda: u.set_scores([{1}], []), "found"),
        (lambda: u.collate(WORLD, STORIES[:2], [()]), "spans"),
        (lambda: u.word_features(["a"], 1), "i must"),
        (lambda: u.contextual_calibration([[0.0, 0.0]], [0.0]), "content_free"),
    ],
)
def test_bad_input_is_refused(call, named):
    with pytest.raises(ValueError, match=named):
        call()


def test_a_batch_holds_each_storys_facts():
    batch = u.collate(WORLD, STORIES)
    names = u.relation_names(WORLD)
    for i, story in enumerate(STORIES):
        subjects = list(u.mentions(story.tokens, u.truth(story).spans))
        rebuilt = set()
        for j, k in zip(*np.nonzero(batch["asked"][i].numpy()), strict=True):
            places = np.flatnonzero(batch["answers"][i, j, k].numpy())
            if places.tolist() != [0]:
                rebuilt.add(u.as_triple(subjects[j], names[k], story.tokens[places[0] - 1]))
        sayable = {t for t in u.truth(story).triples if not t[1].startswith("number") or t[2] in story.tokens}
        assert rebuilt == sayable


def test_the_reader_learns_a_few_stories_by_heart():
    recipe = u.ReaderRecipe(4, n_embd=32, n_layer=1)
    model = u.new_reader(recipe, WORLD)
    batch = u.collate(WORLD, STORIES[:4])
    args = TrainingArguments(max_steps=150, batch_size=4, learning_rate=1e-2, warmup_steps=5)
    before = float(u.reader_loss(model, batch).detach())
    fit(model, lambda step: batch, args, loss_function=u.reader_loss, count_targets=lambda b: 4, progress=False)
    assert float(u.reader_loss(model, batch).detach()) < before / 10
    for reading, story in zip(u.read(model, WORLD, STORIES[:4]), STORIES, strict=False):
        assert u.set_scores([u.truth(story).spans], [reading.spans]).f1 > 0.9
        assert set(reading.moods) >= set(u.truth(story).moods)


def test_pointers_are_probabilities_and_padding_gets_none():
    model = u.new_reader(u.ReaderRecipe(4, n_embd=32, n_layer=1), WORLD)
    batch = u.collate(WORLD, STORIES)
    states = model.states(batch["input_ids"], batch["attention_mask"])
    pointers = model.pointers(states, model.subjects(states, batch["named"]), batch["attention_mask"]).exp()
    torch.testing.assert_close(pointers.sum(-1), torch.ones(pointers.shape[:-1]))
    assert float((pointers * (batch["attention_mask"][:, None, None] == 0)).max()) == 0


def test_a_reader_is_kept_and_read_again(tmp_path, monkeypatch):
    monkeypatch.setenv("LLMBOOK_CACHE", str(tmp_path))
    recipe = u.ReaderRecipe(8, max_steps=2, n_embd=32, n_layer=1)
    first, second = u.trained_reader(recipe), u.trained_reader(recipe)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert recipe.code == dataclasses.replace(recipe, seed=1).code


def test_the_graph_answers_over_two_edges():
    triples = {("Anna", "has", "ball"), ("Anna", "is_in", "park"), ("cup", "is_in", "park")}
    graph = u.knowledge_graph(triples)
    assert isinstance(graph, nx.MultiDiGraph)
    assert {(s, r, v) for s, v, r in graph.edges(keys=True)} == triples
    assert u.who_has_what_where(graph) == {("Anna", "ball", "park")}
    assert u.objects(graph, "cup", "is_in") == ["park"]
    assert u.objects(graph, "nobody", "is_in") == []


def test_calibration_divides_the_prior_out():
    p, base = np.array([[0.6, 0.4], [0.9, 0.1]]), np.array([0.8, 0.2])
    want = p / base / (p / base).sum(1, keepdims=True)
    np.testing.assert_allclose(u.contextual_calibration(np.log(p), np.log(base)), want)


def test_features_of_a_word():
    features = u.word_features(["Said", "McDonald's", "today"], 1)
    assert features["0:shape=AaAa'a"] == features["-1:said"] == features["suffix=ld's"] == 1
    assert features["2:<none>"] == 1


def test_every_name_means_itself_and_a_pronoun_one_of_the_cast():
    for story in STORIES:
        for place, person in u.referents(story).items():
            assert person in story.state.cast
            assert story.tokens[place] in (person, "she", "he")
