"""Masking equals transformers' collator draw for draw; spans can be put back; masked diffusion's loss is unbiased."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import DataCollatorForLanguageModeling, PreTrainedTokenizerFast

from llmbook.objectives import (
    corrupt_spans,
    diffusion_loss,
    diffusion_losses,
    hide_shares,
    hide_spans,
    mask_tokens,
    masked_loss,
    random_spans_noise_mask,
    restore_spans,
    unmask,
)
from llmbook.transformer import IGNORE, Encoder, EncoderDecoder, GPTConfig

WORDS = 50
MASK = WORDS - 1
SENTINELS = range(100, 130)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def masked(ids, seed=0, **options):
    return mask_tokens(ids, mask_token_id=MASK, vocab_size=WORDS, generator=generator(seed), **options)


# ------------------------------------------------------------------------------------------ hidden tokens


def collator(**options):
    words = {f"w{i}": i for i in range(WORDS - 1)} | {"[MASK]": MASK}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel(words, unk_token="w0")), mask_token="[MASK]", pad_token="w0"
    )
    return DataCollatorForLanguageModeling(tokenizer, seed=3, **options)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"mlm_probability": 0.4},
        {"mask_replace_prob": 0.5, "random_replace_prob": 0.4},
        {"mask_replace_prob": 1.0, "random_replace_prob": 0.0},
        {"mask_replace_prob": 0.0, "random_replace_prob": 1.0},
    ],
)
def test_masking_is_transformers_draw_for_draw(options):
    ids = torch.randint(1, MASK, (8, 60), generator=generator())
    special = torch.zeros_like(ids)
    special[:, 0] = 1
    rows = [{"input_ids": row, "special_tokens_mask": keep} for row, keep in zip(ids, special, strict=True)]
    theirs = collator(**options)(rows)
    inputs, labels = masked(ids, seed=3, special_tokens_mask=special, **options)
    assert torch.equal(inputs, theirs["input_ids"])
    assert torch.equal(labels, theirs["labels"])


def test_shares_are_those_of_the_paper():
    ids = torch.randint(1, MASK, (400, 100), generator=generator())
    inputs, labels = masked(ids)
    chosen = labels != IGNORE
    assert torch.equal(labels[chosen], ids[chosen])
    assert torch.equal(inputs[~chosen], ids[~chosen])
    n = chosen.sum().item()
    assert n / ids.numel() == pytest.approx(0.15, abs=4 * (0.15 * 0.85 / ids.numel()) ** 0.5)
    hidden = (inputs[chosen] == MASK).float().mean().item()
    kept = (inputs[chosen] == ids[chosen]).float().mean().item()
    # A random token is [MASK] itself, or the very token, once in WORDS.
    assert hidden == pytest.approx(0.8 + 0.1 / WORDS, abs=4 * (0.16 / n) ** 0.5)
    assert kept == pytest.approx(0.1 + 0.1 / WORDS, abs=4 * (0.09 / n) ** 0.5)


def test_special_tokens_are_never_chosen_and_the_input_is_left_alone():
    ids = torch.randint(1, MASK, (20, 30), generator=generator())
    before, special = ids.clone(), torch.rand(20, 30, generator=generator(1)) < 0.5
    inputs, labels = masked(ids, special_tokens_mask=special, mlm_probability=1.0)
    assert torch.equal(ids, before)
    assert torch.equal(labels == IGNORE, special)
    assert torch.equal(inputs[special], ids[special])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mlm_probability": 1.5}, "mlm_probability must be a probability, got 1.5"),
        ({"mask_replace_prob": -0.1}, "mask_replace_prob must be a probability"),
        ({"random_replace_prob": 0.3}, r"random_replace_prob must lie in 0..0.2, got 0.3"),
    ],
)
def test_bad_shares(options, message):
    with pytest.raises(ValueError, match=message):
        masked(torch.ones(2, 3, dtype=torch.long), **options)


def test_ids_must_be_whole_numbers():
    with pytest.raises(TypeError, match=r"torch\.long"):
        masked(torch.ones(2, 3))


def test_masked_loss_scores_the_chosen_only():
    encoder = Encoder(GPTConfig(WORDS, 16, n_embd=8, n_layer=1, n_head=2), generator=generator())
    ids = torch.randint(1, MASK, (3, 12), generator=generator())
    inputs, labels = masked(ids, mlm_probability=0.3)
    loss = masked_loss(encoder, {"input_ids": inputs, "labels": labels})
    scores = encoder.logits(encoder(inputs)).log_softmax(-1)  # all positions, the long way
    by_hand = [-scores[b, t, labels[b, t]] for b, t in (labels != IGNORE).nonzero()]
    assert loss.item() == pytest.approx(torch.stack(by_hand).mean().item(), abs=1e-6)
    with pytest.raises(ValueError, match="nothing to score"):
        masked_loss(encoder, {"input_ids": ids, "labels": torch.full_like(ids, IGNORE)})


# ---------------------------------------------------------------------------------------- any share hidden


def shares(ids, seed=0, **options):
    return hide_shares(ids, mask_token_id=MASK, generator=generator(seed), **options)


def test_shares_are_spread_over_a_batch():
    ids = torch.randint(1, MASK, (64, 500), generator=generator())
    inputs, labels, weights = shares(ids)
    hidden = labels != IGNORE
    assert torch.equal(inputs == MASK, hidden)
    assert torch.equal(inputs[~hidden], ids[~hidden])
    assert torch.equal(labels[hidden], ids[hidden])
    share = hidden.float().mean(1)
    assert share.sort().values == pytest.approx(torch.linspace(0, 1, 64), abs=0.1)
    for row, hid, r in zip(weights, hidden, share, strict=True):
        assert (row[~hid] == 0).all()
        if r > 0.2:
            assert row[hid].unique().item() == pytest.approx(1 / r.item(), rel=0.25)


def test_special_tokens_stay_and_every_row_has_every_share():
    ids = torch.full((8, 30), 5)
    special = torch.zeros_like(ids).bool()
    special[:, [0, -1]] = True
    counts = []
    for seed in range(200):
        inputs, _, _ = shares(ids, seed, special_tokens_mask=special)
        assert (inputs[special] == 5).all()
        counts.append((inputs == MASK).sum(1) / 28)
    counts = torch.stack(counts)  # (200, 8): each row's share is uniform, whatever its place in the batch
    assert counts.mean(0) == pytest.approx(torch.full((8,), 0.5), abs=4 * 0.3 / 200**0.5)


class Uniform(torch.nn.Module):
    """Knows nothing: every word is as likely."""

    def forward(self, ids, mask=None):
        return torch.nn.functional.one_hot(ids, WORDS).float()

    def logits(self, hidden):
        return torch.zeros(*hidden.shape[:-1], WORDS)


def test_the_bound_of_a_model_that_knows_nothing_is_ln_v():
    """E[Σ hidden/r] is the number of tokens, whatever the shares: without 1/r it would be half."""
    ids, total = torch.randint(1, MASK, (32, 40), generator=generator()), []
    for seed in range(100):
        inputs, labels, weights = shares(ids, seed)
        batch = {"input_ids": inputs, "labels": labels, "weights": weights, "asked": torch.ones_like(ids)}
        assert diffusion_losses(Uniform(), batch).shape == ids.shape
        total.append(diffusion_loss(Uniform(), batch).item())
    assert np.mean(total) == pytest.approx(np.log(WORDS), rel=0.02)


def test_diffusion_loss_by_hand():
    encoder = Encoder(GPTConfig(WORDS, 16, n_embd=8, n_layer=1, n_head=2), generator=generator())
    ids = torch.randint(1, MASK, (4, 12), generator=generator())
    inputs, labels, weights = shares(ids)
    batch = {"input_ids": inputs, "labels": labels, "weights": weights, "asked": torch.ones_like(ids)}
    scores = encoder.logits(encoder(inputs)).log_softmax(-1)
    by_hand = sum(-scores[b, t, ids[b, t]] * weights[b, t] for b, t in (labels != IGNORE).nonzero()) / ids.numel()
    assert diffusion_loss(encoder, batch).item() == pytest.approx(by_hand.item(), abs=1e-5)


class Counting(torch.nn.Module):
    """Certain of one more than the number of words that it can see; remembers how often it was asked."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def forward(self, ids, mask=None):
        seen = (ids != MASK).sum(1)
        self.calls.append(ids.clone())
        return seen[:, None, None].expand(*ids.shape, 1)

    def logits(self, hidden):
        return torch.nn.functional.one_hot(hidden[..., 0] + 1, WORDS).float() * 1e4 + 2e4 * torch.eye(WORDS)[MASK]


