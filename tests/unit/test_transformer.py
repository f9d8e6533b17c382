"""GPT, Encoder and EncoderDecoder against transformers and torch.nn, and against what must be true of them."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertConfig, BertModel, GPT2Config, GPT2LMHeadModel
from transformers.utils import logging

from llmbook import weights
from llmbook.transformer import (
    GPT,
    POSITIONS,
    Cache,
    Encoder,
    EncoderDecoder,
    GPTConfig,
    forward_flops,
    parameter_count,
    record_attention,
)

logging.set_verbosity_error()
logging.disable_progress_bar()

TINY = GPTConfig(vocab_size=31, n_positions=16, n_embd=24, n_layer=2, n_head=3)
SPECIAL = {"bos_token_id": None, "eos_token_id": None}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def ids(batch: int = 3, length: int = 9, seed: int = 1, vocab: int = 31) -> torch.Tensor:
    return torch.randint(0, vocab, (batch, length), generator=generator(seed))


def shaken(model: nn.Module, seed: int = 5) -> nn.Module:
    """Weights away from their symmetric start, so that no bias is 0 and no norm 1."""
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.05 * torch.randn(p.shape, generator=generator(seed)))
    return model.eval()


def gpt2(seed: int = 0, **options) -> GPT2LMHeadModel:
    torch.manual_seed(seed)
    config = GPT2Config(vocab_size=31, n_positions=16, n_embd=24, n_layer=2, n_head=3, **(SPECIAL | options))
    return shaken(GPT2LMHeadModel(config))


def largest(a: torch.Tensor, b: torch.Tensor) -> float:
    return (a - b).abs().max().item()


# ------------------------------------------------------------ equal to transformers and torch


@pytest.mark.parametrize("tied", [True, False])
def test_logits_loss_and_gradients_equal_gpt2(tmp_path, tied):
    theirs = gpt2(tie_word_embeddings=tied)
    theirs.save_pretrained(tmp_path)
    ours = GPT.from_pretrained(tmp_path)
    labels = ids().masked_fill(torch.rand(3, 9, generator=generator()) < 0.3, -100)
    a, b = ours(ids(), labels=labels), theirs(ids(), labels=labels)
    assert largest(a.logits, b.logits) < 1e-5
    assert abs(a.loss - b.loss) < 1e-5
    a.loss.backward()
    b.loss.backward()
    expected = weights.from_gpt2({n: p.grad for n, p in theirs.named_parameters()})
    assert set(expected) == {n for n, _ in ours.named_parameters()}
    for name, p in ours.named_parameters():
        assert largest(p.grad, expected[name]) < 1e-5, name


def test_folders_go_both_ways(tmp_path):
    theirs = gpt2()
    theirs.save_pretrained(tmp_path / "a")
    GPT.from_pretrained(tmp_path / "a").save_pretrained(tmp_path / "b")
    again = GPT2LMHeadModel.from_pretrained(tmp_path / "b")
    for (name, x), (_, y) in zip(theirs.state_dict().items(), again.state_dict().items(), strict=True):
        assert torch.equal(x, y), name
    config = json.loads((tmp_path / "b" / "config.json").read_text())
    assert config["model_type"] == "gpt2"
    assert "positions" not in config
    assert sorted(p.name for p in (tmp_path / "b").iterdir()) == ["config.json", "model.safetensors"]


@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("tied", [True, False])
def test_every_configuration_round_trips(tmp_path, positions, norm_first, tied):
    config = replace(
        TINY, positions=positions, norm_first=norm_first, tie_word_embeddings=tied, n_inner=40, eos_token_id=3
    )
    model = shaken(GPT(config, generator=generator()))
    model.save_pretrained(tmp_path)
    again = GPT.from_pretrained(tmp_path)
    assert again.config == config
    assert torch.equal(model(ids()).logits, again(ids()).logits)
    assert (again.lm_head.weight is again.wte.weight) == tied


def test_transformers_does_not_take_other_models_for_gpt2(tmp_path):
    GPT(replace(TINY, positions="rotary", n_embd=48)).save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "llmbook_gpt"


def test_reads_the_hub_files_with_mask_buffers_and_without_prefix(tmp_path):
    theirs = gpt2()
    theirs.save_pretrained(tmp_path)
    state = {n.removeprefix("transformer."): t for n, t in theirs.state_dict().items() if "lm_head" not in n}
    state |= {f"h.{i}.attn.bias": torch.ones(1, 1, 16, 16).tril() for i in range(2)}
    save_file(state, tmp_path / "model.safetensors")
    assert largest(GPT.from_pretrained(tmp_path)(ids()).logits, theirs(ids()).logits) < 1e-5


@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_encoder_equals_torch(norm_first, activation):
    layer = nn.TransformerEncoderLayer(24, 3, 40, 0.0, activation=activation, batch_first=True, norm_first=norm_first)
    norm = nn.LayerNorm(24) if norm_first else None
    theirs = shaken(nn.TransformerEncoder(layer, 2, norm=norm, enable_nested_tensor=False)).train()
    config = replace(TINY, n_inner=40, activation_function=activation, norm_first=norm_first)
    ours = Encoder(config)
    missing = ours.load_state_dict(weights.from_torch(theirs.state_dict()), strict=False)
    assert not missing.unexpected_keys
    assert all(n.startswith(("wte", "wpe", "ln_e")) for n in missing.missing_keys)
    x = torch.randn(3, 7, 24, generator=generator())
    padding = torch.ones(3, 7).index_put((torch.tensor([0, 0, 2]), torch.tensor([5, 6, 6])), torch.tensor(0.0))
    for mask in (None, padding):
        y, _ = ours.blocks(x, mask)
        z = theirs(x, src_key_padding_mask=None if mask is None else mask == 0)
        scored = (padding == 1)[..., None]
        assert largest(y * scored, z * scored) < 1e-5
        same_gradients(ours, theirs, (y * scored).square().sum(), (z * scored).square().sum())


@pytest.mark.parametrize("norm_first", [True, False])
def test_decoder_equals_torch(norm_first):
    layer = nn.TransformerDecoderLayer(24, 3, 40, 0.0, "gelu", batch_first=True, norm_first=norm_first)
    theirs = shaken(nn.TransformerDecoder(layer, 2, norm=nn.LayerNorm(24) if norm_first else None)).train()
    config = replace(TINY, n_inner=40, activation_function="gelu", norm_first=norm_first, add_cross_attention=True)
    ours = GPT(config)
    assert not ours.load_state_dict(weights.from_torch(theirs.state_dict()), strict=False).unexpected_keys
    x, memory = torch.randn(3, 7, 24, generator=generator()), torch.randn(3, 5, 24, generator=generator(2))
    padding = torch.ones(3, 5).index_put((torch.tensor([1]), torch.tensor([4])), torch.tensor(0.0))
    y, _ = ours.blocks(x, memory=memory, memory_mask=padding)
    causal = nn.Transformer.generate_square_subsequent_mask(7)
    z = theirs(
        x,
        memory,
        tgt_mask=causal,
        tgt_is_causal=True,
        memory_key_padding_mask=torch.zeros(3, 5).masked_fill(padding == 0, -math.inf),
    )
    assert largest(y, z) < 1e-5
    same_gradients(ours, theirs, y.square().sum(), z.square().sum())


@pytest.mark.parametrize("norm_first", [True, False])
def test_encoder_decoder_equals_torchs_transformer(norm_first):
    """Embeddings and head are ours on both sides: torch's has none."""
    options = {"batch_first": True, "norm_first": norm_first, "activation": "gelu"}
    layer = nn.TransformerEncoderLayer(24, 3, 40, 0.0, **options)
    encoder = nn.TransformerEncoder(layer, 2, nn.LayerNorm(24), enable_nested_tensor=False)
    theirs = shaken(nn.Transformer(24, 3, 2, 2, 40, 0.0, custom_encoder=encoder, **options)).train()
    if not norm_first:
        theirs.encoder.norm = theirs.decoder.norm = None
    config = replace(TINY, n_inner=40, activation_function="gelu", norm_first=norm_first)
    ours = shaken(EncoderDecoder(config, generator=generator()))
    for half in ("encoder", "decoder"):
        state = weights.from_torch(getattr(theirs, half).state_dict())
        assert not getattr(ours, half).load_state_dict(state, strict=False).unexpected_keys
    source, labels = ids(3, 6), ids(3, 5, seed=2)
    started = nn.functional.pad(labels[:, :-1], (1, 0))
    causal = nn.Transformer.generate_square_subsequent_mask(5)
    embedded = ours.encoder.embed(source), ours.decoder.embed(started)
    expected = ours.decoder.lm_head(theirs(*embedded, tgt_mask=causal, tgt_is_causal=True))
    assert largest(ours(source, labels=labels).logits, expected) < 1e-5


