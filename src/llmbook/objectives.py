"""Ways to make a lesson out of plain text: predict the next token, hidden tokens, hidden spans, or any share.

The first needs no code: a causal model's labels are its inputs (``llmbook.training.padded_batches``). Here are
the others: BERT's masking, equal draw for draw to transformers' ``DataCollatorForLanguageModeling``; T5's span
corruption; and masked diffusion, which hides any share of a text, and so can write one from nothing. Shapes: B rows,
T tokens. Labels of −100 are not scored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from llmbook.transformer import IGNORE, Encoder

# ------------------------------------------------------------ hidden tokens (Devlin et al., 2019)


def mask_tokens(
    input_ids: Tensor,
    *,
    mask_token_id: int,
    vocab_size: int,
    generator: torch.Generator,
    special_tokens_mask: Tensor | None = None,
    mlm_probability: float = 0.15,
    mask_replace_prob: float = 0.8,
    random_replace_prob: float = 0.1,
) -> tuple[Tensor, Tensor]:
    """BERT's lesson: ids (B, T) to (inputs, labels), both (B, T); labels are −100 where nothing was chosen.

    Each token is chosen with ``mlm_probability``, but never where ``special_tokens_mask`` (B, T) is true. A chosen
    one becomes ``mask_token_id`` (0.8), a random token (0.1), or stays (0.1), and its label is what it was. Names,
    behaviour and order of draws are those of transformers' collator. ``input_ids`` are left as they are.
    """
    for name, p in (("mlm_probability", mlm_probability), ("mask_replace_prob", mask_replace_prob)):
        if not 0 <= p <= 1:
            raise ValueError(f"{name} must be a probability, got {p}")
    if not 0 <= random_replace_prob <= 1 - mask_replace_prob:
        raise ValueError(f"random_replace_prob must lie in 0..{1 - mask_replace_prob:g}, got {random_replace_prob}")
    if input_ids.dtype != torch.long:
        raise TypeError(f"input_ids must be a torch.long tensor, got {input_ids.dtype}")

    def draw(p: float) -> Tensor:
        return torch.bernoulli(torch.full(input_ids.shape, p), generator=generator).bool()  # (B, T)

    probability = torch.full(input_ids.shape, mlm_probability)  # (B, T)
    if special_tokens_mask is not None:
        probability.masked_fill_(special_tokens_mask.bool(), 0.0)
    chosen = torch.bernoulli(probability, generator=generator).bool()
    labels = input_ids.masked_fill(~chosen, IGNORE)
    hidden = chosen & draw(mask_replace_prob)
    inputs = input_ids.masked_fill(hidden, mask_token_id)
    if mask_replace_prob == 1 or random_replace_prob == 0:
        return inputs, labels
    swapped = chosen & ~hidden & draw(random_replace_prob / (1 - mask_replace_prob))
    random_ids = torch.randint(vocab_size, input_ids.shape, generator=generator)
    return torch.where(swapped, random_ids, inputs), labels


def masked_loss(model: Encoder, batch: Mapping[str, Tensor]) -> Tensor:
    """Mean loss in nats of an encoder on the chosen tokens of a batch (input_ids, attention_mask, labels). ()

    Only the chosen positions are compared with the vocabulary, which saves most of the work of the output.
    """
    hidden = model(batch["input_ids"], batch.get("attention_mask"))  # (B, T, C)
    chosen = batch["labels"] != IGNORE  # (B, T)
    if not bool(chosen.any()):
        raise ValueError("labels leave nothing to score: every one is -100")
    return F.cross_entropy(model.logits(hidden[chosen]), batch["labels"][chosen])


# ------------------------------------------------------------ any share hidden (Sahoo et al., 2024; Nie et al., 2025)


def hide_shares(
    input_ids: Tensor,
    *,
    mask_token_id: int,
    generator: torch.Generator,
    special_tokens_mask: Tensor | None = None,
    least: float = 1e-3,
) -> tuple[Tensor, Tensor, Tensor]:
    """Masked diffusion's lesson: ids (B, T) to inputs, labels and weights, all (B, T).

    Each row has a share r of its own, uniform on [``least``, 1], and each of its tokens that is not special is hidden
    with probability r. A hidden token weighs 1/r, so that all shares count alike: the bound of Sahoo et al. for a
    rate of hiding that grows evenly with time. The shares of a batch are spread evenly, from a random start.
    """
    if not 0 < least < 1:
        raise ValueError(f"least must lie between 0 and 1, got {least}")
    if input_ids.dtype != torch.long:
        raise TypeError(f"input_ids must be a torch.long tensor, got {input_ids.dtype}")
    B = len(input_ids)
    share = (torch.rand(1, generator=generator) + torch.arange(B) / B).remainder(1)[:, None]  # (B, 1)
    share = least + (1 - least) * share
    hidden = torch.rand(input_ids.shape, generator=generator) < share  # (B, T)
    if special_tokens_mask is not None:
        hidden &= ~special_tokens_mask.bool()
    labels = input_ids.masked_fill(~hidden, IGNORE)
    return input_ids.masked_fill(hidden, mask_token_id), labels, hidden / share


def diffusion_losses(model: Encoder, batch: Mapping[str, Tensor]) -> Tensor:
    """−ln q of each hidden token times its weight, and 0 elsewhere: (B, T), nats.

    Summed over a row, its mean over many lessons is a bound from above on the row's −ln q(text).
    """
    chosen = batch["labels"] != IGNORE  # (B, T)
    hidden = model(batch["input_ids"], batch.get("attention_mask"))  # (B, T, C)
    loss = F.cross_entropy(model.logits(hidden[chosen]), batch["labels"][chosen], reduction="none")
    return torch.zeros(chosen.shape, device=loss.device).masked_scatter(chosen, loss * batch["weights"][chosen])


def diffusion_loss(model: Encoder, batch: Mapping[str, Tensor]) -> Tensor:
    """Mean of :func:`diffusion_losses` over the tokens that might have been hidden (``batch["asked"]``, (B, T)). ()"""
    return diffusion_losses(model, batch).sum() / batch["asked"].sum()


@torch.no_grad()
def unmask(
    model: Encoder,
    input_ids: Tensor,
    *,
    mask_token_id: int,
    steps: int,
    generator: torch.Generator,
    attention_mask: Tensor | None = None,
) -> Tensor:
    """Write a text where ``input_ids`` (B, T) hold the mask, in ``steps`` rounds of about equal size: (B, T).

    The order is random. All tokens of a round are drawn at once, each from its own distribution, given what stood
    before the round; so one round draws them independently, and as many rounds as tokens follow the chain rule.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    ids, hidden = input_ids.clone(), input_ids == mask_token_id
    order = torch.rand(ids.shape, generator=generator).to(ids.device).masked_fill(~hidden, 2.0)
    rank = order.argsort(dim=1).argsort(dim=1)  # (B, T): 0, 1, … among a row's hidden tokens
    turn = rank * steps // hidden.sum(dim=1, keepdim=True).clamp(min=1)  # in which round
    for step in range(steps):
        now = hidden & (turn == step)
        if not bool(now.any()):
            continue
        logits = model.logits(model(ids, attention_mask)[now])  # (N, V)
        logits[:, mask_token_id] = -torch.inf
        ids[now] = torch.multinomial(logits.softmax(-1).cpu(), 1, generator=generator)[:, 0].to(ids.device)
    return ids


