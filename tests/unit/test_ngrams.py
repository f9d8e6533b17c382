"""n-gram models against nltk.lm and the definitions; the neural one against its equation."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nltk.lm import AbsoluteDiscountingInterpolated, KneserNeyInterpolated, Lidstone
from nltk.lm import StupidBackoff as NltkStupidBackoff
from nltk.lm.preprocessing import padded_everygram_pipeline

from llmbook.ngrams import (
    END,
    START,
    AbsoluteDiscounting,
    AddK,
    JelinekMercer,
    KneserNey,
    ModifiedKneserNey,
    NeuralLM,
    StupidBackoff,
    build_vocabulary,
    interpolate,
)
from llmbook.tokenization import Vocabulary

MODELS = [AddK, JelinekMercer, StupidBackoff, AbsoluteDiscounting, KneserNey, ModifiedKneserNey]
texts = st.lists(st.lists(st.sampled_from("abcd"), min_size=1, max_size=8), min_size=1, max_size=8)


@pytest.fixture(scope="module")
def text():
    """60 sentences of 8 letters, drawn unevenly."""
    rng = np.random.default_rng(0)
    letters, p = list("abcdefgh"), np.arange(1, 9) / 36
    return [[*map(str, rng.choice(letters, p=p, size=rng.integers(1, 12))), END] for _ in range(60)]


def nltk_grams(text, order):
    """Our counts in nltk's form: for each predicted token, the 1- to n-grams that end at it."""
    for sentence in text:
        padded = [START] * (order - 1) + sentence
        ends = range(order - 1, len(padded))
        yield [tuple(padded[i - k + 1 : i + 1]) for i in ends for k in range(1, order + 1)]


def fitted_nltk(model, text, order):
    model.fit(list(nltk_grams(text, order)), vocabulary_text=[token for line in text for token in line])
    return model


def contexts_of(text, order, unseen=("h", "a", "a", "h")):
    """Every full context of the text, and one more."""
    padded = [[START] * (order - 1) + sentence for sentence in text]
    seen = {tuple(line[i : i + order - 1]) for line in padded for i in range(len(line) - order + 1)}
    return [*sorted(seen), unseen[: order - 1]]


# --- agreement with nltk ---


@pytest.mark.parametrize("order", [2, 3, 4])
@pytest.mark.parametrize(
    ("model", "nltks"),
    [(KneserNey, KneserNeyInterpolated), (AbsoluteDiscounting, AbsoluteDiscountingInterpolated)],
)
def test_discounting_is_nltks_on_the_same_counts(model, nltks, text, order):
    theirs = nltks(order, discount=0.6)
    # <s> in the vocabulary: otherwise nltk takes the padding for an unknown word, and unknown words for padding
    theirs.fit(list(nltk_grams(text, order)), vocabulary_text=[START, *(w for line in text for w in line)])
    ours = model(order, [0, *[0.6] * (order - 1)]).fit(text)
    for context in [*contexts_of(text, order)[:120], ("never", "seen", "before")[: order - 1]]:
        for word in "adh":
            assert ours.score(word, context) == pytest.approx(theirs.score(word, context), abs=1e-14)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_stupid_backoff_is_nltks_scores_over_their_sum(text, order):
    theirs = NltkStupidBackoff(0.4, order)
    theirs.fit(list(nltk_grams(text, order)), vocabulary_text=[START, *(w for line in text for w in line)])
    ours, words = StupidBackoff(order).fit(text), sorted({w for line in text for w in line})
    some = [*contexts_of(text, order)[:60], ("never", "seen", "before")[: order - 1]]
    for context in some:
        scores = np.array([theirs.score(word, context) for word in words])
        # ours keeps a little for <unk>, which theirs calls impossible: compare the words that were seen
        p = np.array([ours.score(word, context) for word in words])
        assert p / p.sum() == pytest.approx(scores / scores.sum(), abs=1e-12)
    assert any(abs(sum(theirs.score(w, context) for w in words) - 1) > 0.1 for context in some) == (order > 1)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_add_k_is_nltks_lidstone(text, order):
    theirs = fitted_nltk(Lidstone(0.3, order), text, order)
    ours = AddK(order, k=0.3).fit(text)
    for context in contexts_of(text, order)[:200]:
        for word in "adh":
            assert ours.score(word, context) == pytest.approx(theirs.score(word, context), abs=1e-14)