def same_gradients(ours: nn.Module, theirs: nn.Module, our_loss: torch.Tensor, their_loss: torch.Tensor):
    """Relative to the largest gradient: the losses are sums of squares, of hundreds."""
    for model, loss in ((ours, our_loss), (theirs, their_loss)):
        model.zero_grad()
        loss.backward()
    expected = weights.from_torch({n: p.grad for n, p in theirs.named_parameters()})
    scale = max(g.abs().max().item() for g in expected.values())
    own = dict(ours.named_parameters())
    for name, grad in expected.items():
        assert largest(own[name].grad, grad) < 1e-5 * scale, name


def test_to_torch_undoes_from_torch():
    for layers in (
        nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16), 2, enable_nested_tensor=False),
        nn.TransformerDecoder(nn.TransformerDecoderLayer(8, 2, 16), 2, norm=nn.LayerNorm(8)),
    ):
        state = layers.state_dict()
        back = weights.to_torch(weights.from_torch(state) | {"wte.weight": torch.zeros(1)})
        assert list(back) == list(state)
        assert all(back[n] is state[n] for n in state)


BERT = BertConfig(
    vocab_size=31,
    hidden_size=24,
    num_hidden_layers=2,
    num_attention_heads=3,
    intermediate_size=40,
    max_position_embeddings=16,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
)
LIKE_BERT = replace(
    TINY, n_inner=40, activation_function="gelu", norm_first=False, layer_norm_epsilon=BERT.layer_norm_eps
)


