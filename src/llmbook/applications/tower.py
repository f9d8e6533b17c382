"""A dense retriever for ToyWorld: one encoder for queries and passages, trained by contrast.

A query is to be nearer to its own passage than to the others in its batch (van den Oord et al., 2018; Karpukhin et
al., 2020). Queries say when a story happened and who was there; half of them in other words than the story's.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from llmbook import zoo
from llmbook.files import fingerprint
from llmbook.toyworld import ToyWorld
from llmbook.toyworld.story import Story
from llmbook.training import TrainingArguments, fit
from llmbook.transformer import Encoder, GPTConfig

# ------------------------------------------------------------ what is asked of ToyWorld

OTHER_WORDS = {
    "morning": "dawn", "evening": "dusk", "afternoon": "noon",
    "nurse": "carer", "farmer": "grower", "teacher": "tutor", "driver": "chauffeur", "librarian": "archivist",
    "guard": "watchman", "dancer": "ballerina", "engineer": "technician",
}  # fmt: skip
STRANGERS = {"Anna": "Emma", "Mary": "Clara", "Tom": "David", "Peter": "Victor", "Kim": "Alex", "Robin": "Sam"}


def clue(story: Story) -> list[str]:
    """When it was and who was there: what tells one story from the others. "on Monday morning , the nurse Anna …"."""
    slots = [event.slots for event in story.events]
    people = [slot for event, slot in zip(story.events, slots, strict=True) if event.kind == "meet"]
    named = " and ".join(f"the {slot['job']} {slot['who']}" for slot in people)
    return f"{slots[0]['day']} {slots[0]['time']} , {named}".split()


def reworded(tokens: Sequence[str], table: dict[str, str] = OTHER_WORDS) -> list[str]:
    """The same with other words for some: by default, occupations and times of the day."""
    return [table.get(token, token) for token in tokens]


@functools.cache
def lexicon() -> dict[str, int]:
    """Ids of all that queries and passages say: the small world's words, the other words, and six strangers' names.

    No passage of any training holds a stranger.
    """
    known = [*ToyWorld("small").vocabulary, *OTHER_WORDS.values(), *STRANGERS.values()]
    return {word: i for i, word in enumerate(dict.fromkeys(known))}


def to_ids(rows: Sequence[Sequence[str]]) -> tuple[Tensor, Tensor]:
    """Rows of words as ids (B, T), padded on the right, and the mask (B, T), 0 on padding."""
    table = lexicon()
    if not rows or not all(rows):
        raise ValueError("rows must hold at least one row, and each at least one word")
    try:
        ids = [torch.tensor([table[word] for word in row]) for row in rows]
    except KeyError as error:
        raise ValueError(f"rows must be words of the lexicon, got {error.args[0]!r}") from None
    mask = nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in ids], batch_first=True)
    return nn.utils.rnn.pad_sequence(ids, batch_first=True), mask


# ------------------------------------------------------------ the dense retriever


class Tower(nn.Module):
    """An encoder whose mean state, scaled to length one, is a text's vector; queries and passages share it."""

    def __init__(self, config: GPTConfig, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.encoder = Encoder(config, generator=generator)

    def forward(self, input_ids: Tensor, mask: Tensor) -> Tensor:
        """Ids and mask (B, T) to vectors (B, C) of length one."""
        states = self.encoder(input_ids, mask)  # (B, T, C)
        weights = mask[..., None].to(states.dtype)
        return F.normalize((states * weights).sum(1) / weights.sum(1), dim=-1)

    @torch.no_grad()
    def encode(self, rows: Sequence[Sequence[str]], batch_size: int = 64) -> Tensor:
        """Vectors (N, C) of texts, each a list of words, in their order."""
        parts = [rows[i : i + batch_size] for i in range(0, len(rows), batch_size)]
        return torch.cat([self(*to_ids(part)) for part in parts])


def info_nce(queries: Tensor, passages: Tensor, temperature: float = 0.05) -> Tensor:
    """Mean surprise, in nats, at which passage of the batch is the query's own: vectors (B, C) of length one.

    −(1/B) Σᵢ log softmax(qᵢ · pⱼ / τ)ᵢ; passage i belongs to query i, the others are its negatives.
    """
    if queries.shape != passages.shape or queries.dim() != 2:
        raise ValueError(f"queries and passages must be of one shape (B, C), got {queries.shape} and {passages.shape}")
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, got {temperature}")
    return F.cross_entropy(queries @ passages.T / temperature, torch.arange(len(queries)))


@dataclass(frozen=True)
class TowerRecipe:
    """All that decides what the dense retriever learns. No story is read twice."""

    name: str = "toyworld-tower"
    n_embd: int = 96
    n_layer: int = 1
    n_head: int = 4
    n_positions: int = 160
    batch_size: int = 32
    max_steps: int = 250
    learning_rate: float = 3e-3
    warmup_steps: int = 30
    temperature: float = 0.05
    reworded: float = 0.5  # share of queries that are told in other words
    seed: int = 0
    code: str = field(default_factory=lambda: fingerprint(__file__))  # train anew when this file changes


def train_tower(recipe: TowerRecipe, folder: Path) -> None:
    """Train a dense retriever as the recipe says; write its weights to folder."""
    world, rng = ToyWorld("small"), np.random.default_rng([recipe.seed, 171])
    tower = new_tower(recipe)
    args = TrainingArguments(
        max_steps=recipe.max_steps, batch_size=recipe.batch_size, learning_rate=recipe.learning_rate,
        warmup_steps=recipe.warmup_steps, seed=recipe.seed, min_lr_ratio=0.0, adam_beta2=0.98, weight_decay=0.01,
    )  # fmt: skip

    def batch(step: int) -> dict[str, Tensor]:
        told = [world.story(rng) for _ in range(recipe.batch_size)]
        asked = [reworded(clue(s)) if rng.random() < recipe.reworded else clue(s) for s in told]
        return dict(zip(("queries", "query_mask"), to_ids(asked), strict=True)) | dict(
            zip(("passages", "passage_mask"), to_ids([s.words for s in told]), strict=True)
        )

    def loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        queries = model(batch["queries"], batch["query_mask"])
        return info_nce(queries, model(batch["passages"], batch["passage_mask"]), recipe.temperature)

    fit(tower, batch, args, loss_function=loss, progress=False)
    save_file({name: p.contiguous() for name, p in tower.state_dict().items()}, folder / "model.safetensors")


def new_tower(recipe: TowerRecipe) -> Tower:
    """A dense retriever before its training."""
    sizes = {name: getattr(recipe, name) for name in ("n_positions", "n_embd", "n_layer", "n_head")}
    config = GPTConfig(len(lexicon()), **sizes, positions="rotary", initializer_range=0.05)
    return Tower(config, generator=torch.Generator().manual_seed(recipe.seed))


def toyworld_tower(seed: int = 0) -> Tower:
    """The dense retriever of chapter 17, trained from its seed if it is not there; in evaluation mode."""
    recipe = TowerRecipe(seed=seed)
    tower = new_tower(recipe)
    tower.load_state_dict(load_file(zoo.kept(recipe, train_tower) / "model.safetensors"))
    return tower.eval()
