"""Compressed models on disk: the same logits after saving and loading, files as small as promised, damage named."""

import copy
import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from llmbook.compression import lowrank, quantization, storage, structure
from llmbook.decoding import generate
from llmbook.transformer import GPT, GPTConfig

IDS = torch.tensor([[1, 5, 2, 9, 0, 3]])
LLAMA = {"n_head": 4, "n_kv_head": 2, "n_inner": 40, "norm": "rmsnorm", "mlp": "swiglu", "bias": False}
LLAMA |= {"tie_word_embeddings": False}


def tiny(**changes):
    config = {"n_positions": 16, "n_embd": 16, "n_layer": 2, "n_head": 2, "positions": "rotary"} | changes
    return GPT(GPTConfig(11, **config), generator=torch.Generator().manual_seed(0)).eval()


def fewer_bits(model):
    quantization.quantize_model(model, 4, 8)


def few_in_a_layer(model):
    quantization.quantize_model(model, 3, "row", symmetric=True, names=["h.1.mlp.c_fc"])
    quantization.quantize_model(model, 2, 8, levels="ternary", names=["h.0.mlp.c_fc"])
    quantization.quantize_model(model, 8, "tensor", levels="fp8", names=["h.0.attn.c_proj"])


def scaled_columns(model):
    layer = model.h[0].mlp.c_fc
    t = quantization.smoothing(torch.arange(1.0, 17), 0.5)
    matrix = quantization.quantize_weight(layer.weight.detach() * t, 4, 8)
    model.h[0].mlp.c_fc = quantization.QuantizedLinear(matrix, layer.bias, t)


def all_in_few_bits(model):
    fewer_bits(model)
    quantization.quantize_embedding(model, 8)


def parts_gone(model):
    structure.remove_neurons(model.h[0].mlp, range(0, model.config.inner, 3))
    structure.remove_heads(model.h[1].attn, [1])


def low_rank(model):
    lowrank.factorize_model(model, 0.5)


def low_rank_in_few_bits(model):
    low_rank(model)
    quantization.quantize_model(model, 4, "row")


def a_layer_gone(model):
    structure.remove_layers(model, [1])
    quantization.quantize_model(model, 8, "row")


def mostly_zeros(model):
    with torch.no_grad():
        for block in model.h:
            block.mlp.c_fc.weight[:, ::2] = 0
            block.attn.c_attn.weight[1:] = 0


CHANGES = [fewer_bits, few_in_a_layer, scaled_columns, all_in_few_bits, parts_gone, a_layer_gone, mostly_zeros]
CHANGES += [low_rank, low_rank_in_few_bits]


def logits(model):
    with torch.no_grad():
        return model(IDS).logits


@pytest.mark.parametrize("kind", [{}, LLAMA], ids=["gpt", "llama"])
@pytest.mark.parametrize("change", [lambda model: None, *CHANGES], ids=lambda f: f.__name__)
def test_the_same_logits_after_saving_and_loading(kind, change, tmp_path):
    model = tiny(**kind)
    change(model)
    written = storage.save(model, tmp_path)
    assert written == storage.size(tmp_path) == sum(p.stat().st_size for p in tmp_path.iterdir())
    again = storage.load(tmp_path)
    assert torch.equal(logits(again), logits(model))
    assert not again.training
    assert again.config == model.config


def test_a_head_that_is_the_embedding_still_is(tmp_path):
    for change, part in ((fewer_bits, "weight"), (all_in_few_bits, "packed")):
        model = tiny()
        change(model)
        storage.save(model, tmp_path)
        again = storage.load(tmp_path)
        assert getattr(again.lm_head, part) is getattr(again.wte, part)


def test_in_half_precision_the_rounded_weights_are_read_back(tmp_path):
    model = tiny()
    whole, half = storage.save(model, tmp_path / "a"), storage.save(model, tmp_path / "b", dtype="float16")
    again = storage.load(tmp_path / "b")
    assert torch.equal(logits(again), logits(model.half().float()))
    assert half < 0.7 * whole


def test_zeros_are_left_out_where_that_is_shorter(tmp_path):
    sizes = {}
    for share in (0.0, 0.02, 0.5, 0.9):
        model, generator = tiny(), torch.Generator().manual_seed(1)
        with torch.no_grad():
            for name, p in model.named_parameters():
                if "c_" in name and p.dim() == 2:
                    p *= torch.rand(p.shape, generator=generator) >= share
        storage.save(model, tmp_path)
        sizes[share] = (tmp_path / storage.WEIGHTS).stat().st_size
        assert torch.equal(logits(storage.load(tmp_path)), logits(model))
        found = {name for name in load_file(tmp_path / storage.WEIGHTS) if name.endswith(".mask")}
        assert bool(found) == (share > 1 / 32)  # a bit against 32
    assert sizes[0.5] < 0.8 * sizes[0.0]
    assert sizes[0.9] < 0.5 * sizes[0.5]


