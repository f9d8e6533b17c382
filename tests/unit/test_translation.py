"""Translation: pairs from stories, a search that keeps to its sources, Model 1 as NLTK's, BLEU as sacrebleu's."""

import math

import numpy as np
import pytest
import sacrebleu
import torch
from nltk.translate import AlignedSent, IBMModel1
from nltk.translate.metrics import alignment_error_rate

from llmbook.applications import translation
from llmbook.applications.translation import Model1, Pair, Vocabulary
from llmbook.toyworld import ToyWorld


@pytest.fixture(scope="module")
def pairs():
    return [pair for story in ToyWorld("small").stories(60, 5) for pair in translation.sentence_pairs(story)]


@pytest.fixture(scope="module")
def trained(pairs):
    vocabulary = Vocabulary.of(pairs)
    model, losses = translation.train_translator(pairs[:200], vocabulary, steps=60, width=32, layers=1)
    return model, vocabulary, losses


def test_pairs_are_the_story_cut_into_sentences():
    story = ToyWorld("small").stories(1, 3)[0]
    found = translation.sentence_pairs(story)
    assert len(found) > 2
    assert [w for p in found for w in p.source] == story.words
    assert [w for p in found for w in p.target] == story.chinese.tokens
    whole = sum(found[1:], found[0])
    assert whole.links == frozenset(story.chinese.alignment)


def test_a_pair_turned_round_twice_is_itself(pairs):
    assert all(pair.reversed().reversed() == pair for pair in pairs)
    assert pairs[0].reversed().source == pairs[0].target


def test_a_vocabulary_gives_back_what_it_took(pairs):
    vocabulary = Vocabulary.of(pairs)
    assert vocabulary.decode(vocabulary.encode(pairs[3].target)) == pairs[3].target
    assert vocabulary.encode(["nowhere"]) == [2, 1]
    assert len(vocabulary) == len(set(vocabulary.words))


def test_batches_follow_from_seed_and_step(pairs):
    vocabulary = Vocabulary.of(pairs)
    args = translation.TrainingArguments(batch_size=4, seed=3)
    one, other = (translation.pair_batches(pairs, vocabulary, args)(7) for _ in range(2))
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert torch.equal(one["attention_mask"] == 0, (one["input_ids"] == 0))


def test_training_lowers_the_loss(trained):
    _, _, losses = trained
    assert np.mean(losses[-5:]) < 0.5 * losses[0]


def test_greedy_search_is_that_without_a_cache(trained, pairs):
    model, vocabulary, _ = trained
    sources = [pair.source for pair in pairs[:6]]
    found = translation.translate(model, vocabulary, sources)
    for source, words in zip(sources, found, strict=True):
        ids, read = torch.tensor([vocabulary.encode(source)]), [0]
        while len(read) <= 3 * ids.shape[1] and (len(read) == 1 or read[-1] != 1):
            logits = model(ids, decoder_input_ids=torch.tensor([read])).logits
            read.append(int(logits[0, -1].argmax()))
        assert vocabulary.decode(read[1:]) == words


def test_a_wide_beam_finds_nothing_less_likely(trained, pairs):
    model, vocabulary, _ = trained

    @torch.inference_mode()
    def logprob(pair, words):
        ids, labels = torch.tensor([vocabulary.encode(pair.source)]), torch.tensor([vocabulary.encode(words)])
        return -float(model(ids, labels).loss) * labels.shape[1]

    sources = [pair.source for pair in pairs[:20]]
    greedy = translation.translate(model, vocabulary, sources)
    beam = translation.translate(model, vocabulary, sources, num_beams=8, length_penalty=0.0)
    gains = [logprob(p, b) - logprob(p, g) for p, g, b in zip(pairs, greedy, beam, strict=False)]
    assert np.mean(gains) > -1e-4


def test_cross_attention_sums_to_less_than_one_without_the_end(trained, pairs):
    model, vocabulary, _ = trained
    weights = translation.cross_attention(model, vocabulary, pairs[0])
    assert weights.shape == (1, 4, len(pairs[0].target) + 1, len(pairs[0].source))
    assert bool((weights.sum(-1) <= 1 + 1e-5).all())
    for shift in (0, 1):
        assert len(translation.attention_links(weights[0, 0], shift)) == len(pairs[0].target)


