"""Byte-pair encoding: merges, ids and texts equal to the tokenizers library's; nothing lost on the way."""

import json
import unicodedata
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from llmbook import corpora, tokenization
from llmbook.bpe import BPE, CHAR_TO_BYTE, bytes_to_unicode, learn_merges, merge_pair, split_words


def library(texts, vocab_size, specials=(), byte_level=True, digits=False):
    """The tokenizers library, trained in the way that ours claims to equal."""
    other = Tokenizer(models.BPE(unk_token="<unk>" if "<unk>" in specials else None))
    if byte_level:
        other.pre_tokenizer, other.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
        if digits:
            steps = [pre_tokenizers.Digits(individual_digits=True), other.pre_tokenizer]
            other.pre_tokenizer = pre_tokenizers.Sequence(steps)
    else:
        words = [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
        other.pre_tokenizer, other.decoder = pre_tokenizers.Sequence(words), decoders.Metaspace()
    alphabet = pre_tokenizers.ByteLevel.alphabet() if byte_level else []
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=list(specials), initial_alphabet=alphabet, show_progress=False
    )
    other.train_from_iterator(texts, trainer)
    return other


def merges_of(other):
    return [tuple(merge) for merge in json.loads(other.to_str())["model"]["merges"]]


@pytest.fixture(scope="module")
def news():
    return corpora.gensim_file("lee_background.cor").read_text(encoding="utf-8").splitlines()


@pytest.fixture(scope="module")
def articles():
    return ["\n".join(" ".join(s) for s in d.sentences) for d in corpora.wikipedia(punctuation=True)[::6]]


@pytest.fixture(scope="module")
def bytewise(news):
    return BPE.train(news, 2256, specials=("<eos>",))


@pytest.fixture(scope="module")
def charwise(news):
    return BPE.train(news, 1500, specials=("<unk>", "<eos>"), byte_level=False)


# --- equal to the library ---


@pytest.mark.parametrize("byte_level", [True, False])
@pytest.mark.parametrize(("corpus", "vocab_size"), [("news", 756), ("news", 6000), ("articles", 2256)])
def test_merges_ids_and_texts_equal_the_library(corpus, vocab_size, byte_level, request):
    texts = request.getfixturevalue(corpus)
    specials = ("<eos>",) if byte_level else ("<unk>", "<eos>")
    ours = BPE.train(texts, vocab_size, specials, byte_level=byte_level)
    theirs = library(texts, vocab_size, specials, byte_level)
    assert ours.merges == merges_of(theirs)
    assert {token: i for i, token in enumerate(ours.tokens)} == theirs.get_vocab()
    sample = texts[:40]
    assert [ours.encode(text) for text in sample] == [other.ids for other in theirs.encode_batch(sample)]
    assert [ours.decode(ours.encode(t)) for t in sample] == [theirs.decode(theirs.encode(t).ids) for t in sample]


def test_ties_go_to_the_smallest_ids():
    texts = ["ab ab cd cd dc dc ba ba aaa aaa"]  # every pair of letters but aa occurs twice
    assert BPE.train(texts, 300).merges == merges_of(library(texts, 300))


@given(st.lists(st.text("abc ", min_size=1), min_size=1), st.integers(0, 12))
@settings(max_examples=60, deadline=None)
def test_any_small_corpus_gives_the_library_s_merges(texts, merges):
    if not any(text.strip() for text in texts):
        return
    assert BPE.train(texts, 256 + merges).merges == merges_of(library(texts, 256 + merges))


# --- round trips ---

ASSIGNED = st.characters(exclude_categories=["Cs", "Cn", "Co"])


@given(st.text())
def test_any_text_comes_back_from_bytes(bytewise, text):
    assert bytewise.decode(bytewise.encode(text)) == text


@given(st.text(ASSIGNED))
def test_any_text_has_the_library_s_ids_with_digits_apart(digitwise, text):
    ours, theirs = digitwise
    assert ours.encode(text) == theirs.encode(text).ids
    assert ours.decode(ours.encode(text)) == text