def test_encoder_equals_bert_in_values_and_gradients():
    torch.manual_seed(0)
    theirs = shaken(BertModel(BERT))
    ours = Encoder(LIKE_BERT)
    ours.load_state_dict(weights.from_bert(theirs.state_dict()))
    mask = torch.ones(3, 9, dtype=torch.long)
    mask[1, 6:] = 0
    y, z = ours(ids(), mask), theirs(ids(), attention_mask=mask).last_hidden_state
    assert largest(y[mask == 1], z[mask == 1]) < 1e-5
    target = torch.randn(3, 9, 24, generator=generator())
    ((y * target)[mask == 1]).mean().backward()
    ((z * target)[mask == 1]).mean().backward()
    theirs_grad = {n: p.grad for n, p in theirs.named_parameters() if p.grad is not None}
    segments = theirs_grad["embeddings.token_type_embeddings.weight"]
    expected = weights.from_bert(theirs_grad | {"embeddings.token_type_embeddings.weight": 0 * segments})
    for name, p in ours.named_parameters():
        assert largest(p.grad, expected[name]) < 1e-5, name


def test_bert_takes_our_weights():
    ours = shaken(Encoder(LIKE_BERT, generator=generator()))
    theirs = BertModel(BERT, add_pooling_layer=False).eval()
    theirs.load_state_dict(weights.to_bert(ours.state_dict()))
    assert largest(ours(ids()), theirs(ids()).last_hidden_state) < 1e-5


# ------------------------------------------------------------ what must be true


