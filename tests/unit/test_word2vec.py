"""Word2Vec against autograd, against gensim, and against bad input."""

import math
import os
import subprocess
import sys
from itertools import pairwise

import gensim.models
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import logsigmoid

from llmbook import corpora
from llmbook.word2vec import (
    KeyedVectors,
    Word2Vec,
    alias_table,
    huffman_tree,
    keep_probability,
    logistic_step,
    noise_distribution,
    train_chunk,
)
from llmbook.word2vec.kernel import _draw

counts_of_words = st.lists(st.integers(1, 1000), min_size=1, max_size=60)
ALPHA = 2e-4  # so small that steps taken one after the other equal one step on the sum, to a per cent
SENTENCE, WINDOW, V, D = [0, 1, 2, 3, 4], 2, 7, 6


# --- the kernel's gradients ------------------------------------------------------------------------------


def test_logistic_step_is_autograds_gradient():
    rng = np.random.default_rng(0)
    h, out = rng.normal(size=D).astype(np.float32), rng.normal(size=(V, D)).astype(np.float32)
    rows, labels = np.array([4, 0, 2, 0], np.int32), np.array([1, 0, 1, 0], np.float32)  # row 0 twice
    weights = np.array([1, 2.5, 0.5, 1], np.float32)
    H, U = (torch.tensor(x, requires_grad=True) for x in (h, out))
    signs = torch.tensor(2 * labels - 1)
    (-(torch.tensor(weights) * logsigmoid(signs * (U[rows] @ H))).sum()).backward()
    grad_h, before = np.zeros(D, np.float32), out.copy()
    logistic_step(h, grad_h, out, rows, labels, weights, 4, np.float32(0.1), np.empty(4, np.float32))
    np.testing.assert_allclose(grad_h, -0.1 * H.grad, atol=1e-6)
    np.testing.assert_allclose(out - before, -0.1 * U.grad, atol=1e-6)


@pytest.mark.parametrize(("score", "label", "push"), [(1e4, 1, 0), (-1e4, 1, 1), (1e4, 0, -1), (-1e4, 0, 0)])
def test_huge_scores_saturate(score, label, push):
    h, out, grad_h = np.ones(1, np.float32), np.full((1, 1), score, np.float32), np.zeros(1, np.float32)
    labels, one = np.array([label], np.float32), np.ones(1, np.float32)
    logistic_step(h, grad_h, out, np.zeros(1, np.int32), labels, one, 1, np.float32(1), np.empty(1, np.float32))
    assert (grad_h[0], out[0, 0]) == (push * score, score + push)


def kernel_update(skip_gram, hierarchical, negative, mean, noise_word, keep=None):
    """(matrices before, change / ALPHA) of one pass over SENTENCE with full windows; noise is one word."""
    rng = np.random.default_rng(1)
    before = [rng.normal(scale=0.5, size=(n, D)).astype(np.float32) for n in (V, V - 1, V)]
    after = [m.copy() for m in before]
    noise = alias_table(np.eye(V)[noise_word])
    train_chunk(
        np.array(SENTENCE, np.int32), np.array([0, len(SENTENCE)]), (0, 1), np.ones(V) if keep is None else keep,
        (WINDOW, False), tuple(after), huffman_tree(range(1, V + 1)), noise,
        (skip_gram, hierarchical, negative, mean), (ALPHA, ALPHA), np.array([3], np.uint64),
    )  # fmt: skip
    return before, [(a - b) / ALPHA for a, b in zip(after, before, strict=True)]


def word_loss(h, word, syn1, syn1neg, hierarchical, negative, noise_word):
    """-log p(word) by the tree, plus the loss of negative sampling, as chapter 3 writes them."""
    loss = 0
    if hierarchical:
        offsets, nodes, codes = huffman_tree(range(1, V + 1))
        path = slice(offsets[word], offsets[word + 1])
        loss = loss - logsigmoid(torch.tensor(1 - 2 * codes[path]) * (syn1[nodes[path]] @ h)).sum()
    if negative:
        loss = loss - logsigmoid(syn1neg[word] @ h)
        if noise_word != word:
            loss = loss - negative * logsigmoid(-(syn1neg[noise_word] @ h))
    return loss


