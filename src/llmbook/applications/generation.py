"""Stories as they are asked for, by control tokens in front of each.

The writer is kept by :mod:`llmbook.zoo` under its recipe and under this file's own bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from llmbook import decoding, zoo
from llmbook.files import fingerprint
from llmbook.toyworld import ToyWorld
from llmbook.training import Batch, TrainingArguments, fit, padded_batches
from llmbook.transformer import GPT, IGNORE

SHORT = 60  # tokens: a story of at most so many is short


@cache
def world() -> ToyWorld:
    """The world of this chapter, the small one."""
    return ToyWorld("small")


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
    max_steps: int = 600
    batch_size: int = 8
    learning_rate: float = 3e-3
    warmup_steps: int = 20
    seed: int = 0
    code: str = field(default_factory=lambda: fingerprint(__file__))


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


def _arguments(recipe: WriterRecipe) -> TrainingArguments:
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