@settings(deadline=None, max_examples=40)
@given(
    positions=st.sampled_from(POSITIONS),
    norm_first=st.booleans(),
    batch=st.integers(1, 3),
    cuts=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    heads=st.sampled_from([1, 2, 3]),
    seed=st.integers(0, 99),
)
def test_cached_steps_equal_the_full_pass(positions, norm_first, batch, cuts, heads, seed):
    config = GPTConfig(13, 20, 4 * heads, 2, heads, positions=positions, norm_first=norm_first)
    model = shaken(GPT(config, generator=generator(seed)), seed)
    tokens = ids(batch, sum(cuts), seed, vocab=13)
    full, past, parts = model(tokens).logits, None, []
    assert full.shape == (batch, sum(cuts), 13)
    for piece in tokens.split(cuts, dim=1):
        out = model(piece, past_key_values=past, use_cache=True)
        past, parts = out.past_key_values, [*parts, out.logits]
    assert largest(torch.cat(parts, dim=1), full) < 1e-5


@settings(deadline=None, max_examples=30)
@given(cuts=st.lists(st.integers(1, 6), min_size=2, max_size=5), wrong=st.integers(1, 4), seed=st.integers(0, 99))
def test_a_cache_with_room_keeps_what_pairs_keep(cuts, wrong, seed):
    """Appended in place, grown when full, and cut back after tokens that were read in vain."""
    make = generator(seed)
    pieces = [[torch.randn(2, 3, n, 4, generator=make) for _ in "kv"] for n in cuts]
    cache = Cache(*pieces[0])
    for count, piece in enumerate(pieces[1:], 2):
        cache.append(*(torch.full((2, 3, wrong, 4), torch.nan) for _ in "kv"))
        cache.length -= wrong
        found = cache.append(*piece)
        for got, kept, all_of_it in zip(found, cache.tensors, zip(*pieces[:count], strict=True), strict=True):
            assert torch.equal(got, kept)
            assert torch.equal(got, torch.cat(all_of_it, dim=2))


def test_room_is_taken_seldom():
    """100 tokens one by one move the old ones a few times, not 100 times."""
    cache, places = Cache(torch.zeros(1, 1, 1, 2), torch.zeros(1, 1, 1, 2)), set()
    for _ in range(100):
        cache.append(torch.zeros(1, 1, 1, 2), torch.zeros(1, 1, 1, 2))
        places.add(cache.room[0].shape[2])
    assert len(places) <= 7


@settings(deadline=None, max_examples=30)
@given(
    positions=st.sampled_from(POSITIONS),
    norm_first=st.booleans(),
    where=st.integers(0, 8),
    seed=st.integers(0, 99),
)
def test_a_token_changes_no_logits_before_it_and_some_from_it_on(positions, norm_first, where, seed):
    config = replace(TINY, positions=positions, norm_first=norm_first, n_embd=12)
    model = shaken(GPT(config, generator=generator(seed)), seed)
    tokens, changed = ids(seed=seed), ids(seed=seed)
    changed[:, where] = (tokens[:, where] + 1) % 31
    difference = (model(tokens).logits - model(changed).logits).abs().amax(dim=(0, 2))  # (T,)
    assert (difference[:where] == 0).all()
    assert (difference[where:] > 0).all()


def test_an_encoder_looks_both_ways_and_not_at_padding():
    model = shaken(Encoder(TINY, generator=generator()))
    tokens, changed = ids(), ids()
    changed[:, 8] = (tokens[:, 8] + 1) % 31
    assert ((model(tokens) - model(changed)).abs().amax(dim=(0, 2)) > 0).all()
    mask = torch.ones(3, 9)
    mask[:, 8] = 0
    assert torch.equal(model(tokens, mask)[:, :8], model(changed, mask)[:, :8])
    assert largest(model(tokens, mask)[:, :8], model(tokens[:, :8])) < 1e-6


