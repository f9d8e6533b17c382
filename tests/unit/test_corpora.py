"""Real text: sizes, shapes, checksums, and errors that say which file and how to mend it."""

import json
import shutil

import nltk.data
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmbook import corpora


def test_wikipedia_is_the_text_the_book_describes():
    documents = corpora.wikipedia()
    sentences = corpora.sentences(documents)
    assert len(documents) == 106
    assert len(sentences) == 22_994
    assert sum(map(len, sentences)) == 462_485
    assert len({word for sentence in sentences for word in sentence}) == 34_654
    anarchism = next(document for document in documents if document.title == "Anarchism")
    assert anarchism.tokens[:5] == ["anarchism", "is", "a", "political", "philosophy"]


def test_wikipedia_holds_no_markup():
    tokens = {word for document in corpora.wikipedia(punctuation=True) for word in document.tokens}
    assert not tokens & {"|", "ref", "colspan", "rowspan", "bgcolor"}
    assert not any("''" in token or "[[" in token or token != token.lower() for token in tokens)


def test_punctuation_adds_marks_and_keeps_every_word():
    plain, marked = (corpora.lee(punctuation=flag)[0] for flag in (False, True))
    assert [token for token in marked.tokens if token[0].isalnum() or token[0] == "'"] == plain.tokens
    assert marked.sentences[0][-1] == "."


def test_lee_has_three_hundred_stories():
    documents = corpora.lee()
    assert len(documents) == 300
    assert sum(len(document.tokens) for document in documents) == 60_972


def test_polarity_is_balanced():
    examples = corpora.polarity()
    assert [label for _, label in examples].count(1) == 100
    assert len(examples) == 200
    assert examples[0] == (["simplistic", ",", "silly", "and", "tedious", "."], 0)


def test_human_judgements():
    assert len(corpora.wordsim353()) == 353
    assert len(corpora.simlex999()) == 999
    assert corpora.wordsim353()[0] == ("love", "sex", 6.77)
    assert all(0 <= score <= 10 for _, _, score in corpora.wordsim353() + corpora.simlex999())


def test_analogies_by_section():
    sections = corpora.analogies()
    assert len(sections) == 14
    assert sum(map(len, sections.values())) == 19_544
    assert sections["family"][0] == ("boy", "girl", "brother", "sister")


# --- text files ---

TEXT = "naïve café, 語言\nsecond line\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_a_text_file_is_the_same_text_in_every_marked_encoding(encoding, tmp_path):
    path = tmp_path / "text.txt"
    path.write_bytes(TEXT.replace("\n", "\r\n").encode(encoding))
    assert corpora.read_text(path) == TEXT


@pytest.mark.parametrize("order", ["le", "be"])
def test_the_byte_order_mark_is_no_part_of_the_text(order, tmp_path):
    path = tmp_path / "text.txt"
    path.write_bytes(f"\ufeff{TEXT}".encode(f"utf-16-{order}"))
    assert corpora.read_text(path) == TEXT


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (TEXT[:10].encode("latin-1"), "must be a text file in UTF-8, or in UTF-16 or 32"),
        (b"\xff\xfea", "must be a text file in UTF-8, or in UTF-16 or 32"),  # cut in the middle
        (TEXT.encode("utf-16-le")[:8], "must be"),
        (
            "plain".encode("utf-16-le"),
            "must be a text file, got .*null character at 1: is it UTF-16 without a byte-order mark",
        ),
        (b"PK\x03\x04\x00\x00", "must be.*null character at 4"),
    ],
)
def test_another_file_is_refused_with_its_name(content, message, tmp_path):
    path = tmp_path / "text.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"path {message}") as caught:
        corpora.read_text(path)
    assert "text.txt" in str(caught.value)
    assert not isinstance(caught.value, UnicodeError)


# --- text to tokens ---


