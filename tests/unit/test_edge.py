"""The GPT outside of torch: ONNX with its cache, and the page's script, equal to torch in logits and tokens."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from llmbook import edge
from llmbook.decoding import generate
from llmbook.toyworld import ToyWorld
from llmbook.transformer import GPT, GPTConfig

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "book" / "_static" / "gpt.js"
WEIGHTS = ROOT / "book" / "_static" / "toyworld_gpt.safetensors"
WORDS = [f"w{i}" for i in range(21)]
needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="no node here to run the page's script")


@pytest.fixture(scope="module")
def model():
    """Two layers, three heads, wide first weights: mistakes of any part show in the logits."""
    config = GPTConfig(21, 32, 24, 2, 3, 40, positions="rotary", initializer_range=0.3)
    made = GPT(config, generator=torch.Generator().manual_seed(0)).eval()
    with torch.no_grad():
        for name, p in made.named_parameters():
            if p.dim() == 1:  # offsets and gains that are not 0 and 1
                p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(len(name))), alpha=0.3)
    return made


@pytest.fixture(scope="module")
def rows():
    return torch.randint(0, 21, (5, 14), generator=torch.Generator().manual_seed(1))


# ------------------------------------------------------------ ONNX


@pytest.fixture(scope="module")
def files(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("onnx")
    edge.export(model, folder / "gpt.onnx")
    edge.quantize(folder / "gpt.onnx", folder / "gpt.int8.onnx")
    return folder


def test_onnx_has_torchs_logits_at_once_and_in_pieces(files, model, rows):
    runtime = edge.OnnxGPT(files / "gpt.onnx")
    for row in rows[:2, None]:
        wanted = model(row).logits.detach().numpy()
        np.testing.assert_allclose(runtime(row.numpy())[0], wanted, atol=2e-5)
        past, pieces = None, []
        for start, end in ((0, 1), (1, 2), (2, 7), (7, 14)):
            logits, past = runtime(row[:, start:end].numpy(), past)
            assert past.shape == (2, 2, 1, 3, end, 8)
            pieces.append(logits)
        np.testing.assert_allclose(np.concatenate(pieces, 1), wanted, atol=2e-5)


def test_onnx_keeps_the_keys_and_values_that_torch_keeps(files, model, rows):
    kept = model(rows[:1], use_cache=True).past_key_values
    present = edge.OnnxGPT(files / "gpt.onnx")(rows[:1].numpy())[1]
    for layer, pair in enumerate(kept):
        for part, tensor in enumerate(pair):
            np.testing.assert_allclose(present[layer, part], tensor.detach().numpy(), atol=1e-5)


def test_onnx_writes_what_torch_writes(files, model, rows):
    runtime = edge.OnnxGPT(files / "gpt.onnx")
    for row in rows:
        wanted = generate(model, row[None, :4], 12, eos_token_id=[])[0, 4:]
        assert runtime.write(row[:4].tolist(), 12) == wanted.tolist()


def test_int8_is_smaller_and_near(files, model, rows):
    whole, small = files / "gpt.onnx", files / "gpt.int8.onnx"
    assert small.stat().st_size < whole.stat().st_size
    a, b = (edge.OnnxGPT(path)(rows[:1].numpy())[0] for path in (whole, small))
    assert 1e-4 < np.abs(a - b).max() < 0.5 * a.std()


def test_bad_onnx_input(files, model):
    with pytest.raises(ValueError, match="new"):
        edge.OnnxGPT(files / "gpt.onnx").write([1], 0)
    learned = GPT(GPTConfig(5, 8, 8, 1, 1), generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="rotary"):
        edge.Step(learned)


# ------------------------------------------------------------ the page's file


@pytest.mark.parametrize("kind", edge.KINDS)
def test_a_pages_file_comes_back(kind, model, tmp_path):
    edge.save_page(model, WORDS, tmp_path / "gpt.safetensors", kind)
    back, words = edge.load_page(tmp_path / "gpt.safetensors")
    assert words == WORDS
    for (name, wanted), got in zip(model.state_dict().items(), back.state_dict().values(), strict=True):
        matrix = kind == "int8" and wanted.dim() == 2
        room = wanted.abs().max() / 254 * 1.001 if matrix else 1e-3 * wanted.abs().max() if kind == "float16" else 0
        assert (wanted - got).abs().max() <= room, name


def test_what_the_page_cannot_run(model, tmp_path):
    path = tmp_path / "gpt.safetensors"
    with pytest.raises(ValueError, match="kind"):
        edge.save_page(model, WORDS, path, "int4")
    with pytest.raises(ValueError, match="vocabulary"):
        edge.save_page(model, WORDS[1:], path)
    other = GPT(GPTConfig(21, 32, 24, 1, 3), generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="positions"):
        edge.save_page(other, WORDS, path)
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="header"):
        edge.load_page(tmp_path / "model.safetensors")


# ------------------------------------------------------------ the page's script


def node(code: str, *paths: Path):
    """What the code prints, as JSON; ``gpt`` is the script and ``files`` the bytes of the paths."""
    code = f"""
        const gpt = require({json.dumps(str(SCRIPT))});
        const bytes = (path) => new Uint8Array(require("fs").readFileSync(path)).buffer;
        const files = {json.dumps([str(path) for path in paths])}.map(bytes);
        {code}"""
    run = subprocess.run(["node", "-e", code], capture_output=True, text=True, check=True)
    return json.loads(run.stdout)


@needs_node
@pytest.mark.parametrize("kind", edge.KINDS)
def test_the_scripts_logits_are_torchs(kind, model, rows, tmp_path):
    edge.save_page(model, WORDS, tmp_path / "gpt.safetensors", kind)
    same, _ = edge.load_page(tmp_path / "gpt.safetensors")
    got = node(
        f"""const model = new gpt.GPT(files[0]);
        console.log(JSON.stringify({rows.tolist()}.map((row) => {{
            model.forget();
            return row.map((token) => model.read(token));
        }})));""",
        tmp_path / "gpt.safetensors",
    )
    np.testing.assert_allclose(np.array(got), same(rows).logits.detach().numpy(), atol=5e-5)


def mulberry32(seed: int):
    """The page's generator, written anew."""
    state = seed
    while True:
        state = (state + 0x6D2B79F5) % 2**32
        t = (state ^ state >> 15) * (1 | state) % 2**32
        t = (t + (t ^ t >> 7) * (61 | t) % 2**32) % 2**32 ^ t
        yield (t ^ t >> 14) / 2**32