def test_encoder_decoder_reads_the_source_and_only_earlier_labels():
    model = shaken(EncoderDecoder(TINY, generator=generator()))
    source, labels = ids(3, 6), ids(3, 5, seed=2)
    base = model(source, labels=labels)
    assert base.logits.shape == (3, 5, 31)
    changed = labels.clone()
    changed[:, 3] = (labels[:, 3] + 1) % 31
    difference = (model(source, labels=changed).logits - base.logits).abs().amax(dim=(0, 2))
    assert (difference[:4] == 0).all()
    assert difference[4] > 0
    other = source.clone()
    other[:, 5] = (source[:, 5] + 1) % 31
    assert ((model(other, labels=labels).logits - base.logits).abs().amax(dim=(0, 2)) > 0).all()
    started = nn.functional.pad(labels[:, :-1], (1, 0))
    assert torch.equal(model(source, decoder_input_ids=started).logits, base.logits)
    expected = nn.functional.cross_entropy(base.logits.flatten(0, 1), labels.flatten())
    assert torch.equal(base.loss, expected)


def test_encoder_decoder_ignores_padding_and_ignored_labels():
    model = shaken(EncoderDecoder(TINY, generator=generator()))
    source, labels = ids(2, 6), ids(2, 5, seed=2)
    mask = torch.ones(2, 6)
    mask[:, 4:] = 0
    a = model(source, labels=labels, attention_mask=mask)
    b = model(source[:, :4], labels=labels)
    assert largest(a.logits, b.logits) < 1e-5
    short = model(source, labels=labels.index_fill(1, torch.tensor([4]), -100))
    first = nn.functional.cross_entropy(short.logits[:, :4].flatten(0, 1), labels[:, :4].flatten())
    assert abs(short.loss - first) < 1e-6


def test_labels_are_shifted_once():
    model = shaken(GPT(TINY, generator=generator()))
    out = model(ids(), labels=ids())
    by_hand = nn.functional.cross_entropy(out.logits[:, :-1].flatten(0, 1), ids()[:, 1:].flatten())
    assert abs(out.loss - by_hand) < 1e-6


def test_tied_embeddings_are_one_parameter_everywhere():
    model = EncoderDecoder(TINY)
    assert model.encoder.wte.weight is model.decoder.wte.weight is model.decoder.lm_head.weight
    assert GPT(TINY).lm_head.weight.data_ptr() != GPT(TINY).lm_head.weight.data_ptr()
    untied = EncoderDecoder(replace(TINY, tie_word_embeddings=False))
    assert len({id(p) for p in (untied.encoder.wte.weight, untied.decoder.wte.weight)}) == 2


def test_the_start_is_gpt2s():
    config = GPTConfig(vocab_size=500, n_positions=200, n_embd=128, n_layer=8, n_head=4)
    model = GPT(config, generator=generator())
    for name, p in model.named_parameters():
        if p.dim() == 2:
            std = 0.02 / 4 if name.endswith("c_proj.weight") else 0.02  # 4 = √(2 · 8 layers)
            assert abs(p.std() / std - 1) < 0.03, name
        else:
            assert (p == (0.0 if name.endswith("bias") else 1.0)).all(), name
    same = GPT(config, generator=generator())
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), same.parameters(), strict=True))


@pytest.mark.parametrize("cross", [True, False])
def test_what_is_added_to_the_stream_starts_smaller_the_more_is_added(cross):
    """The sublayers' number is 2 a block, and 3 where there is cross-attention: √16 and √24 here."""
    config = GPTConfig(vocab_size=50, n_positions=8, n_embd=128, n_layer=8, n_head=4, add_cross_attention=cross)
    added = [p for n, p in GPT(config, generator=generator()).named_parameters() if n.endswith("c_proj.weight")]
    assert len(added) == (24 if cross else 16)
    for p in added:
        assert abs(p.std() / (0.02 / math.sqrt(len(added))) - 1) < 0.03


def test_dropout_acts_in_training_only():
    model = GPT(replace(TINY, resid_pdrop=0.5, embd_pdrop=0.5, attn_pdrop=0.5), generator=generator())
    assert not torch.equal(model(ids()).logits, model(ids()).logits)
    model.eval()
    assert torch.equal(model(ids()).logits, model(ids()).logits)


