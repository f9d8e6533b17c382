"""A reader for ToyWorld: it points at the answer in a passage, or at nothing.

It is the encoder of chapter 05 over one row, ``<bos> passage <eos> question``. The state of the question's last
token is compared with that of each token of the passage, as a query with keys: the answer is where they agree best
(Devlin et al., 2019, with one pointer for two, since ToyWorld's answers are single tokens). ``<bos>`` stands for "the
passage does not say" (Rajpurkar et al., 2018). A row may hold several questions, which makes training cheaper.

It is told, too, which tokens of the passage are words of the question: the exact match of Chen et al. (2017). A
reader without it must learn for each name apart that the name asked about is the name told about. And a token may
stand for an earlier one, as a pronoun does for a name: it then counts as shared so far as that one does. For whom a
pronoun stands, nobody tells the reader; it learns that from the answers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from llmbook import zoo
from llmbook.applications.answering import Item, answerable, unanswerable
from llmbook.applications.tower import lexicon, to_ids
from llmbook.files import fingerprint
from llmbook.optimizers import muon_and_adamw
from llmbook.toyworld import ToyWorld
from llmbook.toyworld.story import BOS, EOS, Story
from llmbook.training import TrainingArguments, fit
from llmbook.transformer import Encoder, GPTConfig

NEIGHBOURS = 17  # tokens, the token itself in the middle: a sentence
ASKED_NEAR, FEATURES = 25, 24  # tokens around one of the question's words, and features made of where those are


class Reader(nn.Module):
    """An encoder behind a convolution over neighbours, so that who did what in a sentence is found at once; the
    state of each question's last token is compared with the states of the passage's, and with where the question's
    words stand among them."""

    def __init__(self, config: GPTConfig, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.encoder = Encoder(config, generator=generator)
        self.near = nn.Conv1d(config.n_embd, config.n_embd, NEIGHBOURS, padding=NEIGHBOURS // 2, bias=False)
        nn.init.normal_(self.near.weight, std=config.initializer_range, generator=generator)
        self.query = nn.Linear(config.n_embd, config.n_embd, bias=False)
        nn.init.normal_(self.query.weight, std=config.initializer_range, generator=generator)
        self.weight = nn.Embedding(config.vocab_size, 1)  # of a word that question and passage share
        nn.init.ones_(self.weight.weight)
        self.around = nn.Conv1d(1, FEATURES, ASKED_NEAR, padding=ASKED_NEAR // 2, bias=False)
        nn.init.normal_(self.around.weight, std=0.3, generator=generator)
        self.use = nn.Linear(config.n_embd, FEATURES)
        nn.init.normal_(self.use.weight, std=config.initializer_range, generator=generator)
        nn.init.zeros_(self.use.bias)
        self.refer = nn.Linear(config.n_embd, 2 * config.n_embd, bias=False)  # to whom a token may refer
        nn.init.normal_(self.refer.weight, std=config.initializer_range, generator=generator)
        self.nearer = nn.Parameter(torch.tensor(0.1))  # what a step back costs

    def forward(
        self, input_ids: Tensor, mask: Tensor, allowed: Tensor, row: Tensor, at: Tensor, length: Tensor
    ) -> Tensor:
        """Log-probabilities (Q, T) of where each question's answer is.

        Ids, padding (0) and where answers may be are (B, T); question q has ``length[q]`` words, the last of them in
        row ``row[q]`` at ``at[q]``, (Q,).
        """
        states = self.states(input_ids, mask)  # (B, T, C)
        asking = states[row, at]  # (Q, C)
        queries = self.query(asking)
        scores = torch.einsum("qc,qtc->qt", queries, states[row]) / queries.shape[-1] ** 0.5
        shared = self.shared(input_ids, allowed, row, at, length)  # (Q, T)
        shared = shared + allowed[row] * torch.einsum("qts,qs->qt", self.references(states)[row], shared)
        features = F.gelu(self.around(shared[:, None]))  # (Q, F, T)
        scores = scores + torch.einsum("qf,qft->qt", self.use(asking), features)
        return scores.masked_fill(allowed[row] == 0, -torch.inf).log_softmax(-1)

    def states(self, input_ids: Tensor, mask: Tensor) -> Tensor:
        """The encoder's states (B, T, C), each token having heard its neighbours first."""
        x = self.encoder.embed(input_ids)
        return self.encoder.blocks(x + self.near((x * mask[..., None]).mT).mT, mask)[0]

    def references(self, states: Tensor) -> Tensor:
        """How far each token stands for each earlier one, as a pronoun for a name: states (B, T, C) to (B, T, T)."""
        this, that = self.refer(states).chunk(2, dim=-1)
        place = torch.arange(states.shape[1], device=states.device)
        back = place[:, None] - place  # (T, T)
        scores = this @ that.mT / states.shape[-1] ** 0.5 - self.nearer * back
        return scores.masked_fill((back <= 0) & (place > 0), -torch.inf).softmax(-1)

    def shared(self, input_ids: Tensor, allowed: Tensor, row: Tensor, at: Tensor, length: Tensor) -> Tensor:
        """The weight of each token of the passage that is one of the question's words, 0 for the others: (Q, T)."""
        back = torch.arange(int(length.max()), device=at.device)  # 0 is the question's last word
        words = input_ids[row[:, None], (at[:, None] - back).clamp(min=0)]  # (Q, L)
        weight = self.weight(words)[..., 0] * (back < length[:, None])
        same = input_ids[row][:, :, None] == words[:, None, :]  # (Q, T, L)
        return (same * weight[:, None, :]).sum(-1) * allowed[row]


