"""Words and their vectors: look-ups, neighbours, and how well they agree with people."""

import math
import operator
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy import stats

Query = str | np.ndarray  # a word, or a vector (D,)
Pair = tuple[str, str, float]
Question = tuple[str, str, str, str]


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors (..., D) scaled to length 1; a zero vector stays zero.

    Divided by the largest entry first: the square of 1e-30 is 0 in single precision, that of 1e30 infinite.
    """
    vectors = np.asarray(vectors)
    peak = np.abs(vectors).max(axis=-1, keepdims=True).astype(np.float64)
    scaled = vectors / np.where(peak > 0, peak, 1)  # entries within ±1, float64
    norm = np.linalg.norm(scaled, axis=-1, keepdims=True)  # at least 1, or 0
    return (scaled / np.where(norm > 0, norm, 1)).astype(vectors.dtype)


class KeyedVectors:
    """Words and their vectors, with gensim's names: `vectors` (V, D), `index_to_key`, `key_to_index`."""

    def __init__(self, keys: Sequence[str], vectors: np.ndarray):
        self.vectors = np.asarray(vectors)
        if self.vectors.ndim != 2 or self.vectors.dtype.kind != "f" or 0 in self.vectors.shape:
            came = f"{self.vectors.dtype} of shape {self.vectors.shape}"
            raise ValueError(f"vectors must be a (V, D) array of floats, got {came}")
        if len(keys) != len(vectors):
            raise ValueError(f"keys and vectors must pair up, got {len(keys)} keys and {len(vectors)} vectors")
        self.index_to_key = list(keys)
        self.key_to_index = {key: i for i, key in enumerate(self.index_to_key)}
        if len(self.key_to_index) < len(self.index_to_key):
            twice = next(key for i, key in enumerate(self.index_to_key) if self.key_to_index[key] != i)
            raise ValueError(f"keys must all differ, got {twice!r} twice")

    def __len__(self) -> int:
        return len(self.index_to_key)

    def __contains__(self, key: str) -> bool:
        return key in self.key_to_index

    def __getitem__(self, key: str) -> np.ndarray:
        return self.vectors[self._index(key)]

    def _index(self, key: str) -> int:
        if not isinstance(key, str):
            raise TypeError(f"key must be a word, got {type(key).__name__} {str(key)[:40]}")
        if key not in self.key_to_index:
            raise KeyError(f"{key!r} is not in the vocabulary of {len(self)} words")
        return self.key_to_index[key]

    def get_normed_vectors(self) -> np.ndarray:
        """The vectors scaled to length 1, (V, D); a zero vector stays zero."""
        return unit(self.vectors)

    def similarity(self, w1: str, w2: str) -> float:
        """Cosine of the angle between two words' vectors."""
        return float(unit(self[w1].astype(np.float64)) @ unit(self[w2].astype(np.float64)))

    def most_similar(
        self, positive: Query | Iterable[Query] = (), negative: Query | Iterable[Query] = (), topn: int = 10
    ) -> list[tuple[str, float]]:
        """The `topn` words nearest by cosine to the sum of `positive` minus `negative` unit vectors.

        The query's own words are left out, as in gensim: `most_similar(["king", "woman"], ["man"])`. A vector
        (D,) may stand for a word: it is added as it is, not scaled, and leaves no word out.
        """
        positive, negative = self._queries(positive), self._queries(negative)
        if not positive and not negative:
            raise ValueError("positive and negative are both empty: there is nothing to compare with")
        try:
            topn = operator.index(topn)
        except TypeError:
            raise TypeError(f"topn must be a whole number, got {topn!r}") from None
        if topn < 1:
            raise ValueError(f"topn must be at least 1, got {topn}")
        normed = self.get_normed_vectors()
        query, given = np.zeros(self.vectors.shape[1]), set()
        for sign, queries in ((1, positive), (-1, negative)):
            for q in queries:
                query += sign * (normed[self._index(q)] if isinstance(q, str) else q)
                given |= {self._index(q)} if isinstance(q, str) else set()
        scores = normed @ unit(query).astype(normed.dtype)
        scores[list(given)] = -np.inf
        best = np.argsort(-scores, kind="stable")[: min(topn, len(self) - len(given))]
        return [(self.index_to_key[i], float(scores[i])) for i in best]

    def _queries(self, given: Query | Iterable[Query]) -> list[Query]:
        """A word, a vector (D,) or several of them, as a list of words that are known and vectors that fit."""
        alone = isinstance(given, str) or (isinstance(given, np.ndarray) and given.ndim == 1)
        queries = [given] if alone else list(given)
        for q in queries:
            if isinstance(q, str):
                self._index(q)
            elif not isinstance(q, np.ndarray):
                raise TypeError(f"positive and negative hold words and vectors, got {type(q).__name__} {str(q)[:40]}")
            elif q.shape != self.vectors.shape[1:] or q.dtype.kind not in "fiu" or not np.isfinite(q).all():
                wanted = f"{self.vectors.shape[1]} finite numbers"
                raise ValueError(f"a vector in positive or negative must be {wanted}, got shape {q.shape}: {q}")
        return queries

    def evaluate_word_pairs(self, pairs: str | Path | Iterable[Pair], delimiter: str = "\t"):
        """Agreement with human judgements: (Pearson result, Spearman result, per cent of pairs left out).

        `pairs`: triples (word, word, score), or a file of them as gensim takes, in which blank lines, # comments
        and a header are passed over. Case is ignored, and of a word's spellings the most frequent counts. A pair
        with an unknown word is left out, so quote the third number with the others.
        """
        pairs = read_pairs(pairs, delimiter) if isinstance(pairs, str | Path) else list(pairs)
        for pair in pairs:
            if not _are_words(pair[:2], 2) or len(pair) != 3 or not _is_number(pair[2]):
                raise ValueError(f"pairs must be triples of a word, a word and a finite score, got {pair!r}")
        spelling = self._spellings()
        known = [(a.lower(), b.lower(), float(score)) for a, b, score in pairs]
        known = [(spelling[a], spelling[b], score) for a, b, score in known if a in spelling and b in spelling]
        if len(known) < 2:
            raise ValueError(f"pairs must have at least 2 with both words in the vocabulary, got {len(known)}")
        ours = [self.similarity(a, b) for a, b, _ in known]
        human = [score for _, _, score in known]
        left_out = 100 * (1 - len(known) / len(pairs))
        return stats.pearsonr(human, ours), stats.spearmanr(human, ours), left_out

    def _spellings(self) -> dict[str, str]:
        """Each word in lower case, with the first (the most frequent) of its spellings in the vocabulary."""
        return {key.lower(): key for key in reversed(self.index_to_key)}

    def evaluate_word_analogies(self, analogies: str | Path | Mapping[str, Iterable[Question]]):
        """Share of questions "a is to b as c is to ?" whose nearest word to b - a + c is the given d.

        `analogies`: lists of four words by section, or a file of them as gensim takes. Case is ignored as in
        `evaluate_word_pairs`. Returns (accuracy, {section: (right, asked)}). Questions with an unknown word are
        not asked.
        """
        sections = read_analogies(analogies) if isinstance(analogies, str | Path) else analogies
        if not isinstance(sections, Mapping):
            raise TypeError(f"analogies must map sections to questions, or be a file, got {type(sections).__name__}")
        number = {word: self.key_to_index[key] for word, key in self._spellings().items()}
        results = {name: self._answer(questions, number) for name, questions in sections.items()}
        right, asked = (sum(result[i] for result in results.values()) for i in (0, 1))
        if asked == 0:
            raise ValueError("analogies has no question with all four words in the vocabulary")
        return right / asked, results

    def _answer(self, questions: Iterable[Question], number: dict[str, int]) -> tuple[int, int]:
        """How many questions are answered rightly, and how many can be asked."""
        known = []
        for question in questions:
            if not _are_words(question, 4):
                raise ValueError(f"a question of analogies must be four words, got {question!r}")
            words = [word.lower() for word in question]
            known += [[number[word] for word in words]] if all(word in number for word in words) else []
        if not known:
            return 0, 0
        a, b, c, d = np.array(known).T
        normed = self.get_normed_vectors()
        scores = (normed[b] - normed[a] + normed[c]) @ normed.T  # (questions, V)
        for given in (a, b, c):
            scores[np.arange(len(d)), given] = -np.inf
        return int((scores.argmax(axis=1) == d).sum()), len(d)


