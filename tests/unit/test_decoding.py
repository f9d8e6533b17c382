"""Generation is transformers' token by token; caches and padding change nothing; bad arguments are named."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from transformers import GPT2LMHeadModel, LlamaForCausalLM
from transformers.generation import logits_process as theirs

from llmbook import decoding
from llmbook.decoding import Reader, exact_search, generate, sampling_processors
from llmbook.transformer import GPT, GPTConfig, record_attention

V, ENDS = 40, list(range(33, 40))
LLAMA = {"positions": "rotary", "norm": "rmsnorm", "mlp": "swiglu", "bias": False, "n_kv_head": 2}
GPT2 = GPTConfig(V, 64, 32, 2, 4, initializer_range=0.3)
CONFIGS = {"gpt2": GPT2, "llama": replace(GPT2, **LLAMA)}


def new_generator(seed=0):
    return torch.Generator().manual_seed(seed)


def new_model(config=GPT2, seed=0):
    return GPT(config, generator=new_generator(seed)).eval()


@pytest.fixture(scope="module", params=CONFIGS)
def pair(request, tmp_path_factory):
    """Our model and transformers', of the same weights."""
    folder = tmp_path_factory.mktemp(request.param)
    ours = new_model(CONFIGS[request.param])
    ours.save_pretrained(folder)
    kind = GPT2LMHeadModel if request.param == "gpt2" else LlamaForCausalLM
    return ours, kind.from_pretrained(folder).eval()


@pytest.fixture(scope="module")
def prompts():
    """Ids (4, 7) and a mask that hides 0, 2, 3 and 5 of them in front."""
    ids = torch.randint(33, (4, 7), generator=new_generator(1))
    mask = torch.ones_like(ids)
    for row, hidden in enumerate((0, 2, 3, 5)):
        mask[row, :hidden] = 0
    return ids.masked_fill(mask == 0, ENDS[0]), mask


def peer(model, ids, mask, **options):
    options = {"do_sample": False, "pad_token_id": ENDS[0], "eos_token_id": ENDS, "max_new_tokens": 24} | options
    return model.generate(ids, attention_mask=mask, **options)


WAYS = {
    "greedy": {},
    "no end too soon": {"min_new_tokens": 12},
    "repetition penalty": {"repetition_penalty": 1.4},
    "a penalty that rewards": {"repetition_penalty": 0.7},
    "no repeated pair": {"no_repeat_ngram_size": 2},
    "four beams": {"num_beams": 4},
    "beams that like length": {"num_beams": 4, "length_penalty": 2.0},
    "beams that dislike it": {"num_beams": 4, "length_penalty": -1.0},
    "all beams": {"num_beams": 3, "num_return_sequences": 3},
    "beams that stop early": {"num_beams": 3, "early_stopping": True},
    "beams that never do": {"num_beams": 3, "early_stopping": "never", "length_penalty": 0.5},
    "beams with a penalty": {"num_beams": 3, "repetition_penalty": 1.3, "no_repeat_ngram_size": 3},
}


@pytest.mark.parametrize("options", WAYS.values(), ids=WAYS)
def test_texts_are_those_of_transformers(pair, prompts, options):
    ours, other = pair
    ids, _ = prompts
    got = generate(ours, ids, 24, eos_token_id=ENDS, **options)
    assert torch.equal(got, peer(other, ids, torch.ones_like(ids), **options))
    if options in ({}, {"num_beams": 4}):
        assert bool(torch.isin(got[:, 7:], torch.tensor(ENDS)).any())  # an end was met, or the test says little


@pytest.mark.parametrize("options", WAYS.values(), ids=WAYS)
def test_without_a_cache_the_text_is_the_same(prompts, options):
    for config in CONFIGS.values():
        model, (ids, mask) = new_model(config, 3), prompts
        texts = [
            generate(model, ids, 24, attention_mask=mask, eos_token_id=ENDS, use_cache=use_cache, **options)
            for use_cache in (True, False)
        ]
        assert torch.equal(*texts)