def encode(groups: Sequence[Sequence[Item]]) -> dict[str, Tensor]:
    """Groups of items, each on one passage, as tensors: what :class:`Reader` wants, and ``target`` (Q,).

    A row is ``<bos> passage <eos> question question …``. Target 0, ``<bos>``, means that the passage does not say.
    """
    if not groups or not all(groups):
        raise ValueError("groups must hold at least one group, and each at least one question")
    rows, row, at, targets, lengths = [], [], [], [], []
    for number, group in enumerate(groups):
        if any(item.passage != group[0].passage for item in group):
            raise ValueError("groups must hold questions on one passage each, got several passages in one")
        tokens = [BOS, *group[0].passage, EOS]
        for item in group:
            tokens += item.question
            row.append(number)
            at.append(len(tokens) - 1)
            lengths.append(len(item.question))
            targets.append(0 if item.target is None else 1 + item.target)
        rows.append(tokens)
    ids, mask = to_ids(rows)
    allowed = torch.zeros_like(ids)
    for line, group in zip(allowed, groups, strict=True):
        line[: 1 + len(group[0].passage)] = 1
    places = {"row": row, "at": at, "length": lengths, "target": targets}
    return {"input_ids": ids, "mask": mask, "allowed": allowed} | {k: torch.tensor(v) for k, v in places.items()}


class Answer(NamedTuple):
    """What a reader says: the word, or None; how sure it is of that; and the best word where it had to say one."""

    text: str | None
    confidence: float
    word: str
    mass: float  # that word's probability, silence counted among the answers


@torch.no_grad()
def read(reader: Reader, items: Sequence[Item], batch_size: int = 64) -> list[Answer]:
    """The reader's answers to the items, in their order. Probabilities of one word at several places are added."""
    reader.eval()
    order = sorted(range(len(items)), key=lambda i: len(items[i].passage))
    answers: list[Answer | None] = [None] * len(items)
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        batch = encode([[items[i]] for i in chosen])
        batch.pop("target")
        probs = reader(**batch).exp()  # (Q, T)
        for i, row in zip(chosen, probs.tolist(), strict=True):
            answers[i] = _answer(items[i], row)
    return answers


@torch.no_grad()
def referents(reader: Reader, item: Item) -> list[str | None]:
    """For each token of the item's passage the earlier word that it stands for most; None where for nobody."""
    batch = encode([[item]])
    weights = reader.references(reader.states(batch["input_ids"], batch["mask"]))[0]  # (T, T)
    best = weights.argmax(-1)[1 : 1 + len(item.passage)].tolist()
    return [item.passage[i - 1] if i else None for i in best]


