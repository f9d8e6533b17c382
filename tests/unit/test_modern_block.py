"""What changed since GPT-2, against the libraries: Llama, Qwen 3 (normalised queries and keys), Mixtral (experts)."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func
from transformers.utils import logging

from llmbook import weights
from llmbook.transformer import (
    GPT,
    Encoder,
    EncoderDecoder,
    GPTConfig,
    balance_loss,
    cache_numbers,
    forward_flops,
    parameter_count,
    record_attention,
    record_routing,
)

logging.set_verbosity_error()
logging.disable_progress_bar()

LLAMA = GPTConfig(
    vocab_size=31,
    n_positions=32,
    n_embd=24,
    n_layer=2,
    n_head=6,
    n_inner=40,
    positions="rotary",
    norm="rmsnorm",
    mlp="swiglu",
    bias=False,
    n_kv_head=2,
)
THEIRS = {
    "vocab_size": 31,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "max_position_embeddings": 32,
    "rms_norm_eps": 1e-5,
    "bos_token_id": None,
    "eos_token_id": None,
}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def ids(batch: int = 3, length: int = 9, seed: int = 1) -> torch.Tensor:
    return torch.randint(0, 31, (batch, length), generator=generator(seed))


def shaken(model: nn.Module, seed: int = 5) -> nn.Module:
    """Weights away from their start, so that no gain is 1 and the logits say something."""
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=generator(seed)))
    return model.eval()


def largest(a: torch.Tensor, b: torch.Tensor) -> float:
    return (a - b).abs().max().item()


def same_model(ours: nn.Module, theirs: nn.Module, translate) -> None:
    """Logits, loss and every gradient to 1e-5."""
    a, b = ours(ids(), labels=ids()), theirs(ids(), labels=ids())
    assert largest(a.logits, b.logits) < 1e-5
    assert abs(a.loss - b.loss) < 1e-5
    a.loss.backward()
    b.loss.backward()
    expected = translate({n: p.grad for n, p in theirs.named_parameters()})
    assert set(expected) == {n for n, _ in ours.named_parameters()}
    for name, p in ours.named_parameters():
        assert largest(p.grad, expected[name]) < 1e-5, name


# ------------------------------------------------------------ equal to the libraries


@pytest.mark.parametrize("kv_heads", [1, 2, 3, 6])
@pytest.mark.parametrize(("theta", "tied"), [(10_000.0, True), (500_000.0, False)])
def test_the_switches_together_are_llama(tmp_path, kv_heads, theta, tied):
    rope = {"rope_type": "default", "rope_theta": theta}
    options = LlamaConfig(**THEIRS, num_key_value_heads=kv_heads, tie_word_embeddings=tied, rope_parameters=rope)
    torch.manual_seed(0)
    theirs = shaken(LlamaForCausalLM(options))
    theirs.save_pretrained(tmp_path)
    ours = GPT.from_pretrained(tmp_path)
    assert ours.config == replace(LLAMA, n_kv_head=kv_heads, rope_theta=theta, tie_word_embeddings=tied)
    same_model(ours, theirs, weights.from_llama)


def test_llama_reads_what_we_write(tmp_path):
    for tied in (True, False):
        ours = shaken(GPT(replace(LLAMA, tie_word_embeddings=tied, rope_theta=700.0), generator=generator()))
        ours.save_pretrained(tmp_path)
        theirs = LlamaForCausalLM.from_pretrained(tmp_path).eval()
        assert largest(ours(ids()).logits, theirs(ids()).logits) < 1e-5
        assert (theirs.lm_head.weight is theirs.model.embed_tokens.weight) == tied


def test_from_state_takes_a_llama_without_a_folder():
    torch.manual_seed(0)
    theirs = shaken(LlamaForCausalLM(LlamaConfig(**THEIRS, num_key_value_heads=2, tie_word_embeddings=True)))
    ours = GPT.from_state(theirs.config.to_dict(), theirs.state_dict())
    assert ours.lm_head.weight is ours.wte.weight
    assert not ours.training
    assert largest(ours(ids()).logits, theirs(ids()).logits) < 1e-5


def test_normalised_queries_and_keys_are_qwens():
    torch.manual_seed(0)
    options = Qwen3Config(**THEIRS, num_key_value_heads=2, head_dim=4, tie_word_embeddings=False)
    theirs = shaken(Qwen3ForCausalLM(options))
    ours = GPT(replace(LLAMA, qk_norm=True, tie_word_embeddings=False))
    ours.load_state_dict(weights.from_llama(theirs.state_dict()))
    same_model(ours, theirs, weights.from_llama)


def from_mixtral(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Mixtral keeps its experts' matrices in two tensors, (E, 2 · inner, C) and (E, C, inner)."""
    ours = {}
    for name, tensor in state.items():
        head, _, part = name.partition(".mlp.")
        if part == "experts.gate_up_proj":
            for e, both in enumerate(tensor):
                gate, up = both.chunk(2)
                ours |= {f"{head}.mlp.experts.{e}.c_gate.weight": gate, f"{head}.mlp.experts.{e}.c_fc.weight": up}
        elif part == "experts.down_proj":
            ours |= {f"{head}.mlp.experts.{e}.c_proj.weight": down for e, down in enumerate(tensor)}
        else:
            ours[f"{head}.mlp.router.weight" if part == "gate.weight" else name] = tensor
    return weights.from_llama(ours)