@pytest.mark.parametrize("positions", ["learned", "rotary", "sinusoidal", "alibi", "none"])
@pytest.mark.parametrize("options", WAYS.values(), ids=WAYS)
def test_padded_rows_are_written_as_one_by_one(prompts, positions, options):
    model, (ids, mask) = new_model(replace(GPT2, positions=positions), 4), prompts
    together = generate(model, ids, 16, attention_mask=mask, eos_token_id=ENDS, **options)
    many = options.get("num_return_sequences", 1)
    for row in range(len(ids)):
        alone = generate(model, ids[row : row + 1, mask[row] == 1], 16, eos_token_id=ENDS, **options)
        new = alone[:, int(mask[row].sum()) :]
        assert torch.equal(together[row * many : (row + 1) * many, 7 : 7 + new.shape[1]], new)


def test_without_the_mask_padding_is_read(prompts):
    model, (ids, mask) = new_model(seed=4), prompts
    masked = generate(model, ids, 16, attention_mask=mask)
    assert not torch.equal(masked[1:], generate(model, ids, 16)[1:])


@pytest.mark.parametrize("options", [
    {}, {"temperature": 1.7}, {"top_k": 5}, {"top_p": 0.6}, {"min_p": 0.2}, {"typical_p": 0.5},
    {"temperature": 0.7, "top_k": 20, "top_p": 0.9, "min_p": 0.02, "typical_p": 0.95},
], ids=str)  # fmt: skip
def test_with_the_same_luck_samples_are_those_of_transformers(pair, prompts, options):
    ours, other = pair
    ids, _ = prompts
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(7)
        got = generate(ours, ids, 24, do_sample=True, eos_token_id=ENDS, **options)
        torch.default_generator.manual_seed(7)
        # transformers keeps the 50 likeliest if it isn't told otherwise
        assert torch.equal(got, peer(other, ids, torch.ones_like(ids), do_sample=True, **{"top_k": 0, **options}))


PAIRS = {
    "temperature": (decoding.Temperature(0.6), theirs.TemperatureLogitsWarper(0.6)),
    "top-k": (decoding.TopK(7), theirs.TopKLogitsWarper(7)),
    "top-k beyond the vocabulary": (decoding.TopK(700), theirs.TopKLogitsWarper(700)),
    "top-p": (decoding.TopP(0.8), theirs.TopPLogitsWarper(0.8)),
    "top-p of nothing": (decoding.TopP(0.0), theirs.TopPLogitsWarper(0.0)),
    "min-p": (decoding.MinP(0.15), theirs.MinPLogitsWarper(0.15)),
    "typical": (decoding.Typical(0.4), theirs.TypicalLogitsWarper(0.4)),
    "typical, nearly all": (decoding.Typical(0.99), theirs.TypicalLogitsWarper(0.99)),
    "repetition": (decoding.RepetitionPenalty(1.3), theirs.RepetitionPenaltyLogitsProcessor(1.3)),
    "n-grams": (decoding.NoRepeatNGram(2), theirs.NoRepeatNGramLogitsProcessor(2)),
    "single tokens": (decoding.NoRepeatNGram(1), theirs.NoRepeatNGramLogitsProcessor(1)),
    "the end": (decoding.MinNewTokens(4, 30, (3, 9)), theirs.MinNewTokensLengthLogitsProcessor(4, 30, [3, 9], "cpu")),
}


@pytest.mark.parametrize(("mine", "other"), PAIRS.values(), ids=PAIRS)
@pytest.mark.parametrize("spread", [0.1, 1.0, 8.0])
def test_processors_leave_the_distributions_of_transformers(mine, other, spread):
    generator = new_generator(5)
    for _ in range(20):
        ids = torch.randint(9, (3, 25), generator=generator)
        scores = spread * torch.randn(3, V, generator=generator)
        given = scores.clone()
        assert torch.allclose(mine(ids, scores).softmax(-1), other(ids, scores.clone()).softmax(-1), atol=1e-7)
        assert torch.equal(scores, given)  # what came in was not changed


