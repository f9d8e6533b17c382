"""Byte-pair encoding from scratch: the same merges and ids as the ``tokenizers`` library, in Python to read.

Gage (1994) compressed data by replacing the most frequent pair of bytes with a new byte. Sennrich, Haddow &
Birch (2016) cut words into subwords with the same loop; GPT-2 (Radford et al. 2019) ran it over UTF-8 bytes,
so that no text is unknown.
"""

from __future__ import annotations

import heapq
import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import regex

from llmbook.files import write_whole

Pair = tuple[int, int]

UNKNOWN = "<unk>"
WORD_START = "▁"  # U+2581, SentencePiece's sign for "a space stood here"

# GPT-2's split: contractions, then runs of letters, of digits, of other signs, each with the space before it.
GPT2_PATTERN = regex.compile(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")


def bytes_to_unicode() -> dict[int, str]:
    """GPT-2's map from each of the 256 bytes to a visible character: itself, or one from U+0100 on."""
    visible = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [byte for byte in range(256) if byte not in visible]  # controls, spaces, the soft hyphen
    return {byte: chr(byte) for byte in visible} | {byte: chr(256 + n) for n, byte in enumerate(hidden)}


BYTE_TO_CHAR = bytes_to_unicode()
CHAR_TO_BYTE = {char: byte for byte, char in BYTE_TO_CHAR.items()}


def split_words(text: str, *, byte_level: bool = True) -> list[str]:
    """The pieces that merges never cross.

    Byte level: GPT-2's pattern, each byte of a piece shown as its visible character ("Ġ" is a space); nothing
    is lost. Otherwise: the words between white space, each marked with "▁"; how wide the space was is lost.
    """
    if byte_level:
        return ["".join(BYTE_TO_CHAR[byte] for byte in piece.encode("utf-8")) for piece in GPT2_PATTERN.findall(text)]
    words = regex.findall(r"\P{White_Space}+", text)
    marked = "".join(word if word.startswith(WORD_START) else WORD_START + word for word in words)
    return regex.findall(f"{WORD_START}[^{WORD_START}]*", marked)


def merge_pair(symbols: Sequence[Any], pair: tuple[Any, Any], new: Any) -> list[Any]:
    """Replace each occurrence of `pair` by `new`, from the left, without overlap.

    >>> merge_pair("aaab", ("a", "a"), "aa")
    ['aa', 'a', 'b']
    """
    merged, i = [], 0
    while i < len(symbols):
        found = symbols[i] == pair[0] and i + 1 < len(symbols) and symbols[i + 1] == pair[1]
        merged.append(new if found else symbols[i])
        i += 2 if found else 1
    return merged


def learn_merges(words: Mapping[str, int], tokens: list[str], size: int, banned: Collection[str] = ()) -> list[Pair]:
    """Join the most frequent pair of neighbours until there are `size` tokens; `tokens` grows in place.

    `words`: each word's count, so that a word type is looked at once however often it occurs. Ties go to the
    pair with the smallest ids, as in the ``tokenizers`` library. Pairs that would spell a `banned` token stay
    apart. Only words that hold the merged pair are counted again: a merge costs what it changes, no more.
    """
    ids = {token: i for i, token in enumerate(tokens)}
    symbols, weights = [[ids[char] for char in word] for word in words], list(words.values())
    counts: Counter[Pair] = Counter()
    where: defaultdict[Pair, set[int]] = defaultdict(set)  # in which words a pair stands, or once stood
    for i, word in enumerate(symbols):
        for pair in pairwise(word):
            counts[pair] += weights[i]
            where[pair].add(i)
    heap = [(-count, pair) for pair, count in counts.items()]
    heapq.heapify(heap)
    merges: list[Pair] = []
    while len(tokens) < size and heap:
        count, pair = heapq.heappop(heap)
        if -count != counts[pair]:  # out of date: a pair's count only falls once it is in the heap
            if counts[pair] > 0:
                heapq.heappush(heap, (-counts[pair], pair))
            continue
        joined = tokens[pair[0]] + tokens[pair[1]]
        if joined in banned:
            continue
        merges.append(pair)
        tokens.append(joined)
        born = set()
        for i in where.pop(pair):
            before, symbols[i] = symbols[i], merge_pair(symbols[i], pair, len(tokens) - 1)
            for old in pairwise(before):
                counts[old] -= weights[i]
            for fresh in pairwise(symbols[i]):
                counts[fresh] += weights[i]
                if len(tokens) - 1 in fresh:
                    where[fresh].add(i)
                    born.add(fresh)
        for fresh in born:
            heapq.heappush(heap, (-counts[fresh], fresh))
    return merges


class BPE:
    """A byte-pair encoder: ``encode`` text to ids, ``decode`` ids to text.

    `tokens`: the token of each id. `merges`: pairs of tokens, in the order learnt. `specials`: those tokens
    that stand for no text, such as ``<eos>``: ``encode`` never yields them; ask ``token_to_id`` for their ids.
    `byte_level`: over GPT-2's bytes (any text can be encoded, and comes back exactly) or over characters of
    words between white space (an unseen character is ``<unk>`` if that is a special, otherwise an error).
    """

    def __init__(
        self,
        tokens: Sequence[str],
        merges: Iterable[tuple[str, str]],
        specials: Sequence[str] = (),
        *,
        byte_level: bool = True,
    ) -> None:
        self.tokens, self.specials, self.byte_level = list(tokens), tuple(specials), byte_level
        self.merges = [(left, right) for left, right in merges]
        self._ids = {token: i for i, token in enumerate(self.tokens)}
        if len(self._ids) != len(self.tokens):
            twice = next(token for token, n in Counter(self.tokens).items() if n > 1)
            raise ValueError(f"tokens must differ from one another, got {twice!r} twice")
        needed = {*self.specials, *(part for a, b in self.merges for part in (a, b, a + b))}
        if byte_level:
            needed |= CHAR_TO_BYTE.keys()
        if missing := sorted(needed - self._ids.keys()):
            raise ValueError(f"tokens must hold every special, byte and merge, got none for {missing[:3]}")
        if special := next((a + b for a, b in self.merges if a + b in self.specials), None):
            raise ValueError(f"merges must not spell a special token, got one that yields {special!r}")
        self._ranks = {(self._ids[a], self._ids[b]): rank for rank, (a, b) in enumerate(self.merges)}
        self._joined = {(self._ids[a], self._ids[b]): self._ids[a + b] for a, b in self.merges}
        self._cache: dict[str, list[int]] = {}  # a text repeats its words

    @classmethod
    def train(
        cls, texts: Iterable[str], vocab_size: int, specials: Sequence[str] = (), *, byte_level: bool = True
    ) -> BPE:
        """Learn the merges from texts. Ids: the specials, the alphabet in code-point order, then the merges.

        Stops early when no two neighbours are left to join. ValueError if `vocab_size` can't hold the start.
        """
        if isinstance(texts, str):
            raise TypeError(f"texts must be an iterable of strings, got the string {texts[:20]!r}: put it in a list")
        words = Counter(word for text in texts for word in split_words(text, byte_level=byte_level))
        if not words:
            raise ValueError("texts must hold at least one word, got none")
        alphabet = sorted(CHAR_TO_BYTE if byte_level else set().union(*words))
        if clash := set(specials) & set(alphabet):
            raise ValueError(f"specials must not be single characters of the text, got {sorted(clash)}")
        tokens = [*specials, *alphabet]
        if vocab_size < len(tokens):
            raise ValueError(
                f"vocab_size must be at least {len(tokens)} ({len(specials)} specials and {len(alphabet)} "
                f"{'bytes' if byte_level else 'characters'}), got {vocab_size}"
            )
        pairs = learn_merges(words, tokens, vocab_size, frozenset(specials))
        return cls(tokens, [(tokens[a], tokens[b]) for a, b in pairs], specials, byte_level=byte_level)

    def truncated(self, vocab_size: int) -> BPE:
        """The encoder as it was when it had `vocab_size` tokens: the same start, fewer merges."""
        start = len(self.tokens) - len(self.merges)
        if not start <= vocab_size <= len(self.tokens):
            raise ValueError(f"vocab_size must be from {start} to {len(self.tokens)}, got {vocab_size}")
        merges = self.merges[: vocab_size - start]
        return BPE(self.tokens[:vocab_size], merges, self.specials, byte_level=self.byte_level)

    def __len__(self) -> int:
        return len(self.tokens)

    def __repr__(self) -> str:
        kind = "byte-level" if self.byte_level else "character-level"
        return f"BPE({len(self)} tokens, {len(self.merges)} merges, {kind}, specials={self.specials})"

    def token_to_id(self, token: str) -> int:
        """The id of a token, special or not. ValueError if there is none."""
        if token not in self._ids:
            raise ValueError(f"token {token!r} is not in the vocabulary")
        return self._ids[token]

    def encode(self, text: str) -> list[int]:
        """Ids of plain text: within each word, the earliest learnt merge first, until none applies."""
        if not isinstance(text, str):
            raise TypeError(f"text must be a string, got {type(text).__name__}")
        return [i for word in split_words(text, byte_level=self.byte_level) for i in self._encode_word(word)]

    def tokenize(self, text: str) -> list[str]:
        """As :meth:`encode`, but the tokens (bytes as visible characters) instead of their ids."""
        return [self.tokens[i] for i in self.encode(text)]

    def _encode_word(self, word: str) -> list[int]:
        if word in self._cache:
            return self._cache[word]
        ids = [self._char_id(char) for char in word]
        never = len(self._ranks)
        while len(ids) > 1:
            pair = min(pairwise(ids), key=lambda pair: self._ranks.get(pair, never))
            if pair not in self._ranks:
                break
            ids = merge_pair(ids, pair, self._joined[pair])
        self._cache[word] = ids
        return ids

    def _char_id(self, char: str) -> int:
        found = self._ids.get(char, self._ids.get(UNKNOWN))
        if found is None:
            raise ValueError(f"text must not hold {char!r}: it is not in the alphabet, and there is no {UNKNOWN}")
        return found

    def decode(self, ids: Iterable[int], skip_special_tokens: bool = True) -> str:
        """The text of the ids; at byte level, bytes that are no valid UTF-8 become U+FFFD."""
        tokens = []
        for i in map(int, ids):
            if not 0 <= i < len(self.tokens):
                raise ValueError(f"ids must be from 0 to {len(self.tokens) - 1}, got {i}")
            if not (skip_special_tokens and self.tokens[i] in self.specials):
                tokens.append(self.tokens[i])
        if not self.byte_level:
            return "".join(tokens).replace(WORD_START, " ").removeprefix(" ")
        return b"".join(self._bytes(token) for token in tokens).decode("utf-8", errors="replace")

    def _bytes(self, token: str) -> bytes:
        return token.encode() if token in self.specials else bytes(CHAR_TO_BYTE[char] for char in token)

    def save(self, path: str | Path) -> None:
        """Write a ``tokenizer.json`` that ``tokenizers.Tokenizer.from_file`` reads; whole or not at all."""
        write_whole(path, json.dumps(self._to_json(), ensure_ascii=False))

    def _to_json(self) -> dict[str, Any]:
        flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
        metaspace = {"type": "Metaspace", "replacement": WORD_START, "prepend_scheme": "always", "split": True}
        byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
        words = {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, metaspace]}
        return {
            "version": "1.0",
            "added_tokens": [{"id": self._ids[token], "content": token} | flags for token in self.specials],
            "pre_tokenizer": byte_level if self.byte_level else words,
            "decoder": byte_level if self.byte_level else metaspace,
            "model": {
                "type": "BPE",
                "unk_token": UNKNOWN if UNKNOWN in self.specials else None,
                "vocab": self._ids,
                "merges": self.merges,
            },
        }

    @classmethod
    def load(cls, path: str | Path) -> BPE:
        """Read a ``tokenizer.json`` of this class, or of GPT-2's kind. ValueError if it holds anything else."""
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            model, splitter = content["model"], content["pre_tokenizer"]["type"]
            vocab, merges = model["vocab"], model["merges"]
            specials = [token["content"] for token in content["added_tokens"]]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"path must be a BPE tokenizer.json, got {path}: {error!r}") from error
        if model.get("type", "BPE") != "BPE" or splitter not in ("ByteLevel", "Sequence"):
            raise ValueError(f"path must hold a BPE over bytes or words, got {model.get('type')} over {splitter}")
        tokens = sorted(vocab, key=vocab.get)
        if [vocab[token] for token in tokens] != list(range(len(tokens))):
            raise ValueError(f"path must number its tokens from 0 without gaps, got {path}")
        pairs = [tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge) for merge in merges]
        return cls(tokens, pairs, specials, byte_level=splitter == "ByteLevel")