def _answer(item: Item, row: list[float]) -> Answer:
    mass: Counter[str] = Counter()
    for token, p in zip(item.passage, row[1:], strict=False):
        mass[token] += p
    word, p = mass.most_common(1)[0]
    silent = row[0]
    return Answer(None, silent, word, p) if silent > p else Answer(word, p, word, p)


@dataclass(frozen=True)
class ReaderRecipe:
    """All that decides what the reader of ToyWorld learns. No story is read twice."""

    name: str = "toyworld-reader"
    n_embd: int = 96
    n_layer: int = 2
    n_head: int = 4
    n_positions: int = 224
    batch_size: int = 8  # stories
    questions: int = 8  # at most, on each story
    max_steps: int = 500
    learning_rate: float = 3e-3
    warmup_steps: int = 60
    silent: float = 0.15  # share of questions that the passage does not answer
    seed: int = 0
    code: str = field(default_factory=lambda: fingerprint(__file__))  # train anew when this file changes


def training_groups(recipe: ReaderRecipe) -> Iterator[list[list[Item]]]:
    """For each step a batch of stories with questions: one on each in every eighth step, else all that may be."""
    world, rng = ToyWorld("small"), np.random.default_rng([recipe.seed, 17])
    for step in range(recipe.max_steps):
        count = 1 if step % 8 == 7 else recipe.questions
        yield [_group(world.story(rng), world, count, recipe.silent, rng) for _ in range(recipe.batch_size)]


def _group(story: Story, world: ToyWorld, count: int, silent: float, rng: np.random.Generator) -> list[Item]:
    known = answerable(story)
    order = rng.permutation(len(known))[:count]
    return [unanswerable(story, world, rng) if rng.random() < silent else known[i] for i in order]


def train_reader(recipe: ReaderRecipe, folder: Path) -> None:
    """Train a reader as the recipe says; write its weights to folder."""
    reader, groups = new_reader(recipe), training_groups(recipe)
    args = TrainingArguments(
        max_steps=recipe.max_steps, batch_size=recipe.batch_size, learning_rate=recipe.learning_rate,
        warmup_steps=recipe.warmup_steps, seed=recipe.seed, min_lr_ratio=0.0, lr_scheduler_type="wsd",
        decay_fraction=0.3,
    )  # fmt: skip
    optimizer = muon_and_adamw(
        reader, recipe.learning_rate, weight_decay=0.01, betas=(0.9, 0.98), ns_dtype=torch.float32
    )
    fit(
        reader, lambda step: encode(next(groups)), args, optimizer=optimizer, loss_function=pointer_loss, progress=False
    )
    save_file({name: p.contiguous() for name, p in reader.state_dict().items()}, folder / "model.safetensors")


def pointer_loss(reader: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """Mean surprise, in nats, at where the answers are."""
    inputs = {name: value for name, value in batch.items() if name != "target"}
    return F.nll_loss(reader(**inputs), batch["target"])


def new_reader(recipe: ReaderRecipe) -> Reader:
    """A reader before its training."""
    sizes = {name: getattr(recipe, name) for name in ("n_positions", "n_embd", "n_layer", "n_head")}
    config = GPTConfig(len(lexicon()), **sizes, positions="rotary", initializer_range=0.05)
    return Reader(config, generator=torch.Generator().manual_seed(recipe.seed))


def load(recipe: ReaderRecipe, folder: Path) -> Reader:
    """The reader that :func:`train_reader` wrote, in evaluation mode."""
    reader = new_reader(recipe)
    reader.load_state_dict(load_file(folder / "model.safetensors"))
    return reader.eval()


def toyworld_reader(seed: int = 0) -> Reader:
    """The reader of chapter 17, trained from its seed if it is not there."""
    recipe = ReaderRecipe(seed=seed)
    return load(recipe, zoo.kept(recipe, train_reader))