def test_sampling_follows_the_distribution():
    model, n = new_model(), 4000
    ids = torch.tensor([[7, 8, 9]])
    drawn = generate(model, ids, 1, True, temperature=1.5, top_k=6, num_return_sequences=n, generator=new_generator(2))[
        :, -1
    ]
    scores = model(ids).logits[:, -1]
    for processor in sampling_processors(1.5, 6):
        scores = processor(ids, scores)
    expected = scores.softmax(-1)[0] * n
    counts = torch.bincount(drawn, minlength=V)
    kept = expected > 0
    assert int(counts[~kept].sum()) == 0
    statistic = ((counts[kept] - expected[kept]) ** 2 / expected[kept]).sum()
    assert statistic < 25.7  # chi-squared with 5 degrees of freedom: 1 in 10,000


def test_only_allowed_tokens_come(prompts):
    ids, _ = prompts
    text = generate(new_model(), ids, 12, prefix_allowed_tokens_fn=lambda row, seen: [10 + row, 20 + len(seen) % 2])
    for row, new in enumerate(text[:, 7:]):
        assert set(new.tolist()) <= {10 + row, 20, 21}


def contrastive_by_definition(model, ids, steps, k, alpha):
    """Su et al. (2022), eq. 5, every text read anew."""
    for _ in range(steps):
        output = model(ids)
        probs, candidates = output.logits[0, -1].softmax(-1).topk(k)
        scores = []
        for p, candidate in zip(probs, candidates, strict=True):
            hidden = model(torch.cat([ids, candidate[None, None]], 1)).last_hidden_state[0]
            alike = torch.cosine_similarity(hidden[-1:], hidden[:-1]).max()
            scores.append((1 - alpha) * p - alpha * alike)
        ids = torch.cat([ids, candidates[torch.stack(scores).argmax()][None, None]], 1)
    return ids


@torch.no_grad()
@pytest.mark.parametrize("alpha", [0.0, 0.4, 0.9])
def test_contrastive_search_is_its_definition(prompts, alpha):
    model, (ids, mask) = new_model(seed=6), prompts
    together = generate(model, ids, 12, top_k=5, penalty_alpha=alpha, attention_mask=mask)
    for row in range(len(ids)):
        own = ids[row : row + 1, mask[row] == 1]
        wanted = contrastive_by_definition(model, own, 12, 5, alpha)[:, own.shape[1] :]
        assert torch.equal(together[row : row + 1, 7:], wanted)
    if alpha == 0:
        assert torch.equal(together, generate(model, ids, 12, attention_mask=mask))


def test_exact_search_finds_the_likeliest_text():
    config = GPTConfig(6, 16, 16, 1, 2, initializer_range=0.6)
    for seed in range(3):
        model, start, eos = new_model(config, seed), torch.tensor([[1]]), 0
        best, best_text = -math.inf, None
        waiting = [(start, 0.0)]
        with torch.no_grad():
            while waiting:  # all texts of at most 5 new tokens
                ids, score = waiting.pop()
                logs = model(ids).logits[0, -1].double().log_softmax(-1)
                if score + float(logs[eos]) > best:
                    best, best_text = score + float(logs[eos]), torch.cat([ids, ids.new_tensor([[eos]])], 1)
                if ids.shape[1] < 5:
                    waiting += [
                        (torch.cat([ids, ids.new_tensor([[v]])], 1), score + float(logs[v])) for v in range(1, 6)
                    ]
        found, score = exact_search(model, start, eos, at_least=best - 0.5, max_new_tokens=5)
        assert score == pytest.approx(best, abs=1e-5)
        assert torch.equal(found, best_text)
        with pytest.raises(ValueError, match="log-probability"):
            exact_search(model, start, eos, at_least=best + 0.1, max_new_tokens=5)


def test_a_reader_catches_up_and_forgets():
    for use_cache in (True, False):
        reader, model = Reader(new_model(seed=8), use_cache=use_cache), new_model(seed=8)
        with torch.no_grad():
            for text in ([5, 6, 7, 8], [5, 6, 9], [5, 6, 9, 10, 11, 12], [5, 6, 9, 10, 11, 12], [4]):
                ids = torch.tensor([text])
                keep = min(2, len(text))
                got, wanted = reader.catch_up(ids, keep), model(ids).logits[:, -keep:]
                assert torch.allclose(got, wanted, atol=1e-4)
                assert reader.ids.tolist() == ids.tolist()


