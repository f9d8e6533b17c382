"""Byte-pair encoding from scratch: the same merges and ids as the ``tokenizers`` library, in Python to read.

Gage (1994) compressed data by replacing the most frequent pair of bytes with a new byte. Sennrich, Haddow &
Birch (2016) cut words into subwords with the same loop; GPT-2 (Radford et al. 2019) ran it over UTF-8 bytes,
so that no text is unknown.
"""

from __future__ import annotations

import heapq
import json
import operator
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import regex

from llmbook.corpora import read_text
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
_BYTE_SIGNS = frozenset(CHAR_TO_BYTE)


def checked_text(name: str, text: str) -> str:
    """The text itself. TypeError if it is no string, ValueError if it holds half of a surrogate pair."""
    if not isinstance(text, str):
        raise TypeError(f"{name} must be a string, got {type(text).__name__}")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        found = text[error.start]
        raise ValueError(
            f"{name} must be Unicode text, got a lone surrogate {found!r} at {error.start}: it is no character "
            "and has no bytes"
        ) from error
    return text


def split_words(text: str, *, byte_level: bool = True, split_digits: bool = False) -> list[str]:
    """The pieces that merges never cross.

    Byte level: GPT-2's pattern, each byte of a piece shown as its visible character ("Ġ" is a space); nothing
    is lost. `split_digits`: each digit is first cut out, as a piece of its own. Otherwise: the words between
    white space, each marked with "▁"; how wide the space was is lost.
    """
    checked_text("text", text)
    if byte_level:
        parts = regex.findall(r"\p{N}|\P{N}+", text) if split_digits else [text]
        pieces = (piece.encode("utf-8") for part in parts for piece in GPT2_PATTERN.findall(part))
        return ["".join(BYTE_TO_CHAR[byte] for byte in piece) for piece in pieces]
    words = regex.findall(r"\P{White_Space}+", text)
    marked = "".join(word if word.startswith(WORD_START) else WORD_START + word for word in words)
    return regex.findall(f"{WORD_START}[^{WORD_START}]*", marked)


def as_id(value: Any) -> int:
    """An integer id from a Python, NumPy or torch integer. TypeError for anything else (1.5 is no id)."""
    try:
        return operator.index(value)
    except TypeError as error:
        raise TypeError(f"ids must be integers, got {value!r}") from error