@pytest.mark.parametrize("used", [1, 2, 4])
def test_experts_are_mixtrals(used):
    rope = {"rope_type": "default", "rope_theta": 10_000.0}  # Mixtral's own default is 10⁶
    experts = {"num_local_experts": 4, "num_experts_per_tok": used}
    options = MixtralConfig(**THEIRS, num_key_value_heads=2, rope_parameters=rope, **experts)
    torch.manual_seed(0)
    theirs = shaken(MixtralForCausalLM(options))
    ours = GPT(replace(LLAMA, n_expert=4, n_expert_used=used, tie_word_embeddings=False))
    ours.load_state_dict(from_mixtral(theirs.state_dict()))
    same_model(ours, theirs, from_mixtral)
    with record_routing(ours) as scores:
        ours(ids())
    routed = theirs(ids(), output_router_logits=True).router_logits
    assert list(scores) == ["h.0.mlp", "h.1.mlp"]
    for mine, other in zip(scores.values(), routed, strict=True):
        assert largest(mine, other) < 1e-5
        balance = load_balancing_loss_func((other,), 4, used)  # a sum over the choices, where ours is their mean
        assert abs(balance_loss(mine, used) - balance / used) < 1e-5


# ------------------------------------------------------------ what must be true


def test_the_balance_is_one_for_an_even_load_and_the_number_of_experts_for_one_that_gets_all():
    even = 10.0 * torch.eye(4).repeat(5, 1)  # each token is sure of one expert, each expert has as many
    assert abs(balance_loss(even, 1) - 1) < 1e-5
    assert abs(balance_loss(even.view(4, 5, 4), 1) - 1) < 1e-5
    collapsed = torch.tensor([50.0, 0.0, 0.0, 0.0]).repeat(20, 1)
    assert abs(balance_loss(collapsed, 1) - 4) < 1e-5
    scores = collapsed.clone().requires_grad_()
    balance_loss(scores / 50, 1).backward()
    assert (scores.grad[:, 0] > 0).all()  # descent takes from the crowded expert


def test_a_token_that_no_expert_shares_gets_its_own_experts_output():
    config = replace(LLAMA, n_expert=3, n_expert_used=1)
    layer = shaken(GPT(config, generator=generator())).h[0].mlp
    x = torch.randn(2, 5, 24, generator=generator())
    chosen = layer.router(x).argmax(-1)
    by_hand = torch.stack([layer.experts[e](v) for e, v in zip(chosen.flatten(), x.view(10, 24), strict=True)])
    assert largest(layer(x), by_hand.view_as(x)) < 1e-6


