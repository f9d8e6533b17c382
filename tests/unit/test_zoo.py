"""Shared models: one recipe, one folder, whole or not there, and readable by transformers."""

import dataclasses
import json

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from llmbook import zoo
from llmbook.bpe import BPE
from llmbook.transformer import GPT
from llmbook.zoo import Recipe

TINY = Recipe("tiny", vocab_size=300, n_embd=8, n_layer=1, n_head=2, n_positions=16, block_size=16, batch_size=2,
              max_steps=3, warmup_steps=1)  # fmt: skip


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LLMBOOK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def texts(monkeypatch):
    """Three short texts in the place of Wikipedia."""
    said = (
        "the cat saw the dog . the dog saw the cat .\n" * 20,
        "the bird sang to the cat .\n" * 80,
        "no one reads me",
    )
    parts = tuple((text,) for text in said)
    monkeypatch.setattr(zoo, "wikipedia_texts", lambda: parts)
    return said


def fill(recipe, folder):
    """A maker that trains nothing."""
    (folder / "config.json").write_text(recipe.name)
    (folder / "model.safetensors").write_bytes(b"weights")


def never(recipe, folder):
    raise AssertionError("the model was there already")


# ------------------------------------------------------------ cache


def test_made_once(cache):
    folder = zoo.kept(TINY, fill)
    assert folder.parent == cache
    assert folder.name == f"tiny-{zoo.key(TINY)}"
    assert zoo.kept(TINY, never) == folder
    assert [path.name for path in cache.iterdir()] == [folder.name]


def test_another_recipe_or_code_is_another_model(monkeypatch):
    keys = {zoo.key(TINY)}
    for field in dataclasses.fields(TINY):
        value = getattr(TINY, field.name)
        keys.add(zoo.key(dataclasses.replace(TINY, **{field.name: f"{value}s" if field.name == "name" else value * 2})))
    assert len(keys) == 1 + len(dataclasses.fields(TINY)) - 1  # a seed of 0, doubled, is itself
    keys.add(zoo.key(dataclasses.replace(TINY, seed=1)))
    monkeypatch.setattr(zoo, "CODE", zoo.CODE[:-1])
    assert len(keys | {zoo.key(TINY)}) == len(keys) + 1


def test_the_code_that_a_key_covers_is_there():
    root = zoo.Path(zoo.__file__).parent
    assert all((root / part).exists() for part in zoo.CODE)


@pytest.mark.parametrize("harm", ["cut", "altered", "gone", "no manifest", "broken manifest", "no such manifest"])
def test_a_damaged_model_is_made_again(cache, harm):
    folder = zoo.kept(TINY, fill)
    weights, manifest = folder / "model.safetensors", folder / zoo.MANIFEST
    if harm == "cut":
        weights.write_bytes(b"wei")
    elif harm == "altered":
        weights.write_bytes(b"weightz")
    elif harm == "gone":
        weights.unlink()
    elif harm == "no manifest":
        manifest.unlink()
    else:
        manifest.write_text("{" if harm == "broken manifest" else "[1]")
    assert not zoo.is_sound(folder)
    assert zoo.kept(TINY, fill) == folder
    assert weights.read_bytes() == b"weights"
    assert zoo.is_sound(folder)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_interrupted_run_leaves_nothing(cache, error):
    def breaks(recipe, folder):
        fill(recipe, folder)
        raise error

    with pytest.raises(error):
        zoo.kept(TINY, breaks)
    assert list(cache.iterdir()) == []


def test_another_process_may_be_quicker(cache):
    """Its folder stays, ours goes."""

    def slower(recipe, folder):
        fill(recipe, folder)
        zoo.kept(TINY, lambda recipe, aside: (fill(recipe, aside), (aside / "first").write_text("me")))

    folder = zoo.kept(TINY, slower)
    assert (folder / "first").read_text() == "me"
    assert [path.name for path in cache.iterdir()] == [folder.name]