def test_recording_attention_leaves_the_cache_as_it_is():
    model, ids = new_model(seed=8), torch.tensor([[5, 6, 7, 8]])
    reader = Reader(model)
    with torch.no_grad(), record_attention(model) as whole:
        model(ids)
    with torch.no_grad():
        reader.read(ids[:, :2])
        with record_attention(model) as seen:
            reader.read(ids[:, 2:3])
        assert torch.allclose(reader.read(ids[:, 3:]), model(ids).logits[:, -1:], atol=1e-5)
    for name, weights in seen.items():
        assert torch.allclose(weights, whole[name][:, :, 2:3, :3], atol=1e-5)


def test_the_cache_has_the_size_of_the_formula():
    from llmbook.transformer import cache_numbers

    for config in CONFIGS.values():
        reader = Reader(new_model(config))
        reader.read(torch.full((3, 11), 7))
        assert sum(t.numel() for kept in reader.past for t in kept.tensors) == 3 * cache_numbers(config, 11)


@pytest.mark.parametrize(("options", "named"), [
    ({"input_ids": [[1, 2]]}, "input_ids"),
    ({"input_ids": torch.zeros(2, 3)}, "input_ids"),
    ({"input_ids": torch.zeros(0, 3, dtype=torch.long)}, "input_ids"),
    ({"input_ids": torch.zeros(4, dtype=torch.long)}, "input_ids"),
    ({"max_new_tokens": 0}, "max_new_tokens"),
    ({"max_new_tokens": 61}, "n_positions"),
    ({"temperature": 0.0}, "temperature"),
    ({"top_k": -1}, "top_k"),
    ({"top_p": 1.5}, "top_p"),
    ({"top_p": -0.5}, "top_p"),
    ({"min_p": 2.0}, "min_p"),
    ({"typical_p": 0.0}, "typical_p"),
    ({"repetition_penalty": -1.0}, "repetition_penalty"),
    ({"no_repeat_ngram_size": -2}, "no_repeat_ngram_size"),
    ({"num_beams": 0}, "num_beams"),
    ({"num_beams": 2}, "num_beams"),
    ({"do_sample": False, "num_beams": 2, "early_stopping": "soon"}, "early_stopping"),
    ({"do_sample": False, "num_return_sequences": 2}, "num_return_sequences"),
    ({"do_sample": False, "penalty_alpha": 0.5}, "penalty_alpha"),
    ({"do_sample": False, "penalty_alpha": 1.5, "top_k": 4}, "penalty_alpha"),
    ({"attention_mask": torch.ones(1, 3)}, "attention_mask"),
    ({"attention_mask": torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]])}, "attention_mask"),
    ({"attention_mask": torch.tensor([[1, 0, 1, 1], [1, 1, 1, 1]])}, "attention_mask"),
    ({"prefix_allowed_tokens_fn": lambda row, ids: []}, "prefix_allowed_tokens_fn"),
    ({"logits_processor": [lambda ids, scores: scores - math.inf]}, "logits_processor"),
    ({"prompt_lookup_num_tokens": 3, "num_return_sequences": 2}, "prompt_lookup_num_tokens"),
        ({"prompt_lookup_num_tokens": 3}, "input_ids"),
    ({"do_sample": False, "num_beams": 2, "prompt_lookup_num_tokens": 3}, "exclude"),
], ids=lambda x: x if isinstance(x, str) else "-".join(x))  # fmt: skip
def test_bad_arguments_are_named(options, named):
    options = {"input_ids": torch.full((2, 4), 7), "max_new_tokens": 4, "do_sample": True} | options
    with pytest.raises((TypeError, ValueError), match=named):
        generate(new_model(), **options)


def test_forward_checks_places():
    model, ids = new_model(), torch.full((2, 4), 7)
    with pytest.raises(ValueError, match="position_ids"):
        model(ids, position_ids=torch.zeros(2, 3, dtype=torch.long))
    with pytest.raises(ValueError, match="attention_mask"):
        model(ids, attention_mask=torch.ones(2, 3))
    assert model(ids, logits_to_keep=2).logits.shape == (2, 2, V)