def autograd_update(matrices, skip_gram, mean, **objective):
    """-gradient of the summed loss. CBOW's inputs get the whole gradient of a mean, 1/C of a sum's: as gensim."""
    syn0, syn1, syn1neg = (torch.tensor(m, dtype=torch.float64, requires_grad=True) for m in matrices)
    loss = 0
    for i, centre in enumerate(SENTENCE):
        around = [w for j, w in enumerate(SENTENCE) if j != i and abs(j - i) <= WINDOW]
        if skip_gram:
            loss = loss + sum(word_loss(syn0[centre], w, syn1, syn1neg, **objective) for w in around)
            continue
        average, total = syn0[around].mean(0), syn0[around].sum(0)
        value, slope = (average, total) if mean else (total, average)
        loss = loss + word_loss(value.detach() + slope - slope.detach(), centre, syn1, syn1neg, **objective)
    grads = torch.autograd.grad(loss, (syn0, syn1, syn1neg), allow_unused=True)
    return [np.zeros_like(m) if g is None else -g.numpy() for m, g in zip(matrices, grads, strict=True)]


@pytest.mark.parametrize("noise_word", [3, 6], ids=["noise in the window", "noise elsewhere"])
@pytest.mark.parametrize(("hierarchical", "negative"), [(True, 0), (False, 5), (True, 2)])
@pytest.mark.parametrize(("skip_gram", "mean"), [(True, True), (False, True), (False, False)])
def test_the_kernels_step_is_autograds_gradient(skip_gram, mean, hierarchical, negative, noise_word):
    before, change = kernel_update(skip_gram, hierarchical, negative, mean, noise_word)
    objective = {"hierarchical": hierarchical, "negative": negative, "noise_word": noise_word}
    wanted = autograd_update(before, skip_gram, mean, **objective)
    for got, want in zip(change, wanted, strict=True):
        assert np.abs(got - want).max() <= 0.02 * max(1, np.abs(want).max())


def test_the_tree_takes_a_step_per_word():
    """At a large rate the order shows: each word's path meets the h and the nodes that the last one has moved."""
    rng = np.random.default_rng(4)
    matrices = [rng.normal(scale=0.5, size=(n, D)).astype(np.float32) for n in (V, V - 1, V)]
    syn0, syn1 = (m.astype(np.float64) for m in matrices[:2])
    offsets, nodes, codes = tree = huffman_tree(range(1, V + 1))
    rate = 0.5
    for i, centre in enumerate(SENTENCE):
        for word in (w for j, w in enumerate(SENTENCE) if j != i and abs(j - i) <= WINDOW):
            path = slice(offsets[word], offsets[word + 1])
            rows = nodes[path]
            step = rate * (1 - codes[path] - 1 / (1 + np.exp(-(syn1[rows] @ syn0[centre]))))
            h = syn0[centre].copy()
            syn0[centre] += step @ syn1[rows]
            syn1[rows] += np.outer(step, h)
    train_chunk(
        np.array(SENTENCE, np.int32), np.array([0, len(SENTENCE)]), (0, 1), np.ones(V), (WINDOW, False),
        tuple(matrices), tree, alias_table(np.ones(V) / V), (True, True, 0, True), (rate, rate),
        np.array([3], np.uint64),
    )  # fmt: skip
    np.testing.assert_allclose(matrices[0], syn0, atol=1e-5)
    np.testing.assert_allclose(matrices[1], syn1, atol=1e-5)


def test_a_mean_is_not_a_sum():
    mean = kernel_update(False, False, 5, True, 6)[1]
    total = kernel_update(False, False, 5, False, 6)[1]
    assert np.abs(mean[0] - total[0]).max() > 0.2


def test_a_dropped_word_neither_moves_nor_counts():
    keep = np.ones(V)
    keep[2] = 0.0
    _, change = kernel_update(True, False, 5, True, 6, keep)
    assert np.all(change[0][2] == 0)
    assert np.all(change[2][2] == 0)
    assert np.all(np.abs(change[0][[0, 1, 3, 4]]).max(axis=1) > 0)


def test_the_rate_falls_with_the_share_of_the_words_read():
    """Two sentences of equal length: half the words are read before the second, whose rate is half-way."""
    offsets = np.array([0, 5, 10])

    def passes(*spans_and_rates):
        rng = np.random.default_rng(6)
        matrices = [rng.normal(scale=0.5, size=(n, D)).astype(np.float32) for n in (V, V - 1, V)]
        state = np.array([3], np.uint64)
        for span, rates in spans_and_rates:
            train_chunk(
                np.array(SENTENCE * 2, np.int32), offsets, span, np.ones(V), (WINDOW, False), tuple(matrices),
                huffman_tree([1]), alias_table(np.ones(V) / V), (True, False, 5, True), rates, state,
            )  # fmt: skip
        return matrices[0]

    falling = passes(((0, 2), (0.5, 0.1)))
    by_hand = passes(((0, 1), (0.5, 0.5)), ((1, 2), (0.3, 0.3)))
    np.testing.assert_allclose(falling, by_hand, atol=1e-6)


