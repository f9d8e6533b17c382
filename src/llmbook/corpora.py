"""Real text, checked byte for byte: what ships with gensim, NLTK's corpora, and optional hub data sets.

Three tiers:

- *always there*: :func:`wikipedia`, :func:`lee`, :func:`polarity`, :func:`wordsim353`, :func:`simlex999`,
  :func:`analogies` read files that the pinned gensim wheel carries;
- *reality checks*: :func:`nltk_corpus` reads NLTK's own packages, which ``make data`` downloads;
- *hub*: :func:`hub` goes through ``datasets.load_dataset`` (a local folder, or the hub if you allow it).

The SHA-256 of every file of the first two tiers is checked, so that a number in the book can only have come
from the very bytes it claims to come from.
"""

from __future__ import annotations

import bz2
import codecs
import functools
import hashlib
import os
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")

GENSIM_FILES = {
    "enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2": (
        "a53f4648dec40467ebdcbc7a1307eddb51fe6e28e9309f6ebde81ba0d04bea2d"
    ),
    "lee_background.cor": "5d78d6dafd953bbf65797bef09a9ffb9ec430583381be705f8fd460000f370fb",
    "pang_lee_polarity.cor": "662c1b7c3bd0612eaaaf3f0c694cbd3897e30c0d87d2940b46c9fd0d15ed70c1",
    "questions-words.txt": "8c29b3332afc46f3fb8be04cb5297bf96f39aa7131272dff57869b4485b22a36",
    "simlex999.txt": "d5e0501971478a511430ee880bd0121e94ac701ba86d90544d83e6d2ba3db05d",
    "wordsim353.tsv": "f92a022fc2537793a15bc3a8c162ebcd74990e033a228bb6388cb71e4c0b1e1d",
}

NLTK_PACKAGES = {
    "brown": "9b275f9b3b95d7bd66ccfb7cd259f445a13bbe5d1f4107aba09fd3e8364bafa6",
    "conll2002": "64440e49236d0d393e08e0b266284966d68e2d2a82a50cc41b8e96d98c03b5c8",
    "ieer": "1f63b08ed212c1d52545307838d183c79e02fd09cc8c5a48542f82c61c078b5d",
    "names": "0eec7e958b34982662b8f05824ae64642dea097b08057ade65c252191c5fe7ca",
    "nps_chat": "a4433d5da5e62fdbede49efa572a53a0139fff1014ffbe86cb263e17cbb4a837",
    "qc": "091fb01e50883014d150acb7d5013d787136968b3f955ae01725a65e7e80f304",
    "rte": "2f806ead4d53171601254747c3b7c97d758e63a6ef54e3c010a6d62885ab214a",
    "sentence_polarity": "6e1ed4405b65c7eabf1d199a7f7c437091ac21da0ea7467b410a74062574566b",
    "sinica_treebank": "395958a28f06d92ce1de0f0cf1bb17dc4a5cc882d27487447252ad615641e9ba",
    "stopwords": "15c94179887425ca1bedc265608cab9f27d650211f709bb929e320990a4b01d1",
    "udhr2": "0796c314b09a930c989c6f9d93d226af9af13feccd88496e196c743dd266c7f3",
}

MIN_PARAGRAPH = 5  # words; shorter lines of a wiki page are table cells and captions


class CorpusError(RuntimeError):
    """A corpus file is missing, or not the one the book was written with; the message says how to mend it."""


@dataclass(frozen=True)
class Document:
    """One article: its title and its sentences, each a list of tokens."""

    title: str
    sentences: list[list[str]]

    @property
    def tokens(self) -> list[str]:
        """All tokens of the document in order (sentence borders are lost)."""
        return [token for sentence in self.sentences for token in sentence]


def sentences(documents: Iterable[Document]) -> list[list[str]]:
    """Every sentence of every document, in order: the input that word2vec and n-grams want."""
    return [sentence for document in documents for sentence in document.sentences]


# --- files and their checksums -----------------------------------------------------------------------------


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _verified(path: Path, expected: str, mend: str) -> Path:
    """The path itself if the file is there and unaltered; otherwise a CorpusError that ends with `mend`."""
    if not path.is_file():
        raise CorpusError(f"corpus file missing: {path}. {mend}")
    found = sha256(path)
    if found != expected:
        raise CorpusError(f"corpus file altered: {path} has SHA-256 {found[:12]}…, wanted {expected[:12]}…. {mend}")
    return path


