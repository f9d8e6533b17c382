"""Low-rank adaptation: equal to a dense layer with the update in its weight, and to peft where that is installed."""

import copy
import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM
from transformers.pytorch_utils import Conv1D

from llmbook import lora
from llmbook.lora import LoRA, add_lora, load_adapter, merge_lora, remove_lora, save_adapter, trainable_parameters
from llmbook.training import TrainingArguments, fit
from llmbook.transformer import GPT, GPTConfig

V = 40
GPT2 = GPT2Config(
    vocab_size=V, n_positions=32, n_embd=16, n_layer=2, n_head=2, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0,
    bos_token_id=0, eos_token_id=0,
)  # fmt: skip
LLAMA = LlamaConfig(
    vocab_size=V, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
    num_key_value_heads=1, max_position_embeddings=32, bos_token_id=0, eos_token_id=0,
)  # fmt: skip
TARGETS = {"gpt2": ["c_attn"], "llama": ["q_proj", "v_proj"], "ours": ["c_attn", "c_fc"]}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def new_model(kind):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if kind == "ours":
            return GPT(GPTConfig(vocab_size=V, n_positions=32, n_embd=16, n_layer=2, n_head=2)).eval()
        return (GPT2LMHeadModel(GPT2) if kind == "gpt2" else LlamaForCausalLM(LLAMA)).eval()


@pytest.fixture(params=TARGETS)
def kind(request):
    return request.param


@pytest.fixture
def ids():
    return torch.randint(V, (3, 12), generator=generator())


def adapted(kind, r=4, alpha=8, stir=True):
    """A model with an adapter; stirred, B is no longer zero."""
    model = new_model(kind)
    add_lora(model, TARGETS[kind], r=r, alpha=alpha, generator=generator())
    if stir:
        for _, layer in lora.layers(model):
            nn.init.normal_(layer.lora_B, 0, 0.1, generator=generator(1))
    return model


def layer_of(kind, d_in, d_out):
    layer = nn.Linear(d_in, d_out) if kind == "Linear" else Conv1D(d_out, d_in)
    with torch.no_grad():
        for p in layer.parameters():
            p.normal_(generator=generator(d_in))
    return layer.double()


# ------------------------------------------------------------ one layer, against a dense one


@pytest.mark.parametrize("kind", ["Linear", "Conv1D"])
@given(d_in=st.integers(1, 7), d_out=st.integers(1, 7), alpha=st.floats(0.5, 30), data=st.data())
def test_output_and_gradients_are_those_of_the_dense_layer(kind, d_in, d_out, alpha, data):
    """With W' = W + (α/r) B A and G its gradient: A's is (α/r) Bᵀ G and B's is (α/r) G Aᵀ, by the chain rule."""
    r = data.draw(st.integers(1, min(d_in, d_out)))
    layer = LoRA(layer_of(kind, d_in, d_out), r, alpha, generator=generator())
    with torch.no_grad():
        layer.lora_B.normal_(generator=generator(2))
    x = torch.randn(5, d_in, dtype=torch.float64, generator=generator(3), requires_grad=True)
    upstream = torch.randn(5, d_out, dtype=torch.float64, generator=generator(4))
    W = layer.base.weight.T if kind == "Conv1D" else layer.base.weight  # (out, in)
    dense = (W + alpha / r * layer.lora_B @ layer.lora_A).detach().requires_grad_()
    wanted = nn.functional.linear(x, dense, layer.base.bias)
    torch.testing.assert_close(layer(x), wanted)
    torch.testing.assert_close(layer.merged()(x), wanted)
    G, x_wanted = torch.autograd.grad(wanted, [dense, x], upstream)
    A_grad, B_grad, x_grad = torch.autograd.grad(layer(x), [layer.lora_A, layer.lora_B, x], upstream)
    torch.testing.assert_close(A_grad, alpha / r * layer.lora_B.T @ G)
    torch.testing.assert_close(B_grad, alpha / r * G @ layer.lora_A.T)
    torch.testing.assert_close(x_grad, x_wanted)


def test_the_update_has_rank_r():
    layer = LoRA(layer_of("Linear", 12, 9), 3, 6, generator=generator())
    nn.init.normal_(layer.lora_B, generator=generator(1))
    assert torch.linalg.matrix_rank(layer.delta()) == 3


def test_start_is_peft_s():
    """A within ±1/√in, filling it; B zero."""
    layer = LoRA(nn.Linear(400, 30), 8, 16, generator=generator())
    assert layer.lora_A.shape == (8, 400)
    assert layer.lora_A.abs().max().item() == pytest.approx(1 / 20, rel=0.01)
    assert layer.lora_A.std().item() == pytest.approx(1 / 20 / 3**0.5, rel=0.05)
    assert not layer.lora_B.any()


# ------------------------------------------------------------ a whole model


def test_a_model_starts_as_it_was(kind, ids):
    torch.testing.assert_close(adapted(kind, stir=False)(ids).logits, new_model(kind)(ids).logits)


def test_an_adapter_changes_the_output(kind, ids):
    assert (adapted(kind)(ids).logits - new_model(kind)(ids).logits).abs().max() > 1e-3