def test_where_the_cache_is(monkeypatch, tmp_path):
    monkeypatch.delenv("LLMBOOK_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert zoo.cache_folder() == tmp_path / "llmbook"


def test_an_unknown_name():
    with pytest.raises(ValueError, match="name must be one of wikipedia-gpt, got 'gpt-5'"):
        zoo.pretrained("gpt-5")


# ------------------------------------------------------------ a trained model


def test_transformers_reads_it(cache, texts):
    folder = zoo.kept(TINY, zoo.train)
    tokenizer, theirs = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    assert type(theirs).__name__ == "GPT2LMHeadModel"
    text = "the cat sang , “naïvely” ."
    bpe = BPE.load(folder / "tokenizer.json")
    assert tokenizer.encode(text) == bpe.encode(text)
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.eos_token == tokenizer.pad_token == zoo.EOS
    assert set(tokenizer(text)) == {"input_ids", "attention_mask"}  # GPT-2 would add the embedding of a token's type
    ids = torch.tensor([bpe.encode("the cat saw")])
    with torch.no_grad():
        torch.testing.assert_close(theirs.eval()(ids).logits, GPT.from_pretrained(folder)(ids).logits)
    losses = json.loads((folder / "losses.json").read_text())
    assert len(losses["train"]) == TINY.max_steps
    assert losses["validation"][-1]["step"] == TINY.max_steps


def test_the_same_recipe_gives_the_same_bytes(texts, tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        zoo.train(TINY, tmp_path / name)
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert "model.safetensors" in files
    assert all((tmp_path / "a" / f).read_bytes() == (tmp_path / "b" / f).read_bytes() for f in files)


def test_encode_closes_each_text(cache, texts, caplog):
    tokenizer = AutoTokenizer.from_pretrained(zoo.kept(TINY, zoo.train))
    with caplog.at_level("WARNING"):
        zoo.encode(tokenizer, ["the cat " * 50])
    assert not caplog.records  # that the text is longer than the model's window is as it should be
    ids = zoo.encode(tokenizer, ["the cat", "the dog"])
    assert (ids == tokenizer.eos_token_id).sum() == 2
    assert ids[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(ids, skip_special_tokens=True) == "the catthe dog"


def test_the_parts_of_wikipedia_share_no_article():
    parts = zoo.wikipedia_texts()
    assert [len(part) for part in parts] == [85, 10, 11]
    assert len(set().union(*parts)) == 106


TINY_TOY = zoo.ToyRecipe("tiny-toy", n_embd=8, n_inner=16, n_layer=1, n_head=2, batch_size=4, max_steps=3,
                         warmup_steps=1)  # fmt: skip


def test_the_gpt_that_reads_toyworld(cache, monkeypatch):
    monkeypatch.setattr(zoo, "ToyRecipe", lambda seed: dataclasses.replace(TINY_TOY, seed=seed))
    first, again, other = zoo.toyworld_gpt(0), zoo.toyworld_gpt(0), zoo.toyworld_gpt(1)
    assert not first.training
    assert first.config.positions == "rotary"
    assert torch.equal(first.wte.weight, again.wte.weight)
    assert not torch.equal(first.wte.weight, other.wte.weight)
    assert len(list(cache.iterdir())) == 2


def test_it_learns(tmp_path):
    from llmbook.evaluation import cross_entropy
    from llmbook.toyworld import ToyWorld
    from llmbook.training import row_logprobs

    recipe = dataclasses.replace(TINY_TOY, max_steps=60, learning_rate=3e-2)
    zoo.train_toyworld(recipe, tmp_path)
    world = ToyWorld("small")
    rows = [world.encode(["<bos>", *story.tokens]) for story in world.stories(20, 10**6)]
    loss = cross_entropy(row_logprobs(GPT.from_pretrained(tmp_path), rows))
    assert loss < 0.6 * torch.tensor(float(len(world.vocabulary))).log().item()
