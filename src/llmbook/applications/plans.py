"""Texts by a plan: words that must be said in order, a length and a tone, enforced at each token; and what it costs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from llmbook.applications.generation import world
from llmbook.toyworld import words
from llmbook.transformer import GPT


class Plan:
    """A processor: tokens to be said in this order, each pushed by some nats until it is; no close before the last.

    New text begins behind ``prompt_length`` ids. What ``never`` lists is forbidden throughout. With ``latest``, once
    so many new tokens stand there and all was said, only a close may follow a ``boundary``. Works with any model
    that :func:`llmbook.decoding.generate` takes.
    """

    def __init__(
        self,
        planned: Sequence[int],
        closing: Sequence[int],
        prompt_length: int,
        *,
        push: float = 0.0,
        never: Sequence[int] = (),
        latest: int | None = None,
        boundary: int = -1,
    ) -> None:
        if push < 0:
            raise ValueError(f"push must be at least 0 nats, got {push}")
        self.planned = torch.tensor([*planned, *closing[:1]])  # the last only fills a place
        self.closing, self.never = torch.tensor(closing), torch.tensor(never, dtype=torch.long)
        self.prompt_length, self.push, self.latest, self.boundary = prompt_length, push, latest, boundary

    def said(self, new: Tensor) -> Tensor:
        """How many of the planned tokens new texts (B, T) hold, in order: (B,)."""
        places = torch.arange(new.shape[1])
        begin, count = torch.zeros(len(new), dtype=torch.long), torch.zeros(len(new), dtype=torch.long)
        for k, token in enumerate(self.planned[:-1]):
            hits = (new == token) & (places >= begin[:, None])
            found = hits.any(1) & (count == k)
            begin = torch.where(found, hits.int().argmax(1) + 1, begin) if new.shape[1] else begin
            count = count + found
        return count

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        new = input_ids[:, self.prompt_length :]
        count, everything = self.said(new), len(self.planned) - 1
        waiting = count < everything  # (B,)
        scores = scores.index_fill(1, self.never, -math.inf)
        scores[:, self.closing] = scores[:, self.closing].masked_fill(waiting[:, None], -math.inf)
        scores[torch.arange(len(new)), self.planned[count]] += self.push * waiting
        if self.latest is not None and new.shape[1] >= self.latest:
            closed = torch.isin(new, self.closing).any(1)
            due = ~waiting & ~closed & (new[:, -1] == self.boundary)
            others = torch.ones(scores.shape[1], dtype=torch.bool).index_fill(0, self.closing, False)
            scores = scores.masked_fill(due[:, None] & others, -math.inf)
        return scores


def plan(
    planned: Sequence[str],
    *,
    push: float = 0.0,
    tone: str | None = None,
    latest: int | None = None,
    prompt_length: int = 1,
) -> Plan:
    """A plan for stories of the world: words in order, how the day was, and from which token on to close."""
    known = world().token_to_id
    if unknown := [word for word in (*planned, *([tone] if tone else [])) if word not in known]:
        raise ValueError(f"planned must be words of the world, got {unknown[0]!r}")
    never = [known[t] for t in words.TONES if t != tone] if tone else []
    return Plan(
        [known[word] for word in planned], [known["that"]], prompt_length, push=push, never=never, latest=latest,
        boundary=known["."],
    )  # fmt: skip


def holds(tokens: Sequence[str], planned: Sequence[str]) -> bool:
    """Whether a whole story says these words in this order."""
    rest = iter(tokens)
    return tokens[-1:] == ["<eos>"] and all(word in rest for word in planned)


@torch.inference_mode()
def nats(model: GPT, texts: Tensor, prompt_length: int, processor: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """log r(text) − log q(text): what a processor's drafts r cost, by the model q without it. (B,) in nats.

    ``texts`` (B, T) are whole rows with their prompt; a row ends at its first token of id -1.
    """
    length = texts.shape[1]
    ids = texts.clamp(min=0)
    before = model(ids).logits[:, prompt_length - 1 : length - 1]  # (B, T − P, V)
    cost = torch.zeros(len(texts))
    for t in range(prompt_length, length):
        q = before[:, t - prompt_length]
        r = processor(ids[:, :t], q)
        at = ids[:, t : t + 1]
        step = (r.log_softmax(-1) - q.log_softmax(-1)).gather(1, at)[:, 0]
        cost += step.where(texts[:, t] >= 0, torch.zeros(()))
    return cost


def rows(texts: Sequence[Sequence[str]], prompt: Sequence[str] = ("<bos>",)) -> Tensor:
    """Texts behind a prompt as ids (B, T), filled up with -1, for :func:`nats`."""
    encoded = [torch.from_numpy(world().encode([*prompt, *text])) for text in texts]
    return pad_sequence(encoded, batch_first=True, padding_value=-1)