def test_epochs_share_the_fall_of_the_rate_and_noise_follows_the_exponent(monkeypatch):
    rates, noises = [], []

    def spy(*args):
        rates.append(args[9])
        noises.append(args[7])

    monkeypatch.setattr("llmbook.word2vec.model.train_chunk", spy)
    model = Word2Vec([["a"] * 8, ["b"]], min_count=1, alpha=0.3, min_alpha=0.1, epochs=2, ns_exponent=1 / 3)
    np.testing.assert_allclose(rates, [(0.3, 0.2), (0.2, 0.1)])
    expected = alias_table(noise_distribution(model.counts, 1 / 3))  # 8 to 1 becomes 2 to 1
    np.testing.assert_allclose(noises[0][0], expected[0])
    assert not np.allclose(expected[0], alias_table(noise_distribution(model.counts))[0])


def test_windows_shrink_uniformly():
    """In [0, 1, 2] with window 2 the outer words meet half the time, the neighbours always."""
    repeats = 4000
    matrices = (np.eye(3, dtype=np.float32), np.zeros((2, 3), np.float32), np.zeros((3, 3), np.float32))
    tokens, offsets = np.tile(np.arange(3, dtype=np.int32), repeats), np.arange(repeats + 1) * 3
    noise = alias_table(np.array([0.0, 1.0, 0.0]))
    train_chunk(
        tokens, offsets, (0, repeats), np.ones(3), (2, True), matrices, huffman_tree([1, 1, 1]), noise,
        (True, False, 1, True), (1e-6, 1e-6), np.array([5], np.uint64),
    )  # fmt: skip
    met = matrices[2] / (0.5e-6 * repeats)  # (context, centre): how often a sentence, sigma(0) being 0.5
    assert met[2, 0] == pytest.approx(0.5, abs=0.04)
    assert met[2, 1] == pytest.approx(1.0, abs=0.01)


# --- what is computed from the counts ---------------------------------------------------------------------


def gensim_vocabulary(counts, **kwargs):
    """A gensim model that knows words w0, w1, … with these counts, not trained."""
    model = gensim.models.Word2Vec(min_count=1, **kwargs)
    model.build_vocab_from_freq({f"w{i}": count for i, count in enumerate(counts)})
    return model


@given(counts_of_words)
@settings(deadline=None, max_examples=30)
def test_huffman_tree_is_gensims(counts):
    counts = sorted(counts, reverse=True)
    model = gensim_vocabulary(counts, hs=1, negative=0)
    offsets, nodes, codes = huffman_tree(counts)
    for i, key in enumerate(model.wv.index_to_key):
        path = slice(offsets[i], offsets[i + 1])
        if len(counts) > 1:
            assert model.wv.get_vecattr(key, "code").tolist() == codes[path].tolist()
            assert model.wv.get_vecattr(key, "point").tolist() == nodes[path].tolist()


@given(counts_of_words)
def test_huffman_code_is_complete_and_optimal(counts):
    offsets, nodes, codes = huffman_tree(counts)
    lengths = np.diff(offsets)
    words = ["".join(map(str, codes[a:b])) for a, b in pairwise(offsets)]
    assert not any(v.startswith(w) for i, w in enumerate(words) for j, v in enumerate(words) if i != j)
    assert sum(2.0 ** -int(n) for n in lengths) == 1.0  # Kraft: prefix-free, and nothing wasted
    entropy = -sum(c * math.log2(c / sum(counts)) for c in counts)
    assert entropy - 1e-6 <= lengths @ counts <= entropy + sum(counts)  # Shannon's bounds
    order = np.argsort(counts, kind="stable")
    assert all(lengths[a] >= lengths[b] for a, b in pairwise(order) if counts[a] < counts[b])
    assert set(nodes.tolist()) == set(range(len(counts) - 1))