@functools.cache
def gensim_file(name: str) -> Path:
    """Path of a data file inside the installed gensim package, after its checksum was found right."""
    from gensim.test.utils import datapath  # imported late: gensim takes a second to load

    mend = "Reinstall the pinned gensim: pip install --force-reinstall --no-deps -r requirements.txt"
    return _verified(Path(datapath(name)), GENSIM_FILES[name], mend)


_MARKS = {codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32", codecs.BOM_UTF16_LE: "utf-16",
          codecs.BOM_UTF16_BE: "utf-16", codecs.BOM_UTF8: "utf-8-sig"}  # fmt: skip


def text_encoding(path: str | Path) -> str:
    """What a text file's byte-order mark says (UTF-8, 16 or 32); UTF-8 where it has none."""
    with Path(path).open("rb") as file:
        start = file.read(4)
    return next((name for mark, name in _MARKS.items() if start.startswith(mark)), "utf-8")


def read_text(path: str | Path) -> str:
    """A text file as one string: UTF-8 with or without a byte-order mark, or UTF-16 or 32 with one.

    The mark is no part of the text, and every line ends in a newline alone. ValueError, with the path, for a
    file in another encoding and for one with null characters (UTF-16 without a mark, or no text at all).
    """
    encoding = text_encoding(path)
    try:
        text = Path(path).read_text(encoding=encoding)
    except UnicodeError as error:
        raise ValueError(
            f"path must be a text file in UTF-8, or in UTF-16 or 32 with a byte-order mark, got {path}: {error}. "
            "Convert it first"
        ) from error
    if "\0" in text:
        raise ValueError(
            f"path must be a text file, got {path} with a null character at {text.index(chr(0))}: is it UTF-16 "
            "without a byte-order mark, or no text?"
        )
    return text


# --- from raw text to sentences of tokens ------------------------------------------------------------------

_WORD = r"\d+(?:[.,]\d+)*\w*|(?!\d)\w+?(?=['’]s\b)|(?!\d)\w+(?:['’](?!s\b)\w+)*|['’]s\b"
_WORDS_ONLY = re.compile(_WORD)
_WITH_PUNCTUATION = re.compile(_WORD + r"|--|[^\w\s]")
_SENTENCE_END = re.compile(r"(?<=[.!?])[\"'”’)\]]*\s+(?=[\"'“‘(\[]*[A-Z0-9])")
# "E. O. Wilson", "Dr. No", "c. 1900": the full stop belongs to the word, not to the sentence.
_ABBREVIATION = re.compile(r"(?:\b[A-Za-z]|\b(?:Dr|Mr|Mrs|Ms|St|Jr|Sr|Prof|Gen|Col|Lt|No|vs|ca|cf|al|etc))\.$")


def tokenize(text: str, *, punctuation: bool = False) -> list[str]:
    """Lower-cased words (numbers whole, the possessive 's apart); punctuation marks as tokens if wanted.

    >>> tokenize("Alabama's 1.5 million (2013) voters didn't.", punctuation=True)
    ['alabama', "'s", '1.5', 'million', '(', '2013', ')', 'voters', "didn't", '.']
    """
    pattern = _WITH_PUNCTUATION if punctuation else _WORDS_ONLY
    return pattern.findall(text.replace("’", "'").lower())


def split_sentences(text: str) -> list[str]:
    """Cut a paragraph after . ! ? that precede a capital or a digit, unless an abbreviation ends there."""
    parts: list[str] = []
    start = 0
    for match in _SENTENCE_END.finditer(text):
        if not _ABBREVIATION.search(text, max(0, match.start() - 6), match.start()):
            parts.append(text[start : match.end()].strip())
            start = match.end()
    parts.append(text[start:].strip())
    return [part for part in parts if part]


def _tokenized(paragraphs: Iterable[str], punctuation: bool) -> list[list[str]]:
    tokens = (tokenize(sentence, punctuation=punctuation) for text in paragraphs for sentence in split_sentences(text))
    return [sentence for sentence in tokens if sentence]


def _wiki_paragraphs(raw: str) -> list[str]:
    """Readable lines of a wiki page: markup, headings, table cells and captions dropped, list items kept."""
    from gensim.corpora.wikicorpus import filter_wiki

    lines = (line.strip() for line in filter_wiki(raw).split("\n"))
    texts = (re.sub(r"'{2,}", "", line.lstrip("*#:; ")) for line in lines if not line.startswith("="))
    return [text for text in texts if len(text.split()) >= MIN_PARAGRAPH and "|" not in text]