def test_merged_and_removed(kind, ids):
    with torch.no_grad():
        wanted = adapted(kind)(ids).logits
        merged = merge_lora(adapted(kind))
        torch.testing.assert_close(merged(ids).logits, wanted)
        torch.testing.assert_close(remove_lora(adapted(kind))(ids).logits, new_model(kind)(ids).logits)
    assert not list(lora.layers(merged))
    assert merged.state_dict().keys() == new_model(kind).state_dict().keys()


def test_only_the_adapter_learns(kind, ids):
    model = adapted(kind, stir=False)
    before = copy.deepcopy(model.state_dict())
    fit(model, lambda step: {"input_ids": ids, "labels": ids}, TrainingArguments(max_steps=3, learning_rate=1e-2))
    changed = {name for name, t in model.state_dict().items() if not torch.equal(t, before[name])}
    assert changed == {name for name in before if "lora_" in name}


def test_counts(kind):
    model = new_model(kind)
    everything = sum(p.numel() for p in model.parameters())
    assert trainable_parameters(model) == (everything, everything)
    shapes = [layer.weight.shape for name, layer in model.named_modules() if name.endswith(tuple(TARGETS[kind]))]
    names = add_lora(model, TARGETS[kind], r=4, generator=generator())
    added = 4 * sum(map(sum, shapes))
    assert len(names) == len(shapes)
    assert trainable_parameters(model) == (added, everything + added)


# ------------------------------------------------------------ files


def test_saved_and_loaded(kind, ids, tmp_path):
    model = adapted(kind)
    save_adapter(model, tmp_path, base="a model")
    other = new_model(kind)
    assert load_adapter(other, tmp_path) == [name for name, _ in lora.layers(model)]
    assert torch.equal(other(ids).logits, model(ids).logits)
    assert trainable_parameters(other) == trainable_parameters(model)


def test_an_adapter_of_another_model(tmp_path):
    save_adapter(adapted("llama"), tmp_path)
    with pytest.raises(ValueError, match="target_modules must name layers"):
        load_adapter(new_model("gpt2"), tmp_path)
    save_adapter(adapted("gpt2"), tmp_path)
    with pytest.raises(ValueError, match=r"adapter_model\.safetensors does not fit the model: .*lora_A"):
        load_adapter(GPT2LMHeadModel(GPT2Config(**GPT2.to_dict() | {"n_embd": 8})), tmp_path)


@pytest.mark.parametrize("name", [lora.CONFIG, lora.WEIGHTS])
def test_a_damaged_adapter(name, tmp_path):
    save_adapter(adapted("gpt2"), tmp_path)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"holds no adapter, or only part of one"):
        load_adapter(new_model("gpt2"), tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(FileNotFoundError):
        load_adapter(new_model("gpt2"), tmp_path)


def test_a_configuration_that_lacks_its_rank(tmp_path):
    save_adapter(adapted("gpt2"), tmp_path)
    config = json.loads((tmp_path / lora.CONFIG).read_text())
    del config["r"]
    (tmp_path / lora.CONFIG).write_text(json.dumps(config))
    with pytest.raises(ValueError, match="lacks r"):
        load_adapter(new_model("gpt2"), tmp_path)


# ------------------------------------------------------------ bad input


def test_bad_input(tmp_path):
    with pytest.raises(TypeError, match=r"base must be nn\.Linear .* got Embedding"):
        LoRA(nn.Embedding(3, 4), 2, 4)
    for r in (0, 5):
        with pytest.raises(ValueError, match=rf"r must lie in 1\.\.4.* got {r}"):
            LoRA(nn.Linear(4, 6), r, 4)
    with pytest.raises(ValueError, match="alpha must be positive"):
        LoRA(nn.Linear(4, 6), 2, 0)
    with pytest.raises(ValueError, match=r"target_modules must name layers of the model, got \['q_proj'\]"):
        add_lora(new_model("gpt2"), ["c_attn", "q_proj"], r=2, generator=generator())
    with pytest.raises(TypeError, match="list of names"):
        add_lora(new_model("gpt2"), "c_attn")
    with pytest.raises(ValueError, match="call add_lora first"):
        save_adapter(new_model("gpt2"), tmp_path)


# ------------------------------------------------------------ peft


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_peft_gives_the_same(kind, ids, tmp_path):
    """peft, reading our files, computes the same outputs and gradients, before and after merging."""
    peft = pytest.importorskip("peft")
    ours = adapted(kind)
    save_adapter(ours, tmp_path)
    theirs = peft.PeftModel.from_pretrained(new_model(kind), tmp_path, is_trainable=True).eval()
    for model in (ours, theirs):
        model(input_ids=ids, labels=ids).loss.backward()
    torch.testing.assert_close(theirs(ids).logits, ours(ids).logits)
    found = {n: p.grad for n, p in theirs.named_parameters() if p.requires_grad}
    wanted = {n: p.grad for n, p in ours.named_parameters() if p.requires_grad}
    assert len(found) == len(wanted) > 0
    for name, grad in wanted.items():
        torch.testing.assert_close(found[f"{lora.PREFIX}{name}.default.weight"], grad)
    torch.testing.assert_close(theirs.merge_and_unload()(ids).logits, merge_lora(ours)(ids).logits)