def test_nltk_with_its_own_padding_gives_a_sum_above_one():
    """Why our counts leave out grams that end in padding: nltk's weight for h counts followers that its own
    continuation counts do not (here "<s> <s>", which nothing precedes), so more than 1 is given out."""
    order, text = 3, [["a", "b"], ["a", "c"], ["b", "c"]]
    theirs = KneserNeyInterpolated(order, discount=0.5)
    theirs.fit(*padded_everygram_pipeline(order, text))
    assert sum(theirs.score(word, (START,)) for word in theirs.vocab) > 1.01
    ours = KneserNey(order, 0.5).fit([[*sentence, END] for sentence in text])
    assert ours.distribution([START]).sum() == pytest.approx(1, abs=1e-12)


def test_nltk_cannot_make_a_unigram_and_gives_zero_to_the_unseen(text):
    with pytest.raises(ZeroDivisionError):
        fitted_nltk(KneserNeyInterpolated(1, discount=0.5), text, 1).score("a")
    theirs = fitted_nltk(KneserNeyInterpolated(2, discount=0.5), text, 2)
    assert theirs.score("never seen", ("a",)) == 0
    assert KneserNey(2, 0.5).fit(text).score("never seen", ["a"]) > 0


# --- definitions ---


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("order", [1, 2, 3, 5])
@given(text=texts)
@settings(max_examples=25)
def test_every_distribution_sums_to_one_and_gives_no_token_zero(model, order, text):
    fitted = model(order).fit(text)
    for context in ([], text[0], ["z", "a"], ["d"] * 6):
        distribution = fitted.distribution(context)
        assert distribution.sum() == pytest.approx(1, abs=1e-12)
        assert distribution[0] == 0  # <s>
        assert (distribution[1:] > 0).all()


@pytest.mark.parametrize("model", MODELS)
@given(text=texts, other=texts)
@settings(max_examples=25)
def test_logprobs_are_the_logs_of_the_scores(model, text, other):
    fitted = model(3).fit(text)
    expected = [math.log(fitted.score(word, sentence[:i])) for sentence in other for i, word in enumerate(sentence)]
    assert fitted.logprobs(other) == pytest.approx(expected, abs=1e-12)


@given(text=texts)
@settings(max_examples=25)
def test_counts_are_those_of_a_counter(text):
    fitted = AddK(3).fit(text)
    padded = [[START, START, *sentence] for sentence in text]
    for length in (1, 2, 3):
        grams = Counter(tuple(line[i - length + 1 : i + 1]) for line in padded for i in range(2, len(line)))
        assert {gram: fitted.count(gram) for gram in grams} == grams
    assert fitted.count(["z"]) == 0
    assert fitted.count(["a", "z", "a"]) == 0


@given(text=texts)
@settings(max_examples=25)
def test_continuation_counts_are_numbers_of_different_predecessors(text):
    fitted = KneserNey(2).fit(text)
    padded = [[START, *sentence] for sentence in text]
    pairs = {pair for line in padded for pair in itertools.pairwise(line)}
    expected = Counter(second for _, second in pairs)
    counts = fitted.adjusted_counts(1)
    assert {word: counts[fitted._row(fitted.vocab.encode([word]))] for word in expected} == expected


def test_add_k_by_hand():
    fitted = AddK(2, k=0.5).fit([["a", "b", "a", "a"]])  # predictable: a, b, <unk>
    assert fitted.score("b", ["a"]) == pytest.approx((1 + 0.5) / (2 + 1.5))
    assert fitted.score("a", ["b"]) == pytest.approx((1 + 0.5) / (1 + 1.5))
    assert fitted.score("a", ["never seen"]) == pytest.approx(1 / 3)