@functools.cache
def _wikipedia(punctuation: bool) -> tuple[Document, ...]:
    from gensim.corpora.wikicorpus import extract_pages

    path = gensim_file("enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2")
    with bz2.open(path) as dump:
        pages = [(title, raw) for title, raw, _ in extract_pages(dump, ("0",))]  # namespace 0: articles
    documents = (Document(title, _tokenized(_wiki_paragraphs(raw), punctuation)) for title, raw in pages)
    return tuple(document for document in documents if len(document.sentences) > 1)  # 1 or 0: a redirect


def wikipedia(*, punctuation: bool = False) -> list[Document]:
    """106 English Wikipedia articles (titles from A, a dump made after July 2015), 462,000 words.

    Lower-cased; list items and paragraphs are kept, headings, tables, captions and references are not.
    Deterministic. Takes about three seconds the first time in a process.
    """
    return list(_wikipedia(punctuation))


def lee(*, punctuation: bool = False) -> list[Document]:
    """300 news stories from Australia, 2001 (Lee et al. 2005), some 60,000 words; titles are numbers."""
    lines = gensim_file("lee_background.cor").read_text(encoding="utf-8").splitlines()
    return [Document(str(number), _tokenized([line], punctuation)) for number, line in enumerate(lines)]


def polarity() -> list[tuple[list[str], int]]:
    """200 film-review sentences of Pang & Lee (2005) as (tokens, label): 1 for praise, 0 for blame."""
    lines = gensim_file("pang_lee_polarity.cor").read_text(encoding="cp1252").strip().split("\n")
    labelled = (line.split(maxsplit=1) for line in lines)
    return [(text.split(), int(label == "__label__pos")) for label, text in labelled]


def _scored_pairs(name: str) -> list[tuple[str, str, float]]:
    lines = gensim_file(name).read_text(encoding="utf-8").splitlines()
    rows = (line.split("\t") for line in lines if line and not line.startswith("#"))
    return [(first.lower(), second.lower(), float(score)) for first, second, score in rows]


def wordsim353() -> list[tuple[str, str, float]]:
    """353 word pairs with mean human relatedness from 0 to 10 (Finkelstein et al. 2002), lower-cased."""
    return _scored_pairs("wordsim353.tsv")


def simlex999() -> list[tuple[str, str, float]]:
    """999 word pairs with human similarity (not relatedness), 0 to 10 (Hill et al. 2015), lower-cased."""
    return _scored_pairs("simlex999.txt")