@pytest.mark.parametrize("steps", [1, 3, 12, 40])
def test_unmasking_fills_all_in_so_many_rounds(steps):
    ids = torch.full((5, 12), MASK)
    ids[0, :8] = 0  # fewer to fill, and given words stay
    model = Counting()
    written = unmask(model, ids, mask_token_id=MASK, steps=steps, generator=generator())
    assert (written != MASK).all()
    assert (written[0, :8] == 0).all()
    assert len(model.calls) == min(steps, 12)
    if steps == 1:
        assert (written[1:] == 1).all()  # all at once, from nothing
    if steps >= 12:
        assert all(sorted(row.tolist()) == list(range(1, 13)) for row in written[1:])  # one after the other
        assert written[1].tolist() != written[2].tolist()  # in an order of its own
    if steps == 3:
        assert sorted(written[1].tolist()) == [1] * 4 + [5] * 4 + [9] * 4
    again = unmask(model, ids, mask_token_id=MASK, steps=steps, generator=generator())
    assert torch.equal(written, again)


def test_bad_shares_of_a_diffusion():
    with pytest.raises(ValueError, match="least must lie between 0 and 1, got 0"):
        shares(torch.ones(2, 3, dtype=torch.long), least=0)
    with pytest.raises(TypeError, match=r"torch\.long"):
        shares(torch.ones(2, 3))
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        unmask(Counting(), torch.ones(2, 3, dtype=torch.long), mask_token_id=MASK, steps=0, generator=generator())


