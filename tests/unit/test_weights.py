"""Folders: what transformers accepts is read alike, and what cannot be read says so, in a ValueError, by file."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2LMHeadModel
from transformers.utils import logging

from llmbook import weights
from llmbook.transformer import GPT, GPTConfig

logging.set_verbosity_error()
logging.disable_progress_bar()

TINY = GPTConfig(vocab_size=31, n_positions=16, n_embd=24, n_layer=2, n_head=3)
LLAMA = replace(TINY, positions="rotary", norm="rmsnorm", mlp="swiglu", bias=False, n_inner=40)
IDS = torch.arange(9)[None]
THEIRS = {"vocab_size": 31, "n_positions": 16, "n_embd": 24, "n_layer": 2, "n_head": 3}
THEIRS |= {"bos_token_id": None, "eos_token_id": None}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def saved(path: Path, config: GPTConfig = TINY) -> GPT:
    """A model whose weights all differ from their start, in a folder."""
    model = GPT(config, generator=generator()).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.05 * torch.randn(p.shape, generator=generator(1)))
    model.save_pretrained(path)
    return model


def edit(path: Path, change: Callable[[dict], None]) -> None:
    """Rewrite ``config.json``."""
    options = json.loads((path / "config.json").read_text())
    change(options)
    (path / "config.json").write_text(json.dumps(options))


def edit_weights(path: Path, change: Callable[[dict], None]) -> None:
    state = load_file(path / "model.safetensors")
    change(state)
    save_file(state, path / "model.safetensors", {"format": "pt"})


def same_as_theirs(path: Path) -> GPT:
    ours, theirs = GPT.from_pretrained(path), GPT2LMHeadModel.from_pretrained(path).eval()
    assert (ours(IDS).logits - theirs(IDS).logits).abs().max() < 1e-5
    return ours


# ------------------------------------------------------------ read as transformers reads


@pytest.mark.parametrize("says", [True, None])
def test_a_head_that_differs_from_the_embedding_is_kept(tmp_path, says):
    before = saved(tmp_path, replace(TINY, tie_word_embeddings=False))
    edit(tmp_path, lambda o: o.pop("tie_word_embeddings") if says is None else o.update(tie_word_embeddings=says))
    ours = same_as_theirs(tmp_path)
    assert not ours.config.tie_word_embeddings
    assert torch.equal(ours.lm_head.weight, before.lm_head.weight)
    ours.save_pretrained(tmp_path / "again")
    assert torch.equal(GPT.from_pretrained(tmp_path / "again").lm_head.weight, before.lm_head.weight)


def test_a_head_that_is_the_embedding_stays_tied(tmp_path):
    saved(tmp_path)
    edit_weights(tmp_path, lambda s: s.update({"lm_head.weight": s["transformer.wte.weight"].clone()}))
    ours = same_as_theirs(tmp_path)
    assert ours.lm_head.weight is ours.wte.weight


def test_aliases_of_names(tmp_path):
    saved(tmp_path)
    aliases = {"n_embd": "hidden_size", "n_head": "num_attention_heads", "n_layer": "num_hidden_layers"}
    aliases["n_positions"] = "max_position_embeddings"
    for ours, theirs in aliases.items():
        edit(tmp_path, lambda o, a=ours, b=theirs: o.update({b: o.pop(a)}))
    edit(tmp_path, lambda o: o.update(activation_function="gelu_pytorch_tanh"))
    assert same_as_theirs(tmp_path).config == TINY
    edit(tmp_path, lambda o: o.update(n_head=4))
    with pytest.raises(ValueError, match="num_attention_heads and n_head must agree, got 3 and 4"):
        GPT.from_pretrained(tmp_path)


def test_a_mark_before_the_text(tmp_path):
    saved(tmp_path)
    text = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text("\ufeff" + text, encoding="utf-8")
    assert GPT.from_pretrained(tmp_path).config == TINY


def test_cross_attention_goes_both_ways(tmp_path):
    memory = torch.randn(1, 4, 24, generator=generator(2))
    ours = saved(tmp_path / "ours", replace(TINY, add_cross_attention=True))
    theirs = GPT2LMHeadModel.from_pretrained(tmp_path / "ours").eval()
    given = {"encoder_hidden_states": memory}
    assert (ours(IDS, **given).logits - theirs(IDS, **given).logits).abs().max() < 1e-5
    theirs.save_pretrained(tmp_path / "theirs")
    again = GPT.from_pretrained(tmp_path / "theirs")
    assert torch.equal(again(IDS, **given).logits, ours(IDS, **given).logits)
    names = weights.to_gpt2(ours.state_dict(), tied=True)
    assert names["transformer.h.0.crossattention.q_attn.weight"].shape == (24, 24)
    assert names["transformer.h.0.crossattention.c_attn.weight"].shape == (24, 48)


def test_cross_attention_that_transformers_starts_is_read(tmp_path):
    torch.manual_seed(0)
    options = GPT2Config(**THEIRS, add_cross_attention=True)
    theirs = GPT2LMHeadModel(options).eval()
    theirs.save_pretrained(tmp_path)
    given = {"encoder_hidden_states": torch.randn(1, 4, 24, generator=generator(2))}
    ours = GPT.from_pretrained(tmp_path)
    assert (ours(IDS, **given).logits - theirs(IDS, **given).logits).abs().max() < 1e-5


def test_several_ends_of_text_are_kept(tmp_path):
    saved(tmp_path)
    edit(tmp_path, lambda o: o.update(eos_token_id=[3, 5]))
    assert GPT.from_pretrained(tmp_path).config.eos_token_id == [3, 5]


# ------------------------------------------------------------ what cannot be read says why


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"n_head": 5}, "n_embd must be a multiple of n_head, got 24 and 5"),
        ({"n_layer": 3}, r"the weights lack h\.2\..* and 8 more, which the configuration has"),
        ({"n_layer": 1}, r"the weights hold h\.1\..* and 8 more, which the configuration doesn't have"),
        ({"vocab_size": 32}, r"wte.weight must be \(32, 24\) by the configuration, got \(31, 24\)"),
        ({"n_positions": 8}, r"wpe.weight must be \(8, 24\)"),
        ({"n_embd": 48}, r"must be .* by the configuration"),
        ({"n_inner": 40}, r"h\.0\.mlp\.c_fc\.weight must be \(40, 24\)"),
        ({"n_embd": "24"}, "n_embd must be int, got '24'"),
        ({"attn_pdrop": "0.1"}, r"attn_pdrop must be float, got '0\.1'"),
        ({"attn_pdrop": 2}, r"attn_pdrop must lie in \[0, 1\)"),
        ({"n_layer": None}, "n_layer must be int, got None"),
        ({"n_layer": True}, "n_layer must be int, got True"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings must be bool"),
        ({"activation_function": ["gelu"]}, "activation_function must be str"),
        ({"activation_function": "mish"}, "activation_function must be one of"),
        ({"model_type": "gpt_neo"}, "model_type must be 'gpt2' or 'llama', got 'gpt_neo'"),
        ({"model_type": None}, "model_type must be"),
        ({"scale_attn_weights": False}, "scale_attn_weights must be True, got False"),
        ({"add_cross_attention": True}, "the weights lack .*cross"),
    ],
)
def test_options_that_do_not_fit(tmp_path, change, words):
    saved(tmp_path)
    edit(tmp_path, lambda o: o.update(change))
    with pytest.raises(ValueError, match=words) as caught:
        GPT.from_pretrained(tmp_path)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"num_key_value_heads": 2}, "n_head must be a multiple of kv_heads, got 3 and 2"),
        ({"num_key_value_heads": 1}, r"h\.0\.attn\.c_attn\.weight must be \(40, 24\)"),
        ({"num_attention_heads": "3"}, "n_head must be int, got '3'"),
        ({"hidden_size": None}, "n_embd must be int, got None"),
        ({"head_dim": 16}, "head_dim must be hidden_size / num_attention_heads, got 16"),
        ({"hidden_act": "gelu"}, "hidden_act must be silu, got 'gelu'"),
        ({"attention_bias": True}, "attention_bias must be False, got True"),
        ({"rope_parameters": {"rope_type": "llama3", "factor": 8.0}}, "rope_type must be 'default', got 'llama3'"),
        ({"rope_parameters": "default"}, "rope_parameters must be an object, got 'default'"),
        ({"rope_parameters": {"rope_theta": "1e4"}}, "rope_theta must be float, got '1e4'"),
    ],
)
def test_options_of_a_llama_that_do_not_fit(tmp_path, change, words):
    saved(tmp_path, LLAMA)
    edit(tmp_path, lambda o: o.update(change))
    with pytest.raises(ValueError, match=words):
        GPT.from_pretrained(tmp_path)


def test_a_llama_without_sizes_or_layers(tmp_path):
    saved(tmp_path, LLAMA)
    edit_weights(tmp_path, lambda s: s.pop("model.layers.1.self_attn.k_proj.weight"))
    with pytest.raises(ValueError, match=r"the weights lack layers\.1\.self_attn\.k_proj\.weight"):
        GPT.from_pretrained(tmp_path)
    edit(tmp_path, lambda o: o.pop("hidden_size"))
    with pytest.raises(ValueError, match="a Llama's configuration must have hidden_size"):
        GPT.from_pretrained(tmp_path)


def test_older_names_of_the_rotary_base(tmp_path):
    model = saved(tmp_path, replace(LLAMA, rope_theta=700.0))
    edit(tmp_path, lambda o: o.update(rope_parameters=None, rope_theta=700.0, rope_scaling=None))
    assert torch.equal(GPT.from_pretrained(tmp_path)(IDS).logits, model(IDS).logits)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{", "config.json is no JSON"),
        (b"", "config.json is no JSON"),
        (b'{"a": "\xff\xfe"}', "config.json is no JSON"),
        (b'["gpt2"]', "config.json must hold an object .* got list"),
    ],
)
def test_configurations_that_are_no_json(tmp_path, content, words):
    saved(tmp_path)
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ValueError, match=words):
        GPT.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
            "is a Git LFS pointer, not the weights",
        ),
        (b"", "model.safetensors is no safetensors file, or only part of one"),
        (b"<html>not found</html>", "model.safetensors is no safetensors file"),
        (None, "model.safetensors is no safetensors file, or only part of one"),
    ],
)
def test_files_that_hold_no_weights(tmp_path, content, words):
    saved(tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100] if content is None else content)
    with pytest.raises(ValueError, match=words):
        GPT.from_pretrained(tmp_path)


@pytest.mark.parametrize("name", ["transformer.wte.weight", "transformer.h.1.attn.c_attn.weight"])
def test_weights_that_are_missing_too_many_or_no_numbers(tmp_path, name):
    saved(tmp_path)
    edit_weights(tmp_path, lambda s: s.update({name: s[name].to(torch.int8)}))
    with pytest.raises(ValueError, match=r"weight must hold floating-point numbers, got torch\.int8"):
        GPT.from_pretrained(tmp_path)
    edit_weights(tmp_path, lambda s: s.pop(name))
    with pytest.raises(ValueError, match=f"the weights lack {name.removeprefix('transformer.')}"):
        GPT.from_pretrained(tmp_path)
    saved(tmp_path)
    edit_weights(tmp_path, lambda s: s.update({"transformer.extra": torch.zeros(1)}))
    with pytest.raises(ValueError, match="the weights hold extra, which the configuration doesn't have"):
        GPT.from_pretrained(tmp_path)


def test_half_of_a_cross_attention(tmp_path):
    saved(tmp_path, replace(TINY, add_cross_attention=True))
    edit_weights(tmp_path, lambda s: s.pop("transformer.h.0.crossattention.c_attn.weight"))
    with pytest.raises(ValueError, match=r"the weights lack h\.0\.crossattention\.c_attn\.weight"):
        GPT.from_pretrained(tmp_path)


def test_weights_in_several_files(tmp_path):
    GPT2LMHeadModel(GPT2Config(**THEIRS)).save_pretrained(tmp_path, max_shard_size=20_000)
    with pytest.raises(ValueError, match="holds its weights sharded over several files"):
        GPT.from_pretrained(tmp_path)
    (tmp_path / "model.safetensors.index.json").unlink()
    with pytest.raises(ValueError, match="sharded"):
        GPT.from_pretrained(tmp_path)
