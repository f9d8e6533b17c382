"""Spans, scores and the graph: by hand, by properties, and against the field's libraries."""

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nervaluate import Evaluator

from llmbook.applications import understanding as u
from llmbook.toyworld import ToyWorld

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
    same = u.f1_interval([{1}, {2}], [{1}, {3}], baseline=[{1}, {3}], rng=np.random.default_rng(0))
    assert same == (0, 0)
    low, high = u.f1_interval([{1}] * 9, [{1}] * 9, baseline=[{1}] * 6 + [{2}] * 3, rng=np.random.default_rng(0))
    assert 0 <= low < 1 / 3 < high <= 0.8


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: u.to_bio(2, [(0, 3, "TOWN")]), "spans"),
        (lambda: u.to_bio(3, [(0, 2, "TOWN"), (1, 3, "TOWN")]), "overlap"),
        (lambda: u.from_bio(["X"]), "tags"),
        (lambda: u.from_bio(["B"]), "tags"),
        (lambda: u.set_scores([{1}], []), "found"),
        (lambda: u.word_features(["a"], 1), "i must"),
        (lambda: u.contextual_calibration([[0.0, 0.0]], [0.0]), "content_free"),
    ],
)
def test_bad_input_is_refused(call, named):
    with pytest.raises(ValueError, match=named):
        call()


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