# ------------------------------------------------------------------------------------------- hidden spans


@given(length=st.integers(2, 200), seed=st.integers(0, 999), density=st.floats(0.05, 0.6), mean=st.floats(1, 6))
@settings(max_examples=200, deadline=None)
def test_what_was_hidden_can_be_put_back(length, seed, density, mean):
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, 90, length).tolist()
    mask = random_spans_noise_mask(length, rng, density, mean)
    sentinels = range(100, 300)
    source, target = hide_spans(tokens, mask, sentinels)
    assert restore_spans(source, target, sentinels) == tokens
    spans = int(mask[0]) + int((mask[1:] & ~mask[:-1]).sum())
    assert len(source) == length - mask.sum() + spans
    assert len(target) == mask.sum() + spans + 1
    assert [s for s in source if s >= 100] == list(range(100, 100 + spans))  # in order, each once


@given(length=st.integers(2, 400), seed=st.integers(0, 99))
@settings(max_examples=100, deadline=None)
def test_the_number_hidden_is_settled(length, seed):
    mask = random_spans_noise_mask(length, np.random.default_rng(seed))
    hidden = max(1, round(0.15 * length))
    assert mask.sum() == hidden
    around = int((mask & ~np.roll(mask, 1)).sum())  # spans, if the end is joined to the beginning
    assert around == max(1, round(hidden / 3))


def test_every_position_is_hidden_equally_often():
    rng = np.random.default_rng(0)
    share = np.mean([random_spans_noise_mask(40, rng) for _ in range(6000)], axis=0)
    assert share == pytest.approx(0.15, abs=4.5 * (0.15 * 0.85 / 6000) ** 0.5)


def test_spans_have_a_mean_length_of_three():
    rng = np.random.default_rng(0)
    masks = [random_spans_noise_mask(120, rng) for _ in range(500)]
    lengths = np.array([m.sum() / (m & ~np.roll(m, 1)).sum() for m in masks])
    assert (lengths == 3).all()
    longest = [max(map(len, "".join(".#"[int(h)] for h in m).replace(".", " ").split())) for m in masks]
    assert min(longest) >= 3
    assert max(longest) > 6  # lengths vary


def test_the_papers_example():
    tokens = "Thank you for inviting me to your party last week .".split()
    mask = np.isin(np.arange(11), [2, 3, 8])
    source, target = hide_spans(tokens, mask, ["<X>", "<Y>", "<Z>"])
    assert source == "Thank you <X> me to your party <Y> week .".split()
    assert target == "<X> for inviting <Y> last <Z>".split()
    with pytest.raises(ValueError, match="sentinels must hold one more"):
        hide_spans(tokens, mask, ["<X>", "<Y>"])


def test_a_batch_is_what_an_encoder_decoder_reads():
    rng = np.random.default_rng(0)
    rows = [rng.integers(1, 90, n).tolist() for n in (30, 12, 21)]
    batch = corrupt_spans(rows, SENTINELS, np.random.default_rng(5))
    for row, source, seen, target in zip(rows, *batch.values(), strict=True):
        kept = source[seen.bool()].tolist()
        assert restore_spans(kept, target[target != IGNORE].tolist(), SENTINELS) == row
        assert (source[~seen.bool()] == 0).all()
    config = GPTConfig(130, 40, n_embd=8, n_layer=1, n_head=2)
    assert EncoderDecoder(config, generator=generator())(**batch).loss.isfinite()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1,), "length must be at least 2"),
        ((9, 0.0), "noise_density must lie between 0 and 1, got 0"),
        ((9, 0.2, 0.5), "mean_noise_span_length must be at least 1, got 0.5"),
    ],
)
def test_bad_spans(arguments, message):
    length, *rest = arguments
    with pytest.raises(ValueError, match=message):
        random_spans_noise_mask(length, np.random.default_rng(0), *rest)