# ------------------------------------------------------------ hidden spans (Raffel et al., 2020)


def random_spans_noise_mask(
    length: int, rng: np.random.Generator, noise_density: float = 0.15, mean_noise_span_length: float = 3.0
) -> NDArray[np.bool_]:
    """Which of ``length`` tokens to hide, in spans: (length,), true where hidden.

    T5's rule: the number of hidden tokens and of spans is fixed by rounding; both the hidden and the kept tokens
    are cut into that many pieces at random, which alternate. The whole is then rolled by a random offset (T5's
    ``random_roll``), without which a text would always begin shown and end hidden.
    """
    if length < 2:
        raise ValueError(f"length must be at least 2, one token to hide and one to keep, got {length}")
    if not 0 < noise_density < 1:
        raise ValueError(f"noise_density must lie between 0 and 1, got {noise_density}")
    if mean_noise_span_length < 1:
        raise ValueError(f"mean_noise_span_length must be at least 1, got {mean_noise_span_length}")
    hidden = min(max(round(length * noise_density), 1), length - 1)
    spans = min(max(round(hidden / mean_noise_span_length), 1), length - hidden)
    pieces = np.stack([_pieces(length - hidden, spans, rng), _pieces(hidden, spans, rng)], axis=1)  # (spans, 2)
    mask = np.repeat(np.tile([False, True], spans), pieces.ravel())
    return np.roll(mask, rng.integers(length))


def _pieces(total: int, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Lengths of ``count`` pieces, each at least 1, that make up ``total``; every cut equally likely. (count,)"""
    cuts = np.sort(rng.choice(np.arange(1, total), count - 1, replace=False))
    return np.diff(cuts, prepend=0, append=total)


def hide_spans(tokens: Sequence[int], mask: NDArray[np.bool_], sentinels: Sequence[int]) -> tuple[list, list]:
    """(source, target) of one text: each hidden span is replaced by a sentinel; the target lists what was hidden.

    ``Thank you [for inviting] me to your party [last] week`` becomes ``Thank you <0> me to your party <1> week``
    and ``<0> for inviting <1> last <2>``: one more sentinel says that it is over.
    """
    source, target, used = [], [], 0
    for i, (token, hidden) in enumerate(zip(tokens, mask, strict=True)):
        if hidden and (i == 0 or not mask[i - 1]):  # a span begins
            if used + 1 >= len(sentinels):
                raise ValueError(f"sentinels must hold one more than there are spans, got {len(sentinels)}")
            source.append(sentinels[used])
            target.append(sentinels[used])
            used += 1
        (target if hidden else source).append(token)
    return source, [*target, sentinels[used]]


def restore_spans(source: Sequence[int], target: Sequence[int], sentinels: Sequence[int]) -> list[int]:
    """The text that ``hide_spans`` took apart: its inverse."""
    spans: dict[int, list[int]] = {}
    for token in target:
        if token in sentinels:
            spans[token] = current = []
        else:
            current.append(token)
    return [part for token in source for part in spans.get(token, [token])]


def corrupt_spans(
    rows: Sequence[Sequence[int]],
    sentinels: Sequence[int],
    rng: np.random.Generator,
    noise_density: float = 0.15,
    mean_noise_span_length: float = 3.0,
) -> dict[str, Tensor]:
    """T5's lesson for an ``EncoderDecoder``: input_ids and attention_mask (B, S), labels (B, T).

    Padding is id 0 in the source and −100 in the labels.
    """
    masks = [random_spans_noise_mask(len(row), rng, noise_density, mean_noise_span_length) for row in rows]
    pairs = [hide_spans(row, mask, sentinels) for row, mask in zip(rows, masks, strict=True)]
    sources, targets = ([torch.tensor(part) for part in parts] for parts in zip(*pairs, strict=True))
    source = nn.utils.rnn.pad_sequence(sources, batch_first=True, padding_value=IGNORE)
    labels = nn.utils.rnn.pad_sequence(targets, batch_first=True, padding_value=IGNORE)
    return {"input_ids": source.clamp(min=0), "attention_mask": (source != IGNORE).long(), "labels": labels}