@pytest.fixture(scope="module")
def digitwise(news, tmp_path_factory):
    """Ours with digits apart, and the library's reading of our file."""
    texts = [f"{text} 1984 {i:05} ¾ ٣ {i}" for i, text in enumerate(news[:60])]
    ours = BPE.train(texts, 700, split_digits=True)
    assert ours.merges == merges_of(library(texts, 700, digits=True))
    path = tmp_path_factory.mktemp("digits") / "tokenizer.json"
    ours.save(path)
    assert BPE.load(path).split_digits
    return ours, Tokenizer.from_file(str(path))


def test_digits_stay_apart_only_where_asked():
    texts = ["1984 1984 1984"] * 9
    assert BPE.train(texts, 260, split_digits=True).tokenize("1984") == ["1", "9", "8", "4"]
    assert len(BPE.train(texts, 260).tokenize("1984")) < 4
    assert BPE.train(texts, 260, split_digits=True).truncated(256).split_digits
    with pytest.raises(ValueError, match="split_digits goes with byte_level"):
        BPE.train(texts, 260, byte_level=False, split_digits=True)


@given(st.text(ASSIGNED))
def test_any_text_has_the_library_s_ids(bytewise, charwise, loaded, text):
    assert bytewise.encode(text) == loaded[0].encode(text).ids
    assert charwise.encode(text) == loaded[1].encode(text).ids


@given(st.lists(st.integers(0, 2255)))
def test_any_ids_decode_as_the_library_does(bytewise, loaded, ids):
    assert bytewise.decode(ids) == loaded[0].decode(ids)
    assert bytewise.decode(ids, skip_special_tokens=False) == loaded[0].decode(ids, skip_special_tokens=False)


def test_words_come_back_up_to_white_space(charwise):
    assert charwise.decode(charwise.encode("  police \t said\nno ")) == "police said no"


def test_an_unseen_character_is_unknown_or_an_error(charwise):
    assert charwise.tokenize("a龍") == ["▁a", "<unk>"]
    bare = BPE.train(["abc abc"], 8, byte_level=False)
    with pytest.raises(ValueError, match=r"text must not hold '龍'.*no <unk>"):
        bare.encode("a龍")


@pytest.fixture(scope="module")
def loaded(bytewise, charwise, tmp_path_factory):
    """Both of our tokenisers, saved by us and read by the library."""
    folder = tmp_path_factory.mktemp("bpe")
    others = []
    for name, ours in (("bytes", bytewise), ("words", charwise)):
        ours.save(folder / f"{name}.json")
        others.append(Tokenizer.from_file(str(folder / f"{name}.json")))
        others[-1].encode_special_tokens = True  # read "<eos>" in a text as five characters, as ours always does
    return others


# --- special tokens ---


def test_plain_text_never_yields_a_special_token():
    texts = ["<eos> <eos> <eos> <eos>the end<eos>"] * 50
    for byte_level in (True, False):
        ours = BPE.train(texts, 400, ("<eos>",), byte_level=byte_level)
        assert ours.token_to_id("<eos>") == 0
        assert 0 not in ours.encode("<eos> the end<eos>")
        assert 0 not in ours.encode("<eos>")


def test_special_tokens_are_shown_only_on_request(bytewise):
    ids = [*bytewise.encode("the end"), bytewise.token_to_id("<eos>")]
    assert bytewise.decode(ids) == "the end"
    assert bytewise.decode(ids, skip_special_tokens=False) == "the end<eos>"


# --- the parts ---


def test_merge_pair_goes_from_the_left_without_overlap():
    assert merge_pair("aaaa", ("a", "a"), "aa") == ["aa", "aa"]
    assert merge_pair("aaa", ("a", "a"), "aa") == ["aa", "a"]
    assert merge_pair("", ("a", "a"), "aa") == []


@given(st.dictionaries(st.text("ab", min_size=1, max_size=8), st.integers(1, 5), min_size=1), st.integers(0, 8))
@settings(deadline=None)
def test_incremental_counts_equal_counting_afresh(words, merges):
    tokens = ["a", "b"]
    learnt = learn_merges(words, tokens, 2 + merges)
    texts = {word: [["a", "b"].index(char) for char in word] for word in words}
    for new, pair in enumerate(learnt, start=2):
        counts = Counter()
        for word, ids in texts.items():
            for neighbours in pairwise(ids):
                counts[neighbours] += words[word]
        assert pair == min(counts, key=lambda p: (-counts[p], p))
        texts = {word: merge_pair(ids, pair, new) for word, ids in texts.items()}
    if len(learnt) < merges:
        assert all(len(ids) == 1 for ids in texts.values())