@pytest.mark.parametrize("positions", POSITIONS)
def test_recorded_attention_is_what_the_kernel_uses(positions):
    model = shaken(EncoderDecoder(replace(TINY, positions=positions), generator=generator()))
    with record_attention(model) as maps:
        model(ids(3, 6), labels=ids(3, 5))
    shapes = {name: tuple(m.shape) for name, m in maps.items()}
    assert shapes["encoder.h.1.attn"] == (3, 3, 6, 6)
    assert shapes["decoder.h.0.attn"] == (3, 3, 5, 5)
    assert shapes["decoder.h.1.crossattention"] == (3, 3, 5, 6)
    assert all(largest(m.sum(-1), torch.ones(())) < 1e-5 for m in maps.values())
    assert (maps["decoder.h.0.attn"].triu(1) == 0).all()
    attn = model.encoder.h[0].attn
    x = torch.randn(2, 6, 24, generator=generator())
    _, _, v = attn._project(x, None, None, None)
    assert largest(attn.c_proj((attn.weights(x) @ v).transpose(1, 2).flatten(2)), attn(x)[0]) < 1e-6
    assert not attn._forward_hooks


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("positions", ["learned", "rotary"])
@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("cross", [True, False])
def test_parameter_count(tied, positions, norm_first, cross):
    config = replace(
        TINY,
        tie_word_embeddings=tied,
        positions=positions,
        norm_first=norm_first,
        add_cross_attention=cross,
        n_inner=40,
        n_embd=12,
    )
    assert parameter_count(config) == sum(p.numel() for p in GPT(config).parameters())


def test_gpt2_small_has_124_million_parameters():
    assert parameter_count(GPTConfig()) == 124_439_808


@pytest.mark.parametrize("length", [1, 7, 16])
def test_flops_equal_the_counters(length):
    model = GPT(replace(TINY, n_inner=40, attn_pdrop=1e-9))  # with dropout the kernel is two counted products
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(ids(1, length))
    assert counter.get_total_flops() == forward_flops(model.config, length)


# ------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"n_embd": 25}, "n_embd must be a multiple of n_head, got 25 and 3"),
        ({"n_head": 0}, "n_head must be at least 1, got 0"),
        ({"n_layer": 0}, "n_layer must be at least 1"),
        ({"n_inner": 0}, "inner must be at least 1"),
        ({"vocab_size": -1}, "vocab_size must be at least 1"),
        ({"attn_pdrop": 1.0}, r"attn_pdrop must lie in \[0, 1\), got 1.0"),
        ({"positions": "relative"}, "positions must be one of .*, got 'relative'"),
        ({"activation_function": "swish"}, "activation_function must be one of"),
        ({"positions": "rotary", "n_embd": 9}, "even head size .*, got 3"),
    ],
)
def test_configurations_that_cannot_be(options, words):
    with pytest.raises(ValueError, match=words):
        replace(TINY, **options)


@pytest.mark.parametrize(
    ("given_ids", "error", "words"),
    [
        (ids(1, 17), ValueError, "input_ids must end within n_positions = 16, got 17 tokens after 0"),
        (ids() + 31, ValueError, r"input_ids must lie in 0\.\.30, got 33 to 58"),
        (ids() - 40, ValueError, r"input_ids must lie in 0\.\.30, got -"),
        (ids().float(), TypeError, "input_ids must be a tensor of integers .* got torch.float32"),
        ([[1, 2]], TypeError, "input_ids must be a tensor of integers .* got list"),
        (ids()[0], ValueError, r"input_ids must be \(batch, length\), got shape \(9,\)"),
        (ids(1, 0), ValueError, r"input_ids must be \(batch, length\), got shape \(1, 0\)"),
    ],
)
def test_ids_that_cannot_be(given_ids, error, words):
    for model in (GPT(TINY), Encoder(TINY)):
        with pytest.raises(error, match=words):
            model(given_ids)


def test_a_cache_counts_towards_the_length():
    model = GPT(replace(TINY, positions="rotary", n_embd=12))
    past = model(ids(1, 16), use_cache=True).past_key_values
    with pytest.raises(ValueError, match="got 1 tokens after 16"):
        model(ids(1, 1), past_key_values=past)


