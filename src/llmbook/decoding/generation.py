"""``generate``: from a model and the beginning of a text to the text, by transformers' names and meanings."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from llmbook.decoding.beam import BeamSettings, beam_search
from llmbook.decoding.processors import (
    Allowed,
    MinNewTokens,
    MinP,
    NoRepeatNGram,
    OnlyAllowed,
    Processor,
    RepetitionPenalty,
    Temperature,
    TopK,
    TopP,
    Typical,
    ends,
    process,
)
from llmbook.decoding.reader import Reader
from llmbook.decoding.speculative import Choice, LookupGuesser, ModelGuesser, speculate
from llmbook.transformer import GPT


@torch.inference_mode()
def generate(
    model: GPT,
    input_ids: Tensor,
    max_new_tokens: int = 20,
    do_sample: bool = False,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    num_beams: int = 1,
    use_cache: bool = True,
    *,
    attention_mask: Tensor | None = None,
    min_new_tokens: int = 0,
    min_p: float | None = None,
    typical_p: float | None = None,
    repetition_penalty: float = 1.0,
    no_repeat_ngram_size: int = 0,
    length_penalty: float = 1.0,
    early_stopping: bool | str = False,
    num_return_sequences: int = 1,
    penalty_alpha: float | None = None,
    prefix_allowed_tokens_fn: Allowed | None = None,
    logits_processor: Sequence[Processor] = (),
    assistant_model: GPT | None = None,
    num_assistant_tokens: int = 5,
    prompt_lookup_num_tokens: int | None = None,
    max_matching_ngram_size: int = 2,
    eos_token_id: int | Sequence[int] | None = None,
    pad_token_id: int | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Ids (B, T) and what the model writes behind them: (B · num_return_sequences, at most T + max_new_tokens).

    Arguments mean what they mean to ``transformers.GenerationMixin.generate``, but nothing is set behind one's back:
    there ``do_sample=True`` keeps the 50 likeliest tokens unless ``top_k`` says otherwise. Rows of unequal
    length are padded on the left, with an ``attention_mask`` (B, T) that is 0 there. Rows that have ended are
    filled with ``pad_token_id`` (default: the end). ``penalty_alpha`` with ``top_k`` is contrastive search (Su et
    al., 2022). With ``assistant_model`` or ``prompt_lookup_num_tokens`` decoding is speculative, for one row.
    ``generator`` draws; without one, torch's default does.

    Raises:
        TypeError, ValueError: for arguments that are out of range or do not go together; the message names them.
    """
    _check_input(model, input_ids, attention_mask, max_new_tokens, num_return_sequences)
    _check_ways(do_sample, num_beams, penalty_alpha, top_k, assistant_model, prompt_lookup_num_tokens)
    if num_return_sequences > num_beams and not do_sample:
        raise ValueError(
            f"num_return_sequences without do_sample must be at most num_beams, got {num_return_sequences}"
        )
    eos = _ends(model, eos_token_id)
    pad = pad_token_id if pad_token_id is not None else (eos[0] if eos else 0)
    processors: list[Processor] = []
    if repetition_penalty != 1.0:
        processors.append(RepetitionPenalty(repetition_penalty))
    if no_repeat_ngram_size:
        processors.append(NoRepeatNGram(no_repeat_ngram_size))
    if min_new_tokens and eos:
        processors.append(MinNewTokens(input_ids.shape[1], min_new_tokens, eos))
    if prefix_allowed_tokens_fn is not None:
        processors.append(OnlyAllowed(prefix_allowed_tokens_fn))
    processors += logits_processor
    if do_sample:
        processors += sampling_processors(temperature, top_k, top_p, min_p, typical_p)
    choice = Choice(processors, do_sample, generator)
    if assistant_model is not None or prompt_lookup_num_tokens is not None:
        if num_return_sequences > 1 or (attention_mask is not None and not bool(attention_mask.all())):
            raise ValueError(
                "assistant_model and prompt_lookup_num_tokens want one row without padding, and return one"
            )
        guesser = (
            LookupGuesser(model.config.vocab_size, max_matching_ngram_size)
            if assistant_model is None
            else ModelGuesser(assistant_model, choice, use_cache)
        )
        n = prompt_lookup_num_tokens if assistant_model is None else num_assistant_tokens
        options = {"num_assistant_tokens": n, "choice": choice, "eos": eos, "use_cache": use_cache}
        return speculate(model, guesser, input_ids, max_new_tokens, **options).ids
    if num_beams > 1:
        reader = Reader(model, attention_mask, use_cache)
        settings = BeamSettings(num_beams, length_penalty, early_stopping, eos, pad)
        ids = beam_search(reader, input_ids, max_new_tokens, processors, settings).ids[:, :num_return_sequences]
        return _trimmed(ids.flatten(0, 1), input_ids.shape[1], eos)
    if num_return_sequences > 1:
        input_ids = input_ids.repeat_interleave(num_return_sequences, dim=0)
        if attention_mask is not None:
            attention_mask = attention_mask.repeat_interleave(num_return_sequences, dim=0)
    reader = Reader(model, attention_mask, use_cache)
    if penalty_alpha is not None:
        return _contrastive(reader, input_ids, max_new_tokens, processors, top_k, penalty_alpha, eos, pad)
    return _one_by_one(reader, input_ids, max_new_tokens, choice, eos, pad)