def test_byte_map_is_one_to_one_and_shows_every_byte():
    table = bytes_to_unicode()
    assert sorted(table) == list(range(256))
    assert len(set(table.values())) == 256
    assert table[ord(" ")] == "Ġ"
    assert not any(unicodedata.category(char).startswith(("C", "Z")) for char in CHAR_TO_BYTE)


def test_gpt2_split():
    assert split_words("I'll go,  now 42x!\n") == ["I", "'ll", "Ġgo", ",", "Ġ", "Ġnow", "Ġ42", "x", "!", "Ċ"]
    assert split_words("I'll  go\tnow", byte_level=False) == ["▁I'll", "▁go", "▁now"]


def test_a_smaller_vocabulary_is_the_beginning_of_a_larger_one(news, bytewise):
    small = BPE.train(news, 700, ("<eos>",))
    assert small.tokens == bytewise.tokens[:700]
    assert bytewise.truncated(700).encode(news[0]) == small.encode(news[0])


def test_exported_beside_the_vocabulary():
    assert tokenization.BPE is BPE


# --- save and load ---


@pytest.mark.parametrize("name", ["bytewise", "charwise"])
def test_save_and_load(name, request, tmp_path, news):
    ours = request.getfixturevalue(name)
    ours.save(tmp_path / "tokenizer.json")
    again = BPE.load(tmp_path / "tokenizer.json")
    assert (again.tokens, again.merges, again.specials) == (ours.tokens, ours.merges, ours.specials)
    assert again.encode(news[0]) == ours.encode(news[0])
    assert [path.name for path in tmp_path.iterdir()] == ["tokenizer.json"]


def test_the_library_s_file_loads(tmp_path, news):
    theirs = library(news, 1000, ("<eos>",))
    theirs.save(str(tmp_path / "tokenizer.json"))
    assert BPE.load(tmp_path / "tokenizer.json").encode(news[3]) == theirs.encode(news[3]).ids


def file_of(other):
    return json.loads(other.to_str())


@pytest.fixture(scope="module")
def plain(news):
    """A tokenizer.json of the library that BPE follows."""
    return file_of(library(news[:40], 320, ("<eos>",)))


def written(tmp_path, content):
    path = tmp_path / "tokenizer.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


@pytest.mark.parametrize("content", ["{", "{}", "[]", "null", '{"model": 3}', '{"model": {"type": "BPE"}}'])
def test_load_refuses_what_is_no_tokenizer(content, tmp_path):
    with pytest.raises(ValueError, match=r"path must be a tokenizer\.json that BPE follows, got .*tokenizer\.json"):
        BPE.load(written(tmp_path, content))


def prefix_space(other):
    other.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)


def no_regex(other):
    other.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)


def other_splitter(other):
    other.pre_tokenizer = pre_tokenizers.Whitespace()


def gpt4_splitter(other):
    cut = pre_tokenizers.Split(Regex(r"\p{N}{1,3}"), "isolated")
    other.pre_tokenizer = pre_tokenizers.Sequence([cut, pre_tokenizers.ByteLevel(False, use_regex=False)])