@pytest.mark.parametrize(
    ("labels", "error", "words"),
    [
        (ids(3, 8), ValueError, r"labels must have the shape of input_ids \(3, 9\), got \(3, 8\)"),
        (ids().int(), TypeError, "labels must be a torch.long tensor, got torch.int32"),
        (ids() + 31, ValueError, "labels must be token ids or -100"),
        (ids().fill_(-100), ValueError, "labels leave nothing to score"),
    ],
)
def test_labels_that_cannot_be(labels, error, words):
    with pytest.raises(error, match=words):
        GPT(TINY)(ids(), labels=labels)
    with pytest.raises(ValueError, match="labels leave nothing to score"):
        GPT(TINY)(ids(2, 1), labels=ids(2, 1))


def test_masks_and_memories_that_cannot_be():
    with pytest.raises(ValueError, match=r"attention_mask must have input_ids' shape \(3, 9\), got \(3, 8\)"):
        Encoder(TINY)(ids(), torch.ones(3, 8))
    with pytest.raises(ValueError, match="attention_mask must leave at least one token in every row"):
        Encoder(TINY)(ids(), torch.zeros(3, 9))
    with pytest.raises(ValueError, match="add_cross_attention"):
        GPT(TINY)(ids(), encoder_hidden_states=torch.zeros(3, 4, 24))
    with pytest.raises(ValueError, match="add_cross_attention"):
        GPT(replace(TINY, add_cross_attention=True))(ids())
    model = EncoderDecoder(TINY)
    with pytest.raises(ValueError, match="either labels or decoder_input_ids"):
        model(ids())
    with pytest.raises(ValueError, match="labels must have"):
        model(ids(), labels=ids(2, 4))


def test_what_a_config_leaves_out_is_gpt2s_own_default(tmp_path):
    GPT(GPTConfig(vocab_size=9, n_positions=8, n_embd=4, n_layer=1, n_head=1)).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    options = json.loads(path.read_text())
    dropouts = ("resid_pdrop", "embd_pdrop", "attn_pdrop")
    path.write_text(json.dumps({name: value for name, value in options.items() if name not in dropouts}))
    ours, theirs = GPT.from_pretrained(tmp_path).config, GPT2Config.from_pretrained(tmp_path)
    for name in dropouts:
        assert getattr(ours, name) == getattr(theirs, name) == 0.1


def test_folders_that_cannot_be_read(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"has no model.safetensors; it holds \[\]"):
        GPT.from_pretrained(tmp_path)
    (tmp_path / "pytest.txt").touch()
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(ValueError, match="only as a pickle"):
        GPT.from_pretrained(tmp_path)
    GPT(TINY).save_pretrained(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no config.json"):
        GPT.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ValueError, match="model_type must be 'gpt2' or 'llama', got 'bert'"):
        GPT.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "gpt2", "scale_attn_by_inverse_layer_idx": true}')
    with pytest.raises(ValueError, match="scale_attn_by_inverse_layer_idx must be False"):
        GPT.from_pretrained(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(FileNotFoundError, match="no folder 'nobody/nothing', and the hub gave none"):
        GPT.from_pretrained("nobody/nothing")


def test_saving_leaves_no_half_files(tmp_path, monkeypatch):
    model = GPT(TINY, generator=generator())
    model.save_pretrained(tmp_path)
    before = (tmp_path / "model.safetensors").read_bytes()

    def full_disk(*_):
        raise OSError("no space left")

    monkeypatch.setattr("os.replace", full_disk)
    with pytest.raises(OSError, match="no space"):
        shaken(model).save_pretrained(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    assert (tmp_path / "model.safetensors").read_bytes() == before


def test_low_precision_and_every_position_scheme():
    for positions in POSITIONS:
        model = GPT(replace(TINY, positions=positions, n_embd=12), generator=generator())
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = model(ids(), labels=ids()).loss
        loss.backward()
        assert math.isfinite(loss.item())
        assert all(p.grad is not None for p in model.parameters())
        assert model.to(torch.float64)(ids()).logits.dtype == torch.float64
