"""Speculative decoding writes what the model would write: exactly, by a test that sees an off-by-one."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.stats
import torch

from llmbook.decoding import (
    Choice,
    LookupGuesser,
    ModelGuesser,
    Temperature,
    accept,
    generate,
    look_up,
    speculate,
    speculative,
)
from llmbook.transformer import GPT, GPTConfig

CONFIG = GPTConfig(5, 32, 16, 1, 2, initializer_range=0.5)
PROMPT = torch.tensor([[1, 2, 3, 1, 2]])
LENGTH, DRAWS = 3, 900


def new_model(seed, config=CONFIG):
    return GPT(config, generator=torch.Generator().manual_seed(seed)).eval()


@torch.inference_mode()
def exact_law(model, temperature=1.0):
    """The probability of each text of ``LENGTH`` new tokens, by the chain rule."""
    law = {}
    for text in itertools.product(range(5), repeat=LENGTH):
        ids = torch.cat([PROMPT, torch.tensor([text])], dim=1)
        logs = (model(ids).logits[0, -LENGTH - 1 : -1].double() / temperature).log_softmax(-1)
        law[text] = float(logs[range(LENGTH), text].sum().exp())
    return law


def p_value(law, texts):
    """Of the chi-squared test that texts were drawn from the law; cells expected below 5 are put together."""
    cells = sorted(law, key=law.get)
    expected = np.array([law[cell] for cell in cells]) * len(texts)
    seen = {}
    for text in texts:
        seen[text] = seen.get(text, 0) + 1
    counts = np.array([seen.get(cell, 0) for cell in cells])
    rare = expected < 5
    if rare.any():
        expected = np.append(expected[~rare], expected[rare].sum())
        counts = np.append(counts[~rare], counts[rare].sum())
    return scipy.stats.chisquare(counts, expected * counts.sum() / expected.sum()).pvalue


def drawn(model, guesser, choice, n=2):
    texts = (speculate(model, guesser, PROMPT, LENGTH, num_assistant_tokens=n, choice=choice) for _ in range(DRAWS))
    return [tuple(text.ids[0, PROMPT.shape[1] :].tolist()) for text in texts]


@pytest.mark.parametrize("guessed_by", ["another model", "the same model", "lookup", "a colder one"])
def test_texts_follow_the_models_own_law(guessed_by):
    model, choice = new_model(0), Choice([Temperature(1.3)], generator=torch.Generator().manual_seed(1))
    cold = Choice([Temperature(0.5)], generator=choice.generator)
    guesser = {
        "another model": lambda: ModelGuesser(new_model(1), choice),
        "the same model": lambda: ModelGuesser(model, choice),
        "lookup": lambda: LookupGuesser(5),
        "a colder one": lambda: ModelGuesser(new_model(1), cold),
    }[guessed_by]()
    assert p_value(exact_law(model, 1.3), drawn(model, guesser, choice)) > 1e-4


def one_too_late(p, q, tokens, choice):
    """Each token is judged by the distribution of the next."""
    return accept(torch.cat([p[1:], p[-1:]]), q, tokens, choice)


def bonus_too_early(p, q, tokens, choice):
    """Where all are kept, the token after them is drawn from the distribution of the last of them."""
    new = accept(p, q, tokens, choice)
    return [*new[:-1], choice.draw(p[len(tokens) - 1])] if len(new) > len(tokens) > 0 else new


def no_correction(p, q, tokens, choice):
    """What replaces a refused token is drawn from p, and not from what p has above q."""
    new = accept(p, q, tokens, choice)
    return [*new[:-1], choice.draw(p[len(new) - 1])]


@pytest.mark.parametrize("fault", [one_too_late, bonus_too_early, no_correction], ids=lambda f: f.__name__)
def test_an_off_by_one_would_be_seen(monkeypatch, fault):
    monkeypatch.setattr(speculative, "accept", fault)
    model, choice = new_model(0), Choice(generator=torch.Generator().manual_seed(1))
    assert p_value(exact_law(model), drawn(model, ModelGuesser(new_model(1), choice), choice)) < 1e-6


def test_a_stale_cache_would_be_seen(monkeypatch):
    """A token too many is kept when the reader goes back."""
    honest = speculative.Reader.forget
    monkeypatch.setattr(speculative.Reader, "forget", lambda self, length: honest(self, length + (length > 5)))
    model, choice = new_model(0), Choice(generator=torch.Generator().manual_seed(1))
    assert p_value(exact_law(model), drawn(model, ModelGuesser(new_model(1), choice), choice)) < 1e-6


def test_what_is_kept_has_the_rate_of_the_formula():
    """One token: kept with probability Σ min(p, q)."""
    generator = torch.Generator().manual_seed(3)
    p, q = torch.rand(2, 6, generator=generator).softmax(-1), torch.rand(1, 6, generator=generator).mul(3).softmax(-1)
    choice, n = Choice(generator=generator), 4000
    kept = sum(len(accept(p, q, [choice.draw(q[0])], choice)) - 1 for _ in range(n))
    wanted = float(torch.minimum(p[0], q[0]).sum())
    assert abs(kept / n - wanted) < 4 * (wanted * (1 - wanted) / n) ** 0.5


@pytest.mark.parametrize("options", [
    {"num_assistant_tokens": 1}, {"num_assistant_tokens": 4}, {"repetition_penalty": 1.3},
    {"no_repeat_ngram_size": 2}, {"use_cache": False}, {"eos_token_id": [3, 17]},
], ids=str)  # fmt: skip
def test_greedy_text_is_the_models(options):
    config = GPTConfig(30, 64, 32, 2, 4, initializer_range=0.2)
    model = new_model(0, config)
    for seed in range(3):
        ids = torch.randint(30, (1, 9), generator=torch.Generator().manual_seed(seed))
        rest = {k: v for k, v in options.items() if k != "num_assistant_tokens"}
        wanted = generate(model, ids, 30, **rest)
        assert torch.equal(generate(model, ids, 30, assistant_model=new_model(1, config), **options), wanted)
        assert torch.equal(generate(model, ids, 30, assistant_model=new_model(0, config), **options), wanted)
        assert torch.equal(generate(model, ids, 30, prompt_lookup_num_tokens=4, **rest), wanted)


def test_a_model_that_guesses_for_itself_is_always_right():
    text = speculate(
        new_model(0), ModelGuesser(new_model(0), Choice(do_sample=False)), PROMPT, 16, choice=Choice(do_sample=False)
    )
    assert text.kept == text.proposed
    assert text.rate == 1.0
    assert text.ids.shape[1] == PROMPT.shape[1] + 16


@pytest.mark.parametrize(("ids", "found"), [
    ([1, 2, 3, 4, 1, 2], [3, 4, 1]),
    ([1, 2, 9, 5, 2, 3, 1, 2], [9, 5, 2]),  # the longer ending, although 2 alone came later, too
    ([7, 2, 9, 1, 2], [9, 1, 2]),  # the shorter one
    ([1, 2, 3], []),
    ([1], []),
    ([5, 5, 5], [5]),
])  # fmt: skip
def test_look_up(ids, found):
    assert look_up(ids, 3, 2) == found


def test_bad_arguments_are_named():
    model = new_model(0)
    with pytest.raises(ValueError, match="input_ids"):
        speculate(model, LookupGuesser(5), PROMPT.repeat(2, 1), 3)
    with pytest.raises(ValueError, match="num_assistant_tokens"):
        speculate(model, LookupGuesser(5), PROMPT, 3, num_assistant_tokens=0)
    with pytest.raises(ValueError, match="max_matching_ngram_size"):
        LookupGuesser(5, 0)