def sampling_processors(
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    typical_p: float | None = None,
) -> list[Processor]:
    """What ``do_sample=True`` puts between logits and draw, in transformers' order."""
    processors: list[Processor] = [] if temperature == 1.0 else [Temperature(temperature)]
    if top_k:
        processors.append(TopK(top_k))
    if top_p is not None and top_p != 1.0:
        processors.append(TopP(top_p))
    if min_p is not None:
        processors.append(MinP(min_p))
    if typical_p is not None and typical_p != 1.0:
        processors.append(Typical(typical_p))
    return processors


def _one_by_one(
    reader: Reader, input_ids: Tensor, max_new_tokens: int, choice: Choice, eos: tuple[int, ...], pad: int
) -> Tensor:
    """Read, choose, append, until all rows have ended."""
    B, T = input_ids.shape
    ids = input_ids.new_full((B, T + max_new_tokens), pad)
    ids[:, :T] = input_ids
    going, padding, new = torch.ones(B, dtype=torch.bool, device=ids.device), reader.padding, input_ids
    for length in range(T, T + max_new_tokens):
        scores = process(choice.processors, ids[:, :length], reader.read(new)[:, -1].float(), padding)  # (B, V)
        chosen = _draw(scores, choice) if choice.do_sample else scores.argmax(-1)  # (B,)
        if eos:
            chosen = torch.where(going, chosen, pad)
            going = going & ~ends(chosen, eos)
        ids[:, length] = chosen
        if eos and not bool(going.any()):
            return ids[:, : length + 1]
        new = chosen[:, None]
    return ids


def _draw(scores: Tensor, choice: Choice) -> Tensor:
    probs = scores.softmax(-1)
    if bool(probs.isnan().any()):
        raise ValueError("logits_processor must leave at least one token possible: all scores are −∞, or one is NaN")
    return torch.multinomial(probs, 1, generator=choice.generator)[:, 0]


def _contrastive(
    reader: Reader,
    input_ids: Tensor,
    max_new_tokens: int,
    processors: list[Processor],
    k: int,
    alpha: float,
    eos: tuple[int, ...],
    pad: int,
) -> Tensor:
    """Of the k likeliest, the token with the highest (1 − α) p − α · (its likeness to any token before it).

    Likeness is the cosine of the last block's outputs, for which each candidate has to be read.
    """
    ids, B = input_ids, len(input_ids)
    logits, going = reader.read(ids)[:, -1], torch.ones(B, dtype=torch.bool, device=input_ids.device)
    seen = torch.nn.functional.normalize(reader.hidden, dim=-1)  # (B, T, C)
    front = torch.arange(B, device=ids.device)
    for _ in range(max_new_tokens):
        padding = reader.padding
        best = process(processors, ids, logits.float(), padding).softmax(-1).topk(k, dim=-1)  # (B, k)
        reader.select(front.repeat_interleave(k))
        logits = reader.read(best.indices.reshape(-1, 1))[:, -1].unflatten(0, (B, k))  # (B, k, V)
        candidates = torch.nn.functional.normalize(reader.hidden[:, 0].unflatten(0, (B, k)), dim=-1)  # (B, k, C)
        alike = candidates @ seen.transpose(1, 2)  # (B, k, t)
        if padding is not None:
            alike = alike.masked_fill(torch.arange(alike.shape[2]) < padding[:, None, None], -2.0)
        which = ((1 - alpha) * best.values - alpha * alike.amax(-1)).argmax(-1)  # (B,)
        reader.select(front * k + which)
        logits, seen = logits[front, which], torch.cat([seen, candidates[front, which][:, None]], 1)
        chosen = torch.where(going, best.indices[front, which], pad)
        ids = torch.cat([ids, chosen[:, None]], 1)
        if eos and not bool((going := going & ~ends(chosen, eos)).any()):
            break
    return ids