def analogies() -> dict[str, list[tuple[str, str, str, str]]]:
    """The 19,544 questions "a is to b as c is to d" of Mikolov et al. (2013a), by section, lower-cased."""
    sections: dict[str, list[tuple[str, str, str, str]]] = {}
    for line in gensim_file("questions-words.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith(":"):
            current = sections.setdefault(line[1:].strip(), [])
        elif line:
            a, b, c, d = line.lower().split()
            current.append((a, b, c, d))
    return sections


def split(items: Sequence[T], fractions: Sequence[float] = (0.8, 0.1, 0.1), *, seed: int = 0) -> tuple[list[T], ...]:
    """Shuffle by `seed` and cut into parts (by default train, validation, test); each item lands in one.

    Split documents, not sentences: two sentences of one article share names and topic, so a model tested on
    the second has in part seen its answer.
    """
    shares = np.asarray(fractions, dtype=float)
    if shares.ndim != 1 or not (shares > 0).all() or abs(shares.sum() - 1) > 1e-9:
        raise ValueError(f"fractions must be positive and sum to 1, got {tuple(fractions)}")
    if len(items) < len(shares):
        raise ValueError(f"items must hold at least {len(shares)} elements, one for each part, got {len(items)}")
    order = np.random.default_rng(seed).permutation(len(items))
    cuts = np.rint(np.cumsum(shares)[:-1] * len(items)).astype(int)
    # With few items a small share may round to nothing: leave at least one for every part.
    floors, ceilings = np.arange(1, len(shares)), len(items) - np.arange(len(shares) - 1, 0, -1)
    cuts = np.clip(np.maximum.accumulate(np.maximum(cuts, floors)), floors, ceilings)
    return tuple([items[i] for i in part] for part in np.split(order, cuts))


# --- NLTK's corpora ----------------------------------------------------------------------------------------


def data_folder() -> Path:
    """Where ``make data`` puts NLTK's packages: data/nltk in the project."""
    return Path(__file__).resolve().parents[2] / "data" / "nltk"


def _nltk_roots() -> list[Path]:
    """Folders to search, in order: NLTK_DATA, the project's data/nltk, then NLTK's own defaults."""
    import nltk.data

    named = [part for part in os.environ.get("NLTK_DATA", "").split(os.pathsep) if part]
    return [Path(part) for part in (*named, data_folder(), *nltk.data.path)]


def _package(name: str) -> Path | None:
    if name not in NLTK_PACKAGES:
        raise ValueError(f"name must be one of {', '.join(sorted(NLTK_PACKAGES))}, got {name!r}")
    candidates = (root / "corpora" / f"{name}.zip" for root in _nltk_roots())
    return next((path for path in candidates if path.is_file()), None)


def available(name: str) -> bool:
    """Is this NLTK corpus on the machine? (An altered copy counts; :func:`nltk_corpus` will refuse it.)"""
    return _package(name) is not None


def nltk_corpus(name: str) -> Any:
    """NLTK's reader for one of :data:`NLTK_PACKAGES` (``.sents()``, ``.words()``), its zip checked first."""
    path = _package(name)
    if path is None:
        raise CorpusError(f"NLTK corpus {name!r} is not on this machine. Fetch it once with: make data")
    mend = "Delete the file and run: make data"
    _verified(path, NLTK_PACKAGES[name], mend)
    import nltk

    root = str(path.parents[1])
    if root not in nltk.data.path:
        nltk.data.path.insert(0, root)
    return getattr(nltk.corpus, name)


def download(folder: Path | None = None) -> Path:
    """Fetch all of :data:`NLTK_PACKAGES` with NLTK's own downloader and check them; gives the folder."""
    from nltk.downloader import Downloader

    target = folder or data_folder()
    target.mkdir(parents=True, exist_ok=True)
    downloader = Downloader(download_dir=str(target))
    for name, expected in NLTK_PACKAGES.items():
        path = target / "corpora" / f"{name}.zip"
        if path.is_file() and sha256(path) == expected:
            continue  # an earlier run brought it
        if not downloader.download(name, quiet=True):
            raise CorpusError(f"could not download NLTK's {name!r}: is there a network? Then run make data again")
        _verified(path, expected, "NLTK now serves another version than the one the book was written with.")
    return target


# --- hub data sets -----------------------------------------------------------------------------------------

_LOCAL_FORMATS = {".json": "json", ".jsonl": "json", ".parquet": "parquet", ".txt": "text", ".csv": "csv"}


def hub(name_or_path: str | Path, *, split: str = "train", online: bool = False) -> Any:
    """A ``datasets.Dataset``: from a local folder of json, jsonl, parquet, txt or csv files, or from the hub.

    The hub is only asked when `online` is true; the book's own cells never do. Reads files, runs no code that
    a data set brings along.
    """
    import datasets

    if not sys.stderr.isatty():
        datasets.disable_progress_bars()  # in a notebook they would become part of the output
    folder = Path(name_or_path)
    if folder.is_dir():
        files = sorted(path for path in folder.iterdir() if path.suffix in _LOCAL_FORMATS)
        formats = {_LOCAL_FORMATS[path.suffix] for path in files}
        if len(formats) != 1:
            raise ValueError(
                f"name_or_path must be a folder with files of one format among {', '.join(_LOCAL_FORMATS)}, "
                f"got {folder} with {sorted(formats) or 'none of them'}"
            )
        return datasets.load_dataset(
            formats.pop(), data_files={split: [str(path) for path in files]}, split=split, **_encoding_of(files)
        )
    if not online:
        raise CorpusError(
            f"name_or_path {str(name_or_path)!r} is not a local folder, and the hub is off by default. "
            "Pass online=True to download it."
        )
    return datasets.load_dataset(str(name_or_path), split=split)


def _encoding_of(files: Sequence[Path]) -> dict[str, str]:
    """The keyword for ``load_dataset`` where the files begin with a byte-order mark; ValueError if they differ."""
    encodings = {text_encoding(path) for path in files if path.suffix != ".parquet"} - {"utf-8"}
    unmarked = any(text_encoding(path) == "utf-8" for path in files)
    if len(encodings) > 1 or (unmarked and encodings - {"utf-8-sig"}):
        raise ValueError(f"name_or_path must hold files of one encoding, got {', '.join(sorted(encodings))} among them")
    return {"encoding": encodings.pop()} if encodings else {}


def main(arguments: Sequence[str]) -> int:
    """``python -m llmbook.corpora download`` fetches NLTK's corpora; anything else prints how to use it."""
    if list(arguments) != ["download"]:
        print("usage: python -m llmbook.corpora download", file=sys.stderr)
        return 2
    try:
        print(f"NLTK's corpora are in {download()}")
    except CorpusError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