def check_specials(specials: Sequence[str]) -> None:
    """A string would be taken for a list of one-letter tokens."""
    if isinstance(specials, str):
        raise TypeError(f"specials must be a list of strings, got the string {specials!r}: put it in a list")
    if strange := [token for token in specials if not isinstance(token, str) or not token]:
        raise TypeError(f"specials must be non-empty strings, got {strange[0]!r}")


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
    words between white space (an unseen character is ``<unk>`` if that is a token, otherwise an error).
    `split_digits`: at byte level, each digit is a piece of its own, as in Llama and SmolLM2.

    A byte-level file of somebody else's may lack bytes: a text that holds one of these is an error.
    """

    def __init__(
        self,
        tokens: Sequence[str],
        merges: Iterable[tuple[str, str]],
        specials: Sequence[str] = (),
        *,
        byte_level: bool = True,
        split_digits: bool = False,
    ) -> None:
        check_specials(specials)
        if split_digits and not byte_level:
            raise ValueError("split_digits goes with byte_level=True, got byte_level=False")
        self.tokens, self.specials = list(tokens), tuple(specials)
        self.byte_level, self.split_digits = byte_level, split_digits
        self.merges = [(left, right) for left, right in merges]
        self._ids = {token: i for i, token in enumerate(self.tokens)}
        if len(self._ids) != len(self.tokens):
            twice = next(token for token, n in Counter(self.tokens).items() if n > 1)
            raise ValueError(f"tokens must differ from one another, got {twice!r} twice")
        needed = {*self.specials, *(part for a, b in self.merges for part in (a, b, a + b))}
        if missing := sorted(needed - self._ids.keys()):
            raise ValueError(f"tokens must hold every special and every merge with its parts, got no {missing[:3]}")
        strange = next((t for t in self.tokens if byte_level and t not in self.specials and set(t) - _BYTE_SIGNS), None)
        if strange is not None:
            raise ValueError(f"tokens must be specials or spelt in GPT-2's signs for bytes, got {strange!r}")
        if special := next((a + b for a, b in self.merges if a + b in self.specials), None):
            raise ValueError(f"merges must not spell a special token, got one that yields {special!r}")
        self._ranks = {(self._ids[a], self._ids[b]): rank for rank, (a, b) in enumerate(self.merges)}
        self._joined = {(self._ids[a], self._ids[b]): self._ids[a + b] for a, b in self.merges}
        self._cache: dict[str, list[int]] = {}  # a text repeats its words

    @classmethod
    def train(
        cls,
        texts: Iterable[str],
        vocab_size: int,
        specials: Sequence[str] = (),
        *,
        byte_level: bool = True,
        split_digits: bool = False,
    ) -> BPE:
        """Learn the merges from texts. Ids: the specials, the alphabet in code-point order, then the merges.

        Stops early when no two neighbours are left to join. ValueError if `vocab_size` can't hold the start.
        """
        if isinstance(texts, str):
            raise TypeError(f"texts must be an iterable of strings, got the string {texts[:20]!r}: put it in a list")
        check_specials(specials)
        rule = {"byte_level": byte_level, "split_digits": split_digits}
        words = Counter(word for text in texts for word in split_words(text, **rule))
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
        return cls(tokens, [(tokens[a], tokens[b]) for a, b in pairs], specials, **rule)

    def truncated(self, vocab_size: int) -> BPE:
        """The encoder as it was when it had `vocab_size` tokens: the same start, fewer merges."""
        start = len(self.tokens) - len(self.merges)
        if not start <= vocab_size <= len(self.tokens):
            raise ValueError(f"vocab_size must be from {start} to {len(self.tokens)}, got {vocab_size}")
        merges = self.merges[: vocab_size - start]
        return BPE(self.tokens[:vocab_size], merges, self.specials, **self._rule)

    @property
    def _rule(self) -> dict[str, bool]:
        """How a text is cut before merges: the keywords of :func:`split_words`."""
        return {"byte_level": self.byte_level, "split_digits": self.split_digits}

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
        return [i for word in split_words(text, **self._rule) for i in self._encode_word(word)]

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
            what = f"the byte 0x{CHAR_TO_BYTE[char]:02X}" if self.byte_level else repr(char)
            raise ValueError(f"text must not hold {what}: it is not in the alphabet, and there is no {UNKNOWN}")
        return found

    def decode(self, ids: Iterable[int], skip_special_tokens: bool = True) -> str:
        """The text of the ids; at byte level, bytes that are no valid UTF-8 become U+FFFD."""
        tokens = []
        for i in map(as_id, ids):
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
        bytewise = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
        first = {"type": "Digits", "individual_digits": True} if self.split_digits else {"type": "WhitespaceSplit"}
        last = bytewise if self.byte_level else metaspace
        steps = {"type": "Sequence", "pretokenizers": [first, last]}
        return {
            "version": "1.0",
            "added_tokens": [{"id": self._ids[token], "content": token} | flags for token in self.specials],
            "pre_tokenizer": bytewise if self.byte_level and not self.split_digits else steps,
            "decoder": last,
            "model": {
                "type": "BPE",
                "unk_token": UNKNOWN if UNKNOWN in self._ids else None,
                "vocab": self._ids,
                "merges": self.merges,
            },
        }

    @classmethod
    def load(cls, path: str | Path) -> BPE:
        """Read a ``tokenizer.json`` that would give the same ids here as in the ``tokenizers`` library.

        Such are this class's own, GPT-2's, and SmolLM2's. A file with any setting that this class does not
        follow (a normaliser, dropout, a template, …) is a ValueError that names the setting. Two differences
        remain, both stated above: specials in a text are text, and an unknown character is never dropped.
        """
        try:
            content = json.loads(read_text(path))
            rule = _rule_of(content)
            tokens, specials = _tokens_of(content)
            merges = [tuple(m.split(" ")) if isinstance(m, str) else tuple(m) for m in content["model"]["merges"]]
            return cls(tokens, merges, specials, **rule)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"path must be a tokenizer.json that BPE follows, got {path}: {error}") from error


# --- reading other people's tokenizer.json -----------------------------------------------------------------

_OFF = (None, "", False, 0)
# What a file may say, and still mean what this class does. A key that is not listed must be absent.
_TOP = {"version": None, "truncation": _OFF, "padding": _OFF, "normalizer": _OFF, "added_tokens": None,
        "pre_tokenizer": None, "post_processor": None, "decoder": None, "model": None}  # fmt: skip
_MODEL = {"type": ("BPE",), "dropout": _OFF, "unk_token": None, "continuing_subword_prefix": _OFF,
          "end_of_word_suffix": _OFF, "fuse_unk": _OFF, "byte_fallback": _OFF, "ignore_merges": _OFF,
          "vocab": None, "merges": None}  # fmt: skip
_BYTEWISE = {"type": ("ByteLevel",), "add_prefix_space": (False,), "trim_offsets": None, "use_regex": (True,)}
_DIGITS = {"type": ("Digits",), "individual_digits": (True,)}
_SPACES = {"type": ("WhitespaceSplit",)}
_METASPACE = {"type": ("Metaspace",), "replacement": (WORD_START,), "prepend_scheme": ("always",), "split": (True,)}


def _follow(place: str, found: Any, allowed: Mapping[str, tuple | None], optional: Collection[str] = ()) -> None:
    """ValueError, with the setting's name, unless `found` holds the `allowed` keys and values (None: any)."""
    if not isinstance(found, dict):
        raise ValueError(f"{place} must be a table of settings, got {found!r}")
    for key, value in found.items():
        if key not in allowed:
            raise ValueError(f"{place} has the setting {key!r}, which is not followed here")
        if allowed[key] is not None and value not in allowed[key]:
            wanted = "none" if allowed[key] is _OFF else " or ".join(map(repr, allowed[key]))
            raise ValueError(f"{place} has {key} = {_short(value)}, wanted {wanted}")
    if missing := sorted(allowed.keys() - found.keys() - set(optional)):
        raise ValueError(f"{place} has no {missing[0]!r}")