def test_model_1_is_nltks(pairs):
    """Where no target word comes twice in a sentence (there NLTK sums the normaliser once for each occurrence), and
    for words that stand together somewhere (for others NLTK keeps the probability it began with)."""
    few = [p for p in pairs if len(set(p.target)) == len(p.target)][:60]
    ours = Model1(few, rounds=5)
    theirs = IBMModel1([AlignedSent(list(p.target), list(p.source)) for p in few], 5).translation_table
    for word, row in ours.target.items():
        for source, column in ours.source.items():
            name = None if column == 0 else source
            together = any(word in p.target and (name is None or name in p.source) for p in few)
            wanted = theirs[word][name] if together else 0.0
            assert ours.table[row, column] == pytest.approx(wanted, abs=1e-9)


def test_em_never_loses_likelihood(pairs):
    model = Model1(pairs, rounds=8)
    assert np.all(np.diff(model.loglik) > -1e-6)
    assert np.allclose(model.table.sum(0), 1)


def test_alignment_error_is_nltks(pairs):
    model = Model1(pairs)
    found, gold = model.links(pairs[1]), pairs[1].links
    assert translation.alignment_error([found], [gold]) == pytest.approx(alignment_error_rate(gold, found))
    assert translation.alignment_error([gold], [gold]) == 0


def test_bleu_is_sacrebleus(pairs):
    references = [pair.target for pair in pairs[:50]]
    rng = np.random.default_rng(0)
    worse = [tuple(w for w in words if rng.random() > 0.15) for words in references]
    ours = translation.bleu_of(worse, references)
    lines = [" ".join(words) for words in worse], [[" ".join(words) for words in references]]
    theirs = sacrebleu.corpus_bleu(*lines, tokenize="none", smooth_method="none").score
    assert ours == pytest.approx(theirs, abs=1e-9)
    assert translation.bleu_of(references, references) == pytest.approx(100)
    assert translation.bleu_of([("x",)], [references[0]]) == 0.0


def test_the_bootstrap_holds_the_value_and_the_better_one_wins(pairs):
    references = [pair.target for pair in pairs[:80]]
    worse = [words[:-2] for words in references]
    good, bad = (translation.bleu_counts(h, references) for h in (references, worse))
    low, high = translation.bleu_interval(bad, np.random.default_rng(1), resamples=200)
    assert low <= translation.bleu(bad) <= high
    (least, _), share = translation.paired_bleu(good, bad, np.random.default_rng(1), resamples=200)
    assert least > 0
    assert share == 1.0


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (lambda: translation.bleu_counts([("a",)], []), "references"),
        (lambda: translation.alignment_error([], [frozenset()]), "found"),
        (lambda: translation.alignment_error([frozenset()], [frozenset()]), "gold"),
        (lambda: Model1([], 3), "pairs"),
        (lambda: Model1([Pair(("a",), ("b",))], 0), "rounds"),
        (lambda: translation.padded([]), "rows"),
        (lambda: translation.pair_batches([], Vocabulary([]), translation.TrainingArguments()), "pairs"),
        (lambda: translation.paired_bleu(np.ones((2, 10)), np.ones((3, 10)), np.random.default_rng(0)), "baseline"),
        (lambda: translation.translate(None, None, [], num_beams=0), "num_beams"),
    ],
)
def test_bad_inputs_are_named(wrong, named):
    with pytest.raises(ValueError, match=named):
        wrong()


def test_word_by_word_keeps_the_order():
    model = Model1([Pair(("a", "b"), ("x", "y")), Pair(("a",), ("x",)), Pair(("b",), ("y",))])
    assert model.translate(("b", "a", "unknown")) == ("y", "x")
    assert model.links(Pair(("a", "b"), ("y", "x"))) == {(1, 0), (0, 1)}
    assert math.isfinite(model.loglik[-1])