@needs_node
@pytest.mark.parametrize("temperature", [0, 0.7, 1.0, 1.6])
def test_the_script_writes_what_torch_would_write(temperature, model, rows, tmp_path):
    edge.save_page(model, WORDS, tmp_path / "gpt.safetensors", "float32")
    prompts = rows[:, :3].tolist()
    got = node(
        f"""const model = new gpt.GPT(files[0]);
        const options = (seed) => ({{ temperature: {temperature}, seed, end: 7 }});
        console.log(JSON.stringify({prompts}.map((prompt, i) => [...model.write(prompt, options(i))])));""",
        tmp_path / "gpt.safetensors",
    )
    for seed, (prompt, written) in enumerate(zip(prompts, got, strict=True)):
        ids, uniform = list(prompt), mulberry32(seed)
        while len(ids) < model.config.n_positions and not (len(ids) > 3 and ids[-1] == 7):
            logits = model(torch.tensor([ids])).logits[0, -1].detach().double()
            if temperature:
                sums = (logits / temperature).softmax(-1).cumsum(0)
                ids.append(int((sums > next(uniform)).int().argmax()))
            else:
                ids.append(int(logits.argmax()))
        assert written == ids[3:]


@needs_node
def test_the_script_reads_every_float16(tmp_path):
    """All 63,488 finite numbers of sixteen bits, subnormal ones and both zeros too."""
    from safetensors.torch import save_file

    bits = torch.arange(2**16, dtype=torch.int32).to(torch.uint16).view(torch.float16)
    finite = bits[bits.isfinite()]
    save_file({"all": finite}, tmp_path / "f.safetensors", metadata={"config": "{}", "vocabulary": "[]"})
    got = node(
        "console.log(JSON.stringify([...gpt.readSafetensors(files[0]).tensors.all]));", tmp_path / "f.safetensors"
    )
    assert len(got) == 63488
    assert (torch.tensor(got) == finite.float()).all()


@needs_node
def test_the_script_refuses_what_it_cannot_read(tmp_path):
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(2, dtype=torch.int64)}, tmp_path / "f.safetensors", metadata={"config": "{}"})
    said = node(
        "try { gpt.readSafetensors(files[0]); } catch (error) { console.log(JSON.stringify(error.message)); }",
        tmp_path / "f.safetensors",
    )
    assert said == "x is of type I64; this reader knows F32, F16 and I8"


# ------------------------------------------------------------ the committed weights


def test_the_committed_weights_are_those_of_toyworld():
    """Small enough to commit, in ToyWorld's words, and near the world's own probabilities."""
    assert WEIGHTS.stat().st_size < 10**6
    model, words = edge.load_page(WEIGHTS)
    world = ToyWorld("small")
    assert words == list(world.vocabulary)
    told = world.stories(30, 77)
    rows = [world.encode(["<bos>", *story.tokens]) for story in told]
    from llmbook.training import row_logprobs

    excess = np.concatenate([story.logprobs for story in told]).mean() - row_logprobs(model, rows).mean()
    assert 0 < excess < 0.12, excess


@needs_node
def test_the_page_writes_the_tokens_that_torch_writes():
    """Greedily, from the beginnings of twenty stories, with the committed weights."""
    model, words = edge.load_page(WEIGHTS)
    world = ToyWorld("small")
    prompts = [world.encode(["<bos>", *s.tokens[: 3 + i]]).tolist() for i, s in enumerate(world.stories(20, 5))]
    end = words.index("<eos>")
    got = node(
        f"""const model = new gpt.GPT(files[0]);
        console.log(JSON.stringify({prompts}.map((prompt) => [...model.write(prompt, {{ temperature: 0 }})])));""",
        WEIGHTS,
    )
    for prompt, written in zip(prompts, got, strict=True):
        wanted = generate(model, torch.tensor([prompt]), 128 - len(prompt), eos_token_id=end)[0, len(prompt) :]
        assert written == wanted.tolist()


def test_the_scripts_ask_nobody():
    """No request, no other origin: what the page needs lies beside it."""
    for name in ("gpt.js", "gpt_page.js"):
        code = (SCRIPT.parent / name).read_text(encoding="utf-8")
        assert not re.search(r"https?:|fetch|XMLHttpRequest|WebSocket|sendBeacon|import\b", code), name
