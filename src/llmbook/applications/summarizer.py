"""A summariser of ToyWorld, trained once: an encoder–decoder that may copy from what it reads (See et al., 2017).

Kept by :mod:`llmbook.zoo` under its recipe and under this file's own bytes. No story is read twice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_model, save_model
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from llmbook import zoo
from llmbook.applications.generation import world
from llmbook.files import fingerprint
from llmbook.toyworld import Story
from llmbook.training import Batch, TrainingArguments, fit
from llmbook.transformer import IGNORE, EncoderDecoder, GPTConfig
from llmbook.transformer.models import Output

LONGEST = 36  # tokens, with room: the world's longest summary has 31


class Copier(nn.Module):
    """An encoder–decoder whose next word is written or copied: p = (1 − g) · p_write + g · attention to the source.

    ``g`` is a share between 0 and 1 that the decoder chooses anew at each word; the attention has one head and its
    own weights. Without ``copies``, g is 0 and the model is :class:`EncoderDecoder`.
    """

    def __init__(self, config: GPTConfig, *, copies: bool = True, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.base, self.copies = EncoderDecoder(config, generator=generator), copies
        if copies:
            self.query = nn.Linear(config.n_embd, config.n_embd, bias=False)
            self.key = nn.Linear(config.n_embd, config.n_embd, bias=False)
            self.gate = nn.Linear(config.n_embd, 1)
            for weight in (self.query.weight, self.key.weight):
                nn.init.normal_(weight, 0.0, config.n_embd**-0.5, generator=generator)
            nn.init.zeros_(self.gate.weight)  # to begin with, half is copied
            nn.init.zeros_(self.gate.bias)

    def forward(self, input_ids: Tensor, labels: Tensor, attention_mask: Tensor) -> Output:
        """Source (B, S), its mask, and the summary as labels (B, T): log-probabilities (B, T, V), the mean loss."""
        memory = self.base.encoder(input_ids, attention_mask)
        read = F.pad(labels[:, :-1], (1, 0)).clamp(min=0)  # one step later, after a start of id 0
        output = self.base.decoder(read, encoder_hidden_states=memory, encoder_attention_mask=attention_mask)
        output.logits = self.mixed(output, memory, input_ids, attention_mask)
        output.loss = F.nll_loss(output.logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORE)
        return output

    def mixed(self, output: Output, memory: Tensor, input_ids: Tensor, mask: Tensor) -> Tensor:
        """Log-probabilities (B, t, V) of the last t tokens, t as many as there are logits."""
        if not self.copies:
            return output.logits.log_softmax(-1)
        hidden = output.last_hidden_state[:, -output.logits.shape[1] :]
        share, where = self.copying(hidden, memory, mask)
        written = (1 - share) * output.logits.softmax(-1)
        places = input_ids[:, None].expand(-1, hidden.shape[1], -1)
        return (written.scatter_add(-1, places, share * where) + 1e-9).log()

    def copying(self, hidden: Tensor, memory: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """The share that is copied (B, t, 1) and from where in the source (B, t, S)."""
        scores = self.query(hidden) @ self.key(memory).transpose(1, 2) / math.sqrt(memory.shape[-1])
        where = scores.masked_fill(mask[:, None] == 0, -math.inf).softmax(-1)
        return self.gate(hidden).sigmoid(), where


# ------------------------------------------------------------------------------------------------ training


@dataclass(frozen=True)
class SummarizerRecipe:
    """All that decides what the summariser becomes."""

    name: str = "toyworld-summarizer"
    copies: bool = True
    n_embd: int = 64
    n_layer: int = 2
    n_head: int = 4
    max_steps: int = 300
    batch_size: int = 32
    learning_rate: float = 6e-3
    warmup_steps: int = 50
    seed: int = 0
    code: str = field(default_factory=lambda: fingerprint(__file__))


def summarizer(seed: int = 0, *, copies: bool = True) -> Copier:
    """The summariser, trained if it is not there; in evaluation mode."""
    recipe = SummarizerRecipe(seed=seed, copies=copies)
    model = blank(recipe)
    load_model(model, zoo.kept(recipe, _train) / "model.safetensors")
    return model.eval()


def blank(recipe: SummarizerRecipe) -> Copier:
    """The model of a recipe before it has learnt anything."""
    config = GPTConfig(
        len(world().vocabulary), n_positions=128, n_embd=recipe.n_embd, n_layer=recipe.n_layer, n_head=recipe.n_head,
        n_inner=2 * recipe.n_embd, positions="rotary", initializer_range=0.02 * math.sqrt(768 / recipe.n_embd),
    )  # fmt: skip
    return Copier(config, copies=recipe.copies, generator=torch.Generator().manual_seed(recipe.seed))


def _train(recipe: SummarizerRecipe, folder: Path) -> None:
    names = ("batch_size", "max_steps", "learning_rate", "warmup_steps", "seed")
    rest = {"block_size": 128, "min_lr_ratio": 0.0, "adam_beta2": 0.98, "weight_decay": 0.01}
    args = TrainingArguments(**{name: getattr(recipe, name) for name in names}, **rest)
    model, told = blank(recipe), world().stories(recipe.max_steps * recipe.batch_size, recipe.seed + 700)
    fit(
        model, pairs(told, recipe), args, progress=False, loss_function=lambda m, batch: m(**batch).loss,
        count_targets=lambda batch: int((batch["labels"] != IGNORE).sum()),
    )  # fmt: skip
    save_model(model, str(folder / "model.safetensors"))


def pairs(told: Sequence[Story], recipe: SummarizerRecipe) -> Callable[[int], Batch]:
    """Batches of stories of like length with their summaries, in an order from the seed."""
    rng, size = np.random.default_rng(recipe.seed), recipe.batch_size
    pools = [np.arange(i, min(i + 32 * size, len(told))) for i in range(0, len(told), 32 * size)]
    by_length = [pool[np.argsort([len(told[i].tokens) for i in pool], kind="stable")] for pool in pools]
    order = np.concatenate([rng.permutation(pool[: len(pool) // size * size].reshape(-1, size)) for pool in by_length])

    def get_batch(step: int) -> Batch:
        chosen = [told[i] for i in order[step % len(order)]]
        labels = [torch.from_numpy(world().encode([*s.summary, "<eos>"])) for s in chosen]
        return {**sources(chosen), "labels": pad_sequence(labels, batch_first=True, padding_value=IGNORE)}

    return get_batch


def sources(told: Sequence[Story]) -> dict[str, Tensor]:
    """Stories as padded ids (B, S) and their mask."""
    ids = [torch.from_numpy(world().encode(story.tokens)) for story in told]
    mask = pad_sequence([torch.ones_like(row) for row in ids], batch_first=True)
    return {"input_ids": pad_sequence(ids, batch_first=True), "attention_mask": mask}


# ------------------------------------------------------------------------------------------------ writing


@torch.inference_mode()
def summarize(
    model: Copier,
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
    source, end = sources(told), world().token_to_id["<eos>"]
    memory = model.base.encoder(**source)  # (B, S, C)
    ids, past = torch.zeros(len(told), 1, dtype=torch.long), None
    for _ in range(LONGEST):
        output = model.base.decoder(
            ids if past is None else ids[:, -1:], past_key_values=past, use_cache=True, logits_to_keep=1,
            encoder_hidden_states=memory, encoder_attention_mask=source["attention_mask"],
        )  # fmt: skip
        past = output.past_key_values
        scores = model.mixed(output, memory, source["input_ids"], source["attention_mask"])[:, -1]  # (B, V)
        if temperature > 0:
            new = torch.multinomial((scores / temperature).softmax(-1), 1, generator=generator)
        else:
            new = scores.argmax(-1, keepdim=True)
        ids = torch.cat([ids, new], 1)
        if bool((ids == end).any(1).all()):
            break
    return [_until_end(world().decode(row.tolist())) for row in ids[:, 1:]]


def _until_end(tokens: list[str]) -> list[str]:
    return tokens[: tokens.index("<eos>")] if "<eos>" in tokens else tokens
