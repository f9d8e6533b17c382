"""Chapter 01's checkers tell right, nearly right and wrong apart."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest
from nltk.lm import WittenBellInterpolated

from llmbook.exercises import ch01


def stationary(P):
    values, vectors = np.linalg.eig(P.T)
    vector = np.real(vectors[:, np.argmax(np.real(values))])
    return vector / vector.sum()


def entropy(p):
    return -sum(x * math.log(x) for x in p if x > 0)


def mixed(followers, word, shorter, novelties):
    total = sum(followers.values()) + novelties
    return (followers.get(word, 0) + novelties * shorter) / total if total else shorter


RIGHT = {
    "perplexity": lambda bits, lengths: 2 ** (-sum(bits) / sum(lengths)),
    "witten_bell": lambda f, word, shorter: (
        (f.get(word, 0) + len(f) * shorter) / (sum(f.values()) + len(f)) if f else shorter
    ),
    "entropy_rate": lambda P: sum(weight * entropy(row) for weight, row in zip(stationary(P), P, strict=True)),
}

NEARLY = [
    ("perplexity", lambda bits, n: math.exp(-sum(bits) / sum(n)), "different bases"),
    ("perplexity", lambda bits, n: -sum(bits) / sum(n), "that is the cross-entropy"),
    ("perplexity", lambda bits, n: 2 ** (-sum(bits) / len(bits)), "the number of sentences"),
    ("perplexity", lambda bits, n: 2 ** -sum(bits), "the *sum* of surprises"),
    ("perplexity", lambda bits, n: sum(2 ** (-b / m) for b, m in zip(bits, n, strict=True)) / len(n), "perplexities"),
    ("perplexity", lambda bits, n: 2 ** np.mean([-b / m for b, m in zip(bits, n, strict=True)]), "counts the same"),
    ("perplexity", lambda bits, n: 2 ** (sum(bits) / sum(n)), "wrong way round"),
    ("perplexity", lambda bits, n: (2 ** sum(bits)) ** (-1 / sum(n)), "stay with the logarithms"),
    (
        "witten_bell",
        lambda f, w, q: f.get(w, 0) / sum(f.values()) + len(f) / (sum(f.values()) + len(f)) * q,
        "more than 1",
    ),
    ("witten_bell", lambda f, w, q: (f.get(w, 0) + len(f)) / (sum(f.values()) + len(f)), "multiply by `shorter`"),
    ("witten_bell", lambda f, w, q: (f[w] if w in f else len(f) * q) / (sum(f.values()) + len(f)), "falls short"),
    ("witten_bell", lambda f, w, q: RIGHT["witten_bell"](f, w, q) if f else 0, "decides alone"),
    ("witten_bell", lambda f, w, q: (f.get(w, 0) + len(f) * q) / (sum(f.values()) + len(f)), "0/0"),
    ("witten_bell", lambda f, w, q: mixed(f, w, q, sum(c == 1 for c in f.values())), "occurred once"),
    ("witten_bell", lambda f, w, q: mixed(f, w, q, sum(f.values())), "every occurrence"),
    ("witten_bell", lambda f, w, q: mixed(f, w, q, 1), "one event here"),
    ("entropy_rate", lambda P: RIGHT["entropy_rate"](P) / math.log(2), "in bits"),
    ("entropy_rate", lambda P: np.mean([entropy(row) for row in P]), "equal weights"),
    ("entropy_rate", lambda P: entropy(stationary(P)), "stationary distribution"),
]

WRONG = {
    "perplexity": lambda bits, lengths: 7.0,
    "witten_bell": lambda followers, word, shorter: 0.5,
    "entropy_rate": lambda P: P[0],
}


@pytest.mark.parametrize("name", RIGHT)
def test_the_right_answer_is_accepted(name, capsys):
    assert getattr(ch01, f"check_{name}")(RIGHT[name])
    assert capsys.readouterr().out.endswith("All right.\n")


@pytest.mark.parametrize(("name", "answer", "words"), NEARLY)
def test_a_known_mistake_is_named(name, answer, words, capsys):
    assert not getattr(ch01, f"check_{name}")(answer)
    said = capsys.readouterr().out
    assert "Nearly: " in said
    assert words in said


@pytest.mark.parametrize("name", WRONG)
def test_any_other_answer_is_shown_beside_the_right_one(name, capsys):
    assert not getattr(ch01, f"check_{name}")(WRONG[name])
    said = capsys.readouterr().out
    assert "✗" in said
    assert "the right one" in said
    assert "Nearly" not in said


@pytest.mark.parametrize("name", RIGHT)
def test_a_stub_is_not_attempted(name, capsys):
    assert not getattr(ch01, f"check_{name}")(lambda *_: None)
    assert "Not attempted yet" in capsys.readouterr().out


def test_the_right_witten_bell_is_nltks():
    text = [list("abab"), list("aacb"), list("ba")]
    theirs = WittenBellInterpolated(2)
    grams = [[(*pair,) for pair in itertools.pairwise(line)] + [(letter,) for letter in line] for line in text]
    theirs.fit(grams, vocabulary_text=[letter for line in text for letter in line])
    for first in "ab":
        followers = Counter(b for line in text for a, b in itertools.pairwise(line) if a == first)
        for word in "abc":
            ours = RIGHT["witten_bell"](followers, word, theirs.score(word))
            assert ours == pytest.approx(theirs.score(word, (first,)))
