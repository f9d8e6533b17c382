"""From text to numbers and back: vocabularies of words, and byte-pair encoding (from :mod:`llmbook.bpe`)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from llmbook.bpe import BPE, UNKNOWN, as_id, check_specials, checked_text
from llmbook.corpora import read_text
from llmbook.files import write_whole

__all__ = ["BPE", "UNKNOWN", "Vocabulary"]


class Vocabulary:
    """A two-way table of tokens and integer ids.

    Ids go first to `specials`, then to the tokens by falling count, ties in alphabetical order, so that
    the same text always gives the same ids. Unknown tokens are encoded as ``<unk>`` if it is among the
    specials; otherwise encoding them is an error.

    `tokens_or_counts`: an iterable of tokens, or a mapping from token to count.
    `min_count`: rarer tokens are left out. `max_size`: the most entries kept, specials included.
    """

    def __init__(
        self,
        tokens_or_counts: Iterable[str] | Mapping[str, int],
        min_count: int = 1,
        max_size: int | None = None,
        specials: Sequence[str] = (UNKNOWN,),
    ) -> None:
        check_specials(specials)
        if min_count < 1:
            raise ValueError(f"min_count must be at least 1, got {min_count}")
        if len(set(specials)) != len(specials):
            raise ValueError(f"specials must differ from one another, got {tuple(specials)}")
        if max_size is not None and max_size < max(1, len(specials)):
            raise ValueError(f"max_size must have room for the {len(specials)} specials, got {max_size}")
        counts = _count(tokens_or_counts)
        kept = [token for token, count in counts.items() if count >= min_count and token not in set(specials)]
        kept.sort(key=lambda token: (-counts[token], token))
        self.specials = tuple(specials)
        self.tokens = [*specials, *kept][:max_size]
        self.counts = [counts.get(token, 0) for token in self.tokens]
        self._ids = {token: i for i, token in enumerate(self.tokens)}

    def __len__(self) -> int:
        return len(self.tokens)

    def __contains__(self, token: object) -> bool:
        return token in self._ids

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Vocabulary):
            return NotImplemented
        return (self.tokens, self.counts, self.specials) == (other.tokens, other.counts, other.specials)

    __hash__ = None

    def __repr__(self) -> str:
        return f"Vocabulary({len(self)} tokens, specials={self.specials})"

    def token_to_id(self, token: str) -> int:
        """The id of a token; that of ``<unk>`` for an unknown one. ValueError if there is no ``<unk>``."""
        if not isinstance(token, str):
            raise TypeError(f"tokens must be strings, got {token!r}")
        found = self._ids.get(token, self._ids.get(UNKNOWN))
        if found is None:
            raise ValueError(f"token {token!r} is not in the vocabulary, which has no {UNKNOWN}")
        return found

    def id_to_token(self, index: int) -> str:
        """The token of an id. ValueError outside 0 … len − 1 (a negative id does not wrap around)."""
        index = as_id(index)
        if not 0 <= index < len(self.tokens):
            raise ValueError(f"id must be from 0 to {len(self.tokens) - 1}, got {index}")
        return self.tokens[index]

    def encode(self, tokens: Sequence[str]) -> list[int]:
        """Ids of the tokens, unknown ones as ``<unk>``. TypeError for what is no token at all, such as None."""
        if isinstance(tokens, str):
            raise TypeError(f"tokens must be a list of strings, got the string {tokens[:20]!r}: split it first")
        tokens = list(tokens)
        strange = next((token for token in tokens if not isinstance(token, str)), self)
        if strange is not self:
            raise TypeError(f"tokens must be a flat list of strings, got {strange!r} among them")
        ids, unknown = self._ids, self._ids.get(UNKNOWN)
        if unknown is None:
            return [self.token_to_id(token) for token in tokens]  # an unknown token is an error
        return [ids.get(token, unknown) for token in tokens]

    def decode(self, ids: Iterable[int]) -> list[str]:
        """Tokens of the ids: the inverse of :meth:`encode` for known tokens."""
        return [self.id_to_token(i) for i in ids]

    def save(self, path: str | Path) -> None:
        """Write as JSON: whole or not at all (to a temporary name, then renamed)."""
        content = {"specials": self.specials, "tokens": self.tokens, "counts": self.counts}
        write_whole(path, json.dumps(content, ensure_ascii=False))

    @classmethod
    def load(cls, path: str | Path) -> Vocabulary:
        """Read what :meth:`save` wrote. ValueError if the file holds something else."""
        try:
            content = json.loads(read_text(path))
            specials, tokens, counts = content["specials"], content["tokens"], content["counts"]
            sound = len(tokens) == len(counts) == len(set(tokens)) and tokens[: len(specials)] == specials
            sound = sound and all(isinstance(t, str) for t in tokens) and all(isinstance(n, int) for n in counts)
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"path must be a vocabulary that save() wrote, got {path}: {error!r}") from error
        if not sound:
            raise ValueError(f"path must be a vocabulary that save() wrote, got {path}: its lists disagree")
        vocabulary = cls({}, specials=specials)
        vocabulary.tokens, vocabulary.counts = list(tokens), list(counts)
        vocabulary._ids = {token: i for i, token in enumerate(tokens)}
        return vocabulary


def _count(tokens_or_counts: Iterable[str] | Mapping[str, int]) -> Counter[str]:
    if isinstance(tokens_or_counts, str):
        raise TypeError("tokens_or_counts must be a list of tokens or a mapping, got a string: split it first")
    if isinstance(tokens_or_counts, Mapping):
        wrong = next((item for item in tokens_or_counts.items() if item[1] < 0), None)
        if wrong:
            raise ValueError(f"tokens_or_counts must hold counts of at least 0, got {wrong[0]!r}: {wrong[1]}")
        counts = Counter(dict(tokens_or_counts))
    else:
        try:
            counts = Counter(tokens_or_counts)
        except TypeError as error:  # a list of sentences, most likely
            raise TypeError("tokens_or_counts must be a flat list of tokens, got unhashable items") from error
    if strange := [token for token in counts if not isinstance(token, str)]:
        raise TypeError(f"tokens_or_counts must hold strings, got {strange[0]!r}")
    checked_text("tokens_or_counts", "".join(counts))
    return counts