def test_jelinek_mercer_by_hand():
    fitted = JelinekMercer(2, [0.1, 0.25]).fit([["a", "b", "a", "a"]])  # predictable: a, b, <unk>
    unigram = {"a": 0.9 * 3 / 4 + 0.1 / 3, "b": 0.9 / 4 + 0.1 / 3, "<unk>": 0.1 / 3}
    assert fitted.score("b", ["a"]) == pytest.approx(0.75 * 1 / 2 + 0.25 * unigram["b"])
    assert fitted.score("<unk>", ["a"]) == pytest.approx(0.25 * unigram["<unk>"])
    assert fitted.score("a", ["never seen"]) == pytest.approx(unigram["a"])


def test_absolute_discounting_asks_how_often_and_kneser_ney_after_how_many_words():
    """The control for continuation counts: the same discount and weights, another c below the highest order."""
    text = [["san", "francisco"]] * 5 + [["a", "cup"], ["the", "cup"]]
    plain, kneser_ney = AbsoluteDiscounting(2, 0.5).fit(text), KneserNey(2, 0.5).fit(text)
    assert plain.score("francisco", ["never seen"]) > 2 * plain.score("cup", ["never seen"])
    assert kneser_ney.score("francisco", ["never seen"]) < kneser_ney.score("cup", ["never seen"])
    assert (plain.own[1] == kneser_ney.own[1]).all()
    assert (plain.weight[1] == kneser_ney.weight[1]).all()


@pytest.mark.parametrize("model", MODELS)
@given(text=texts, other=texts)
@settings(max_examples=25)
def test_smoothing_the_counts_of_another_model_is_fitting_its_text(model, text, other):
    counted = AddK(4).fit(text)
    for order in (1, 2, 4):
        direct, shared = model(order).fit(text, counted.vocab), model(order).fit_like(counted)
        assert shared.logprobs(other) == pytest.approx(direct.logprobs(other), abs=1e-12)


@pytest.mark.parametrize("fitted", [AddK(2), "text"])
def test_only_a_fitted_model_of_the_order_lends_its_counts(fitted, text):
    with pytest.raises(ValueError, match="fitted must be a fitted model of order at least 3"):
        KneserNey(3).fit_like(fitted)
    with pytest.raises(ValueError, match="fitted must be a fitted model of order at least 3"):
        KneserNey(3).fit_like(AddK(2).fit(text))


def test_kneser_ney_by_hand():
    """San Francisco: a word seen often, but after one word only, is unlikely after another."""
    fitted = KneserNey(2, 0.5).fit([["san", "francisco"]] * 5 + [["a", "cup"], ["the", "cup"]])
    # predictable: san, francisco, a, cup, the, <unk>; bigram types: 1 each, but 2 ending in "cup"
    after_unseen = {word: fitted.score(word, ["never seen"]) for word in ("francisco", "cup")}
    assert after_unseen["francisco"] == pytest.approx(0.5 / 6 + (5 * 0.5 / 6) / 6)
    assert after_unseen["cup"] == pytest.approx(1.5 / 6 + (5 * 0.5 / 6) / 6)
    assert fitted.score("francisco", ["san"]) == pytest.approx(4.5 / 5 + 0.5 / 5 * after_unseen["francisco"])


def test_modified_discounts_are_chen_and_goodmans():
    words = [word for count in (1, 2, 3, 4) for i in range(10 - 2 * count) for word in [f"w{count}{i}"] * count]
    fitted = ModifiedKneserNey(1).fit([words])
    n1, n2, n3, n4 = 8, 6, 4, 2
    y = n1 / (n1 + 2 * n2)
    assert 1 - 2 * y * n2 / n1 > 0
    want = [1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3]
    counts = fitted.adjusted_counts(1)
    taken = fitted._discount(1, counts)
    assert {c: taken[counts == c][0] for c in (1, 2, 3, 4)} == pytest.approx(
        {1: want[0], 2: want[1], 3: want[2], 4: want[2]}
    )