def test_tokenize_separates_the_possessive_and_keeps_numbers_whole():
    text = "Alabama's 1.5 million (in the 1980s) didn’t vote: 10,000 did."
    words = ["alabama", "'s", "1.5", "million", "in", "the", "1980s", "didn't", "vote", "10,000", "did"]
    assert corpora.tokenize(text) == words
    assert set(corpora.tokenize(text, punctuation=True)) - set(words) == {"(", ")", ":", "."}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("One. Two! Three?", ["One.", "Two!", "Three?"]),
        ("E. O. Wilson met Dr. No. They left.", ["E. O. Wilson met Dr. No. They left."]),
        ("It cost $1.5 m. In 1920 it fell.", ["It cost $1.5 m. In 1920 it fell."]),
        ('He said "stop." Then he ran.', ['He said "stop."', "Then he ran."]),
        ("no capitals. after the stop", ["no capitals. after the stop"]),
    ],
)
def test_split_sentences(text, expected):
    assert corpora.split_sentences(text) == expected


@given(st.text())
def test_splitting_loses_no_word(text):
    joined = [token for part in corpora.split_sentences(text) for token in corpora.tokenize(part)]
    assert len(joined) == len(corpora.tokenize(text))


# --- splits ---


@given(st.integers(3, 300), st.integers(0, 5))
def test_split_is_a_partition_with_no_empty_part(count, seed):
    parts = corpora.split(range(count), seed=seed)
    assert sorted(item for part in parts for item in part) == list(range(count))
    assert all(parts)


def test_split_sizes_and_seed():
    parts = corpora.split(range(100), (0.8, 0.1, 0.1), seed=1)
    assert [len(part) for part in parts] == [80, 10, 10]
    assert parts == corpora.split(range(100), (0.8, 0.1, 0.1), seed=1)
    assert parts != corpora.split(range(100), (0.8, 0.1, 0.1), seed=2)


@pytest.mark.parametrize("fractions", [(0.5, 0.6), (1.0, 0.0), (), (1.2, -0.2), (float("nan"), 1.0)])
def test_split_rejects_fractions_that_do_not_share_out_the_whole(fractions):
    with pytest.raises(ValueError, match="fractions must be positive and sum to 1"):
        corpora.split(range(10), fractions)


def test_split_rejects_too_few_items():
    with pytest.raises(ValueError, match="items must hold at least 3"):
        corpora.split([1, 2])


# --- checksums ---


def test_every_gensim_file_is_the_one_listed():
    assert all(corpora.gensim_file(name).is_file() for name in corpora.GENSIM_FILES)


def test_a_missing_or_altered_file_is_named_with_its_remedy(tmp_path, monkeypatch):
    monkeypatch.setattr("gensim.test.utils.datapath", lambda name: str(tmp_path / name))
    corpora.gensim_file.cache_clear()
    with pytest.raises(corpora.CorpusError, match=r"missing: .*wordsim353\.tsv.*force-reinstall"):
        corpora.wordsim353()
    (tmp_path / "wordsim353.tsv").write_text("love\tsex\t10\n")
    with pytest.raises(corpora.CorpusError, match=r"altered: .*wordsim353\.tsv.*f92a022fc253"):
        corpora.wordsim353()
    corpora.gensim_file.cache_clear()


# --- NLTK ---


@pytest.fixture
def no_nltk_data(tmp_path, monkeypatch):
    """A machine on which no NLTK corpus was ever downloaded."""
    monkeypatch.setenv("NLTK_DATA", str(tmp_path))
    monkeypatch.setattr(nltk.data, "path", [])
    monkeypatch.setattr(corpora, "data_folder", lambda: tmp_path / "data" / "nltk")
    return tmp_path


def test_an_absent_corpus_says_make_data(no_nltk_data):
    assert not corpora.available("brown")
    with pytest.raises(corpora.CorpusError, match=r"'brown' is not on this machine.*make data"):
        corpora.nltk_corpus("brown")


def test_an_unknown_corpus_is_an_error():
    with pytest.raises(ValueError, match=r"name must be one of brown, .* got 'reuters'"):
        corpora.available("reuters")


def test_an_altered_zip_is_refused(no_nltk_data):
    folder = no_nltk_data / "corpora"
    folder.mkdir()
    (folder / "names.zip").write_bytes(b"not the zip")
    assert corpora.available("names")
    with pytest.raises(corpora.CorpusError, match=r"altered: .*names\.zip.*make data"):
        corpora.nltk_corpus("names")


@pytest.mark.parametrize("name", sorted(corpora.NLTK_PACKAGES))
def test_every_nltk_corpus_can_be_read(name):
    if not corpora.available(name):
        pytest.skip(f"NLTK corpus {name} is not on this machine (make data)")
    assert corpora.nltk_corpus(name).fileids()


