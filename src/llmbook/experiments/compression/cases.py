"""What is compressed, and how it is measured: the GPT of ToyWorld at a seed, and the real model."""

from __future__ import annotations

import copy
import functools
import tempfile
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from llmbook import corpora, pretrained, zoo
from llmbook.compression import quantization, storage
from llmbook.compression.calibration import InputStatistics, input_statistics
from llmbook.compression.quality import TextBits, text_bits
from llmbook.evaluation import Estimate, mean_and_error
from llmbook.experiments import sweep
from llmbook.training import TrainingArguments, row_logprobs
from llmbook.transformer import GPT

HELD_OUT, CALIBRATION = 300, 200  # stories
TEST_ARTICLES, ARTICLES, TOKENS = 12, 12, 256  # of Lee news: measured on, calibrated on, tokens of each of these


@dataclass(eq=False)
class Case:
    """A whole model, and the one that a method starts from: at first the whole one, later what another method left.

    The seed chooses the calibration text and, with ToyWorld, the model.
    """

    seed: int
    start: GPT | None = None
    model: ClassVar[str]

    @property
    def base(self) -> GPT:
        """The whole model: never changed."""
        raise NotImplementedError

    @property
    def batches(self) -> list[Tensor]:
        """Calibration text, ids (B, T)."""
        raise NotImplementedError

    def cost(self, model: GPT) -> Estimate:
        """What compression cost, in the model's unit, against the whole model on the same text."""
        raise NotImplementedError

    def fresh(self) -> GPT:
        """A copy of what a method starts from."""
        return copy.deepcopy(self.start or self.base)

    def on(self, start: GPT) -> Self:
        """The same case for a second method, which starts from what a first one left."""
        return replace(self, start=start)

    @functools.cached_property
    def statistics(self) -> dict[str, InputStatistics]:
        """What the layers of the model to start from are fed."""
        return input_statistics(self.start or self.base, self.batches)


class Toy(Case):
    """The GPT of ToyWorld; nats per token."""

    model = "toyworld-gpt"

    @property
    def base(self) -> GPT:
        return _toy_base(self.seed)

    @property
    def stories(self) -> list[np.ndarray]:
        """Rows that neither the model was trained on nor is measured on."""
        return _toy_stories(self.seed)

    @property
    def batches(self) -> list[Tensor]:
        return [torch.as_tensor(row)[None] for row in self.stories[:CALIBRATION]]

    def cost(self, model: GPT) -> Estimate:
        _, rows, _, numbers = sweep.held_out(HELD_OUT)
        return mean_and_error(_toy_logprobs(self.seed) - row_logprobs(model, rows), numbers)

    def arguments(self, steps: int, learning_rate: float) -> TrainingArguments:
        """Of a retraining: batches of eight stories, a rate that ends at zero."""
        return TrainingArguments(
            max_steps=steps, batch_size=8, block_size=sweep.LONGEST, learning_rate=learning_rate,
            warmup_steps=max(1, steps // 20), min_lr_ratio=0.0, weight_decay=0.01, adam_beta2=0.98, seed=self.seed,
        )  # fmt: skip


@functools.lru_cache(maxsize=1)
def _toy_base(seed: int) -> GPT:
    return zoo.toyworld_gpt(seed)


@functools.lru_cache(maxsize=1)
def _toy_stories(seed: int) -> list[np.ndarray]:
    return sweep.rows_of(sweep.stories(8000, 10**5 + seed))


@functools.lru_cache(maxsize=1)
def _toy_logprobs(seed: int) -> np.ndarray:
    return row_logprobs(_toy_base(seed), sweep.held_out(HELD_OUT)[1])


@dataclass(eq=False)
class Real(Case):
    """SmolLM2; bits per character of news. ``articles`` are calibrated on."""

    articles: int = ARTICLES
    model = "smollm2"

    @property
    def base(self) -> GPT:
        return _real_base()

    @property
    def batches(self) -> list[Tensor]:
        """Articles from the hundredth on, the first tokens of each that is long enough, in an order of the seed."""
        tokenizer, articles = _tokenizer(), _articles()[100:]
        coded = (tokenizer.encode(articles[i]).ids for i in np.random.default_rng(self.seed).permutation(len(articles)))
        rows = [ids[:TOKENS] for ids in coded if len(ids) >= TOKENS][: self.articles]
        return list(torch.tensor(rows).split(4))

    def cost(self, model: GPT) -> Estimate:
        return _real_bits(model).above(_real_base_bits())


@functools.lru_cache(maxsize=1)
def _real_base() -> GPT:
    return pretrained.to_gpt(pretrained.find("smollm2"))


@functools.lru_cache(maxsize=1)
def _real_base_bits() -> TextBits:
    return _real_bits(_real_base())


def _real_bits(model: GPT) -> TextBits:
    return text_bits(model, _tokenizer(), _articles()[:TEST_ARTICLES])


@functools.lru_cache(maxsize=1)
def _tokenizer() -> Tokenizer:
    return pretrained.tokenizer("smollm2")  # reads 49,152 tokens


def _articles() -> list[str]:
    return corpora.gensim_file("lee_background.cor").read_text(encoding="utf-8").splitlines()


CASES: dict[str, type[Case]] = {case.model: case for case in (Toy, Real)}


def stored(model: GPT, dtype: str) -> tuple[int, GPT]:
    """Bytes of the model on disk, and the model that is read back from there, its weights unpacked."""
    with tempfile.TemporaryDirectory() as folder:
        size = storage.save(model, folder, dtype=dtype)
        return size, quantization.dequantize_model(storage.load(folder))
