"""Summaries: ROUGE against rouge-score, TextRank against networkx, entailment against the events of stories."""

from __future__ import annotations

import networkx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge_score import rouge_scorer

from llmbook.applications import summarization as S
from llmbook.toyworld import ToyWorld, labels

WORLD = ToyWorld("small")
STORIES = WORLD.stories(60, 0)
TEXTS = st.lists(st.sampled_from(["ball", "key", "red", "goes", "home"]), max_size=12)


@given(TEXTS, TEXTS)
def test_rouge_is_rouge_scores(candidate, reference):
    scorer = rouge_scorer.RougeScorer(["rouge1", "rouge2", "rougeL"])
    theirs = scorer.score(" ".join(reference), " ".join(candidate))
    ours = S.rouge_n(candidate, reference, 1), S.rouge_n(candidate, reference, 2), S.rouge_l(candidate, reference)
    for our, name in zip(ours, ("rouge1", "rouge2", "rougeL"), strict=True):
        assert our == pytest.approx(tuple(theirs[name]))


@given(TEXTS, TEXTS)
def test_a_common_subsequence_is_at_most_the_shared_words(a, b):
    longest = S.longest_common(a, b)
    assert longest == S.longest_common(b, a) <= S.rouge_n(a, b).recall * len(b) + 1e-9
    assert S.longest_common(a, a) == len(a)


def test_pagerank_is_networkx():
    for story in STORIES[:10]:
        weights = S.resemblance(S.sentences(story.tokens))
        theirs = networkx.pagerank(networkx.from_numpy_array(weights), 0.85, tol=1e-12, max_iter=1000)
        np.testing.assert_allclose(S.pagerank(weights), list(theirs.values()), atol=1e-9)


def test_a_walker_jumps_from_a_sentence_without_links():
    rank = S.pagerank(np.zeros((4, 4)))
    np.testing.assert_allclose(rank, 0.25)


def test_extracts_are_sentences_in_order_and_the_oracle_is_best():
    for story in STORIES:
        text = S.sentences(story.tokens)
        extracts = S.lead(text, 3), S.textrank(text, 3), S.oracle(text, story.summary, 3)
        for extract in extracts:
            places = [text.index(sentence) for sentence in extract]
            assert len(extract) <= 3
            assert places == sorted(places)
    best, first = (
        np.mean([S.rouge_n(S.flat(f(story)), story.summary).f1 for story in STORIES])
        for f in (
            lambda s: S.oracle(S.sentences(s.tokens), s.summary, 3),
            lambda s: S.lead(S.sentences(s.tokens), 3),
        )
    )
    assert best > first


def test_what_was_told_is_entailed():
    for story in STORIES:
        assert S.facts(story.summary, story).consistency == 1.0
        assert S.coverage(story.summary, story) == 1.0
        for event in (e for e in story.events if e.kind not in S.LINKS):
            assert S.judge(labels.retell(story, event), story).kind == "entailed"


def test_how_a_statement_fails():
    text = (
        "it is Monday morning . the nurse Anna is in the hospital . the farmer Tom is in the garden . "
        "Anna leaves a red key in the garden . she goes to the school . Tom is happy . that was a good Monday . <eos>"
    )
    story = WORLD.replay(text.split())
    for statement, kind, wrong in (
        ("Anna leaves a red key in the garden .", "entailed", ()),
        ("then Anna leaves the key in the garden .", "entailed", ()),
        ("Tom leaves a red key in the garden .", "intrinsic", ("who",)),
        ("Anna leaves a blue key in the school .", "intrinsic", ("colour", "place")),
        ("Anna walks to the school .", "intrinsic", ("verb",)),
        ("Anna buys a red key .", "extrinsic", ()),
        ("she goes to the school .", "pronoun", ()),
        ("Anna leaves Monday .", "malformed", ()),
        (".", "malformed", ()),
    ):
        assert S.judge(statement.split(), story) == S.Judgement(kind, wrong), statement


def test_a_repeated_truth_is_counted_once_more():
    story = STORIES[0]
    first = S.sentences(story.summary)[0]
    assert S.facts([*first, *first], story) == S.Facts(2, 2, 1)
    assert S.facts([], story).consistency == 0.0


def test_names_and_numbers_of_real_text():
    source = "Police say two men, from Hill Top, took 1,200 dollars. John Smith's car was found on Monday."
    assert S.checkable(source) == ["two", "Hill", "Top", "1,200", "Smith's", "Monday"]
    assert S.unsupported("They say that 2 men took 1200 dollars from Smith.", source) == ([], 3)
    assert S.unsupported("They say that 5 men fled to Sydney.", source) == (["5", "Sydney"], 2)
    assert S.split_sentences(source)[1].startswith("John")


def test_novel_words():
    source = "the dog sees the cat".split()
    assert S.novel(source[1:4], source, 2) == 0.0
    assert S.novel("the cat sees".split(), source, 2) == 0.5
    assert S.novel([], source) == 0.0


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: S.rouge_n(["a"], ["a"], 0), "n must be"),
        (lambda: S.lead("a b .", 1), "text must be"),
        (lambda: S.lead([[]], 1), "text must be"),
        (lambda: S.oracle([["a"]], ["a"], 0), "n must be"),
        (lambda: S.pagerank(np.ones((2, 3))), "weights must be"),
        (lambda: S.pagerank(np.ones((2, 2)), 1.0), "damping must be"),
        (lambda: S.judge("Anna is happy .", STORIES[0]), "statement must be"),
    ],
)
def test_bad_input_is_named(call, says):
    with pytest.raises(ValueError, match=says):
        call()
