"""Speculative decoding: a cheap guesser proposes several tokens, the model checks them all in one pass.

Leviathan et al. (2023), Chen et al. (2023). Whatever the guesser, the text has the model's own distribution:
a token drawn from q is kept with probability min(1, p/q), and one that is not kept is replaced by a draw from
max(p − q, 0), normalised.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from llmbook.decoding.processors import Processor, process
from llmbook.decoding.reader import Reader
from llmbook.transformer import GPT


@dataclass(frozen=True)
class Choice:
    """How a token is chosen from logits: after these processors, by chance or the best."""

    processors: Sequence[Processor] = ()
    do_sample: bool = True
    generator: torch.Generator | None = None

    def probs(self, input_ids: Tensor, logits: Tensor) -> Tensor:
        """The distributions (n, V) that tokens are drawn from, at the last n places of ``input_ids`` (1, T) plus one.

        Row i of the logits (n, V) stands behind ``input_ids[:, : T − n + 1 + i]``. The greedy choice
        is a distribution, too.
        """
        n, T = len(logits), input_ids.shape[1]
        rows = [process(self.processors, input_ids[:, : T - n + 1 + i], logits[i : i + 1].float()) for i in range(n)]
        scores = torch.cat(rows)
        return scores.softmax(-1) if self.do_sample else F.one_hot(scores.argmax(-1), scores.shape[-1]).float()

    def draw(self, probs: Tensor) -> int:
        """One token of a distribution (V,)."""
        if not self.do_sample:
            return int(probs.argmax())
        return int(torch.multinomial(probs, 1, generator=self.generator))


class Guesser(Protocol):
    """What proposes tokens."""

    def propose(self, input_ids: Tensor, n: int) -> tuple[list[int], Tensor]:
        """At most n tokens that may follow ``input_ids`` (1, T), and what each was drawn from (n, V)."""
        ...


class ModelGuesser:
    """A smaller model, which draws as the larger one does."""

    def __init__(self, model: GPT, choice: Choice, use_cache: bool = True) -> None:
        self.reader, self.choice = Reader(model, use_cache=use_cache), choice

    def propose(self, input_ids: Tensor, n: int) -> tuple[list[int], Tensor]:
        tokens, drawn_from = [], [torch.empty(0, self.reader.model.config.vocab_size, device=input_ids.device)]
        for _ in range(n):
            logits = self.reader.catch_up(input_ids)[0]  # (1, V)
            drawn_from.append(self.choice.probs(input_ids, logits))
            tokens.append(self.choice.draw(drawn_from[-1][0]))
            input_ids = torch.cat([input_ids, input_ids.new_tensor([tokens[-1:]])], dim=1)
        return tokens, torch.cat(drawn_from)


class LookupGuesser:
    """Whatever followed the last tokens when the text held them before: prompt-lookup decoding (Saxena, 2023).

    Costs nothing, and is often right where a text repeats what it was given: summaries, corrections, code.
    """

    def __init__(self, vocab_size: int, max_ngram: int = 2) -> None:
        if max_ngram < 1:
            raise ValueError(f"max_matching_ngram_size must be at least 1, got {max_ngram}")
        self.vocab_size, self.max_ngram = vocab_size, max_ngram

    def propose(self, input_ids: Tensor, n: int) -> tuple[list[int], Tensor]:
        tokens = look_up(input_ids[0].tolist(), n, self.max_ngram)
        ids = input_ids.new_tensor(tokens)
        return tokens, F.one_hot(ids, self.vocab_size).float()  # it was certain


def look_up(ids: list[int], n: int, max_ngram: int) -> list[int]:
    """At most n ids that followed where the text's last ids, as many as can be up to ``max_ngram``, first stood."""
    for size in range(min(max_ngram, len(ids) - 1), 0, -1):
        ending = ids[-size:]
        for start in range(len(ids) - size):
            if ids[start : start + size] == ending:
                return ids[start + size : start + size + n]
    return []


def accept(p: Tensor, q: Tensor, tokens: Sequence[int], choice: Choice) -> list[int]:
    """The tokens that a round adds: those kept of n proposed ones, and one that the model draws itself.

    ``p`` (n + 1, V) is what the model would draw each token from, and the one after; ``q`` (n, V) is what the n
    tokens were drawn from.
    """
    luck = [0.5] * len(tokens)  # without chance every p and q is 0 or 1
    if choice.do_sample:
        luck = torch.rand(len(tokens), generator=choice.generator, device=p.device).tolist()
    for i, token in enumerate(tokens):
        if luck[i] * float(q[i, token]) >= float(p[i, token]):  # that is, with probability 1 − min(1, p/q)
            rest = (p[i] - q[i]).clamp(min=0)
            return [*tokens[:i], choice.draw(rest if bool(rest.sum() > 0) else p[i])]
    return [*tokens, choice.draw(p[len(tokens)])]


@dataclass
class Speculation:
    """The text (1, T), and for each round how many tokens were proposed and how many of them kept."""

    ids: Tensor
    proposed: list[int] = field(default_factory=list)
    kept: list[int] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Kept over judged: a round stops at its first refusal, so that what came after it was not judged."""
        judged = sum(min(kept + 1, n) for kept, n in zip(self.kept, self.proposed, strict=True))
        return sum(self.kept) / judged if judged else float("nan")


@torch.inference_mode()
def speculate(
    model: GPT,
    guesser: Guesser,
    input_ids: Tensor,
    max_new_tokens: int,
    *,
    num_assistant_tokens: int = 5,
    choice: Choice | None = None,
    eos: Sequence[int] = (),
    use_cache: bool = True,
) -> Speculation:
    """Go on from ``input_ids`` (1, T) as the model would, asking it once for several tokens where guesses are good."""
    if input_ids.shape[0] != 1:
        raise ValueError(f"input_ids must hold one text for speculative decoding, got {input_ids.shape[0]}")
    if num_assistant_tokens < 1:
        raise ValueError(f"num_assistant_tokens must be at least 1, got {num_assistant_tokens}")
    choice, reader = choice or Choice(), Reader(model, use_cache=use_cache)
    text, end = Speculation(input_ids), input_ids.shape[1] + max_new_tokens
    while (left := end - text.ids.shape[1]) > 0:
        tokens, q = guesser.propose(text.ids, min(num_assistant_tokens, left - 1))
        proposal = torch.cat([text.ids, text.ids.new_tensor([tokens])], dim=1)
        p = choice.probs(proposal, reader.catch_up(proposal, keep=len(tokens) + 1)[0])
        new = accept(p, q, tokens, choice)
        text.proposed.append(len(tokens))
        text.kept.append(len(new) - 1)
        if ends := [i for i, token in enumerate(new) if token in eos]:
            new = new[: ends[0] + 1]
        text.ids = torch.cat([text.ids, text.ids.new_tensor([new])], dim=1)
        if ends:
            break
    return text