class FakeDownloader:
    """Stands in for NLTK's downloader: copies a prepared zip, or brings nothing."""

    source = None

    def __init__(self, download_dir):
        self.folder = download_dir

    def download(self, name, quiet):
        if self.source is None:
            return False
        shutil.copy(self.source, f"{self.folder}/corpora/{name}.zip")
        return True


@pytest.fixture
def one_package(tmp_path, monkeypatch):
    """A collection of one package, whose checksum is known, and a downloader that can bring it."""
    source = tmp_path / "served.zip"
    source.write_bytes(b"a corpus")
    monkeypatch.setattr(corpora, "NLTK_PACKAGES", {"names": corpora.sha256(source)})
    monkeypatch.setattr("nltk.downloader.Downloader", FakeDownloader)
    (tmp_path / "nltk" / "corpora").mkdir(parents=True)
    return tmp_path / "nltk", source


def test_download_brings_checks_and_does_not_fetch_twice(one_package, monkeypatch):
    folder, source = one_package
    monkeypatch.setattr(FakeDownloader, "source", source)
    assert corpora.download(folder) == folder
    monkeypatch.setattr(FakeDownloader, "source", None)  # a second download would now fail
    assert corpora.download(folder) == folder


def test_download_without_network_says_so(one_package):
    with pytest.raises(corpora.CorpusError, match=r"could not download NLTK's 'names'.*network"):
        corpora.download(one_package[0])


def test_download_of_another_version_says_so(one_package, monkeypatch):
    folder, source = one_package
    monkeypatch.setattr(FakeDownloader, "source", source)
    monkeypatch.setattr(corpora, "NLTK_PACKAGES", {"names": "0" * 64})
    with pytest.raises(corpora.CorpusError, match="another version"):
        corpora.download(folder)


def test_command_line(one_package, monkeypatch, capsys):
    folder, source = one_package
    monkeypatch.setattr(corpora, "data_folder", lambda: folder)
    assert corpora.main([]) == 2
    assert corpora.main(["download"]) == 1
    assert "network" in capsys.readouterr().err
    monkeypatch.setattr(FakeDownloader, "source", source)
    assert corpora.main(["download"]) == 0
    assert str(folder) in capsys.readouterr().out


# --- hub ---


@pytest.fixture
def hub_cache(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def _write(folder, kind):
    rows = [{"text": "one"}, {"text": "two"}]
    folder.mkdir()
    if kind == "jsonl":
        (folder / "part.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif kind == "txt":
        (folder / "part.txt").write_text("one\ntwo\n")
    else:
        import pandas

        pandas.DataFrame(rows).to_parquet(folder / "part.parquet")


@pytest.mark.parametrize("kind", ["jsonl", "txt", "parquet"])
def test_hub_reads_a_local_folder(kind, tmp_path, hub_cache):
    _write(tmp_path / "set", kind)
    assert list(corpora.hub(tmp_path / "set")["text"]) == ["one", "two"]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
@pytest.mark.parametrize("name", ["part.txt", "part.csv", "part.jsonl"])
def test_hub_reads_a_byte_order_mark(name, encoding, tmp_path, hub_cache):
    content = {
        "part.txt": "one\ntwo\n",
        "part.csv": "text\none\ntwo\n",
        "part.jsonl": '{"text": "one"}\n{"text": "two"}\n',
    }
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / name).write_text(content[name], encoding=encoding)
    assert list(corpora.hub(folder)["text"]) == ["one", "two"]


def test_hub_needs_files_of_one_encoding(tmp_path):
    (tmp_path / "a.txt").write_text("one", encoding="utf-16")
    (tmp_path / "b.txt").write_text("two", encoding="utf-8")
    with pytest.raises(ValueError, match=r"files of one encoding, got utf-16 among them"):
        corpora.hub(tmp_path)


def test_hub_needs_files_of_one_format(tmp_path):
    with pytest.raises(ValueError, match=r"one format .* none of them"):
        corpora.hub(tmp_path)


def test_hub_stays_offline_unless_asked():
    with pytest.raises(corpora.CorpusError, match="online=True"):
        corpora.hub("wikitext")
