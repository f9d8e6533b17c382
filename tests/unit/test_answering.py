"""Answers: SQuAD's scores on its own examples, risk against coverage by hand, a reader that points where it may."""

import numpy as np
import pytest
import torch

from llmbook.applications import answering, reader
from llmbook.applications.answering import Item, exact_match, normalise, risk_coverage, token_f1
from llmbook.toyworld import ToyWorld

WORLD = ToyWorld("small")


@pytest.fixture(scope="module")
def stories():
    return WORLD.stories(60, seed=4)


def test_answerable_questions_point_at_their_answer(stories):
    for story in stories:
        for item in answering.answerable(story):
            assert item.passage[item.target] == item.answer
            assert " ".join(item.question) in {q.question for q in story.questions}


def test_what_is_left_out_is_said_nowhere(stories):
    for story in stories:
        kept = {" ".join(item.question) for item in answering.answerable(story)}
        for asked in story.questions:
            said = asked.answer in story.tokens[: asked.token + 1]
            assert (asked.question in kept) == said


def test_unanswerable_questions_have_no_answer(stories):
    rng = np.random.default_rng(0)
    strangers = 0
    for story in stories:
        item = answering.unanswerable(story, WORLD, rng)
        assert item.target is None
        assert " ".join(item.question) not in {q.question for q in story.questions}
        strangers += not set(item.question[2:-1]) & set(story.tokens) - {"the", "is", "of", "job"}
    assert 0.2 < strangers / len(stories) < 0.8


# ------------------------------------------------------------ scores


@pytest.mark.parametrize(
    ("said", "gold", "em", "f1"),
    [
        ("The Broncos!", "broncos", 1.0, 1.0),
        ("Denver Broncos", "the Broncos", 0.0, 2 / 3),
        ("a cat", "dog", 0.0, 0.0),
        ("", "", 1.0, 1.0),
        ("", "dog", 0.0, 0.0),
        ("to be to be", "to be", 0.0, 2 / 3),
    ],
)
def test_scores_by_hand(said, gold, em, f1):
    assert exact_match(said, gold) == em
    assert token_f1(said, gold) == pytest.approx(f1)
    assert token_f1(gold, said) == pytest.approx(f1)


def test_articles_go_and_their_letters_stay():
    assert normalise("An  answer, the theatre; a day.") == "answer theatre day"


def test_risk_and_coverage_by_hand():
    curve = risk_coverage([0.9, 0.1, 0.5, 0.7], [1, 0, 0, 1])
    np.testing.assert_allclose(curve.coverage, [0.25, 0.5, 0.75, 1.0])
    np.testing.assert_allclose(curve.risk, [0.0, 0.0, 1 / 3, 0.5])
    assert curve.area == pytest.approx(5 / 24)


def test_with_equal_confidence_the_risk_is_the_same_everywhere():
    np.testing.assert_allclose(risk_coverage(np.ones(5), [1, 0, 1, 1, 0]).risk, 0.4)


def test_full_coverage_has_the_whole_error():
    rng = np.random.default_rng(1)
    sure, right = rng.random(50), rng.integers(2, size=50)
    assert risk_coverage(sure, right).risk[-1] == pytest.approx(1 - right.mean())
    assert risk_coverage(right, right).area <= risk_coverage(sure, right).area


@pytest.mark.parametrize(
    ("sure", "right", "words"),
    [([], [], "two"), ([0.5], [1, 0], "two"), ([np.nan], [1], "NaN"), ([0.5], [0.3], "0 or 1")],
)
def test_bad_curves(sure, right, words):
    with pytest.raises(ValueError, match=words):
        risk_coverage(sure, right)


# ------------------------------------------------------------ the reader


@pytest.fixture(scope="module")
def fresh():
    return reader.new_reader(reader.ReaderRecipe(n_embd=32)).eval()


def test_probabilities_are_on_the_passage_or_on_silence(fresh, stories):
    groups = [answering.answerable(story)[:3] for story in stories[:4]]
    batch = reader.encode(groups)
    batch.pop("target")
    probs = fresh(**batch).exp().detach()
    torch.testing.assert_close(probs.sum(-1), torch.ones(12))
    for q, row in enumerate(batch["row"].tolist()):
        assert float(probs[q, 1 + len(groups[row][0].passage) :].sum()) == 0


def test_targets_are_the_answers(stories):
    group = [*answering.answerable(stories[0]), Item(("where", "is", "Kim", "?"), tuple(stories[0].words), None, None)]
    batch = reader.encode([group])
    words = {i: word for word, i in reader.lexicon().items()}
    said = [words[int(batch["input_ids"][0, t])] for t in batch["target"]]
    assert said == [item.answer or "<bos>" for item in group]
    assert {words[int(batch["input_ids"][0, t])] for t in batch["at"]} == {"?"}


def test_words_that_question_and_passage_share(fresh, stories):
    group = answering.answerable(stories[0])[:3]
    batch = reader.encode([group])
    shared = fresh.shared(*(batch[k] for k in ("input_ids", "allowed", "row", "at", "length"))).detach()
    for item, row in zip(group, shared.tolist(), strict=True):
        told = [0.0, *(float(word in item.question) for word in item.passage)]
        assert row[: len(told)] == told
        assert not any(row[len(told) :])


def test_a_token_refers_to_earlier_ones_or_to_none(fresh):
    weights = fresh.references(torch.randn(2, 7, 32, generator=torch.Generator().manual_seed(0))).detach()
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 7))
    assert float(weights.triu()[:, :, 1:].sum()) == 0  # column 0 is <bos>: nobody


def test_referents_are_words_said_before(fresh, stories):
    item = answering.answerable(stories[0])[0]
    found = reader.referents(fresh, item)
    assert len(found) == len(item.passage)
    assert all(word is None or word in item.passage[:i] for i, word in enumerate(found))


def test_one_passage_in_a_group(stories):
    mixed = [answering.answerable(story)[0] for story in stories[:2]]
    with pytest.raises(ValueError, match="several passages"):
        reader.encode([mixed])
    with pytest.raises(ValueError, match="at least one group"):
        reader.encode([])


def test_answers_come_in_the_order_of_the_questions(fresh, stories):
    items = [item for story in stories[:6] for item in answering.answerable(story)]
    together = reader.read(fresh, items, batch_size=7)
    for index in (0, 11, len(items) - 1):
        alone = reader.read(fresh, [items[index]])[0]
        assert alone.word == together[index].word
        assert alone.mass == pytest.approx(together[index].mass, abs=1e-5)


def test_a_short_training_learns_something_and_is_its_seeds(tmp_path):
    recipe = reader.ReaderRecipe(n_embd=32, batch_size=4, max_steps=12)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        reader.train_reader(recipe, tmp_path / name)
    first, second = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("a", "b"))
    assert first == second
    batch = reader.encode(next(reader.training_groups(reader.ReaderRecipe(seed=9))))
    after = reader.load(recipe, tmp_path / "a")
    assert reader.pointer_loss(after, batch) < reader.pointer_loss(reader.new_reader(recipe), batch)