def test_a_vocabulary_makes_the_rare_unknown(text):
    vocabulary = build_vocabulary(text, max_size=5)
    fitted = KneserNey(2).fit(text, vocabulary)
    assert len(fitted.distribution()) == 5
    assert fitted.score("a") == fitted.score("anything else") == fitted.score("<unk>")


@given(shift=st.integers(0, 3))
def test_only_the_last_tokens_of_a_context_count(shift):
    fitted = KneserNey(2).fit([["a", "b", "c", "a", "c"]])
    assert fitted.score("c", ["b"] * shift + ["a"]) == fitted.score("c", ["a"])


def test_one_word_of_text():
    for model in MODELS:
        fitted = model(3).fit([["a"]])
        assert 0.5 < fitted.score("a") < 1


def test_generation_follows_the_distribution_and_stops_at_the_end():
    fitted = KneserNey(2, 0.01).fit([["a", "b", END]] * 50)
    samples = [fitted.generate(np.random.default_rng(seed)) for seed in range(50)]
    assert samples.count(["a", "b", END]) > 40
    assert fitted.generate(np.random.default_rng(0), max_tokens=1, context=["a"]) == ["b"]
    assert fitted.generate(np.random.default_rng(0), max_tokens=0) == []


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("order", [0, -1, 1.5])
def test_order_must_be_positive(model, order):
    with pytest.raises(ValueError, match="order must be an integer of at least 1"):
        model(order)


@pytest.mark.parametrize("k", [0, -1, math.nan, math.inf])
def test_k_must_be_positive(k):
    with pytest.raises(ValueError, match="k must be positive and finite"):
        AddK(2, k)


@pytest.mark.parametrize("discount", [-0.1, 1, 1.5, math.nan, 0, [0.5, 0], [1.0, 0.5]])
def test_discount_must_lie_between_0_and_1(discount):
    with pytest.raises(ValueError, match="discount must lie strictly between 0 and 1"):
        KneserNey(2, discount)


@pytest.mark.parametrize("weight", [0, 1, -0.1, math.nan, [0.5, 0]])
def test_interpolation_weights_must_lie_between_0_and_1(weight):
    with pytest.raises(ValueError, match="weight must lie strictly between 0 and 1"):
        JelinekMercer(2, weight)


@pytest.mark.parametrize("alpha", [0, -1, 1.5, math.nan])
def test_alpha_must_be_a_share(alpha):
    with pytest.raises(ValueError, match="alpha must be above 0 and at most 1"):
        StupidBackoff(2, alpha)


def test_discounts_must_be_one_for_each_order():
    with pytest.raises(ValueError, match="one number or 3"):
        KneserNey(3, [0.5, 0.5])
    with pytest.raises(ValueError, match="weight must be one number or 3"):
        JelinekMercer(3, [0.5, 0.5])


@pytest.mark.parametrize(
    ("sequences", "error", "words"),
    [
        ([], ValueError, "at least one token"),
        ([[]], ValueError, "at least one token"),
        ("a b", TypeError, "list of lists"),
        (["a", "b"], TypeError, "list of lists"),
        ([["a", START]], ValueError, "must not contain <s>"),
    ],
)
def test_sequences_that_cannot_be_counted(sequences, error, words):
    with pytest.raises(error, match=words):
        KneserNey(2).fit(sequences)


def test_a_vocabulary_without_padding_or_unknown_is_refused():
    with pytest.raises(ValueError, match="make it with build_vocabulary"):
        AddK(2).fit([["a"]], Vocabulary(["a"]))


def test_questions_that_make_no_sense():
    fitted = AddK(2).fit([["a", "b"]])
    with pytest.raises(TypeError, match="context must be a list"):
        fitted.score("a", "b")
    for gram in ("ab", [], ["a", "b", "a"]):
        with pytest.raises(ValueError, match="gram must be a list of 1 to 2 tokens"):
            fitted.count(gram)


# --- the neural model ---


def neural(vocabulary, seed=0, **options):
    return NeuralLM(vocabulary, 3, 4, 5, generator=torch.Generator().manual_seed(seed), **options)