@given(counts_of_words, st.floats(0, 1.5))
def test_alias_table_encodes_the_distribution(counts, exponent):
    wanted = noise_distribution(np.array(counts), exponent)
    threshold, alias = alias_table(wanted)
    got = threshold.copy()
    np.add.at(got, alias, 1 - threshold)
    np.testing.assert_allclose(got / len(counts), wanted, atol=1e-12)


def test_draws_follow_the_noise_distribution():
    wanted = noise_distribution(np.array([1000, 100, 10, 1]))
    table, state = alias_table(wanted), np.array([11], np.uint64)
    drawn = np.bincount([_draw(*table, state) for _ in range(20_000)], minlength=4)
    assert ((drawn - 20_000 * wanted) ** 2 / (20_000 * wanted)).sum() < 16.3  # chi-squared, 3 degrees, p = 0.001


def test_noise_and_subsampling_are_gensims():
    counts = np.array([50_000, 8_000, 900, 70, 5])
    model = gensim_vocabulary(counts, sample=1e-3)
    noise = np.diff(model.cum_table, prepend=0) / model.cum_table[-1]
    np.testing.assert_allclose(noise_distribution(counts), noise, atol=1e-8)
    kept = [model.wv.get_vecattr(f"w{i}", "sample_int") / (2**32 - 1) for i in range(len(counts))]
    np.testing.assert_allclose(keep_probability(counts, 1e-3), kept, atol=1e-8)
    assert np.all(keep_probability(counts, 0) == 1)


# --- the model ---------------------------------------------------------------------------------------------

MODES = [
    {"sg": 1}, {"sg": 0}, {"sg": 0, "cbow_mean": 0}, {"sg": 1, "hs": 1, "negative": 0},
    {"sg": 0, "hs": 1, "negative": 0}, {"sg": 1, "hs": 1},
]  # fmt: skip


@given(
    st.lists(st.lists(st.sampled_from("abcdefg"), max_size=12), min_size=1, max_size=6),
    st.sampled_from(MODES),
    st.integers(1, 9),
    st.integers(1, 20),
)
@settings(deadline=None, max_examples=60)
def test_shapes_on_any_corpus(sentences, mode, vector_size, window):
    if not any(sentences):
        with pytest.raises(ValueError, match="at least one word"):
            Word2Vec(sentences, min_count=1, **mode)
        return
    model = Word2Vec(sentences, vector_size=vector_size, window=window, min_count=1, **mode)
    words = {w for s in sentences for w in s}
    assert set(model.wv.index_to_key) == words
    assert model.wv.vectors.shape == (len(words), vector_size)
    assert model.wv.vectors.dtype == np.float32
    assert np.isfinite(model.wv.vectors).all()
    assert list(model.counts) == sorted(model.counts, reverse=True)


def test_vocabulary_is_gensims():
    sentences = [s[:40] for s in corpora.sentences(corpora.lee())[:300]]
    theirs = gensim.models.Word2Vec(min_count=2)
    theirs.build_vocab(sentences)
    ours = Word2Vec(sentences, min_count=2, epochs=1, vector_size=8)
    counts = {key: theirs.wv.get_vecattr(key, "count") for key in theirs.wv.index_to_key}
    assert dict(zip(ours.wv.index_to_key, ours.counts, strict=True)) == counts  # ties: in gensim, in no order


def test_the_start_is_gensims():
    """Uniform between -1 / vector_size and 1 / vector_size; at a rate of 0 nothing moves."""
    words = [[f"w{i}" for i in range(300)]]
    ours = Word2Vec(words, min_count=1, vector_size=20, alpha=0, min_alpha=0, epochs=1).wv.vectors
    theirs = gensim_vocabulary([1] * 300, vector_size=20)
    theirs.init_weights()
    for vectors in (ours, theirs.wv.vectors):
        assert np.abs(vectors).max() == pytest.approx(1 / 20, rel=0.01)
        assert vectors.std() == pytest.approx(1 / 20 / math.sqrt(3), rel=0.05)


def test_one_thread_and_seed_is_reproducible():
    sentences = corpora.sentences(corpora.lee())[:200]
    a, b, other = (Word2Vec(sentences, vector_size=16, epochs=2, seed=seed) for seed in (3, 3, 4))
    assert np.array_equal(a.wv.vectors, b.wv.vectors)
    assert not np.array_equal(a.wv.vectors, other.wv.vectors)