def _short(value: Any) -> str:
    """A value for a message: the type of a table, otherwise itself."""
    return repr(value.get("type", "a table")) if isinstance(value, dict) else repr(value)


def _rule_of(content: Any) -> dict[str, bool]:
    """The keywords of :func:`split_words` that a tokenizer.json stands for. ValueError for what is not followed."""
    optional = ("version", "truncation", "padding", "normalizer", "added_tokens", "post_processor")
    _follow("the file", content, _TOP, optional)
    _follow("model", content["model"], _MODEL, _MODEL.keys() - {"type", "vocab", "merges"})
    if content.get("post_processor") is not None:  # ByteLevel's only trims offsets
        _follow("post_processor", content["post_processor"], _BYTEWISE | {"add_prefix_space": None}, ("use_regex",))
    splitter = content["pre_tokenizer"] or {"type": "none"}
    steps = splitter.get("pretokenizers") if splitter.get("type") == "Sequence" else [splitter]
    kinds = [step.get("type") for step in steps]
    ways = {("ByteLevel",): (_BYTEWISE,), ("Digits", "ByteLevel"): (_DIGITS, _BYTEWISE),
            ("WhitespaceSplit", "Metaspace"): (_SPACES, _METASPACE)}  # fmt: skip
    if tuple(kinds) not in ways:
        raise ValueError(f"pre_tokenizer is {' + '.join(map(str, kinds))}, wanted one of "
                         f"{', '.join(' + '.join(way) for way in ways)}")  # fmt: skip
    last = ways[tuple(kinds)][-1]
    for step, allowed in zip(steps, ways[tuple(kinds)], strict=True):
        _follow("pre_tokenizer", step, allowed, ("use_regex", "prepend_scheme", "split"))
    decoder = _BYTEWISE | {"add_prefix_space": None, "use_regex": None} if last is _BYTEWISE else last
    _follow("decoder", content["decoder"], decoder, ("use_regex", "prepend_scheme", "split"))
    return {"byte_level": last is _BYTEWISE, "split_digits": kinds[0] == "Digits"}


def _tokens_of(content: dict[str, Any]) -> tuple[list[str], list[str]]:
    """All tokens in the order of their ids, and the special ones; ValueError where the lists disagree."""
    model, added = content["model"], content.get("added_tokens") or []
    vocab = dict(model["vocab"])
    for token in added:
        if not token.get("special"):
            raise ValueError(f"added_tokens has {token['content']!r}, which is not special: it is not followed here")
        if vocab.setdefault(token["content"], token["id"]) != token["id"]:
            raise ValueError(f"added_tokens gives {token['content']!r} the id {token['id']}, the vocab another")
    unknown = model.get("unk_token")
    if not vocab.keys() >= _BYTE_SIGNS and unknown != (UNKNOWN if UNKNOWN in vocab else None):
        raise ValueError(f"model has unk_token = {unknown!r}, wanted {UNKNOWN!r} if that is in the vocab, else none")
    tokens = sorted(vocab, key=vocab.get)
    if [vocab[token] for token in tokens] != list(range(len(tokens))):
        raise ValueError("vocab must number its tokens from 0 without gaps")
    return tokens, [token["content"] for token in added]
