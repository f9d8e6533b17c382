"""Writers and summarisers of ToyWorld, trained once: stories by control tokens, summaries by an encoder–decoder.

Both are kept by :mod:`llmbook.zoo` under their recipe and under this file's own bytes.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_model, save_model
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from llmbook import decoding, zoo
from llmbook.applications import summarization
from llmbook.toyworld import Story, ToyWorld
from llmbook.training import Batch, TrainingArguments, fit, padded_batches
from llmbook.transformer import GPT, IGNORE, EncoderDecoder, GPTConfig

SHORT = 60  # tokens: a story of at most so many is short
LONGEST_SUMMARY = 36  # tokens, with room: the world's longest has 31


@cache
def world() -> ToyWorld:
    """The world of this chapter, the small one."""
    return ToyWorld("small")


def _code() -> str:
    files = (Path(__file__), Path(summarization.__file__))
    return hashlib.sha256(b"".join(path.read_bytes().replace(b"\r\n", b"\n") for path in files)).hexdigest()[:12]


# ------------------------------------------------------------------------------------------------ control


@dataclass(frozen=True)
class Control:
    """What is asked of a story: the tone of its end, a thing in it ("none" for no thing), and whether it is short."""

    tone: str
    thing: str
    short: bool

    @property
    def tokens(self) -> list[str]:
        """As words of the world, to stand before ``<bos>``."""
        return [self.tone, self.thing, "small" if self.short else "big"]


def control_of(tokens: Sequence[str], rng: np.random.Generator | None = None) -> Control:
    """What a whole story could have been asked for; of several things one is drawn, or the first taken.

    Raises ValueError for a text without an end.
    """
    text = list(tokens)
    if "that" not in text or text[-1] != "<eos>":
        raise ValueError(f"tokens must be a whole story that ends with <eos>, got {' '.join(text[-5:])!r}")
    things = list(dict.fromkeys(t for t in text if t in world().things)) or ["none"]
    thing = things[0 if rng is None else int(rng.integers(len(things)))]
    return Control(text[-4], thing, len(text) <= SHORT)


def fulfils(tokens: Sequence[str], control: Control) -> dict[str, bool]:
    """Which wishes a text fulfils: {"tone", "thing", "short"}. A text without its end has no tone and no length."""
    text = list(tokens)
    whole = text[-1:] == ["<eos>"] and len(text) > 4
    named = not any(t in world().things for t in text) if control.thing == "none" else control.thing in text
    return {
        "tone": whole and text[-4] == control.tone,
        "thing": named,
        "short": whole and (len(text) <= SHORT) == control.short,
    }


@dataclass(frozen=True)
class WriterRecipe:
    """The GPT of ToyWorld, trained on with three words about each story in front of it."""

    name: str = "toyworld-writer"
    max_steps: int = 300
    batch_size: int = 8
    learning_rate: float = 1e-3
    warmup_steps: int = 20
    seed: int = 0
    code: str = field(default_factory=_code)


def writer(seed: int = 0) -> GPT:
    """A GPT that writes what three control tokens ask for; trained from ``zoo.toyworld_gpt`` if it is not there."""
    return GPT.from_pretrained(zoo.kept(WriterRecipe(seed=seed), _train_writer))


def _train_writer(recipe: WriterRecipe, folder: Path) -> None:
    model = zoo.toyworld_gpt(recipe.seed)
    rng = np.random.default_rng(recipe.seed)
    told = world().stories(recipe.max_steps * recipe.batch_size, recipe.seed + 500)
    rows = [world().encode([*control_of(s.tokens, rng).tokens, "<bos>", *s.tokens]) for s in told]
    args = _arguments(recipe)
    batches = padded_batches(rows, args)

    def get_batch(step: int) -> Batch:
        batch = batches(step)
        labels = batch["labels"].clone()
        labels[:, :4] = IGNORE  # what is asked for is not to be learnt
        return {**batch, "labels": labels}

    fit(model, get_batch, args, progress=False)
    model.save_pretrained(folder)


def _arguments(recipe: WriterRecipe | SummarizerRecipe) -> TrainingArguments:
    names = ("batch_size", "max_steps", "learning_rate", "warmup_steps", "seed")
    rest = {"block_size": 128, "min_lr_ratio": 0.0, "adam_beta2": 0.98, "weight_decay": 0.01}
    return TrainingArguments(**{name: getattr(recipe, name) for name in names}, **rest)


def draft(
    model: GPT,
    prompts: Sequence[Sequence[str]],
    *,
    generator: torch.Generator,
    temperature: float = 1.0,
    longest: int = 118,
    logits_processor: Sequence[Callable[[Tensor, Tensor], Tensor]] = (),
) -> list[list[str]]:
    """One text behind each prompt, all of one length; what a text has behind its ``<eos>`` is cut off."""
    if len({len(prompt) for prompt in prompts}) != 1:
        raise ValueError(f"prompts must all have one length, got {sorted({len(prompt) for prompt in prompts})}")
    ids = torch.from_numpy(np.stack([world().encode(prompt) for prompt in prompts]))
    length = ids.shape[1]
    new = decoding.generate(
        model, ids, min(longest, model.config.n_positions - length), do_sample=True, temperature=temperature,
        eos_token_id=_end(), generator=generator, logits_processor=logits_processor,
    )[:, length:]  # fmt: skip
    return [_cut(row) for row in new]


def _end() -> int:
    return world().token_to_id["<eos>"]


def _cut(ids: Tensor) -> list[str]:
    """As tokens, with the first ``<eos>`` and nothing behind it."""
    tokens = world().decode(ids.tolist())
    return tokens[: tokens.index("<eos>") + 1] if "<eos>" in tokens else tokens


class PlanMask:
    """A processor for plans: no end before every planned word was said, no thing that is not planned.

    New text begins behind ``prompt_length`` ids; every story ends with a sentence that begins with "that".
    """

    def __init__(self, planned: Sequence[str], prompt_length: int) -> None:
        if unknown := [word for word in planned if word not in world().token_to_id]:
            raise ValueError(f"planned must be words of the world, got {unknown[0]!r}")
        self.planned = torch.tensor([world().token_to_id[word] for word in planned])
        self.others = torch.tensor([world().token_to_id[t] for t in world().things if t not in planned])
        self.close, self.prompt_length = world().token_to_id["that"], prompt_length

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        new = input_ids[:, self.prompt_length :]
        said = (new[:, :, None] == self.planned).any(1).all(-1)  # (B,)
        scores = scores.index_fill(1, self.others, -math.inf)
        scores[:, self.close] = scores[:, self.close].masked_fill(~said, -math.inf)
        return scores


# ------------------------------------------------------------------------------------------------ summaries


@dataclass(frozen=True)
class SummarizerRecipe:
    """An encoder–decoder from story to summary, from scratch. No story is read twice."""

    name: str = "toyworld-summarizer"
    n_embd: int = 96
    n_layer: int = 2
    n_head: int = 4
    max_steps: int = 1000
    batch_size: int = 16
    learning_rate: float = 2e-3
    warmup_steps: int = 60
    seed: int = 0
    code: str = field(default_factory=_code)


def summarizer(seed: int = 0) -> EncoderDecoder:
    """The summariser, trained if it is not there; in evaluation mode."""
    recipe = SummarizerRecipe(seed=seed)
    model = _blank(recipe)
    load_model(model, zoo.kept(recipe, _train_summarizer) / "model.safetensors")
    return model.eval()


def _blank(recipe: SummarizerRecipe) -> EncoderDecoder:
    sizes = {name: getattr(recipe, name) for name in ("n_embd", "n_layer", "n_head")}
    config = GPTConfig(
        len(world().vocabulary), n_positions=128, positions="rotary",
        initializer_range=0.02 * math.sqrt(768 / recipe.n_embd), **sizes,
    )  # fmt: skip
    return EncoderDecoder(config, generator=torch.Generator().manual_seed(recipe.seed))


def _train_summarizer(recipe: SummarizerRecipe, folder: Path) -> None:
    model, args = _blank(recipe), _arguments(recipe)
    told = world().stories(recipe.max_steps * recipe.batch_size, recipe.seed + 700)
    fit(model, _pairs(told, recipe), args, count_targets=_targets, progress=False)
    save_model(model, str(folder / "model.safetensors"))


def _targets(batch: Batch) -> int:
    return int((batch["labels"] != IGNORE).sum())


def _pairs(told: Sequence[Story], recipe: SummarizerRecipe) -> Callable[[int], Batch]:
    """Batches of stories of like length with their summaries, in an order from the seed."""
    rng, size = np.random.default_rng(recipe.seed), recipe.batch_size
    pools = [np.arange(i, min(i + 32 * size, len(told))) for i in range(0, len(told), 32 * size)]
    by_length = [pool[np.argsort([len(told[i].tokens) for i in pool], kind="stable")] for pool in pools]
    order = np.concatenate([rng.permutation(pool[: len(pool) // size * size].reshape(-1, size)) for pool in by_length])

    def get_batch(step: int) -> Batch:
        chosen = [told[i] for i in order[step % len(order)]]
        labels = [torch.from_numpy(world().encode([*s.summary, "<eos>"])) for s in chosen]
        return {**_sources(chosen), "labels": pad_sequence(labels, batch_first=True, padding_value=IGNORE)}

    return get_batch


def _sources(told: Sequence[Story]) -> dict[str, Tensor]:
    """Stories as padded ids (B, S) and their mask."""
    ids = [torch.from_numpy(world().encode(story.tokens)) for story in told]
    mask = pad_sequence([torch.ones_like(row) for row in ids], batch_first=True)
    return {"input_ids": pad_sequence(ids, batch_first=True), "attention_mask": mask}


@torch.inference_mode()
def summarize(
    model: EncoderDecoder,
    told: Sequence[Story],
    temperature: float = 0.0,
    generator: torch.Generator | None = None,
) -> list[list[str]]:
    """A summary of each story, without ``<eos>``: the likeliest token each time, or drawn at a temperature above 0.

    Raises ValueError for no stories, a temperature below 0, and one above 0 without a generator.
    """
    if not told:
        raise ValueError("told must hold at least one story, got none")
    if temperature < 0 or (temperature > 0 and generator is None):
        raise ValueError(f"temperature must be 0, or above it with a generator, got {temperature}")
    source = _sources(told)
    memory = model.encoder(**source)  # (B, S, C)
    ids, past = torch.zeros(len(told), 1, dtype=torch.long), None
    for _ in range(LONGEST_SUMMARY):
        output = model.decoder(
            ids if past is None else ids[:, -1:], past_key_values=past, use_cache=True, logits_to_keep=1,
            encoder_hidden_states=memory, encoder_attention_mask=source["attention_mask"],
        )  # fmt: skip
        past, scores = output.past_key_values, output.logits[:, -1]
        drawn = temperature > 0
        new = torch.multinomial((scores / temperature).softmax(-1), 1, generator=generator) if drawn else None
        ids = torch.cat([ids, scores.argmax(-1, keepdim=True) if new is None else new], 1)
        if bool((ids == _end()).any(1).all()):
            break
    return [[token for token in _cut(row[1:]) if token != "<eos>"] for row in ids]