def test_a_model_read_back_trains_and_remembers(tmp_path):
    model = tiny()
    quantization.quantize_model(model, 4, 8, names=["h.0.mlp.c_fc"])
    storage.save(model, tmp_path)
    again = storage.load(tmp_path)
    again(IDS, labels=IDS).loss.backward()
    assert all(p.grad is not None for p in again.parameters())
    past = again(IDS[:, :4], use_cache=True).past_key_values
    torch.testing.assert_close(again(IDS[:, 4:], past_key_values=past).logits, again(IDS).logits[:, 4:])


def test_a_fresh_process_reads_it_and_generates(tmp_path):
    model = tiny()
    all_in_few_bits(model)
    parts = tmp_path / "model"
    storage.save(model, parts)
    code = (
        "import sys, torch\n"
        "from llmbook.compression import storage\nfrom llmbook.decoding import generate\n"
        f"print(generate(storage.load(sys.argv[1]), torch.tensor({IDS.tolist()}), 5).tolist())"
    )
    done = subprocess.run([sys.executable, "-c", code, parts], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == str(generate(model, IDS, 5).tolist())


# ------------------------------------------------------------ damage


@pytest.fixture
def folder(tmp_path):
    model = tiny()
    all_in_few_bits(model)
    storage.save(model, tmp_path)
    return tmp_path


def test_a_file_that_is_cut_off(folder):
    path = folder / storage.WEIGHTS
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(ValueError, match=r"compressed\.safetensors is damaged or cut off \(\d+ bytes\)"):
        storage.load(folder)


def test_one_bit_that_has_changed(folder):
    path = folder / storage.WEIGHTS
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"compressed\.safetensors is damaged"):
        storage.load(folder)


@pytest.mark.parametrize("name", [storage.CONFIG, storage.WEIGHTS])
def test_a_file_that_is_missing(folder, name):
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=name):
        storage.load(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "no JSON, or only part of one"),
        ("[]", "must have format 'llmbook-compressed-1', got 'list'"),
        ('{"format": "gguf"}', "must have format 'llmbook-compressed-1', got 'gguf'"),
        ('{"format": "llmbook-compressed-1", "layers": {}}', "lacks sha256, config, structure, tied"),
    ],
)
def test_a_description_that_is_none(folder, content, message):
    (folder / storage.CONFIG).write_text(content)
    with pytest.raises(ValueError, match=message):
        storage.load(folder)


def bits_of_the_grid(about):
    about["layers"]["h.0.mlp.c_fc"]["grid"]["bits"] = 8


def no_bits_at_all(about):
    about["layers"]["h.0.mlp.c_fc"]["grid"]["bits"] = 40


def groups_that_dont_divide(about):
    about["layers"]["h.0.mlp.c_fc"]["grid"]["group_size"] = 5


def another_kind(about):
    about["layers"]["h.0.mlp.c_fc"]["kind"] = "magic"


def a_layer_left_out(about):
    del about["layers"]["h.0.mlp.c_fc"]


def no_list_of_sizes(about):
    about["structure"] = {"heads": 2}


def another_width(about):
    about["config"]["n_embd"] = 0


def kind_is_missing(about):
    about["layers"]["wte"] = {}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (bits_of_the_grid, r"packed must be \(64, 16\) torch\.uint8 for Grid\(bits=8.*got \(64, 8\)"),
        (no_bits_at_all, r"bits must be a whole number in 2\.\.8, got 40"),
        (groups_that_dont_divide, "group_size must divide a row of 16 weights, got 5"),
        (another_kind, r"h\.0\.mlp\.c_fc is of kind 'magic'; known are linear, embedding"),
        (a_layer_left_out, r"h\.0\.mlp\.c_fc"),
        (no_list_of_sizes, "a list of whole numbers 'heads', got 2"),
        (another_width, "n_embd must be at least 1, got 0"),
        (kind_is_missing, "wte is of kind None; known are linear"),
    ],
)
def test_a_description_that_does_not_fit(folder, change, message):
    path = folder / storage.CONFIG
    about = json.loads(path.read_text())
    change(about)
    path.write_text(json.dumps(about))
    with pytest.raises(ValueError, match=message) as error:
        storage.load(folder)
    assert str(folder) in str(error.value)


def test_a_save_that_fails_leaves_what_was_there(folder, monkeypatch):
    before = logits(storage.load(folder))
    other = copy.deepcopy(tiny())
    monkeypatch.setattr(storage, "save_bytes", lambda tensors: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        storage.save(other, folder)
    assert torch.equal(logits(storage.load(folder)), before)


def test_a_precision_that_is_none(tmp_path):
    with pytest.raises(ValueError, match="dtype must be one of float32, float16, got 'float8'"):
        storage.save(tiny(), tmp_path, dtype="float8")


def test_experts_are_refused(tmp_path):
    with pytest.raises(ValueError, match="got a mixture of experts"):
        storage.save(tiny(n_expert=2), tmp_path)