def grouped_digits(other):
    steps = [pre_tokenizers.Digits(individual_digits=False), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    other.pre_tokenizer = pre_tokenizers.Sequence(steps)


def no_splitter(other):
    other.pre_tokenizer = None


def no_decoder(other):
    other.decoder = None


def normaliser(other):
    other.normalizer = normalizers.NFKC()


def template(other):
    other.post_processor = processors.TemplateProcessing(single="<eos> $A", special_tokens=[("<eos>", 0)])


def truncation(other):
    other.enable_truncation(5)


def padding(other):
    other.enable_padding(length=9)


def ordinary_token(other):
    other.add_tokens(["police"])


FOREIGN = {
    "prefix_space": (prefix_space, "pre_tokenizer has add_prefix_space = True, wanted False"),
    "no_regex": (no_regex, "pre_tokenizer has use_regex = False, wanted True"),
    "other_splitter": (other_splitter, "pre_tokenizer is Whitespace, wanted one of"),
    "gpt4_splitter": (gpt4_splitter, r"pre_tokenizer is Split \+ ByteLevel"),
    "grouped_digits": (grouped_digits, "pre_tokenizer has individual_digits = False, wanted True"),
    "no_splitter": (no_splitter, "pre_tokenizer is none"),
    "no_decoder": (no_decoder, "decoder must be a table"),
    "normaliser": (normaliser, "the file has normalizer = 'NFKC', wanted none"),
    "template": (template, "post_processor has .*TemplateProcessing|post_processor has the setting"),
    "truncation": (truncation, "the file has truncation"),
    "padding": (padding, "the file has padding"),
    "ordinary_token": (ordinary_token, "added_tokens has 'police', which is not special"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_load_refuses_a_setting_of_the_library_s_that_it_does_not_follow(name, news, tmp_path):
    change, message = FOREIGN[name]
    other = library(news[:40], 320, ("<eos>",))
    change(other)
    with pytest.raises(ValueError, match=f"got .*tokenizer.json: .*{message}"):
        BPE.load(written(tmp_path, file_of(other)))


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("type", "Unigram", "type = 'Unigram', wanted 'BPE'"),
        ("dropout", 0.1, "dropout = 0.1, wanted none"),
        ("continuing_subword_prefix", "##", "continuing_subword_prefix = '##'"),
        ("end_of_word_suffix", "</w>", "end_of_word_suffix = '</w>'"),
        ("fuse_unk", True, "fuse_unk = True"),
        ("byte_fallback", True, "byte_fallback = True"),
        ("ignore_merges", True, "ignore_merges = True"),
        ("a_later_setting", 1, "the setting 'a_later_setting', which is not followed here"),
        ("merges", [["a", "b", "c"]], "values to unpack"),
    ],
)
def test_load_refuses_a_setting_of_the_model_that_it_does_not_follow(setting, value, message, plain, tmp_path):
    with pytest.raises(ValueError, match=f"got .*tokenizer.json: .*{message}"):
        BPE.load(written(tmp_path, plain | {"model": plain["model"] | {setting: value}}))


def test_load_refuses_tables_that_disagree(plain, tmp_path):
    shifted = {token: i + 1 for token, i in plain["model"]["vocab"].items()}
    eos = dict(plain["added_tokens"][0])
    for content, message in [
        (plain | {"model": plain["model"] | {"vocab": shifted}}, "the id 0, the vocab another"),
        (plain | {"added_tokens": [], "model": plain["model"] | {"vocab": shifted}}, "without gaps"),
        (plain | {"added_tokens": [eos | {"content": "<pad>", "id": 999}]}, "without gaps"),
        (plain | {"a_later_part": {}}, "the setting 'a_later_part'"),
        (plain | {"model": plain["model"] | {"merges": [["x", "yz"]]}}, "every merge with its parts"),
    ]:
        with pytest.raises(ValueError, match=message):
            BPE.load(written(tmp_path, content))


def test_load_takes_what_changes_no_id(plain, news, tmp_path):
    """GPT-2's own file: empty prefix and suffix, a post-processor that trims offsets, merges as strings."""
    theirs = Tokenizer.from_str(json.dumps(plain))
    trims = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False}
    model = plain["model"] | {"continuing_subword_prefix": "", "end_of_word_suffix": "", "unk_token": "<eos>"}
    model["merges"] = [" ".join(merge) for merge in model["merges"]]
    content = plain | {"model": model, "post_processor": trims, "decoder": trims | {"use_regex": True}}
    ours = BPE.load(written(tmp_path, content))
    assert (
        ours.encode(news[3])
        == theirs.encode(news[3]).ids
        == Tokenizer.from_str(json.dumps(content)).encode(news[3]).ids
    )