@pytest.mark.parametrize("direct", [False, True])
def test_the_neural_model_is_its_equation(text, direct):
    model = neural(build_vocabulary(text), direct=direct)
    contexts = torch.tensor([[2, 3], [4, 2], [0, 0]])
    C = model.embedding.weight
    x = torch.cat([C[contexts[:, 0]], C[contexts[:, 1]]], dim=1)  # (3, 2·4)
    hidden = torch.tanh(model.hidden.bias + x @ model.hidden.weight.T)
    want = model.output.bias + hidden @ model.output.weight.T + (x @ model.direct.weight.T if direct else 0)
    torch.testing.assert_close(model(contexts)[:, 1:], want[:, 1:])
    assert torch.softmax(model(contexts), 1)[:, 0].eq(0).all()  # <s>


@pytest.mark.parametrize("direct", [False, True])
def test_the_neural_model_learns_and_stays_a_distribution(text, direct):
    model = neural(build_vocabulary(text), direct=direct)
    before = model.logprobs(text).mean()
    losses = model.fit(text, epochs=3, batch_size=32, lr=0.01, generator=torch.Generator().manual_seed(0))
    after = model.logprobs(text)
    assert len(after) == sum(map(len, text))
    assert -after.mean() < losses[0] < -before
    with torch.no_grad():
        assert torch.softmax(model(torch.tensor([[2, 3]])), 1).sum().item() == pytest.approx(1, abs=1e-5)


def test_the_neural_model_is_trained_by_torchs_adam_at_a_linearly_falling_rate(text):
    vocabulary = build_vocabulary(text)
    ours, theirs = neural(vocabulary), neural(vocabulary)
    size = sum(map(len, text))
    ours.fit(text, epochs=9, batch_size=size, lr=0.1, generator=torch.Generator())  # a batch is the whole text
    optimizer = torch.optim.Adam(theirs.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=9)
    contexts, words = theirs._windows(text)
    for _ in range(9):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(theirs(contexts), words).backward()
        optimizer.step()
        schedule.step()
    torch.testing.assert_close(ours.output.weight, theirs.output.weight, rtol=1e-3, atol=1e-4)


def test_the_neural_model_is_repeatable(text):
    vocabulary = build_vocabulary(text)
    runs = []
    for _ in range(2):
        model = neural(vocabulary, seed=1)
        model.fit(text, generator=torch.Generator().manual_seed(2))
        runs.append(model.logprobs(text))
    assert (runs[0] == runs[1]).all()


def test_it_can_learn_what_a_bigram_cannot():
    """The third token repeats the first, whatever the second: only a model of two tokens can know."""
    rng = np.random.default_rng(0)
    text = [[first, middle, first] for first, middle in rng.choice(list("abcd"), size=(200, 2)).tolist()]
    model = neural(build_vocabulary(text))
    model.fit(text, epochs=30, batch_size=64, lr=0.05, generator=torch.Generator().manual_seed(0))
    third = slice(2, None, 3)
    assert -model.logprobs(text)[third].mean() < 0.2
    assert -KneserNey(2).fit(text).logprobs(text)[third].mean() > 1.2


@pytest.mark.parametrize(("name", "value"), [("order", 1), ("embedding_dim", 0), ("hidden", 0)])
def test_neural_sizes(name, value):
    sizes = {"order": 3, "embedding_dim": 4, "hidden": 5, name: value}
    with pytest.raises(ValueError, match=f"{name} must be an integer of at least"):
        NeuralLM(build_vocabulary([["a"]]), **sizes, generator=torch.Generator())


def test_interpolation_mixes_probabilities():
    mixed = interpolate(np.log([0.5, 0.1]), np.log([0.1, 0.3]), 0.25)
    assert np.exp(mixed) == pytest.approx([0.2, 0.25])
    for weight in (0, 1, -0.5, math.nan):
        with pytest.raises(ValueError, match="weight must lie strictly between 0 and 1"):
            interpolate(mixed, mixed, weight)