@settings(deadline=None, max_examples=40)
@given(
    groups=st.sampled_from([1, 2, 3, 6]),
    qk_norm=st.booleans(),
    experts=st.sampled_from([0, 3]),
    cuts=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    positions=st.sampled_from(["rotary", "alibi", "learned"]),
    seed=st.integers(0, 99),
)
def test_cached_steps_equal_the_full_pass(groups, qk_norm, experts, cuts, positions, seed):
    config = replace(LLAMA, n_kv_head=6 // groups, qk_norm=qk_norm, n_expert=experts, positions=positions)
    model = shaken(GPT(config, generator=generator(seed)), seed)
    tokens = ids(2, sum(cuts), seed)
    full, past, parts = model(tokens).logits, None, []
    for piece in tokens.split(cuts, dim=1):
        out = model(piece, past_key_values=past, use_cache=True)
        past, parts = out.past_key_values, [*parts, out.logits]
    assert largest(torch.cat(parts, dim=1), full) < 2e-5
    kept = sum(t[0].numel() for pair in past for t in pair)
    assert kept == cache_numbers(config, sum(cuts)) == 2 * 2 * (6 // groups) * 4 * sum(cuts)


@pytest.mark.parametrize("kv_heads", [1, 2, 6])
@pytest.mark.parametrize("qk_norm", [True, False])
def test_recorded_attention_is_what_the_kernel_uses(kv_heads, qk_norm):
    config = replace(LLAMA, n_kv_head=kv_heads, qk_norm=qk_norm, positions="none")
    model = shaken(EncoderDecoder(config, generator=generator()))
    with record_attention(model) as maps:
        model(ids(3, 6), labels=ids(3, 5))
    assert maps["decoder.h.1.crossattention"].shape == (3, 6, 5, 6)
    attn = model.encoder.h[0].attn
    x = torch.randn(2, 6, 24, generator=generator())
    _, _, v = attn._project(x, None, None, None)
    values = v.repeat_interleave(6 // kv_heads, dim=1)
    assert largest(attn.c_proj((attn.weights(x) @ values).transpose(1, 2).flatten(2)), attn(x)[0]) < 1e-6
    memory = torch.randn(2, 4, 24, generator=generator(2))
    both = torch.cat([x, memory], dim=1)  # cross-attention is attention whose keys are the memory's
    q, _, _ = attn._project(x, None, None, None)
    _, k, v = (t[:, :, 6:] for t in attn._project(both, None, None, None))
    q2, k2, v2 = attn._project(x, memory, None, None)
    assert max(largest(q, q2), largest(k, k2), largest(v, v2)) < 1e-6


@settings(deadline=None, max_examples=60)
@given(
    norm=st.sampled_from(["layernorm", "rmsnorm"]),
    mlp=st.sampled_from(["plain", "swiglu"]),
    kv_heads=st.sampled_from([None, 1, 3]),
    bias=st.booleans(),
    qk_norm=st.booleans(),
    experts=st.sampled_from([0, 1, 4]),
    positions=st.sampled_from(["rotary", "learned"]),
    cross=st.booleans(),
    norm_first=st.booleans(),
)
def test_parameters_and_round_trips_of_every_mixture(tmp_path_factory, norm, mlp, kv_heads, experts, cross, **rest):
    config = replace(
        LLAMA,
        **rest,
        norm=norm,
        mlp=mlp,
        n_kv_head=kv_heads,
        n_expert=experts,
        n_expert_used=1,
        add_cross_attention=cross,
    )
    model = shaken(GPT(config, generator=generator()))
    assert parameter_count(config) == sum(p.numel() for p in model.parameters())
    folder = tmp_path_factory.mktemp("model")
    model.save_pretrained(folder)
    again = GPT.from_pretrained(folder)
    memory = {"encoder_hidden_states": torch.ones(3, 4, 24)} if cross else {}
    assert torch.equal(model(ids(), **memory).logits, again(ids(), **memory).logits)
    kind = json.loads((folder / "config.json").read_text())["model_type"]
    like = (norm, mlp, rest["bias"], rest["positions"], rest["qk_norm"], experts, rest["norm_first"])
    expected = {
        ("rmsnorm", "swiglu", False, "rotary", False, 0, True): "llmbook_gpt" if cross else "llama",
        ("layernorm", "plain", True, "learned", False, 0, True): "gpt2" if kv_heads is None else "llmbook_gpt",
    }
    assert kind == expected.get(like, "llmbook_gpt")


@pytest.mark.parametrize("options", [{}, {"n_kv_head": 1}, {"n_expert": 4, "n_expert_used": 2}, {"mlp": "plain"}])
def test_flops_equal_the_counters(options):
    model = GPT(replace(LLAMA, attn_pdrop=1e-9, **options), generator=generator())  # two counted products, not a kernel
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(ids(1, 16))
    assert counter.get_total_flops() == forward_flops(model.config, 16)


def test_a_gated_layer_is_as_large_as_the_plain_one_by_default():
    config = GPTConfig(vocab_size=31, n_embd=48, n_head=4, bias=False)
    gated = replace(config, mlp="swiglu")
    assert gated.inner == 128
    assert parameter_count(gated) == parameter_count(config)


def test_an_encoder_takes_the_switches_too():
    model = shaken(Encoder(LLAMA, generator=generator()))
    assert model(ids()).shape == (3, 9, 24)
    model = GPT(LLAMA, generator=generator())
    assert all((p == 1).all() for n, p in model.named_parameters() if p.dim() == 1)
    assert not any(n.endswith("bias") for n, _ in model.named_parameters())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"norm": "batchnorm"}, "norm must be one of"),
        ({"mlp": "geglu"}, "mlp must be one of"),
        ({"n_kv_head": 4}, "n_head must be a multiple of kv_heads, got 6 and 4"),
        ({"n_kv_head": 0}, "kv_heads must be at least 1, got 0"),
        ({"rope_theta": 1.0}, "rope_theta above 1, got 4 and 1.0"),
        ({"n_expert": 4, "n_expert_used": 5}, r"n_expert_used must lie in 1\.\.4, got 5"),
        ({"n_expert": 4, "n_expert_used": 0}, r"n_expert_used must lie in 1\.\.4, got 0"),
        ({"layer_norm_epsilon": -1e-5}, "layer_norm_epsilon must not be negative"),
        ({"initializer_range": float("nan")}, "initializer_range must not be negative, got nan"),
    ],
)
def test_configurations_that_cannot_be(options, words):
    with pytest.raises(ValueError, match=words):
        replace(LLAMA, **options)


@pytest.mark.parametrize(
    "options", [{"n_embd": "24"}, {"n_layer": 2.0}, {"bias": 1}, {"n_head": True}, {"positions": 3}, {"n_inner": "40"}]
)
def test_options_of_another_type(options):
    ((name, value),) = options.items()
    with pytest.raises(TypeError, match=rf"{name} must be .*, got {value!r}"):
        replace(LLAMA, **options)