def test_load_takes_a_special_that_was_added_after_training(plain, tmp_path):
    theirs = Tokenizer.from_str(json.dumps(plain))
    theirs.add_special_tokens(["<pad>"])
    ours = BPE.load(written(tmp_path, file_of(theirs)))
    assert ours.specials == ("<eos>", "<pad>")
    assert ours.token_to_id("<pad>") == theirs.token_to_id("<pad>") == len(ours) - 1


def test_a_byte_that_somebody_s_vocabulary_lacks_is_an_error_and_is_not_dropped(tmp_path):
    sign = split_words("\x04")[0]
    whole = BPE.train(["abc"], 256)
    tokens = [token for token in whole.tokens if token != sign]
    BPE(tokens, []).save(tmp_path / "tokenizer.json")
    assert Tokenizer.from_file(str(tmp_path / "tokenizer.json")).encode("a\x04b").tokens == ["a", "b"]
    ours = BPE.load(tmp_path / "tokenizer.json")
    assert ours.tokenize("ab") == ["a", "b"]
    with pytest.raises(ValueError, match="text must not hold the byte 0x04"):
        ours.encode("a\x04b")


def test_load_reads_a_file_with_a_byte_order_mark(plain, tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(plain), encoding="utf-8-sig")
    assert BPE.load(path).specials == ("<eos>",)


# --- clear errors ---


def test_train_refuses_bad_input():
    with pytest.raises(TypeError, match="texts must be an iterable of strings, got the string"):
        BPE.train("one text", 300)
    with pytest.raises(ValueError, match=r"vocab_size must be at least 257 \(1 specials and 256 bytes\), got 100"):
        BPE.train(["abc"], 100, ("<eos>",))
    with pytest.raises(ValueError, match="at least one word"):
        BPE.train([" "], 10, byte_level=False)
    with pytest.raises(ValueError, match=r"specials must not be single characters .*'a'"):
        BPE.train(["abc"], 300, ("a",))


def test_encode_and_decode_refuse_bad_input(bytewise):
    with pytest.raises(TypeError, match="text must be a string, got list"):
        bytewise.encode(["a"])
    with pytest.raises(ValueError, match="ids must be from 0 to 2255, got -1"):
        bytewise.decode([-1])
    with pytest.raises(ValueError, match="token 'xyzzy' is not in the vocabulary"):
        bytewise.token_to_id("xyzzy")
    with pytest.raises(TypeError, match=r"ids must be integers, got 1\.5"):
        bytewise.decode([1.5])


@pytest.mark.parametrize("byte_level", [True, False])
def test_half_of_a_surrogate_pair_is_refused_by_name(byte_level):
    with pytest.raises(ValueError, match=r"text must be Unicode text, got a lone surrogate '\\ud800' at 3"):
        split_words("abc\ud800", byte_level=byte_level)
    with pytest.raises(ValueError, match="lone surrogate"):
        BPE.train(["abc", "ab\udfff"], 300, byte_level=byte_level)
    with pytest.raises(ValueError, match="lone surrogate"):
        BPE.train(["abc"], 300, byte_level=byte_level).encode("a\udc80")


def test_specials_are_a_list_and_not_a_string():
    with pytest.raises(TypeError, match="specials must be a list of strings, got the string '<eos>'"):
        BPE.train(["abc"], 300, "<eos>")
    with pytest.raises(TypeError, match="specials must be non-empty strings, got None"):
        BPE(["a"], [], [None], byte_level=False)


def test_constructor_refuses_tables_that_disagree():
    with pytest.raises(ValueError, match="spelt in GPT-2's signs for bytes, got 'two words'"):
        BPE(["a", "two words"], [])
    with pytest.raises(ValueError, match="'a' twice"):
        BPE(["a", "b", "a"], [], byte_level=False)
    with pytest.raises(ValueError, match=r"got no \['ab'\]"):
        BPE(["a", "b"], [("a", "b")], byte_level=False)
    with pytest.raises(ValueError, match="merges must not spell a special token"):
        BPE(["ab", "a", "b"], [("a", "b")], ["ab"], byte_level=False)
    with pytest.raises(ValueError, match="vocab_size must be from 2 to 3"):
        BPE(["a", "b", "ab"], [("a", "b")], byte_level=False).truncated(1)