def test_threads_share_the_work():
    sentences = corpora.sentences(corpora.lee())[:400]
    one, two = (Word2Vec(sentences, vector_size=16, epochs=3, workers=n, sample=0) for n in (1, 2))
    assert np.linalg.norm(two.wv.vectors) == pytest.approx(np.linalg.norm(one.wv.vectors), rel=0.05)
    assert Word2Vec([["a", "b"]], min_count=1, workers=4).wv.vectors.shape == (2, 100)


def test_a_generator_of_sentences_will_do():
    assert len(Word2Vec((s for s in [["a", "b"], ["b", "a"]]), min_count=1).wv) == 2


def test_it_learns_what_people_mean():
    """Seeds 1 to 4 gave a rank correlation of 0.35 to 0.40; an untrained model gives about 0."""
    wv = Word2Vec(corpora.sentences(corpora.wikipedia()), sg=1, epochs=12).wv
    assert wv.evaluate_word_pairs(corpora.wordsim353())[1].statistic > 0.28


# --- bad input -----------------------------------------------------------------------------------------------

PAIR = [["a", "b"]]


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"vector_size": 0}, "vector_size must be at least 1, got 0"),
        ({"window": 0}, "window must be at least 1, got 0"),
        ({"min_count": 0}, "min_count must be at least 1, got 0"),
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"workers": 0}, "workers must be at least 1, got 0"),
        ({"negative": 0}, "negative must be at least 1, or 0 with hs=1"),
        ({"negative": -1, "hs": 1}, "negative must be at least 0, got -1"),
        ({"sample": -1}, "sample must be at least 0 and finite, got -1"),
        ({"sample": math.nan}, "sample must be at least 0 and finite, got nan"),
        ({"sample": math.inf}, "sample must be at least 0 and finite, got inf"),
        ({"ns_exponent": math.nan}, "ns_exponent must be finite, got nan"),
        ({"ns_exponent": -math.inf}, "ns_exponent must be finite, got -inf"),
        ({"min_alpha": math.nan}, "alpha must be finite"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"sg": 2}, "sg must be 0 or 1, got 2"),
        ({"hs": 0.5}, "hs must be 0 or 1, got 0.5"),
        ({"cbow_mean": "yes"}, "cbow_mean must be 0 or 1, got 'yes'"),
        ({"shrink_windows": None}, "shrink_windows must be 0 or 1, got None"),
        ({"alpha": math.nan}, "alpha must be finite"),
        ({"alpha": 1e-5}, "alpha must be finite and at least min_alpha"),
        ({"min_count": 3}, "min_count must leave some words, got 3; the most frequent occurs 1 times"),
    ],
)
def test_bad_arguments_are_named(kwargs, message):
    with pytest.raises(ValueError, match=message):
        Word2Vec(PAIR, **{"min_count": 1, **kwargs})


@pytest.mark.parametrize("name", ["window", "vector_size", "min_count", "epochs", "workers", "negative", "seed"])
@pytest.mark.parametrize("value", [2.5, "2", None, math.nan])
def test_whole_numbers_are_asked_for_by_name(name, value):
    with pytest.raises(TypeError, match=f"{name} must be a whole number, got {value!r}"):
        Word2Vec(PAIR, **{"min_count": 1, name: value})
    assert len(Word2Vec(PAIR, **{"min_count": 1, name: np.int64(1)}).wv) == 2


@pytest.mark.parametrize("counts", [[], [3, 0], [3, -1], [3, math.nan], [math.inf]])
def test_counts_are_positive_numbers(counts):
    for function in (huffman_tree, noise_distribution, lambda c: keep_probability(c, 1e-3)):
        with pytest.raises(ValueError, match="counts must be a non-empty"):
            function(counts)


@pytest.mark.parametrize("probabilities", [[0.5, math.nan], [0.5, 0.4], [1.5, -0.5], []])
def test_an_alias_table_needs_a_distribution(probabilities):
    with pytest.raises(ValueError, match="probabilities must be"):
        alias_table(probabilities)


def test_noise_of_any_finite_exponent_is_a_distribution():
    np.testing.assert_allclose(noise_distribution([9, 1], 400), [1, 0], atol=1e-12)  # 9 ** 400 is no float
    np.testing.assert_allclose(noise_distribution([9, 1], -1), [0.1, 0.9])
    np.testing.assert_allclose(noise_distribution([9, 1], 0), [0.5, 0.5])
    with pytest.raises(ValueError, match="exponent must be finite, got nan"):
        noise_distribution([9, 1], math.nan)