def _trimmed(ids: Tensor, prompt: int, eos: tuple[int, ...]) -> Tensor:
    """Without the columns behind the longest text's end."""
    if not eos:
        return ids
    new = ends(ids[:, prompt:], eos)
    lengths = torch.where(new.any(1), new.int().argmax(1) + 1, new.shape[1])
    return ids[:, : prompt + int(lengths.max())]


# ------------------------------------------------------------------------------------------------ checks


def _ends(model: GPT, eos_token_id: int | Sequence[int] | None) -> tuple[int, ...]:
    eos = model.config.eos_token_id if eos_token_id is None else eos_token_id
    return () if eos is None else (eos,) if isinstance(eos, int) else tuple(eos)


def _check_input(
    model: GPT, input_ids: Tensor, attention_mask: Tensor | None, max_new_tokens: int, num_return_sequences: int
) -> None:
    if not isinstance(input_ids, Tensor) or input_ids.dtype not in (torch.long, torch.int):
        kind = getattr(input_ids, "dtype", type(input_ids).__name__)
        raise TypeError(f"input_ids must be a tensor of integers (torch.long), got {kind}")
    if input_ids.dim() != 2 or input_ids.numel() == 0:
        raise ValueError(f"input_ids must be (batch, length) with at least one token, got {tuple(input_ids.shape)}")
    for name, value in (("max_new_tokens", max_new_tokens), ("num_return_sequences", num_return_sequences)):
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
    longest = input_ids.shape[1] + max_new_tokens
    if longest > model.config.n_positions:
        raise ValueError(
            f"input_ids and max_new_tokens must fit n_positions = {model.config.n_positions}, got {longest} together"
        )
    if attention_mask is None:
        return
    if attention_mask.shape != input_ids.shape:
        raise ValueError(
            f"attention_mask must have input_ids' shape {tuple(input_ids.shape)}, got {tuple(attention_mask.shape)}"
        )
    if not bool(attention_mask[:, -1].all()) or bool((attention_mask.long().diff(dim=1) < 0).any()):
        raise ValueError("attention_mask must be 0 in front of a text only: pad rows on the left")


def _check_ways(
    do_sample: bool,
    num_beams: int,
    penalty_alpha: float | None,
    top_k: int | None,
    assistant_model: GPT | None,
    prompt_lookup_num_tokens: int | None,
) -> None:
    if not isinstance(num_beams, int) or num_beams < 1:
        raise ValueError(f"num_beams must be a whole number of at least 1, got {num_beams!r}")
    if num_beams > 1 and do_sample:
        raise ValueError(f"num_beams must be 1 with do_sample, got {num_beams}: beams are searched, not drawn")
    if penalty_alpha is not None and not 0 <= penalty_alpha <= 1:
        raise ValueError(f"penalty_alpha must be in [0, 1], got {penalty_alpha}")
    if penalty_alpha is not None and (not top_k or do_sample or num_beams > 1):
        raise ValueError("penalty_alpha wants top_k, and neither do_sample nor num_beams")
    speculative = (assistant_model is not None) + (prompt_lookup_num_tokens is not None)
    if speculative > 1 or (speculative and (num_beams > 1 or penalty_alpha is not None)):
        raise ValueError("assistant_model, prompt_lookup_num_tokens, num_beams and penalty_alpha exclude each other")