def read_pairs(path: str | Path, delimiter: str = "\t") -> list[Pair]:
    """The triples (word, word, score) of a file, one a line; blank lines, # comments and a header are no triples.

    Raises ValueError, with the line's number, for any other line that is none.
    """
    pairs: list[Pair] = []
    first = True
    for number, line in _lines(path):
        parts = [part.strip() for part in line.split(delimiter)]
        if len(parts) == 3 and _is_number(parts[2]):
            pairs.append((parts[0], parts[1], float(parts[2])))
        elif not first:  # the first line may name the columns
            wanted = f"a word, a word and a score, parted by {delimiter!r}"
            raise ValueError(f"line {number} of {path} must be {wanted}, got {line!r}")
        first = False
    return pairs


def read_analogies(path: str | Path) -> dict[str, list[Question]]:
    """The questions of a file by section: four words a line, and a line ": name" that begins a section."""
    sections: dict[str, list[Question]] = {}
    for number, line in _lines(path):
        words = line.split()
        if line.startswith(":"):
            current = sections.setdefault(line[1:].strip(), [])
        elif len(words) != 4 or not sections:
            raise ValueError(f"line {number} of {path} must be four words, below a line ': section', got {line!r}")
        else:
            current.append(tuple(words))
    return sections


def _lines(path: str | Path) -> list[tuple[int, str]]:
    """The numbered lines of a text file that are neither blank nor a # comment."""
    text = Path(path).read_text(encoding="utf-8-sig")  # a byte order mark is no part of the first word
    lines = ((number, line.strip()) for number, line in enumerate(text.splitlines(), start=1))
    return [(number, line) for number, line in lines if line and not line.startswith("#")]


def _is_number(value: object) -> bool:
    """Whether it is, or is written as, a finite number."""
    try:
        return math.isfinite(float(value))
    except (TypeError, ValueError):
        return False


def _are_words(words: object, count: int) -> bool:
    """Whether it is a sequence (no single string) of so many words."""
    return not isinstance(words, str) and len(words) == count and all(isinstance(word, str) for word in words)
