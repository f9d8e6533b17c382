"""Search for likely texts: beam search as transformers has it, and exact search for the likeliest text of all."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from llmbook.decoding.processors import Processor, ends, process
from llmbook.decoding.reader import Reader
from llmbook.transformer import GPT

NEVER = -1e9  # a score that nothing real has; transformers' own


@dataclass
class Beams:
    """Texts of each batch row with their scores: (B, K, L) ids, (B, K) scores."""

    ids: Tensor
    scores: Tensor

    def best(self, k: int) -> Beams:
        """The k of each row with the highest scores, best first."""
        return self.take(self.scores.topk(k, dim=1).indices)

    def take(self, which: Tensor) -> Beams:
        """Those at ``which`` (B, k)."""
        wide = which[..., None].expand(-1, -1, self.ids.shape[2])
        return Beams(self.ids.gather(1, wide), self.scores.gather(1, which))

    def joined(self, other: Beams) -> Beams:
        return Beams(torch.cat([self.ids, other.ids], 1), torch.cat([self.scores, other.scores], 1))


@dataclass(frozen=True)
class BeamSettings:
    """How to search: width, when to stop, and what a finished text of n new tokens scores: Σ log p / n^penalty."""

    num_beams: int
    length_penalty: float = 1.0
    early_stopping: bool | str = False  # True: at num_beams finished texts; "never": only when none can improve
    eos: tuple[int, ...] = ()
    fill: int = 0  # behind a text's end

    def __post_init__(self) -> None:
        if self.early_stopping not in (True, False, "never"):
            raise ValueError(f'early_stopping must be True, False or "never", got {self.early_stopping!r}')


def beam_search(
    reader: Reader, input_ids: Tensor, max_new_tokens: int, processors: list[Processor], settings: BeamSettings
) -> Beams:
    """The best ``num_beams`` texts found for each row of ``input_ids`` (B, T); ids are (B, K, T + max_new_tokens).

    Each step extends every running text by every token and keeps the best; those that end move to the finished
    ones, where scores are divided by a power of the length. Follows transformers 5 step by step.
    """
    (B, T), K = input_ids.shape, settings.num_beams
    blank = input_ids.new_full((B, K, T + max_new_tokens), settings.fill)
    blank[:, :, :T] = input_ids[:, None]
    running = Beams(blank, torch.full((B, K), NEVER, device=blank.device))
    finished = replace(running, ids=blank.clone())
    running.scores = running.scores.clone()
    running.scores[:, 0] = 0.0  # at first all K are the same text: extend one
    logits = reader.read(input_ids)[:, -1]
    reader.select(torch.arange(B, device=blank.device).repeat_interleave(K))
    logits = logits.repeat_interleave(K, dim=0)  # (B·K, V)
    open_rows = torch.ones(B, 1, dtype=torch.bool, device=blank.device)
    for length in range(T, T + max_new_tokens):
        grown, parents, ended = _extend(running, logits, length, reader.padding, processors, settings)
        ended |= length == T + max_new_tokens - 1
        new = length + 1 - T
        finished = _collect(finished, grown, ended, new, open_rows, settings)
        kept = torch.where(ended, grown.scores + NEVER, grown.scores).topk(K, dim=1).indices  # (B, K)
        running = grown.take(kept)
        running.scores = torch.where(ended.gather(1, kept), running.scores + NEVER, running.scores)
        open_rows = open_rows & _can_improve(running, finished, new, max_new_tokens, settings)
        full = settings.early_stopping is True and bool((finished.scores > NEVER / 2).all())
        if bool(ended.all()) or full or not bool(open_rows.any()):
            break
        rows = parents.gather(1, kept) + K * torch.arange(B, device=blank.device)[:, None]
        reader.select(rows.flatten())
        logits = reader.read(running.ids[:, :, length].reshape(-1, 1))[:, -1]
    return finished


def _extend(
    running: Beams,
    logits: Tensor,
    length: int,
    padding: Tensor | None,
    processors: list[Processor],
    settings: BeamSettings,
) -> tuple[Beams, Tensor, Tensor]:
    """The best texts that are one token longer (B, n), which beam each came from, and whether it ends."""
    B, K, _ = running.ids.shape
    logs = logits.float().log_softmax(-1)  # (B·K, V)
    logs = process(processors, running.ids[:, :, :length].flatten(0, 1), logs, padding)
    V = logs.shape[-1]
    scores = (logs.view(B, K, V) + running.scores[..., None]).flatten(1)  # (B, K·V)
    best = scores.topk(max(2, 1 + len(settings.eos)) * K, dim=1)  # K are left even if all ends of texts are among them
    parents, tokens = best.indices // V, best.indices % V  # (B, n) each
    grown = replace(running.take(parents), scores=best.values)
    grown.ids[:, :, length] = tokens
    return grown, parents, ends(tokens, settings.eos)


def _collect(
    finished: Beams, grown: Beams, ended: Tensor, new: int, open_rows: Tensor, settings: BeamSettings
) -> Beams:
    """The best K finished texts, with those among the best K grown ones that ended now."""
    K = settings.num_beams
    if settings.early_stopping is True:
        open_rows = open_rows & (finished.scores.min(1, keepdim=True).values <= NEVER / 2)
    counts = ended & (torch.arange(ended.shape[1], device=ended.device) < K) & open_rows
    scores = torch.where(counts, grown.scores / new**settings.length_penalty, torch.full_like(grown.scores, NEVER))
    return finished.joined(replace(grown, scores=scores)).best(K)


def _can_improve(running: Beams, finished: Beams, new: int, most: int, settings: BeamSettings) -> Tensor:
    """Whether the best running text may still beat the worst finished one (B, 1): by transformers' heuristic."""
    longest = most if settings.early_stopping == "never" and settings.length_penalty > 0 else new
    hope = running.scores[:, :1] / longest**settings.length_penalty
    return hope > finished.scores.min(dim=1, keepdim=True).values


@torch.inference_mode()
def exact_search(model: GPT, input_ids: Tensor, eos: int, at_least: float, max_new_tokens: int) -> tuple[Tensor, float]:
    """The likeliest text of all that goes on from ``input_ids`` (1, T) to ``eos``, and its log-probability.

    A prefix's log-probability only falls as it grows, so whatever is below the best finished text can be dropped
    (Stahlberg and Byrne, 2019). ``at_least`` is the log-probability of some finished text, such as beam search
    finds. Raises ValueError where no text of ``max_new_tokens`` reaches it.
    """
    reader, best, found = Reader(model), at_least, None
    ids, scores = input_ids, torch.zeros(1, dtype=torch.float64)
    logits = reader.read(ids)[:, -1]
    for _ in range(max_new_tokens):
        grown = scores[:, None] + logits.double().log_softmax(-1)  # (N, V)
        top, row = grown[:, eos].max(0)
        if top >= best - 1e-6 and (found is None or top > best):
            best, found = float(top), torch.cat([ids[row], ids.new_tensor([eos])])
        grown[:, eos] = -torch.inf
        parents, tokens = (grown > best).nonzero(as_tuple=True)
        if not len(parents):
            break
        ids, scores = torch.cat([ids[parents], tokens[:, None]], 1), grown[parents, tokens]
        reader.select(parents)
        logits = reader.read(tokens[:, None])[:, -1]
    if found is None:
        raise ValueError(f"no text of at most {max_new_tokens} new tokens has a log-probability of {at_least}")
    return found[None], best
