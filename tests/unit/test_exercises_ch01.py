"""Chapter 01's checkers tell right, nearly right and wrong apart."""

import math
from collections import Counter

import numpy as np
import pytest

from llmbook.exercises import ch01


def stationary(P):
    values, vectors = np.linalg.eig(P.T)
    vector = np.real(vectors[:, np.argmax(np.real(values))])
    return vector / vector.sum()


def entropy(p):
    return -sum(x * math.log(x) for x in p if x > 0)


RIGHT = {
    "perplexity": lambda p: math.exp(-sum(map(math.log, p)) / len(p)),
    "add_k": lambda followers, word, k, V: (followers.get(word, 0) + k) / (sum(followers.values()) + k * V),
    "continuation": lambda bigrams, word: Counter(b for _, b in set(bigrams))[word] / len(set(bigrams)),
    "entropy_rate": lambda P: sum(weight * entropy(row) for weight, row in zip(stationary(P), P, strict=True)),
}

NEARLY = [
    ("perplexity", lambda p: 2 ** (-sum(map(math.log, p)) / len(p)), "different bases"),
    ("perplexity", lambda p: math.exp(-sum(map(math.log2, p)) / len(p)), "different bases"),
    ("perplexity", lambda p: -sum(map(math.log, p)) / len(p), "that is the cross-entropy"),
    ("perplexity", lambda p: sum(1 / x for x in p) / len(p), "averages 1/p"),
    ("perplexity", lambda p: math.exp(sum(map(math.log, p)) / len(p)), "wrong way round"),
    ("add_k", lambda f, w, k, V: (f.get(w, 0) + k) / sum(f.values()), "lacks k·V"),
    ("add_k", lambda f, w, k, V: (f.get(w, 0) + k) / (sum(f.values()) + V), "right for k = 1 only"),
    ("add_k", lambda f, w, k, V: (f.get(w, 0) + k) / (sum(f.values()) + k), "k once"),
    ("add_k", lambda f, w, k, V: f.get(w, 0) / (sum(f.values()) + k * V), "numerator lacks k"),
    ("continuation", lambda b, w: sum(y == w for _, y in b) / len(b), "how often"),
    ("continuation", lambda b, w: sum(y == w for _, y in set(b)) / len(b), "denominator counts tokens"),
    ("continuation", lambda b, w: sum(x == w for x, _ in set(b)) / len(set(b)), "follow"),
    ("continuation", lambda b, w: sum(y == w for _, y in set(b)), "not yet a probability"),
    ("entropy_rate", lambda P: RIGHT["entropy_rate"](P) / math.log(2), "in bits"),
    ("entropy_rate", lambda P: np.mean([entropy(row) for row in P]), "equal weights"),
    ("entropy_rate", lambda P: entropy(stationary(P)), "stationary distribution"),
]

WRONG = {
    "perplexity": lambda p: 7.0,
    "add_k": lambda followers, word, k, V: 1 / V,
    "continuation": lambda bigrams, word: 0.5,
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


def test_a_product_that_underflows_is_recognised(capsys):
    assert not ch01.check_perplexity(lambda p: math.prod(p) ** (-1 / len(p)))
    assert "add logarithms instead" in capsys.readouterr().out
    assert not ch01.check_perplexity(lambda p: math.exp(-sum(map(math.log, p))))
    assert "per token: take the mean" in capsys.readouterr().out