NO_PLACE = """
from numba.core import caching
caching.CacheImpl._locator_classes = []  # as where the package and the home are both read-only
import numpy as np
from llmbook.word2vec import logistic_step
h, grad, score, ones = (np.ones(1, np.float32) for _ in range(4))
row = np.zeros((1, 1), np.float32)
logistic_step(h, grad, row, np.zeros(1, np.int32), ones, ones, 1, np.float32(1), score)
print(row[0, 0])
"""


def test_it_compiles_where_nothing_can_be_kept():
    environment = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"}
    done = subprocess.run(
        [sys.executable, "-c", NO_PLACE], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "0.5", done.stderr


@pytest.mark.parametrize("sentences", ["a b c", ["a b c", "d e"]])
def test_strings_are_not_sentences(sentences):
    with pytest.raises(TypeError, match="of tokens, got"):
        Word2Vec(sentences, min_count=1)


@pytest.mark.parametrize("sentences", [[], [[]]])
def test_an_empty_corpus_is_refused(sentences):
    with pytest.raises(ValueError, match="at least one word, got none"):
        Word2Vec(sentences, min_count=1)


def test_divergence_is_an_error_not_nan():
    with pytest.raises(FloatingPointError, match="alpha"):
        Word2Vec([list("abcd")] * 50, min_count=1, alpha=1e30, sample=0, epochs=20)


# --- the vectors ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def twins():
    """The same random vectors in our class and in gensim's."""
    words = ["king", "queen", "man", "woman", "paris", "france", "rome", "italy"]
    vectors = np.random.default_rng(2).normal(size=(len(words), 5)).astype(np.float32)
    theirs = gensim.models.KeyedVectors(5)
    theirs.add_vectors(words, vectors)
    return KeyedVectors(words, vectors), theirs


@pytest.mark.parametrize(
    ("positive", "negative"), [("king", []), (["king", "woman"], ["man"]), (["rome", "rome"], "italy"), ([], "man")]
)
def test_most_similar_is_gensims(twins, positive, negative):
    ours, theirs = (wv.most_similar(positive=positive, negative=negative, topn=4) for wv in twins)
    assert [w for w, _ in ours] == [w for w, _ in theirs]
    np.testing.assert_allclose([x for _, x in ours], [x for _, x in theirs], atol=1e-6)


def test_similarity_is_gensims(twins):
    ours, theirs = twins
    assert ours.similarity("king", "queen") == pytest.approx(theirs.similarity("king", "queen"), abs=1e-6)


def test_word_pairs_are_gensims(twins, tmp_path):
    file = tmp_path / "pairs.tsv"
    file.write_text("# a comment\nKing\tqueen\t8.5\nman\twoman\t7\nparis\trome\t3\nking\tnobody\t1\nman\titaly\t0.5\n")
    ours, theirs = (wv.evaluate_word_pairs(str(file)) for wv in twins)
    for mine, his in zip(ours[:2], theirs[:2], strict=True):
        np.testing.assert_allclose(tuple(mine), tuple(his), atol=1e-6)
    assert ours[2] == pytest.approx(theirs[2])
    listed = twins[0].evaluate_word_pairs([("king", "queen", 8.5), ("man", "woman", 7), ("paris", "rome", 3)])
    assert listed[2] == 0


def test_analogies_are_gensims(twins, tmp_path):
    questions = [("man", "king", "woman", "queen"), ("paris", "france", "rome", "italy"), ("rome", "x", "y", "z")]
    file = tmp_path / "questions.txt"
    file.write_text(": all\n" + "".join(" ".join(q) + "\n" for q in questions))
    score, sections = twins[1].evaluate_word_analogies(str(file))
    ours, results = twins[0].evaluate_word_analogies({"all": questions, "none": []})
    assert ours == pytest.approx(score)
    assert results == {"all": (len(sections[0]["correct"]), 2), "none": (0, 0)}


def test_bad_look_ups(twins):
    wv = twins[0]
    with pytest.raises(KeyError, match="'xyz' is not in the vocabulary of 8 words"):
        wv.similarity("king", "xyz")
    with pytest.raises(KeyError, match="xyz"):
        wv.most_similar("xyz")
    with pytest.raises(ValueError, match="both empty"):
        wv.most_similar()
    with pytest.raises(ValueError, match="topn must be at least 1, got 0"):
        wv.most_similar("king", topn=0)
    with pytest.raises(ValueError, match="at least 2"):
        wv.evaluate_word_pairs([("king", "queen", 1.0), ("x", "y", 2.0)])
    with pytest.raises(ValueError, match="all four words"):
        wv.evaluate_word_analogies({"all": [("a", "b", "c", "d")]})
    with pytest.raises(ValueError, match="pair up"):
        KeyedVectors(["a"], np.zeros((2, 3)))


def test_zero_vectors_give_no_nan():
    wv = KeyedVectors(["a", "b"], np.zeros((2, 3), np.float32))
    assert wv.similarity("a", "b") == 0
    assert wv.most_similar("a") == [("b", 0.0)]


@pytest.mark.parametrize("scale", [1e-43, 1e-30, 1e30])
def test_a_cosine_does_not_depend_on_the_length(twins, scale):
    """The squares of such vectors are 0 or infinite in single precision."""
    words, vectors = twins[0].index_to_key, np.array([[3, 4, 0], [4, 3, 0]] * 4, np.float32)
    wv, small = KeyedVectors(words, vectors), KeyedVectors(words, vectors * np.float32(scale))
    rough = 0.1 if scale < 1e-38 else 1e-6  # denormal numbers have few digits
    np.testing.assert_allclose(np.linalg.norm(small.get_normed_vectors(), axis=1), 1, rtol=1e-6)
    assert small.similarity("king", "queen") == pytest.approx(0.96, rel=rough)
    assert small.most_similar("king", topn=4)[3][1] == pytest.approx(wv.most_similar("king", topn=4)[3][1], rel=rough)
    wide = KeyedVectors(words, vectors.astype(np.float64) * scale**5)
    assert wide.similarity("king", "queen") == pytest.approx(0.96)


def test_a_vector_may_stand_for_a_word_as_in_gensim(twins):
    vector = np.random.default_rng(5).normal(size=5).astype(np.float32)
    for query in ({"positive": [vector]}, {"positive": ["king", vector], "negative": ["man"]}, {"negative": [vector]}):
        ours, theirs = (wv.most_similar(**query, topn=4) for wv in twins)
        assert [w for w, _ in ours] == [w for w, _ in theirs]
        np.testing.assert_allclose([x for _, x in ours], [x for _, x in theirs], atol=1e-6)
    assert twins[0].most_similar(vector) == twins[0].most_similar([vector])


def test_look_ups_name_what_is_neither_word_nor_vector(twins):
    wv = twins[0]
    for ask in (lambda x: wv.most_similar([x]), lambda x: wv.similarity("king", x), lambda x: wv[x]):
        for wrong in (3, None, ["king"]):
            with pytest.raises(TypeError, match=f"got {type(wrong).__name__}"):
                ask(wrong)
    with pytest.raises(TypeError, match="key must be a word, got ndarray"):
        wv.similarity("king", np.zeros(5))
    with pytest.raises(ValueError, match=r"5 finite numbers, got shape \(4,\)"):
        wv.most_similar([np.zeros(4)])
    with pytest.raises(ValueError, match="5 finite numbers"):
        wv.most_similar([np.full(5, math.nan)])
    with pytest.raises(TypeError, match="topn must be a whole number, got 2"):
        wv.most_similar("king", topn=2.5)


def test_vectors_that_cannot_be_looked_up_are_refused():
    with pytest.raises(ValueError, match="keys must all differ, got 'a' twice"):
        KeyedVectors(["a", "b", "a"], np.zeros((3, 2)))
    for vectors in (np.zeros(3), np.zeros((3, 2), int), np.zeros((0, 2))):
        with pytest.raises(ValueError, match="vectors must be a"):
            KeyedVectors(["a", "b", "c"], vectors)


def test_of_two_spellings_the_most_frequent_counts():
    """Words stand by falling count, so the first spelling is the most frequent one."""
    vectors = np.array([[1, 0], [0, 1], [1, 0.2], [0.9, 0.5]], np.float32)
    wv = KeyedVectors(["King", "king", "queen", "man"], vectors)
    alone = KeyedVectors(["king", "queen", "man"], vectors[[0, 2, 3]])
    pairs = [("KING", "queen", 1.0), ("king", "man", 2.0), ("man", "queen", 3.0)]
    assert wv.evaluate_word_pairs(pairs)[0] == alone.evaluate_word_pairs(pairs)[0]
    more = np.array([[0, 1, 0], [-1, -1, 0], [1, 0, 0], [1, 0, 1], [0, 1, 1], [-1, -1, 1]], np.float32)
    wv = KeyedVectors(["King", "king", "man", "woman", "queen", "other"], more)
    assert wv.evaluate_word_analogies({"s": [("man", "woman", "KING", "queen")]})[0] == 1


def test_files_of_pairs_may_have_blank_lines_and_a_header(twins, tmp_path):
    rows = "king\tqueen\t8.5\n\n   \nman\twoman\t7\n# so far\nparis\trome\t3\n"
    wanted = twins[0].evaluate_word_pairs([("king", "queen", 8.5), ("man", "woman", 7), ("paris", "rome", 3)])
    file = tmp_path / "pairs.tsv"
    for text in (rows, "Word 1\tWord 2\tHuman (mean)\n" + rows, "\ufeff" + rows, rows.replace("\n", "\r\n")):
        file.write_text(text, encoding="utf-8")
        ours, theirs = (wv.evaluate_word_pairs(str(file)) for wv in twins)
        assert ours[0] == wanted[0]
        if "\ufeff" not in text:  # gensim takes the mark for a part of the first word
            np.testing.assert_allclose(ours[1].statistic, theirs[1].statistic)
            assert ours[2] == pytest.approx(theirs[2])
    file.write_text("king\tqueen\t8.5\nman woman 7\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"line 2 of .* got 'man woman 7'"):
        twins[0].evaluate_word_pairs(file)


@pytest.mark.parametrize(
    "pair", [("king", "queen"), ("king", "queen", math.nan), ("king", "queen", "x"), (1, "a", 2), "ab3"]
)
def test_pairs_are_triples(twins, pair):
    with pytest.raises(ValueError, match="pairs must be triples"):
        twins[0].evaluate_word_pairs([("man", "woman", 7.0), ("rome", "paris", 2.0), pair])


def test_analogies_may_be_a_file_as_in_gensim(tmp_path):
    words = ["man", "king", "woman", "queen"]
    vectors = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 1], [0, 1, 1]], np.float32)
    file = tmp_path / "questions.txt"
    file.write_text(": royal\nMan King Woman Queen\n\n: none\nman x y z\n", encoding="utf-8")
    theirs = gensim.models.KeyedVectors(3)
    theirs.add_vectors(words, vectors)
    ours = KeyedVectors(words, vectors).evaluate_word_analogies(file)
    assert ours == (theirs.evaluate_word_analogies(str(file))[0], {"royal": (1, 1), "none": (0, 0)})
    file.write_text("man king woman queen\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"line 1 of .* below a line ': section'"):
        KeyedVectors(words, vectors).evaluate_word_analogies(file)


def test_bad_analogies_are_named(twins):
    wv = twins[0]
    with pytest.raises(ValueError, match="no question with all four words"):
        wv.evaluate_word_analogies({})
    with pytest.raises(TypeError, match="must map sections to questions, or be a file, got list"):
        wv.evaluate_word_analogies([("man", "king", "woman", "queen")])
    with pytest.raises(ValueError, match="must be four words, got"):
        wv.evaluate_word_analogies({"s": [("man", "king", "woman")]})
    with pytest.raises(ValueError, match="must be four words, got 'abcd'"):
        wv.evaluate_word_analogies({"s": ["abcd"]})


# --- as good as gensim ---------------------------------------------------------------------------------------

METHODS = {
    "skip-gram, negative sampling": {"sg": 1, "epochs": 3, "alpha": 0.06},
    "CBOW, negative sampling": {"sg": 0, "epochs": 4, "alpha": 0.08},
    "skip-gram, tree": {"sg": 1, "hs": 1, "negative": 0, "epochs": 2, "alpha": 0.05},
}


@pytest.mark.parametrize("method", METHODS)
def test_it_agrees_with_people_as_well_as_gensim_does(method):
    """One training each: the bounds are four times the 0.02 or so by which one seed differs from the next."""
    sentences = corpora.sentences(corpora.wikipedia())
    options = {"vector_size": 50, "window": 5, "min_count": 5, "workers": 1, "seed": 1, **METHODS[method]}
    trained = [library(sentences, **options).wv for library in (Word2Vec, gensim.models.Word2Vec)]
    for pairs, ahead in ((corpora.wordsim353(), 0.12), (corpora.simlex999(), 0.08)):
        ours, theirs = (
            KeyedVectors(wv.index_to_key, wv.vectors).evaluate_word_pairs(pairs)[1].statistic for wv in trained
        )
        assert -0.08 <= ours - theirs <= ahead
